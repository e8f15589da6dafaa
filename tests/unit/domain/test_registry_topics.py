"""Registry topics: what they show of a subject, when they change, and that a crash never brings an old record back."""

import json
from typing import Any

import pytest

from bridge.adapters.memory import Ranks
from bridge.domain.rules import Rules
from tests.unit.world import World, message

ANN = "registry/users/ann"
LAMP = "registry/devices/lamp"


@pytest.fixture
def world() -> World:
    return World(registry_topics=True)


def shown(world: World, topic: str) -> Any:
    payload = world.retained.get(topic)
    return payload and json.loads(payload)


def writes(world: World) -> int:
    """How often a retained topic was written so far."""
    return sum(output.retain for output in world.broker.outputs)


def test_the_record_as_it_stands_after_the_event(world: World) -> None:
    world.register("eve", "eve", watch=["*"])
    world.say("presence/users/ann/status", {"mood": "good"})
    [event] = world.online("ann")["eve"]
    assert shown(world, ANN) == {
        name: event[name]
        for name in ("organizationId", "about", "version", "timestamp", "uuid", "online", "busy", "status")
    }
    assert shown(world, ANN) == {
        "organizationId": "default",
        "about": "user/ann",
        "version": event["version"],
        "timestamp": event["timestamp"],
        "uuid": "ann",
        "online": True,
        "busy": False,
        "status": {"mood": "good"},
    }


def test_it_follows_every_change_of_what_it_shows(world: World) -> None:
    world.online("lamp", kind="device")
    assert shown(world, LAMP)["status"] is None
    world.say("presence/devices/lamp/status", 7)
    assert shown(world, LAMP)["status"] == 7
    world.session("s", "JoinSessionEvent", sessionDevices=["lamp"], sessionParticipants=["p"])
    assert shown(world, LAMP)["busy"]
    assert shown(world, "registry/participants/p") == shown(world, "registry/participants/p") | {
        "online": False,
        "busy": True,
    }
    world.offline("lamp", kind="device")
    assert (shown(world, LAMP)["online"], shown(world, LAMP)["status"]) == (False, None)
    world.stop("s")
    assert world.retained == {}


def test_nothing_is_written_where_it_shows_the_same(world: World) -> None:
    world.register("ann", "a1", watch=["device:lamp"])
    world.online("ann")
    before = writes(world)
    world.online("ann")
    world.online("ann", "tab")
    world.say("users/endpoints/a1/keepalive")
    world.say("presence/users/ann/status", 1)
    assert writes(world) == before + 1
    world.say("presence/users/ann/status", 1)
    assert writes(world) == before + 1


def test_many_changes_of_one_batch_are_one_write(world: World) -> None:
    before = writes(world)
    world.feed(*(message("presence/users/ann/status", number) for number in range(5)))
    assert writes(world) == before + 1
    assert shown(world, ANN)["status"] == 4


def test_a_subject_that_is_only_watched_has_no_topic(world: World) -> None:
    world.register("eve", "eve", watch=["user:ann"])
    assert ANN not in world.retained
    world.online("ann")
    assert ANN in world.retained
    world.offline("ann")
    assert ANN not in world.retained
    assert world.record("user:ann") is not None


def test_a_subject_with_an_endpoint_is_known_and_goes_with_its_expiry(world: World) -> None:
    world.register("ann", "a1", 60)
    assert shown(world, ANN)["online"] is False
    world.jump_seconds(61)
    assert world.retained == {}


def test_endpoints_may_count_as_online() -> None:
    world = World(Rules(from_endpoints=True), registry_topics=True)
    world.register("ann", "a1", 60)
    assert shown(world, ANN)["online"] is True


def test_under_its_organization() -> None:
    world = World(prefix="{organization}/", registry_topics=True)
    world.say("acme/presence/users/ann", "online")
    assert world.retained.keys() == {"acme/registry/users/ann"}


