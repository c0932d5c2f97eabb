"""Sends over every interface: accepted messages, refusals and repeats."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.integration.test_outbox import one
from tests.support.access import ADMIN, NOBODY, SERVICE, Caller, RefusalError, Rest, player, request, staff

Json = dict[str, Any]


@pytest.fixture
def a(db: Database) -> Iterator[Rest]:
    """Player 29."""
    with Rest(db, player(29)) as rest:
        yield rest


@pytest.fixture
def b(db: Database) -> Iterator[Rest]:
    """Player 30."""
    with Rest(db, player(30)) as rest:
        yield rest


@pytest.fixture
def s(db: Database) -> Iterator[Rest]:
    """Staff member s1."""
    with Rest(db, staff()) as rest:
        yield rest


def refused(rest: Rest, function: str, **arguments: Any) -> tuple[int, str]:
    """Return status and code of the refusal; its text must fit a status line."""
    with pytest.raises(RefusalError) as caught:
        rest.call(function, **arguments)
    assert re.fullmatch(r"[\x20-\x7e]{1,120}", caught.value.message), caught.value.message
    return caught.value.status, caught.value.code


def sessions(db: Database) -> list[Json]:
    with db.connect() as conn:
        return conn.execute("select * from gre_chat_sessions order by created_at").fetchall()


def stored(db: Database) -> list[Json]:
    with db.connect() as conn:
        return conn.execute("select * from gre_chat_messages order by created_at, seq").fetchall()


def test_a_conversation_through_functions_only(db: Database, a: Rest, s: Rest) -> None:
    first = a.call("gre_send_message", message="hello <b>there</b>", player_name="Ann\u202e\n")
    assert first["duplicate"] is False
    message = first["message"]
    assert set(message) == {"id", "seq", "session_id", "player_id", "player_name", "message", "sender", "sender_name", "status", "timestamp", "created_at"}  # fmt: skip
    assert (message["seq"], message["sender"], message["player_id"], message["status"]) == (
        1,
        "player",
        29,
        "sent",
    )
    assert (message["message"], message["sender_name"], message["player_name"]) == (
        "hello <b>there</b>",
        "Ann",
        "Ann",
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", message["created_at"])

    reply = s.call("gre_staff_reply", message="hi", session_id=message["session_id"])["message"]
    assert (reply["seq"], reply["sender"], reply["session_id"]) == (2, "staff", message["session_id"])
    again = s.call("gre_send_message", message="and?", player_id=29)["message"]
    assert again["seq"] == 3
    (session,) = sessions(db)
    assert (session["last_seq"], session["unread_by_staff"], session["unread_by_player"]) == (3, 1, 2)
    assert [m["sender_id"] for m in stored(db)] == ["29", "s1", "s1"]


def test_staff_open_a_session_and_the_service_key_acts_as_all_three(db: Database, s: Rest) -> None:
    opened = s.call("gre_staff_reply", message="welcome", player_id=77)["message"]
    assert (opened["seq"], opened["player_id"]) == (1, 77)
    with Rest(db, SERVICE) as service:
        for sender in ("player", "gre", "gre_staff", "admin", "STAFF", "system"):
            sent = service.call(
                "gre_send_message", message="x", player_id=77, sender=sender, sender_name="N" * 100
            )["message"]
            assert sent["sender"] == {"player": "player", "system": "system"}.get(sender, "staff")
            assert sent["sender_name"] == "N" * 80
        assert refused(service, "gre_send_message", message="x", player_id=77) == (400, "sender_unknown")
        assert refused(service, "gre_send_message", message="x", player_id=77, sender="bot") == (
            400,
            "sender_unknown",
        )
        assert refused(service, "gre_send_message", message="x", sender="player") == (400, "player_invalid")
    assert len(stored(db)) == 7


def test_refusals_of_a_player(db: Database, a: Rest, b: Rest) -> None:
    theirs = b.call("gre_send_message", message="mine")["message"]
    for sender in ("staff", "gre", "admin", "system", "", "PLAYER "):
        assert refused(a, "gre_send_message", message="x", sender=sender) == (403, "sender_forged")
    assert refused(a, "gre_send_message", message="x", player_id=30) == (403, "player_mismatch")
    # The session of another player and an unknown one get the same answer.
    for session in (theirs["session_id"], uuid.uuid4()):
        assert refused(a, "gre_send_message", message="x", session_id=session) == (403, "session_mismatch")
    for empty in ("", " \n\t", "\u00a0\u3000\u200b", None):
        assert refused(a, "gre_send_message", message=empty) == (400, "message_empty")
    assert refused(a, "gre_send_message", message="x" * 4001) == (400, "message_too_long")
    assert refused(a, "gre_send_message", message="x", metadata={"k": "v" * 4096}) == (
        400,
        "metadata_too_large",
    )
    assert refused(a, "gre_staff_reply", message="x", player_id=29) == (403, "staff_only")
    assert len(stored(db)) == 1
    assert len(sessions(db)) == 1
    a.call("gre_send_message", message="😀" * 4000, metadata={"k": "v"})


def test_refusals_of_staff_and_of_callers_without_an_actor(db: Database, a: Rest, s: Rest) -> None:
    mine = a.call("gre_send_message", message="x")["message"]
    assert refused(s, "gre_send_message", message="x") == (400, "target_missing")
    assert refused(s, "gre_staff_reply", message="x", session_id=uuid.uuid4()) == (404, "session_unknown")
    assert refused(s, "gre_staff_reply", message="x", session_id=mine["session_id"], player_id=30) == (
        403,
        "session_mismatch",
    )
    assert refused(s, "gre_staff_reply", message="x", player_id=-1) == (400, "player_invalid")
    assert refused(s, "gre_send_message", message="x", player_id=29, sender="player") == (
        403,
        "sender_forged",
    )
    with Rest(db, SERVICE.acting_as("nobody")) as nobody:
        assert refused(nobody, "gre_send_message", message="x", player_id=29, sender="player") == (
            403,
            "act_as_required",
        )
    with Rest(db, Caller({"role": "authenticated"})) as stranger:
        assert refused(stranger, "gre_send_message", message="x", player_id=29) == (403, "no_identity")
    with Rest(db, NOBODY) as anon, pytest.raises(RefusalError, match="42501"):
        anon.call("gre_send_message", message="x", player_id=29)


@pytest.mark.parametrize(
    "text",
    [
        "'; drop table gre_chat_messages; --",
        "$$ || pg_sleep(9) || $$",
        "%s %n {0} \\",
        '{"a": 1}',
        "\u202eabc\x01",
    ],
)
def test_text_is_stored_unchanged(db: Database, a: Rest, text: str) -> None:
    sent = a.call("gre_send_message", message=text, player_name=text, metadata={"m": text})
    assert sent["message"]["message"] == text
    assert a.call("gre_chat_history")["messages"][0]["message"] == text
    assert len(sent["message"]["player_name"]) <= 80


def test_a_repeated_id_changes_nothing_for_any_caller(db: Database, a: Rest, b: Rest, s: Rest) -> None:
    key = str(uuid.uuid4())
    first = a.call("gre_send_message", message="once", id=key, player_name="N" * 99)
    again = a.call("gre_send_message", message="once", id=key, player_name="N" * 99, sender_name="M" * 99)
    assert again == {**first, "duplicate": True}
    assert (
        a.call("gre_send_messages", messages=[{"id": key, "message": "once"}] * 2)
        == [{"id": key, "session_id": first["message"]["session_id"], "seq": 1, "duplicate": True}] * 2
    )

    strangers = {
        "its own sender, other text": (a, {"message": "twice"}),
        "another player, equal text": (b, {"message": "once"}),
        "staff, equal text": (s, {"message": "once", "player_id": 29}),
    }
    answers = {
        who: refused(rest, "gre_send_message", id=key, **given) for who, (rest, given) in strangers.items()
    }
    assert set(answers.values()) == {(409, "id_conflict")}
    assert refused(b, "gre_send_messages", messages=[{"id": key, "message": "once"}]) == (409, "id_conflict")
    with Rest(db, SERVICE.acting_as("player:29")) as back_end:
        assert back_end.call("gre_send_message", message="once", id=key)["duplicate"] is True
    (session,) = sessions(db)
    assert (session["last_seq"], session["unread_by_staff"], len(stored(db))) == (1, 1, 1)


def test_the_id_of_a_reply_belongs_to_one_session_and_one_person(
    db: Database, a: Rest, b: Rest, s: Rest
) -> None:
    one_, two = (rest.call("gre_send_message", message="x")["message"]["session_id"] for rest in (a, b))
    key = str(uuid.uuid4())
    s.call("gre_staff_reply", message="yes", session_id=one_, id=key)
    assert s.call("gre_staff_reply", message="yes", session_id=one_, id=key)["duplicate"] is True
    assert s.call("gre_staff_reply", message="yes", player_id=29, id=key)["duplicate"] is True
    assert refused(s, "gre_staff_reply", message="yes", session_id=two, id=key) == (409, "id_conflict")
    with Rest(db, staff("s2")) as other:
        assert refused(other, "gre_staff_reply", message="yes", session_id=one_, id=key) == (
            409,
            "id_conflict",
        )
    s.call("gre_close_session", player_id=29)
    assert s.call("gre_staff_reply", message="yes", session_id=one_, id=key)["duplicate"] is True
    assert [row["last_seq"] for row in sessions(db)] == [2, 1]


@pytest.mark.parametrize("who", [player(29), staff(), ADMIN, SERVICE.acting_as("staff:s1")])
def test_an_upsert_into_the_table_may_be_repeated_too(db: Database, a: Rest, who: Caller) -> None:
    session = a.call("gre_send_message", message="x")["message"]["session_id"]
    sender = "player" if who == player(29) else "staff"
    with Rest(db, who) as rest:
        query = (
            "insert into gre_chat_messages (id, session_id, player_id, sender, message, sender_name, status)"
            " values (%s, %s, 29, %s, 'x', %s, 'pending') on conflict (id) do nothing returning seq"
        )
        key = uuid.uuid4()
        assert rest.sql(query, key, session, sender, "N" * 99) == [{"seq": 2}]
        assert rest.sql(query, key, session, sender, "N" * 99) == []
        with pytest.raises(RefusalError, match="23505"):
            rest.sql(query.replace("on conflict (id) do nothing ", ""), key, session, sender, "N" * 99)
    assert sessions(db)[0]["last_seq"] == 2


def test_closed_sessions(db: Database, a: Rest, s: Rest) -> None:
    old = a.call("gre_send_message", message="x")["message"]["session_id"]
    s.call("gre_close_session", player_id=29)
    assert refused(s, "gre_staff_reply", message="x", session_id=old) == (409, "session_closed")
    assert refused(s, "gre_send_messages", messages=[{"message": "x", "session_id": old}]) == (
        409,
        "session_closed",
    )
    new = a.call("gre_send_message", message="y", session_id=old)["message"]
    assert new["session_id"] != old
    assert new["seq"] == 1
    (bulk,) = a.call("gre_send_messages", messages=[{"message": "z", "session_id": old}])
    assert (bulk["session_id"], bulk["seq"]) == (new["session_id"], 2)
    assert [row["status"] for row in sessions(db)] == ["closed", "active"]


def test_a_disabled_player_can_send_over_no_interface(db: Database, a: Rest, s: Rest) -> None:
    s.call("gre_enable_player", player_id=29, enabled=False)
    assert a.call("gre_whoami")["chat_enabled"] is False
    by_function = {
        "gre_send_message": {"message": "x"},
        "gre_send_messages": {"messages": [{"message": "x"}]},
    }
    with Rest(db, SERVICE.acting_as("player:29")) as back_end, Rest(db, SERVICE) as service:
        for rest in (a, back_end):
            for function, given in by_function.items():
                assert refused(rest, function, **given) == (403, "chat_disabled")
        assert refused(service, "gre_send_message", message="x", player_id=29, sender="player") == (
            403,
            "chat_disabled",
        )
        for rest in (a, back_end):
            with pytest.raises(RefusalError, match="chat_disabled"):
                rest.sql(
                    "insert into gre_chat_messages (player_id, sender, message) values (29, 'player', 'x')"
                )
            with pytest.raises(RefusalError, match="chat_disabled"):
                rest.sql("insert into gre_chat_sessions (player_id) values (29)")
    assert sessions(db) == []
    s.call("gre_staff_reply", message="why", player_id=29)  # staff may still write
    assert a.call("gre_chat_history")["messages"][0]["message"] == "why"
    s.call("gre_enable_player", player_id=29)
    a.call("gre_send_message", message="back")


def test_a_bulk_is_stored_whole_or_not_and_answers_in_the_given_order(db: Database, a: Rest, s: Rest) -> None:
    ids = [str(uuid.uuid4()) for _ in range(5)]
    targets = [31, 29, 30, 29, 31]
    found = s.call("gre_send_messages", messages=[{"id": i, "player_id": p, "message": f"m{n}"} for n, (i, p) in enumerate(zip(ids, targets, strict=True))])  # fmt: skip
    assert [f["id"] for f in found] == ids
    assert [f["seq"] for f in found] == [1, 1, 1, 2, 2]
    before = len(stored(db))
    good = {"player_id": 29, "message": "good"}
    for bad, code in [
        ({"player_id": 30, "message": " "}, "message_empty"),
        ({"player_id": 30, "message": None}, "message_empty"),
        ({"message": "x"}, "player_invalid"),
        ({"player_id": 30, "message": "x", "session_id": found[1]["session_id"]}, "session_mismatch"),
        ({"player_id": 30, "message": "x", "sender": "player"}, "sender_forged"),
        ({"player_id": 30, "message": "x", "id": ids[0]}, "id_conflict"),
        ({"player_id": "30; drop", "message": "x"}, "22P02"),
        ({"player_id": 1e300, "message": "x"}, "22003"),
        ({"player_id": 30, "message": "x", "id": "no uuid"}, "22P02"),
    ]:
        with pytest.raises(RefusalError) as caught:
            s.call("gre_send_messages", messages=[good, bad])
        assert caught.value.code == code, bad
    for wrong in ({"message": "x"}, {}):
        assert refused(s, "gre_send_messages", messages=wrong) == (400, "messages_invalid")
    assert refused(s, "gre_send_messages", messages=[good] * 501) == (400, "messages_invalid")
    assert refused(s, "gre_send_messages", messages=None) == (400, "messages_invalid")
    with request(s.conn, s.caller) as conn:
        assert one(conn, "select gre_send_messages('[]')") == []
        with pytest.raises(Exception, match="every message must be an object"):
            conn.execute("select gre_send_messages('[1]')")
    assert len(stored(db)) == before
    assert refused(
        a, "gre_send_messages", messages=[{"message": "x"}, {"message": "x", "player_id": 30}]
    ) == (403, "player_mismatch")
    assert len(s.call("gre_send_messages", messages=[good] * 500)) == 500
