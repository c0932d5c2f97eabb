"""PostgreSQL's counters of what is read and written."""

from __future__ import annotations

from typing import Any

import psycopg


def count_now(conn: psycopg.Connection[dict[str, Any]]) -> None:
    """Add what this connection has read and written to PostgreSQL's counters, at once.

    Otherwise the server does so some time after the connection has ended, perhaps while the next one is measured.
    """
    conn.execute("select pg_stat_force_next_flush()")
