"""Figures against a second implementation: whatever happens in conversations, reports and an export of the rows agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, ClassVar, LiteralString
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.conftest import Database
from tests.integration.test_hours import Entry, instant, zone_of
from tests.integration.test_hours import expected as open_ranges
from tests.support import figures
from tests.support.access import ADMIN, SERVICE, Caller, RefusalError, Rest, player, staff
from tests.support.figures import Export, Fact, Rules
from tests.support.own_clock import OwnClock

BEGIN = datetime(2025, 3, 28, 20, 17, 31, tzinfo=UTC)
"""Two days before Europe's clocks go forward."""
WEEK: dict[date, dict[int, list[Entry]]] = {
    date(2000, 1, 3): {day: [(time(9), time(17, 30)), (time(22), time(2))] for day in range(1, 7)}
}
"""Opening hours in Berlin: two shifts a day, one over midnight; closed on Sundays."""
ZONES = ("UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "America/Havana", "Pacific/Apia")
RULES = Rules(
    first_reply_goal=120,
    reply_goal=900,
    rating_enabled=True,
    open_seconds=lambda begin, end: int(
        sum(
            ((upper - lower) for lower, upper in open_ranges("Europe/Berlin", WEEK, {}, begin, end)),
            timedelta(),
        ).total_seconds()
    ),
)
PEOPLE = "insert into gre_staff (staff_id, display_name, role) values ('s1', 'Sam', 'staff'), ('s2', 'Sue', 'staff'), ('a1', 'Ann', 'admin')"
SETTINGS: LiteralString = """
update gre_chat_settings set hours = 'desk', rating_enabled = true, goals_in_hours = false,
  first_reply_goal = '2 minutes', reply_goal = '15 minutes'
"""
TABLES: LiteralString = (
    "gre_chat_sessions, gre_chat_events, gre_chat_cycles, gre_chat_responses, gre_chat_activity, gre_chat_ratings,"
    " gre_chat_assignments, gre.report_players, gre_relay_deliveries, gre_relay_lanes"
)
TIMES = ("at", "created_at", "started_at", "ended_at", "rated_at")


def _open_hours(db: Database) -> None:
    """Enter opening hours that were valid before the test's time; the triggers refuse changes of past days."""
    with db.connect("supabase_admin") as root:
        root.execute("set session_replication_role = replica")
        root.execute("insert into gre_hours (name, timezone) values ('desk', 'Europe/Berlin')")
        for first, days in WEEK.items():
            for day, shifts in days.items():
                for opens, closes in filter(None, shifts):
                    root.execute(
                        "insert into gre_hours_week (hours, valid_from, weekday, opens, closes) values ('desk', %s, %s, %s, %s)",
                        [first, day, opens, closes],
                    )


class Conversations(RuleBasedStateMachine):
    """Players and staff talk for months; a figure is compared at any moment, also after prune and erase."""

    db: Database
    clock: OwnClock
    callers: ClassVar[dict[str, Caller]] = {
        "p29": player(29), "p30": player(30), "p31": player(31),
        "s1": staff("s1"), "s2": staff("s2"), "a1": ADMIN, "service": SERVICE,
    }  # fmt: skip
    PLAYER = st.sampled_from([29, 30, 31])
    STAFF = st.sampled_from(["s1", "s2"])

    @initialize()
    def begin(self) -> None:
        self.root = self.db.connect("supabase_admin")
        self.root.execute(f"truncate {TABLES} cascade".encode())
        self.root.execute("select gre.report_unpack()")
        self.clock.set(BEGIN)
        self.rest = {name: Rest(self.db, caller) for name, caller in self.callers.items()}
        self.gone: list[tuple[set[str], Export]] = []

    def teardown(self) -> None:
        for rest in getattr(self, "rest", {}).values():
            rest.conn.close()
        if hasattr(self, "root"):
            self.root.close()

    def attempt(self, work: Callable[[], Any]) -> None:
        """Do something that rules may refuse; anything but a refusal in words is a fault."""
        fault = ""
        self.clock.advance(timedelta(milliseconds=1))  # no two sessions of a player are of the same time
        try:
            work()
        except RefusalError as error:
            fault = "" if error.status or "gre_chat_sessions_one_open" in str(error) else str(error)
        assert not fault

    def session_of(self, player_id: int) -> UUID | None:
        row = self.root.execute(
            "select id from gre_chat_sessions where player_id = %s order by created_at desc, id limit 1",
            [player_id],
        ).fetchone()
        return row["id"] if row else None

    @rule(seconds=st.sampled_from([0, 1, 59, 60, 121, 850, 3_599, 9_000, 40_000, 86_400, 200_000, 2_000_000]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds, milliseconds=7))

    @rule(player_id=PLAYER)
    def a_player_writes(self, player_id: int) -> None:
        self.attempt(lambda: self.rest[f"p{player_id}"].call("gre_send_message", message="x"))

    @rule(player_id=PLAYER, who=STAFF)
    def staff_reply(self, player_id: int, who: str) -> None:
        self.attempt(lambda: self.rest[who].call("gre_staff_reply", player_id=player_id, message="y"))

    @rule(player_id=PLAYER, who=STAFF, seconds=st.integers(1, 5_000))
    def a_question_is_answered(self, player_id: int, who: str, seconds: int) -> None:
        self.a_player_writes(player_id)
        self.clock.advance(timedelta(seconds=seconds))
        self.staff_reply(player_id, who)

    @rule(
        turns=st.lists(
            st.tuples(PLAYER, st.sampled_from(["player", "staff", "system"])), min_size=1, max_size=9
        )
    )
    def a_back_end_inserts_many(self, turns: list[tuple[int, str]]) -> None:
        """One statement with messages of several sessions, in any order."""
        rows = [
            {"player_id": who, "sender": sender, "sender_id": "s2" if sender == "staff" else None}
            for who, sender in turns
        ]
        self.attempt(
            lambda: self.rest["service"].sql(
                "insert into gre_chat_messages (player_id, sender, sender_id, message)"
                " select r.player_id, r.sender, r.sender_id, 'z' from jsonb_to_recordset(%s::jsonb)"
                " r (player_id bigint, sender text, sender_id text)",
                json.dumps(rows),
            )
        )

    @rule(player_id=PLAYER, who=st.sampled_from(["s1", "service", "idle"]))
    def the_session_is_closed(self, player_id: int, who: str) -> None:
        session = self.session_of(player_id)
        if who == "idle":
            self.root.execute(
                "update gre_chat_sessions set status = 'closed', closed_by = 'idle' where id = %s and status <> 'closed'",
                [session],
            )
        else:
            self.attempt(
                lambda: self.rest[who].call("gre_set_session_status", session_id=session, status="closed")
            )

    @rule(player_id=PLAYER, who=STAFF)
    def the_session_is_reopened(self, player_id: int, who: str) -> None:
        session = self.session_of(player_id)
        self.attempt(
            lambda: self.rest[who].call("gre_set_session_status", session_id=session, status="active")
        )

    @rule(player_id=PLAYER, who=STAFF)
    def somebody_takes_it(self, player_id: int, who: str) -> None:
        self.attempt(lambda: self.rest[who].call("gre_take_session", session_id=self.session_of(player_id)))

    @rule(player_id=PLAYER, who=STAFF, to=st.sampled_from(["s1", "s2", "a1", None]))
    def it_is_transferred(self, player_id: int, who: str, to: str | None) -> None:
        session = self.session_of(player_id)
        self.attempt(lambda: self.rest[who].call("gre_transfer_session", session_id=session, to_staff=to))

    @rule(
        player_id=PLAYER, to=st.sampled_from(["s1", "s2", None]), status=st.sampled_from(["active", "closed"])
    )
    def assignment_and_state_change_together(self, player_id: int, to: str | None, status: str) -> None:
        self.attempt(
            lambda: self.rest["service"].sql(
                "update gre_chat_sessions set assigned_staff_id = %s, status = %s where id = %s",
                to, status, self.session_of(player_id),
            )
        )  # fmt: skip

    @rule(player_id=PLAYER, score=st.integers(1, 5))
    def a_player_rates(self, player_id: int, score: int) -> None:
        session = self.session_of(player_id)
        self.attempt(
            lambda: self.rest[f"p{player_id}"].call("gre_rate_session", session_id=session, score=score)
        )

    @rule(player_id=PLAYER)
    def a_player_is_erased(self, player_id: int) -> None:
        self.keep_what_goes(
            lambda: self.attempt(lambda: self.rest["a1"].call("gre_erase_player", player_id=player_id))
        )

    @rule()
    def old_sessions_are_pruned(self) -> None:
        self.root.execute("update gre_relay_deliveries set state = 'done', settled_at = now()")
        self.keep_what_goes(
            lambda: self.attempt(
                lambda: self.rest["service"].sql("select gre_relay_prune('1 hour', '1 day')")
            )
        )

    def keep_what_goes(self, delete: Callable[[], None]) -> None:
        """Delete sessions, and keep their rows as they were before, for the second implementation."""
        before, sessions = self.export(), self.sessions()
        delete()
        if gone := sessions - self.sessions():
            for entry in before.assignments:
                if entry["session_id"] in gone and entry["ended_at"] is None:
                    entry["ended_at"] = self.clock.at  # the deletion ends it
            self.gone.append((gone, before))

    def sessions(self) -> set[str]:
        return {str(row["id"]) for row in self.root.execute("select id from gre_chat_sessions").fetchall()}

    def export(self) -> Export:
        """Read every row through gre_export, page by page."""
        found: dict[str, list[dict[str, Any]]] = {}
        for what in ("sessions", "messages", "events", "ratings", "assignments"):
            rows: list[dict[str, Any]] = []
            cursor: str | None = None
            while True:
                page = self.rest["a1"].call(
                    "gre_export", what=what, **{"from": BEGIN, "to": self.end}, cursor=cursor, limit=7
                )
                rows += page["rows"]
                if (cursor := page["next"]) is None:
                    break
            for entry in rows:
                entry |= {key: datetime.fromisoformat(entry[key]) for key in TIMES if entry.get(key)}
            found[what] = rows
        players = {entry["session_id"]: entry["player_key"] for entry in found.pop("sessions")}
        return Export(players=players, **found)

    @property
    def end(self) -> datetime:
        return self.clock.at + timedelta(days=1)

    def facts(self, basis: str | None) -> list[Fact]:
        """Count what is there, and what was there when it was deleted."""
        found = [
            fact for fact in figures.facts(self.export(), RULES, basis) if fact.session in self.sessions()
        ]
        for gone, before in self.gone:
            found += [fact for fact in figures.facts(before, RULES, basis) if fact.session in gone]
        return found

    @rule(
        zone=st.sampled_from(ZONES),
        by=st.sampled_from(["none", "day", "week", "month", "staff"]),
        basis=st.sampled_from([None, "asked", "answered", "closed"]),
        in_hours=st.booleans(),
        cut=st.integers(0, 7_000),
    )
    def the_figures_agree(self, zone: str, by: str, basis: str | None, in_hours: bool, cut: int) -> None:
        begin, end = BEGIN + timedelta(minutes=cut), self.end
        if begin >= end:
            return
        asked = {"from": begin, "to": end, "timezone": zone, "by": by, "basis": basis, "in_hours": in_hours}
        answer = self.rest["s1"].call("gre_report", **asked)
        expected = figures.report(self.facts(basis), begin, end, zone_of(zone), by, in_hours=in_hours)
        rows = [
            {key: value for key, value in row.items() if key not in (("key", "start", "end") if by != "staff" else ())}
            for row in answer["rows"]
        ]  # fmt: skip
        starts = [row.pop("start") for row in expected["rows"] if "start" in row]
        for row in expected["rows"]:
            row.pop("end", None)
        if by not in ("none", "staff"):
            assert [datetime.fromisoformat(row["start"]) for row in answer["rows"]] == starts
        assert _plain(answer["total"]) == _plain(expected["total"])
        if by != "none":
            assert [_plain(row) for row in rows] == [_plain(row) for row in expected["rows"]]

    @rule()
    def a_worker_packs(self) -> None:
        while self.rest["service"].call("gre_report_pack_v1", days=366)["more"]:
            pass

    @rule()
    def the_check_finds_nothing(self) -> None:
        page = self.rest["a1"].call("gre_report_check", **{"from": BEGIN, "to": self.end})
        assert page["differences"] == []


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without its place, with numbers that compare."""
    kept = {key: value for key, value in row.items() if key not in ("start", "end")}
    return json.loads(json.dumps(kept), parse_int=float, parse_float=float)  # type: ignore[no-any-return]


def test_reports_agree_with_a_second_implementation(db: Database) -> None:
    assert instant(date(2025, 3, 30), time(2, 30), "Europe/Berlin") == datetime(
        2025, 3, 30, 1, 30, tzinfo=UTC
    )
    _open_hours(db)
    with db.connect() as conn:
        conn.execute(PEOPLE)
        conn.execute(SETTINGS)
    with db.connect("supabase_admin") as root:
        root.execute("update gre.settings set whole_from = %s", [BEGIN - timedelta(days=1)])
    Conversations.db, Conversations.clock = db, OwnClock(db, BEGIN)
    try:
        run_state_machine_as_test(
            Conversations,
            settings=settings(
                max_examples=30,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Conversations.clock.close()
