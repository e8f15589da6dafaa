"""Rooms: who is in them, who is told what, and how parties end."""

import json
from collections import Counter
from typing import Any

import pytest

from bridge.domain import rooms, routing
from tests.unit.domain.room_world import CHANGED, LISTED, NO_MEDIA, causes, heard, inside, room_of
from tests.unit.world import Message, World, message, types_of

MINUTE = 60

# Joining.


def test_a_first_online_joins_and_is_told_to_the_others() -> None:
    world = room_of("ann", "bob")
    world.register("eve", "eve1")
    answer = world.party("T", "eve", "eve1", role="guest", mediaSession={"audio": True}, subscribeTime="t0")
    assert set(heard(answer)) == {"ann1", "bob1"}
    [event] = answer["ann1"]
    assert event == {
        **event,
        "type": CHANGED,
        "about": "party/T/eve1",
        "category": "app.event.presence.party.online",
        "topicId": "T",
        "sender": {"_id": "eve", "type": "user"},
        "cause": "joined",
        "aggregate": "online",
    }
    assert event["content"] == {
        "offline": False,
        "idle": False,
        "role": "guest",
        "mediaSession": {**NO_MEDIA, "audio": True},
        "sessionId": "eve1",
        "subscribeTime": "t0",
    }
    assert set(event["changed"]) == {"offline", "idle", "role", "mediaSession", "subscribeTime"}


def test_who_joins_is_told_of_everybody_in_one_message_each_with_its_version() -> None:
    world = room_of("ann", "bob")
    world.register("eve", "eve1")
    answer = world.party("T", "eve", "eve1", role="member")
    [roster] = answer["eve1"]
    assert (roster["type"], roster["topicId"], roster["about"]) == (LISTED, "T", "room/T")
    parties = world.call("room_parties", ["T"])
    assert roster["content"] == {"data": parties["parties"]}
    assert [party["sessionId"] for party in parties["parties"]] == ["ann1", "bob1", "eve1"]
    assert parties["parties"][2] == {
        "sessionId": "eve1",
        "sender": {"_id": "eve", "type": "user"},
        "idle": False,
        "offline": False,
        "role": "member",
        "mediaSession": NO_MEDIA,
        "version": answer["ann1"][0]["version"],
    }
    assert parties["version"] == roster["version"]


def test_an_unknown_room_has_no_parties() -> None:
    world = World()
    answer = world.call("room_parties", {"room": "T"})
    assert (answer["topicId"], answer["parties"], answer["users"]) == ("T", [], {})
    assert not world.stored()


def test_what_is_told_about_a_room_never_goes_back_whatever_its_parties_did_meanwhile() -> None:
    world = room_of("ann", "bob")
    versions = []
    for idle in (True, False):
        world.pass_seconds(1)
        world.party("T", "bob", "bob1", idle=idle)
        versions += [event["version"] for event in world.room("T", "request.parties", "ann", "ann1")["ann1"]]
        typing = world.room("T", "party.typing", "eve", "eve1")
        versions += [event["version"] for event in typing["ann1"] if event["about"] == "room/T"]
    assert len(versions) == 4
    assert versions == sorted(versions)


def test_the_same_content_twice_is_quiet() -> None:
    world = room_of("ann", "bob")
    assert world.party("T", "ann", "ann1") == {}
    assert world.party("T", "ann", "ann1", idle=False, mediaSession=NO_MEDIA) == {}


def test_an_update_says_what_changed_and_tells_no_roster() -> None:
    world = room_of("ann", "bob")
    answer = world.party("T", "ann", "ann1", idle=True, mediaSession={"audio": True}, role="admin")
    assert set(answer) == {"bob1"}
    [event] = answer["bob1"]
    assert (event["cause"], event["changed"]) == ("updated", ["idle", "role", "mediaSession"])
    assert event["aggregate"] == "idle"


def test_a_part_of_the_state_leaves_the_rest_as_it_was() -> None:
    world = room_of("ann", "bob")
    world.party("T", "ann", "ann1", role="admin", mediaSession={"audio": True, "level": 3})
    [event] = world.party("T", "ann", "ann1", mediaSession={"video": True, "audio": None})["bob1"]
    assert event["content"]["role"] == "admin"
    assert event["content"]["mediaSession"] == {**NO_MEDIA, "audio": True, "level": 3, "video": True}
    [event] = world.party("T", "ann", "ann1", idle=True, role=None)["bob1"]
    assert event["changed"] == ["idle"]


