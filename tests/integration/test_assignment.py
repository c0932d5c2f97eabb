"""Assignment of sessions to staff: by hand, automatically, and the return to the queue when staff are offline."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import MIGRATIONS, Database
from tests.support import canary
from tests.support.access import ADMIN, SERVICE, WORKER, Caller, Conn, RefusalError, Rest, staff
from tests.support.desk import (
    assign,
    assign_all,
    assigned,
    check,
    configure,
    ends,
    people,
    set_presence,
    waiting,
)
from tests.support.waiting import wait_until


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        yield found


@pytest.fixture
def worker(db: Database) -> Iterator[Conn]:
    with db.connect("authenticator") as found:
        yield found


# One person for each session ---------------------------------------------------------------------------------


def test_at_each_commit_there_is_at_most_one_open_assignment_and_it_is_the_sessions(
    db: Database, conn: Conn
) -> None:
    """Sessions are opened, assigned, closed, reopened and deleted by tables and by functions."""
    names = people(conn, 3)
    configure(conn, "least_busy", max_sessions=2, offline_after="0", returning_within="1 day")
    rng = random.Random(13)
    callers: list[Caller] = [staff(name) for name in names] + [ADMIN, SERVICE, SERVICE.acting_as("staff:s1")]
    connections = [Rest(db, caller) for caller in callers]
    worker = Rest(db, WORKER)

    def session() -> Any:
        rows = conn.execute("select id from gre_chat_sessions order by id").fetchall()
        return str(rng.choice(rows)["id"]) if rows else None

    def one(rest: Rest, query: LiteralString, *values: Any) -> None:
        rest.sql(query, *values)

    def by_table(rest: Rest) -> None:
        one(
            rest, "update gre_chat_sessions set assigned_staff_id = %s, status = %s where id = %s",
            rng.choice([*names, None]), rng.choice(["active", "closed", "waiting"]), session(),
        )  # fmt: skip

    def open_with_staff(rest: Rest) -> None:
        one(
            rest, "insert into gre_chat_sessions (player_id, assigned_staff_id, status) values (%s, %s, 'active')",
            rng.randrange(1, 9), rng.choice([*names, None]),
        )  # fmt: skip

    def write(_: Rest) -> None:
        waiting(conn, rng.randrange(1, 9))

    def come_and_go(_: Rest) -> None:
        set_presence(conn, rng.choice(names), rng.choice(["online", "away", "offline"]))

    ways: list[Callable[[Rest], Any]] = [
        write, write, by_table, by_table, open_with_staff, come_and_go,
        lambda _: worker.call("gre_assign_waiting_v1", limit=3),
        lambda rest: rest.call("gre_take_session", session_id=session(), from_staff=rng.choice([*names, None])),
        lambda rest: rest.call("gre_release_session", session_id=session()),
        lambda rest: rest.call("gre_transfer_session", session_id=session(), to_staff=rng.choice([*names, None])),
        lambda rest: rest.call("gre_staff_reply", session_id=session(), message="y"),
        lambda rest: rest.call("gre_set_session_status", session_id=session(), status=rng.choice(["active", "assigned", "closed"])),
        lambda rest: rest.call("gre_close_session", player_id=rng.randrange(1, 9)),
        lambda rest: rest.call("gre_erase_player", player_id=rng.randrange(1, 9)) if rng.random() < 0.2 else None,
        lambda _: conn.execute("truncate gre_chat_sessions cascade") if rng.random() < 0.05 else None,
        lambda _: conn.execute("update gre_chat_sessions set assigned_staff_id = %s", [rng.choice([*names, None])]),
    ]  # fmt: skip
    done, seen = Counter[bool](), set[str]()
    try:
        for _ in range(1_200):
            try:
                rng.choice(ways)(rng.choice(connections))
                done[True] += 1
            except RefusalError:
                done[False] += 1
            check(conn)
            found = conn.execute("select distinct how, end_how from gre_chat_assignments").fetchall()
            seen |= {str(word) for row in found for word in row.values()}
    finally:
        for rest in [*connections, worker]:
            rest.conn.close()
    assert done[True] > 700
    assert seen >= {"auto", "returning", "taken", "given", "transferred", "released", "closed", "offline"}


def test_an_assignment_says_how_and_by_whom_it_began_and_how_it_ended(db: Database, conn: Conn) -> None:
    people(conn, 3)
    (session,) = waiting(conn, 31)
    with Rest(db, staff("s1")) as s1, Rest(db, staff("s2")) as s2:
        s1.call("gre_take_session", session_id=session)
        s1.call("gre_staff_reply", session_id=session, message="y")
        s1.call("gre_transfer_session", session_id=session, to_staff="s2")
        s2.call("gre_release_session", session_id=session)
        s2.call("gre_transfer_session", session_id=session, to_staff="s3")
        s1.call("gre_take_session", session_id=session, from_staff="s3")
        s1.call("gre_set_session_status", session_id=session, status="closed")
    assert ends(conn, session) == [
        ("s1", "taken", "transferred"),
        ("s2", "transferred", "released"),
        ("s3", "given", "transferred"),
        ("s1", "taken", "closed"),
    ]
    rows = conn.execute(
        "select n, by_staff_id, after_seq, started_at, ended_at from gre_chat_assignments order by n"
    )
    found = rows.fetchall()
    assert [(r["n"], r["by_staff_id"], r["after_seq"]) for r in found] == [
        (1, "s1", 1), (2, "s1", 2), (3, "s2", 2), (4, "s1", 2)
    ]  # fmt: skip
    assert all(row["started_at"] <= row["ended_at"] for row in found)


def test_sessions_of_before_begin_with_the_assignment_that_they_have(
    pg: EmbeddedPostgres, supabase_template: str
) -> None:
    pg.create_database("assigned_before", supabase_template)
    try:
        with Database(pg, "assigned_before").connect() as conn:
            for path in MIGRATIONS:
                if path.stem.endswith("_gre_assignment"):
                    conn.execute("insert into gre_staff (staff_id) values ('s1'), ('s2')")
                    sessions = waiting(conn, 31, 32, 33)
                    conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
                    conn.execute("update gre_chat_sessions set status = 'closed' where player_id = 33")
                with conn.transaction():
                    conn.execute(path.read_bytes(), prepare=False)
            check(conn)
            assert ends(conn, sessions[0]) == [("s1", "adopted", None)]
            assert ends(conn, sessions[2]) == []
            loads = conn.execute(
                "select staff_id, open_sessions from gre_staff_load order by staff_id"
            ).fetchall()
            assert [tuple(row.values()) for row in loads] == [("s1", 2), ("s2", 0)]
    finally:
        pg.drop_database("assigned_before")


# Taking, transfer, return ------------------------------------------------------------------------------------


def test_taking_compares_with_the_person_from_whom_it_is_taken(db: Database, conn: Conn) -> None:
    people(conn, 3)
    (session,) = waiting(conn, 31)
    with Rest(db, staff("s1")) as s1, Rest(db, staff("s2")) as s2:
        s1.call("gre_take_session", session_id=session)
        s1.call("gre_take_session", session_id=session)  # a repeat is no error
        for other in (None, "s3"):
            with pytest.raises(RefusalError, match="somebody else") as refused:
                s2.call("gre_take_session", session_id=session, from_staff=other)
            assert json.loads(refused.value.detail) == {"by": "s1"}
        s2.call("gre_take_session", session_id=session, from_staff="s1")
        s2.call("gre_release_session", session_id=session)
        s1.call("gre_take_session", session_id=session, from_staff="s2")  # it is nobody's by now
        with pytest.raises(RefusalError, match="no such session"):
            s1.call("gre_take_session", session_id=UUID(int=0))
        s1.call("gre_close_session", player_id=31)
        for function in ("gre_take_session", "gre_release_session"):
            with pytest.raises(RefusalError, match="session is closed"):
                s1.call(function, session_id=session)
    with Rest(db, SERVICE) as service, pytest.raises(RefusalError, match="only a person"):
        service.call("gre_take_session", session_id=session)
    assert [end for _, _, end in ends(conn, session)] == ["transferred", "released", "closed"]


def test_a_person_releases_only_sessions_of_its_own(db: Database, conn: Conn) -> None:
    people(conn, 2)
    (session,) = waiting(conn, 31)
    with Rest(db, staff("s1")) as s1, Rest(db, staff("s2")) as s2, Rest(db, SERVICE) as service:
        s1.call("gre_take_session", session_id=session)
        with pytest.raises(RefusalError, match="somebody else") as refused:
            s2.call("gre_release_session", session_id=session)
        assert json.loads(refused.value.detail) == {"by": "s1"}
        assert assigned(conn)[31] == "s1"
        for rest in (s1, s2):  # a repeat is no error
            assert (
                rest.call("gre_release_session", session_id=session)["session"]["assigned_staff_id"] is None
            )
        s1.call("gre_take_session", session_id=session)
        service.call("gre_release_session", session_id=session)
    assert assigned(conn)[31] is None


def test_a_transfer_and_its_note_are_one_transaction(db: Database, conn: Conn) -> None:
    people(conn, 2)
    (session,) = waiting(conn, 31)
    with Rest(db, staff("s1")) as s1:
        for to, note, problem in (
            ("nobody", "n", "no such active"),
            ("s2", " ", "note is empty"),
            ("s2", "n" * 4001, "longer than"),
        ):
            with pytest.raises(RefusalError, match=problem):
                s1.call("gre_transfer_session", session_id=session, to_staff=to, note=note)
            assert assigned(conn)[31] is None
            assert conn.execute("select * from gre_chat_notes").fetchall() == []
        for n, (to, note) in enumerate(
            [("s2", canary.note("Yours")), ("s2", canary.note("again")), (None, canary.note("queue"))]
        ):
            s1.call("gre_transfer_session", session_id=session, to_staff=to, note=note)
            assert assigned(conn)[31] == to
            row = conn.execute("select * from gre_chat_notes where n = %s", [n + 1]).fetchone()
            assert row is not None
            assert (row["staff_id"], row["staff_name"], row["text"], row["after_seq"]) == (
                "s1",
                "S1",
                note,
                1,
            )
    with Rest(db, SERVICE) as service:
        service.call("gre_transfer_session", session_id=session, to_staff="s2")
        with pytest.raises(RefusalError, match="only a person"):
            service.call("gre_transfer_session", session_id=session, to_staff="s1", note="n")
    assert assigned(conn)[31] == "s2"
    check(conn)


def test_a_transfer_is_refused_when_a_colleague_has_written_meanwhile(db: Database, conn: Conn) -> None:
    people(conn, 2)
    (session,) = waiting(conn, 31)
    with Rest(db, staff("s1")) as s1, Rest(db, staff("s2")) as s2:
        s1.call("gre_staff_reply", session_id=session, message="y")
        waiting(conn, 31)
        s1.call(
            "gre_transfer_session", session_id=session, to_staff="s1", after_seq=1
        )  # own messages do not count
        with pytest.raises(RefusalError) as refused:
            s2.call("gre_transfer_session", session_id=session, to_staff="s2", after_seq=1)
        assert (refused.value.status, refused.value.code) == (409, "session_moved")
        assert json.loads(refused.value.detail) == {"by": "s1", "seq": 2}
        s2.call("gre_transfer_session", session_id=session, to_staff="s2", after_seq=2)  # nor do the player's
    assert assigned(conn)[31] == "s2"


def test_a_transfer_is_refused_when_a_colleague_has_taken_the_session_meanwhile(
    db: Database, conn: Conn
) -> None:
    people(conn, 3)
    (session,) = waiting(conn, 31)
    with Rest(db, staff("s1")) as s1, Rest(db, staff("s2")) as s2, Rest(db, SERVICE) as service:
        s2.call("gre_take_session", session_id=session)
        for rest, seen in ((s1, ""), (s1, "s3"), (s1, "s1"), (service, "")):
            with pytest.raises(RefusalError) as refused:
                rest.call(
                    "gre_transfer_session", session_id=session, to_staff="s3", note="n", from_staff=seen
                )
            assert (refused.value.status, refused.value.code) == (409, "session_taken")
            assert json.loads(refused.value.detail) == {"by": "s2"}
        assert assigned(conn)[31] == "s2"
        s1.call("gre_transfer_session", session_id=session, to_staff="s3", from_staff="s2")
        s1.call("gre_transfer_session", session_id=session, to_staff="s3", from_staff="s2")  # a repeat
        s3_has_it = assigned(conn)[31]
        s1.call("gre_transfer_session", session_id=session, from_staff="s3")
        s1.call("gre_transfer_session", session_id=session, to_staff="s2", from_staff="s3")  # nobody's by now
        s2.call("gre_transfer_session", session_id=session, to_staff="s1", from_staff="")  # the caller's own
    assert (s3_has_it, assigned(conn)[31]) == ("s3", "s1")
    assert conn.execute("select * from gre_chat_notes").fetchall() == []
    check(conn)


def test_a_repeated_transfer_stores_its_note_once(db: Database, conn: Conn) -> None:
    people(conn, 3)
    (session,) = waiting(conn, 31)
    key = str(uuid4())
    own = {"session_id": session, "to_staff": "s2", "note": canary.note(), "from_staff": "", "note_id": key}
    with Rest(db, staff("s1")) as s1, Rest(db, staff("s2")) as s2:
        s1.call("gre_transfer_session", **own)
        s2.call("gre_staff_reply", session_id=session, message="y")
        s2.call("gre_transfer_session", session_id=session, to_staff="s3")
        again = s1.call("gre_transfer_session", **own, after_seq=1)
        assert again["session"]["assigned_staff_id"] == "s3", "a repeat changes nothing"
        with pytest.raises(RefusalError) as refused:
            s1.call("gre_transfer_session", **{**own, "note": canary.note("Not the same")})
        assert (refused.value.status, refused.value.code) == (409, "id_conflict")
        with pytest.raises(RefusalError) as refused:  # s1 never had it: this was not done
            s1.call("gre_transfer_session", **{**own, "to_staff": "s1"})
        assert (refused.value.status, refused.value.code) == (409, "id_conflict")
    (row,) = conn.execute("select id, text from gre_chat_notes").fetchall()
    assert (str(row["id"]), row["text"]) == (key, canary.note())
    check(conn)


def test_work_by_hand_may_exceed_the_limit_and_says_so(db: Database, conn: Conn) -> None:
    people(conn, 2)
    configure(conn, max_sessions=1)
    first, second = waiting(conn, 31, 32)
    with Rest(db, staff("s1")) as s1:
        assert "over_limit" not in s1.call("gre_take_session", session_id=first)
        found = s1.call("gre_take_session", session_id=second)
        assert found["over_limit"] == {"open_sessions": 2, "max_sessions": 1}
        conn.execute("update gre_staff set max_sessions = 0 where staff_id = 's2'")
        found = s1.call("gre_transfer_session", session_id=second, to_staff="s2")
        assert found["over_limit"] == {"open_sessions": 1, "max_sessions": 0}
        assert "over_limit" not in s1.call("gre_transfer_session", session_id=second, to_staff=None)


# Automatic assignment ----------------------------------------------------------------------------------------


def test_while_assignment_is_off_nothing_is_assigned_or_returned(conn: Conn, worker: Conn) -> None:
    people(conn, 2)
    conn.execute("update gre_chat_settings set offline_after = '0'")
    waiting(conn, 31, 32)
    conn.execute("update gre_chat_sessions set assigned_staff_id = 's1' where player_id = 31")
    set_presence(conn, "s1", "offline")
    assert assign(worker) == {"enabled": False, "busy": False, "more": False, "assigned": 0, "released": 0}
    conn.execute("delete from gre_chat_settings")
    assert assign(worker)["enabled"] is False
    assert assigned(conn) == {31: "s1", 32: None}


def test_automatic_assignment_never_exceeds_a_limit(conn: Conn, worker: Conn) -> None:
    people(conn, 3)
    configure(conn, "least_busy", max_sessions=2)
    conn.execute("update gre_staff set max_sessions = 1 where staff_id = 's2'")
    conn.execute("update gre_staff set max_sessions = 0 where staff_id = 's3'")
    waiting(conn, 31, 32, 33, 34)
    assert assign(worker) == {"enabled": True, "busy": False, "more": False, "assigned": 3, "released": 0}
    found = assigned(conn)
    assert Counter(found.values()) == {"s1": 2, "s2": 1, None: 1}
    assert found[34] is None, "the longest waiting go first"
    check(conn)
    conn.execute("update gre_chat_sessions set status = 'closed' where player_id = 31")
    assert assign(worker)["assigned"] == 1
    assert assigned(conn)[34] == found[31]
    check(conn)


WAITS: LiteralString = "select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


def test_a_limit_that_is_lowered_while_a_worker_begins_applies_to_it(
    db: Database, conn: Conn, worker: Conn
) -> None:
    people(conn, 1)
    configure(conn, max_sessions=10)
    waiting(conn, 31, 32, 33)
    with ThreadPoolExecutor(1) as pool:
        with db.connect(autocommit=False) as admin:
            admin.execute("lock table gre_online_status")  # the worker has read the settings when it waits
            working = pool.submit(assign, worker)
            wait_until(
                lambda: conn.execute(WAITS).fetchone() == {"n": 1}, every=0.001, what="the worker waits"
            )
            admin.execute("update gre_chat_settings set max_sessions = 1")
        assert working.result(60)["assigned"] == 1


@pytest.mark.parametrize("gone", ["away", "inactive", "takes none"])
def test_who_goes_away_while_a_worker_waits_gets_nothing(
    db: Database, conn: Conn, worker: Conn, gone: str
) -> None:
    people(conn, 1)
    configure(conn)
    waiting(conn, 31, 32)
    with ThreadPoolExecutor(1) as pool:
        with db.connect(autocommit=False) as portal:
            portal.execute("select from gre_staff_load where staff_id = 's1' for no key update")
            working = pool.submit(assign, worker)
            wait_until(
                lambda: conn.execute(WAITS).fetchone() == {"n": 1}, every=0.001, what="the worker waits"
            )
            if gone == "away":
                set_presence(conn, "s1", "away")
            elif gone == "inactive":
                conn.execute("update gre_staff set active = false")
            else:
                conn.execute("update gre_staff set takes_sessions = false")
        assert working.result(60)["assigned"] == 0
    assert assigned(conn) == {31: None, 32: None}


def test_round_robin_and_least_busy_choose_differently(conn: Conn, worker: Conn) -> None:
    people(conn, 3)
    configure(conn, "round_robin")
    waiting(conn, *range(31, 37))
    assert assign(worker)["assigned"] == 6
    assert [assigned(conn)[n] for n in range(31, 37)] == ["s1", "s2", "s3", "s1", "s2", "s3"]
    conn.execute("update gre_chat_sessions set status = 'closed' where assigned_staff_id = 's3'")
    waiting(conn, 41)
    assert assign(worker)["assigned"] == 1
    assert assigned(conn)[41] == "s1", "its last assignment is the oldest"
    configure(conn, "least_busy")
    waiting(conn, 42)
    assert assign(worker)["assigned"] == 1
    assert assigned(conn)[42] == "s3"


def test_only_who_is_eligible_gets_a_session(conn: Conn, worker: Conn) -> None:
    people(conn, 6)
    configure(conn)
    set_presence(conn, "s1", "away")
    set_presence(conn, "s2", "offline")
    conn.execute("update gre_staff set takes_sessions = false where staff_id = 's3'")
    conn.execute("update gre_staff set active = false where staff_id = 's4'")
    conn.execute(
        "update gre_online_status set expires_at = now() - interval '1 second' where staff_id = 's5'"
    )
    conn.execute(  # a portal's own row has no expiry, and counts while it is recent
        "update gre_online_status set expires_at = null, last_seen_at = now() - interval '11 minutes' where staff_id = 's6'"
    )
    waiting(conn, 31)
    assert assign(worker)["assigned"] == 0
    conn.execute(
        "update gre_online_status set last_seen_at = now() - interval '9 minutes' where staff_id = 's6'"
    )
    assert assign(worker)["assigned"] == 1
    assert assigned(conn) == {31: "s6"}


def test_outside_the_opening_hours_nothing_is_assigned(conn: Conn, worker: Conn) -> None:
    people(conn, 1)
    conn.execute("insert into gre_hours (name, timezone) values ('desk', 'UTC')")
    conn.execute(
        "insert into gre_hours_week select 'desk', (now() at time zone 'UTC')::date, d, null, null from generate_series(1, 7) d"
    )
    configure(conn, hours="desk")
    waiting(conn, 31)
    assert assign(worker)["assigned"] == 0
    conn.execute("update gre_hours_week set opens = '00:00', closes = '24:00'")
    assert assign(worker)["assigned"] == 1


def test_a_returning_player_gets_the_person_of_the_last_assignment(conn: Conn, worker: Conn) -> None:
    people(conn, 3)
    configure(conn, returning_within="1 hour")
    for player, hours in ((31, 0), (32, 2)):
        (session,) = waiting(conn, player)
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's3' where id = %s", [session])
        conn.execute("update gre_chat_sessions set status = 'closed' where id = %s", [session])
        conn.execute(
            "update gre_chat_assignments set ended_at = ended_at - %s * interval '1 hour' where session_id = %s",
            [hours, session],
        )
    sessions = waiting(conn, 33, 32, 31)
    assert assign_all(worker) == 3
    assert [ends(conn, session) for session in sessions] == [
        [("s1", "auto", None)], [("s2", "auto", None)], [("s3", "returning", None)]
    ]  # fmt: skip
    conn.execute("update gre_chat_sessions set status = 'closed'")
    set_presence(conn, "s3", "away")
    (session,) = waiting(conn, 31)
    assert assign_all(worker) == 1
    assert ends(conn, session)[0][1] == "auto", "s3 is not there"


def test_who_has_released_a_session_does_not_get_it_again_while_it_waits(
    db: Database, conn: Conn, worker: Conn
) -> None:
    people(conn, 2)
    configure(conn, returning_within="1 day")
    (session,) = waiting(conn, 31)
    for name in ("s1", "s2"):
        assert assign_all(worker) == 1
        assert assigned(conn)[31] == name
        with Rest(db, staff(name)) as rest:
            rest.call("gre_release_session", session_id=session)
    assert assign_all(worker) == 0, "both have released it"
    waiting(conn, 32)
    assert assign_all(worker) == 1, "the next session does not wait for that"
    with Rest(db, staff("s1")) as s1:
        s1.call("gre_staff_reply", session_id=session, message="y")
    waiting(conn, 31)  # a new question
    assert assign_all(worker) == 1
    check(conn)


def test_of_two_sessions_the_longer_waiting_one_is_never_assigned_later(
    db: Database, conn: Conn, worker: Conn
) -> None:
    """Also if another transaction holds the session's lock: the worker waits some milliseconds for it."""
    people(conn, 1)
    configure(conn, max_sessions=1)
    first, second, third = waiting(conn, 31, 32, 33)
    lock = "select from gre_chat_sessions where id = %s for no key update"
    with db.connect(autocommit=False) as portal, ThreadPoolExecutor(1) as pool:
        portal.execute(lock, [first])
        waited = pool.submit(assign, worker)
        blocked = WAITS
        wait_until(lambda: conn.execute(blocked).fetchone() == {"n": 1}, every=0.001, what="the worker waits")
        portal.rollback()
        assert waited.result(60)["assigned"] == 1
    assert assigned(conn) == {31: "s1", 32: None, 33: None}

    configure(conn, max_sessions=10)
    conn.execute("update gre_chat_sessions set assigned_staff_id = null")
    with Rest(db, staff("s1")) as s1:  # who has released it cannot get it again: begin anew
        s1.call("gre_staff_reply", session_id=first, message="y")
    waiting(conn, 31)  # now the last in the queue
    with db.connect(autocommit=False) as portal:
        portal.execute(lock, [third])
        found = assign(worker)
        assert (found["assigned"], found["more"]) == (1, True), (
            "32 is assigned, 33 is locked, 31 waits behind it"
        )
        assert assigned(conn) == {31: None, 32: "s1", 33: None}
        # A session whose lock is held for longer is passed over.
        began = time.monotonic()
        assert assign(worker)["assigned"] == 1
        assert time.monotonic() - began >= 0.1
        assert assigned(conn) == {31: "s1", 32: "s1", 33: None}
        portal.rollback()
    assert assign_all(worker) == 1
    assert second != third
    check(conn)


