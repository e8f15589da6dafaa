"""Commands: orders to the rules, decoded and checked for form. What they mean is decided in the noun's own module.

Times are epoch milliseconds, None for "now". A member is a `Ref`.
"""

import msgspec

from bridge.domain.ids import Ref
from bridge.domain.media_table import Counters
from bridge.domain.records import AuditEntry
from bridge.domain.room_commands import RoomCommand
from bridge.domain.values import Kind


class Caller(msgspec.Struct, frozen=True):
    """Who gives a command: a service (``user`` None) or one user, who may touch only what is its own."""

    user: str | None = None


SERVICE = Caller()


class ReportPresence(msgspec.Struct, frozen=True):
    """A connection of a subject came or went. ``retained``: a replay at a subscription, not news."""

    kind: Kind
    subject: str
    online: bool
    connection: str = ""
    time_ms: int | None = None
    retained: bool = False


class ReportStatus(msgspec.Struct, frozen=True):
    """A subject's status document (JSON text). ``timestamp`` is ``time_ms`` as its sender wrote it."""

    kind: Kind
    subject: str
    status: msgspec.Raw
    time_ms: int | None = None
    timestamp: int | float | None = None
    retained: bool = False


class UpdateDeviceStatus(msgspec.Struct, frozen=True):
    """The RPC form of a device's status: refused for an offline device (answer null)."""

    subject: str
    status: msgspec.Raw
    time_ms: int
    timestamp: int | float


class Ignore(msgspec.Struct, frozen=True):
    """A well-formed input that changes nothing, such as ``USER_UPDATED``."""


class Reject(msgspec.Struct, frozen=True):
    """One entry of an input that cannot be taken; the entries after it can."""

    code: str
    message: str


class JoinSession(msgspec.Struct, frozen=True):
    """Invite members to a session; ``fields`` is the event as received, for the relay."""

    session: str
    members: tuple[Ref, ...]
    fields: dict[str, object]
    time_ms: int | None = None


class LeaveSession(msgspec.Struct, frozen=True):
    """Members leave a session."""

    session: str
    members: tuple[Ref, ...]
    fields: dict[str, object]


class StopSession(msgspec.Struct, frozen=True):
    """A session ends for all its members."""

    session: str
    fields: dict[str, object]
    time_ms: int | None = None


class ReplySession(msgspec.Struct, frozen=True):
    """Invitees answer; whoever does not accept is free again."""

    session: str
    members: tuple[Ref, ...]
    accepted: bool
    fields: dict[str, object]


class ReportParticipant(msgspec.Struct, frozen=True):
    """A participant of a session reports of itself; what it says nothing of is None.

    Attributes:
        counters: its media.
        roles: its roles, the first of which counts.
        room: the room of the call that it is in, ``""`` for the main one.
        devices: medium -> whether its device is on; those not named stay as they are.
        hand: whether its hand is raised.
        kind: it must be a member of that kind, None for any.
    """

    session: str
    participant: str
    counters: Counters | None = None
    roles: tuple[str, ...] | None = None
    room: str | None = None
    devices: dict[str, bool] | None = None
    hand: bool | None = None
    kind: Kind | None = None


class Person(msgspec.Struct, frozen=True):
    """Somebody in a call, as mute notifications name them: the participant, and the number of its device."""

    id: str
    device: int | None = None


class ReportMute(msgspec.Struct, frozen=True):
    """An upstream system announces a mute, or a grant.

    Attributes:
        addressed: whom its topic addresses, None for the plain one.
        target: ``userId``; ``admin`` is its author, None for the system itself.
        mute_all: the field ``muteAll``, ``is_update`` ``stateUpdated``, ``keeps_devices`` ``unmute``.
        states: medium -> mute state, of the media that changed.
        grants: the one-time grants that are left, ``unmuteOptions``; ``requested`` is ``requestedMedia``.
        room: the room of the call, ``""`` for the main one.
    """

    session: str
    addressed: Person | None
    target: Person | None
    admin: Person | None
    mute_all: bool
    is_update: bool
    keeps_devices: bool
    states: dict[str, str]
    grants: tuple[str, ...]
    requested: tuple[str, ...]
    room: str


class MuteParticipant(msgspec.Struct, frozen=True):
    """An admin mutes, unmutes or asks for the attention of a participant, or of everybody (``target`` None).

    ``is_call``: by RPC.
    """

    session: str
    target: Person | None
    admin: Person | None
    states: dict[str, str]
    requested: tuple[str, ...]
    room: str
    is_call: bool = False
    caller: Caller = SERVICE


class PermissionsOf(msgspec.Struct, frozen=True):
    """Ask what a participant may do, or what all participants may."""

    session: str
    participant: str | None = None
    caller: Caller = SERVICE


class MediaStateOf(msgspec.Struct, frozen=True):
    """Ask for a participant's media state, or for those of all participants."""

    session: str
    participant: str | None = None
    caller: Caller = SERVICE


