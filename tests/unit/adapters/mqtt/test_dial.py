"""One of several addresses answers; and what is said where none does."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvloop

from bridge.adapters.mqtt import dial as dial_module
from bridge.adapters.mqtt.dial import dial, explain, exposes_password
from bridge.adapters.mqtt.settings import SessionSettings

SETTINGS = SessionSettings("broker", 1883, "bridge", ["a"], "state")
WITH_TLS = SessionSettings("broker", 8883, "bridge", ["a"], "state", tls=ssl.create_default_context)


@pytest.fixture
def port() -> Iterator[int]:
    """A port where 127.0.0.1 answers, 127.0.0.2 refuses and 127.0.0.3 never answers."""
    with ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        full = opened.enter_context(socket.create_server(("127.0.0.3", port), backlog=0))
        for _ in range(2):  # its queue is full: what comes after these is not answered
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield port


def named(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name have these addresses."""

    async def look_up(_loop: object, _host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)


async def peer(port: int, *, turn: int = 0) -> str:
    opened = await asyncio.wait_for(dial("broker", port, turn=turn), 5)
    with opened:
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        name: str = opened.getpeername()[0]
        return name


async def test_a_dead_address_does_not_keep_the_next_one_from_answering(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    named(monkeypatch, "127.0.0.3", "127.0.0.2", "127.0.0.1")
    assert await peer(port) == "127.0.0.1"


async def test_one_that_refuses_gives_way_at_once(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(dial_module, "_HEAD_START_SECONDS", 3600)
    named(monkeypatch, "127.0.0.2", "127.0.0.1", "127.0.0.3")
    assert await peer(port) == "127.0.0.1"


async def test_the_first_has_a_head_start_and_the_losers_are_hung_up(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(dial_module, "_HEAD_START_SECONDS", 0)
    named(monkeypatch, "127.0.0.3", "127.0.0.1", "127.0.0.1", "127.0.0.1")
    for _ in range(20):  # an open socket that is left behind is a warning, and that an error
        assert await peer(port) == "127.0.0.1"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("turn", "first"), [(0, "127.0.0.1"), (1, "127.0.0.4"), (2, "127.0.0.1"), (7, "127.0.0.4")])
async def test_turns_begin_with_another_address(
    monkeypatch: pytest.MonkeyPatch, port: int, turn: int, first: str
) -> None:
    named(monkeypatch, "127.0.0.1", "127.0.0.4")
    with socket.create_server(("127.0.0.4", port)):
        assert await peer(port, turn=turn) == first


async def test_where_none_answers_each_is_named(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    named(monkeypatch, "127.0.0.2", "127.0.0.5")
    with pytest.raises(OSError, match=r"^127\.0\.0\.2: Connection refused, 127\.0\.0\.5: Connection refused$"):
        await dial("broker", port)


async def test_who_gives_up_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    named(monkeypatch, "127.0.0.3")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(dial("broker", port), 0.05)
    await asyncio.sleep(0.001)


def test_uvloop_dials_too(port: int) -> None:
    async def story() -> None:
        with await dial("localhost", port) as opened:
            assert opened.getpeername()[0] == "127.0.0.1"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] something")
    error.reason = reason
    return error


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "something")
    error.verify_code, error.verify_message = code, "it is not right."
    return error


@pytest.mark.parametrize(
    ("error", "settings", "words"),
    [
        (TimeoutError(), SETTINGS, "no answer. Check mqtt.host and mqtt.port"),
        (OSError("127.0.0.1: refused"), SETTINGS, "127.0.0.1: refused. Check mqtt.host"),
        (ConnectionResetError("reset"), SETTINGS, "reset. Set mqtt.tls = true where mqtt.port is a TLS listener"),
        (ConnectionResetError("reset"), WITH_TLS, "reset. Check that mqtt.port is a TLS listener"),
        (
            tls_error("WRONG_VERSION_NUMBER"),
            WITH_TLS,
            "TLS failed: WRONG_VERSION_NUMBER. Check that mqtt.port is a TLS",
        ),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), WITH_TLS, "set mqtt.certificate_file"),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), WITH_TLS, "TLS 1.2 or later"),
        (certificate_error(19), WITH_TLS, "it is not right. Set mqtt.ca_file"),
        (certificate_error(62), WITH_TLS, "Set mqtt.server_name"),
        (certificate_error(10), WITH_TLS, "Renew the broker's certificate"),
    ],
)
def test_what_is_wrong_with_the_way_is_said_with_a_remedy(
    error: Exception, settings: SessionSettings, words: str
) -> None:
    text = explain(error, settings)
    assert text.startswith(f"Cannot connect to the broker at broker:{settings.port}: ")
    assert words in text


@pytest.mark.parametrize(
    ("peer", "is_exposed"),
    [("192.0.2.1", True), ("2001:db8::1", True), ("127.0.0.1", False), ("127.8.8.8", False), ("::1", False)],
)
def test_a_password_in_clear_is_seen_once_it_leaves_this_machine(peer: str, is_exposed: bool) -> None:
    with_password = SessionSettings("broker", 1883, "bridge", ["a"], "state", password="sesame")
    over_tls = SessionSettings(
        "broker", 8883, "bridge", ["a"], "state", password="sesame", tls=ssl.create_default_context
    )
    assert exposes_password(with_password, (peer, 1883)) == is_exposed
    assert not exposes_password(over_tls, (peer, 1883))
    assert not exposes_password(SETTINGS, (peer, 1883))
