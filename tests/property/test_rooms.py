"""Hypothesis writes a story of rooms. In each a witness, who only listens, must come to know all that there is."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.domain.changes import due_ms
from bridge.domain.ids import parse_part_key, party_key
from bridge.domain.records import Party, Room, Subject
from bridge.domain.rules import Rules
from bridge.domain.seats import member_of, seat_of, seats_of
from bridge.domain.values import Output
from tests.unit.world import Message, RpcError, World, message

SENDERS = (("user", "ann"), ("user", "bob"), ("anonymous", "ann"), ("phone", "CA1"))
KEYS = {("user", "ann"): "user:ann", ("user", "bob"): "user:bob", ("anonymous", "ann"): "participant:ann"}
ROOMS = ("T", "U")
PARTIES = ("p1", "p2", "p3", "p4")
ENDPOINTS = ("p1", "p2", "e1")
MINE = 3
SEATS = 4  # the witness's among them
DEPARTURES = ("left", "removed", "expired", "connection_lost")

senders = st.sampled_from(SENDERS)
rooms = st.sampled_from(ROOMS)
parties = st.sampled_from(PARTIES)
endpoints = st.sampled_from(ENDPOINTS)
ago_seconds = st.none() | st.integers(0, 5)
contents = st.fixed_dictionaries(
    {},
    optional={
        "idle": st.booleans(),
        "offline": st.booleans(),
        "role": st.sampled_from(("admin", "guest")),
        "mediaSession": st.dictionaries(st.sampled_from(("audio", "video")), st.booleans()),
        "endpointId": endpoints,
    },
)


class Story(RuleBasedStateMachine):
    """What the witnesses hear makes ``pictures``; ``present`` is a model of who is where, of a few lines."""

    @initialize(lease_ms=st.sampled_from((0, 4000)))
    def begin(self, lease_ms: int) -> None:
        self.world = World(Rules(party_lease_ms=lease_ms, maximum_parties=SEATS, maximum_parties_per_subject=MINE))
        self.pictures: dict[str, dict[str, Any]] = {room: {} for room in ROOMS}
        self.present: dict[tuple[str, str], tuple[str, str]] = {}
        self.newest_ms: dict[tuple[str, str], int] = {}
        self.forget_ms: dict[tuple[str, str], int] = {}
        for room in ROOMS:
            self.world.register("witness", f"w-{room}", 86_400)
            self.world.party(room, "witness", f"w-{room}")

    # What happens.

    @rule(room=rooms, sender=senders, party=parties, content=contents, ago=ago_seconds, addressed=st.booleans())
    def online(
        self,
        room: str,
        sender: tuple[str, str],
        party: str,
        content: dict[str, Any],
        ago: int | None,
        addressed: bool,
    ) -> None:
        receivers = [{"_id": "witness"}, {"_id": "bob"}] if addressed else []
        place, held, is_old = (room, party), self.present.get((room, party)), self.is_old((room, party), ago)
        count = sum(1 for owner in self.present.values() if owner == sender)
        is_full = len(self.pictures[room]) >= SEATS - 1 or (sender[0] != "phone" and count >= MINE)
        before = self.world.counts["rejected:not_allowed"]
        outputs = self.feed(self.event("party.online", room, sender, party, content, ago, receivers=receivers))
        is_refused = held not in (None, sender) or (held is None and not is_old and is_full)
        assert self.world.counts["rejected:not_allowed"] - before == is_refused
        if is_refused or is_old:
            return
        self.present[place] = sender
        self.newest_ms[place] = max(self.time_ms(ago), self.newest_ms.get(place, 0))
        self.forget_ms.pop(place, None)
        if addressed:
            assert f"w-{room}" in heard_by(outputs)

    @rule(room=rooms, sender=senders, party=parties, ago=ago_seconds)
    def leaves(self, room: str, sender: tuple[str, str], party: str, ago: int | None) -> None:
        self.feed(self.event("party.leaves", room, sender, party, {"offline": False}, ago))
        place = (room, party)
        held = self.present.get(place)
        if held in (None, sender) and not self.is_old(place, ago) and (held or ago is not None):
            self.departs(place, self.time_ms(ago))

    @rule(room=rooms, sender=senders, ago=ago_seconds)
    def removed(self, room: str, sender: tuple[str, str], ago: int | None) -> None:
        kind = "anonymousId" if sender[0] == "anonymous" else "userId"
        attendee = {"attendee": {"attendeeType": kind, "attendee": sender[1]}}
        self.feed(self.event("party.removed", room, ("user", "witness"), None, attendee, ago))
        for place, owner in list(self.present.items()):
            if place[0] == room and owner == sender and not self.is_old(place, ago):
                self.departs(place, self.time_ms(ago))

    @rule(room=rooms, sender=senders, party=parties)
    def types(self, room: str, sender: tuple[str, str], party: str) -> None:
        self.feed(self.event("party.typing", room, sender, party, {}, None))

    @rule(room=rooms, sender=senders, party=parties)
    def asks(self, room: str, sender: tuple[str, str], party: str) -> None:
        outputs = self.feed(self.event("request.parties", room, sender, party, {}, None))
        for output in outputs:
            assert json.loads(output.payload)["type"] == "RoomPartiesListedEvent"

    @rule(sender=senders, endpoint=endpoints, seconds=st.integers(2, 20))
    def register(self, sender: tuple[str, str], endpoint: str, seconds: int) -> None:
        kind = {"user": "user", "anonymous": "participant", "phone": "device"}[sender[0]]
        before = len(self.world.broker.outputs)
        with suppress(RpcError):  # it is somebody else's
            self.world.register(sender[1], endpoint, seconds, kind=kind)
        self.hear(self.world.broker.outputs[before:])

    @rule(endpoint=endpoints)
    def unregister(self, endpoint: str) -> None:
        ending = self.ending(endpoint)
        before = len(self.world.broker.outputs)
        try:
            self.world.call("unregister_endpoint", [endpoint])
        except RpcError:
            ending = []
        self.hear(self.world.broker.outputs[before:])
        for place in ending:
            self.departs(place, 0)

    @rule(sender=senders, name=st.sampled_from((*PARTIES, "e1")))
    def will(self, sender: tuple[str, str], name: str) -> None:
        key = KEYS.get(sender)
        if key is None:
            return
        ending = self.ending(name, key)
        kind = key.partition(":")[0]
        self.feed(message(f"presence/{kind}s/{sender[1]}", "offline", connection=name))
        for place in ending:
            self.departs(place, 0)

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            for room in ROOMS:
                self.world.say(f"users/endpoints/w-{room}/keepalive")
            self.let(lambda: self.world.pass_seconds(1))

    @precondition(lambda self: not self.world.rules.party_lease_ms)
    @rule()
    def ten_minutes_pass(self) -> None:
        self.let(lambda: self.world.jump_seconds(601))

    def let(self, pass_time: Callable[[], object]) -> None:
        before = len(self.world.broker.outputs)
        pass_time()
        self.hear(self.world.broker.outputs[before:])
        # Whom the witnesses saw go. Whether that was due, and told of all who were, the invariants judge.
        for place in set(self.present) - {(room, party) for room in ROOMS for party in self.pictures[room]}:
            self.departs(place, 0)
        for place, at_ms in list(self.forget_ms.items()):
            if at_ms <= self.world.registry.clock_ms:
                del self.forget_ms[place]
                self.newest_ms.pop(place, None)

    # The model.

    def event(
        self,
        category: str,
        room: str,
        sender: tuple[str, str],
        party: str | None,
        content: dict[str, Any],
        ago: int | None,
        **top: Any,
    ) -> Message:
        if ago is not None:
            top["timestamp"] = self.time_ms(ago)
        if party is not None:
            content = {**content, "sessionId": party}
        event = {"category": category, "sender": {"_id": sender[1], "type": sender[0]}, "content": content, **top}
        return message(f"presence/rooms/{room}", event)

    def time_ms(self, ago: int | None) -> int:
        return self.world.registry.now_ms - (ago or 0) * 1000

    def is_old(self, place: tuple[str, str], ago: int | None) -> bool:
        return ago is not None and self.time_ms(ago) < self.newest_ms.get(place, 0)

    def departs(self, place: tuple[str, str], time_ms: int) -> None:
        self.present.pop(place, None)
        self.newest_ms[place] = max(time_ms, self.newest_ms.get(place, 0))
        registry = self.world.registry
        assert registry.tick_ms is not None
        self.forget_ms[place] = registry.clock_ms + min(registry.now_ms - registry.tick_ms, 2000) + 600_000

    def ending(self, name: str, key: str | None = None) -> list[tuple[str, str]]:
        """The parties that end with an endpoint or a connection of a subject."""
        subjects = {
            found: record
            for found, record in self.records().items()
            if isinstance(record, Subject) and (found == key if key else name in record.endpoints)
        }
        return [
            (room, party)
            for record in subjects.values()
            for room, ones in record.parties.items()
            for party, endpoint in ones.items()
            if name in (party, endpoint)
        ]

    def records(self) -> dict[str, Any]:
        types = {"party": Party, "room": Room, "user": Subject, "participant": Subject, "device": Subject}
        values = self.world.registry.organizations["default"]
        return {
            key: msgspec.json.decode(values[key].split(b":", 2)[2], type=types[key.partition(":")[0]])  # type: ignore[union-attr]
            for key in self.world.stored()
        }

    # What the witnesses hear.

    def feed(self, one: Message) -> list[Output]:
        outputs = self.world.feed(one)
        self.hear(outputs)
        return outputs

    def hear(self, outputs: list[Output]) -> None:
        told: set[tuple[str, str]] = set()
        for output in outputs:
            if not output.event_id:
                continue
            endpoint = output.topic.rpartition("/")[2]
            assert (endpoint, output.event_id) not in told, "nobody is told twice"
            told.add((endpoint, output.event_id))
            event = json.loads(output.payload)
            if event["type"] == "RoomPresenceChangedEvent" and endpoint == f"w-{event['topicId']}":
                self.witness(event)

    def witness(self, event: dict[str, Any]) -> None:
        picture = self.pictures[event["topicId"]]
        if event["category"] == "party.typing":
            return
        if event["cause"] == "removed":
            sender_id = event["content"]["attendee"]["attendee"]
            is_anonymous = event["content"]["attendee"]["attendeeType"] == "anonymousId"
            assert event["parties"], "a removal removes somebody"
            for party in event["parties"]:
                sender, _ = picture.pop(party)
                assert (sender["_id"], sender["type"] == "anonymous") == (sender_id, is_anonymous)
            return
        content = dict(event["content"])
        party = content.pop("sessionId")
        if event["cause"] in DEPARTURES:
            assert party in picture, "a departure is told once"
            assert content["mediaSession"] == dict.fromkeys(content["mediaSession"], False)
            del picture[party]
            return
        assert (event["cause"] == "joined") == (party not in picture)
        before = picture.get(party, (None, {}))
        assert before != (event["sender"], content) or event["receivers"], "no event that changes nothing"
        assert set(event["changed"]) == {name for name in content if before[1].get(name, ...) != content[name]}
        picture[party] = (event["sender"], content)

    # What must be so.

    @invariant()
    def the_witness_the_registry_and_the_model_say_the_same(self) -> None:
        if not hasattr(self, "world"):
            return
        for room in ROOMS:
            answer = self.world.call("room_parties", [room])
            listed = {party["sessionId"]: party for party in answer["parties"]}
            assert len(listed) <= SEATS
            del listed[f"w-{room}"]
            picture = self.pictures[room]
            assert listed.keys() == picture.keys() == {party for place, party in self.present if place == room}
            for party, view in listed.items():
                sender, content = picture[party]
                assert view["sender"] == sender
                for field in ("idle", "offline", "role", "mediaSession"):
                    assert view[field] == content[field]
                assert not (content["offline"] and any(content["mediaSession"].values()))

    @invariant()
    def indexes_links_and_deadlines_follow_from_the_records(self) -> None:
        if not hasattr(self, "world"):
            return
        records, registry = self.records(), self.world.registry
        found: dict[str, set[str]] = {}
        links: dict[str, dict[str, dict[str, str]]] = {}
        for key, record in records.items():
            if not isinstance(record, Party):
                continue
            room, party = parse_part_key(key)
            due = due_ms(key, record, self.world.rules, registry.resumed_ms)
            assert self.world.deadlines().get(key) == due
            assert due is None or due > registry.clock_ms
            if record.is_present:
                found.setdefault(room, set()).add(member_of(seat_of(party, record)))
                for subject in {record.user, record.owner} - {""}:
                    if not subject.startswith("phone:"):
                        links.setdefault(subject, {}).setdefault(room, {})[party] = record.endpoint
        for room in ROOMS:
            members = registry.organizations["default"].get(f"parties:{room}", {})
            assert set(members) == found[room]  # type: ignore[arg-type]
            assert seats_of(list(members)).keys() == {  # type: ignore[arg-type]
                party for place, party in self.present if place == room
            } | {f"w-{room}"}
        for key, record in records.items():
            if isinstance(record, Subject):
                assert record.parties == links.pop(key, {})
        assert not links
        for place in self.present:
            assert records[party_key(*place)].is_present
        assert self.world.all_acknowledged


def heard_by(outputs: list[Output]) -> set[str]:
    return {output.topic.rpartition("/")[2] for output in outputs if output.event_id}


def test_any_story_of_rooms_obeys_the_rules() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Story,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