def test_a_message_does_not_wait_for_the_worker(db: Database, conn: Conn) -> None:
    """A worker's open transaction locks only the sessions that it assigns."""
    people(conn, 1)
    configure(conn, max_sessions=1)
    waiting(conn, 31, 32)
    with db.connect(autocommit=False) as slow:
        slow.execute("select gre_assign_waiting_v1(20)")
        conn.execute("set lock_timeout = '200ms'")
        waiting(conn, 32, 33, 34)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            conn.execute("update gre_chat_settings set max_sessions = 5")
    assert assigned(conn) == {31: "s1", 32: None, 33: None, 34: None}


def test_one_worker_assigns_at_a_time_and_the_others_are_told_busy(
    db: Database, conn: Conn, worker: Conn
) -> None:
    people(conn, 1)
    configure(conn)
    waiting(conn, 31)
    with db.connect(autocommit=False) as other:
        other.execute("select gre_assign_waiting_v1(20)")
        found = assign(worker)
        assert (found["busy"], found["assigned"]) == (True, 0)
    assert assign(worker) == {"enabled": True, "busy": False, "more": False, "assigned": 0, "released": 0}
    assert assigned(conn)[31] == "s1"


def test_a_call_assigns_at_most_its_limit_and_says_that_there_is_more(conn: Conn, worker: Conn) -> None:
    people(conn, 2)
    configure(conn)
    waiting(conn, *range(31, 36))
    assert [assign(worker, 2)["assigned"] for _ in range(3)] == [2, 2, 1]
    assert assign(worker, 2)["more"] is False


