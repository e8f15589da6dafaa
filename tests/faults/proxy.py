"""A TCP proxy in a thread of its own, whose connections can be cut, frozen, slowed and broken in the middle."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future

_PIECE_BYTES = 65_536
_TRICKLE_BYTES = 64


class Proxy:
    """Listens on a loopback port and passes everything on to another.

    Args:
        target: the port that it passes on to; `retarget` changes it for new connections.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._delay_seconds = 0.0
        self._trickle = False
        self._break_after: int | None = None
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="proxy")
        self._thread.start()
        self.port = ready.result(10)

    # Faults, from any thread.

    def cut(self) -> None:
        """End every connection (RST where something was unread); new ones are taken."""
        self._call(self._cut)

    def freeze(self) -> None:
        """Pass nothing on, in either direction: both sides stay connected to nobody. Also new connections."""
        self._call(self._open.clear)

    def thaw(self) -> None:
        """Pass on again, what waited too."""
        self._call(self._open.set)

    def slow(self, delay_seconds: float = 0.0, *, trickle: bool = False) -> None:
        """Hold each piece back for so long; ``trickle``: in pieces of 64 bytes. No argument: as fast as it goes."""
        self._delay_seconds, self._trickle = delay_seconds, trickle

    def break_after(self, size_bytes: int) -> None:
        """Cut the next connection that passes so many bytes, in the middle of whatever it says."""
        self._break_after = size_bytes

    def retarget(self, target: int) -> None:
        """Pass new connections on to another port, and cut the old ones."""
        self._target = target
        self.cut()

    def close(self) -> None:
        self._call(self._loop.stop)
        self._thread.join(10)

    def _call(self, what: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(what)

    # In the thread.

    def _run(self, ready: "Future[int]") -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        ready.set_result(server.sockets[0].getsockname()[1])
        self._loop.run_forever()
        server.close()
        self._cut()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._flow(reader, far_writer), self._flow(far_reader, writer))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_TRICKLE_BYTES if self._trickle else _PIECE_BYTES):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                await self._open.wait()
                if self._break_after is not None:
                    self._break_after -= len(data)
                    if self._break_after < 0:
                        writer.write(data[: self._break_after])
                        self._break_after = None
                        await writer.drain()
                        self._cut()
                        return
                writer.write(data)
                await writer.drain()
        writer.close()
