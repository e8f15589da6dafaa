"""Sessions: live calls whose members are busy. The bridge observes; it never refuses an invitation.

A stop is remembered against joins older than it. What concerns many members is done in chunks, each in a commit of its
own, before anything that comes after it.
Source: DESIGN 5, reference "presence and sessions" 3 and 6.
"""

from collections.abc import Mapping, Sequence

import msgspec

from bridge.domain.clock import event_time
from bridge.domain.commands import (
    JoinSession,
    LeaveSession,
    ReplySession,
    SessionMembers,
    StopSession,
)
from bridge.domain.decisions import NOTHING, Decision
from bridge.domain.events import relayed
from bridge.domain.ids import Ref, parse_subject_key, session_key, subject_key
from bridge.domain.members import mark, release, save_session, settled_session, without
from bridge.domain.parties import clear_room, leave_seats
from bridge.domain.pauses import counted_from
from bridge.domain.records import NO_STATUS, Pending, Session
from bridge.domain.routing import Emission
from bridge.domain.rules import Rules
from bridge.domain.state import State
from bridge.errors import Refusal

replace = msgspec.structs.replace

# Whom a stop frees hears of it alone. Who joins or leaves is told to all members: of a full session that makes 20,000
# messages a chunk.
STOP_CHUNK = 200
TOLD_CHUNK = 20
# The causes that end a session; the others leave it to the members who stay.
_ENDS = frozenset(("session_stopped", "expired"))
_decode_fields = msgspec.json.Decoder(dict[str, object]).decode
_encode = msgspec.json.Encoder().encode


def join_session(command: JoinSession, state: State) -> Decision:
    """Invite: every listed member is busy from now on, even offline; in any number of sessions at once."""
    time_ms = event_time(command.time_ms, state.moment.now_ms)
    session = settled_session(state, command.session)
    if session.stopped_ms is not None and time_ms < session.stopped_ms:
        return NOTHING
    members = dict(session.members)
    for member in command.members:
        members.setdefault(subject_key(*member), time_ms)
    if len(members) > state.rules.maximum_members:
        raise Refusal(
            "invalid_field",
            f"session would have {len(members)} members: at most {state.rules.maximum_members} "
            "(sessions.maximum_members)",
        )
    pending = Pending(
        [subject_key(*member) for member in command.members],
        "session_joined",
        msgspec.Raw(_encode(command.fields)),
        time_ms,
    )
    return Decision(_go_on(state, command.session, replace(session, members=members), pending))


def _join(state: State, session_id: str, version: int, joiners: Sequence[Ref], pending: Pending) -> list[Emission]:
    relay = _relay(state, "JoinSessionEvent", session_id, version, _decode_fields(pending.fields), joiners)
    return [relay, *mark(state, session_id, joiners, pending.time_ms)]


def leave_session(command: LeaveSession, state: State) -> Decision:
    """Free the listed members of this session; others are not concerned. Told to the members and the leavers."""
    session = settled_session(state, command.session)
    audience = dict.fromkeys((*_members(session), *command.members))
    leavers = [subject_key(*leaver) for leaver in command.members]
    freed = _go_on(state, command.session, without(session, leavers), Pending(leavers, "session_left"))
    version = state.version(session_key(command.session))
    relay = _relay(state, "LeaveSessionEvent", command.session, version, command.fields, tuple(audience))
    return Decision([relay, *freed])


def reply_session(command: ReplySession, state: State) -> Decision:
    """An invitee that does not accept is free again. Told to the other members."""
    session = settled_session(state, command.session)
    audience = tuple(member for member in _members(session) if member not in command.members)
    leavers = [] if command.accepted else [subject_key(*member) for member in command.members]
    freed = _go_on(state, command.session, without(session, leavers), Pending(leavers, "join_declined"))
    version = state.version(session_key(command.session))
    relay = _relay(state, "JoinSessionReplyEvent", command.session, version, command.fields, audience)
    return Decision([relay, *freed])


