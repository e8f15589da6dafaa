"""The registry in Redis: one connection, one pipelined trip per load, one script per commit.

Redis (>= 7.0) or Valkey (>= 7.2) through redis-py's connection (URLs, TLS, authentication, RESP) and hiredis' packer.
Keys of an organization share the hash tag ``{organization}``; every key is listed in the design, section 6.
A key of the wrong Redis type reads as absent or empty, and the commit that would touch it answers `Corrupt`.
"""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hiredis
import msgspec
from redis.asyncio import ConnectionPool
from redis.exceptions import NoScriptError, RedisError, ResponseError

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

_Command = tuple[str | int | bytes, ...]
_pack = cast("Callable[[_Command], bytes]", hiredis.pack_command)

CHUNK = 1000  # keys in one command, so that no command holds Redis for long
WALK_STEP = 200  # keys of any kind that one step of a walk looks at
JOURNAL_CHUNK = 100  # journal entries in one answer; one may hold a whole batch's outputs
CLOCK_AHEAD_MS = 2000  # how far a moment's clock runs on after the last tick; tick.lua knows it, too
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.5  # between attempts on a lost connection
OLDEST_SERVER = (7, 0)
CLIENT_NAME = "endpoint-bridge"  # in CLIENT LIST

REMEDIES = {
    "LOADING": "it is loading its data: wait",
    "READONLY": "it is a replica: point redis.url at the primary",
    "OOM": "its memory is full: raise its maxmemory or delete what else it stores",
    "BUSY": "another client's script runs too long: SCRIPT KILL ends it",
    "MISCONF": "it cannot save to disk: free its disk or mend its rights",
    "CLUSTERDOWN": "its cluster is down: see CLUSTER INFO",
    "NOREPLICAS": "too few replicas follow it: bring them back, or lower its min-replicas-to-write",
    "MASTERDOWN": "its link to the primary is down: point redis.url at the primary",
    "MOVED": "the key lives on another cluster node: clusters are not supported",
    "NOAUTH": "it asks for a password: set it in redis.url",
    "WRONGPASS": "user or password are wrong: correct redis.url",
    "NOPERM": "this user lacks rights: grant it the commands, scripts and keys of the key prefix",
    "WRONGTYPE": "another program's data may lie under the same key prefix: set redis.key_prefix",
}


