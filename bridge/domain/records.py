"""The records of the registry; `bridge.domain.schema` tells how they are stored.

Times named ``renewed_ms`` are on the registry clock, which stands still during outages; all others are epoch
milliseconds. Records are never changed in place: a change is a new record, so that a decision can be dropped and made
again. A field that has its default is left out of the JSON.
"""

from collections.abc import Sequence

import msgspec

NO_STATUS = msgspec.Raw()


class Connection(msgspec.Struct, frozen=True, array_like=True):
    """One live connection of a subject: its newest connect (epoch ms), and its last sign of life."""

    since_ms: int
    renewed_ms: int


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tab, phone or device where a subject can be reached.

    Attributes:
        keep_alive_seconds: it is removed that long after ``renewed_ms``.
        version: the subject's record version at its last registration or change of state.
        reminder_on: it wants a reminder at two thirds of the interval.
        reminded_ms: registry clock of the reminder since the last keepalive; 0 where there was none.
        sick: it left its reminder unanswered, or is within its grace.
        watch: the subjects whose events it wants: ``device:lamp``, ``device:*``, ``*``.
    """

    keep_alive_seconds: int
    renewed_ms: int
    version: int
    reminder_on: bool = False
    reminded_ms: int = 0
    sick: bool = False
    watch: tuple[str, ...] = ()


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user, participant or device.

    Attributes:
        connections: live connections by name; the unnamed one is ``""``.
        sessions: the live sessions it is a member of -> when it joined, oldest first.
        status: the status document as received (JSON text), `NO_STATUS` where there is none.
        status_ms: when the status held, for comparison.
        status_timestamp: the same as its sender wrote it; the number of milliseconds where it wrote text or nothing.
        endpoints: by id.
        watchers: endpoints of others (or its own) that watch this subject by name -> the key of their owner.
        parties: room -> party -> the one endpoint that stands for it, ``""`` where all of the sender's do: those that
            this subject is the sender of, and those that one of its endpoints stands for.
        flips: registry clock of its last changes between online and offline, where ``presence.flap_limit`` counts them.
        flapping: there are too many of them to tell of each.
    """

    connections: dict[str, Connection] = {}
    sessions: dict[str, int] = {}
    status: msgspec.Raw = NO_STATUS
    status_ms: int = 0
    status_timestamp: int | float = 0
    endpoints: dict[str, Endpoint] = {}
    watchers: dict[str, str] = {}
    parties: dict[str, dict[str, str]] = {}
    flips: tuple[int, ...] = ()
    flapping: bool = False


