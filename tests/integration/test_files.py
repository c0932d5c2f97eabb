"""Files are announced within limits, by one author each; an id is used once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from gre_bridge.migrations.runner import migrate
from tests.conftest import Database
from tests.support.access import SERVICE, Conn, RefusalError, Rest, player, staff
from tests.support.desk import people
from tests.support.files import Storage, begin, stored


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


def refused(rest: Rest, function: str, **arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(RefusalError) as found:
        rest.call(function, **arguments)
    return found.value.status, found.value.code, found.value.message


def test_a_file_is_announced_with_the_name_and_type_to_upload_it(a: Rest) -> None:
    key = uuid.uuid4()
    found = begin(a, id=key, name="C:\\fake\\ca\u202et.png", alt="A cat")
    assert found == {
        "id": str(key), "kind": "image", "type": "image/png", "name": "cat.png", "alt": "A cat", "bytes": 100, "width": None,
        "height": None, "preview": None, "place": None, "state": "awaited", "object": f"29/{key}/original",
        "object_type": "image/png",
    }  # fmt: skip
    assert begin(a, id=key) == found, "a repeated call"
    found["alt"] = "A small cat"
    assert begin(a, id=key, alt="A small cat") == found, "its alt text was written during the upload"
    got = a.call("gre_attachment_get", id=key)
    assert {**found, **got} == {**found, "player_id": 29, "session_id": None, "message_id": None}


@pytest.mark.parametrize(
    ("given", "uploaded", "kind"),
    [("IMAGE/JPEG; charset=x", "image/jpeg", "image"), ("image/svg+xml", "application/octet-stream", "file"),
     ("text/html", "application/octet-stream", "file"), ("TEXT/HTML", "application/octet-stream", "file"),
     ("application/pdf", "application/pdf", "file"), (None, "application/octet-stream", "file"),
     ("x" * 300_000, "application/octet-stream", "file")],
)  # fmt: skip
def test_only_types_that_nothing_runs_are_uploaded_as_they_are(
    a: Rest, given: str | None, uploaded: str, kind: str
) -> None:
    found = begin(a, type=given)
    assert (found["object_type"], found["type"], found["kind"]) == (uploaded, uploaded, kind)


@pytest.mark.parametrize(
    ("given", "name"),
    [(None, "file"), (" \u200b ", "file"), ("../../etc/passwd", "passwd"), ("a/b\\", "file"), ("..", "file"),
     ("ü 漢.pdf", "ü 漢.pdf"), ("x" * 500 + ".jpeg", "x" * 195 + ".jpeg"), ("a\nb\x7f.txt", "ab.txt")],
)  # fmt: skip
def test_a_name_is_one_line_without_folders(a: Rest, given: str | None, name: str) -> None:
    assert begin(a, name=given)["name"] == name


def test_what_is_too_large_or_malformed_is_refused(a: Rest, s: Rest, db: Database) -> None:
    key = uuid.uuid4()
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"bytes": 26214401}, 413, "file_too_large"),
        ({"bytes": -1}, 400, "attachment_invalid"),
        ({"bytes": None}, 400, "attachment_invalid"),
        ({"id": None}, 400, "attachment_invalid"),
        ({"alt": "x" * 1001}, 400, "attachment_invalid"),
        ({"name": "x" * 4001}, 400, "attachment_invalid"),
        ({"player_id": 30}, 403, "player_mismatch"),
        ({"session_id": uuid.uuid4()}, 404, "session_unknown"),
    ]
    for given, status, code in wrong:
        arguments = {"id": key, "name": "x", "type": "image/png", "bytes": 1, **given}
        assert refused(a, "gre_attachment_begin", **arguments)[:2] == (status, code), given
    assert refused(s, "gre_attachment_begin", id=key, bytes=1)[:2] == (400, "target_missing")
    with Rest(db, SERVICE) as key_holder:
        assert (
            refused(key_holder, "gre_attachment_begin", id=key, bytes=1, player_id=29)[1] == "act_as_required"
        )
    begin(a, id=key, bytes=26214400)


def test_a_blocked_player_announces_nothing(a: Rest, conn: Conn) -> None:
    conn.execute("insert into gre_chat_players (player_id, chat_enabled) values (29, false)")
    assert refused(a, "gre_attachment_begin", id=uuid.uuid4(), bytes=1)[:2] == (403, "chat_disabled")


def test_an_id_is_taken_by_what_it_was_announced_for(db: Database, a: Rest, s: Rest) -> None:
    file = begin(a)
    for given in ({"name": "dog.png"}, {"type": "image/gif"}, {"bytes": 99}):
        arguments = {"id": file["id"], "name": "cat.png", "type": "image/png", "bytes": 100, **given}
        assert refused(a, "gre_attachment_begin", **arguments)[:2] == (409, "id_taken")
    same = {"id": file["id"], "name": "cat.png", "type": "image/png", "bytes": 100}
    with Rest(db, player(30)) as b:
        assert refused(b, "gre_attachment_begin", **same)[:2] == (409, "id_taken")
    assert refused(s, "gre_attachment_begin", player_id=29, **same)[:2] == (409, "id_taken")


def test_another_players_id_is_refused_before_any_lock(db: Database, a: Rest) -> None:
    file = begin(a)
    with db.connect() as holder, holder.transaction(), Rest(db, player(30)) as b:
        holder.execute("select from gre_chat_attachments for update")
        holder.execute("select from gre.attachment_quotas for update")
        b.conn.execute("set statement_timeout = '30s'")
        assert refused(b, "gre_attachment_begin", id=file["id"], bytes=100)[1] == "id_taken"


def test_a_deleted_id_stays_taken(a: Rest, conn: Conn, storage: Storage) -> None:
    file = stored(a, storage)
    assert a.call("gre_attachment_drop", id=file["id"]) == {"id": file["id"]}
    assert refused(a, "gre_attachment_drop", id=file["id"])[:2] == (404, "attachment_not_found")
    assert refused(a, "gre_attachment_get", id=file["id"])[:2] == (404, "attachment_not_found")
    assert refused(a, "gre_attachment_begin", id=file["id"], bytes=100)[:2] == (409, "attachment_gone")
    rows = conn.execute("select name from gre_storage_deletions order by name").fetchall()
    assert [row["name"] for row in rows] == [f"29/{file['id']}/{x}" for x in ("original", "thumb", "view")]
    assert conn.execute("select from gre.media_jobs").fetchall() == []


def test_a_player_has_at_most_twenty_files_that_are_not_sent(a: Rest, db: Database, s: Rest) -> None:
    files = [begin(a) for _ in range(20)]
    assert refused(a, "gre_attachment_begin", id=uuid.uuid4(), bytes=1)[:2] == (429, "too_many_files")
    assert begin(a, id=files[0]["id"])["id"] == files[0]["id"], "a repeated call"
    begin(s, player_id=29)  # staff's are not the player's
    with Rest(db, player(30)) as b:
        begin(b)
    a.call("gre_attachment_drop", id=files[0]["id"])
    begin(a)


def test_a_player_announces_a_hundred_files_and_200_megabytes_a_day(
    a: Rest, conn: Conn, db: Database, s: Rest
) -> None:
    file = begin(a)
    begin(a, id=file["id"])
    conn.execute("update gre.attachment_quotas set begins = 99")
    begin(a)
    with pytest.raises(RefusalError) as found:
        begin(a)
    begin(a, id=file["id"])
    assert (found.value.status, found.value.code) == (429, "file_quota")
    assert 0 < int(found.value.detail.removeprefix("retry_after=")) <= 86400
    with Rest(db, player(30)) as b:
        for _ in range(8):
            begin(b, bytes=26214400)
        assert refused(b, "gre_attachment_begin", id=uuid.uuid4(), bytes=1)[1] == "file_quota"
    conn.execute("update gre.attachment_quotas set day = day - 1")
    begin(a, id=file["id"])
    conn.execute(
        "insert into gre.attachment_quotas (who, day, begins) values ('staff:s1', (now() at time zone 'UTC')::date, 499)"
    )
    mine = begin(s, player_id=29, bytes=26214400)
    assert refused(s, "gre_attachment_begin", id=mine["id"], player_id=29, bytes=1)[1] == "id_taken"
    with pytest.raises(RefusalError, match="too many files today"):
        begin(s, player_id=29)


def test_a_file_is_announced_again_thirty_times_a_minute_and_its_day_counts_one(
    a: Rest, conn: Conn, s: Rest
) -> None:
    """While Storage is away, a page begins again and again."""
    for rest, given in ((a, {}), (s, {"player_id": 29})):
        file = begin(rest, **given)
        refusals: list[RefusalError] = []
        for minute in range(4):
            if minute:  # the clock goes on
                conn.execute("update gre.attachment_quotas set minute = minute - interval '1 minute'")
            for _ in range(33):
                try:
                    begin(rest, id=file["id"], **given)
                except RefusalError as error:
                    refusals.append(error)
            begin(rest, **given)
        assert {(error.status, error.code) for error in refusals} == {(429, "too_fast")}
        assert 9 <= len(refusals) <= 12, "fewer if a minute ended"
        assert all(0 < int(error.detail.removeprefix("retry_after=")) <= 60 for error in refusals)
    rows = conn.execute("select who, begins, bytes from gre.attachment_quotas order by who").fetchall()
    assert [tuple(row.values()) for row in rows] == [("player:29", 5, 500), ("staff:s1", 5, 500)]


def test_who_owned_a_deleted_id_is_not_told_to_others(db: Database, a: Rest, s: Rest, conn: Conn) -> None:
    mine, alive, of_staff = begin(a), begin(a), begin(s, player_id=29)
    for rest, file in ((a, mine), (s, of_staff)):
        rest.call("gre_attachment_drop", id=file["id"])
    with Rest(db, player(30)) as b:
        answers = [refused(b, "gre_attachment_begin", id=f["id"], bytes=100) for f in (mine, of_staff, alive)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][:2] == (409, "id_taken")
    assert refused(a, "gre_attachment_begin", id=of_staff["id"], bytes=100) == answers[0]
    assert refused(s, "gre_attachment_begin", id=mine["id"], player_id=29, bytes=100) == answers[0]
    assert (
        refused(s, "gre_attachment_begin", id=of_staff["id"], player_id=29, bytes=100)[1] == "attachment_gone"
    )
    with Rest(db, SERVICE) as back_end:
        back_end.call("gre_erase_player", player_id=29)
    rows = conn.execute("select id::text, who from gre.attachment_tombstones").fetchall()
    assert {row["id"]: row["who"] for row in rows} == {
        mine["id"]: None, alive["id"]: None, of_staff["id"]: "staff:s1",
    }  # fmt: skip


def test_files_are_off_until_storage_is_adopted(supabase_db: Database, pg: EmbeddedPostgres) -> None:
    with supabase_db.connect("supabase_admin") as admin:
        admin.execute("drop event trigger storage_refuse_ddl")
        admin.execute("drop schema storage cascade")
    said: list[str] = []
    migrate(supabase_db.dsn(), on_progress=said.append)
    assert any("takes no files" in line for line in said)
    with Rest(supabase_db, player(29)) as a:
        assert a.call("gre_send_message", message="x")["message"]["seq"] == 1
        assert refused(a, "gre_attachment_begin", id=uuid.uuid4(), bytes=1)[:2] == (503, "files_off")
        pg.install_supabase(supabase_db.name)
        assert refused(a, "gre_attachment_begin", id=uuid.uuid4(), bytes=1)[:2] == (503, "files_off")
        for _ in range(2):
            assert migrate(supabase_db.dsn()) == []
        with Storage(supabase_db) as storage:
            file = stored(a, storage)
            assert a.call("gre_attachment_get", id=file["id"])["state"] == "stored"
