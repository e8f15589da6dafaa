"""Members: what it takes to be in a session and to leave it, whoever says so: a message, a room, the clock.

Whoever comes is busy and hears what it may do; whoever goes is free, and its media and what was its own end with it.
Source: DESIGN 5, reference "presence and sessions" 3 and 6.
"""

from collections.abc import Collection, Sequence

import msgspec

from bridge.domain.ids import Ref, part_key, permissions_key, session_key, subject_key, views_key
from bridge.domain.media import media_ended, media_left
from bridge.domain.membership import members_named
from bridge.domain.permissions import permissions_ended, permissions_joined, permissions_left
from bridge.domain.records import Session
from bridge.domain.routing import Emission
from bridge.domain.state import CommitFirst, State
from bridge.domain.subjects import presence_changed

replace = msgspec.structs.replace


def settled_session(state: State, session_id: str) -> Session:
    """Return a session's record.

    Raises:
        CommitFirst: its last join, leave or stop has work left over, which goes first; otherwise that would free who
            joins now, or mark who left.
    """
    session = state.session(session_id)
    if session.pending is not None:
        raise CommitFirst(session_key(session_id))
    return session


def save_session(state: State, session_id: str, session: Session) -> int:
    """Save a session that had traffic; where it is unknown and stays without members there is nothing to keep."""
    key = session_key(session_id)
    if not session.members and session.stopped_ms is None and session.pending is None:
        return state.save(key, Session()) if state.is_known(key) else state.version(key)
    return state.save(key, replace(session, renewed_ms=state.moment.clock_ms))


def without(session: Session, leavers: Collection[str]) -> Session:
    """Return a session without the members whose keys are ``leavers``."""
    return replace(session, members={key: joined for key, joined in session.members.items() if key not in leavers})


def member_keys(session_id: str, participant: str) -> tuple[str, ...]:
    """Return the keys of what a member's coming and going reads of its session, so that it comes in one wave."""
    parts = (part_key(noun, session_id, participant) for noun in ("media", "mutes"))
    return (session_key(session_id), views_key(session_id), permissions_key(session_id), *parts)


# Rooms: their parties are members of the session of the same name.


def seat_member(state: State, session_id: str, joiner: Ref) -> list[Emission]:
    """Let somebody who has a seat in the room of that name be a member of the session, too."""
    session = settled_session(state, session_id)
    members = {**session.members}
    members.setdefault(subject_key(*joiner), state.moment.now_ms)
    save_session(state, session_id, replace(session, members=members, is_room=True))
    return mark(state, session_id, [joiner], state.moment.now_ms)


def unseat_members(state: State, session_id: str, leavers: Sequence[Ref], cause: str) -> list[Emission]:
    """Let those go whose seats in the room of that name are empty; who is no member any more has gone already."""
    if not state.is_readable(session_key(session_id)):
        return []
    here = [leaver for leaver in leavers if subject_key(*leaver) in state.session(session_id).members]
    if not here:
        return []
    session = settled_session(state, session_id)
    save_session(state, session_id, without(session, frozenset(subject_key(*leaver) for leaver in here)))
    return release(state, session_id, here, cause)


# What is done to those who come and go, once the session's record says so.


def mark(state: State, session_id: str, joiners: Sequence[Ref], time_ms: int) -> list[Emission]:
    """Let joiners be busy since ``time_ms``, and hear what they may do."""
    emissions: list[Emission] = []
    for joiner in joiners:
        if not state.is_readable(subject_key(*joiner)):
            continue  # the others come in all the same
        subject = state.subject(*joiner)
        if session_id not in subject.sessions:
            state.save_subject(joiner, replace(subject, sessions={**subject.sessions, session_id: time_ms}))
            emissions += presence_changed(state, joiner, subject, "session_joined", session=session_id)
    return emissions + permissions_joined(state, session_id, list(dict.fromkeys(joiner.id for joiner in joiners)))


def release(
    state: State, session_id: str, leavers: Sequence[Ref], cause: str, *, is_end: bool = False, is_last: bool = True
) -> list[Emission]:
    """Free members, and end what they had in the session.

    Args:
        state: where the session's record is without them already.
        session_id: the session.
        leavers: who goes.
        cause: why, as presence tells it.
        is_end: the session ends for all.
        is_last: then: nobody else is still to be freed.
    """
    emissions: list[Emission] = []
    for leaver in leavers:
        subject = state.readable(subject_key(*leaver))
        if session_id in subject.sessions:
            sessions = {key: joined for key, joined in subject.sessions.items() if key != session_id}
            state.save_subject(leaver, replace(subject, sessions=sessions))
            emissions += presence_changed(state, leaver, subject, cause, session=session_id)
    ids = dict.fromkeys(leaver.id for leaver in leavers)
    gone = [each for each in ids if not members_named(state, session_id, each)]
    if is_end:
        media_ended(state, session_id, gone, is_last=is_last)
        permissions_ended(state, session_id, gone, is_last=is_last)
        return emissions
    permissions_left(state, session_id, gone)
    return emissions + media_left(state, session_id, gone)
