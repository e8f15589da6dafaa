from collections.abc import Sequence

import mqtt5
import pytest

from bridge.adapters.mqtt.outbox import HIGHEST_PACKET_ID, Outbox
from bridge.domain.values import Output


class Story:
    """An outbox, the packets that left it, and the codes of each batch that was settled."""

    def __init__(self) -> None:
        self.now_seconds = 100.0
        self.outbox = Outbox(lambda: self.now_seconds)
        self.settled: list[list[int]] = []

    def connect(self, *, session_present: bool = True, quota: int = 65_535, largest: int = 1_000_000) -> None:
        self.outbox.begin(session_present=session_present, receive_maximum=quota, largest_packet_bytes=largest)

    def add(self, *payloads: bytes, qos: int = 1) -> None:
        self.outbox.add([Output("t", payload, qos, "e") for payload in payloads], self.settled.append)

    def sent(self) -> list[mqtt5.PublishPacket]:
        pieces: list[bytes] = []
        for batch in self.outbox.take(pieces):
            batch.settled(batch.codes)
        packets: list[mqtt5.PublishPacket] = []
        left = memoryview(b"".join(pieces))
        while left:
            packet, size = mqtt5.read(left)
            left = left[size:]
            if isinstance(packet, mqtt5.PublishPacket):
                packets.append(packet)
        return packets

    def puback(self, *packet_ids: int, code: int = 0) -> None:
        for packet_id in packet_ids:
            batch = self.outbox.settle(packet_id, code)
            if batch is not None:
                batch.settled(batch.codes)


@pytest.fixture
def story() -> Story:
    return Story()


def shown(packets: Sequence[mqtt5.PublishPacket]) -> list[tuple[int | None, bytes, bool]]:
    return [(packet.packet_id, packet.payload, packet.duplicate) for packet in packets]


def test_nothing_leaves_before_a_connection(story: Story) -> None:
    story.add(b"a")
    assert story.sent() == []


def test_bytes_that_wait_are_counted_until_they_leave(story: Story) -> None:
    for state in (b"online", b"off"):
        story.outbox.add_state(Output("s", state), lambda _: None)
    story.add(bytes(100), bytes(50))
    assert story.outbox.waiting_bytes == 153
    story.connect(quota=2)
    story.sent()
    assert story.outbox.waiting_bytes == 50
    story.puback(1, 2)
    story.sent()
    assert story.outbox.waiting_bytes == 0


def test_no_outputs_are_settled_at_once(story: Story) -> None:
    story.outbox.add([], story.settled.append)
    assert story.settled == [[]]


def test_a_batch_is_settled_once_with_its_codes_in_order(story: Story) -> None:
    story.connect()
    story.add(b"a", b"b", b"c")
    assert shown(story.sent()) == [(1, b"a", False), (2, b"b", False), (3, b"c", False)]
    story.puback(3, code=0x10)
    story.puback(1)
    assert story.settled == []
    story.puback(2, code=0x87)
    story.puback(2)
    assert story.settled == [[0, 0x87, 0x10]]


def test_qos_0_is_settled_when_sent(story: Story) -> None:
    story.connect()
    story.add(b"a", b"b", qos=0)
    assert story.settled == []
    assert [packet.packet_id for packet in story.sent()] == [None, None]
    assert story.settled == [[0, 0]]


def test_the_quota_holds_back_and_pubacks_let_go(story: Story) -> None:
    story.connect(quota=2)
    story.add(b"a", b"b", b"c", b"d")
    assert [packet.payload for packet in story.sent()] == [b"a", b"b"]
    assert story.sent() == []
    assert story.outbox.waiting == 2
    story.puback(1)
    assert [packet.payload for packet in story.sent()] == [b"c"]


def test_qos_0_does_not_overtake(story: Story) -> None:
    story.connect(quota=1)
    story.add(b"a", b"b")
    story.add(b"c", qos=0)
    assert [packet.payload for packet in story.sent()] == [b"a"]
    story.puback(1)
    assert [packet.payload for packet in story.sent()] == [b"b"]
    story.puback(2)
    assert [packet.payload for packet in story.sent()] == [b"c"]


