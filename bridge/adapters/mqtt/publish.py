"""Outputs as MQTT 5 PUBLISH packets (section 3.3).

The usual output (``event-id``, ASCII, of ordinary size) is put together here by hand, in 0.6 of the time of the general
way below, which asks the codec and takes everything else. Copies that differ in topic and packet id alone
share the rest of their bytes. A property test reads all of them back.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from mqtt5 import PublishPacket, QoS

from bridge.domain.topics import is_text
from bridge.domain.values import Output

_QOS: Final = (QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE)

MOST_LEVELS: Final = 200
"""Mosquitto's own limit: it ends the connection of a client that publishes to a deeper topic (protocol error)."""

_LONGEST_STRING_BYTES: Final = 65_535  # section 1.5.4

PIECES: Final = 4
"""Head, topic, packet id, and what is the same for all copies of an output."""

# The fast path writes a str whose characters are bytes, encoded once: nothing joins small pieces faster than an
# f-string.
_BYTE: Final = [chr(value) for value in range(256)]


@lru_cache(maxsize=16_384)
def _is_usual(topic: str) -> bool:
    """Tell whether a topic may stand in a packet, and its length in one byte; as short as this, it is not too deep."""
    return (
        0 < len(topic) < MOST_LEVELS and topic.isascii() and topic.isprintable() and not ("+" in topic or "#" in topic)
    )


def encode_copies(output: Output, topics: Sequence[str], packet_ids: Iterable[int], largest_bytes: int) -> list[bytes]:
    """Encode the PUBLISH packets of an output's copies, `PIECES` each, the last one the same for all.

    Args:
        output: what to publish for the first time, at QoS 1.
        topics: some of its topics.
        packet_ids: of each.
        largest_bytes: how large a packet may be.

    Returns:
        No pieces where one of the copies is not as usual: `encode` is to be asked for each.
    """
    rest = _rest(output)
    fields = [*map(_field, topics)]
    size = len(rest) + 2  # of a packet without its topic, from the topic's length on
    if not rest or b"" in fields or not 128 <= size <= min(16_383, largest_bytes - 3) - MOST_LEVELS:
        return []
    heads = {length: bytes((0x32, (size + length) & 127 | 128, (size + length) >> 7)) for length in {*map(len, fields)}}
    pieces: list[bytes] = []
    for field, packet_id in zip(fields, packet_ids, strict=False):
        pieces += (heads[len(field)], field, packet_id.to_bytes(2), rest)
    return pieces


@lru_cache(maxsize=16_384)
def _field(topic: str) -> bytes:
    """Return a topic as it stands in a packet, with its length; nothing where it is not as usual."""
    return b"\0%c%b" % (len(topic), topic.encode()) if _is_usual(topic) else b""


def _rest(output: Output) -> bytes:
    """Return what follows the packet id in the packets of an output; nothing where it is not as usual."""
    event_id = output.event_id
    if (
        not 0 < len(event_id) < 96
        or not (event_id.isascii() and event_id.isprintable())
        or not output.qos
        or output.correlation is not None
        or output.redelivered
        or output.retain
        or output.expiry_seconds
    ):
        return b""
    size = len(event_id)
    head = f"{_BYTE[size + 32]}\x03\0\x10application/json\x26\0\x08event-id\0{_BYTE[size]}{event_id}"
    return head.encode("latin-1") + output.payload


def encode(
    output: Output, packet_id: int, topic: str = "", *, duplicate: bool = False, is_state: bool = False
) -> bytes:
    """Encode one PUBLISH packet.

    Args:
        output: what to publish.
        packet_id: 1..65,535; unused at QoS 0.
        topic: which of its topics; by default its first.
        duplicate: sent before in this session (DUP, section 3.3.1.1).
        is_state: the bridge's own state, which is bare text: no content type.

    Raises:
        ValueError: topic, event id or correlation data cannot stand in a packet. The broker would end the connection
            of whoever sent it all the same, and do so again whenever it is repeated.
    """
    topic = topic or output.topic
    event_id = output.event_id
    topic_size = len(topic)
    event_size = len(event_id)
    qos = output.qos
    size = topic_size + event_size + len(output.payload) + (37 if qos else 35)
    if (
        128 <= size < 16_384  # the remaining length takes two bytes
        and 0 < event_size < 96  # the length of the properties takes one
        and event_id.isascii()
        and event_id.isprintable()
        and _is_usual(topic)
        and output.correlation is None
        and not (output.redelivered or output.retain or output.expiry_seconds or duplicate)
    ):
        return (
            f"{'2' if qos else '0'}{_BYTE[size & 127 | 128]}{_BYTE[size >> 7]}\0{_BYTE[topic_size]}{topic}"
            f"{_BYTE[packet_id >> 8] + _BYTE[packet_id & 255] if qos else ''}{_BYTE[event_size + 32]}"
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
