"""Storage's bucket: who may upload and fetch which object, tried with the roles and settings that Storage sets."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.conftest import Database
from tests.support.access import ADMIN, NOBODY, SERVICE, Caller, Conn, RefusalError, Rest, player, staff
from tests.support.desk import people
from tests.support.files import BUCKET, SERVICE_CLAIMS, Storage, begin, name_of, stored
from tests.support.waiting import wait_until

DENIED = '42501 42501: new row violates row-level security policy for table "objects"'


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
def storage(db: Database, conn: Conn) -> Iterator[Storage]:
    with Storage(db) as found:
        yield found


def state(conn: Conn, file: dict[str, Any]) -> dict[str, Any]:
    row = conn.execute("select * from gre_chat_attachments where id = %s", [file["id"]]).fetchone()
    assert row is not None
    return row


def denied(storage: Storage, caller: Caller, name: str, **given: Any) -> None:
    with pytest.raises(RefusalError) as found:
        storage.check(caller, name, **given)
    assert str(found.value) == DENIED
    assert found.value.detail == ""


def test_the_bucket_is_private_and_takes_no_type_that_runs(conn: Conn) -> None:
    bucket = conn.execute("select * from storage.buckets").fetchone()
    assert bucket is not None
    assert (bucket["id"], bucket["public"], bucket["file_size_limit"]) == (BUCKET, False, 26214400)
    assert "application/octet-stream" in bucket["allowed_mime_types"]
    assert not [t for t in bucket["allowed_mime_types"] if "*" in t or "svg" in t or "html" in t or "xml" in t.split("/")[-1].split("+")
                or t != t.lower()]  # fmt: skip


def test_the_check_stores_nothing_and_the_end_does(a: Rest, conn: Conn, storage: Storage) -> None:
    file = begin(a)
    storage.check(a.caller, file["object"])
    assert state(conn, file)["state"] == "awaited"
    key = storage.finish(file["object"])
    row = state(conn, file)
    version = conn.execute("select version from storage.objects").fetchone()
    assert version is not None
    assert (row["state"], row["object_id"], row["object_version"], row["bytes"]) == (
        "stored",
        key,
        version["version"],
        70,
    )
    jobs = conn.execute("select attachment_id::text, player_id from gre.media_jobs").fetchall()
    assert jobs == [{"attachment_id": file["id"], "player_id": 29}]


def test_all_that_may_not_be_uploaded_is_refused_with_one_error(
    db: Database, a: Rest, storage: Storage
) -> None:
    mine, done = begin(a), stored(a, storage)
    with Rest(db, player(30)) as b, Rest(db, staff("s1")) as s:
        others, of_staff = begin(b), begin(s, player_id=29)
    unknown = f"29/{uuid.uuid4()}/original"
    for name in (
        others["object"], unknown, done["object"], of_staff["object"], name_of(mine, "view"), name_of(done, "view"),
        name_of(mine, "other"), "x", "", f"30/{mine['id']}/original", mine["object"].upper(), "/" + mine["object"],
        mine["object"] + "/original", "29/" + "x" * 900,
    ):  # fmt: skip
        denied(storage, player(29), name)
    for caller in (NOBODY, player(30), staff("s1"), staff("s2"), ADMIN, Caller({"role": "authenticated"})):
        denied(storage, caller, mine["object"])
        denied(storage, caller, unknown)
    for caller in (NOBODY, player(29), player(30), staff("s2"), ADMIN):
        denied(storage, caller, of_staff["object"])
    storage.check(player(29), mine["object"])
    storage.check(staff("s1"), of_staff["object"])
    storage.check(SERVICE, mine["object"])  # a signed upload


def test_a_refused_upload_waits_for_no_lock(db: Database, a: Rest, storage: Storage) -> None:
    file = begin(a)
    storage.conn.execute("set statement_timeout = '30s'")
    with db.connect() as holder, holder.transaction():
        holder.execute("select from gre_chat_attachments for update")
        denied(storage, player(30), file["object"])
        denied(storage, NOBODY, file["object"])


@pytest.mark.parametrize(
    ("given", "message"),
    [({"size": 101}, "larger than announced"), ({"size": None}, "larger than announced"), ({"size": "x"}, "larger than announced"),
     ({"media_type": "text/html"}, "another type"), ({"media_type": None}, "another type"), ({"media_type": "image/png2"}, "another type")],
)  # fmt: skip
def test_the_end_of_an_upload_holds_size_and_type_to_what_was_announced(
    a: Rest, conn: Conn, storage: Storage, given: dict[str, Any], message: str
) -> None:
    file = begin(a)
    with pytest.raises(RefusalError, match=f"42501.*{message}"):
        storage.finish(file["object"], **given)
    assert state(conn, file)["state"] == "awaited"
    storage.finish(file["object"], size=100, media_type="Image/PNG; charset=x")
    assert state(conn, file)["state"] == "stored"


def test_an_object_is_never_replaced_renamed_or_moved(a: Rest, conn: Conn, storage: Storage) -> None:
    file, other = stored(a, storage), begin(a)
    before = state(conn, file)
    with pytest.raises(RefusalError, match="42501"):
        storage.finish(file["object"], size=60)  # two uploads at once: the later one would win
    conn.execute("insert into storage.buckets (id, name) values ('other', 'other')")
    changes = (
        "version = '2'", f"name = '{other['object']}'", "bucket_id = 'other'", "id = gen_random_uuid()",
    )  # fmt: skip
    for change in changes:
        with (
            pytest.raises(RefusalError, match="cannot be replaced or moved"),
            storage.request(SERVICE_CLAIMS, "storage.object.move", keep=True) as connection,
        ):
            connection.execute(f"update storage.objects set {change}".encode())
    with storage.request(SERVICE_CLAIMS, "storage.object.upload", keep=True) as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version) values ('other', 'x', '2')"
        )
        connection.execute("update storage.objects set version = '3', name = 'y' where bucket_id = 'other'")
    with (
        pytest.raises(RefusalError, match="cannot be replaced or moved"),
        storage.request(SERVICE_CLAIMS, "storage.object.move", keep=True) as connection,
    ):
        connection.execute("update storage.objects set bucket_id = 'gre-chat' where bucket_id = 'other'")
    assert state(conn, file) == before


def test_a_row_without_an_upload_never_counts(db: Database, a: Rest, conn: Conn, storage: Storage) -> None:
    """PostgREST can expose schema storage: then a person can insert a row that has no bytes."""
    file = begin(a)
    a.sql("insert into storage.objects (bucket_id, name, version, metadata) values ('gre-chat', %s, gen_random_uuid()::text, %s)",
          file["object"], Jsonb({"size": 70, "mimetype": "image/png"}))  # fmt: skip
    assert state(conn, file)["state"] == "awaited"
    assert conn.execute("select from gre.media_jobs").fetchall() == []
    with pytest.raises(RefusalError, match="42501"):
        storage.finish(file["object"])
    assert state(conn, file)["state"] == "awaited"


def test_the_upload_of_a_deleted_file_ends_in_a_refusal(a: Rest, storage: Storage) -> None:
    file = begin(a)
    storage.check(a.caller, file["object"])
    a.call("gre_attachment_drop", id=file["id"])
    with pytest.raises(RefusalError) as found:
        storage.finish(file["object"])
    assert str(found.value) == DENIED


def test_views_are_uploaded_by_the_worker_only_and_until_the_file_is_ready(
    a: Rest, conn: Conn, storage: Storage
) -> None:
    file = stored(a, storage)
    for caller in (NOBODY, a.caller, staff("s1"), ADMIN):
        denied(storage, caller, name_of(file, "view"))
    storage.upload(SERVICE, name_of(file, "view"), size=9999, media_type="image/jpeg")
    conn.execute("update gre_chat_attachments set state = 'ready'")
    denied(storage, SERVICE, name_of(file, "thumb"))
    assert state(conn, file)["object_type"] == "image/png"


def test_a_deletion_waits_for_the_end_of_an_upload(a: Rest, conn: Conn, storage: Storage) -> None:
    file = stored(a, storage)
    view = name_of(file, "view")
    with ThreadPoolExecutor(1) as pool:
        with storage.request(SERVICE_CLAIMS, "storage.object.upload", keep=True) as uploading:
            uploading.execute(
                "insert into storage.objects (bucket_id, name, version) values ('gre-chat', %s, '2')", [view]
            )
            dropped = pool.submit(a.call, "gre_attachment_drop", id=file["id"])
            wait_until(lambda: conn.execute("select from pg_locks where not granted").fetchall())
            assert not dropped.done()
        assert dropped.result(60) == {"id": file["id"]}
    names = [row["name"] for row in conn.execute("select name from gre_storage_deletions").fetchall()]
    assert view in names, "the object that was written meanwhile is deleted, too"
    with pytest.raises(RefusalError, match="42501"):
        storage.finish(name_of(file, "thumb"))


def test_who_sees_which_object(db: Database, a: Rest, conn: Conn, storage: Storage) -> None:
    with Rest(db, staff("s1")) as s:
        sent, draft = stored(a, storage), stored(a, storage)
        answer, note = stored(s, storage, player_id=29), stored(s, storage, player_id=29)
    photo, paper = sent, answer
    for file in (sent, draft, answer, note):
        for variant in ("view", "thumb"):
            storage.finish(name_of(file, variant), media_type="image/jpeg")
    mine = {sent["object"], draft["object"]}
    assert storage.visible(player(29)) == mine, "before they are examined"
    assert storage.visible(staff("s1")) == {answer["object"], note["object"]}
    conn.execute("update gre_chat_attachments set message_id = gen_random_uuid(), session_id = gen_random_uuid(), place = 0"
                 " where id = any (%s)", [[sent["id"], answer["id"]]])  # fmt: skip
    assert storage.visible(player(29)) == mine, "sent, but not examined"
    assert storage.visible(staff("s2")) == set()
    conn.execute("update gre_chat_attachments set state = 'ready', kind = case id when %s then 'file' else 'image' end",
                 [answer["id"]])  # fmt: skip
    views = {name_of(photo, "view"), name_of(photo, "thumb")}
    drafts = {name_of(draft, "view"), name_of(draft, "thumb")}
    assert storage.visible(player(29)) == mine | views | drafts | {paper["object"]}
    assert storage.visible(staff("s2")) == views | {paper["object"]}, (
        "never the original of a picture, never a draft"
    )
    assert storage.visible(ADMIN) == set(), "not staff here"
    assert storage.visible(player(30)) == set()
    assert storage.visible(NOBODY) == set()
    conn.execute("update gre_chat_attachments set state = 'refused', refused = 'undecodable'")
    assert storage.visible(player(29)) == mine, "its author alone"
    assert storage.visible(staff("s2")) == set()


def test_nobody_deletes_or_changes_an_object_as_a_user(a: Rest, conn: Conn, storage: Storage) -> None:
    stored(a, storage)
    with storage.request(a.caller.claims, "storage.object.delete", keep=True) as connection:
        assert connection.execute("delete from storage.objects").rowcount == 0
        assert connection.execute("update storage.objects set metadata = '{}'").rowcount == 0
    assert len(conn.execute("select from storage.objects").fetchall()) == 1


def test_other_buckets_and_others_objects_cost_no_function(
    db: Database, a: Rest, conn: Conn, storage: Storage
) -> None:
    conn.execute("insert into storage.buckets (id, name) values ('other', 'other')")
    stored(a, storage)
    with storage.request(SERVICE_CLAIMS, "x", keep=True) as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version) select 'other', '30/' || g, '2' from generate_series(1, 50) g"
        )
    with Rest(db, player(30)) as b, db.connect("supabase_admin") as admin:
        admin.execute("set track_functions = 'all'")

        def calls() -> int:
            admin.execute("select pg_stat_clear_snapshot()")
            row = admin.execute(
                "select coalesce(sum(calls), 0)::int as n from pg_stat_user_functions where funcname = 'may_fetch_object'"
            ).fetchone()
            assert row is not None
            return int(row["n"])

        for claims in (b.caller.claims, a.caller.claims):
            admin.execute("select set_config('role', %s, false), set_config('request.jwt.claims', %s, false)",
                          ["authenticated", json.dumps(claims)])  # fmt: skip
            admin.execute("select name from storage.objects")
            admin.execute("reset role")
            admin.execute("select pg_stat_force_next_flush()")
            assert calls() == (0 if claims is b.caller.claims else 2), "one for each of the two policies"


OPEN = "create policy open_{0} on storage.objects for {0} to anon, authenticated {1}"


def test_a_projects_own_policies_for_all_buckets_open_nothing(
    db: Database, a: Rest, conn: Conn, storage: Storage
) -> None:
    """Policies are alternatives: one of Supabase's examples allows every bucket."""
    for command, condition in (("select", "using (true)"), ("delete", "using (true)"), ("update", "using (true)"),
                               ("insert", "with check (true)")):  # fmt: skip
        conn.execute(OPEN.format(command, condition).encode())
    conn.execute("insert into storage.buckets (id, name) values ('other', 'other')")
    conn.execute("insert into storage.objects (bucket_id, name, version) values ('other', 'x', '2')")
    file, new = stored(a, storage), begin(a)
    a.call("gre_send_message", message="", attachment_ids=[uuid.UUID(file["id"])])
    with conn.transaction():
        conn.execute("set local role supabase_storage_admin")
        conn.execute("alter table storage.objects disable trigger user")  # the policies alone
    for caller in (a.caller, player(30), staff("s1"), ADMIN, NOBODY):
        assert storage.visible(caller) == ({file["object"]} if caller is a.caller else set())
        with storage.request(caller.claims, "storage.object.delete", keep=False) as connection:
            mine = "where bucket_id = 'gre-chat'"
            assert (
                connection.execute(f"update storage.objects set metadata = '{{}}' {mine}".encode()).rowcount
                == 0
            )
            assert connection.execute(f"delete from storage.objects {mine}".encode()).rowcount == 0
            assert connection.execute("delete from storage.objects").rowcount == 1, "the other bucket's"
        for name in (name_of(file, "view"), f"29/{uuid.uuid4()}/original"):
            with pytest.raises(RefusalError, match="42501"):
                storage.check(caller, name)
    storage.check(a.caller, new["object"])
    with pytest.raises(RefusalError, match="42501"):
        storage.check(player(30), new["object"])