# Offline -----------------------------------------------------------------------------------------------------


def test_who_goes_offline_holds_nothing_that_waits(db: Database, conn: Conn, worker: Conn) -> None:
    people(conn, 2)
    configure(conn, offline_after="1 minute")
    waits, answered = waiting(conn, 31, 32)
    conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
    with Rest(db, staff("s1")) as s1:
        s1.call("gre_staff_reply", session_id=answered, message="y")
    waiting(conn, 33)  # in the queue before 31 returns to it
    set_presence(conn, "s2", "away")
    set_presence(conn, "s1", "away")
    assert assign(worker)["released"] == 0, "away: nothing is taken"
    set_presence(conn, "s1", "offline")
    conn.execute("update gre_chat_assignments set started_at = started_at - interval '1 hour'")
    assert assign(worker)["released"] == 0, "not for a minute yet"
    conn.execute(
        "update gre_online_status set updated_at = now() - interval '61 seconds', last_seen_at = now() - interval '61 seconds' where staff_id = 's1'"
    )
    set_presence(conn, "s2", "online")
    found = assign(worker)
    assert (found["released"], found["more"]) == (1, True)
    assert assigned(conn) == {31: None, 32: "s1", 33: None}, "answered ones stay"
    assert assign(worker, 1)["assigned"] == 1
    assert assigned(conn) == {31: "s2", 32: "s1", 33: None}, "it returns to the front of the queue"
    assert ends(conn, waits)[0] == ("s1", "given", "offline")
    waiting(conn, 32)  # the player writes
    assert assign_all(worker) == 2
    assert assigned(conn) == {31: "s2", 32: "s2", 33: "s2"}
    check(conn)