class Pending(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a join, leave or stop of many members has still to do to them, a chunk in each commit.

    Attributes:
        members: subject keys of those left.
        cause: what is told of them: ``session_joined`` marks them busy, anything else frees them.
        fields: the event's fields as received (JSON), where each chunk is told of it.
        time_ms: when they joined.
    """

    members: list[str]
    cause: str
    fields: msgspec.Raw = NO_STATUS
    time_ms: int = 0


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """A live call, or the memory of a stopped one.

    Attributes:
        members: subject key -> when it joined, oldest first.
        renewed_ms: its last traffic.
        stopped_ms: time of the newest stop; joins older than it are ignored. None: never stopped.
        forget_ms: registry clock at which the stop may be forgotten.
        pending: what its last join, leave or stop has still to do.
        is_room: members have seats in the room of its name: who leaves the one leaves the other.
    """

    members: dict[str, int] = {}
    renewed_ms: int = 0
    stopped_ms: int | None = None
    forget_ms: int = 0
    pending: Pending | None = None
    is_room: bool = False


class Permissions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the participants of a session have in common of their permissions.

    Attributes:
        call: room of the call (``""`` the main one) -> medium -> mute state; a medium that is not there is not muted.
        roles: participant -> ``CREATOR`` or ``ADMIN``.
        absent: who left and has own states or grants, for its return; in the order of leaving.
        empty_ms: registry clock since which nobody is in the session; None: somebody is.
        has_mutes: some participant has a record of its own.
    """

    call: dict[str, dict[str, str]] = {}
    roles: dict[str, str] = {}
    absent: tuple[str, ...] = ()
    empty_ms: int | None = None
    has_mutes: bool = False


class Mutes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one participant of a session has of its own.

    Attributes:
        own: medium -> its mute state.
        once: media that it may turn on once.
        on: media whose devices are on, as far as is known.
        hand: its hand is raised.
        room: the room of the call that it is in; ``""`` the main one.
    """

    own: dict[str, str] = {}
    once: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    hand: bool = False
    room: str = ""


class Sent(msgspec.Struct, gc=False):
    """A send under a key, so that a repetition is answered as the first was. Without version; it expires by itself.

    Attributes:
        body: hash of all that was asked for.
        endpoints: who was told, in order.
        outcomes: what the broker said of each copy; filled in once it has, and only then stored.
    """

    body: str
    endpoints: tuple[str, ...]
    outcomes: list[str] | None = None


class AuditFacts(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What an event is looked for by."""

    type: str | None
    session_id: str | None = None
    topic_id: str | None = None


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", gc=False):
    """One entry of the audit stream: an event, and those of its endpoints that had the same outcome.

    Attributes:
        event: JSON, masked.
        audience: endpoint ids.
        outcome: ``acknowledged``, ``no_subscriber``, ``sent``, ``refused``, or ``no_endpoint`` where nobody was there.
        user_id: whom a caller sent it to; of the bridge's own events the event tells.
        original: facts of the event without its masks; None where it has none.
    """

    event: msgspec.Raw
    audience: Sequence[str] = ()
    outcome: str = ""
    user_id: str | None = None
    original: AuditFacts | None = None


class Party(msgspec.Struct, frozen=True, omit_defaults=True):
    """One socket, tab, phone or device in a room, or the memory of one that departed.

    Attributes:
        user: the key of its sender; ``phone:...`` where that has no record.
        sender: the sender as received, field by field.
        content: its state as received and normalised, all but ``sessionId``, which is the party's id.
        endpoint: the one endpoint that stands for it; empty: all of its sender's do.
        owner: the key of that endpoint's owner.
        joined: the room's version at its joining; by it who came first is first.
        renewed_ms: its last sign of life.
        lease_ms: it expires that long after; 0: never.
        time_ms: the time of the newest message of it that was taken.
        seq: that message's number, where it brought one.
        forget_ms: registry clock at which a departed one may be forgotten; 0: it is in the room.
        size: the largest room that its client can handle, its own seat included; 0: any.
        proof: hash of the secret that its session token holds; empty: it came by a message and has none.
        reminded_ms: registry clock of its last reminder.
    """

    user: str = ""
    sender: dict[str, object] = {}
    content: dict[str, object] = {}
    endpoint: str = ""
    owner: str = ""
    joined: int = 0
    renewed_ms: int = 0
    lease_ms: int = 0
    time_ms: int = 0
    seq: int | None = None
    forget_ms: int = 0
    size: int = 0
    proof: str = ""
    reminded_ms: int = 0

    @property
    def is_present(self) -> bool:
        """It is in the room: neither unknown nor departed."""
        return bool(self.user) and not self.forget_ms


class Room(msgspec.Struct, frozen=True, omit_defaults=True):
    """A room that somebody is in, or one with seats, which stays while it is empty.

    Its version rises with each join and departure, so that two never miss each other.

    Attributes:
        changed_ms: the last of them.
        maximum: how many seats it has; 0: it was not created, and ends with its last party.
        name: as its creator gave it.
        owner: the key of who created it; empty: a service.
        renewed_ms: registry clock of the creation, or of the last join or departure.
    """

    changed_ms: int = 0
    maximum: int = 0
    name: str = ""
    owner: str = ""
    renewed_ms: int = 0


class Watchers(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who watches ``device:*`` or ``*``: name -> endpoint id -> the key of its owner."""

    names: dict[str, dict[str, str]] = {}


class Media(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one participant of a session last reported of its media.

    Attributes:
        connections: of the call, its own included.
        sends: streams that it sends; ``receives`` those that it receives.
        state: what follows from the counters.
        claimed: the state as the participant gave it, None where it gave none.
        anomalies: codes, see `bridge.domain.media`.
        had_media: a stream was seen since it was last alone.
    """

    connections: int = 0
    sends: int = 0
    receives: int = 0
    state: str = "init"
    claimed: str | None = None
    anomalies: tuple[str, ...] = ()
    had_media: bool = False


class Views(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the participants of a session agree on the number of connections.

    Attributes:
        counts: number of connections -> how many participants report it. Empty: nobody reported anything.
        odd: the participants that are told to be at odds with their peers.
        check_ms: registry clock at which to look who is at odds; None where there is nothing to look for.
    """

    counts: dict[int, int] = {}
    odd: tuple[str, ...] = ()
    check_ms: int | None = None


Record = Subject | Session | Party | Room | Watchers | Media | Views | Permissions | Mutes

EMPTY_SUBJECT = Subject()
EMPTY: dict[str, Record] = {
    "user": EMPTY_SUBJECT,
    "participant": EMPTY_SUBJECT,
    "device": EMPTY_SUBJECT,
    "session": Session(),
    "media": Media(),
    "views": Views(),
    "party": Party(),
    "room": Room(),
    "permissions": Permissions(),
    "mutes": Mutes(),
    "watchers": Watchers(),
}
"""Noun of a record key -> the record of which nothing is known."""


def is_record_key(key: str) -> bool:
    """Tell whether a record may stand under the key; else it is an index, the deadlines or the journal."""
    return key.partition(":")[0] in EMPTY
