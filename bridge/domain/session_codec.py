"""The codec of session messages: the only room that knows the field names of their JSON.

Source: reference "presence and sessions" 1 and 6, contract details 8 to 10.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from bridge.domain.codec import check_same_id, check_text, each_event, fields_time, read_event, short_type
from bridge.domain.commands import Command, Ignore, JoinSession, LeaveSession, Reject, ReplySession, StopSession
from bridge.domain.ids import Ref, require_id
from bridge.domain.inputs import Input
from bridge.domain.values import KINDS, kind_of
from bridge.errors import Refusal

_REPLIES: dict[str | int, bool] = {
    key: name == "REPLY_ACCEPTED"
    for number, name in enumerate(("REPLY_UNKNOWN", "REPLY_ACCEPTED", "REPLY_DENIED", "REPLY_BUSY", "REPLY_TIMEOUT"))
    for key in (number, name)
}


def decode_session(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``sessions/{session}``: Join-, Leave-, StopSessionEvent, JoinSessionReplyEvent, or a wrapper with several.

    Raises:
        Refusal: the whole input cannot be taken.
    """
    session = require_id(ids[0], "session in the topic")
    check_text(inbound.payload)
    event = read_event(inbound.payload)
    if inbound.retained and fields_time(event) is None:
        return [Ignore()]  # a replay at a subscription: no telling whether it is older than a stop
    return each_event(event, lambda entry, time_ms: _session_event(session, entry, time_ms))


def _session_event(session: str, event: Mapping[str, object], time_ms: int | None) -> Iterator[Command]:
    named = event.get("@type", event.get("type"))
    if not isinstance(named, str):
        raise Refusal("unknown_type", f"type is {kind_of(named)}: name the message, for example JoinSessionEvent")
    decoder = _SESSION_EVENTS.get(short_type(named))
    if decoder is None:
        raise Refusal("unknown_type", f"type is none of {', '.join(_SESSION_EVENTS)}")
    check_same_id(session, _text(event, "session_uuid"), "sessionUuid")
    fields = {name: value for name, value in event.items() if name not in ("@type", "header")}
    yield from decoder(session, event, fields, time_ms)


_Fields = dict[str, object]


def _join(session: str, event: Mapping[str, object], fields: _Fields, time_ms: int | None) -> Iterator[Command]:
    members, skipped = _members(event, "session")
    yield JoinSession(session, members, fields, time_ms)
    yield from skipped


def _leave(session: str, event: Mapping[str, object], fields: _Fields, _: int | None) -> Iterator[Command]:
    members, skipped = _members(event, "leaving")
    yield LeaveSession(session, members, fields)
    yield from skipped


def _stop(session: str, _: Mapping[str, object], fields: _Fields, time_ms: int | None) -> Iterator[Command]:
    yield StopSession(session, fields, time_ms)


def _reply(session: str, event: Mapping[str, object], fields: _Fields, _: int | None) -> Iterator[Command]:
    given = event.get("joinReply", event.get("join_reply"))
    try:
        if isinstance(given, bool):
            raise TypeError
        accepted = _REPLIES[0 if given is None else given]  # type: ignore[index]  # unhashable is caught below
    except (KeyError, TypeError):
        raise Refusal("invalid_field", "joinReply is no reply: use REPLY_ACCEPTED, REPLY_DENIED, ...") from None
    members: list[Ref] = []
    for kind in KINDS:
        uuid = _text(event, f"{kind}_uuid")
        if uuid:
            members.append(Ref(kind, require_id(uuid, f"{kind}Uuid")))
    yield ReplySession(session, tuple(members), accepted, fields)


_SESSION_EVENTS: dict[str, Callable[[str, Mapping[str, object], _Fields, int | None], Iterator[Command]]] = {
    "JoinSessionEvent": _join,
    "LeaveSessionEvent": _leave,
    "StopSessionEvent": _stop,
    "JoinSessionReplyEvent": _reply,
}


def _members(event: Mapping[str, object], role: str) -> tuple[tuple[Ref, ...], list[Command]]:
    """Return the listed members, and one `Reject` for each entry that is empty or malformed."""
    members: dict[Ref, None] = {}
    skipped: list[Command] = []
    for kind in KINDS:
        field = f"{role}_{kind}s"
        listed = event.get(_camel(field), event.get(field))
        if listed is None:
            continue
        if not isinstance(listed, list):
            raise Refusal("invalid_field", f"{_camel(field)} is {kind_of(listed)}: send an array of ids")
        for place, member in enumerate(listed):
            try:
                if not isinstance(member, str):
                    raise Refusal("invalid_field", f"{_camel(field)}[{place}] is {kind_of(member)}: send an id")
                members[Ref(kind, require_id(member, f"{_camel(field)}[{place}]"))] = None
            except Refusal as refusal:
                skipped.append(Reject(refusal.code, refusal.message))
    return tuple(members), skipped


def _text(event: Mapping[str, object], field: str) -> str | None:
    value = event.get(_camel(field), event.get(field))
    if value is not None and not isinstance(value, str):
        raise Refusal("invalid_field", f"{_camel(field)} is {kind_of(value)}: send text")
    return value


def _camel(field: str) -> str:
    head, *tail = field.split("_")
    return head + "".join(part.capitalize() for part in tail)
