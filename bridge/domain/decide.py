"""Decide: the table from command to rule, and from command to the records that it certainly needs.

What a rule needs beyond those it asks for by `bridge.domain.state.NotLoaded`.
"""

from collections.abc import Callable
from typing import Any, get_args

from bridge.domain import commands as c
from bridge.domain import room_commands as r
from bridge.domain.audit import read_audit
from bridge.domain.decisions import NOTHING, Decision
from bridge.domain.endpoints import (
    expire_endpoints,
    keep_endpoint,
    list_endpoints,
    register_endpoint,
    unregister_endpoint,
    view_endpoint,
    watch_endpoint,
)
from bridge.domain.evidence import explain
from bridge.domain.ids import (
    WATCHERS_KEY,
    Ref,
    is_endpoint_id,
    named_key,
    parse_key,
    parse_part_key,
    parse_subject_key,
    part_key,
    party_key,
    permissions_key,
    room_key,
    session_key,
    subject_key,
    views_key,
)
from bridge.domain.media import check_views, media_state_of, report_counters
from bridge.domain.members import member_keys
from bridge.domain.membership import renew_session, require_participant
from bridge.domain.mutes import mute_participant, report_mute
from bridge.domain.parties import end_parties, expire_party
from bridge.domain.permissions import expire_permissions, mutes_key, permissions_of, report_settings
from bridge.domain.rooms import reject_room_event, room_event, room_parties
from bridge.domain.seats import seats_page
from bridge.domain.sending import send_event
from bridge.domain.sessions import (
    expire_session,
    join_session,
    leave_session,
    reply_session,
    session_members,
    stop_session,
)
from bridge.domain.state import State
from bridge.domain.subjects import (
    expire_connections,
    expire_flaps,
    list_subjects,
    report_presence,
    report_status,
    sessions_of,
    update_device_status,
)
from bridge.domain.token_rooms import (
    create_room,
    delete_room,
    expire_room,
    join_room,
    leave_room,
    read_room,
    refresh_party,
    report_media,
)
from bridge.domain.values import KINDS, Page
from bridge.errors import Refusal


def _ignore(_: c.Ignore, __: State) -> Decision:
    return NOTHING


def _reject(command: c.Reject, _: State) -> Decision:
    raise Refusal(command.code, command.message)


def _report_presence(command: c.ReportPresence, state: State) -> Decision:
    decision = report_presence(command, state)
    if command.online or not command.connection:
        return decision
    # A will may tell of a connection that never reported itself, but for a party of its name.
    lost = end_parties(state, Ref(command.kind, command.subject), command.connection, "connection_lost")
    return Decision([*decision.emissions, *lost])


def _report(command: c.ReportParticipant, state: State) -> Decision:
    session, participant = command.session, command.participant
    require_participant(state, session, participant, "participant in the topic", "not_allowed", command.kind)
    renew_session(state, session)
    emissions = []
    if command.counters is not None:
        emissions += report_counters(state, session, participant, command.counters)
    return Decision(emissions + report_settings(command, state))


def _expire(command: c.Expire, state: State) -> Decision:
    state.touch(command.key)
    noun, record_id = parse_key(command.key)
    if noun == "session":
        return Decision(expire_session(state, record_id, command.clock_ms))
    if noun == "views":
        return Decision(check_views(state, record_id, command.clock_ms))
    if noun == "party":
        return Decision(expire_party(state, command.key, command.clock_ms))
    if noun == "room":
        return Decision(expire_room(state, record_id, command.clock_ms))
    if noun == "permissions":
        expire_permissions(state, record_id, command.clock_ms)
        return NOTHING
    if noun not in KINDS:
        return NOTHING
    ref = parse_subject_key(command.key)
    emissions = expire_endpoints(state, ref, command.clock_ms)
    if state.rules.lease_ms:
        before = state.subject(*ref).connections
        emissions += expire_connections(state, ref, command.clock_ms)
        after = state.subject(*ref).connections
        for connection in before:
            if connection not in after:
                emissions += end_parties(state, ref, connection, "expired")
    return Decision(emissions + expire_flaps(state, ref, command.clock_ms))


def _unfile(command: c.Unfile, state: State) -> Decision:
    state.unfile(command.key)
    return NOTHING


