"""Blocks of players: with a reason for staff, an author, and an end that needs nobody to act."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from tests.conftest import Database
from tests.support.access import SERVICE, Conn, RefusalError, Rest, player, request, staff
from tests.support.desk import people, waiting
from tests.support.story import check_stories, iso
from tests.support.waiting import wait_until

HOUR = timedelta(hours=1)
WAITS: LiteralString = "select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
ENDED = "update gre_chat_players set blocked_until = now() - interval '1 second' where player_id = 29"


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        people(found, 2)
        yield found


@pytest.fixture
def desk(db: Database, conn: Conn) -> Iterator[Rest]:
    with Rest(db, staff("s1")) as rest:
        yield rest


def kinds(conn: Conn, player_id: int) -> list[str]:
    """Return the kinds of the events of a player's sessions."""
    rows = conn.execute(
        "select e.kind from gre_chat_events e join gre_chat_sessions s on s.id = e.session_id"
        " where s.player_id = %s order by s.created_at, e.rev",
        [player_id],
    )
    return [row["kind"] for row in rows]


def refusal(rest: Rest, **arguments: Any) -> RefusalError:
    with pytest.raises(RefusalError) as refused:
        rest.call("gre_send_message", message="x", **arguments)
    assert (refused.value.status, refused.value.code) == (403, "chat_disabled")
    return refused.value


def sends(rest: Rest) -> bool:
    """Try to send over a function and into the table; both must do the same."""
    found = set()
    for statement in (
        "select gre_send_message('x')",
        "insert into gre_chat_messages (sender, message) values ('player', 'x')",
    ):
        try:
            with request(rest.conn, rest.caller, keep=False) as conn:
                conn.execute(statement.encode())
            found.add("stored")
        except RefusalError as error:
            found.add(error.code)
    assert found in ({"stored"}, {"chat_disabled"})
    return found == {"stored"}


def test_staff_see_why_by_whom_and_until_when_and_the_player_sees_until_when(
    db: Database, desk: Rest, conn: Conn
) -> None:
    until = datetime.now(UTC) + HOUR
    state = desk.call("gre_block_player", player_id=29, until=until, reason="  Insulted a dealer ")
    at = state["block"].pop("at")
    assert state == {
        "player_id": 29,
        "display_name": None,
        "enabled": False,
        "block": {"until": iso(until), "reason": "Insulted a dealer", "by": "s1"},
    }
    found = desk.call("gre_get_player", player_id=29)
    assert found == {**state, "block": {**state["block"], "at": at}}
    with Rest(db, player(29)) as phone:
        assert json.loads(refusal(phone).detail) == {"until": iso(until)}
        assert phone.call("gre_whoami")["chat_enabled"] is False
        (own,) = phone.sql("select * from gre_chat_players")
        assert own["blocked_until"] == until
        assert phone.sql("select * from gre_chat_blocks") == []
        assert "dealer" not in str(own)
        with pytest.raises(RefusalError, match="only staff"):
            phone.call("gre_get_player", player_id=29)
    assert desk.sql("select reason from gre_chat_blocks") == [{"reason": "Insulted a dealer"}]


def test_a_block_ends_by_itself(db: Database, desk: Rest, conn: Conn) -> None:
    desk.call("gre_block_player", player_id=29, until=datetime.now(UTC) + HOUR, reason="r")
    with Rest(db, player(29)) as phone, Rest(db, SERVICE) as hub:

        def disabled() -> Any:
            found = hub.call("gre_hub_presence_v1", staff=["s1"], players=[29], expires_in=10)
            return found["disabled"]

        assert not sends(phone)
        assert disabled() == [29]
        with pytest.raises(RefusalError, match="disabled"):
            phone.sql("insert into gre_chat_sessions default values")
        conn.execute(ENDED)
        assert sends(phone)
        assert disabled() == []
        assert phone.call("gre_whoami")["chat_enabled"] is True
        assert desk.call("gre_get_player", player_id=29) == {
            "player_id": 29, "display_name": None, "enabled": True,
        }  # fmt: skip
        phone.sql("insert into gre_chat_sessions default values")
        assert desk.call("gre_enable_all_players") == 0, "it was enabled"
        desk.call("gre_block_player", player_id=29)
        assert not sends(phone)
        assert refusal(phone).detail == ""
        assert desk.call("gre_enable_all_players") == 1
        assert sends(phone)
    assert conn.execute("select * from gre_chat_blocks").fetchall() == []


