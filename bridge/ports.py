"""The doors of the line: what `bridge/pipeline.py` asks of a registry and of a broker, and nothing more."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from bridge.domain.values import Claim, Commit, CommitAnswer, Hold, Kept, Loading, Output, Receipt, Want
from bridge.errors import Refusal


class Registry(Protocol):
    """The records, their indexes and deadlines, the journal, the clock and the endpoint owners.

    Every method raises `bridge.errors.RegistryUnavailable` when Redis is away, loading, read-only or full.
    Two implementations pass the same contract tests: `bridge.adapters.registry` (Redis) and `bridge.adapters.memory`.
    """

    async def load(self, wants: Mapping[str, Want], owners: Collection[str] = ()) -> Loading:
        """Read the moment, each organization's wants (organization -> want) and endpoint owners in one trip."""

    async def commit(self, commit: Commit) -> CommitAnswer:
        """Apply one organization's changes at once; see `Commit`. Adds the organization to the known ones first.

        An answer that was lost is asked for again with the same token until it comes or the connection is given up
        (then RegistryUnavailable; calling again with the same commit is safe).

        Raises:
            bridge.errors.LeaseLost: a bridge with a higher epoch has fenced this one out.
        """

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Change endpoint owners one by one, each on its expected owner; True where it took. One trip."""

    async def settle(self, entries: Mapping[str, Sequence[str]]) -> None:
        """Delete journal entries: organization -> entry ids. One trip."""

    async def keep(self, kept: Mapping[str, Kept], maximum_audit: int) -> list[str]:
        """Keep what followed from the broker's word: organization -> `Kept`. One trip.

        Of each organization's audit stream the newest ``maximum_audit`` entries stay. An entry may be there twice where
        an answer was lost.

        Returns:
            The organizations whose audit stream's key holds something else: their entries are lost.
        """

    async def audit(self, organization: str, start: str, limit: int) -> list[tuple[str, bytes]]:
        """At most ``limit`` audit entries (id, text), oldest first.

        Args:
            organization: whose.
            start: ``-`` for the oldest, epoch milliseconds, or ``(<id>`` for the first after that entry.
            limit: how many at most.
        """

    async def trim_audit(self, maximum_age_ms: int) -> None:
        """Delete every organization's audit entries that are older by Redis TIME."""

    async def due(self, limit: int) -> list[tuple[str, str]]:
        """At most ``limit`` (organization, key) whose deadline is not after the registry clock of the last tick."""

    async def tick(self, *, pause: bool = False) -> int:
        """Move the registry clock on and return it, in milliseconds.

        It adds the Redis time since the last tick where that is 0..2 s; anything else is a pause. A pause sets
        ``resumed_ms`` and first moves the clock by the 2 s that `Moment.clock_ms` may have run ahead, so that whatever
        was renewed before the pause does not lie after ``resumed_ms``.

        Args:
            pause: signs of life may have been lost since the last tick: it is a pause, however short.
        """

    async def walk(self, cursor: str) -> tuple[str, list[tuple[str, str]]]:
        """One step of a walk over the subjects' records of all organizations.

        Args:
            cursor: empty to begin, then what the step before returned.

        Returns:
            The cursor of the next step, empty at the end, and some (organization, key). Who is there from the walk's
            beginning to its end comes at least once.
        """

    async def journal(self) -> list[tuple[str, str, str, bytes]]:
        """Every journal entry of every organization: (organization, entry id, bridge, bytes).

        Organizations in code point order, oldest entry first within one; bridge is the ``<name>/<instance>`` that
        committed it, so that recovery can tell whose it is.
        """

    async def hold(self, ttl_ms: int, *, instead_of: str = "", least_epoch: int = 0) -> Hold:
        """Take the lease where it is free, or renew it, for ``ttl_ms``; 0 gives it back. Returns who holds it now.

        The epoch rises whenever it changes hands, and is at least ``least_epoch``. ``instead_of`` names a bridge whose
        lease may be taken before its time.
        """

    async def fence(self, epoch: int) -> int:
        """Commit with ``epoch`` from now on, and let no lower one commit in any organization.

        Returns the highest epoch found: above ``epoch``, this bridge is shut out itself.
        """

    async def recall(self, field: str) -> str | None:
        """A small fact that a bridge keeps across restarts (``client_id``, ``session_epoch``), or None."""

    async def remember(self, field: str, value: str) -> None:
        """Keep a small fact across restarts."""


class Broker(Protocol):
    """What the line asks of the MQTT session. Nothing here waits for the network except `drained`."""

    @property
    def largest_packet_bytes(self) -> int:
        """Bytes of the largest MQTT packet that the broker takes, as it said last."""

    def publish(self, outputs: Sequence[Output], settled: Callable[[list[int]], None]) -> None:
        """Send outputs in order; ``settled`` is called once with the PUBACK reason code of each copy (0 for QoS 0)."""

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        """Allow the PUBACK of each; they leave in order of arrival. Receipts of an earlier connection are ignored."""

    async def drained(self) -> None:
        """Return once few enough outputs wait for the broker that more may be made."""

    def read_on(self) -> None:
        """Read from the broker again, where that was stopped because too much waited here."""


class Waiter(Protocol):
    """Who gave a command within this process, and waits for what comes of it."""

    @property
    def is_open(self) -> bool:
        """Whether it still waits: not answered, and not given up."""

    def answer(self, result: object) -> None:
        """Hand over the result, any JSON value, once the effect is committed; nothing where it waits no more."""

    def refuse(self, refusal: Refusal) -> None:
        """Say why it was not done; nothing where it waits no more."""
