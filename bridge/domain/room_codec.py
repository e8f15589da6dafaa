"""The codec of room events: the only room that knows the field names of their JSON.

Source: reference "rooms and media" B, contract details 14, 16, 19 and 22.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from bridge.domain.codec import check_same_id, check_text, each_event, read_event
from bridge.domain.commands import Command, RejectRoomEvent, RoomEvent
from bridge.domain.events import Category
from bridge.domain.ids import is_endpoint_id, is_id, require_id, sender_key
from bridge.domain.inputs import Input
from bridge.domain.values import kind_of
from bridge.errors import Refusal

_Fields = Mapping[str, object]
_Kind = Literal["user", "participant", "device", "phone"]

_PREFIX = "app.event.presence."
_CATEGORIES = {category.removeprefix(_PREFIX): category for category in Category}
_NEEDS_PARTY = frozenset((Category.ONLINE, Category.LEAVES))
_FROM_CLIENTS = frozenset((Category.ONLINE, Category.LEAVES, Category.REQUEST))

_SENDERS: dict[str, _Kind] = {"user": "user", "anonymous": "participant", "phone": "phone"}
# A phone is a user that dials in: the source's attendee types have no third word.
_ATTENDEES: dict[str, tuple[_Kind, ...]] = {"userId": ("user", "phone"), "anonymousId": ("participant",)}

_STATE = frozenset(("offline", "idle", "role", "mediaSession"))
_NOT_STATE = frozenset(("sessionId", "topicId", "seq"))
MEDIA_FIELDS = ("audio", "video", "connected", "phone", "screenshare", "selfMuted")


def decode_room(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``presence/rooms/{room}``: a room event, or a wrapper with several.

    Raises:
        Refusal: the whole input cannot be taken, and its sender is not known.
    """
    return _decode(require_id(ids[0], "room in the topic"), None, inbound)


