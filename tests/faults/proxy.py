"""A TCP proxy in a thread of its own, whose connections can be cut, frozen, slowed and broken in the middle."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future

_PIECE_BYTES = 65_536
_TRICKLE_BYTES = 64
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST, whatever was read

TO, FRO = "to", "fro"
"""Directions: from who connects to the target, and back."""


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
        self._pass = {TO: asyncio.Event(), FRO: asyncio.Event()}
        self._lost: set[asyncio.StreamWriter] = set()
        self._delay_seconds = 0.0
        self._trickle = False
        self._break_after: int | None = None
        self._thaw()
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="proxy")
        self._thread.start()
        self.port = ready.result(10)

    # Faults, from any thread.

    def cut(self) -> None:
        """End every connection by RST; new ones are taken."""
        self._call(self._cut)

    def freeze(self, *directions: str) -> None:
        """Pass nothing on in these directions (both where none is given), on new connections neither."""
        self._call(lambda: [self._pass[one].clear() for one in directions or self._pass])

    def thaw(self) -> None:
        """Pass on again, what waited too."""
        self._call(self._thaw)

    def lose(self) -> None:
        """Leave every connection half open for good, until `cut`: both sides talk to nobody. New ones work."""
        self._call(lambda: self._lost.update(self._writers))

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

    def _thaw(self) -> None:
        for one in self._pass.values():
            one.set()

    def _cut(self) -> None:
        self._lost.clear()
        for writer in self._writers:
            found = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._pass[TO].wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._flow(TO, reader, far_writer), self._flow(FRO, far_reader, writer))
        finally:
            self._writers -= both
            self._lost -= both
            for one in both:
                one.transport.abort()

    async def _flow(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_TRICKLE_BYTES if self._trickle else _PIECE_BYTES):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                await self._pass[direction].wait()
                if writer in self._lost:
                    continue
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
            # Nobody hears that the other side has hung up. An event for each connection would be more than it is worth.
            while writer in self._lost:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        writer.close()
