"""However the bytes are cut, the events are the same; and no bytes bring anything out but events."""

from itertools import pairwise

import mqtt5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt5 import ConnAckPacket, ConnectPacket, PingRespPacket, PubAckPacket, PublishPacket, QoS, SubAckPacket

from bridge.adapters.mqtt.connection import SUBSCRIBE_PACKET_ID, Connection, Ended, Event, Received, Settled
from bridge.adapters.mqtt.outbox import Outbox
from bridge.adapters.mqtt.publish import encode
from bridge.domain.values import Output

HANDSHAKE = (
    ConnAckPacket().write()
    + SubAckPacket(SUBSCRIBE_PACKET_ID, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write()
)
MALFORMED = b"\x30\x04\x00\x20ab"

publishes = st.builds(
    lambda payload, packet_id: PublishPacket(
        "presence/devices/lamp",
        payload,
        qos=QoS.AT_MOST_ONCE if packet_id is None else QoS.AT_LEAST_ONCE,
        packet_id=packet_id,
    ).write(),
    st.binary(max_size=300),
    st.none() | st.integers(1, 65_535),
)
pubacks = st.integers(1, 12).map(lambda packet_id: PubAckPacket(packet_id).write())
pings = st.just(PingRespPacket().write())
packets = publishes | pubacks | pings | st.just(MALFORMED)
streams = st.lists(packets, max_size=12).map(b"".join)
short_streams = st.lists(packets, max_size=4).map(b"".join)

unhurried = settings(deadline=None)  # a busy machine is no fault


def connection() -> Connection:
    outbox = Outbox()
    outbox.add([Output("t", b"{}", 1, str(number)) for number in range(10)], lambda codes: None)
    made = Connection(1, ConnectPacket("bridge", max_packet_size=100_000), [mqtt5.TopicFilter("#")], outbox)
    made.receive(HANDSHAKE)
    made.ping()
    made.take([])
    return made


def facts(events: list[Event]) -> list[object]:
    """Events with neighbours of one kind joined and settled batches left out of the order, as a cut may move both."""
    said: list[object] = []
    for event in events:
        match event:
            case Received(pairs):
                said += [(p.payload, receipt and (receipt.number, receipt.packet_id)) for p, receipt in pairs]
            case Settled(batches):
                said.append([batch.codes for batch in batches])
            case _:
                said.append(event)
    return sorted(said, key=lambda fact: isinstance(fact, list))


@unhurried
@given(streams, st.lists(st.integers(0, 4000), max_size=20))
def test_any_cuts_give_the_same_events(stream: bytes, cuts: list[int]) -> None:
    whole = connection().receive(stream)
    made = connection()
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert facts([event for piece in pieces for event in made.receive(piece)]) == facts(whole)


@settings(unhurried, max_examples=40)
@given(short_streams)
def test_every_prefix_waits_for_the_rest(stream: bytes) -> None:
    whole = facts(connection().receive(stream))
    for end in range(len(stream)):
        made = connection()
        assert facts(made.receive(stream[:end]) + made.receive(stream[end:])) == whole


# A topic that is not UTF-8 makes the codec panic, and the interpreter report the exception that it lost.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@unhurried
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_bring_out_nothing_but_events(data: bytes, connected: bool) -> None:
    made = connection() if connected else Connection(1, ConnectPacket("b"), [mqtt5.TopicFilter("#")], Outbox())
    events = made.receive(data)
    assert all(not isinstance(event, Ended) for event in events[:-1])
    made.take([])
    if events and isinstance(events[-1], Ended):
        assert made.receive(HANDSHAKE) == []


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="+#"), max_size=300)


@unhurried
@given(
    st.builds(
        Output,
        topic=texts.filter(bool),
        payload=st.binary(max_size=400),
        qos=st.sampled_from([0, 1]),
        event_id=texts,
        correlation=st.none() | st.binary(max_size=50),
        redelivered=st.booleans(),
        retain=st.booleans(),
        expiry_seconds=st.sampled_from([0, 1, 2**32 - 1]),
    ),
    st.integers(1, 65_534),
    st.booleans(),
)
def test_every_output_reads_back_as_it_was(output: Output, packet_id: int, duplicate: bool) -> None:
    duplicate = duplicate and output.qos > 0
    data = encode(output, packet_id, duplicate=duplicate)
    packet, size = mqtt5.read(memoryview(data))
    assert size == len(data)
    # What the line counts an output for, before it is encoded: never less, and hardly more.
    assert size <= output.packet_bytes <= size + 72
    assert isinstance(packet, PublishPacket)
    assert (packet.topic, packet.payload, packet.qos, packet.duplicate, packet.retain) == (
        output.topic,
        output.payload,
        output.qos,
        duplicate,
        output.retain,
    )
    assert packet.message_expiry_interval == (output.expiry_seconds or None)
    assert packet.packet_id == (packet_id if output.qos else None)
    assert packet.content_type == "application/json"
    assert packet.correlation_data == output.correlation
    expected = [("event-id", output.event_id)] if output.event_id else []
    assert packet.user_properties == expected + [("redelivered", "1")] * output.redelivered


@unhurried
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="+#"), min_size=1, max_size=260),
    st.binary(max_size=300),
    st.integers(0, 17_000),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100),
    st.integers(1, 65_534),
)
def test_ordinary_outputs_are_the_codecs_bytes(topic: str, start: bytes, pad: int, event_id: str, number: int) -> None:
    payload = start + bytes(pad)
    by_codec = PublishPacket(
        topic,
        payload,
        qos=QoS.AT_LEAST_ONCE,
        packet_id=number,
        content_type="application/json",
        user_properties=[("event-id", event_id)],
    )
    assert encode(Output(topic, payload, 1, event_id), number) == by_codec.write()
