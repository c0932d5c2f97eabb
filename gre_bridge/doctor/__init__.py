"""`gre-bridge doctor`: checks every service on which the daemon depends, and names a fix for each problem.

It changes nothing, except with `--live`, which cleans up after itself. Each check is bounded in time; a check that
cannot be made is reported as skipped. The checks are in `probes` and `live`; this module runs and orders them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from rich.console import Console

from gre_bridge.config.settings import Settings, read_settings
from gre_bridge.db.inspection import InspectionDatabase
from gre_bridge.doctor.live import LIVE, PLAYER, LiveTest
from gre_bridge.doctor.probes import files, local, realtime, sinks
from gre_bridge.doctor.probes.database import MIGRATIONS, password_of, probe_database
from gre_bridge.doctor.probes.supabase import NO_FUNCTIONS, SCHEMA, SupabaseProbe, probe_supabase
from gre_bridge.doctor.report import Finding, Report, Status, failed, skipped
from gre_bridge.errors import ConfigurationError
from gre_bridge.relay.bindings import build_sinks

__all__ = ["PLAYER", "examine", "run"]


def run(env_file: Path | None, *, live: bool = False, player: int = PLAYER, as_json: bool = False) -> int:
    """Make all checks and print the report. Returns the exit status: 0 no failure, 1 a failure, 2 invalid variables."""
    logging.basicConfig(level=logging.CRITICAL, force=True)  # findings replace the logs of the libraries
    settings = read_settings(env_file)
    problems = settings if isinstance(settings, list) else sink_problems(settings)
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


def sink_problems(settings: Settings) -> list[str]:
    """Return the errors with which `run` would refuse to start, although each variable is well formed."""
    try:
        build_sinks(settings)
    except ConfigurationError as error:
        return [str(error)]
    return []


async def examine(
    settings: Settings, *, env_file: Path | None = None, live: bool = False, player: int = PLAYER
) -> Report:
    """Make every check; independent checks run concurrently."""
    db_url = settings.supabase_db_url.get_secret_value() if settings.supabase_db_url else ""
    report = Report((*settings.secrets(), password_of(db_url)))
    report.add(local.check_variables(env_file))
    database = await InspectionDatabase.open(
        url=settings.supabase_url,
        key=settings.service_key,
        apikey=settings.anon_key,
        timeout=settings.request_timeout,
    )
    try:
        async with asyncio.TaskGroup() as group:
            direct = group.create_task(asyncio.to_thread(probe_database, settings))
            pusher = group.create_task(sinks.probe_pusher(settings))
            onesignal = group.create_task(sinks.probe_onesignal(settings))
            supabase = await probe_supabase(settings, database)
            media = [skipped(files.STORAGE, "needs a working service key and the schema")]
            if supabase.usable:
                media = await files.probe_files(settings, database)
            joins, sent = await _probe_realtime(settings, database, supabase, live=live, player=player)
    finally:
        await database.aclose()
    report.add(explain_stale_cache(supabase.findings, direct.result()))
    report.add(direct.result())
    report.add(joins)
    report.add(pusher.result())
    report.add(onesignal.result())
    report.add(media)
    report.add(local.check_open_files(settings))
    report.add(sent)
    return report


def explain_stale_cache(over_http: list[Finding], direct: list[Finding]) -> list[Finding]:
    """Replace "no functions" by "stale schema cache" if the direct connection shows that all migrations are applied."""
    applied = any(item.check == MIGRATIONS and item.status is Status.OK for item in direct)
    return [
        failed(
            SCHEMA,
            "all migrations are applied, but PostgREST's schema cache is stale",
            "gre-bridge migrate (it notifies PostgREST even if nothing is pending); else restart PostgREST, or the project",
        )
        if applied and item.check == SCHEMA and item.found == NO_FUNCTIONS
        else item
        for item in over_http
    ]


async def _probe_realtime(
    settings: Settings, database: InspectionDatabase, supabase: SupabaseProbe, *, live: bool, player: int
) -> tuple[list[Finding], list[Finding]]:
    """Return the findings about Realtime and, with `live`, those about the message. Both use one connection."""
    if not supabase.reached or supabase.refused:
        reason = "needs a working service key" if supabase.reached else "Supabase does not answer"
        return [skipped(realtime.JOIN, reason)], [skipped(LIVE, reason)] * live
    async with realtime.joined(settings) as (probe, findings):
        if supabase.usable:
            findings.append(await realtime.check_broadcast(probe, database))
        if not live:
            findings.append(skipped(realtime.CHANGES, "needs a message: doctor --live sends one"))
            return findings, []
        if supabase.status is None:
            return findings, [skipped(LIVE, "needs a working service key, and the schema")]
        test = LiveTest(database=database, realtime=probe, status=supabase.status, player=player)
        return findings, await test.run()
