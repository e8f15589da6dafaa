"""The inbox: what has arrived and waits for the line, in order of arrival and bounded.

QoS 1 is bounded by Receive Maximum, since nothing is acknowledged before it was decided; where the broker does not keep
to that, reading stops once there is no more room. QoS 0 is bounded here: of equal empty messages that nobody wants
answered (keepalives) one is kept, and beyond the limit the newest is dropped and counted. Keepalives have places of
their own, which no other flood takes. Commands that do not come by MQTT stand in the same order: their answers reflect
all that came before.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from time import perf_counter

import msgspec

from bridge.domain.commands import Command
from bridge.domain.inputs import Input
from bridge.domain.values import Receipt
from bridge.errors import Refusal
from bridge.ports import Waiter

MAXIMUM_QOS0 = 50_000  # keepalives, and as many others
MAXIMUM_QOS0_BYTES = 64 * 1024 * 1024
MAXIMUM_BYTES = 128 * 1024 * 1024
MAXIMUM_WAITING = 200_000  # beyond what QoS 0 and all packet ids together may come to
MAXIMUM_ORDERS = 10_000


class Connected(msgspec.Struct, frozen=True):
    """The broker accepted connection number ``connection``, resuming the session or not."""

    connection: int
    session_present: bool


class Confirmed(msgspec.Struct, frozen=True):
    """The broker has seen the PUBACKs of all receipts of ``connection`` with numbers up to ``acknowledged``.

    Attributes:
        caught_up: whatever it had for the bridge by then stands before this mark.
        lost: some of that was dropped here, since the mark before.
    """

    connection: int
    acknowledged: int
    caught_up: bool = True
    lost: bool = False


class Sweep(msgspec.Struct, frozen=True):
    """More records are due than one batch takes: go on after what has arrived meanwhile."""


class Walk(msgspec.Struct, frozen=True):
    """More registry topics are to be written: go on after what has arrived meanwhile."""


class Order(msgspec.Struct, frozen=True):
    """A command of somebody within this process."""

    organization: str
    command: Command
    waiter: Waiter


Arrival = tuple[Input, Receipt | None]
Mark = Connected | Confirmed | Sweep | Walk


class Inbox:
    """Implements the MQTT session's listener; the line takes from it.

    Attributes:
        is_subscribed: connected, and every subscription is granted.
        waited_seconds: from when something began to wait, or from the take before it, to the last `take`.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._arrivals: deque[Arrival | Order | Mark] = deque()
        self._counts = counts
        self._qos0 = 0
        self._bytes = 0
        self._reads: deque[tuple[int, int]] = deque()  # how many messages of a read wait, and their bytes
        self._orders = 0
        self._has_dropped = False
        self._empty_topics: set[str] = set()
        self._waiting = asyncio.Event()
        self._since = 0.0
        self.is_subscribed = False
        self.waited_seconds = 0.0

    @property
    def waiting(self) -> int:
        """How many arrivals and marks wait."""
        return len(self._arrivals)

    @property
    def has_room(self) -> bool:
        """Whether more may be received now."""
        return self._bytes < MAXIMUM_BYTES and len(self._arrivals) < MAXIMUM_WAITING

    @property
    def has_orders(self) -> bool:
        """Whether somebody within this process waits for the line."""
        return self._orders > 0

    # The listener's side: synchronous and quick.

    def connected(self, connection: int, session_present: bool) -> None:
        """Take note of a new connection, before any of its messages."""
        self.put(Connected(connection, session_present))

    def subscribed(self, connection: int) -> None:  # noqa: ARG002  (a listener's method; the number tells nothing here)
        """Every subscription is granted."""
        self.is_subscribed = True

    def received(self, publishes: Sequence[Arrival], size_bytes: int) -> None:
        """Queue what one read brought, which had ``size_bytes`` on the wire."""
        self._counts["received"] += len(publishes)
        if not self._arrivals:
            self._since = perf_counter()
        append = self._arrivals.append
        kept = len(publishes)
        for arrival in publishes:
            if arrival[1] is None and not self._may_wait(arrival[0]):
                kept -= 1
                continue
            append(arrival)
        if kept:
            size_bytes = size_bytes * kept // len(publishes)
            self._reads.append((kept, size_bytes))
            self._bytes += size_bytes
        self._waiting.set()

    def _may_wait(self, inbound: Input) -> bool:
        if _is_keepalive(inbound):
            if inbound.topic in self._empty_topics:
                self._counts["coalesced"] += 1
                return False
            if len(self._empty_topics) < MAXIMUM_QOS0:
                self._empty_topics.add(inbound.topic)
                return True
        elif self._qos0 < MAXIMUM_QOS0 and self._bytes < MAXIMUM_QOS0_BYTES:
            self._qos0 += 1
            return True
        self._counts["dropped_qos0"] += 1
        self._has_dropped = True
        return False

    def confirmed(self, connection: int, acknowledged: int, caught_up: bool) -> None:
        """A PINGRESP: its place in the line is after everything received before it; only the newest counts."""
        lost, self._has_dropped = self._has_dropped, False
        last = self._arrivals[-1] if self._arrivals else None
        if isinstance(last, Confirmed):
            lost |= last.lost
            self._arrivals.pop()
        self.put(Confirmed(connection, acknowledged, caught_up, lost))

    def disconnected(self, connection: int, reason: str) -> None:  # noqa: ARG002  (a listener's method)
        """The connection is gone."""
        self.is_subscribed = False

    # The desk's side.

    def order(self, order: Order) -> None:
        """Queue a command behind all that was received before.

        Raises:
            Refusal: ``unavailable``, where too many wait already.
        """
        if self._orders >= MAXIMUM_ORDERS:
            raise Refusal("unavailable", f"{self._orders} commands wait already: ask again later")
        if not self._arrivals:
            self._since = perf_counter()
        self._orders += 1
        self._arrivals.append(order)
        self._waiting.set()

    # The line's side.

    def put(self, mark: Mark) -> None:
        """Queue a mark."""
        self._arrivals.append(mark)
        self._waiting.set()

    async def wait(self) -> None:
        """Return once something has arrived."""
        if not self._arrivals:
            self._waiting.clear()
            await self._waiting.wait()

    def wake(self) -> None:
        """Let `wait` return although nothing has arrived."""
        self._waiting.set()

    def take(self, limit: int) -> Mark | list[Arrival | Order]:
        """Return the mark that stands first, or at most ``limit`` arrivals up to the next mark."""
        arrivals = self._arrivals
        now = perf_counter()
        self.waited_seconds, self._since = now - self._since, now
        taken: list[Arrival | Order] = []
        orders = 0
        for _ in range(min(limit, len(arrivals))):
            head = arrivals.popleft()
            if isinstance(head, tuple):  # as most are
                if head[1] is None:
                    self._leave(head[0])
            elif isinstance(head, Order):
                orders += 1
            else:
                if not taken:
                    return head
                arrivals.appendleft(head)
                break
            taken.append(head)
        self._orders -= orders
        self._release(len(taken) - orders)
        return taken

    def _leave(self, inbound: Input) -> None:
        if _is_keepalive(inbound):
            self._empty_topics.discard(inbound.topic)
        else:
            self._qos0 -= 1

    def _release(self, count: int) -> None:
        """Give the room of so many messages back; those of one read are counted alike."""
        while count:
            waiting, size_bytes = self._reads.popleft()
            if waiting > count:
                left_bytes = size_bytes * (waiting - count) // waiting
                self._reads.appendleft((waiting - count, left_bytes))
                self._bytes -= size_bytes - left_bytes
                return
            count -= waiting
            self._bytes -= size_bytes


def _is_keepalive(inbound: Input) -> bool:
    """Tell whether one of several equal messages is enough; an empty request is not, each is to be answered."""
    return not inbound.payload and inbound.response_topic is None
