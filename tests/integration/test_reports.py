"""Reports: each number is that of its list, days add up, hours that are packed change nothing, and who may ask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, NOBODY, SERVICE, WORKER, RefusalError, Rest, player, staff
from tests.support.report_rows import BEGIN, END, Rows

MALTA, LORD_HOWE = "Europe/Malta", "Australia/Lord_Howe"
RANGE = {"from": BEGIN, "to": END}
METRICS = {
    "sessions_opened": "sessions_opened", "sessions_closed": "sessions_closed", "closed_idle": "closed_idle", "missed": "missed",
    "dropped": "dropped", "transfers": "transfers", "messages_player": "messages.player", "messages_staff": "messages.staff",
    "messages_auto": "messages.auto", "players": "players", "first_reply": "first_reply.n", "reply": "reply.n",
    "time_to_close": "time_to_close.n", "handle": "handle.n", "rating_asked": "rating.asked", "rating": "rating.answered",
    "within_goal": "within_goal.n",
}  # fmt: skip
"""The number in a report's row that each list explains."""
DURATIONS = ("first_reply", "reply", "time_to_close", "handle")


@pytest.fixture
def rows(db: Database) -> Iterator[Rows]:
    with Rows(db) as rows:
        yield rows


@pytest.fixture
def desk(db: Database) -> Iterator[Rest]:
    with Rest(db, staff("s1")) as rest:
        yield rest


def at(row: dict[str, Any], path: str) -> Any:
    """Read a number by its path."""
    for name in path.split("."):
        row = row[name]
    return row


