"""Probes Supabase over HTTP: the address, the keys, the version of the schema, the clock, the sinks, the workers and the desk.

Each probe makes one call, bounded in time, and changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from gre_bridge.config.proxies import proxy_for
from gre_bridge.config.settings import Settings
from gre_bridge.db.inspection import InspectionDatabase, sink_statement
from gre_bridge.db.postgrest import PostgrestError
from gre_bridge.db.relay import SCHEMA_VERSIONS, classify_error, clocks_differ
from gre_bridge.db.types import DeskStats, Json
from gre_bridge.doctor.probes.keys import ANON_KEY, SERVICE_KEY, judge_anon_key, judge_service_key
from gre_bridge.doctor.report import Finding, Status, failed, ms, ok, skipped, warn
from gre_bridge.errors import BridgeError, TransientError

ADDRESS, SCHEMA, CLOCK, SINKS, WORKERS, DESK = "Supabase", "schema", "clock", "sinks", "workers", "desk"
CONNECT_TIMEOUT = 5.0
"""Seconds for each step of `diagnose_connectivity`."""
MAX_QUEUE_AGE = 60.0
"""Seconds for which a session may wait while automatic assignment could give it to somebody."""
MAX_CLOCK_SKEW = 30.0
"""Seconds. PostgREST rejects a token whose times differ from its clock by more (its documentation)."""
WORKER_TIMEOUT = 90.0
"""Seconds since its last report after which a worker counts as stopped."""

_PLATFORM = {
    402: ("restricts this project", "the organization's usage and bills in the dashboard"),
    540: ("says that the project is paused", "restore it in the dashboard"),
    544: ("says that the project does not answer", "look at its state in the dashboard"),
}
"""Supabase's own statuses (its documentation, "HTTP status codes")."""

NO_FUNCTIONS = "this project has no functions of gre-bridge"
_STATUS_FIXES = {
    "PGRST202": "gre-bridge migrate",
    "57014": "the database is too busy to count within statement_timeout: try again at a quieter time, or prune (gre-bridge prune)",
}


@dataclass
class SupabaseProbe:
    """The findings about Supabase, and the results on which other probes depend.

    `reached`: Supabase answers. `refused`: it does not accept the service key. `usable`: calls with the service key
    succeed and this release supports the schema. `status`: the sinks and workers, or None if they could not be read.
    """

    findings: list[Finding] = field(default_factory=list)
    reached: bool = False
    refused: bool = False
    usable: bool = False
    status: Json | None = None


async def probe_supabase(settings: Settings, database: InspectionDatabase) -> SupabaseProbe:
    """Make every check that needs PostgREST only."""
    url, now = settings.supabase_url, time.time()
    probe = SupabaseProbe()
    judged = judge_service_key(settings.service_key, url=url, now=now)
    first = await _first_call(settings, database)
    probe.findings += first.findings
    invalid = judged.status is Status.FAIL
    refused = any(f.check == SERVICE_KEY for f in first.findings)
    probe.refused = invalid or refused
    if invalid or not refused:
        # The key's own defect explains more than the server's refusal of it.
        probe.findings = [f for f in probe.findings if f.check != SERVICE_KEY] + [judged]
    probe.reached = any(f.check == ADDRESS and f.status is Status.OK for f in first.findings)
    probe.findings += await _anon_key(settings, database, call=first.usable)
    probe.usable = first.usable and not probe.refused
    if probe.usable:
        await _status(probe, settings, database)
    elif probe.reached:
        probe.findings += [
            skipped(name, "needs a working service key and the schema") for name in (SINKS, WORKERS, DESK)
        ]
    return probe


async def _first_call(settings: Settings, database: InspectionDatabase) -> SupabaseProbe:
    """Read the schema's version, and judge the address and the service key by the answer."""
    started = time.monotonic()
    try:
        version = await database.schema_version()
    except TransientError as error:
        if error.code == "unreadable":
            return SupabaseProbe([_not_supabase("an answer that is not PostgREST's")])
        diagnosis = await diagnose_connectivity(ADDRESS, settings.supabase_url, "SUPABASE_URL", error)
        return SupabaseProbe([diagnosis])
    except BridgeError as error:
        return SupabaseProbe([failed(ADDRESS, str(error), "check SUPABASE_URL")])
    except PostgrestError as error:
        return _refused(error, ms(time.monotonic() - started))
    took = time.monotonic() - started
    reached = ok(ADDRESS, f"answers in {ms(took)}", seconds=took)
    if version in SCHEMA_VERSIONS:
        return SupabaseProbe([reached, ok(SCHEMA, f"version {version}")], usable=True)
    supported = f"{SCHEMA_VERSIONS[0]} to {SCHEMA_VERSIONS[-1]}"
    newer = isinstance(version, int) and version > SCHEMA_VERSIONS[-1]
    fix = "upgrade this worker" if newer else "gre-bridge migrate"
    return SupabaseProbe(
        [reached, failed(SCHEMA, f"version {version}; this release supports {supported}", fix)]
    )