# The value's command type is the key, which a type checker cannot say of a table.
_RULES: dict[type[c.Command], Callable[[Any, State], Decision]] = {
    c.ReportPresence: _report_presence,
    c.ReportStatus: report_status,
    c.UpdateDeviceStatus: update_device_status,
    c.Ignore: _ignore,
    c.Reject: _reject,
    c.JoinSession: join_session,
    c.LeaveSession: leave_session,
    c.StopSession: stop_session,
    c.ReplySession: reply_session,
    c.ReportParticipant: _report,
    c.MediaStateOf: media_state_of,
    c.ReportMute: report_mute,
    c.MuteParticipant: mute_participant,
    c.PermissionsOf: permissions_of,
    c.RegisterEndpoint: register_endpoint,
    c.KeepEndpoint: keep_endpoint,
    c.UnregisterEndpoint: unregister_endpoint,
    c.WatchEndpoint: watch_endpoint,
    c.SendEvent: send_event,
    c.ReadAudit: read_audit,
    c.ListEndpoints: list_endpoints,
    c.ViewEndpoint: view_endpoint,
    c.ListSubjects: list_subjects,
    c.SessionsOf: sessions_of,
    c.SessionMembers: session_members,
    c.Explain: explain,
    c.RoomEvent: room_event,
    c.RejectRoomEvent: reject_room_event,
    c.RoomParties: room_parties,
    r.CreateRoom: create_room,
    r.ReadRoom: read_room,
    r.DeleteRoom: delete_room,
    r.JoinRoom: join_room,
    r.RefreshParty: refresh_party,
    r.LeaveRoom: leave_room,
    r.ReportMedia: report_media,
    c.Expire: _expire,
    c.Unfile: _unfile,
}


def _subject_and_watchers(command: c.ReportPresence | c.ReportStatus) -> tuple[str, ...]:
    return (subject_key(command.kind, command.subject), WATCHERS_KEY)


def _members_of_session(command: c.JoinSession | c.LeaveSession | c.ReplySession) -> tuple[str, ...]:
    return (*_shared(command), WATCHERS_KEY, *(subject_key(*member) for member in command.members))


def _shared(command: c.JoinSession | c.LeaveSession | c.ReplySession | c.StopSession) -> tuple[str, ...]:
    session = command.session
    return (session_key(session), views_key(session), permissions_key(session))


def _reported(command: c.ReportParticipant) -> tuple[str, ...]:
    session, participant = command.session, command.participant
    media = (views_key(session), part_key("media", session, participant))
    settings = (permissions_key(session), mutes_key(session, participant))
    has_settings = (command.roles, command.room, command.devices, command.hand) != (None, None, None, None)
    return (session_key(session), *(media if command.counters else ()), *(settings if has_settings else ()))


def _muted(command: c.ReportMute | c.MuteParticipant) -> tuple[str, ...]:
    session = command.session
    people = [command.target, command.addressed if isinstance(command, c.ReportMute) else None]
    own = (mutes_key(session, person.id) for person in people if person is not None)
    return (session_key(session), permissions_key(session), *own)


def _permissions_asked(command: c.PermissionsOf) -> tuple[str, ...]:
    asked = () if command.participant is None else (mutes_key(command.session, command.participant),)
    return (session_key(command.session), permissions_key(command.session), *asked)


def _media_asked(command: c.MediaStateOf) -> tuple[str, ...]:
    asked = () if command.participant is None else (part_key("media", command.session, command.participant),)
    return (session_key(command.session), *asked)


def _user_and_sent(command: c.SendEvent) -> tuple[str, ...]:
    user = subject_key("user", command.user)
    return (user, command.key) if command.key else (user,)


def _party_and_sender(command: c.RoomEvent | c.RejectRoomEvent) -> tuple[str, ...]:
    keys = [room_key(command.room)]
    if command.party:
        keys.append(party_key(command.room, command.party))
    if not command.user.startswith("phone:"):
        keys.append(command.user)
    return tuple(keys)


def _due(command: c.Expire) -> tuple[str, ...]:
    keys = (command.key, WATCHERS_KEY)
    noun, room = parse_key(command.key)
    if noun == "party":
        room, party = parse_part_key(command.key)
        return (*keys, room_key(room), *member_keys(room, party))
    return (*keys, session_key(room)) if noun == "room" else keys


def _visited(command: r.RoomCommand) -> tuple[str, ...]:
    keys = [room_key(command.room)]
    if isinstance(command, r.CreateRoom):
        return tuple(keys)
    visitor = command.visitor
    participant = visitor.user or visitor.party
    if visitor.party:
        keys.append(party_key(command.room, visitor.party))
    elif visitor.user:
        keys.append(subject_key("user", visitor.user))
    if isinstance(command, r.JoinRoom):
        keys.append(party_key(command.room, command.party))
        if not visitor.user:
            participant = command.party
            keys.append(subject_key("participant", participant))
    if not isinstance(command, r.ReadRoom):
        keys += (*member_keys(command.room, participant), WATCHERS_KEY)
    return tuple(keys)


