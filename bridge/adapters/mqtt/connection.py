"""One network connection to the broker in MQTT 5: bytes in, events out, and bytes to send. No socket, no clock.

Two rules stand over everything here. PUBACKs leave in the order in which the deliveries came (section 4.6), however
the line finishes them. And a PINGRESP tells how far they got: the broker reads in order, so it has seen every PUBACK
that was written before the PINGREQ which it answers.

The bridge subscribes at QoS 1, but whoever had the session before it may have left it deliveries at QoS 2. They are
taken like the others: PUBREC stands in the place of PUBACK, and every PUBREL is answered (section 4.3.3).
"""

import re
import struct
from collections import deque
from enum import Enum
from typing import Final, NamedTuple

from mqtt5 import (
    ConnAckPacket,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    Packet,
    PingReqPacket,
    PingRespPacket,
    PubAckPacket,
    PubAckReasonCode,
    PubCompPacket,
    PublishPacket,
    PubRelPacket,
    SubAckPacket,
    TopicFilter,
    read,
)

from bridge.adapters.mqtt import reasons
from bridge.adapters.mqtt.handshake import (
    LARGEST_PACKET_BYTES,
    Terms,
    answers,
    lack,
    refusal,
    refused_subscriptions,
    subscribe_packet,
    terms,
)
from bridge.adapters.mqtt.outbox import Batch, Outbox
from bridge.domain.inputs import Input
from bridge.domain.values import Receipt

ACKNOWLEDGEMENTS_PER_PING: Final = 20_000
"""Packet ids come round after 65,535 deliveries: the line must learn well before that which PUBACKs arrived."""

_PINGREQ: Final = PingReqPacket().write()
# Success without properties may leave out its code (section 3.4.2.1), so that the whole packet is a word of 32 bits.
_PUBACK: Final = 0x4002_0000
_PUBREC: Final = 0x5002_0000
_PUBACK_TYPE: Final = 0x40
_PUBACKS: Final = re.compile(rb"(?:\x40\x02..)+", re.DOTALL)  # a broker acknowledges many outputs after one another
_QOS_2: Final = 0x04  # in the first byte of a PUBLISH packet (section 3.3.1)
# The codec's enums are no int enums, whatever its stubs say: not hashable, and always true.
_SUCCESS: Final = PubAckReasonCode.SUCCESS

Publishes = list[tuple[Input, Receipt | None]]


class Connected(NamedTuple):
    """The broker accepted the connection, on these terms."""

    terms: Terms


class Subscribed(NamedTuple):
    """Every subscription was granted at QoS 1 or more."""


class Received(NamedTuple):
    """Publishes in order of arrival, and the bytes that they had on the wire; the receipt is None at QoS 0."""

    publishes: Publishes
    size_bytes: int


class Settled(NamedTuple):
    """Batches whose last PUBACK came."""

    batches: list[Batch]


class Confirmed(NamedTuple):
    """The broker has seen the PUBACKs of all receipts up to this number.

    ``caught_up``: Receive Maximum left it room for more deliveries then, so nothing waited there.
    """

    acknowledged: int
    caught_up: bool


class Ended(NamedTuple):
    """The connection is over: write what is left to send, then close. ``reason`` names the fault and the remedy."""

    reason: str


Event = Connected | Subscribed | Received | Settled | Confirmed | Ended


class _State(Enum):
    CONNECTING = "waits for CONNACK"
    SUBSCRIBING = "waits for SUBACK"
    READY = "subscribed"
    ENDED = "over"


_ESTABLISHED: Final = (_State.SUBSCRIBING, _State.READY)


