"""Filling large tables for tests of plans: rows first, indexes afterwards, which takes a third of the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.support.counters import count_now

_CONSTRAINTS = """
select conrelid::regclass::text as of, quote_ident(conname) as name, pg_get_constraintdef(oid) as definition
from pg_constraint where %s::regclass[] && array[conrelid::regclass, confrelid::regclass] and contype in ('f', 'p', 'u')
order by contype <> 'f' -- foreign keys need the others
"""
_INDEXES = """
select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as definition from pg_index
where indrelid = any (%s::regclass[]) and not exists (select from pg_constraint c where c.conindid = indexrelid)
"""


@contextmanager
def without_indexes(admin: psycopg.Connection[dict[str, Any]], *tables: str) -> Iterator[None]:
    """Drop the indexes and keys of these tables, and create the same ones at the end."""
    constraints = admin.execute(_CONSTRAINTS, [list(tables)]).fetchall()
    indexes = admin.execute(_INDEXES, [list(tables)]).fetchall()
    assert indexes
    for one in constraints:
        admin.execute(f"alter table {one['of']} drop constraint {one['name']}")
    for one in indexes:
        admin.execute(f"drop index {one['name']}")
    yield
    admin.execute("set maintenance_work_mem = '256MB'")
    for one in reversed(constraints):
        admin.execute(f"alter table {one['of']} add constraint {one['name']} {one['definition']}")
    for one in indexes:
        admin.execute(one["definition"])
    count_now(admin)
