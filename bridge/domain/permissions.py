"""Permissions: who of a session may turn which medium on: the call's mute states, own ones, roles and one-time grants.

Whatever changes what somebody may do is told to exactly those whom it concerns: to each participant its own effective
result, and to the admins that of the participant. The call's states and the roles stand in one record of the session;
each participant has one of its own. What is announced and commanded comes by `bridge.domain.mutes`.
Source: DESIGN 4, reference "call permissions", contract details 31 to 37.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from bridge.domain.commands import PermissionsOf, Person, ReportParticipant
from bridge.domain.decisions import Decision
from bridge.domain.events import CallPermissionsChangedEvent, Effective
from bridge.domain.ids import Ref, part_key, permissions_key
from bridge.domain.membership import members_named, participants, require_participant
from bridge.domain.mute_table import MEDIA, MUTE, MUTE_PERMANENT, UNMUTE, in_order, is_unlocked, stricter
from bridge.domain.records import Mutes, Permissions
from bridge.domain.routing import Emission
from bridge.domain.rules import Rules
from bridge.domain.state import State
from bridge.errors import Refusal

replace = msgspec.structs.replace

_NO_MUTES = Mutes()
_NO_PERMISSIONS = Permissions()


class Case(NamedTuple):
    """What the events of one command have in common.

    Attributes:
        cause: why something changed.
        target: whom a notification names, ``admin`` its author.
    """

    session: str
    cause: str
    target: Person | None = None
    admin: Person | None = None

    @property
    def author(self) -> str | None:
        """The id of the author; None for the system itself."""
        return None if self.admin is None else self.admin.id


class Change(NamedTuple):
    """What changed for one participant.

    Attributes:
        about: the record, as events name it, and its version.
        before: what the participant might do, medium by medium, ``after`` what it may now.
        off: media whose devices must go off; ``cut`` those of them whose devices were on.
    """

    participant: str
    about: tuple[str, int]
    before: dict[str, Effective]
    after: dict[str, Effective]
    off: Collection[str] = ()
    cut: Collection[str] = ()

    @property
    def media(self) -> tuple[str, ...]:
        """The media that it concerns."""
        return tuple(medium for medium in MEDIA if self.before[medium] != self.after[medium] or medium in self.cut)


def effective(permissions: Permissions, mutes: Mutes, participant: str) -> dict[str, Effective]:
    """Return what a participant may do, medium by medium.

    No lock applies to creators and admins; a permanent mute of theirs turns a device off once, like a plain one.
    """
    role = permissions.roles.get(participant)
    call = permissions.call.get(mutes.room, {})
    view = {}
    for medium in MEDIA:
        called, own, once = call.get(medium, UNMUTE), mutes.own.get(medium, UNMUTE), medium in mutes.once
        state = stricter(called, own)
        if role is not None and state == MUTE_PERMANENT:
            state = MUTE
        view[medium] = Effective(state, once, is_unlocked(role, called, own, once))
    return view


def muted(states: Mapping[str, str]) -> list[str]:
    """Return the media whose devices a mute with these states turns off."""
    return [medium for medium, to in states.items() if to != UNMUTE]


def turned_off(mutes: Mutes, off: Collection[str]) -> tuple[Mutes, list[str]]:
    """Return what a participant has once devices have gone off, and the media whose devices were on."""
    cut = [medium for medium in mutes.on if medium in off]
    return (replace(mutes, on=tuple(medium for medium in mutes.on if medium not in cut)) if cut else mutes), cut


# How a change is kept and told.


def save_permissions(state: State, session: str, permissions: Permissions) -> int:
    """Save what a session's participants have in common; returns the record's version."""
    return state.save(permissions_key(session), permissions)


def save_mutes(state: State, session: str, participant: str, mutes: Mutes) -> int:
    """Save what a participant has of its own; returns the record's version."""
    permissions = state.permissions(session)
    if not permissions.has_mutes:
        save_permissions(state, session, replace(permissions, has_mutes=True))
    return state.save(mutes_key(session, participant), mutes)


def mutes_key(session: str, participant: str) -> str:
    """Return the key of what a participant has of its own, ``mutes:s1:ann``."""
    return part_key("mutes", session, participant)


def mutes_about(session: str, participant: str) -> str:
    """Return that record as events name it, ``mutes/s1/ann``."""
    return f"mutes/{session}/{participant}"


def readable_mutes(state: State, session: str, ids: Iterable[str]) -> list[str]:
    """Return the participants of whom what they have of their own can be read; that of all is asked for at once."""
    keys = {each: mutes_key(session, each) for each in ids}
    state.require(keys.values())
    return [each for each, key in keys.items() if state.is_readable(key)]


