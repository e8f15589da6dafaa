"""The session against a broker of a few lines, which says exactly what a test wants to hear about."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import cast

import mqtt5
import pytest
import structlog
import uvloop
from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    PingReqPacket,
    PingRespPacket,
    PubAckPacket,
    PubAckReasonCode,
    PublishPacket,
    QoS,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
)

from bridge.adapters.mqtt import session as session_module
from bridge.adapters.mqtt.session import Session
from bridge.adapters.mqtt.settings import SessionSettings
from bridge.domain.values import Output
from bridge.errors import ConfigError
from tests.unit.adapters.mqtt.scripted import Broker, Heard, until

SETTINGS = SessionSettings(
    host="127.0.0.1",
    port=0,
    client_id="bridge-test",
    subscriptions=["presence/#"],
    state_topic="bridge/test/state",
    ping_interval_seconds=0.02,
    backoff_shortest_seconds=0.01,
    backoff_longest_seconds=0.02,
)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = Broker()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    if made.writer is not None:
        made.writer.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)


@asynccontextmanager
async def running(broker: Broker, settings: SessionSettings = SETTINGS) -> AsyncIterator[tuple[Session, Heard]]:
    heard = Heard()
    session = Session(replace(settings, port=broker.port), heard)
    task = asyncio.create_task(session.run())
    try:
        yield session, heard
    finally:
        await session.stop()
        await asyncio.wait_for(task, 5)


@contextmanager
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    with structlog.testing.capture_logs() as entries:
        yield lines
    lines += [entry["event"] for entry in entries]


async def ready(heard: Heard) -> None:
    await until(lambda: "subscribed" in heard.words())


async def test_connect_carries_will_session_and_limits(broker: Broker) -> None:
    async with running(broker, replace(SETTINGS, username="u", password="p")) as (_, heard):
        await ready(heard)
    connect = broker.packets[0]
    assert isinstance(connect, ConnectPacket)
    assert (connect.client_id, connect.username, connect.password) == ("bridge-test", "u", b"p")
    assert not connect.clean_start
    assert connect.session_expiry_interval == 7 * 24 * 3600
    assert (connect.receive_max, connect.max_packet_size, connect.keep_alive) == (1000, 1_048_576, 4)
    assert connect.will is not None
    assert (connect.will.topic, connect.will.payload, connect.will.qos, connect.will.retain) == (
        "bridge/test/state",
        b"offline",
        QoS.AT_LEAST_ONCE,
        True,
    )
    subscribe = broker.packets[1]
    assert isinstance(subscribe, SubscribePacket)
    (topic_filter,) = subscribe.topic_filters
    assert topic_filter.pattern == "presence/#"
    assert topic_filter.max_qos == QoS.AT_LEAST_ONCE
    assert topic_filter.retain_handling == mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
    assert not topic_filter.retain_as_published
    assert not topic_filter.no_local


async def test_birth_and_farewell(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_FAREWELL_SECONDS", 3600)  # the farewell's PUBACK ends the wait
    with logged() as lines:
        async with running(broker) as (_, heard):
            await ready(heard)
            await until(lambda: broker.got(PublishPacket))
    assert lines == [f"Connected to the broker at 127.0.0.1:{broker.port} and subscribed."]
    states = cast("list[PublishPacket]", broker.got(PublishPacket))
    assert [(packet.payload, packet.retain) for packet in states] == [(b"online", True), (b"offline", True)]
    last = broker.packets[-1]
    assert isinstance(last, DisconnectPacket)
    assert last.reason_code == DisconnectReasonCode.NORMAL_DISCONNECTION
    assert heard.story[-1] == ("disconnected", 1, "The bridge stops.")


async def test_a_farewell_that_is_not_acknowledged_leaves_it_to_the_will(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_FAREWELL_SECONDS", 0.05)
    broker.silent = (PublishPacket,)
    async with running(broker) as (_, heard):
        await ready(heard)
    last = broker.packets[-1]
    assert isinstance(last, DisconnectPacket)
    assert last.reason_code == DisconnectReasonCode.DISCONNECT_WITH_WILL_MESSAGE


async def test_the_listener_hears_in_wire_order(broker: Broker) -> None:
    async with running(broker, replace(SETTINGS, ping_interval_seconds=0.3)) as (_, heard):
        await ready(heard)
        broker.silent = (PingReqPacket,)
        await until(lambda: broker.got(PingReqPacket))
        delivery = PublishPacket("presence/a", b"1").write()
        broker.say(delivery * 2 + PingRespPacket().write() + delivery)
        await until(lambda: len(heard.words()) == 5)
        assert heard.words() == ["connected", "subscribed", "received", "confirmed", "received"]
        assert heard.story[2] == ("received", b"1", b"1")


async def test_pubacks_wait_for_their_turn_and_pings_confirm_them(broker: Broker) -> None:
    async with running(broker) as (session, heard):
        await ready(heard)
        broker.publish(b"a", b"b", b"c")
        await until(lambda: len(heard.receipts) == 3)
        session.acknowledge([heard.receipts[1]])
        await until(lambda: heard.words().count("confirmed") > 2)
        assert broker.got(PubAckPacket) == []
        session.acknowledge([heard.receipts[0]])
        await until(lambda: ("confirmed", 1, 2) in heard.story)
        pubacks = cast("list[PubAckPacket]", broker.got(PubAckPacket))
        assert [packet.packet_id for packet in pubacks] == [1, 2]


async def test_a_receipt_of_an_earlier_connection_is_void(broker: Broker) -> None:
    async with running(broker) as (session, heard):
        await ready(heard)
        broker.publish(b"a")
        await until(lambda: heard.receipts)
        broker.say(DisconnectPacket(reason_code=DisconnectReasonCode.SERVER_SHUTTING_DOWN).write())
        await until(lambda: ("subscribed", 2) in heard.story)
        session.acknowledge(heard.receipts)
        await until(lambda: heard.words()[-3:] == ["confirmed"] * 3)
        assert broker.got(PubAckPacket) == []


async def test_unacknowledged_outputs_are_sent_again(broker: Broker) -> None:
    broker.silent = (PublishPacket,)
    async with running(broker) as (session, heard):
        codes: list[list[int]] = []
        session.publish([Output("t", b"1"), Output("t", b"2", 0)], codes.append)
        await until(lambda: len(broker.got(PublishPacket)) == 3)
        broker.silent = ()
        broker.connack = ConnAckPacket(session_present=True).write()
        broker.packets.clear()
        assert broker.writer is not None
        broker.writer.close()
        await until(lambda: codes)
        assert codes == [[0, 0]]
        again = cast("list[PublishPacket]", broker.got(PublishPacket))
        assert (again[0].payload, again[0].duplicate) == (b"1", True)
        assert ("connected", 2, True) in heard.story


async def test_no_outputs_are_settled_at_once(broker: Broker) -> None:
    codes: list[list[int]] = []
    Session(SETTINGS, Heard()).publish([], codes.append)
    assert codes == [[]]


async def test_drained_waits_for_the_backlog(broker: Broker) -> None:
    session = Session(replace(SETTINGS, port=broker.port, backlog_limit=2), Heard())
    session.publish([Output("t", b"1")], lambda codes: None)
    await asyncio.wait_for(session.drained(), 1)
    session.publish([Output("t", b"2")], lambda codes: None)
    waiting = asyncio.create_task(session.drained())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    task = asyncio.create_task(session.run())
    await asyncio.wait_for(waiting, 5)
    await session.stop()
    await asyncio.wait_for(task, 5)


class Wire(asyncio.Transport):
    """A transport that counts writes, to a broker at ``peer``."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        super().__init__()
        self.peer = peer
        self.writes: list[bytes] = []
        self.is_read = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (self.peer, 1883) if name == "peername" else default


