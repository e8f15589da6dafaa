"""Rooms behind a token: with seats, an owner and an end; who takes a seat is a party of the room and in its session.

Everything that parties of other rooms do and suffer, these do too: here stands only what is theirs alone.
Source: DESIGN 5, reference "rooms and media" A and C, contract details 23 to 28.
"""

from collections.abc import Mapping
from enum import IntEnum
from hmac import compare_digest

import msgspec

from bridge.domain.clock import iso_ms
from bridge.domain.decisions import Decision
from bridge.domain.events import Category
from bridge.domain.ids import parse_key, parse_subject_key, party_key, room_key, session_key, subject_key
from bridge.domain.media import report_counters
from bridge.domain.members import seat_member
from bridge.domain.membership import renew_session
from bridge.domain.parties import (
    NEW_CONTENT,
    audience,
    changed_fields,
    check_parties,
    clear_room,
    depart,
    live_endpoint,
    parties_of,
    party_event,
    seat_party,
)
from bridge.domain.pauses import counted_from
from bridge.domain.records import Party, Room
from bridge.domain.room_commands import (
    CreateRoom,
    DeleteRoom,
    JoinRoom,
    LeaveRoom,
    ReadRoom,
    RefreshParty,
    ReportMedia,
    RoomCommand,
)
from bridge.domain.rooms import roster
from bridge.domain.routing import Emission
from bridge.domain.rules import Rules
from bridge.domain.seats import Seat, seat_of
from bridge.domain.sessions import end_session
from bridge.domain.state import State
from bridge.errors import Refusal

replace = msgspec.structs.replace

MODERATOR, PUBLISHER = "moderator", "publisher"


class Errno(IntEnum):
    """What the source's numbers say; callers know them better than codes."""

    UNKNOWN_ROOM = 105
    BAD_JSON = 106
    INVALID_PARAMETERS = 107
    MISSING_PARAMETERS = 108
    UNAUTHORIZED = 110
    EXPIRED = 111
    CLIENT_FULL = 121
    ROOM_FULL = 202
    NOT_IN_ROOM = 203


CODES: dict[Errno, str] = {
    Errno.UNKNOWN_ROOM: "not_found",
    Errno.BAD_JSON: "invalid_params",
    Errno.INVALID_PARAMETERS: "invalid_params",
    Errno.MISSING_PARAMETERS: "invalid_params",
    Errno.UNAUTHORIZED: "unauthorized",
    Errno.EXPIRED: "not_found",
    Errno.CLIENT_FULL: "quota_exceeded",
    Errno.ROOM_FULL: "quota_exceeded",
    Errno.NOT_IN_ROOM: "conflict",
}
"""Number -> the contract's code, which says less."""


class RoomRefusal(Refusal):
    """A call of ``/rooms`` that cannot be taken; ``errno`` says why, more finely than its code."""

    def __init__(self, errno: Errno, message: str) -> None:
        super().__init__(CODES[errno], message)
        self.errno = errno


# The room.


def create_room(command: CreateRoom, state: State) -> Decision:
    """Make a room. Answers ``{"roomToken", "expiresAt"}``."""
    rules, key = state.rules, room_key(command.room)
    if not 1 <= command.maximum <= rules.maximum_parties:
        raise RoomRefusal(
            Errno.INVALID_PARAMETERS,
            f"maxSize is {command.maximum}: use 1..{rules.maximum_parties} (rooms.maximum_parties)",
        )
    owner = subject_key("user", command.owner) if command.owner else ""
    room = Room(state.moment.now_ms, command.maximum, command.name, owner, state.moment.clock_ms)
    state.room(command.room)
    state.save(key, room)
    return Decision(answer={"roomToken": command.room, "expiresAt": _expires_at(state, command.room, room)})


def read_room(command: ReadRoom, state: State) -> Decision:
    """Answer what a room is, and who is in it, who came first first."""
    room = _room(state, command)
    visitor = command.visitor
    if visitor.party:
        _party(state, command)
    participants = [
        {
            "displayName": party.sender.get("displayname"),
            "roomConnectionId": name,
            "owner": party.user == room.owner,
        }
        for name, party in parties_of(state, command.room).items()
    ]
    return Decision(
        answer={
            "roomToken": command.room,
            "roomName": room.name,
            "maxSize": room.maximum,
            "participants": participants,
            "expiresAt": _expires_at(state, command.room, room),
        }
    )


