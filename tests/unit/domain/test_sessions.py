"""Sessions: who is busy, who is told, stops that are remembered and stops in chunks."""

from typing import Any

import msgspec
import pytest

from bridge.domain.records import Session
from bridge.domain.rules import Rules
from bridge.domain.sessions import STOP_CHUNK, TOLD_CHUNK
from tests.unit.world import World, message, told, types_of

HOUR = 3600


def room(*users: str, **rest: Any) -> World:
    """A world where each user has one endpoint of the same name."""
    world = World(**rest)
    for user in users:
        world.register(user, user, 86_400)
    return world


# Relays and their audiences.


def test_join_is_relayed_to_the_invitees_with_the_fields_as_received() -> None:
    world = room("ann", "bob", "eve")
    fields = {"sessionUsers": ["ann", "bob"], "joinMsg": "hi", "sessionParameters": '{"a":1}', "more": [1, {"b": None}]}
    answer = world.session("s1", "JoinSessionEvent", **fields, id="mine", about="x", timestamp=5)
    assert set(answer) == {"ann", "bob"}
    for name in ("ann", "bob"):
        event = answer[name][0]
        assert event["type"] == "JoinSessionEvent"
        assert {key: event[key] for key in fields} == fields
        assert (event["about"], event["organizationId"]) == ("session/s1", "default")
        assert event["id"] != "mine"
        assert event["timestamp"].endswith("Z")
        # and each learns of both that they are busy now
        assert [(e["uuid"], e["busy"], e["cause"]) for e in answer[name][1:]] == [
            ("ann", True, "session_joined"),
            ("bob", True, "session_joined"),
        ]


def test_an_invitation_is_always_passed_on_but_nobody_becomes_busy_twice() -> None:
    world = room("ann", "bob")
    world.join("s1", "ann")
    answer = world.join("s1", "ann", "bob")
    assert types_of(answer["ann"]) == ["JoinSessionEvent", "UserPresenceChangedEvent"]
    assert [event["uuid"] for event in answer["ann"][1:]] == ["bob"]
    assert types_of(world.join("s2", "ann")["ann"]) == ["JoinSessionEvent"]
    assert world.call("sessions_of", ["user", "ann"]) == ["s1", "s2"]


def test_invitees_are_told_and_older_members_are_not() -> None:
    world = room("ann", "bob")
    world.join("s1", "ann")
    answer = world.join("s1", "bob")
    assert types_of(answer["bob"]) == ["JoinSessionEvent", "UserPresenceChangedEvent"]
    assert types_of(answer["ann"]) == ["UserPresenceChangedEvent"]  # as a member, of bob's presence


def test_leave_is_told_to_members_and_leavers() -> None:
    world = room("ann", "bob", "eve")
    world.join("s1", "ann", "bob")
    answer = world.leave("s1", "bob")
    assert types_of(answer["ann"]) == types_of(answer["bob"]) == ["LeaveSessionEvent", "UserPresenceChangedEvent"]
    assert answer["bob"][1]["cause"] == "session_left"
    assert world.call("session_members", ["s1"]) == {"users": ["ann"], "participants": [], "devices": []}
    # a leaver that was no member changes nothing, and the relay is passed on
    answer = world.leave("s1", "eve")
    assert {name: types_of(events) for name, events in answer.items()} == {
        "ann": ["LeaveSessionEvent"],
        "eve": ["LeaveSessionEvent"],
    }


def test_the_last_leave_leaves_nothing_behind() -> None:
    world = World()
    world.join("s1", "ann", "bob")
    world.leave("s1", "ann", "bob")
    assert (world.stored(), world.deadlines()) == (set(), {})


def test_a_leave_or_reply_of_another_session_changes_nothing() -> None:
    world = World()
    world.join("s1", "ann")
    world.leave("s2", "ann")
    world.reply("s2", "ann")
    assert world.call("busy_users") == ["ann"]
    assert "session:s2" not in world.stored()


@pytest.mark.parametrize("answer", ["REPLY_DENIED", "REPLY_BUSY", "REPLY_TIMEOUT", "REPLY_UNKNOWN", None, 0, 2, 3, 4])
def test_whoever_does_not_accept_is_free(answer: object) -> None:
    world = room("ann", "bob")
    world.join("s1", "ann", "bob")
    events = world.reply("s1", "bob", answer)
    assert types_of(events["ann"]) == ["JoinSessionReplyEvent", "UserPresenceChangedEvent"]
    assert [event["cause"] for event in events["bob"]] == ["join_declined"]
    assert world.call("busy_users") == ["ann"]


