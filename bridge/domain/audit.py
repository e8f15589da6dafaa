"""Audit: what the bridge told to whom and what came of it, as it may be stored and asked for.

What masks hide is hidden before it is stored, so that no reader has to know of masks; what a reader looks for is taken
from the original. Source: DESIGN 5 and 6, contract details 7, reference "masks" 3.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec

from bridge.domain.clock import parse_time
from bridge.domain.commands import AuditFilter, ReadAudit
from bridge.domain.decisions import Decision, Later
from bridge.domain.masks import Masks, masked_event
from bridge.domain.records import AuditEntry, AuditFacts
from bridge.domain.state import State
from bridge.domain.values import Output
from bridge.errors import Refusal

MAXIMUM_AUDIT = 1_000
NO_ENDPOINT = "no_endpoint"
_NO_SUBSCRIBER = 0x10
_REFUSED_FROM = 0x80
# Milliseconds and a number, as Redis makes them: no more digits than it reads, and enough to be told from a date.
_ENTRY_ID = re.compile(r"([0-9]{11,19})-[0-9]{1,19}")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AuditEntry).decode


def outcome_of(qos: int, reason_code: int) -> str:
    """Return the word for what became of one copy, from its PUBACK reason code (0 at QoS 0)."""
    if reason_code >= _REFUSED_FROM:
        return "refused"
    if not qos:
        return "sent"
    return "no_subscriber" if reason_code == _NO_SUBSCRIBER else "acknowledged"


class AuditAnswer(Later, frozen=True):
    """The answer to a question for audit entries, read once everything before it is written.

    Attributes:
        start: where to begin, as XRANGE takes it.
        wanted: which entries.
        limit: how many at most.
    """

    start: str
    wanted: AuditFilter
    limit: int


def read_audit(command: ReadAudit, state: State) -> Decision:
    """Ask for audit entries, oldest first; none beyond the age that is kept."""
    if not state.rules.audit_ms:
        raise Refusal("not_found", "the audit stream is off: an operator may set audit.enabled")
    oldest_ms = max(state.moment.now_ms - state.rules.audit_ms, 0)
    start, since_ms = start_of(command.since)
    if since_ms < oldest_ms:
        start = str(oldest_ms)
    return Decision(answer=AuditAnswer(start, command.wanted, command.limit))


def start_of(since: str | None) -> tuple[str, int]:
    """Return where to begin, as XRANGE takes it, and its epoch milliseconds.

    Args:
        since: an ISO time, which is included; an entry's id, which is not; None: the oldest entry.

    Raises:
        Refusal: ``invalid_field``: it is neither.
    """
    if since is None:
        return "-", 0
    match = _ENTRY_ID.fullmatch(since)
    if match is not None:
        return f"({since}", int(match[1])
    since_ms = max(parse_time(since, "since")[0], 0)
    return str(since_ms), since_ms


def note_of(event: msgspec.Raw, document: dict[str, object], masks: Masks, user: str) -> AuditEntry:
    """Return what may be stored of an event that a caller sends; ``document`` is the event, decoded.

    Raises:
        Refusal: ``invalid_mask``: the masks have too much to look at.
    """
    if not masks:
        return AuditEntry(event, user_id=user)
    masked = msgspec.Raw(_encode(masks.apply(document)))
    return AuditEntry(masked, user_id=user, original=AuditFacts(*(_word(document.get(name)) for name in _FACTS)))


_FACTS = ("type", "sessionId", "topicId")


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


class _Event(msgspec.Struct, gc=False):
    """What an entry's event is looked for by; a caller's event may hold anything there."""

    type: object = None
    session_id: object = msgspec.field(name="sessionId", default=None)
    topic_id: object = msgspec.field(name="topicId", default=None)
    about: object = None


def _about(event: _Event) -> tuple[str, str]:
    """The noun and the id of the record that an event is about."""
    noun, _, about = event.about.partition("/") if isinstance(event.about, str) else ("", "", "")
    return noun, about


_decode_event = msgspec.json.Decoder(_Event).decode


def shown(entry_id: str, text: bytes, wanted: AuditFilter) -> dict[str, object] | None:
    """Return an entry as it is answered; None where it is not wanted or not ours."""
    try:
        entry = _decode(text)
        event = _decode_event(entry.event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    noun, about = _about(event)
    user = entry.user_id or (about if noun == "user" else None)
    facts = entry.original or event
    sessions = (facts.session_id, about if noun == "session" else None)
    rooms = (facts.topic_id, about.partition("/")[0] if noun == "party" else None)
    is_wanted = (
        wanted.user_id in (None, user)
        and wanted.type in (None, facts.type)
        and (wanted.session is None or wanted.session in sessions)
        and (wanted.room is None or wanted.room in rooms)
    )
    if not is_wanted:
        return None
    return {
        "id": entry_id,
        "event": entry.event,
        "userId": user,
        "audience": entry.audience,
        "outcome": entry.outcome,
    }


class Auditor:
    """Makes entries of what was published.

    Args:
        endpoint_of: the endpoint that a topic belongs to.
        masks: what is hidden in the bridge's own events, by type.
    """

    def __init__(self, endpoint_of: Callable[[str], str], masks: Mapping[str, Masks] = MappingProxyType({})) -> None:
        self._endpoint_of = endpoint_of
        self._masks = masks

    def told(self, outputs: Sequence[Output], codes: Sequence[Sequence[int]]) -> Iterator[bytes]:
        """Return the entries of the bridge's own events: one for each event and outcome.

        Args:
            outputs: as published; those without an event (answers) leave no entry.
            codes: for each output the PUBACK reason codes of its copies.
        """
        for output, each in zip(outputs, codes, strict=True):
            if not output.event_id:
                continue
            audience: dict[str, list[str]] = {}
            for topic, code in zip(output.topics, each, strict=True):
                audience.setdefault(outcome_of(output.qos, code), []).append(self._endpoint_of(topic))
            payload = output.payload
            note = self._note(payload) if self._masks else AuditEntry(msgspec.Raw(payload))
            for outcome, endpoints in audience.items():
                yield _encode(msgspec.structs.replace(note, audience=endpoints, outcome=outcome))

    def _note(self, payload: bytes) -> AuditEntry:
        """Return what may be stored of an event of the bridge's own."""
        event = _decode_event(payload)
        masks = self._masks.get(event.type) if isinstance(event.type, str) else None
        if masks is None:
            return AuditEntry(msgspec.Raw(payload))
        masked = msgspec.Raw(masked_event(masks, payload))
        noun, whose = _about(event)
        facts = AuditFacts(
            _word(event.type),
            whose if noun == "session" else _word(event.session_id),
            whose.partition("/")[0] if noun == "party" else _word(event.topic_id),
        )
        return AuditEntry(masked, user_id=whose if noun == "user" else None, original=facts)

    def sent(self, note: AuditEntry, endpoints: Sequence[str], outcomes: Sequence[str]) -> Iterator[bytes]:
        """Return the entries of a caller's event; ``note`` is what may be stored of it."""
        audience: dict[str, list[str]] = {} if endpoints else {NO_ENDPOINT: []}
        for endpoint, outcome in zip(endpoints, outcomes, strict=True):
            audience.setdefault(outcome, []).append(endpoint)
        for outcome, told in audience.items():
            yield _encode(msgspec.structs.replace(note, audience=told, outcome=outcome))
