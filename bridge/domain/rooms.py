"""Rooms: what a party reports, asks and tells, by the category of its event.

The category decides who is in the room, never the ``offline`` flag. Who joins or asks is told of everybody in one
message. Source: DESIGN 5, reference "rooms and media" B and C, contract details 14 to 22.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from bridge.domain.clock import event_time
from bridge.domain.commands import RejectRoomEvent, RoomEvent, RoomParties
from bridge.domain.decisions import NOTHING, Decision
from bridge.domain.events import Category, MediaSessionInvalidEvent, RoomPartiesListedEvent, relayed
from bridge.domain.ids import parse_key, party_key, party_keys, room_key
from bridge.domain.parties import (
    NEW_CONTENT,
    aggregate,
    aggregate_of,
    audience,
    changed_fields,
    check_parties,
    depart,
    free_seats,
    live_endpoint,
    merged,
    parties_of,
    party_event,
    readable_parties,
    remember,
    seat_party,
    tabs_of,
    unseat_parties,
)
from bridge.domain.records import Party
from bridge.domain.routing import Emission
from bridge.domain.schema import decode_record
from bridge.domain.seats import Seat, seat_of, wide_seats
from bridge.domain.state import State
from bridge.errors import Refusal

replace = msgspec.structs.replace

ROSTER_BYTES = 512 * 1024
"""A roster beyond this comes in several messages: what is larger than its own limit the broker does not pass on."""

_SMALL_BYTES = 2_048  # of a record: what is kept of 16,384 is then bounded, too

_encode = msgspec.json.Encoder().encode


def room_event(command: RoomEvent, state: State) -> Decision:
    """Take what a party reports, asks or tells. What cannot be taken is rejected, and its sender told."""
    if command.retained and command.time_ms is None and command.category != Category.ONLINE:
        return NOTHING  # a replay at a subscription: it was told long ago
    try:
        return Decision(_RULES[command.category](command, state))
    except Refusal as refusal:
        return _rejected(state, command, refusal, command.fields.get("loopbackMetadata"))


def reject_room_event(command: RejectRoomEvent, state: State) -> Decision:
    """Tell the sender of a room event that cannot be read."""
    return _rejected(state, command, Refusal(command.code, command.message), command.metadata)


def room_parties(command: RoomParties, state: State) -> Decision:
    """Answer everybody in a room, each with its version, and what each user is by all of its parties."""
    room = command.room
    parties = parties_of(state, room)
    contents: dict[str, list[Mapping[str, object]]] = {}
    for party in parties.values():
        contents.setdefault(parse_key(party.user)[1], []).append(party.content)
    return Decision(
        answer={
            "topicId": room,
            "version": state.version(room_key(room)),
            "parties": [_view(name, party, state.version(party_key(room, name))) for name, party in parties.items()],
            "users": {user: aggregate(ones) for user, ones in contents.items()},
        }
    )


# What each category does.


def _online(command: RoomEvent, state: State) -> Sequence[Emission]:
    """Join, or say what changed."""
    room, name = command.room, command.party
    before = state.party(room, name)
    time_ms = _own_time(command, before, state)
    if time_ms is None:
        return ()
    is_new = not before.is_present
    seat = _seat(command, state)
    if is_new:
        _check_space(command, state)
        _require_roster(state, room)  # before anything is done in vain
        before = Party(time_ms=before.time_ms, seq=before.seq)
    elif before.proof:
        seat = seat_of(name, before)  # it named its endpoint when it took its seat
    is_offline = command.content.get("offline", before.content.get("offline"))
    content = merged(before.content or NEW_CONTENT, command.content, has_media=not is_offline)
    party = replace(
        before,
        user=seat.user,
        sender={**before.sender, **command.sender},
        content=content,
        endpoint=seat.endpoint,
        owner=seat.owner,
        joined=state.next_version(room_key(room)) if is_new else before.joined,
        renewed_ms=state.moment.clock_ms,
        lease_ms=before.lease_ms if before.proof else state.rules.party_lease_ms,
        time_ms=max(time_ms, before.time_ms),
        seq=before.seq if command.seq is None else command.seq,
    )
    version = seat_party(state, room, name, party)
    changed = changed_fields(before.content, content)
    emissions: list[Emission] = []
    if changed or party.sender != before.sender or command.receivers:
        told = _addressed(command, audience(state, room, but=name))
        cause = "joined" if is_new else "updated"
        emissions.append(
            party_event(
                state, room, name, party, version, command.category, cause, changed, told, fields=command.fields
            )
        )
    if is_new:
        emissions += roster(state, room, seat)
    return emissions


def _leaves(command: RoomEvent, state: State) -> Sequence[Emission]:
    """Leave. One that is not there is remembered where what is older than its leaving may still come."""
    room, name = command.room, command.party
    before = state.party(room, name)
    time_ms = _own_time(command, before, state)
    if time_ms is None:
        return ()
    if not before.is_present:
        if command.time_ms is not None or command.seq is not None:
            remember(state, room, name, command.user, time_ms, command.seq)
        return ()
    return depart(state, room, [name], "left", command, time_ms)


def _removed(command: RoomEvent, state: State) -> Sequence[Emission]:
    """Remove all parties of the attendee but those that came after it: one event for the user, told to these, too."""
    room = command.room
    time_ms = event_time(command.time_ms, state.moment.now_ms)
    present = readable_parties(state, room, tabs_of(state.seats(room), *command.attendee))
    gone = unseat_parties(
        state, room, [name for name, party in present.items() if not _is_old(command, party)], time_ms
    )
    if not gone:
        return ()
    fields = {
        **command.fields,
        "category": command.category,
        "topicId": room,
        "content": command.content,
        "parties": [one.seat.party for one in gone],
        "cause": "removed",
        "changed": [],
        "aggregate": aggregate_of(state, room, *command.attendee),
    }
    stamp = state.stamp(f"room/{room}", state.version(room_key(room)))
    told = (*audience(state, room), *(one.seat for one in gone))
    removal = Emission(relayed("RoomPresenceChangedEvent", stamp, fields), parties=told)
    return [removal, *free_seats(state, room, gone, "removed")]


def _request(command: RoomEvent, state: State) -> Sequence[Emission]:
    """Answer who asks, a party or not."""
    _renew(command, state)
    return roster(state, command.room, _asker(command, state))


def _typing(command: RoomEvent, state: State) -> Sequence[Emission]:
    """Pass on what changes nothing."""
    room, name, user = command.room, command.party, command.user
    others = tuple(seat for seat in state.seats(room).values() if (seat.party != name if name else seat.user != user))
    party = _renew(command, state)
    fields = {
        **command.fields,
        "category": command.category,
        "topicId": room,
        "content": {**command.content, "sessionId": name} if name else command.content,
        "cause": "updated",
        "changed": [],
    }
    if party is None:
        stamp = state.stamp(f"room/{room}", state.version(room_key(room)))
    else:
        stamp = state.stamp(f"party/{room}/{name}", state.version(party_key(room, name)))
    return [Emission(relayed("RoomPresenceChangedEvent", stamp, fields), parties=_addressed(command, others))]


def _invalid(command: RoomEvent, state: State) -> Sequence[Emission]:
    """Pass on what another server found: only its sender is told."""
    reason, metadata = command.fields.get("reason"), command.fields.get("loopbackMetadata")
    return [_tell_invalid(state, command, reason if isinstance(reason, str) else "", metadata)]


_RULES: dict[str, Callable[[RoomEvent, State], Sequence[Emission]]] = {
    Category.ONLINE: _online,
    Category.LEAVES: _leaves,
    Category.REMOVED: _removed,
    Category.REQUEST: _request,
    Category.TYPING: _typing,
    Category.INVALID: _invalid,
}


# Whether a message counts.


def _own_time(command: RoomEvent, party: Party, state: State) -> int | None:
    """Return when a party's own message was sent, None where what is known of the party is newer.

    Raises:
        Refusal: ``not_allowed``: the party is somebody else's.
    """
    if party.is_present and party.user != command.user:
        raise Refusal("not_allowed", "content.sessionId is another sender's party: use an id of your own")
    time_ms = event_time(command.time_ms, state.moment.now_ms)
    return None if _is_old(command, party) else time_ms


def _is_old(command: RoomEvent, party: Party) -> bool:
    """By time where the message brings one, else by number where both have one; what brings neither is news."""
    if not party.user:
        return False
    if command.time_ms is not None:
        return command.time_ms < party.time_ms
    if command.seq is not None and party.seq is not None:
        return command.seq < party.seq
    return command.retained


def _check_space(command: RoomEvent, state: State) -> None:
    rules, seats = state.rules, state.seats(command.room)
    if state.room(command.room).maximum:
        raise Refusal("not_allowed", "room has seats: join it by POST /rooms/{token}")
    if len(seats) >= rules.maximum_parties:
        raise Refusal("not_allowed", f"room has {len(seats)} parties already (rooms.maximum_parties)")
    if not command.user.startswith("phone:"):
        check_parties(state, command.user, "not_allowed")


def _renew(command: RoomEvent, state: State) -> Party | None:
    """Return the sender's party, None where it is in no room; whatever it says is a sign of life."""
    if not command.party:
        return None
    party = state.party(command.room, command.party)
    if not party.is_present or party.user != command.user:
        return None
    if party.lease_ms:
        state.save(party_key(command.room, command.party), replace(party, renewed_ms=state.moment.clock_ms))
    return party