def decode_client_room(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``clients/{user}/rooms/{room}``: the same from a client, whose own it must be.

    Raises:
        Refusal: the topic names no user or no room.
    """
    user, room = require_id(ids[0], "user in the topic"), require_id(ids[1], "room in the topic")
    return _decode(room, user, inbound)


def _decode(room: str, client: str | None, inbound: Input) -> list[Command]:
    event: _Fields = {}
    try:
        check_text(inbound.payload)
        event = read_event(inbound.payload)
        return each_event(event, lambda entry, time_ms: [_told(room, client, entry, time_ms, inbound)])
    except Refusal as refusal:
        return [_rejected(room, client, event, refusal)]


def _told(room: str, client: str | None, event: _Fields, time_ms: int | None, inbound: Input) -> Command:
    try:
        return _room_event(room, client, event, time_ms, inbound)
    except Refusal as refusal:
        return _rejected(room, client, event, refusal)


def _rejected(room: str, client: str | None, event: _Fields, refusal: Refusal) -> RejectRoomEvent:
    """Let the sender be told, where it is known: of a client's event it is who the topic names, whatever it says.

    Raises:
        Refusal: the same one; nobody can be told.
    """
    try:
        user = _sender(event, None) if client is None else sender_key("user", client)
    except Refusal:
        raise refusal from None
    content = event.get("content")
    party = content.get("sessionId") if isinstance(content, dict) else None
    return RejectRoomEvent(
        room,
        user,
        party if isinstance(party, str) and is_id(party) else "",
        refusal.code,
        refusal.message,
        event.get("loopbackMetadata"),
        is_client=client is not None,
    )


def _room_event(room: str, client: str | None, event: _Fields, time_ms: int | None, inbound: Input) -> RoomEvent:
    category = _category(event)
    if client is not None and category not in _FROM_CLIENTS:
        raise Refusal("not_allowed", f"category {category} is for services")
    user = _sender(event, client)
    content = _object(event, "content", needed=category in (*_NEEDS_PARTY, Category.REMOVED))
    for given, field in ((event.get("topicId"), "topicId"), (content.get("topicId"), "content.topicId")):
        check_same_id(room, _text(given, field), field)
    party = _text(content.get("sessionId"), "content.sessionId")
    if party is None and category in _NEEDS_PARTY:
        raise Refusal("invalid_field", "content.sessionId is missing: name the socket")
    receivers = event.get("receivers")
    return RoomEvent(
        category,
        room,
        user,
        _object(event, "sender", needed=True),
        "" if party is None else require_id(party, "content.sessionId"),
        _state(content),
        {name: value for name, value in event.items() if name not in ("@type", "header")},
        () if receivers is None else _receivers(receivers),
        _endpoint(event, content, inbound),
        _attendee(content) if category is Category.REMOVED else (),
        time_ms,
        _seq(event, content),
        inbound.retained,
        client is not None,
    )


def _category(event: _Fields) -> Category:
    named = event.get("category")
    if not isinstance(named, str):
        raise Refusal("unknown_type", f"category is {kind_of(named)}: name one, for example {Category.ONLINE}")
    category = _CATEGORIES.get(named.removeprefix(_PREFIX))
    if category is None:
        raise Refusal("unknown_type", f"category is none of {', '.join(_CATEGORIES)}")
    return category


def _sender(event: _Fields, client: str | None) -> str:
    fields = _object(event, "sender", needed=True)
    sender = require_id(_text(fields.get("_id"), "sender._id") or "", "sender._id")
    kind = _sender_kind(fields, "sender")
    if client is not None and (sender != client or kind == "phone"):
        raise Refusal("not_allowed", "sender._id is not the user in the topic: send as yourself")
    return sender_key(kind, sender)


def _sender_kind(fields: _Fields, place: str) -> _Kind:
    named = fields.get("type") or "user"
    kind = _SENDERS.get(named) if isinstance(named, str) else None
    if kind is None:
        raise Refusal("invalid_field", f"{place}.type is none of {', '.join(_SENDERS)}")
    return kind


def _object(event: _Fields, field: str, *, needed: bool) -> dict[str, object]:
    value = event.get(field)
    if isinstance(value, dict):
        return value
    if value is None and not needed:
        return {}
    raise Refusal("invalid_field", f"{field} is {kind_of(value)}: send an object")


def _text(value: object, field: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise Refusal("invalid_field", f"{field} is {kind_of(value)}: send text")


def _state(content: _Fields) -> dict[str, object]:
    """Return what a content says of its party's state: checked where a rule reads it, as received elsewhere."""
    state = {
        name: value
        for name, value in content.items()
        if name not in _NOT_STATE and not (value is None and name in _STATE)
    }
    for name in ("offline", "idle"):
        _check_boolean(state, name, f"content.{name}")
    _text(state.get("role"), "content.role")
    media = _object(state, "mediaSession", needed=False)
    if media:
        state["mediaSession"] = {name: value for name, value in media.items() if value is not None}
    for name in MEDIA_FIELDS:
        _check_boolean(media, name, f"content.mediaSession.{name}")
    return state


def _check_boolean(fields: _Fields, name: str, field: str) -> None:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal("invalid_field", f"{field} is {kind_of(value)}: send true or false")


def _receivers(receivers: object) -> tuple[str, ...]:
    if not isinstance(receivers, list):
        raise Refusal("invalid_field", f"receivers is {kind_of(receivers)}: send an array of objects")
    found: list[str] = []
    for place, receiver in enumerate(receivers):
        if not isinstance(receiver, dict) or not isinstance(receiver.get("_id"), str):
            raise Refusal("invalid_field", f"receivers[{place}] has no _id: send an array of objects with _id")
        kinds = tuple(_SENDERS.values())
        if receiver.get("type") is not None:
            kinds = (_sender_kind(receiver, f"receivers[{place}]"),)
        found += (sender_key(kind, receiver["_id"]) for kind in kinds)
    return tuple(found)


def _endpoint(event: _Fields, content: _Fields, inbound: Input) -> str:
    named = content.get("endpointId", event.get("endpointId")) or inbound.endpoint
    if not named:
        return ""
    if isinstance(named, str) and is_endpoint_id(named):
        return named
    raise Refusal("invalid_field", "endpointId: use 1..128 of A-Z a-z 0-9 . _ ~ - @")


def _attendee(content: _Fields) -> tuple[str, ...]:
    attendee = _object(content, "attendee", needed=True)
    named = attendee.get("attendeeType")
    kinds = _ATTENDEES.get(named) if isinstance(named, str) else None
    if kinds is None:
        raise Refusal("invalid_field", f"content.attendee.attendeeType is none of {', '.join(_ATTENDEES)}")
    field = "content.attendee.attendee"
    removed = require_id(_text(attendee.get("attendee"), field) or "", field)
    return tuple(sender_key(kind, removed) for kind in kinds)


def _seq(event: _Fields, content: _Fields) -> int | None:
    seq = event.get("seq", content.get("seq"))
    if seq is None or (isinstance(seq, int) and not isinstance(seq, bool)):
        return seq
    raise Refusal("invalid_field", f"seq is {kind_of(seq)}: send a whole number")
