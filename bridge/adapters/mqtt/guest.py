"""A guest at the broker: one short connection of its own for a command of the shell, with nothing that outlives it.

It never uses the bridge's client id, so that it takes no session over; it has no will and no session.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, cast

from mqtt5 import (
    ConnAckPacket,
    ConnectPacket,
    DisconnectPacket,
    Packet,
    PingReqPacket,
    PubAckPacket,
    PublishPacket,
    QoS,
    SubAckPacket,
    read,
)

from bridge.adapters.mqtt import reasons
from bridge.adapters.mqtt.dial import connect, explain
from bridge.adapters.mqtt.handshake import refusal, refused_subscriptions, subscribe_packet, topic_filters
from bridge.adapters.mqtt.settings import SessionSettings
from bridge.errors import Unreachable

_NO_SUBSCRIBER: Final = 0x10
_FAILED_FROM: Final = 0x80
_KEEP_ALIVE_SECONDS: Final = 30
_RECEIVE_MAXIMUM: Final = 100
_FAREWELL_SECONDS: Final = 2.0
_LAST_PACKET_ID: Final = 65_534  # the one after it is SUBSCRIBE's


class Heard(NamedTuple):
    """A message as it came."""

    topic: str
    payload: bytes
    retained: bool
    correlation: bytes | None


class Guest:
    """A connection that is open; `visit` makes it.

    Attributes:
        welcome: the broker's CONNACK, which holds its limits.
        peer: the broker's address and port.
        messages: what came, in order of arrival; None at the end of the connection.
    """

    def __init__(self, wire: "_Wire", welcome: ConnAckPacket) -> None:
        self._wire = wire
        self._packet_id = 0
        self.welcome = welcome
        self.messages = wire.messages
        self.peer = wire.peer

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        expiry_seconds: int | None = None,
    ) -> bool:
        """Publish at QoS 1; returns whether anybody has subscribed, as far as the broker tells.

        Args:
            topic: where to.
            payload: what.
            response_topic: where the answer shall go.
            correlation: what the answer shall be known by.
            expiry_seconds: after which who was not told yet need not be.

        Raises:
            Unreachable: the broker refuses it, does not answer, or ends the connection.
        """
        self._packet_id = self._packet_id % _LAST_PACKET_ID + 1
        packet = PublishPacket(
            topic,
            payload,
            qos=QoS.AT_LEAST_ONCE,
            packet_id=self._packet_id,
            response_topic=response_topic,
            correlation_data=correlation,
            message_expiry_interval=expiry_seconds,
        )
        answer = cast("PubAckPacket", await self._wire.ask(packet.write(), self._packet_id))
        code = int(answer.reason_code)
        if code >= _FAILED_FROM:
            raise Unreachable(f"The broker refused to publish to {topic}: {reasons.explain(reasons.PUBACK, code)}")
        return code != _NO_SUBSCRIBER


@asynccontextmanager
async def visit(settings: SessionSettings) -> AsyncIterator[Guest]:
    """Connect and subscribe; the connection ends with the context.

    Args:
        settings: where the broker is, and what to hear; its client id and state topic are not used.

    Raises:
        Unreachable: the broker does not answer, or refuses; says why and what to do.
        bridge.errors.ConfigError: a TLS file cannot be used.
    """
    wire = _Wire(settings.connect_timeout_seconds)
    try:
        async with asyncio.timeout(settings.connect_timeout_seconds):
            await connect(lambda: wire, settings, turn=0)
    except OSError as error:  # TimeoutError too
        raise Unreachable(explain(error, settings)) from None
    pinging = asyncio.create_task(wire.ping(), name="guest-ping")
    try:
        yield Guest(wire, await _greet(wire, settings))
    finally:
        pinging.cancel()
        await wire.close()


async def _greet(wire: "_Wire", settings: SessionSettings) -> ConnAckPacket:
    hello = ConnectPacket(
        f"endpoint-bridge-guest-{secrets.token_hex(8)}",
        username=settings.username,
        password=None if settings.password is None else settings.password.encode(),
        clean_start=True,
        keep_alive=_KEEP_ALIVE_SECONDS,
        receive_max=_RECEIVE_MAXIMUM,
        max_packet_size=settings.maximum_packet_bytes,
    )
    welcome = cast("ConnAckPacket", await wire.ask(hello.write(), ConnAckPacket))
    if refused := refusal(welcome):
        raise Unreachable(refused)
    if filters := topic_filters(settings):
        granted = cast("SubAckPacket", await wire.ask(subscribe_packet(filters), SubAckPacket))
        if refused := refused_subscriptions(granted, filters):
            raise Unreachable(refused)
    return welcome


class _Wire(asyncio.Protocol):
    """Reads packets, acknowledges messages, and hands answers to who waits for them."""

    def __init__(self, patience_seconds: float) -> None:
        self.messages: asyncio.Queue[Heard | None] = asyncio.Queue()
        self._patience_seconds = patience_seconds
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._waiting: dict[object, asyncio.Future[Packet]] = {}
        self._unread = b""
        self._end = "The broker closed the connection without a word: look into its log"

    async def ask(self, packet: bytes, key: object) -> Packet:
        """Send a packet and wait for the one of the type ``key``, or for the PUBACK with that packet id."""
        if self._closed.done():
            raise Unreachable(self._end)
        waiting: asyncio.Future[Packet] = self._loop.create_future()
        self._waiting[key] = waiting
        self._transport.write(packet)
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await waiting
        except TimeoutError:
            raise Unreachable(f"The broker is silent for {self._patience_seconds:g} s: look into its log") from None
        finally:
            del self._waiting[key]

    async def ping(self) -> None:
        """Let the broker know that the guest is still there."""
        while True:
            await asyncio.sleep(_KEEP_ALIVE_SECONDS / 2)
            self._transport.write(PingReqPacket().write())

    async def close(self) -> None:
        """Say goodbye and end the connection."""
        if not self._transport.is_closing():
            self._transport.write(DisconnectPacket().write())
        self._transport.close()
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer: tuple[str, int] = transport.get_extra_info("peername")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._end = f"The connection to the broker broke: {exc}"
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unreachable(self._end))
        self.messages.put_nowait(None)
        if not self._closed.done():
            self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        data, offset = self._unread + data, 0
        view = memoryview(data)
        while offset < len(data):
            try:
                packet, used = read(view[offset:])
            except IndexError:
                break
            except ValueError as error:
                self._end = f"What listens there does not speak MQTT 5 ({error}): check mqtt.host and mqtt.port"
                self._transport.abort()
                return
            offset += used
            self._take(packet)
        self._unread = data[offset:]

    def _take(self, packet: Packet) -> None:
        match packet:
            case PublishPacket():
                if packet.packet_id is not None:
                    self._transport.write(PubAckPacket(packet.packet_id).write())
                self.messages.put_nowait(Heard(packet.topic, packet.payload, packet.retain, packet.correlation_data))
            case DisconnectPacket():
                words = reasons.explain(reasons.DISCONNECT, int(packet.reason_code), packet.reason_str)
                self._end = f"The broker ended the connection: {words}"
            case _:
                waiting = self._waiting.get(packet.packet_id if isinstance(packet, PubAckPacket) else type(packet))
                if waiting is not None and not waiting.done():
                    waiting.set_result(packet)
