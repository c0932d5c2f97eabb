"""One player cannot read, name or probe another's files: what is not its own answers as what does not exist."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.access import NOBODY, WORKER, Caller, Conn, RefusalError, Rest, player, staff, user
from tests.support.desk import people
from tests.support.files import Storage, begin, name_of, stored


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        people(found, 2)
        yield found


@pytest.fixture
def files(db: Database, conn: Conn) -> list[str]:
    """Ids of player 29's files in each state, sent and not, and of one that does not exist."""
    found = []
    with Rest(db, player(29)) as a, Storage(db) as storage:
        found.append(begin(a)["id"])
        for state in ("stored", "ready", "refused", "gone"):
            for sent in (False, True):
                file = stored(a, storage)
                for variant in ("view", "thumb"):
                    storage.finish(name_of(file, variant))
                conn.execute(
                    "update gre_chat_attachments set state = %s, session_id = %s, message_id = %s, place = %s where id = %s",
                    [state, *((uuid.uuid4(), uuid.uuid4(), 0) if sent else (None,) * 3), file["id"]],
                )
                found.append(file["id"])
    return [*found, str(uuid.uuid4())]


def answer(rest: Rest, function: str, **arguments: Any) -> str:
    try:
        return f"found {rest.call(function, **arguments)}"
    except RefusalError as error:
        return f"{error.sqlstate} {error.code} {error.message} {error.detail}"


@pytest.mark.parametrize(
    "caller", [player(30), user(), staff("gone"), NOBODY, WORKER], ids=["player", "user", "former", "anon", "worker"]
)  # fmt: skip
def test_anothers_file_answers_as_one_that_does_not_exist(
    db: Database, files: list[str], caller: Caller
) -> None:
    with Rest(db, caller) as rest, Storage(db) as storage:
        for function in ("gre_attachment_get", "gre_attachment_drop"):
            assert len({answer(rest, function, id=key) for key in files}) == 1
        for variant in ("thumb", "view", "file"):
            found = {names(rest, [uuid.UUID(key)], variant) for key in files}
            assert len(found) == 1
            assert "cat" not in str(found)
        if caller is not WORKER:
            assert storage.visible(caller) == set()
        if caller.claims["role"] == "authenticated":
            assert rest.sql("select id, name, state from gre_chat_attachments") == []


def names(rest: Rest, ids: list[uuid.UUID], variant: str) -> str:
    try:
        return str(rest.sql("select * from gre_attachment_names(%s, %s)", ids, variant))
    except RefusalError as error:
        return str(error)


def test_an_author_reads_its_files_and_staff_those_that_were_sent(
    db: Database, conn: Conn, files: list[str]
) -> None:
    with Rest(db, player(29)) as a, Rest(db, staff("s1")) as s:
        assert len(a.sql("select id from gre_chat_attachments")) == 9
        assert len(s.sql("select id from gre_chat_attachments")) == 4
        for column in ("object_id", "object_version", "object_type", "announced_bytes"):
            with pytest.raises(RefusalError, match="permission denied"):
                a.sql(f"select {column} from gre_chat_attachments")  # type: ignore[arg-type]
        ids = [uuid.UUID(key) for key in files]

        def fetched(rest: Rest, variant: str) -> list[tuple[str, str]]:
            rows = rest.sql("select id::text, object, name from gre_attachment_names(%s, %s)", ids, variant)
            assert {row["name"] for row in rows} <= {"cat.png"}
            return sorted((row["id"], row["object"].rpartition("/")[2]) for row in rows)

        ready = sorted(files[3:5])
        kept = sorted(files[1:7])  # all but what is awaited, gone or unknown
        assert fetched(a, "view") == [(key, "view") for key in ready]
        assert fetched(a, "thumb") == [(key, "thumb") for key in ready]
        assert fetched(a, "file") == [(key, "original") for key in kept]
        assert fetched(s, "thumb") == [(files[4], "thumb")]
        assert fetched(s, "file") == [(files[4], "view")], "the original of a picture is its author's"
        # A view is a JPEG or WebP, whatever the picture was: it is saved as one.
        picture = [uuid.UUID(files[4])]
        for name, saved in (
            ("cat.JPG", "cat.JPG"), ("cat.webp", "cat.webp"), ("IMG_0001.HEIC", "IMG_0001.jpg"), ("cat.avif", "cat.jpg"),
            ("page.html", "page.html.jpg"), ("setup.exe", "setup.exe.jpg"), ("cat", "cat.jpg"),
        ):  # fmt: skip
            conn.execute("update gre_chat_attachments set name = %s where id = %s", [name, files[4]])
            for rest, expected in ((s, saved), (a, name)):
                (row,) = rest.sql("select name from gre_attachment_names(%s, 'file')", picture)
                assert row["name"] == expected
        with pytest.raises(RefusalError, match="at most 100 ids"):
            s.sql("select * from gre_attachment_names(%s, 'view')", [uuid.uuid4() for _ in range(101)])
        with pytest.raises(RefusalError, match="variant must be"):
            s.sql("select * from gre_attachment_names(%s, 'original')", ids)
