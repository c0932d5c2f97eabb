"""The check of figures, over all sessions of a database."""

from __future__ import annotations

from typing import Any

import psycopg


def check_figures(conn: psycopg.Connection[dict[str, Any]]) -> int:
    """Check that the figures are those that messages and events give; return the number of sessions compared."""
    checked, cursor = 0, None
    while True:
        row = conn.execute(
            "select public.gre_report_check('-infinity', 'infinity', %s, 1000) as r", [cursor]
        ).fetchone()
        assert row is not None
        found = row["r"]
        assert found["differences"] == [], found["differences"][:5]
        checked += found["checked"]
        cursor = found["next"]
        if cursor is None:
            return checked