def test_without_a_prefix_only_the_default_organization_has_topics() -> None:
    world = World(registry_topics=True)
    params = {"userId": "ann", "userEndpointId": "x", "keepAliveSeconds": 60, "organizationId": "acme"}
    world.call("register_endpoint", params)
    assert world.retained == {}
    assert world.restarted(registry_topics=True).retained == {}


def test_an_input_is_acknowledged_only_with_its_topic(world: World) -> None:
    world.broker.settles = False
    world.online("ann")
    assert not world.receipts[-1].done
    world.broker.settle()
    assert world.receipts[-1].done


def test_a_record_that_the_broker_would_not_take_is_no_reason_to_show_an_older_one(world: World) -> None:
    world.online("ann")
    world.broker.largest_packet_bytes = 600
    world.say("presence/users/ann/status", ["x" * 600])
    assert ANN not in world.retained
    world.say("presence/users/ann/status", 7)
    assert shown(world, ANN)["status"] == 7


# The next run.


def test_the_journal_keeps_which_topics_are_owed_and_not_what_they_showed(world: World) -> None:
    world.tick()
    world.broker.settles = False
    world.online("ann")
    [(_, _, entry)] = world.owed
    assert (entry.outputs, entry.shown) == ([], ["user:ann"])


def test_a_crash_brings_no_old_record_back(world: World) -> None:
    world.tick()
    world.broker.settles = False
    world.online("ann")
    world.online("bob")
    world.say("presence/users/ann/status", 2)
    world.offline("bob")
    after = world.restarted(registry_topics=True, owed=world.owed)
    records = [output for output in after.broker.outputs if output.topic == ANN]
    assert {json.loads(output.payload)["status"] for output in records} == {2}
    assert "registry/users/bob" in {output.topic for output in after.broker.outputs}
    assert after.retained.keys() == {ANN}
    after.tick()
    assert after.journal() == {}


def test_what_is_owed_to_topics_that_are_switched_off_is_forgiven(world: World) -> None:
    world.tick()
    world.broker.settles = False
    world.online("ann")
    after = world.restarted(owed=world.owed)
    after.tick()
    assert (after.broker.outputs, after.journal()) == ([], {})


def test_a_start_writes_every_topic_anew_also_those_of_before_it_was_switched_on() -> None:
    before = World()
    for number in range(10):
        before.online(f"u{number}")
    before.register("eve", "eve", watch=["user:nobody"])
    before.say("presence/devices/lamp/status", 1)
    after = before.restarted(registry_topics=True)
    assert after.retained.keys() == {*(f"registry/users/u{number}" for number in range(10)), "registry/users/eve", LAMP}


def test_so_does_a_session_that_the_broker_lost_but_no_mere_reconnect(world: World) -> None:
    for number in range(10):
        world.online(f"u{number}")
    before = writes(world)
    world.connect(session_present=True)
    assert writes(world) == before
    world.connect(session_present=False)
    assert writes(world) == before + 10


def test_a_session_lost_during_the_walk_begins_it_again() -> None:
    world = World(registry_topics=True)
    for number in range(10):
        world.online(f"u{number}")
    before = writes(world)
    world.inbox.connected(2, session_present=False)
    world.inbox.connected(3, session_present=False)
    world.work()
    assert writes(world) == before + 10


def test_a_walk_lets_inputs_through(world: World) -> None:
    for number in range(10):
        world.online(f"u{number}")
    before = len(world.broker.outputs)
    world.inbox.connected(2, session_present=False)
    world.arrive(message("presence/users/zoe", "online"))
    topics = [output.topic for output in world.work()]
    assert "registry/users/zoe" in topics[:4]
    assert len(world.broker.outputs) >= before + 11


@pytest.mark.parametrize("spoilt", [b"7:1:{", b"7:9:{}", Ranks()])
def test_a_record_that_cannot_be_read_stops_no_walk(spoilt: Any) -> None:
    before = World()
    before.online("ann")
    before.online("bob")
    before.registry.organizations["default"]["user:ann"] = spoilt
    assert before.restarted(registry_topics=True).retained.keys() == {"registry/users/bob"}
