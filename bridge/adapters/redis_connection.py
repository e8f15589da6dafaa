"""The connection to Redis: commands go out in one trip, and once more on a new connection where that was lost.

Redis (>= 7.0) or Valkey (>= 7.2). Every new connection is checked before it is used: a server that may lose records, or
that takes none, is left alone.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bridge.adapters.redis_wire import Command, Refused, Wire, open_wire, pack, read_address
from bridge.errors import ConfigError, RegistryUnavailable

Then = Callable[[list[Any]], Sequence[Command]]
_DISCARD = pack(("DISCARD",))
_INFO = pack(("INFO",))

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.5  # between attempts on a lost connection
SLOWEST_BYTES_PER_SECOND = 4 * 1024 * 1024  # a large commit may take longer than the timeout by its size over this
ALWAYS_TAKEN_BYTES = 1024 * 1024  # the lowest that proto-max-bulk-len and client-query-buffer-limit can be set to
MAXIMUM_CUTS = 3  # so often Redis may end the connection over one larger request before that is taken for its answer
OLDEST_SERVER = (7, 0)
_ARGUMENTS = ", with args beginning with"  # of a command that is renamed, for example: here the password would follow

REMEDIES = {
    "LOADING": "it is loading its data: wait",
    "READONLY": "it is a replica: point redis.url at the primary, or promote it",
    "OOM": "its memory is full: raise its maxmemory or delete what else it stores",
    "BUSY": "another client's script runs too long: SCRIPT KILL ends it",
    "MISCONF": "it cannot save to disk: free its disk or mend its rights",
    "CLUSTERDOWN": "its cluster is down: see CLUSTER INFO",
    "NOREPLICAS": "too few replicas follow it: bring them back, or lower its min-replicas-to-write",
    "MASTERDOWN": "its link to the primary is down: point redis.url at the primary",
    "MOVED": "the key lives on another cluster node: clusters are not supported",
    "NOAUTH": "it asks for a password: set it in redis.url",
    "WRONGPASS": "user or password are wrong: correct redis.url",
    "NOPERM": "this user lacks rights: docs/operations.md has the ACL SETUSER line that suffices",
    "NOSCRIPT": "another client keeps flushing its scripts: let that use a server of its own",
    "WRONGTYPE": "another program's data may lie under the same key prefix: set redis.key_prefix",
}


class Unfit(RegistryUnavailable):
    """Redis answers, and must not be used as it is configured; the message says what to change."""


class RequestTooLarge(RegistryUnavailable):
    """Redis ends the connection whenever this request comes, and takes others: it is beyond the limits set there."""


class Script:
    """One Lua file, called by its SHA-1."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_bytes()
        self._sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], arguments: Iterable[str | int | bytes]) -> Command:
        """Return the command that runs it."""
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)


