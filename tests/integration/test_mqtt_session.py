"""The session on a real Mosquitto, with paho as the judge of what arrived."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.adapters.mqtt import session as session_module
from bridge.adapters.mqtt.session import Session
from bridge.domain.values import Output
from tests.integration.mqtt import STATE, Judge, Line, judging, running, settings, until
from tests.integration.proxy import proxied
from tests.servers import MosquittoServer


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[MosquittoServer]:
    with MosquittoServer(tmp_path) as server:
        yield server


@pytest.fixture
def judge(mosquitto: MosquittoServer) -> Iterator[Judge]:
    with judging(mosquitto) as made:
        yield made


async def test_inputs_are_received_acknowledged_and_confirmed(mosquitto: MosquittoServer, judge: Judge) -> None:
    line = Line()
    line.acknowledging = True
    sent = [b"%d" % number for number in range(300)]
    async with running(Session(settings(mosquitto.port), line), line):
        await judge.publish("presence/devices/lamp", *sent)
        await until(lambda: line.confirmed_up_to == 300)
        assert line.payloads == sent
        assert [receipt.number for receipt in line.receipts] == list(range(1, 301))
    again = Line()
    async with running(Session(settings(mosquitto.port), again), again):
        assert again.connections == [(1, True)]
        await judge.publish("presence/devices/lamp", b"last")
        await until(lambda: again.publishes)
        assert again.payloads == [b"last"]


async def test_outputs_arrive_in_order_with_their_properties(mosquitto: MosquittoServer, judge: Judge) -> None:
    await judge.subscribe("users/endpoints/+")
    line, codes = Line(), []
    session = Session(settings(mosquitto.port), line)
    async with running(session, line):
        session.publish(
            [
                Output("users/endpoints/ann1", b"x" * 200, 1, "e1"),
                Output("users/endpoints/ann1", b"y", 0, "e2", redelivered=True),
                Output("users/endpoints/ann1", b"z", 1, correlation=b"\x00\xff"),
            ],
            codes.append,
        )
        await until(lambda: codes and len(judge.messages) == 3)
    assert codes == [[0, 0, 0]]
    first, second, third = judge.messages
    assert [message.payload for message in judge.messages] == [b"x" * 200, b"y", b"z"]
    assert [message.qos for message in judge.messages] == [1, 0, 1]
    assert {message.properties.ContentType for message in judge.messages} == {"application/json"}
    assert first.properties.UserProperty == [("event-id", "e1")]
    assert second.properties.UserProperty == [("event-id", "e2"), ("redelivered", "1")]
    assert third.properties.CorrelationData == b"\x00\xff"


async def test_the_publish_codes_of_the_broker_come_through(mosquitto: MosquittoServer, judge: Judge) -> None:
    await judge.subscribe("heard")
    line, codes = Line(), []
    session = Session(settings(mosquitto.port), line)
    async with running(session, line):
        session.publish([Output("heard", b"{}"), Output("nobody/listens", b"{}")], codes.append)
        await until(lambda: codes)
    assert codes == [[0, 0x10]]


@pytest.mark.parametrize(
    "poison",
    [
        Output("a/+", b"{}"),
        Output("a\x01", b"{}"),
        Output("a", b"{}", 1, "e\x7f"),
        Output("a\uffff", b"{}"),
        Output("a/" * 201, b"{}"),
        Output("/" * 201, b"x" * 200, 1, "e"),
    ],
)
async def test_an_output_that_the_broker_would_punish_harms_no_other(
    mosquitto: MosquittoServer, judge: Judge, poison: Output
) -> None:
    await judge.subscribe("out")
    line, codes = Line(), []
    session = Session(settings(mosquitto.port), line)
    async with running(session, line):
        session.publish([Output("out", b"1"), poison, Output("out", b"2")], codes.append)
        await until(lambda: codes and len(judge.messages) == 2)
    assert codes == [[0, 0x90, 0]]
    assert line.connections == [(1, False)]


async def test_the_deepest_topic_that_is_sent_is_taken(mosquitto: MosquittoServer, judge: Judge) -> None:
    deepest = "/".join("a" * 200)
    await judge.subscribe("a/#")
    line, codes = Line(), []
    session = Session(settings(mosquitto.port), line)
    async with running(session, line):
        session.publish([Output(deepest, b"{}")], codes.append)
        await until(lambda: codes and judge.payloads(deepest))
    assert codes == [[0]]
    assert line.connections == [(1, False)]


async def test_birth_and_farewell_are_retained(mosquitto: MosquittoServer, judge: Judge) -> None:
    line = Line()
    async with running(Session(settings(mosquitto.port), line), line):
        await until(lambda: line.confirmed_up_to >= 0)
        await judge.subscribe("nothing/else")
        await judge.subscribe(STATE)
        await until(lambda: judge.messages)
    await until(lambda: len(judge.messages) == 2)
    assert judge.payloads(STATE) == [b"online", b"offline"]
    assert judge.messages[0].retain
    assert line.reasons == ["The bridge stops."]


async def test_an_abrupt_end_makes_the_broker_say_offline(mosquitto: MosquittoServer, judge: Judge) -> None:
    await judge.subscribe(STATE)
    line = Line()
    task = asyncio.create_task(Session(settings(mosquitto.port), line).run())
    await until(lambda: judge.payloads(STATE) == [b"online"])
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: judge.payloads(STATE) == [b"online", b"offline"])


async def restart_story(mosquitto: MosquittoServer) -> None:
    line = Line()
    session = Session(settings(mosquitto.port), line)
    sent = [b"%d" % number for number in range(200)]
    async with running(session, line):
        with judging(mosquitto) as judge:
            await judge.publish("presence/devices/lamp", *sent)
        await until(lambda: len(line.publishes) == 200)
        session.acknowledge([line.receipts[1]])  # not the first: its PUBACK must not leave
        await asyncio.to_thread(mosquitto.restart)
        await until(lambda: len(line.publishes) == 400 and line.subscribed_on == line.connections[-1][0] > 1)
        assert line.connections[-1][1]
        again = line.publishes[200:]
        assert [packet.payload for packet in again] == sent
        packet_ids = [receipt.packet_id for receipt in line.receipts]
        assert packet_ids[200:] == packet_ids[:200]
        assert all(inbound.is_copy for inbound in again)
        assert [receipt.number for receipt in line.receipts[200:]] == list(range(1, 201))
        session.acknowledge(line.receipts[:200])
        session.acknowledge(line.receipts[200:])
        await until(lambda: line.confirmed_up_to == 200)
        # The line may forget, at the first PINGRESP, what was not delivered again: nothing may come after it.
        assert line.publishes_at_first_pingresp[line.connections[-1][0]] == 400


async def test_unacknowledged_inputs_come_again_after_a_restart_of_the_broker(mosquitto: MosquittoServer) -> None:
    await restart_story(mosquitto)


def test_the_same_holds_on_uvloop(mosquitto: MosquittoServer) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(restart_story(mosquitto))


async def test_a_broker_that_takes_five_at_once_gets_500_in_order(tmp_path: Path) -> None:
    with MosquittoServer(tmp_path, max_inflight_messages=5) as mosquitto, judging(mosquitto) as judge:
        await judge.subscribe("out")
        line, codes = Line(), []
        session = Session(settings(mosquitto.port), line)
        payloads = [b"%d" % number for number in range(500)]
        async with running(session, line):
            session.publish([Output("out", payload) for payload in payloads], codes.append)
            await until(lambda: codes and len(judge.messages) == 500)
        assert judge.payloads("out") == payloads
        assert codes == [[0] * 500]
        assert line.reasons == ["The bridge stops."]


async def test_receive_maximum_bounds_what_is_not_acknowledged(mosquitto: MosquittoServer, judge: Judge) -> None:
    line = Line()
    session = Session(settings(mosquitto.port, receive_maximum=50), line)
    sent = [b"%d" % number for number in range(400)]
    async with running(session, line):
        await judge.publish("presence/devices/lamp", *sent)
        await until(lambda: len(line.publishes) >= 50)
        line.confirmed_up_to = -1
        await until(lambda: line.confirmed_up_to == 0)
        assert len(line.publishes) == 50
        line.acknowledging = True
        session.acknowledge(line.receipts)
        await until(lambda: line.confirmed_up_to == 400)
        assert line.payloads == sent


async def test_outputs_made_while_the_broker_is_away_are_delivered(mosquitto: MosquittoServer) -> None:
    line, codes = Line(), []
    session = Session(settings(mosquitto.port), line)
    async with running(session, line):
        await asyncio.to_thread(mosquitto.stop)
        await until(lambda: line.reasons)
        session.publish([Output("out", b"1"), Output("out", b"2", 0), Output("out", b"3")], codes.append)
        await asyncio.sleep(0.1)
        assert codes == []
        await asyncio.to_thread(mosquitto.start)
        await until(lambda: codes)
        assert [len(batch) for batch in codes] == [3]


async def test_outputs_lost_with_a_crashed_broker_are_published_anew(mosquitto: MosquittoServer) -> None:
    line, codes = Line(), []
    session = Session(settings(mosquitto.port), line)
    async with running(session, line):
        await until(lambda: line.confirmed_up_to >= 0)
        mosquitto.freeze()
        session.publish([Output("out", b"1"), Output("out", b"2")], codes.append)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(mosquitto.kill)
        await asyncio.to_thread(mosquitto.start)
        await until(lambda: codes)
        assert [len(batch) for batch in codes] == [2]
        assert line.connections[-1][1] is False


async def test_another_client_with_our_id_takes_over_and_we_come_back(mosquitto: MosquittoServer, judge: Judge) -> None:
    line = Line()
    async with running(Session(settings(mosquitto.port), line), line):
        thief = Client(CallbackAPIVersion.VERSION2, client_id="bridge-5f2c", protocol=MQTTProtocolVersion.MQTTv5)
        thief.connect("127.0.0.1", mosquitto.port)
        thief.loop_start()
        await until(lambda: line.reasons)
        thief.disconnect()
        thief.loop_stop()
        await until(lambda: line.subscribed_on > 1)
        assert line.connections[-1][1] is False  # the thief began anew: the session went with what waited in it
        await judge.publish("presence/devices/lamp", b"after")
        await until(lambda: line.payloads == [b"after"])
    assert "another client uses the bridge's client id" in line.reasons[0]  # this broker sends no 0x8E


async def test_a_half_open_connection_is_found_and_nothing_is_lost(
    mosquitto: MosquittoServer, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_SHORTEST_PATIENCE_SECONDS", 0.3)
    await judge.subscribe("out")
    line, codes = Line(), []
    async with proxied(mosquitto.port) as proxy:
        session = Session(settings(proxy.port, keep_alive_seconds=1), line)
        async with running(session, line):
            await until(lambda: line.confirmed_up_to >= 0)
            proxy.is_frozen = True
            session.publish([Output("out", b"1"), Output("out", b"2")], codes.append)
            await judge.publish("presence/devices/lamp", b"on")
            await until(lambda: line.reasons)
            assert "answers no PINGREQ" in line.reasons[0]
            proxy.is_frozen = False
            await until(lambda: codes and line.publishes and line.subscribed_on > 1)
            assert line.connections[-1][1]
            session.acknowledge(line.receipts)
            await until(lambda: line.confirmed_up_to == 1)
    assert [message.payload for message in judge.messages][-2:] == [b"1", b"2"]


async def test_outputs_whose_pubacks_were_lost_are_sent_again_with_dup(
    mosquitto: MosquittoServer, judge: Judge
) -> None:
    await judge.subscribe("out")
    line, codes = Line(), []
    sent = [b"%d" % number for number in range(50)]
    async with proxied(mosquitto.port) as proxy:
        session = Session(settings(proxy.port), line)
        async with running(session, line):
            await until(lambda: line.confirmed_up_to >= 0)
            proxy.loses_answers = True
            session.publish([Output("out", payload) for payload in sent], codes.append)
            await until(lambda: len(judge.messages) == 50)
            assert codes == []
            proxy.loses_answers = False
            proxy.cut()
            await until(lambda: codes and len(judge.messages) == 100)
            assert line.connections[-1][1]
    assert codes == [[0] * 50]
    assert judge.payloads("out") == sent * 2
    first, again = judge.messages[:50], judge.messages[50:]
    assert not any(hasattr(message.properties, "UserProperty") for message in first)
    assert all(message.properties.UserProperty == [("redelivered", "1")] for message in again)


async def test_what_waited_at_qos_2_in_a_session_that_was_somebody_elses_is_taken(
    mosquitto: MosquittoServer, judge: Judge
) -> None:
    """The bridge asks for QoS 1, but the broker keeps to the QoS at which a message was queued."""
    before = Client(CallbackAPIVersion.VERSION2, client_id="bridge-5f2c", protocol=MQTTProtocolVersion.MQTTv5)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    before.connect("127.0.0.1", mosquitto.port, clean_start=False, properties=properties)
    granted = threading.Event()
    before.on_subscribe = lambda *_: granted.set()
    before.loop_start()
    before.subscribe("presence/devices/+", qos=2)
    assert await asyncio.to_thread(granted.wait, 5)
    before.disconnect()
    before.loop_stop()
    sent = [b"%d" % number for number in range(30)]
    await judge.publish("presence/devices/lamp", *sent, qos=2)
    for expected in (sent, []):
        line = Line()
        line.acknowledging = True
        async with running(Session(settings(mosquitto.port), line), line):
            assert line.connections == [(1, True)]
            await until(lambda: line.confirmed_up_to == len(expected))  # noqa: B023 - waited for in the same turn
            assert line.payloads == expected


class CountingSession(Session):
    """Counts what its transport is asked to write."""

    writes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        write = transport.write

        def counted(data: bytes) -> None:
            self.writes += 1
            write(data)

        transport.write = counted  # type: ignore[assignment, method-assign]
        super().connection_made(transport)


async def test_a_batch_leaves_in_one_write(mosquitto: MosquittoServer) -> None:
    line, codes = Line(), []
    session = CountingSession(settings(mosquitto.port), line)
    async with running(session, line):
        await until(lambda: line.confirmed_up_to >= 0)
        before = session.writes
        for _ in range(200):
            session.publish([Output("out", b"{}" * 50, 1, "e")], codes.append)
        await asyncio.sleep(0)
        assert session.writes - before <= 1
        await until(lambda: len(codes) == 200)