def test_the_switch_of_older_portals_and_the_block_are_one_state(
    db: Database, desk: Rest, conn: Conn
) -> None:
    until = datetime.now(UTC) + HOUR
    with Rest(db, player(29)) as phone, Rest(db, staff("s2")) as other:
        desk.call("gre_block_player", player_id=29, until=until, reason="r")
        other.call("gre_enable_player", player_id=29, enabled=False)
        block = desk.call("gre_get_player", player_id=29)["block"]
        assert (block["until"], block["reason"], block["by"]) == (None, "r", "s2"), "without an end now"
        other.call("gre_enable_player", player_id=29, enabled=True)
        assert sends(phone)
        assert "block" not in desk.call("gre_get_player", player_id=29)
        other.call("gre_enable_player", player_id=29, enabled=False)
        off = {"player_id": 29, "display_name": None, "enabled": False}
        assert desk.call("gre_get_player", player_id=29) == off, "what older portals know"
        assert desk.call("gre_unblock_player", player_id=29)["enabled"] is True
        assert desk.call("gre_unblock_player", player_id=29)["enabled"] is True, "safe to repeat"
        conn.execute("update gre_chat_players set chat_enabled = false")  # as a back end does
        assert not sends(phone)
        assert desk.call("gre_get_player", player_id=29) == off


