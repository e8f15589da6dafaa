"""Somebody at the broker: a thin hand on an MQTT client that is not ours, so that it judges us independently."""

import json
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_SECONDS = 10.0

Hear = Callable[[str, bytes], None]


class Actor:
    """One MQTT 5 connection to the broker on loopback, open when this returns.

    Args:
        name: who it is; where ``hear`` is given also the endpoint whose events it takes.
        port: of the broker.
        hear: called with the name and the payload of each event.
        will: topic and payload that the broker publishes when the connection breaks.

    Raises:
        TimeoutError: the broker does not answer.
    """

    def __init__(self, name: str, port: int, hear: Hear | None = None, will: tuple[str, str] | None = None) -> None:
        self.name = name
        self._hear = hear
        self._replies_topic = f"replies/{name}-{secrets.token_hex(4)}"
        self._answers: dict[bytes, dict[str, Any]] = {}
        self._answered = threading.Condition()
        self._ready = threading.Event()
        # A broken connection stays broken: `vanish` wants that, and the broker does not go away under the others.
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False)
        topic = f"users/endpoints/{name}" if hear else self._replies_topic
        client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = self._on_message
        if will:
            client.will_set(*will, qos=1)
        client.connect("127.0.0.1", port)
        client.loop_start()
        self._client = client
        if not self._ready.wait(PATIENCE_SECONDS):
            raise TimeoutError(f"the broker did not answer {name}")

    def tell(self, topic: str, message: dict[str, Any] | str = "") -> None:
        """Publish at QoS 1; return when the broker has it."""
        payload = message if isinstance(message, str) else json.dumps(message)
        self._client.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_SECONDS)

    def ask(self, method: str, **params: object) -> Any:
        """Call an RPC method of the bridge.

        Raises:
            TimeoutError: no answer came.
            RuntimeError: the bridge refused; holds its code and message.
        """
        correlation = secrets.token_bytes(8)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's only untyped part
        properties.ResponseTopic = self._replies_topic
        properties.CorrelationData = correlation
        self._client.publish(f"rpc/{method}", json.dumps(params), qos=1, properties=properties)
        with self._answered:
            if not self._answered.wait_for(lambda: correlation in self._answers, PATIENCE_SECONDS):
                raise TimeoutError(f"the bridge did not answer {method}")
            answer = self._answers.pop(correlation)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['code']}: {answer['error']['message']}")
        return answer["result"]

    def vanish(self) -> None:
        """Break the connection without a word, as a loss of power does."""
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            connection.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        """Say goodbye and close."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if self._hear is not None:
            self._hear(self.name, bytes(message.payload))
            return
        correlation = getattr(message.properties, "CorrelationData", b"")
        with self._answered:
            self._answers[correlation] = json.loads(message.payload)
            self._answered.notify_all()