def stop_session(command: StopSession, state: State) -> Decision:
    """End a session: remember the stop, and free its members, the first chunk of them at once."""
    time_ms = event_time(command.time_ms, state.moment.now_ms)
    session = settled_session(state, command.session)
    stopped = replace(
        session,
        members={},
        stopped_ms=time_ms if session.stopped_ms is None else max(time_ms, session.stopped_ms),
        forget_ms=state.moment.clock_ms + state.rules.tombstone_ms,
    )
    pending = Pending(list(session.members), "session_stopped", msgspec.Raw(_encode(command.fields)))
    unseated = clear_room(state, command.session, "removed") if session.is_room else []
    return Decision([*unseated, *_go_on(state, command.session, stopped, pending)])


def expire_session(state: State, session_id: str, clock_ms: int) -> list[Emission]:
    """Do what is due on a session: what is pending, its end without traffic, or forgetting its stop."""
    session = state.session(session_id)
    if session.pending is not None:
        return _go_on(state, session_id, session, session.pending)
    if session.members and session_end(session_id, session, state.rules, state.moment.resumed_ms) <= clock_ms:
        pending = Pending(list(session.members), "expired")
        unseated = clear_room(state, session_id, "expired") if session.is_room else []
        return [*unseated, *_go_on(state, session_id, replace(session, members={}), pending)]
    if session.stopped_ms is not None and not session.members and session.forget_ms <= clock_ms:
        state.save(session_key(session_id), Session())
    return []


def end_session(state: State, session_id: str) -> list[Emission]:
    """End the session of a room that is no more: its members are free, the first chunk of them at once."""
    if not state.is_readable(session_key(session_id)):
        return []
    session = settled_session(state, session_id)
    pending = Pending(list(session.members), "session_stopped")
    return _go_on(state, session_id, replace(session, members={}), pending)


def session_end(session_id: str, session: Session, rules: Rules, resumed_ms: int) -> int:
    """Return the registry clock at which a session without traffic is over."""
    return counted_from(session.renewed_ms, resumed_ms, rules.session_ms, session_id) + rules.session_ms


def session_members(command: SessionMembers, state: State) -> Decision:
    """Answer a session's members by kind, oldest first."""
    answer: dict[str, list[str]] = {"users": [], "participants": [], "devices": []}
    for member in _members(state.session(command.session)):
        answer[f"{member.kind}s"].append(member.id)
    return Decision(answer=answer)


def _members(session: Session) -> list[Ref]:
    return [parse_subject_key(key) for key in session.members]


def _go_on(state: State, session_id: str, session: Session, pending: Pending) -> list[Emission]:
    """Save the session, do what is pending to the first members, and leave the rest for the next commit."""
    size = STOP_CHUNK if pending.cause in _ENDS else TOLD_CHUNK
    chunk, rest = pending.members[:size], pending.members[size:]
    state.require(chunk)
    if rest:
        state.go_on(session_key(session_id))
    version = save_session(
        state, session_id, replace(session, pending=replace(pending, members=rest) if rest else None)
    )
    members = [parse_subject_key(key) for key in chunk]
    if pending.cause == "session_joined":
        return _join(state, session_id, version, members, pending)
    emissions: list[Emission] = []
    if pending.fields is not NO_STATUS:
        fields = _decode_fields(pending.fields)
        emissions.append(_relay(state, "StopSessionEvent", session_id, version, fields, members))
    is_end = pending.cause in _ENDS
    if session.is_room and not is_end:
        emissions += leave_seats(state, session_id, members)
    return emissions + release(state, session_id, members, pending.cause, is_end=is_end, is_last=not rest)


def _relay(
    state: State, event_type: str, session_id: str, version: int, fields: Mapping[str, object], members: Sequence[Ref]
) -> Emission:
    return Emission(relayed(event_type, state.stamp(f"session/{session_id}", version), fields), members=tuple(members))
