"""The story of a session: whatever way a change came, the events give the row and have their place between the messages."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.conftest import Database
from tests.integration.test_erase import leftovers
from tests.integration.test_send import a, refused, s
from tests.support.access import ADMIN, SERVICE, Caller, RefusalError, Rest, player, request, staff
from tests.support.story import as_replayed, check_stories, replay

__all__ = ["a", "s"]

STAFF = "insert into gre_staff (staff_id, display_name, role) values ('s1', 'Sam', 'staff'), ('s2', 'Sue', 'staff'), ('a1', 'Ann', 'admin')"
IDS = (uuid.UUID(int=1), uuid.UUID(int=2), None)
"""Ids that portals choose for sessions: also those of sessions that were deleted."""


def stories(db: Database) -> list[dict[str, Any]]:
    """All events, each session's in order."""
    with db.connect() as conn:
        return conn.execute("select * from gre_chat_events order by session_id, rev").fetchall()


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]


class Story(RuleBasedStateMachine):
    """Everybody changes sessions, by tables and by functions; retention and erasure delete them."""

    db: Database
    callers: ClassVar[dict[str, Caller]] = {
        "p29": player(29), "p30": player(30), "s1": staff("s1"), "s2": staff("s2"), "admin": ADMIN,
        "service": SERVICE, "acting": SERVICE.acting_as("staff:s1"),
    }  # fmt: skip
    PLAYERS = st.sampled_from([29, 30])
    WHO = st.sampled_from(["s1", "s2", "admin", "service", "acting", "owner"])
    TO = st.sampled_from(["s1", "s2", None])

    @initialize()
    def begin(self) -> None:
        self.owner = self.db.connect()
        # Emptied tables keep their figures, and the next example has sessions with the same ids.
        self.owner.execute(
            "truncate gre_chat_events, gre_chat_sessions, gre_chat_cycles, gre_chat_responses, gre_chat_activity cascade"
        )
        self.clients = {name: Rest(self.db, caller) for name, caller in self.callers.items()}
        self.before: Counter[tuple[Any, ...]] = Counter()

    def teardown(self) -> None:
        for rest in getattr(self, "clients", {}).values():
            rest.conn.close()
        if hasattr(self, "owner"):
            self.owner.close()

    def session_of(self, player_id: int) -> Any:
        row = self.owner.execute(
            "select id from gre_chat_sessions where player_id = %s order by created_at desc limit 1",
            [player_id],
        ).fetchone()
        return row and row["id"]

    def attempt(self, who: str, query: LiteralString, *values: object) -> None:
        """Run a statement as a caller, or as the owner of the tables (`owner`); it may be refused, but not for its events."""
        refusal = ""
        try:
            if who == "owner":
                self.owner.execute(query, values)
            else:
                with request(self.clients[who].conn, self.clients[who].caller) as conn:
                    conn.execute(query, values)
        except (RefusalError, psycopg.Error) as error:
            refusal = str(error)
        assert "gre_chat_events" not in refusal

    @rule(player_id=PLAYERS, table=st.booleans())
    def a_player_writes(self, player_id: int, table: bool) -> None:
        query: LiteralString = (
            "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x')"
            if table
            else "select gre_send_message(p_player_id => %s, p_message => 'x')"
        )
        self.attempt(f"p{player_id}", query, player_id)

    @rule(who=WHO, player_id=PLAYERS)
    def staff_reply(self, who: str, player_id: int) -> None:
        self.attempt(who, "select gre_staff_reply(p_player_id => %s, p_message => 'y')", player_id)

    @rule(who=WHO, player_id=PLAYERS, status=st.sampled_from(["active", "assigned", "closed"]), to=TO)
    def a_function_sets_the_status(self, who: str, player_id: int, status: str, to: str | None) -> None:
        self.attempt(who, "select gre_set_session_status(%s, %s, %s)", self.session_of(player_id), status, to)

    @rule(who=WHO, player_id=PLAYERS)
    def a_function_closes(self, who: str, player_id: int) -> None:
        self.attempt(who, "select gre_close_session(%s)", player_id)

    @rule(who=WHO, player_id=PLAYERS, to=TO, status=st.sampled_from(["active", "closed", "waiting", None]))
    def the_table_is_updated(self, who: str, player_id: int, to: str | None, status: str | None) -> None:
        self.attempt(
            who,
            "update gre_chat_sessions set assigned_staff_id = %s, status = coalesce(%s, status) where id = %s",
            to, status, self.session_of(player_id),
        )  # fmt: skip

    @rule(who=WHO, player_id=PLAYERS, status=st.sampled_from(["active", "closed", None]))
    def columns_of_the_server_are_updated(self, who: str, player_id: int, status: str | None) -> None:
        self.attempt(
            who,
            "update gre_chat_sessions set cycle = 9, closed_by = 'idle', closed_at = '2001-01-01', rev = 1,"
            " status = coalesce(%s, status) where id = %s",
            status, self.session_of(player_id),
        )  # fmt: skip

    @rule(
        who=WHO, player_id=PLAYERS, key=st.sampled_from(IDS), to=TO, status=st.sampled_from(["active", "closed"]),
        upsert=st.booleans(),
    )  # fmt: skip
    def a_session_is_inserted(
        self, who: str, player_id: int, key: uuid.UUID | None, to: str | None, status: str, upsert: bool
    ) -> None:
        insert: LiteralString = (
            "insert into gre_chat_sessions (id, player_id, assigned_staff_id, status, cycle, closed_by)"
            " values (coalesce(%s, gen_random_uuid()), %s, %s, %s, 5, 'idle')"
        )
        merge: LiteralString = (
            " on conflict (id) do update set assigned_staff_id = excluded.assigned_staff_id,"
            " status = excluded.status, cycle = excluded.cycle, closed_by = excluded.closed_by, rev = excluded.rev"
        )
        self.attempt(who, insert + merge if upsert else insert, key, player_id, to, status)

    @rule(player_id=PLAYERS)
    def the_player_is_erased(self, player_id: int) -> None:
        self.attempt("admin", "select gre_erase_player(%s)", player_id)

    @rule()
    def old_sessions_are_pruned(self) -> None:
        with self.db.connect("supabase_admin") as root:
            root.execute("set session_replication_role = replica")
            root.execute("update gre_chat_sessions set created_at = created_at - interval '3 days',"
                         " last_message_at = last_message_at - interval '3 days'")  # fmt: skip
            root.execute("update gre_relay_deliveries set state = 'done', settled_at = clock_timestamp()")
        self.attempt("service", "select gre_relay_prune('1 hour', '1 day')")

    @rule(player_id=PLAYERS)
    def a_back_end_deletes_a_session(self, player_id: int) -> None:
        self.attempt("service", "delete from gre_chat_sessions where id = %s", self.session_of(player_id))

    @invariant()
    def replaying_the_events_gives_the_row_and_no_event_is_lost_or_changed(self) -> None:
        if not hasattr(self, "clients"):
            return
        kept = ("rev", "at", "after_seq", "kind", "staff_id", "by_staff_id")
        events = check_stories(self.owner)
        now = Counter((*(event[key] for key in kept), str(event["data"])) for event in events)
        assert self.before <= now
        self.before = now


