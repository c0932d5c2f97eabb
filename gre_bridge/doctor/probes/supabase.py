"""What Supabase answers over HTTP: is it there, does it take the keys, is the schema this worker's, who works.

Each question is asked once and bounded in time. What the answers mean is said here; nothing is changed.
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
from gre_bridge.db.operations import OperatorDatabase
from gre_bridge.db.postgrest import Caller, PostgrestClient, PostgrestError
from gre_bridge.db.relay import SCHEMA_VERSIONS, clocks_differ, explain
from gre_bridge.db.types import Json
from gre_bridge.doctor.probes.keys import ANON_KEY, SERVICE_KEY, judge_anon_key, judge_service_key
from gre_bridge.doctor.report import Finding, Status, failed, ms, ok, skipped, warn
from gre_bridge.errors import BridgeError, TransientError

ADDRESS, SCHEMA, CLOCK, SINKS, WORKERS = "Supabase", "schema", "clock", "sinks", "workers"
WITHIN = 5.0
"""Seconds for one step of finding out where the way ends."""
CLOCK_WARN = 30.0
"""Seconds: a token that is made here may be refused from then on (PostgREST allows 30)."""
WORKER_SEEN = 90.0
"""Seconds after which a worker that was not heard of counts as gone."""

_PLATFORM = {
    402: ("restricts this project", "the organization's usage and bills in the dashboard"),
    540: ("says that the project is paused", "restore it in the dashboard"),
    544: ("says that the project does not answer", "look at its state in the dashboard"),
}
"""Supabase's own statuses (its documentation, "HTTP status codes")."""


NO_FUNCTIONS = "this project has no functions of gre-bridge"
_STATUS_MENDS = {
    "PGRST202": "gre-bridge migrate",
    "57014": "the database is too busy to count within statement_timeout: try again at a quieter time, or prune (gre-bridge prune)",
}


@dataclass
class SupabaseProbe:
    """What the other checks may build on.

    `reached`: Supabase answers; `refused`: not with this service key; `usable`: calls with it work, and the schema
    is this worker's; `status`: `gre_relay_status`'s answer.
    """

    findings: list[Finding] = field(default_factory=list)
    reached: bool = False
    refused: bool = False
    usable: bool = False
    status: Json | None = None


async def supabase(settings: Settings, rest: PostgrestClient) -> SupabaseProbe:
    """Ask everything that can be asked over PostgREST."""
    url, now = settings.supabase_url, time.time()
    ground = SupabaseProbe()
    said = judge_service_key(settings.service_key, url=url, now=now)
    answer = await _first_call(settings, rest)
    ground.findings += answer.findings
    wrong = said.status is Status.FAIL
    refused = any(f.check == SERVICE_KEY for f in answer.findings)
    ground.refused = wrong or refused
    if wrong or not refused:
        # What is wrong with it says more than that it was refused.
        ground.findings = [f for f in ground.findings if f.check != SERVICE_KEY] + [said]
    ground.reached = any(f.check == ADDRESS and f.status is Status.OK for f in answer.findings)
    ground.findings += await _anon_key(settings, rest, ask=answer.usable)
    ground.usable = answer.usable and not ground.refused
    if ground.usable:
        await _status(ground, settings, rest)
    elif ground.reached:
        ground.findings += [
            skipped(name, "needs a service key that works and the schema") for name in (SINKS, WORKERS)
        ]
    return ground


