"""docs/tables.md has the comments of the database's tables. `GRE_WRITE_TABLES=1` with this file's test writes it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import Database

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
TABLES = (
    "gre_chat_sessions",
    "gre_chat_messages",
    "gre_chat_attachments",
    "gre_chat_events",
    "gre_online_status",
    "gre_chat_players",
    "push_notifications",
)
HEAD = """\
# The tables that portals use

This page is generated from the comments in the database by `GRE_WRITE_TABLES=1 make test ARGS=tests/integration/test_tables_page.py`.
The tests fail while it is out of date. [portals](portals.md) describes the use of the tables, [access](access.md) the rights.

*Set by the server*: the server overwrites a value that a portal writes there, without an error. The types are those of a new project. If a project had
`push_notifications` before, the type of its id is kept; further columns of existing tables are kept, too. Times of rows have microseconds and an
offset (`2026-11-22T17:08:14.171226+00:00`): compare them as times, not as text.
"""
COLUMNS = """
  select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as needed,
    pg_get_expr(d.adbin, d.adrelid) as filled, col_description(a.attrelid, a.attnum) as said
  from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum
"""


def page(db: Database) -> str:
    """Return the page of this database; every table and column must have a comment."""
    text = HEAD
    with db.connect() as conn:
        for table in TABLES:
            about = conn.execute(
                "select obj_description(%s::regclass) as said", [f"public.{table}"]
            ).fetchone()
            assert about is not None and about["said"], table
            text += f"\n## {table}\n\n{about['said']}\n\n| column | type | null | default | |\n| --- | --- | --- | --- | --- |\n"
            for column in conn.execute(COLUMNS, [f"public.{table}"]).fetchall():
                assert column["said"], f"comment on column {table}.{column['name']}"
                filled = f"`{column['filled']}`" if column["filled"] else ""
                null = "no" if column["needed"] else "yes"
                text += f"| `{column['name']}` | {column['type']} | {null} | {filled} | {column['said']} |\n"
    return text


def test_the_page_of_the_tables_is_up_to_date(db: Database) -> None:
    found = page(db)
    if os.environ.get("GRE_WRITE_TABLES"):
        PAGE.write_text(found)
    assert PAGE.read_text() == found, "GRE_WRITE_TABLES=1 writes docs/tables.md"
