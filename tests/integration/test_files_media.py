"""Workers examine files and delete objects: fairly, by leases, and a failure of our side never decides about a file."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, SERVICE, Conn, RefusalError, Rest, player, staff
from tests.support.desk import people
from tests.support.files import Storage, begin, name_of, stored
from tests.support.waiting import wait_until

READY = {"result": "ready", "kind": "image", "type": "image/jpeg", "width": 3, "height": 4, "preview": "abc"}
ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)


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
def worker(db: Database) -> Iterator[Rest]:
    with Rest(db, SERVICE) as rest:
        yield rest


@pytest.fixture
def storage(db: Database, conn: Conn) -> Iterator[Storage]:
    with Storage(db) as found:
        yield found


def claim(worker: Rest, by: uuid.UUID = ONE, **given: Any) -> list[str]:
    return [file["id"] for file in worker.call("gre_media_claim_v1", worker=by, **given)["files"]]


def settle(worker: Rest, *results: dict[str, Any], by: uuid.UUID = ONE) -> dict[str, Any]:
    found: dict[str, Any] = worker.call("gre_media_settle_v1", worker=by, results=list(results))
    return found


def examine(worker: Rest, file: dict[str, Any], **result: Any) -> dict[str, Any]:
    """Claim all that is due, and settle this file."""
    claim(worker, limit=100)
    return settle(worker, {"id": file["id"], **(result or READY)})


def state(conn: Conn, file: dict[str, Any] | str) -> dict[str, Any]:
    key = file if isinstance(file, str) else file["id"]
    row = conn.execute("select * from gre_chat_attachments where id = %s", [key]).fetchone()
    assert row is not None
    return row


def job(conn: Conn, file: dict[str, Any]) -> dict[str, Any]:
    row = conn.execute(
        "select *, extract(epoch from due_at - now())::float as pause from gre.media_jobs where attachment_id = %s",
        [file["id"]],
    ).fetchone()
    assert row is not None
    return row


def later(conn: Conn) -> None:
    """Let pauses and leases end."""
    conn.execute(
        "update gre.media_jobs set due_at = now(), lease_until = now() where lease_until is not null or due_at > now()"
    )
    conn.execute(
        "update gre_storage_deletions set due_at = now(), lease_until = now() where lease_until is not null or due_at > now()"
    )


def many(conn: Conn, number: int, count: int) -> list[str]:
    """Insert stored files of a player, as after as many uploads."""
    rows = conn.execute(
        "with f as (insert into gre_chat_attachments (id, player_id, by, name, kind, type, bytes, announced_bytes, object_type, state, stored_at)"
        " select gen_random_uuid(), %s, 'player', 'x', 'image', 'image/png', 1, 1, 'image/png', 'stored', now()"
        " from generate_series(1, %s) returning id) insert into gre.media_jobs (attachment_id, player_id)"
        " select id, %s from f returning attachment_id::text as id",
        [number, count, number],
    ).fetchall()
    return [row["id"] for row in rows]


def test_a_file_that_lacks_a_library_here_is_soon_due_for_another_worker(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    for code, longest in (("heic_not_installed", 120), ("killed", 600)):
        file = stored(a, storage)
        for _ in range(10):
            later(conn)
            assert claim(worker) == [file["id"]]
            settle(worker, {"id": file["id"], "result": "failed", "code": code})
        assert longest - 10 < job(conn, file)["pause"] <= longest
        later(conn)
        claim(worker)
        settle(worker, {"id": file["id"], **READY})


def test_a_stored_file_is_claimed_once_and_becomes_ready(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    assert worker.call("gre_media_claim_v1", worker=ONE) == {"files": [], "next_in": None}
    begin(a)
    file = stored(a, storage, name="x.png")
    found = worker.call("gre_media_claim_v1", worker=ONE)
    row = state(conn, file)
    assert found["files"] == [{
        "id": file["id"], "player_id": 29, "object": file["object"], "object_id": str(row["object_id"]),
        "version": row["object_version"], "type": "image/png", "name": "x.png", "bytes": 100, "attempt": 0, "own_failures": 0,
        "crashes": 0,
    }]  # fmt: skip
    assert 120 < found["next_in"] <= 125, "a lease, and a pause"
    assert claim(worker, TWO) == []
    assert settle(worker, {"id": file["id"], **READY}, by=TWO) == {
        "settled": 0,
        "busy": [],
        "lost": [file["id"]],
    }
    assert settle(worker, {"id": file["id"], **READY}) == {"settled": 1, "busy": [], "lost": []}
    row = state(conn, file)
    assert (row["state"], row["type"], row["width"], row["height"], row["preview"]) == (
        "ready",
        "image/jpeg",
        3,
        4,
        "abc",
    )
    assert (row["rev"], row["changed_at"]) == (None, None), "nobody was told of it"
    assert settle(worker, {"id": file["id"], "result": "refused"}) == {
        "settled": 0,
        "busy": [],
        "lost": [file["id"]],
    }
    assert state(conn, file) == row, "a settle that is repeated"
    assert claim(worker) == []


def test_a_lease_that_ends_is_claimed_by_another_and_counts_as_ours(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file = stored(a, storage)
    assert claim(worker, lease="30 seconds") == [file["id"]]
    assert worker.call("gre_media_extend_v1", worker=ONE, ids=[uuid.UUID(file["id"])], lease="4 minutes") == {
        "held": [file["id"]]
    }
    assert worker.call("gre_media_extend_v1", worker=TWO, ids=[uuid.UUID(file["id"])]) == {"held": []}
    assert 180 < worker.call("gre_media_claim_v1", worker=TWO)["next_in"] <= 245
    later(conn)  # the worker was killed
    assert claim(worker, TWO) == [file["id"]]
    assert settle(worker, {"id": file["id"], "result": "refused", "code": "virus"})["lost"] == [file["id"]]
    assert (job(conn, file)["own_failures"], state(conn, file)["state"]) == (1, "stored")
    conn.execute(
        "update gre.media_jobs set lease_until = now() + interval '1 day', due_at = now() + interval '1 day'"
    )
    assert claim(worker) == [file["id"]], "a clock that was set back"


def test_a_file_that_kills_its_workers_is_postponed_as_after_a_failure(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file = stored(a, storage)
    pauses = []
    for n in range(10):
        later(conn)
        (found,) = worker.call("gre_media_claim_v1", worker=ONE)["files"]
        assert (found["attempt"], found["own_failures"]) == (n, n)
        pauses.append(job(conn, file)["pause"] - 120)
        conn.execute("update gre.media_jobs set lease_until = now(), due_at = due_at - interval '2 minutes'")
        assert claim(worker, TWO) == []
    assert pauses[:3] == pytest.approx([5, 10, 20], abs=2)
    assert max(pauses) == pytest.approx(600, abs=20)
    assert state(conn, file)["state"] == "stored"
    later(conn)
    claim(worker)
    settle(worker, {"id": file["id"], "result": "failed", "code": "disk"})
    assert (job(conn, file)["attempt"], job(conn, file)["pause"]) == (11, pytest.approx(600, abs=20))


def test_a_lease_that_is_given_back_is_no_attempt(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file = stored(a, storage)
    for _ in range(3):
        assert claim(worker) == [file["id"]]
        back = {"ids": [uuid.UUID(file["id"])], "lease": "0 seconds"}
        assert worker.call("gre_media_extend_v1", worker=TWO, **back) == {"held": []}
        assert worker.call("gre_media_extend_v1", worker=ONE, **back) == {"held": [file["id"]]}
        assert worker.call("gre_media_extend_v1", worker=ONE, **back) == {"held": []}
        row = job(conn, file)
        assert (row["attempt"], row["own_failures"], row["claimed_by"]) == (0, 0, None)
    assert settle(worker, {"id": file["id"], **READY})["lost"] == [file["id"]]
    assert examine(worker, file)["settled"] == 1


def test_files_that_always_fail_take_every_second_turn_at_most(conn: Conn, worker: Rest) -> None:
    bad = {key for number in range(1, 31) for key in many(conn, number, 1)}
    for key in claim(worker, limit=100):
        settle(worker, {"id": key, "result": "failed", "code": "heic_not_installed"})
    later(conn)
    good = set(many(conn, 40, 5) + many(conn, 7, 5))
    taken = []
    for _ in range(20):
        (key,) = claim(worker, limit=1)
        settle(worker, {"id": key, **READY} if key in good else {"id": key, "result": "failed"})
        taken.append(key in good)
    assert taken == [True, False] * 10
    more = many(conn, 7, 3)
    assert [key in more for key in claim(worker, limit=6)] == [False, True] * 3, "in one claim, too"
    assert set(claim(worker, limit=100)) <= bad


def test_a_lease_is_at_most_five_minutes(a: Rest, conn: Conn, worker: Rest, storage: Storage) -> None:
    file = stored(a, storage)
    claim(worker, lease="1 day")
    row = conn.execute(
        "select extract(epoch from lease_until - now())::float as s from gre.media_jobs"
    ).fetchone()
    assert row is not None
    assert 290 < row["s"] <= 300
    assert state(conn, file)["state"] == "stored"


@pytest.mark.parametrize("limit", [1, 5])
def test_a_player_with_500_files_delays_another_by_one_claim_at_most(
    db: Database, conn: Conn, worker: Rest, storage: Storage, limit: int
) -> None:
    first = many(conn, 29, 500)
    for _ in range(3):
        for key in claim(worker, limit=limit):
            settle(worker, {"id": key, **READY})
    with Rest(db, player(30)) as b:
        file = stored(b, storage)
    found = [claim(worker, limit=limit) for _ in range(2)]
    assert file["id"] in found[0][:2] + found[1][:1]
    left = [key for keys in found for key in keys if key != file["id"]]
    assert set(left) <= set(first)
    assert len(left) == 2 * limit - 1


def test_players_take_turns_while_files_are_examined(db: Database, conn: Conn, worker: Rest) -> None:
    files = {number: set(many(conn, number, 10)) for number in (1, 2, 3)}
    taken = []
    for _ in range(9):
        (key,) = claim(worker, limit=1)
        taken.append(next(number for number, keys in files.items() if key in keys))
    assert [sorted(taken[n : n + 3]) for n in (0, 3, 6)] == [[1, 2, 3]] * 3


def test_our_failures_postpone_for_ever_and_decide_nothing(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    bad, good = stored(a, storage), stored(a, storage)
    pauses = []
    for n in range(1, 15):
        later(conn)
        assert bad["id"] in claim(worker)
        settle(worker, {"id": bad["id"], "result": "failed", "code": "storage_unreachable"})
        row = job(conn, bad)
        pauses.append(row["pause"])
        assert (row["attempt"], row["own_failures"] >= n, row["claimed_by"]) == (n, True, None)
    assert pauses[:2] == pytest.approx([5, 10], abs=2)
    assert max(pauses) <= 600
    assert pauses[-1] == pytest.approx(600, abs=20)
    assert state(conn, bad)["state"] == "stored"
    found = worker.call("gre_storage_state_v1")
    assert found["examinations"]["failing"] >= 1
    assert found["examinations"]["own_failures"] >= 14
    assert found["examinations"]["error"] == "storage_unreachable"
    later(conn)
    assert examine(worker, good)["settled"] == 1


def test_a_decoder_that_crashes_is_the_files_fault_after_three_times_while_others_pass(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    bad = stored(a, storage)
    for _ in range(4):
        later(conn)
        examine(worker, bad, result="crashed", code="signal_11")
    assert state(conn, bad)["state"] == "stored", "no other file has passed: it may be ours"
    assert job(conn, bad)["own_failures"] == 3
    examine(worker, stored(a, storage))
    later(conn)
    examine(worker, bad, result="crashed", code="signal_11")
    row = state(conn, bad)
    assert (row["state"], row["refused"], row["kind"]) == ("refused", "undecodable", "image")
    assert conn.execute("select from gre_storage_deletions").fetchall() == [], "the original is kept"


def test_a_crash_counts_only_after_three_leases(a: Rest, conn: Conn, worker: Rest, storage: Storage) -> None:
    bad = stored(a, storage)
    for n in range(3):
        assert state(conn, bad)["state"] == "stored"
        later(conn)
        examine(worker, bad, result="crashed")
        if n < 2:
            assert job(conn, bad)["own_failures"] == 0
            examine(worker, stored(a, storage))
    assert state(conn, bad)["state"] == "refused"


def test_what_changes_after_it_was_sent_raises_rev_and_is_told(
    db: Database, a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    one, two, draft = stored(a, storage), stored(a, storage), stored(a, storage)
    sent = a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(f["id"]) for f in (one, two)])[
        "message"
    ]
    session = sent["session_id"]
    rev = a.call("gre_chat_history", session_id=uuid.UUID(session))["session"]["rev"]
    changes = {"sessions": [uuid.UUID(session)], "positions": {session: [1, rev]}, "epoch": "2001-01-01"}
    assert worker.call("gre_hub_changes_v1", **changes)["sessions"] == []
    claim(worker)
    settle(
        worker,
        {"id": one["id"], **READY},
        {"id": two["id"], "result": "refused", "code": "virus"},
        {"id": draft["id"], **READY},
    )
    for players in (None, [29]):
        (entry,) = worker.call("gre_hub_changes_v1", **changes, **({"players": players} if players else {}))[
            "sessions"
        ]
        found = {f["id"]: (f["state"], f.get("refused"), f["message_id"]) for f in entry["attachments"]}
        assert found == {one["id"]: ("ready", None, sent["id"]), two["id"]: ("refused", "virus", sent["id"])}
        assert entry["session"]["rev"] == rev + 2
        assert entry["messages"] == []
    (entry,) = worker.call("gre_hub_changes_v1", **{**changes, "positions": {session: [1, rev + 1]}})[
        "sessions"
    ]
    assert len(entry["attachments"]) == 1
    fresh = {**changes, "positions": {}}
    assert len(worker.call("gre_hub_changes_v1", **fresh)["sessions"][0]["attachments"]) == 2
    assert (
        "attachments"
        not in worker.call("gre_hub_changes_v1", **{**fresh, "epoch": "2101-01-01"})["sessions"][0]
    )
    (entry,) = worker.call("gre_hub_changes_v1", **{**changes, "positions": {session: [0, -1]}})["sessions"]
    assert "attachments" not in entry, "one connection that catches up reads the messages"
    assert [f["state"] for f in entry["messages"][0]["attachments"]] == ["ready", "refused"]
    assert (
        a.call("gre_chat_history", player_id=29)["messages"][0]["attachments"]
        == entry["messages"][0]["attachments"]
    )


def test_many_changes_of_files_are_read_in_parts(a: Rest, conn: Conn, worker: Rest, storage: Storage) -> None:
    sent = a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(stored(a, storage)["id"])])[
        "message"
    ]
    session = sent["session_id"]
    rev = a.call("gre_chat_history", session_id=uuid.UUID(session))["session"]["rev"]
    rows = conn.execute(
        "with s as (update gre_chat_sessions set rev = rev + 250 returning id) insert into gre_chat_attachments (id, player_id, session_id,"
        " message_id, place, by, name, kind, type, bytes, announced_bytes, object_type, state, rev, changed_at)"
        " select gen_random_uuid(), 29, s.id, %s, 0, 'player', 'x', 'file', 'x', 1, 1, 'x', 'ready', %s + g, now()"
        " from s, generate_series(1, 250) g returning id::text, rev",
        [sent["id"], rev],
    ).fetchall()
    told: list[str] = []
    position, parts = rev, []
    while True:
        changes = {
            "sessions": [uuid.UUID(session)],
            "positions": {session: [1, position]},
            "epoch": "2001-01-01",
        }
        (entry,) = worker.call("gre_hub_changes_v1", **changes)["sessions"]
        told += [file["id"] for file in entry["attachments"]]
        parts.append(len(entry["attachments"]))
        if "files_more" not in entry:
            break
        position = entry["files_more"]
    assert parts == [100, 100, 50]
    assert told == [row["id"] for row in sorted(rows, key=lambda row: row["rev"])]


def test_a_file_whose_object_is_gone_says_so_and_its_message_stays(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file, draft = stored(a, storage), stored(a, storage)
    sent = a.call("gre_send_message", message="Look", attachment_ids=[uuid.UUID(file["id"])])["message"]
    claim(worker)
    storage.lose(file["object"], draft["object"])
    settle(worker, *({"id": f["id"], "result": "gone"} for f in (file, draft)))
    row = state(conn, file)
    assert (row["state"], row["rev"] is not None, row["ready_at"]) == ("gone", True, None)
    found = a.call("gre_chat_history", session_id=uuid.UUID(sent["session_id"]))["messages"][0]
    assert (found["message"], found["attachments"][0]["state"]) == ("Look", "gone")
    with pytest.raises(RefusalError, match="the file was deleted"):
        a.call("gre_send_message", message="x", attachment_ids=[uuid.UUID(draft["id"])])
    assert (
        a.sql(
            "select * from gre_attachment_names(%s, 'file')", [uuid.UUID(file["id"]), uuid.UUID(draft["id"])]
        )
        == []
    )


def test_a_file_whose_object_has_a_row_is_never_given_up(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    """Storage answers 404, too, while the bytes of a backup are not there yet."""
    file = stored(a, storage)
    a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(file["id"])])
    for n in range(1, 9):
        later(conn)
        assert examine(worker, file, result="gone", code="missing")["settled"] == 1
        row = job(conn, file)
        assert (row["attempt"], row["own_failures"], row["last_error"]) == (n, n, "object_missing")
    later(conn)
    examine(worker, file)
    assert state(conn, file)["state"] == "ready"


def test_only_pictures_that_were_decoded_make_a_crash_the_files_fault(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    bad = stored(a, storage)
    for _ in range(4):
        later(conn)
        examine(worker, bad, result="crashed")
        text = stored(a, storage, name="x.txt", type="text/plain")
        assert examine(worker, text, result="ready", kind="file", type="text/plain")["settled"] == 1
    assert state(conn, bad)["state"] == "stored"
    assert job(conn, bad)["own_failures"] == 3


def test_refused_files_are_examined_again_when_an_operator_says_so(
    db: Database, a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    sent, draft, virus, newer = (stored(a, storage) for _ in range(4))
    session = a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(sent["id"])])["message"][
        "session_id"
    ]
    for file, code in (
        (sent, "not_scanned"),
        (draft, "not_scanned"),
        (virus, "virus"),
        (newer, "not_scanned"),
    ):
        examine(worker, file, result="refused", code=code)
    rev = state(conn, sent)["rev"]
    for caller in (a.caller, staff("s1"), ADMIN, SERVICE.acting_as("player:29")):
        with Rest(db, caller) as rest, pytest.raises(RefusalError):
            rest.call("gre_media_again", code="not_scanned")
    again = worker.call("gre_media_again", code="not_scanned", limit=2)
    assert again["files"] == 2
    assert [state(conn, f)["state"] for f in (sent, draft, virus, newer)] == [
        "stored",
        "stored",
        "refused",
        "refused",
    ]
    row = state(conn, sent)
    assert (row["refused"], row["rev"]) == (None, rev + 1)
    changes = {"sessions": [uuid.UUID(session)], "positions": {session: [1, rev]}, "epoch": "2001-01-01"}
    (entry,) = worker.call("gre_hub_changes_v1", **changes)["sessions"]
    assert [f["state"] for f in entry["attachments"]] == ["stored"]
    # Page by page: one that is refused again meanwhile is not met twice.
    examine(worker, draft, result="refused", code="not_scanned")
    rest_of_them = worker.call("gre_media_again", code="not_scanned", after=again["next"])
    assert rest_of_them == {"files": 1, "next": None}
    assert state(conn, draft)["state"] == "refused"
    # By id, and only those that are refused.
    ids = [uuid.UUID(file["id"]) for file in (draft, virus, newer)]
    assert worker.call("gre_media_again", ids=ids, code="not_scanned")["files"] == 1
    assert worker.call("gre_media_again", ids=ids) == {"files": 1, "next": None}
    assert worker.call("gre_media_again") == {"files": 0, "next": None}
    assert examine(worker, sent)["settled"] == 1
    assert state(conn, sent)["state"] == "ready"


def test_settling_waits_for_no_lock(
    db: Database, a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file, draft, free = stored(a, storage), stored(a, storage), stored(a, storage)
    a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(file["id"])])
    claim(worker)
    worker.conn.execute("set statement_timeout = '30s'")
    results = [{"id": f["id"], **READY} for f in (file, draft, free)]
    with db.connect() as holder, holder.transaction():
        holder.execute("select from gre_chat_sessions for update")
        holder.execute("select from gre_chat_attachments where id = %s for update", [draft["id"]])
        found = settle(worker, *results)
    assert found == {"settled": 1, "busy": sorted([file["id"], draft["id"]]), "lost": []}
    assert settle(worker, *results) == {"settled": 2, "busy": [], "lost": [free["id"]]}


def test_a_result_that_cannot_be_stored_fails_no_other(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    wrong: list[dict[str, Any]] = [
        {"width": "x"}, {"kind": "video"}, {"preview": "x" * 65}, {"width": 1e12}, {"result": "perhaps"}, {"result": None},
    ]  # fmt: skip
    files = [stored(a, storage) for _ in wrong]
    good = stored(a, storage)
    claim(worker)
    results = [{**READY, **more, "id": f["id"]} for f, more in zip(files, wrong, strict=True)]
    assert settle(worker, *results, {"id": good["id"], **READY})["settled"] == 7
    assert state(conn, good)["state"] == "ready"
    assert [state(conn, f)["state"] for f in files] == ["stored"] * 6
    assert all(job(conn, f)["own_failures"] == 1 for f in files)
    with pytest.raises(RefusalError, match="array of at most 100"):
        worker.call("gre_media_settle_v1", worker=ONE, results={"id": good["id"]})


def test_a_deleted_file_is_neither_claimed_nor_settled(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file = stored(a, storage)
    claim(worker)
    a.call("gre_attachment_drop", id=file["id"])
    assert settle(worker, {"id": file["id"], **READY})["lost"] == [file["id"]]
    conn.execute("insert into gre.media_jobs (attachment_id, player_id) values (gen_random_uuid(), 29)")
    assert claim(worker) == []
    assert conn.execute("select from gre.media_jobs").fetchall() == []


# Deletions


def names(worker: Rest, by: uuid.UUID = ONE, **given: Any) -> list[str]:
    found: list[str] = worker.call("gre_storage_deletions_claim_v1", worker=by, **given)["names"]
    return found


def done(worker: Rest, *deleted: str, result: str = "done", by: uuid.UUID = ONE) -> int:
    results = [{"name": name, "result": result, "code": "http_500"} for name in deleted]
    return int(worker.call("gre_storage_deletions_settle_v1", worker=by, results=results)["done"])


def test_objects_are_deleted_by_a_worker_and_their_id_is_free_a_day_later(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file = stored(a, storage)
    storage.finish(name_of(file, "view"))
    a.call("gre_attachment_drop", id=file["id"])
    found = names(worker)
    assert found == [name_of(file, x) for x in ("original", "thumb", "view")]
    assert names(worker, TWO) == []
    assert done(worker, *found) == 1, (
        "two of them are still there: the API answers 200, too, if it deletes nothing"
    )
    rows = conn.execute(
        "select name, attempt, last_error from gre_storage_deletions order by name"
    ).fetchall()
    assert [(r["name"], r["attempt"], r["last_error"]) for r in rows] == [
        (name_of(file, "original"), 1, "still_there"), (name_of(file, "view"), 1, "still_there"),
    ]  # fmt: skip
    storage.delete(*found)
    later(conn)
    conn.execute("update gre.attachment_tombstones set at = now() - interval '2 days'")
    worker.call("gre_media_sweep_v1")
    with pytest.raises(RefusalError, match="this file was deleted"):
        begin(a, id=file["id"])  # names of it wait
    assert done(worker, *names(worker)) == 2
    worker.call("gre_media_sweep_v1")
    with pytest.raises(RefusalError, match="this file was deleted"):
        begin(a, id=file["id"])
    conn.execute("update gre.attachment_tombstones set at = at - interval '25 hours'")
    assert worker.call("gre_media_sweep_v1") == {"attachments": 0, "tombstones": 1, "more": False}
    assert begin(a, id=file["id"])["state"] == "awaited"


def test_an_object_that_cannot_be_deleted_keeps_no_other(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    bad = stored(a, storage)
    a.call("gre_attachment_drop", id=bad["id"])
    for n in range(1, 4):
        found = names(worker)
        assert done(worker, *found, result="failed", by=TWO) == 0
        assert done(worker, *found, result="failed") == 0
        row = conn.execute("select attempt, last_error, claimed_by from gre_storage_deletions").fetchone()
        assert row == {"attempt": n, "last_error": "http_500", "claimed_by": None}
        good = stored(a, storage)
        a.call("gre_attachment_drop", id=good["id"])
        assert {name.split("/")[1] for name in names(worker)} == {good["id"]}
        storage.delete(good["object"])
        assert done(worker, *(name_of(good, x) for x in ("original", "view", "thumb"))) == 3
        assert names(worker) == []
        later(conn)
    found = worker.call("gre_storage_state_v1")["deletions"]
    assert (found["waiting"], found["failing"], found["attempts"], found["error"]) == (3, 3, 3, "http_500")


def test_a_claim_of_deletions_is_bounded_and_says_when_to_come_again(
    a: Rest, conn: Conn, worker: Rest
) -> None:
    assert worker.call("gre_storage_deletions_claim_v1", worker=ONE) == {"names": [], "next_in": None}
    conn.execute(
        "insert into gre_storage_deletions (name, attachment_id) select '1/' || g, gen_random_uuid() from generate_series(1, 5) g"
    )
    assert worker.call("gre_storage_deletions_claim_v1", worker=ONE, limit=3)["next_in"] == 0
    found = worker.call("gre_storage_deletions_claim_v1", worker=TWO, limit=3, lease="20 seconds")
    assert len(found["names"]) == 2
    assert 19 < found["next_in"] <= 20


# Files that are not sent, retention, erase


def test_what_was_not_sent_is_deleted_after_a_day(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    files = {
        "awaited": begin(a),
        "stored": stored(a, storage),
        "sent": stored(a, storage),
        "new": stored(a, storage),
    }
    a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(files["sent"]["id"])])
    conn.execute(
        "update gre_chat_attachments set created_at = created_at - interval '25 hours' where id <> %s",
        [files["new"]["id"]],
    )
    conn.execute("update gre.attachment_quotas set day = day - 3")
    assert worker.call("gre_media_sweep_v1", limit=1) == {"attachments": 1, "tombstones": 0, "more": True}
    assert worker.call("gre_media_sweep_v1")["attachments"] == 1
    left = {str(r["id"]) for r in conn.execute("select id from gre_chat_attachments").fetchall()}
    assert left == {files["sent"]["id"], files["new"]["id"]}
    assert len(names(worker)) == 4
    assert conn.execute("select from gre.attachment_quotas").fetchall() == []


def test_a_file_that_is_being_sent_is_not_swept(
    db: Database, a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file = stored(a, storage)
    conn.execute("update gre_chat_attachments set created_at = created_at - interval '25 hours'")
    holder = db.connect(autocommit=False)
    holder.execute("insert into gre_chat_messages (player_id, sender, message, attachment_ids) values (29, 'player', 'x', %s)",
                   [[uuid.UUID(file["id"])]])  # fmt: skip
    assert worker.call("gre_media_sweep_v1")["attachments"] == 0
    holder.commit()
    holder.close()
    assert worker.call("gre_media_sweep_v1")["attachments"] == 0


def test_retention_deletes_files_with_their_messages(
    a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    file, draft = stored(a, storage), stored(a, storage)
    a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(file["id"])])
    conn.execute(
        "update gre_chat_sessions set status = 'closed', last_message_at = last_message_at - interval '3 days'"
    )
    conn.execute("update gre_relay_deliveries set state = 'done', settled_at = now()")
    conn.execute("alter table gre_chat_sessions disable trigger user")
    conn.execute("update gre_chat_sessions set last_message_at = now() - interval '3 days'")
    conn.execute("alter table gre_chat_sessions enable trigger user")
    conn.execute("update gre_relay_deliveries set state = 'done', settled_at = now()")
    found = worker.call("gre_relay_prune", keep="7 days", retention="2 days")
    assert (found["messages"], found["sessions"], found["attachments"]) == (1, 1, 1)
    assert [str(r["id"]) for r in conn.execute("select id from gre_chat_attachments").fetchall()] == [
        draft["id"]
    ]
    assert {name.split("/")[1] for name in names(worker)} == {file["id"]}
    assert not any(worker.call("gre_relay_prune", keep="7 days", retention="2 days").values()), (
        "the loop over pages ends"
    )


def test_an_erase_leaves_no_file_and_says_how_many_names_wait(
    db: Database, a: Rest, conn: Conn, worker: Rest, storage: Storage
) -> None:
    files = [stored(a, storage), stored(a, storage), begin(a)]
    a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(files[0]["id"])])
    with Rest(db, staff("s1")) as s, Rest(db, player(290)) as b:
        draft, other = stored(s, storage, player_id=29), stored(b, storage)
    with Rest(db, SERVICE) as back_end:
        found = back_end.call("gre_erase_player", player_id=29)
        assert (found["messages"], found["attachments"], found["objects"]) == (1, 4, 10)
        assert back_end.call("gre_erase_player", player_id=29)["objects"] == 10, "they wait"
    assert [str(r["id"]) for r in conn.execute("select id from gre_chat_attachments").fetchall()] == [
        other["id"]
    ]
    assert [
        r["who"] for r in conn.execute("select who from gre.attachment_quotas order by 1").fetchall()
    ] == ["player:290", "staff:s1"]
    waiting = names(worker)
    storage.delete(*waiting)
    done(worker, *waiting)
    assert conn.execute("select name from storage.objects").fetchall() == [{"name": other["object"]}]
    with pytest.raises(RefusalError, match="row-level security"):
        storage.finish(draft["object"])
    with Rest(db, SERVICE) as back_end:
        assert back_end.call("gre_erase_player", player_id=29)["objects"] == 0


def waiting(conn: Conn) -> bool:
    return bool(conn.execute("select from pg_locks where not granted").fetchall())


def test_an_erase_leaves_the_file_of_a_message_that_it_leaves(
    db: Database, a: Rest, conn: Conn, storage: Storage
) -> None:
    """A first message opens its session while the erase waits for its file."""
    file, draft = stored(a, storage), stored(a, storage)
    with Rest(db, SERVICE) as back_end, ThreadPoolExecutor(1) as pool, db.connect() as sender:
        with sender.transaction():
            sender.execute(
                "insert into gre_chat_messages (player_id, sender, message, attachment_ids) values (29, 'player', '', %s)",
                [[uuid.UUID(file["id"])]],
            )
            erased = pool.submit(back_end.call, "gre_erase_player", player_id=29)
            wait_until(lambda: waiting(conn))
        found = erased.result(60)
    assert (found["messages"], found["sessions"], found["objects"]) == (0, 0, 3)
    assert state(conn, file)["message_id"] is not None
    assert {str(r["id"]) for r in conn.execute("select id from gre_chat_attachments").fetchall()} == {
        file["id"]
    }
    assert {r["attachment_id"] for r in conn.execute("select attachment_id from gre_storage_deletions").fetchall()} == {
        uuid.UUID(draft["id"])
    }  # fmt: skip


def test_an_erase_waits_for_a_file_that_is_being_announced(db: Database, a: Rest, conn: Conn) -> None:
    with Rest(db, SERVICE) as back_end, ThreadPoolExecutor(1) as pool:
        with a.conn.transaction():
            begin(a)
            erased = pool.submit(back_end.call, "gre_erase_player", player_id=29)
            wait_until(lambda: waiting(conn))
        assert erased.result(60)["attachments"] == 1
    assert conn.execute("select from gre_chat_attachments").fetchall() == []
    assert conn.execute("select from gre.attachment_quotas").fetchall() == []


def test_the_state_counts_what_waits(a: Rest, conn: Conn, worker: Rest, storage: Storage) -> None:
    empty = worker.call("gre_storage_state_v1")
    assert empty == {
        "on": True, "files": {},
        "examinations": {"waiting": 0, "failing": 0, "own_failures": 0, "oldest": 0, "error": None},
        "deletions": {"waiting": 0, "failing": 0, "attempts": 0, "oldest": 0, "error": None},
    }  # fmt: skip
    begin(a)
    examine(worker, stored(a, storage))
    examine(worker, stored(a, storage), result="refused", code="virus")
    stored(a, storage)
    conn.execute(
        "update gre_chat_attachments set stored_at = stored_at - interval '1 hour' where state = 'stored'"
    )
    found = worker.call("gre_storage_state_v1")
    assert found["files"] == {"awaited": 1, "stored": 1, "refused": 1}
    assert found["examinations"]["waiting"] == 1
    assert found["examinations"]["oldest"] == pytest.approx(3600, abs=60)