def test_an_object_is_deleted_only_when_its_file_is(a: Rest, conn: Conn, storage: Storage) -> None:
    file, draft, lost = stored(a, storage), stored(a, storage), begin(a)
    view = name_of(file, "view")
    storage.finish(view, media_type="image/jpeg")
    storage.delete(view)  # a worker replaces it
    storage.finish(view, media_type="image/jpeg")
    for name in (file["object"], draft["object"]):
        with pytest.raises(
            RefusalError, match="42501: an object of this bucket is deleted with its file only"
        ):
            storage.delete(name)
    conn.execute("update gre_chat_attachments set state = 'ready' where id = %s", [file["id"]])
    with pytest.raises(RefusalError, match="deleted with its file only"):
        storage.delete(view)  # by a worker whose lease has ended
    a.call("gre_attachment_drop", id=draft["id"])
    storage.delete(draft["object"])
    a.sql(
        "insert into storage.objects (bucket_id, name, version) values ('gre-chat', %s, '1')", lost["object"]
    )
    a.call("gre_attachment_drop", id=lost["id"])
    conn.execute("delete from gre_storage_deletions")
    storage.delete(lost["object"])  # no file has it
    assert {row["name"] for row in conn.execute("select name from storage.objects").fetchall()} == {
        file["object"],
        view,
    }


def test_adopting_again_makes_what_is_missing(conn: Conn) -> None:
    facts = (
        "select string_agg(p.polname, ' ' order by p.polname) as p,"
        " (select string_agg(tgname, ' ' order by tgname) from pg_trigger where tgrelid = p.polrelid and tgname like 'gre%') as t"
        " from pg_policy p where p.polrelid = 'storage.objects'::regclass group by p.polrelid"
    )
    before = conn.execute(facts).fetchone()
    assert before is not None
    with conn.transaction():
        conn.execute("set local role supabase_storage_admin")
        for name in before["p"].split()[1:]:
            conn.execute(f"drop policy {name} on storage.objects".encode())
        for name in before["t"].split():
            conn.execute(f"drop trigger {name} on storage.objects".encode())
    conn.execute("select gre_storage_adopt()")
    assert conn.execute(facts).fetchone() == before
