"""A part of a batch by itself; what it does for the line is tested with the line."""

import pytest
from structlog.testing import capture_logs

from bridge.batch import Item, Part, items_of
from bridge.domain.commands import Ignore, ReportPresence
from bridge.domain.inputs import Input
from bridge.settlement import Held
from tests.unit.world import RpcError, World, message

ONLINE = ReportPresence("user", "ann", True)


def test_an_item_divided_and_put_together_again_is_the_same() -> None:
    item = Item("default", (Ignore(), ONLINE), held=Held(7, 9, None), inbound=Input("t", b"x"), is_part=True)
    [again] = items_of([(item, command) for command in item.commands])
    # Decided again after a conflict, half of an input is still half: its identity must not be journaled yet.
    assert again.is_part
    assert (again.organization, tuple(again.commands), again.held, again.inbound) == (
        item.organization,
        item.commands,
        item.held,
        item.inbound,
    )


def test_what_an_item_certainly_needs_is_wanted_in_one_trip() -> None:
    part = Part("default", 1_000_000)
    part.add(Item("default", (ONLINE, Ignore())))
    wants, owners = {}, set()  # type: ignore[var-annotated]
    part.want(wants, owners)
    assert wants["default"].keys == ["user:ann", "watchers"]
    assert owners == set()


# What the broker would not take.


def watched(*endpoints: str) -> World:
    world = World()
    for endpoint in endpoints:
        world.register("eve", endpoint, 86_400, watch=["*"])
    world.tick()
    return world


def test_an_output_that_the_broker_would_not_take_is_named_and_never_committed() -> None:
    world = watched("eve1")
    world.broker.largest_packet_bytes = 700
    before = world.journal()
    with capture_logs() as lines:
        told = world.say("presence/users/ann/status", {"text": "x" * 600})
    assert told == {}
    assert world.record("user:ann") is not None
    assert world.all_acknowledged
    assert world.counts["refused_by_broker"] == 1
    (entry,) = world.journal().keys() - before.keys()
    assert b"xxx" not in world.journal()[entry][1]
    (line,) = lines
    assert line["topic"] == "users/endpoints/eve1"
    assert line["broker_takes_bytes"] == 700
    assert "xxx" not in str(line)


def test_its_neighbours_are_sent() -> None:
    world = watched("eve1", "eve2")
    world.broker.largest_packet_bytes = 700
    world.arrive(
        message("presence/users/ann/status", {"text": "x" * 600}),
        message("presence/users/ann/status", {"text": "short"}),
    )
    assert {output.topic for output in world.work()} == {"users/endpoints/eve1", "users/endpoints/eve2"}
    assert world.counts["refused_by_broker"] == 2


def test_only_what_is_too_large_is_left_out_of_a_large_fan_out() -> None:
    endpoints = [f"eve{number}" for number in range(20)]
    world = watched(*endpoints)
    world.broker.largest_packet_bytes = 5_000
    told = world.say("presence/users/ann/status", {"text": "x" * 600})
    assert told.keys() == set(endpoints)
    assert world.counts["refused_by_broker"] == 0


def test_a_flood_of_them_is_a_line_a_second() -> None:
    world = watched("eve1")
    world.broker.largest_packet_bytes = 700
    with capture_logs() as lines:
        for number in range(5):
            world.say("presence/users/ann/status", {"text": "x" * 600 + str(number)})
        world.registry.now_ms += 1000
        world.say("presence/users/ann/status", {"text": "x" * 600})
    assert len(lines) == 2
    assert world.counts["refused_by_broker"] == 6


def test_an_answer_that_the_broker_would_not_take_becomes_an_error() -> None:
    world = World()
    for number in range(20):
        world.online(f"user-{number:050}")
    world.broker.largest_packet_bytes = 700
    with pytest.raises(RpcError, match=r"too_large: the answer has .* the broker takes packets of 700: pass limit"):
        world.call("online_users")
    assert len(world.call("online_users", {"limit": 5})) == 5
    assert world.counts["refused_by_broker"] == 0


def test_an_event_that_the_broker_would_not_take_is_refused_to_who_sends_it() -> None:
    world = watched("eve1")
    world.broker.largest_packet_bytes = 700
    event = {"type": "DoorOpenedEvent", "id": "e1", "timestamp": "2026-01-31T12:00:00.000Z", "text": "x" * 600}
    with pytest.raises(RpcError, match=r"too_large: the event has .* make it shorter"):
        world.call("send_event", {"userId": "eve", "event": event})
    assert world.call("send_event", {"userId": "eve", "event": {**event, "text": "short"}}) == 1


def test_where_not_even_the_error_fits_the_request_is_acknowledged() -> None:
    world = World()
    world.broker.largest_packet_bytes = 50
    assert world.feed(message("rpc/online_users", response_topic="replies/me")) == []
    assert world.all_acknowledged
    assert world.counts["refused_by_broker"] == 1
