"""Plans of the operator's functions with a hundred thousand settled rows: none reads more than it needs.

Their statements run inside functions, so the tests read PostgreSQL's counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import Database
from tests.integration.filling import without_indexes
from tests.integration.test_outbox import Conn, all_done, claim, one, send, settle
from tests.integration.test_plans import FILL
from tests.integration.test_plans import TABLES as ALL
from tests.support.access import SERVICE, Rest
from tests.support.counters import count_now
from tests.support.waiting import quickest

MESSAGES = 60_000
TABLES = ("gre_relay_deliveries", "gre_chat_messages", "gre_chat_sessions")


@pytest.fixture(scope="module")
def full(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[Database]:
    """A database with 60,000 messages for two sinks, settled a day ago, 160 dead and 300 pending ones."""
    pg.create_database("operator", migrated_template)
    database = Database(pg, "operator")
    with database.connect("supabase_admin") as admin:
        fill = FILL.replace("99999", str(MESSAGES - 1)).replace("5001", "3001")
        with without_indexes(admin, *ALL):
            admin.execute(fill.encode(), prepare=False)
        admin.execute("set session_replication_role = replica")
        admin.execute("update gre_relay_deliveries set settled_at = now() - interval '1 day', created_at = now() - interval '1 day'")  # fmt: skip
        admin.execute(
            "update gre_relay_deliveries set state = 'dead', last_error = '413' where ord % 750 = 0"
        )
        admin.execute("update gre_relay_sinks set reconcile_from = now() - interval '1 year'")
        count_now(admin)
        admin.execute("vacuum analyze")
    with database.connect() as conn:
        for player in range(10, 1510, 10):
            send(conn, player, "waits")
        count_now(conn)
    yield database
    pg.drop_database("operator")


@pytest.fixture
def ops(full: Database) -> Iterator[Rest]:
    with Rest(full, SERVICE) as rest:
        yield rest


def reads(conn: Conn, tables: tuple[str, ...] = TABLES) -> dict[str, int]:
    """Return the rows and index entries of each table that have been read."""
    conn.execute("select pg_stat_force_next_flush()")
    conn.execute("select pg_stat_clear_snapshot()")
    rows = conn.execute(
        "select t.relname, t.seq_tup_read + (select sum(i.idx_tup_read) from pg_stat_user_indexes i where i.relid = t.relid) as n"
        " from pg_stat_user_tables t where t.relname = any(%s)",
        [list(tables)],
    )
    return {row["relname"]: int(row["n"]) for row in rows}


def cost(full: Database, work: Callable[[], object], tables: tuple[str, ...] = TABLES) -> dict[str, int]:
    """Return how many rows and index entries of each table the work reads."""
    with full.connect("supabase_admin") as conn:
        before = reads(conn, tables)
        work()
        after = reads(conn, tables)
    return {name: after[name] - before[name] for name in after}


def flushed(ops: Rest, work: Callable[[], object]) -> None:
    """Do it on the operator's connection, and flush its counters."""
    work()
    count_now(ops.conn)


@pytest.mark.parametrize(
    ("function", "arguments", "deliveries", "messages"),
    [
        ("gre_relay_status", {}, 5_000, 0),
        ("gre_operations", {}, 5_000, 0),
        ("gre_dead_letters", {}, 1_000, 0),
        ("gre_dead_letters", {"sink": "pusher", "cursor": "4102444800000000_ffffffff-ffff-ffff-ffff-ffffffffffff"}, 1_000, 0),
        ("gre_relay_dead", {}, 1_000, 0),
        ("gre_relay_dead", {"sink": "pusher", "error": "413", "older_than": "1 hour"}, 1_000, 0),
        ("gre_relay_replay", {"since": "2001-01-01", "dry_run": True}, 3_000, 5_000),
        ("gre_relay_replay", {"session": "00000000-0000-0000-0000-000000000000", "dry_run": True}, 10, 10),
        ("gre_relay_reconcile", {}, 8_000, 10_000),
        ("gre_relay_reconcile", {"dry_run": True, "after": "978307200000000_00000000-0000-0000-0000-000000000000"}, 8_000, 10_000),
        ("gre_relay_expire", {"before": "2001-01-01"}, 1_000, 0),
        ("gre_relay_expire", {"before": "2001-01-01", "dry_run": True}, 1_000, 0),
        ("gre_relay_prune", {"keep": "2 days"}, 2_000, 0),
    ],
)  # fmt: skip
def test_a_page_reads_about_as_much_as_it_returns(
    full: Database, ops: Rest, function: str, arguments: dict[str, Any], deliveries: int, messages: int
) -> None:
    """The call is repeated seven times: after five PL/pgSQL may use a generic plan."""
    for nth in range(7):
        found = cost(full, lambda: flushed(ops, lambda: ops.call(function, **arguments)))
        assert found["gre_relay_deliveries"] <= deliveries, (nth, found)
        assert found["gre_chat_messages"] <= messages, (nth, found)


