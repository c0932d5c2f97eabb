"""Filling large tables for tests of plans: rows first, indexes afterwards, which takes half the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


@contextmanager
def without_indexes(admin: psycopg.Connection[dict[str, Any]], *tables: str) -> Iterator[None]:
    """Take the indexes of these tables away but for those of constraints, and make the same ones again at the end."""
    found = admin.execute(
        "select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as definition from pg_index"
        " where indrelid = any (%s::regclass[]) and not exists (select from pg_constraint c where c.conindid = indexrelid)",
        [list(tables)],
    ).fetchall()
    assert found
    for index in found:
        admin.execute(f"drop index {index['name']}")
    yield
    for index in found:
        admin.execute(index["definition"])
