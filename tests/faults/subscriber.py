"""A subscriber at QoS 1 over a durable session of its own, that costs little and comes back by itself."""

import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

_CONNECT = b"\x00\x04MQTT\x05\x00\x00\x00\x08\x11\x00\x00\x0e\x10\x21\x00\xff"  # no clean start, expiry 1 h, window 255
_MARK = b"\x26\x00\x0bredelivered\x00\x011"


class Heard(NamedTuple):
    """One delivery. ``duplicate``: DUP, by the broker; ``redelivered``: marked so by the bridge."""

    topic: str
    payload: bytes
    duplicate: bool
    redelivered: bool


class Subscriber:
    """Hands each delivery to ``hear`` in its own thread, in order, then acknowledges it.

    Args:
        port: of the broker.
        filters: what it hears, at most 20.
        hear: must be quick.
        once: a delivery that the broker repeats with DUP is not handed over again.
    """

    def __init__(self, port: int, filters: list[str], hear: Callable[[Heard], None], *, once: bool = False) -> None:
        self.subscribed = threading.Event()
        self._failed: BaseException | None = None
        self._port = port
        self._filters = filters
        self._hear = hear
        self._once = once
        self._last: dict[bytes, tuple[str, bytes]] = {}  # PUBACK -> what it last was for
        self._name = b"subscriber-" + secrets.token_hex(6).encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="subscriber")
        self._thread.start()
        assert self.subscribed.wait(20), "the broker did not answer"

    def check(self) -> None:
        """Raise what its thread died of."""
        assert self._failed is None, self._failed

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.settimeout(0.2)
                    self._live(connection)
            except OSError:
                time.sleep(0.05)
            except BaseException as error:  # the run must end, not go on deaf
                self._failed = error
                raise

    def _live(self, connection: socket.socket) -> None:
        body = _CONNECT + len(self._name).to_bytes(2, "big") + self._name
        connection.sendall(_packet(0x10, body))
        unread = b""
        while not self._stop.is_set():
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionResetError
            unread += data
            answers = b""
            while True:
                found = _first(unread)
                if found is None:
                    break
                head, body, unread = found
                answers += self._take(head, body)
            if answers:
                connection.sendall(answers)

    def _take(self, head: int, body: bytes) -> bytes:
        kind = head >> 4
        if kind == 2:
            if body[1]:
                raise ConnectionRefusedError(body[1])
            filters = b"".join(len(one).to_bytes(2, "big") + one.encode() + b"\x01" for one in self._filters)
            return _packet(0x82, b"\x00\x01\x00" + filters)
        if kind == 9:
            assert all(code < 0x80 for code in body[3:]), body
            self.subscribed.set()
        if kind == 14:
            raise ConnectionResetError
        if kind != 3:
            return b""
        size = int.from_bytes(body[:2], "big")
        topic, at = body[2 : 2 + size].decode(), 2 + size
        answer = b""
        if head & 6:
            answer = b"\x40\x02" + body[at : at + 2]
            at += 2
        length, used = _varint(body[at:])
        properties, payload = body[at + used : at + used + length], body[at + used + length :]
        said = topic, payload
        is_repeated = bool(head & 8) and self._last.get(answer) == said
        if self._once:
            self._last[answer] = said
        if not is_repeated:
            self._hear(Heard(topic, payload, bool(head & 8), _MARK in properties))
        return answer


def _packet(head: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while size > 127:
        length += bytes((size & 127 | 128,))
        size >>= 7
    return bytes((head,)) + length + bytes((size,)) + body


def _varint(data: bytes) -> tuple[int, int]:
    value = 0
    for place in range(4):
        value |= (data[place] & 127) << 7 * place
        if data[place] < 128:
            return value, place + 1
    raise ValueError("a length of more than four bytes")


def _first(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first whole packet: its first byte, its body, and what follows it."""
    if len(data) < 2 or (data[1] > 127 and len(data) < 5 and all(byte > 127 for byte in data[1:])):
        return None
    length, used = _varint(data[1:6])
    end = 1 + used + length
    return (data[0], data[1 + used : end], data[end:]) if len(data) >= end else None
