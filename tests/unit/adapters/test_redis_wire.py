"""The wire alone, against a server of a few lines; what Redis itself makes of it is the contract's matter."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from bridge.adapters.redis_wire import Address, Refused, Wire, open_wire, pack, read_address

GREETED = b"+OK\r\n"
PING = pack(("PING",))


def soon(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def server(*answers: bytes | None, asked: list[bytes] | None = None) -> AsyncIterator[Address]:
    """Gives one answer to each read; None: none. It hangs up after the last."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in answers:
                request = await reader.read(65_536)
                if not request:
                    return
                if asked is not None:
                    asked.append(request)
                writer.write(answer or b"")
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield read_address(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address("localhost", 6379, "", "", "", 0, False)),
        ("redis://h:1/2", Address("h", 1, "", "", "", 2, False)),
        ("redis://h?db=3&username=u&password=p", Address("h", 6379, "", "u", "p", 3, False)),
        ("redis://h/2?db=3", Address("h", 6379, "", "", "", 2, False)),
        ("rediss://u:p%40%2F@[::1]:7/", Address("::1", 7, "", "u", "p@/", 0, True)),
        ("redis://:p@h", Address("h", 6379, "", "", "p", 0, False)),
        ("unix:///run/a%20b?db=4", Address("localhost", 6379, "/run/a b", "", "", 4, False)),
        ("unix://u:p@/run/redis", Address("localhost", 6379, "/run/redis", "u", "p", 0, False)),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert read_address(url) == address


@pytest.mark.parametrize(
    "url", ["", "h:1", "http://h", "unix://", "redis://h/x", "redis://h?db=x", "redis://h:x", "redis://h?protocol=3"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_address(url)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_who_asks_is_said_first(run: Callable[[object], None]) -> None:
    async def ask() -> None:
        asked: list[bytes] = []
        async with server(3 * GREETED, b"+PONG\r\n-ERR no\r\n", asked=asked) as address:
            wire = await open_wire(address._replace(username="u", password="p", database=4), None, soon())
            pong, refusal = await wire.exchange([PING, PING], soon())
            wire.end(ConnectionError())
        assert asked == [
            b"".join(map(pack, (("AUTH", "u", "p"), ("CLIENT", "SETNAME", "endpoint-bridge"), ("SELECT", 4)))),
            2 * PING,
        ]
        assert pong == b"PONG"
        assert (refusal.code, str(refusal)) == ("ERR", "ERR no")

    run(ask())


async def test_replies_come_in_any_pieces() -> None:
    wire = Wire()
    transport = _Transport(wire)
    waiting = asyncio.create_task(wire.exchange([PING] * 3, soon()))
    await asyncio.sleep(0)
    for byte in b"$3\r\na\r\n\r\n*2\r\n:1\r\n-OOM x\r\n+b\r\n":
        assert not waiting.done()
        wire.data_received(bytes((byte,)))
    text, [number, refusal], word = await waiting
    assert (text, number, refusal.code, word) == (b"a\r\n", 1, "OOM", b"b")
    assert transport.written == 3 * PING
    assert wire.is_open


async def test_a_late_reply_answers_nobody_else() -> None:
    for give_up in ("cancelled", "too late"):
        wire = Wire()
        transport = _Transport(wire)
        waiting = asyncio.create_task(wire.exchange([PING], soon(5 if give_up == "cancelled" else 0.01)))
        await asyncio.sleep(0)
        if give_up == "cancelled":
            waiting.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await waiting
        assert transport.is_closing()
        wire.data_received(b"+late\r\n")
        with pytest.raises(OSError, match=r"taken back|^$"):
            await wire.exchange([PING], soon())


async def test_what_nobody_asked_for_ends_it() -> None:
    wire = Wire()
    _Transport(wire)
    wire.data_received(b"+hello\r\n")
    with pytest.raises(ConnectionResetError):
        await wire.exchange([PING], soon())
    assert not wire.is_open


async def test_a_server_without_a_place_for_one_more_says_so() -> None:
    wire = Wire()
    _Transport(wire)
    wire.data_received(b"-ERR max number of clients reached\r\n")
    wire.connection_lost(None)
    with pytest.raises(Refused, match="max number of clients reached"):
        await wire.exchange([PING], soon())


async def test_its_last_word_on_a_request_is_no_reply_to_it() -> None:
    async with server(GREETED, b"-ERR Protocol error: invalid bulk length\r\n") as address:
        wire = await open_wire(address, None, soon())
        with pytest.raises(ConnectionResetError, match="invalid bulk length"):
            await wire.exchange([PING, PING], soon())


async def test_what_is_no_redis() -> None:
    async with server(b"HTTP/1.1 400 Bad Request\r\n") as address:
        with pytest.raises(ConnectionError):
            await open_wire(address, None, soon())


async def test_who_is_refused_stays_outside() -> None:
    async with server(b"-WRONGPASS no\r\n-NOAUTH no\r\n", None) as address:
        with pytest.raises(Refused, match="WRONGPASS"):
            await open_wire(address._replace(password="p"), None, soon())


async def test_who_does_not_answer_is_not_waited_for() -> None:
    async with server(None, None) as address:
        with pytest.raises(TimeoutError):
            await open_wire(address, None, soon(0.05))


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
async def test_a_host_that_no_resolver_takes(host: str) -> None:
    with pytest.raises(OSError, match=r"."):
        await open_wire(read_address(f"redis://{host}"), None, soon())


class _Transport(asyncio.Transport):
    """Notes what is written."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.written = b""
        self._is_closing = False
        wire.connection_made(self)

    def writelines(self, pieces: object) -> None:
        assert isinstance(pieces, list)
        self.written += b"".join(pieces)

    def abort(self) -> None:
        self._is_closing = True

    def is_closing(self) -> bool:
        return self._is_closing
