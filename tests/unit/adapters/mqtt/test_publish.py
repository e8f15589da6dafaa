import mqtt5
import pytest
from msgspec.structs import replace

from bridge.adapters.mqtt.publish import encode
from bridge.domain.values import Output

EVENT = Output("users/endpoints/ann1", b"x" * 200, 1, "0192f1c0")


def decoded(packet: bytes) -> mqtt5.PublishPacket:
    read, size = mqtt5.read(memoryview(packet))
    assert size == len(packet)
    assert isinstance(read, mqtt5.PublishPacket)
    return read


def test_an_event_carries_its_id_and_content_type() -> None:
    packet = decoded(encode(EVENT, 513))
    assert (packet.topic, packet.payload, packet.packet_id) == (EVENT.topic, EVENT.payload, 513)
    assert packet.content_type == "application/json"
    assert packet.user_properties == [("event-id", "0192f1c0")]
    assert not packet.duplicate
    assert not packet.retain


@pytest.mark.parametrize("event_size", [1, 95, 96, 97])
@pytest.mark.parametrize("topic_size", [1, 199, 200, 256])
@pytest.mark.parametrize("size", [127, 128, 16_383, 16_384, 16_500])
def test_the_quick_way_writes_what_the_codec_writes(size: int, topic_size: int, event_size: int) -> None:
    payload = b"x" * max(0, size - topic_size - event_size - 37)
    output = Output("t" * topic_size, payload, 1, "e" * event_size)
    by_codec = mqtt5.PublishPacket(
        output.topic,
        output.payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE,
        packet_id=300,
        content_type="application/json",
        user_properties=[("event-id", output.event_id)],
    )
    assert encode(output, 300) == by_codec.write()


def test_a_second_copy_says_so() -> None:
    output = Output("t", b"{}", 1, "e", redelivered=True)
    packet = decoded(encode(output, 1, duplicate=True))
    assert packet.duplicate
    assert packet.user_properties == [("event-id", "e"), ("redelivered", "1")]


def test_an_answer_carries_its_correlation_data_and_no_event_id() -> None:
    packet = decoded(encode(Output("replies/me", b"{}", 1, correlation=b""), 1))
    assert packet.correlation_data == b""
    assert packet.user_properties == []


def test_qos_0_has_no_packet_id() -> None:
    assert decoded(encode(Output("t", b"x" * 200, 0, "e"), 0)).packet_id is None


def test_the_state_of_the_bridge_is_bare_retained_text() -> None:
    packet = decoded(encode(Output("bridge/a/state", b"online", retain=True), 1, is_state=True))
    assert packet.retain
    assert packet.content_type is None


def test_an_event_may_be_retained_and_may_expire() -> None:
    packet = decoded(encode(replace(EVENT, retain=True, expiry_seconds=30), 1))
    assert (packet.retain, packet.message_expiry_interval) == (True, 30)
    assert packet.content_type == "application/json"
    assert decoded(encode(replace(EVENT, retain=True), 1)).message_expiry_interval is None
    assert not decoded(encode(replace(EVENT, expiry_seconds=1), 1)).retain


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\x00", "a\n", "\ud800", "\uffff", "x" * 70_000, "é" * 40_000])
@pytest.mark.parametrize("size", [2, 200])
def test_a_topic_that_the_broker_would_punish_is_refused(topic: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"topic|65535"):
        encode(Output(topic, b"x" * size, 1, "e"), 1)


@pytest.mark.parametrize("level", ["", "a", "long"])
@pytest.mark.parametrize("size", [2, 200])
def test_mosquitto_cuts_whoever_publishes_deeper_than_200_levels(level: str, size: int) -> None:
    deepest = "/".join([level] * 200)
    assert decoded(encode(Output(deepest, b"x" * size, 1, "e"), 1)).topic == deepest
    with pytest.raises(ValueError, match="200 levels"):
        encode(Output(f"{deepest}/", b"x" * size, 1, "e"), 1)


@pytest.mark.parametrize("event_id", ["a\x00", "\x9f", "\udfff", "\ufdd0", "x" * 70_000])
def test_an_event_id_that_the_broker_would_punish_is_refused(event_id: str) -> None:
    with pytest.raises(ValueError, match=r"event id|65535"):
        encode(Output("t", b"x" * 200, 1, event_id), 1)


def test_joined_emoji_and_no_break_spaces_may_stand_in_a_topic() -> None:
    assert decoded(encode(Output("a/👩‍🚀\u00a0b", b"{}", 1, "é"), 1)).topic == "a/👩‍🚀\u00a0b"