def items(desk: Rest, metric: str, key: str | None, limit: int = 200, **asked: Any) -> list[dict[str, Any]]:
    """Read all pages of a list."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = desk.call("gre_report_sessions", **asked, metric=metric, key=key, limit=limit, cursor=cursor)
        assert len(page["items"]) <= limit
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found


def spread(values: list[int]) -> dict[str, Any]:
    """Compute a duration's numbers by their definition."""
    ordered = sorted(values)
    n = len(ordered)
    if not n:
        return {"n": 0, "mean": None, "median": None, "p90": None, "max": None}
    return {
        "n": n, "mean": pytest.approx(sum(ordered) / n, abs=0.00051), "median": ordered[math.ceil(n / 2) - 1],
        "p90": ordered[-(-n * 9 // 10) - 1], "max": ordered[-1],
    }  # fmt: skip


@pytest.mark.parametrize("basis", [None, "asked", "answered", "closed"])
@pytest.mark.parametrize("by", ["none", "day", "month", "staff"])
def test_each_number_is_that_of_its_list(rows: Rows, desk: Rest, by: str, basis: str | None) -> None:
    rows.random(60)
    for in_hours in (False, True):
        asked = {**RANGE, "timezone": MALTA, "by": by, "basis": basis, "in_hours": in_hours}
        report = desk.call("gre_report", **asked)
        cells = [(row["key"], row) for row in report["rows"]]
        if by == "none":
            assert cells == []
            cells = [(None, report["total"])]
        elif by != "staff":
            cells = [cell for cell in cells if cell[1]["messages"]["player"]]
            cells = [cells[0], cells[len(cells) // 2], cells[-1]]
        assert len(cells) > 1 or by == "none"
        for key, row in cells:
            for metric, path in METRICS.items():
                listed = items(desk, metric, key, **asked)
                count = sum(item["count"] for item in listed) if "messages" in metric else len(listed)
                assert count == at(row, path), (metric, key)
                values = [item["value"] for item in listed]
                if metric in DURATIONS:
                    assert spread(values) == row[metric], (metric, key)
                elif metric == "rating" and values:
                    good = sum(value > 3 for value in values) / len(values)
                    assert row["rating"]["mean"] == pytest.approx(sum(values) / len(values), abs=0.00051)
                    assert row["rating"]["good_share"] == pytest.approx(good, abs=0.00051)
                elif metric == "within_goal":
                    assert sum(values) == row["within_goal"]["met"]
                if by == "staff" and metric != "players":
                    assert {item["staff_id"] for item in listed} <= {key}
        assert sum(at(report["total"], path) or 0 for path in METRICS.values()) > 300


@pytest.mark.parametrize("by", ["hour", "day", "week", "month", "staff"])
def test_rows_add_up_to_the_total(rows: Rows, desk: Rest, by: str) -> None:
    rows.random(80)
    begin = END - timedelta(days=90 if by == "hour" else 200)
    report = desk.call("gre_report", **{"from": begin, "to": END}, timezone=MALTA, by=by)
    total = report["total"]
    for path in METRICS.values():
        if path != "players":
            assert sum(at(row, path) for row in report["rows"]) == at(total, path), path
    for metric in DURATIONS:
        seconds = sum((row[metric]["mean"] or 0) * row[metric]["n"] for row in report["rows"])
        assert seconds == pytest.approx(total[metric]["mean"] * total[metric]["n"], rel=1e-4)
        assert max(row[metric]["max"] or 0 for row in report["rows"]) == total[metric]["max"]
    assert 0 < total["players"] <= sum(row["players"] for row in report["rows"])


def test_a_list_is_read_in_pages(rows: Rows, desk: Rest) -> None:
    rows.random(40)
    asked = {**RANGE, "by": "none"}
    for metric in METRICS:
        whole = items(desk, metric, None, **asked)
        assert items(desk, metric, None, limit=7, **asked) == whole, metric
        assert [item["at"] for item in whole] == sorted(item["at"] for item in whole)


def test_the_numbers_of_one_conversation(rows: Rows, desk: Rest) -> None:
    """The example of docs/reports.md: Kim, Sam and Sue."""
    nine = datetime(2026, 3, 10, 9, tzinfo=UTC)
    minute = timedelta(minutes=1)
    kim = rows.session(1)
    rows.cycle(kim, nine, closed=nine + 50 * minute, by="staff", who="sam", asked=nine, rating_asked=True)
    rows.question(kim, 1, nine, answered=nine + 5 * minute, who="sam", first=True, due=nine + 6 * minute)
    rows.question(kim, 2, nine + 6 * minute, answered=nine + 40 * minute, who="sue", due=nine + 10 * minute)
    rows.assignment(kim, 1, "sam", nine + 4 * minute, nine + 50 * minute)
    for quarter, sender, who, count in (
        (0, "player", "", 3), (0, "system", "", 1), (0, "staff", "sam", 1), (30, "player", "", 1), (30, "staff", "sue", 1),
    ):  # fmt: skip
        rows.activity(kim, nine + quarter * minute, sender, who, count)
    rows.rating(kim, 5, "sam", nine + 55 * minute)
    rows.flush()
    report = desk.call("gre_report", **{"from": nine, "to": nine + timedelta(hours=1)}, by="staff")
    empty = {"n": 0, "mean": None, "median": None, "p90": None, "max": None}
    assert report["total"] == {
        "sessions_opened": 1, "sessions_closed": 1, "closed_idle": 0, "missed": 0, "dropped": 0, "transfers": 0,
        "messages": {"player": 4, "staff": 2, "auto": 1}, "players": 1,
        "first_reply": {"n": 1, "mean": 300, "median": 300, "p90": 300, "max": 300},
        "reply": {"n": 2, "mean": 1170, "median": 300, "p90": 2040, "max": 2040},
        "time_to_close": {"n": 1, "mean": 3000, "median": 3000, "p90": 3000, "max": 3000},
        "handle": {"n": 1, "mean": 2760, "median": 2760, "p90": 2760, "max": 2760},
        "rating": {"asked": 1, "answered": 1, "mean": 5, "good_share": 1}, "within_goal": {"n": 2, "met": 1},
    }  # fmt: skip
    by_staff = {row["key"]: row for row in report["rows"]}
    assert list(by_staff) == ["sam", "sue", None]
    assert (by_staff["sam"]["reply"]["max"], by_staff["sue"]["reply"]["max"]) == (300, 2040)
    assert (by_staff["sue"]["first_reply"], by_staff["sue"]["handle"]) == (empty, empty)
    assert (by_staff[None]["messages"], by_staff[None]["players"]) == (
        {"player": 4, "staff": 0, "auto": 1},
        1,
    )
    assert by_staff["sam"]["messages"] == {"player": 0, "staff": 1, "auto": 0}


def test_percentiles_are_values_of_the_nearest_rank(rows: Rows, desk: Rest) -> None:
    base = datetime(2026, 3, 10, 9, tzinfo=UTC)
    for count, (median, p90) in {1: (1, 1), 2: (1, 2), 4: (2, 4), 10: (5, 9), 11: (6, 10), 30: (15, 27), 70: (35, 63)}.items():  # fmt: skip
        day = base + timedelta(days=count)
        for n in range(1, count + 1):
            rows.question(rows.session(n), 1, day, answered=day + timedelta(seconds=n), who="s1", first=True)
        rows.flush()
        for by in ("day", "staff", "none"):
            asked = {"from": day, "to": day + timedelta(hours=2), "by": by}
            report = desk.call("gre_report", **asked)
            for row in (*report["rows"], report["total"]):
                assert (row["reply"]["n"], row["reply"]["median"], row["reply"]["p90"]) == (
                    count,
                    median,
                    p90,
                )


def test_a_basis_moves_replies_and_the_goal_only(rows: Rows, desk: Rest) -> None:
    days = [datetime(2026, 3, day, 12, tzinfo=UTC) for day in (10, 11, 12)]
    session = rows.session(1)
    rows.cycle(session, days[0], closed=days[2], by="staff", who="s1", asked=days[0])
    rows.question(session, 1, days[0], answered=days[1], who="s1", first=True, due=days[2])
    rows.flush()

    def where(basis: str | None) -> list[list[int]]:
        asked = {"from": days[0], "to": days[2] + timedelta(hours=1), "by": "day", "basis": basis}
        report = desk.call("gre_report", **asked)
        return [
            [row["first_reply"]["n"], row["reply"]["n"], row["within_goal"]["n"], row["time_to_close"]["n"]]
            for row in report["rows"]
        ]

    assert where(None) == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert where("asked") == [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert where("answered") == [[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert where("closed") == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


def buckets(desk: Rest, begin: str, end: str, timezone: str, by: str) -> list[tuple[str, str]]:
    """Return start and end of each row, in the zone's time."""
    report = desk.call("gre_report", **{"from": begin, "to": end}, timezone=timezone, by=by)
    zone = ZoneInfo(timezone)
    found = [
        tuple(datetime.fromisoformat(row[name]).astimezone(zone).isoformat() for name in ("start", "end"))
        for row in report["rows"]
    ]
    assert [second for _, second in found[:-1]] == [first for first, _ in found[1:]]
    assert report["timezone"] == timezone
    return found  # type: ignore[return-value]


def test_days_of_23_and_25_hours(desk: Rest) -> None:
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25)):
        begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(MALTA))
        found = buckets(desk, begin.isoformat(), (begin + timedelta(days=1)).isoformat(), MALTA, "day")
        assert [start[:10] for start, _ in found] == [day]
        assert len(buckets(desk, *found[0], MALTA, "hour")) == hours


def test_clocks_that_change_by_half_an_hour(desk: Rest) -> None:
    begin, end = "2026-10-03T14:30:00Z", "2026-10-03T17:00:00Z"
    assert buckets(desk, begin, end, LORD_HOWE, "hour") == [
        ("2026-10-04T01:00:00+10:30", "2026-10-04T02:30:00+11:00"),
        ("2026-10-04T02:30:00+11:00", "2026-10-04T03:00:00+11:00"),
        ("2026-10-04T03:00:00+11:00", "2026-10-04T04:00:00+11:00"),
    ]
    day = buckets(desk, "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z", LORD_HOWE, "day")
    assert day == [("2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00")]
    found = buckets(desk, "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z", LORD_HOWE, "day")
    assert found == [("2026-04-05T00:00:00+11:00", "2026-04-06T00:00:00+10:30")]
    assert len(buckets(desk, "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z", LORD_HOWE, "hour")) == 25


def test_weeks_begin_on_monday_and_the_ends_are_cut(desk: Rest) -> None:
    assert buckets(desk, "2026-03-11T07:00:00+01:00", "2026-03-24T05:00:00+01:00", MALTA, "week") == [
        ("2026-03-11T07:00:00+01:00", "2026-03-16T00:00:00+01:00"),
        ("2026-03-16T00:00:00+01:00", "2026-03-23T00:00:00+01:00"),
        ("2026-03-23T00:00:00+01:00", "2026-03-24T05:00:00+01:00"),
    ]
    report = desk.call("gre_report", **{"from": "2026-03-11T06:00:00Z", "to": "2026-03-12T06:00:00Z"}, timezone=MALTA, by="week")  # fmt: skip
    assert [row["key"] for row in report["rows"]] == ["2026-03-08T23:00:00.000Z"]


def test_months_and_a_day_that_a_zone_skips(desk: Rest) -> None:
    found = buckets(desk, "2025-12-31T23:00:00Z", "2027-01-01T00:00:00+01:00", MALTA, "month")
    assert [start[:7] for start, _ in found] == [f"2026-{month:02}" for month in range(1, 13)]
    apia = buckets(desk, "2011-12-29T10:00:00Z", "2012-01-01T10:00:00Z", "Pacific/Apia", "day")
    assert [start[:10] for start, _ in apia] == ["2011-12-29", "2011-12-31", "2012-01-01"]


def test_empty_rows_are_there(desk: Rest) -> None:
    report = desk.call("gre_report", **{"from": "2026-03-11T00:00:00Z", "to": "2026-03-14T00:00:00Z"})
    assert (report["by"], report["basis"], report["in_hours"]) == ("day", None, False)
    assert len(report["rows"]) == 3
    for row in report["rows"]:
        assert {name: row[name] for name in report["total"]} == report["total"]
        assert row["reply"] == {"n": 0, "mean": None, "median": None, "p90": None, "max": None}
    assert datetime.fromisoformat(report["whole_from"]) < datetime.now(UTC)
    assert desk.call("gre_report", **RANGE, by="staff")["rows"] == []


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"to": BEGIN}, "range_invalid"),
        ({"to": "infinity"}, "range_invalid"),
        ({"to": None}, "range_invalid"),
        ({"from": "294275-12-31", "to": "294276-01-01"}, "range_invalid"),
        ({"from": "0001-01-01 BC"}, "range_invalid"),
        ({"by": "quarter"}, "by_invalid"),
        ({"by": None}, "by_invalid"),
        ({"basis": "opened"}, "basis_invalid"),
        ({"timezone": "Europe/Atlantis"}, "timezone_unknown"),
        ({"timezone": "MSK"}, "timezone_unknown"),
        ({"timezone": "Foo+3"}, "timezone_unknown"),
        ({"timezone": None}, "timezone_unknown"),
        ({"to": BEGIN + timedelta(days=5 * 366), "by": "month"}, "report_too_large"),
        ({"to": BEGIN + timedelta(hours=2501), "by": "hour"}, "report_too_large"),
    ],
)
def test_questions_that_are_refused(desk: Rest, asked: dict[str, Any], code: str) -> None:
    for function in ("gre_report", "gre_report_sessions"):
        with pytest.raises(RefusalError) as refused:
            desk.call(function, **(RANGE | asked))
        assert (refused.value.status, refused.value.code) == (400, code)


