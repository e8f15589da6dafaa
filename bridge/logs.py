"""Log lines: what happened, to what, why and what to do, for eyes or as JSON. Only `bridge.cli` sets this up."""

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from bridge.settings import Log

LINES = 20
PERIOD_SECONDS = 10.0
MAXIMUM_TEXTS = 1_000


class Sampler:
    """Lets each text into the log `LINES` times in `PERIOD_SECONDS`: a flood of faults must not flood the log.

    Args:
        clock: a steady clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}  # text -> when its period began, how often it came since

    def left_out(self, text: str) -> int | None:
        """Count a line. Returns how many of its like were left out before it, None where it is to be left out, too."""
        now = self._clock()
        since, count = self._seen.get(text, (now, 0))
        omitted = 0
        if now - since >= PERIOD_SECONDS:
            since, count, omitted = now, 0, max(count - LINES, 0)
        if len(self._seen) >= MAXIMUM_TEXTS:
            self._seen.clear()
        self._seen[text] = since, count + 1
        return None if count >= LINES else omitted

    def process(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Pass a line of the bridge on, or drop it; for structlog."""
        omitted = self.left_out(str(line["event"]))
        if omitted is None:
            raise structlog.DropEvent
        return {**line, "omitted": omitted} if omitted else line

    def admits(self, record: logging.LogRecord) -> bool:
        """Tell whether a library's line may pass; for the standard library's logging."""
        return self.left_out(f"{record.name}: {record.msg}") is not None


def configure_logging(log: Log) -> None:
    """Send log lines to standard error as ``[log]`` says.

    Those of libraries, from the standard library's logging, take the same form, from warnings on. No form shows local
    variables, which hold payloads, ids and tokens. Of equal lines only so many pass, see `Sampler`.
    """
    sampler = Sampler()
    level = logging.getLevelNamesMapping()[log.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[Any]
    if log.format == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        rendered = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        tracebacks_as_text = structlog.dev.plain_traceback
        rendered = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=tracebacks_as_text)]
    structlog.configure(
        processors=[sampler.process, *shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    libraries.addFilter(sampler.admits)
    logging.basicConfig(handlers=[libraries], level=max(level, logging.WARNING), force=True)
    # It warns of each request that is no HTTP: whoever reaches the port could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
