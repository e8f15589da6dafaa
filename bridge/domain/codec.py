"""The codec of presence, status and keepalives, and what all codecs share: rooms that know field names of JSON.

Accepted are camelCase and snake_case field names, enum names and numbers, the short type name and the ``@type`` URL,
one event or the ``TeraEvent`` wrapper with several. Source: reference "presence and sessions" 1 and 6, contract
details 8 to 10.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from bridge.domain.clock import parse_time
from bridge.domain.commands import (
    Command,
    Ignore,
    KeepEndpoint,
    Reject,
    ReportPresence,
    ReportStatus,
)
from bridge.domain.ids import is_endpoint_id, is_id, require_id
from bridge.domain.inputs import Input
from bridge.domain.values import KINDS, Kind, kind_of
from bridge.errors import Refusal

MAXIMUM_DEPTH = 64

# The enums of the source, by name; the number is the place in the list.
_PRESENCE_TYPES: dict[Kind, tuple[str, ...]] = {
    "user": ("UNKNOWN", "CONNECTED", "DISCONNECTED", "DELETED", "ADDED", "UPDATED", "JOINED_SESSION", "LEFT_SESSION"),
    "participant": ("UNKNOWN", "CONNECTED", "DISCONNECTED", "DELETED", "ADDED", "JOINED_SESSION", "LEFT_SESSION"),
    "device": (
        *("UNKNOWN", "CONNECTED", "DISCONNECTED", "DELETED", "ADDED"),
        *("JOINED_SESSION", "LEFT_SESSION", "STATUS_CHANGED"),
    ),
}
# Enum name or number -> comes online (True), goes offline (False), changes nothing (None).
_PRESENCE: dict[Kind, dict[str | int, bool | None]] = {
    kind: {
        key: {"CONNECTED": True, "DISCONNECTED": False}.get(name)
        for number, name in enumerate(names)
        for key in (number, f"{kind.upper()}_{name}")
    }
    for kind, names in _PRESENCE_TYPES.items()
}


class _Header(msgspec.Struct):
    time: float | None = None


class _Presence(msgspec.Struct):
    """A presence event, or the wrapper around several; unknown fields are passed over."""

    type: str | int | None = None
    at_type: str | None = msgspec.field(name="@type", default=None)
    uuid: str | None = None
    snake_uuid: str | None = None
    connection_id: str | None = msgspec.field(name="connectionId", default=None)
    snake_connection_id: str | None = msgspec.field(name="connection_id", default=None)
    timestamp: str | float | None = None
    header: _Header | None = None
    events: list[msgspec.Raw] | None = None
    message: msgspec.Raw = msgspec.Raw()


def _presence_decoder(kind: Kind) -> msgspec.json.Decoder[Any]:
    names = {"uuid": f"{kind}Uuid", "snake_uuid": f"{kind}_uuid"}
    fields: list[tuple[str, Any, Any]] = [
        (field.name, field.type, msgspec.field(name=names.get(field.name, field.encode_name), default=field.default))
        for field in msgspec.structs.fields(_Presence)
    ]
    return msgspec.json.Decoder(msgspec.defstruct(f"_{kind.capitalize()}Presence", fields))


_PRESENCE_DECODERS = {kind: _presence_decoder(kind) for kind in KINDS}


class _StatusEnvelope(msgspec.Struct):
    status: msgspec.Raw
    timestamp: str | int | float  # a number stays as it was written


_STATUS_FIELDS = frozenset(("status", "timestamp"))
_status_envelope = msgspec.json.Decoder(_StatusEnvelope).decode
_any = msgspec.json.Decoder().decode


_T = TypeVar("_T")


def read_json(decode: Callable[[bytes | msgspec.Raw], _T], payload: bytes | msgspec.Raw) -> _T:
    """Decode JSON.

    Raises:
        Refusal: ``not_json``, ``too_deep``, or ``invalid_field`` naming the field and the kind of its value.
    """
    try:
        return decode(payload)
    except msgspec.ValidationError as error:
        raise Refusal("invalid_field", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal("not_json", f"payload is no JSON ({len(bytes(payload))} bytes): {error}") from None
    except RecursionError:
        raise Refusal("too_deep", f"payload is nested deeper than {MAXIMUM_DEPTH} levels") from None


def read_document(payload: bytes) -> object:
    """Decode any JSON, so that it is certain that everybody can read it.

    Raises:
        Refusal: ``not_json``, ``too_deep``, or ``invalid_field`` where a number is beyond any float.
    """
    document = read_json(_any, payload)
    # Few enough brackets cannot be nested too deep; only more of them are worth a walk.
    if payload.count(b"[") + payload.count(b"{") > MAXIMUM_DEPTH:
        _check_depth(document)
    return document


def _check_depth(document: object) -> None:
    level = [document]
    for _ in range(MAXIMUM_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise Refusal("too_deep", f"payload is nested deeper than {MAXIMUM_DEPTH} levels: flatten it")


def check_text(payload: bytes) -> None:
    """Refuse what is not UTF-8, ``not_json``."""
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise Refusal("not_json", f"payload is not UTF-8 at byte {error.start}") from None


def read_event(payload: bytes) -> dict[str, object]:
    """Decode one event or a wrapper with several, out of the ``message`` that it may stand in; see `each_event`.

    Raises:
        Refusal: it is no object, or cannot be read.
    """
    event = read_document(payload)
    if not isinstance(event, dict):
        raise Refusal("invalid_field", f"payload is {kind_of(event)}: send an object")
    message = event.get("message")
    return message if isinstance(message, dict) else event


def each_event(
    event: Mapping[str, object], decode: Callable[[Mapping[str, object], int | None], Iterable[Command]]
) -> list[Command]:
    """Decode an event, or each of a wrapper's; a bad one of those never stops the ones after it.

    Args:
        event: the event, or the wrapper, whose time is that of all its events.
        decode: one event and its time in epoch ms, None where it brings none.

    Raises:
        Refusal: the only event cannot be taken.
    """
    time_ms = fields_time(event)
    entries = event.get("events")
    if not isinstance(entries, list):
        return list(decode(event, time_ms))
    commands: list[Command] = []
    for entry in entries:
        try:
            if not isinstance(entry, dict):
                raise Refusal("invalid_field", f"events holds {kind_of(entry)}: send objects")
            own_time_ms = fields_time(entry)
            commands += decode(entry, own_time_ms if time_ms is None else time_ms)
        except Refusal as refusal:
            commands.append(Reject(refusal.code, refusal.message))
    return commands


def fields_time(event: Mapping[str, object]) -> int | None:
    """Return an event's time in epoch ms: its ``header.time`` or ``timestamp``, None where it brings none."""
    header = event.get("header")
    for field, value in (
        ("header.time", header.get("time") if isinstance(header, dict) else None),
        ("timestamp", event.get("timestamp")),
    ):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return parse_time(value, field)[0]
        if value is not None:
            raise Refusal("invalid_field", f"{field} is {kind_of(value)}: send ISO-8601 text or epoch seconds")
    return None


