"""Parties: what it takes to be in a room and to leave it, whoever says so: a message, an endpoint, a will, the clock.

A record per party, so that one party's change reads and writes no other's. A departure is told once, with its cause, to
who is left. Source: DESIGN 5, reference "rooms and media" B and C, contract details 14 to 20.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from bridge.domain.clock import iso_ms
from bridge.domain.commands import RoomEvent
from bridge.domain.events import Category, RoomPartyKeepAliveReminderEvent, relayed
from bridge.domain.ids import (
    Ref,
    is_endpoint_id,
    parse_key,
    parse_part_key,
    parse_subject_key,
    party_key,
    party_keys,
    room_key,
    subject_key,
)
from bridge.domain.loaded import CorruptRecord
from bridge.domain.members import member_keys, unseat_members
from bridge.domain.owners import holder
from bridge.domain.pauses import counted_from
from bridge.domain.records import Party, Room
from bridge.domain.routing import Emission
from bridge.domain.seats import Seat, seat_of, seats_page
from bridge.domain.state import State
from bridge.errors import Refusal

replace = msgspec.structs.replace

REMEMBER_MS = 10 * 60_000
"""How long a departed party is remembered against older messages (contract details 19)."""

_NO_MEDIA: dict[str, object] = dict.fromkeys(
    ("audio", "video", "connected", "phone", "screenshare", "selfMuted"), False
)
NEW_CONTENT: dict[str, object] = {"offline": False, "idle": False, "role": None, "mediaSession": _NO_MEDIA}
"""The state of a party that says nothing of it."""

_MISSING = object()


class Gone(NamedTuple):
    """A party that departed: where it sat, what it was, and the version of its departure."""

    seat: Seat
    party: Party
    version: int


# Its state.


def merged(before: Mapping[str, object], given: Mapping[str, object], *, has_media: bool) -> dict[str, object]:
    """Return a party's state after a message, which may tell only a part of it, also of its media.

    ``has_media`` False: whatever the message says, nothing is sent any more.
    """
    content = {**before, **given}
    media: dict[str, object] = {}
    for said in (before.get("mediaSession"), given.get("mediaSession"), None if has_media else _NO_MEDIA):
        if isinstance(said, Mapping):
            media.update(said)
    content["mediaSession"] = media
    return content


def changed_fields(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the names of the fields that are not what they were."""
    return [name for name, value in after.items() if before.get(name, _MISSING) != value]


def aggregate(contents: Iterable[Mapping[str, object]]) -> str | None:
    """Return what a user is by all of its parties: ``online`` before ``idle`` before ``offline``; None without any."""
    found = {
        "offline" if content.get("offline") else "idle" if content.get("idle") else "online" for content in contents
    }
    return next((state for state in ("online", "idle", "offline") if state in found), None)


def party_due(key: str, party: Party, resumed_ms: int) -> int | None:
    """Return when something is due on the party whose key is ``key``: its reminder, its end, forgetting it."""
    if party.forget_ms:
        return party.forget_ms
    if not party.lease_ms:
        return None
    # Once, where it has a token to refresh by; its answer to a reminder before a pause may have been lost.
    is_reminded = party.reminded_ms > max(party.renewed_ms, resumed_ms)
    end_ms = party_end(key, party, resumed_ms)
    return end_ms - party.lease_ms // 3 if party.proof and not is_reminded else end_ms


def party_end(key: str, party: Party, resumed_ms: int) -> int:
    """Return the registry clock at which the lease of a party ends."""
    return counted_from(party.renewed_ms, resumed_ms, party.lease_ms, key) + party.lease_ms


# Coming and going.


def tabs_of(seats: Mapping[str, Seat], *users: str) -> list[str]:
    """Return the parties whose sender is one of ``users``."""
    return [party for party, seat in seats.items() if seat.user in users]


def check_parties(state: State, user: str, code: str) -> None:
    """Check that a subject may have one more party. Those of others that its endpoints stand for do not count.

    Raises:
        Refusal: with ``code``.
    """
    rooms, maximum = state.subject_at(user).parties, state.rules.maximum_parties_per_subject
    if sum(map(len, rooms.values())) < maximum:
        return
    state.require([key for room, names in rooms.items() for key in party_keys(room, names)])
    parties = [party for room, names in rooms.items() for party in readable_parties(state, room, names).values()]
    count = sum(party.user == user for party in parties)
    if count >= maximum:
        raise Refusal(code, f"sender has {count} parties (rooms.maximum_parties_per_subject): leave a room first")


def live_endpoint(state: State, name: str) -> str:
    """Return the key of who holds an endpoint that is live; empty: nobody of this organization does."""
    owner = holder(state, name, state.readable) if is_endpoint_id(name) else None
    if owner is None or owner.organization != state.organization:
        return ""
    return subject_key(owner.kind, owner.subject)


def seat_party(state: State, room: str, name: str, party: Party) -> int:
    """Save a party that is present and return its version."""
    before = state.party(room, name)
    version = state.save(party_key(room, name), party)
    if not before.is_present:
        state.save(room_key(room), _changed(state, room))
    places = _places(party)
    for key in dict.fromkeys((*_places(before), *places)):
        _link(state, key, room, name, places.get(key))
    return version


