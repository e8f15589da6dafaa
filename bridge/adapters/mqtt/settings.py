"""What the session has to be told: where the broker is, who the bridge is there, what it wants to hear."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class SessionSettings:
    """How to reach the broker, and what to be there.

    Attributes:
        host: name or address of the broker.
        port: its MQTT listener.
        client_id: names the durable session; only one bridge at a time may use it.
        username: None where the broker asks for none.
        password: goes with ``username``.
        tls: makes the TLS context of a connection, anew for each, so that renewed certificates count; None: no TLS.
            May raise ConfigError where a file has become unusable.
        server_name: what the broker's certificate must say; empty: ``host``.
        subscriptions: topic filters, all at QoS 1; at least one.
        state_topic: where the bridge says ``online`` and its will ``offline``, retained.
        receive_maximum: deliveries that the broker may send before the first of them is acknowledged, 1..65,535.
        maximum_packet_bytes: the broker keeps larger messages to itself.
        keep_alive_seconds: a broker that says nothing for so long (and at least 4 s) is taken for dead.
        session_expiry_seconds: how long the broker keeps session and queue while the bridge is away.
        ping_interval_seconds: between two PINGREQs: how soon the line learns that its PUBACKs arrived.
        connect_timeout_seconds: from the first attempt to the last SUBACK.
        backoff_shortest_seconds: the first wait between two connections is drawn from 0 to this.
        backoff_longest_seconds: the widest range that the wait is drawn from; it doubles each time. Short, for
            the bridge shall be back a few seconds after the broker is.
        backlog_limit: outputs that may wait before `Session.drained` waits for them.
        backlog_limit_bytes: the same for their payloads.
    """

    host: str
    port: int
    client_id: str
    subscriptions: list[str]
    state_topic: str
    username: str | None = None
    password: str | None = None
    tls: Callable[[], ssl.SSLContext] | None = None
    server_name: str = ""
    receive_maximum: int = 1000
    maximum_packet_bytes: int = 1_048_576
    keep_alive_seconds: int = 4
    session_expiry_seconds: int = 7 * 24 * 3600
    ping_interval_seconds: float = 0.5
    connect_timeout_seconds: float = 10.0
    backoff_shortest_seconds: float = 0.2
    backoff_longest_seconds: float = 2.0
    backlog_limit: int = 20_000
    backlog_limit_bytes: int = 64 * 1024 * 1024
