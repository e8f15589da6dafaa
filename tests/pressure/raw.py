"""MQTT 5 clients of a few lines and next to no cost: enough of them to press a bridge from one process."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterable

_CONNACK = 0x20


def _length(size: int) -> bytes:
    encoded = b""
    while True:
        size, digit = divmod(size, 128)
        encoded += bytes((digit | (128 if size else 0),))
        if not size:
            return encoded


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def publish(topic: str, payload: bytes, *, packet_id: int = 0, retain: bool = False) -> bytes:
    """A PUBLISH packet; at QoS 1 where it has a packet id."""
    body = _text(topic.encode()) + (packet_id.to_bytes(2, "big") if packet_id else b"") + b"\0" + payload
    return bytes((0x30 | bool(packet_id) << 1 | retain,)) + _length(len(body)) + body


def connect(port: int, client_id: str, *, will: tuple[str, bytes] | None = None) -> socket.socket:
    """A connection, established, with a clean session and perhaps a will at QoS 1."""
    flags, last = 0x02, b""
    if will is not None:
        flags |= 0x0C
        last = b"\0" + _text(will[0].encode()) + _text(will[1])
    body = b"\x00\x04MQTT\x05" + bytes((flags,)) + b"\x00\x00\x00" + _text(client_id.encode()) + last
    opened = socket.create_connection(("127.0.0.1", port), timeout=30)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.sendall(b"\x10" + _length(len(body)) + body)
    assert opened.recv(1)[0] == _CONNACK, "the broker refused the connection"
    return opened


def never_acknowledge(port: int, client_id: str, topic: str, receive_maximum: int = 20) -> socket.socket:
    """A subscriber at QoS 1 that never says anything again."""
    body = b"\x00\x04MQTT\x05\x02\x00\x00\x03\x21" + receive_maximum.to_bytes(2, "big") + _text(client_id.encode())
    opened = socket.create_connection(("127.0.0.1", port), timeout=30)
    opened.sendall(b"\x10" + _length(len(body)) + body)
    body = b"\x00\x01\x00" + _text(topic.encode()) + b"\x01"
    opened.sendall(b"\x82" + _length(len(body)) + body)
    seen = b""
    while b"\x90" not in seen:  # SUBACK; nothing before it holds that byte
        seen += opened.recv(100)
    return opened


class Torrent:
    """One client that publishes packets round and round, at a pace or as fast as it goes, until it is closed.

    Args:
        port: of the broker.
        packets: at QoS 0, or at QoS 1 with packet ids of their own.
        per_second: how many messages at most.

    Attributes:
        sent: messages so far.
    """

    def __init__(self, port: int, packets: Iterable[bytes], per_second: float) -> None:
        self.sent = 0
        self._packets = list(packets)
        self._per_second = per_second
        self._socket = connect(port, f"torrent-{id(self)}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="torrent")
        self._thread.start()

    def close(self) -> None:
        """Stop, once the broker has taken all that was sent."""
        self._stop.set()
        self._thread.join(60)
        self._socket.settimeout(60)
        self._socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while self._socket.recv(1 << 20):
                pass
        self._socket.close()

    def _run(self) -> None:
        began = time.monotonic()
        piece = b"".join(self._packets)
        self._socket.setblocking(False)
        while not self._stop.is_set():
            left = memoryview(piece)
            while left:
                readable, writable, _ = select.select([self._socket], [self._socket], [], 0.1)
                if readable:  # PUBACKs, which nobody counts
                    self._socket.recv(1 << 20)
                if writable:
                    with contextlib.suppress(BlockingIOError):
                        left = left[self._socket.send(left) :]
            self.sent += len(self._packets)
            ahead = self.sent / self._per_second - (time.monotonic() - began)
            if ahead > 0:
                self._stop.wait(ahead)
