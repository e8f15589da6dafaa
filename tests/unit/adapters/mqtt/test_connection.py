import mqtt5
import pytest
from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    PingReqPacket,
    PingRespPacket,
    PubAckPacket,
    PubAckReasonCode,
    PublishPacket,
    QoS,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
    TopicFilter,
)

from bridge.adapters.mqtt.connection import (
    ACKNOWLEDGEMENTS_PER_PING,
    Confirmed,
    Connected,
    Connection,
    Ended,
    Event,
    Received,
    Settled,
    Subscribed,
)
from bridge.adapters.mqtt.handshake import SUBSCRIBE_PACKET_ID
from bridge.adapters.mqtt.outbox import Outbox
from bridge.domain.values import Output, Receipt

FILTERS = [TopicFilter("presence/#"), TopicFilter("rpc/+")]
CONNACK = ConnAckPacket().write()
GRANTED = SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
SUBACK = SubAckPacket(SUBSCRIBE_PACKET_ID, [GRANTED, SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE]).write()
PINGRESP = PingRespPacket().write()


def connection(outbox: Outbox | None = None, number: int = 1) -> Connection:
    return Connection(number, ConnectPacket("bridge", max_packet_size=1000), FILTERS, outbox or Outbox())


def ready(outbox: Outbox | None = None, number: int = 1) -> Connection:
    made = connection(outbox, number)
    made.receive(CONNACK + SUBACK)
    written(made)
    return made


def written(made: Connection, *, hold: bool = False) -> list[mqtt5.Packet]:
    pieces: list[bytes] = []
    made.take(pieces, hold=hold)
    left = memoryview(b"".join(pieces))
    packets: list[mqtt5.Packet] = []
    while left:
        packet, size = mqtt5.read(left)
        packets.append(packet)
        left = left[size:]
    return packets


def pubacks(made: Connection) -> list[int]:
    return [packet.packet_id for packet in written(made) if isinstance(packet, PubAckPacket)]


def publish(packet_id: int | None, payload: bytes = b"x", qos: QoS = QoS.AT_LEAST_ONCE) -> bytes:
    return PublishPacket("a", payload, qos=QoS.AT_MOST_ONCE if packet_id is None else qos, packet_id=packet_id).write()


def deliver(made: Connection, *packet_ids: int, qos: QoS = QoS.AT_LEAST_ONCE) -> list[Receipt]:
    (event,) = made.receive(b"".join(publish(packet_id, qos=qos) for packet_id in packet_ids))
    assert isinstance(event, Received)
    return [receipt for _, receipt in event.publishes if receipt is not None]


def the_end(events: list[Event]) -> str:
    assert isinstance(events[-1], Ended)
    return events[-1].reason


def farewell(made: Connection) -> DisconnectReasonCode:
    packet = written(made)[-1]
    assert isinstance(packet, DisconnectPacket)
    return packet.reason_code


# Handshake.


def test_connect_goes_first_and_alone() -> None:
    outbox = Outbox()
    outbox.add([Output("t", b"{}")], lambda codes: None)
    made = connection(outbox)
    made.ping()
    (packet,) = written(made)
    assert isinstance(packet, ConnectPacket)
    assert written(made) == []


def test_connack_is_answered_by_subscribe_and_the_outbox_flows() -> None:
    outbox = Outbox()
    outbox.add([Output("t", b"{}")], lambda codes: None)
    made = connection(outbox)
    written(made)
    (event,) = made.receive(ConnAckPacket(session_present=True).write())
    assert isinstance(event, Connected)
    assert event.terms.session_present
    subscribe, output = written(made)
    assert isinstance(subscribe, SubscribePacket)
    assert [topic_filter.pattern for topic_filter in subscribe.topic_filters] == ["presence/#", "rpc/+"]
    assert isinstance(output, PublishPacket)
    assert made.receive(SUBACK) == [Subscribed()]


def test_a_broker_that_cannot_carry_the_bridge_is_left_and_the_will_speaks() -> None:
    made = connection()
    events = made.receive(ConnAckPacket(max_qos=QoS.AT_MOST_ONCE).write())
    assert "The broker cannot carry the bridge: QoS not supported (0x9B). Set max_qos 1" in the_end(events)
    assert farewell(made) == DisconnectReasonCode.DISCONNECT_WITH_WILL_MESSAGE


def test_a_refused_connection_names_reason_and_remedy() -> None:
    made = connection()
    events = made.receive(ConnAckPacket(reason_code=ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD).write())
    assert "bad user name or password (0x86). Check mqtt.username" in the_end(events)


