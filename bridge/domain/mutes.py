"""Mutes: what an upstream system announces (a notification) and what an admin commands, by the decision table.

A notification is taken as it is. A command's states are of one value, and its author is an admin where roles are known.
Source: reference "call permissions", contract details 32 to 34.
"""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from bridge.domain.commands import MuteParticipant, ReportMute
from bridge.domain.decisions import Decision
from bridge.domain.events import MediaAttentionRequestedEvent
from bridge.domain.ids import subject_key
from bridge.domain.membership import members_named, participants, renew_session, require_participant
from bridge.domain.mute_table import EFFECTS, UNMUTE, Effect, in_order
from bridge.domain.permissions import (
    Case,
    Change,
    changed_event,
    device_numbers,
    effective,
    muted,
    mutes_about,
    mutes_key,
    put_mutes,
    readable_mutes,
    save_mutes,
    save_permissions,
    turned_off,
)
from bridge.domain.routing import Emission
from bridge.domain.state import State
from bridge.errors import Refusal

replace = msgspec.structs.replace

MUTE_ALL_WITH_USER = "mute_all_with_user"


def report_mute(command: ReportMute, state: State) -> Decision:
    """Take what an upstream system announces; the table says what it means."""
    session, me, target, admin = command.session, command.addressed, command.target, command.admin
    for person, field in ((me, "participant in the topic"), (target, "userId"), (admin, "adminId")):
        if person is not None:
            require_participant(state, session, person.id, field, "not_allowed")
    _check_session(state, session, "not_allowed")
    is_other = target is not None and (me is None or target.id != me.id)
    is_own = me is not None and admin is not None and admin.id == me.id
    effects = EFFECTS[is_other, is_own, command.mute_all, command.is_update, bool(command.requested)]
    concerned = target or me
    case = Case(session, "notified", concerned, admin)
    off = [] if command.keeps_devices else muted(command.states)
    emissions: list[Emission] = []
    if Effect.CALL in effects:
        emissions += _set_call(state, case, command.room, command.states, off)
    states = command.states if Effect.OWN in effects else {}
    grants = command.grants if Effect.GRANTS in effects else ()
    if concerned is not None and (states or grants):
        emissions += _set_own(state, case, concerned.id, states, off if states else (), grants)
    if Effect.GRANT in effects or Effect.ATTENTION in effects:
        # The copy of somebody else only says that there is a grant: who is asked has a copy of its own.
        told = None if me is None else () if is_other else (me.id,)
        is_all = command.mute_all and not is_other
        emissions += _request(state, case, command.room, command.requested, is_all=is_all, told=told)
    return Decision(emissions, anomalies=(MUTE_ALL_WITH_USER,) if Effect.ANOMALY in effects else ())


def mute_participant(command: MuteParticipant, state: State) -> Decision:
    """Carry out an admin's command: own states or the call's, and a request to turn media on."""
    session, target, admin = command.session, command.target, command.admin
    absent, refused = ("not_found", "forbidden") if command.is_call else ("not_allowed", "not_allowed")
    if target is not None:
        require_participant(state, session, target.id, "participant", absent)
    _check_session(state, session, absent)
    if admin is not None:
        require_participant(state, session, admin.id, "adminId", refused, "user" if command.caller.user else None)
    roles = state.permissions(session).roles
    if roles and (admin is None or admin.id not in roles):
        raise Refusal(refused, "adminId is neither creator nor admin of the session: name one who is")
    case = Case(session, "commanded", target, admin)
    emissions: list[Emission] = []
    if command.states and target is None:
        emissions += _set_call(state, case, command.room, command.states, muted(command.states))
    elif command.states and target is not None:
        emissions += _set_own(state, case, target.id, command.states, muted(command.states), ())
    if command.requested:
        emissions += _request(state, case, command.room, command.requested, is_all=target is None)
    return Decision(emissions)


def _check_session(state: State, session: str, code: str) -> None:
    if not state.session(session).members:
        raise Refusal(code, "session has no members: let somebody join first")
    renew_session(state, session)


def _set_call(state: State, case: Case, room: str, states: Mapping[str, str], off: Collection[str]) -> list[Emission]:
    """Change the call's states in one room: told to everybody there, to each its own result.

    Devices of who has a role, and of the author, stay on.
    """
    session, here = case.session, _in_room(state, case.session, room)
    before = state.permissions(session)
    call = before.call.get(room, {})
    after = replace(before, call={**before.call, room: _merged(call, states)})
    is_changed = after.call[room] != call
    version = save_permissions(state, session, after) if is_changed else 0
    emissions = []
    for participant in here:
        mutes = state.mutes(session, participant)
        is_spared = participant in before.roles or participant == case.author
        own_off = () if is_spared else off
        kept, cut = turned_off(mutes, own_off)
        about = f"permissions/{session}", version
        if cut:
            own_version = save_mutes(state, session, participant, kept)
            about = about if is_changed else (mutes_about(session, participant), own_version)
        elif not is_changed:
            continue
        views = effective(before, mutes, participant), effective(after, mutes, participant)
        change = Change(participant, about, *views, own_off, cut)
        emissions.append(changed_event(state, case, "global", change, members_named(state, session, participant)))
    return emissions


def _set_own(
    state: State,
    case: Case,
    participant: str,
    states: Mapping[str, str],
    off: Collection[str],
    grants: Collection[str],
) -> list[Emission]:
    """Change a participant's own states, and its one-time grants where some are given."""
    mutes = state.mutes(case.session, participant)
    after = replace(mutes, own=_merged(mutes.own, states), once=in_order(grants or mutes.once))
    return put_mutes(state, case, participant, after, off)


def _request(
    state: State,
    case: Case,
    room: str,
    requested: Collection[str],
    *,
    is_all: bool,
    told: Collection[str] | None = None,
) -> list[Emission]:
    """Ask a participant, or everybody in a room, to turn media on: that grants them once, and lowers a raised hand.

    ``told`` names whose attention is wanted, None for all; where all are asked, others hear of it if it is new to them.
    """
    session = case.session
    ids: Iterable[str] = () if case.target is None else (case.target.id,)
    emissions = []
    for participant in _in_room(state, session, room) if is_all else ids:
        before = state.mutes(session, participant)
        after = replace(before, once=in_order((*before.once, *requested)), hand=False)
        emissions += put_mutes(state, case, participant, after, to_admins=not is_all)
        if told is None or participant in told or (is_all and after != before):
            event = MediaAttentionRequestedEvent(
                *state.stamp(mutes_about(session, participant), state.version(mutes_key(session, participant))),
                session,
                participant,
                in_order(requested),
                is_all,
                case.author,
                before.hand,
                *device_numbers(case, participant),
            )
            emissions.append(Emission(event, members=members_named(state, session, participant)))
    return emissions


def _in_room(state: State, session: str, room: str) -> list[str]:
    """Return the participants in a room of the call; all that is needed to tell them is asked for at once."""
    here = participants(state, session)
    members = (subject_key(*member) for each in here for member in members_named(state, session, each))
    state.require([*(mutes_key(session, each) for each in here), *members])
    return [each for each in readable_mutes(state, session, here) if state.mutes(session, each).room == room]


def _merged(states: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return mute states with those given in place; what was never muted needs no word that it is not."""
    return {**states, **{medium: to for medium, to in given.items() if states.get(medium, UNMUTE) != to}}