def put_mutes(
    state: State, case: Case, participant: str, mutes: Mutes, off: Collection[str] = (), *, to_admins: bool = True
) -> list[Emission]:
    """Save what a participant has of its own, and tell what that changes; devices of the media in ``off`` go off."""
    mutes, cut = turned_off(mutes, off)
    session, before = case.session, state.mutes(case.session, participant)
    if mutes == before:
        return []
    about = mutes_about(session, participant), save_mutes(state, session, participant, mutes)
    permissions = state.permissions(session)
    views = effective(permissions, before, participant), effective(permissions, mutes, participant)
    return _told(state, case, Change(participant, about, *views, off, cut), to_admins=to_admins)


def _told(state: State, case: Case, change: Change, *, to_admins: bool = True) -> list[Emission]:
    """Tell a change of one participant to it, and to the admins."""
    if not change.media:
        return []
    before, after = change.before, change.after
    is_grant = not change.cut and all(
        before[medium].state == after[medium].state and before[medium].once != after[medium].once
        for medium in change.media
    )
    members = members_named(state, case.session, change.participant)
    emissions = [changed_event(state, case, "once" if is_grant else "personal", change, members)]
    admins = state.permissions(case.session).roles if to_admins else ()
    told = [
        member
        for admin in admins
        if admin != change.participant
        for member in members_named(state, case.session, admin)
    ]
    if told:
        emissions.append(changed_event(state, case, "participant", change, told))
    return emissions


def changed_event(state: State, case: Case, kind: str, change: Change, members: Iterable[Ref]) -> Emission:
    """Return what tells ``members`` of a change."""
    event = CallPermissionsChangedEvent(
        *state.stamp(*change.about),
        case.session,
        kind,
        change.participant,
        change.after,
        {medium: change.before[medium] for medium in change.media},
        change.media,
        case.cause,
        case.author,
        in_order(medium for medium in change.off if medium in change.media),
        *device_numbers(case, change.participant),
    )
    return Emission(event, members=tuple(members))


def device_numbers(case: Case, participant: str) -> tuple[int | msgspec.UnsetType, int | msgspec.UnsetType]:
    """Return the numbers of a participant's device and of the author's, where a notification gave them."""
    target = case.target.device if case.target is not None and case.target.id == participant else None
    admin = case.admin.device if case.admin is not None else None
    return msgspec.UNSET if target is None else target, msgspec.UNSET if admin is None else admin


# What participants report of themselves.


def report_settings(command: ReportParticipant, state: State) -> list[Emission]:
    """Take a participant's role, its room, the devices that are on, and its hand."""
    session, participant = command.session, command.participant
    emissions: list[Emission] = []
    if command.roles is not None:
        emissions += _set_role(state, session, participant, next(iter(command.roles), None))
    if command.room is not None:
        permissions, mutes = state.permissions(session), state.mutes(session, participant)
        # The other room's states are told as if they were set now (reference "call permissions").
        is_new = command.room != mutes.room and participant not in permissions.roles
        off = muted(permissions.call.get(command.room, {})) if is_new else ()
        emissions += put_mutes(
            state, Case(session, "room_switched"), participant, replace(mutes, room=command.room), off
        )
    if command.devices is not None:
        mutes = state.mutes(session, participant)
        on = {**dict.fromkeys(mutes.on, True), **command.devices}
        mutes = replace(
            mutes,
            on=in_order(medium for medium, is_on in on.items() if is_on),
            once=in_order(medium for medium in mutes.once if not command.devices.get(medium)),
        )
        emissions += put_mutes(state, Case(session, "grant_used"), participant, mutes)
    if command.hand is not None:
        mutes = replace(state.mutes(session, participant), hand=command.hand)
        emissions += put_mutes(state, Case(session, "hand"), participant, mutes)
    return emissions


def _set_role(state: State, session: str, participant: str, role: str | None) -> list[Emission]:
    before = state.permissions(session)
    if before.roles.get(participant) == role:
        return []
    roles = {each: other for each, other in before.roles.items() if each != participant}
    after = replace(before, roles=roles if role is None else {**roles, participant: role})
    about = f"permissions/{session}", save_permissions(state, session, after)
    mutes = state.mutes(session, participant)
    views = effective(before, mutes, participant), effective(after, mutes, participant)
    case = Case(session, "role_lost" if role is None else "role_gained")
    off = [medium for medium, view in views[1].items() if not view.unlocked]
    mutes, cut = turned_off(mutes, off)
    if cut:
        save_mutes(state, session, participant, mutes)
    return _told(state, case, Change(participant, about, *views, off, cut))


# What begins and ends with membership.


