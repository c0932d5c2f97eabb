"""The operator's commands: what they read from the command line, and how they show what they did.

No rule of its own: everything is done by functions in the database, through `operate`. Text for people goes
to the terminal, progress to stderr, `--json` prints one JSON value.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import typer

from gre_bridge.errors import BridgeError, ConfigurationError, TransientError
from gre_bridge.models import Json
from gre_bridge.settings import Settings, load_settings

if TYPE_CHECKING:  # what they need takes longer to import than most commands take to run
    from gre_bridge.operate import DeadFilter, Operator

T = TypeVar("T")


class SinkName(StrEnum):
    """The sinks that there are."""

    PUSHER = "pusher"
    ONESIGNAL = "onesignal"


EnvFile = Annotated[
    Path | None,
    typer.Option("--env-file", help="Read variables from this dotenv file; the environment wins."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")]
Sink = Annotated[SinkName | None, typer.Option(help="Of this sink alone.")]
Session = Annotated[UUID | None, typer.Option(help="Of this session alone.")]
Error = Annotated[str | None, typer.Option(help="Whose error has this text in it.")]
OlderThan = Annotated[str | None, typer.Option(help="That died longer ago than this: 90s, 15m, 2h, 3d.")]
Ids = Annotated[list[UUID] | None, typer.Argument(help="Their ids, as `dead list` shows them.")]
All = Annotated[bool, typer.Option("--all", help="All that match, without naming ids.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 100 * 366 * 86400


def fail(error: BridgeError) -> NoReturn:
    """Print the one line and exit: 2 for what the user must change, 1 for the rest."""
    typer.echo(f"gre-bridge: {error}", err=True)
    raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1)


def seconds(text: str, option: str) -> float:
    """Read a duration like 15m. Raises ConfigurationError."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([smhd])", text.strip())
    if not found or (value := float(found[1]) * _UNITS[found[2]]) > _LONGEST:
        raise ConfigurationError(f"{option}: must be a duration like 90s, 15m, 2h or 3d")
    return value


def moment(text: str, option: str) -> str:
    """Read a time, or how long ago, as ISO 8601 with its zone (UTC unless it names one)."""
    with contextlib.suppress(ConfigurationError):
        return (datetime.now(UTC) - timedelta(seconds=seconds(text, option))).isoformat()
    try:
        read = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option}: must be a time like 2026-11-22T10:00Z, or how long ago, like 2h"
        ) from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).isoformat()


def run(env_file: Path | None, work: Callable[[Operator, Settings], Coroutine[Any, Any, T]]) -> T:
    """Do some work with the database; an error becomes one line and an exit status."""
    from gre_bridge.operate import Operator  # noqa: PLC0415

    async def main() -> T:
        settings = load_settings(env_file)
        async with await Operator.open(
            url=settings.supabase_url, key=settings.service_key, apikey=settings.anon_key
        ) as operator:
            return await work(operator, settings)

    try:
        return asyncio.run(main())
    except BridgeError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _total(pages: AsyncIterator[int], what: str) -> int:
    """Add up pages, with progress on a terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    total, err = 0, Console(stderr=True)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed}"), TimeElapsedColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task(what)
        async for count in pages:
            total += count
            progress.update(task, completed=total)
    return total


def _say(result: Json, line: str, as_json: bool) -> None:
    typer.echo(json.dumps(result, indent=2) if as_json else line)


# dead --------------------------------------------------------------------------------------------------------

dead = typer.Typer(no_args_is_help=True, help="Deliveries that a service refused for good.")


def _filter(
    sink: SinkName | None,
    session: UUID | None,
    older_than: str | None,
    error: str | None,
    ids: list[UUID] | None,
) -> DeadFilter:
    from gre_bridge.operate import DeadFilter  # noqa: PLC0415

    return DeadFilter(
        sink=sink,
        session=str(session) if session else None,
        older_than=seconds(older_than, "--older-than") if older_than else None,
        error=error,
        ids=[str(one) for one in ids] if ids else None,
    )


@dead.command("list")
def dead_list(
    sink: Sink = None,
    session: Session = None,
    older_than: OlderThan = None,
    error: Error = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """List them, newest first. Exit status 1 when there are any."""

    async def work(operator: Operator, _: Settings) -> list[Json]:
        return await operator.dead(_filter(sink, session, older_than, error, None), limit=limit)

    letters = run(env_file, work)
    if as_json:
        typer.echo(json.dumps(letters, indent=2))
    elif not letters:
        typer.echo("no dead letters")
    else:
        from gre_bridge import board  # noqa: PLC0415

        board.console().print(board.dead_table(letters))
    raise typer.Exit(1 if letters else 0)


@dead.command("show")
def dead_show(
    letter: Annotated[UUID, typer.Argument(help="Its id, as `dead list` shows it.")],
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show all that is known of one of them (the message's text is not)."""

    async def work(operator: Operator, _: Settings) -> list[Json]:
        return await operator.dead(_filter(None, None, None, None, [letter]))

    found = run(env_file, work)
    if not found:
        fail(BridgeError(f"{letter} is no dead letter"))
    lines = (f"{name:<12}{'' if value is None else value}" for name, value in found[0].items())
    _say(found[0], "\n".join(lines), as_json)


def _resolve(
    filters: tuple[SinkName | None, UUID | None, str | None, str | None, list[UUID] | None],
    everything: bool,
    drop: bool,
    env_file: Path | None,
    as_json: bool,
) -> None:
    if not any(filters) and not everything:
        fail(ConfigurationError("name ids, or a filter, or --all"))

    async def work(operator: Operator, _: Settings) -> int:
        pages = operator.resolve(_filter(*filters), drop=drop)
        return await _total(pages, "dropped" if drop else "to be sent again")

    count = run(env_file, work)
    _say({"count": count}, f"{count} {'dropped' if drop else 'will be sent again'}", as_json)


