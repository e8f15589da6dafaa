"""The wiring where a part of it dies: the process must end, say why, and be started again by its supervisor."""

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from bridge import app, cli
from bridge.adapters.mqtt.session import Session
from bridge.errors import ConfigError, LeaseLost, RegistryUnavailable
from bridge.health import Health
from bridge.lease import Lease
from bridge.logs import configure_logging
from bridge.outcomes import Outcomes
from bridge.pipeline import Line
from bridge.settings import Settings
from bridge.settlement import Settlement


async def nothing(*_: object) -> None:
    return None


async def forever(*_: object) -> None:
    await asyncio.Event().wait()


def failing(error: Exception) -> Callable[..., Any]:
    async def fail(*_: object, **__: object) -> None:
        token = "".join(("cana", "ry"))
        await asyncio.sleep(0)
        raise error if token else AssertionError

    return fail


@pytest.fixture(autouse=True)
def _house(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    async def opened(*_: object, **__: object) -> tuple[str, str, list[Any]]:
        return "client", "default", []

    monkeypatch.setattr(app, "_tune_memory", lambda: None)
    monkeypatch.setattr(app, "RedisRegistry", lambda *_, **__: SimpleNamespace(close=nothing, hold=forever))
    monkeypatch.setattr(app, "_open", opened)
    monkeypatch.setattr(Session, "run", forever)
    monkeypatch.setattr(Line, "run", forever)
    yield
    structlog.reset_defaults()


def told(monkeypatch: pytest.MonkeyPatch, form: str = "json") -> tuple[int, str]:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    settings = Settings.model_validate({"log": {"format": form}, "http": {"port": 0}})
    configure_logging(settings.log)
    code = asyncio.run(asyncio.wait_for(app.run(settings), 10))
    assert "canary" not in stream.getvalue()
    return code, stream.getvalue()


@pytest.mark.parametrize(
    ("place", "task"),
    [
        ((Session, "run"), "mqtt-session"),
        ((Line, "run"), "line"),
        ((app, "_tell_counts"), "counts"),
        ((app, "_open"), "main"),
    ],
)
def test_a_part_that_dies_is_named_and_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], task: str
) -> None:
    monkeypatch.setattr(*place, failing(LookupError("no such thing")))
    code, text = told(monkeypatch)
    assert code == 1
    (line,) = map(json.loads, text.splitlines())
    assert (line["level"], line["task"], line["error"], line["message"]) == (
        "error",
        task,
        "LookupError",
        "no such thing",
    )
    assert "the supervisor shall start it again" in line["event"]
    assert line["exception"][0]["exc_type"] == "LookupError"


def test_each_of_several_deaths_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "run", failing(LookupError("one")))
    monkeypatch.setattr(Line, "run", failing(ExceptionGroup("inner", [ValueError("two"), KeyError("three")])))
    lines = [json.loads(line) for line in told(monkeypatch)[1].splitlines()]
    assert [(line["task"], line["error"]) for line in lines] == [
        ("mqtt-session", "LookupError"),
        ("line", "ValueError"),
        ("line", "KeyError"),
    ]


def test_on_a_console_it_is_a_line_and_a_plain_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "run", failing(LookupError("no such thing")))
    code, text = told(monkeypatch, "console")
    assert code == 1
    assert "task=line" in text.splitlines()[0]
    assert text.splitlines()[-1] == "LookupError: no such thing"


