"""Nothing that reads or binds files reads all of them, also before the table was ever analyzed."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.conftest import Database
from tests.support.access import SERVICE, Conn, Rest, player, staff
from tests.support.desk import people
from tests.support.files import Storage, begin, stored

TABLES = (
    "gre_chat_attachments",
    "gre_storage_deletions",
    "media_jobs",
    "attachment_tombstones",
    "attachment_quotas",
)


def read(conn: Conn, *others: Conn) -> int:
    """Return the number of rows and index entries of the files' tables that these connections have read."""
    for each in (*others, conn):
        each.execute("select pg_stat_force_next_flush()")
    conn.execute("select pg_stat_clear_snapshot()")
    row = conn.execute(
        "select (select sum(seq_tup_read) from pg_stat_user_tables where relname = any (%(t)s))"
        " + (select sum(idx_tup_read) from pg_stat_user_indexes where relname = any (%(t)s)) as n",
        {"t": list(TABLES)},
    ).fetchone()
    assert row is not None
    return int(row["n"])


def test_a_call_reads_the_files_that_it_is_about(db: Database) -> None:
    with (
        db.connect() as conn,
        Rest(db, player(29)) as a,
        Rest(db, staff("s1")) as s,
        Rest(db, SERVICE) as worker,
        Storage(db) as storage,
    ):
        people(conn, 1)
        for table in (
            "public.gre_chat_attachments",
            "public.gre_storage_deletions",
            "gre.media_jobs",
            "gre.attachment_tombstones",
        ):
            conn.execute(f"alter table {table} set (autovacuum_enabled = false)".encode())
        conn.execute(
            "insert into gre_chat_attachments (id, player_id, session_id, message_id, place, by, name, kind, type, bytes, announced_bytes,"
            " object_type, state, rev, ready_at, changed_at) select gen_random_uuid(), 1 + g % 50, gen_random_uuid(), gen_random_uuid(), 0,"
            " 'player', 'x', 'image', 'image/png', 1, 1, 'image/png', 'ready', g, now(), now() from generate_series(1, 20000) g"
        )
        conn.execute(
            "insert into gre.attachment_tombstones select gen_random_uuid() from generate_series(1, 20000)"
        )
        conn.execute("insert into gre_storage_deletions (name, attachment_id, due_at) select '1/' || g, gen_random_uuid(),"
                     " now() + interval '5 minutes' from generate_series(1, 5000) g")  # fmt: skip
        sent: list[dict[str, Any]] = []
        all_of_them = (a.conn, s.conn, worker.conn, storage.conn)

        def send() -> None:
            file = stored(a, storage)
            sent.append(
                a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(file["id"])])["message"]
            )

        def examine() -> None:
            for file in worker.call("gre_media_claim_v1", worker=uuid.UUID(int=1))["files"]:
                result = {"id": file["id"], "result": "ready", "kind": "image"}
                worker.call("gre_media_settle_v1", worker=uuid.UUID(int=1), results=[result])

        def drop() -> None:
            a.call("gre_attachment_drop", id=stored(a, storage)["id"])

        def delete() -> None:
            drop()
            found = worker.call("gre_storage_deletions_claim_v1", worker=uuid.UUID(int=2), limit=10)["names"]
            before = read(conn, *all_of_them)
            results = [{"name": name, "result": "failed"} for name in found]
            worker.call("gre_storage_deletions_settle_v1", worker=uuid.UUID(int=2), results=results)
            worker.call(
                "gre_storage_deletions_settle_v1",
                worker=uuid.UUID(int=2),
                results=[{"name": "x", "result": "done"}],
            )
            assert read(conn, *all_of_them) - before <= 200

        def session() -> uuid.UUID:
            return uuid.UUID(sent[0]["session_id"])

        steps: dict[str, Callable[[], Any]] = {
            "begin": lambda: begin(a),
            "send": send,
            "history": lambda: a.call("gre_chat_history", session_id=session()),
            "history of staff": lambda: s.call("gre_chat_history", player_id=29),
            "catch up": lambda: a.call("gre_catch_up", since={sent[0]["session_id"]: 0}),
            "claim of an event": lambda: worker.call("gre_relay_claim_v1", sink="pusher", token=uuid.uuid4()),
            "examination": examine,
            "hub": lambda: worker.call(
                "gre_hub_changes_v1", sessions=[session()], positions={sent[0]["session_id"]: [0, 0]}
            ),
            "names": lambda: s.sql(
                "select * from gre_attachment_names(%s, 'view')", [uuid.UUID(sent[0]["attachments"][0]["id"])]
            ),
            "list of a user": lambda: a.sql(
                "select id from gre_chat_attachments where id = %s",
                uuid.UUID(sent[0]["attachments"][0]["id"]),
            ),
            "drop": drop,
            "objects": lambda: storage.visible(player(30)),
            "deletions": lambda: worker.call(
                "gre_storage_deletions_claim_v1", worker=uuid.UUID(int=1), limit=10
            ),
            "settled deletions": delete,
            "sweep": lambda: worker.call("gre_media_sweep_v1"),
        }
        for _ in range(7):  # also once the plans are cached
            for name, step in steps.items():
                before = read(conn, *all_of_them)
                step()
                # The claim of deletions looks at the first thousand, to say when the next one is due.
                assert read(conn, *all_of_them) - before <= (1500 if "deletions" in name else 150), name


def test_a_claim_looks_at_as_many_players_as_it_takes_files(db: Database) -> None:
    with db.connect() as conn, Rest(db, SERVICE) as worker:
        conn.execute("alter table gre.media_jobs set (autovacuum_enabled = false)")
        conn.execute(
            "with f as (insert into gre_chat_attachments (id, player_id, by, name, kind, type, bytes, announced_bytes, object_type, state)"
            " select gen_random_uuid(), g, 'player', 'x', 'file', 'x', 1, 1, 'x', 'stored' from generate_series(1, 3000) g"
            " returning id, player_id) insert into gre.media_jobs (attachment_id, player_id) select id, player_id from f"
        )
        taken: list[int] = []
        for _ in range(8):
            before = read(conn, worker.conn)
            found = worker.call("gre_media_claim_v1", worker=uuid.UUID(int=1), limit=3)["files"]
            taken += [file["player_id"] for file in found]
            assert read(conn, worker.conn) - before <= 60
        assert taken == sorted(set(taken)) and len(taken) == 24, "one after the other"
