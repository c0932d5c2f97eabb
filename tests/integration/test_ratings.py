"""Ratings: a player rates a closed session of its own, once for each cycle."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import PLAYER, STAFF, Database
from tests.integration.test_figures import close, one, reopen, rows, turn
from tests.support.report_check import check_figures
from tests.support.story import check_stories

Conn = psycopg.Connection[dict[str, Any]]
OTHER = {"role": "authenticated", "app_metadata": {"gre_role": "player", "player_id": 30}}


def prepare(conn: Conn, *senders: str) -> str:
    """Write these messages in a session of player 29, and close it, assigned to s1; return its id."""
    conn.execute("update gre_chat_settings set rating_enabled = true")
    turn(conn, *senders, player=29)
    conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
    close(conn, "staff", 29)
    return str(one(conn, "select id from gre_chat_sessions")["id"])


def rate(conn: Conn, session: str, score: int | None, comment: str | None = None) -> dict[str, Any]:
    """Call gre_rate_session."""
    return dict(
        one(conn, "select gre_rate_session(%s, %s, %s) as r", session, score, comment)["r"]["session"]
    )


def refusal(conn: Conn, session: str, score: int | None, comment: str | None = None) -> str | None:
    """Return the code with which a rating is refused."""
    with pytest.raises(psycopg.Error) as refused:
        rate(conn, session, score, comment)
    return refused.value.diag.message_hint


def test_a_player_rates_a_closed_session_once_for_each_cycle(db: Database) -> None:
    with db.connect() as conn, db.as_caller(PLAYER) as player:
        session = prepare(conn, "player", "staff")
        before = one(conn, "select rev, rating from gre_chat_sessions")
        assert before["rating"] is None
        given = rate(player, session, 4, "Quick.")
        assert (given["rating"], given["rev"]) == (4, before["rev"] + 1)
        assert rate(player, session, 4, "Quick.") == given
        assert refusal(player, session, 5, "Quick.") == "already_rated"
        assert refusal(player, session, 4) == "already_rated"
        conn.execute("update gre_chat_settings set rating_enabled = false")
        assert rate(player, session, 4, "Quick.") == given
        conn.execute("update gre_chat_settings set rating_enabled = true")
        row = one(conn, "select * from gre_chat_ratings")
        assert (row["cycle"], row["score"], row["comment"], row["staff_id"]) == (1, 4, "Quick.", "s1")
        (event,) = [e for e in check_stories(conn) if e["kind"] == "rated"]
        assert (event["rev"], event["data"], event["after_seq"]) == (given["rev"], {"score": 4}, 2)
        assert event["at"] == row["rated_at"]
        reopen(conn, 29)
        assert "rating" not in one(conn, "select gre.session_json(s) as r from gre_chat_sessions s")["r"]
        assert refusal(player, session, 4) == "session_open"
        close(conn, "staff", 29)
        assert rate(player, session, 1, " \u200b")["rating"] == 1
        found = rows(conn, "select cycle, score, comment from gre_chat_ratings order by cycle")
        assert [tuple(row.values()) for row in found] == [(1, 4, "Quick."), (2, 1, None)]
        check_figures(conn)


def test_only_its_player_rates_a_session_and_only_with_a_valid_score(db: Database) -> None:
    with db.connect() as conn, db.as_caller(PLAYER) as player:
        session = prepare(conn, "player", "staff")
        with db.as_caller(OTHER) as other, db.as_caller(STAFF) as staff:
            assert refusal(other, session, 5) == "session_unknown"
            assert refusal(staff, session, 5) == "player_only"
        assert refusal(conn, session, 5) == "act_as_required"
        assert {refusal(player, session, score) for score in (None, 0, 6, -1)} == {"score_invalid"}
        assert refusal(player, session, 5, "x" * 1001) == "comment_too_long"
        conn.execute("update gre_chat_settings set rating_enabled = false")
        assert refusal(player, session, 5) == "rating_off"
        conn.execute("update gre_chat_settings set rating_enabled = true")
        assert rows(conn, "select from gre_chat_ratings") == []
        assert rate(player, session, 5, "x" * 1000)["rating"] == 5


def test_a_portal_cannot_write_a_rating(db: Database) -> None:
    with db.connect() as conn:
        prepare(conn, "player", "staff")
        with db.as_caller({"role": "service_role"}) as service:
            service.execute("update gre_chat_sessions set rating = 5")
            service.execute("insert into gre_chat_sessions (player_id, rating) values (30, 5)")
        assert rows(conn, "select from gre_chat_sessions where rating is not null") == []


@pytest.mark.parametrize(
    ("senders", "asked"), [(["player", "staff"], True), (["player"], False), (["staff"], False), ([], False)]
)
def test_a_rating_is_asked_for_after_a_conversation_while_ratings_are_on(
    db: Database, senders: list[str], asked: bool
) -> None:
    with db.connect() as conn:
        if not senders:
            conn.execute("insert into gre_chat_sessions (player_id) values (29)")
        prepare(conn, *senders)
        assert one(conn, "select rating_asked from gre_chat_cycles")["rating_asked"] is asked
        conn.execute("update gre_chat_settings set rating_enabled = false")
        reopen(conn, 29)
        turn(conn, "player", "staff", player=29)
        close(conn, "staff", 29)
        assert one(conn, "select rating_asked from gre_chat_cycles where cycle = 2")["rating_asked"] is False


def test_the_person_of_a_rating_is_the_one_at_the_closing(db: Database) -> None:
    with db.connect() as conn, db.as_caller(PLAYER) as player:
        session = prepare(conn, "player", "staff")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's2'")
        rate(player, session, 3)
        assert one(conn, "select staff_id from gre_chat_ratings")["staff_id"] == "s1"
