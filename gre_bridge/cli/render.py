"""What the operator's commands show on a terminal: tables, and which of what they hold needs a look.

Pure: it is given what the database said and returns something to print. What a service answered is in
there, so nothing is taken for markup and control characters do not reach the terminal.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from gre_bridge.db.types import Json

ALIVE = 60.0
"""Seconds without a heartbeat (one in 15) after which a worker counts as gone."""
OLDEST = 60.0
"""Seconds that a delivery may wait before somebody should look."""
SETTLING = 30.0
"""Seconds after its start in which what a worker says of itself is not yet so: it may still be joining Realtime."""


def console() -> Console:
    """Where tables go; wide enough for ids when that is a file or a pipe."""
    wide = 200 if not sys.stdout.isatty() and "COLUMNS" not in os.environ else None
    return Console(markup=False, highlight=False, emoji=False, width=wide)


def dead_table(letters: list[Json]) -> Table:
    """Dead letters, one a line."""
    table = _table("id", "sink", "event", "attempts", "died", "error")
    for one in letters:
        _add(table, one["id"], one["sink"], one["event"], one["attempts"], one["died_at"], one["error"])
    return table


def problems(found: Json) -> list[str]:
    """What of a status an operator should look at, one line each."""
    live = [worker for worker in found["workers"] if worker["seen"] <= ALIVE and relays(worker)]
    # What one says of itself before it has settled is not yet so (and if it died then, never will be).
    settled = [worker for worker in live if _up(worker, found["now"]) - worker["seen"] > SETTLING]
    serving = {name for worker in settled for name in worker["info"].get("sinks", {})}
    told = [] if live else ["no worker has been heard of in the last minute"]
    for row in found["sinks"]:
        name = row["sink"]
        if live and settled == live and row["enabled"] and name not in serving:
            told.append(f"{name}: the database writes deliveries for it, but no worker sends them")
        if (row["oldest_age"] or 0) > OLDEST:
            told.append(f"{name}: the oldest delivery waits for {span(row['oldest_age'])}")
        if row["dead"]:
            told.append(f"{name}: {row['dead']} dead letters (gre-bridge dead list)")
    for worker in settled:
        info = worker["info"]
        for name, sink in info.get("sinks", {}).items():
            if sink.get("breaker") != "closed":
                told.append(f"{name}: {sink.get('error') or 'its breaker is open'} ({worker['host']})")
        feed = info.get("realtime", {})
        if info.get("sinks") and not feed.get("healthy"):
            told.append(
                f"Realtime: no bell is heard, {feed.get('detail') or feed.get('state') or 'no reason'} ({worker['host']})"
            )
    return [plain(line) for line in told]


def status_view(found: Json) -> Group:
    """A status as tables, and the problems below."""
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
    workers = _table("host", "process", "version", "seen", "feed", "does")
    for row in found["workers"]:
        info = row["info"]
        seen = f"{span(row['seen'])} ago" + ("" if row["seen"] <= ALIVE else " (gone)")
        feed = info.get("realtime", {}).get("state", "?")
        _add(workers, row["host"], _process(info), row["version"], seen, feed, _does(info))
    parts += ["", workers]
    parts += [f"! {problem}" for problem in problems(found)]
    return Group(*parts)


def relays(worker: Json) -> bool:
    """Whether a registered process is one that relays, not one that serves the API alone."""
    return bool(worker["info"].get("process") != "api")


def _process(info: Json) -> str:
    """Which of a daemon's processes it is: two daemons may be on one host."""
    return f"{info.get('process', 'daemon')} {info.get('pid', '')}".strip()


def _does(info: Json) -> str:
    """What a process works at, and how its sinks are."""
    if info.get("process") == "api":
        return f"serves {info.get('connections', 0)} sockets"
    return ", ".join(f"{name}: {sink.get('breaker', '?')}" for name, sink in info.get("sinks", {}).items())


def span(value: float | None) -> str:
    """Some seconds in the unit that fits."""
    if value is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s"


def plain(text: object) -> str:
    """One line without control characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def _up(worker: Json, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(worker["started_at"])).total_seconds()


def _table(*names: str) -> Table:
    table = Table(box=None)
    for name in names:
        folds = name in ("error", "why", "does")
        table.add_column(name, overflow="fold" if folds else "ellipsis", no_wrap=not folds)
    return table


def _add(table: Table, *cells: object) -> None:
    table.add_row(*("" if cell is None else plain(cell) for cell in cells))
