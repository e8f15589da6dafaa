"""The registry in plain dicts: the model that the Redis registry is tested against, and the simulator's registry."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from bridge.domain.values import (
    KINDS,
    SENT_SECONDS,
    Claim,
    Commit,
    CommitAnswer,
    Committed,
    Conflict,
    Corrupt,
    Hold,
    Kept,
    Loaded,
    Loading,
    Moment,
    Owner,
    Page,
    Want,
)
from bridge.errors import LeaseLost

FIRST_CLOCK_MS = 1000
CLOCK_AHEAD_MS = 2000
WALK_STEP = 3  # so that a few records make a walk of several steps
_RECORD = re.compile(rb"\d+:\d+:")


class Ranks(dict[str, int]):
    """A sorted set: member -> score. Indexes have score 0, deadlines the registry clock in ms."""


class Bridges(dict[str, tuple[str, str | None]]):
    """Bridge -> (last batch token, its journal entry), and the organization's floor and epoch."""

    floor = 0
    epoch = 0


class Journal(dict[str, tuple[str, bytes]]):
    """A stream: entry id -> (bridge, bytes), oldest first, and how many there ever were."""

    added = 0


class Audit(dict[str, bytes]):
    """A stream: entry id -> text, oldest first, and how many there ever were."""

    added = 0


Value = bytes | Ranks | Bridges | Journal | Audit