def test_offline_is_a_member_that_sends_nothing() -> None:
    world = room_of("ann", "bob")
    world.party("T", "ann", "ann1", mediaSession={"audio": True, "connected": True})
    [event] = world.party("T", "ann", "ann1", offline=True, mediaSession={"audio": True})["bob1"]
    assert (event["cause"], event["aggregate"]) == ("updated", "offline")
    assert event["content"]["mediaSession"] == NO_MEDIA
    assert inside(world) == ["ann1", "bob1"]
    # it still is, whatever its media say, until it says otherwise
    assert world.party("T", "ann", "ann1", mediaSession={"video": True}) == {}
    [event] = world.party("T", "ann", "ann1", offline=False, mediaSession={"video": True})["bob1"]
    assert (event["aggregate"], event["content"]["mediaSession"]["video"]) == ("online", True)


def test_a_change_of_the_sender_is_told() -> None:
    world = room_of("ann", "bob")
    sender = {"_id": "ann", "type": "user", "displayname": "Ann"}
    [event] = world.party("T", "ann", "ann1", top={"sender": sender})["bob1"]
    assert (event["sender"], event["changed"]) == (sender, [])
    assert world.party("T", "ann", "ann1") == {}  # who says less of itself takes nothing back


def test_fields_that_nobody_knows_are_passed_on_and_the_common_ones_win() -> None:
    world = room_of("ann", "bob")
    top = {
        "_id": "e-1",
        "emitedby": "wcs",
        "id": "mine",
        "type": "x",
        "version": 1,
        "cause": "y",
        "timestamp": "2023-01-01",
    }
    world.register("eve", "eve1")
    [event] = world.party("T", "eve", "eve1", emitedby="wcs", desktop=False, top=top)["bob1"]
    assert (event["_id"], event["emitedby"], event["content"]["emitedby"]) == ("e-1", "wcs", "wcs")
    assert event["content"]["desktop"] is False
    assert (event["type"], event["cause"]) == (CHANGED, "joined")
    assert event["id"] != "mine"
    assert event["version"] > 1
    assert event["timestamp"] > "2023-11"


def test_categories_are_taken_with_and_without_what_stands_in_front() -> None:
    world = room_of("bob")
    world.room("T", "app.event.presence.party.online", "ann", "a1")
    world.room("T", "party.online", "ann", "a2")
    assert inside(world) == ["bob1", "a1", "a2"]
    world.room("T", "app.event.presence.party.leaves", "ann", "a1")
    assert world.room(
        "T", "app.event.presence.party.removed", "bob", attendee={"attendeeType": "userId", "attendee": "ann"}
    )
    assert inside(world) == ["bob1"]


def test_a_wrapper_brings_several_events_at_once() -> None:
    world = room_of("bob")
    events = [
        {"category": "party.online", "sender": {"_id": "ann"}, "content": {"sessionId": party}}
        for party in ("a1", "a2")
    ]
    wrapper = {"header": {"time": world.registry.now_ms / 1000}, "events": [*events, {"category": "no"}]}
    answer = world.say("presence/rooms/T", {"message": wrapper})
    assert [event["content"]["sessionId"] for event in answer["bob1"]] == ["a1", "a2"]
    assert world.codes == ["unknown_type"]


# Several tabs of one user, and endpoints.


def test_several_tabs_are_several_parties_and_the_user_is_the_most_awake_of_them() -> None:
    world = room_of("ann", "bob")
    world.register("ann", "ann2")
    answer = world.party("T", "ann", "ann2", idle=True)
    assert set(heard(answer)) == {"ann1", "bob1"}
    assert answer["bob1"][0]["aggregate"] == "online"
    assert world.call("room_parties", ["T"])["users"] == {"ann": "online", "bob": "online"}
    assert world.party("T", "ann", "ann1", offline=True)["bob1"][0]["aggregate"] == "idle"
    assert world.party("T", "ann", "ann2", offline=True)["bob1"][0]["aggregate"] == "offline"
    assert world.call("room_parties", ["T"])["users"] == {"ann": "offline", "bob": "online"}
    answer = world.leaves("T", "ann", "ann1")
    assert set(answer) == {"ann2", "bob1"}
    assert (answer["bob1"][0]["cause"], answer["bob1"][0]["aggregate"]) == ("left", "offline")
    assert world.leaves("T", "ann", "ann2")["bob1"][0]["aggregate"] is None


