"""Shared by the operator's commands: options, error lines, progress, and the connection to the database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import typer

from gre_bridge.config.settings import Settings, SettingsError, known_names, load_settings
from gre_bridge.config.sources import read_variables, unknown_names
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError, ConfigurationError

if TYPE_CHECKING:  # its imports take longer than most commands
    from gre_bridge.db.operations import OperatorDatabase

T = TypeVar("T")


class SinkName(StrEnum):
    """The names of the sinks."""

    PUSHER = "pusher"
    ONESIGNAL = "onesignal"


EnvFile = Annotated[
    Path | None,
    typer.Option("--env-file", help="Read variables from this dotenv file; the environment overrides it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count only; change nothing.")]
Sink = Annotated[SinkName | None, typer.Option(help="Only deliveries to this sink.")]
Session = Annotated[UUID | None, typer.Option(help="Only deliveries of this session.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 100 * 366 * 86400


def fail(error: BridgeError) -> NoReturn:
    """Print the error and exit: status 2 for a configuration error, 1 for any other."""
    with contextlib.suppress(OSError):  # a closed stderr does not change the exit status
        for line in error.problems if isinstance(error, SettingsError) else [str(error)]:
            typer.echo(f"gre-bridge: {line}", err=True)
    raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1)


def warn_of_unknown_names(env_file: Path | None) -> None:
    """Warn about variables with a prefix of ours that are unknown: most are misspelt."""
    for name, near in unknown_names(read_variables(env_file), known_names()):
        hint = f" (meant: {near}?)" if near else ""
        typer.echo(f"gre-bridge: warning: {name} is not a variable of gre-bridge{hint}", err=True)


def seconds(text: str, option: str) -> float:
    """Parse a duration like 15m into seconds. Raises ConfigurationError."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([smhd])", text.strip())
    if not found or (value := float(found[1]) * _UNITS[found[2]]) > _LONGEST:
        raise ConfigurationError(f"{option}: must be a duration like 90s, 15m, 2h or 3d")
    return value


def moment(text: str, option: str, zone: tzinfo = UTC) -> str:
    """Parse a time, or a duration before now, into ISO 8601 with an offset (default: that of `zone`). Raises ConfigurationError."""
    with contextlib.suppress(ConfigurationError):
        return (datetime.now(UTC) - timedelta(seconds=seconds(text, option))).isoformat()
    try:
        read = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option}: must be a time like 2026-11-22T10:00Z, or how long ago, like 2h"
        ) from None
    return (read if read.tzinfo else read.replace(tzinfo=zone)).isoformat()


def run(env_file: Path | None, work: Callable[[OperatorDatabase, Settings], Coroutine[Any, Any, T]]) -> T:
    """Run `work` with the database, and return its result; print an error as one line and exit."""
    from gre_bridge.db.operations import OperatorDatabase  # noqa: PLC0415

    async def main() -> T:
        settings = load_settings(env_file)
        async with await OperatorDatabase.open(
            url=settings.supabase_url, key=settings.service_key, apikey=settings.anon_key
        ) as operator:
            return await work(operator, settings)

    try:
        return asyncio.run(main())
    except BridgeError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def total(pages: AsyncIterator[int], description: str) -> int:
    """Return the sum of the pages, with progress on a terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    added, err = 0, Console(stderr=True)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed}"), TimeElapsedColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task(description)
        async for count in pages:
            added += count
            progress.update(task, completed=added)
    return added


def say(result: Json, line: str, as_json: bool) -> None:
    """Print one JSON value for programs, or one line for people."""
    typer.echo(json.dumps(result, indent=2) if as_json else line)