@pytest.mark.parametrize(
    ("code", "words"),
    [(SubAckReasonCode.NOT_AUTHORIZED, "0x87"), (SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE, "QoS 0 only")],
)
def test_a_refused_subscription_names_the_filter_and_lets_the_will_speak(code: SubAckReasonCode, words: str) -> None:
    made = connection()
    events = made.receive(CONNACK + SubAckPacket(SUBSCRIBE_PACKET_ID, [GRANTED, code]).write())
    assert "rpc/+: " in the_end(events)
    assert "presence/#" not in the_end(events)
    assert words in the_end(events)
    assert farewell(made) == DisconnectReasonCode.DISCONNECT_WITH_WILL_MESSAGE


@pytest.mark.parametrize("packet_id", [1, SUBSCRIBE_PACKET_ID])
def test_a_suback_that_answers_nothing_ends_the_connection(packet_id: int) -> None:
    made = connection()
    codes = [GRANTED] if packet_id == SUBSCRIBE_PACKET_ID else [GRANTED, GRANTED]
    the_end(made.receive(CONNACK + SubAckPacket(packet_id, codes).write()))
    assert farewell(made) == DisconnectReasonCode.PROTOCOL_ERROR


# Every state times every packet.

PACKETS = {
    "connack": CONNACK,
    "suback": SUBACK,
    "publish": publish(5),
    "publish at QoS 0": publish(None),
    "puback": PubAckPacket(5).write(),
    "pingresp": PINGRESP,
    "disconnect": DisconnectPacket().write(),
    "publish at QoS 2": publish(5, qos=QoS.EXACTLY_ONCE),
    "publish with id 0": b"\x32\x07\x00\x01a\x00\x00\x00x",
    "publish with an alias": PublishPacket("a", b"x", topic_alias=1).write(),
    "pubrel": mqtt5.PubRelPacket(5).write(),
    "pubrec": mqtt5.PubRecPacket(5).write(),
    "pubcomp": mqtt5.PubCompPacket(5).write(),
    "subscribe": SubscribePacket(5, FILTERS).write(),
    "unsuback": mqtt5.UnsubAckPacket(5, [mqtt5.UnsubAckReasonCode.SUCCESS]).write(),
    "unsubscribe": mqtt5.UnsubscribePacket(5, ["a"]).write(),
    "connect": ConnectPacket("x").write(),
    "pingreq": PingReqPacket().write(),
    "auth": mqtt5.AuthPacket(reason_code=mqtt5.AuthReasonCode.CONTINUE_AUTHENTICATION).write(),
}
MESSAGES = {"publish", "publish at QoS 0", "publish at QoS 2", "puback", "pubrel"}
TAKEN = {
    "connecting": {"connack"},
    "subscribing": {"suback", *MESSAGES},
    "ready": MESSAGES,
    "ready, pinged": {"pingresp", *MESSAGES},
}
BEFORE = {"connecting": b"", "subscribing": CONNACK, "ready": CONNACK + SUBACK, "ready, pinged": CONNACK + SUBACK}


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("state", TAKEN)
def test_every_packet_in_every_state(state: str, name: str) -> None:
    made = connection()
    made.receive(BEFORE[state])
    if state == "ready, pinged":
        made.ping()
    written(made)
    events = made.receive(PACKETS[name])
    if name in TAKEN[state]:
        assert not any(isinstance(event, Ended) for event in events)
        return
    the_end(events)
    if name == "disconnect" and state != "connecting":
        assert written(made) == []
    elif name == "publish with an alias" and state != "connecting":
        assert farewell(made) == DisconnectReasonCode.TOPIC_ALIAS_INVALID
    else:
        assert farewell(made) == DisconnectReasonCode.PROTOCOL_ERROR
    assert made.receive(publish(6)) == []


# Deliveries.


def test_publishes_of_one_read_come_together_with_receipts_in_order() -> None:
    made = ready(number=3)
    (event,) = made.receive(publish(9, b"a") + publish(None, b"b") + publish(4, b"c"))
    assert isinstance(event, Received)
    assert [packet.payload for packet, _ in event.publishes] == [b"a", b"b", b"c"]
    first, none, second = [receipt for _, receipt in event.publishes]
    assert none is None
    assert first is not None
    assert second is not None
    assert (first.connection, first.number, first.packet_id, first.done) == (3, 1, 9, False)
    assert (second.connection, second.number, second.packet_id, second.done) == (3, 2, 4, False)


