"""Wake-ups of the workers, and the answers of the database to processes that poll."""

from __future__ import annotations

import json
import uuid
from typing import Any

import psycopg
import pytest

from tests.conftest import PLAYER, SERVICE, Database
from tests.support.access import SERVICE as SERVICE_CALLER
from tests.support.access import Rest, player
from tests.support.files import Storage, begin, name_of, stored
from tests.support.waiting import wait_until


def sent(conn: psycopg.Connection[dict[str, Any]]) -> int:
    row = conn.execute("select count(*) as n from realtime.messages where topic = 'gre:relay'").fetchone()
    assert row is not None
    return int(row["n"])


def events(conn: psycopg.Connection[dict[str, Any]]) -> list[tuple[str, set[str]]]:
    """The events of the topic so far, and what each of them says; Realtime adds `id`."""
    rows = conn.execute(
        "select event, payload from realtime.messages where topic = 'gre:relay' order by inserted_at"
    ).fetchall()
    return [(row["event"], set(row["payload"])) for row in rows]


def listen(
    conn: psycopg.Connection[dict[str, Any]],
    listener: uuid.UUID,
    kind: str = "relay",
    *,
    awake: float | None = 0,
    snapshot: str | None = None,
) -> dict[str, Any]:
    row = conn.execute(
        "select gre_relay_listen_v1(%s, %s, %s::numeric, %s) as answer", [listener, kind, awake, snapshot]
    ).fetchone()
    assert row is not None
    return dict(row["answer"])


def write(conn: psycopg.Connection[dict[str, Any]], player: int = 29) -> str:
    row = conn.execute(
        "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x') returning session_id",
        [player],
    ).fetchone()
    assert row is not None
    return str(row["session_id"])


@pytest.fixture
def worker(db: Database) -> Any:
    with db.as_caller(SERVICE) as conn:
        yield conn


@pytest.fixture
def admin(db: Database) -> Any:
    with db.connect("supabase_admin") as conn:
        yield conn


def test_each_message_is_broadcast_without_listeners(admin: Any) -> None:
    write(admin)
    write(admin)
    assert sent(admin) == 2


def test_no_wakeup_is_sent_while_all_listeners_poll(admin: Any, worker: Any) -> None:
    one, other = uuid.uuid4(), uuid.uuid4()
    assert listen(worker, one, awake=5) == {
        "listeners": 1, "hubs": 0, "broadcasts": True, "snapshot": None, "sessions": None,
    }  # fmt: skip
    write(admin)
    assert sent(admin) == 0
    assert listen(worker, other, "hub")["listeners"] == 2
    write(admin)
    assert sent(admin) == 1  # the other one does not poll
    listen(worker, other, "hub", awake=5)
    write(admin)
    admin.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
    admin.execute("insert into gre_online_status (staff_id, status) values ('s1', 'online')")
    assert sent(admin) == 1
    worker.execute("select gre_relay_unlisten_v1(%s)", [one])
    worker.execute("select gre_relay_unlisten_v1(%s)", [other])
    write(admin)
    assert sent(admin) == 2


def test_a_stored_file_is_broadcast_to_those_who_examine_unless_they_poll(
    db: Database, admin: Any, worker: Any
) -> None:
    with Rest(db, player(29)) as rest, Storage(db) as storage:
        listen(worker, uuid.uuid4(), "hub")
        listen(worker, relay := uuid.uuid4())
        file = begin(rest)
        storage.check(rest.caller, file["object"])
        assert sent(admin) == 0, "nothing is stored yet"
        storage.finish(file["object"])
        assert events(admin) == [("files", {"id"})], "no name, no session"
        storage.upload(SERVICE_CALLER, name_of(file, "view"))
        assert sent(admin) == 1, "what a worker stores is no work"
        listen(worker, relay, awake=5)
        admin.execute(
            "update gre.listeners set polls_until = 'infinity', expires_at = 'infinity' where kind = 'relay'"
        )
        for _ in range(10):
            stored(rest, storage)
        assert sent(admin) == 1, "the hub's listening does not matter: it examines nothing"


