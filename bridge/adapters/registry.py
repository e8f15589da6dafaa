"""The registry in Redis: one pipelined trip per load, a check (where one is needed) and a transaction per commit.

Keys of an organization share the hash tag ``{organization}``; every key is listed in the design, section 6.
A key of the wrong Redis type reads as absent or empty, and the commit that would touch it answers `Corrupt`.
"""

import ssl
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bridge.adapters.redis_connection import REMEDIES, RedisConnection, RequestTooLarge, Script, Unfit, reason
from bridge.adapters.redis_wire import Command, Refused
from bridge.adapters.transaction import UNNAMED, Transaction
from bridge.domain.ids import WATCHERS_KEY
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
from bridge.errors import ConfigError, LeaseLost, RegistryUnavailable

CHUNK = 1000  # keys in one command, so that no command holds Redis for long
WALK_STEP = 200  # keys of any kind that one step of a walk looks at
JOURNAL_CHUNK = 100  # journal entries in one answer; one may hold a whole batch's outputs
MAXIMUM_RACES = 10  # so often a commit is tried that another bridge's comes before
SCRIPTS = ("check", "claim", "tick", "lease", "fence", "audit")
LOOKED_AT = {"journal": b"stream", "deadlines": b"zset", WATCHERS_KEY: b"string"}
"""What most commits change beside "bridges", and a record that most read though it seldom is there -> its Redis type.

Each load tells what they are, so that most commits need no look of their own."""
CLOCK_AHEAD_MS = 2000  # how far a moment's clock runs on after the last tick; tick.lua knows it, too


class _Seen(NamedTuple):
    """What a load saw of an organization: its floor, and which of `LOOKED_AT` are not there."""

    floor: int
    absent: Collection[str]


