"""What is said before the first message: who the bridge is, what it wants to hear, and whether the broker can do it.

The bridge sends no topic aliases, whatever Topic Alias Maximum says: an endpoint's topic is seldom used often enough
within one connection to earn its alias. Nor does it ask for subscription identifiers.
"""

from typing import Final, NamedTuple

from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    QoS,
    RetainHandling,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
    TopicFilter,
    Will,
)

from bridge.adapters.mqtt import reasons
from bridge.adapters.mqtt.settings import SessionSettings

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"

SUBSCRIBE_PACKET_ID: Final = 65_535
"""Kept for SUBSCRIBE, so that it never meets that of a PUBLISH (section 2.2.1)."""

LARGEST_PACKET_BYTES: Final = 268_435_460
"""A remaining length of 268,435,455 and five bytes of fixed header (section 2.1.4)."""


class Terms(NamedTuple):
    """What a CONNACK grants (section 3.2.2).

    Attributes:
        session_present: the broker kept the session.
        receive_maximum: how many QoS 1 publishes may be unacknowledged, 1..65,535.
        largest_packet_bytes: the largest packet that the broker takes.
        keep_alive_seconds: how long either side may be silent: the bridge's word, or the broker's where that is less.
        remarks: what an operator should know of it, a sentence each.
    """

    session_present: bool
    receive_maximum: int
    largest_packet_bytes: int
    keep_alive_seconds: int
    remarks: tuple[str, ...] = ()


def connect_packet(settings: SessionSettings) -> ConnectPacket:
    """Return the CONNECT packet of every connection: it resumes the session, and its will says ``offline``."""
    return ConnectPacket(
        settings.client_id,
        username=settings.username,
        password=None if settings.password is None else settings.password.encode(),
        clean_start=False,
        will=Will(settings.state_topic, payload=OFFLINE, qos=QoS.AT_LEAST_ONCE, retain=True),
        keep_alive=settings.keep_alive_seconds,
        session_expiry_interval=settings.session_expiry_seconds,
        receive_max=settings.receive_maximum,
        max_packet_size=settings.maximum_packet_bytes,
    )


def topic_filters(settings: SessionSettings) -> list[TopicFilter]:
    """Return the subscriptions; retained messages come with a new one only, and are marked as such."""
    return [
        TopicFilter(
            pattern,
            max_qos=QoS.AT_LEAST_ONCE,
            retain_as_published=False,
            retain_handling=RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
        )
        for pattern in settings.subscriptions
    ]


def subscribe_packet(filters: list[TopicFilter]) -> bytes:
    """Return the one SUBSCRIBE packet of a connection."""
    return SubscribePacket(SUBSCRIBE_PACKET_ID, filters).write()


def refusal(connack: ConnAckPacket) -> str | None:
    """Say why the broker refuses the connection; None where it does not."""
    if connack.reason_code == ConnAckReasonCode.SUCCESS:
        return None
    why = reasons.explain(reasons.CONNACK, int(connack.reason_code), connack.reason_str, connack.server_reference)
    return f"The broker refused the connection: {why}"


def lack(connack: ConnAckPacket, filters: list[TopicFilter]) -> str | None:
    """Say what the broker lacks that the bridge cannot do without; None where it has everything."""
    patterns = [topic_filter.pattern for topic_filter in filters]
    largest_bytes = connack.max_packet_size or LARGEST_PACKET_BYTES
    needs = {
        0x9B: connack.max_qos != QoS.AT_MOST_ONCE,
        0x9A: connack.retain_available,
        0xA2: connack.wildcard_subscription_available or not any("+" in text or "#" in text for text in patterns),
        0x95: len(subscribe_packet(filters)) <= largest_bytes,
        0x9E: connack.shared_subscription_available or not any(text.startswith("$share/") for text in patterns),
    }
    lacking = [reasons.explain(reasons.DISCONNECT, code) for code, is_met in needs.items() if not is_met]
    return f"The broker cannot carry the bridge: {' '.join(lacking)}" if lacking else None


def terms(connack: ConnAckPacket, connect: ConnectPacket) -> Terms:
    """Return what a CONNACK grants to who sent the CONNECT."""
    remarks: list[str] = []
    expiry_seconds = connack.session_expiry_interval
    if expiry_seconds is not None and expiry_seconds < connect.session_expiry_interval:
        remarks.append(
            f"The broker keeps the bridge's session for {expiry_seconds} s after a disconnect, not for "
            f"{connect.session_expiry_interval} s (mqtt.session_expiry_seconds): a longer outage loses messages. "
            "Raise the broker's limit."
        )
    if connack.assigned_client_id not in (None, connect.client_id):
        remarks.append(
            "The broker gives the bridge another client id than it asked for: see that it is the same each time, "
            "and that nobody else gets it, or sessions are lost."
        )
    return Terms(
        connack.session_present,
        connack.receive_max,
        connack.max_packet_size or LARGEST_PACKET_BYTES,
        min(connect.keep_alive, connack.server_keep_alive or connect.keep_alive),
        tuple(remarks),
    )


def answers(suback: SubAckPacket, filters: list[TopicFilter]) -> bool:
    """Tell whether a SUBACK answers the SUBSCRIBE of these filters."""
    return suback.packet_id == SUBSCRIBE_PACKET_ID and len(suback.reason_codes) == len(filters)


def refused_subscriptions(suback: SubAckPacket, filters: list[TopicFilter]) -> str | None:
    """Say which subscriptions a SUBACK refuses, or grants at QoS 0 only, and why; None where it refuses none."""
    refused = [
        f"{topic_filter.pattern}: {reasons.explain(reasons.SUBACK, int(code))}"
        for topic_filter, code in zip(filters, suback.reason_codes, strict=True)
        if code not in (SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE, SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE)
    ]
    return f"The broker refused subscriptions: {' '.join(refused)}" if refused else None