class RoomEvent(msgspec.Struct, frozen=True):
    """What a party of a room reports, asks or tells.

    Attributes:
        category: one of `bridge.domain.events.Category`.
        user: the sender, as parties are known by it (`bridge.domain.ids.sender_key`).
        sender: the sender as received.
        party: the party's id; empty where the event names none.
        content: its state as received and checked, all but the ids.
        fields: what else the event holds, for the relay.
        receivers: whom alone it is for, by all that these may be known by; empty: all.
        endpoint: the endpoint that it names; empty: none.
        attendee: all that the user to be removed may be known by.
        seq: its number among its party's.
        retained: a replay at a subscription, not news.
        is_client: it came from the user itself, who may touch only what is its own.
    """

    category: str
    room: str
    user: str
    sender: dict[str, object]
    party: str = ""
    content: dict[str, object] = {}
    fields: dict[str, object] = {}
    receivers: tuple[str, ...] = ()
    endpoint: str = ""
    attendee: tuple[str, ...] = ()
    time_ms: int | None = None
    seq: int | None = None
    retained: bool = False
    is_client: bool = False


class RejectRoomEvent(msgspec.Struct, frozen=True):
    """A room event that cannot be taken: its sender is told. ``metadata`` is its ``loopbackMetadata``."""

    room: str
    user: str
    party: str
    code: str
    message: str
    metadata: object = None
    endpoint: str = ""
    is_client: bool = False


class RegisterEndpoint(msgspec.Struct, frozen=True):
    """Make or renew an endpoint. ``watch`` None: keep what it has, or the configured default for a new one."""

    kind: Kind
    subject: str
    endpoint: str
    keep_alive_seconds: int
    reminder_on: bool = False
    watch: tuple[str, ...] | None = None


class KeepEndpoint(msgspec.Struct, frozen=True):
    """A keepalive. ``asked``: by RPC, so an unknown endpoint is an error; else it is told on its own topic."""

    endpoint: str
    asked: bool = False
    caller: Caller = SERVICE


class UnregisterEndpoint(msgspec.Struct, frozen=True):
    """End an endpoint."""

    endpoint: str
    reason: str | None = None
    caller: Caller = SERVICE


class WatchEndpoint(msgspec.Struct, frozen=True):
    """Replace an endpoint's watch list."""

    endpoint: str
    watch: tuple[str, ...]
    caller: Caller = SERVICE


class SendEvent(msgspec.Struct, frozen=True):
    """Send an event to one of a user's endpoints, or to all of them.

    Attributes:
        event: its JSON text as given, and as delivered.
        note: what may be stored of it.
        event_id: for the user property; empty: the bridge makes one.
        listed: answer each copy's outcome, not their number.
        key: record key by which a repetition is known; empty where nothing tells one.
        body: hash of all that is asked for.
        non_string_hits: by mask, how many nodes it selects that are no text and so stay as they are.
    """

    event: msgspec.Raw
    note: AuditEntry
    event_id: str
    user: str
    endpoint: str | None
    qos: int
    listed: bool = False
    key: str = ""
    body: str = ""
    non_string_hits: tuple[int, ...] = ()


class AuditFilter(msgspec.Struct, frozen=True):
    """Which audit entries are wanted: those that fit all that is not None."""

    user_id: str | None = None
    type: str | None = None
    room: str | None = None
    session: str | None = None


class ReadAudit(msgspec.Struct, frozen=True):
    """Ask for audit entries from ``since`` on: an ISO time or an entry's id; None for the oldest."""

    since: str | None
    wanted: AuditFilter
    limit: int


class ListEndpoints(msgspec.Struct, frozen=True):
    """Ask for a user's endpoints."""

    user: str


class ViewEndpoint(msgspec.Struct, frozen=True):
    """Ask for one endpoint."""

    endpoint: str
    caller: Caller = SERVICE


class ListSubjects(msgspec.Struct, frozen=True):
    """Ask who is online, busy, or either (``status``): sorted ids greater than ``cursor``; ``limit`` None for all."""

    kind: Kind
    what: str
    limit: int | None = None
    cursor: str = ""


class SessionsOf(msgspec.Struct, frozen=True):
    """Ask for a subject's sessions."""

    kind: Kind
    subject: str


class RoomParties(msgspec.Struct, frozen=True):
    """Ask for a room's parties."""

    room: str


class Explain(msgspec.Struct, frozen=True):
    """Ask for all that is known of a subject, and why."""

    kind: Kind
    subject: str


class SessionMembers(msgspec.Struct, frozen=True):
    """Ask for a session's members."""

    session: str


class Expire(msgspec.Struct, frozen=True):
    """A record's deadline has passed at registry clock ``clock_ms``: do what is due on it."""

    key: str
    clock_ms: int


class Unfile(msgspec.Struct, frozen=True):
    """Take a record's deadline off: the record cannot be read, so nothing can be due on it."""

    key: str


Command = (
    ReportPresence
    | ReportStatus
    | UpdateDeviceStatus
    | Ignore
    | Reject
    | JoinSession
    | LeaveSession
    | StopSession
    | ReplySession
    | ReportParticipant
    | MediaStateOf
    | RoomEvent
    | RejectRoomEvent
    | ReportMute
    | MuteParticipant
    | PermissionsOf
    | RegisterEndpoint
    | KeepEndpoint
    | UnregisterEndpoint
    | WatchEndpoint
    | SendEvent
    | ReadAudit
    | ListEndpoints
    | ViewEndpoint
    | ListSubjects
    | SessionsOf
    | SessionMembers
    | Explain
    | RoomParties
    | RoomCommand
    | Expire
    | Unfile
)
