"""What the bridge still has to tell the broker: it outlives every connection, and knows no socket.

An output waits in the backlog, goes into the window when it is sent at QoS 1, and leaves it with its PUBACK. When a
connection ends, the window is sent again before anything new, marked as redelivered: with DUP where the broker kept the
session, as new messages where it did not (MQTT 5 section 4.4). Packet ids stay with their outputs either way.

What expires (section 3.3.2.3.3) leaves with the time that it has left. Once expired it is not sent for the first time
any more; a copy is, since section 4.4 demands it, with one second.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count, repeat
from typing import Final

from msgspec.structs import replace

from bridge.adapters.mqtt.handshake import LARGEST_PACKET_BYTES, SUBSCRIBE_PACKET_ID
from bridge.adapters.mqtt.publish import encode, encode_copies
from bridge.domain.values import Output

HIGHEST_PACKET_ID: Final = SUBSCRIBE_PACKET_ID - 1

NO_MATCHING_SUBSCRIBERS: Final = 0x10
TOPIC_NAME_INVALID: Final = 0x90
PACKET_TOO_LARGE: Final = 0x95
_LEAST_FAULT: Final = 0x80  # reason codes from here on are refusals (section 2.4)


class Batch:
    """The copies of the outputs of one `publish` call.

    Attributes:
        codes: a reason code for each copy, in order; 0 until another is known.
        left: how many copies are not settled yet.
        settled: to be called with ``codes`` when none is left.
        added_seconds: when it came, on the outbox's clock.
        is_state: the bridge's own state.
    """

    __slots__ = ("added_seconds", "codes", "is_state", "left", "settled")

    def __init__(
        self, size: int, settled: Callable[[list[int]], None], added_seconds: float, *, is_state: bool = False
    ) -> None:
        self.codes = [0] * size
        self.left = size
        self.settled = settled
        self.added_seconds = added_seconds
        self.is_state = is_state


_Output = tuple[Output, Batch, int, int]  # its copies' codes begin at this place of the batch's; copies sent
_Copy = tuple[Output, Batch, int, str]  # the place of its code, its topic


class Outbox:
    """Outputs on their way, in the order in which they were added: a copy for each of an output's topics.

    Attributes:
        largest_packet_bytes: the largest packet that the broker takes, as it said last.
        waiting: copies in the backlog, never yet sent.
        waiting_bytes: payload bytes in the backlog; what several copies share counts for each.
        refused: how many copies were settled with a refusal so far.
        refusal: reason code and topic of the last of these.

    Args:
        clock: a steady clock in seconds, for what expires.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._backlog: deque[_Output] = deque()
        self._window: dict[int, _Copy] = {}  # packet id -> sent on this connection, not acknowledged; oldest first
        self._again: deque[tuple[int, _Copy]] = deque()  # sent on an earlier connection, to be sent before the backlog
        self._duplicate = False
        self._quota = 0
        self._last_id = 0
        self.largest_packet_bytes = LARGEST_PACKET_BYTES
        self.waiting = 0
        self.waiting_bytes = 0
        self.refused = 0
        self.refusal = (0, "")

    def add(self, outputs: Sequence[Output], settled: Callable[[list[int]], None]) -> None:
        """Append outputs to the backlog; no outputs are settled at once."""
        if not outputs:
            settled([])
            return
        batch = Batch(0, settled, self._clock())
        place = 0
        for output in outputs:
            copies = 1 + len(output.others)
            self._backlog.append((output, batch, place, 0))
            self.waiting_bytes += copies * len(output.payload)
            place += copies
        batch.codes, batch.left = [0] * place, place
        self.waiting += place

    def add_state(self, output: Output, settled: Callable[[list[int]], None]) -> None:
        """Put the bridge's own state before the whole backlog, and in the place of an older one there."""
        if self._backlog and self._backlog[0][1].is_state:
            older = self._backlog.popleft()[0]
            self.waiting -= 1
            self.waiting_bytes -= len(older.payload)
        self.waiting += 1
        self.waiting_bytes += len(output.payload)
        self._backlog.appendleft((output, Batch(1, settled, self._clock(), is_state=True), 0, 0))

    def begin(self, *, session_present: bool, receive_maximum: int, largest_packet_bytes: int) -> None:
        """Start a connection with what its CONNACK says.

        Args:
            session_present: the broker kept the session.
            receive_maximum: how many QoS 1 publishes may be unacknowledged on one connection (section 4.9).
            largest_packet_bytes: the largest packet the broker takes (section 3.2.2.3.6).
        """
        self._again.extendleft(reversed(self._window.items()))
        self._window.clear()
        self._duplicate = session_present
        self._quota = min(receive_maximum, HIGHEST_PACKET_ID)
        self.largest_packet_bytes = largest_packet_bytes

    def take(self, packets: list[bytes]) -> list[Batch]:
        """Append to ``packets`` what may be sent now.

        An output that no broker would take, or that has expired, is settled here with the code that a broker would
        answer. Order comes first: at QoS 0, too, an output waits for those before it.

        Returns:
            The batches that this settles, for the caller to call once the packets are with the transport.
        """
        finished: list[Batch] = []
        window = self._window
        again = self._again
        backlog = self._backlog
        room = self._quota - len(window)
        while room > 0:
            if again:
                packet_id, copy = again.popleft()
                duplicate, is_again = self._duplicate, True
            elif backlog:
                output, batch, place, sent = backlog.popleft()
                topic = output.topic
                if output.others:
                    copies = self._fan_out(output, batch, place, sent, room, packets)
                    if copies:
                        room -= copies
                        continue
                    if sent:
                        topic = output.others[sent - 1]
                    if sent < len(output.others):
                        backlog.appendleft((output, batch, place, sent + 1))
                self.waiting -= 1
                self.waiting_bytes -= len(output.payload)
                copy = (output, batch, place + sent, topic)
                packet_id = 0
                if output.qos:
                    packet_id = self._last_id + 1
                    if packet_id > HIGHEST_PACKET_ID or packet_id in window:
                        packet_id = self._next_id()
                    self._last_id = packet_id
                duplicate = is_again = False
            else:
                break
            output, batch, place, topic = copy
            code = 0
            if output.expiry_seconds:
                left_seconds = math.ceil(output.expiry_seconds - self._clock() + batch.added_seconds)
                if left_seconds <= 0 and not is_again:
                    code = NO_MATCHING_SUBSCRIBERS
                output = replace(output, expiry_seconds=max(left_seconds, 1))
            if is_again and not batch.is_state:
                # The broker may have passed it on already: whoever hears it twice, behind newer ones, can tell.
                output = replace(output, redelivered=True)
            try:
                packet = b"" if code else encode(output, packet_id, topic, duplicate=duplicate, is_state=batch.is_state)
            except ValueError:
                packet, code = b"", TOPIC_NAME_INVALID
            if len(packet) > self.largest_packet_bytes:
                code = PACKET_TOO_LARGE
            if code:
                self._note(batch, place, code, topic)
            else:
                packets.append(packet)
                if packet_id:
                    window[packet_id] = copy
                    room -= 1
                    continue
            batch.left -= 1
            if not batch.left:
                finished.append(batch)
        return finished

    def _fan_out(self, output: Output, batch: Batch, place: int, sent: int, room: int, packets: list[bytes]) -> int:
        """Send as many more copies of an output as there is room for; returns how many, none where one is unusual."""
        others = output.others
        topics = others[sent - 1 : sent - 1 + room] if sent else (output.topic, *others[: room - 1])
        window = self._window
        last_id = self._last_id + len(topics)
        packet_ids: Sequence[int] = range(self._last_id + 1, last_id + 1)
        if last_id > HIGHEST_PACKET_ID or not window.keys().isdisjoint(packet_ids):
            return 0
        pieces = encode_copies(output, topics, packet_ids, self.largest_packet_bytes)
        if not pieces:
            return 0
        copies = len(topics)
        packets += pieces
        window.update(zip(packet_ids, zip(repeat(output), repeat(batch), count(place + sent), topics), strict=False))
        self._last_id = last_id
        self.waiting -= copies
        self.waiting_bytes -= copies * len(output.payload)
        if sent + copies <= len(others):
            self._backlog.appendleft((output, batch, place, sent + copies))
        return copies

    def settle_all(self, packet_ids: Iterable[int]) -> list[Batch]:
        """Take many PUBACKs that tell of success; see `settle`. Returns the batches whose last ones they were."""
        finished: list[Batch] = []
        window = self._window
        for packet_id in packet_ids:
            copy = window.pop(packet_id, None)
            if copy is not None:
                batch = copy[1]
                batch.left -= 1
                if not batch.left:
                    finished.append(batch)
        return finished

    def settle(self, packet_id: int, code: int) -> Batch | None:
        """Take a PUBACK; one for an unknown packet id changes nothing.

        Returns:
            The batch, where this was the last of its outputs to be acknowledged.
        """
        copy = self._window.pop(packet_id, None)
        if copy is None:
            return None
        _, batch, place, topic = copy
        if code:
            self._note(batch, place, code, topic)
        batch.left -= 1
        return None if batch.left else batch

    def _note(self, batch: Batch, place: int, code: int, topic: str) -> None:
        batch.codes[place] = code
        if code >= _LEAST_FAULT:
            self.refused += 1
            self.refusal = (code, topic)

    def _next_id(self) -> int:
        # Only the window can hold an id here: nothing of the backlog is sent while something is to be sent again. And
        # it has a free one, since the quota is at most their number.
        packet_id = self._last_id
        while True:
            packet_id = packet_id + 1 if packet_id < HIGHEST_PACKET_ID else 1
            if packet_id not in self._window:
                return packet_id
