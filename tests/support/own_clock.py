"""A database whose clock a test sets: years pass in a test, with every trigger as it is."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.conftest import Database


class OwnClock:
    """Replaces `clock_timestamp()` of a database, whose PL/pgSQL functions find it by name in each new session.

    Column defaults and `now()` keep PostgreSQL's clock: use it where triggers set the times.
    """

    def __init__(self, db: Database, at: datetime) -> None:
        self._conn = db.connect("supabase_admin")
        self.at = at
        self._conn.execute("set allow_system_table_mods = on")
        self._conn.execute("create table public.test_clock (at timestamptz not null)")
        self._conn.execute("insert into public.test_clock values (%s)", [at])
        self._conn.execute("alter function pg_catalog.clock_timestamp() rename to real_clock_timestamp")
        self._conn.execute(
            "create function pg_catalog.clock_timestamp() returns timestamptz language plpgsql volatile parallel safe"
            " security definer set search_path = ''"
            " as $$ begin return (select c.at from public.test_clock c); end $$"
        )

    def close(self) -> None:
        self._conn.close()

    def set(self, at: datetime) -> None:
        self.at = at
        self._conn.execute("update public.test_clock set at = %s", [at])

    def advance(self, by: timedelta) -> None:
        self.set(self.at + by)
