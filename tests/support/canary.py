"""A word that each note of the suite contains, and the search for it in all that players and services were sent.

A test writes a note's text with `note`. Fixtures look for the word: in the other tables of each database that is dropped,
in what the sinks of the embedded stack received, and in each answer and frame that a test's player gets.
"""

from __future__ import annotations

import json
from typing import Any, LiteralString

import psycopg
from psycopg import sql

CANARY = "kakapo"
STAFF_CHANNELS = {"private-staff-portal", "presence-staff-portal", "private-desk"}


def note(text: str = "Has asked twice.") -> str:
    """Return the text of a note."""
    return f"{text} {CANARY}"


def check_tables(conn: psycopg.Connection[Any]) -> bool:
    """Check that each note contains the word, and no other table. Returns False if there are no notes."""

    def found(query: LiteralString, *names: str) -> bool:
        composed = sql.SQL(query).format(*map(sql.Identifier, names))
        return conn.execute(composed, {"word": f"%{CANARY}%"}).fetchone() is not None

    if not found("select from pg_tables where schemaname = 'public' and tablename = 'gre_chat_notes'"):
        return False
    if not found("select from public.gre_chat_notes limit 1"):
        return False
    wrong = found("select from public.gre_chat_notes where text not like %(word)s")
    assert not wrong, "a note without the word: use tests.support.canary.note"
    rows = conn.execute(
        "select schemaname, tablename from pg_tables where schemaname in ('public', 'gre', 'realtime')"
    )
    for row in rows.fetchall():
        schema, table = row.values() if isinstance(row, dict) else row
        if table != "gre_chat_notes":
            leaked = found("select from {}.{} x where x::text like %(word)s", schema, table)
            assert not leaked, f"{table} contains a note"
    return True


def check_sinks(received: dict[str, list[dict[str, Any]]]) -> None:
    """Check that OneSignal, players' and public channels received no note, and staff's none but in its own event."""
    for item in received["onesignal"]:
        assert CANARY not in json.dumps(item), "OneSignal was sent a note"
    for item in received["pusher"]:
        if CANARY in json.dumps(item):
            sent = (item["name"], item["channel"])
            assert sent[0] == "session-note" and sent[1] in STAFF_CHANNELS, f"a note in {sent}"


def check_reader(role: str, text: str) -> None:
    """Check what a person was sent over REST or a socket."""
    assert role in ("staff", "admin", "service") or CANARY not in text, f"a note was sent to {role}"