def test_without_an_endpoint_of_its_own_all_of_the_senders_stand_for_a_party() -> None:
    world = room_of("bob")
    world.register("ann", "phone")
    world.register("ann", "tablet")
    assert set(heard(world.party("T", "ann", "socket-9"), LISTED)) == {"phone", "tablet"}
    assert set(world.party("T", "bob", "bob1", idle=True)) == {"phone", "tablet"}
    world.register("ann", "watch")
    assert set(world.party("T", "bob", "bob1", idle=False)) == {"phone", "tablet", "watch"}
    world.register("ann", "socket-9")  # from now on this one is the party
    assert set(world.party("T", "bob", "bob1", idle=True)) == {"socket-9"}


@pytest.mark.parametrize("place", ["content", "top", "property"])
def test_a_party_names_its_endpoint(place: str) -> None:
    world = room_of("bob")
    world.register("ann", "phone")
    world.register("ann", "tablet")
    event: dict[str, Any] = {"category": "party.online", "sender": {"_id": "ann"}, "content": {"sessionId": "s9"}}
    if place == "content":
        event["content"]["endpointId"] = "tablet"
    if place == "top":
        event["endpointId"] = "tablet"
    answer = world.say("presence/rooms/T", event, endpoint="tablet" if place == "property" else "")
    assert set(heard(answer, LISTED)) == {"tablet"}
    assert set(world.party("T", "bob", "bob1", idle=True)) == {"tablet"}


def test_an_endpoint_that_is_not_there_is_none() -> None:
    world = room_of("bob")
    world.register("ann", "phone")
    assert set(heard(world.party("T", "ann", "s9", endpointId="gone"), LISTED)) == {"phone"}


def test_a_service_may_seat_a_party_on_an_endpoint_of_somebody_else() -> None:
    world = room_of("bob")
    world.register("anon7", "s2")  # as a user, while the sender is anonymous
    assert set(heard(world.party("T", "anon7", "s2", kind="anonymous"), LISTED)) == {"s2"}
    assert set(world.party("T", "bob", "bob1", idle=True)) == {"s2"}
    assert causes(world.call_told("unregister_endpoint", ["s2"])) == {"bob1": ["left"]}


def test_an_anonymous_sender_is_a_participant() -> None:
    world = room_of("bob")
    world.register("g", "g1", kind="participant")
    world.register("g", "other", kind="user")
    assert set(heard(world.party("T", "g", "s", kind="anonymous"), LISTED)) == {"g1"}


def test_a_phone_has_no_endpoint() -> None:
    world = room_of("bob")
    world.register("CA1", "CA1")
    answer = world.party(
        "T", "CA1", "CA1", kind="phone", mediaSession={"audio": True, "phone": True, "connected": True}
    )
    assert set(answer) == {"bob1"}
    assert set(world.party("T", "bob", "bob1", idle=True)) == set()
    assert world.call("room_parties", ["T"])["users"] == {"bob": "idle", "CA1": "online"}
    [event] = world.leaves("T", "CA1", "CA1", kind="phone", mediaSession={"audio": True, "phone": False})["bob1"]
    assert (event["cause"], event["content"]["mediaSession"]) == ("left", NO_MEDIA)
    assert inside(world) == ["bob1"]


# Addressed messages, typing, requests.


def test_an_addressed_message_goes_to_its_receivers_also_where_nothing_changed() -> None:
    world = room_of("ann", "bob", "eve")
    world.register("bob", "bob2")
    world.party("T", "bob", "bob2")
    receivers = [{"_id": "bob", "type": "user"}, {"_id": "nobody", "type": "user"}]
    answer = world.party("T", "ann", "ann1", top={"receivers": receivers})
    assert set(answer) == {"bob1", "bob2"}
    [event] = answer["bob1"]
    assert (event["cause"], event["changed"], event["receivers"]) == ("updated", [], receivers)