async def _first_call(settings: Settings, rest: PostgrestClient) -> SupabaseProbe:
    """The schema's version, and what its answer says about the address and the service key."""
    began = time.monotonic()
    try:
        version = await rest.rpc("gre_schema_version", {})
    except TransientError as error:
        if error.code == "unreadable":
            return SupabaseProbe([_not_supabase("an answer that is not PostgREST's")])
        return SupabaseProbe([await where_it_ends(ADDRESS, settings.supabase_url, "SUPABASE_URL", error)])
    except BridgeError as error:
        return SupabaseProbe([failed(ADDRESS, str(error), "check SUPABASE_URL")])
    except PostgrestError as error:
        return _refused(error, ms(time.monotonic() - began))
    took = time.monotonic() - began
    there = ok(ADDRESS, f"answers in {ms(took)}", seconds=took)
    if version in SCHEMA_VERSIONS:
        return SupabaseProbe([there, ok(SCHEMA, f"version {version}")], usable=True)
    known = f"{SCHEMA_VERSIONS[0]} to {SCHEMA_VERSIONS[-1]}"
    newer = isinstance(version, int) and version > SCHEMA_VERSIONS[-1]
    fix = "upgrade this worker" if newer else "gre-bridge migrate"
    return SupabaseProbe([there, failed(SCHEMA, f"version {version}, this release knows {known}", fix)])


def _refused(error: PostgrestError, took: str) -> SupabaseProbe:
    there = ok(ADDRESS, f"answers in {took}")
    code = error.code
    if error.status in _PLATFORM:
        found, fix = _PLATFORM[error.status]
        return SupabaseProbe([failed(ADDRESS, f"HTTP {error.status}: Supabase {found}", fix)])
    if code == "PGRST202":
        return SupabaseProbe([there, failed(SCHEMA, NO_FUNCTIONS, "gre-bridge migrate")])
    if clocks_differ(error):
        return SupabaseProbe([there, failed(SERVICE_KEY, f"not valid yet by Supabase's clock ({code})",
                                     "wait a moment; if it stays, check the clock where the key was made")])  # fmt: skip
    if code == "PGRST303":
        return SupabaseProbe([there, failed(SERVICE_KEY, f"Supabase refused it as expired ({code})",
                                     "make a new key in the dashboard")])  # fmt: skip
    if code in ("PGRST301", "PGRST302", "42501") or error.status in (401, 403):
        return SupabaseProbe([there, failed(SERVICE_KEY, f"Supabase refused it ({code})",
                                     "copy SUPABASE_SERVICE_KEY anew from the dashboard of the project of SUPABASE_URL")])  # fmt: skip
    if code == "PGRST003":
        taken = "HTTP 504 PGRST003: PostgREST's connections are all taken by other queries"
        return SupabaseProbe(
            [
                failed(
                    ADDRESS,
                    taken,
                    "look for long queries (pg_stat_activity), or give PostgREST a larger pool",
                )
            ]
        )
    if error.status == 404 and not code.startswith("PGRST"):
        return SupabaseProbe([_not_supabase(f"HTTP 404 {code}")])
    if isinstance(explain(error, ""), TransientError):
        away = f"HTTP {error.status} {code}: Supabase answers, its database does not"
        return SupabaseProbe(
            [failed(ADDRESS, away, "look at the project's state in the dashboard; the worker waits for it")]
        )
    return SupabaseProbe([_not_supabase(f"HTTP {error.status} {code}")])


def _not_supabase(found: str) -> Finding:
    return failed(
        ADDRESS,
        f"{found}: this address is not a Supabase project's API",
        "set SUPABASE_URL to https://<ref>.supabase.co, without a path",
    )


