"""Files in tests: announcing them, and the two transactions of an upload as Supabase Storage runs them.

The facts are those of Storage 1.70.6: the check as the caller, with version 1 and rolled back; then, after the bytes are
stored, an upsert as service_role.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from tests.conftest import Database
from tests.support.access import Caller, Conn, RefusalError, Rest

BUCKET = "gre-chat"
SERVICE_CLAIMS = {"role": "service_role"}


class Storage:
    """Supabase Storage's connection to the database."""

    def __init__(self, db: Database) -> None:
        self.conn = db.connect("supabase_storage_admin")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.conn.close()

    @contextmanager
    def request(self, claims: Any, operation: str, *, keep: bool) -> Iterator[Conn]:
        """One transaction, with the role and settings of Storage."""
        try:
            with self.conn.transaction(force_rollback=not keep):
                self.conn.execute(
                    "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true),"
                    " set_config('storage.operation', %s, true), set_config('storage.allow_delete_query', 'true', true)",
                    [claims["role"], json.dumps(claims), operation],
                )
                yield self.conn
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            raise RefusalError(error) from None

    def check(self, caller: Caller, name: str, *, size: int = 70, media_type: str = "image/png") -> None:
        """Ask as the caller whether it may upload; raises RefusalError."""
        with self.request(caller.claims, "storage.object.upload", keep=False) as conn:
            conn.execute(
                "insert into storage.objects (bucket_id, name, version, metadata) values (%s, %s, '1', %s)",
                [BUCKET, name, Jsonb({"mimetype": media_type, "contentLength": size})],
            )

    def finish(self, name: str, *, size: int = 70, media_type: str = "image/png") -> UUID:
        """Write the object's row after its bytes are stored, and return its id; raises RefusalError."""
        with self.request(SERVICE_CLAIMS, "storage.object.upload", keep=True) as conn:
            row = conn.execute(
                "insert into storage.objects (bucket_id, name, version, metadata) values (%s, %s, %s, %s)"
                " on conflict (name, bucket_id) do update set version = excluded.version, metadata = excluded.metadata"
                " returning id",
                [BUCKET, name, str(uuid.uuid4()), Jsonb({"mimetype": media_type, "size": size})],
            ).fetchone()
        assert row is not None
        found: UUID = row["id"]
        return found

    def upload(self, caller: Caller, name: str, *, size: int = 70, media_type: str = "image/png") -> UUID:
        """Do both."""
        self.check(caller, name, size=size, media_type=media_type)
        return self.finish(name, size=size, media_type=media_type)

    def delete(self, *names: str) -> None:
        """Delete objects, as the API does for the service key."""
        with self.request(SERVICE_CLAIMS, "storage.object.delete_many", keep=True) as conn:
            conn.execute(
                "delete from storage.objects where bucket_id = %s and name = any (%s)", [BUCKET, list(names)]
            )

    def lose(self, *names: str) -> None:
        """Let objects be gone without a deletion, as after a restore."""
        with self.conn.transaction():
            self.conn.execute("alter table storage.objects disable trigger user")
            self.conn.execute("delete from storage.objects where name = any (%s)", [list(names)])
            self.conn.execute("alter table storage.objects enable trigger user")

    def visible(self, caller: Caller) -> set[str]:
        """Return the names that the caller can list, or sign a download of."""
        with self.request(caller.claims, "storage.object.list", keep=False) as conn:
            rows = conn.execute("select name from storage.objects where bucket_id = %s", [BUCKET]).fetchall()
        return {row["name"] for row in rows}


def begin(rest: Rest, **given: Any) -> dict[str, Any]:
    """Announce a file as this caller."""
    arguments = {
        "id": uuid.uuid4(), "name": "cat.png", "type": "image/png", "bytes": 100, **given,
    }  # fmt: skip
    found: dict[str, Any] = rest.call("gre_attachment_begin", **arguments)
    return found


def stored(rest: Rest, storage: Storage, **given: Any) -> dict[str, Any]:
    """Announce a file and upload it."""
    found = begin(rest, **given)
    storage.upload(rest.caller, found["object"], size=found["bytes"], media_type=found["object_type"])
    return found


def name_of(file: dict[str, Any], variant: str) -> str:
    """The name of another object of an announced file."""
    return str(file["object"]).removesuffix("original") + variant