def test_refused_files_that_are_examined_again_are_broadcast(db: Database, admin: Any, worker: Any) -> None:
    with Rest(db, player(29)) as rest, Storage(db) as storage:
        stored(rest, storage)
    admin.execute("update gre_chat_attachments set state = 'refused', refused = 'not_scanned'")
    admin.execute("delete from realtime.messages")
    worker.execute("select gre_media_again('other')")
    assert events(admin) == []
    worker.execute("select gre_media_again('not_scanned')")
    assert [event for event, _ in events(admin)] == ["files"]


def test_an_upload_neither_fails_nor_waits_because_of_its_wake_up(db: Database, admin: Any) -> None:
    with Rest(db, player(29)) as rest, Storage(db) as storage, db.connect(autocommit=False) as holder:
        storage.conn.execute("set statement_timeout = '30s'")
        holder.execute("lock table realtime.messages")
        file = stored(rest, storage)
    assert events(admin) == []
    row = admin.execute("select state from gre_chat_attachments where id = %s", [file["id"]]).fetchone()
    assert row == {"state": "stored"}


def test_an_idle_listener_counts_and_needs_no_wake_up(admin: Any, worker: Any) -> None:
    one, idle = uuid.uuid4(), uuid.uuid4()
    assert listen(worker, idle, "idle")["listeners"] == 1
    write(admin)
    assert sent(admin) == 1, "no other listener is registered"
    assert listen(worker, one, awake=5)["listeners"] == 2
    write(admin)
    assert sent(admin) == 1
    assert listen(worker, idle, "hub")["hubs"] == 1
    write(admin)
    assert sent(admin) == 2


def test_the_registration_of_a_dead_listener_expires(admin: Any, worker: Any) -> None:
    listen(worker, uuid.uuid4(), awake=5.0)
    write(admin)
    assert sent(admin) == 0

    def woken() -> bool:
        write(admin)
        return sent(admin) > 0

    wait_until(woken, what="the first wake-up after the listener's time")
    # Later it does not count at all: a listener that polls needs no wake-up because of it.
    admin.execute("update gre.listeners set expires_at = now() - interval '1 second'")
    listen(worker, uuid.uuid4(), awake=5)
    before = sent(admin)
    write(admin)
    assert sent(admin) == before
    admin.execute(
        "update gre.listeners set expires_at = now() - interval '2 minutes' where polls_until < now()"
    )
    assert listen(worker, uuid.uuid4())["listeners"] == 2
    assert admin.execute("select count(*) as n from gre.listeners").fetchone()["n"] == 2


def test_a_requested_wakeup_is_sent_while_all_listeners_poll_too(admin: Any, worker: Any) -> None:
    listen(worker, uuid.uuid4(), awake=5)
    worker.execute("select gre_relay_notify_v1()")
    assert sent(admin) == 1


def test_a_message_does_not_wait_for_a_listeners_row(db: Database, admin: Any) -> None:
    """A listener's row may be locked by its writer; a message reads it without a lock."""
    listener = uuid.uuid4()
    with db.connect("supabase_admin") as conn, db.connect("supabase_admin", autocommit=False) as holder:
        listen(conn, listener, awake=5)
        holder.execute("select from gre.listeners for update")
        conn.execute("set statement_timeout = '30s'")
        write(conn)
        assert sent(admin) == 0