@pytest.mark.parametrize("answer", ["REPLY_ACCEPTED", 1])
def test_who_accepts_changes_nothing_and_the_other_members_are_told(answer: object) -> None:
    world = room("ann", "bob", "eve")
    world.join("s1", "ann", "bob")
    events = world.reply("s1", "bob", answer)
    assert {name: types_of(told) for name, told in events.items()} == {"ann": ["JoinSessionReplyEvent"]}
    world.reply("s1", "eve", answer)  # accepting does not make a member
    assert world.call("busy_users") == ["ann", "bob"]


def test_stop_frees_everybody_of_this_session_only() -> None:
    world = room("ann", "bob", "eve")
    world.join("s1", "ann", "bob", sessionDevices=["lamp"])
    world.join("s2", "bob")
    events = world.stop("s1", reason="late")
    assert types_of(events["ann"]) == ["StopSessionEvent", "UserPresenceChangedEvent"]
    assert events["ann"][0]["reason"] == "late"
    assert events["ann"][1]["cause"] == "session_stopped"
    assert types_of(events["bob"]) == ["StopSessionEvent"]  # still busy with s2
    assert (world.call("busy_users"), world.call("busy_devices")) == (["bob"], [])
    assert world.stop("s1") == {}


def test_presence_is_told_to_the_members_of_all_its_sessions() -> None:
    world = room("ann", *(f"u{number}" for number in range(12)))
    for number in range(12):
        world.join(f"s{number}", "ann", f"u{number}")
    assert set(world.online("ann")) == {"ann", *(f"u{number}" for number in range(12))}
    assert set(world.say("presence/users/ann/status", 1)) == {"ann", *(f"u{number}" for number in range(12))}


def test_nobody_is_told_twice_although_it_is_meant_by_several_words() -> None:
    world = World()
    world.register("ann", "ann1", 600, watch=["*", "user:*", "user:ann"])
    world.join("s1", "ann", "bob")
    world.join("s2", "ann", "bob")
    assert types_of(world.online("ann")["ann1"]) == ["UserPresenceChangedEvent"]


# Order and tombstones.


def test_a_join_older_than_the_stop_marks_nobody_and_is_not_relayed() -> None:
    world = room("ann")
    world.join("s1", "ann", timestamp=100)
    world.stop("s1", timestamp=200)
    assert world.join("s1", "ann", timestamp=199.999) == {}
    assert world.call("busy_users") == []
    assert types_of(world.join("s1", "ann", timestamp=200)["ann"])[0] == "JoinSessionEvent"
    world.stop("s1", timestamp=150)  # late; the newest stop is the one that is remembered
    world.join("s1", "ann", timestamp=199)
    assert world.call("busy_users") == []


def test_a_stop_of_a_session_never_seen_is_remembered_too() -> None:
    world = World()
    world.stop("s1", timestamp=200)
    world.join("s1", "ann", timestamp=100)
    assert world.call("busy_users") == []


def test_a_stop_is_forgotten_after_the_tombstones_hours() -> None:
    world = World(Rules(tombstone_ms=HOUR * 1000))
    world.stop("s1", timestamp=200)
    world.jump_seconds(HOUR - 1)
    assert world.stored() == {"session:s1"}
    world.jump_seconds(1)
    assert (world.stored(), world.deadlines()) == (set(), {})
    world.join("s1", "ann", timestamp=100)
    assert world.call("busy_users") == ["ann"]


def test_a_session_opened_again_keeps_its_tombstone_while_it_lives() -> None:
    world = World(Rules(tombstone_ms=HOUR * 1000))
    world.stop("s1", timestamp=200)
    world.join("s1", "ann", timestamp=300)
    world.jump_seconds(2 * HOUR)
    assert world.call("busy_users") == ["ann"]
    world.leave("s1", "ann")
    world.tick()
    assert world.stored() == set()


def test_times_of_sessions_may_lie_five_minutes_ahead() -> None:
    world = World()
    ahead = world.registry.now_ms + 300_001
    world.join("s1", "ann", timestamp=ahead)
    world.stop("s1", timestamp=ahead)
    assert (world.codes, world.stored()) == (["invalid_field"] * 2, set())


