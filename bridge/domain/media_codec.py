"""The codec of media status: what a participant of a session reports of itself.

Source: DESIGN 4, reference "rooms and media" A, contract details 28.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from bridge.domain.codec import check_text, read_json
from bridge.domain.commands import Command, Counters, Ignore, ReportMedia
from bridge.domain.ids import require_id
from bridge.domain.inputs import Input
from bridge.errors import Refusal

LARGEST_COUNT = 1_000_000
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


class _Status(msgspec.Struct, rename="camel"):
    event: str | None = None
    state: str | None = None
    connections: Any = None
    sessions: Any = None
    send_streams: Any = None
    recv_streams: Any = None


_status = msgspec.json.Decoder(_Status).decode


def decode_media(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``sessions/{session}/participants/{participant}/status``.

    Raises:
        Refusal: it cannot be taken.
    """
    session = require_id(ids[0], "session in the topic")
    participant = require_id(ids[1], "participant in the topic")
    if inbound.retained:
        return [Ignore()]  # a replay at a subscription: no telling of which call it was
    return [ReportMedia(session, participant, _counters(inbound.payload))]


def decode_client_media(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``clients/{user}/sessions/{session}/status``: the same by the user itself.

    Raises:
        Refusal: it cannot be taken.
    """
    user = require_id(ids[0], "user in the topic")
    session = require_id(ids[1], "session in the topic")
    if inbound.retained:
        return [Ignore()]
    return [ReportMedia(session, user, _counters(inbound.payload), "user")]


def _counters(payload: bytes) -> Counters:
    check_text(payload)
    status = read_json(_status, payload)
    connections = status.sessions if status.connections is None else status.connections
    counts = (
        read_count(connections, "connections"),
        read_count(status.send_streams, "sendStreams"),
        read_count(status.recv_streams, "recvStreams"),
    )
    return Counters(counts, status.state)


def read_count(value: object, field: str) -> int:
    """Read a counter: an integer, or its text. It may be negative.

    Raises:
        Refusal: ``invalid_field``, naming ``field``.
    """
    if (isinstance(value, str) and _INTEGER.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refusal("invalid_field", f"{field} is missing or no integer: send a number, 0 for none")
    if abs(value) > LARGEST_COUNT:
        raise Refusal("invalid_field", f"{field} is beyond any call: at most {LARGEST_COUNT}")
    return value
