"""The codec of ``/rooms``: bodies of its calls become commands, session tokens what they hold.

Source: reference "rooms and media" A, contract details 23 to 28.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from bridge.domain.ids import is_endpoint_id
from bridge.domain.media_codec import read_counters
from bridge.domain.room_commands import (
    CreateRoom,
    JoinRoom,
    LeaveRoom,
    RefreshParty,
    ReportMedia,
    RoomCommand,
    Visitor,
)
from bridge.domain.token_rooms import Errno, RoomRefusal
from bridge.domain.values import kind_of
from bridge.errors import Refusal

MAXIMUM_NAME_LENGTH = 256
LARGEST_SIZE = 999_999_999
STATUS_FIELDS = ("event", "state", "connections", "sendStreams", "recvStreams")

_SIZE = re.compile(r"[1-9][0-9]{0,8}")
# Neither part holds it: they are of A-Z a-z 0-9 - _.
_DIVIDER = "."
_Fields = Mapping[str, object]


class SessionToken(NamedTuple):
    """What a participant proves itself by: its room connection id and a secret, both of ``A-Z a-z 0-9 - _``."""

    party: str
    secret: str

    def __str__(self) -> str:
        """The token as its holder has it."""
        return _DIVIDER.join(self)

    @property
    def proof(self) -> str:
        """What is kept of the secret, and what it is told by."""
        return sha256(self.secret.encode()).hexdigest()


def visitor_of(token: str) -> Visitor:
    """Return who calls with a session token."""
    found = SessionToken(*token.partition(_DIVIDER)[::2])
    # What cannot be one is the token of nobody.
    return Visitor(party=found.party if is_endpoint_id(found.party) else _DIVIDER, proof=found.proof)


def read_creation(fields: _Fields, room: str, owner: str) -> CreateRoom:
    """Read the body of ``POST /rooms``; ``room`` is the token of the new room, ``owner`` a user's id or empty.

    Raises:
        RoomRefusal: a field is missing or wrong.
    """
    _require(fields, "maxSize")
    name = "" if fields.get("roomName") is None else _name(fields, "roomName")
    return CreateRoom(room, name, _size(fields["maxSize"], "maxSize"), owner)


def read_action(fields: _Fields, room: str, visitor: Visitor, made: SessionToken) -> RoomCommand:
    """Read the body of ``POST /rooms/{token}``.

    Args:
        fields: the body.
        room: the token.
        visitor: who calls, by the header. For what `BY_BODY` names the body may tell instead.
        made: for a new participant.

    Raises:
        RoomRefusal: no action, or an unknown one; nobody calls; a field is missing or wrong.
    """
    action = fields.get("action")
    if action is None:
        raise RoomRefusal(Errno.MISSING_PARAMETERS, f"action is missing: send one of {', '.join(ACTIONS)}")
    read = ACTIONS.get(action) if isinstance(action, str) else None
    if read is None:
        raise RoomRefusal(Errno.INVALID_PARAMETERS, f"action is none of {', '.join(ACTIONS)}")
    if read is _join:
        return _join(fields, room, visitor, made)
    if not visitor.user and not visitor.party and action in BY_BODY and isinstance(fields.get("sessionToken"), str):
        visitor = visitor_of(str(fields["sessionToken"]))
    if not visitor.user and not visitor.party:
        raise RoomRefusal(
            Errno.UNAUTHORIZED, "nobody calls: send the session token by Basic authorization, or a user's bearer token"
        )
    return read(fields, room, visitor, made)


def _join(fields: _Fields, room: str, visitor: Visitor, made: SessionToken) -> RoomCommand:
    _require(fields, "displayName", "clientMaxSize")
    endpoint = fields.get("userEndpointId")
    if endpoint is not None and not (isinstance(endpoint, str) and is_endpoint_id(endpoint)):
        raise RoomRefusal(Errno.INVALID_PARAMETERS, "userEndpointId: use 1..128 of A-Z a-z 0-9 . _ ~ - @")
    size = fields["clientMaxSize"]
    if isinstance(size, str) and _SIZE.fullmatch(size):
        size = int(size)
    name, size = _name(fields, "displayName"), _size(size, "clientMaxSize")
    return JoinRoom(room, visitor, name, size, made.party, made.proof, endpoint or "")


def _status(fields: _Fields, room: str, visitor: Visitor, _: SessionToken) -> RoomCommand:
    try:
        counters = read_counters(fields)
    except Refusal as refusal:
        raise RoomRefusal(Errno.INVALID_PARAMETERS, refusal.message) from None
    for name in ("event", "state"):
        if not isinstance(fields.get(name), str):
            raise RoomRefusal(Errno.INVALID_PARAMETERS, f"{name} is {kind_of(fields.get(name))}: send text")
    if min(counters.counts) < 0:
        name = STATUS_FIELDS[2 + counters.counts.index(min(counters.counts))]
        raise RoomRefusal(Errno.INVALID_PARAMETERS, f"{name} is below zero: send what is there, 0 for nothing")
    return ReportMedia(room, visitor, counters)


ACTIONS: dict[str, Callable[[_Fields, str, Visitor, SessionToken], RoomCommand]] = {
    "join": _join,
    "refresh": lambda _, room, visitor, __: RefreshParty(room, visitor),
    "leave": lambda _, room, visitor, __: LeaveRoom(room, visitor),
    "status": _status,
}
"""Action -> what reads the rest of the body."""

BY_BODY = ("refresh", "leave")
"""Actions for which the body may hold the session token."""


def _require(fields: _Fields, *names: str) -> None:
    missing = [name for name in names if fields.get(name) is None]
    if missing:
        raise RoomRefusal(Errno.MISSING_PARAMETERS, f"{' and '.join(missing)} missing: send it")


def _name(fields: _Fields, name: str) -> str:
    text = fields[name]
    if not isinstance(text, str):
        raise RoomRefusal(Errno.INVALID_PARAMETERS, f"{name} is {kind_of(text)}: send text")
    if not 0 < len(text) <= MAXIMUM_NAME_LENGTH:
        raise RoomRefusal(Errno.INVALID_PARAMETERS, f"{name} has {len(text)} characters: use 1..{MAXIMUM_NAME_LENGTH}")
    return text


def _size(value: object, name: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RoomRefusal(Errno.INVALID_PARAMETERS, f"{name} is {kind_of(value)}: send an integer")
    if not 1 <= value <= LARGEST_SIZE:
        raise RoomRefusal(Errno.INVALID_PARAMETERS, f"{name} is out of range: use 1..{LARGEST_SIZE}")
    return value
