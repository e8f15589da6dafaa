"""A broker of a few lines, which answers as far as it is told to, and a listener that writes down what it hears."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import mqtt5
from mqtt5 import (
    ConnAckPacket,
    ConnectPacket,
    PingReqPacket,
    PingRespPacket,
    PubAckPacket,
    PublishPacket,
    QoS,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
)

from bridge.adapters.mqtt.connection import Publishes

if TYPE_CHECKING:
    from bridge.domain.values import Receipt


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.story: list[tuple[object, ...]] = []
        self.receipts: list[Receipt] = []
        self.has_room = True

    def connected(self, connection: int, session_present: bool) -> None:
        self.story.append(("connected", connection, session_present))

    def subscribed(self, connection: int) -> None:
        self.story.append(("subscribed", connection))

    def received(self, publishes: Publishes, size_bytes: int) -> None:
        self.story.append(("received", *(packet.payload for packet, _ in publishes)))
        self.receipts += [receipt for _, receipt in publishes if receipt is not None]

    def confirmed(self, connection: int, acknowledged: int, caught_up: bool) -> None:
        self.story.append(("confirmed", connection, acknowledged))

    def disconnected(self, connection: int, reason: str) -> None:
        self.story.append(("disconnected", connection, reason))

    def words(self) -> list[object]:
        return [line[0] for line in self.story]


class Broker:
    """Answers CONNECT, SUBSCRIBE, PUBLISH and PINGREQ as far as it is told to, and keeps every packet it got."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.packets: list[mqtt5.Packet] = []
        self.connack = ConnAckPacket().write()
        self.suback = SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
        self.silent: tuple[type, ...] = ()
        self.writer: asyncio.StreamWriter | None = None

    def say(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    def publish(self, *payloads: bytes) -> None:
        self.say(
            b"".join(
                PublishPacket("presence/a", payload, qos=QoS.AT_LEAST_ONCE, packet_id=number).write()
                for number, payload in enumerate(payloads, 1)
            )
        )

    def got(self, kind: type) -> list[mqtt5.Packet]:
        return [packet for packet in self.packets if isinstance(packet, kind)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writer = writer
        data = b""
        try:
            while more := await reader.read(1 << 16):
                data += more
                while data:
                    try:
                        packet, used = mqtt5.read(memoryview(data))
                    except IndexError:
                        break
                    data = data[used:]
                    self.packets.append(packet)
                    if not isinstance(packet, self.silent):
                        writer.write(self.answer(packet))
        except ConnectionError:
            pass
        finally:
            writer.close()

    def answer(self, packet: mqtt5.Packet) -> bytes:
        match packet:
            case ConnectPacket():
                return self.connack
            case SubscribePacket():
                return SubAckPacket(packet.packet_id, [self.suback]).write()
            case PublishPacket() if packet.packet_id is not None:
                return PubAckPacket(packet.packet_id).write()
            case PingReqPacket():
                return PingRespPacket().write()
        return b""


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for lies in plain lists, which no event guards
            await asyncio.sleep(0.002)
