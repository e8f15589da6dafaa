"""What is offered, granted, lacking and refused when a connection begins."""

import pytest
from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    QoS,
    SubAckPacket,
    SubAckReasonCode,
    TopicFilter,
)

from bridge.adapters.mqtt.handshake import (
    LARGEST_PACKET_BYTES,
    lack,
    refusal,
    refused_subscriptions,
    terms,
)

CONNECT = ConnectPacket("bridge", keep_alive=30, session_expiry_interval=600)
PLAIN = [TopicFilter("rpc/status")]
WILD = [TopicFilter("presence/users/+")]
SHARED = [TopicFilter("$share/bridges/rpc/status")]


def test_a_connack_that_says_nothing_grants_everything() -> None:
    granted = terms(ConnAckPacket(), CONNECT)
    assert granted == (False, 65_535, LARGEST_PACKET_BYTES, 30, ())
    assert lack(ConnAckPacket(), WILD + SHARED) is None
    assert refusal(ConnAckPacket()) is None


def test_what_a_connack_says_is_granted() -> None:
    connack = ConnAckPacket(
        session_present=True,
        receive_max=20,
        max_packet_size=1000,
        server_keep_alive=7,
        session_expiry_interval=600,
        assigned_client_id="bridge",
        topic_alias_max=10,
        subscription_id_available=False,
    )
    assert terms(connack, CONNECT) == (True, 20, 1000, 7, ())
    assert lack(connack, WILD) is None


def test_a_longer_keep_alive_of_the_broker_makes_the_bridge_no_more_patient() -> None:
    assert terms(ConnAckPacket(server_keep_alive=600), CONNECT).keep_alive_seconds == 30
    assert terms(ConnAckPacket(server_keep_alive=0), CONNECT).keep_alive_seconds == 30


@pytest.mark.parametrize("seconds", [0, 599])
def test_a_session_that_is_kept_for_a_shorter_time_is_remarked(seconds: int) -> None:
    (remark,) = terms(ConnAckPacket(session_expiry_interval=seconds), CONNECT).remarks
    assert f"for {seconds} s after a disconnect, not for 600 s (mqtt.session_expiry_seconds)" in remark


def test_another_client_id_is_remarked_but_not_told() -> None:
    (remark,) = terms(ConnAckPacket(assigned_client_id="guessable-1"), CONNECT).remarks
    assert "another client id" in remark
    assert "guessable-1" not in remark  # who knows it can take the session over


@pytest.mark.parametrize(
    ("connack", "filters", "words"),
    [
        (ConnAckPacket(max_qos=QoS.AT_MOST_ONCE), PLAIN, "QoS not supported (0x9B)"),
        (ConnAckPacket(retain_available=False), PLAIN, "retain not supported (0x9A)"),
        (ConnAckPacket(wildcard_subscription_available=False), WILD, "wildcard subscriptions not supported (0xA2)"),
        (ConnAckPacket(max_packet_size=17), PLAIN, "packet too large (0x95)"),
        (ConnAckPacket(shared_subscription_available=False), SHARED, "shared subscriptions not supported (0x9E)"),
    ],
)
def test_what_the_bridge_cannot_do_without_is_named(
    connack: ConnAckPacket, filters: list[TopicFilter], words: str
) -> None:
    assert f"The broker cannot carry the bridge: {words}." in (lack(connack, filters) or "")


def test_everything_lacking_is_named_at_once() -> None:
    text = lack(ConnAckPacket(max_qos=QoS.AT_MOST_ONCE, retain_available=False), PLAIN) or ""
    assert "0x9B" in text
    assert "0x9A" in text


def test_what_the_filters_do_not_need_is_not_missed() -> None:
    connack = ConnAckPacket(
        max_packet_size=18,
        max_qos=QoS.AT_LEAST_ONCE,
        wildcard_subscription_available=False,
        shared_subscription_available=False,
    )
    assert lack(connack, PLAIN) is None


def test_a_refusal_quotes_the_broker() -> None:
    connack = ConnAckPacket(
        reason_code=ConnAckReasonCode.USE_ANOTHER_SERVER, reason_str="full", server_reference="b2.internal"
    )
    text = refusal(connack) or ""
    assert "use another server (0x9C)" in text
    assert text.endswith("The broker says 'full'. The broker names 'b2.internal'.")


def test_only_refused_subscriptions_are_named() -> None:
    granted, refused = SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE, SubAckReasonCode.QUOTA_EXCEEDED
    assert refused_subscriptions(SubAckPacket(1, [granted, granted]), PLAIN + WILD) is None
    text = refused_subscriptions(SubAckPacket(1, [granted, refused]), PLAIN + WILD) or ""
    assert "presence/users/+: quota exceeded (0x97)" in text
    assert "rpc/status" not in text
