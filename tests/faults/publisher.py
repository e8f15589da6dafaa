"""A publisher at QoS 1 that costs next to nothing, so that the judge in the same process is not starved by it.

It keeps order whatever happens: over its own reconnects what was not acknowledged goes first, with DUP.
"""

import secrets
import select
import socket
import threading
import time
from collections import deque

_WINDOW = 500
_Message = tuple[bytes, bytes]  # topic; properties and payload
_CONNECT = b"\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x0e\x10"  # no clean start, no keep alive, session expiry 1 h


class Publisher:
    """Sends what `put` was given, as fast as the broker acknowledges, in a thread of its own.

    Attributes:
        given: messages.
        acknowledged: those that the broker has.
    """

    def __init__(self, port: int) -> None:
        self.acknowledged = 0
        self.given = 0
        self._port = port
        self._name = b"publisher-" + secrets.token_hex(6).encode()
        self._waiting: deque[_Message] = deque()
        self._unacknowledged: dict[int, _Message] = {}
        self._last_id = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher")
        self._thread.start()

    def put(self, topic: str, payload: bytes, *, response_topic: str = "") -> None:
        properties = b"\x08" + _text(response_topic.encode()) if response_topic else b""
        self._waiting.append((topic.encode(), _length(len(properties)) + properties + payload))
        self.given += 1

    def wait(self, seconds: float) -> None:
        """Wait until the broker has acknowledged all that was given."""
        end = time.monotonic() + seconds
        while self.acknowledged < self.given:
            assert time.monotonic() < end, f"{self.acknowledged} of {self.given} inputs acknowledged"
            time.sleep(0.01)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._live(connection)
            except OSError:
                time.sleep(0.05)

    def _live(self, connection: socket.socket) -> None:
        body = _CONNECT + len(self._name).to_bytes(2, "big") + self._name
        connection.sendall(b"\x10" + _length(len(body)) + body)
        unread = b""
        ready = False
        while not self._stop.is_set():
            if ready and self._waiting and len(self._unacknowledged) < _WINDOW:
                connection.sendall(b"".join(self._take()))
            if not select.select([connection], [], [], 0.002)[0]:
                continue
            data = connection.recv(65_536)
            if not data:
                raise ConnectionResetError
            unread += data
            while len(unread) >= 2 and len(unread) >= 2 + unread[1]:  # all that comes is short
                kind, body, unread = unread[0] >> 4, unread[2 : 2 + unread[1]], unread[2 + unread[1] :]
                if kind == 2:
                    if body[1]:
                        raise ConnectionRefusedError(body[1])
                    ready = True
                    if not body[0] & 1:  # a new session: nothing was sent in it
                        self._unacknowledged = dict(enumerate(self._unacknowledged.values(), self._last_id + 1))
                        self._last_id += len(self._unacknowledged)
                    again = [_publish(i, *what, duplicate=body[0] & 1) for i, what in self._unacknowledged.items()]
                    connection.sendall(b"".join(again))
                elif kind == 4:
                    assert len(body) < 3 or body[2] < 0x80, f"the broker refused an input: {body!r}"
                    if self._unacknowledged.pop(int.from_bytes(body[:2], "big"), None):
                        self.acknowledged += 1
                elif kind == 14:
                    raise ConnectionResetError

    def _take(self) -> list[bytes]:
        packets: list[bytes] = []
        while self._waiting and len(self._unacknowledged) < _WINDOW:
            self._last_id = self._last_id % 60_000 + 1
            self._unacknowledged[self._last_id] = what = self._waiting.popleft()
            packets.append(_publish(self._last_id, *what))
        return packets


def _publish(packet_id: int, topic: bytes, rest: bytes, *, duplicate: int = 0) -> bytes:
    body = _text(topic) + packet_id.to_bytes(2, "big") + rest
    return bytes((0x32 | duplicate << 3,)) + _length(len(body)) + body


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def _length(size: int) -> bytes:
    return bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
