"""Sending: a caller's event, delivered exactly as it was given to one of a user's endpoints or to all of them.

Nothing of it is journaled: what its masks hide must never be stored, so its caller waits for the PUBACKs instead. A
repetition under the same key is answered as the first was, and not sent again.
Source: DESIGN 3.1, reference "endpoint API", contract details 38, 40 and 42.
"""

import hashlib
import re
from datetime import datetime
from typing import NamedTuple

import msgspec

from bridge.domain.codec import MAXIMUM_DEPTH, read_document
from bridge.domain.commands import SendEvent
from bridge.domain.decisions import Decision, Later
from bridge.domain.events import EVENT_FORM, is_event_type
from bridge.domain.records import Sent
from bridge.domain.routing import Verbatim
from bridge.domain.state import State
from bridge.errors import Refusal

_INSTANT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?Z")
_LONGEST_EVENT_ID = 128


class GivenEvent(NamedTuple):
    """What the bridge reads of an event that it is to send.

    Attributes:
        document: the event, decoded.
        type: its ``type``.
        id: its ``id`` where that can stand in a user property, else empty.
    """

    document: dict[str, object]
    type: str
    id: str


class SendAnswer(Later, frozen=True):
    """The answer to a send, and to each repetition of it.

    Attributes:
        sent: the first one, which settles when the broker has settled its copies.
        listed: answer each copy's outcome, not their number.
        command: the command that sends; None for a repetition.
    """

    sent: Sent
    listed: bool
    command: SendEvent | None = None

    def result(self) -> object:
        """Return how many copies were sent, or what became of each."""
        outcomes = self.sent.outcomes or []
        if self.listed:
            pairs = zip(self.sent.endpoints, outcomes, strict=True)
            return [{"userEndpointId": endpoint, "outcome": word} for endpoint, word in pairs]
        return len(outcomes) - outcomes.count("refused")


def read_event(event: bytes, limit_bytes: int) -> GivenEvent:
    """Check an event that is to be sent; ``event`` is its JSON text, empty where there is none.

    Raises:
        Refusal: ``too_large``, or ``invalid_event`` naming the field and the remedy.
    """
    if not event:
        raise _invalid("event is missing: send an object with type and timestamp")
    if len(event) > limit_bytes:
        raise Refusal("too_large", f"event has {len(event)} bytes: at most {limit_bytes} (sending.event_limit_bytes)")
    try:
        document = read_document(event)
    except Refusal as refusal:
        if refusal.code == "too_deep":
            raise _invalid(f"event is nested deeper than {MAXIMUM_DEPTH} levels: flatten it") from None
        raise _invalid("event is not JSON that every client can read: see RFC 8259 and keep to UTF-8") from None
    if not isinstance(document, dict):
        raise _invalid("event is no object: send an object with type and timestamp")
    event_type = _text(document, "type", EVENT_FORM)
    if not is_event_type(event_type):
        raise _invalid(f"event.type does not fit: write {EVENT_FORM}")
    if not _is_instant(_text(document, "timestamp", _INSTANT_FORM)):
        raise _invalid(f"event.timestamp does not fit: write {_INSTANT_FORM}")
    event_id = document.get("id")
    is_usable = isinstance(event_id, str) and len(event_id) <= _LONGEST_EVENT_ID and event_id.isprintable()
    return GivenEvent(document, event_type, str(event_id) if is_usable else "")


_INSTANT_FORM = "a time in UTC with Z, like 2011-12-03T10:15:30.123Z"


def _text(document: dict[str, object], field: str, form: str) -> str:
    value = document.get(field)
    if value is None:
        raise _invalid(f"event.{field} is missing: write {form}")
    if not isinstance(value, str):
        raise _invalid(f"event.{field} is no text: write {form}")
    return value


def _is_instant(text: str) -> bool:
    match = _INSTANT.fullmatch(text)
    if match is None:
        return False
    try:
        datetime.fromisoformat(match[1])
    except ValueError:
        return False
    return True


def digest(*parts: object) -> str:
    """Return a hash of JSON values; equal ones have the same, whatever the order of their keys."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def send_event(command: SendEvent, state: State) -> Decision:
    """Send to the endpoint named, or to all that the user has."""
    if command.key:
        before = state.sent(command.key)
        if before is not None:
            if before.body != command.body:
                raise Refusal("conflict", "this idempotency key or event.id came with another body: use a new one")
            return Decision(answer=SendAnswer(before, command.listed))
    endpoints = tuple(state.subject("user", command.user).endpoints)
    if command.endpoint is not None:
        if command.endpoint not in endpoints:
            raise Refusal("not_found", "userEndpointId is no live endpoint of userId: list_endpoints tells which are")
        endpoints = (command.endpoint,)
    sent = Sent(command.body, endpoints)
    if command.key:
        state.send(command.key, sent)
    event_id = command.event_id or state.stamp("", 0)[0]
    return Decision(
        verbatim=Verbatim(bytes(command.event), event_id, command.user, endpoints, command.qos),
        answer=SendAnswer(sent, command.listed, command),
    )


def _invalid(message: str) -> Refusal:
    return Refusal("invalid_event", message)
