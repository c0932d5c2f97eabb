"""Two databases to compare: one without a history, and one with it; their connections, and what those read."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import MIGRATIONS, Database
from tests.support.access import SERVICE, Caller, Conn, Rest, as_jsonb, request
from tests.support.cpu import server_cpu
from tests.support.grown import PLAYERS, Size, fill
from tests.support.report_year import pack

Say = Callable[[str], None]


class Side:
    """One of the two databases: connections of the pool's role and of the operator."""

    def __init__(self, db: Database, size: Size) -> None:
        self.db, self.size = db, size
        self.pool: Conn = db.connect("authenticator")
        self.admin: Conn = db.connect()
        self.watch: Conn = db.connect("supabase_admin")
        self.cpu = 0.0
        self.turn = 0
        rows = self.admin.execute(
            "select id::text, player_id, last_seq from gre_chat_sessions where status <> 'closed' order by player_id"
        ).fetchall()
        self.sessions: list[str] = [row["id"] for row in rows]
        deep = self.admin.execute(
            "select id from gre_chat_sessions where player_id = %s", [PLAYERS["deep"] + 1]
        ).fetchone()
        assert deep is not None
        self.deep: uuid.UUID = deep["id"]
        self.claimed: list[dict[str, Any]] = []
        self.worker = str(uuid.uuid4())
        self.erased = 0
        self.since = datetime.now(UTC)

    def close(self) -> None:
        """Close the connections."""
        for conn in (self.pool, self.admin, self.watch):
            conn.close()

    def next(self) -> int:
        """Return the number of another open session's player."""
        self.turn += 1
        return 1 + self.turn % self.size.open

    def time(self, caller: Caller, query: str, values: Any = ()) -> tuple[float, Any]:
        """Run one statement as a request; return its milliseconds, with the commit, and the first column of the first row.

        `cpu` is then the CPU time of the server for it, in milliseconds.
        """
        with request(self.pool, caller) as conn:
            cpu, began = server_cpu(self.pool), time.perf_counter()
            row = conn.execute(query.encode(), values).fetchone()
        took = (time.perf_counter() - began) * 1000
        self.cpu = (server_cpu(self.pool) - cpu) * 1000
        return took, next(iter(row.values())) if row else None

    def call(self, caller: Caller, function: str, **arguments: Any) -> tuple[float, Any]:
        """Do the same with a function of the API."""
        named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
        values = {name: as_jsonb(value) for name, value in arguments.items()}
        return self.time(caller, f"select public.{function}({named}) as r", values)

    def reads(self) -> dict[str, tuple[int, int, int]]:
        """Return for each table the rows of sequential scans so far, the rows found by indexes, and the blocks of both."""
        for conn in (self.pool, self.admin):
            conn.execute("select pg_stat_force_next_flush()")
            conn.execute("select 1")
        self.watch.execute("select pg_stat_clear_snapshot()")
        rows = self.watch.execute(
            "select relname, t.seq_tup_read as scanned, coalesce(t.idx_tup_fetch, 0) as found, coalesce(b.heap_blks_hit, 0)"
            " + coalesce(b.heap_blks_read, 0) + coalesce(b.idx_blks_hit, 0) + coalesce(b.idx_blks_read, 0) as blocks"
            " from pg_stat_user_tables t join pg_statio_user_tables b using (relid, relname)"
        ).fetchall()
        return {row["relname"]: (int(row["scanned"]), int(row["found"]), int(row["blocks"])) for row in rows}


@contextmanager
def databases(size: Size, say: Say) -> Iterator[tuple[Side, Side]]:
    """Yield a database without a history, and one with it, in one cluster; both are removed at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="gre-bench-") as directory,
        EmbeddedPostgres(data_dir=Path(directory), durable=False) as pg,
    ):
        pg.install_supabase()
        with pg.connect() as conn:  # a vacuum that starts by itself would be measured with the call beside it
            conn.execute("alter system set autovacuum = off")
            conn.execute("select pg_reload_conf()")
        sides = []
        try:
            for name, one in (("empty", Size(0, size.open, size.aged)), ("full", size)):
                say(f"growth: a database with {one.messages:,} messages behind it")
                pg.create_database(name)
                pg.install_supabase(name)
                database = Database(pg, name)
                with psycopg.connect(database.dsn(), autocommit=True) as conn:
                    for path in MIGRATIONS:
                        with conn.transaction():
                            conn.execute(path.read_bytes(), prepare=False)
                with database.connect("supabase_admin") as admin, Rest(database, SERVICE) as worker:
                    fill(admin, one)
                    worker.conn.execute("set statement_timeout = 0")
                    pack(database, worker)
                sides.append(Side(database, one))
            yield sides[0], sides[1]
        finally:
            for side in sides:
                side.close()