def decode_presence(kind: Kind, ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``presence/<kind>s/{id}``: bare ``online`` or ``offline``, an event, or a wrapper with several.

    Raises:
        Refusal: the whole input cannot be taken.
    """
    subject = require_id(ids[0], "id in the topic")
    payload = inbound.payload
    if payload in (b"online", b"offline"):
        connection = _connection(inbound.connection)
        return [ReportPresence(kind, subject, payload == b"online", connection, retained=inbound.retained)]
    check_text(payload)
    try:
        event = read_json(_PRESENCE_DECODERS[kind].decode, payload)
    except Refusal as refusal:
        if refusal.code == "invalid_field":
            read_document(
                payload
            )  # too deep is the fault to name first; what is taken needs no look, nothing of the rest is kept
        raise
    if event.message:
        event = read_json(_PRESENCE_DECODERS[kind].decode, event.message)
    time_ms = _time(event.header, event.timestamp)
    if event.events is None:
        return [_presence(kind, subject, event, time_ms, inbound)]
    return [_presence_entry(kind, subject, entry, time_ms, inbound) for entry in event.events]


def _presence_entry(kind: Kind, subject: str, entry: msgspec.Raw, time_ms: int | None, inbound: Input) -> Command:
    """One event of a wrapper: a bad one never stops the ones after it."""
    try:
        event = read_json(_PRESENCE_DECODERS[kind].decode, entry)
        own_time_ms = _time(event.header, event.timestamp)
        return _presence(kind, subject, event, own_time_ms if time_ms is None else time_ms, inbound)
    except Refusal as refusal:
        return Reject(refusal.code, refusal.message)


def _presence(kind: Kind, subject: str, event: Any, time_ms: int | None, inbound: Input) -> Command:
    if event.at_type is not None and short_type(event.at_type) != f"{kind.capitalize()}Event":
        raise Refusal("unknown_type", f"@type is not {kind.capitalize()}Event, which this topic carries")
    try:
        online = _PRESENCE[kind][0 if event.type is None else event.type]
    except KeyError:
        raise Refusal("unknown_type", f"type is not one of {kind.upper()}_CONNECTED, ..._DISCONNECTED, ...") from None
    check_same_id(subject, event.uuid if event.uuid is not None else event.snake_uuid, f"{kind}Uuid")
    if online is None:
        return Ignore()
    connection = _connection(event.connection_id or event.snake_connection_id or inbound.connection)
    return ReportPresence(kind, subject, online, connection, time_ms, inbound.retained)


def _connection(name: str) -> str:
    if name and not is_id(name):
        raise Refusal("invalid_field", "connectionId is not a safe id: use 1..128 characters without + # /")
    return name


def _time(header: _Header | None, timestamp: str | float | None) -> int | None:
    if header is not None and header.time is not None:
        return parse_time(header.time, "header.time")[0]
    return None if timestamp is None else parse_time(timestamp, "timestamp")[0]


def check_same_id(expected: str, given: str | None, field: str) -> None:
    """Refuse an id in a payload that is empty, ``empty_id``, or differs from the topic's, ``id_mismatch``."""
    if given is None or given == expected:
        return
    if not given:
        raise Refusal("empty_id", f"{field} is empty: leave it out or fill it")
    raise Refusal("id_mismatch", f"{field} differs from the id in the topic: publish on its own topic")


def short_type(name: str) -> str:
    """Return the short name of a type: the last part of an ``@type`` URL."""
    return name.rpartition("/")[2].rpartition(".")[2]


def decode_status(kind: Kind, ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``presence/<kind>s/{id}/status``: any JSON; ``{"status", "timestamp"}`` where it brings its own time.

    Raises:
        Refusal: the input cannot be taken.
    """
    subject = require_id(ids[0], "id in the topic")
    payload = inbound.payload
    check_text(payload)
    document = read_document(payload)
    if (
        type(document) is dict
        and document.keys() == _STATUS_FIELDS
        and type(document["timestamp"]) in (str, int, float)
    ):
        envelope = read_json(_status_envelope, payload)
        time_ms, timestamp = parse_time(envelope.timestamp, "timestamp")
        return [ReportStatus(kind, subject, envelope.status, time_ms, timestamp, inbound.retained)]
    return [ReportStatus(kind, subject, msgspec.Raw(payload), retained=inbound.retained)]


def decode_keepalive(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``users/endpoints/{endpoint}/keepalive``: empty.

    Raises:
        Refusal: the topic names no endpoint, or there is a payload.
    """
    if not is_endpoint_id(ids[0]):
        code = "invalid_field" if ids[0] else "empty_id"
        raise Refusal(code, "endpoint in the topic: use 1..128 of A-Z a-z 0-9 . _ ~ - @")
    if inbound.payload:
        raise Refusal("invalid_field", f"a keepalive is empty, this one has {len(inbound.payload)} bytes")
    return [KeepEndpoint(ids[0])]