# Who is told, and what.


def _addressed(command: RoomEvent, seats: tuple[Seat, ...]) -> tuple[Seat, ...]:
    """Return those of ``seats`` whom a message is for: its receivers, all where it names none."""
    if not command.receivers:
        return seats
    receivers = frozenset(command.receivers)
    return tuple(seat for seat in seats if seat.user in receivers)


def _seat(command: RoomEvent | RejectRoomEvent, state: State) -> Seat:
    """Return where the sender sits or would: on the endpoint that bears the party's id, or that the event names.

    Without either all of the sender's endpoints stand for it. A client may name only what is its own.
    """
    user = command.user
    if not user.startswith("phone:"):
        for name in (command.party, command.endpoint):
            key = live_endpoint(state, name)
            if key and not (command.is_client and parse_key(key)[1] != parse_key(user)[1]):
                return Seat(command.party, user, name, key)
    return Seat(command.party, user)


def _asker(command: RoomEvent | RejectRoomEvent, state: State) -> Seat:
    """Return the sender's seat: of its party where it has one, else where it would sit."""
    party = state.party(command.room, command.party) if command.party else None
    if party is not None and party.is_present and party.user == command.user:
        return seat_of(command.party, party)
    return _seat(command, state)


def roster(state: State, room: str, seat: Seat) -> list[Emission]:
    """Tell one seat of everybody in the room, who came first first."""
    lists = _lists([row.view for row in sorted(_rows(state, room))])
    version = state.version(room_key(room))  # of the record that it is about, so that it never goes back
    return [
        Emission(
            RoomPartiesListedEvent(
                *state.stamp(f"room/{room}", version), room, {"data": msgspec.Raw(b"[%b]" % b",".join(views))}
            ),
            party=seat,
        )
        for views in lists
    ]