@dead.command("retry")
def dead_retry(
    ids: Ids = None,
    sink: Sink = None,
    session: Session = None,
    older_than: OlderThan = None,
    error: Error = None,
    everything: All = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Send them again, with all their attempts back."""
    _resolve((sink, session, older_than, error, ids), everything, False, env_file, as_json)


@dead.command("drop")
def dead_drop(
    ids: Ids = None,
    sink: Sink = None,
    session: Session = None,
    older_than: OlderThan = None,
    error: Error = None,
    everything: All = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Give them up; the messages themselves stay in the database."""
    _resolve((sink, session, older_than, error, ids), everything, True, env_file, as_json)


# replay, reconcile, expire, prune -----------------------------------------------------------------------------


def replay(
    since: Annotated[str | None, typer.Option(help="From this time on, or from so long ago: 2h.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this time (default: now).")] = None,
    session: Session = None,
    sink: Sink = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Announce again what went already. Each event says "replayed": true, so that pages ring no bell."""
    if since is None and session is None:
        fail(ConfigurationError("--since or --session: one is required"))

    async def work(operator: Operator, _: Settings) -> int:
        pages = operator.replay(
            since=moment(since, "--since") if since else None,
            # What arrives from now on is announced anyway.
            until=moment(until, "--until") if until else (await operator.status(blocked=0))["now"],
            session=str(session) if session else None,
            sink=sink,
            dry_run=dry_run,
        )
        return await _total(pages, "messages")

    count = run(env_file, work)
    verb = "would be announced again" if dry_run else "will be announced again"
    _say({"messages": count, "dry_run": dry_run}, f"{count} messages {verb}", as_json)


def reconcile(dry_run: DryRun = False, as_json: AsJson = False, env_file: EnvFile = None) -> None:
    """Compare messages with deliveries and announce what was never announced (rows that came in around the triggers)."""

    async def work(operator: Operator, _: Settings) -> Json:
        found: Json = {"checked": 0, "missing": {}, "lanes": 0, "dry_run": dry_run}

        async def pages() -> AsyncIterator[int]:
            async for page in operator.reconcile(dry_run=dry_run):
                found["checked"] += page["checked"]
                found["lanes"] += page["lanes"]
                for name, count in page["missing"].items():
                    found["missing"][name] = found["missing"].get(name, 0) + count
                yield page["checked"]

        await _total(pages(), "messages checked")
        return found

    found = run(env_file, work)
    gaps = ", ".join(f"{count} never reached {name}" for name, count in sorted(found["missing"].items()))
    stuck = f"{found['lanes']} sessions had work that no worker was told of" if found["lanes"] else ""
    told = "; ".join(filter(None, (gaps, stuck)))
    repaired = " (would be repaired)" if dry_run else " (repaired)"
    _say(
        found,
        f"{found['checked']} messages checked: " + (told + repaired if told else "nothing is missing"),
        as_json,
    )
    raise typer.Exit(1 if told and dry_run else 0)


def expire(
    before: Annotated[str, typer.Option(help="A time, or how long ago: 2026-11-22T10:00Z, 2h.")],
    sink: Sink = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Give up what waits and is older, say after the first migration or a long outage. Messages stay."""

    async def work(operator: Operator, _: Settings) -> int:
        return await _total(
            operator.expire(before=moment(before, "--before"), sink=sink, dry_run=dry_run), "expired"
        )

    count = run(env_file, work)
    _say(
        {"expired": count, "dry_run": dry_run},
        f"{count} {'would be given up' if dry_run else 'given up'}",
        as_json,
    )


def prune(
    keep: Annotated[
        str, typer.Option(help="Keep what was settled in this time (an hour at least): 7d.")
    ] = "7d",
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Delete settled deliveries, and with GRE_RETENTION_DAYS closed conversations older than that."""

    async def work(operator: Operator, settings: Settings) -> Json:
        total: Json = {}
        retention = settings.retention_days * 86400.0 if settings.retention_days else None

        async def pages() -> AsyncIterator[int]:
            async for page in operator.prune(keep=seconds(keep, "--keep"), retention=retention):
                for name, count in page.items():
                    total[name] = total.get(name, 0) + count
                yield sum(page.values())

        await _total(pages(), "rows deleted")
        return total

    total = run(env_file, work)
    told = ", ".join(f"{count} {name}" for name, count in total.items() if count)
    _say(total, f"deleted: {told or 'nothing'}", as_json)


# status ---------------------------------------------------------------------------------------------------------


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it live until Ctrl-C.")] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show what waits and why, and who works. Exit status 1 when something needs a look."""
    from gre_bridge import board  # noqa: PLC0415

    async def work(operator: Operator, _: Settings) -> Json:
        found = await operator.status()
        if watch and not as_json:
            await _watch(operator, found)
        return found

    found = run(env_file, work)
    found["problems"] = board.problems(found)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        board.console().print(board.status_view(found))
    raise typer.Exit(1 if found["problems"] else 0)


async def _watch(operator: Operator, found: Json) -> NoReturn:
    """Show the status until cancelled, also through an outage of the database."""
    from rich.console import Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from gre_bridge import board  # noqa: PLC0415

    with Live(board.status_view(found), console=board.console(), auto_refresh=False) as live:
        while True:
            await asyncio.sleep(1.0)
            try:
                found = await operator.status()
                live.update(board.status_view(found), refresh=True)
            except TransientError as error:
                away = f"! {error} (above: what was known before)"
                live.update(Group(board.status_view(found), board.plain(away)), refresh=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(dead, name="dead")
    for command in (status, replay, reconcile, expire, prune):
        app.command()(command)
