"""However the bytes are cut, the events are the same; and no bytes bring anything out but events."""

from collections.abc import Callable
from itertools import pairwise

import mqtt5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt5 import (
    ConnAckPacket,
    ConnectPacket,
    PingRespPacket,
    PubAckPacket,
    PubAckReasonCode,
    PublishPacket,
    QoS,
    SubAckPacket,
)

from bridge.adapters.mqtt.connection import Connection, Ended, Event, Received, Settled
from bridge.adapters.mqtt.handshake import SUBSCRIBE_PACKET_ID
from bridge.adapters.mqtt.outbox import Outbox
from bridge.adapters.mqtt.publish import PIECES, encode, encode_copies
from bridge.domain.values import Output

HANDSHAKE = (
    ConnAckPacket().write()
    + SubAckPacket(SUBSCRIBE_PACKET_ID, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write()
)
MALFORMED = b"\x30\x04\x00\x20ab"

texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="+#"), max_size=300)
names = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=9)
publishes = st.builds(
    lambda topic, payload, packet_id, qos, retain, duplicate, alias, properties: PublishPacket(
        topic,
        payload,
        qos=QoS.AT_MOST_ONCE if packet_id is None else qos,
        packet_id=packet_id,
        retain=retain,
        duplicate=duplicate and packet_id is not None,
        topic_alias=alias,
        user_properties=properties,
    ).write(),
    st.sampled_from(["presence/devices/lamp", "t", "räume/ß", "x" * 200]),
    st.binary(max_size=300),
    st.none() | st.integers(1, 65_535),
    st.sampled_from([QoS.AT_LEAST_ONCE, QoS.EXACTLY_ONCE]),
    *[st.sampled_from([False, False, True])] * 2,
    st.none() | st.none() | st.none() | st.integers(1, 9),  # the bridge allows none, so this one ends the connection
    st.lists(st.tuples(names, names), max_size=2),
)
codes = [PubAckReasonCode.SUCCESS, PubAckReasonCode.NO_MATCHING_SUBSCRIBERS, PubAckReasonCode.QUOTA_EXCEEDED]
pubacks = st.builds(
    lambda packet_id, code: PubAckPacket(packet_id, reason_code=code).write(),
    st.integers(1, 12),
    st.sampled_from(codes),
)
pubrels = st.integers(1, 65_535).map(lambda packet_id: mqtt5.PubRelPacket(packet_id).write())
ends = st.sampled_from(
    [
        MALFORMED,
        PublishPacket("large", bytes(100_000)).write()[:10],  # and the rest, which nobody waits for
        mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SERVER_BUSY, reason_str="full").write(),
        mqtt5.PubRecPacket(1).write(),
        ConnAckPacket().write(),
    ]
)
usual = publishes | pubacks | pubrels | st.just(PingRespPacket().write())
packets = usual | usual | usual | ends
streams = st.lists(packets, max_size=12).map(b"".join)
short_streams = st.lists(packets, max_size=4).map(b"".join)
handshakes = st.sampled_from(
    [
        HANDSHAKE,
        ConnAckPacket(session_present=True, receive_max=3, max_packet_size=200, reason_str="welcome").write()
        + HANDSHAKE[-6:],
        ConnAckPacket(max_qos=QoS.AT_MOST_ONCE).write(),
        ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.BANNED).write(),
    ]
)

unhurried = settings(deadline=None)  # a busy machine is no fault


def connection() -> Connection:
    """One that has said CONNECT and heard nothing yet."""
    outbox = Outbox()
    outbox.add([Output("t", b"{}", 1, str(number)) for number in range(10)], lambda codes: None)
    made = Connection(1, ConnectPacket("bridge", max_packet_size=100_000), [mqtt5.TopicFilter("#")], outbox)
    made.take([])
    return made


def ready() -> Connection:
    """One that is subscribed, has sent all it has, and waits for a PINGRESP."""
    made = connection()
    made.receive(HANDSHAKE)
    made.ping()
    made.take([])
    return made