# Expiry.


def test_a_session_without_traffic_expires_and_leaves_nothing_behind() -> None:
    world = room("ann", rules=Rules(session_ms=HOUR * 1000))
    world.join("s1", "ann", sessionDevices=["lamp"])
    world.jump_seconds(HOUR - 1)
    world.reply("s1", "ann", "REPLY_ACCEPTED")  # traffic
    world.jump_seconds(HOUR - 1)
    assert world.call("busy_users") == ["ann"]
    [event] = world.jump_seconds(1)["ann"]
    assert (event["type"], event["busy"], event["cause"]) == ("UserPresenceChangedEvent", False, "expired")
    assert world.call("busy_devices") == []
    assert world.stored() == {"user:ann"}
    assert set(world.deadlines()) == {"user:ann"}
    world.join("s1", "ann", timestamp=1)  # it was not stopped: nothing is remembered against a join
    assert world.call("busy_users") == ["ann"]


def test_an_outage_expires_no_session() -> None:
    world = World(Rules(session_ms=HOUR * 1000))
    world.join("s1", "ann")
    world.jump_seconds(HOUR - 1)
    world.pause_seconds(86_400)
    assert world.call("busy_users") == ["ann"]
    world.pass_seconds(60)
    assert world.call("busy_users") == ["ann"]
    world.jump_seconds(HOUR * 1.1)
    assert world.call("busy_users") == []


# Size.


def members(count: int) -> list[str]:
    return [f"u{number:04}" for number in range(count)]


def test_at_most_a_thousand_members() -> None:
    world = World()
    world.join("s1", *members(1000))
    assert (len(world.call("busy_users")), world.codes) == (1000, [])
    world.join("s1", "u0005")
    world.join("s1", "one-more")
    assert world.codes == ["invalid_field"]
    assert len(world.call("busy_users")) == 1000
    world.leave("s1", "u0005")
    world.join("s1", "one-more")
    assert world.codes == ["invalid_field"]
    world.join("s2", *members(1001))
    assert world.codes == ["invalid_field"] * 2
    assert "session:s2" not in world.stored()


def stopped_with(count: int) -> World:
    world = World()
    world.join("s1", *members(count))
    for number in (0, 1, STOP_CHUNK, count - 1):
        world.register(f"u{number:04}", f"e{number}", 86_400)
    return world


def test_a_stop_of_450_frees_in_chunks_each_with_a_commit_of_its_own() -> None:
    world = stopped_with(450)
    before = world.counts["commits"]
    events = world.stop("s1")
    assert world.counts["commits"] - before == 3
    assert world.call("busy_users") == []
    assert {name: types_of(told) for name, told in events.items()} == {
        name: ["StopSessionEvent", "UserPresenceChangedEvent"] for name in ("e0", "e1", "e200", "e449")
    }
    versions = [events[name][0]["version"] for name in ("e0", "e200", "e449")]
    assert versions == sorted(set(versions))
    session = world.record("session:s1")
    assert session is not None
    assert "pending" not in session
    assert world.all_acknowledged


def test_the_rest_of_a_stop_goes_before_what_comes_after_it() -> None:
    world = stopped_with(450)
    stop, join = {"type": "StopSessionEvent"}, {"type": "JoinSessionEvent", "sessionUsers": ["u0449", "new"]}
    world.feed(message("sessions/s1", stop), message("sessions/s1", join), message("presence/users/x", "online"))
    assert world.call("session_members", ["s1"])["users"] == ["u0449", "new"]
    assert world.call("busy_users") == ["new", "u0449"]
    assert world.call("online_users") == ["x"]
    assert world.all_acknowledged