def test_a_page_of_dead_letters_is_retried_by_their_ids(full: Database, ops: Rest) -> None:
    ids = [letter["id"] for letter in ops.call("gre_relay_dead", limit=100)]
    found = cost(full, lambda: flushed(ops, lambda: ops.sql("select gre_relay_retry(%s::uuid[])", ids)))
    assert found["gre_relay_deliveries"] < 5_000, found
    with full.connect() as conn:
        for sink in ("pusher", "onesignal"):
            while (got := claim(conn, sink, lanes=1000))["lanes"]:
                settle(conn, *all_done(got), sink=sink)
        assert one(conn, "select count(*) from gre_relay_deliveries where state = 'pending'") == 0
        count_now(conn)


def test_a_page_of_prune_reads_what_it_deletes(full: Database, ops: Rest) -> None:
    page: dict[str, int] = {}
    found = cost(full, lambda: flushed(ops, lambda: page.update(ops.call("gre_relay_prune", keep="1 hour", limit=1000))))  # fmt: skip
    assert page["deliveries"] == 1000
    assert found["gre_relay_deliveries"] < 20_000, found
    found = cost(full, lambda: flushed(ops, lambda: page.update(ops.call("gre_relay_prune", keep="30 days", retention="30 days", limit=1000))))  # fmt: skip
    assert found["gre_chat_sessions"] < 10_000, found


def _receipts(full: Database, count: int) -> None:
    """Add receipts of pushes, newer than any time before which is pruned below."""
    with full.connect("supabase_admin") as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute(
            "insert into push_notifications (delivery_id, audience, recipients, title, body, status, created_at)"
            " select gen_random_uuid(), 'staff', '{s1}', 'x', 'y', 'sent', now() from generate_series(1, %s)",
            [count],
        )
        admin.execute("vacuum analyze push_notifications")


def test_a_page_of_prune_reads_neither_the_receipts_nor_the_lanes_that_stay(
    full: Database, ops: Rest
) -> None:
    """Lanes are looked at in the last page only."""
    _receipts(full, 20_000)
    tables = (*TABLES, "gre_relay_lanes", "push_notifications")
    page: dict[str, int] = {}

    def prune() -> None:
        page.update(ops.call("gre_relay_prune", keep="2 hours", limit=500))

    for _ in range(7):
        found = cost(full, lambda: flushed(ops, prune), tables)
        assert (page["deliveries"], page["lanes"]) == (500, 0)
        assert found["push_notifications"] < 10, found
        assert found["gre_relay_lanes"] == 0, found
        assert found["gre_chat_sessions"] == 0, found


def test_an_erasure_reads_what_belongs_to_the_player(full: Database) -> None:
    """And all pushes, once: they can name a player in their data and recipients."""
    _receipts(full, 1)
    tables = (*TABLES, "gre_relay_lanes")
    with Rest(full, SERVICE) as rest:
        for player in range(20, 27):
            found = cost(
                full,
                lambda n=player: flushed(rest, lambda: rest.call("gre_erase_player", player_id=n)),
                tables,
            )
            assert 0 < found["gre_relay_deliveries"] < 1_000, found
            assert 0 < found["gre_chat_messages"] < 500, found
            assert found["gre_relay_lanes"] < 100, found


def test_each_page_is_short(full: Database, ops: Rest) -> None:
    """A worker may wait for a lane meanwhile; the bound allows for a busy machine."""
    with full.connect("supabase_admin") as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute(
            "update gre_relay_deliveries set state = 'pending', settled_at = null where ord % 3 = 0"
        )
        admin.execute("update gre_relay_lanes set ready_at = now()")
    for function, arguments in (
        ("gre_relay_expire", {"before": "2999-01-01"}),
        ("gre_relay_status", {}),
        ("gre_relay_prune", {"keep": "1 hour"}),
        ("gre_relay_reconcile", {}),
    ):
        page = partial(ops.call, function, **arguments)
        assert quickest(page, 4.0, tries=3) < 4.0, function
