"""The connection to Redis: commands go out in one trip, and once more on a new connection where that was lost.

Redis (>= 7.0) or Valkey (>= 7.2) through redis-py's connection (URLs, TLS, authentication, RESP) and hiredis' packer.
Every new connection is checked before it is used: a server that may lose records, or that takes none, is left alone.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import hiredis
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from bridge.errors import ConfigError, RegistryUnavailable

Command = tuple[str | int | bytes, ...]
Then = Callable[[list[Any]], Sequence[Command]]
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)
_DISCARD = _pack(("DISCARD",))

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.5  # between attempts on a lost connection
SLOWEST_BYTES_PER_SECOND = 4 * 1024 * 1024  # a large commit may take longer than the timeout by its size over this
ALWAYS_TAKEN_BYTES = 1024 * 1024  # the lowest that proto-max-bulk-len and client-query-buffer-limit can be set to
MAXIMUM_CUTS = 3  # so often Redis may end the connection over one larger request before that is taken for its answer
OLDEST_SERVER = (7, 0)
CLIENT_NAME = "endpoint-bridge"  # in CLIENT LIST
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
            options: dict[str, Any] = {**parse_url(url)}
            make: type[Connection] = options.pop("connection_class", Connection)
            # What is set here wins over the URL, which could ask for another protocol or for decoded replies.
            options |= {"protocol": 2, "decode_responses": False, "driver_info": None, "client_name": CLIENT_NAME}
            options |= {"socket_timeout": None, "socket_connect_timeout": timeout_seconds}
            self._connection = make(**options)
        except (ValueError, TypeError):  # their text may quote a part of the password
            raise ConfigError(
                "redis.url cannot be read; the form is redis://user:password@host:port/database"
            ) from None
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._loads = [_pack(("SCRIPT", "LOAD", script.text)) for script in scripts]
        self._lock = asyncio.Lock()
        self.watch = 0

    async def open(self) -> None:
        """Connect, check the server and load the scripts.

        Raises:
            RegistryUnavailable: it does not answer, or takes nothing now; a retry helps.
            Unfit: it is too old, may evict records or is part of a cluster; a TLS file cannot be used.
        """
        for reply in await self._send(self._loads):
            if isinstance(reply, ResponseError):
                raise RegistryUnavailable(reason(reply)) from reply

    async def close(self) -> None:
        """End the connection. A later request would open it again."""
        await self._connection.disconnect(nowait=True)

    async def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one trip and return their replies; a refusal is a reply, too (`ResponseError`).

        All commands must be safe to repeat: they go out again on a new connection where the first was lost. A second
        failure is enough.

        Raises:
            RegistryUnavailable: no answer, or a server that cannot be used now (`Unfit`); names the remedy.
        """
        return await self._send([_pack(command) for command in commands])

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
        return await self._send([_pack(command) for command in commands], then)

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
                    async with asyncio.timeout_at(deadline) as patience:
                        await self._connect()
                        is_connected = True
                        replies = await self._trip(packed)
                        following = [_pack(command) for command in then(replies)] if then is not None else []
                        if following:
                            size = sum(map(len, following))
                            patience.reschedule(deadline + size / SLOWEST_BYTES_PER_SECOND)
                            replies += await self._trip(following)
                            if any(isinstance(reply, ResponseError) for reply in replies):
                                await self._connection.disconnect(nowait=True)
                        return replies
                except RegistryUnavailable:
                    await self._connection.disconnect(nowait=True)
                    raise
                except (RedisError, OSError) as error:
                    failures += 1
                    cuts += is_connected and not isinstance(error, TimeoutError) and not _is_refusal(error)
                    await self._connection.disconnect(nowait=True)
                    if cuts == MAXIMUM_CUTS and size > ALWAYS_TAKEN_BYTES:
                        raise RequestTooLarge(str(error)) from error
                    if loop.time() + pause_seconds > deadline or (failures > 1 and then is None):
                        is_tls = isinstance(self._connection, SSLConnection)
                        raise RegistryUnavailable(reason(error, is_tls=is_tls)) from error
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    async def _connect(self) -> None:
        if self._connection.is_connected:
            return
        if self._tls is not None and isinstance(self._connection, SSLConnection):
            try:
                self._connection.ssl_context.context = self._tls()
            except ConfigError as error:
                raise Unfit(str(error)) from None
        self.watch += 1
        [info] = await self._exchange([_pack(("INFO",))])  # this opens it
        if isinstance(info, ResponseError):
            raise RegistryUnavailable(reason(info)) from info
        _check(dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line))

    async def _trip(self, packed: list[bytes]) -> list[Any]:
        """Send once and read every reply; scripts that the server forgot go before a second time."""
        replies = await self._exchange(packed)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            first = [_DISCARD, *self._loads]  # what stood after the script may have begun a transaction
            self.watch += 1
            replies = (await self._exchange(first + packed))[len(first) :]
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            await self._connection.disconnect(nowait=True)  # demoted: its name may lead to the new primary by now
        return replies

    async def _exchange(self, packed: list[bytes]) -> list[Any]:
        connection = self._connection
        try:
            await connection.send_packed_command(packed, check_health=False)
        except RuntimeError as error:  # uvloop's word for a transport that was reset while nobody used it
            raise ConnectionResetError("it reset the connection") from error
        replies: list[Any] = []
        for _ in packed:
            try:
                replies.append(await connection.read_response())
            except ResponseError as refusal:
                replies.append(refusal)
        return replies


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


def code(error: Exception) -> str:
    """Return the first word of a refusal: ``OOM``."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def reason(error: Exception, *, is_tls: bool = False) -> str:
    """Return what happened and what to do about it, for the log."""
    remedy = REMEDIES.get(code(error))
    if remedy:
        return f"Redis refused ({code(error)}): {remedy}"
    if _is_refusal(error):
        return f"Redis refused: {str(error).partition(_ARGUMENTS)[0]}"
    cause = error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"Redis shows a certificate that cannot be trusted ({cause.verify_message}): set redis.ca_file to that of "
            "the authority that signed it, and the host in redis.url to a name that stands in it"
        )
    if isinstance(cause, ssl.SSLError):
        return (
            f"TLS with Redis failed ({cause.reason}): does the port in redis.url speak TLS, and does the server "
            "ask for another redis.certificate_file?"
        )
    doubt = ", does that port speak TLS, and does it ask for redis.certificate_file" if is_tls else ""
    return f"Redis does not answer: {str(error) or 'no answer in time'}; is it running where redis.url points{doubt}?"


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, ResponseError) or getattr(error, "status_code", None) is not None
