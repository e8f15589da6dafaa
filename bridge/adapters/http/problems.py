"""Errors over HTTP: the table from code to status, and their bodies (RFC 9457).

Source: reference "endpoint API" and, for the numbers, "rooms and media" A; contract details 5 and 24.
"""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.responses import JSONResponse, Response

from bridge.domain.token_rooms import Errno, RoomRefusal
from bridge.errors import Refusal

PROBLEM = "application/problem+json"
RETRY_AFTER_SECONDS = 2


class Kind(NamedTuple):
    """What a code means over HTTP."""

    status: int
    title: str


BAD_REQUEST = Kind(400, "The request cannot be taken")

KINDS: dict[str, Kind] = {
    "invalid_params": BAD_REQUEST,
    "invalid_event": BAD_REQUEST,
    "invalid_mask": BAD_REQUEST,
    "mixed_mute_states": BAD_REQUEST,
    "too_many": BAD_REQUEST,
    "unauthorized": Kind(401, "No token, or one that does not count"),
    "forbidden": Kind(403, "Not for this caller"),
    "not_found": Kind(404, "Nothing is there"),
    "unknown_method": Kind(404, "Nothing is there"),
    "method_not_allowed": Kind(405, "Another method is needed here"),
    "conflict": Kind(409, "Somebody else's, or changed meanwhile"),
    "too_large": Kind(413, "Too large"),
    "unsupported_media_type": Kind(415, "Not in a form that is read here"),
    "quota_exceeded": Kind(429, "More than one may have"),
    "corrupt_record": Kind(500, "The registry holds what the bridge cannot read"),
    "internal": Kind(500, "A fault of the bridge"),
    "unavailable": Kind(503, "Not now"),
}


ROOMS = "/rooms"

GONE = Kind(410, "It is over")
# The numbers of the calls of rooms that say more than their codes.
ROOM_KINDS: dict[int, Kind] = {
    Errno.EXPIRED: GONE,
    Errno.CLIENT_FULL: BAD_REQUEST,
    Errno.ROOM_FULL: Kind(400, "No seat is left"),
    Errno.NOT_IN_ROOM: Kind(400, "Not in the room"),
}
# Those of what is refused before a rule of rooms is asked.
_ERRNOS: dict[str, int] = {
    "not_found": Errno.UNKNOWN_ROOM,
    "invalid_params": Errno.INVALID_PARAMETERS,
    "unauthorized": Errno.UNAUTHORIZED,
    "too_large": 113,
    "corrupt_record": 201,
    "unavailable": 201,
}
_UNDEFINED = 999


def is_of_rooms(path: str) -> bool:
    """Tell whether a path is one of ``/rooms``, whose errors always have a body, and a number in it."""
    return path == ROOMS or path.startswith(f"{ROOMS}/")


def problem(refusal: Refusal, path: str, *, is_empty: bool = False) -> Response:
    """Return the answer to a request that was refused; ``is_empty``: without a body, where the path allows that."""
    # The rules have more words for what is wrong with an input than the contract has codes.
    code = refusal.code if refusal.code in KINDS else "invalid_params"
    kind, number = KINDS[code], {}
    if is_of_rooms(path):
        errno = refusal.errno if isinstance(refusal, RoomRefusal) else _ERRNOS.get(code, _UNDEFINED)
        kind, number = ROOM_KINDS.get(errno, kind), {"errno": errno}
    elif is_empty:
        return Response(status_code=kind.status, headers=headers_of(kind.status))
    body = body_of(code, refusal.message, kind) | number
    return JSONResponse(body, kind.status, headers=headers_of(kind.status), media_type=PROBLEM)


def headers_of(status: int) -> Mapping[str, str]:
    """Return what the headers of such an answer say."""
    if status == 503:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {}


def body_of(code: str, message: str, kind: Kind) -> dict[str, object]:
    """Return the members of a problem; ``errors`` names the field where the message begins with one."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": kind.title,
        "status": kind.status,
        "code": code,
        "detail": message,
    }
    if kind is BAD_REQUEST:
        body["errors"] = [{"field": field_of(message), "reason": message}]
    return body


def field_of(message: str) -> str:
    """Return the field that a message is about: messages of the rules begin with it, those of msgspec end with it."""
    _, _, path = message.rpartition(" - at `$.")
    if path and path != message:
        return path.rstrip("`")
    if message.startswith("Object "):  # misses a field, or has one too many
        return message.split("`")[1]
    return message.split(" ", 1)[0].rstrip(":")
