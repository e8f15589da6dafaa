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


def participants(state: State, session: str) -> list[str]:
    """Return a session's participants, oldest first."""
    return list(dict.fromkeys(parse_subject_key(key).id for key in state.session(session).members))


def members_named(state: State, session: str, participant: str) -> tuple[Ref, ...]:
    """Return the members that are this participant; none where it is not in the session."""
    members = state.session(session).members
    return tuple(Ref(kind, participant) for kind in KINDS if subject_key(kind, participant) in members)


def require_participant(
    state: State, session: str, participant: str, field: str, code: str, kind: Kind | None = None
) -> None:
    """Check that somebody takes part in a session; where ``kind`` is given, as a member of that kind.

    Raises:
        Refusal: with ``code``, naming ``field``.
    """
    if not any(kind in (None, member.kind) for member in members_named(state, session, participant)):
        raise Refusal(code, f"{field} is not in the session: let it join first")


def renew_session(state: State, session: str) -> None:
    """Note that a session had traffic."""
    record = state.session(session)
    if state.moment.clock_ms - record.renewed_ms > state.rules.session_ms // _RENEW_AFTER:
        state.save(session_key(session), msgspec.structs.replace(record, renewed_ms=state.moment.clock_ms))
