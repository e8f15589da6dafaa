"""Membership: who takes part in a session, by id.

A *participant of a session* is an id among its members. Members of several kinds under one id (a user and a device)
are one participant: they share its media state and its permissions, and it has the endpoints of all of them.
"""

import msgspec

from bridge.domain.ids import Ref, parse_subject_key, session_key, subject_key
from bridge.domain.state import State
from bridge.domain.values import KINDS, Kind
from bridge.errors import Refusal

# Traffic about a session's participants is traffic of the session; its record, which names every member, is renewed by
# it only after this part of the time that it may be silent.
_RENEW_AFTER = 8


def participants(state: State, session: str) -> dict[str, tuple[Ref, ...]]:
    """Return a session's participants: id -> the members of that id, oldest first."""
    found: dict[str, tuple[Ref, ...]] = {}
    for key in state.session(session).members:
        member = parse_subject_key(key)
        found[member.id] = (*found.get(member.id, ()), member)
    return found


def require_participant(
    state: State, session: str, participant: str, field: str, code: str, kind: Kind | None = None
) -> None:
    """Check that somebody takes part in a session; where ``kind`` is given, as a member of that kind.

    Raises:
        Refusal: with ``code``, naming ``field``.
    """
    members = state.session(session).members
    if not any(subject_key(each, participant) in members for each in KINDS if kind in (None, each)):
        raise Refusal(code, f"{field} is not in the session: let it join first")


def renew_session(state: State, session: str) -> None:
    """Note that a session had traffic."""
    record = state.session(session)
    if state.moment.clock_ms - record.renewed_ms > state.rules.session_ms // _RENEW_AFTER:
        state.save(session_key(session), msgspec.structs.replace(record, renewed_ms=state.moment.clock_ms))