def _lists(views: list[bytes]) -> list[list[bytes]]:
    """Divide a roster into messages of at most `ROSTER_BYTES`, or of one view where that is larger."""
    if sum(map(len, views)) <= ROSTER_BYTES:
        return [views]
    lists: list[list[bytes]] = [[]]
    left_bytes = ROSTER_BYTES
    for view in views:
        left_bytes -= len(view)
        if left_bytes < 0 and lists[-1]:
            lists.append([])
            left_bytes = ROSTER_BYTES - len(view)
        lists[-1].append(view)
    return lists


class _Row(NamedTuple):
    """A party in a roster: the room's version at its joining, by which it is sorted; its own; its view as JSON."""

    joined: int
    version: int
    view: bytes


def _require_roster(state: State, room: str) -> None:
    """Ask for what a roster is made from, and for the users whose endpoints stand for them: a join is told to these."""
    seats = state.seats(room)
    state.require([*party_keys(room, seats), *(seat.user for seat in wide_seats(seats.values()))])


def _rows(state: State, room: str) -> list[_Row]:
    """Return a room's parties, but for those that cannot be read; in the order of the index."""
    seats = state.seats(room)
    keys = party_keys(room, seats)
    state.require(keys)
    rows: list[_Row] = []
    for name, key, text in zip(seats, keys, state.texts(keys), strict=True):
        try:
            if text is None:
                raise ValueError("there is no record")
            row = _row_kept(name, text) if len(text) <= _SMALL_BYTES else _row(name, text)
        except ValueError:
            state.unreadable.add(key)
            continue
        state.relied[key] = row.version
        rows.append(row)
    return rows


def _row(name: str, text: bytes) -> _Row:
    party, version = decode_record("party", text)
    assert isinstance(party, Party)
    return _Row(party.joined, version, _encode(_view(name, party, version)))


# Everybody who joins is shown everybody else, of whom hardly anybody has changed since the last one joined.
_row_kept = lru_cache(maxsize=16_384)(_row)


def _view(name: str, party: Party, version: int) -> dict[str, object]:
    view = {field: party.content.get(field) for field in NEW_CONTENT}
    return {"sessionId": name, "sender": party.sender, **view, "version": version}


def _rejected(state: State, command: RoomEvent | RejectRoomEvent, refusal: Refusal, metadata: object) -> Decision:
    reason = f"{refusal.code}: {refusal.message}"
    return Decision([_tell_invalid(state, command, reason, metadata)], refusal=refusal)


def _tell_invalid(state: State, command: RoomEvent | RejectRoomEvent, reason: str, metadata: object) -> Emission:
    room = command.room
    stamp = state.stamp(f"room/{room}", state.version(room_key(room)))
    return Emission(MediaSessionInvalidEvent(*stamp, room, reason, metadata), party=_asker(command, state))
