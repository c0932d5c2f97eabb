"""The SQL files: one definition of each object, the length of lines, comments, and the whole schema in one file."""

from __future__ import annotations

import re
from collections import Counter

from gre_bridge.db.sql_files import sql_file
from gre_bridge.devstack.postgres import SUPERUSER
from gre_bridge.devstack.schema_file import dump
from tests.conftest import MIGRATIONS, Database

TEXT = "\n".join(path.read_text() for path in MIGRATIONS)
KINDS = "function|table|trigger|policy|index|type|sequence|schema|role"


def test_the_schema_file_is_the_schema_of_the_migrations(db: Database) -> None:
    made = dump(bin_dir=db.pg.bin_dir, dsn=db.dsn(SUPERUSER))
    assert made == sql_file("schema.sql").read_text(encoding="utf-8"), "`make expected` writes it"


def test_each_function_table_trigger_and_policy_is_defined_once() -> None:
    statement = rf"^ *create (?:or replace )?(?:unique |unlogged |constraint )*({KINDS}) (?:if not exists )?([\w.]+)(?:[^;]*? on ([\w.]+))?"
    found = Counter(
        (kind, name, table if kind in ("trigger", "policy") else "")
        for kind, name, table in re.findall(statement, TEXT, re.MULTILINE)
    )
    assert len(found) > 200
    assert [thing for thing, times in found.items() if times > 1] == []
    assert not re.search(r"create or replace function|alter function (?!gre\.legacy_)", TEXT)


def test_lines_of_sql_have_at_most_120_columns() -> None:
    files = [
        *MIGRATIONS,
        *(path for path in sql_file("migrations").parent.glob("*.sql") if path.name != "schema.sql"),
    ]
    assert len(files) > len(MIGRATIONS)
    assert [
        (path.name, line) for path in files for line in path.read_text().splitlines() if len(line) > 120
    ] == []


def test_each_table_column_and_public_function_has_a_comment(db: Database) -> None:
    with db.connect() as conn:
        missing = conn.execute(
            "select c.oid::regclass || '.' || a.attname as x from pg_class c join pg_attribute a on a.attrelid = c.oid"
            " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0"
            " and col_description(c.oid, a.attnum) is null"
            " union all select c.oid::regclass::text from pg_class c where c.relkind = 'r'"
            " and c.relnamespace in ('public'::regnamespace, 'gre'::regnamespace) and obj_description(c.oid, 'pg_class') is null"
            " union all select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'public'::regnamespace"
            " and p.proname like 'gre%' and obj_description(p.oid, 'pg_proc') is null"
        ).fetchall()
    assert missing == []