def test_replaying_the_events_of_a_session_gives_its_row(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(STAFF)
    Story.db = db
    run_state_machine_as_test(
        Story,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


PLACES = """
select session_id, seq, 0 as rev, created_at as at from gre_chat_messages
union all select session_id, after_seq, rev, at from gre_chat_events
order by 1, 2, 3
"""
"""Messages and events in the order of their places, in one snapshot."""


Conn = psycopg.Connection[dict[str, Any]]
REPLY: LiteralString = "select gre_staff_reply('y', %(session)s)"
ASSIGN: LiteralString = "update gre_chat_sessions set assigned_staff_id = %(to)s where id = %(session)s"
WRITERS: dict[str, tuple[LiteralString, ...]] = {
    "s1": (ASSIGN, ASSIGN.replace("%(to)s", "null")),
    "s2": (ASSIGN, ASSIGN.replace("%(to)s", "null")),
    "replies": (REPLY,),
    "more replies": (REPLY,),
    # One transaction with messages and events of its own.
    "several": (
        "begin", REPLY, "update gre_chat_sessions set status = 'closed', assigned_staff_id = 's1' where id = %(session)s",
        "update gre_chat_sessions set status = 'active', assigned_staff_id = null where id = %(session)s", REPLY, "commit",
    ),
}  # fmt: skip
"""Statements that each writer repeats on a connection of its own."""


def test_the_places_of_events_agree_with_the_order_of_commits_beside_other_writers(db: Database) -> None:
    """A reader sees each session grow at its end only: nothing appears before what it has seen."""
    with db.connect() as conn:
        conn.execute(STAFF)
        row = conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (29, 'player', 'first') returning session_id"
        ).fetchone()
    assert row is not None
    session, stop = row["session_id"], threading.Event()

    def write(name: str) -> None:
        with db.connect() as conn:
            while not stop.is_set():
                for statement in WRITERS[name]:
                    conn.execute(statement, {"session": session, "to": name})

    seen: list[tuple[Any, ...]] = []
    growths = 0
    with ThreadPoolExecutor(len(WRITERS)) as pool, db.connect() as reader:
        writers = [pool.submit(write, name) for name in WRITERS]
        deadline = time.monotonic() + 300
        try:
            while (
                (len(seen) < 1500 or growths <= 50)
                and time.monotonic() < deadline
                and not any(w.done() for w in writers)
            ):
                found = [tuple(place.values()) for place in reader.execute(PLACES).fetchall()]
                assert found[: len(seen)] == seen
                growths += len(found) > len(seen)
                seen = found
        finally:
            stop.set()
    for writer in writers:
        writer.result()
    assert growths > 50
    with db.connect() as conn:
        events = check_stories(conn)
    assert len(events) > 200
    assert {"assigned", "released", "transferred", "closed", "reopened"} <= set(kinds(events))
    times = [at for *_, at in seen]
    assert times == sorted(times)  # all of them are taken under the session's lock


def test_each_change_is_one_event_with_its_place_and_author(db: Database, a: Rest, s: Rest) -> None:
    with db.connect() as conn:
        conn.execute(STAFF)
    session = a.call("gre_send_message", message="hello")["message"]["session_id"]

    def put(status: str, who: Rest = s, **more: Any) -> dict[str, Any]:
        return dict(who.call("gre_set_session_status", session_id=session, status=status, **more)["session"])

    put("assigned")
    put("assigned")  # changes nothing
    s.call("gre_staff_reply", session_id=session, message="yes")
    with Rest(db, staff("s2")) as second, Rest(db, SERVICE) as service:
        put("assigned", second)
        closed = put("closed", service)
        put("closed", service)
    reopened = put("active")
    story = s.call("gre_session_events", session_id=session)
    assert [
        (e["kind"], e["after_seq"], e["staff_id"], e["by_staff_id"], e["data"]) for e in story["events"]
    ] == [
        ("opened", 0, None, None, {}),
        ("assigned", 1, "s1", "s1", {}),
        ("transferred", 2, "s2", "s2", {"from": "s1"}),
        ("closed", 2, None, None, {"by": "system"}),
        ("reopened", 2, None, "s1", {"cycle": 2}),
        ("released", 2, "s2", "s1", {}),
    ]
    assert story["has_more"] is False
    assert (closed["closed_by"], "cycle" in closed) == ("system", False)
    assert ("closed_by" in reopened, reopened["cycle"]) == (False, 2)
    assert story["events"][-1]["rev"] == reopened["rev"]
    assert replay(story["events"]) == as_replayed(reopened)


def test_a_page_of_the_story_begins_after_a_rev(db: Database, a: Rest, s: Rest) -> None:
    session = a.call("gre_send_message", message="hello")["message"]["session_id"]
    for status in ("assigned", "active") * 3:
        s.call("gre_set_session_status", session_id=session, status=status)
    whole = s.call("gre_session_events", session_id=session)["events"]
    assert len(whole) == 7
    read: list[dict[str, Any]] = []
    for more in (True, True, False):
        page = s.call(
            "gre_session_events", session_id=session, after_rev=read[-1]["rev"] if read else None, limit=3
        )
        read += page["events"]
        assert page["has_more"] is more
    assert read == whole
    nothing = s.call("gre_session_events", session_id=session, after_rev=whole[-1]["rev"])
    assert nothing == {"events": [], "has_more": False}
    for limit in (0, -1, 10**6):
        assert len(s.call("gre_session_events", session_id=session, limit=limit)["events"]) in (1, 7)
    assert refused(s, "gre_session_events", session_id=uuid.uuid4()) == (404, "session_unknown")
    assert refused(s, "gre_session_events", session_id=None) == (404, "session_unknown")
    assert refused(a, "gre_session_events", session_id=session) == (403, "staff_only")


def test_staff_read_the_story_and_nobody_writes_it(db: Database, a: Rest, s: Rest) -> None:
    a.call("gre_send_message", message="hello")
    assert kinds(s.sql("select kind from gre_chat_events")) == ["opened"]
    assert a.sql("select kind from gre_chat_events") == []
    writes: tuple[LiteralString, ...] = (
        "delete from gre_chat_events",
        "update gre_chat_events set kind = 'closed'",
        "insert into gre_chat_events (session_id, rev, at, after_seq, kind) values (gen_random_uuid(), 1, now(), 0, 'opened')",
    )
    for caller in (player(29), staff("s1"), ADMIN, SERVICE):
        with Rest(db, caller) as rest:
            for query in writes:
                with pytest.raises(RefusalError, match="permission denied"):
                    rest.sql(query)


@pytest.mark.parametrize(
    ("caller", "side"),
    [(staff("s1"), "staff"), (ADMIN, "staff"), (SERVICE, "system"), (SERVICE.acting_as("staff:s1"), "staff")],
)
def test_closed_by_is_the_side_that_closed(db: Database, a: Rest, caller: Caller, side: str) -> None:
    with db.connect() as conn, Rest(db, caller) as rest:
        conn.execute(STAFF)
        session = a.call("gre_send_message", message="x")["message"]["session_id"]
        rest.sql("update gre_chat_sessions set status = 'closed' where id = %s", session)
        found = conn.execute("select closed_by, closed_at from gre_chat_sessions").fetchone()
        assert found is not None
        assert found["closed_by"] == side
        if caller is SERVICE:  # which may write any column
            for value in ("idle", "player", None):
                rest.sql("update gre_chat_sessions set closed_by = %s, closed_at = now(), cycle = 7", value)
            assert conn.execute("select closed_by, closed_at from gre_chat_sessions").fetchone() == found
        check_stories(conn)


def test_a_function_of_the_server_says_by_whom_it_closes(db: Database, a: Rest) -> None:
    a.call("gre_send_message", message="x")
    with db.connect() as conn:
        conn.execute("update gre_chat_sessions set status = 'closed', closed_by = 'idle'")
        check_stories(conn)
        assert [e["data"] for e in stories(db)][-1] == {"by": "idle"}


def test_a_players_message_that_closes_its_session_is_a_closing_by_the_player(db: Database, a: Rest) -> None:
    with db.connect() as conn:
        conn.execute(
            "create function bye() returns trigger language plpgsql security definer as $$ begin"
            " update public.gre_chat_sessions set status = 'closed' where id = new.session_id; return null; end $$;"
            "create trigger bye after insert on gre_chat_messages for each row when (new.message = 'bye') execute function bye()"
        )
    a.call("gre_send_message", message="hello")
    a.call("gre_send_message", message="bye")
    assert [(e["kind"], e["after_seq"], e["data"]) for e in stories(db)] == [
        ("opened", 0, {}), ("closed", 2, {"by": "player"}),
    ]  # fmt: skip


def test_a_message_that_a_trigger_sends_because_of_a_change_comes_after_its_event(
    db: Database, s: Rest
) -> None:
    """Whatever the name of the project's trigger."""
    with db.connect() as conn:
        conn.execute("insert into gre_chat_messages (player_id, sender, message) values (29, 'player', 'x')")
        for name in ("a_tells", "zzzz_tells"):
            conn.execute(
                f"create function {name}() returns trigger language plpgsql security definer as $$ begin"  # type: ignore[arg-type]
                " insert into public.gre_chat_messages (session_id, player_id, sender, message)"
                " values (new.id, new.player_id, 'system', 'somebody is here'); return null; end $$;"
                f"create trigger {name} after update on gre_chat_sessions for each row"
                f" when (old.assigned_staff_id is null and new.assigned_staff_id is not null) execute function {name}()"
            )
        s.sql("update gre_chat_sessions set assigned_staff_id = 's1'")
        s.sql("update gre_chat_sessions set assigned_staff_id = null")
        check_stories(conn)
    assert [(e["kind"], e["after_seq"]) for e in stories(db)] == [
        ("opened", 0),
        ("assigned", 1),
        ("released", 3),
    ]


def test_a_trigger_that_changes_the_assignment_of_a_row_is_told(db: Database, a: Rest) -> None:
    with db.connect() as conn:
        conn.execute(
            "create function takes() returns trigger language plpgsql as $$ begin new.assigned_staff_id := 's1'; return new; end $$;"
            "create trigger z_takes before insert or update on gre_chat_sessions for each row"
            " when (new.assigned_staff_id is null) execute function takes()"
        )
        a.call("gre_send_message", message="x")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's2'")
        conn.execute("update gre_chat_sessions set assigned_staff_id = null, status = 'closed'")
        check_stories(conn)
    assert [(e["kind"], e["staff_id"]) for e in stories(db)] == [
        ("opened", "s1"), ("transferred", "s2"), ("transferred", "s1"), ("closed", None),
    ]  # fmt: skip


DELETES = {
    "erase": "select gre_erase_player(29)",
    "prune": "select gre_relay_prune('1 hour', '1 day')",
    "delete": "delete from gre_chat_sessions where player_id = 29",
}


@pytest.mark.parametrize("way", DELETES)
def test_a_deleted_session_leaves_its_events_and_nothing_that_leads_to_the_player(
    db: Database, a: Rest, s: Rest, way: str
) -> None:
    session = a.call("gre_send_message", message="hello")["message"]["session_id"]
    s.call("gre_set_session_status", session_id=session, status="assigned")
    s.call("gre_set_session_status", session_id=session, status="closed")
    before = stories(db)
    with db.connect("supabase_admin") as root:
        root.execute("set session_replication_role = replica")
        root.execute("update gre_chat_sessions set last_message_at = now() - interval '3 days'")
        root.execute(
            "delete from gre_relay_deliveries; delete from gre_relay_lanes; delete from realtime.messages"
        )
    with Rest(db, SERVICE) as service:
        service.sql(DELETES[way])  # type: ignore[arg-type]
    after = stories(db)
    assert kinds(after) == ["opened", "assigned", "closed", "deleted"]
    assert len({event.pop("session_id") for event in after}) == 1
    assert after[:-1] == [{k: v for k, v in event.items() if k != "session_id"} for event in before]
    assert after[-1]["after_seq"] == 1
    assert [found for found in leftovers(db, session) if found[0] != "public.gre_relay_lanes"] == []
    assert refused(s, "gre_session_events", session_id=session) == (404, "session_unknown")


def activity(conn: Conn) -> dict[str, Any]:
    """How often the table of events was read and written since ever."""
    conn.execute("select pg_stat_force_next_flush()")
    conn.execute("select pg_stat_clear_snapshot()")
    row = conn.execute(
        "select seq_scan, idx_scan, n_tup_ins, n_tup_upd from pg_stat_user_tables where relname = 'gre_chat_events'"
    ).fetchone()
    assert row is not None
    return row


def test_a_message_into_an_open_session_does_not_touch_the_story(db: Database) -> None:
    """A project that uses none of it pays for the opening of a session, and for nothing else."""
    insert: LiteralString = "insert into gre_chat_messages (player_id, sender, message) values (29, %s, 'x')"
    with db.connect() as conn:
        conn.execute(insert, ["player"])
        before = activity(conn)
        assert before["n_tup_ins"] == 1
        for sender in ("player", "staff", "system") * 5:
            conn.execute(insert, [sender])
        assert activity(conn) == before


# Origin of messages ---------------------------------------------------------------------------------------

ORIGINS = ("typed", "template", "auto", "other", None)


@pytest.mark.parametrize(
    ("caller", "sender", "kept"),
    [
        (player(29), "player", set()),
        (SERVICE.acting_as("player:29"), "player", set()),
        (staff("s1"), "staff", {"template"}),
        (ADMIN, "staff", {"template"}),
        (SERVICE.acting_as("staff:s1"), "staff", {"template"}),
        (SERVICE, "staff", {"template"}),
        (SERVICE, "system", {"template"}),
    ],
)
def test_the_origin_of_a_message_is_the_servers_but_for_templates_of_staff(
    db: Database, caller: Caller, sender: str, kept: set[str]
) -> None:
    with db.connect() as conn, Rest(db, caller) as rest:
        conn.execute(STAFF)
        for origin in ORIGINS:
            (row,) = rest.sql(
                "insert into gre_chat_messages (player_id, sender, message, origin) values (29, %s, 'x', %s) returning origin",
                sender, origin,
            )  # fmt: skip
            assert row["origin"] == (origin if origin in kept else "typed")
        if caller is SERVICE:
            rest.sql("update gre_chat_messages set origin = 'auto'")
            found = conn.execute("select distinct origin from gre_chat_messages order by 1").fetchall()
            assert [row["origin"] for row in found] == ["template", "typed"]


def test_a_message_of_the_server_says_auto_and_others_say_nothing(db: Database, a: Rest) -> None:
    a.call("gre_send_message", message="hello")
    with db.connect() as conn:
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message, origin) values (29, 'system', 'Welcome', 'auto')"
        )
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message, origin) values (29, 'system', 'x', 'other')"
            )
    said, answered = a.call("gre_chat_history")["messages"]
    assert "auto" not in said
    assert answered["auto"] is True
