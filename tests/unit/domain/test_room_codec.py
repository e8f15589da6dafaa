"""Room events as they come: the source's examples, what cannot be taken, and what clients may send."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.domain.rules import Rules
from tests.unit.domain.room_world import CHANGED, INVALID, LISTED, causes, heard, inside, room_of
from tests.unit.world import RpcError, World, types_of

# The source's example payloads, each of them.

PAYLOADS = [
    json.loads(line) for line in (Path(__file__).parents[2] / "cases" / "room_payloads.jsonl").read_text().splitlines()
]
ONLINE, LEAVES, REMOVED, REQUEST, INVALID_MEDIA, PHONE_ONLINE, PHONE_LEAVES = PAYLOADS


def payload_world(*payloads: dict[str, Any]) -> World:
    """A world where the sender and the receivers of each payload have an endpoint, and a witness is in its room."""
    world = World()
    for payload in payloads:
        for subject in (payload["sender"], *payload.get("receivers", ())):
            world.register(subject["_id"], f"at-{subject['_id']}")
        world.register("witness", "witness")
        world.party(payload["topicId"], "witness", "witness")
    return world


def publish(world: World, payload: dict[str, Any]) -> dict[str, list[Any]]:
    return world.say(f"presence/rooms/{payload['topicId']}", payload)


def is_documented(event: dict[str, Any], payload: dict[str, Any]) -> bool:
    """Everything that the source documents comes out as it came in."""
    return {name: event.get(name) for name in payload} == payload


def test_the_online_payload() -> None:
    world = payload_world(ONLINE)
    receiver = ONLINE["receivers"][0]["_id"]
    world.party(ONLINE["topicId"], receiver, "its-socket")
    answer = publish(world, ONLINE)
    assert set(heard(answer)) == {f"at-{receiver}"}  # addressed
    [event] = heard(answer)[f"at-{receiver}"]
    assert is_documented(event, ONLINE)
    assert (event["cause"], event["aggregate"]) == ("joined", "online")
    assert set(heard(answer, LISTED)) == {f"at-{ONLINE['sender']['_id']}"}


def test_the_leaves_payload() -> None:
    world = payload_world(LEAVES)
    publish(world, {**LEAVES, "category": ONLINE["category"]})
    [event] = publish(world, LEAVES)["witness"]
    assert is_documented(event, LEAVES)
    assert event["cause"] == "left"
    assert publish(world, LEAVES) == {}


def test_the_removed_payload() -> None:
    world = payload_world(REMOVED)
    removed = REMOVED["content"]["attendee"]["attendee"]
    world.register(removed, "removed")
    world.party(REMOVED["topicId"], removed, "socket")
    answer = publish(world, REMOVED)
    assert set(answer) == {"witness", "removed"}
    assert is_documented(answer["removed"][0], REMOVED)
    assert answer["removed"][0]["cause"] == "removed"


def test_the_request_payload() -> None:
    world = payload_world(REQUEST)
    answer = publish(world, REQUEST)
    [[event]] = answer.values()
    assert set(answer) == {f"at-{REQUEST['sender']['_id']}"}
    assert (event["type"], event["topicId"]) == (LISTED, REQUEST["topicId"])
    assert [party["sessionId"] for party in event["content"]["data"]] == ["witness"]


def test_the_invalid_payload() -> None:
    world = payload_world(INVALID_MEDIA)
    answer = publish(world, INVALID_MEDIA)
    [[event]] = answer.values()
    assert set(answer) == {f"at-{INVALID_MEDIA['sender']['_id']}"}
    assert (event["type"], event["loopbackMetadata"]) == (INVALID, "some metadata")


def test_the_payloads_of_a_phone() -> None:
    world = payload_world(PHONE_ONLINE)
    [event] = publish(world, PHONE_ONLINE)["witness"]
    assert is_documented(event, PHONE_ONLINE)
    answer = publish(world, PHONE_LEAVES)
    assert set(answer) == {"witness"}  # a phone has no endpoint, also where one bears its id
    [event] = answer["witness"]
    media = {**PHONE_LEAVES["content"]["mediaSession"], "audio": False}  # it says true, having left
    assert is_documented(event, {**PHONE_LEAVES, "content": {**PHONE_LEAVES["content"], "mediaSession": media}})


# What cannot be taken.

GOOD: dict[str, Any] = {"category": "party.online", "sender": {"_id": "ann"}, "content": {"sessionId": "ann1"}}


def bad(**changes: Any) -> dict[str, Any]:
    event = {**GOOD, **changes, "loopbackMetadata": {"try": 7}}
    return {name: value for name, value in event.items() if value is not ...}


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (bad(category="party.dances"), "unknown_type"),
        (bad(category=...), "unknown_type"),
        (bad(category=3), "unknown_type"),
        (bad(content={}), "invalid_field"),
        (bad(content=...), "invalid_field"),
        (bad(content=[]), "invalid_field"),
        (bad(content={"sessionId": ""}), "empty_id"),
        (bad(content={"sessionId": "a/b"}), "invalid_field"),
        (bad(content={"sessionId": 7}), "invalid_field"),
        (bad(category="party.leaves", content={}), "invalid_field"),
        (bad(topicId="U"), "id_mismatch"),
        (bad(content={"sessionId": "ann1", "topicId": "U"}), "id_mismatch"),
        (bad(topicId=7), "invalid_field"),
        (bad(content={"sessionId": "ann1", "idle": "yes"}), "invalid_field"),
        (bad(content={"sessionId": "ann1", "offline": 1}), "invalid_field"),
        (bad(content={"sessionId": "ann1", "role": 1}), "invalid_field"),
        (bad(content={"sessionId": "ann1", "mediaSession": True}), "invalid_field"),
        (bad(content={"sessionId": "ann1", "mediaSession": {"audio": "on"}}), "invalid_field"),
        (bad(content={"sessionId": "ann1", "endpointId": "a b"}), "invalid_field"),
        (bad(receivers={}), "invalid_field"),
        (bad(receivers=["bob"]), "invalid_field"),
        (bad(receivers=[{"_id": "bob", "type": "cat"}]), "invalid_field"),
        (bad(seq="one"), "invalid_field"),
        (bad(timestamp="soon"), "invalid_field"),
        (bad(timestamp=4_000_000_000), "invalid_field"),
        (bad(category="party.removed", content={}), "invalid_field"),
        (
            bad(category="party.removed", content={"attendee": {"attendeeType": "x", "attendee": "bob"}}),
            "invalid_field",
        ),
        (bad(category="party.removed", content={"attendee": {"attendeeType": "userId"}}), "empty_id"),
    ],
)
def test_what_cannot_be_taken_is_rejected_and_its_sender_told(event: dict[str, Any], code: str) -> None:
    world = room_of("ann", "bob")
    before = {key: world.record(key) for key in world.stored()}
    answer = world.say("presence/rooms/T", event)
    assert world.codes == [code]
    assert {name: types_of(events) for name, events in answer.items()} == {"ann1": [INVALID]}
    [invalid] = answer["ann1"]
    assert (invalid["topicId"], invalid["loopbackMetadata"]) == ("T", {"try": 7})
    assert invalid["reason"] == world.rejections[0]["reason"]
    assert {key: world.record(key) for key in world.stored()} == before
    assert world.all_acknowledged


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (bad(sender=...), "invalid_field"),
        (bad(sender="ann"), "invalid_field"),
        (bad(sender={}), "empty_id"),
        (bad(sender={"_id": "a/b"}), "invalid_field"),
        (bad(sender={"_id": 7}), "invalid_field"),
        (bad(sender={"_id": "ann", "type": "cat"}), "invalid_field"),
        ([], "invalid_field"),
        (b"{", "not_json"),
    ],
)
def test_where_the_sender_is_not_known_nobody_is_told(event: Any, code: str) -> None:
    world = room_of("ann", "bob")
    assert world.say("presence/rooms/T", event) == {}
    assert world.codes == [code]


def test_a_party_belongs_to_its_sender() -> None:
    world = room_of("ann", "bob")
    for category in ("party.online", "party.leaves"):
        answer = world.room("T", category, "bob", "ann1", idle=True)
        assert INVALID in types_of(answer["ann1"])  # the endpoint that the event named, for a service may
    assert world.codes == ["not_allowed", "not_allowed"]
    world.leaves("T", "ann", "ann1")
    assert causes(world.party("T", "eve", "ann1")) == {"bob1": ["joined"]}  # an id that is free again


def test_a_room_and_a_subject_have_their_limits() -> None:
    world = room_of("ann", "bob", rules=Rules(maximum_parties=2, maximum_parties_per_subject=2))
    assert types_of(world.party("T", "ann", "ann2")["ann1"]) == [INVALID]
    world.party("U", "ann", "ann1")
    world.party("V", "ann", "ann1")
    assert world.codes == ["not_allowed", "not_allowed"]
    assert world.party("T", "ann", "ann1", idle=True)  # who is in stays in
    world.leaves("T", "ann", "ann1")
    world.party("V", "ann", "ann1")
    assert inside(world, "V") == ["ann1"]


def test_parties_of_others_on_ones_endpoint_take_nobodys_place() -> None:
    world = room_of("ann", "bob", rules=Rules(maximum_parties_per_subject=2))
    world.party("U", "ann", "bob1")  # a service may say so
    assert world.record("user:bob")["parties"] == {"T": {"bob1": "bob1"}, "U": {"bob1": "bob1"}}
    world.party("V", "bob", "bob1")
    assert inside(world, "V") == ["bob1"]
    world.party("W", "bob", "bob1")
    assert world.codes == ["not_allowed"]


def test_a_service_tells_the_sender_itself_that_its_event_failed() -> None:
    world = room_of("ann", "bob")
    answer = world.say(
        "presence/rooms/T",
        {"category": "media.session.invalid", "sender": {"_id": "ann"}, "topicId": "T", "loopbackMetadata": "some"},
    )
    assert {name: types_of(events) for name, events in answer.items()} == {"ann1": [INVALID]}
    assert (answer["ann1"][0]["loopbackMetadata"], answer["ann1"][0]["reason"]) == ("some", "")
    assert not world.codes


# Clients.


def test_a_client_joins_asks_and_leaves_as_itself() -> None:
    world = room_of("bob")
    world.register("ann", "ann1")
    answer = world.room("T", "party.online", "ann", "ann1", client="ann")
    assert {name: types_of(events) for name, events in answer.items()} == {"bob1": [CHANGED], "ann1": [LISTED]}
    assert types_of(world.room("T", "request.parties", "ann", "ann1", client="ann")["ann1"]) == [LISTED]
    assert causes(world.room("T", "party.leaves", "ann", "ann1", client="ann")) == {"bob1": ["left"]}
    assert not world.codes


@pytest.mark.parametrize(
    ("category", "user", "kind", "party"),
    [
        ("party.online", "bob", "user", "x"),
        ("party.leaves", "bob", "user", "bob1"),
        ("party.online", "eve", "phone", "x"),
        ("party.typing", "eve", "user", "eve1"),
        ("party.removed", "eve", "user", None),
        ("media.session.invalid", "eve", "user", None),
        ("party.leaves", "eve", "user", "bob1"),
        ("party.online", "eve", "user", "bob1"),
    ],
)
def test_a_client_may_do_nothing_in_anothers_name(category: str, user: str, kind: str, party: str | None) -> None:
    world = room_of("bob", "eve")
    attendee = {"attendee": {"attendeeType": "userId", "attendee": "bob"}}
    answer = world.room("T", category, user, party, kind=kind, client="eve", **attendee)
    assert world.codes == ["not_allowed"]
    assert {name: types_of(events) for name, events in answer.items()} == {"eve1": [INVALID]}
    assert inside(world) == ["bob1", "eve1"]


def test_a_client_that_cannot_be_read_is_told_all_the_same() -> None:
    world = room_of("bob", "eve")
    assert types_of(world.say("clients/eve/rooms/T", b"{")["eve1"]) == [INVALID]
    assert types_of(world.say("clients/eve/rooms/T", {})["eve1"]) == [INVALID]
    assert world.codes == ["not_json", "unknown_type"]


def test_a_client_may_not_sit_on_the_endpoint_of_another() -> None:
    world = room_of("bob")
    world.register("ann", "ann1")
    answer = world.room("U", "party.online", "ann", "bob1", client="ann")
    assert set(answer) == {"ann1"}
    world.room("U", "party.online", "ann", "s9", endpointId="bob1", client="ann")
    assert set(heard(world.party("U", "eve", "e1"))) == {"ann1"}


def test_asking_for_parties_by_rpc_is_for_services() -> None:
    with pytest.raises(RpcError, match="forbidden"):
        World().call("room_parties", ["T"], user="ann")
