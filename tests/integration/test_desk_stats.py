"""`gre_desk_stats_v1`, from which metrics, alerts and doctor tell how the desk is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.access import SERVICE, WORKER, Conn, Rest, staff
from tests.support.desk import assign_all, configure, people, set_presence, waiting


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        yield found


@pytest.fixture
def worker(db: Database) -> Iterator[Rest]:
    with Rest(db, WORKER) as rest:
        yield rest


def stats(worker: Rest) -> Any:
    return worker.call("gre_desk_stats_v1")


def test_a_desk_that_nobody_uses_has_nothing_to_report(worker: Rest) -> None:
    assert stats(worker) == {
        "assignment": "off", "unassigned": 0, "assigned": 0, "oldest_age": None, "available_staff": 0, "staff": 0, "opens": True,
    }  # fmt: skip


def test_waiting_sessions_and_available_staff_are_counted(db: Database, conn: Conn, worker: Rest) -> None:
    people(conn, 3)
    conn.execute("update gre_staff set takes_sessions = false where staff_id = 's3'")
    first, second, _ = waiting(conn, 31, 32, 33)
    conn.execute(
        "update gre_chat_sessions set waiting_since = now() - interval '90 s' where id = %s", [first]
    )
    found = stats(worker)
    assert (found["unassigned"], found["assigned"], found["staff"], found["available_staff"]) == (3, 0, 2, 0)
    assert 90 <= found["oldest_age"] < 120
    configure(conn, max_sessions=1)
    assert stats(worker)["available_staff"] == 2
    assert assign_all(worker.conn) == 2
    found = stats(worker)
    assert (found["unassigned"], found["assigned"], found["available_staff"]) == (1, 2, 0)
    assert found["oldest_age"] < 30
    with Rest(db, staff("s1")) as s1:
        s1.call("gre_staff_reply", session_id=second, message="y")
        s1.call("gre_close_session", player_id=33)
    assert stats(worker)["unassigned"] == 0
    set_presence(conn, "s2", "away")
    conn.execute("update gre_staff set max_sessions = 9")
    assert stats(worker)["available_staff"] == 1


def test_only_open_hours_count(db: Database, conn: Conn, worker: Rest) -> None:
    people(conn, 1)
    (session,) = waiting(conn, 31)
    conn.execute(
        "update gre_chat_sessions set waiting_since = now() - interval '400 days' where id = %s", [session]
    )
    assert stats(worker)["oldest_age"] == pytest.approx(30 * 86_400)
    with Rest(db, SERVICE) as service:
        service.call("gre_set_hours", name="never", timezone="UTC")
        # No way over REST into the past: days that are over stay as they were counted.
        conn.execute("alter table gre_hours_week disable trigger gre_1_check")
        conn.execute(
            "insert into gre_hours_week (hours, valid_from, weekday) values ('never', current_date - 500, 1)"
        )
        conn.execute("alter table gre_hours_week enable trigger gre_1_check")
        service.call("gre_set_settings", settings={"hours": "never", "assignment": "least_busy"})
        found = stats(worker)
        assert (found["oldest_age"], found["available_staff"], found["opens"]) == (0, 0, False)