def test_the_largest_reports(desk: Rest) -> None:
    hours = desk.call("gre_report", **{"from": BEGIN, "to": BEGIN + timedelta(hours=2499)}, by="hour")
    assert len(hours["rows"]) in (2499, 2500)
    days = desk.call("gre_report", **{"from": BEGIN, "to": BEGIN + timedelta(days=5 * 365)}, by="day")
    assert len(days["rows"]) == 5 * 365


def test_lists_that_are_refused(desk: Rest) -> None:
    for asked, code in (
        ({"metric": "nonsense"}, "metric_unknown"), ({"metric": None}, "metric_unknown"), ({"cursor": "x"}, "cursor_invalid"),
        ({"cursor": "1_2_3"}, "cursor_invalid"), ({"key": "x"}, "key_unknown"), ({"key": None}, "key_unknown"),
        ({"key": "2020-01-01T00:00:00.000Z"}, "key_unknown"),
    ):  # fmt: skip
        with pytest.raises(RefusalError) as refused:
            desk.call(
                "gre_report_sessions",
                **({**RANGE, "metric": "reply", "key": "2026-01-01T00:00:00.000Z"} | asked),
            )
        assert (refused.value.status, refused.value.code) == (400, code)


def test_who_may_ask(db: Database, desk: Rest) -> None:
    one = {"from": BEGIN, "to": BEGIN + timedelta(days=1)}
    calls: dict[str, dict[str, Any]] = {
        "gre_report": one, "gre_report_sessions": {**one, "by": "none"}, "gre_report_live": {},
    }  # fmt: skip
    for function, asked in calls.items():
        for caller in (staff("s1"), ADMIN, SERVICE):
            with Rest(db, caller) as rest:
                assert rest.call(function, **asked)
        for caller in (player(29), NOBODY, WORKER):
            with Rest(db, caller) as rest, pytest.raises(RefusalError):
                rest.call(function, **asked)
    for caller in (staff("s1"), ADMIN, player(29), NOBODY):
        with Rest(db, caller) as rest, pytest.raises(RefusalError):
            rest.call("gre_report_pack_v1")


