"""The desk with a history that tests and the benchmark fill by SQL is one that triggers could have left, and the part measures it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.bench.growth import CALLS, measured
from tests.bench.growth_sides import Side
from tests.conftest import Database
from tests.support import desk
from tests.support.access import ADMIN, SERVICE, Rest
from tests.support.grown import PER_SESSION, Size, fill
from tests.support.report_year import pack
from tests.support.story import check_stories

SIZE = Size(2_000 // PER_SESSION, open=60, aged=150)
COUNTERS = """
select s.id from gre_chat_sessions s join lateral (
  select count(*) as n, max(m.created_at) as at, count(*) filter (where m.sender = 'player' and m.seq > s.staff_read_seq) as by_player,
    count(*) filter (where m.sender <> 'player' and m.seq > s.player_read_seq) as by_staff,
    count(*) filter (where (m.status = 'read') <> (m.seq <= case m.sender when 'player' then s.staff_read_seq else s.player_read_seq end)) as marks
  from gre_chat_messages m where m.session_id = s.id) m on true
where (s.last_seq, s.last_message_at, s.unread_by_staff, s.unread_by_player, 0) is distinct from (m.n, m.at, m.by_player, m.by_staff, m.marks)
"""


@pytest.fixture(scope="module")
def sides(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[tuple[Database, Database]]:
    found = []
    for name, size in (("growth_empty", Size(0, SIZE.open, SIZE.aged)), ("growth_full", SIZE)):
        pg.create_database(name, migrated_template)
        database = Database(pg, name)
        with database.connect("supabase_admin") as admin, Rest(database, SERVICE) as worker:
            fill(admin, size)
            pack(database, worker)
        found.append(database)
    yield found[0], found[1]
    for database in found:
        pg.drop_database(database.name)


def test_what_is_filled_is_what_triggers_would_have_left(sides: tuple[Database, Database]) -> None:
    for database in sides:
        with database.connect() as conn, Rest(database, ADMIN) as rest:
            assert conn.execute(COUNTERS).fetchall() == []
            desk.check(conn)
            check_stories(conn)
            rest.conn.execute("set statement_timeout = 0")
            given = {"from": "2001-01-01", "to": "2999-01-01", "limit": 50}
            checked, page = 0, rest.call("gre_report_check", **given)
            while True:
                assert (page["incomplete"], page["differences"]) == (0, [])
                checked += page["checked"]
                if not page["next"]:
                    break
                page = rest.call("gre_report_check", **given, cursor=page["next"])
            assert checked >= SIZE.open + SIZE.aged + 1


def test_growth_measures_both_sides(sides: tuple[Database, Database]) -> None:
    both = (Side(sides[0], Size(0, SIZE.open, SIZE.aged)), Side(sides[1], SIZE))
    try:
        found, message, left = measured(both, lambda _: None, rounds=2)
    finally:
        for side in both:
            side.close()
    assert [row[0] for row in found.rows] == list(CALLS)
    scanned = {row[0]: row[-1] for row in found.rows if row[-1] != "none"}
    assert scanned == {}
    assert [row[0] for row in message.rows][:2] == ["player", "staff"]
    tables = {row[0] for row in left.rows}
    assert {"gre_chat_messages", "gre_chat_sessions", "gre_relay_deliveries", "gre_relay_lanes"} <= tables