async def where_it_ends(check: str, url: str, variable: str, error: BridgeError) -> Finding:
    """Why there was no answer: no address, no connection, no TLS, or silence. `variable` is where to look."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if proxy := proxy_for(url):
        name = urlsplit(proxy).hostname or "?"
        return failed(
            check,
            f"no answer through the proxy {name}: {error}",
            f"check {variable}, HTTPS_PROXY, ALL_PROXY and NO_PROXY",
        )
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(WITHIN):
            await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return failed(check, f"{host} has no address in DNS", f"check {variable} and this machine's DNS")
    try:
        async with asyncio.timeout(WITHIN):
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
            "check the clock here, and SSL_CERT_FILE where a proxy opens TLS",
        )
    return failed(
        check,
        f"{host}:{port} takes connections but does not answer: {error}",
        f"check {variable} and the service's state",
    )


async def _anon_key(settings: Settings, rest: PostgrestClient, *, ask: bool) -> list[Finding]:
    value = settings.anon_key
    if value is None:
        return [
            warn(ANON_KEY, "not set: the portals' API is off", "set SUPABASE_ANON_KEY, or run with --no-api")
        ]
    said = judge_anon_key(value, url=settings.supabase_url, now=time.time())
    if said.status is Status.FAIL or not ask:
        return [said]
    try:
        await rest.rpc("gre_whoami", {}, caller=Caller(value))
    except PostgrestError as error:
        if error.status in (401, 403):
            fix = "copy SUPABASE_ANON_KEY anew from the dashboard of the project of SUPABASE_URL"
            return [failed(ANON_KEY, f"Supabase refused it ({error.code})", fix)]
    except BridgeError:
        pass  # that Supabase does not answer is another finding's to say
    return [said]


async def _status(ground: SupabaseProbe, settings: Settings, rest: PostgrestClient) -> None:
    """Clock, sinks and workers, from the one function that tells them."""
    before = time.time()
    try:
        ground.status = await OperatorDatabase(rest).status(blocked=0)
    except BridgeError as error:
        fix = _STATUS_MENDS.get(error.code, "try again; then gre-bridge migrate --status")
        ground.findings.append(failed(SCHEMA, str(error), fix))
        return
    took = time.time() - before
    ahead = before + took / 2 - datetime.fromisoformat(ground.status["now"]).timestamp()
    ground.findings.append(judge_clock(ahead))
    ground.findings += judge_sinks(ground.status["sinks"], settings)
    ground.findings.append(judge_workers(ground.status["workers"]))


def judge_clock(ahead: float) -> Finding:
    """Compare this clock with the database's: `ahead` in seconds."""
    way = "ahead of" if ahead > 0 else "behind"
    told = f"{abs(ahead):.1f} s {way} the database's" if abs(ahead) >= 1 else "agrees with the database's"
    if abs(ahead) <= CLOCK_WARN:
        return ok(CLOCK, told)
    return warn(CLOCK, told, "let NTP set it (timedatectl set-ntp true); Pusher refuses calls from 600 s on")


def judge_sinks(rows: list[Json], settings: Settings) -> list[Finding]:
    """Hold the database's sinks against the credentials that this worker has."""
    enabled = {row["sink"]: row["enabled"] for row in rows}
    waiting = {row["sink"]: row["pending"] for row in rows}
    found = []
    has = {"pusher": settings.has_pusher, "onesignal": settings.has_onesignal}
    for name in sorted(has.keys() | enabled.keys()):
        if enabled.get(name) and not has.get(name):
            found.append(warn(SINKS, f"{name} is enabled in the database but has no credentials here: {waiting[name]} deliveries wait",
                              f"set {name.upper()}_…, unless another worker has them; or: {_set(name, 'false')}"))  # fmt: skip
        elif has.get(name) and not enabled.get(name):
            found.append(warn(SINKS, f"{name} has credentials but is not enabled in the database: nothing is announced to it",
                              _set(name, "true")))  # fmt: skip
    if not any(has.values()):
        found = [
            failed(
                SINKS, "no sink has credentials: there is nothing to relay to", "set PUSHER_… or ONESIGNAL_…"
            )
        ]
    return found or [ok(SINKS, ", ".join(name for name in sorted(has) if has[name]))]


def _set(sink: str, enabled: str) -> str:
    return f"update gre_relay_sinks set enabled = {enabled} where name = '{sink}'"  # noqa: S608 - words for people


def _process_of(row: Json) -> str:
    return str(row.get("info", {}).get("process", "daemon"))


def judge_workers(rows: list[Json]) -> Finding:
    """Who has been heard of lately."""
    there = [row for row in rows if row["seen"] <= WORKER_SEEN]
    if all(_process_of(row) == "api" for row in there):
        return warn(WORKERS, "no worker that relays has been heard of", "start one: gre-bridge run")
    told = ", ".join(
        f"{row['host']} ({_process_of(row)}, {row['version']}, {row['seen']:.0f} s ago)" for row in there
    )
    return ok(WORKERS, f"{len(there)}: {told}")
