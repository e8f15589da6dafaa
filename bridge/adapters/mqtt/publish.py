"""Outputs as MQTT 5 PUBLISH packets (section 3.3).

The usual output (QoS 1, ``event-id``, ASCII, of ordinary size) is put together here by hand, in 0.6 of the time of
the general way below, which asks the codec and takes everything else. A property test reads both back.
"""

from functools import lru_cache
from typing import Final

from mqtt5 import PublishPacket, QoS

from bridge.domain.topics import is_text
from bridge.domain.values import Output

_QOS: Final = (QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE)

MOST_LEVELS: Final = 200
"""Mosquitto's own limit: it ends the connection of a client that publishes to a deeper topic (protocol error)."""

_LONGEST_STRING_BYTES: Final = 65_535  # section 1.5.4

# The fast path writes a str whose characters are bytes, encoded once: nothing joins small pieces faster than an
# f-string.
_BYTE: Final = [chr(value) for value in range(256)]


@lru_cache(maxsize=16_384)
def _is_usual(topic: str) -> bool:
    """Tell whether a topic may stand in a packet, and its length in one byte; as short as this, it is not too deep."""
    return (
        0 < len(topic) < MOST_LEVELS and topic.isascii() and topic.isprintable() and not ("+" in topic or "#" in topic)
    )


def encode(output: Output, packet_id: int, *, duplicate: bool = False, is_state: bool = False) -> bytes:
    """Encode one PUBLISH packet.

    Args:
        output: what to publish.
        packet_id: 1..65,535; unused at QoS 0.
        duplicate: sent before in this session (DUP, section 3.3.1.1).
        is_state: the bridge's own state, which is bare text: no content type.

    Raises:
        ValueError: topic, event id or correlation data cannot stand in a packet. The broker would end the connection
            of whoever sent it all the same, and do so again whenever it is repeated.
    """
    topic = output.topic
    event_id = output.event_id
    topic_size = len(topic)
    event_size = len(event_id)
    size = topic_size + event_size + len(output.payload) + 37
    if (
        128 <= size < 16_384  # the remaining length takes two bytes
        and 0 < event_size < 96  # the length of the properties takes one
        and event_id.isascii()
        and event_id.isprintable()
        and _is_usual(topic)
        and output.qos
        and output.correlation is None
        and not (output.redelivered or output.retain or output.expiry_seconds or duplicate)
    ):
        return (
            f"\x32{_BYTE[size & 127 | 128]}{_BYTE[size >> 7]}\0{_BYTE[topic_size]}{topic}"
            f"{_BYTE[packet_id >> 8]}{_BYTE[packet_id & 255]}{_BYTE[event_size + 32]}"
            f"\x03\0\x10application/json\x26\0\x08event-id\0{_BYTE[event_size]}{event_id}"
        ).encode("latin-1") + output.payload
    if not topic or "+" in topic or "#" in topic or not (is_text(topic) and is_text(event_id)):
        raise ValueError("topic or event id hold characters that MQTT forbids, or the topic is empty")
    if topic.count("/") >= MOST_LEVELS or len(topic.encode()) > _LONGEST_STRING_BYTES:
        raise ValueError(f"the topic has more than {MOST_LEVELS} levels or {_LONGEST_STRING_BYTES} bytes")
    properties = [("event-id", event_id)] if event_id else []
    if output.redelivered:
        properties.append(("redelivered", "1"))
    return PublishPacket(
        topic,
        output.payload,
        qos=_QOS[output.qos],
        retain=output.retain,
        packet_id=packet_id if output.qos else None,
        duplicate=duplicate,
        content_type=None if is_state else "application/json",
        message_expiry_interval=output.expiry_seconds or None,
        correlation_data=output.correlation,
        user_properties=properties,
    ).write()
