"""The structured log of the daemon: one writer, one format, no secrets and no message text.

An event has a stable snake_case name and fields with ids (message, session, delivery, worker). Each line passes a filter
that replaces known secrets.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterable, MutableMapping
from typing import Any

import structlog

from gre_bridge.log_writer import LogWriter

LOGS = LogWriter()
"""The writer of all lines: stderr, without blocking."""


class AccessLog:
    """Optional lines, one for each request and each delivery."""

    def __init__(self) -> None:
        self.on = False
        """True if the lines are written; check it before building one."""
        self._write: Any = None

    def configure(self, *, level: str, wanted: bool) -> None:
        """Write at level info if `wanted` (GRE_ACCESS_LOG), else at debug."""
        logger = structlog.get_logger("gre.access")
        self.on = wanted or level.lower() == "debug"
        self._write = logger.info if wanted else logger.debug

    def write(self, event: str, **fields: object) -> None:
        """Write a line with ids and times, without text."""
        self._write(event, **fields)


ACCESS_LOG = AccessLog()


def _bare_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Log only type and location of an exception: its text and the locals of its frames may hold chat text."""
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        event["exception"] = type(error).__name__
        event["at"] = " < ".join(
            f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(frames[-8:])
        )
    return event


def configure_logging(
    *, level: str, style: str, secrets: Iterable[str] = (), out: LogWriter | None = None, access: bool = False
) -> None:
    """Configure structlog and the standard library's logging: JSON lines, or readable ones on a terminal.

    `style` is json, console or auto (JSON unless the output is a terminal); `out` replaces sys.stderr; `access` enables a
    line for each request and each delivery. Libraries that log addresses with keys, or payloads, at low levels are
    limited to WARNING. `realtime` logs rejected payloads at ERROR, so it is off; the subscription logs its state.
    """
    stream: Any = out if out is not None else sys.stderr
    # In plain form, and as JSON and repr() write them.
    forms = {form for s in secrets if len(s) >= 6 for form in (s, json.dumps(s)[1:-1], repr(s)[1:-1])}
    known = sorted(forms, key=len, reverse=True)
    as_json = style == "json" or (style == "auto" and not stream.isatty())
    plain: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=True)
    )

    def render(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        line = str(plain(logger, name, event))
        for secret in known:
            line = line.replace(secret, "[redacted]")
        return line

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _bare_exception,
    ]
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # One write for each line, since several processes share the stream.
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    ACCESS_LOG.configure(level=level, wanted=access)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    # For loggers that are detached from the root, as uvicorn's are: the default handler prints plain text.
    logging.lastResort = handler
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in (
        "httpx",
        "httpcore",
        "websockets",
        "urllib3",
        "asyncio",
        "hpack",
        "uvicorn.access",
        "pusher",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("realtime").setLevel(logging.CRITICAL + 1)
    # Below ERROR it writes a line for each connection and each malformed request: any client could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    for name in ("uvicorn", "uvicorn.error"):  # replace an earlier configuration
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
