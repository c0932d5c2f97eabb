"""Names and texts of many scripts are kept, and deceptive characters are removed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Database, own_database
from tests.support.access import ADMIN, SERVICE, RefusalError, Rest, player, staff

KEPT = [
    "\u0d85\u0db1\u0dd4\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala, with a joiner
    "\u0d05\u0d28\u0d3f\u0d32\u0d4d\u200d",  # Malayalam, which ends with one
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
    "The \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 Smiths",
    "\u2764\ufe0f Lena",
    "\u2068\u05d3\u05d5\u05d3\u2069 (table 4)",  # an isolate that is closed
    "\u2066a \u2067b\u2069\u2069",
    "O'Brien-\u0141ukasz, Jr.",
    "\u845b\U000e0100\u57ce",  # a variant of a character
]  # fmt: skip
CHANGED = {
    "Sam\u202egnitset": "Samgnitset",
    "\u202aSam\u202c": "Sam",
    "Sam\u0000\u0007\n\r\t\u0085".replace("\u0000", ""): "Sam",
    "Sam\u2067 closed by nobody": "Sam closed by nobody",
    "\u2069Sam\u2066": "Sam",
    "\u2066a\u2069\u2069": "a",
    "Sa\u200bm\ufeff\u2060": "Sam",
    "Sam\U000e0041\U000e007f": "Sam",
    "\u00a0 Sam \u3000": "Sam",
    "\u3164Sam\u2800": "Sam",
    "line\u2028two": "linetwo",
    "x" * 79 + "\u2067yz\u2069": "x" * 79,
    "x" * 5000: "x" * 80,
}
BLANK = [
    "", " ", "\u00a0", "\u200b", "\u200d", "\u200c\u200d", "\u3164", "\u2800", "\u115f", "\u1160", "\u00ad", "\u034f", "\u180e", "\uffa0",
    "\U000e0041\U000e0042", "\u2066\u2069", "\ufe0f", "\U000e0100", "\u2062", "\u202e", "\u061c\u200e\u200f", " \t\n\u2003\u205f\u3000\ufeff",
]  # fmt: skip


def clean(db: Database, name: str) -> Any:
    with db.connect() as conn:
        row = conn.execute("select gre.clean_name(%s) as n", [name]).fetchone()
    assert row is not None
    return row["n"]


@pytest.fixture(scope="module")
def names(pg: Any, migrated_template: str) -> Any:
    with own_database(pg, migrated_template, "names") as database:
        yield database


@pytest.mark.parametrize("name", KEPT)
def test_a_name_is_kept_as_it_is_written(names: Database, name: str) -> None:
    assert clean(names, name) == name


@pytest.mark.parametrize(("name", "left"), CHANGED.items())
def test_deceptive_characters_are_removed(names: Database, name: str, left: str) -> None:
    assert clean(names, name) == left


@pytest.mark.parametrize("name", BLANK)
def test_a_name_without_visible_characters_is_null(names: Database, name: str) -> None:
    assert clean(names, name) is None


@pytest.mark.parametrize("text", BLANK)
def test_a_message_without_visible_characters_is_empty(db: Database, text: str) -> None:
    with Rest(db, player(29)) as a:
        with pytest.raises(RefusalError, match="message_empty"):
            a.sql(
                "insert into gre_chat_messages (player_id, sender, message) values (29, 'player', %s)", text
            )
        a.sql(
            "insert into gre_chat_messages (player_id, sender, message) values (29, 'player', %s)",
            text + "!\u200d",
        )


def names_of(db: Database) -> tuple[list[Any], list[Any]]:
    with db.connect() as conn:
        sessions = conn.execute("select player_name from gre_chat_sessions order by player_id").fetchall()
        messages = conn.execute(
            "select sender_name, player_name from gre_chat_messages order by player_id, seq"
        ).fetchall()
    return [r["player_name"] for r in sessions], [tuple(r.values()) for r in messages]


HOUSE = ["Guest relations", "guest  relations", "GUEST-RELATIONS", "G\u200cuest relations", "\uff27uest relations", "Gu\u0435st relations",
         "System", "s y s t e m", "Staff", "Admin", "System\u3164"]  # fmt: skip


@pytest.mark.parametrize("name", HOUSE)
def test_a_player_cannot_have_the_name_of_the_house(db: Database, name: str) -> None:
    with Rest(db, player(29)) as a, Rest(db, player(30)) as b, Rest(db, player(31)) as c:
        a.sql("insert into gre_chat_sessions (player_id, player_name) values (29, %s)", name)
        a.sql(
            "insert into gre_chat_messages (player_id, sender, sender_name, message) values (29, 'player', %s, 'x')",
            name,
        )
        b.sql(
            "insert into gre_chat_messages (player_id, sender, sender_name, player_name, message) values (30, 'player', %s, %s, 'x')",
            name,
            name,
        )
        c.call("gre_send_message", message="x", player_name=name, sender_name=name)
    sessions, messages = names_of(db)
    assert sessions == ["Player 29", "Player 30", "Player 31"]
    assert messages == [(n, n) for n in sessions]


def test_a_player_with_the_name_of_staff_is_marked_as_a_player(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(
            "insert into gre_staff (staff_id, display_name, active) values ('s1', 'Sam Miller', true), ('s2', 'Sue', false)"
        )
    with Rest(db, player(29)) as a, Rest(db, player(30)) as b:
        a.call("gre_send_message", message="x", sender_name="S\u0430m  miller")
        b.call("gre_send_message", message="x", sender_name="Sue")
    assert names_of(db)[0] == ["S\u0430m  miller (player 29)", "Sue"]


def test_a_players_name_is_that_of_the_profile_whoever_opens_the_session(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(
            "insert into gre_chat_players (player_id, display_name) values (29, 'Asha'), (30, 'Ben'), (31, 'Cleo')"
        )
    with Rest(db, player(29)) as a, Rest(db, staff()) as s, Rest(db, SERVICE) as back:
        a.sql("insert into gre_chat_sessions (player_id, player_name) values (29, 'Guest relations')")
        s.sql("insert into gre_chat_sessions (player_id, player_name) values (30, 'Somebody')")
        back.sql("insert into gre_chat_sessions (player_id, player_name) values (31, 'Somebody')")
        a.sql(
            "insert into gre_chat_messages (player_id, sender, sender_name, message) values (29, 'player', 'System', 'x')"
        )
    assert names_of(db) == (["Asha", "Ben", "Cleo"], [("Asha", "Asha")])


def test_a_player_keeps_the_name_with_which_the_session_was_opened(db: Database) -> None:
    with Rest(db, player(29)) as a, Rest(db, player(30)) as b:
        for name in (None, "Asha", "System", "Sam"):
            a.sql(
                "insert into gre_chat_messages (player_id, sender, sender_name, message) values (29, 'player', %s, 'x')",
                name,
            )
        for name in ("Ben", "Guest relations"):
            b.sql(
                "insert into gre_chat_messages (player_id, sender, sender_name, message) values (30, 'player', %s, 'x')",
                name,
            )
    sessions, messages = names_of(db)
    assert sessions == ["Asha", "Ben"]
    assert [m[0] for m in messages] == ["Player 29", "Asha", "Asha", "Asha", "Ben", "Ben"]


def test_staff_without_a_name_do_not_get_the_name_of_a_colleague(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("insert into gre_staff (staff_id, display_name) values ('s1', null), ('a1', 'Ann')")
    insert = "insert into gre_chat_messages (player_id, sender, sender_name, message) values (29, 'staff', %s, 'x')"
    with Rest(db, staff()) as s, Rest(db, ADMIN) as a:
        s.sql(insert, "ann")
        s.sql(insert, "Sam")
        a.sql(insert, "Sam")
        s.sql("insert into gre_online_status (staff_id, display_name, status) values ('s1', 'Ann', 'online')")
        assert s.sql("select display_name from gre_online_status") == [{"display_name": None}]
    assert [m[0] for m in names_of(db)[1]] == ["Guest relations", "Sam", "Ann"]
