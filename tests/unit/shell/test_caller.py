from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.settings import Settings
from bridge.shell.caller import Place


def place(organization: str | None = None, **settings: Any) -> Place:
    return Place(Settings.model_validate(settings), organization)


def test_topics_are_those_of_the_settings() -> None:
    assert place().topic("rpc", method="online_users") == "rpc/online_users"
    assert place().topic("endpoint") == "users/endpoints/+"
    here = place(prefix="{organization}/", topics={"endpoint": "user/{user}/{endpoint}"}, default_organization="acme")
    assert here.topic("endpoint", endpoint="e1") == "acme/user/+/e1"
    assert place("globex", prefix="{organization}/").topic("rpc", method="m") == "globex/rpc/m"


def test_an_organization_is_named_where_the_topic_does_not() -> None:
    assert place().named("online_users") == {}
    assert place("default").named("online_users") == {}
    assert place("acme").named("send_event") == {"organizationId": "acme"}
    assert place("acme", prefix="{organization}/").named("online_users") == {}
    with pytest.raises(ConfigError, match="ask over HTTP"):
        place("acme").named("online_users")
    with pytest.raises(ConfigError, match="--organization"):
        place("a/b")


def test_a_guest_never_has_the_bridges_client_id() -> None:
    settings = place(mqtt={"client_id": "unguessable", "username": "bridge"}).guest(["a/b"])
    assert (settings.client_id, settings.username, settings.subscriptions) == ("", "bridge", ["a/b"])
