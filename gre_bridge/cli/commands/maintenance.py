"""`replay`, `reconcile`, `expire` and `prune`: what puts the outbox right after a bad night."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from gre_bridge.cli.commands.common import (
    AsJson,
    DryRun,
    EnvFile,
    Session,
    Sink,
    fail,
    moment,
    run,
    say,
    seconds,
    total,
)
from gre_bridge.config.settings import Settings
from gre_bridge.db.types import Json
from gre_bridge.errors import ConfigurationError

LEAST_KEPT = 3600.0
"""Seconds for which settled deliveries are kept at least: the database keeps them as long, whatever it is asked."""

if TYPE_CHECKING:
    from gre_bridge.db.operations import OperatorDatabase


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

    async def work(operator: OperatorDatabase, _: Settings) -> int:
        pages = operator.replay(
            since=moment(since, "--since") if since else None,
            # What arrives from now on is announced anyway.
            until=moment(until, "--until") if until else (await operator.status(blocked=0))["now"],
            session=str(session) if session else None,
            sink=sink,
            dry_run=dry_run,
        )
        return await total(pages, "messages")

    count = run(env_file, work)
    verb = "would be announced again" if dry_run else "will be announced again"
    say({"messages": count, "dry_run": dry_run}, f"{count} messages {verb}", as_json)


def reconcile(dry_run: DryRun = False, as_json: AsJson = False, env_file: EnvFile = None) -> None:
    """Compare messages with deliveries and announce what was never announced (rows that came in around the triggers)."""

    async def work(operator: OperatorDatabase, _: Settings) -> Json:
        found: Json = {"checked": 0, "missing": {}, "lanes": 0, "dry_run": dry_run}

        async def pages() -> AsyncIterator[int]:
            async for page in operator.reconcile(dry_run=dry_run):
                found["checked"] += page["checked"]
                found["lanes"] += page["lanes"]
                for name, count in page["missing"].items():
                    found["missing"][name] = found["missing"].get(name, 0) + count
                yield page["checked"]

        await total(pages(), "messages checked")
        return found

    found = run(env_file, work)
    gaps = ", ".join(f"{count} never reached {name}" for name, count in sorted(found["missing"].items()))
    stuck = f"{found['lanes']} sessions had work that no worker was told of" if found["lanes"] else ""
    told = "; ".join(filter(None, (gaps, stuck)))
    repaired = " (would be repaired)" if dry_run else " (repaired)"
    say(
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

    async def work(operator: OperatorDatabase, _: Settings) -> int:
        return await total(
            operator.expire(before=moment(before, "--before"), sink=sink, dry_run=dry_run), "expired"
        )

    count = run(env_file, work)
    say(
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

    async def work(operator: OperatorDatabase, settings: Settings) -> Json:
        kept = seconds(keep, "--keep")
        if kept < LEAST_KEPT:
            raise ConfigurationError("--keep: must be at least 1h")
        deleted: Json = {}
        retention = settings.retention_days * 86400.0 if settings.retention_days else None

        async def pages() -> AsyncIterator[int]:
            async for page in operator.prune(keep=kept, retention=retention):
                for name, count in page.items():
                    deleted[name] = deleted.get(name, 0) + count
                yield sum(page.values())

        await total(pages(), "rows deleted")
        return deleted

    found = run(env_file, work)
    told = ", ".join(f"{count} {name}" for name, count in found.items() if count)
    say(found, f"deleted: {told or 'nothing'}", as_json)
