"""`gre-bridge doctor`: looks at everything the daemon depends on, and says of each what was found and what mends it.

It changes nothing, except with `--live`, which cleans up after itself. Each check is bounded in time; one that
cannot be made says why. The checks are in the modules beside this one; here they are put in order and shown.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from rich.console import Console

from gre_bridge.config.settings import Settings, read_settings
from gre_bridge.db.postgrest import PostgrestClient
from gre_bridge.doctor.live import LIVE, PLAYER, Live
from gre_bridge.doctor.probes import local, realtime, sinks
from gre_bridge.doctor.probes.database import MIGRATIONS, database, password_of
from gre_bridge.doctor.probes.supabase import NO_FUNCTIONS, SCHEMA, SupabaseProbe, supabase
from gre_bridge.doctor.report import Finding, Report, Status, failed, skipped
from gre_bridge.errors import ConfigurationError
from gre_bridge.relay.bindings import build_sinks

__all__ = ["PLAYER", "examine", "run"]


def run(env_file: Path | None, *, live: bool = False, player: int = PLAYER, as_json: bool = False) -> int:
    """Examine, print, and return the exit status: 0 nothing failed, 1 something did, 2 the variables are wrong."""
    # Libraries have nothing to say here that the findings do not.
    logging.basicConfig(level=logging.CRITICAL, force=True)
    settings = read_settings(env_file)
    problems = settings if isinstance(settings, list) else _unusable(settings)
    if isinstance(settings, list) or problems:
        report = Report()
        report.add(failed(local.VARIABLES, problem, "see .env.example") for problem in problems)
        status = 2
    else:
        try:
            report = asyncio.run(examine(settings, env_file=env_file, live=live, player=player))
        except KeyboardInterrupt:
            return 130
        status = 0 if report.good else 1
    if as_json:
        print(json.dumps(report.to_json(), indent=2))  # noqa: T201 - the command's output
    else:
        console = Console()
        console.print(report.table(), report.summary())
    return status


def _unusable(settings: Settings) -> list[str]:
    """What `run` would refuse to start with, although each variable is well formed."""
    try:
        build_sinks(settings)
    except ConfigurationError as error:
        return [str(error)]
    return []


async def examine(
    settings: Settings, *, env_file: Path | None = None, live: bool = False, player: int = PLAYER
) -> Report:
    """Make every check, those that do not depend on each other at the same time."""
    db_url = settings.supabase_db_url.get_secret_value() if settings.supabase_db_url else ""
    report = Report((*settings.secrets(), password_of(db_url)))
    report.add(local.names(env_file))
    rest = await PostgrestClient.open(
        url=settings.supabase_url,
        key=settings.service_key,
        apikey=settings.anon_key,
        timeout=settings.request_timeout,
        connections=2,
    )
    try:
        async with asyncio.TaskGroup() as group:
            inside = group.create_task(asyncio.to_thread(database, settings))
            outside = [
                group.create_task(sinks.pusher(settings)),
                group.create_task(sinks.onesignal(settings)),
            ]
            ground = await supabase(settings, rest)
            heard = await _listen(settings, rest, ground, live=live, player=player)
    finally:
        await rest.aclose()
    report.add(stale_cache(ground.findings, inside.result()))
    report.add(inside.result())
    joins, sent = heard
    report.add(joins)
    for task in outside:
        report.add(task.result())
    report.add(local.open_files(settings))
    report.add(sent)
    return report


def stale_cache(outside: list[Finding], inside: list[Finding]) -> list[Finding]:
    """What was found over PostgREST, corrected by what the database itself says: a schema that PostgREST has not read yet."""
    applied = any(one.check == MIGRATIONS and one.status is Status.OK for one in inside)
    return [
        failed(
            SCHEMA,
            "all migrations are applied, but PostgREST has not noticed: its schema cache is stale",
            "gre-bridge migrate (it notifies PostgREST, also with nothing to apply); else restart PostgREST, or the project",
        )
        if applied and one.check == SCHEMA and one.found == NO_FUNCTIONS
        else one
        for one in outside
    ]


async def _listen(
    settings: Settings, rest: PostgrestClient, ground: SupabaseProbe, *, live: bool, player: int
) -> tuple[list[Finding], list[Finding]]:
    """What Realtime came to, and, with `live`, the message: both need the same ear."""
    if not ground.reached or ground.refused:
        why = "needs a service key that works" if ground.reached else "Supabase does not answer"
        return [skipped(realtime.JOIN, why)], [skipped(LIVE, why)] * live
    async with realtime.listening(settings) as (ear, joins):
        if ground.usable:
            joins.append(await realtime.ring(ear, rest))
        if not live:
            joins.append(skipped(realtime.CHANGES, "needs a message: doctor --live sends one"))
            return joins, []
        if ground.status is None:
            return joins, [skipped(LIVE, "needs a service key that works, and the schema")]
        hops = Live(settings=settings, rest=rest, ear=ear, status=ground.status, player=player)
        return joins, await hops.run()
