"""Renders reports for a terminal. Pure, see `render`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Group
from rich.table import Table

from gre_bridge.cli.render import plain, span
from gre_bridge.db.types import Json

DURATIONS = {
    "first_reply": "first reply time",
    "reply": "reply time",
    "time_to_close": "time to close",
    "handle": "handle time",
}
COUNTS = {
    "sessions_opened": "sessions opened",
    "sessions_closed": "sessions closed",
    "closed_idle": "closed for idleness",
    "missed": "missed",
    "dropped": "dropped",
    "transfers": "transfers",
    "players": "players",
}
COLUMNS: dict[str, Callable[[Json], str]] = {
    "opened": lambda row: str(row["sessions_opened"]),
    "closed": lambda row: str(row["sessions_closed"]),
    "missed": lambda row: str(row["missed"]),
    "dropped": lambda row: str(row["dropped"]),
    "players": lambda row: str(row["players"]),
    "messages": lambda row: " / ".join(str(row["messages"][kind]) for kind in ("player", "staff", "auto")),
    "first reply": lambda row: span(row["first_reply"]["median"]),
    "reply": lambda row: span(row["reply"]["median"]),
    "to close": lambda row: span(row["time_to_close"]["median"]),
    "handle": lambda row: span(row["handle"]["median"]),
    "in goal": lambda row: _share(row["within_goal"]["met"], row["within_goal"]["n"]),
    "rating": lambda row: "" if row["rating"]["mean"] is None else f"{row['rating']['mean']:.1f}",
}
"""What the table of a report shows of each row; durations are medians."""


def report_view(report: Json) -> Group:
    """Return a report as tables: one line for each row, then the total in detail."""
    zone = ZoneInfo(report["timezone"])
    parts: list[Any] = [
        plain(f"{_local(report['from'], zone)} to {_local(report['to'], zone)}, {report['timezone']}")
        + (", in opening hours" if report["in_hours"] else "")
    ]
    if (whole := report["whole_from"]) and _time(whole) > _time(report["from"]):
        parts.append(f"Figures are whole from {_local(whole, zone)} on; there are none of the time before.")
    if report["by"] != "none":
        parts += [
            "",
            _rows(report, zone),
            "Durations are medians; messages: of players / of staff / automatic.",
        ]
    parts += ["", _total(report["total"])]
    return Group(*parts)


def differences_table(differences: list[Json]) -> Table:
    """Return what a check has found."""
    table = Table(box=None)
    for name in ("session", "cycle", "figure", "from messages", "recorded"):
        table.add_column(name, overflow="fold")
    for row in differences:
        cells = (row["session_id"], row["cycle"], row["what"], row["expected"], row["found"])
        table.add_row(*("" if cell is None else plain(cell) for cell in cells))
    return table


def _rows(report: Json, zone: ZoneInfo) -> Table:
    table = Table(box=None)
    table.add_column("staff" if report["by"] == "staff" else report["by"], no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in report["rows"]:
        table.add_row(plain(_name(row, report["by"], zone)), *(show(row) for show in COLUMNS.values()))
    return table


def _name(row: Json, by: str, zone: ZoneInfo) -> str:
    if by == "staff":
        return str(row["key"]) if row["key"] is not None else "(nobody)"
    start = _time(row["start"]).astimezone(zone)
    return start.strftime({"hour": "%Y-%m-%d %H:%M %Z", "month": "%Y-%m"}.get(by, "%Y-%m-%d"))


def _total(row: Json) -> Table:
    table = Table(box=None)
    for name in ("total", "", "median", "mean", "90 %", "max"):
        table.add_column(name, justify="left" if name == "total" else "right")
    for key, name in COUNTS.items():
        table.add_row(name, str(row[key]))
    for kind, name in (
        ("player", "messages of players"),
        ("staff", "messages of staff"),
        ("auto", "automatic messages"),
    ):
        table.add_row(name, str(row["messages"][kind]))
    for key, name in DURATIONS.items():
        values = row[key]
        table.add_row(
            name, str(values["n"]), *(span(values[one]) for one in ("median", "mean", "p90", "max"))
        )
    goal, rating = row["within_goal"], row["rating"]
    table.add_row("answered within the goal", f"{goal['met']} of {goal['n']}", _share(goal["met"], goal["n"]))
    table.add_row("ratings", f"{rating['answered']} of {rating['asked']}")
    if rating["mean"] is not None:
        table.add_row("mean rating", f"{rating['mean']:.2f}")
        table.add_row("ratings of 4 and 5", f"{100 * rating['good_share']:.0f} %")
    return table


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _local(text: str, zone: ZoneInfo) -> str:
    return _time(text).astimezone(zone).strftime("%Y-%m-%d %H:%M")
