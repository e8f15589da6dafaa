"""Plain values that cross a door of the house: between the line (`bridge/pipeline.py`), the rules and the adapters.

Keys are relative to an organization: ``user:ann``, ``session:s1``, ``watchers``; the registry adapter puts its prefix
and the organization's hash tag in front. A record's version is a hybrid clock in milliseconds; 0 stands for "absent".
"""

from typing import Literal, NamedTuple

import msgspec

Kind = Literal["user", "participant", "device"]
KINDS: tuple[Kind, ...] = ("user", "participant", "device")


SENT_SECONDS = 600


class Moment(msgspec.Struct, frozen=True):
    """When a batch is decided.

    Attributes:
        now_ms: Redis TIME, epoch milliseconds.
        clock_ms: the registry clock at ``now_ms``: its value at the last tick plus the time since, at most 2 s.
        resumed_ms: the registry clock at the end of the last pause; 0 where there never was one.
    """

    now_ms: int
    clock_ms: int
    resumed_ms: int


class Page(NamedTuple):
    """One page of an index (``online:user``): at most ``limit`` members greater than ``after``, in code point order.

    ``after`` None: in the order of their scores, as the deadlines have them.
    """

    members: str
    after: str | None
    limit: int


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """Who holds an endpoint id, over all organizations. ``claimed_ms`` is Redis TIME of the claim."""

    organization: str
    kind: Kind
    subject: str
    claimed_ms: int


class Want(msgspec.Struct):
    """What one organization's commands need to be decided: record keys and index pages."""

    keys: list[str] = []
    pages: list[Page] = []


class Loaded(msgspec.Struct):
    """The answer to a `Want`.

    Attributes:
        records: key -> ``b"<version>:<schema>:<json>"`` or None where absent; every key asked for is here.
        pages: page -> its members.
        floor: no record may start at or below this version.
    """

    records: dict[str, bytes | None]
    pages: dict[Page, list[str]]
    floor: int


class Loading(msgspec.Struct):
    """One load trip's answer: the moment, per organization what was asked, and the endpoint owners asked for.

    Attributes:
        window: what was loaded in one window still stands if a commit that names it is applied at once, as the registry
            can tell; 0: it cannot.
    """

    moment: Moment
    organizations: dict[str, Loaded]
    owners: dict[str, Owner | None]
    window: int = 0


class Write(msgspec.Struct, frozen=True, gc=False):
    """One record's change: ``expected`` version (0: absent) and the new stored text, None to delete."""

    key: str
    expected: int
    text: bytes | None


class Commit(msgspec.Struct):
    """Everything one batch changes in one organization, applied at once or not at all.

    Attributes:
        organization: whose records.
        token: names this batch of this bridge; the same token asked again is answered, not done again.
        writes: records to set or delete, each on its expected version.
        checks: records only read, key -> version they must still have.
        floor: raise the organization's floor to this version; 0 leaves it. A write with ``expected`` 0 conflicts when
            its new version is not above the floor found at commit.
        members: index (``online:user``) -> member -> True to add, False to remove.
        deadlines: key -> registry clock ms at which the record is due, None to take it off.
        unclaimed: endpoint ids that nobody may have claimed when it is applied; else it conflicts.
        window: all that it depends on was loaded in it, see `Loading`; 0: not all in one.
        journal: one journal entry's bytes, or None where nothing has to survive a crash.
    """

    organization: str
    token: str
    writes: list[Write] = []
    checks: dict[str, int] = {}
    floor: int = 0
    members: dict[str, dict[str, bool]] = {}
    deadlines: dict[str, int | None] = {}
    unclaimed: list[str] = []
    window: int = 0
    journal: bytes | None = None


class Committed(msgspec.Struct, frozen=True):
    """The commit is done; ``entry`` is the journal entry's id, None where the commit had none."""

    entry: str | None


class Conflict(msgspec.Struct, frozen=True):
    """A record changed since it was loaded: nothing was written, load and decide again. ``key`` is the first such."""

    key: str


class Corrupt(msgspec.Struct, frozen=True):
    """The registry will never take this commit: nothing was written.

    ``key`` names the key that holds the wrong Redis type; empty where the commit itself is at fault (too large).
    """

    key: str


class Kept(msgspec.Struct):
    """What is kept of one organization once the broker has settled its outputs.

    Attributes:
        sent: key -> text to keep for `SENT_SECONDS`.
        audit: entries to append to the audit stream.
    """

    sent: dict[str, bytes] = {}
    audit: list[bytes] = []


CommitAnswer = Committed | Conflict | Corrupt


class Hold(NamedTuple):
    """Who holds the lease: a bridge as ``<name>/<instance>`` (empty: nobody), with which epoch, for how long yet."""

    bridge: str
    epoch: int
    left_ms: int


class Claim(NamedTuple):
    """Change who owns an endpoint id, only if ``expected`` still does (None: nobody). ``owner`` None releases."""

    endpoint: str
    expected: Owner | None
    owner: Owner | None


class Receipt(msgspec.Struct, gc=False, eq=False):
    """One QoS 1 delivery of one broker connection, for the line to acknowledge.

    Attributes:
        connection: number of the connection that delivered it, rising from 1 within the process.
        number: its place among that connection's QoS 1 deliveries, rising from 1.
        packet_id: the MQTT packet id.
        done: the line has no more need of it: the PUBACK may leave as soon as all earlier ones may.
    """

    connection: int
    number: int
    packet_id: int
    done: bool = False


_HEADER_BYTES = 72  # of a PUBLISH packet with every property that an output may have


class Output(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One message to publish to one or many topics, as it stands in the journal.

    Attributes:
        topic: full topic, prefix included.
        payload: the bytes to publish.
        qos: 0 or 1.
        event_id: user property ``event-id``; empty for answers, which carry ``correlation`` instead.
        correlation: MQTT 5 Correlation Data of an RPC answer.
        redelivered: this copy was sent before by a bridge that ended: user property ``redelivered: 1``.
        retain: the broker keeps it for later subscribers; an empty payload takes back what it kept.
        expiry_seconds: MQTT 5 Message Expiry Interval, counted from the commit, 1..4,294,967,295; 0: it never expires.
        others: further topics to which it is published after ``topic``, in order: a copy for each.
    """

    topic: str
    payload: bytes
    qos: int = 1
    event_id: str = ""
    correlation: bytes | None = None
    redelivered: bool = False
    retain: bool = False
    expiry_seconds: int = 0
    others: tuple[str, ...] = ()

    @property
    def topics(self) -> tuple[str, ...]:
        """All its topics, in order."""
        return (self.topic, *self.others)

    @property
    def copies(self) -> int:
        """How many MQTT messages it makes."""
        return 1 + len(self.others)

    @property
    def packet_bytes(self) -> int:
        """How many bytes a PUBLISH packet of it has at most (MQTT 5 section 3.3); few less in truth."""
        beside = (
            max(len(topic.encode()) for topic in self.topics)
            + len(self.event_id.encode())
            + len(self.correlation or b"")
        )
        return len(self.payload) + beside + _HEADER_BYTES


def kind_of(value: object) -> str:
    """Return what a decoded JSON value is, in the words of error messages."""
    for kind, name in (
        (bool, "a boolean"),
        (str, "text"),
        (int | float, "a number"),
        (list, "an array"),
        (dict, "an object"),
    ):
        if isinstance(value, kind):
            return name
    return "null or absent"