def unseat_parties(
    state: State, room: str, names: Sequence[str], time_ms: int = 0, seq: int | None = None
) -> list[Gone]:
    """Let parties depart. Each is remembered against messages older than its last one and than ``time_ms``.

    A party that is not there, or cannot be read, is passed over.
    """
    gone = []
    for name, party in _present(state, {room: names})[room].items():
        version = remember(state, room, name, party.user, time_ms, seq)
        for key in _places(party):
            _link(state, key, room, name, None)
        gone.append(Gone(seat_of(name, party), party, version))
    if gone:
        after = _changed(state, room)
        state.save(room_key(room), after if after.maximum or state.seats(room) else Room())
    return gone


def _present(state: State, rooms: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Party]]:
    """Return those parties of each room that are there; what their departure needs is asked for at once, of all."""
    state.require(
        [key for room, names in rooms.items() for key in (room_key(room), *party_keys(room, names))],
        pages=map(seats_page, rooms),
    )
    present = {
        room: {name: party for name, party in readable_parties(state, room, names).items() if party.is_present}
        for room, names in rooms.items()
    }
    keys: dict[str, None] = {}
    for room, parties in present.items():
        has_seats = state.is_readable(room_key(room)) and state.room(room).maximum > 0
        for party in parties.values():
            keys.update(dict.fromkeys(_places(party)))
            if has_seats:
                keys.update(dict.fromkeys(member_keys(room, parse_key(party.user)[1])))
    state.require(keys)
    return present


def _changed(state: State, room: str) -> Room:
    """Return a room's record after a join or a departure, from which its time runs anew."""
    before = state.room(room)
    renewed_ms = state.moment.clock_ms if before.maximum else 0
    return replace(before, changed_ms=state.moment.now_ms, renewed_ms=renewed_ms)


def remember(state: State, room: str, name: str, user: str, time_ms: int, seq: int | None) -> int:
    """Keep of a party only what messages that may still come are judged by; returns its version."""
    before = state.party(room, name)
    departed = Party(
        user,
        time_ms=max(time_ms, before.time_ms),
        seq=before.seq if seq is None else seq,
        forget_ms=state.moment.clock_ms + REMEMBER_MS,
        proof=before.proof,
    )
    return state.save(party_key(room, name), departed)


def _places(party: Party) -> dict[str, str]:
    """Return the keys of the subjects whose endpoints and connections end the party -> its own endpoint."""
    if not party.is_present:
        return {}
    keys = [key for key in (party.user, party.owner) if key and not key.startswith("phone:")]
    return dict.fromkeys(keys, party.endpoint)


def _link(state: State, key: str, room: str, name: str, endpoint: str | None) -> None:
    """Let a subject's record name the party and its endpoint; None: no longer."""
    if not state.is_readable(key):
        return
    subject = state.subject_at(key)
    of_room = subject.parties.get(room, {})
    if of_room.get(name) == endpoint:
        return
    of_room = {party: own for party, own in of_room.items() if party != name}
    if endpoint is not None:
        of_room[name] = endpoint
    parties = {other: ones for other, ones in subject.parties.items() if other != room}
    if of_room:
        parties[room] = of_room
    state.save(key, replace(subject, parties=parties))


# Departures that no message tells of.


def end_parties(state: State, ref: Ref, name: str, cause: str) -> list[Emission]:
    """Let the parties go that an ended endpoint or connection stood for, or that bear its name."""
    ended = {
        room: [party for party, endpoint in parties.items() if name in (party, endpoint)]
        for room, parties in state.subject(*ref).parties.items()
    }
    ended = {room: parties for room, parties in ended.items() if parties}
    _present(state, ended)
    emissions: list[Emission] = []
    for room, parties in ended.items():
        try:
            emissions += depart(state, room, parties, cause)
        except CorruptRecord:
            continue  # the endpoint or connection ends all the same
    return emissions


def expire_party(state: State, key: str, clock_ms: int) -> list[Emission]:
    """Do what is due on a party: its reminder, its end in silence, or forgetting its departure."""
    room, name = parse_part_key(key)
    party, resumed_ms = state.party(room, name), state.moment.resumed_ms
    due_ms = party_due(key, party, resumed_ms)
    if due_ms is None or due_ms > clock_ms:
        return []
    if not party.is_present:
        state.save(key, Party())
        return []
    endpoint = state.readable(party.owner).endpoints.get(party.endpoint) if party.owner else None
    if endpoint is not None and endpoint.renewed_ms > party.renewed_ms:  # its keepalives are signs of life, too
        party = replace(party, renewed_ms=endpoint.renewed_ms)
        state.save(key, party)
        return expire_party(state, key, clock_ms)
    end_ms = party_end(key, party, resumed_ms)
    if end_ms <= clock_ms:
        return depart(state, room, [name], "expired")
    version = state.save(key, replace(party, reminded_ms=clock_ms))
    reminder = RoomPartyKeepAliveReminderEvent(
        *state.stamp(f"party/{room}/{name}", version),
        room,
        name,
        party.lease_ms // 1000,
        iso_ms(state.moment.now_ms + end_ms - clock_ms),
    )
    return [Emission(reminder, party=seat_of(name, party))]