class Connection:
    """The client's side of one connection; its first bytes to send are the CONNECT packet.

    Args:
        number: names the connection in its receipts.
        connect: the CONNECT packet.
        filters: the subscriptions, sent after every CONNACK; at least one.
        outbox: what is to be published; outlives the connection.

    More deliveries than the CONNECT packet's Receive Maximum allows are taken all the same: the broker is trusted in
    this, and its packet ids bound them.
    """

    def __init__(self, number: int, connect: ConnectPacket, filters: list[TopicFilter], outbox: Outbox) -> None:
        self.number = number
        self.acknowledged = 0
        self._connect = connect
        self._largest_bytes = connect.max_packet_size or LARGEST_PACKET_BYTES
        self._filters = filters
        self._outbox = outbox
        self._state = _State.CONNECTING
        self._control = [connect.write()]
        self._unread = b""
        self._receipts: deque[Receipt] = deque()
        self._exactly_once: set[int] = set()  # numbers of the receipts that came at QoS 2
        self._delivered = 0
        self._ping_wanted = False
        self._acknowledged_at_ping = 0
        self.ping_outstanding = False

    def ping(self) -> None:
        """Send a PINGREQ with the next bytes, or once the outstanding one is answered."""
        self._ping_wanted = True

    def disconnect(self, code: DisconnectReasonCode) -> None:
        """Let DISCONNECT be the last packet to send. The broker publishes the will unless the code is 0."""
        self._control.append(DisconnectPacket(reason_code=code).write())
        self._state = _State.ENDED

    def receive(self, data: bytes) -> list[Event]:
        """Take the bytes of one read.

        Returns:
            What they say, in wire order, neighbouring publishes in one event; `Settled` stands after those, at most
            once; `Ended` is the last event ever.
        """
        if self._state is _State.ENDED:
            return []
        if self._unread:
            data = self._unread + data
            self._unread = b""
        events: list[Event] = []
        publishes: Publishes = []
        finished: list[Batch] = []
        ended: Ended | None = None
        established = self._state in _ESTABLISHED
        view = memoryview(data)
        size = len(data)
        offset = told = 0
        while offset < size:
            header = data[offset]
            if header == _PUBACK_TYPE and established:
                pubacks = _PUBACKS.match(data, offset)
                if pubacks is not None:
                    words = struct.unpack(f">{(pubacks.end() - offset) // 4}I", pubacks[0])
                    finished += self._outbox.settle_all([word & 0xFFFF for word in words])
                    offset = pubacks.end()
                    continue
            try:
                packet, used = read(view[offset:])
            except IndexError:
                ended = self._incomplete(data, offset)
                break
            except ValueError as error:
                ended = self._malformed(str(error))
                break
            except BaseException as error:
                # The codec panics on a topic that is not UTF-8, and pyo3's PanicException cannot be imported.
                if type(error).__name__ != "PanicException":
                    raise
                ended = self._malformed("a string is not UTF-8")
                break
            offset += used
            if used > self._largest_bytes:
                ended = self._too_large(used)
                break
            if established and isinstance(packet, PublishPacket):
                packet_id = packet.packet_id
                if packet_id == 0 or packet.topic_alias is not None:
                    ended = self._refuse(packet)
                    break
                receipt = None
                if packet_id is not None:
                    self._delivered += 1
                    receipt = Receipt(self.number, self._delivered, packet_id)
                    self._receipts.append(receipt)
                    if header & _QOS_2:
                        self._exactly_once.add(self._delivered)
                publishes.append((_input_of(packet), receipt))
            elif established and isinstance(packet, PubAckPacket):
                code = packet.reason_code
                batch = self._outbox.settle(packet.packet_id, 0 if code is _SUCCESS else int(code))
                if batch is not None:
                    finished.append(batch)
            else:
                event = self._answer(packet)
                if event is None:
                    continue
                if isinstance(event, Ended):
                    ended = event
                    break
                if publishes:
                    events.append(Received(publishes, offset - told))
                    publishes = []
                    told = offset
                events.append(event)
                established = True
        if publishes:
            events.append(Received(publishes, offset - told))
        if finished:
            events.append(Settled(finished))
        if ended is not None:
            events.append(ended)
        return events

    def take(self, packets: list[bytes], *, hold: bool = False) -> list[Batch]:
        """Append to ``packets`` what is to be written now, in order.

        Args:
            packets: receives whole packets; a piece may hold several, or a part of one.
            hold: only what the connection needs to live; PUBACKs and outputs wait.

        Returns:
            The batches settled by this, for the caller to call once the bytes are with the transport.
        """
        finished: list[Batch] = []
        if self._control:
            packets += self._control
            self._control.clear()
        if self._state not in _ESTABLISHED:
            return finished
        if not hold:
            answers = self._acknowledge()
            if answers:
                packets.append(struct.pack(f">{len(answers)}I", *answers))
        since_ping = self.acknowledged - self._acknowledged_at_ping
        if (self._ping_wanted or since_ping >= ACKNOWLEDGEMENTS_PER_PING) and not self.ping_outstanding:
            packets.append(_PINGREQ)
            self._acknowledged_at_ping = self.acknowledged
            self._ping_wanted = False
            self.ping_outstanding = True
        if not hold:
            finished = self._outbox.take(packets)
        return finished

    def _acknowledge(self) -> list[int]:
        """Return the acknowledgements that may leave, each a packet as a word of 32 bits."""
        receipts, exactly_once = self._receipts, self._exactly_once
        words: list[int] = []
        while receipts and receipts[0].done:
            receipt = receipts.popleft()
            word = _PUBACK | receipt.packet_id
            if exactly_once and receipt.number in exactly_once:
                exactly_once.discard(receipt.number)
                word = _PUBREC | receipt.packet_id
            words.append(word)
        self.acknowledged += len(words)
        return words

    def _answer(self, packet: Packet) -> Event | None:
        match self._state, packet:
            case _State.CONNECTING, ConnAckPacket():
                return self._connack(packet)
            case _State.SUBSCRIBING, SubAckPacket():
                return self._suback(packet)
            case ((_State.SUBSCRIBING | _State.READY), PingRespPacket()) if self.ping_outstanding:
                self.ping_outstanding = False
                unacknowledged = self._delivered - self._acknowledged_at_ping
                return Confirmed(self._acknowledged_at_ping, unacknowledged < self._connect.receive_max)
            case ((_State.SUBSCRIBING | _State.READY), PubRelPacket()):
                self._control.append(PubCompPacket(packet.packet_id).write())
                return None
            case ((_State.SUBSCRIBING | _State.READY), DisconnectPacket()):
                self._state = _State.ENDED
                code, words, server = int(packet.reason_code), packet.reason_str, packet.server_reference
                return Ended(
                    f"The broker ended the connection: {reasons.explain(reasons.DISCONNECT, code, words, server)}"
                )
            case _:
                return self._fail(
                    DisconnectReasonCode.PROTOCOL_ERROR,
                    f"sent a {type(packet).__name__} out of turn. Report this with the broker's name and version.",
                )

    def _connack(self, packet: ConnAckPacket) -> Event:
        refused = refusal(packet)
        if refused is not None:
            self._state = _State.ENDED
            return Ended(refused)
        lacking = lack(packet, self._filters)
        if lacking is not None:
            return self._leave(lacking)
        granted = terms(packet, self._connect)
        self._outbox.begin(
            session_present=granted.session_present,
            receive_maximum=granted.receive_maximum,
            largest_packet_bytes=granted.largest_packet_bytes,
        )
        self._control.append(subscribe_packet(self._filters))
        self._state = _State.SUBSCRIBING
        return Connected(granted)

    def _suback(self, packet: SubAckPacket) -> Event:
        if not answers(packet, self._filters):
            return self._fail(DisconnectReasonCode.PROTOCOL_ERROR, "sent a SUBACK that answers no SUBSCRIBE of ours.")
        refused = refused_subscriptions(packet, self._filters)
        if refused is not None:
            return self._leave(refused)
        self._state = _State.READY
        return Subscribed()

    def _leave(self, reason: str) -> Ended:
        # A bridge that misses one of its inputs would tell wrong things: better none, and its state `offline`.
        self.disconnect(DisconnectReasonCode.DISCONNECT_WITH_WILL_MESSAGE)
        return Ended(reason)

    def _refuse(self, packet: PublishPacket) -> Ended:
        if packet.topic_alias is not None:
            return self._fail(
                DisconnectReasonCode.TOPIC_ALIAS_INVALID,
                "used a topic alias, of which the bridge allows none. Report this with the broker's name and version.",
            )
        return self._fail(DisconnectReasonCode.PROTOCOL_ERROR, "sent a message with packet id 0, which it must not.")

    def _incomplete(self, data: bytes, offset: int) -> Ended | None:
        # How much is to come stands in the first bytes (section 2.1.4): what is too large is not waited for.
        size = 0
        for place, byte in enumerate(data[offset + 1 : offset + 5]):
            size |= (byte & 127) << 7 * place
            if byte < 128 and size + place + 2 > self._largest_bytes:
                return self._too_large(size + place + 2)
            if byte < 128:
                break
        self._unread = data[offset:]
        return None

    def _malformed(self, fault: str) -> Ended:
        remedy = (
            "Check that mqtt.host and mqtt.port name an MQTT 5 listener, not one for WebSockets, and mqtt.tls fits it."
            if self._state is _State.CONNECTING
            else "Report this with the broker's name and version."
        )
        return self._fail(DisconnectReasonCode.MALFORMED_PACKET, f"sent a malformed packet: {fault}. {remedy}")

    def _too_large(self, size: int) -> Ended:
        return self._fail(
            DisconnectReasonCode.PACKET_TOO_LARGE,
            f"sent a packet of {size} bytes where {self._largest_bytes} are allowed. "
            "Report this with the broker's name and version.",
        )

    def _fail(self, code: DisconnectReasonCode, fault: str) -> Ended:
        self.disconnect(code)
        return Ended(f"The broker {fault}")


def _input_of(packet: PublishPacket) -> Input:
    named = packet.user_properties
    if not named and packet.response_topic is None:  # as most are: what they lack is not asked for one by one
        return Input(packet.topic, packet.payload, packet.retain, packet.duplicate)
    properties = dict(named)
    return Input(
        packet.topic,
        packet.payload,
        packet.retain,
        packet.duplicate,
        properties.get("connection", ""),
        properties.get("endpointId", ""),
        packet.response_topic,
        packet.correlation_data,
    )
