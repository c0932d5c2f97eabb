"""Packed hours: they change no answer, and contain no hour in which a transaction can still write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, SERVICE, Conn, RefusalError, Rest, staff
from tests.support.report_rows import BEGIN, END, Rows
from tests.support.waiting import wait_until

ZONES = ("Europe/Malta", "Asia/Kolkata", "Australia/Lord_Howe")


@pytest.fixture
def desk(db: Database) -> Iterator[Rest]:
    with Rest(db, staff("s1")) as rest:
        yield rest


@pytest.fixture
def worker(db: Database) -> Iterator[Rest]:
    with Rest(db, SERVICE) as rest:
        yield rest


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as conn:
        yield conn


def answers(desk: Rest) -> list[Any]:
    """Ask everything in some zone, basis and kind of time; whole and cut days."""
    cut = timedelta(hours=5, minutes=20)
    found = [
        desk.call(
            "gre_report", **{"from": begin, "to": END}, timezone=zone, by=by, basis=basis, in_hours=in_hours
        )
        for begin, (zone, by, basis, in_hours) in zip(
            itertools.cycle([BEGIN, BEGIN + cut]),
            itertools.chain(
                itertools.product(ZONES, ("day", "week", "month"), (None,), (False, True)),
                itertools.product(
                    ZONES[:1], ("day", "staff", "none"), ("asked", "answered", "closed"), (False, True)
                ),
                itertools.product(ZONES[:1], ("staff", "none"), (None,), (False, True)),
            ),
            strict=False,
        )
    ]
    days = {"from": END - timedelta(days=9), "to": END + cut}
    return [
        *found,
        desk.call("gre_report", **days, by="hour"),
        desk.call("gre_report", **days, timezone=ZONES[0]),
    ]


def pack_until(conn: Conn, worker: Rest, until: datetime, days: int = 366) -> None:
    """Pack as if this were the time."""
    conn.execute("update gre.report_packed set next_until = %s, next_xid = '0'", [until])
    while worker.call("gre_report_pack_v1", days=days)["more"]:
        pass
    row = conn.execute("select until from gre.report_packed").fetchone()
    assert row is not None
    assert row["until"] == until


def differences(leader: Rest, begin: datetime, end: datetime, limit: int = 1000) -> Iterator[dict[str, Any]]:
    """What the check finds, page by page; each has at most `limit` differences."""
    asked = {"from": begin, "to": end, "limit": limit}
    while True:
        page = leader.call("gre_report_check", **asked)
        assert len(page["differences"]) <= limit
        yield from page["differences"]
        if page["next"] is None:
            return
        assert asked.get("cursor") != page["next"]
        asked["cursor"] = page["next"]


def test_packed_hours_change_no_answer(db: Database, desk: Rest, worker: Rest, conn: Conn) -> None:
    """Packed in steps: in the middle of a day and of a month, with questions whose answers come later, then all."""
    with Rows(db) as rows:
        for n, end in enumerate((timedelta(days=20), timedelta(hours=1))):
            asked = BEGIN + timedelta(days=30, hours=5)
            rows.question(rows.session(n), 1, asked, answered=asked + end, who="s1", first=True)
        rows.random(100)
    before = answers(desk)
    assert before[0]["total"]["first_reply"]["n"] > 80
    middle = BEGIN + (END - BEGIN) / 2
    for until in (
        BEGIN + timedelta(days=40, hours=7),
        middle.replace(minute=0, second=0, microsecond=0),
        END + timedelta(days=40),
    ):
        pack_until(conn, worker, until, days=20)
        assert answers(desk) == before, until
    late = conn.execute(
        "select from gre.report_months m join gre.report_months n on n.fact = m.fact and n.month = m.month"
        " and n.staff_id = m.staff_id and n.until > m.until"
    )
    assert late.rowcount > 0, "a reply that came after its month had been packed"
    desk.conn.execute("set gre.report_facts = 'on'")
    assert answers(desk) == before
    conn.execute("update gre.report_days set n = n + 1 where fact = 'opened'")
    assert answers(desk) == before, "nothing packed is read"
    desk.conn.execute("set gre.report_facts = 'off'")
    assert answers(desk) != before
    conn.execute("update gre.report_days set n = n - 1 where fact = 'opened'")
    conn.execute("delete from gre_chat_responses; delete from gre_chat_cycles; delete from gre_chat_activity")
    conn.execute("delete from gre_chat_assignments; delete from gre_chat_ratings")
    conn.execute("delete from gre_chat_events where kind = 'transferred'")
    assert (
        desk.call("gre_report", **{"from": BEGIN, "to": END}, timezone=ZONES[0])["rows"] == before[0]["rows"]
    )
    conn.execute("select gre.report_unpack()")
    empty = desk.call("gre_report", **{"from": BEGIN, "to": END}, by="staff")
    assert (empty["rows"], empty["total"]["sessions_opened"]) == ([], 0)


def test_an_answer_after_packing_is_counted(db: Database, desk: Rest, worker: Rest, conn: Conn) -> None:
    asked, hour = BEGIN + timedelta(days=3, hours=4), timedelta(hours=1)
    asked_for = {"from": BEGIN, "to": END, "by": "month"}
    with Rows(db) as rows:
        rows.question(rows.session(1), 1, asked, answered=asked + hour * 0.1, who="s1", first=True)
        rows.question(rows.session(2), 1, asked, answered=asked + hour * 50, who="s2", first=True)
        rows.flush()
    pack_until(conn, worker, asked + hour * 24)
    for until in (asked + hour * 24, asked + hour * 60, END):
        if until > asked + hour * 24:
            pack_until(conn, worker, until)
        report = desk.call("gre_report", **asked_for)
        assert (report["rows"][0]["first_reply"]["n"], report["total"]["first_reply"]["max"]) == (2, 180_000)
        day = desk.call("gre_report", **{"from": BEGIN, "to": END}, timezone="UTC")["rows"][3]
        assert (day["first_reply"]["n"], day["first_reply"]["median"], day["reply"]["n"]) == (2, 360, 1)
        people = desk.call("gre_report", **{"from": BEGIN, "to": END}, by="staff")["rows"]
        assert [(row["key"], row["first_reply"]["n"]) for row in people] == [("s1", 1), ("s2", 1)]


def test_an_hour_is_packed_when_its_transactions_have_ended(db: Database, worker: Rest, conn: Conn) -> None:
    with Rows(db) as rows:
        rows.random(5)

    def packed() -> datetime | float:
        row = conn.execute("select nullif(until, '-infinity') as until from gre.report_packed").fetchone()
        assert row is not None
        return row["until"] or 0.0

    with db.connect(autocommit=False) as other:
        other.execute("insert into gre_staff (staff_id) values ('s1')")
        assert worker.call("gre_report_pack_v1") == {"packed": False, "more": False}
        assert worker.call("gre_report_pack_v1", days=366) == {"packed": False, "more": False}
        assert packed() == 0.0
        other.commit()
    # Transactions of other databases count, too: the last test's is being dropped.
    wait_until(lambda: worker.call("gre_report_pack_v1", days=366)["packed"])
    until = packed()
    row = conn.execute("select clock_timestamp() - %s as ago", [until]).fetchone()
    assert row is not None
    assert timedelta(hours=1) <= row["ago"] <= timedelta(hours=2)
    assert worker.call("gre_report_pack_v1")["more"] is False


def test_two_workers_do_not_wait_for_each_other(db: Database, worker: Rest) -> None:
    with db.connect(autocommit=False) as other:
        other.execute("select from gre.report_packed for update")
        assert worker.call("gre_report_pack_v1") == {"packed": False, "more": False}


def test_a_restored_database_packs_again(worker: Rest, conn: Conn) -> None:
    """Its transactions may have smaller numbers than those that the dump names."""
    worker.call("gre_report_pack_v1")
    conn.execute("update gre.report_packed set next_xid = '9223372036854775807'")
    wait_until(lambda: worker.call("gre_report_pack_v1", days=366)["packed"])
    row = conn.execute("select isfinite(until) as packed from gre.report_packed").fetchone()
    assert row == {"packed": True}


def test_ancient_and_endless_times_stop_no_report(db: Database, desk: Rest, worker: Rest, conn: Conn) -> None:
    """An assignment that an adopted session brought along, a clock that stepped back, and a cycle from the year 1."""
    day = BEGIN + timedelta(days=1)
    with Rows(db) as rows:
        session = rows.session(1)
        for n, started in enumerate(
            (datetime(1, 1, 2, tzinfo=day.tzinfo), day + timedelta(seconds=9), day - timedelta(seconds=4))
        ):
            rows.assignment(session, n, "s1", started, day)
        rows.cycle(session, datetime(1, 1, 2, tzinfo=day.tzinfo))
        rows.flush()
    conn.execute(
        "insert into gre_chat_assignments (session_id, n, staff_id, how, after_seq, started_at, ended_at, end_how)"
        " values (%s, 9, 's1', 'adopted', 0, '-infinity', %s, 'closed')",
        [session, day],
    )
    asked = {"from": BEGIN, "to": END, "by": "month"}
    before = desk.call("gre_report", **asked)["total"]["handle"]
    assert (before["n"], before["median"], before["max"]) == (4, 4, 2_147_483_647)
    pack_until(conn, worker, BEGIN + timedelta(days=40))
    assert desk.call("gre_report", **asked)["total"]["handle"] == before


def test_what_is_written_into_packed_hours_is_found(
    db: Database, desk: Rest, worker: Rest, conn: Conn
) -> None:
    with Rows(db) as rows:
        rows.random(20)
        pack_until(conn, worker, END)
        found = "select fact, hour, packed, found from gre.report_differences() order by fact"
        assert conn.execute(found).fetchall() == []
        at = BEGIN + timedelta(days=9)
        rows.question(
            rows.session(1), 1, at, answered=at + timedelta(seconds=7), who="s1", first=True, due=at
        )
        rows.flush()
    expected = {"hour": at, "packed": None, "found": [1, 1, 0, 0, 0, 7]}
    assert conn.execute(found).fetchall() == [{"fact": "first", **expected}, {"fact": "reply", **expected}]
    with Rest(db, ADMIN) as leader:
        assert list(differences(leader, BEGIN, END)) == [
            {"session_id": None, "cycle": None, "what": f"packed {fact} {at:%Y-%m-%d %H:%M:%S}",
             "expected": expected["found"], "found": None}
            for fact in ("first", "reply")]  # fmt: skip
    conn.execute("select gre.report_unpack()")
    assert conn.execute(found).fetchall() == []
    report = desk.call("gre_report", **{"from": at, "to": at + timedelta(hours=1)}, by="none")
    assert report["total"]["reply"]["n"] == 1


def test_the_check_reads_packed_hours_in_pages_and_only_those_of_its_range(
    db: Database, worker: Rest, conn: Conn
) -> None:
    """Hours months apart, a page for each 31 days that have any; of more differences in them than its limit it names so many."""
    times = [
        BEGIN + timedelta(days=day, hours=hour) for day, hour in ((0, 0), (0, 5), (30, 3), (31, 0), (300, 7))
    ]
    with Rows(db) as rows:
        for n, at in enumerate(times):
            rows.cycle(rows.session(n), at + timedelta(minutes=59))
        rows.flush()
    pack_until(conn, worker, BEGIN + timedelta(days=400))
    with Rest(db, ADMIN) as leader:
        assert list(differences(leader, BEGIN, END)) == []
        conn.execute("update gre.report_hours set n = n + 1 where fact = 'opened'")

        def hours(begin: datetime, end: datetime, limit: int = 1000) -> list[datetime]:
            found = [
                one["what"].removeprefix("packed opened ") for one in differences(leader, begin, end, limit)
            ]
            return [datetime.fromisoformat(f"{hour}Z") for hour in found]

        assert hours(BEGIN, BEGIN + timedelta(days=365)) == times
        assert hours(BEGIN - timedelta(days=700_000), BEGIN + timedelta(days=365)) == times
        assert hours(BEGIN + timedelta(minutes=1), times[-1]) == times[1:-1]
        assert len(hours(BEGIN, BEGIN + timedelta(days=365), limit=2)) == 4
        with pytest.raises(RefusalError, match="cursor"):
            leader.call("gre_report_check", **{"from": BEGIN, "to": END}, cursor="packed_")
    conn.execute("update gre.report_hours set n = n - 1 where fact = 'opened'")