def test_pubacks_leave_in_order_of_arrival() -> None:
    made = ready()
    first, second, third = deliver(made, 30, 10, 20)
    third.done = True
    assert pubacks(made) == []
    first.done = True
    assert pubacks(made) == [30]
    second.done = True
    assert pubacks(made) == [10, 20]
    assert made.acknowledged == 3


def test_a_receipt_of_an_earlier_connection_acknowledges_nothing() -> None:
    outbox = Outbox()
    (old,) = deliver(ready(outbox), 1)
    made = ready(outbox, number=2)
    deliver(made, 1)
    old.done = True
    assert pubacks(made) == []


def test_held_back_only_pings_leave() -> None:
    outbox = Outbox()
    made = ready(outbox)
    (receipt,) = deliver(made, 1)
    receipt.done = True
    outbox.add([Output("t", b"{}")], lambda codes: None)
    made.ping()
    assert [type(packet) for packet in written(made, hold=True)] == [PingReqPacket]
    assert made.receive(PINGRESP) == [Confirmed(0, caught_up=True)]
    assert [type(packet) for packet in written(made)] == [PubAckPacket, PublishPacket]


def test_a_delivery_at_qos_2_is_received_once_the_line_has_it_and_completed_when_released() -> None:
    made = ready()
    deliver(made, 1)
    receipts = deliver(made, 2, qos=QoS.EXACTLY_ONCE) + deliver(made, 3)
    for receipt in receipts:
        receipt.done = True
    assert written(made) == []
    made._receipts[0].done = True
    puback, pubrec, last = written(made)
    assert isinstance(puback, PubAckPacket)
    assert isinstance(pubrec, mqtt5.PubRecPacket)
    assert (pubrec.packet_id, pubrec.reason_code) == (2, mqtt5.PubRecReasonCode.SUCCESS)
    assert isinstance(last, PubAckPacket)
    assert made.receive(mqtt5.PubRelPacket(2).write()) == []
    (pubcomp,) = written(made)
    assert isinstance(pubcomp, mqtt5.PubCompPacket)
    assert pubcomp.packet_id == 2
    (again,) = deliver(made, 2)
    again.done = True
    assert pubacks(made) == [2]


# Pings.


def test_a_pingresp_confirms_what_left_before_its_pingreq() -> None:
    made = ready()
    first, second, third = deliver(made, 1, 2, 3)
    first.done = second.done = True
    made.ping()
    assert [type(packet) for packet in written(made)] == [PubAckPacket, PubAckPacket, PingReqPacket]
    assert made.ping_outstanding
    third.done = True
    assert pubacks(made) == [3]
    assert made.receive(PINGRESP) == [Confirmed(2, caught_up=True)]
    assert not made.ping_outstanding


def test_a_broker_that_may_deliver_no_more_may_hold_something_back() -> None:
    made = Connection(1, ConnectPacket("bridge", receive_max=3), FILTERS, Outbox())
    made.receive(CONNACK + SUBACK)
    receipts = deliver(made, 1, 2)
    made.ping()
    written(made)
    receipts += deliver(made, 3)
    assert made.receive(PINGRESP) == [Confirmed(0, caught_up=False)]
    receipts[0].done = True
    made.ping()
    written(made)
    assert made.receive(PINGRESP) == [Confirmed(1, caught_up=True)]


def test_received_and_confirmed_come_in_wire_order() -> None:
    made = ready()
    made.ping()
    written(made)
    events = made.receive(publish(1) + publish(2) + PINGRESP + publish(3))
    assert [type(event) for event in events] == [Received, Confirmed, Received]


def test_a_ping_goes_by_itself_after_20000_acknowledgements_and_after_the_answer() -> None:
    made = ready()
    for turn in range(2):
        for receipt in deliver(made, *range(1, ACKNOWLEDGEMENTS_PER_PING)):
            receipt.done = True
        assert len(pubacks(made)) == ACKNOWLEDGEMENTS_PER_PING - 1
        assert made.ping_outstanding == (turn > 0)
        (receipt,) = deliver(made, 65_535)
        receipt.done = True
        packets = written(made)
        assert [type(packet) for packet in packets] == [PubAckPacket] + [PingReqPacket] * (turn == 0)
    assert made.receive(PINGRESP) == [Confirmed(ACKNOWLEDGEMENTS_PER_PING, caught_up=True)]
    assert [type(packet) for packet in written(made)] == [PingReqPacket]
    assert made.receive(PINGRESP) == [Confirmed(2 * ACKNOWLEDGEMENTS_PER_PING, caught_up=True)]


# Outputs.


