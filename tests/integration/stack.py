"""The bridge as a process between a real Mosquitto and a real Redis, and an independent client (paho) as the judge.

Whoever subscribes to everything with one client can tell what did *not* come: the answer of an RPC that it sent last
reaches it after every output of the inputs that it sent before (contract details 2, and the broker keeps the order).
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.servers import MosquittoServer, RedisServer, Server

PATIENCE_SECONDS = 20.0
START_SECONDS = 40.0  # usually under one, but a machine that does much else at once must fail no test
ROOT = Path(__file__).resolve().parents[2]


class Message(NamedTuple):
    """What a client heard; ``at`` in seconds of the monotonic clock, ``user`` the MQTT 5 user properties.

    ``dup``: the broker itself may have sent it to this client before, over an earlier connection.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    user: dict[str, str]
    properties: Any
    at: float
    dup: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.payload)

    @property
    def type(self) -> str:
        found: str = self.json["type"]
        return found

    @property
    def endpoint(self) -> str:
        return self.topic.rpartition("/")[2]


class RpcError(Exception):
    """An answer that is an error; ``code`` as in contract details 5."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Client:
    """One MQTT 5 connection that keeps a ledger of all it hears. Every wait has an end.

    Args:
        port: of the broker, on loopback.
        prefix: stands before the topics of `rpc`, ``acme/``.
        will: topic and payload.
        durable: keeps its session over reconnects, which it does by itself.
        receive_maximum: deliveries the broker may send before the first is acknowledged.
        login: user name and password.
        client_id: an unguessable one where left out.
    """

    def __init__(
        self,
        port: int,
        *,
        prefix: str = "",
        will: tuple[str, str] | None = None,
        durable: bool = False,
        receive_maximum: int | None = None,
        login: tuple[str, str] | None = None,
        client_id: str | None = None,
    ) -> None:
        self.prefix = prefix
        self.messages: list[Message] = []
        self._heard = threading.Condition()
        self._granted: dict[int, list[Any]] = {}
        self._acknowledged: dict[int, int] = {}
        self._connected = threading.Event()
        self.replies = f"replies/{secrets.token_hex(6)}"
        client_id = client_id or f"judge-{secrets.token_hex(6)}"
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        if login:
            client.username_pw_set(*login)
        client.max_queued_messages_set(0)
        client.max_inflight_messages_set(500)
        client.reconnect_delay_set(1, 1)
        # Without it every second small packet waits 40 ms for the broker's delayed acknowledgement.
        client.on_socket_open = lambda _client, _userdata, opened: opened.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        client.on_message = self._on_message
        client.on_connect = lambda *_: self._connected.set()
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        if will:
            client.will_set(*will, qos=1)
        properties = Properties(PacketTypes.CONNECT)
        if durable:
            properties.SessionExpiryInterval = 3600
        if receive_maximum:
            properties.ReceiveMaximum = receive_maximum
        # Mosquitto 2.0.11 keeps over a restart only the sessions of those who connected without Clean Start.
        client.connect("127.0.0.1", port, clean_start=not durable, properties=properties)
        client.loop_start()
        self.paho = client
        assert self._connected.wait(PATIENCE_SECONDS), "the broker did not answer"
        self.subscribe(f"{prefix}{self.replies}")

    # Callbacks, on paho's thread.

    def _on_message(self, _client: paho.Client, _userdata: object, found: paho.MQTTMessage) -> None:
        user = dict(getattr(found.properties, "UserProperty", ()))
        message = Message(found.topic, found.payload, found.qos, found.retain, user, found.properties, time.monotonic())
        with self._heard:
            self.messages.append(message)
            self._heard.notify_all()

    def _on_subscribe(self, _client: paho.Client, _userdata: object, mid: int, codes: Any, _: object) -> None:
        with self._heard:
            self._granted[mid] = codes
            self._heard.notify_all()

    def _on_publish(self, _client: paho.Client, _userdata: object, mid: int, code: Any, _: object) -> None:
        with self._heard:
            self._acknowledged[mid] = code.value
            self._heard.notify_all()

    # What a test asks.

    def until(self, is_so: Callable[[], Any], seconds: float = PATIENCE_SECONDS, what: str = "") -> Any:
        """Wait for a condition that only changes with what this client hears.

        Raises:
            AssertionError: it did not come true; names ``what``.
        """
        with self._heard:
            found = self._heard.wait_for(is_so, seconds)
            assert found, f"not within {seconds} s: {what or 'the condition'}; last heard: {self.messages[-5:]}"
            return found

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        _, mid = self.paho.subscribe(topic_filter, qos=qos)
        assert mid is not None
        codes = self.until(lambda: self._granted.get(mid), what=f"SUBACK for {topic_filter}")
        assert all(code.value < 0x80 for code in codes), f"{topic_filter}: {codes}"

    def publish(
        self,
        topic: str,
        payload: object = b"",
        *,
        qos: int = 1,
        retain: bool = False,
        connection: str | None = None,
    ) -> int:
        """Publish and, at QoS 1, wait for the broker; returns the reason code of its PUBACK."""
        properties = Properties(PacketTypes.PUBLISH)
        if connection is not None:
            properties.UserProperty = ("connection", connection)
        return self.wait(self.send(topic, payload, qos=qos, retain=retain, properties=properties))

    def send(
        self, topic: str, payload: object = b"", *, qos: int = 1, retain: bool = False, properties: Any = None
    ) -> int:
        """Publish without waiting; returns the message id for `wait`."""
        body = payload if isinstance(payload, bytes | str) else json.dumps(payload)
        return self.paho.publish(topic, body, qos=qos, retain=retain, properties=properties).mid

    def wait(self, mid: int, seconds: float = PATIENCE_SECONDS) -> int:
        self.until(lambda: mid in self._acknowledged, seconds, f"PUBACK of {mid}")
        return self._acknowledged[mid]

    @property
    def acknowledged(self) -> set[int]:
        """Message ids that the broker has answered."""
        with self._heard:
            return set(self._acknowledged)

    def request(
        self,
        topic: str,
        payload: bytes,
        *,
        response_topic: str | None = None,
        seconds: float = PATIENCE_SECONDS,
    ) -> Any:
        """Send raw bytes as an RPC and return the answer's JSON, ``{"result"}`` or ``{"error"}``."""
        correlation = secrets.token_bytes(8)
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = response_topic or self.replies
        properties.CorrelationData = correlation
        start = len(self.messages)
        self.send(self.prefix + topic, payload, properties=properties)

        def answers() -> list[Message]:
            return [
                message
                for message in self.messages[start:]
                if getattr(message.properties, "CorrelationData", None) == correlation
                and message.topic.endswith(properties.ResponseTopic)  # else it may be the request, heard by itself
            ]

        return self.until(answers, seconds, f"an answer to {topic} {payload[:200]!r}")[0].json

    def rpc(self, method: str, params: object = None, *, seconds: float = PATIENCE_SECONDS) -> Any:
        """Call a method of the bridge.

        Raises:
            RpcError: the bridge answered an error.
        """
        payload = b"" if params is None else json.dumps(params).encode()
        answer = self.request(f"rpc/{method}", payload, seconds=seconds)
        if "error" in answer:
            raise RpcError(**answer["error"])
        return answer["result"]

    def refused(self, method: str, params: object = None) -> RpcError:
        """Call a method that must be refused; returns the error."""
        try:
            result = self.rpc(method, params)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} {params} was taken: {result}")

    def mark(self) -> int:
        """The place in the ledger from which `since` reads."""
        return len(self.messages)

    def since(self, mark: int, topic: str = "") -> list[Message]:
        """What was heard after a mark on topics that start with ``topic``; replies left out."""
        return [
            message
            for message in self.messages[mark:]
            if message.topic.startswith(topic) and "replies/" not in message.topic
        ]

    def expect(
        self,
        is_it: Callable[[Message], bool],
        *,
        mark: int = 0,
        seconds: float = PATIENCE_SECONDS,
        what: str = "a message",
    ) -> Message:
        """Wait for the first message after a mark that fits."""
        return self.until(lambda: next(filter(is_it, self.messages[mark:]), None), seconds, what)

    def vanish(self) -> None:
        """Break the connection without a word."""
        connection = self.paho.socket()
        assert isinstance(connection, socket.socket)
        self.paho.loop_stop()
        connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


