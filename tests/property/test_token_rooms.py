"""Hypothesis writes a story of rooms behind a token. Seats are never exceeded; each departure is told once, and why.

The owner's endpoint hears everything; a model of a few lines says which joins fit.
"""

import json
from contextlib import suppress

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from bridge.domain.changes import due_ms
from bridge.domain.records import EMPTY
from bridge.domain.room_commands import Visitor
from bridge.domain.rules import Rules
from bridge.domain.token_rooms import Errno
from tests.unit.domain.token_world import NOBODY, SERVICE, STATUS, Reply, TokenWorld, user
from tests.unit.world import RpcError, told

ROOMS = {"R": 3, "S": 2}
USERS = ("owner", "ann", "bob")
GUESTS = ("g1", "g2")
DEPARTURES = ("left", "removed", "expired", "connection_lost", "room_deleted")
WITNESS = "owner-w"

rooms = st.sampled_from(tuple(ROOMS))
users = st.sampled_from(USERS)
people = st.sampled_from((*USERS, *GUESTS))
sizes = st.integers(1, 4)


class Story(RuleBasedStateMachine):
    """``seats`` is the model: room -> party -> (who, size); ``pictures`` is what the witness has heard."""

    @initialize()
    def begin(self) -> None:
        self.world = TokenWorld(Rules(participant_ttl_ms=60_000, session_ms=10_000_000))
        self.world.register("owner", WITNESS, 86_400)
        self.seats: dict[str, dict[str, tuple[str, int]]] = {}
        self.pictures: dict[str, set[str]] = {room: set() for room in ROOMS}
        self.invited: dict[str, set[str]] = {room: set() for room in ROOMS}
        self.tokens: dict[tuple[str, str], str] = {}
        self.heard = 0
        for room in ROOMS:
            self.create(room)

    # What happens.

    @rule(room=rooms)
    def create(self, room: str) -> None:
        if room not in self.seats:
            assert self.world.create(ROOMS[room], room=room).errno is None
            self.seats[room] = {}

    @rule(room=rooms, who=people, size=sizes, names_endpoint=st.booleans())
    def join(self, room: str, who: str, size: int, names_endpoint: bool) -> None:
        is_guest = who in GUESTS
        fields = {"userEndpointId": f"{who}-e"} if names_endpoint else {}
        reply = self.world.take("" if is_guest else who, room, size, who, **fields)
        self.hear()
        if room not in self.seats:
            assert reply.errno == Errno.UNKNOWN_ROOM
            return
        taken = self.seats[room]
        # A user takes its own seat again, a guest only that of its endpoint.
        label = f"{who}!" if is_guest and names_endpoint else who
        again = not is_guest or names_endpoint
        mine = next((party for party, (name, _) in taken.items() if again and name == label), None)
        others = [seat for party, seat in taken.items() if party != mine]
        limit = min([ROOMS[room], *(other_size for _, other_size in others)])
        is_kept = who != "owner" and all(other != "owner" for other, _ in others)
        expected = None
        if limit - len(others) - is_kept <= 0:
            expected = Errno.ROOM_FULL
        elif size <= len(others):
            expected = Errno.CLIENT_FULL
        assert reply.errno == expected
        if expected is None:
            party = reply.answer["roomConnectionId"]
            assert (party == mine) if mine else party not in taken
            taken[party] = (label, size)
            self.tokens[room, party] = self.world.tokens[who]
            if not is_guest:
                self.invited[room].discard(who)

    @rule(room=rooms, who=people, action=st.sampled_from(("refresh", "status")))
    def stay(self, room: str, who: str, action: str) -> None:
        for party, visitor in self.seated(room, who):
            reply = self.world.act(action, visitor, room, **{**STATUS, "connections": 2, "sendStreams": 1})
            assert reply.errno is None, party
        self.hear()

    @rule(room=rooms, who=people, by_message=st.booleans())
    def leave(self, room: str, who: str, by_message: bool) -> None:
        for party, visitor in self.seated(room, who):
            if by_message:
                self.world.leaves(room, who if who in USERS else party, party, kind=kind_of(who))
            else:
                assert self.world.act("leave", visitor, room).errno is None
            self.gone(room, party)
            assert self.world.act("leave", visitor, room).errno == Errno.NOT_IN_ROOM
            assert self.world.act("refresh", visitor, room).errno == Errno.EXPIRED
        self.hear()

    @rule(room=rooms, who=users)
    def removed(self, room: str, who: str) -> None:
        attendee = {"attendeeType": "userId", "attendee": who}
        self.world.room(room, "party.removed", "boss", attendee=attendee)
        for party, _ in self.seated(room, who):
            self.gone(room, party)
        self.hear()

    @rule(room=rooms, who=people, idle=st.booleans())
    def says_more(self, room: str, who: str, idle: bool) -> None:
        for party, _ in self.seated(room, who):
            self.world.party(room, who if who in USERS else party, party, kind=kind_of(who), idle=idle)
        self.hear()

    @rule(room=rooms, who=users)
    def nobody_comes_in_by_a_message(self, room: str, who: str) -> None:
        if room in self.seats:
            self.world.party(room, who, f"{who}-socket")
            self.hear()

    @rule(who=st.sampled_from(("ann", "bob", *GUESTS)), ends=st.booleans())
    def endpoint(self, who: str, ends: bool) -> None:
        name = f"{who}-e"
        if not ends:
            self.world.register(who, name, 86_400, kind="user" if who in USERS else "participant")
            return
        with suppress(RpcError):
            self.world.call("unregister_endpoint", [name])
        self.hear(may_end=True)

    @rule(room=rooms, who=users)
    def will(self, room: str, who: str) -> None:
        for party, _ in self.seated(room, who):
            self.world.offline(who, party)
            self.gone(room, party)
        self.hear()

    @rule(room=rooms, who=users, what=st.sampled_from(("invite", "leave", "decline")))
    def session(self, room: str, who: str, what: str) -> None:
        if room not in self.seats:
            return
        if what == "invite":
            self.world.join(room, who)
            if not self.seated(room, who):
                self.invited[room].add(who)
        else:
            getattr(self.world, {"leave": "leave", "decline": "reply"}[what])(room, who)
            self.invited[room].discard(who)
            for party, _ in self.seated(room, who):
                self.gone(room, party)
        self.hear()

    @rule(room=rooms)
    def stop(self, room: str) -> None:
        if room in self.seats:
            self.world.stop(room)
            self.invited[room].clear()
            for party in list(self.seats[room]):
                self.gone(room, party)
            self.hear()

    @rule(room=rooms, visitor=st.sampled_from((user("owner"), SERVICE, user("ann"), NOBODY)))
    def delete(self, room: str, visitor: Visitor) -> None:
        reply: Reply = self.world.delete(visitor, room)
        if room not in self.seats:
            assert reply.errno == Errno.UNKNOWN_ROOM
        elif visitor in (user("owner"), SERVICE):
            assert reply.code == ""
            del self.seats[room]
            self.invited[room].clear()
        else:
            assert reply.code == "forbidden"
        self.hear()

    @rule(seconds=st.integers(1, 50))
    def time_passes(self, seconds: int) -> None:
        self.world.pass_seconds(seconds)
        self.world.say(f"users/endpoints/{WITNESS}/keepalive")
        self.hear(may_end=True)

    # The model.

    def seated(self, room: str, who: str) -> list[tuple[str, Visitor]]:
        found = []
        for party, (name, _) in list(self.seats.get(room, {}).items()):
            if name.rstrip("!") == who:
                self.world.tokens["it"] = self.tokens[room, party]
                found.append((party, user(who) if who in USERS else self.world.as_guest("it")))
        return found

    def gone(self, room: str, party: str) -> None:
        self.seats.get(room, {}).pop(party, None)

    def hear(self, *, may_end: bool = False) -> None:
        """Take what the witness heard since the last time. ``may_end``: the model learns from it who is out."""
        outputs = self.world.broker.outputs[self.heard :]
        self.heard = len(self.world.broker.outputs)
        for event in told(outputs).get(WITNESS, ()):
            if event["type"] != "RoomPresenceChangedEvent":
                continue
            picture, cause = self.pictures[event["topicId"]], event["cause"]
            if event["category"] == "party.removed" and "parties" not in event:
                assert cause in DEPARTURES
                picture.clear()
                continue
            parties = event.get("parties") or [event["content"]["sessionId"]]
            for party in parties:
                if cause in DEPARTURES:
                    assert party in picture, "a departure is told once"
                    picture.remove(party)
                    if may_end:
                        self.gone(event["topicId"], party)
                else:
                    assert (cause == "joined") == (party not in picture)
                    assert cause == "joined" or event["changed"] or event["sender"], "no event that changes nothing"
                    picture.add(party)

    # What must be so.

    @invariant()
    def seats_pictures_and_sessions_say_the_same(self) -> None:
        if not hasattr(self, "world"):
            return
        for room, maximum in ROOMS.items():
            taken = self.seats.get(room)
            reply = self.world.read(room)
            members = self.world.call("session_members", [room])
            if taken is None:
                assert reply.errno == Errno.UNKNOWN_ROOM
                assert self.pictures[room] == set()
                assert members == {"users": [], "participants": [], "devices": []}
                continue
            listed = {one["roomConnectionId"] for one in reply.answer["participants"]}
            assert listed == taken.keys() == self.pictures[room]
            # Seats are never exceeded, whatever a client can handle, and the owner's stays free.
            assert len(taken) <= min([maximum, *(size for _, size in taken.values())])
            assert len(taken) < maximum or any(who == "owner" for who, _ in taken.values())
            assert set(members["users"]) == {who for who, _ in taken.values() if who in USERS} | self.invited[room]
            assert set(members["participants"]) == {p for p, (who, _) in taken.items() if who.rstrip("!") in GUESTS}
            for one in self.world.call("media_state", [room]).values():
                assert one["state"] in ("init", "sending")
        in_rooms = {who for taken in self.seats.values() for who, _ in taken.values() if who in USERS}
        assert set(self.world.call("busy_users")) == in_rooms.union(*self.invited.values())

    @invariant()
    def deadlines_follow_from_the_records(self) -> None:
        if not hasattr(self, "world"):
            return
        registry = self.world.registry
        values = registry.organizations["default"]
        for key in self.world.stored():
            noun = key.partition(":")[0]
            if noun in EMPTY:
                stored = values[key]
                assert isinstance(stored, bytes)
                record = msgspec.json.decode(stored.split(b":", 2)[2], type=type(EMPTY[noun]))
                due = due_ms(key, record, self.world.rules, registry.resumed_ms)
                assert self.world.deadlines().get(key) == due, key
                if noun == "session":
                    assert record.members or record.stopped_ms is not None
        assert self.world.all_acknowledged
        assert "corrupt_record" not in json.dumps(self.world.codes)


def kind_of(who: str) -> str:
    return "user" if who in USERS else "anonymous"


def test_any_story_of_rooms_behind_a_token_obeys_the_rules() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Story,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
