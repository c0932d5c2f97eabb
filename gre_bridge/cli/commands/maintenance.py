"""`replay`, `reconcile`, `expire` and `prune`: maintenance of the outbox."""

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

MIN_KEEP = 3600.0
"""Seconds. The database keeps settled deliveries for at least this time, whatever --keep says."""

if TYPE_CHECKING:
    from gre_bridge.db.operations import OperatorDatabase


def replay(
    since: Annotated[str | None, typer.Option(help="First time, or a duration before now: 2h.")] = None,
    until: Annotated[str | None, typer.Option(help="Last time (default: now).")] = None,
    session: Session = None,
    sink: Sink = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Send past messages again. Their events carry "replayed": true, so that pages play no sound."""
    if since is None and session is None:
        fail(ConfigurationError("--since or --session: one is required"))

    async def work(operator: OperatorDatabase, _: Settings) -> int:
        pages = operator.replay(
            since=moment(since, "--since") if since else None,
            # Later messages are relayed as usual.
            until=moment(until, "--until") if until else (await operator.status(blocked=0))["now"],
            session=str(session) if session else None,
            sink=sink,
            dry_run=dry_run,
        )
        return await total(pages, "messages")

    count = run(env_file, work)
    verb = "would be sent again" if dry_run else "will be sent again"
    say({"messages": count, "dry_run": dry_run}, f"{count} messages {verb}", as_json)


def reconcile(dry_run: DryRun = False, as_json: AsJson = False, env_file: EnvFile = None) -> None:
    """Find messages without deliveries (inserted while a trigger was disabled), and relay them."""

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
    stuck = f"{found['lanes']} lanes with pending deliveries were not scheduled" if found["lanes"] else ""
    told = "; ".join(filter(None, (gaps, stuck)))
    repaired = " (would be repaired)" if dry_run else " (repaired)"
    say(
        found,
        f"{found['checked']} messages checked: " + (told + repaired if told else "nothing is missing"),
        as_json,
    )
    raise typer.Exit(1 if told and dry_run else 0)


def expire(
    before: Annotated[str, typer.Option(help="A time, or a duration before now: 2026-11-22T10:00Z, 2h.")],
    sink: Sink = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Expire pending deliveries that are older, for example after a long outage. Messages stay."""

    async def work(operator: OperatorDatabase, _: Settings) -> int:
        return await total(
            operator.expire(before=moment(before, "--before"), sink=sink, dry_run=dry_run), "expired"
        )

    count = run(env_file, work)
    say(
        {"expired": count, "dry_run": dry_run},
        f"{count} {'would be expired' if dry_run else 'expired'}",
        as_json,
    )


def prune(
    keep: Annotated[
        str, typer.Option(help="Keep deliveries settled within this time (1h or more): 7d.")
    ] = "7d",
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Delete settled deliveries and, with GRE_RETENTION_DAYS, closed sessions that are older."""

    async def work(operator: OperatorDatabase, settings: Settings) -> Json:
        kept = seconds(keep, "--keep")
        if kept < MIN_KEEP:
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
