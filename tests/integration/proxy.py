"""A TCP proxy between the session and its broker that can fall silent, lose one direction, or be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes bytes between those who connect to ``port`` and a broker on loopback.

    Attributes:
        port: where it listens.
        is_frozen: it passes nothing, and holds what comes; connections stay open.
        loses_answers: what the broker says is lost.
    """

    def __init__(self, broker_port: int) -> None:
        self.port = 0
        self.is_frozen = False
        self.loses_answers = False
        self._broker_port = broker_port
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._broker_port)
        self._writers += (writer, to_writer)
        with suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, to_writer), self._pass(to_reader, writer, is_answer=True))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                while self.is_frozen:  # noqa: ASYNC110 - a flag is the whole of what a test sets
                    await asyncio.sleep(0.005)
                if not (is_answer and self.loses_answers):
                    writer.write(data)
        finally:
            writer.close()

    def cut(self) -> None:
        """End all connections at once."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@asynccontextmanager
async def proxied(broker_port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(broker_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.is_frozen = False
        proxy.cut()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.02)