def test_packet_ids_in_use_are_skipped(story: Story) -> None:
    story.connect()
    story.add(*[b"x"] * HIGHEST_PACKET_ID)
    packets: list[bytes] = []
    story.outbox.take(packets)
    assert len(packets) == HIGHEST_PACKET_ID
    story.puback(7, 9)
    story.add(b"a", b"b", b"c")
    assert shown(story.sent()) == [(7, b"a", False), (9, b"b", False)]
    story.puback(HIGHEST_PACKET_ID)
    assert shown(story.sent()) == [(HIGHEST_PACKET_ID, b"c", False)]


def test_a_resumed_session_gets_the_same_ids_with_dup_and_then_the_backlog(story: Story) -> None:
    story.connect(quota=2)
    story.add(b"a", b"b", b"c")
    story.sent()
    story.connect(session_present=True)
    assert shown(story.sent()) == [(1, b"a", True), (2, b"b", True), (3, b"c", False)]
    story.puback(1, 2, 3)
    assert story.settled == [[0, 0, 0]]


def test_a_lost_session_gets_them_as_new_messages(story: Story) -> None:
    story.connect()
    story.add(b"a", b"b")
    story.sent()
    story.connect(session_present=False)
    assert shown(story.sent()) == [(1, b"a", False), (2, b"b", False)]


def test_order_holds_over_two_breaks_and_a_smaller_quota(story: Story) -> None:
    story.connect(quota=4)
    story.add(b"a", b"b", b"c", b"d", b"e")
    story.sent()
    story.connect(quota=2)
    assert [packet.payload for packet in story.sent()] == [b"a", b"b"]
    story.connect(quota=2)
    assert shown(story.sent()) == [(1, b"a", True), (2, b"b", True)]
    story.puback(1, 2)
    assert shown(story.sent()) == [(3, b"c", True), (4, b"d", True)]
    story.puback(4, 3)
    assert shown(story.sent()) == [(5, b"e", False)]


def test_a_puback_for_what_this_connection_did_not_send_changes_nothing(story: Story) -> None:
    story.connect()
    story.add(b"a")
    story.sent()
    story.connect()
    story.puback(1)
    assert story.settled == []
    assert shown(story.sent()) == [(1, b"a", True)]


def test_what_cannot_be_sent_is_settled_with_a_code_and_stops_nothing(story: Story) -> None:
    story.connect(largest=100)
    outputs = [Output("a/+", b"", 1, "e"), Output("t", b"x" * 200, 1, "e"), Output("t", b"ok", 1, "e")]
    story.outbox.add(outputs, story.settled.append)
    assert [packet.payload for packet in story.sent()] == [b"ok"]
    story.puback(*range(1, 4))
    assert story.settled == [[0x90, 0x95, 0]]
    assert (story.outbox.refused, story.outbox.refusal) == (2, (0x95, "t"))


def fan_out(story: Story, *topics: str, payload: bytes = bytes(200)) -> None:
    first, *others = topics
    story.outbox.add([Output(first, payload, 1, "e", others=tuple(others))], story.settled.append)


def test_an_output_goes_to_each_of_its_topics_as_far_as_there_is_room(story: Story) -> None:
    fan_out(story, "a", "b", "c", "d")
    story.add(b"after")
    assert (story.outbox.waiting, story.outbox.waiting_bytes) == (5, 805)
    story.connect(quota=3)
    assert [packet.topic for packet in story.sent()] == ["a", "b", "c"]
    assert (story.outbox.waiting, story.outbox.waiting_bytes) == (2, 205)
    story.puback(1, code=0x87)
    story.puback(3)
    assert [packet.topic for packet in story.sent()] == ["d", "t"]
    story.puback(4, code=0x10)
    assert story.settled == []
    story.puback(2)
    assert story.settled == [[0x87, 0, 0, 0x10]]
    assert story.outbox.refusal == (0x87, "a")


