"""Log lines: one form for the bridge and for its libraries, and never a local variable."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from bridge.logs import LINES, MAXIMUM_TEXTS, PERIOD_SECONDS, Sampler, configure_logging
from bridge.settings import Log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = before


def configured(monkeypatch: pytest.MonkeyPatch, **log: str) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(Log.model_validate(log))
    return stream


def test_lines_are_json_where_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, format="json", level="warning")
    log = structlog.get_logger()
    log.info("unheard")
    log.warning("heard", count=1)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["count"]) == ("heard", "warning", 1)


def test_lines_of_libraries_are_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, format="json", level="debug")
    library = logging.getLogger("some.library")
    library.info("unheard")
    library.warning("heard %d times", 2)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"]) == ("heard 2 times", "warning", "some.library")
    assert line["timestamp"].endswith("Z")


def test_who_sends_what_is_no_http_does_not_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, level="debug")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert stream.getvalue() == ""


def test_lines_are_for_eyes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch)
    structlog.get_logger().info("Redis answers again.", after_seconds=3)
    assert "Redis answers again." in stream.getvalue()
    assert "after_seconds=3" in stream.getvalue()


@pytest.mark.parametrize("source", ["bridge", "library"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_no_local_variables(form: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, format=form)
    payload = "".join(("cana", "ry"))  # the source line of a frame is shown, its values are not
    try:
        raise RuntimeError(f"with {len(payload)} bytes")
    except RuntimeError:
        (structlog.get_logger() if source == "bridge" else logging.getLogger("some.library")).exception("failed")
    text = stream.getvalue()
    assert "canary" not in text
    assert "with 6 bytes" in text
    assert "test_tracebacks_show_no_local_variables" in text
    if form == "json":
        (line,) = text.splitlines()
        assert json.loads(line)["exception"][0]["exc_type"] == "RuntimeError"


# Floods.


def test_of_equal_lines_only_so_many_pass_and_the_next_says_how_many_did_not() -> None:
    now = 0.0
    sampler = Sampler(lambda: now)
    assert [sampler.left_out("bad") for _ in range(LINES + 5)] == [0] * LINES + [None] * 5
    assert sampler.left_out("worse") == 0
    now = PERIOD_SECONDS - 0.1
    assert sampler.left_out("bad") is None
    now = PERIOD_SECONDS
    assert [sampler.left_out("bad") for _ in range(LINES + 1)] == [6] + [0] * (LINES - 1) + [None]


def test_however_many_texts_there_are_it_remembers_few() -> None:
    sampler = Sampler(lambda: 0.0)
    for number in range(10 * MAXIMUM_TEXTS):
        assert sampler.left_out(str(number)) == 0
    assert len(sampler._seen) <= MAXIMUM_TEXTS


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_flood_of_lines_stays_short(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, format=form)
    for number in range(1_000):
        structlog.get_logger().error("A rule failed.", number=number)
        logging.getLogger("some.library").warning("failed for the %d. time", number)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 * LINES