async def on_the_wire() -> tuple[Session, Wire, Heard]:
    heard = Heard()
    session, wire = Session(replace(SETTINGS, ping_interval_seconds=60), heard), Wire()
    session.connection_made(wire)
    session.data_received(ConnAckPacket().write())
    session.data_received(SubAckPacket(65_535, [SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write())
    await asyncio.sleep(0)
    wire.writes.clear()
    return session, wire, heard


DELIVERY = b"".join(
    PublishPacket("a", b"x", qos=QoS.AT_LEAST_ONCE, packet_id=number).write() for number in range(1, 101)
)


async def test_a_turn_of_the_loop_makes_one_write() -> None:
    session, wire, heard = await on_the_wire()
    session.data_received(DELIVERY)
    session.acknowledge(heard.receipts[:50])
    for number in range(100):
        session.publish([Output("t", b"%d" % number)], lambda codes: None)
    session.acknowledge(heard.receipts[50:])
    assert wire.writes == []
    await asyncio.sleep(0)
    assert len(wire.writes) == 1
    assert wire.writes[0].startswith(b"".join(b"\x40\x02" + number.to_bytes(2, "big") for number in range(1, 101)))
    session.connection_lost(None)


async def test_a_fan_out_leaves_in_one_write() -> None:
    session, wire, _ = await on_the_wire()
    others = tuple(f"t{number}" for number in range(1, 500))
    session.publish([Output("t0", bytes(200), 1, "e", others=others)], lambda codes: None)
    await asyncio.sleep(0)
    assert len(wire.writes) == 1
    assert wire.writes[0].count(b"event-id") == 500
    session.connection_lost(None)


async def test_a_full_transport_holds_back_but_reading_goes_on() -> None:
    session, wire, heard = await on_the_wire()
    session.pause_writing()
    settled: list[list[int]] = []
    session.publish([Output("t", b"{}", 0)], settled.append)
    session.data_received(DELIVERY)
    session.acknowledge(heard.receipts)
    await asyncio.sleep(0)
    assert len(heard.receipts) == 100
    assert (wire.writes, settled) == ([], [])
    session.resume_writing()
    await asyncio.sleep(0)
    assert len(wire.writes) == 1
    assert settled == [[0]]
    session.connection_lost(None)


async def test_reading_pauses_where_the_listener_has_no_room_until_it_is_told_to_go_on() -> None:
    session, wire, heard = await on_the_wire()
    heard.has_room = False
    session.data_received(DELIVERY)
    assert (len(heard.receipts), wire.is_read) == (100, False)
    heard.has_room = True
    session.read_on()
    assert wire.is_read
    session.data_received(DELIVERY)
    assert wire.is_read
    session.connection_lost(None)


async def test_reading_goes_on_while_outputs_wait_for_pubacks_that_may_stand_behind_deliveries() -> None:
    session, wire, heard = await on_the_wire()
    heard.has_room = False
    session.data_received(DELIVERY)
    assert not wire.is_read
    session.pause_writing()
    session.publish([Output("t", bytes(1_000_000))] * 70, lambda codes: None)
    waiting = asyncio.create_task(session.drained())
    await asyncio.sleep(0)
    assert (wire.is_read, waiting.done()) == (True, False)
    session.data_received(DELIVERY)
    assert wire.is_read
    session.resume_writing()
    await asyncio.wait_for(waiting, 5)
    session.data_received(DELIVERY)
    assert not wire.is_read
    session.connection_lost(None)


async def test_a_broker_that_is_not_read_is_not_taken_for_dead(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_SHORTEST_PATIENCE_SECONDS", 0.0)
    async with running(broker, replace(SETTINGS, keep_alive_seconds=0)) as (session, heard):
        await ready(heard)
        heard.has_room = False
        broker.publish(b"a")
        await until(lambda: heard.receipts)
        pings = len(broker.got(PingReqPacket))
        await until(lambda: len(broker.got(PingReqPacket)) > pings)
        await asyncio.sleep(0.2)  # ten times as long as the broker may be silent
        heard.has_room = True
        session.read_on()
        await until(lambda: heard.words()[-1] == "confirmed")
        assert "disconnected" not in heard.words()


async def test_a_password_in_clear_is_warned_of_once() -> None:
    session = Session(replace(SETTINGS, password="sesame"), Heard())
    with logged() as lines:
        for peer in ("127.0.0.1", "192.0.2.1", "192.0.2.1"):
            session.connection_made(Wire(peer))
            session.connection_lost(None)
    assert lines == ["The bridge's password goes over the network in clear: set mqtt.tls = true."]


async def test_what_an_operator_should_know_of_the_connack_is_told(broker: Broker) -> None:
    broker.connack = ConnAckPacket(session_expiry_interval=60, max_packet_size=5000).write()
    with logged() as lines:
        async with running(broker) as (session, heard):
            assert session.largest_packet_bytes == 268_435_460
            await ready(heard)
            assert session.largest_packet_bytes == 5000
    assert "keeps the bridge's session for 60 s" in lines[0]


async def test_a_refused_connection_is_retried_and_told(broker: Broker) -> None:
    broker.connack = ConnAckPacket(reason_code=ConnAckReasonCode.NOT_AUTHORIZED).write()
    with logged() as lines:
        async with running(broker) as (_, heard):
            await until(lambda: broker.connections >= 3)
    assert heard.story == []
    assert len(lines) == 1, "the same reason is told once in ten seconds"
    assert "refused the connection: not authorized (0x87). Check mqtt.username" in lines[0]
    assert "Connecting again in" in lines[0]


async def test_a_refused_subscription_is_retried_and_told(broker: Broker) -> None:
    broker.suback = SubAckReasonCode.NOT_AUTHORIZED
    with logged() as lines:
        async with running(broker) as (_, heard):
            await until(lambda: broker.connections >= 2)
            broker.suback = SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
            await ready(heard)
    assert "presence/#: not authorized (0x87). Let" in lines[0]
    assert heard.words()[:2] == ["connected", "disconnected"]
    assert isinstance(broker.packets[2], DisconnectPacket)


async def test_a_malformed_packet_is_answered_and_the_session_goes_on(broker: Broker) -> None:
    with logged() as lines:
        async with running(broker) as (_, heard):
            await ready(heard)
            broker.say(b"\x00\x00")
            await until(lambda: ("subscribed", 2) in heard.story)
    (goodbye, _) = cast("list[DisconnectPacket]", broker.got(DisconnectPacket))
    assert goodbye.reason_code == DisconnectReasonCode.MALFORMED_PACKET
    assert any("malformed packet" in line for line in lines)


async def test_a_silent_broker_is_left(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_SHORTEST_PATIENCE_SECONDS", 0.1)
    broker.silent = (PingReqPacket,)
    async with running(broker, replace(SETTINGS, keep_alive_seconds=0)) as (_, heard):
        await until(lambda: ("connected", 2, False) in heard.story)
        assert ("disconnected", 1, "The broker has been silent for 0 s and answers no PINGREQ.") in heard.story


async def test_whatever_a_broker_says_is_a_sign_of_life(broker: Broker) -> None:
    broker.silent = (PingReqPacket,)
    async with running(broker) as (session, heard):
        await ready(heard)
        await until(lambda: broker.got(PingReqPacket))
        transport = session._transport
        assert transport is not None
        session._heard_at = float("-inf")
        session.data_received(DELIVERY)
        session._ping()
        assert not transport.is_closing()
        session._heard_at = float("-inf")
        session._ping()
        assert transport.is_closing()


async def test_the_keep_alive_of_the_broker_stands_in_place_of_ours(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_SHORTEST_PATIENCE_SECONDS", 0.1)
    broker.silent = (PingReqPacket,)
    broker.connack = ConnAckPacket(server_keep_alive=1).write()
    async with running(broker, replace(SETTINGS, keep_alive_seconds=3600)) as (_, heard):
        await until(
            lambda: ("disconnected", 1, "The broker has been silent for 1 s and answers no PINGREQ.") in heard.story
        )


async def test_refused_outputs_are_told_together(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_TOLD_EVERY_SECONDS", 3600)
    monkeypatch.setattr(session_module, "_FAREWELL_SECONDS", 0.05)
    broker.silent = (PublishPacket,)
    with structlog.testing.capture_logs() as lines:
        async with running(broker) as (session, heard):
            await ready(heard)
            session._refusals_told_at = float("-inf")
            session.publish([Output("users/endpoints/ann", b"secret")] * 3, lambda codes: None)
            await until(lambda: len(broker.got(PublishPacket)) == 4)
            code = PubAckReasonCode.NOT_AUTHORIZED
            broker.say(b"".join(PubAckPacket(number, reason_code=code).write() for number in (2, 3, 4)))
            await until(lambda: any("refuses outputs" in line["event"] for line in lines))
            session.publish([Output("a/#", b"secret")], lambda codes: None)
            await until(lambda: heard.words().count("confirmed") > 5)
    (line,) = [line for line in lines if "refuses outputs" in line["event"]]
    assert line["event"].startswith("The broker refuses outputs: not authorized (0x87). Let the bridge's user")
    assert (line["outputs"], line["last_topic"]) == (3, "users/endpoints/ann")


async def test_a_broker_that_hangs_up_before_it_answers_is_told_apart(broker: Broker) -> None:
    broker.silent = (ConnectPacket,)
    with logged() as lines:
        async with running(broker):
            await until(lambda: broker.got(ConnectPacket))
            assert broker.writer is not None
            broker.writer.close()
            await until(lambda: broker.connections >= 2)
    assert "it hung up before it answered. Set mqtt.tls = true where" in lines[0]


async def test_a_tls_file_that_has_become_unusable_is_told_and_tried_again(broker: Broker) -> None:
    attempts: list[int] = []

    def unusable() -> ssl.SSLContext:
        attempts.append(1)
        raise ConfigError("mqtt.ca_file: it cannot be read; mend it")

    with logged() as lines:
        async with running(broker, replace(SETTINGS, tls=unusable)):
            await until(lambda: len(attempts) >= 2)
    assert "Cannot connect to the broker: mqtt.ca_file: it cannot be read; mend it. Connecting again in" in lines[0]


async def test_a_useless_address_gives_way_to_the_next(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(_loop: object, _host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (2, 1)]

    useless = Broker()
    useless.silent = (ConnectPacket,)
    server = await asyncio.start_server(useless.serve, "127.0.0.2", broker.port)
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    async with running(broker, replace(SETTINGS, connect_timeout_seconds=0.3)) as (_, heard):
        await ready(heard)
    assert (useless.connections, broker.connections) == (1, 1)
    server.close()
    await server.wait_closed()


async def test_a_broker_that_never_answers_connect_is_left(broker: Broker) -> None:
    broker.silent = (ConnectPacket,)
    with logged() as lines:
        async with running(broker, replace(SETTINGS, connect_timeout_seconds=0.05)):
            await until(lambda: broker.connections >= 2)
    assert "no answer" in lines[0]


async def test_no_broker_at_all_is_told_and_stop_does_not_wait() -> None:
    session = Session(replace(SETTINGS, port=1, backoff_shortest_seconds=60, backoff_longest_seconds=60), Heard())
    with logged() as lines:
        task = asyncio.create_task(session.run())
        await asyncio.sleep(0.1)
        await session.stop()
        await asyncio.wait_for(task, 1)
    assert "Cannot connect to the broker at 127.0.0.1:1" in lines[0]


async def test_stop_does_not_wait_for_a_broker_that_is_slow_to_connect(broker: Broker) -> None:
    broker.silent = (ConnectPacket,)
    session = Session(replace(SETTINGS, port=broker.port), Heard())
    task = asyncio.create_task(session.run())
    await until(lambda: broker.connections == 1)
    await session.stop()
    await asyncio.wait_for(task, 1)


async def test_stop_in_the_moment_in_which_the_connection_is_lost(broker: Broker) -> None:
    class Stopping(Heard):
        def disconnected(self, connection: int, reason: str) -> None:
            super().disconnected(connection, reason)
            with pytest.raises(StopIteration):  # it has nothing to wait for
                session.stop().send(None)

    heard = Stopping()
    session = Session(replace(SETTINGS, port=broker.port), heard)
    task = asyncio.create_task(session.run())
    await ready(heard)
    assert broker.writer is not None
    broker.writer.close()
    await asyncio.wait_for(task, 5)
    assert heard.words()[-1] == "disconnected"
    assert broker.connections == 1


async def test_a_cancelled_run_cuts_the_connection_without_a_disconnect(broker: Broker) -> None:
    heard = Heard()
    task = asyncio.create_task(Session(replace(SETTINGS, port=broker.port), heard).run())
    await ready(heard)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard.words()[-1] == "disconnected"
    assert broker.got(DisconnectPacket) == []


class PanicException(BaseException):
    """What the codec raises where it panics."""


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("a fault of the line")


def panic(*_: object, **__: object) -> bytes:
    raise PanicException("a fault of the codec")


class FaultyListener(Heard):
    """Fails in the call named."""

    def __init__(self, call: str) -> None:
        super().__init__()
        setattr(self, call, fail)


async def ended(broker: Broker, session: Session, fault: str) -> None:
    """Hear the fault from `run`, after one connection and not when somebody stops the bridge."""
    with pytest.raises(RuntimeError, match=fault):
        await asyncio.wait_for(session.run(), 5)
    assert broker.connections == 1
    assert not broker.got(DisconnectPacket)


@pytest.mark.parametrize("call", ["connected", "subscribed", "received", "confirmed"])
async def test_a_listener_that_fails_ends_the_session(broker: Broker, call: str) -> None:
    heard = FaultyListener(call)
    session = Session(replace(SETTINGS, port=broker.port), heard)
    if call == "received":
        asyncio.get_running_loop().call_later(0.1, broker.publish, b"a", b"b")
    await ended(broker, session, "a fault of the line")
    assert heard.story[-1] == ("disconnected", 1, "The bridge has a fault of its own.")


async def test_a_listener_that_fails_at_the_end_of_a_connection_ends_the_session(broker: Broker) -> None:
    session = Session(replace(SETTINGS, port=broker.port), FaultyListener("disconnected"))
    goodbye = DisconnectPacket(reason_code=DisconnectReasonCode.SERVER_SHUTTING_DOWN).write()
    asyncio.get_running_loop().call_later(0.1, broker.say, goodbye)
    await ended(broker, session, "a fault of the line")


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_settled_callback_that_fails_ends_the_session(broker: Broker, qos: int) -> None:
    session = Session(replace(SETTINGS, port=broker.port), Heard())
    session.publish([Output("t", b"{}", qos)], fail)
    await ended(broker, session, "a fault of the line")


@pytest.mark.parametrize(
    ("fault", "told"), [(fail, "a fault of the line"), (panic, "PanicException: a fault of the c")]
)
async def test_an_output_that_cannot_be_encoded_ends_the_session(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, fault: object, told: str
) -> None:
    monkeypatch.setattr("bridge.adapters.mqtt.outbox.encode", fault)
    await ended(broker, Session(replace(SETTINGS, port=broker.port), Heard()), told)


async def test_a_connect_packet_that_cannot_be_written_ends_the_session(broker: Broker) -> None:
    session = Session(replace(SETTINGS, port=broker.port, client_id="x" * 70_000), Heard())
    with pytest.raises(ValueError, match="65535"):
        await asyncio.wait_for(session.run(), 5)


async def test_a_fault_while_stopping_is_raised_too(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    session = Session(replace(SETTINGS, port=broker.port), heard)
    task = asyncio.create_task(session.run())
    await ready(heard)
    monkeypatch.setattr("bridge.adapters.mqtt.outbox.encode", fail)
    await asyncio.wait_for(session.stop(), 5)
    with pytest.raises(RuntimeError, match="a fault of the line"):
        await asyncio.wait_for(task, 5)


def test_the_same_holds_on_uvloop() -> None:
    async def story() -> None:
        made = Broker()
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
        session = Session(replace(SETTINGS, port=made.port), Heard())
        session.publish([Output("t", b"{}")], fail)
        await ended(made, session, "a fault of the line")
        server.close()
        await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_another_client_with_our_id_is_named_in_the_log(broker: Broker) -> None:
    with logged() as lines:
        async with running(broker) as (_, heard):
            await ready(heard)
            broker.say(DisconnectPacket(reason_code=DisconnectReasonCode.SESSION_TAKEN_OVER).write())
            await until(lambda: "disconnected" in heard.words())
    assert any("session taken over (0x8E). Another client uses the bridge's client id" in line for line in lines)


async def test_passwords_and_payloads_are_not_logged(broker: Broker) -> None:
    broker.silent = (PingReqPacket,)
    with logged() as lines:
        async with running(broker, replace(SETTINGS, username="u", password="sesame")) as (session, heard):
            await ready(heard)
            session.publish([Output("a/+", b"secret-payload")], lambda codes: None)
            broker.say(b"\x00\x00")
            await until(lambda: "disconnected" in heard.words())
    assert lines
    assert not any("sesame" in line or "secret-payload" in line for line in lines)
