"""Any order of announcing, uploading, sending, examining, deleting and being killed keeps the invariants of files.

Each step is one transaction of one of the parties. The model is Storage itself: which names have ever been written.
"""

from __future__ import annotations

import uuid
from random import Random
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.conftest import Database
from tests.support.access import SERVICE, RefusalError, Rest, player
from tests.support.files import Storage

PLAYERS = (29, 30)
IDS = [str(uuid.UUID(int=n + 1)) for n in range(4)]
WORKERS = (uuid.UUID(int=101), uuid.UUID(int=102))
RESULTS: tuple[dict[str, Any], ...] = (
    {"result": "ready", "kind": "image", "type": "image/png", "width": 1, "height": 1},
    {"result": "ready", "kind": "file", "type": "application/pdf"},
    {"result": "refused", "code": "virus"},
    {"result": "failed", "code": "storage_unreachable"},
    {"result": "crashed"},
)


def choose(rng: Random) -> tuple[Any, ...]:
    """Return a step: the name of a method and its arguments. Those that others need come more often."""
    number, key, by, n = rng.choice(PLAYERS), rng.choice(IDS), rng.choice(WORKERS), rng.randrange(10)
    result = rng.choice(RESULTS)
    deletion = ("delete_objects", n, rng.random() < 0.5, rng.choice(["done", "failed"]))
    end = rng.choice([("sweep",), ("a_day_passes",), ("prune",), ("erase", number)])
    store = ("store", number, rng.choice([key, str(uuid.UUID(int=rng.getrandbits(128), version=4))]))
    sends = ("send_what_is_there", number, rng.randrange(1, 4), rng.random() < 0.3)
    return rng.choice([
        store, store, store, sends, sends, deletion, deletion, deletion, ("examine", by, result), ("examine", by, result),
        ("begin", number, key),
        ("check", number, key),
        ("make_view", rng.choice(["view", "thumb"]), number),
        ("finish", n, rng.choice([70, 70, 101])),
        ("send", number, rng.sample(IDS, rng.randrange(4)), rng.choice([None, *IDS[:2]])),
        ("drop", number, key),
        ("drop_what_is_there", number),
        ("claim", by, n % 3 + 1),
        ("settle", n, result),
        ("end_leases",),
        ("claim_deletions", by),
        end,
    ])  # fmt: skip


def refused(error: RefusalError, *codes: str) -> None:
    """Check the code of a refusal; another one is an error of the schema."""
    assert error.code in codes, error