def test_a_hub_reads_the_sessions_committed_since_its_last_poll(
    db: Database, admin: Any, worker: Any
) -> None:
    """Exactly those: also rows that a transaction wrote before that poll and committed after it."""
    hub = uuid.uuid4()
    before = write(admin, 1)
    snapshot = listen(worker, hub, "hub", awake=None)["snapshot"]
    assert admin.execute("select count(*) as n from gre.listeners").fetchone()["n"] == 0
    with db.connect("supabase_admin", autocommit=False) as slow:
        late = write(slow, 2)
        quick = write(admin, 3)
        answer = listen(worker, hub, "hub", awake=None, snapshot=snapshot)
        assert answer["sessions"] == [quick]
        answer = listen(worker, hub, "hub", awake=None, snapshot=answer["snapshot"])
        assert answer["sessions"] == []
        slow.commit()
    answer = listen(worker, hub, "hub", awake=None, snapshot=answer["snapshot"])
    assert answer["sessions"] == [late]
    # A change inside a savepoint has the id of its transaction.
    with admin.transaction(), admin.transaction():
        admin.execute("update gre_chat_sessions set assigned_staff_id = 's1' where id = %s", [before])
    answer = listen(worker, hub, "hub", awake=None, snapshot=answer["snapshot"])
    assert answer["sessions"] == [before]
    admin.execute(
        "insert into gre_chat_messages (player_id, sender, message) select n, 'player', 'x' from generate_series(100, 600) n"
    )
    assert listen(worker, hub, "hub", awake=None, snapshot=answer["snapshot"])["sessions"] is None


def test_sessions_restored_from_another_cluster_are_not_changed_at_each_poll(worker: Any, admin: Any) -> None:
    old, new, hub = write(admin, 1), write(admin, 2), uuid.uuid4()
    with admin.transaction():
        admin.execute("set local session_replication_role = replica")
        admin.execute("update gre_chat_sessions set changed_xid = '9000000000' where id = %s", [old])
    answer = listen(worker, hub, "hub", awake=None)
    assert listen(worker, hub, "hub", awake=None, snapshot=answer["snapshot"])["sessions"] == []
    write(admin, 2)
    assert listen(worker, hub, "hub", awake=None, snapshot=answer["snapshot"])["sessions"] == [new]
    write(admin, 1)
    assert set(listen(worker, hub, "hub", awake=None, snapshot=answer["snapshot"])["sessions"]) == {old, new}


def test_clients_cannot_set_the_transaction_id_of_a_session(db: Database, admin: Any) -> None:
    session = write(admin)
    with db.as_caller(SERVICE) as portal:
        portal.execute(
            "update gre_chat_sessions set changed_xid = '1', player_name = 'x' where id = %s", [session]
        )
    row = admin.execute("select changed_xid::text::bigint as n from gre_chat_sessions").fetchone()
    assert row["n"] > 1


@pytest.mark.parametrize("claims", [PLAYER, {"role": "anon"}])
def test_only_a_worker_may_listen(db: Database, claims: dict[str, Any]) -> None:
    with db.as_caller(claims) as conn:
        for call in (
            "gre_relay_listen_v1(gen_random_uuid(), 'relay', 9)",
            "gre_relay_unlisten_v1(gen_random_uuid())",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"select {call}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select * from gre.listeners")


def test_a_poll_of_a_large_project_reads_only_the_changed_sessions(
    db: Database, admin: Any, worker: Any
) -> None:
    with admin.transaction():  # the triggers would take ten seconds
        admin.execute("set local session_replication_role = replica")
        admin.execute(
            "insert into gre_chat_sessions (player_id, status, changed_xid)"
            " select n, 'closed', pg_current_xact_id() from generate_series(1, 20000) n"
        )

    def alone() -> str | None:
        """A snapshot without older transactions under way: also those of other databases count, as when one is dropped."""
        found: str = listen(worker, uuid.uuid4(), "hub", awake=None)["snapshot"]
        return found if len({*found.split(":")[:2]}) == 1 else None

    snapshot = wait_until(alone)
    session = write(admin, 30000)
    admin.execute("analyze gre_chat_sessions")
    plan = admin.execute(
        "explain (analyze, buffers, format json) select s.id from gre_chat_sessions s"
        " where s.changed_xid >= pg_snapshot_xmin(%(s)s::pg_snapshot)"
        " and not pg_visible_in_snapshot(s.changed_xid, %(s)s::pg_snapshot)"
        " and s.changed_xid < pg_snapshot_xmax(pg_current_snapshot()) limit 501",
        {"s": snapshot},
    ).fetchone()
    text = json.dumps(plan)
    assert "gre_chat_sessions_changed" in text
    assert "Seq Scan" not in text
    assert listen(worker, uuid.uuid4(), "hub", awake=None, snapshot=snapshot)["sessions"] == [session]