def test_the_rest_of_a_stop_goes_on_after_a_crash() -> None:
    world = stopped_with(450)
    commit, commits = world.registry.commit, 0

    class Crashed(Exception):
        pass

    async def crashing(one: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits > 1:
            raise Crashed
        return await commit(one)

    world.registry.commit = crashing  # type: ignore[method-assign]
    with pytest.raises(Crashed):
        world.stop("s1")
    world.registry.commit = commit  # type: ignore[method-assign]
    assert world.deadlines()["session:s1"] == 0
    assert len(world.registry.organizations["default"]["busy:user"]) == 250
    after = world.restarted()  # its first tick finishes the stop
    assert after.call("busy_users") == []
    session = msgspec.convert(after.record("session:s1"), Session)
    assert (session.members, session.pending) == ({}, None)


def test_a_join_right_after_the_crash_waits_for_the_rest_too() -> None:
    world = stopped_with(300)
    stored = world.registry.organizations["default"]
    world.stop("s1")
    # As the crash leaves it: the first chunk freed, the rest in the record.
    session = msgspec.json.decode(stored["session:s1"].split(b":", 2)[2], type=Session)  # type: ignore[union-attr]
    assert session.pending is None
    pending = {"members": ["user:x"], "cause": "session_stopped"}
    text = msgspec.json.encode({"stopped_ms": session.stopped_ms, "renewed_ms": 1, "pending": pending})
    stored["session:s1"] = b"1800000000000:1:" + text
    world.join("s2", "x")
    stored["user:x"] = stored["user:x"].replace(b'"s2"', b'"s1"')  # type: ignore[union-attr]
    world.join("s1", "x")
    assert world.call("session_members", ["s1"])["users"] == ["x"]
    assert world.call("busy_users") == ["x"]


def test_a_leave_of_hundreds_frees_in_chunks_and_tells_who_stays() -> None:
    world = World()
    world.join("s1", *members(100), "stays")
    for user in ("stays", "u0000", "u0099"):
        world.register(user, f"{user}-e", 86_400)
    before = world.counts["commits"]
    events = world.leave("s1", *members(100))
    assert world.counts["commits"] - before == 100 // TOLD_CHUNK
    assert world.call("busy_users") == ["stays"]
    assert world.call("session_members", ["s1"])["users"] == ["stays"]
    assert types_of(events["stays-e"]) == ["LeaveSessionEvent", *["UserPresenceChangedEvent"] * 100]
    for user in ("u0000", "u0099"):
        assert types_of(events[f"{user}-e"]) == ["LeaveSessionEvent", "UserPresenceChangedEvent"]
    assert world.all_acknowledged


def test_a_leave_of_hundreds_from_an_unknown_session_leaves_nothing_behind() -> None:
    world = World()
    world.leave("s1", *members(100))
    assert world.stored() == set()
    assert world.deadlines() == {}
    assert world.all_acknowledged


def test_the_rest_of_a_leave_goes_on_after_a_crash() -> None:
    world = World()
    world.join("s1", *members(50), "stays")
    commit = world.registry.commit

    class Crashed(Exception):
        pass

    async def crashing(one: Any) -> Any:
        world.registry.commit = crashed  # type: ignore[method-assign]
        return await commit(one)

    async def crashed(one: Any) -> Any:
        raise Crashed

    world.registry.commit = crashing  # type: ignore[method-assign]
    with pytest.raises(Crashed):
        world.leave("s1", *members(50))
    world.registry.commit = commit  # type: ignore[method-assign]
    assert len(world.registry.organizations["default"]["busy:user"]) == 51 - TOLD_CHUNK
    after = world.restarted()
    assert after.call("busy_users") == ["stays"]


def test_the_members_of_one_join_learn_of_each_other_within_bounds() -> None:
    world = room(*(f"u{number}" for number in range(30)))
    events = told(
        world.feed(
            message("sessions/s1", {"type": "JoinSessionEvent", "sessionUsers": [f"u{number}" for number in range(30)]})
        )
    )
    assert {len(one) for one in events.values()} == {31}
    assert world.counts["commits"] == 30 + 2  # registrations, and the join in two chunks


def test_a_join_of_hundreds_is_marked_in_chunks_before_what_comes_after_it() -> None:
    world = World()
    members = [f"u{number}" for number in range(150)]
    world.say("sessions/s1", {"type": "JoinSessionEvent", "sessionUsers": members})
    assert world.call("busy_users") == sorted(members)
    assert world.counts["commits"] == 8  # chunks of 20
    world.say("sessions/s1", {"type": "StopSessionEvent"})
    assert world.call("busy_users") == []


def test_a_member_whose_record_is_corrupt_does_not_hold_the_others() -> None:
    world = World()
    world.join("s1", *members(450))
    world.registry.organizations["default"]["user:u0300"] = b"nonsense"
    world.stop("s1")
    world.join("s1", "new")
    world.online("x")
    assert world.call("online_users") == ["x"]
    assert "new" in world.call("busy_users")
    assert "u0449" not in world.call("busy_users")
    assert world.all_acknowledged