def permissions_joined(state: State, session: str, joiners: Collection[str]) -> list[Emission]:
    """Tell each joiner what it may do, where the session has any permissions: what it had before it left is there."""
    if not _has_permissions(state, session):
        return []
    permissions = state.permissions(session)
    absent = tuple(each for each in permissions.absent if each not in joiners)
    if absent != permissions.absent or permissions.empty_ms is not None:
        permissions = replace(permissions, absent=absent, empty_ms=None)
        save_permissions(state, session, permissions)
    emissions = []
    for joiner in readable_mutes(state, session, joiners):
        view = effective(permissions, state.mutes(session, joiner), joiner)
        about = mutes_about(session, joiner), state.version(mutes_key(session, joiner))
        members = members_named(state, session, joiner)
        emissions.append(
            changed_event(state, Case(session, "joined"), "personal", Change(joiner, about, view, view), members)
        )
    return emissions


def permissions_left(state: State, session: str, leavers: Collection[str]) -> None:
    """Keep the own states and grants of who left for its return; room, devices and hand end."""
    if not _has_permissions(state, session):
        return
    permissions = state.permissions(session)
    absent = dict.fromkeys(permissions.absent)
    for leaver in readable_mutes(state, session, leavers):
        before = state.mutes(session, leaver)
        after = Mutes(own=before.own, once=before.once)
        if after != before:
            state.save(mutes_key(session, leaver), after)
        if after != _NO_MUTES:
            absent[leaver] = None
    forgotten = list(absent)[: max(len(absent) - state.rules.maximum_members, 0)]
    _forget(state, session, forgotten)
    kept = tuple(each for each in absent if each not in forgotten)
    empty_ms = None if state.session(session).members else state.moment.clock_ms
    if (kept, empty_ms) != (permissions.absent, permissions.empty_ms):
        save_permissions(state, session, replace(permissions, absent=kept, empty_ms=empty_ms))


def permissions_ended(state: State, session: str, leavers: Collection[str], *, is_last: bool) -> None:
    """Forget the permissions of a session that has ended, a chunk of its participants at a time."""
    if not state.is_readable(permissions_key(session)):
        _forget(state, session, leavers)
        return
    permissions = state.permissions(session)
    if permissions == _NO_PERMISSIONS:
        return
    _forget(state, session, [*leavers, *(permissions.absent if is_last else ())])
    if is_last:
        save_permissions(state, session, _NO_PERMISSIONS)


def _has_permissions(state: State, session: str) -> bool:
    return state.is_readable(permissions_key(session)) and state.permissions(session) != _NO_PERMISSIONS


def _forget(state: State, session: str, ids: Collection[str]) -> None:
    for each in readable_mutes(state, session, ids):
        if state.is_known(mutes_key(session, each)):
            state.save(mutes_key(session, each), _NO_MUTES)


def expire_permissions(state: State, session: str, clock_ms: int) -> None:
    """Forget the permissions of a session that nobody came back to."""
    end_ms = permissions_end(state.permissions(session), state.rules, state.moment.resumed_ms)
    if end_ms is not None and end_ms <= clock_ms:
        permissions_ended(state, session, (), is_last=True)


def permissions_end(permissions: Permissions, rules: Rules, resumed_ms: int) -> int | None:
    """Return the registry clock at which the permissions of an empty session end; None while somebody is there."""
    return None if permissions.empty_ms is None else max(permissions.empty_ms, resumed_ms) + rules.session_ms


# Questions.


def permissions_of(command: PermissionsOf, state: State) -> Decision:
    """Answer what a participant may do, or every participant by id. A user may ask of itself, an admin of all."""
    session, participant, user = command.session, command.participant, command.caller.user
    if user is not None:
        require_participant(state, session, user, "the caller", "forbidden", "user")
        if participant != user and user not in state.permissions(session).roles:
            raise Refusal("forbidden", "participant is not the caller, who is no admin: name yourself")
    if participant is not None:
        require_participant(state, session, participant, "participant", "not_found")
        return Decision(answer=_answer(state, session, participant))
    here = readable_mutes(state, session, participants(state, session))
    return Decision(answer={each: _answer(state, session, each) for each in here})


def _answer(state: State, session: str, participant: str) -> dict[str, object]:
    permissions, mutes = state.permissions(session), state.mutes(session, participant)
    return {
        "role": permissions.roles.get(participant),
        "roomId": mutes.room or None,
        "media": effective(permissions, mutes, participant),
        "call": permissions.call.get(mutes.room, {}),
        "own": mutes.own,
        "handRaised": mutes.hand,
        "version": max(state.entry(key).version for key in (permissions_key(session), mutes_key(session, participant))),
    }