class Bridge(Server):
    """The bridge process; ready once it has said ``online`` in this life.

    Args:
        directory: where its log goes.
        watch: a client that hears the bridge's state topic.
        settings: environment names without ``ENDPOINT_BRIDGE_`` -> value.
    """

    name = "bridge"

    def __init__(self, directory: Path, watch: Client, settings: dict[str, str]) -> None:
        super().__init__(directory, port=1)
        given = {"HTTP__PORT": "0", **settings}
        self.settings = {f"ENDPOINT_BRIDGE_{name}": value for name, value in given.items()}
        self._watch = watch
        self._mark = 0

    def command(self) -> list[str]:
        assignments = [f"{name}={value}" for name, value in self.settings.items()]
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        return ["env", *assignments, f"PYTHONPATH={path}", sys.executable, "-m", "bridge", "run"]

    def start(self) -> None:
        """Start it and wait until it has said ``online``.

        Raises:
            RuntimeError: it ended or did not say so in time; holds its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._mark = self._watch.mark()
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.directory, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while self.process.poll() is None:
            if self.ready():
                return
            if time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"the bridge did not say online within {START_SECONDS} s:\n{self.log}")
            time.sleep(0.01)
        code = self.process.returncode
        self.process = None
        raise RuntimeError(f"the bridge ended with exit code {code}:\n{self.log}")

    @property
    def http_url(self) -> str:
        """Where its HTTP listens."""
        return f"http://127.0.0.1:{self.settings['ENDPOINT_BRIDGE_HTTP__PORT']}"

    def ready(self) -> bool:
        return "online" in self.states(self._mark)

    def states(self, mark: int = 0) -> list[str]:
        """What the state topic said after a mark, oldest first."""
        topic = f"bridge/{self.settings['ENDPOINT_BRIDGE_NAME']}/state"
        return [m.payload.decode() for m in self._watch.messages[mark:] if m.topic.endswith(topic)]

    @contextmanager
    def standing_by(self) -> Iterator[None]:
        """Let it run beside an active one while the context lasts."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.directory, stdout=log, stderr=log)
        try:
            end = time.monotonic() + START_SECONDS
            while "Standing by" not in self.log:
                assert time.monotonic() < end, f"it does not stand by:\n{self.log}"
                time.sleep(0.02)
            yield
        finally:
            self.kill()

    def end(self, seconds: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        code: int = self.process.wait(seconds)
        self.process = None
        return code

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Stack:
    """Redis, Mosquitto, the bridge, and ``world``: a client that hears everything the bridge says."""

    def __init__(
        self, redis: RedisServer, broker: MosquittoServer, bridge: Bridge, world: Client, settings: dict[str, str]
    ) -> None:
        self._settings = settings
        self.redis = redis
        self.broker = broker
        self.bridge = bridge
        self.world = world
        self._clients: list[Client] = []
        self._webs: list[httpx.Client] = []

    def client(self, **options: Any) -> Client:
        """Another client, closed with the stack."""
        client = Client(self.broker.port, **options)
        self._clients.append(client)
        return client

    def web(self, bridge: "Bridge | None" = None, **options: Any) -> httpx.Client:
        """An HTTP client of the bridge, or of another one, closed with the stack; give ``HTTP__PORT``."""
        found = httpx.Client(base_url=(bridge or self.bridge).http_url, timeout=PATIENCE_SECONDS, **options)
        self._webs.append(found)
        return found

    def another_bridge(self, name: str, **settings: str) -> Bridge:
        """A second bridge beside the same broker and Redis, not started."""
        return Bridge(self.bridge.directory.with_name(name), self.world, {**self._settings, "NAME": name, **settings})

    def close(self) -> None:
        for client in [*self._clients, *self._webs]:
            client.close()


@contextmanager
def stack(
    directory: Path,
    *,
    flavour: Any = "redis",
    hears: tuple[str, ...] = ("users/endpoints/+", "bridge/#"),
    durable: bool = False,
    broker_lines: str = "",
    fsync: str = "everysec",
    way_to_broker: Callable[[int], str] = str,
    **settings: str,
) -> Iterator[Stack]:
    """A stack of one's own; ``settings`` are names like ``ENDPOINTS__GRACE_SECONDS``.

    ``fsync`` is Redis' ``appendfsync``: a Redis that is killed may lose what it answered unless it is ``always``.

    ``broker_lines`` go into Mosquitto's configuration, below the listener that everybody but perhaps the bridge uses;
    ``way_to_broker`` makes of the broker's port the one that the bridge is given.

    Ends with an error where the bridge's log tells of a bug.
    """
    with (
        RedisServer(directory / "redis", flavour, fsync=fsync) as redis,
        MosquittoServer(directory / "broker", extra=broker_lines) as broker,
    ):
        world = Client(broker.port, durable=durable)
        try:
            for topic_filter in hears:
                world.subscribe(topic_filter)
            given = {
                "MQTT__PORT": way_to_broker(broker.port),
                "REDIS__URL": redis.url,
                "NAME": "b1",
                **settings,
            }
            with Bridge(directory / "bridge", world, given) as bridge:
                found = Stack(redis, broker, bridge, world, given)
                try:
                    yield found
                finally:
                    found.close()
            assert "Traceback" not in bridge.log, bridge.log
            assert "this is a bug" not in bridge.log, bridge.log
        finally:
            world.close()
