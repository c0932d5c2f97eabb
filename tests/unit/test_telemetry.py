"""Logs and metrics: formats, levels, and no secret or chat text in any line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest

from gre_bridge.log_writer import LogWriter
from gre_bridge.logging import configure_logging
from gre_bridge.metrics import Metrics

SECRET = "sb_secret_0123456789"
Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """Return the lines since the last call; the logging of the process is restored afterwards."""
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    levels = {
        name: logger.level
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    }

    def read() -> list[str]:
        captured = capsys.readouterr()
        assert captured.out == "", "logs belong to stderr"
        return captured.err.splitlines()

    yield read
    structlog.reset_defaults()
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            logger.setLevel(levels.get(name, logging.NOTSET))


def everything(level: str) -> None:
    """Log one line at each level, through structlog and through the standard library."""
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("gre.test"), name)(f"ours {name}")
        getattr(logging.getLogger("gre.test"), name)("theirs %s", name)


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_holds_for_both_kinds_of_loggers(lines: Lines, style: str, level: str, shown: int) -> None:
    configure_logging(level=level, style=style)
    everything(level)
    found = lines()
    assert sum("ours" in line for line in found) == shown
    assert sum("theirs" in line for line in found) == shown


def test_json_is_one_object_a_line_with_time_and_level(lines: Lines) -> None:
    configure_logging(level="info", style="json")
    structlog.get_logger("gre.test").info("breaker opened", sink="pusher", error="two\nlines")
    logging.getLogger("uvicorn.error").error("theirs")
    ours, theirs = (json.loads(line) for line in lines())
    assert ours.items() >= {"event": "breaker opened", "sink": "pusher", "level": "info"}.items()
    assert ours["timestamp"].endswith("Z")
    assert theirs.items() >= {"event": "theirs", "level": "error", "logger": "uvicorn.error"}.items()


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_line_is_one_write_so_that_processes_may_share_a_stream(lines: Lines, style: str) -> None:
    written: list[str] = []

    class Recorder(LogWriter):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    configure_logging(level="info", style=style, out=Recorder())
    structlog.get_logger().info("of_structlog")
    logging.getLogger("x").info("of logging")
    assert len(written) == 2
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in written)


def test_auto_is_json_without_a_terminal(lines: Lines) -> None:
    configure_logging(level="info", style="auto")
    structlog.get_logger("gre.test").info("x")
    assert json.loads(lines()[0])["event"] == "x"


class Thing:
    def __repr__(self) -> str:
        return f"<Thing {SECRET}>"


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"Bearer {SECRET}",
        [SECRET],
        {"deep": {"er": SECRET}},
        Thing(),
        ValueError(SECRET),
        SECRET.encode(),
    ],
    ids=["text", "inside", "list", "nested", "object", "exception", "bytes"],
)
def test_a_known_secret_is_redacted_in_every_field(lines: Lines, style: str, value: Any) -> None:
    configure_logging(level="info", style=style, secrets=[SECRET])
    structlog.get_logger("gre.test").info(f"event {value}", value=value)
    logging.getLogger("library").warning("their %s", value)
    found = "\n".join(lines())
    assert SECRET not in found
    assert found.count("[redacted]") >= 3


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("secret", ['pass"word', "back\\slash", "pässwörter"])
def test_a_secret_is_redacted_in_its_json_form_too(lines: Lines, style: str, secret: str) -> None:
    configure_logging(level="info", style=style, secrets=[secret])
    structlog.get_logger("gre.test").info("x", value=f"a{secret}b")
    logging.getLogger("library").warning("their %s", f"a{secret}b")
    found = "\n".join(lines())
    for shape in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
        assert shape not in found
    assert found.count("[redacted]") == 2


def test_an_empty_secret_redacts_nothing(lines: Lines) -> None:
    configure_logging(level="info", style="json", secrets=["", "ab"])
    structlog.get_logger("gre.test").info("about")
    assert json.loads(lines()[0])["event"] == "about"


def fails(message: str) -> None:
    authorization = f"Bearer {SECRET}"
    raise ValueError(f"{message} {len(authorization)}")


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_stack_trace_has_places_and_no_chat_text_or_locals(lines: Lines, style: str) -> None:
    configure_logging(level="info", style=style)
    try:
        fails("is table 4 open?")
    except ValueError:
        structlog.get_logger("gre.test").exception("ours")
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    found = "\n".join(lines())
    assert found.count("ValueError") >= 2
    assert "fails" in found
    assert "table 4" not in found
    assert SECRET not in found


@pytest.mark.parametrize("level", ["debug", "info"])
def test_libraries_that_log_addresses_and_payloads_are_silenced(lines: Lines, level: str) -> None:
    configure_logging(level=level, style="json")
    for name in (
        "httpx",
        "httpcore.http11",
        "websockets.client",
        "urllib3.connectionpool",
        "hpack",
        "pusher",
    ):
        logging.getLogger(name).debug("payload: %s", "is table 4 open?")
        logging.getLogger(name).info("GET https://p.supabase.co/?apikey=x")
    logging.getLogger("realtime._async.client").error("refused payload: is table 4 open?")
    assert lines() == []


def test_logging_can_be_set_up_again(lines: Lines) -> None:
    configure_logging(level="debug", style="console")
    configure_logging(level="warning", style="json", secrets=[SECRET])
    everything("warning")
    assert len(lines()) == 4


# Metrics ----------------------------------------------------------------------------------------------------


def test_every_metric_has_the_prefix_a_help_text_and_a_base_unit() -> None:
    families = list(Metrics(LogWriter()).registry.collect())
    assert len(families) > 10
    for family in families:
        assert family.name.startswith(("gre_", "process_"))
        assert family.documentation
        assert not family.name.endswith(("_ms", "_milliseconds", "_minutes"))
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_two_daemons_in_one_process_do_not_share_their_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.claimed.labels("pusher").inc(3)
    assert b'gre_deliveries_claimed_total{sink="pusher"} 3.0' in generate_latest(one.registry)
    assert b'gre_deliveries_claimed_total{sink="pusher"}' not in generate_latest(other.registry)