class MemoryRegistry:
    """`bridge.ports.Registry` without Redis; see there for what each method means.

    Attributes:
        now_ms: what Redis TIME would say, epoch ms; moved by whoever owns this registry.
        clock_ms: the registry clock at the last tick.
        resumed_ms: the registry clock at the end of the last pause.
        tick_ms: ``now_ms`` at the last tick; None before the first.
        organizations: organization -> relative key -> its value, by type; a record is bytes.
        owners: endpoint -> its owner.
        leader: who holds the lease, with which epoch, until which ``now_ms``.
        epoch: with which this bridge commits.
    """

    def __init__(self, *, bridge: str = "memory/0", now_ms: int = 1_700_000_000_000) -> None:
        self.bridge = bridge
        self.now_ms = now_ms
        self.clock_ms = 0
        self.resumed_ms = 0
        self.tick_ms: int | None = None
        self.organizations: dict[str, dict[str, Value]] = {}
        self.owners: dict[str, Owner] = {}
        self.leader = ("", 0, 0)
        self.epoch = 0
        self._facts: dict[str, str] = {}
        self._ends_ms: dict[tuple[str, str], int] = {}

    async def load(self, wants: Mapping[str, Want], owners: Collection[str] = ()) -> Loading:
        """Read the moment, the wants and the owners."""
        ahead_ms = 0 if self.tick_ms is None else min(max(self.now_ms - self.tick_ms, 0), CLOCK_AHEAD_MS)
        moment = Moment(self.now_ms, self.clock_ms + ahead_ms, self.resumed_ms)
        organizations = {name: self._loaded(name, want) for name, want in wants.items()}
        return Loading(moment, organizations, {endpoint: self.owners.get(endpoint) for endpoint in owners})

    async def commit(self, commit: Commit) -> CommitAnswer:
        """Apply one organization's changes at once, or say what forbids it."""
        values = self.organizations.setdefault(commit.organization, {})
        bridges = values.get("bridges", Bridges())
        if not isinstance(bridges, Bridges):
            return Corrupt("bridges")
        if bridges.epoch > self.epoch:
            raise LeaseLost("another bridge has taken over: nothing was written")
        token, entry = bridges.get(self.bridge, (None, None))
        if token == commit.token:
            return Committed(entry)
        refusal = next(_refusals(commit, values, bridges.floor), None)
        if refusal is None and not self.owners.keys().isdisjoint(commit.unclaimed):
            return Conflict("endpoint-owner")
        return refusal or Committed(self._apply(commit, values, bridges))

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Change endpoint owners, each on its expected owner; True where it took or stood already."""
        return [self._claimed(claim) for claim in claims]

    async def settle(self, entries: Mapping[str, Sequence[str]]) -> None:
        """Delete journal entries: organization -> entry ids."""
        for organization, ids in entries.items():
            journal = self.organizations.get(organization, {}).get("journal")
            if isinstance(journal, Journal):
                for entry in ids:
                    journal.pop(entry, None)

    async def keep(self, kept: Mapping[str, Kept], maximum_audit: int) -> list[str]:
        """Keep what followed from the broker's word."""
        spoilt: list[str] = []
        for organization, what in kept.items():
            values = self.organizations.setdefault(organization, {})
            if what.audit:
                audit = values.setdefault("audit", Audit())
                if isinstance(audit, Audit):
                    for text in what.audit:
                        audit.added += 1
                        audit[f"{self.now_ms}-{audit.added}"] = text
                    for entry in list(audit)[:-maximum_audit]:
                        del audit[entry]
                else:
                    spoilt.append(organization)
            for key, text in what.sent.items():
                values[key] = text
                self._ends_ms[organization, key] = self.now_ms + SENT_SECONDS * 1000

        return spoilt

    async def audit(self, organization: str, start: str, limit: int) -> list[tuple[str, bytes]]:
        """At most ``limit`` audit entries (id, text), oldest first."""
        first = (0, 0) if start == "-" else _place(start.removeprefix("("))
        if start.startswith("("):
            first = (first[0], first[1] + 1)
        return [entry for entry in self._audit(organization).items() if _place(entry[0]) >= first][:limit]

    async def trim_audit(self, maximum_age_ms: int) -> None:
        """Delete every organization's audit entries that are older."""
        for organization in self.organizations:
            audit = self._audit(organization)
            for entry in [entry for entry in audit if _place(entry)[0] < self.now_ms - maximum_age_ms]:
                del audit[entry]

    async def due(self, limit: int) -> list[tuple[str, str]]:
        """At most ``limit`` (organization, key) due by the clock of the last tick, the longest due first."""
        found = [
            (at_ms, organization, key)
            for organization, values in self.organizations.items()
            for key, at_ms in _ranks(values, "deadlines").items()
            if at_ms <= self.clock_ms
        ]
        return [(organization, key) for _, organization, key in sorted(found)[:limit]]

    async def tick(self, *, pause: bool = False) -> int:
        """Move the registry clock on and return it."""
        if self.tick_ms is not None and 0 <= self.now_ms - self.tick_ms <= CLOCK_AHEAD_MS:
            self.clock_ms += self.now_ms - self.tick_ms
            if pause:
                self.resumed_ms = self.clock_ms
        elif self.clock_ms:
            self.clock_ms += CLOCK_AHEAD_MS
            self.resumed_ms = self.clock_ms
        else:
            self.clock_ms = FIRST_CLOCK_MS
        self.tick_ms = self.now_ms
        return self.clock_ms

    async def walk(self, cursor: str) -> tuple[str, list[tuple[str, str]]]:
        """One step of a walk over the subjects' records."""
        found = [
            (organization, key)
            for organization, values in sorted(self.organizations.items())
            for key, value in sorted(values.items())
            if isinstance(value, bytes) and key.partition(":")[0] in KINDS
        ]
        start = int(cursor or 0)
        end = start + WALK_STEP
        return (str(end) if end < len(found) else "", found[start:end])

    async def journal(self) -> list[tuple[str, str, str, bytes]]:
        """Every journal entry: (organization, entry id, bridge, bytes)."""
        return [
            (organization, entry, bridge, batch)
            for organization, values in sorted(self.organizations.items())
            if isinstance(journal := values.get("journal"), Journal)
            for entry, (bridge, batch) in journal.items()
        ]

    async def hold(self, ttl_ms: int, *, instead_of: str = "", least_epoch: int = 0) -> Hold:
        """Take or renew the lease; 0 gives it back."""
        holder, epoch, until_ms = self.leader
        if not ttl_ms:
            if holder == self.bridge:
                self.leader = ("", epoch, 0)
            return Hold("", epoch, 0)
        if holder != self.bridge:
            if holder and until_ms > self.now_ms and holder != instead_of:
                return Hold(holder, epoch, until_ms - self.now_ms)
            epoch += 1
        epoch = max(epoch, least_epoch)
        self.leader = (self.bridge, epoch, self.now_ms + ttl_ms)
        return Hold(self.bridge, epoch, ttl_ms)

    async def fence(self, epoch: int) -> int:
        """Commit with this epoch, and let no lower one."""
        self.epoch = epoch
        found = [0]
        for values in self.organizations.values():
            bridges = values.get("bridges")
            if isinstance(bridges, Bridges):
                found.append(max(bridges.epoch, epoch))
                if bridges.epoch <= epoch:
                    bridges.epoch = epoch
                    for bridge in bridges.keys() - {self.bridge}:
                        del bridges[bridge]
        return max(found)

    async def recall(self, field: str) -> str | None:
        """A small fact kept across restarts, or None."""
        return self._facts.get(field)

    async def remember(self, field: str, value: str) -> None:
        """Keep a small fact across restarts."""
        self._facts[field] = value

    def _audit(self, organization: str) -> Audit:
        found = self.organizations.get(organization, {}).get("audit")
        return found if isinstance(found, Audit) else Audit()

    def _loaded(self, organization: str, want: Want) -> Loaded:
        values = self.organizations.get(organization, {})
        for key in want.keys:
            if self._ends_ms.get((organization, key), self.now_ms + 1) <= self.now_ms:
                del self._ends_ms[organization, key]
                values.pop(key, None)
        bridges = values.get("bridges")
        return Loaded(
            records={key: text if isinstance(text := values.get(key), bytes) else None for key in want.keys},
            pages={page: _page(values, page) for page in want.pages},
            floor=bridges.floor if isinstance(bridges, Bridges) else 0,
        )

    def _apply(self, commit: Commit, values: dict[str, Value], bridges: Bridges) -> str | None:
        for write in commit.writes:
            if write.text is None:
                values.pop(write.key, None)
            else:
                values[write.key] = write.text
        for key, at_ms in commit.deadlines.items():
            _rank(values, "deadlines", key, at_ms)
        for index, changes in commit.members.items():
            for member, present in changes.items():
                _rank(values, index, member, 0 if present else None)
        entry = None
        if commit.journal is not None:
            journal = values.setdefault("journal", Journal())
            assert isinstance(journal, Journal)
            journal.added += 1
            entry = f"{self.now_ms}-{journal.added}"
            journal[entry] = (self.bridge, commit.journal)
        bridges.floor = max(bridges.floor, commit.floor)
        bridges.epoch = self.epoch
        bridges[self.bridge] = (commit.token, entry)
        values["bridges"] = bridges
        return entry

    def _claimed(self, claim: Claim) -> bool:
        held = self.owners.get(claim.endpoint)
        if held not in (claim.expected, claim.owner):
            return False
        if claim.owner is None:
            self.owners.pop(claim.endpoint, None)
        else:
            self.owners[claim.endpoint] = claim.owner
        return True


