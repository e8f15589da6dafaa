"""Parties: every way of departing, told once and with its cause."""

import pytest

from bridge.domain.rules import Rules
from tests.unit.domain.room_world import NO_MEDIA, causes, heard, inside, room_of
from tests.unit.world import World


def test_a_leave_is_decided_by_its_category_and_forces_the_media() -> None:
    world = room_of("ann", "bob")
    world.party("T", "ann", "ann1", mediaSession={"audio": True})
    [event] = world.leaves("T", "ann", "ann1", offline=True, mediaSession={"audio": True}, bye=1)["bob1"]
    assert (event["category"], event["cause"]) == ("app.event.presence.party.leaves", "left")
    assert event["content"] == {
        "offline": False,
        "idle": False,
        "role": None,
        "sessionId": "ann1",
        "bye": 1,
        "mediaSession": NO_MEDIA,
    }
    assert event["changed"] == ["mediaSession", "bye"]
    assert event["version"] > 0
    assert world.leaves("T", "ann", "ann1") == {}
    assert inside(world) == ["bob1"]


def test_the_removed_are_all_parties_of_the_attendee_told_once_and_to_them_too() -> None:
    world = room_of("ann", "bob", "eve")
    world.register("ann", "ann2")
    world.party("T", "ann", "ann2")
    remove = {"attendee": {"attendeeType": "userId", "attendee": "ann"}}
    answer = world.room("T", "party.removed", "admin", **remove)
    assert {name: len(events) for name, events in answer.items()} == dict.fromkeys(("ann1", "ann2", "bob1", "eve1"), 1)
    [event] = answer["ann1"]
    assert (event["category"], event["cause"], event["aggregate"]) == ("party.removed", "removed", None)
    assert (event["sender"]["_id"], event["content"], event["parties"]) == ("admin", remove, ["ann1", "ann2"])
    assert inside(world) == ["bob1", "eve1"]
    assert world.room("T", "party.removed", "admin", **remove) == {}
    assert world.leaves("T", "ann", "ann1") == {}


def test_an_anonymous_attendee_and_a_user_of_the_same_name_are_two() -> None:
    world = room_of("bob")
    world.party("T", "x", "x1")
    world.party("T", "x", "x2", kind="anonymous")
    world.party("T", "CA1", "CA1", kind="phone")
    world.room("T", "party.removed", "bob", attendee={"attendeeType": "anonymousId", "attendee": "x"})
    assert inside(world) == ["bob1", "x1", "CA1"]
    world.room("T", "party.removed", "bob", attendee={"attendeeType": "userId", "attendee": "CA1"})
    assert inside(world) == ["bob1", "x1"]


def test_an_endpoint_that_ends_takes_its_parties_along() -> None:
    world = room_of("ann", "bob")
    world.party("U", "bob", "bob1")
    world.party("U", "ann", "other", endpointId="ann1")
    answer = world.call_told("unregister_endpoint", ["ann1"])
    assert causes(answer) == {"bob1": ["left", "left"]}
    assert [event["topicId"] for event in heard(answer)["bob1"]] == ["T", "U"]
    assert inside(world) == inside(world, "U") == ["bob1"]


def test_an_endpoint_that_expires_takes_its_parties_along() -> None:
    world = room_of("bob")
    world.register("ann", "ann1", 10)
    world.party("T", "ann", "ann1")
    answer = world.pass_seconds(12)
    assert causes(answer) == {"bob1": ["expired"]}
    assert causes(world.pass_seconds(20)) == {}


@pytest.mark.parametrize("announced", [True, False])
def test_a_will_ends_the_party_of_its_connection(announced: bool) -> None:
    world = room_of("ann", "bob")
    world.party("T", "ann", "other", endpointId="ann1")
    if announced:
        world.online("ann", "ann1")
    answer = world.offline("ann", "ann1")
    assert causes(answer) == {"bob1": ["connection_lost", "connection_lost"]}
    assert causes(world.offline("ann", "ann1")) == {}
    assert world.offline("ann") == {}
    assert inside(world) == ["bob1"]


def test_another_connection_or_a_nameless_one_ends_no_party() -> None:
    world = room_of("ann", "bob")
    world.online("ann", "c1")
    world.online("ann")
    assert causes(world.offline("ann", "c1")) == causes(world.offline("ann")) == {}
    assert inside(world) == ["ann1", "bob1"]


def test_a_connection_whose_lease_ends_takes_its_party_along() -> None:
    world = room_of("ann", "bob", rules=Rules(lease_ms=5_000))
    world.online("ann", "ann1")
    assert causes(world.pass_seconds(7)) == {"bob1": ["expired"]}


def test_a_silent_party_expires_where_a_lease_is_set() -> None:
    world = World(Rules(party_lease_ms=10_000))
    world.register("bob", "bob1")
    world.party("T", "bob", "bob1")
    world.party("T", "ann", "s9")
    for _ in range(3):
        world.say("users/endpoints/bob1/keepalive")  # its endpoint's sign of life is its own
        assert causes(world.pass_seconds(6)) == {}
        world.party("T", "ann", "s9")
    world.say("users/endpoints/bob1/keepalive")
    world.pass_seconds(9)
    world.room("T", "party.typing", "ann", "s9")  # whatever it says
    world.pass_seconds(9)
    assert inside(world) == ["s9"]
    world.pause_seconds(60)  # an outage expires nobody
    world.pass_seconds(9)
    assert inside(world) == ["s9"]
    world.register("eve", "eve1")
    world.party("T", "eve", "eve1")
    assert causes(world.pass_seconds(2)) == {"eve1": ["expired"]}
    assert causes(world.pass_seconds(20)) == {}


def test_without_a_lease_nobody_expires() -> None:
    world = room_of("bob")
    world.party("T", "ann", "s9")
    assert world.deadlines().keys() == {"user:bob"}


def test_an_empty_room_leaves_nothing_behind_once_its_last_is_forgotten() -> None:
    world = room_of("ann")
    world.leaves("T", "ann", "ann1")
    assert world.stored() == {"user:ann", "party:T:ann1"}
    world.jump_seconds(600 + 1)
    assert world.stored() == {"user:ann"}
    assert "parties" not in (world.record("user:ann") or {})