_KEYS: dict[type[c.Command], Callable[[Any], tuple[str, ...]]] = {
    c.ReportPresence: _subject_and_watchers,
    c.ReportStatus: _subject_and_watchers,
    c.UpdateDeviceStatus: lambda command: (subject_key("device", command.subject), WATCHERS_KEY),
    c.JoinSession: _members_of_session,
    c.LeaveSession: _members_of_session,
    c.ReplySession: _members_of_session,
    c.StopSession: lambda command: (*_shared(command), WATCHERS_KEY),
    c.ReportParticipant: _reported,
    c.ReportMute: _muted,
    c.MuteParticipant: _muted,
    c.PermissionsOf: _permissions_asked,
    c.MediaStateOf: _media_asked,
    c.RegisterEndpoint: lambda command: (subject_key(command.kind, command.subject),),
    c.SendEvent: _user_and_sent,
    c.ListEndpoints: lambda command: (subject_key("user", command.user),),
    c.SessionsOf: lambda command: (subject_key(command.kind, command.subject),),
    c.Explain: lambda command: (subject_key(command.kind, command.subject),),
    c.SessionMembers: lambda command: (session_key(command.session),),
    c.RoomEvent: _party_and_sender,
    c.RejectRoomEvent: _party_and_sender,
    c.RoomParties: lambda command: (room_key(command.room),),
    **dict.fromkeys(get_args(r.RoomCommand), _visited),
    c.Expire: _due,
}


def _endpoint(
    command: c.RegisterEndpoint | c.KeepEndpoint | c.UnregisterEndpoint | c.WatchEndpoint | c.ViewEndpoint,
) -> tuple[str, ...]:
    return (command.endpoint,)


def _endpoints_of_party(command: c.RoomEvent | c.RejectRoomEvent) -> tuple[str, ...]:
    return tuple(name for name in (command.party, command.endpoint) if is_endpoint_id(name))


def _named_endpoint(command: r.JoinRoom) -> tuple[str, ...]:
    return (command.endpoint,) if is_endpoint_id(command.endpoint) else ()


_ENDPOINTS: dict[type[c.Command], Callable[[Any], tuple[str, ...]]] = {
    c.RegisterEndpoint: _endpoint,
    c.KeepEndpoint: _endpoint,
    c.UnregisterEndpoint: _endpoint,
    c.WatchEndpoint: _endpoint,
    c.ViewEndpoint: _endpoint,
    c.RoomEvent: _endpoints_of_party,
    c.RejectRoomEvent: _endpoints_of_party,
    r.JoinRoom: _named_endpoint,
}


def _seats_of_room(command: c.RoomParties | r.RoomCommand) -> tuple[Page, ...]:
    return (seats_page(command.room),)


_PAGES: dict[type[c.Command], Callable[[Any], tuple[Page, ...]]] = {
    c.RoomEvent: lambda command: (seats_page(command.room),),
    **dict.fromkeys((c.RoomParties, r.ReadRoom, r.DeleteRoom, r.JoinRoom, r.LeaveRoom), _seats_of_room),
}


# These only ask.
QUESTIONS = frozenset(
    (
        *(c.ListEndpoints, c.ListSubjects, c.SessionsOf, c.SessionMembers, c.MediaStateOf, c.RoomParties),
        *(c.PermissionsOf, c.ReadAudit, c.Explain, c.ViewEndpoint, r.ReadRoom),
    )
)

# What changes nothing and is decided the same way whenever it is decided needs no journal. What is sent must not be in
# it, since nothing that masks hide may be stored: its input waits for the PUBACKs, and is sent again after a crash.
UNJOURNALED = QUESTIONS | {c.Ignore, c.Reject, c.Unfile, c.SendEvent}


def decide(command: c.Command, state: State) -> Decision:
    """Apply one command to the state.

    Raises:
        Refusal: it cannot be taken; nothing of it stands once the state drops it.
        NotLoaded, CommitFirst, Elsewhere: see `bridge.domain.state`.
    """
    return _RULES[type(command)](command, state)


def want_first(command: c.Command, keys: dict[str, None], owners: set[str], pages: dict[Page, None]) -> None:
    """Add what the first load wave brings for a command: record keys, endpoint ids, index pages."""
    kind = type(command)
    if kind in _KEYS:
        for key in _KEYS[kind](command):
            keys[key] = None
    if kind in _ENDPOINTS:
        for endpoint in _ENDPOINTS[kind](command):
            owner = named_key(endpoint)
            if owner is None or kind is c.RegisterEndpoint:
                owners.add(endpoint)
            else:
                keys[owner] = None  # most probably it has it; nobody's claim matters then
    if kind in _PAGES:
        pages.update(dict.fromkeys(_PAGES[kind](command)))
