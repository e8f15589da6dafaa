"""The wire to Redis: RESP 2 over TCP, TLS or a unix socket, many commands and all their replies in one trip.

Own code where a client could do, since a fifth of what a small batch cost was a client's work on each of its replies
(docs/benchmarks.md, counts); the bytes are hiredis' matter. One trip at a time, and no wait without an end.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

Command = tuple[str | int | bytes, ...]
CLIENT_NAME: Final = "endpoint-bridge"  # in CLIENT LIST

pack = cast("Callable[[Command], bytes]", hiredis.pack_command)
"""Write a command as RESP."""


class Refused(Exception):
    """Redis refused one command; the text is its own. An answer like any other, so it also stands among replies."""

    @property
    def code(self) -> str:
        """Its first word: ``OOM``."""
        return str(self).partition(" ")[0]


class Address(NamedTuple):
    """Where a server is and who asks there.

    Attributes:
        host: name or number; of no meaning where there is a ``path``.
        port: of TCP.
        path: of a unix socket; empty: it is reached over TCP.
        username: empty: the server's default user.
        password: empty: none, or an empty one where there is a ``username``.
        database: its number.
        is_tls: the connection is encrypted.
    """

    host: str
    port: int
    path: str
    username: str
    password: str
    database: int
    is_tls: bool


def read_address(url: str) -> Address:
    """Read ``redis://user:password@host:port/database``, ``rediss://...`` or ``unix://user:password@/path?db=database``.

    User, password and database may also stand as options: ``?username=...&password=...&db=...``.

    Raises:
        ValueError: it is no such address.
    """
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    database = options.pop("db", "0")
    path, number = parts.path, parts.path.removeprefix("/")
    if parts.scheme in ("redis", "rediss"):
        path, database = "", number or database
    if parts.scheme not in ("redis", "rediss", "unix") or (parts.scheme == "unix") != bool(path):
        raise ValueError("not redis://, rediss:// or unix://")
    username = unquote(parts.username or "") or options.pop("username", "")
    password = unquote(parts.password or "") or options.pop("password", "")
    if options.keys() - {"username", "password"}:
        raise ValueError("an option that is not known")
    host, port = unquote(parts.hostname or "localhost"), parts.port or 6379
    return Address(host, port, unquote(path), username, password, int(database), parts.scheme == "rediss")


class Wire(asyncio.Protocol):
    """One connection, for one trip at a time. Once it has ended it stays so."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=Refused)
        self._replies: list[Any] = []
        self._wanted = 0
        self._has_answered = False
        self._answered: asyncio.Future[list[Any]] | None = None
        self._fault: Exception | None = None  # why it ended

    @property
    def is_open(self) -> bool:
        """Whether a trip may be tried."""
        return self._fault is None and self._transport is not None and not self._transport.is_closing()

    async def exchange(self, packed: Sequence[bytes], deadline: float) -> list[Any]:
        """Send packed commands and return a reply for each.

        The wire ends where that fails, or is cancelled: a late reply would answer what is asked next.

        Args:
            packed: at least one, each by `pack`.
            deadline: loop time until which the replies may come.

        Returns:
            In RESP 2's types; `Refused` where a command was refused.

        Raises:
            Refused: the server turned the whole connection away.
            OSError: the connection is lost, nothing came in time (TimeoutError), or something else than Redis answers.
        """
        if not self.is_open or self._transport is None or self._replies:
            self.end(self._last_word() or ConnectionResetError("it closed the connection while nothing was asked"))
            assert self._fault is not None
            raise self._fault
        self._wanted = len(packed)
        answered: asyncio.Future[list[Any]] = self._loop.create_future()
        self._answered = answered
        timer = self._loop.call_at(deadline, self.end, TimeoutError())
        try:
            self._transport.writelines(packed)
            return await answered
        except RuntimeError as error:  # uvloop's word for a transport that was reset meanwhile
            self.end(ConnectionResetError(str(error)))
            raise ConnectionResetError(str(error)) from error
        except asyncio.CancelledError:
            self.end(ConnectionAbortedError("the question was taken back"))
            raise
        finally:
            timer.cancel()
            self._answered = None

    def end(self, fault: Exception) -> None:
        """Cut the connection; who waits for replies gets ``fault``, and so does who asks later."""
        if self._fault is None:
            self._fault = fault
        if self._transport is not None:
            self._transport.abort()
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(self._fault)

    # What the event loop tells (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take replies; the last one that is waited for ends the trip."""
        replies, read = self._replies, self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := read()) is not False:
                replies.append(reply)
        except hiredis.HiredisError as error:
            self.end(ConnectionError(str(error)))
            return
        if len(replies) >= self._wanted and self._answered is not None and not self._answered.done():
            self._has_answered = True
            self._replies = replies[self._wanted :]
            self._answered.set_result(replies[: self._wanted])

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self.end(self._last_word() or exc or ConnectionResetError("it closed the connection"))

    def _last_word(self) -> Exception | None:
        """Why it hung up, where it said so, unasked: no place for one more, or later a request too large."""
        last = self._replies[-1] if self._replies else None
        if not isinstance(last, Refused):
            return None
        return ConnectionResetError(str(last)) if self._has_answered else last


async def open_wire(address: Address, context: ssl.SSLContext | None, deadline: float) -> Wire:
    """Connect and say who asks.

    Args:
        address: of the server.
        context: for TLS; None where it is not encrypted.
        deadline: loop time.

    Raises:
        Refused: user, password or database were refused.
        OSError: nobody is there, it does not answer in time (TimeoutError), or TLS failed (ssl.SSLError).
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(deadline):
            if address.path:
                _, wire = await loop.create_unix_connection(Wire, address.path)
            else:
                _, wire = await loop.create_connection(Wire, address.host, address.port, ssl=context)
    except OSError:  # a certificate's error is a ValueError, too
        raise
    except ValueError as error:  # a host that no resolver takes
        raise ConnectionError(str(error)) from error
    greeting: list[Command] = [("CLIENT", "SETNAME", CLIENT_NAME)]
    if address.username or address.password:
        greeting.insert(0, ("AUTH", *([address.username] if address.username else []), address.password))
    if address.database:
        greeting.append(("SELECT", address.database))
    for reply in await wire.exchange([pack(command) for command in greeting], deadline):
        if isinstance(reply, Refused):
            wire.end(reply)
            raise reply
    return wire