def _refusals(commit: Commit, values: Mapping[str, Value], floor: int) -> Iterator[Conflict | Corrupt]:
    """What forbids the commit, in the order in which it is checked."""
    late = {write.key for write in commit.writes if not write.expected and write.text and _version(write.text) <= floor}
    for key, expected in [*((write.key, write.expected) for write in commit.writes), *commit.checks.items()]:
        text = values.get(key)
        if text is None:
            if expected or key in late:
                yield Conflict(key)
        elif not isinstance(text, bytes):
            yield Corrupt(key)
        elif not expected or not text.startswith(b"%d:" % expected):
            yield Conflict(key) if _RECORD.match(text) else Corrupt(key)
    touched: list[tuple[str, type[Ranks | Journal]]] = [("deadlines", Ranks)] if commit.deadlines else []
    touched += ((index, Ranks) for index in commit.members)
    if commit.journal is not None:
        touched.append(("journal", Journal))
    yield from (Corrupt(key) for key, kind in touched if not isinstance(values.get(key, kind()), kind))


def _place(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)


def _version(text: bytes) -> int:
    return int(text.partition(b":")[0])


def _ranks(values: Mapping[str, Value], key: str) -> Ranks:
    found = values.get(key)
    return found if isinstance(found, Ranks) else Ranks()


def _rank(values: dict[str, Value], key: str, member: str, score: int | None) -> None:
    ranks = values.setdefault(key, Ranks())
    assert isinstance(ranks, Ranks)
    if score is None:
        ranks.pop(member, None)
    else:
        ranks[member] = score


def _page(values: Mapping[str, Value], page: Page) -> list[str]:
    ranks, after = _ranks(values, page.members), page.after
    if after is None:
        return sorted(ranks, key=lambda member: (ranks[member], member))[: page.limit]
    return sorted(member for member in ranks if member > after)[: page.limit]
