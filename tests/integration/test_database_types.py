"""client/src/database.ts, the `Database` type of supabase-js, is that of the migrated schema. `make types` writes it."""

from __future__ import annotations

import re

from gre_bridge.devstack.client_types import DATABASE
from gre_bridge.devstack.client_types.database import database
from tests.conftest import Database

REQUIRED = {
    "gre_chat_messages": {"sender", "message"},
    "gre_chat_players": {"player_id"},
    "gre_chat_sessions": {"player_id"},
    "gre_online_status": {"staff_id"},
    "gre_staff": {"staff_id"},
    "push_notifications": set(),
}
"""What an insert has to give, by docs/portals.md. Nobody inserts into the other tables."""


def test_the_types_are_those_of_the_schema(db: Database) -> None:
    assert DATABASE.read_text(encoding="utf-8") == database(db.dsn()), "`make types` writes it"


def test_an_insert_must_give_what_the_database_needs_and_no_more() -> None:
    text = DATABASE.read_text(encoding="utf-8")
    inserts = re.findall(
        r"^      (\w+): \{\n        Row: .*?        Insert: (never|\{.*?\n        \})",
        text,
        re.MULTILINE | re.DOTALL,
    )
    assert len(inserts) == len(re.findall(r"^        Row: ", text, re.MULTILINE)) > len(REQUIRED)
    found = {
        table: set(re.findall(r"^ +(\w+): ", insert, re.MULTILINE))
        for table, insert in inserts
        if insert != "never"
    }
    assert found == REQUIRED
