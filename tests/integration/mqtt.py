"""The session by itself on a real Mosquitto: a line that keeps everything, and paho as the judge of what arrived."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bridge.adapters.mqtt.connection import Publishes
from bridge.adapters.mqtt.session import Session
from bridge.adapters.mqtt.settings import SessionSettings
from tests.servers import MosquittoServer

if TYPE_CHECKING:
    from bridge.domain.inputs import Input
    from bridge.domain.values import Receipt

STATE = "bridge/test/state"


class Line:
    """A listener that keeps everything; it acknowledges at once where it is told to."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.acknowledging = False
        self.publishes: list[Input] = []
        self.receipts: list[Receipt] = []
        self.connections: list[tuple[int, bool]] = []
        self.subscribed_on = 0
        self.confirmed_up_to = 0
        self.publishes_at_first_pingresp: dict[int, int] = {}
        self.reasons: list[str] = []

    @property
    def payloads(self) -> list[bytes]:
        return [packet.payload for packet in self.publishes]

    def connected(self, connection: int, session_present: bool) -> None:
        self.connections.append((connection, session_present))
        self.confirmed_up_to = 0

    def subscribed(self, connection: int) -> None:
        self.subscribed_on = connection

    has_room = True

    def received(self, publishes: Publishes, size_bytes: int) -> None:
        self.publishes += [packet for packet, _ in publishes]
        receipts = [receipt for _, receipt in publishes if receipt is not None]
        self.receipts += receipts
        if self.acknowledging and self.session is not None:
            self.session.acknowledge(receipts)

    def confirmed(self, connection: int, acknowledged: int, caught_up: bool) -> None:
        assert connection == self.connections[-1][0]
        self.confirmed_up_to = acknowledged
        self.publishes_at_first_pingresp.setdefault(connection, len(self.publishes))

    def disconnected(self, connection: int, reason: str) -> None:
        self.reasons.append(reason)


class Judge:
    """A paho client; its blocking calls are made in a thread."""

    def __init__(self, port: int) -> None:
        self.messages: list[MQTTMessage] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_message = lambda _client, _userdata, message: self.messages.append(message)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    async def subscribe(self, topic: str) -> None:
        self._subscribed.clear()
        self._client.subscribe(topic, qos=1)
        assert await asyncio.to_thread(self._subscribed.wait, 5)

    async def publish(self, topic: str, *payloads: bytes, qos: int = 1) -> None:
        sent = [self._client.publish(topic, payload, qos=qos) for payload in payloads]
        await asyncio.to_thread(sent[-1].wait_for_publish, 5)

    def payloads(self, topic: str) -> list[bytes]:
        return [message.payload for message in self.messages if message.topic == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def judging(server: MosquittoServer) -> Iterator[Judge]:
    judge = Judge(server.port)
    try:
        yield judge
    finally:
        judge.close()


def settings(port: int, **others: Any) -> SessionSettings:
    return SessionSettings(
        **{
            "host": "127.0.0.1",
            "port": port,
            "client_id": "bridge-5f2c",
            "subscriptions": ["presence/devices/+"],
            "state_topic": STATE,
            "ping_interval_seconds": 0.02,
            "backoff_shortest_seconds": 0.05,
            "backoff_longest_seconds": 0.05,
            **others,
        }
    )


@asynccontextmanager
async def running(session: Session, line: Line) -> AsyncIterator[None]:
    line.session = session
    task = asyncio.create_task(session.run())
    try:
        await until(lambda: line.subscribed_on)
        yield
    finally:
        await session.stop()
        await asyncio.wait_for(task, 5)


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for lies in plain lists, which no event guards
            await asyncio.sleep(0.005)
