"""`gre_catch_up` tells a returning reader of the files that have changed since its newest message, and nobody else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.access import SERVICE, WORKER, Caller, Conn, Rest, player, staff
from tests.support.desk import people
from tests.support.files import Storage, stored


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        people(found, 1)
        yield found


@pytest.fixture
def a(db: Database, conn: Conn) -> Iterator[Rest]:
    with Rest(db, player(29)) as rest:
        yield rest


def settle(db: Database, conn: Conn, file: dict[str, Any], result: str) -> None:
    worker = uuid.uuid4()
    conn.execute("update gre.media_jobs set claimed_by = %s where attachment_id = %s", [worker, file["id"]])
    with Rest(db, WORKER) as rest:
        results = [{"id": file["id"], "result": result}]
        assert rest.call("gre_media_settle_v1", worker=worker, results=results)["settled"] == 1


def missed(db: Database, caller: Caller, since: Any) -> list[tuple[str, str, str]]:
    """What the caller is told: the session, the file and its state."""
    with Rest(db, caller) as rest:
        found = rest.call("gre_catch_up", since=since, total=0)
    return [
        (each["session_id"], each["attachment"]["id"], each["attachment"]["state"])
        for each in found.get("attachments", [])
    ]


@pytest.mark.past_triggers("some messages become later")
def test_changes_since_the_newest_message_are_told(db: Database, conn: Conn, a: Rest) -> None:
    with Storage(db) as storage:
        first, second, third = (stored(a, storage) for _ in range(3))
    message = a.call(
        "gre_send_message", message="x", attachment_ids=[uuid.UUID(one["id"]) for one in (first, second)]
    )["message"]
    session = message["session_id"]
    a.call("gre_send_message", message="y", attachment_ids=[uuid.UUID(third["id"])])
    assert missed(db, player(29), {session: 1}) == []
    settle(db, conn, first, "ready")
    settle(db, conn, third, "refused")
    told = [(session, first["id"], "ready"), (session, third["id"], "refused")]
    for caller in (player(29), staff("s1"), SERVICE.acting_as("player:29"), SERVICE.acting_as("staff:s1")):
        for seq in (1, 2):
            assert missed(db, caller, {session: seq}) == told
        # Whoever has no message of before gets the newest state with the messages.
        for since in (None, {}, {session: 0}, {session: 99}, {str(uuid.uuid4()): 1}):
            assert missed(db, caller, since) == []
    for caller in (player(30), SERVICE.acting_as("player:30")):
        assert missed(db, caller, {session: 1}) == []
    with Rest(db, staff("s1")) as s1:
        s1.call("gre_staff_reply", session_id=uuid.UUID(session), message="z")
    conn.execute("set session_replication_role = replica")  # triggers keep the times of messages
    conn.execute("update gre_chat_messages set created_at = created_at + interval '2 hours' where seq >= 2")
    # A message of its own, sent over REST, does not say that it heard of the files.
    assert missed(db, player(29), {session: 1}) == missed(db, player(29), {session: 2}) == told
    assert missed(db, staff("s1"), {session: 2}) == missed(db, player(29), {session: 3}) == []
    assert missed(db, staff("s1"), {session: 3}) == []
    conn.execute("update gre_chat_messages set created_at = created_at - interval '2 hours' where seq = 2")
    assert missed(db, staff("s1"), {session: 3}) == told
    assert missed(db, player(29), {session: 3}) == []
    conn.execute(
        "update gre_chat_attachments set changed_at = changed_at + interval '3 hours' where id = %s",
        [third["id"]],
    )
    assert missed(db, player(29), {session: 3}) == told[1:]