def test_a_receiver_without_a_type_is_whoever_bears_the_id() -> None:
    world = room_of("ann")
    world.register("g", "g1", kind="participant")
    world.party("T", "g", "g1", kind="anonymous")
    assert set(world.party("T", "ann", "ann1", top={"receivers": [{"_id": "g"}]})) == {"g1"}
    assert world.party("T", "ann", "ann1", top={"receivers": [{"_id": "g", "type": "user"}]}) == {}


def test_typing_is_passed_on_and_changes_nothing() -> None:
    world = room_of("ann", "bob", "eve")
    before = world.stored()
    answer = world.room("T", "party.typing", "ann", "ann1", text="...")
    assert set(answer) == {"bob1", "eve1"}
    [event] = answer["bob1"]
    assert (event["category"], event["about"], event["changed"]) == ("party.typing", "party/T/ann1", [])
    assert event["content"] == {"sessionId": "ann1", "text": "..."}
    assert set(world.room("T", "party.typing", "ann", top={"receivers": [{"_id": "eve"}]})) == {"eve1"}
    assert world.stored() == before


@pytest.mark.parametrize(("party", "asked"), [("ann1", {"ann1"}), (None, {"ann1", "ann2"}), ("eve2", {"eve2"})])
def test_who_asks_is_told_of_everybody_a_party_or_not(party: str | None, asked: set[str]) -> None:
    world = room_of("ann", "bob")
    world.register("ann", "ann2")
    world.register("eve", "eve2")
    user = "eve" if party == "eve2" else "ann"
    answer = world.room("T", "request.parties", user, party, data=[])
    assert {name: types_of(events) for name, events in answer.items()} == {name: [LISTED] for name in asked}
    [event] = next(iter(answer.values()))
    assert [party["sessionId"] for party in event["content"]["data"]] == ["ann1", "bob1"]


def test_a_large_roster_comes_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "ROSTER_BYTES", 600)
    world = room_of("ann", "bob", "eve", "joe")
    events = world.room("T", "request.parties", "ann", "ann1")["ann1"]
    assert len(events) > 1
    listed = [party["sessionId"] for event in events for party in event["content"]["data"]]
    assert listed == ["ann1", "bob1", "eve1", "joe1"]


# Order.


def at(world: World, seconds: float) -> dict[str, Any]:
    return {"top": {"timestamp": world.registry.now_ms + round(seconds * 1000)}}


def test_an_older_message_never_wins() -> None:
    world = room_of("ann", "bob")
    assert world.party("T", "ann", "ann1", idle=True, **at(world, 20))
    assert world.party("T", "ann", "ann1", idle=False, **at(world, 10)) == {}
    assert world.leaves("T", "ann", "ann1", **at(world, 10)) == {}
    assert world.party("T", "ann", "ann1", idle=False, **at(world, 20))  # as new is not older
    assert world.leaves("T", "ann", "ann1", **at(world, 30))
    assert world.party("T", "ann", "ann1", **at(world, 25)) == {}
    assert world.party("T", "ann", "ann1", **at(world, 31))["bob1"][0]["cause"] == "joined"


def test_a_departed_party_is_remembered_for_ten_minutes() -> None:
    world = room_of("ann", "bob")
    world.leaves("T", "ann", "ann1")
    world.jump_seconds(9 * MINUTE)
    assert world.party("T", "ann", "ann1", **at(world, -570)) == {}
    world.jump_seconds(MINUTE + 1)
    assert world.party("T", "ann", "ann1", **at(world, -700))


def test_a_leave_that_comes_before_its_online_is_remembered() -> None:
    world = room_of("bob")
    assert world.leaves("T", "ann", "ann1", **at(world, 0)) == {}
    assert world.party("T", "ann", "ann1", **at(world, -1)) == {}
    assert world.leaves("T", "eve", "eve1") == {}
    assert not world.record("party:T:eve1")  # it brings nothing to judge by