class RedisRegistry:
    """`bridge.ports.Registry` on one Redis connection; see there for what each method means.

    One trip is on its way at a time. A lost connection is opened again and asked again at once; a commit goes on asking
    until ``timeout_seconds`` have passed. What Redis refuses becomes `RegistryUnavailable`, naming the remedy.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        key_prefix: first part of every key.
        bridge: ``<name>/<instance>``, owner of batch tokens and journal entries.
        timeout_seconds: longest wait for one method's answer.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(self, url: str, *, key_prefix: str = "eb", bridge: str, timeout_seconds: float = 5) -> None:
        try:
            pool: Any = ConnectionPool.from_url(
                url, protocol=2, socket_timeout=None, socket_connect_timeout=timeout_seconds, client_name=CLIENT_NAME
            )
            self._connection = pool.make_connection()
        except (ValueError, TypeError):  # their text may quote a part of the password
            raise ConfigError(
                "redis.url cannot be read; the form is redis://user:password@host:port/database"
            ) from None
        self._prefix = key_prefix
        self._bridge = bridge
        self._timeout_seconds = timeout_seconds
        self._lock = asyncio.Lock()
        self._epoch = 0
        self._commit, self._claim, self._tick = (_Script(name) for name in ("commit", "claim", "tick"))
        self._lease, self._fence = _Script("lease"), _Script("fence")

    async def open(self) -> None:
        """Connect, check the server and register the scripts.

        Raises:
            RegistryUnavailable: it does not answer; a retry helps.
            ConfigError: the server is too old, or may evict records.
        """
        _, info = await self._ask(("PING",), ("INFO",))
        facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        version = facts.get("redis_version", "0.0")
        if tuple(map(int, version.split(".")[:2])) < OLDEST_SERVER:
            raise ConfigError(f"redis.url: the server is version {version}; use Redis 7.0, Valkey 7.2 or later")
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigError(
                f"redis.url: the server's maxmemory-policy is {policy}, so it may delete records when memory is short; "
                "set maxmemory-policy noeviction in its configuration"
            )
        await self._ask(*self._scripts())

    async def close(self) -> None:
        """End the connection. A later call would open it again."""
        await self._connection.disconnect(nowait=True)

    async def load(self, wants: Mapping[str, Want], owners: Collection[str] = ()) -> Loading:
        """Read the moment, the wants and the owners in one trip; see `bridge.ports.Registry.load`."""
        commands: list[_Command] = [("TIME",), ("HMGET", self._global("clock"), "clock_ms", "tick_ms", "resumed_ms")]
        for organization, want in wants.items():
            prefix = self._of(organization)
            commands.append(("HGET", prefix + "bridges", "floor"))
            commands += (("MGET", *(prefix + key for key in keys)) for keys in _chunks(want.keys))
            for members, after, limit in want.pages:
                start = f"({after}" if after else "-"
                commands.append(("ZRANGEBYLEX", prefix + members, start, "+", "LIMIT", 0, limit))
        endpoints = list(owners)
        commands += (("MGET", *map(self._owner, chunk)) for chunk in _chunks(endpoints))

        replies = iter(await self._ask(*commands, lenient=True))
        moment = self._moment(next(replies), next(replies))
        organizations = {organization: _loaded(want, replies) for organization, want in wants.items()}
        texts = [text for _ in _chunks(endpoints) for text in next(replies)]
        return Loading(moment, organizations, dict(zip(endpoints, map(_owner_of, texts), strict=True)))

    async def commit(self, commit: Commit) -> CommitAnswer:
        """Apply one organization's changes at once; see `bridge.ports.Registry.commit`."""
        prefix = self._of(commit.organization)
        keys, arguments = self._arguments(commit)
        try:
            _, (status, detail) = await self._ask(
                ("SADD", self._global("organizations"), commit.organization),
                self._commit.call([prefix + key for key in keys], arguments),
                patient=True,
            )
        except RegistryUnavailable as error:
            if isinstance(error.__cause__, ResponseError) and _code(error.__cause__) not in REMEDIES:
                return Corrupt("")  # Redis is there and will never take this commit: too large, or a script's error
            raise
        if status == b"fenced":
            raise LeaseLost("another bridge has taken over: nothing was written")
        if status == b"committed":
            return Committed(None if detail == b"-" else detail.decode())
        return (Conflict if status == b"conflict" else Corrupt)(keys[detail - 1])

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

    async def keep(self, kept: Mapping[str, Kept]) -> None:
        """Keep what followed from the broker's word; see `bridge.ports.Registry.keep`."""
        commands = (
            ("SET", self._of(organization) + key, text, "EX", SENT_SECONDS)
            for organization, what in kept.items()
            for key, text in what.sent.items()
        )
        await self._ask(*commands)

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

    async def tick(self) -> int:
        """Move the registry clock on and return it; see `bridge.ports.Registry.tick`."""
        [clock_ms] = await self._ask(self._tick.call([self._global("clock")], []))
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

    def _scripts(self) -> list[_Command]:
        scripts = (self._commit, self._claim, self._tick, self._lease, self._fence)
        return [("SCRIPT", "LOAD", script.text) for script in scripts]

    def _arguments(self, commit: Commit) -> tuple[list[str], list[str | int | bytes]]:
        """KEYS (relative) and ARGV of commit.lua."""
        writes, checks, members, deadlines = commit.writes, commit.checks, commit.members, commit.deadlines
        keys = ["bridges", "journal", "deadlines", *(write[0] for write in writes), *checks, *members]
        due: list[str | int] = []
        undue: list[str] = []
        for key, at_ms in deadlines.items():
            if at_ms is None:
                undue.append(key)
            else:
                due += (at_ms, key)
        journal = [] if commit.journal is None else [commit.journal]
        arguments: list[str | int | bytes] = [commit.token, f"token:{self._bridge}", self._bridge, commit.floor]
        arguments += (len(journal), len(writes), len(checks), len(due) // 2, len(undue), len(members), self._epoch)
        arguments += [f"{expected}:" if expected else "" for _, expected, _ in writes]
        arguments += [f"{expected}:" if expected else "" for expected in checks.values()]
        arguments += [text or "" for _, _, text in writes]
        arguments += due
        arguments += undue
        for changes in members.values():
            added = [member for member, present in changes.items() if present]
            removed = [member for member, present in changes.items() if not present]
            arguments += (len(added), len(removed))
            for member in added:
                arguments += ("0", member)
            arguments += removed
        arguments += journal
        return keys, arguments

    def _moment(self, time: Any, clock: Any) -> Moment:
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        try:
            clock_ms, tick_ms, resumed_ms = (int(value or 0) for value in clock)
        except (TypeError, ValueError):
            raise RegistryUnavailable(f"{self._global('clock')} is no clock: {REMEDIES['WRONGTYPE']}") from None
        if tick_ms:
            clock_ms += min(max(now_ms - tick_ms, 0), CLOCK_AHEAD_MS)
        return Moment(now_ms, clock_ms, resumed_ms)

    async def _ask(self, *commands: _Command, lenient: bool = False, patient: bool = False) -> list[Any]:
        """Send commands in one trip, again on a new connection where that was lost, and return their replies.

        All commands are safe to repeat. ``lenient``: a key of the wrong type answers None. ``patient``: goes on until
        the timeout, else a second failure is enough.
        """
        if not commands:
            return []
        async with self._lock:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + self._timeout_seconds
            pause_seconds = FIRST_PAUSE_SECONDS
            failures = 0
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        replies = await self._trip(commands)
                    break
                except (RedisError, OSError) as error:
                    failures += 1
                    await self._connection.disconnect(nowait=True)
                    if loop.time() + pause_seconds > deadline or (failures > 1 and not patient):
                        raise RegistryUnavailable(_reason(error)) from error
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        for number, reply in enumerate(replies):
            if isinstance(reply, RedisError):
                if not lenient or _code(reply) != "WRONGTYPE":
                    raise RegistryUnavailable(_reason(reply)) from reply
                replies[number] = None
        return replies

    async def _trip(self, commands: Sequence[_Command]) -> list[Any]:
        """Send once and read every reply, refusals among them; scripts that Redis forgot are loaded first."""
        replies = await self._exchange(commands)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await self._exchange(self._scripts())
            replies = await self._exchange(commands)
        return replies

    async def _exchange(self, commands: Sequence[_Command]) -> list[Any]:
        connection = self._connection
        await connection.send_packed_command([_pack(command) for command in commands], check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as refusal:
                replies.append(refusal)
        return replies


_ENCODED = str.maketrans({character: f"%{ord(character):02X}" for character in "%:{}"})
_owner_decoder = msgspec.json.Decoder(Owner)


class _Script:
    """One file of ``lua/``, called by its SHA-1."""

    def __init__(self, name: str) -> None:
        self.text = (Path(__file__).parent / "lua" / f"{name}.lua").read_bytes()
        self._sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], arguments: Iterable[str | int | bytes]) -> _Command:
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _loaded(want: Want, replies: Iterator[Any]) -> Loaded:
    floor = next(replies)
    records = {key: text for keys in _chunks(want.keys) for key, text in zip(keys, next(replies), strict=True)}
    pages: dict[Page, list[str]] = {page: [_text(member) for member in next(replies) or ()] for page in want.pages}
    return Loaded(records, pages, int(floor) if floor and floor.isdigit() else 0)


def _owner_of(text: bytes | None) -> Owner | None:
    try:
        return None if text is None else _owner_decoder.decode(text)
    except msgspec.DecodeError:
        return None  # not ours: a claim on it does not take


def _owner_text(owner: Owner | None) -> bytes:
    return b"" if owner is None else msgspec.json.encode(owner)


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")  # what others wrote under our keys must not stop a sweep


def _code(error: Exception) -> str:
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def _reason(error: Exception) -> str:
    remedy = REMEDIES.get(_code(error))
    if remedy:
        return f"Redis refused ({_code(error)}): {remedy}"
    if isinstance(error, ResponseError):
        return f"Redis refused: {error}"
    return f"Redis does not answer: {str(error) or 'no answer in time'}; is it running where redis.url points?"