def _refused(error: PostgrestError, took: str) -> SupabaseProbe:
    reached = ok(ADDRESS, f"answers in {took}")
    code = error.code
    if error.status in _PLATFORM:
        found, fix = _PLATFORM[error.status]
        return SupabaseProbe([failed(ADDRESS, f"HTTP {error.status}: Supabase {found}", fix)])
    if code == "PGRST202":
        return SupabaseProbe([reached, failed(SCHEMA, NO_FUNCTIONS, "gre-bridge migrate")])
    if refusal := _key_refusal(error):
        return SupabaseProbe([reached, failed(SERVICE_KEY, *refusal)])
    if code == "PGRST003":
        found = "HTTP 504 PGRST003: other queries hold all of PostgREST's connections"
        fix = "find long queries in pg_stat_activity, or give PostgREST a larger pool"
        return SupabaseProbe([failed(ADDRESS, found, fix)])
    if error.status == 404 and not code.startswith("PGRST"):
        return SupabaseProbe([_not_supabase(f"HTTP 404 {code}")])
    if isinstance(classify_error(error, ""), TransientError):
        found = f"HTTP {error.status} {code}: Supabase answers, its database does not"
        fix = "check the project's state in the dashboard; the worker waits until the database is back"
        return SupabaseProbe([failed(ADDRESS, found, fix)])
    return SupabaseProbe([_not_supabase(f"HTTP {error.status} {code}")])


def _key_refusal(error: PostgrestError) -> tuple[str, str] | None:
    """Return the finding and the fix if the server refused the service key, else None."""
    code = error.code
    if clocks_differ(error):
        return (
            f"SUPABASE_SERVICE_KEY is not valid yet by Supabase's clock ({code})",
            "wait a moment; if it stays, check the clock of the machine that made the key",
        )
    if code == "PGRST303":
        return f"SUPABASE_SERVICE_KEY was refused as expired ({code})", "make a new key in the dashboard"
    if code in ("PGRST301", "PGRST302", "42501") or error.status in (401, 403):
        return (
            f"SUPABASE_SERVICE_KEY was refused ({code})",
            "copy SUPABASE_SERVICE_KEY again from the dashboard of the project at SUPABASE_URL",
        )
    return None


def _not_supabase(found: str) -> Finding:
    return failed(
        ADDRESS,
        f"{found}: this address is not a Supabase project's API",
        "set SUPABASE_URL to https://<ref>.supabase.co, without a path",
    )


