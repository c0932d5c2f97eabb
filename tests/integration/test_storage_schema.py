"""Schema storage of the embedded stack, as a hosted project's role postgres and its users meet it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from tests.conftest import PLAYER, SERVICE, Database

OBJECT = "insert into storage.objects (bucket_id, name) values ('b', %s)"


@pytest.fixture
def db(supabase_db: Database) -> Database:
    with supabase_db.connect() as conn:
        conn.execute("insert into storage.buckets (id, name) values ('b', 'b')")
    return supabase_db


def test_the_migrating_role_writes_policies_and_triggers_and_nothing_else(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(
            "create policy own on storage.objects for insert to authenticated with check"
            " (bucket_id = 'b' and (storage.foldername(name))[1] = auth.jwt()->'app_metadata'->>'player_id'"
            " and storage.allow_only_operation('object.upload'))"
        )
        conn.execute("alter policy own on storage.objects rename to mine")
        conn.execute(
            "create function public.shout() returns trigger language plpgsql as"
            " $$ begin raise exception 'no' using errcode = '42501'; end $$"
        )
        conn.execute(
            "create trigger t before update on storage.objects for each row execute function shout()"
        )
        conn.execute("create table public.refers (id uuid references storage.objects (id))")
        for refused in (
            "alter table storage.objects add column x int",
            "alter table storage.objects disable row level security",
            "create table storage.mine (id int)",
            "create or replace function storage.filename(name text) returns text language sql as 'select name'",
            "comment on policy mine on storage.objects is 'x'",
            "create index on storage.objects (owner_id)",
        ):
            with pytest.raises(pg.InsufficientPrivilege, match="must be owner of"):
                conn.execute(refused)
        conn.execute("drop policy mine on storage.objects")
        conn.execute("drop trigger t on storage.objects")


def test_only_policies_stand_between_a_user_and_the_rows(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(
            "create policy own on storage.objects for insert to authenticated"
            " with check ((storage.foldername(name))[1] = auth.jwt()->'app_metadata'->>'player_id')"
        )
    with db.as_caller(PLAYER) as conn:
        conn.execute(OBJECT, ["29/a.png"])
        assert conn.execute("select count(*) as n from storage.objects").fetchone() == {"n": 0}
        with pytest.raises(pg.InsufficientPrivilege, match="row-level security"):
            conn.execute(OBJECT, ["30/a.png"])
    with db.as_caller(SERVICE) as conn:
        rows = conn.execute("select path_tokens, is_versioned, user_metadata from storage.objects").fetchall()
    assert rows == [{"path_tokens": ["29", "a.png"], "is_versioned": False, "user_metadata": None}]


@pytest.mark.parametrize("user", ["postgres", "supabase_admin", "supabase_storage_admin"])
@pytest.mark.parametrize("table", ["objects", "buckets"])
def test_sql_deletes_nothing_unless_the_setting_allows_it(db: Database, user: str, table: str) -> None:
    with db.connect(user) as conn:
        with pytest.raises(pg.InsufficientPrivilege, match="Direct deletion from storage tables") as refused:
            conn.execute(f"delete from storage.{table} where false")
        assert refused.value.diag.message_hint == "This prevents accidental data loss from orphaned objects."
        with conn.transaction():
            conn.execute("set local storage.allow_delete_query = 'true'")
            conn.execute(f"delete from storage.{table}")
        assert conn.execute(f"select count(*) as n from storage.{table}").fetchone() == {"n": 0}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("storage.foldername('29/x/a.png')", ["29", "x"]),
        ("storage.foldername('a.png')", []),
        ("storage.foldername('/x')", [""]),
        ("storage.filename('29/x/a.b.png')", "a.b.png"),
        ("storage.extension('29/x.y/a.b.png')", "png"),
        ("storage.operation()", "storage.object.upload"),
        ("storage.allow_only_operation('object.upload')", True),
        ("storage.allow_only_operation('storage.object.upload')", True),
        ("storage.allow_only_operation('object.sign_upload_url')", False),
        ("storage.allow_only_operation(null)", False),
        ("storage.allow_any_operation(array['object.list', 'object.upload'])", True),
    ],
)
def test_functions_that_policies_call(db: Database, expression: str, value: Any) -> None:
    with db.as_caller(PLAYER) as conn, conn.transaction():
        conn.execute("set local storage.operation = 'storage.object.upload'")
        assert conn.execute(f"select {expression} as v").fetchone() == {"v": value}


def test_it_may_be_installed_again_and_keeps_what_is_there(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(OBJECT, ["29/a.png"])
        conn.execute("create policy mine on storage.objects for select to anon using (true)")
    db.pg.install_supabase(db.name)
    with psycopg.connect(db.dsn("supabase_storage_admin")) as conn:
        assert conn.execute("select count(*) from objects").fetchone() == (1,)
        assert conn.execute("select count(*) from pg_policies where schemaname = 'storage'").fetchone() == (
            1,
        )
