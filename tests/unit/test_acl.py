"""The access rules as text; that a real Mosquitto keeps to them is in tests/integration/test_isolation.py."""

from pathlib import Path
from typing import Any

import pytest

from bridge.acl import access_rules
from bridge.config import load_settings
from bridge.domain.topics import INPUTS
from bridge.errors import ConfigError
from bridge.settings import Settings, Topics

ROOT = Path(__file__).parents[2]
BY_USER = {"endpoint": "user/{user}/{endpoint}"}


def settings(**given: Any) -> Settings:
    return Settings.model_validate({"mqtt": {"username": "bridge"}, "endpoints": {"id_policy": "bound"}, **given})


def lines(found: Settings, organization: str | None = None) -> list[str]:
    return access_rules(found, organization).splitlines()


def refused(found: Settings, organization: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        access_rules(found, organization)
    return str(caught.value)


def test_the_shipped_file_is_what_the_command_prints_for_the_shipped_configuration() -> None:
    production = load_settings(ROOT / "config" / "bridge.production.toml", None, {})
    assert (ROOT / "mosquitto" / "acl").read_text() == access_rules(production)


def test_every_input_has_its_rule() -> None:
    given = access_rules(settings())
    for source in INPUTS:
        template: str = getattr(Topics(), source)
        assert f"write {template.partition('{')[0]}" in given, source


def test_everybody_hears_the_endpoint_of_its_name_and_client_id() -> None:
    found = lines(settings())
    assert [line for line in found if line.startswith("pattern read")] == [
        "pattern read users/endpoints/%u~%c",
        "pattern read clients/%u/replies/#",
    ]
    assert "pattern write users/endpoints/%u~%c/keepalive" in found


def test_nobody_but_the_bridge_may_write_to_an_endpoint() -> None:
    found = lines(settings())
    assert found[-2:] == ["user bridge", "topic readwrite #"]
    for line in found[:-2]:
        assert not line.endswith(("write users/endpoints/%u~%c", "write users/endpoints/+", "#")) or " read " in line


@pytest.mark.parametrize("policy", ["free", "bound"])
def test_with_the_user_in_the_template_the_branch_is_the_users(policy: str) -> None:
    found = lines(settings(topics=BY_USER, endpoints={"id_policy": policy}))
    assert "pattern read user/%u/#" in found
    assert any(line.endswith("/keepalive") for line in found if line.startswith("pattern")) == (policy == "bound")


def test_a_user_behind_the_endpoint_needs_bound_ids() -> None:
    behind = {"endpoint": "e/{endpoint}/{user}"}
    assert "pattern read e/%u~%c/%u" in lines(settings(topics=behind))
    assert "names no user before the endpoint" in refused(settings(topics=behind, endpoints={}))


def test_prefix_templates_and_names_are_those_in_force() -> None:
    found = lines(settings(prefix="site/", topics={"rpc": "calls/{method}"}, mqtt={"username": "the bridge"}))
    assert "pattern read site/users/endpoints/%u~%c" in found
    assert "topic write site/calls/+" in found
    assert "user the bridge" in found
    assert not [
        line for line in found if line.startswith(("pattern", "topic read ", "topic write ")) and "site/" not in line
    ]


def test_a_tenants_rules_hold_its_name_and_not_the_bridge() -> None:
    found = lines(settings(prefix="{organization}/", mqtt={}), "acme")
    assert "pattern read acme/users/endpoints/%u~%c" in found
    assert not [line for line in found if "readwrite" in line or "{" in line]


@pytest.mark.parametrize(
    ("given", "organization", "choose"),
    [
        (
            {"endpoints": {}},
            None,
            'choose endpoints.id_policy = "bound" (ids of <user>~<client id>), or topics.endpoint = "user/',
        ),
        ({"mqtt": {}}, None, "mqtt.username is empty"),
        ({"mqtt": {"username": "service"}}, None, "choose another name"),
        ({"mqtt": {"username": "b\ntopic readwrite #"}}, None, "choose another name"),
        ({"prefix": "{organization}/"}, None, "printed with --organization NAME"),
        ({"prefix": "{organization}/"}, "a/#", "use 1..64"),
        ({}, "acme", "leave it out"),
        ({"prefix": "%u/"}, None, "prefix holds %u"),
        ({"topics": {"room": "%c/{room}"}}, None, "room holds %u or %c"),
        ({"topics": {**BY_USER, "room": "user/{room}/at/once"}}, None, "topics.room, user/{room}/at/once, lies in"),
        ({"topics": {**BY_USER, "replies": "user/service/to/"}}, None, "topics.replies"),
    ],
)
def test_what_cannot_isolate_is_refused_with_what_to_choose(
    given: dict[str, Any], organization: str | None, choose: str
) -> None:
    assert choose in refused(settings(**given), organization)