def delete_room(command: DeleteRoom, state: State) -> Decision:
    """End a room; only its owner and services may. Its participants are told, and free."""
    room, visitor = _room(state, command), command.visitor
    if not visitor.is_service and (not visitor.user or subject_key("user", visitor.user) != room.owner):
        raise Refusal("forbidden", "the room is somebody else's: only its owner deletes it")
    sender = {"_id": visitor.user, "type": "user"} if visitor.user else {}
    return Decision(_end(state, command.room, sender))


def expire_room(state: State, room: str, clock_ms: int) -> list[Emission]:
    """End a room that nobody joined or left for too long."""
    record = state.room(room)
    if not record.maximum or room_end(room, record, state.rules, state.moment.resumed_ms) > clock_ms:
        return []
    return _end(state, room, {})


def room_end(room_id: str, room: Room, rules: Rules, resumed_ms: int) -> int:
    """Return the registry clock at which a room with seats ends."""
    return counted_from(room.renewed_ms, resumed_ms, rules.room_ttl_ms, room_id) + rules.room_ttl_ms


def _end(state: State, room: str, sender: Mapping[str, object]) -> list[Emission]:
    emissions = clear_room(state, room, "room_deleted", sender)
    state.save(room_key(room), Room())
    return emissions + end_session(state, room)


def _expires_at(state: State, room_id: str, room: Room) -> str:
    moment = state.moment
    return iso_ms(moment.now_ms + room_end(room_id, room, state.rules, moment.resumed_ms) - moment.clock_ms)


# Its participants.


def join_room(command: JoinRoom, state: State) -> Decision:
    """Take a seat. A user that has one, or a guest that names the endpoint of one, takes that again."""
    room_id, visitor = command.room, command.visitor
    room = _room(state, command)
    user = subject_key("user", visitor.user) if visitor.user else ""
    seats = state.seats(room_id)
    mine = next((seat for seat in seats.values() if _is_mine(seat, user, command.endpoint)), None)
    _check_seats(state, room, [seat for seat in seats.values() if seat is not mine], user, command.size)
    name = command.party if mine is None else mine.party
    user = user or subject_key("participant", name)
    before = state.party(room_id, name) if mine is not None else Party()
    if mine is None:
        check_parties(state, user, "quota_exceeded")
    owner = live_endpoint(state, command.endpoint)
    if not visitor.is_service and not _may_hear_there(owner, visitor.user):
        owner = ""
    party = replace(
        before,
        user=user,
        sender={**before.sender, **_sender(user, command.name)},
        content=before.content or {**NEW_CONTENT, "role": _role(room, user)},
        endpoint=command.endpoint,
        owner=owner,
        joined=before.joined or state.next_version(room_key(room_id)),
        renewed_ms=state.moment.clock_ms,
        lease_ms=state.rules.participant_ttl_ms,
        size=command.size,
        proof=command.proof,
    )
    version = seat_party(state, room_id, name, party)
    emissions: list[Emission] = []
    changed = changed_fields(before.content, party.content)
    if changed or party.sender != before.sender:
        told = audience(state, room_id, but=name)
        cause = "updated" if before.is_present else "joined"
        emissions.append(
            party_event(state, room_id, name, party, version, Category.ONLINE, cause, changed, told, fields={})
        )
    emissions += seat_member(state, room_id, parse_subject_key(user))
    emissions += roster(state, room_id, seat_of(name, party))
    return Decision(
        emissions,
        answer={
            "sessionId": room_id,
            "roomConnectionId": name,
            "mediaRole": MODERATOR if user == room.owner else PUBLISHER,
            "expires": party.lease_ms // 1000,
        },
    )


