"""Private notes: numbered in their session, for staff only, announced once, and gone with the player."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, SERVICE, WORKER, Caller, Conn, RefusalError, Rest, player, staff
from tests.support.canary import CANARY, note
from tests.support.desk import people, waiting


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        people(found, 2)
        yield found


def claimed(db: Database, sink: str) -> list[dict[str, Any]]:
    """The deliveries of the only lane of a sink."""
    with Rest(db, SERVICE) as worker:
        found = worker.call("gre_relay_claim_v1", sink=sink, token=uuid.uuid4(), per_lane=100)
    deliveries: list[dict[str, Any]] = found["lanes"][0]["deliveries"]
    return deliveries


def test_a_note_has_its_place_between_the_messages(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    with Rest(db, staff("s1")) as one, Rest(db, staff("s2")) as two:
        first = one.call("gre_add_note", session_id=session, text=note("First"))["note"]
        two.call("gre_staff_reply", message="x", session_id=session)
        second = two.call("gre_add_note", session_id=session, text=note("Second"))["note"]
        assert (first["n"], first["after_seq"], first["staff_id"], first["staff_name"]) == (1, 1, "s1", "S1")
        assert (second["n"], second["after_seq"], second["staff_id"]) == (2, 2, "s2")
        assert one.call("gre_list_notes", session_id=session) == {"notes": [first, second], "has_more": False}
        assert one.call("gre_list_notes", session_id=session, limit=1) == {"notes": [first], "has_more": True}
        assert one.call("gre_list_notes", session_id=session, after_n=1)["notes"] == [second]
        one.call("gre_set_session_status", session_id=session, status="closed")
        assert one.call("gre_add_note", session_id=session, text=note())["note"]["n"] == 3, "closed, too"


def test_a_page_of_notes_has_at_most_one_megabyte(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    with Rest(db, staff("s1")) as one:
        for _ in range(70):
            one.call("gre_add_note", session_id=session, text="\U0001f9a4" * 3900 + CANARY)
        found, after = [], 0
        while True:
            page = one.call("gre_list_notes", session_id=session, after_n=after)
            found += [item["n"] for item in page["notes"]]
            assert sum(len(item["text"].encode()) for item in page["notes"]) <= 1048576
            if not page["has_more"]:
                break
            after = found[-1]
    assert found == list(range(1, 71))


def test_a_note_can_be_sent_again_and_its_id_is_not_anothers(db: Database, conn: Conn) -> None:
    first, second = waiting(conn, 29, 30)
    key = uuid.uuid4()
    with Rest(db, staff("s1")) as one, Rest(db, staff("s2")) as two:
        added = one.call("gre_add_note", session_id=first, text=note(), id=key)
        again = one.call("gre_add_note", session_id=first, text=note(), id=key)
        assert (added["duplicate"], again["duplicate"]) == (False, True)
        assert added["note"] == again["note"]
        for rest, session, text in (
            (two, first, note()),
            (one, second, note()),
            (one, first, note("Another")),
        ):
            with pytest.raises(RefusalError) as refused:
                rest.call("gre_add_note", session_id=session, text=text, id=key)
            assert (refused.value.status, refused.value.code) == (409, "id_conflict")
            assert CANARY not in str(refused.value) + refused.value.detail
    assert len(conn.execute("select from gre_chat_notes").fetchall()) == 1
    announced = conn.execute("select sink, data from gre_relay_deliveries where event = 'note'").fetchall()
    assert announced == [{"sink": "pusher", "data": {"note_id": str(key)}}]


def test_notes_at_once_are_numbered_without_a_gap(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)

    def write(name: str) -> None:
        with Rest(db, staff(name)) as rest:
            for _ in range(25):
                rest.call("gre_add_note", session_id=session, text=note())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, ["s1", "s2", "s1", "s2"]))
    rows = conn.execute("select n from gre_chat_notes order by n").fetchall()
    assert [row["n"] for row in rows] == list(range(1, 101))


def test_a_note_changes_nothing_that_a_player_sees_of_its_session(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    with Rest(db, player(29)) as phone, Rest(db, staff("s1")) as one:

        def seen() -> Any:
            row = phone.sql("select * from gre_chat_sessions")[0]
            page = phone.call("gre_chat_history", session_id=session)
            page["session"].pop("rev")
            return page, {key: row[key] for key in row if key not in ("rev", "updated_at", "changed_xid")}

        before = seen()
        one.call("gre_add_note", session_id=session, text=note())
        assert seen() == before
        for function in ("gre_add_note", "gre_list_notes"):
            arguments = {"text": note()} if function == "gre_add_note" else {}
            with pytest.raises(RefusalError, match="only staff"):
                phone.call(function, session_id=session, **arguments)
        with pytest.raises(RefusalError, match="permission denied"):
            phone.sql("select * from gre_chat_notes")
        assert CANARY not in str(phone.call("gre_catch_up", since={str(session): 0}))


@pytest.mark.parametrize("caller", [staff("s1"), ADMIN, SERVICE, WORKER])
def test_nobody_reads_the_table_itself(db: Database, conn: Conn, caller: Caller) -> None:
    with Rest(db, caller) as rest, pytest.raises(RefusalError, match="permission denied"):
        rest.sql("select * from gre_chat_notes")


def test_a_note_without_text_session_or_person_is_refused(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    wrong: list[tuple[Caller, UUID, str | None, str]] = [
        (staff("s1"), session, " \u200b ", "note_empty"),
        (staff("s1"), session, None, "note_empty"),
        (staff("s1"), session, "x" * 4001, "note_too_long"),
        (staff("s1"), uuid.uuid4(), note(), "session_unknown"),
        (SERVICE, session, note(), "act_as_required"),
    ]
    for caller, where, text, code in wrong:
        with Rest(db, caller) as rest, pytest.raises(RefusalError) as refused:
            rest.call("gre_add_note", session_id=where, text=text)
        assert refused.value.code == code
    assert conn.execute("select from gre_chat_notes").fetchall() == []
    with Rest(db, SERVICE.acting_as("staff:s2")) as backend:
        assert backend.call("gre_add_note", session_id=session, text=note())["note"]["staff_id"] == "s2"


def test_a_claim_has_the_note_for_pusher_and_nothing_for_onesignal(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    with Rest(db, staff("s1")) as one:
        added = one.call("gre_add_note", session_id=session, text=note())["note"]
        moved = one.call("gre_transfer_session", session_id=session, to_staff="s2", note=note("Yours"))
    assert moved["session"]["assigned_staff_id"] == "s2"
    deliveries = claimed(db, "pusher")
    assert [d["event"] for d in deliveries] == ["session", "message", "note", "session", "note"]
    assert deliveries[2]["note"] == added
    assert deliveries[4]["note"]["text"] == note("Yours")
    assert CANARY not in str([d for d in deliveries if d["event"] != "note"])
    assert [d["event"] for d in claimed(db, "onesignal")] == ["message"]


def test_the_hub_reads_notes_for_staff_and_none_for_players(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    key = str(session)
    with Rest(db, staff("s1")) as one, Rest(db, SERVICE) as hub:

        def read(position: list[Any] | None, **more: Any) -> dict[str, Any]:
            positions = {} if position is None else {key: position}
            found = hub.call("gre_hub_changes_v1", sessions=[session], positions=positions, **more)
            entry: dict[str, Any] = found["sessions"][0]
            return entry

        assert read([1, 0, 0])["last_note"] == 0
        notes = [one.call("gre_add_note", session_id=session, text=note())["note"] for _ in range(3)]
        assert read([1, 0, 0])["notes"] == notes
        assert read([1, 0, 2])["notes"] == notes[2:]
        assert "notes" not in read([1, 0, 3])
        assert read([1, 0, 3])["last_note"] == 3
        assert read([1, -1, None])["notes"] == [], "a reader that missed messages only"
        assert read(None, epoch="2020-01-01")["notes"] == notes
        assert read(None, epoch="2100-01-01")["notes"] == []
        for entry in (read([1, 0, 0], players=[29]), read(None, players=[29], epoch="2020-01-01")):
            assert not entry.keys() & {"notes", "last_note"}
        for _ in range(60):
            one.call("gre_add_note", session_id=session, text=note())
        page = read([1, 0, 3])
        assert (len(page["notes"]), page["more"], page["last_note"]) == (50, True, 63)
        assert read([1, 0, 53])["more"] is False


def test_notes_are_erased_with_their_player(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    with Rest(db, staff("s1")) as one:
        one.call("gre_add_note", session_id=session, text=note())
    with Rest(db, SERVICE) as backend:
        backend.call("gre_erase_player", player_id=29)
    assert conn.execute("select from gre_chat_notes").fetchall() == []
    assert conn.execute("select from gre_relay_deliveries").fetchall() == []