def test_a_block_is_an_event_of_the_open_session(desk: Rest, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    until = datetime.now(UTC) + HOUR
    for _ in range(2):
        desk.call("gre_block_player", player_id=29, until=until, reason="r")
    desk.call("gre_block_player", player_id=30, reason="has no session")
    desk.call("gre_staff_reply", message="x", session_id=session)
    desk.call("gre_unblock_player", player_id=29)
    desk.call("gre_unblock_player", player_id=29)
    found = desk.call("gre_session_events", session_id=session)["events"]
    assert [(e["kind"], e["after_seq"], e["by_staff_id"], e["data"]) for e in found] == [
        ("opened", 0, None, {}),
        ("blocked", 1, "s1", {"until": iso(until)}),
        ("unblocked", 2, "s1", {}),
    ]
    row = conn.execute("select rev from gre_chat_sessions").fetchone()
    assert row is not None
    assert row["rev"] == found[-1]["rev"]
    check_stories(conn)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"until": datetime(2001, 1, 1, tzinfo=UTC)}, "until_invalid"),
        ({"until": "infinity"}, "until_invalid"),
        ({"reason": "x" * 501}, "reason_too_long"),
        ({"player_id": 0}, "player_invalid"),
    ],
)
def test_a_block_that_cannot_be_is_refused_and_changes_nothing(
    desk: Rest, conn: Conn, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(RefusalError) as refused:
        desk.call("gre_block_player", **{"player_id": 29, **arguments})
    assert (refused.value.status, refused.value.code) == (400, code)
    assert conn.execute("select * from gre_chat_players").fetchall() == []


def test_the_switch_of_older_portals_keeps_no_reason_of_a_block_that_has_ended(
    desk: Rest, conn: Conn
) -> None:
    desk.call("gre_block_player", player_id=29, until=datetime.now(UTC) + HOUR, reason="of last year")
    conn.execute(ENDED)
    desk.call("gre_enable_player", player_id=29, enabled=False)
    assert desk.call("gre_get_player", player_id=29) == {
        "player_id": 29, "display_name": None, "enabled": False,
    }  # fmt: skip


def test_enabling_all_players_is_an_event_of_their_open_sessions(desk: Rest, conn: Conn) -> None:
    session, _ = waiting(conn, 29, 30)
    for number in (29, 31):  # 30 is not blocked, and 31 has no session
        desk.call("gre_block_player", player_id=number, reason="r")
    assert desk.call("gre_enable_all_players") == 2
    events = conn.execute(
        "select session_id, by_staff_id from gre_chat_events where kind = 'unblocked'"
    ).fetchall()
    assert events == [{"session_id": session, "by_staff_id": "s1"}]
    assert conn.execute("select * from gre_chat_blocks").fetchall() == []
    assert desk.call("gre_enable_all_players") == 0
    check_stories(conn)


def test_a_message_that_waits_for_its_session_is_refused_by_a_block(db: Database, conn: Conn) -> None:
    """No message of the player comes after event `blocked`, not even one that was sent before it."""
    waiting(conn, 29)
    with Rest(db, player(29)) as phone, ThreadPoolExecutor(1) as pool:
        with db.connect(autocommit=False) as portal:
            portal.execute("select gre_block_player(29)")
            sending = pool.submit(phone.call, "gre_send_message", message="x")
            wait_until(lambda: conn.execute(WAITS).fetchone() == {"n": 1}, every=0.002)
        with pytest.raises(RefusalError) as refused:
            sending.result()
    assert (refused.value.status, refused.value.code) == (403, "chat_disabled")
    assert conn.execute("select count(*) as n from gre_chat_messages").fetchone() == {"n": 1}


def test_a_block_that_commits_while_all_are_enabled_ends_with_an_event(
    db: Database, desk: Rest, conn: Conn
) -> None:
    waiting(conn, 29, 30)
    desk.call("gre_block_player", player_id=29)
    with Rest(db, staff("s2")) as other, ThreadPoolExecutor(1) as pool:
        with db.connect(autocommit=False) as portal:
            portal.execute("select from gre_chat_sessions where player_id = 29 for update")
            enabling = pool.submit(other.call, "gre_enable_all_players")
            wait_until(lambda: conn.execute(WAITS).fetchone() == {"n": 1}, every=0.002)
            desk.call("gre_block_player", player_id=30, reason="r")
        assert enabling.result() == 2
    assert kinds(conn, 30) == ["opened", "blocked", "unblocked"]
    assert conn.execute("select * from gre_chat_blocks").fetchall() == []
    check_stories(conn)


def test_enabling_all_players_forgets_the_blocks_that_have_ended(desk: Rest, conn: Conn) -> None:
    desk.call("gre_block_player", player_id=29, until=datetime.now(UTC) + HOUR, reason="r")
    conn.execute(ENDED.encode())
    assert desk.call("gre_enable_all_players") == 0, "it had ended"
    conn.execute("update gre_chat_players set chat_enabled = false")  # as a back end does
    assert "block" not in desk.call("gre_get_player", player_id=29)


def test_players_are_enabled_and_blocked_at_once_without_a_deadlock(db: Database, conn: Conn) -> None:
    waiting(conn, 29, 30, 31)

    def work(number: int) -> None:
        with Rest(db, staff(f"s{1 + number % 2}")) as rest:
            for n in range(40):
                if number < 2:
                    rest.call("gre_enable_all_players")
                else:
                    rest.call("gre_block_player", player_id=(29, 30, 31)[(n + number) % 3])

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    check_stories(conn)


def test_blocks_erasures_and_messages_at_once_do_not_deadlock(db: Database, conn: Conn) -> None:
    def work(number: int) -> set[str]:
        codes = set()
        caller = (staff("s1"), SERVICE, player(29), staff("s2"))[number % 4]
        with Rest(db, caller) as rest:
            for n in range(60):
                match number % 4:
                    case 0:
                        rest.call("gre_block_player" if n % 2 else "gre_unblock_player", player_id=29)
                    case 1:
                        rest.call("gre_erase_player", player_id=29)
                    case 3:
                        rest.call("gre_enable_all_players")
                    case _:
                        try:
                            rest.call("gre_send_message", message="x")
                        except RefusalError as error:
                            codes.add(error.code)
        return codes

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(work, range(8))) <= {"chat_disabled", "too_fast"}
    check_stories(conn)


def test_an_erased_player_stays_blocked_without_the_reason(db: Database, desk: Rest, conn: Conn) -> None:
    waiting(conn, 29)
    until = datetime.now(UTC) + HOUR
    desk.call("gre_block_player", player_id=29, until=until, reason="Insulted a dealer")
    with Rest(db, SERVICE) as backend:
        backend.call("gre_erase_player", player_id=29)
    block = desk.call("gre_get_player", player_id=29)["block"]
    assert (block["until"], block["reason"], block["by"]) == (iso(until), None, None)
    for table in ("gre_chat_blocks", "gre_chat_events", "gre_chat_players"):
        rows = conn.execute(f"select * from {table}".encode()).fetchall()
        assert "dealer" not in str(rows)
    with Rest(db, player(29)) as phone:
        assert not sends(phone)