async def diagnose_connectivity(check: str, url: str, variable: str, error: BridgeError) -> Finding:
    """Find the step at which a call failed: proxy, DNS, TCP, TLS or the answer. `variable` holds the address."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if proxy := proxy_for(url):
        found = f"no answer through the proxy {urlsplit(proxy).hostname or '?'}: {error}"
        return failed(check, found, f"check {variable}, HTTPS_PROXY, ALL_PROXY and NO_PROXY")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return failed(check, f"{host} has no address in DNS", f"check {variable} and this machine's DNS")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as problem:
        reason = (
            "time-out" if isinstance(problem, TimeoutError) else (problem.strerror or type(problem).__name__)
        )
        return failed(
            check,
            f"no connection to {host}:{port}: {reason}",
            f"check {variable}, the firewall, and that the service runs",
        )
    writer.close()
    if error.code == "connect":
        return failed(
            check,
            f"connected, but TLS failed: {error}",
            "check this machine's clock, and SSL_CERT_FILE if a proxy decrypts TLS",
        )
    return failed(
        check,
        f"{host}:{port} accepts connections but does not answer: {error}",
        f"check {variable} and the service's state",
    )


async def _anon_key(settings: Settings, database: InspectionDatabase, *, call: bool) -> list[Finding]:
    """Judge the anon key by itself and, with `call`, by a call that uses it."""
    value = settings.anon_key
    if value is None:
        found = "SUPABASE_ANON_KEY is not set: the portals' API is off"
        return [warn(ANON_KEY, found, "set SUPABASE_ANON_KEY, or run with --no-api")]
    judged = judge_anon_key(value, url=settings.supabase_url, now=time.time())
    if judged.status is Status.FAIL or not call:
        return [judged]
    try:
        await database.check_token(value)
    except PostgrestError as error:
        if error.status in (401, 403):
            fix = "copy SUPABASE_ANON_KEY again from the dashboard of the project at SUPABASE_URL"
            return [failed(ANON_KEY, f"SUPABASE_ANON_KEY was refused ({error.code})", fix)]
    except BridgeError:
        pass  # the check of the address reports an unreachable Supabase
    return [judged]


async def _status(probe: SupabaseProbe, settings: Settings, database: InspectionDatabase) -> None:
    """Judge the clock, the sinks and the workers."""
    before = time.time()
    try:
        probe.status = await database.status()
    except BridgeError as error:
        fix = _STATUS_FIXES.get(error.code, "try again; then gre-bridge migrate --status")
        probe.findings.append(failed(SCHEMA, str(error), fix))
        return
    took = time.time() - before
    ahead = before + took / 2 - datetime.fromisoformat(probe.status["now"]).timestamp()
    probe.findings.append(judge_clock(ahead))
    probe.findings += judge_sinks(probe.status["sinks"], settings)
    probe.findings.append(judge_workers(probe.status["workers"]))
    try:
        probe.findings.append(judge_desk(await database.desk_stats()))
    except BridgeError as error:
        probe.findings.append(failed(DESK, str(error), "try again; then gre-bridge migrate --status"))


def judge_clock(ahead: float) -> Finding:
    """Compare this machine's clock with the database's. `ahead` is in seconds."""
    direction = "ahead of" if ahead > 0 else "behind"
    if abs(ahead) < 1:
        return ok(CLOCK, "agrees with the database's")
    found = f"{abs(ahead):.1f} s {direction} the database's"
    if abs(ahead) <= MAX_CLOCK_SKEW:
        return ok(CLOCK, found)
    return warn(CLOCK, found, "let NTP set it (timedatectl set-ntp true); Pusher refuses calls from 600 s on")


def judge_sinks(rows: list[Json], settings: Settings) -> list[Finding]:
    """Compare the sinks that the database has enabled with the credentials of this worker."""
    enabled = {row["sink"]: row["enabled"] for row in rows}
    pending = {row["sink"]: row["pending"] for row in rows}
    configured = {"pusher": settings.has_pusher, "onesignal": settings.has_onesignal}
    if not any(configured.values()):
        return [
            failed(SINKS, "no sink has credentials: nothing can be relayed", "set PUSHER_… or ONESIGNAL_…")
        ]
    found = []
    for name in sorted(configured.keys() | enabled.keys()):
        if enabled.get(name) and not configured.get(name):
            found.append(warn(SINKS, f"{name} is enabled in the database but has no credentials here: {pending[name]} deliveries are pending",
                              f"set {name.upper()}_…, unless another worker has them; or: {sink_statement(name, enabled=False)}"))  # fmt: skip
        elif configured.get(name) and not enabled.get(name):
            found.append(warn(SINKS, f"{name} has credentials but is not enabled in the database: it receives nothing",
                              sink_statement(name, enabled=True)))  # fmt: skip
    return found or [ok(SINKS, ", ".join(name for name in sorted(configured) if configured[name]))]


def judge_workers(rows: list[Json]) -> Finding:
    """List the processes that have reported lately, and warn if none of them relays."""
    live = [row for row in rows if row["seen"] <= WORKER_TIMEOUT]
    if not any(is_relaying(row) for row in live):
        return warn(WORKERS, "no relaying worker has reported lately", "start one: gre-bridge run")
    names = ", ".join(
        f"{row['host']} ({_process_of(row)}, {row['version']}, {row['seen']:.0f} s ago)" for row in live
    )
    return ok(WORKERS, f"{len(live)}: {names}")


def judge_desk(stats: DeskStats) -> Finding:
    """Warn about settings with which automatic assignment assigns nothing, and about sessions that it leaves waiting."""
    if stats.assignment == "off":
        return ok(DESK, "automatic assignment is off")
    if stats.staff == 0:
        return warn(DESK, f"assignment is {stats.assignment}, but no active staff member takes sessions",
                    "set takes_sessions of staff (docs/desk.md)")  # fmt: skip
    if not stats.opens:
        return warn(DESK, "the opening hours of the desk have no open time: nothing is assigned",
                    "correct the hours, or set hours to null (docs/desk.md)")  # fmt: skip
    if stats.available_staff and stats.oldest_age > MAX_QUEUE_AGE:
        return warn(DESK, f"a session has waited for {stats.oldest_age:.0f} s although {stats.available_staff} of the staff could get it",
                    "docs/operations.md, GreAssignmentStalled")  # fmt: skip
    return ok(DESK, f"assignment is {stats.assignment}: {stats.unassigned} sessions in the queue, {stats.available_staff} of {stats.staff} staff available")  # fmt: skip


def is_relaying(worker: Json) -> bool:
    """Return True for a worker that reported lately and does not serve the API only."""
    return bool(worker["seen"] <= WORKER_TIMEOUT and _process_of(worker) != "api")


def _process_of(row: Json) -> str:
    return str(row.get("info", {}).get("process", "daemon"))
