"""Inputs: what came over MQTT, before anything is known of it but its topic."""

import msgspec


class Input(msgspec.Struct, gc=False):
    """One PUBLISH, as decode needs it.

    Attributes:
        topic: full topic name.
        payload: its bytes.
        retained: a retained message replayed at a subscription.
        is_copy: it may have been delivered before (DUP).
        connection: user property ``connection``, empty where there was none.
        endpoint: user property ``endpointId``, empty where there was none.
        response_topic: MQTT 5 Response Topic, None where there was none.
        correlation: MQTT 5 Correlation Data.
    """

    topic: str
    payload: bytes
    retained: bool = False
    is_copy: bool = False
    connection: str = ""
    endpoint: str = ""
    response_topic: str | None = None
    correlation: bytes | None = None