def test_a_puback_settles_its_batch_with_its_code() -> None:
    outbox = Outbox()
    made = ready(outbox)
    settled: list[list[int]] = []
    outbox.add([Output("t", b"{}"), Output("t", b"{}")], settled.append)
    one, two = [packet.packet_id for packet in written(made) if isinstance(packet, PublishPacket)]
    assert one is not None
    assert two is not None
    code = PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
    (event,) = made.receive(PubAckPacket(two, reason_code=code).write() + PubAckPacket(one).write())
    assert isinstance(event, Settled)
    assert [batch.codes for batch in event.batches] == [[0, 0x10]]
    assert all(type(value) is int for value in event.batches[0].codes)


def test_the_receive_maximum_of_the_broker_is_honoured() -> None:
    outbox = Outbox()
    outbox.add([Output("t", b"{}")] * 5, lambda codes: None)
    made = connection(outbox)
    made.receive(ConnAckPacket(receive_max=2).write() + SUBACK)
    assert sum(isinstance(packet, PublishPacket) for packet in written(made)) == 2


def test_the_largest_packet_that_the_broker_takes_is_honoured() -> None:
    outbox = Outbox()
    settled: list[list[int]] = []
    outbox.add([Output("t", b"x" * 200)], settled.append)
    made = connection(outbox)
    made.receive(ConnAckPacket(max_packet_size=100).write())
    (batch,) = made.take([])
    assert batch.codes == [0x95]


# Faults.


# The codec panics and the interpreter reports the exception that it lost; the connection goes on from there.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_topic_that_is_not_utf8_is_malformed() -> None:
    made = ready()
    events = made.receive(publish(1) + b"\x30\x06\x00\x02\xff\xfe\x00x")
    assert [type(event) for event in events] == [Received, Ended]
    assert farewell(made) == DisconnectReasonCode.MALFORMED_PACKET


@pytest.mark.parametrize("data", [b"\x00\x00", b"\x30\x04\x00\x20ab", b"\x40\x02\x00", b"\xd0\xff\xff\xff\xff\x01"])
def test_a_malformed_packet_ends_the_connection_or_waits_for_its_rest(data: bytes) -> None:
    made = ready()
    events = made.receive(data)
    if events:
        assert "malformed" in the_end(events)
        assert farewell(made) == DisconnectReasonCode.MALFORMED_PACKET
    else:
        assert data == b"\x40\x02\x00"


def test_an_older_protocol_on_the_other_side_is_explained() -> None:
    assert "MQTT 5 listener" in the_end(connection().receive(b"\x20\x02\x00\x01"))


@pytest.mark.parametrize("split", [3, 4, 50, 1200])
def test_a_packet_larger_than_allowed_ends_the_connection(split: int) -> None:
    made = ready()
    packet = publish(1, b"x" * 1100)
    events = made.receive(packet[:split]) + made.receive(packet[split:])
    assert "1109 bytes where 1000 are allowed" in the_end(events)
    assert farewell(made) == DisconnectReasonCode.PACKET_TOO_LARGE


def test_a_packet_that_will_be_too_large_is_not_waited_for() -> None:
    made = ready()
    assert made.receive(b"\x30\xe6") == []
    assert "1000 are allowed" in the_end(made.receive(b"\x07"))


def test_a_packet_of_the_largest_size_is_taken() -> None:
    made = ready()
    packet = publish(1, b"x" * 991)
    assert len(packet) == 1000
    assert made.receive(packet[:500]) == []
    assert [type(event) for event in made.receive(packet[500:])] == [Received]


def test_the_brokers_reason_is_told_with_its_remedy() -> None:
    made = ready()
    packet = DisconnectPacket(reason_code=DisconnectReasonCode.SESSION_TAKEN_OVER).write()
    assert "Another client uses the bridge's client id" in the_end(made.receive(packet))


def test_what_else_the_broker_says_at_the_end_is_told_too() -> None:
    packet = DisconnectPacket(
        reason_code=DisconnectReasonCode.SERVER_MOVED, reason_str="moved\nfor good", server_reference="b2:1883"
    )
    reason = the_end(ready().receive(packet.write()))
    assert reason.endswith(
        "server moved (0x9D). Set mqtt.host to the broker's new address. The broker says 'moved\\nfor good'. "
        "The broker names 'b2:1883'."
    )


def test_cancellation_inside_the_codec_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_view: memoryview) -> None:
        raise KeyboardInterrupt

    made = ready()
    monkeypatch.setattr("bridge.adapters.mqtt.connection.read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.receive(PingRespPacket().write())
