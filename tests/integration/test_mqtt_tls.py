"""TLS to a real Mosquitto, with certificates made for the test: who is let in, and what is said of who is not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog
import uvloop

from bridge.adapters.mqtt.session import Session
from bridge.adapters.mqtt.settings import SessionSettings
from bridge.domain.values import Output
from bridge.tls import client_context
from tests.certificates import Authority, Pair
from tests.integration.mqtt import Line, judging, running, settings, until
from tests.integration.stack import stack
from tests.servers import MosquittoServer, free_port


class Tls(NamedTuple):
    """A Mosquitto with a listener in clear, one with TLS and one that asks for certificates."""

    server: MosquittoServer
    port: int
    strict_port: int
    authority: Authority
    other: Authority
    own: Pair

    def settings(self, port: int, ca: Path | None = None, own: Pair | None = None, **others: object) -> SessionSettings:
        files = ("", "") if own is None else (str(own.certificate), str(own.key))
        make = partial(client_context, "mqtt", str(ca or self.authority.file), *files)
        return settings(port, tls=make, **others)


def listener(port: int, authority: Authority, server: Pair, *more: str) -> str:
    files = f"cafile {authority.file}\ncertfile {server.certificate}\nkeyfile {server.key}"
    return "\n".join((f"listener {port} 127.0.0.1", files, *more))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    folder = tmp_path_factory.mktemp("tls")
    authority, other = Authority(folder / "authority"), Authority(folder / "other", "other")
    broker = authority.issue("broker", "127.0.0.1", "broker.internal")
    port, strict_port = free_port(), free_port()
    listeners = (
        listener(port, authority, broker),
        listener(strict_port, authority, broker, "require_certificate true"),
    )
    with MosquittoServer(folder / "broker", extra="\n".join(listeners)) as server:
        yield Tls(server, port, strict_port, authority, other, authority.issue("bridge"))


@contextmanager
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    with structlog.testing.capture_logs() as entries:
        yield lines
    lines += [entry["event"] for entry in entries]


@asynccontextmanager
async def refused(given: SessionSettings) -> AsyncIterator[None]:
    """Run a session that must not come through, for two attempts."""
    line = Line()
    session = Session(given, line)
    task = asyncio.create_task(session.run())
    try:
        await until(lambda: session._failures >= 2)
        assert line.connections == []
        yield
    finally:
        await session.stop()
        await asyncio.wait_for(task, 5)


async def message_both_ways(tls: Tls, given: SessionSettings) -> None:
    line, codes = Line(), []  # type: ignore[var-annotated]
    line.acknowledging = True
    session = Session(given, line)
    with judging(tls.server) as judge:
        await judge.subscribe("out")
        async with running(session, line):
            await judge.publish("presence/devices/lamp", b"x" * 100_000)
            session.publish([Output("out", b"y" * 100_000)], codes.append)
            await until(lambda: line.publishes and codes and judge.messages)
            assert line.payloads == [b"x" * 100_000]
            await until(lambda: line.confirmed_up_to == 1)
    assert judge.payloads("out") == [b"y" * 100_000]
    assert codes == [[0]]


async def test_a_good_authority_is_trusted_and_everything_flows(tls: Tls) -> None:
    await message_both_ways(tls, tls.settings(tls.port))


def test_the_same_holds_on_uvloop_with_a_certificate_of_our_own(tls: Tls) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(message_both_ways(tls, tls.settings(tls.strict_port, own=tls.own)))


async def test_a_name_that_stands_in_the_certificate_may_be_given(tls: Tls) -> None:
    await message_both_ways(tls, tls.settings(tls.port, server_name="broker.internal"))


STRANGER = "stranger"

REFUSED: dict[str, tuple[Callable[[Tls], SessionSettings], str]] = {
    "an authority that did not sign it": (
        lambda tls: tls.settings(tls.port, ca=tls.other.file),
        "its certificate is not accepted: self-signed certificate in certificate chain. Set mqtt.ca_file",
    ),
    "a name that is not in it": (
        lambda tls: tls.settings(tls.port, server_name="example.org"),
        "Hostname mismatch, certificate is not valid for 'example.org'. Set mqtt.server_name",
    ),
    "no certificate of our own": (
        lambda tls: tls.settings(tls.strict_port),
        "TLSV13_ALERT_CERTIFICATE_REQUIRED. The broker does not take the certificate of the bridge, or asks for one",
    ),
    "one of an unknown authority": (
        lambda tls: tls.settings(tls.strict_port, own=tls.other.issue(STRANGER)),
        "TLSV1_ALERT_UNKNOWN_CA. The broker does not take the certificate of the bridge",
    ),
    "TLS to a listener in clear": (
        lambda tls: tls.settings(tls.server.port),
        "Check that mqtt.port is a TLS listener of the broker",
    ),
    "no TLS to a TLS listener": (
        lambda tls: settings(tls.port),
        "Set mqtt.tls = true where mqtt.port is a TLS listener",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_keeps_us_out_is_said_with_its_remedy(
    tls: Tls, case: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    given, words = REFUSED[case]

    async def story() -> None:
        async with refused(given(tls)):
            pass

    with logged() as lines, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())
    assert words in lines[0], lines[0]


def test_the_whole_bridge_over_tls_with_a_password(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    own, port = authority.issue("bridge"), free_port()
    asked = listener(port, authority, authority.issue("broker", "localhost"), "require_certificate true")
    with stack(
        tmp_path / "stack",
        broker_lines=asked,
        MQTT__HOST="localhost",
        MQTT__PORT=str(port),
        MQTT__TLS="true",
        MQTT__CA_FILE=str(authority.file),
        MQTT__CERTIFICATE_FILE=str(own.certificate),
        MQTT__KEY_FILE=str(own.key),
        MQTT__USERNAME="bridge",
        MQTT__PASSWORD="sesame",
    ) as found:
        assert found.world.rpc("online_users") == []
        assert "in clear" not in found.bridge.log
        assert found.bridge.end() == 0
    assert "sesame" not in found.bridge.log
