"""The route table: who hears what by default, and what the configuration may say instead."""

import pytest

from bridge.domain.routing import AUDIENCE, DEFAULT_ROUTES, routes
from bridge.errors import ConfigError
from tests.unit.world import World, message, told, types_of

# As in the contract's table of events.
PRESENCE, SESSION = {"self", "watchers", "session"}, {"session"}
AUDIENCES = {
    "UserPresenceChangedEvent": PRESENCE,
    "ParticipantPresenceChangedEvent": PRESENCE,
    "DevicePresenceChangedEvent": PRESENCE,
    "UserStatusChangedEvent": PRESENCE,
    "ParticipantStatusChangedEvent": PRESENCE,
    "DeviceStatusChangedEvent": PRESENCE,
    "JoinSessionEvent": SESSION,
    "StopSessionEvent": SESSION,
    "LeaveSessionEvent": SESSION,
    "JoinSessionReplyEvent": SESSION,
    "UserEndpointRegisteredEvent": {"others"},
    "UserEndpointUnregisteredEvent": {"others", "endpoint"},
    "UserEndpointExpiredEvent": {"others", "endpoint"},
    "UserEndpointStateChangedEvent": {"others"},
    "UserEndpointKeepAliveReminderEvent": {"endpoint"},
}


def test_the_default_table_is_the_contracts() -> None:
    table = routes([])
    assert {event: set(table[event].audience) for event in AUDIENCES} == AUDIENCES
    assert {route.qos for route in table.values()} == {1}
    assert table == DEFAULT_ROUTES


def test_the_configuration_changes_audience_or_qos() -> None:
    table = routes([("DeviceStatusChangedEvent", ("watchers",), 0), ("UserStatusChangedEvent", None, 0)])
    assert table["DeviceStatusChangedEvent"] == (("watchers",), 0)
    assert table["UserStatusChangedEvent"] == (DEFAULT_ROUTES["UserStatusChangedEvent"].audience, 0)
    assert routes([("UserStatusChangedEvent", (), None)])["UserStatusChangedEvent"].audience == ()
    assert DEFAULT_ROUTES["UserStatusChangedEvent"].qos == 1


def test_what_no_route_can_be() -> None:
    with pytest.raises(ConfigError, match="LampDimmedEvent"):
        routes([("LampDimmedEvent", None, None)])
    with pytest.raises(ConfigError, match="everybody"):
        routes([("UserStatusChangedEvent", ("everybody",), None)])
    assert set(AUDIENCE) >= {"self", "endpoint", "others", "watchers", "session"}


def scene(*overrides: tuple[str, tuple[str, ...] | None, int | None]) -> World:
    world = World(overrides=overrides)
    for user in ("ann", "bob", "cat", "eve"):
        world.register(user, user)
    world.register("eve", "eve", watch=["user:ann"])
    world.join("s1", "ann", "bob")
    return world


def test_self_watchers_and_members_and_nobody_else() -> None:
    assert set(scene().online("ann")) == {"ann", "bob", "eve"}
    assert set(scene().say("presence/users/ann/status", 1)) == {"ann", "bob", "eve"}
    assert set(scene().online("cat")) == {"cat"}


@pytest.mark.parametrize(
    ("audience", "heard"),
    [
        (("self",), {"ann"}),
        (("watchers",), {"eve"}),
        (("session",), {"ann", "bob"}),
        (("endpoint", "others"), set()),  # words that mean nothing for this event
        ((), set()),
    ],
)
def test_each_word(audience: tuple[str, ...], heard: set[str]) -> None:
    assert set(scene(("UserPresenceChangedEvent", audience, None)).online("ann")) == heard


def test_qos_0_of_a_route() -> None:
    world = scene(("UserPresenceChangedEvent", None, 0))
    assert {output.qos for output in world.feed(message("presence/users/ann", "online"))} == {0}
    assert world.all_acknowledged


def test_every_copy_of_an_event_is_the_same_event() -> None:
    outputs = scene().feed(message("presence/users/ann", "online"))
    assert len({(output.payload, output.event_id) for output in outputs}) == 1
    events = [event for one in told(outputs).values() for event in one]
    assert types_of(events) == ["UserPresenceChangedEvent"] * 3
    assert {event["id"] for event in events} == {outputs[0].event_id}