def test_the_answer_survives_prune_and_erase(db: Database, desk: Rest) -> None:
    """Real conversations: two players, each with an answer, a transfer and a closing."""
    begin = datetime.now(UTC) - timedelta(hours=1)
    asked = {"from": begin, "to": begin + timedelta(hours=2)}
    with db.connect() as conn:
        conn.execute(
            "insert into gre_staff (staff_id, role) values ('s1', 'staff'), ('s2', 'staff'), ('a1', 'admin')"
        )
        for player_id in (29, 30):
            with Rest(db, player(player_id)) as portal:
                session = portal.call("gre_send_message", message="help")["message"]["session_id"]
            desk.call("gre_take_session", session_id=session)
            desk.call("gre_send_message", session_id=session, message="gladly")
            desk.call("gre_transfer_session", session_id=session, to_staff="s2")
            conn.execute("update gre_chat_sessions set status = 'closed' where id = %s", [session])

        def answers() -> list[Any]:
            lists = [len(items(desk, metric, None, **asked, by="none")) for metric in METRICS]
            return [desk.call("gre_report", **asked, by=by) for by in ("none", "day", "staff")] + lists

        before = answers()
        assert (
            before[0]["total"]["reply"]["n"],
            before[0]["total"]["transfers"],
            before[0]["total"]["players"],
        ) == (2, 2, 2)
        with Rest(db, ADMIN) as admin:
            admin.call("gre_erase_player", player_id=29)
        conn.execute("delete from gre_chat_sessions where player_id = 30")
        assert conn.execute("select from gre_chat_sessions").rowcount == 0
        assert answers() == before