@pytest.mark.parametrize(
    ("row", "is_offline"),
    [
        ("status = 'online', expires_at = now() + interval '1 minute'", False),
        ("status = 'online', expires_at = now() - interval '59 seconds'", False),
        ("status = 'online', expires_at = now() - interval '61 seconds'", True),
        (
            "status = 'online', expires_at = null, last_seen_at = now() - interval '10 minutes 59 seconds'",
            False,
        ),
        ("status = 'online', expires_at = null, last_seen_at = now() - interval '11 minutes 1 second'", True),
        ("status = 'offline', updated_at = now() - interval '61 seconds', last_seen_at = null", True),
        ("status = 'offline', updated_at = now() - interval '59 seconds', last_seen_at = null", False),
        ("status = 'offline', updated_at = now() + interval '1 day'", True),
        ("status = 'offline', updated_at = null, last_seen_at = null", True),
    ],
)
def test_offline_is_counted_from_the_end_of_the_presence(
    conn: Conn, worker: Conn, row: str, is_offline: bool
) -> None:
    people(conn, 1)
    configure(conn, offline_after="1 minute")
    waiting(conn, 31)
    conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
    conn.execute("update gre_chat_assignments set started_at = started_at - interval '1 hour'")
    conn.execute(f"update gre_online_status set {row}".encode())
    assert assign(worker)["released"] == is_offline


def test_a_session_that_is_given_to_somebody_offline_stays_for_a_while(conn: Conn, worker: Conn) -> None:
    people(conn, 1, online=False)
    configure(conn, offline_after="1 minute")
    waiting(conn, 31)
    conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
    assert assign(worker)["released"] == 0
    conn.execute("update gre_chat_assignments set started_at = now() - interval '61 seconds'")
    assert assign(worker)["released"] == 1


def test_who_is_not_active_any_more_holds_nothing_that_waits(conn: Conn, worker: Conn) -> None:
    people(conn, 1)
    configure(conn, offline_after="0")
    waiting(conn, 31)
    assert assign_all(worker) == 1
    conn.execute("update gre_staff set active = false")
    assert assign(worker)["released"] == 1
    assert assigned(conn) == {31: None}
