"""`report` and `export`: the figures of the staff's desk, and the rows behind them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from gre_bridge.cli.commands.common import AsJson, EnvFile, fail, moment, run, total
from gre_bridge.config.settings import Settings
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError, ConfigurationError

if TYPE_CHECKING:
    from gre_bridge.db.operations import OperatorDatabase

From = Annotated[
    str, typer.Option("--from", help="First time: a date, a time, or a duration before now: 2026-11-01, 7d.")
]
To = Annotated[str | None, typer.Option("--to", help="Time at which it ends, not included (default: now).")]
Zone = Annotated[str, typer.Option("--timezone", help="IANA time zone of dates and days: Europe/Berlin.")]


class By(StrEnum):
    """The rows of a report."""

    NONE = "none"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    STAFF = "staff"


class Basis(StrEnum):
    """The time to which a reply belongs."""

    ASKED = "asked"
    ANSWERED = "answered"
    CLOSED = "closed"


class What(StrEnum):
    """The rows of an export."""

    SESSIONS = "sessions"
    MESSAGES = "messages"
    RESPONSES = "responses"
    EVENTS = "events"
    RATINGS = "ratings"
    ASSIGNMENTS = "assignments"


class Format(StrEnum):
    """The format of an export."""

    NDJSON = "ndjson"
    CSV = "csv"


def _span(begin: str, end: str | None, timezone: str) -> tuple[str, str]:
    """Return a range as ISO 8601; a date or time without an offset is one of `timezone`. Raises ConfigurationError."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError("--timezone: must be an IANA time zone like Europe/Berlin") from None

    first = moment(begin, "--from", zone)
    last = datetime.now(UTC).isoformat() if end is None else moment(end, "--to", zone)
    if datetime.fromisoformat(first) >= datetime.fromisoformat(last):
        raise ConfigurationError("--from: must be before --to")
    return first, last


def report(
    begin: From = "7d",
    end: To = None,
    timezone: Zone = "UTC",
    by: Annotated[By, typer.Option(help="One row for each of these.")] = By.DAY,
    basis: Annotated[
        Basis | None,
        typer.Option(
            help="Count replies at this time (default: first replies when asked, others when answered)."
        ),
    ] = None,
    in_hours: Annotated[
        bool, typer.Option("--in-hours", help="Count only opening hours in durations.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Count everything again from messages and events, and compare.")
    ] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show figures: sessions, messages, reply times, ratings. --check: exit status 1 if a figure is wrong."""
    try:
        first, last = _span(begin, end, timezone)
    except ConfigurationError as error:
        fail(error)
    if check:
        _check(env_file, first, last, as_json)
        return

    async def work(operator: OperatorDatabase, _: Settings) -> Json:
        return await operator.report(
            begin=first,
            end=last,
            timezone=timezone,
            by=by.value,
            basis=basis and basis.value,
            in_hours=in_hours,
        )

    found = run(env_file, work)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from gre_bridge.cli import render, render_reports  # noqa: PLC0415

    render.console().print(render_reports.report_view(found))


SHOWN = 50
"""Differences that a check prints."""


def _check(env_file: Path | None, first: str, last: str, as_json: bool) -> None:
    found: Json = {"checked": 0, "incomplete": 0, "differences": []}

    async def work(operator: OperatorDatabase, _: Settings) -> None:
        async def pages() -> AsyncIterator[int]:
            async for page in operator.report_check(begin=first, end=last):
                found["checked"] += page["checked"]
                found["incomplete"] += page["incomplete"]
                found["differences"] += page["differences"]
                yield page["checked"]

        await total(pages(), "sessions checked")

    run(env_file, work)
    wrong = found["differences"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        skipped = (
            f" ({found['incomplete']} have lost messages, and were not compared)"
            if found["incomplete"]
            else ""
        )
        typer.echo(
            f"{found['checked']} sessions counted again{skipped}: "
            + (f"{len(wrong)} differences" if wrong else "all figures agree")
        )
        if wrong:
            from gre_bridge.cli import render, render_reports  # noqa: PLC0415

            render.console().print(render_reports.differences_table(wrong[:SHOWN]))
    raise typer.Exit(1 if wrong else 0)


def export(
    what: Annotated[What, typer.Argument(help="Which rows.")],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="File to write; - is standard output. An existing file is replaced."
        ),
    ],
    form: Annotated[
        Format, typer.Option("--format", help="JSON lines, or CSV for spreadsheets.")
    ] = Format.NDJSON,
    begin: From = "2000-01-01",
    end: To = None,
    timezone: Zone = "UTC",
    env_file: EnvFile = None,
) -> None:
    """Write rows to a file: messages with their text, or the rows behind the figures. See docs/reports.md.

    The file appears under its name when it is complete; only its owner can read it.
    """
    from gre_bridge import exports  # noqa: PLC0415 - other commands need no orjson

    try:
        first, last = _span(begin, end, timezone)
        with _file(output) as file:
            file.write(exports.head(what.value, form.value))

            async def work(operator: OperatorDatabase, _: Settings) -> int:
                pages = operator.export(what.value, begin=first, end=last)
                return await _write(file, pages, what, form, last)

            count = run(env_file, work)
            file.flush()
    except BridgeError as error:
        fail(error)
    except OSError as error:
        fail(ConfigurationError(f"--output: {error.strerror or error}"))
    typer.echo(f"{count} rows written" + ("" if output == "-" else f" to {output}"), err=True)


@contextlib.contextmanager
def _file(output: str) -> Iterator[IO[bytes]]:
    """Open a file that takes its name when all is written, and is removed otherwise. Raises OSError."""
    if output == "-":
        yield sys.stdout.buffer
        return
    target = Path(output)
    if target.is_dir():
        raise IsADirectoryError(21, "it is a directory")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


async def _write(
    file: IO[bytes], pages: AsyncIterator[list[Json]], what: What, form: Format, last: str
) -> int:
    """Write the pages, with a progress bar over the time that they cover; return the number of rows."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    from gre_bridge import exports  # noqa: PLC0415

    count, err, column = 0, Console(stderr=True), exports.TIMES[what.value]
    begin, end = None, datetime.fromisoformat(last)
    with Progress(
        BarColumn(), TextColumn("{task.fields[rows]} rows"), TimeElapsedColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task(what.value, total=None, rows=0)
        async for rows in pages:
            file.write(exports.encode(what.value, form.value, rows))
            count += len(rows)
            if rows:
                begin = begin or datetime.fromisoformat(rows[0][column])
                done = datetime.fromisoformat(rows[-1][column]) - begin
                total = (end - begin).total_seconds()
                progress.update(task, total=total, completed=done.total_seconds(), rows=count)
    return count
