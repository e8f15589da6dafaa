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
from bridge.domain.media import media_ended, media_left
from bridge.domain.membership import members_named
from bridge.domain.pauses import counted_from
from bridge.domain.permissions import permissions_ended, permissions_joined, permissions_left
from bridge.domain.records import NO_STATUS, Pending, Session
from bridge.domain.routing import Emission
from bridge.domain.rules import Rules
from bridge.domain.state import CommitFirst, State
from bridge.domain.subjects import presence_changed
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
    session = _settled_session(state, command.session)
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
    emissions = [_relay(state, "JoinSessionEvent", session_id, version, _decode_fields(pending.fields), joiners)]
    for joiner in joiners:
        if not state.is_readable(subject_key(*joiner)):
            continue  # the others are invited all the same
        subject = state.subject(*joiner)
        if session_id not in subject.sessions:
            state.save_subject(joiner, replace(subject, sessions={**subject.sessions, session_id: pending.time_ms}))
            emissions += presence_changed(state, joiner, subject, pending.cause, session=session_id)
    return emissions + permissions_joined(state, session_id, list(dict.fromkeys(joiner.id for joiner in joiners)))


def leave_session(command: LeaveSession, state: State) -> Decision:
    """Free the listed members of this session; others are not concerned. Told to the members and the leavers."""
    session = _settled_session(state, command.session)
    audience = dict.fromkeys((*_members(session), *command.members))
    leavers = [subject_key(*leaver) for leaver in command.members]
    freed = _go_on(state, command.session, _without(session, leavers), Pending(leavers, "session_left"))
    version = state.version(session_key(command.session))
    relay = _relay(state, "LeaveSessionEvent", command.session, version, command.fields, tuple(audience))
    return Decision([relay, *freed])


def reply_session(command: ReplySession, state: State) -> Decision:
    """An invitee that does not accept is free again. Told to the other members."""
    session = _settled_session(state, command.session)
    audience = tuple(member for member in _members(session) if member not in command.members)
    leavers = [] if command.accepted else [subject_key(*member) for member in command.members]
    freed = _go_on(state, command.session, _without(session, leavers), Pending(leavers, "join_declined"))
    version = state.version(session_key(command.session))
    relay = _relay(state, "JoinSessionReplyEvent", command.session, version, command.fields, audience)
    return Decision([relay, *freed])


def stop_session(command: StopSession, state: State) -> Decision:
    """End a session: remember the stop, and free its members, the first chunk of them at once."""
    time_ms = event_time(command.time_ms, state.moment.now_ms)
    session = _settled_session(state, command.session)
    stopped = replace(
        session,
        members={},
        stopped_ms=time_ms if session.stopped_ms is None else max(time_ms, session.stopped_ms),
        forget_ms=state.moment.clock_ms + state.rules.tombstone_ms,
    )
    pending = Pending(list(session.members), "session_stopped", msgspec.Raw(_encode(command.fields)))
    return Decision(_go_on(state, command.session, stopped, pending))


def expire_session(state: State, session_id: str, clock_ms: int) -> list[Emission]:
    """Do what is due on a session: what is pending, its end without traffic, or forgetting its stop."""
    session = state.session(session_id)
    if session.pending is not None:
        return _go_on(state, session_id, session, session.pending)
    if session.members and session_end(session_id, session, state.rules, state.moment.resumed_ms) <= clock_ms:
        pending = Pending(list(session.members), "expired")
        return _go_on(state, session_id, replace(session, members={}), pending)
    if session.stopped_ms is not None and not session.members and session.forget_ms <= clock_ms:
        state.save(session_key(session_id), Session())
    return []


def session_end(session_id: str, session: Session, rules: Rules, resumed_ms: int) -> int:
    """Return the registry clock at which a session without traffic is over."""
    return counted_from(session.renewed_ms, resumed_ms, rules.session_ms, session_id) + rules.session_ms


def session_members(command: SessionMembers, state: State) -> Decision:
    """Answer a session's members by kind, oldest first."""
    answer: dict[str, list[str]] = {"users": [], "participants": [], "devices": []}
    for member in _members(state.session(command.session)):
        answer[f"{member.kind}s"].append(member.id)
    return Decision(answer=answer)


def _settled_session(state: State, session_id: str) -> Session:
    session = state.session(session_id)
    if session.pending is not None:  # it goes first; otherwise it would free who joins now, or mark who left
        raise CommitFirst(session_key(session_id))
    return session


def _members(session: Session) -> list[Ref]:
    return [parse_subject_key(key) for key in session.members]


def _save(state: State, session_id: str, session: Session) -> int:
    """Save a session that had traffic; where it is unknown and stays without members there is nothing to keep."""
    key = session_key(session_id)
    if not session.members and session.stopped_ms is None and session.pending is None:
        return state.save(key, Session()) if state.is_known(key) else state.version(key)
    return state.save(key, replace(session, renewed_ms=state.moment.clock_ms))


def _without(session: Session, leavers: Sequence[str]) -> Session:
    gone = frozenset(leavers)
    return replace(session, members={key: joined for key, joined in session.members.items() if key not in gone})


def _go_on(state: State, session_id: str, session: Session, pending: Pending) -> list[Emission]:
    """Save the session, do what is pending to the first members, and leave the rest for the next commit."""
    size = STOP_CHUNK if pending.cause in _ENDS else TOLD_CHUNK
    chunk, rest = pending.members[:size], pending.members[size:]
    state.require(chunk)
    if rest:
        state.go_on(session_key(session_id))
    version = _save(state, session_id, replace(session, pending=replace(pending, members=rest) if rest else None))
    members = [parse_subject_key(key) for key in chunk]
    if pending.cause == "session_joined":
        return _join(state, session_id, version, members, pending)
    emissions: list[Emission] = []
    if pending.fields is not NO_STATUS:
        fields = _decode_fields(pending.fields)
        emissions.append(_relay(state, "StopSessionEvent", session_id, version, fields, members))
    return emissions + _release(state, session_id, members, pending.cause, is_last=not rest)


def _release(state: State, session_id: str, leavers: Sequence[Ref], cause: str, *, is_last: bool) -> list[Emission]:
    """Free members, and end what they had in the session; ``is_last``: nobody else is still to be freed."""
    emissions: list[Emission] = []
    for leaver in leavers:
        subject = state.readable(subject_key(*leaver))
        if session_id in subject.sessions:
            sessions = {key: joined for key, joined in subject.sessions.items() if key != session_id}
            state.save_subject(leaver, replace(subject, sessions=sessions))
            emissions += presence_changed(state, leaver, subject, cause, session=session_id)
    ids = dict.fromkeys(leaver.id for leaver in leavers)
    gone = [each for each in ids if not members_named(state, session_id, each)]
    if cause in _ENDS:
        media_ended(state, session_id, gone, is_last=is_last)
        permissions_ended(state, session_id, gone, is_last=is_last)
        return emissions
    permissions_left(state, session_id, gone)
    return emissions + media_left(state, session_id, gone)


def _relay(
    state: State, event_type: str, session_id: str, version: int, fields: Mapping[str, object], members: Sequence[Ref]
) -> Emission:
    return Emission(relayed(event_type, state.stamp(f"session/{session_id}", version), fields), members=tuple(members))