class RedisConnection:
    """One connection with one trip on its way at a time.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout_seconds: longest wait for one trip, trips before it not counted; large requests have more.
        scripts: loaded where the server does not know them.
        tls: makes each connection's context, for ``rediss://``; raises ConfigError where a file cannot be used. None:
            the authorities of the system are trusted and no certificate is shown.

    Attributes:
        watch: number of the watch that may stand. It rises where one was lost on the way: with each connection that is
            opened, and where scripts were loaded again, which drops a transaction that had begun.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        scripts: Sequence[Script],
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        try:
            self._address = read_address(url)
        except ValueError:  # its text may quote a part of the password
            raise ConfigError(
                "redis.url cannot be read; the form is redis://user:password@host:port/database"
            ) from None
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._loads = [pack(("SCRIPT", "LOAD", script.text)) for script in scripts]
        self._lock = asyncio.Lock()
        self._wire: Wire | None = None
        self.watch = 0

    async def open(self) -> None:
        """Connect, check the server and load the scripts.

        Raises:
            RegistryUnavailable: it does not answer, or takes nothing now; a retry helps.
            Unfit: it is too old, may evict records or is part of a cluster; a TLS file cannot be used.
        """
        for reply in await self._send(self._loads):
            if isinstance(reply, Refused):
                raise RegistryUnavailable(reason(reply)) from reply

    async def close(self) -> None:
        """End the connection. A later request would open it again."""
        self._end()

    async def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one trip and return their replies; a refusal is a reply, too (`Refused`).

        All commands must be safe to repeat: they go out again on a new connection where the first was lost. A second
        failure is enough.

        Raises:
            RegistryUnavailable: no answer, or a server that cannot be used now (`Unfit`); names the remedy.
        """
        return await self._send([pack(command) for command in commands])

    async def ask_then(self, commands: Sequence[Command], then: Then) -> list[Any]:
        """Send commands in one trip, and what ``then`` makes of their replies in a second one, on the same connection.

        Both go out again until the timeout, see `ask`. Where something of the second is refused the connection ends,
        and with it any transaction that stands open.

        Args:
            commands: what to send.
            then: what to send with nothing in between, from the replies; nothing ends it.

        Returns:
            The replies of all that was sent.

        Raises:
            RegistryUnavailable: see `ask`.
            RequestTooLarge: the server's limits forbid it.
        """
        return await self._send([pack(command) for command in commands], then)

    async def ask_under(self, watch: int, *commands: Command) -> list[Any] | None:
        """Send commands in one trip, once, where the watch of that number still stands.

        Where something is refused the connection ends, and with it any transaction that stands open.

        Returns:
            The replies; None where it stands no more, or was lost on the way: nobody knows then what became of them.

        Raises:
            RegistryUnavailable: no answer in time; nobody knows either.
        """
        async with self._lock:
            wire = self._wire
            if wire is None or not wire.is_open or watch != self.watch:
                return None
            packed = [pack(command) for command in commands]
            size = sum(map(len, packed))
            deadline = asyncio.get_running_loop().time() + self._timeout_seconds + size / SLOWEST_BYTES_PER_SECOND
            try:
                replies = await wire.exchange(packed, deadline)
            except TimeoutError as error:
                raise RegistryUnavailable(reason(error, is_tls=self._address.is_tls)) from error
            except (Refused, OSError):
                return None
            if any(isinstance(reply, Refused) for reply in replies):
                self._end()
            return replies

    async def _send(self, packed: list[bytes], then: Then | None = None) -> list[Any]:
        if not packed:
            return []
        async with self._lock:
            loop = asyncio.get_running_loop()
            size = sum(map(len, packed))
            deadline = loop.time() + self._timeout_seconds + size / SLOWEST_BYTES_PER_SECOND
            pause_seconds = FIRST_PAUSE_SECONDS
            failures = cuts = 0
            while True:
                is_connected = False
                try:
                    wire = await self._connected(deadline)
                    is_connected = True
                    replies = await self._trip(wire, packed, deadline)
                    following: list[bytes] = []
                    if then is not None and wire.is_open:
                        following = [pack(command) for command in then(replies)]
                    if following:
                        size = sum(map(len, following))
                        replies += await self._trip(wire, following, deadline + size / SLOWEST_BYTES_PER_SECOND)
                        if any(isinstance(reply, Refused) for reply in replies):
                            self._end()
                except RegistryUnavailable:
                    self._end()
                    raise
                except (Refused, OSError) as error:
                    failures += 1
                    cuts += is_connected and not isinstance(error, TimeoutError | Refused)
                    self._end()
                    if cuts == MAXIMUM_CUTS and size > ALWAYS_TAKEN_BYTES:
                        raise RequestTooLarge(str(error)) from error
                    if loop.time() + pause_seconds > deadline or (failures > 1 and then is None):
                        raise RegistryUnavailable(reason(error, is_tls=self._address.is_tls)) from error
                else:
                    return replies
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    async def _connected(self, deadline: float) -> Wire:
        if self._wire is not None and self._wire.is_open:
            return self._wire
        context = None
        if self._address.is_tls:
            try:
                context = self._tls() if self._tls is not None else ssl.create_default_context()
            except ConfigError as error:
                raise Unfit(str(error)) from None
        self.watch += 1
        self._wire = wire = await open_wire(self._address, context, deadline)
        [info] = await wire.exchange([_INFO], deadline)
        if isinstance(info, Refused):
            raise RegistryUnavailable(reason(info)) from info
        _check(dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line))
        return wire

    async def _trip(self, wire: Wire, packed: list[bytes], deadline: float) -> list[Any]:
        """Send once and read every reply; scripts that the server forgot go before a second time."""
        replies = await wire.exchange(packed, deadline)
        refusals = _refusals(replies)
        if "NOSCRIPT" in refusals:
            first = [_DISCARD, *self._loads]  # what stood after the script may have begun a transaction
            self.watch += 1
            replies = (await wire.exchange(first + packed, deadline))[len(first) :]
            refusals = _refusals(replies)
        if "LOADING" in refusals:
            raise refusals["LOADING"]  # it will be over soon
        if "READONLY" in refusals:
            self._end()  # demoted: its name may lead to the new primary by now
        return replies

    def _end(self) -> None:
        if self._wire is not None:
            self._wire.end(ConnectionAbortedError("the bridge closed the connection"))


def _check(facts: dict[str, str]) -> None:
    """Raise what forbids the use of a server with these facts (INFO)."""
    version = facts.get("redis_version", "0.0")
    if tuple(map(int, version.split(".")[:2])) < OLDEST_SERVER:
        raise Unfit(f"redis.url: the server is version {version}; use Redis 7.0, Valkey 7.2 or later")
    mode = facts.get("redis_mode") or facts.get("server_mode", "standalone")  # the second is Valkey's own word
    if mode != "standalone":
        raise Unfit(
            f"redis.url: the server runs as {mode}, which is not supported; "
            "use a single server, with replicas where it must survive its host"
        )
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Unfit(
            f"redis.url: the server's maxmemory-policy is {policy}, so it may delete records when memory is short; "
            "set maxmemory-policy noeviction in its configuration"
        )
    if facts.get("role", "master") != "master":
        primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
        raise RegistryUnavailable(f"Redis is no primary, it follows {primary}: {REMEDIES['READONLY']}")


def _refusals(replies: list[Any]) -> dict[str, Refused]:
    return {reply.code: reply for reply in replies if isinstance(reply, Refused)}


def reason(error: Exception, *, is_tls: bool = False) -> str:
    """Return what happened and what to do about it, for the log."""
    if isinstance(error, Refused):
        remedy = REMEDIES.get(error.code)
        words = str(error).removeprefix("ERR ").partition(_ARGUMENTS)[0]
        return f"Redis refused ({error.code}): {remedy}" if remedy else f"Redis refused: {words}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"Redis shows a certificate that cannot be trusted ({error.verify_message}): set redis.ca_file to that of "
            "the authority that signed it, and the host in redis.url to a name that stands in it"
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"TLS with Redis failed ({error.reason}): does the port in redis.url speak TLS, and does the server "
            "ask for another redis.certificate_file?"
        )
    doubt = ", does that port speak TLS, and does it ask for redis.certificate_file" if is_tls else ""
    return f"Redis does not answer: {str(error) or 'no answer in time'}; is it running where redis.url points{doubt}?"
