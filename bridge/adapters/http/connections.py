"""One connection of the HTTP server: uvicorn's, with the bounds that it lacks.

A client may say nothing, read nothing or talk without end only within limits, and all clients together leave the bridge
the descriptors that it needs for the broker and Redis.
"""

import asyncio
import resource
import sys
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

IDLE_SECONDS = 30  # from the connection, or from the answer before, to the end of the next request's head
MAXIMUM_HEAD_BYTES = 65_536
MAXIMUM_HEADERS = 100


class Bounds:
    """What holds for all connections of one server.

    Args:
        answer_seconds: longest time from the head of a request to the end of its answer.
        maximum: how many connections may be open; None: half of what the process may open (``ulimit -n``).

    Attributes:
        silent: connections on which the server waits for a request, the one that waits longest first.
    """

    def __init__(self, answer_seconds: float, maximum: int | None = None) -> None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.answer_seconds = answer_seconds
        self.maximum = maximum or (sys.maxsize if descriptors == resource.RLIM_INFINITY else descriptors // 2)
        self.silent: dict[Connection, None] = {}


class Connection(HttpToolsProtocol):
    """Ends by itself where its client keeps the server waiting or sends a head that is too large.

    Where too many are open, the one on which the server has waited longest makes room.
    """

    def __init__(self, bounds: Bounds, **rest: Any) -> None:
        super().__init__(**rest)
        self._bounds = bounds
        self._ends_at = 0.0  # on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._bare_bytes = 0  # received since the last piece of a body, or the end of a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self._bounds.maximum:
            longest = next(iter(self._bounds.silent))
            del self._bounds.silent[longest]
            longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._bounds.silent.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        self._bare_bytes += len(data)
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        try:
            while rest:
                try:
                    self.parser.feed_data(rest)
                    break
                except HttpParserUpgrade as upgrade:
                    rest = rest[upgrade.args[0] :]
                    self._read_head_again()
        except HttpParserError:
            self.send_400_response("This is no HTTP request.")
            return
        if self._bare_bytes > MAXIMUM_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def _read_head_again(self) -> None:
        """Take a request that asks for another protocol as one that does not, since the parser leaves its body unread.

        Such requests are common: Java's HTTP client asks for HTTP/2 in each one.
        """
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        if len(self.headers) >= MAXIMUM_HEADERS:
            raise ValueError("too many headers")  # the parser makes it a bad request
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to work for the client."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")
            return
        self._bounds.silent.pop(self, None)
        self._end_after(self._bounds.answer_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; what is in hand bounds them."""
        self._bare_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has ended."""
        self._bare_bytes = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request that has come already, or wait for it."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait()
        else:
            self._end_after(self._bounds.answer_seconds)

    def _wait(self) -> None:
        self._bounds.silent[self] = None
        self._end_after(IDLE_SECONDS)

    def _end_after(self, seconds: float) -> None:
        self._ends_at = self.loop.time() + seconds
        if self._timer is None or self._timer.when() > self._ends_at:
            self._look_at(self._ends_at)

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._end)

    def _end(self) -> None:
        """End the connection, unless its end was put off meanwhile: a timer for each request would cost more."""
        if self.loop.time() < self._ends_at:
            self._look_at(self._ends_at)
        else:
            # Not closed but cut off: a client that reads nothing would keep it open until all is sent.
            self.transport.abort()