def test_numbers_order_where_there_is_no_time() -> None:
    world = room_of("bob")
    world.party("T", "ann", "ann1", top={"seq": 5})
    assert world.party("T", "ann", "ann1", idle=True, top={"seq": 4}) == {}
    assert world.party("T", "ann", "ann1", idle=True, top={"seq": 6})
    assert world.leaves("T", "ann", "ann1", seq=7)
    assert world.party("T", "ann", "ann1", top={"seq": 6}) == {}
    assert world.party("T", "ann", "ann1", top={"seq": 8})
    assert world.party("T", "ann", "ann1", top={"seq": 9}) == {}  # a number alone is no news
    assert world.party("T", "ann", "ann1", idle=True)  # what brings neither is


def test_who_was_lost_may_come_back_by_a_slow_clock() -> None:
    world = room_of("ann", "bob")
    world.party("T", "ann", "ann9", **at(world, -200))
    world.registry.now_ms += 10_000
    assert causes(world.offline("ann", "ann9")) == {"ann1": ["connection_lost"], "bob1": ["connection_lost"]}
    assert causes(world.party("T", "ann", "ann9", **at(world, -199)))["bob1"] == ["joined"]


def test_a_removal_spares_who_came_back_after_it() -> None:
    world = room_of("ann", "bob")
    world.party("T", "ann", "ann1", **at(world, 10))
    attendee = {"attendeeType": "userId", "attendee": "ann"}
    assert world.room("T", "party.removed", "bob", attendee=attendee, **at(world, 5)) == {}
    assert world.room("T", "party.removed", "bob", attendee=attendee, **at(world, 15))


def test_a_replay_at_a_subscription_is_news_only_of_the_unknown() -> None:
    world = room_of("ann", "bob")

    def replay(category: str, party: str, **content: Any) -> Message:
        event = {"category": category, "sender": {"_id": "ann"}, "content": {"sessionId": party, **content}}
        return message("presence/rooms/T", event, retain=True)

    assert world.feed(replay("party.online", "ann1", idle=True)) == []
    assert world.feed(replay("party.leaves", "ann1")) == []
    assert world.feed(replay("request.parties", "ann1")) == []
    assert world.feed(replay("party.online", "ann2"))
    assert inside(world) == ["ann1", "bob1", "ann2"]


# Presence is told to rooms, too.


def test_a_change_of_presence_is_told_to_the_rooms_that_the_subject_is_in() -> None:
    world = room_of("ann", "bob")
    world.register("joe", "joe1")
    answer = world.online("ann", "c1")
    assert set(answer) == {"ann1", "bob1"}
    assert types_of(answer["bob1"]) == ["UserPresenceChangedEvent"]
    assert set(world.say("presence/users/ann/status", {"mood": "well"})) == {"ann1", "bob1"}
    world.leaves("T", "ann", "ann1")
    assert set(world.offline("ann", "c1")) == {"ann1"}


GOOD: dict[str, Any] = {"category": "party.online", "sender": {"_id": "ann"}, "content": {"sessionId": "ann1"}}


# Batches, conflicts, records that cannot be read.


def test_many_joins_of_one_batch_each_see_those_before_them() -> None:
    world = World()
    for number in range(20):
        world.register(f"u{number}", f"e{number}")
    joins = [
        message("presence/rooms/T", {**GOOD, "sender": {"_id": f"u{n}"}, "content": {"sessionId": f"e{n}"}})
        for n in range(20)
    ]
    commits = world.counts["commits"]
    outputs = world.feed(*joins)
    assert world.counts["commits"] == commits + 1
    assert len(outputs) == sum(range(20)) + 20
    rosters = [json.loads(output.payload) for output in outputs if LISTED.encode() in output.payload]
    assert [len(roster["content"]["data"]) for roster in rosters] == list(range(1, 21))
    leaves = [
        message(
            "presence/rooms/T",
            {**GOOD, "category": "party.leaves", "sender": {"_id": f"u{n}"}, "content": {"sessionId": f"e{n}"}},
        )
        for n in range(20)
    ]
    world.feed(*leaves, *joins[:3])
    assert inside(world) == ["e0", "e1", "e2"]


def full_room(parties: int) -> World:
    """A world where so many users are in the room, and another one, ``joe``, has an endpoint."""
    world = room_of(*(f"u{number}" for number in range(parties)), settles=False)
    world.broker.settle()
    world.register("joe", "joe1")
    return world


def journal_bytes(world: World) -> int:
    return sum(len(batch) for _, batch in world.journal().values())


