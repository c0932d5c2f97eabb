"""The embedded stack with a bucket and policies as the recordings of Storage have them, and helpers to speak to it."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import psycopg
from psycopg.rows import dict_row

from gre_bridge.devstack.stack import Stack

POLICIES = """
create policy conf_insert on storage.objects for insert to authenticated
  with check (bucket_id = 'conf' and (storage.foldername(name))[1] = auth.jwt()->'app_metadata'->>'player_id');
create policy conf_select on storage.objects for select to authenticated
  using (bucket_id = 'conf' and ((storage.foldername(name))[1] = auth.jwt()->'app_metadata'->>'player_id'
                                 or auth.jwt()->'app_metadata'->>'gre_role' = 'staff'));
"""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
IMAGE = {"content-type": "image/png"}
BOUNDARY = "----gre"
Json = dict[str, Any]


def multipart(
    fields: list[tuple[str, str]], filename: str, data: bytes, mime_type: str | None, *,
    field: str = "", after: tuple[tuple[str, str], ...] = (),
) -> tuple[bytes, dict[str, str]]:  # fmt: skip
    """The body and the header of a form, with text fields before and after its file."""

    def text(name: str, value: str) -> bytes:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        return f"{head}{value}\r\n".encode()

    body = b"".join(text(name, value) for name, value in fields)
    body += (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'.encode()
    )
    body += f"Content-Type: {mime_type}\r\n".encode() if mime_type else b""
    body += b"\r\n" + data + b"\r\n" + b"".join(text(name, value) for name, value in after)
    return body + f"--{BOUNDARY}--\r\n".encode(), {
        "content-type": f"multipart/form-data; boundary={BOUNDARY}"
    }


@dataclass
class Lab:
    """A running stack, a client for /storage/v1, and tokens."""

    stack: Stack
    http: httpx.AsyncClient

    def token(self, role: str = "service_role", *, expires_in: float = 3600, **claims: Any) -> str:
        secret = claims.pop("secret", self.stack.keys.jwt_secret)
        now = time.time()
        return jwt.encode(
            {"role": role, "iat": int(now) - 1, "exp": int(now + expires_in), **claims}, secret, "HS256"
        )

    def player(self, number: int, **claims: Any) -> str:
        metadata = {"gre_role": "player", "player_id": number}
        subject = claims.pop("sub", f"00000000-0000-4000-8000-{number:012}")
        return self.token("authenticated", sub=subject, app_metadata=metadata, **claims)

    def staff(self) -> str:
        metadata = {"gre_role": "staff", "staff_id": "s1"}
        return self.token("authenticated", sub="staff-s1", app_metadata=metadata)

    async def ask(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        headers = {**(options.pop("headers", None) or {})}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return await self.http.request(method, path, headers=headers, **options)

    async def upload(
        self, name: str, data: Any = PNG, token: str | None = None, **headers: str
    ) -> httpx.Response:
        """POST to the bucket `conf`, as player 29 unless a token is given."""
        headers = {**IMAGE, **{key.replace("_", "-"): value for key, value in headers.items()}}
        return await self.ask(
            "POST", f"/object/conf/{name}", token or self.player(29), content=data, headers=headers
        )

    async def fault(self, rule: Any) -> None:
        answer = await self.http.post(f"{self.stack.url}/__stack/faults", json={"storage": rule})
        assert answer.status_code == 200, answer.text

    async def held(self) -> int:
        answer = await self.http.get(f"{self.stack.url}/__stack/faults")
        return sum(rule["held"] for rule in answer.json()["storage"])

    async def sql(self, statement: str, *values: Any, user: str = "postgres") -> list[Json]:
        def run() -> list[Json]:
            with psycopg.connect(
                self.stack.postgres.dsn(user=user), autocommit=True, row_factory=dict_row
            ) as connection:
                cursor = connection.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []

        return await asyncio.to_thread(run)

    async def row(self, name: str) -> Json | None:
        rows = await self.sql("select * from storage.objects where bucket_id = 'conf' and name = %s", name)
        return rows[0] if rows else None

    def files(self) -> list[str]:
        """Where bytes are, below the stack's directory."""
        directory = self.stack.data_dir / "storage"
        return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())

    async def bucket(self, name: str, **options: Any) -> None:
        """Make a bucket, or make it anew."""
        await self.ask("POST", f"/bucket/{name}/empty", self.token(), json={})
        await self.ask("DELETE", f"/bucket/{name}", self.token())
        made = await self.ask("POST", "/bucket", self.token(), json={"id": name, "name": name, **options})
        assert made.status_code == 200, made.text


def error(answer: httpx.Response) -> tuple[int, str, str, str]:
    """HTTP status, and the body's statusCode, code and message."""
    body = answer.json()
    return answer.status_code, body["statusCode"], body["code"], body["message"]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


Raiser = Callable[[str, str], str]


def raiser(when: str, action: str) -> str:
    """SQL of a trigger on storage.objects that acts `when` a condition on the new row holds."""
    return f"""
      create or replace function public.act() returns trigger language plpgsql as $$ begin
        if {when} then {action} end if; return new; end $$;
      create or replace trigger act before insert or update on storage.objects for each row execute function public.act();
    """
