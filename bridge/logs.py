"""Log lines: what happened, to what, why and what to do, for eyes or as JSON. Only `bridge.cli` sets this up."""

import logging
import sys
from typing import Any

import structlog

from bridge.settings import Log


def configure_logging(log: Log) -> None:
    """Send log lines to standard error as ``[log]`` says.

    Those of libraries, from the standard library's logging, take the same form, from warnings on. No form shows local
    variables, which hold payloads, ids and tokens.
    """
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
        processors=[*shared, *rendered],
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
    logging.basicConfig(handlers=[libraries], level=max(level, logging.WARNING), force=True)