def test_live_figures(db: Database, desk: Rest) -> None:
    with db.connect() as conn, Rest(db, player(29)) as first, Rest(db, player(30)) as second:
        conn.execute(
            "insert into gre_staff (staff_id, display_name, max_sessions) values ('s1', 'Sam', 3), ('s2', 'Ann', null)"
        )
        conn.execute("insert into gre_staff (staff_id, active) values ('gone', false)")
        conn.execute("update gre_chat_settings set max_sessions = 7")
        empty = desk.call("gre_report_live")
        assert {name: empty[name] for name in ("open", "waiting", "unassigned", "longest_wait")} == {
            "open": 0, "waiting": 0, "unassigned": 0, "longest_wait": None,
        }  # fmt: skip
        desk.call("gre_set_online_status", status="online")
        session = first.call("gre_send_message", message="a")["message"]["session_id"]
        second.call("gre_send_message", message="b")
        desk.call("gre_take_session", session_id=session)
        desk.call("gre_send_message", session_id=session, message="c")
        live = desk.call("gre_report_live")
    assert live["staff"] == [
        {"staff_id": "s2", "display_name": "Ann", "status": "offline", "open_sessions": 0, "max_sessions": 7},
        {"staff_id": "s1", "display_name": "Sam", "status": "online", "open_sessions": 1, "max_sessions": 3},
    ]
    assert (live["open"], live["waiting"], live["unassigned"]) == (2, 1, 1)
    assert 0 <= live["longest_wait"] < 60