class Files(RuleBasedStateMachine):
    """The parties, and what each of them holds between two transactions."""

    db: Database

    def __init__(self) -> None:
        super().__init__()
        self.admin = self.db.connect()
        self.admin.execute("select set_config('storage.allow_delete_query', 'true', false)")
        self.admin.execute(
            "truncate gre_chat_sessions, gre_chat_messages, gre_relay_deliveries, gre_chat_attachments, gre_storage_deletions,"
            " gre.media_jobs, gre.attachment_tombstones, gre.attachment_quotas, gre_chat_notes, gre_chat_blocks,"
            " gre_chat_assignments, gre_auto_sent, gre_timers, gre_relay_lanes"
        )
        self.admin.execute("delete from storage.objects")
        self.rest = {number: Rest(self.db, player(number)) for number in PLAYERS}
        self.worker, self.back_end = Rest(self.db, SERVICE), Rest(self.db, SERVICE)
        self.storage = Storage(self.db)
        self.uploading: list[str] = []
        """Names whose check has passed and whose bytes arrive."""
        self.written: dict[str, str] = {}
        """Each name that was ever written, with its version: while its file's id is taken it must not change."""
        self.announced: set[str] = set()
        """Names of the files of messages that were committed, until the message is deleted."""
        self.claimed: list[tuple[uuid.UUID, str]] = []
        self.deleting: list[tuple[uuid.UUID, str]] = []

    def teardown(self) -> None:
        for one in (*self.rest.values(), self.worker, self.back_end, self.storage):
            one.conn.close()
        self.admin.close()

    def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        return self.admin.execute(query.encode(), args).fetchall()

    def begin(self, number: int, key: str) -> None:
        taken = self.rows(
            "select from gre.attachment_tombstones where id = %s union all select from gre_storage_deletions where attachment_id = %s",
            key, key,
        )  # fmt: skip
        try:
            self.rest[number].call(
                "gre_attachment_begin",
                id=uuid.UUID(key),
                player_id=number,
                name="x",
                type="image/png",
                bytes=100,
            )
        except RefusalError as error:
            refused(error, "id_taken", "attachment_gone", "file_quota")
        else:
            assert not taken, "an id is free while a name of it waits"

    def check(self, number: int, key: str) -> None:
        name = f"{number}/{key}/original"
        try:
            self.storage.check(player(number), name)
        except RefusalError as error:
            refused(error, "42501")
        else:
            self.uploading.append(name)

    def store(self, number: int, key: str) -> None:
        """All steps of an upload, so that more of the others find a file."""
        waiting, self.uploading = self.uploading, []
        self.begin(number, key)
        self.check(number, key)
        self.finish(0, 70)
        self.uploading += waiting

    def make_view(self, variant: str, number: int) -> None:
        for row in self.rows(
            "select id from gre_chat_attachments where player_id = %s and state <> 'awaited' limit 1", number
        ):
            self.uploading.append(f"{number}/{row['id']}/{variant}")
            self.finish(len(self.uploading) - 1, 70)

    def finish(self, n: int, size: int) -> None:
        if not self.uploading:
            return
        name = self.uploading[n % len(self.uploading)]  # it stays: a second upload of the name
        try:
            self.storage.finish(name, size=size)
        except RefusalError as error:
            refused(error, "42501")
            return
        assert size <= 100 or not name.endswith("original")
        (row,) = self.rows("select version from storage.objects where name = %s", name)
        assert name not in self.written, "a name is used twice"
        self.written[name] = row["version"]

    def send(self, number: int, files: list[str], key: str | None) -> None:
        arguments = {
            "message": "x",
            "attachment_ids": [uuid.UUID(f) for f in files],
            "id": uuid.UUID(key) if key else None,
        }
        try:
            found = self.rest[number].call("gre_send_message", **arguments)
        except RefusalError as error:
            refused(
                error,
                "id_conflict",
                *(f"attachment_{x}" for x in ("not_found", "not_stored", "used", "gone", "refused")),
            )
            return
        message = found["message"]
        assert [f["id"] for f in message.get("attachments", [])] == files
        for file in message.get("attachments", []):
            assert file["state"] in ("stored", "ready") or found["duplicate"]
            self.announced.add(f"{number}/{file['id']}/original")

    def send_what_is_there(self, number: int, count: int, sent: bool) -> None:
        """Send files that are stored; with `sent`, also those that were sent before."""
        rows = self.rows(
            "select id::text from gre_chat_attachments where player_id = %s and (%s or message_id is null) and state in ('stored', 'ready')"
            " order by message_id nulls last, id limit %s", number, sent, count
        )  # fmt: skip
        if rows:
            self.send(number, [row["id"] for row in rows], None)

    def drop(self, number: int, key: str) -> None:
        try:
            self.rest[number].call("gre_attachment_drop", id=uuid.UUID(key))
        except RefusalError as error:
            refused(error, "attachment_not_found", "attachment_used")

    def drop_what_is_there(self, number: int) -> None:
        for row in self.rows(
            "select id from gre_chat_attachments where player_id = %s and message_id is null limit 1", number
        ):
            self.drop(number, str(row["id"]))

    def claim(self, by: uuid.UUID, limit: int) -> None:
        held = {
            str(r["attachment_id"])
            for r in self.rows("select attachment_id from gre.media_jobs where lease_until > now()")
        }
        found = [f["id"] for f in self.worker.call("gre_media_claim_v1", worker=by, limit=limit)["files"]]
        assert not held & set(found), "two workers have one file"
        self.claimed += [(by, key) for key in found]

    def settle(self, n: int, result: dict[str, Any]) -> None:
        if self.claimed:
            by, key = self.claimed[n % len(self.claimed)]  # it stays: a repeated settle
            self.worker.call("gre_media_settle_v1", worker=by, results=[{"id": key, **result}])

    def examine(self, by: uuid.UUID, result: dict[str, Any]) -> None:
        self.end_leases()
        self.claim(by, 2)
        self.settle(-1, result)

    def end_leases(self) -> None:
        self.admin.execute("update gre.media_jobs set due_at = now(), lease_until = now() where true")
        self.admin.execute("update gre_storage_deletions set due_at = now(), lease_until = now()")

    def sweep(self) -> None:
        self.admin.execute("update gre_chat_attachments set created_at = created_at - interval '25 hours'")
        self.worker.call("gre_media_sweep_v1")

    def a_day_passes(self) -> None:
        self.admin.execute("update gre.attachment_tombstones set at = at - interval '25 hours'")
        before = {str(r["id"]) for r in self.rows("select id from gre.attachment_tombstones")}
        self.worker.call("gre_media_sweep_v1")
        for key in before - {str(r["id"]) for r in self.rows("select id from gre.attachment_tombstones")}:
            self.written = {name: version for name, version in self.written.items() if key not in name}
            self.uploading = [name for name in self.uploading if key not in name]
            assert not self.rows("select from storage.objects where name like %s", f"%{key}%")

    def claim_deletions(self, by: uuid.UUID) -> None:
        self.deleting += [
            (by, name)
            for name in self.worker.call("gre_storage_deletions_claim_v1", worker=by, limit=2)["names"]
        ]

    def delete_objects(self, n: int, really: bool, result: str) -> None:
        if not self.deleting:
            self.end_leases()
            self.claim_deletions(WORKERS[0])
        if not self.deleting:
            return
        by, name = self.deleting.pop(n % len(self.deleting))
        if really:
            assert name not in self.announced, "an announced file is deleted"
            self.storage.delete(name)
        self.worker.call(
            "gre_storage_deletions_settle_v1", worker=by, results=[{"name": name, "result": result}]
        )

    def prune(self) -> None:
        self.admin.execute("update gre_chat_sessions set status = 'closed'")
        self.admin.execute("update gre_relay_deliveries set state = 'done', settled_at = now()")
        self.admin.execute("alter table gre_chat_sessions disable trigger user")
        self.admin.execute(
            "update gre_chat_sessions set last_message_at = now() - interval '3 days', created_at = now() - interval '3 days'"
        )
        self.admin.execute("alter table gre_chat_sessions enable trigger user")
        self.back_end.call("gre_relay_prune", keep="7 days", retention="2 days")
        self.announced.clear()

    def erase(self, number: int) -> None:
        self.back_end.call("gre_erase_player", player_id=number)
        assert self.rows("select from gre_chat_attachments where player_id = %s", number) == []
        self.announced = {name for name in self.announced if not name.startswith(f"{number}/")}
        kept = {
            r["name"] for r in self.rows("select name from storage.objects where name like %s", f"{number}/%")
        }
        waiting = {r["name"] for r in self.rows("select name from gre_storage_deletions")}
        assert kept <= waiting

    @rule(rng=st.randoms(use_true_random=True))
    def steps(self, rng: Random) -> None:
        """Some steps. A step as a rule of its own would be left out of most runs, and most steps need the others."""
        for _ in range(10):
            step = choose(rng)
            note(repr(step))
            getattr(self, step[0])(*step[1:])
            self.check_invariants_of_files()

    def check_invariants_of_files(self) -> None:
        self.each_file_of_a_message_is_there_whole()
        self.each_object_has_its_file_or_waits_for_its_deletion()
        self.what_is_stored_is_examined_and_nothing_else()
        self.a_waiting_name_has_a_tombstone()

    def each_file_of_a_message_is_there_whole(self) -> None:
        rows = self.rows(
            "select m.id, a.state, o.name, o.version, a.object_version, o.id = a.object_id as same from gre_chat_messages m"
            " cross join unnest(m.attachment_ids) f (id) left join gre_chat_attachments a on a.id = f.id and a.message_id = m.id"
            " left join storage.objects o on o.name = a.player_id || '/' || a.id || '/original'"
        )
        for row in rows:
            assert row["name"] in self.announced
            assert row["state"] in ("stored", "ready", "refused")
            assert row["same"]
            assert row["version"] == row["object_version"] == self.written[row["name"]]
        assert len(rows) == len(self.announced)

    def each_object_has_its_file_or_waits_for_its_deletion(self) -> None:
        assert self.rows(
            "select o.name from storage.objects o where not exists (select from gre_chat_attachments a"
            " where a.id::text = split_part(o.name, '/', 2) and a.state <> 'awaited')"
            " and not exists (select from gre_storage_deletions d where d.name = o.name)"
        ) == []  # fmt: skip

    def what_is_stored_is_examined_and_nothing_else(self) -> None:
        assert self.rows(
            "select a.id from gre_chat_attachments a full join gre.media_jobs j on j.attachment_id = a.id"
            " where (a.state is not distinct from 'stored') <> (j.attachment_id is not null)"
        ) == []  # fmt: skip

    def a_waiting_name_has_a_tombstone(self) -> None:
        assert self.rows(
            "select name from gre_storage_deletions d where not exists (select from gre.attachment_tombstones t where t.id = d.attachment_id)"
            " or exists (select from gre_chat_attachments a where a.id = d.attachment_id)"
        ) == []  # fmt: skip


def test_any_order_of_steps_keeps_the_invariants(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("insert into gre_staff (staff_id, role) values ('a1', 'admin')")
    machine = type("Machine", (Files,), {"db": db})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=15, stateful_step_count=8, deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )  # fmt: skip