def test_copies_that_were_not_acknowledged_are_sent_again_on_their_own_topics(story: Story) -> None:
    fan_out(story, "a", "b", "c")
    story.connect(quota=2)
    story.sent()
    story.puback(1)
    story.connect(quota=2)
    packets = story.sent()
    assert [(packet.topic, packet.packet_id, packet.duplicate) for packet in packets] == [
        ("b", 2, True),
        ("c", 3, False),
    ]
    assert [("redelivered", "1") in packet.user_properties for packet in packets] == [True, False]


def test_one_topic_that_cannot_be_sent_settles_its_own_copy_alone(story: Story) -> None:
    story.connect()
    fan_out(story, "a", "b/+", "ü", "d")
    assert [packet.topic for packet in story.sent()] == ["a", "ü", "d"]
    story.puback(1, *range(2, 5))
    assert story.settled == [[0, 0x90, 0, 0]]


def test_the_copies_of_an_output_share_all_bytes_but_those_of_topic_and_packet_id(story: Story) -> None:
    story.connect()
    fan_out(story, *(f"users/endpoints/u{number}" for number in range(500)))
    pieces: list[bytes] = []
    story.outbox.take(pieces)
    large = [piece for piece in pieces if len(piece) > 100]
    assert len(large) == 500
    assert len({id(piece) for piece in large}) == 1
    assert sum(map(len, pieces)) - sum(map(len, large)) < 500 * 30


def test_packet_ids_come_round_within_the_copies_of_an_output(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.adapters.mqtt.outbox.HIGHEST_PACKET_ID", 5)
    story.connect()
    for _ in range(3):
        fan_out(story, "a", "b", "c")
        packets = story.sent()
        assert [packet.topic for packet in packets] == ["a", "b", "c"]
        story.puback(*(packet.packet_id or 0 for packet in packets))
    assert story.settled == [[0, 0, 0]] * 3


def test_refusals_are_counted_and_the_last_is_kept(story: Story) -> None:
    story.connect()
    story.add(b"a", b"b", b"c")
    story.sent()
    story.puback(1, code=0x10)
    assert story.outbox.refused == 0
    story.puback(2, code=0x97)
    story.puback(3, code=0x87)
    assert (story.outbox.refused, story.outbox.refusal) == (2, (0x87, "t"))


def test_the_state_goes_before_the_backlog_and_replaces_an_older_one(story: Story) -> None:
    story.add(b"a")
    story.outbox.add_state(Output("s", b"online", retain=True), story.settled.append)
    story.outbox.add_state(Output("s", b"offline", retain=True), story.settled.append)
    story.connect()
    packets = story.sent()
    assert [packet.payload for packet in packets] == [b"offline", b"a"]
    assert [packet.retain for packet in packets] == [True, False]


def expiring(story: Story, *seconds: int) -> None:
    outputs = [Output("t", b"%d" % left, 1, "e", expiry_seconds=left) for left in seconds]
    story.outbox.add(outputs, story.settled.append)


def lives(packets: Sequence[mqtt5.PublishPacket]) -> list[int | None]:
    return [packet.message_expiry_interval for packet in packets]


def test_what_waits_for_a_connection_leaves_with_the_time_that_is_left_or_not_at_all(story: Story) -> None:
    expiring(story, 5, 10, 11, 0)
    story.now_seconds += 9.5
    story.connect()
    assert lives(story.sent()) == [1, 2, None]
    story.puback(*range(1, 5))
    assert story.settled == [[0x10, 0, 0, 0]]


def test_what_leaves_at_once_has_all_its_time(story: Story) -> None:
    story.connect()
    expiring(story, 30)
    story.now_seconds += 0.2
    assert lives(story.sent()) == [30]


@pytest.mark.parametrize("session_present", [True, False])
def test_a_copy_is_sent_also_when_expired_since_the_broker_may_hold_the_first(
    story: Story, session_present: bool
) -> None:
    story.connect()
    expiring(story, 5, 60)
    story.sent()
    story.now_seconds += 20
    story.connect(session_present=session_present)
    packets = story.sent()
    assert lives(packets) == [1, 40]
    assert all(("redelivered", "1") in packet.user_properties for packet in packets)
    story.now_seconds += 10
    story.connect(session_present=session_present)
    assert lives(story.sent()) == [1, 30]
