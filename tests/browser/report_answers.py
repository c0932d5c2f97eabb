"""Answers in the place of the server's for tests of the pages' behaviour: many rows, any figure, any delay."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

STAFF = ("a1", "s1", "s2", None)


def parameters(url: str) -> dict[str, str]:
    """The parameters of a request."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def _durations(n: int, base: float) -> dict[str, Any]:
    if n == 0:
        return {"n": 0, "mean": None, "median": None, "p90": None, "max": None}
    return {"n": n, "mean": round(base * 1.45, 3), "median": int(base), "p90": int(base * 3.1), "max": int(base * 9)}  # fmt: skip


def figures(key: str | None, weight: float, **times: str | None) -> dict[str, Any]:
    """A row whose figures grow with `weight`."""
    n = max(0, round(weight))
    base = 40 + 30 * math.sin(weight)
    return {
        "key": key, **times, "sessions_opened": n, "sessions_closed": round(n * 0.9), "closed_idle": n // 9, "missed": n // 12,
        "dropped": n // 20, "transfers": n // 7, "messages": {"player": n * 6, "staff": n * 5, "auto": n}, "players": round(n * 0.8),
        "first_reply": _durations(n, base), "reply": _durations(n * 3, base * 1.3), "time_to_close": _durations(n, base * 20),
        "handle": _durations(n, base * 16),
        "rating": {"asked": n, "answered": n // 2, "mean": round(3.9 + math.sin(n) / 2, 3) if n > 1 else None, "good_share": 0.84 if n > 1 else None},
        "within_goal": {"n": n * 3, "met": round(n * 2.6)},
    }  # fmt: skip


def report(url: str, whole_from: str = "2020-01-01T00:00:00Z") -> dict[str, Any]:
    """A report as the server would answer it, with made-up figures."""
    asked = parameters(url)
    zone, by = ZoneInfo(asked["timezone"]), asked["by"]
    start, end = (datetime.fromisoformat(asked[name]) for name in ("from", "to"))
    rows = []
    if by == "staff":
        rows = [figures(who, 14 - 3 * n) for n, who in enumerate(STAFF)]
    elif by != "none":
        step = timedelta(hours=1) if by == "hour" else timedelta(days={"day": 1, "week": 7}.get(by, 30))
        at = start.astimezone(zone)
        while at.astimezone(UTC) < end:
            after = at + step if by != "hour" else (at.astimezone(UTC) + step).astimezone(zone)
            weight = 9 + 6 * math.sin(len(rows) / 2.2) - (9 if at.weekday() == 6 else 0)
            first, last = (when.astimezone(UTC).isoformat() for when in (at, after))
            rows.append(figures(first, weight, start=first, end=last))
            at = after
    total = figures(None, sum(row["sessions_opened"] for row in rows) or 40)
    return {"success": True, "timezone": asked["timezone"], "from": asked["from"], "to": asked["to"], "by": by, "whole_from": whole_from, "rows": rows, "total": total}  # fmt: skip