@pytest.mark.parametrize("parties", [2, 100])
def test_what_a_join_tells_stands_once_in_the_journal_however_many_are_told(parties: int) -> None:
    world = full_room(parties)
    before = journal_bytes(world)
    assert len(heard(world.party("T", "joe", "joe1"))) == parties
    payloads = {output.payload for output in world.broker.batches[-1]}
    assert journal_bytes(world) - before < sum(map(len, payloads)) + 30 * parties + 300


def test_a_join_is_rendered_once_and_reads_none_anew_who_has_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = full_room(50)
    world.register("eve", "eve1")
    world.party("T", "eve", "eve1")
    rendered, read = Counter[str](), Counter[str]()
    encode, decode = routing._encode, rooms.decode_record

    def counted_encode(event: Any) -> bytes:
        rendered["events"] += 1
        return encode(event)

    def counted_decode(noun: str, text: bytes) -> Any:
        read[noun] += 1
        return decode(noun, text)

    monkeypatch.setattr(routing, "_encode", counted_encode)
    monkeypatch.setattr(rooms, "decode_record", counted_decode)
    assert len(heard(world.party("T", "joe", "joe1"))) == 51
    assert rendered == {"events": 2}  # the news and the roster
    assert read == {"party": 1}  # who joins


def test_what_a_roster_shows_of_a_party_is_what_the_record_says_by_then() -> None:
    world = room_of("ann", "bob")
    world.register("joe", "joe1")
    world.party("T", "joe", "joe1")
    world.party("T", "ann", "ann1", idle=True)
    world.register("eve", "eve1")
    [roster] = heard(world.party("T", "eve", "eve1"), LISTED)["eve1"]
    shown = {party["sessionId"]: party for party in roster["content"]["data"]}
    assert [shown[name]["idle"] for name in ("ann1", "bob1", "joe1")] == [True, False, False]
    stored = world.registry.organizations["default"]["party:T:ann1"]
    assert isinstance(stored, bytes)
    assert stored.startswith(b"%d:" % shown["ann1"]["version"])


def test_who_changes_at_another_bridge_meanwhile_is_shown_as_it_is_then() -> None:
    world = room_of("ann")
    other = World(registry=world.registry, instance="i2")
    world.register("eve", "eve1")
    real = world.registry.commit
    interrupted = []

    async def commit(wanted: Any) -> Any:
        if not interrupted:
            interrupted.append(True)
            other.party("T", "ann", "ann1", idle=True)
        return await real(wanted)

    world.registry.commit = commit  # type: ignore[method-assign]
    [roster] = heard(world.party("T", "eve", "eve1"), LISTED)["eve1"]
    assert [party["idle"] for party in roster["content"]["data"]] == [True, False]
    assert world.counts["conflicts"] == 1


def test_a_party_that_cannot_be_read_keeps_nobody_else_out() -> None:
    world = room_of("ann", "bob", "eve")
    world.registry.organizations["default"]["party:T:ann1"] = b"nonsense"
    world.register("joe", "joe1")
    answer = world.party("T", "joe", "joe1")
    assert [party["sessionId"] for party in answer["joe1"][0]["content"]["data"]] == ["bob1", "eve1", "joe1"]
    world.party("T", "ann", "ann1")
    assert world.codes == ["corrupt_record"]
    assert types_of(world.call_told("unregister_endpoint", ["ann1"])["ann1"]) == ["UserEndpointUnregisteredEvent"]


def test_who_joins_at_another_bridge_meanwhile_is_not_missed() -> None:
    world = room_of("ann")
    other = World(registry=world.registry, instance="i2")
    world.register("bob", "bob1")
    world.register("eve", "eve1")
    real = world.registry.load
    interrupted = []

    async def load(*args: Any, **rest: Any) -> Any:
        loading = await real(*args, **rest)
        if not interrupted:
            interrupted.append(True)
            world.registry.load = real  # type: ignore[method-assign]
            other.party("T", "bob", "bob1")
        return loading

    world.registry.load = load  # type: ignore[method-assign]
    answer = world.party("T", "eve", "eve1")
    assert set(heard(answer)) == {"ann1", "bob1"}
    assert [party["sessionId"] for party in answer["eve1"][0]["content"]["data"]] == ["ann1", "bob1", "eve1"]
