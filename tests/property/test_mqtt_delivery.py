"""Connections break at any moment, the broker keeps the session or loses it: outputs and receipts come out right.

The broker here is a few rules of MQTT 5: what one connection may still owe, which packet ids are in use, what DUP says.
"""

from collections import deque
from collections.abc import Callable

import mqtt5
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from mqtt5 import ConnAckPacket, ConnectPacket, PingRespPacket, PubAckPacket, PublishPacket, QoS, SubAckPacket

from bridge.adapters.mqtt.connection import Confirmed, Connection, Ended, Received, Settled
from bridge.adapters.mqtt.handshake import SUBSCRIBE_PACKET_ID
from bridge.adapters.mqtt.outbox import Outbox
from bridge.domain.values import Output, Receipt

SUBACK = SubAckPacket(SUBSCRIBE_PACKET_ID, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write()
CODES = [
    mqtt5.PubAckReasonCode.SUCCESS,
    mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS,
    mqtt5.PubAckReasonCode.QUOTA_EXCEEDED,
]


Copy = tuple[str, bytes]
"""Topic and payload: no two are alike."""


class Delivery(RuleBasedStateMachine):
    """One outbox over many connections, and the broker at the other end of each."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.connections = 0
        self.added: list[Copy] = []  # in order
        self.batches: list[list[Copy]] = []
        self.settled: dict[int, list[int]] = {}
        self.codes: dict[Copy, int] = {}  # with which the broker acknowledged it
        self.heard: list[Copy] = []  # in the order in which the broker first heard them

    @initialize()
    def begin(self) -> None:
        self.connect(is_kept=False, quota=5)

    # The connection.

    @rule(is_kept=st.booleans(), quota=st.integers(1, 6))
    def connect(self, is_kept: bool, quota: int) -> None:
        """The connection breaks, and another one begins."""
        self.is_kept = is_kept
        self.quota = quota
        self.connections += 1
        self.owed: dict[int, Copy] = {}  # packet id -> what the broker has not acknowledged
        self.sent: list[int] = []  # places of those that came, in `added`
        self.delivered: deque[Receipt] = deque()  # what the bridge has not acknowledged
        self.unfinished: list[Receipt] = []  # what the line is not done with
        self.acknowledged = 0  # as the broker has seen
        self.pings: deque[int] = deque()  # what it had seen when each PINGREQ came
        self.connection = Connection(self.connections, ConnectPacket("b"), [mqtt5.TopicFilter("#")], self.outbox)
        self.write()
        self.read(ConnAckPacket(session_present=is_kept, receive_max=quota).write() + SUBACK)
        self.write()

    def read(self, data: bytes) -> None:
        for event in self.connection.receive(data):
            assert not isinstance(event, Ended), event
            if isinstance(event, Received):
                receipts = [receipt for _, receipt in event.publishes if receipt is not None]
                self.delivered += receipts
                self.unfinished += receipts
            elif isinstance(event, Settled):
                for batch in event.batches:
                    batch.settled(batch.codes)
            elif isinstance(event, Confirmed):
                assert event.acknowledged == self.pings.popleft()

    def write(self) -> None:
        pieces: list[bytes] = []
        for batch in self.connection.take(pieces):
            batch.settled(batch.codes)
        left = memoryview(b"".join(pieces))
        while left:
            packet, size = mqtt5.read(left)
            left = left[size:]
            if isinstance(packet, PublishPacket):
                self.hear(packet)
            elif isinstance(packet, PubAckPacket | mqtt5.PubRecPacket):
                receipt = self.delivered.popleft()
                assert receipt.packet_id == packet.packet_id
                assert receipt.done
                self.acknowledged += 1
            elif isinstance(packet, mqtt5.PingReqPacket):
                self.pings.append(self.acknowledged)

    def hear(self, packet: PublishPacket) -> None:
        copy = (packet.topic, packet.payload)
        self.sent.append(self.added.index(copy))
        is_copy = copy in self.heard
        assert packet.duplicate == (is_copy and self.is_kept)
        assert (("redelivered", "1") in packet.user_properties) == is_copy
        if not is_copy:
            self.heard.append(copy)
        if packet.packet_id is None:
            assert not is_copy
            self.codes[copy] = 0
        else:
            assert packet.packet_id not in self.owed
            self.owed[packet.packet_id] = copy

    # Outputs.

    @rule(kinds=st.lists(st.tuples(st.sampled_from([0, 1, 1]), st.sampled_from([1, 1, 3, 12])), max_size=8))
    def publish(self, kinds: list[tuple[int, int]]) -> None:
        number = len(self.batches)
        outputs = []
        for index, (qos, topics) in enumerate(kinds):
            first, *others = [f"t{topic}" for topic in range(topics)]
            outputs.append(Output(first, b"%200d.%d" % (number, index), qos, "e", others=tuple(others)))
        copies = [(topic, output.payload) for output in outputs for topic in output.topics]
        self.batches.append(copies)
        self.added += copies
        self.outbox.add(outputs, self.settle(number))

    def settle(self, number: int) -> Callable[[list[int]], None]:
        def settled(codes: list[int]) -> None:
            assert number not in self.settled
            self.settled[number] = list(codes)

        return settled

    @rule()
    def flush(self) -> None:
        self.write()

    @precondition(lambda self: self.owed)
    @rule(data=st.data(), code=st.sampled_from(CODES))
    def acknowledge_output(self, data: st.DataObject, code: mqtt5.PubAckReasonCode) -> None:
        packet_id = data.draw(st.sampled_from(sorted(self.owed)))
        self.codes[self.owed.pop(packet_id)] = int(code)
        self.read(PubAckPacket(packet_id, reason_code=code).write())

    # Inputs.

    @rule(count=st.integers(1, 4), qos=st.sampled_from([QoS.AT_LEAST_ONCE, QoS.EXACTLY_ONCE]))
    def deliver(self, count: int, qos: QoS) -> None:
        taken = {receipt.packet_id for receipt in self.delivered}
        free = [packet_id for packet_id in range(1, 400) if packet_id not in taken][:count]
        self.read(b"".join(PublishPacket("t", b"x", qos=qos, packet_id=packet_id).write() for packet_id in free))

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data())
    def finish_input(self, data: st.DataObject) -> None:
        self.unfinished.pop(data.draw(st.integers(0, len(self.unfinished) - 1))).done = True

    @rule()
    def ping(self) -> None:
        self.connection.ping()
        self.write()

    @precondition(lambda self: self.pings)
    @rule()
    def answer_ping(self) -> None:
        self.read(PingRespPacket().write())

    # What always holds.

    @invariant()
    def no_more_than_the_broker_allows(self) -> None:
        if self.connections:
            assert len(self.owed) <= self.quota

    @invariant()
    def order_holds_over_all_connections_and_within_each(self) -> None:
        assert self.heard == self.added[: len(self.heard)]
        if self.connections:
            assert self.sent == sorted(set(self.sent))

    @invariant()
    def settled_is_what_is_acknowledged(self) -> None:
        for number, codes in self.settled.items():
            assert codes == [self.codes[copy] for copy in self.batches[number]]

    def teardown(self) -> None:
        """In the end everything is settled: nothing is lost on the way."""
        if not self.connections:
            return
        for _ in range(len(self.added) + 2):
            self.write()
            for packet_id in list(self.owed):
                self.codes[self.owed.pop(packet_id)] = 0
                self.read(PubAckPacket(packet_id).write())
        assert self.heard == self.added
        assert len(self.settled) == len(self.batches)
        self.settled_is_what_is_acknowledged()


Delivery.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


@pytest.mark.usefixtures("few_ids")
class TestDelivery(Delivery.TestCase):  # type: ignore[misc, name-defined]  # made by Hypothesis
    """With eight packet ids in all, so that they come round."""

    @pytest.fixture
    def few_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bridge.adapters.mqtt.outbox.HIGHEST_PACKET_ID", 8)
