"""`gre-bridge doctor` with SUPABASE_DB_URL: it names each missing object of the schema, and each right that is too wide."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from gre_bridge.config.settings import Settings
from gre_bridge.db.catalog import expected_catalog, read_catalog
from gre_bridge.db.postgres import connected
from gre_bridge.devstack.stack import Stack
from gre_bridge.doctor import examine
from gre_bridge.doctor.probes.database import probe_database
from gre_bridge.doctor.report import Finding
from gre_bridge.errors import ConfigurationError
from gre_bridge.migrations.files import shipped
from gre_bridge.migrations.plan import plan
from gre_bridge.migrations.runner import migrate, record, status
from tests.conftest import Database
from tests.integration.test_adoption import adopt, lay_out, layout
from tests.support.waiting import until

NAMES = {
    "triggers",
    "schema objects",
    "policies",
    "privileges",
    "open functions",
    "realtime.send",
    "row-level security",
}


def findings(db: Database) -> dict[str, Finding]:
    """Return the findings about the schema: of each check the worst ones."""
    settings = Settings(
        _env_file=None, SUPABASE_URL="http://127.0.0.1:1", SUPABASE_SERVICE_KEY="x", SUPABASE_DB_URL=db.dsn()
    )  # type: ignore[call-arg]
    worst = ["ok", "skipped", "warn", "fail"]
    found: dict[str, Finding] = {}
    for one in sorted(probe_database(settings), key=lambda one: worst.index(one.status)):
        before = found.get(one.check)
        same = before is not None and before.status == one.status
        found[one.check] = (
            replace(one, found=f"{before.found}; {one.found}", fix=f"{before.fix}; {one.fix}")
            if before is not None and same
            else one
        )
    return found


def execute(db: Database, sql: str, user: str = "supabase_admin") -> None:
    with db.connect(user) as conn:
        conn.execute(sql.encode())


def bad(db: Database) -> dict[str, Finding]:
    """Return the findings about the schema that are not ok."""
    return {
        name: one for name, one in findings(db).items() if name in NAMES and one.status in ("warn", "fail")
    }


def test_the_expected_catalog_is_the_one_that_the_migrations_make(supabase_db: Database) -> None:
    migrate(supabase_db.dsn())
    with connected(supabase_db.dsn(), application="test") as conn:
        found = read_catalog(conn)
    assert found == expected_catalog(), "run `make expected`"


def test_new_and_adopted_projects_have_the_expected_catalog(supabase_db: Database, db: Database) -> None:
    assert bad(db) == {}
    lay_out(supabase_db, layout("older"))
    adopt(supabase_db)
    assert bad(supabase_db) == {}


WITHDRAWN = (
    "do $$ declare f regprocedure; begin for f in select oid from pg_proc where proname like 'gre_relay%' loop"
    " execute format('revoke execute on function %s from service_role, public', f); end loop; end $$"
)
DEFINER = (
    "create function get_messages(p bigint) returns setof gre_chat_messages language sql security definer set search_path = ''"
    " as 'select * from public.gre_chat_messages where player_id = p'"
)


@pytest.mark.parametrize(
    ("broken", "check", "found", "fix"),
    [
        ("drop trigger gre_7_enqueue on gre_chat_messages", "triggers",
         "gre_7_enqueue on gre_chat_messages", "gre-bridge reconcile"),
        ("create policy everybody on gre_chat_messages for all to anon, authenticated using (true); grant select on gre_chat_messages to anon", "policies",
         "everybody on gre_chat_messages: permissive for all to anon, authenticated using (true)", 'drop policy "everybody" on public.gre_chat_messages'),
        ("drop policy gre_messages_read on gre_chat_messages", "policies", "gre_messages_read on gre_chat_messages", "sql/migrations"),
        ("alter policy gre_messages_read on gre_chat_messages using (true)", "policies",
         "gre_messages_read on gre_chat_messages: permissive for select to authenticated using (true)", "drop policy"),
        ("grant all privileges on all functions in schema public to anon", "privileges", "anon may execute public.gre_", "revoke execute on function public.gre_"),
        ("grant all on all tables in schema public to anon, authenticated", "privileges", "anon may delete gre_auto_replies", "revoke delete on public.gre_auto_replies"),
        ("grant select on gre_relay_deliveries to public", "privileges", "anon may select gre_relay_deliveries",
         "revoke select on public.gre_relay_deliveries from public, anon"),
        ("grant update (message) on gre_chat_messages to authenticated", "privileges", "authenticated may update (message) of gre_chat_messages",
         "revoke update (message) on public.gre_chat_messages from public, authenticated"),
        (WITHDRAWN, "privileges",
         "service_role may execute public.gre_relay_", "public.gre_relay_claim_v1("),
        ("drop function gre_relay_expire", "schema objects", "function public.gre_relay_expire(", "sql/migrations"),
        ("alter table gre_chat_sessions drop column waiting_since", "schema objects", "column gre_chat_sessions.waiting_since", "sql/migrations"),
        ("create or replace function gre.is_staff() returns boolean language sql stable set search_path = '' as 'select true'",
         "schema objects", "differ from those of this release: gre.is_staff()", "compare with sql/migrations"),
        (DEFINER, "open functions", "get_messages(bigint) may be executed by anon and authenticated",
         "revoke execute on function get_messages(bigint) from public, anon, authenticated"),
        ("revoke execute on function realtime.send from public, postgres, supabase_realtime_admin", "realtime.send", "role postgres, the owner of gre-bridge's functions, may not call it",
         "grant execute on function realtime.send to postgres"),
    ],
    ids=["trigger dropped", "open policy", "policy dropped", "policy changed", "functions to anon", "tables to anon", "table to public", "column",
         "claim withdrawn", "function dropped", "column dropped", "function changed", "own definer function", "send withdrawn"],
)  # fmt: skip
def test_missing_objects_and_wide_rights_are_named_with_the_fix(
    db: Database, broken: str, check: str, found: str, fix: str
) -> None:
    execute(db, broken)
    named = bad(db)
    assert check in named, named
    assert found in named[check].found and fix in named[check].fix, named[check]


@pytest.mark.parametrize(
    "broken",
    [
        "grant all privileges on all functions in schema public to anon",
        "grant all on all tables in schema public to anon, authenticated",
        WITHDRAWN,
        "create policy everybody on gre_chat_messages using (true)",
        "revoke execute on function realtime.send from public, postgres, supabase_realtime_admin",
    ],
)
def test_the_statement_of_the_fix_corrects_it(db: Database, broken: str) -> None:
    execute(db, broken)
    for one in bad(db).values():
        execute(db, one.fix)
    assert bad(db) == {}


def test_a_projects_own_definer_functions_are_listed_before_the_migration(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"))
    execute(
        supabase_db,
        "create function get_messages(p integer) returns setof gre_chat_messages language plpgsql security definer as"
        " 'begin return query select * from public.gre_chat_messages where player_id = p; end';"
        "create function of_the_back_end() returns bigint language sql security definer as 'select count(*) from gre_chat_messages';"
        "revoke execute on function of_the_back_end() from public, anon, authenticated",
        "postgres",
    )
    listed = [line for line in plan(supabase_db.dsn()).lines() if line.startswith("open function")]
    assert len(listed) == 1
    assert listed[0].startswith(
        "open function get_messages(integer) on gre_chat_messages: stays; reads or writes with its owner's rights for anon, authenticated"
    )


# The ledger ----------------------------------------------------------------------------------------------------------


def test_a_restored_dump_is_recorded_after_it_was_checked(db: Database) -> None:
    assert not status(db.dsn()).good and status(db.dsn()).unrecorded
    told = findings(db)["migrations"]
    assert (told.status, told.fix) == ("fail", "gre-bridge migrate --record")
    with pytest.raises(ConfigurationError, match="gre-bridge migrate --record"):
        migrate(db.dsn())
    assert record(db.dsn()) == [m.version for m in shipped()]
    assert status(db.dsn()).good and findings(db)["migrations"].status == "ok"
    assert record(db.dsn()) == [] == migrate(db.dsn())


def test_a_different_schema_is_not_recorded_and_every_difference_is_named(db: Database) -> None:
    execute(db, "drop trigger gre_7_enqueue on gre_chat_messages; drop function gre_relay_expire")
    with pytest.raises(
        ConfigurationError, match=r"nothing was recorded: .*gre_relay_expire.*gre_7_enqueue"
    ) as caught:
        record(db.dsn())
    assert "\n" not in str(caught.value)
    assert status(db.dsn()).unrecorded


def test_a_schema_with_wide_rights_is_not_recorded(db: Database) -> None:
    """As a dump of the schema leaves it, restored into a project whose default privileges give everything to anon."""
    execute(
        db,
        "grant all on gre_chat_messages to anon; create policy everybody on gre_chat_sessions using (true)",
    )
    with pytest.raises(
        ConfigurationError,
        match=r"nothing was recorded: .*additional: everybody on gre_chat_sessions.*additional: anon may delete gre_chat_messages",
    ):
        record(db.dsn())
    assert status(db.dsn()).unrecorded


def test_after_a_repair_of_the_ledger_doctor_and_migrate_give_the_same_fix(supabase_db: Database) -> None:
    migrate(supabase_db.dsn())
    # supabase migration repair --status reverted VERSION
    execute(
        supabase_db,
        f"delete from supabase_migrations.schema_migrations where version > '{shipped()[4].version}'",
    )
    assert findings(supabase_db)["migrations"].fix == "gre-bridge migrate --record"
    assert record(supabase_db.dsn()) == [m.version for m in shipped()[5:]]
    assert status(supabase_db.dsn()).good


async def test_a_stale_schema_cache_is_recognized_and_migrate_renews_it(tmp_path: Path) -> None:
    async with Stack(data_dir=tmp_path, durable=False) as stack:
        env = {**stack.env(), "SUPABASE_DB_URL": stack.postgres.dsn()}
        with psycopg.connect(stack.postgres.dsn(user="supabase_admin"), autocommit=True) as conn:
            # Its notifications are lost: those of the event triggers, and the migrations' own.
            conn.execute(
                "alter event trigger pgrst_ddl_watch disable; alter event trigger pgrst_drop_watch disable"
            )
            await asyncio.to_thread(apply_without_notification, stack.postgres.dsn())
        settings = Settings(_env_file=None, **env)  # type: ignore[arg-type]
        told = {one.check: one for one in (await examine(settings)).findings}["schema"]
        assert told.status == "fail" and "schema cache is stale" in told.found
        assert told.fix.startswith("gre-bridge migrate ")
        assert await asyncio.to_thread(migrate, stack.postgres.dsn()) == []

        async def fresh() -> bool:
            return "schema cache is stale" not in json.dumps((await examine(settings)).to_json())

        await until(fresh, every=0.1)


def apply_without_notification(dsn: str) -> None:
    """Apply all migrations without a notification to PostgREST."""
    with psycopg.connect(dsn, autocommit=True) as conn, conn.transaction():
        for m in shipped():
            conn.execute(m.sql.replace("notify pgrst, 'reload schema';", "").encode())
    record(dsn)