def test_a_bridge_that_lost_its_lease_stands_by_and_is_active_again(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = 0

    async def opened(*_: object, starting: bool, **__: object) -> tuple[str, str, list[Any]]:
        nonlocal terms
        terms += 1
        assert starting == (terms == 1)
        if terms == 3:
            raise LookupError("enough")
        return "client", "default", []

    monkeypatch.setattr(app, "_open", opened)
    monkeypatch.setattr(Lease, "keep", failing(LeaseLost("b2/2 is the active bridge now")))
    code, text = told(monkeypatch)
    assert (code, terms) == (1, 3)
    lost = [json.loads(line) for line in text.splitlines()][:2]
    assert [line["event"] for line in lost] == ["Another bridge has taken over: this one stands by."] * 2
    assert lost[0]["reason"] == "b2/2 is the active bridge now"


# The end in order.


async def asked_to_stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await forever()


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session asks the bridge to stop; the line has nothing in hand, and Redis does not answer any more."""
    monkeypatch.setattr(app, "_DRAIN_SECONDS", 0.2)
    monkeypatch.setattr(app, "_RELEASE_SECONDS", 0.1)
    monkeypatch.setattr(Session, "run", asked_to_stop)
    monkeypatch.setattr(Line, "run", nothing)


@pytest.mark.usefixtures("ending")
def test_the_exit_code_is_0_where_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = told(monkeypatch)
    assert code == 0
    assert json.loads(text.splitlines()[-1])["clean"] is True


@pytest.mark.usefixtures("ending")
def test_a_bridge_that_stops_is_not_ready_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    health = Health()

    async def finished(*_: object) -> bool:
        seen.append(health.faults())
        return True

    monkeypatch.setattr(app, "Health", lambda: health)
    monkeypatch.setattr(app, "_finish", finished)
    assert told(monkeypatch)[0] == 0
    assert seen == [["the bridge stops"]]


async def test_a_bridge_that_is_not_active_yet_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(app, "_BACKOFF_SECONDS", (0, 0))
    reasons: list[str] = []
    opening = [RegistryUnavailable("refused"), RegistryUnavailable("refused"), None]

    async def opened() -> None:
        if (error := opening.pop(0)) is not None:
            raise error

    async def left(_: object) -> list[Any]:
        return []

    async def taken(*, starting: bool) -> None:
        assert reasons[-1] == "this bridge is not the active one"

    monkeypatch.setattr(app, "left_over", left)
    facts: dict[str, str] = {}

    async def recall(name: str) -> str | None:
        return facts.get(name)

    async def remember(name: str, value: str) -> None:
        facts[name] = value

    registry: Any = SimpleNamespace(open=opened, recall=recall, remember=remember)
    lease: Any = SimpleNamespace(take=taken)
    settings = Settings.model_validate({"mqtt": {"client_id": "c"}})
    assert await app._open(registry, lease, settings, reasons.append, starting=True) == ("c", "default", [])
    assert reasons == ["Redis is away", "Redis is away", "this bridge is not the active one"]
    # The home stays what the first default organization was.
    opening.append(None)
    settings = Settings.model_validate({"mqtt": {"client_id": "c"}, "default_organization": "acme"})
    assert await app._open(registry, lease, settings, reasons.append, starting=True) == ("c", "default", [])


LEFT: dict[str, tuple[type, str, Any]] = {
    "a line that does not end": (Line, "run", forever),
    "outputs without a PUBACK": (Settlement, "undelivered", 1),
    "answers that are not published": (Outcomes, "is_idle", False),
    "a journal that cannot be emptied": (Line, "finish", forever),
    "a journal that is not empty": (Settlement, "is_journaled", True),
    "a commit whose answer never came": (Line, "finish", lambda self: _away(self)),
}


async def _away(line: Line) -> None:
    line.is_redis_away = True


@pytest.mark.usefixtures("ending")
@pytest.mark.parametrize("left", LEFT)
def test_the_exit_code_is_1_where_the_next_start_has_to_finish(monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    monkeypatch.setattr(*LEFT[left])
    if left == "a journal that is not empty":
        monkeypatch.setattr(Line, "finish", nothing)
    code, text = told(monkeypatch)
    assert code == 1
    assert json.loads(text.splitlines()[-1])["clean"] is False


def test_what_the_operator_has_to_mend_stays_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "run", failing(LookupError("one")))
    monkeypatch.setattr(Line, "run", failing(ConfigError("redis: maxmemory-policy must be noeviction")))
    with pytest.raises(ConfigError, match="noeviction") as caught:
        told(monkeypatch)
    assert caught.value.__suppress_context__


def test_a_configuration_error_of_a_running_bridge_is_plain_text_with_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Line, "run", failing(ConfigError("redis: maxmemory-policy must be noeviction")))
    monkeypatch.setenv("ENDPOINT_BRIDGE_HTTP__PORT", "0")
    monkeypatch.setattr(sys, "argv", ["endpoint-bridge", "run", "--config", "/dev/null"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "endpoint-bridge: redis: maxmemory-policy must be noeviction\n"
