"""Commands of rooms behind a token: orders of those who call ``/rooms``, decoded and checked for form.

The room's token is its id, and that of its session.
"""

import msgspec

from bridge.domain.media_table import Counters


class Visitor(msgspec.Struct, frozen=True):
    """Who calls: a user by its bearer token, a participant by its session token, a service, or nobody known.

    Attributes:
        user: its id; empty where it is none.
        party: the room connection id of a session token; empty without one.
        proof: hash of the secret that the session token holds.
        is_service: it may do what an owner may, and seat somebody on anybody's endpoint.
    """

    user: str = ""
    party: str = ""
    proof: str = ""
    is_service: bool = False


class CreateRoom(msgspec.Struct, frozen=True):
    """Make a room with ``maximum`` seats; ``owner`` is a user's id, empty: a service's room."""

    room: str
    name: str
    maximum: int
    owner: str


class ReadRoom(msgspec.Struct, frozen=True):
    """Ask what a room is, and who is in it."""

    room: str
    visitor: Visitor


class DeleteRoom(msgspec.Struct, frozen=True):
    """End a room, for its participants too."""

    room: str
    visitor: Visitor


class JoinRoom(msgspec.Struct, frozen=True):
    """Take a seat, or take it again.

    Attributes:
        name: as the others see it.
        size: the largest room that its client can handle, its own seat included.
        party: the room connection id of a new participant, unguessable.
        proof: hash of the secret of its session token.
        endpoint: where it hears of the room; empty: on all endpoints of the user.
    """

    room: str
    visitor: Visitor
    name: str
    size: int
    party: str
    proof: str
    endpoint: str = ""


class RefreshParty(msgspec.Struct, frozen=True):
    """Stay in a room."""

    room: str
    visitor: Visitor


class LeaveRoom(msgspec.Struct, frozen=True):
    """Give the seat back."""

    room: str
    visitor: Visitor


class ReportMedia(msgspec.Struct, frozen=True):
    """A participant of a room reports what it counts."""

    room: str
    visitor: Visitor
    counters: Counters


RoomCommand = CreateRoom | ReadRoom | DeleteRoom | JoinRoom | RefreshParty | LeaveRoom | ReportMedia