def refresh_party(command: RefreshParty, state: State) -> Decision:
    """Stay in the room. Answers ``{"expires"}``, in seconds."""
    party = _present(state, command, Errno.EXPIRED, "the participant is not in the room any more: join it again")
    return Decision(answer={"expires": party[1].lease_ms // 1000})


def leave_room(command: LeaveRoom, state: State) -> Decision:
    """Give the seat back."""
    name, _ = _present(
        state, command, Errno.NOT_IN_ROOM, "the participant is not in the room: there is nothing to leave"
    )
    return Decision(depart(state, command.room, [name], "left"))


def report_media(command: ReportMedia, state: State) -> Decision:
    """Take what a participant counts. It is kept under the id by which it is in the session."""
    _, party = _present(state, command, Errno.NOT_IN_ROOM, "the participant is not in the room: join it first")
    return Decision(report_counters(state, command.room, parse_key(party.user)[1], command.counters))


def _is_mine(seat: Seat, user: str, endpoint: str) -> bool:
    if user:
        return seat.user == user
    return bool(endpoint) and seat.endpoint == endpoint and seat.user.startswith("participant:")


def _check_seats(state: State, room: Room, others: list[Seat], user: str, size: int) -> None:
    """Check that there is a seat left; one is kept for the owner while it is not there.

    Raises:
        RoomRefusal: the room is full; or its client cannot handle as many.
    """
    rules = state.rules
    sizes = [seat.size for seat in others if seat.size]
    limit = min([room.maximum, rules.maximum_parties, rules.maximum_members, *sizes])
    is_kept = room.owner and room.owner != user and all(seat.user != room.owner for seat in others)
    if limit - len(others) - bool(is_kept) <= 0:
        kept = ", and one is kept for the owner" if is_kept else ""
        raise RoomRefusal(Errno.ROOM_FULL, f"the room is full: {len(others)} of {limit} seats are taken{kept}")
    if size <= len(others):
        raise RoomRefusal(
            Errno.CLIENT_FULL, f"clientMaxSize is {size}, and {len(others)} participants are there already"
        )


def _may_hear_there(owner: str, user: str) -> bool:
    """Tell whether who is no service may hear on an endpoint: a user on its own, a guest where no user is."""
    return owner == subject_key("user", user) if user else owner.startswith("participant:")


def _sender(user: str, name: str) -> dict[str, object]:
    kind, subject = parse_key(user)
    return {"_id": subject, "type": "user" if kind == "user" else "anonymous", "displayname": name}


def _role(room: Room, user: str) -> str:
    if user == room.owner:
        return "admin"
    return "member" if user.startswith("user:") else "guest"


def _room(state: State, command: RoomCommand) -> Room:
    room = state.room(command.room)
    if not room.maximum:
        raise RoomRefusal(Errno.UNKNOWN_ROOM, "no room has this token: it expired, was deleted, or never was")
    return room


def _party(state: State, command: RefreshParty | LeaveRoom | ReportMedia | ReadRoom) -> tuple[str, Party] | None:
    """Return the participant that calls, in the room or departed; None where a user was never there.

    Raises:
        RoomRefusal: the session token is none, or of somebody forgotten.
    """
    room, visitor = command.room, command.visitor
    if visitor.party:
        party = state.party(room, visitor.party)
        if not party.proof or not compare_digest(party.proof, visitor.proof):
            raise RoomRefusal(Errno.UNAUTHORIZED, "the session token is none of this room, or was replaced: join again")
        return visitor.party, party
    if not visitor.user:
        raise RoomRefusal(Errno.UNAUTHORIZED, "nobody calls: send the session token, or a user's bearer token")
    user = subject_key("user", visitor.user)
    names = state.subject_at(user).parties.get(room, {})
    state.require(party_key(room, name) for name in names)
    return next(((name, party) for name in names if (party := state.party(room, name)).user == user), None)


def _present(
    state: State, command: RefreshParty | LeaveRoom | ReportMedia, errno: Errno, message: str
) -> tuple[str, Party]:
    """Return the participant that calls; whatever it says is a sign of life, also of the session.

    Raises:
        RoomRefusal: with ``errno``, it is not in the room.
    """
    _room(state, command)
    found = _party(state, command)
    if found is None or not found[1].is_present:
        raise RoomRefusal(errno, message)
    name, party = found
    party = replace(party, renewed_ms=state.moment.clock_ms, lease_ms=state.rules.participant_ttl_ms)
    state.save(party_key(command.room, name), party)
    if state.is_readable(session_key(command.room)):
        renew_session(state, command.room)
    return name, party
