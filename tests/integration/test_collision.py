"""Replies with the last seq that their writer has seen: the database refuses one that a colleague's reply precedes."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import Database
from tests.support.access import SERVICE, Conn, RefusalError, Rest, player, staff
from tests.support.desk import people, waiting

RACES = 200


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        people(found, 2)
        yield found


def seqs(conn: Conn, session: UUID) -> list[tuple[int, str]]:
    rows = conn.execute(
        "select seq, sender_id from gre_chat_messages where session_id = %s order by seq", [session]
    )
    return [(row["seq"], row["sender_id"]) for row in rows.fetchall()]


def reply(rest: Rest, session: UUID, after_seq: int | None, **more: Any) -> Any:
    return rest.call("gre_staff_reply", message="x", session_id=session, after_seq=after_seq, **more)


def refused(rest: Rest, session: UUID, after_seq: int, **more: Any) -> dict[str, Any]:
    """Reply, expect 409 session_moved, and return its details."""
    with pytest.raises(RefusalError) as found:
        reply(rest, session, after_seq, **more)
    assert (found.value.status, found.value.code) == (409, "session_moved")
    details: dict[str, Any] = json.loads(found.value.detail)
    return details


def test_a_reply_is_refused_if_another_person_has_written_since(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    with Rest(db, staff("s1")) as one, Rest(db, staff("s2")) as two:
        reply(one, session, 1)
        reply(one, session, 1)  # its own reply does not count
        waiting(conn, 29)  # nor a message of the player
        assert refused(two, session, 1) == {"by": "s1", "seq": 3}
        assert refused(two, session, 2) == {"by": "s1", "seq": 3}
        reply(two, session, 3)
        reply(two, session, None)
        assert refused(one, session, 3) == {"by": "s2", "seq": 6}
    assert seqs(conn, session) == [(1, "29"), (2, "s1"), (3, "s1"), (4, "29"), (5, "s2"), (6, "s2")]
    assert conn.execute("select last_seq from gre_chat_sessions").fetchall() == [{"last_seq": 6}]
    assert conn.execute("select count(*) as n from gre_relay_deliveries where event = 'message'").fetchone() == {"n": 12}  # fmt: skip


def test_a_reply_that_is_stored_can_be_repeated_whatever_was_written_since(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    key = uuid.uuid4()
    with Rest(db, staff("s1")) as one, Rest(db, staff("s2")) as two:
        assert not reply(one, session, 1, id=key)["duplicate"]
        reply(two, session, 2)
        again = reply(one, session, 1, id=key)
        assert again["duplicate"]
        assert again["message"]["seq"] == 2
        assert refused(one, session, 1) == {"by": "s2", "seq": 3}


def test_messages_without_a_person_and_of_a_back_end(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    with Rest(db, SERVICE) as backend, Rest(db, staff("s1")) as one:
        for sender in ("system", "player"):
            backend.call("gre_send_message", message="x", session_id=session, sender=sender, after_seq=0)
        reply(one, session, 1)
        assert refused(backend, session, 3) == {"by": "s1", "seq": 4}
        backend.call("gre_send_message", message="x", session_id=session, sender="staff", after_seq=4)
        assert refused(one, session, 4) == {"by": None, "seq": 5}, "a person whom the back end does not name"
    with Rest(db, player(29)) as phone:
        assert phone.call("gre_send_message", message="x", after_seq=0)["message"]["seq"] == 6


def test_a_seq_is_one_of_a_session(db: Database, conn: Conn) -> None:
    waiting(conn, 29)
    with Rest(db, staff("s1")) as one:
        for function, arguments in (
            ("gre_staff_reply", {"message": "x", "player_id": 29, "after_seq": 1}),
            ("gre_send_messages", {"messages": [{"message": "x", "player_id": 29, "after_seq": 1}]}),
        ):
            with pytest.raises(RefusalError) as found:
                one.call(function, **arguments)
            assert (found.value.status, found.value.code) == (400, "session_missing")
    assert len(conn.execute("select from gre_chat_messages").fetchall()) == 1


def test_a_bulk_is_stored_whole_or_not_at_all(db: Database, conn: Conn) -> None:
    first, second = waiting(conn, 29, 30)

    def bulk(rest: Rest, *after: tuple[UUID, int | None]) -> Any:
        messages = [{"message": "x", "session_id": str(key), "after_seq": seq} for key, seq in after]
        return rest.call("gre_send_messages", messages=messages)

    with Rest(db, staff("s1")) as one, Rest(db, staff("s2")) as two:
        reply(two, second, 1)
        with pytest.raises(RefusalError) as found:
            bulk(one, (first, 1), (second, 1))
        assert (found.value.code, json.loads(found.value.detail)) == (
            "session_moved",
            {"by": "s2", "seq": 2},
        )
        assert len(seqs(conn, first)) == 1
        assert len(bulk(one, (first, 1), (first, 1), (second, None))) == 3
        assert [seq for seq, _ in seqs(conn, first)] == [1, 2, 3]


def test_of_two_who_reply_at_once_exactly_one_is_stored(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    won = Counter[str]()

    def race(rest: Rest, after_seq: int, together: threading.Barrier) -> str:
        together.wait(60)
        try:
            return str(reply(rest, session, after_seq)["message"]["seq"])
        except RefusalError as error:
            return f"{error.code} {json.loads(error.detail)['by']} {json.loads(error.detail)['seq']}"

    with Rest(db, staff("s1")) as one, Rest(db, staff("s2")) as two, ThreadPoolExecutor(2) as pool:
        for seq in range(1, RACES + 1):
            together = threading.Barrier(2)
            tries = {rest: pool.submit(race, rest, seq, together) for rest in (one, two)}
            found = {rest: done.result(60) for rest, done in tries.items()}
            (winner,) = [rest for rest, result in found.items() if result == str(seq + 1)]
            name = winner.caller.claims["app_metadata"]["staff_id"]
            assert sorted(found.values()) == [str(seq + 1), f"session_moved {name} {seq + 1}"]
            won[name] += 1
    assert [seq for seq, _ in seqs(conn, session)] == list(range(1, RACES + 2))
    assert won.total() == RACES
    assert len(won) == 2, won