def facts(made: Connection, *pieces: bytes) -> list[object]:
    """All that the pieces say, and at last what is written in answer.

    Neighbours of one kind are joined and settled batches left out of the order, as a cut may move both.
    """
    said: list[object] = []
    for event in [event for piece in pieces for event in made.receive(piece)]:
        match event:
            case Received(pairs, _):
                said += [(inbound, receipt and receipt.number) for inbound, receipt in pairs]
                for _, receipt in pairs:
                    if receipt is not None:
                        receipt.done = True
            case Settled(batches):
                said.append([batch.codes for batch in batches])
            case _:
                said.append(event)
    written: list[bytes] = []
    made.take(written)
    return [*sorted(said, key=lambda fact: isinstance(fact, list)), written]


@unhurried
@given(streams, st.lists(st.integers(0, 4000), max_size=20))
def test_any_cuts_give_the_same_events_and_answers(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert facts(ready(), *pieces) == facts(ready(), stream)


@settings(unhurried, max_examples=40)
@given(short_streams)
def test_every_prefix_waits_for_the_rest(stream: bytes) -> None:
    whole = facts(ready(), stream)
    for end in range(len(stream)):
        assert facts(ready(), stream[:end], stream[end:]) == whole


@settings(unhurried, max_examples=40)
@given(handshakes, short_streams)
def test_byte_by_byte_from_the_first_is_the_same(handshake: bytes, stream: bytes) -> None:
    stream = handshake + stream
    singles = [stream[place : place + 1] for place in range(len(stream))]
    assert facts(connection(), *singles) == facts(connection(), stream)


# A topic that is not UTF-8 makes the codec panic, and the interpreter report the exception that it lost.
panics = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def nothing_but_events(made: Connection, data: bytes) -> None:
    events: list[Event] = made.receive(data)
    assert all(not isinstance(event, Ended) for event in events[:-1])
    made.take([])
    if events and isinstance(events[-1], Ended):
        assert events[-1].reason.endswith(".")
        assert made.receive(HANDSHAKE) == []


@panics
@unhurried
@given(st.binary(max_size=200), st.sampled_from([connection, ready]))
def test_random_bytes_bring_out_nothing_but_events(data: bytes, made: Callable[[], Connection]) -> None:
    nothing_but_events(made(), data)


@panics
@unhurried
@given(
    handshakes,
    streams,
    st.lists(st.tuples(st.integers(0, 4000), st.sampled_from(["flip", "drop", "double"]), st.integers(1, 255))),
)
def test_damaged_packets_bring_out_nothing_but_events(
    handshake: bytes, stream: bytes, faults: list[tuple[int, str, int]]
) -> None:
    data = bytearray(handshake + stream)
    for place, fault, bits in faults:
        place %= max(len(data), 1)
        match fault:
            case "flip":
                data[place : place + 1] = bytes(byte ^ bits for byte in data[place : place + 1])
            case "drop":
                del data[place : place + 1]
            case "double":
                data[place:place] = data[place : place + 1]
    nothing_but_events(connection(), bytes(data))


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


@unhurried
@given(
    st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=1_000), min_size=1, max_size=210), min_size=2),
    st.integers(0, 17_000),
    st.text(st.characters(min_codepoint=32, max_codepoint=200), max_size=100),
    st.integers(1, 65_000),
    st.integers(100, 20_000),
)
def test_the_copies_of_an_output_are_what_each_would_be_alone_or_left_to_that(
    topics: list[str], size: int, event_id: str, number: int, largest: int
) -> None:
    first, *others = topics
    output = Output(first, bytes(size), 1, event_id, others=tuple(others))
    pieces = encode_copies(output, topics, range(number, number + len(topics)), largest)
    packets = [b"".join(pieces[place : place + PIECES]) for place in range(0, len(pieces), PIECES)]
    alone = [encode(output, number + index, topic) for index, topic in enumerate(topics) if pieces]
    assert packets == alone
    assert all(len(packet) <= largest for packet in packets)
