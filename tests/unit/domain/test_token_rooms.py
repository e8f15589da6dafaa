"""Rooms behind a token: seats, who is told, how seats come free, how rooms end."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.domain.room_commands import LeaveRoom, RoomCommand, Visitor
from bridge.domain.rules import Rules
from bridge.domain.token_room_codec import read_action
from bridge.domain.token_rooms import Errno
from bridge.pipeline import MAXIMUM_WAVES
from tests.unit.domain.room_world import LISTED, NO_MEDIA, causes, heard, inside
from tests.unit.domain.token_world import NOBODY, SERVICE, STATUS, WEEKS_SECONDS, TokenWorld, user
from tests.unit.world import Message, types_of

REMINDER = "RoomPartyKeepAliveReminderEvent"


def room(seats: int = 2, *people: str, rules: Rules | None = None) -> TokenWorld:
    """A room with people in it, and an endpoint for each of them and for the owner."""
    world = TokenWorld(rules)
    for person in ("owner", *people):
        world.register(person, f"{person}1", 86_400)
    assert world.create(seats).code == ""
    for person in people:
        assert world.take(person).code == ""
    return world


def joining(world: TokenWorld, name: str) -> RoomCommand:
    return read_action({"action": "join", "displayName": name, "clientMaxSize": 99}, "R", user(name), world.made())


# Creating and reading.


def test_a_room_is_made_and_read() -> None:
    world = TokenWorld()
    made = world.create(3, roomName="Tea")
    assert made.answer == {"roomToken": "R", "expiresAt": made.answer["expiresAt"]}
    assert world.read().answer == {**made.answer, "roomName": "Tea", "maxSize": 3, "participants": []}
    world.take("owner", name="O")
    world.take(name="G")
    assert world.read().answer["participants"] == [
        {"displayName": "O", "roomConnectionId": "c1", "owner": True},
        {"displayName": "G", "roomConnectionId": "c2", "owner": False},
    ]


def test_a_room_has_seats_within_the_setting() -> None:
    world = TokenWorld(Rules(maximum_parties=5))
    assert world.create(6).errno == Errno.INVALID_PARAMETERS
    assert world.create(5).errno is None


@pytest.mark.parametrize("action", ["join", "refresh", "leave", "status", "read", "delete"])
def test_an_unknown_room_is_unknown_to_everybody(action: str) -> None:
    world = TokenWorld()
    visitor = Visitor(user="ann", is_service=True)
    if action == "read":
        reply = world.read("nope", visitor)
    elif action == "delete":
        reply = world.delete(visitor, "nope")
    else:
        reply = world.act(action, visitor, "nope", displayName="A", clientMaxSize=2, **STATUS)
    assert (reply.errno, reply.code) == (Errno.UNKNOWN_ROOM, "not_found")
    assert not world.stored()


def test_a_room_of_messages_is_none_of_these() -> None:
    world = TokenWorld()
    world.party("T", "ann", "ann1")
    assert world.read("T").errno == Errno.UNKNOWN_ROOM
    assert world.take("bob", "T").errno == Errno.UNKNOWN_ROOM


# Joining.


def test_who_joins_is_told_to_the_others_and_to_the_owner_wherever_it_is() -> None:
    world = room(3, "ann")
    world.register("owner", "owner2")
    answer = world.take("bob", name="Bob").told
    assert set(heard(answer)) == {"ann1", "owner1", "owner2"}
    [event] = heard(answer)["ann1"]
    assert event == {
        **event,
        "about": "party/R/c2",
        "category": "app.event.presence.party.online",
        "topicId": "R",
        "sender": {"_id": "bob", "type": "user", "displayname": "Bob"},
        "content": {"idle": False, "offline": False, "role": "member", "mediaSession": NO_MEDIA, "sessionId": "c2"},
        "cause": "joined",
        "aggregate": "online",
    }
    assert set(heard(world.take("owner").told)) == {"ann1", "owner1", "owner2"}


def test_the_answer_to_a_join() -> None:
    world = room(3)
    assert world.take("owner").answer == {
        "sessionId": "R",
        "roomConnectionId": "c1",
        "mediaRole": "moderator",
        "expires": 300,
    }
    assert world.take("ann").answer["mediaRole"] == "publisher"
    guest = world.take(name="G")
    assert guest.answer["mediaRole"] == "publisher"
    [event] = heard(guest.told)["owner1"]
    assert event["sender"] == {"_id": "c3", "type": "anonymous", "displayname": "G"}
    assert event["content"]["role"] == "guest"
    assert inside(world, "R") == ["c1", "c2", "c3"]


def test_who_joins_with_an_endpoint_is_told_of_everybody() -> None:
    world = room(3, "ann")
    world.register("bob", "bob1")
    world.register("bob", "bob2")
    answer = world.take("bob", userEndpointId="bob2").told
    [roster] = heard(answer, LISTED)["bob2"]
    assert [party["sessionId"] for party in roster["content"]["data"]] == ["c1", "c2"]
    assert set(heard(world.take("owner").told)) == {"ann1", "bob2", "owner1"}


def test_a_join_makes_busy_and_a_leave_frees() -> None:
    world = room(3, "ann")
    reply = world.take(name="G")
    assert world.call("busy_users") == ["ann"]
    assert world.call("busy_participants") == [reply.answer["roomConnectionId"]]
    assert world.call("session_members", ["R"]) == {"users": ["ann"], "participants": ["c2"], "devices": []}
    [event] = heard(reply.told, "ParticipantPresenceChangedEvent")["ann1"]
    assert (event["uuid"], event["busy"], event["cause"]) == ("c2", True, "session_joined")
    left = world.act("leave", user("ann")).told
    assert [(event["uuid"], event["busy"]) for event in heard(left, "UserPresenceChangedEvent")["ann1"]] == [
        ("ann", False)
    ]
    world.act("leave", world.as_guest("G"))
    assert world.call("busy_users") == world.call("busy_participants") == []
    assert world.stored() == {"user:ann", "user:owner", "room:R", "party:R:c1", "party:R:c2"}


def test_a_guest_and_a_user_hear_what_they_may_do() -> None:
    world = room(3, "ann")
    world.say("sessions/R/permissions", {"muteAll": True, "muteStates": {"AUDIO": "MUTE_PERMANENT"}})
    world.register("bob", "bob1")
    [event] = heard(world.take("bob").told, "CallPermissionsChangedEvent")["bob1"]
    assert (event["cause"], event["media"]["AUDIO"]["unlocked"]) == ("joined", False)


# Seats.


def test_a_seat_is_kept_for_the_owner_while_it_is_away() -> None:
    world = room(2)
    assert world.take("ann").errno is None
    assert world.take("bob").errno == Errno.ROOM_FULL
    assert world.take(name="G").errno == Errno.ROOM_FULL
    assert world.take("owner").errno is None
    world.act("leave", user("owner"))
    assert world.take("bob").errno == Errno.ROOM_FULL


def test_a_room_of_a_service_keeps_no_seat() -> None:
    world = TokenWorld()
    world.create(2, owner="")
    assert [world.take(name=name).errno for name in ("a", "b", "c")] == [None, None, Errno.ROOM_FULL]


def test_the_smallest_client_bounds_the_room_for_all() -> None:
    world = room(9)
    world.take("owner", size=3)
    world.take("ann")
    assert world.take("bob", size=2).errno == Errno.CLIENT_FULL
    assert world.take("bob", size=3).errno is None
    assert world.take("cid", size=1).errno == Errno.ROOM_FULL  # tested before the joiner's own size
    world.act("leave", user("owner"))
    assert world.take("cid", size=9).errno == Errno.ROOM_FULL  # bob's client takes three, and one seat is the owner's


def test_a_refused_join_leaves_nothing_behind() -> None:
    world = room(1)
    before = dict(world.registry.organizations["default"])
    reply = world.take("ann")
    assert (reply.errno, reply.code, reply.told) == (Errno.ROOM_FULL, "quota_exceeded", {})
    after = world.registry.organizations["default"]
    assert {key: value for key, value in after.items() if key != "bridges"} == {
        key: value for key, value in before.items() if key != "bridges"
    }


def test_a_user_takes_its_own_seat_again_with_another_endpoint_and_token() -> None:
    world = room(2, "ann")
    world.register("ann", "ann2")
    first = world.as_guest("ann")
    again = world.take("ann", name="Annie", size=4, userEndpointId="ann2")
    assert again.answer["roomConnectionId"] == "c1"
    [event] = heard(again.told)["owner1"]
    assert (event["cause"], event["sender"]["displayname"]) == ("updated", "Annie")
    assert world.act("refresh", first).errno == Errno.UNAUTHORIZED
    assert world.act("refresh", world.as_guest("Annie")).answer == {"expires": 300}
    assert world.call("busy_users") == ["ann"]
    assert heard(world.take("ann", name="Annie").told) == {}  # nothing that the others see is new


def test_a_guest_takes_its_seat_again_only_by_its_endpoint() -> None:
    world = room(2)
    world.register("someone", "tab", kind="participant")
    assert world.take(name="G", userEndpointId="tab").answer["roomConnectionId"] == "c1"
    assert world.take(name="G").errno == Errno.ROOM_FULL
    assert world.take(name="G", userEndpointId="other").errno == Errno.ROOM_FULL
    assert world.take(name="G", userEndpointId="tab").answer["roomConnectionId"] == "c1"
    assert world.names() == ["G"]


def test_no_guest_takes_the_seat_of_a_user() -> None:
    world = room(2)
    world.register("ann", "ann1")
    world.take("ann", userEndpointId="ann1")
    assert world.take(name="G", userEndpointId="ann1").errno == Errno.ROOM_FULL
    assert world.names() == ["ann"]


def test_a_guest_hears_nothing_where_a_user_does_unless_a_service_seats_it() -> None:
    world = room(9, "ann")
    world.take(name="G", userEndpointId="ann1")
    world.act("leave", user("ann"))
    assert "ann1" not in world.take("bob").told
    world.act("join", SERVICE, displayName="H", clientMaxSize=9, userEndpointId="ann1")
    assert "ann1" in world.take("cid").told


def test_no_user_hears_where_another_one_does() -> None:
    world = room(9)
    world.register("ann", "ann1")
    world.register("bob", "bob1")
    world.take("bob", userEndpointId="ann1")
    assert set(heard(world.take("cid").told)) == {"owner1", "bob1"}


def test_an_endpoint_that_is_not_there_stands_for_none() -> None:
    world = room(9)
    world.register("ann", "ann1")
    world.take("ann", userEndpointId="gone")
    world.take(name="G", userEndpointId="gone-too")
    assert set(heard(world.take("bob").told)) == {"owner1", "ann1"}


@pytest.mark.parametrize("seats", [1, 2, 5])
def test_joins_at_once_fill_the_seats_and_no_more(seats: int) -> None:
    world = TokenWorld()
    world.create(seats, owner="")
    callers = [world.order(joining(world, f"u{number}")) for number in range(40)]
    world.work()
    won = [caller for caller in callers if caller.refusal is None]
    assert len(won) == seats == len(world.names())
    assert len(world.call("busy_users")) == seats


def test_one_user_may_be_in_only_so_many_rooms() -> None:
    world = TokenWorld(Rules(maximum_parties_per_subject=1))
    for name in ("R", "S"):
        world.create(2, room=name, owner="")
    world.take("ann", "R")
    assert world.take("ann", "S").code == "quota_exceeded"
    assert world.take("ann", "R").errno is None


# Staying.


def test_a_participant_that_is_silent_is_out() -> None:
    world = room(3, "ann")
    guest = world.take(name="G").answer["roomConnectionId"]
    world.pass_seconds(200)
    world.act("refresh", user("ann"))
    told = world.pass_seconds(102)
    assert causes(told) == {"owner1": ["expired"], "ann1": ["expired"]}
    [event] = heard(told)["ann1"]
    assert event["content"]["sessionId"] == guest
    assert [event["cause"] for event in heard(told, "ParticipantPresenceChangedEvent")["ann1"]] == ["expired"]
    assert world.names() == ["ann"]
    assert world.act("refresh", world.as_guest("G")).errno == Errno.EXPIRED
    assert world.act("leave", world.as_guest("G")).errno == Errno.NOT_IN_ROOM
    assert world.act("status", world.as_guest("G"), **STATUS).errno == Errno.NOT_IN_ROOM
    world.pass_seconds(200)
    assert world.act("refresh", user("ann")).errno == Errno.EXPIRED
    assert world.call("busy_users") == []
    world.jump_seconds(601)
    assert world.act("refresh", world.as_guest("G")).errno == Errno.UNAUTHORIZED  # forgotten by now


def test_who_never_was_there_has_expired_and_cannot_leave() -> None:
    world = room(3)
    assert world.act("refresh", user("ann")).errno == Errno.EXPIRED
    assert world.act("leave", user("ann")).errno == Errno.NOT_IN_ROOM
    assert world.act("status", user("ann"), **STATUS).errno == Errno.NOT_IN_ROOM


@pytest.mark.parametrize("sign", ["refresh", "status", "online", "typing", "keepalive"])
def test_whatever_a_participant_says_is_a_sign_of_life(sign: str) -> None:
    world = room(3)
    world.register("ann", "ann1", 86_400)
    world.take("ann", userEndpointId="ann1")
    for _ in range(3):
        world.pass_seconds(190)
        if sign == "keepalive":
            world.say("users/endpoints/ann1/keepalive")
        elif sign == "online":
            world.party("R", "ann", "c1", idle=True)
        elif sign == "typing":
            world.room("R", "party.typing", "ann", "c1")
        else:
            assert world.act(sign, user("ann"), **STATUS).code == ""
    assert world.names() == ["ann"]


def test_a_participant_is_reminded_once_at_two_thirds() -> None:
    world = room(3)
    world.register("ann", "ann1", 86_400)
    world.register("ann", "ann2", 86_400)
    world.take("ann", userEndpointId="ann1")
    world.pass_seconds(199)
    told = world.pass_seconds(3)
    assert set(told) == {"ann1"}
    [event] = told["ann1"]
    assert (event["type"], event["about"], event["topicId"]) == (REMINDER, "party/R/c1", "R")
    assert (event["roomConnectionId"], event["keepAliveSeconds"]) == ("c1", 300)
    assert event["expiresAt"] > event["timestamp"]
    assert REMINDER not in types_of(world.pass_seconds(50).get("ann1", ()))
    world.act("refresh", user("ann"))
    assert types_of(world.pass_seconds(202)["ann1"]) == [REMINDER]


def test_an_outage_expires_nobody() -> None:
    world = room(3, "ann")
    world.pass_seconds(290)
    world.pause_seconds(10_000)
    world.pass_seconds(290)
    assert world.names() == ["ann"]
    world.pass_seconds(50)
    assert world.names() == []


def test_who_refreshes_stays_in_its_session_however_long() -> None:
    world = room(2, "ann", rules=Rules(session_ms=400_000))
    for _ in range(4):
        world.pass_seconds(200)
        world.act("refresh", user("ann"))
    assert world.call("busy_users") == ["ann"]


# Leaving, in every way.


def test_a_leave_is_told_with_its_cause() -> None:
    world = room(3, "ann", "bob")
    reply = world.act("leave", user("ann"))
    assert causes(reply.told) == {"bob1": ["left"], "owner1": ["left"]}
    assert world.act("leave", user("ann")).errno == Errno.NOT_IN_ROOM
    assert world.call("busy_users") == ["bob"]


def test_a_guest_leaves_by_the_token_in_the_body() -> None:
    world = room(3)
    world.take(name="G")
    token = world.tokens["G"]
    assert world.act("refresh", NOBODY, sessionToken=token).answer == {"expires": 300}
    assert world.act("status", NOBODY, sessionToken=token, **STATUS).errno == Errno.UNAUTHORIZED
    assert world.act("leave", NOBODY, sessionToken=token).errno is None
    assert world.act("leave", NOBODY, sessionToken=token).errno == Errno.NOT_IN_ROOM


@pytest.mark.parametrize("token", ["", ".", "c1", "c1.", "c1.wrong", "c2.secret1", "../x.y", "x" * 500])
def test_a_token_that_is_none(token: str) -> None:
    world = room(3)
    world.take(name="G")
    assert world.act("leave", NOBODY, sessionToken=token).errno == Errno.UNAUTHORIZED
    assert world.names() == ["G"]


WAYS: dict[str, tuple[str, str]] = {
    "message": ("left", "session_left"),
    "removed": ("removed", "session_left"),
    "unregister": ("left", "session_left"),
    "endpoint": ("expired", "expired"),
    "will": ("connection_lost", "session_left"),
    "session leave": ("left", "session_left"),
    "session stop": ("removed", "session_stopped"),
    "declined": ("left", "join_declined"),
    "silence": ("expired", "expired"),
    "deletion": ("room_deleted", "session_stopped"),
}


def go(world: TokenWorld, way: str) -> dict[str, list[Any]]:
    if way == "message":
        return world.leaves("R", "ann", "c1", client="ann")
    if way == "removed":
        return world.room("R", "party.removed", "boss", attendee={"attendeeType": "userId", "attendee": "ann"})
    if way == "unregister":
        return world.call_told("unregister_endpoint", ["ann1"])
    if way == "will":
        return world.offline("ann", "c1")
    if way == "session leave":
        return world.leave("R", "ann")
    if way == "session stop":
        return world.stop("R")
    if way == "declined":
        return world.reply("R", "ann")
    if way == "deletion":
        return world.delete(user("owner")).told
    for _ in range(40):
        world.act("refresh", user("bob"))
        told = world.pass_seconds(10)
        if causes(told):
            return told
    raise AssertionError(way)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_is_told_once_and_frees(way: str) -> None:
    world = TokenWorld()
    for name, seconds in (("owner", 86_400), ("bob", 86_400), ("ann", 60 if way == "endpoint" else 86_400)):
        world.register(name, f"{name}1", seconds)
    world.create(3)
    world.take("ann", userEndpointId="ann1")
    world.take("bob", userEndpointId="bob1")
    world.act("status", user("ann"), **{**STATUS, "connections": 2, "sendStreams": 1})
    told = go(world, way)
    cause, presence = WAYS[way]
    assert causes(told)["owner1"] == [cause]
    assert causes(told)["bob1"] == [cause]
    ended = way in ("session stop", "deletion")
    presences = heard(told, "UserPresenceChangedEvent").get("ann1" if ended else "bob1", ())
    assert [event["cause"] for event in presences if event["uuid"] == "ann"][-1:] == [presence]
    assert world.call("busy_users") == ([] if ended else ["bob"])
    assert world.call("media_state", ["R", "ann"])["state"] == "init"
    if way == "deletion":
        assert world.read().errno == Errno.UNKNOWN_ROOM
    else:
        assert world.names() == ([] if ended else ["bob"])
        assert world.act("leave", user("ann")).errno == Errno.NOT_IN_ROOM
    assert causes(world.leaves("R", "ann", "c1")) == {}
    assert not any(key.startswith("media:") for key in world.stored())
    assert world.all_acknowledged


def test_a_session_that_runs_out_empties_its_room() -> None:
    world = room(3, "ann", "bob", rules=Rules(session_ms=100_000, participant_ttl_ms=500_000))
    told = world.pass_seconds(102)
    assert causes(told) == {"ann1": ["expired"], "bob1": ["expired"], "owner1": ["expired"]}
    assert world.names() == []
    assert world.call("busy_users") == []


def test_a_stop_of_a_session_whose_room_is_empty_tells_the_room_nothing() -> None:
    world = room(3, "ann")
    world.join("R", "eve")
    world.act("leave", user("ann"))
    assert causes(world.stop("R")) == {}
    assert world.call("busy_users") == []


def test_who_is_invited_and_joins_is_a_member_once() -> None:
    world = room(3)
    world.join("R", "ann", "eve")
    assert heard(world.take("ann").told, "UserPresenceChangedEvent") == {}  # busy already
    world.act("leave", user("ann"))
    assert world.call("busy_users") == ["eve"]


def test_a_crowd_leaves_by_its_session_in_chunks() -> None:
    world = TokenWorld()
    world.create(90, owner="")
    users = [f"u{number}" for number in range(45)]
    for name in users:
        world.take(name, size=99)
    world.leave("R", *users)
    assert world.names() == world.call("busy_users") == []
    for name in users:
        world.take(name, size=99)
    assert world.delete(SERVICE).errno is None
    assert world.call("busy_users") == []


# Rooms end.


def test_a_deleted_room_is_told_once_to_everybody_and_gone() -> None:
    world = room(3, "ann", "bob")
    world.register("owner", "owner2")
    told = world.delete(user("owner")).told
    assert causes(told) == {name: ["room_deleted"] for name in ("ann1", "bob1", "owner1", "owner2")}
    [event] = heard(told)["ann1"]
    assert (event["category"], event["sender"], event["content"]) == (
        "party.removed",
        {"_id": "owner", "type": "user"},
        {},
    )
    assert world.read().errno == Errno.UNKNOWN_ROOM
    world.jump_seconds(601)
    assert world.stored() == {"user:ann", "user:bob", "user:owner"}
    assert world.deadlines().keys() == {"user:ann", "user:bob", "user:owner"}


@pytest.mark.parametrize("visitor", [user("ann"), NOBODY, Visitor(party="c1", proof="x")])
def test_only_the_owner_deletes(visitor: Visitor) -> None:
    world = room(3, "ann")
    assert world.delete(visitor).code == "forbidden"
    assert world.names() == ["ann"]


def test_an_empty_room_is_deleted_and_its_owner_hears_of_it() -> None:
    world = room(3)
    assert causes(world.delete(SERVICE).told) == {"owner1": ["room_deleted"]}


def test_a_room_lives_on_after_each_join_leave_and_expiry_and_not_after_a_refresh() -> None:
    world = room(3)

    def left_seconds() -> int:
        record = world.record("room:R")
        assert record is not None
        return round((record["renewed_ms"] + WEEKS_SECONDS * 1000 - world.registry.clock_ms) / 1000)

    world.take("ann")
    expires_at = world.read().answer["expiresAt"]
    world.pass_seconds(100)
    world.act("refresh", user("ann"))
    world.act("status", user("ann"), **STATUS)
    assert world.read().answer["expiresAt"] == expires_at
    world.act("leave", user("ann"))
    assert world.read().answer["expiresAt"] > expires_at
    assert left_seconds() >= WEEKS_SECONDS - 1
    world.take("ann")
    world.pass_seconds(305)
    assert left_seconds() >= WEEKS_SECONDS - 6


def test_a_room_that_nobody_joins_or_leaves_ends_for_all() -> None:
    world = room(3, "ann", rules=Rules(room_ttl_ms=100_000, participant_ttl_ms=500_000))
    told = world.pass_seconds(102)
    assert causes(told) == {"ann1": ["room_deleted"], "owner1": ["room_deleted"]}
    assert world.call("busy_users") == []
    assert world.read().errno == Errno.UNKNOWN_ROOM


# Rooms and messages.


def test_nobody_comes_in_by_a_message() -> None:
    world = room(1)
    world.register("eve", "eve1")
    answer = world.party("R", "eve", "eve1")
    assert types_of(answer["eve1"]) == ["MediaSessionInvalidEvent"]
    assert "POST /rooms" in answer["eve1"][0]["reason"]
    assert world.codes == ["not_allowed"]
    assert inside(world, "R") == []


def test_who_is_in_may_say_more_by_messages_and_keeps_its_seat() -> None:
    world = room(3, "ann", "bob")
    before = world.record("party:R:c1")
    answer = world.party("R", "ann", "c1", client="ann", idle=True, mediaSession={"audio": True})
    assert causes(answer) == {"bob1": ["updated"], "owner1": ["updated"]}
    after = world.record("party:R:c1")
    assert before is not None
    assert after is not None
    assert {key: after[key] for key in ("size", "proof", "lease_ms")} == {
        key: before[key] for key in ("size", "proof", "lease_ms")
    }
    assert world.act("refresh", world.as_guest("ann")).errno is None


def test_a_named_endpoint_stays_through_messages() -> None:
    world = room(3, "ann")
    world.register("bob", "bob1")
    world.register("bob", "bob2")
    world.take("bob", userEndpointId="bob2")
    world.party("R", "bob", "c2", idle=True)
    assert set(world.party("R", "ann", "c1", idle=True)) == {"bob2", "owner1"}


def test_media_over_http_and_over_mqtt_are_one() -> None:
    world = room(3, "ann")
    world.take(name="G")
    told = world.act("status", world.as_guest("G"), **{**STATUS, "connections": "2", "state": "starting"}).told
    [event] = heard(told, "MediaStateChangedEvent")["ann1"]
    assert (event["sessionId"], event["participantId"], event["state"]) == ("R", "c2", "starting")
    report = {"connections": 2, "sendStreams": 1, "recvStreams": 0}
    world.say("sessions/R/participants/c2/status", report)
    assert world.call("media_state", ["R", "c2"])["state"] == "sending"
    told = world.act("status", user("ann"), **STATUS).told
    assert heard(told, "MediaStateChangedEvent")["ann1"][0]["participantId"] == "ann"


def test_the_roster_answers_who_asks() -> None:
    world = room(3, "ann")
    world.register("eve", "eve1")
    [event] = world.room("R", "request.parties", "eve", client="eve")["eve1"]
    assert [party["sessionId"] for party in event["content"]["data"]] == ["c1"]


# Whatever happens to the bridge.


def test_a_room_outlives_the_bridge() -> None:
    world = room(3, "ann")
    after = TokenWorld(registry=world.registry, instance="i2", kept=world.broker.kept)
    after.tokens = world.tokens
    assert after.names() == ["ann"]
    assert after.act("refresh", after.as_guest("ann")).errno is None
    assert set(heard(after.act("leave", user("ann")).told)) == {"owner1"}


def test_a_join_that_is_decided_again_takes_one_seat() -> None:
    world = room(2)
    other = TokenWorld(registry=world.registry, instance="i2")
    first, second = world.order(joining(world, "ann")), other.order(joining(other, "bob"))
    world.work()
    other.work()
    assert [caller.refusal is None for caller in (first, second)] == [True, False]


def test_an_unreadable_session_holds_up_no_departure() -> None:
    world = room(3, "ann", "bob")
    world.registry.organizations["default"]["session:R"] = b"nonsense"
    assert causes(world.act("leave", user("ann")).told) == {"bob1": ["left"], "owner1": ["left"]}
    assert world.act("refresh", user("bob")).errno is None
    assert causes(world.delete(user("owner")).told)["bob1"] == ["room_deleted"]


def test_a_departure_waits_for_what_a_message_has_left_over() -> None:
    world = TokenWorld()
    world.create(9, owner="")
    world.take("ann")
    members = [f"u{number}" for number in range(60)]
    join = {"type": "JoinSessionEvent", "sessionUsers": members}
    world.arrive(Message("sessions/R", json.dumps(join).encode()))
    caller = world.order(LeaveRoom("R", user("ann")))
    world.work()
    assert caller.refusal is None
    assert "ann" not in world.call("busy_users")
    assert len(world.call("busy_users")) == 60


CASES = {
    case["name"]: case
    for line in (Path(__file__).parents[2] / "cases" / "media_rooms.jsonl").read_text().splitlines()
    if line.strip()
    for case in [json.loads(line)]
}


def test_the_case_of_an_expiry_that_fires_once() -> None:
    world = room(3, "a", "b")
    world.act("status", user("a"), **{**STATUS, "connections": 2, "sendStreams": 1})
    told: dict[str, list[Any]] = {}
    for _ in range(4):
        world.act("refresh", user("b"))
        for name, events in world.pass_seconds(100).items():
            told.setdefault(name, []).extend(events)
    expect = CASES["bridge_expiry_event_has_reason_and_fires_once"]["expect"]
    assert causes(told)["b1"] == [expect["events"][0]["reason"]] * expect["count"]
    assert heard(told)["b1"][0]["sender"]["_id"] == "a"
    assert heard(told, "MediaStateChangedEvent")["b1"][-1]["state"] == expect["final_state"]


def test_an_endpoint_in_many_rooms_ends_within_the_waves_of_a_batch() -> None:
    world = TokenWorld()
    world.register("ann", "ann1", 86_400)
    for number in range(6):
        world.create(9, room=f"R{number}")
        world.take("ann", f"R{number}", userEndpointId="ann1")
        world.take(f"u{number}", f"R{number}")
        world.register(f"u{number}", f"e{number}")
        world.act("status", user("ann"), f"R{number}", **STATUS)
        world.say(f"sessions/R{number}/permissions", {"muteAll": True, "muteStates": {"AUDIO": "MUTE"}})
    loads: list[Any] = []
    load = world.registry.load

    async def counted(*wants: Any) -> Any:
        loads.append(wants)
        return await load(*wants)

    world.registry.load = counted  # type: ignore[method-assign]
    told = world.call_told("unregister_endpoint", ["ann1"])
    assert {name: causes for name, causes in causes(told).items() if name != "owner1"} == {
        f"e{number}": ["left"] for number in range(6)
    }
    assert len(loads) <= MAXIMUM_WAVES
