"""Connections on a real socket: clients that say nothing, read nothing or talk without end, and odd requests."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.adapters.http import connections as module
from bridge.adapters.http import server
from bridge.adapters.http.connections import MAXIMUM_HEADERS, Bounds
from bridge.adapters.http.gate import Gate
from bridge.adapters.http.server import serving
from bridge.settings import Http
from tests.unit.clock import Clock

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def endless(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Port:
    """Where the server listens; the connections to it end with the test."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        return reader, writer

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def listening(app: Any = echo, **http: Any) -> AsyncIterator[Port]:
    settings = Http(port=0, **http)
    async with serving(Gate(app, settings), settings) as number:
        port = Port(number)
        try:
            yield port
        finally:
            port.close()


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection, which it does soon."""
    found = b""
    async with asyncio.timeout(10):
        try:
            while piece := await reader.read(65_536):
                found += piece
        except ConnectionError:
            pass
    return found


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The status line and the body of one answer."""
    async with asyncio.timeout(10):
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        [length] = [int(line.partition(b":")[2]) for line in headers if line.lower().startswith(b"content-length")]
        return status, await reader.readexactly(length)


async def test_who_says_nothing_or_too_slowly_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.2)
    async with listening() as port:
        silent, _ = await port.connect()
        slow, writer = await port.connect()

        async def dribble() -> None:
            for byte in GET * 1_000:
                writer.write(bytes((byte,)))
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        assert await asyncio.gather(ends(silent), ends(slow)) == [b"", b""]
        dribbling.cancel()
        again, writer = await port.connect()
        writer.write(GET)
        assert await answer(again) == (b"HTTP/1.1 200 OK", b"")
        assert await ends(again) == b""


async def test_every_request_puts_the_end_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as port:
        clock = Clock(monkeypatch)
        reader, writer = await port.connect()
        for _ in range(4):
            writer.write(GET)
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"")
            clock.ahead_seconds += module.IDLE_SECONDS * 0.7
            for _ in range(3):  # in which the loop does what is due
                await asyncio.sleep(0)
        clock.ahead_seconds += module.IDLE_SECONDS * 0.4
        assert await ends(reader) == b""


async def test_who_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.1)
    async with listening(endless, timeout_seconds=0.1) as port:
        _, writer = await port.connect()
        writer.write(GET)
        async with asyncio.timeout(10):
            # The reader's own buffer is never emptied: only a reset tells that the connection has ended.
            while not writer.is_closing():
                writer.write(b"\n")
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 400_000,
        b"GET / HTTP/1.1\r\nx: " + b"x" * 400_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * (MAXIMUM_HEADERS + 2),
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 400_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"x: y\r\n" * (MAXIMUM_HEADERS + 2),
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: " + b"x" * 400_000,
        b"\r\n" * 200_000,
    ],
    ids=["path", "header", "headers", "extension", "trailers", "trailer", "lines"],
)
async def test_what_is_no_body_has_an_end(head: bytes) -> None:
    async with listening() as port:
        reader, writer = await port.connect()
        writer.write(head)
        await ends(reader)  # with an answer where its reset does not overtake it


async def test_large_bodies_and_many_requests_at_once_are_taken() -> None:
    async with listening() as port:
        reader, writer = await port.connect()
        body = b"x" * 400_000
        writer.write(GET * 500)
        writer.write(POST + b"Content-Length: 400000\r\n\r\n" + body)
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
        answers = [await answer(reader) for _ in range(502)]
        assert answers[:500] == [(b"HTTP/1.1 200 OK", b"")] * 500
        assert answers[500:] == [(b"HTTP/1.1 200 OK", body), (b"HTTP/1.1 200 OK", b"x" * 100_000)]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_a_request_that_asks_for_another_protocol_keeps_its_body(protocol: bytes) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEA\r\nUpgrade: " + protocol + b"\r\n"
    async with listening() as port:
        reader, writer = await port.connect()
        for _ in range(2):
            writer.write(POST + upgrade + b"Content-Length: 5\r\n\r\nhe")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(b"llo")
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"hello")
        both = GET[:-2] + upgrade + b"\r\n" + POST + upgrade + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        writer.write(both * 300)
        answers = [await answer(reader) for _ in range(600)]
        assert answers == [(b"HTTP/1.1 200 OK", b""), (b"HTTP/1.1 200 OK", b"hi")] * 300


@pytest.mark.parametrize("head", [b"CONNECT a:80 HTTP/1.1\r\n\r\n", b"CONNECT /x HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
async def test_what_is_no_request_is_answered_and_ended(head: bytes) -> None:
    async with listening() as port:
        reader, writer = await port.connect()
        writer.write(head)
        assert (await ends(reader)).startswith(b"HTTP/1.1 400")


async def test_where_too_many_are_open_the_longest_silent_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Bounds", lambda seconds: Bounds(seconds, 3))
    async with listening() as port:
        working, writer = await port.connect()
        writer.write(POST + b"Content-Length: 2\r\n\r\nh")
        await writer.drain()
        held = [await port.connect() for _ in range(2)]
        for reader, other in held:
            other.write(GET)
            assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"
        newest, other = await port.connect()
        other.write(GET)
        assert (await answer(newest))[0] == b"HTTP/1.1 200 OK"
        assert await ends(held[0][0]) == b""
        held[1][1].write(GET)
        assert (await answer(held[1][0]))[0] == b"HTTP/1.1 200 OK"
        writer.write(b"i")
        assert await answer(working) == (b"HTTP/1.1 200 OK", b"hi")


@pytest.mark.parametrize(("descriptors", "connections"), [(1024, 512), (resource.RLIM_INFINITY, 2**63 - 1)])
def test_the_bridge_keeps_half_of_its_descriptors(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert Bounds(1).maximum == connections