def depart(
    state: State,
    room: str,
    names: Sequence[str],
    cause: str,
    message: RoomEvent | None = None,
    time_ms: int = 0,
) -> list[Emission]:
    """Let parties of a room go, and tell who is left; ``message``: what told of it at ``time_ms``, if one did."""
    gone = unseat_parties(state, room, names, time_ms, message.seq if message is not None else None)
    departures = [_departure(state, room, one, cause, message) for one in gone]
    return departures + free_seats(state, room, gone, cause)


def clear_room(state: State, room: str, cause: str, sender: Mapping[str, object] | None = None) -> list[Emission]:
    """Let everybody go at once. One event for all, told to them and the owner, says so: the room is empty.

    Where it was empty before, only that the room itself is no more is news.
    """
    gone = unseat_parties(state, room, list(state.seats(room)))
    if not gone and cause != "room_deleted":
        return []
    fields: dict[str, object] = {
        "category": Category.REMOVED,
        "topicId": room,
        "sender": sender or {},
        "content": {},
        "cause": cause,
        "changed": [],
        "aggregate": None,
    }
    stamp = state.stamp(f"room/{room}", state.version(room_key(room)))
    told = (*audience(state, room), *(one.seat for one in gone))
    return [Emission(relayed("RoomPresenceChangedEvent", stamp, fields), parties=told)]


# A room with seats is a session, too.


def free_seats(state: State, room: str, gone: Sequence[Gone], cause: str) -> list[Emission]:
    """Let those be free who have no seat left in a room with seats."""
    if not state.room(room).maximum:
        return []
    seats = state.seats(room)
    leavers = [parse_subject_key(one.party.user) for one in gone if not tabs_of(seats, one.party.user)]
    return unseat_members(state, room, leavers, "expired" if cause == "expired" else "session_left")


def leave_seats(state: State, session: str, members: Iterable[Ref]) -> list[Emission]:
    """Let those leave the room of a session's name who are no members any more."""
    keys = [subject_key(*member) for member in members]
    names = [name for key in keys for name in state.readable(key).parties.get(session, ())]
    parties = readable_parties(state, session, names)
    return depart(state, session, [name for name, party in parties.items() if party.user in keys], "left")


# What is told.


def audience(state: State, room: str, but: str = "") -> tuple[Seat, ...]:
    """Return whom it concerns what happens in a room: who is in it but the party ``but``, and its owner everywhere."""
    seats = tuple(seat for seat in state.seats(room).values() if seat.party != but)
    owner = state.room(room).owner
    return (*seats, Seat("", owner)) if owner else seats


def _departure(state: State, room: str, gone: Gone, cause: str, message: RoomEvent | None) -> Emission:
    """Return the news of a departure for who is left, with what the message held that told of it, if one did."""
    before = gone.party
    sender, said, fields = before.sender, {}, {}
    if message is not None:
        sender, fields = {**sender, **message.sender}, message.fields
        said = {name: value for name, value in message.content.items() if name != "offline"}  # not read on leaves
    content = merged(before.content, said, has_media=False)
    party = replace(before, sender=sender, content=content)
    changed = changed_fields(before.content, content)
    told = audience(state, room)
    return party_event(
        state, room, gone.seat.party, party, gone.version, Category.LEAVES, cause, changed, told, fields=fields
    )


def party_event(
    state: State,
    room: str,
    name: str,
    party: Party,
    version: int,
    category: str,
    cause: str,
    changed: Sequence[str],
    told: tuple[Seat, ...],
    *,
    fields: Mapping[str, object],
) -> Emission:
    """Return the news of one party for the seats ``told``; ``fields`` are those of the message, for the relay."""
    told_fields = {
        **fields,
        "category": category,
        "topicId": room,
        "sender": party.sender,
        "content": {**party.content, "sessionId": name},
        "cause": cause,
        "changed": changed,
        "aggregate": aggregate_of(state, room, party.user),
    }
    stamp = state.stamp(f"party/{room}/{name}", version)
    return Emission(relayed("RoomPresenceChangedEvent", stamp, told_fields), parties=told)


def aggregate_of(state: State, room: str, *users: str) -> str | None:
    """Return what a user is by all of its parties in a room; see `aggregate`."""
    names = tabs_of(state.seats(room), *users)
    return aggregate(party.content for party in readable_parties(state, room, names).values())


def parties_of(state: State, room: str) -> dict[str, Party]:
    """Return everybody in a room, who came first first."""
    parties = readable_parties(state, room, state.seats(room))
    return dict(sorted(parties.items(), key=lambda item: item[1].joined))


def readable_parties(state: State, room: str, names: Iterable[str]) -> dict[str, Party]:
    """Return the records of parties, but for those that cannot be read: nobody else has to suffer for these."""
    names = list(names)
    state.require(party_keys(room, names))
    return {name: state.party(room, name) for name in names if state.is_readable(party_key(room, name))}