class RedisRegistry:
    """`bridge.ports.Registry` on one Redis connection; see there for what each method means.

    A lost connection is opened again and asked again at once; a commit goes on asking until ``timeout_seconds`` have
    passed. What Redis refuses becomes `RegistryUnavailable`, naming the remedy.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        key_prefix: first part of every key.
        bridge: ``<name>/<instance>``, owner of batch tokens and journal entries.
        timeout_seconds: longest wait for one trip's answer.
        tls: makes a connection's context, for ``rediss://``; see `bridge.tls`.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        key_prefix: str = "eb",
        bridge: str,
        timeout_seconds: float = 5,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        scripts = [Script(Path(__file__).parent / "lua" / f"{name}.lua") for name in SCRIPTS]
        self._check, self._claim, self._tick, self._lease, self._fence, self._append = scripts
        self._redis = RedisConnection(url, timeout_seconds=timeout_seconds, scripts=scripts, tls=tls)
        self._prefix = key_prefix
        self._bridge = bridge
        self._epoch = 0
        self._window = self._window_watch = 0
        self._is_begun = False  # a load of this window has tried MULTI, and DISCARD with it, which ends any older watch
        self._seen: dict[str, _Seen] = {}  # in this window, of the organizations that may be committed to unchecked

    async def open(self) -> None:
        """Connect, check the server and load the scripts.

        Raises:
            RegistryUnavailable: it does not answer, or takes nothing now; a retry helps.
            ConfigError: the server is too old, may evict records or is part of a cluster. Should it become so later,
                every method raises RegistryUnavailable with the same words until it is mended.
        """
        try:
            await self._redis.open()
        except Unfit as error:
            raise ConfigError(str(error)) from None

    async def close(self) -> None:
        """End the connection. A later call would open it again."""
        await self._redis.close()

    async def load(self, wants: Mapping[str, Want], owners: Collection[str] = ()) -> Loading:
        """Read the moment, the wants and the owners in one trip; see `bridge.ports.Registry.load`."""
        # What follows a refused MULTI is done at once: before a commit is that alone, it is known whether it may be.
        begins = bool(wants) and not self._is_begun
        if begins:
            self._next_window()
        commands: list[Command] = [("MULTI",), ("DISCARD",)] if begins else []
        commands += [("TIME",), ("HMGET", self._global("clock"), "clock_ms", "tick_ms", "resumed_ms")]
        for organization, want in wants.items():
            prefix = self._of(organization)
            commands.append(("WATCH", prefix + "bridges", *(prefix + name for name in LOOKED_AT)))
            commands.append(("HMGET", prefix + "bridges", "floor", "epoch"))
            commands += (("TYPE", prefix + name) for name in LOOKED_AT)
            commands += (("MGET", *(prefix + key for key in keys)) for keys in _chunks(want.keys))
            commands += (_page(prefix, *page) for page in want.pages)
        endpoints = list(owners)
        commands += (("MGET", *map(self._owner, chunk)) for chunk in _chunks(endpoints))

        replies = iter((await self._ask(*commands, lenient=True))[2 * begins :])
        moment = self._moment(next(replies), next(replies))
        if self._redis.watch != self._window_watch:
            self._window_watch = self._redis.watch
            self._next_window()
        self._is_begun |= begins
        organizations = {
            organization: self._loaded(organization, want, replies) for organization, want in wants.items()
        }
        texts = [text for _ in _chunks(endpoints) for text in next(replies)]
        return Loading(moment, organizations, dict(zip(endpoints, map(_owner_of, texts), strict=True)), self._window)

    def _loaded(self, organization: str, want: Want, replies: Iterator[Any]) -> Loaded:
        next(replies)  # of the watch
        floor, epoch = next(replies) or (b"", b"")
        types = {name: next(replies) for name in LOOKED_AT}
        floor_ms = int(floor) if floor and floor.isdigit() else 0
        is_mine = epoch is not None and epoch.isdigit() and int(epoch) <= self._epoch
        is_whole = floor in (None, b"%d" % floor_ms) and all(
            found in (b"none", LOOKED_AT[name]) for name, found in types.items()
        )
        if self._is_begun and is_mine and is_whole:
            self._seen[organization] = _Seen(floor_ms, [name for name, found in types.items() if found == b"none"])
        records = {key: text for keys in _chunks(want.keys) for key, text in zip(keys, next(replies), strict=True)}
        pages: dict[Page, list[str]] = {page: [_text(member) for member in next(replies) or ()] for page in want.pages}
        return Loaded(records, pages, floor_ms)

    async def commit(self, commit: Commit) -> CommitAnswer:
        """Apply one organization's changes at once; see `bridge.ports.Registry.commit`.

        Two trips. The first watches what every commit changes and lets check.lua look at every version and type; the
        second makes the changes in one transaction, which Redis drops where anything watched has changed since. What
        was loaded under the same watch need not be looked at: the first try takes it to be as it was. Where that is all
        that the commit depends on, the transaction alone is tried first.
        """
        prefix = self._of(commit.organization)
        is_watched = commit.window == self._window and self._redis.watch == self._window_watch
        seen = self._seen.get(commit.organization) if is_watched else None
        absent = seen.absent if seen is not None else ()
        self._next_window()  # a transaction ends the watch, whatever becomes of it
        for _ in range(MAXIMUM_RACES):
            transaction = Transaction(commit, prefix, self._bridge, self._epoch, is_watched, absent)
            try:
                if is_watched and seen is not None and transaction.depends_on_nothing_else:
                    answer = await self._try_unchecked(commit, transaction.changes(seen.floor))
                else:
                    answer = await self._try(commit, transaction, is_watched=is_watched)
            except RequestTooLarge:
                return Corrupt("")
            if answer is not None:
                return answer
            is_watched = False
        return Conflict("bridges")

    def _next_window(self) -> None:
        self._window += 1
        self._is_begun = False
        self._seen.clear()

    async def _try_unchecked(self, commit: Commit, changes: Sequence[Command]) -> CommitAnswer | None:
        """Try to commit by a transaction alone; None where something watched has changed, or nobody knows.

        Nothing holds it back but the watch, and where the right to MULTI was taken since the load, not even that.
        """
        known = ("SADD", self._global("organizations"), commit.organization)
        replies = await self._redis.ask_under(self._window_watch, known, ("MULTI",), *changes)
        return None if replies is None else _committed(commit, replies)

    async def _try(self, commit: Commit, transaction: Transaction, *, is_watched: bool) -> CommitAnswer | None:
        """Try to commit; None where another bridge's commit came between, or the watch is lost."""
        unclaimed = list(map(self._owner, commit.unclaimed))
        check: list[Command] = [
            *((("WATCH", *unclaimed), ("EXISTS", *unclaimed)) if unclaimed else ()),
            ("SADD", self._global("organizations"), commit.organization),
            *transaction.check(self._check),
        ]
        watch = self._redis.watch

        def is_claimed(replies: list[Any]) -> bool:
            return bool(unclaimed) and replies[1] != 0

        def then(replies: list[Any]) -> list[Command]:
            *_, answer, begun = replies
            is_refused = any(isinstance(reply, Refused) for reply in replies)
            is_lost = is_watched and self._redis.watch != watch
            if not is_refused and not is_lost and answer[0] == b"free" and not is_claimed(replies):
                return transaction.changes(floor=answer[1])
            return [("DISCARD",)] if begun == b"OK" else []

        replies = await self._redis.ask_then(check, then)
        if _is_final(replies):
            return Corrupt("")
        status, detail = _granted(replies)[len(check) - 2]
        if status == b"fenced":
            raise LeaseLost("another bridge has taken over: nothing was written")
        if status == b"committed":
            return Committed(await self._entry_of(commit) if detail == UNNAMED.encode() else None)
        if status != b"free":
            return (Conflict if status == b"conflict" else Corrupt)(transaction.key(detail))
        if is_claimed(replies):
            return Conflict("endpoint-owner")
        return _committed(commit, replies)

    async def _entry_of(self, commit: Commit) -> str | None:
        """The journal entry of a commit whose answer was lost: the newest of its token, None where it is settled."""
        mine = [b"bridge", self._bridge.encode(), b"token", commit.token.encode()]
        before = "+"
        while before:
            command = ("XREVRANGE", self._of(commit.organization) + "journal", before, "-", "COUNT", JOURNAL_CHUNK)
            [reply] = await self._ask(command)
            for entry, fields in reply:
                if fields[:4] == mine:
                    return _text(entry)
            before = f"({_text(reply[-1][0])}" if reply else ""
        return None

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Change endpoint owners, each on its expected owner; True where it took or stood already."""
        commands = (
            self._claim.call([self._owner(endpoint)], [_owner_text(expected), _owner_text(owner)])
            for endpoint, expected, owner in claims
        )
        return [reply == 1 for reply in await self._ask(*commands, lenient=True)]

    async def settle(self, entries: Mapping[str, Sequence[str]]) -> None:
        """Delete journal entries: organization -> entry ids."""
        commands = (
            ("XDEL", self._of(organization) + "journal", *chunk)
            for organization, ids in entries.items()
            for chunk in _chunks(ids)
        )
        await self._ask(*commands, lenient=True)

    async def keep(self, kept: Mapping[str, Kept], maximum_audit: int) -> list[str]:
        """Keep what followed from the broker's word; see `bridge.ports.Registry.keep`."""
        audited = {organization: what.audit for organization, what in kept.items() if what.audit}
        commands = [
            self._append.call([self._of(organization) + "audit"], [maximum_audit, *entries])
            for organization, entries in audited.items()
        ]
        commands += (
            ("SET", self._of(organization) + key, text, "EX", SENT_SECONDS)
            for organization, what in kept.items()
            for key, text in what.sent.items()
        )
        replies = await self._ask(*commands)
        return [organization for organization, length in zip(audited, replies, strict=False) if length < 0]

    async def audit(self, organization: str, start: str, limit: int) -> list[tuple[str, bytes]]:
        """At most ``limit`` audit entries (id, text), oldest first; see `bridge.ports.Registry.audit`."""
        command = ("XRANGE", self._of(organization) + "audit", start, "+", "COUNT", limit)
        [reply] = await self._ask(command, lenient=True)
        return [(entry.decode(), fields[1]) for entry, fields in reply or ()]

    async def trim_audit(self, maximum_age_ms: int) -> None:
        """Delete every organization's audit entries that are older by Redis TIME."""
        (seconds, _), names = await self._ask(("TIME",), ("SMEMBERS", self._global("organizations")))
        oldest_ms = int(seconds) * 1000 - maximum_age_ms
        keys = (self._of(_text(name)) + "audit" for name in names)
        await self._ask(*(("XTRIM", key, "MINID", "=", oldest_ms) for key in keys), lenient=True)

    async def due(self, limit: int) -> list[tuple[str, str]]:
        """At most ``limit`` (organization, key) due by the clock of the last tick, the longest due first."""
        clock, names = await self._ask(
            ("HGET", self._global("clock"), "clock_ms"), ("SMEMBERS", self._global("organizations"))
        )
        organizations = [_text(name) for name in names]
        commands = (
            ("ZRANGEBYSCORE", self._of(name) + "deadlines", "-inf", clock or 0, "WITHSCORES", "LIMIT", 0, limit)
            for name in organizations
        )
        found = [
            (float(score), organization, _text(key))
            for organization, reply in zip(organizations, await self._ask(*commands, lenient=True), strict=True)
            for key, score in zip((reply or ())[::2], (reply or ())[1::2], strict=True)
        ]
        return [(organization, key) for _, organization, key in sorted(found)[:limit]]

    async def tick(self, *, pause: bool = False) -> int:
        """Move the registry clock on and return it; see `bridge.ports.Registry.tick`."""
        [clock_ms] = await self._ask(self._tick.call([self._global("clock")], [int(pause)]))
        return int(clock_ms)

    async def walk(self, cursor: str) -> tuple[str, list[tuple[str, str]]]:
        """One step of a walk over the subjects' records; see `bridge.ports.Registry.walk`."""
        pattern = f"{self._prefix}:{{*}}:*"
        [[following, names]] = await self._ask(
            ("SCAN", cursor or 0, "MATCH", pattern, "COUNT", WALK_STEP, "TYPE", "string")
        )
        found = []
        for name in map(_text, names):
            organization, _, key = name.removeprefix(f"{self._prefix}:{{").partition("}:")
            if key.partition(":")[0] in KINDS:
                found.append((organization, key))
        return "" if following == b"0" else following.decode(), found

    async def journal(self) -> list[tuple[str, str, str, bytes]]:
        """Every journal entry: (organization, entry id, bridge, bytes)."""
        [names] = await self._ask(("SMEMBERS", self._global("organizations")))
        entries: list[tuple[str, str, str, bytes]] = []
        for organization in sorted(map(_text, names)):
            after = "-"
            while after:
                command = ("XRANGE", self._of(organization) + "journal", after, "+", "COUNT", JOURNAL_CHUNK)
                [reply] = await self._ask(command, lenient=True)
                for entry, fields in reply or ():
                    found = dict(zip(fields[::2], fields[1::2], strict=True))
                    bridge, batch = found.get(b"bridge", b""), found.get(b"batch", b"")
                    entries.append((organization, entry.decode(), _text(bridge), batch))
                after = f"({entries[-1][1]}" if reply else ""
        return entries

    async def hold(self, ttl_ms: int, *, instead_of: str = "", least_epoch: int = 0) -> Hold:
        """Take or renew the lease; see `bridge.ports.Registry.hold`."""
        arguments = (self._bridge, ttl_ms, instead_of, least_epoch)
        [(bridge, epoch, left_ms)] = await self._ask(self._lease.call([self._global("leader")], arguments))
        return Hold(_text(bridge), int(epoch), int(left_ms))

    async def fence(self, epoch: int) -> int:
        """Shut lower epochs out of every organization; see `bridge.ports.Registry.fence`."""
        self._epoch = epoch
        [names] = await self._ask(("SMEMBERS", self._global("organizations")))
        arguments = (epoch, f"token:{self._bridge}")
        commands = (self._fence.call([self._of(_text(name)) + "bridges"], arguments) for name in names)
        return max(map(int, await self._ask(*commands)), default=0)

    async def recall(self, field: str) -> str | None:
        """A small fact kept across restarts, or None."""
        [value] = await self._ask(("HGET", self._global("facts"), field))
        return None if value is None else _text(value)

    async def remember(self, field: str, value: str) -> None:
        """Keep a small fact across restarts."""
        await self._ask(("HSET", self._global("facts"), field, value))

    def _of(self, organization: str) -> str:
        return f"{self._prefix}:{{{organization}}}:"

    def _global(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def _owner(self, endpoint: str) -> str:
        return f"{self._prefix}:endpoint-owner:{endpoint.translate(_ENCODED)}"

    def _moment(self, time: Any, clock: Any) -> Moment:
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        try:
            clock_ms, tick_ms, resumed_ms = (int(value or 0) for value in clock)
        except (TypeError, ValueError):
            raise RegistryUnavailable(f"{self._global('clock')} is no clock: {REMEDIES['WRONGTYPE']}") from None
        if tick_ms:
            clock_ms += min(max(now_ms - tick_ms, 0), CLOCK_AHEAD_MS)
        return Moment(now_ms, clock_ms, resumed_ms)

    async def _ask(self, *commands: Command, lenient: bool = False) -> list[Any]:
        return _granted(await self._redis.ask(*commands), lenient=lenient)


_ENCODED = str.maketrans({character: f"%{ord(character):02X}" for character in "%:{}"})
_owner_decoder = msgspec.json.Decoder(Owner)


_DROPPED = "EXECABORT"  # for a reason that came between the last change and EXEC, and passes


def _is_final(replies: list[Any]) -> bool:
    """Whether Redis is there and will never take this commit: it is too large, or a script has an error."""
    refusal = next((reply for reply in replies if isinstance(reply, Refused)), None)
    return refusal is not None and refusal.code not in REMEDIES and refusal.code != _DROPPED


def _committed(commit: Commit, replies: list[Any]) -> CommitAnswer | None:
    """Return what a transaction that ends with ``replies`` came to; None where something watched had changed.

    Raises:
        RegistryUnavailable: Redis refused it for now.
    """
    if _is_final(replies):
        return Corrupt("")
    done = _granted(replies)[-1]
    if not isinstance(done, list):
        return None
    _granted(done)
    return Committed(None if commit.journal is None else done[-2].decode())


def _granted(replies: list[Any], *, lenient: bool = False) -> list[Any]:
    """Return the replies of commands that must not be refused; ``lenient``: a key of the wrong type answers None."""
    for number, reply in enumerate(replies):
        if isinstance(reply, Refused):
            if not lenient or reply.code != "WRONGTYPE":
                raise RegistryUnavailable(reason(reply)) from reply
            replies[number] = None
    return replies


def _page(prefix: str, members: str, after: str | None, limit: int) -> Command:
    if after is None:
        return ("ZRANGEBYSCORE", prefix + members, "-inf", "+inf", "LIMIT", 0, limit)
    return ("ZRANGEBYLEX", prefix + members, f"({after}" if after else "-", "+", "LIMIT", 0, limit)


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _owner_of(text: bytes | None) -> Owner | None:
    try:
        return None if text is None else _owner_decoder.decode(text)
    except msgspec.DecodeError:
        return None  # not ours: a claim on it does not take


def _owner_text(owner: Owner | None) -> bytes:
    return b"" if owner is None else msgspec.json.encode(owner)


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")  # what others wrote under our keys must not stop a sweep
