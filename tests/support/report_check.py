"""The check of figures, over all sessions of a database."""

from __future__ import annotations

from typing import Any

import psycopg


def check_figures(conn: psycopg.Connection[dict[str, Any]]) -> int:
    """Check that figures are those that messages and events give, and packed hours those of the figures.

    Returns the number of sessions compared.
    """
    checked, cursor = 0, None
    while True:
        row = conn.execute(
            "select public.gre_report_check('-infinity', 'infinity', %s, 1000) as r", [cursor]
        ).fetchone()
        assert row is not None
        found = row["r"]
        assert found["differences"] == [], f"figures differ: {found['differences'][:5]}"
        checked += found["checked"]
        cursor = found["next"]
        if cursor is None:
            return checked


def has_figures(conn: psycopg.Connection[dict[str, Any]]) -> bool:
    """Return False if there is nothing to compare: not all migrations, or neither sessions nor packed hours."""
    if conn.execute("select to_regprocedure('gre.report_begin(timestamptz)') as f").fetchone() == {"f": None}:
        return False
    found = conn.execute(
        "select exists (select from public.gre_chat_sessions) or exists (select from gre.report_hours) as some"
    ).fetchone()
    assert found is not None
    return bool(found["some"])
