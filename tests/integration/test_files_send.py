"""A message binds its files in its own transaction: each existed, whole, when the message was committed, and is sent once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.access import SERVICE, Conn, RefusalError, Rest, player, staff
from tests.support.desk import people
from tests.support.files import Storage, begin, stored
from tests.support.waiting import wait_until


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        people(found, 2)
        yield found


@pytest.fixture
def a(db: Database) -> Iterator[Rest]:
    with Rest(db, player(29)) as rest:
        yield rest


@pytest.fixture
def s(db: Database, conn: Conn) -> Iterator[Rest]:
    with Rest(db, staff("s1")) as rest:
        yield rest


@pytest.fixture
def storage(db: Database) -> Iterator[Storage]:
    with Storage(db) as found:
        yield found


def ids(*files: dict[str, Any] | str) -> list[uuid.UUID]:
    return [uuid.UUID(file if isinstance(file, str) else file["id"]) for file in files]


def send(rest: Rest, *files: dict[str, Any] | str, **given: Any) -> dict[str, Any]:
    message = rest.call("gre_send_message", **{"message": "", "attachment_ids": ids(*files), **given})
    found: dict[str, Any] = message
    return found


def refused(work: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(RefusalError) as found:
        work()
    return found.value.status, found.value.code


def test_a_message_carries_its_files_in_order(a: Rest, conn: Conn, storage: Storage) -> None:
    first, second = stored(a, storage, name="1.png"), stored(a, storage, name="2.pdf", type="application/pdf")
    message = send(a, second, first, message="Look")["message"]
    assert message["message"] == "Look"
    assert [(f["id"], f["place"], f["name"], f["kind"], f["state"]) for f in message["attachments"]] == [
        (second["id"], 0, "2.pdf", "file", "stored"), (first["id"], 1, "1.png", "image", "stored"),
    ]  # fmt: skip
    assert not {"object", "object_id", "object_version"} & set(message["attachments"][0])
    row = a.call("gre_attachment_get", id=first["id"])
    assert (row["message_id"], row["session_id"]) == (message["id"], message["session_id"])
    plain = a.call("gre_send_message", message="x")["message"]
    assert "attachments" not in plain


def test_the_alt_text_can_be_changed_until_the_file_is_sent(a: Rest, storage: Storage) -> None:
    key = uuid.uuid4()
    stored(a, storage, id=key)
    assert begin(a, id=key, alt="A bird")["alt"] == "A bird"
    assert begin(a, id=key)["alt"] == "A bird", "a repeat that does not name it keeps it"
    assert begin(a, id=key, alt="")["alt"] is None
    assert begin(a, id=key, alt="A cat")["alt"] == "A cat"
    (sent,) = send(a, str(key))["message"]["attachments"]
    assert sent["alt"] == "A cat"
    begin(a, id=key, alt="A dog")
    begin(a, id=key, alt=" ")
    assert a.call("gre_attachment_get", id=key)["alt"] == "A cat"


@pytest.mark.parametrize(
    ("types", "text"),
    [(["image/png"], "📷 Photo"), (["image/png"] * 2, "📷 2 photos"), (["application/pdf"], "📎 File"),
     (["image/png", "text/plain", "image/gif"], "📎 3 files")],
)  # fmt: skip
@pytest.mark.parametrize("blank", [None, "", " \u200b "])
def test_a_message_without_text_gets_one(
    a: Rest, storage: Storage, types: list[str], text: str, blank: str | None
) -> None:
    files = [stored(a, storage, type=each) for each in types]
    key = uuid.uuid4()
    sent = send(a, *files, message=blank, id=key)
    again = send(a, *files, message=blank, id=key)
    assert (sent["message"]["message"], sent["duplicate"], again["duplicate"]) == (text, False, True)
    assert again["message"] == sent["message"]
    assert refused(lambda: send(a, *files, message="x", id=key)) == (409, "id_conflict")
    assert refused(lambda: send(a, *files[:-1], message=text, id=key)) == (409, "id_conflict")
    assert refused(lambda: send(a, message="", id=uuid.uuid4())) == (400, "message_empty")


def test_a_portal_inserts_the_row_itself(db: Database, a: Rest, conn: Conn, storage: Storage) -> None:
    file = stored(a, storage)
    row = a.sql(
        "insert into gre_chat_messages (sender, message, attachment_ids) values ('player', '', %s) returning *",
        ids(file),
    )[0]
    assert (row["message"], row["attachment_ids"]) == ("📷 Photo", ids(file))
    assert a.sql(
        "insert into gre_chat_messages (sender, message, attachment_ids) values ('player', 'x', null) returning attachment_ids"
    ) == [{"attachment_ids": []}]
    with Rest(db, SERVICE) as key:
        key.sql("update gre_chat_messages set attachment_ids = '{}', message = 'x'")
    assert conn.execute("select attachment_ids from gre_chat_messages where seq = 1").fetchall() == [
        {"attachment_ids": ids(file)}
    ]


def test_staff_send_what_they_began_themselves(db: Database, a: Rest, s: Rest, storage: Storage) -> None:
    session = a.call("gre_send_message", message="x")["message"]["session_id"]
    mine, more = stored(s, storage, session_id=session), stored(s, storage, player_id=29)
    with Rest(db, staff("s2")) as other:
        assert refused(lambda: other.call("gre_staff_reply", message="", session_id=session, attachment_ids=ids(mine))) == (
            404, "attachment_not_found",
        )  # fmt: skip
    reply = s.call("gre_staff_reply", message="", session_id=session, attachment_ids=ids(mine))["message"]
    assert [f["id"] for f in reply["attachments"]] == [mine["id"]]
    assert (
        refused(lambda: s.call("gre_staff_reply", message="x", player_id=30, attachment_ids=ids(more)))[1]
        == "attachment_not_found"
    )


def test_each_reason_not_to_bind_has_its_code_and_leaves_nothing(
    db: Database, a: Rest, s: Rest, conn: Conn, storage: Storage
) -> None:
    good, awaited, used = stored(a, storage), begin(a), stored(a, storage)
    send(a, used)
    states = {state: stored(a, storage) for state in ("refused", "gone", "ready")}
    for state, file in states.items():
        conn.execute("update gre_chat_attachments set state = %s where id = %s", [state, file["id"]])
    dropped = stored(a, storage)
    a.call("gre_attachment_drop", id=dropped["id"])
    with Rest(db, player(30)) as b:
        others = stored(b, storage)
    theirs = stored(s, storage, player_id=29)
    wrong: list[tuple[Any, int, str]] = [
        (awaited, 409, "attachment_not_stored"),
        (used, 409, "attachment_used"),
        (states["refused"], 409, "attachment_refused"),
        (states["gone"], 409, "attachment_gone"),
        (dropped, 404, "attachment_not_found"),
        (others, 404, "attachment_not_found"),
        (theirs, 404, "attachment_not_found"),
        (str(uuid.uuid4()), 404, "attachment_not_found"),
    ]
    for file, status, code in wrong:
        assert refused(lambda f=file: send(a, good, f)) == (status, code), code
        assert refused(lambda f=file: send(a, f, message="x")) == (status, code), code
    with Rest(db, SERVICE) as key:
        assert refused(lambda: send(key, good, player_id=29, sender="system")) == (
            404,
            "attachment_not_found",
        )
    assert len(conn.execute("select from gre_chat_messages").fetchall()) == 1
    sent = send(a, good, states["ready"])["message"]
    assert (sent["seq"], len(sent["attachments"])) == (2, 2)


@pytest.mark.parametrize("given", ["six", "twice", "null", "nested"])
def test_the_list_of_files_is_checked_before_any_lock(
    db: Database, a: Rest, storage: Storage, given: str
) -> None:
    one = stored(a, storage)["id"]
    value = {
        "six": [str(uuid.uuid4()) for _ in range(6)],
        "twice": [one, one],
        "null": [None],
        "nested": [[one, str(uuid.uuid4())]],
    }[given]
    a.call("gre_send_message", message="x")
    with db.connect() as holder, holder.transaction():
        holder.execute("select from gre_chat_sessions for update")
        a.conn.execute("set statement_timeout = '30s'")
        with pytest.raises(RefusalError) as found:
            a.sql(
                "insert into gre_chat_messages (sender, message, attachment_ids) values ('player', 'x', %s::text[]::uuid[])",
                value,
            )
    assert (found.value.status, found.value.code) == (400, "attachments_invalid")


def test_bulk_messages_bind_theirs_and_a_file_is_sent_once(a: Rest, conn: Conn, storage: Storage) -> None:
    one, two = stored(a, storage), stored(a, storage)
    key = str(uuid.uuid4())
    messages: list[dict[str, Any]] = [
        {"id": key, "message": "", "attachment_ids": [one["id"]]},
        {"message": "x", "attachment_ids": [two["id"]]},
        {"message": "y", "attachment_ids": None},
        {"message": "z"},
    ]
    found = a.call("gre_send_messages", messages=messages)
    assert [m["seq"] for m in found] == [1, 2, 3, 4]
    again = a.call("gre_send_messages", messages=messages[:1])
    assert again == [{**found[0], "duplicate": True}]
    three = stored(a, storage)
    both = [
        {"message": "x", "attachment_ids": [three["id"]]},
        {"message": "y", "attachment_ids": [three["id"]]},
    ]
    assert refused(lambda: a.call("gre_send_messages", messages=both)) == (409, "attachment_used")
    assert len(conn.execute("select from gre_chat_messages").fetchall()) == 4


def test_every_reader_of_messages_gets_the_files(db: Database, a: Rest, s: Rest, storage: Storage) -> None:
    file = stored(a, storage, name="cat.png")
    sent = send(a, file, message="Look")["message"]
    session = uuid.UUID(sent["session_id"])
    for rest in (a, s):
        found = [
            rest.call("gre_chat_history", session_id=session)["messages"][0],
            rest.call("gre_chat_history", player_id=29)["messages"][0],
            rest.call("gre_catch_up", since={str(session): 0})["missed"][0],
        ]
        assert [m["attachments"] for m in found] == [sent["attachments"]] * 3
    assert s.call("gre_search_messages", query="Look")["messages"][0]["attachments"] == sent["attachments"]
    with Rest(db, SERVICE) as worker:
        changes = worker.call("gre_hub_changes_v1", sessions=[session], positions={str(session): [0, 0]})
        assert changes["sessions"][0]["messages"][0]["attachments"] == sent["attachments"]
        assert "attachments" not in changes["sessions"][0], "it has not changed since"


def test_an_event_carries_ids_and_kinds_only(db: Database, a: Rest, storage: Storage) -> None:
    photo, paper = (
        stored(a, storage, alt="kitten"),
        stored(a, storage, name="secret.pdf", type="application/pdf"),
    )
    send(a, photo, paper)
    a.call("gre_send_message", message="x")
    with Rest(db, SERVICE) as worker:
        claimed = worker.call("gre_relay_claim_v1", sink="pusher", token=uuid.uuid4())
    events = [d["message"] for d in claimed["lanes"][0]["deliveries"] if d["event"] == "message"]
    assert [e["attachments"] for e in events] == [
        [{"id": photo["id"], "kind": "image"}, {"id": paper["id"], "kind": "file"}], None,
    ]  # fmt: skip
    text = json.dumps(claimed)
    assert not [word for word in ("secret", "kitten", "cat.png", "original") if word in text]


def test_files_of_a_deleted_message_are_deleted(a: Rest, conn: Conn, storage: Storage) -> None:
    file, other = stored(a, storage), stored(a, storage)
    send(a, file)
    conn.execute("delete from gre_chat_messages")
    assert [str(r["id"]) for r in conn.execute("select id from gre_chat_attachments").fetchall()] == [
        other["id"]
    ]
    names = {r["name"] for r in conn.execute("select name from gre_storage_deletions").fetchall()}
    assert names == {f"29/{file['id']}/{x}" for x in ("original", "view", "thumb")}
    assert refused(lambda: begin(a, id=file["id"])) == (409, "attachment_gone")


def blocked(conn: Conn) -> Callable[[], Any]:
    return lambda: conn.execute("select from pg_locks where not granted").fetchall()


def test_of_two_messages_with_one_file_one_is_stored(
    db: Database, a: Rest, conn: Conn, storage: Storage
) -> None:
    a.call("gre_send_message", message="x")
    for _ in range(5):
        file = stored(a, storage)

        def work(key: int, file: dict[str, Any] = file) -> str:
            with Rest(db, player(29)) as rest:
                try:
                    return str(send(rest, file, message=str(key))["message"]["id"])
                except RefusalError as error:
                    return error.code

        with ThreadPoolExecutor(2) as pool:
            found = sorted(pool.map(work, range(2)), key=len)
        assert found[0] == "attachment_used"
        row = conn.execute(
            "select message_id::text from gre_chat_attachments where id = %s", [file["id"]]
        ).fetchone()
        assert row == {"message_id": found[1]}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_message_waits_for_who_holds_its_file(
    db: Database, a: Rest, conn: Conn, storage: Storage, end: str
) -> None:
    """A worker that settles an examination, or its author who deletes it."""
    file = stored(a, storage)
    holder = db.connect(autocommit=False)
    holder.execute("select from gre_chat_attachments for update")
    if end == "commit":
        holder.execute("update gre_chat_attachments set state = 'ready', ready_at = now()")
    with ThreadPoolExecutor(1) as pool:
        sent: Future[Any] = pool.submit(send, a, file)
        wait_until(blocked(conn))
        assert not sent.done()
        getattr(holder, end)()
        assert (
            sent.result(60)["message"]["attachments"][0]["state"]
            == {"commit": "ready", "rollback": "stored"}[end]
        )
    holder.close()


@pytest.mark.parametrize("first", ["drop", "send"])
def test_a_deletion_and_a_message_never_both_have_a_file(
    db: Database, a: Rest, conn: Conn, storage: Storage, first: str
) -> None:
    file = stored(a, storage)
    a.call("gre_send_message", message="x")
    work = {
        "drop": lambda rest: rest.call("gre_attachment_drop", id=file["id"]),
        "send": lambda rest: send(rest, file),
    }
    second = "send" if first == "drop" else "drop"
    holder = db.connect(autocommit=False)
    claims = json.dumps(player(29).claims)
    holder.execute(
        "select set_config('request.jwt.claims', %s, false), set_config('role', 'authenticated', false)",
        [claims],
    )
    if first == "drop":
        holder.execute("select gre_attachment_drop(%s)", [file["id"]])
    else:
        holder.execute("select gre_send_message(p_message => '', p_attachment_ids => %s)", [ids(file)])
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Any] = pool.submit(work[second], a)
        wait_until(blocked(conn))
        holder.commit()
        with pytest.raises(RefusalError) as found:
            waiting.result(60)
    holder.close()
    assert found.value.code == {"drop": "attachment_gone", "send": "attachment_used"}[first]
