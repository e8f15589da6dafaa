"""Routing: what each word of an audience means, and what a route makes of an event's messages."""

import json

import pytest

from bridge.domain.routes import RouteEntry
from bridge.domain.rules import Rules
from tests.unit.world import World, message, told, types_of


def scene(*overrides: RouteEntry) -> World:
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
        (("organization",), {"ann", "bob", "cat", "eve"}),
        (("session", "organization"), {"ann", "bob", "cat", "eve"}),
        ((), set()),
    ],
)
def test_each_word(audience: tuple[str, ...], heard: set[str]) -> None:
    assert set(scene(RouteEntry("UserPresenceChangedEvent", audience)).online("ann")) == heard


def test_qos_0_of_a_route() -> None:
    world = scene(RouteEntry("UserPresenceChangedEvent", qos=0))
    assert {output.qos for output in world.feed(message("presence/users/ann", "online"))} == {0}
    assert world.all_acknowledged


def test_every_copy_of_an_event_is_the_same_event() -> None:
    outputs = scene().feed(message("presence/users/ann", "online"))
    assert len({(output.payload, output.event_id) for output in outputs}) == 1
    events = [event for one in told(outputs).values() for event in one]
    assert types_of(events) == ["UserPresenceChangedEvent"] * 3
    assert {event["id"] for event in events} == {outputs[0].event_id}


def test_the_organization_is_every_endpoint_of_it_and_of_no_other() -> None:
    world = World(prefix="{organization}/", overrides=[RouteEntry("UserPresenceChangedEvent", ("organization",))])
    for organization in ("acme", "blue"):
        for user in ("ann", "bob"):
            params = {"userId": user, "userEndpointId": f"{organization}-{user}", "keepAliveSeconds": 600}
            world.call("register_endpoint", params, prefix=f"{organization}/")
    assert set(world.say("acme/presence/users/cat", "online")) == {"acme-ann", "acme-bob"}
    assert set(world.say("blue/presence/users/cat", "online")) == {"blue-ann", "blue-bob"}


def test_the_organization_is_as_it_stands_after_all_that_came_before_in_the_same_batch() -> None:
    world = scene(RouteEntry("UserPresenceChangedEvent", ("organization",)))
    heard = told(
        world.feed(
            message("rpc/unregister_endpoint", {"userEndpointId": "ann"}),
            message("rpc/register_endpoint", {"userId": "dan", "userEndpointId": "dan", "keepAliveSeconds": 60}),
            message("rpc/register_endpoint", {"userId": "bob", "userEndpointId": "b2", "keepAliveSeconds": 60}),
            message("presence/users/cat", "online"),
        )
    )
    assert {name for name, events in heard.items() if "UserPresenceChangedEvent" in types_of(events)} == {
        "bob",
        "b2",
        "cat",
        "eve",
        "dan",
    }
    assert set(world.online("dan")) == {"bob", "b2", "cat", "eve", "dan"}
    world.jump_seconds(61)
    assert set(world.offline("cat")) == {"bob", "cat", "eve"}


def test_a_relay_may_go_to_the_whole_organization() -> None:
    assert set(scene(RouteEntry("JoinSessionEvent", ("organization",))).join("s2", "ann")) >= {"cat", "eve"}


def test_a_keepalive_of_nobody_is_not_told_to_the_organization() -> None:
    world = scene(RouteEntry("UserEndpointExpiredEvent", ("endpoint", "organization")))
    assert set(world.say("users/endpoints/nobody/keepalive")) == {"nobody"}


def test_a_route_may_let_events_expire_and_be_retained() -> None:
    world = scene(RouteEntry("UserPresenceChangedEvent", ("self",), 1, 30, True))
    [output] = world.feed(message("presence/users/ann", "online"))
    assert (output.expiry_seconds, output.retain) == (30, True)
    others = world.feed(message("presence/users/ann/status", 1))
    assert {(output.expiry_seconds, output.retain) for output in others} == {(0, False)}


@pytest.mark.parametrize("ends_by", ["unregister", "expiry", "a late keepalive"])
def test_what_is_retained_for_an_endpoint_goes_with_it(ends_by: str) -> None:
    world = World(overrides=[RouteEntry("UserStatusChangedEvent", ("self",), retain=True)])
    world.register("ann", "a1", 60)
    world.say("presence/users/ann/status", 1)
    before = len(world.broker.outputs)
    if ends_by == "unregister":
        world.call("unregister_endpoint", {"userEndpointId": "a1"})
    elif ends_by == "expiry":
        world.jump_seconds(61)
    else:
        world.say("users/endpoints/a2/keepalive")
    outputs = [output for output in world.broker.outputs[before:] if not output.correlation]
    assert [(output.retain, bool(output.payload)) for output in outputs] == [(False, True), (True, False)]
    assert len({output.topic for output in outputs}) == 1


def test_a_renamed_reminder_carries_its_new_name_and_its_route() -> None:
    rules = Rules(reminder_event="AreYouThereEvent")
    world = World(rules, overrides=[RouteEntry("AreYouThereEvent", qos=0, expiry_seconds=20)])
    world.register("ann", "a1", 60, serverKeepAliveReminderOn=True)
    before = len(world.broker.outputs)
    world.jump_seconds(41)
    [output] = world.broker.outputs[before:]
    assert json.loads(output.payload)["type"] == "AreYouThereEvent"
    assert (output.qos, output.expiry_seconds) == (0, 20)
