"""Renders the operator's tables, and finds the problems in a status.

Pure: it turns answers of the database into something to print. The answers quote services, so markup is not
interpreted and control characters are removed.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from gre_bridge.db.types import Json

WORKER_TIMEOUT = 60.0
"""Seconds since its last report (one in 15) after which a worker counts as stopped."""
MAX_AGE = 60.0
"""Seconds; an older pending delivery is a problem."""
STARTUP_GRACE = 30.0
"""Seconds after its start in which a worker may still be joining Realtime: its report does not count yet."""


def console() -> Console:
    """Return the console for tables; into a file or pipe it is wide enough for ids."""
    wide = 200 if not sys.stdout.isatty() and "COLUMNS" not in os.environ else None
    return Console(markup=False, highlight=False, emoji=False, width=wide)


def dead_table(deliveries: list[Json]) -> Table:
    """Return a table of dead letters."""
    table = _table("id", "sink", "event", "attempts", "died", "error")
    for row in deliveries:
        _add(table, row["id"], row["sink"], row["event"], row["attempts"], row["died_at"], row["error"])
    return table


def problems(found: Json) -> list[str]:
    """Return the problems in a status, one line each."""
    live = [worker for worker in found["workers"] if worker["seen"] <= WORKER_TIMEOUT and relays(worker)]
    # A report from the start-up grace is not reliable, also if the worker has stopped since.
    started = [worker for worker in live if _uptime(worker, found["now"]) - worker["seen"] > STARTUP_GRACE]
    serving = {name for worker in started for name in worker["info"].get("sinks", {})}
    lines = [] if live else ["no worker has reported in the last minute"]
    for row in found["sinks"]:
        name = row["sink"]
        if live and started == live and row["enabled"] and name not in serving:
            lines.append(f"{name}: the database writes deliveries for it, but no worker sends them")
        if (row["oldest_age"] or 0) > MAX_AGE:
            lines.append(f"{name}: the oldest delivery has been pending for {span(row['oldest_age'])}")
        if row["dead"]:
            lines.append(f"{name}: {row['dead']} dead letters (gre-bridge dead list)")
    for worker in started:
        info = worker["info"]
        for name, sink in info.get("sinks", {}).items():
            if sink.get("breaker") != "closed":
                lines.append(f"{name}: {sink.get('error') or 'its breaker is open'} ({worker['host']})")
        realtime = info.get("realtime", {})
        if info.get("sinks") and not realtime.get("healthy"):
            lines.append(
                f"Realtime: no wake-ups arrive, {realtime.get('detail') or realtime.get('state') or 'no reason'} ({worker['host']})"
            )
    return [plain(line) for line in lines]


def status_view(found: Json) -> Group:
    """Return a status as tables, followed by the problems."""
    sinks = _table("sink", "waiting", "oldest", "rate", "empty in", "sessions", "blocked", "dead")
    for row in found["sinks"]:
        rate = row.get("rate") or 0
        _add(
            sinks,
            row["sink"] + ("" if row["enabled"] else " (off)"),
            row["pending"],
            span(row["oldest_age"]),
            f"{rate:.0f}/s" if rate >= 1 or not rate else f"{rate:.1f}/s",
            span(row["pending"] / rate) if rate and row["pending"] else "",
            row["lanes_waiting"],
            row["lanes_blocked"],
            row["dead"],
        )
    parts: list[Any] = [sinks]
    if found["blocked"]:
        blocked = _table("blocked session", "sink", "again in", "attempts", "why")
        for row in found["blocked"]:
            _add(blocked, row["lane_key"], row["sink"], span(row["retry_in"]), row["attempts"], row["error"])
        parts += ["", blocked]
    workers = _table("host", "process", "version", "seen", "realtime", "work")
    for row in found["workers"]:
        info = row["info"]
        seen = f"{span(row['seen'])} ago" + ("" if row["seen"] <= WORKER_TIMEOUT else " (stopped)")
        realtime = info.get("realtime", {}).get("state", "?")
        _add(workers, row["host"], _process(info), row["version"], seen, realtime, _work(info))
    parts += ["", workers]
    parts += [f"! {problem}" for problem in problems(found)]
    return Group(*parts)


def relays(worker: Json) -> bool:
    """Return True if a registered process relays; False if it serves the API only."""
    return bool(worker["info"].get("process") != "api")


def _process(info: Json) -> str:
    """Return the name and pid of a process: a host may run several daemons."""
    return f"{info.get('process', 'daemon')} {info.get('pid', '')}".strip()


def _work(info: Json) -> str:
    """Return the work of a process: its sockets, or its sinks with their breakers."""
    if info.get("process") == "api":
        return f"serves {info.get('connections', 0)} sockets"
    return ", ".join(f"{name}: {sink.get('breaker', '?')}" for name, sink in info.get("sinks", {}).items())


def span(value: float | None) -> str:
    """Format a duration in seconds with a suitable unit."""
    if value is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s"


def plain(text: object) -> str:
    """Return the text as one line without control characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def _uptime(worker: Json, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(worker["started_at"])).total_seconds()


def _table(*names: str) -> Table:
    table = Table(box=None)
    for name in names:
        folds = name in ("error", "why", "work")
        table.add_column(name, overflow="fold" if folds else "ellipsis", no_wrap=not folds)
    return table


def _add(table: Table, *cells: object) -> None:
    table.add_row(*("" if cell is None else plain(cell) for cell in cells))
