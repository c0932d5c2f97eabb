"""The embedded Storage answers like the real one: 83 exchanges recorded from v1.70.6, what else was measured, real clients."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from supabase import AsyncClient, StorageException, acreate_client

from gre_bridge.devstack.storage.request import Request
from gre_bridge.devstack.storage.upload_body import UploadBody
from tests.conformance.storage_lab import (
    BOUNDARY,
    IMAGE,
    PNG,
    POLICIES,
    Lab,
    error,
    multipart,
    pieces,
    raiser,
)
from tests.portals.harness import node_modules
from tests.support.waiting import pause, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE = Path(__file__).parent / "storage"
CASES: list[dict[str, Any]] = json.loads((HERE / "recorded.json").read_text())
SHOWN = (
    "content-type", "content-length", "cache-control", "expires", "etag", "last-modified", "accept-ranges",
    "content-range", "content-disposition", "x-robots-tag",
)  # fmt: skip
RLS = "new row violates row-level security policy"


def normal(text: str) -> str:
    """Replace what is another one in each run."""
    text = re.sub(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "<jwt>", text)
    text = re.sub(
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        lambda found: found[0] if found[0].startswith("00000000") else "<uuid>",
        text,
    )
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)
    return re.sub(r"\w{3}, \d\d \w{3} \d{4} [\d:]+ GMT", "<date>", text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(lab: Lab) -> dict[int, dict[str, Any]]:
    """The answers to all requests of the recording, made in order."""
    await lab.bucket("conf2")
    await lab.ask("POST", "/bucket/conf/empty", lab.token(), json={})
    await lab.ask("DELETE", "/bucket/conf", lab.token())
    tokens = {
        "SERVICE": lab.token(), "ANON": lab.token("anon"), "P29": lab.player(29), "P30": lab.player(30),
        "STAFF": lab.staff(), "EXPIRED": lab.player(29, expires_in=-3600), "GARBAGE": "garbage", None: None,
        "FORGED": lab.token(secret="some-other-secret-some-other-secret-1234"),
    }  # fmt: skip
    values = {
        "UPEXP": hand_made(lab, "conf/29/s2.png", "upload", -10),
        "UP3": hand_made(lab, "conf/29/s3.png", "upload", 600),
        "DLEXP": hand_made(lab, "conf/29/a.png", "download", -10),
    }
    found = {}
    for case in CASES:
        method, path, token, body, headers = case["request"]
        options: dict[str, Any] = {"headers": headers}
        if isinstance(body, str) and body.startswith("('multipart'"):
            _, fields, filename, mime_type, data, field = ast.literal_eval(body)
            options["content"], more = multipart(fields, filename, data, mime_type, field=field)
            options["headers"] = {**headers, **more}
        elif isinstance(body, str):
            options["content"] = body.encode("latin-1")
        elif body is not None:
            options["json"] = body
        if case["text"] == "delete one":
            signed = await lab.ask(
                "POST", "/object/sign/conf/29/moved.png", lab.token(), json={"expiresIn": 60}
            )
            values["DL2"] = signed.json()["signedURL"]
        filled = re.sub(r"\{(\w+)\}", lambda name: values[name[1]], path)
        # httpx would resolve the dots of a path.
        options["extensions"] = {"target": f"/storage/v1{filled}".encode()}
        answer = await lab.ask(method, "/", tokens[token], **options)
        if case["text"] == "sign an upload":
            values["UP"] = answer.json()["token"]
        if case["text"] == "sign a download":
            values["DL"] = answer.json()["signedURL"]
            values["DLTOK"] = values["DL"].partition("token=")[2]
        found[case["n"]] = shown(case, answer)
    await lab.ask("POST", "/bucket/conf2/empty", lab.token(), json={})
    return found


def hand_made(lab: Lab, url: str, scope: str, seconds: int) -> str:
    upsert = {"upsert": False} if scope == "upload" else {}
    claims = {"url": url, "scope": scope, **upsert, "exp": int(time.time()) + seconds}
    return jwt.encode(claims, lab.stack.keys.jwt_secret, "HS256")


def shown(case: dict[str, Any], answer: httpx.Response) -> dict[str, Any]:
    body = answer.content
    if "json" in answer.headers.get("content-type", ""):
        text = normal(body.decode())
    else:
        text = f"<{len(body)} bytes>" if len(body) > 40 or b"\x89" in body else body.decode()
    names = SHOWN if case["hd"] else ("content-type",)
    headers = {name: normal(answer.headers[name]) for name in names if name in answer.headers}
    return {"status": answer.status_code, "headers": headers, "body": text}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['n']} {case['text']}")
async def test_answers_as_recorded(case: dict[str, Any], answers: dict[int, dict[str, Any]]) -> None:
    assert answers[case["n"]] == {name: case[name] for name in ("status", "headers", "body")}


async def test_the_row_of_an_object(conf: Lab) -> None:
    await conf.upload("29/a.png", cache_control="max-age=3600")
    row = await conf.row("29/a.png")
    assert row is not None
    sub = "00000000-0000-4000-8000-000000000029"
    assert (str(row["owner"]), row["owner_id"], row["path_tokens"]) == (sub, sub, ["29", "a.png"])
    assert row["user_metadata"] == {} and row["version"] not in (None, "1")
    assert row["metadata"] == {
        "eTag": '"f829b914fc47cfc9c0747c119c27cf1b"', "size": 70, "mimetype": "image/png", "contentLength": 70,
        "cacheControl": "max-age=3600", "httpStatusCode": 200, "lastModified": row["metadata"]["lastModified"],
    }  # fmt: skip
    await conf.upload("29/a.png", token=conf.token(), x_upsert="true")
    after = await conf.row("29/a.png")
    assert after is not None
    assert (after["id"], after["owner_id"]) == (row["id"], sub)
    assert after["version"] != row["version"]
    await conf.upload("29/b.png", token=conf.player(29, sub="no-uuid"))
    other = await conf.row("29/b.png")
    assert other is not None
    assert (other["owner"], other["owner_id"]) == (None, "no-uuid")
    assert len(conf.files()) == 2


async def test_tokens_say_what_they_are_for(conf: Lab) -> None:
    made = await conf.ask("POST", "/object/upload/sign/conf/29/s.png", conf.player(29))
    claims = jwt.decode(made.json()["token"], options={"verify_signature": False})
    assert jwt.get_unverified_header(made.json()["token"]) == {"alg": "HS256"}
    assert claims.pop("exp") == claims.pop("iat") + 60
    owner = "00000000-0000-4000-8000-000000000029"
    assert claims == {"owner": owner, "url": "conf/29/s.png", "upsert": False, "scope": "upload"}
    await conf.http.put(made.json()["url"], content=PNG, headers=IMAGE)
    row = await conf.row("29/s.png")
    assert row is not None and row["owner_id"] == owner
    signed = await conf.ask("POST", "/object/sign/conf/29/s.png", conf.token(), json={"expiresIn": "60"})
    token = signed.json()["signedURL"].partition("token=")[2]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims.pop("exp") == claims.pop("iat") + 60
    assert claims == {"url": "conf/29/s.png", "scope": "download"}


CONTEXT = """raise exception '%', jsonb_build_object('role', current_user, 'uid', auth.uid(), 'version', new.version,
  'metadata', new.metadata, 'owner', new.owner_id, 'operation', storage.operation(), 'claims', auth.jwt(),
  'method', current_setting('request.method'), 'path', current_setting('request.path'),
  'sub', current_setting('request.jwt.claim.sub'), 'timeout', current_setting('statement_timeout'),
  'search_path', current_setting('search_path'), 'allow', current_setting('storage.allow_delete_query'),
  'type', current_setting('request.headers')::json->>'content-type') using errcode = '42501';"""


async def test_an_upload_is_two_transactions(conf: Lab) -> None:
    await conf.sql(raiser("new.version = '1'", CONTEXT))
    seen = json.loads(error(await conf.upload("29/a.png?x=1"))[3])
    sub = "00000000-0000-4000-8000-000000000029"
    assert seen.pop("claims")["app_metadata"]["player_id"] == 29
    assert seen == {
        "role": "authenticated", "uid": sub, "version": "1", "owner": sub, "sub": sub, "method": "POST",
        "metadata": {"mimetype": "image/png", "contentLength": 70}, "path": "/object/conf/29/a.png?x=1",
        "operation": "storage.object.upload", "timeout": "30s", "search_path": "storage,public,extensions",
        "allow": "true", "type": "image/png",
    }  # fmt: skip
    await conf.sql(raiser("new.version <> '1'", CONTEXT))
    seen = json.loads(error(await conf.upload("29/a.png"))[3])
    assert seen.pop("claims") == {"role": "service_role"}
    assert (seen["role"], seen["uid"], seen["sub"], seen["owner"]) == ("service_role", None, "", sub)
    assert (seen["metadata"]["size"], seen["path"]) == (70, "/object/conf/29/a.png")
    assert (await conf.row("29/a.png"), conf.files()) == (None, [])


@pytest.mark.parametrize("moment", ["new.version = '1'", "new.version <> '1'"], ids=["check", "end"])
@pytest.mark.parametrize(
    ("state", "answer"),
    [
        ("42501", (400, "403", "AccessDenied", "said")),
        ("22P02", (400, "400", "InvalidParameter", "said")),
        ("23505", (400, "409", "KeyAlreadyExists", "The resource already exists")),
        ("23503", (400, "404", "InvalidRequest", "The related resource does not exist")),
        ("55P03", (400, "423", "ResourceLocked", "said")),
        ("57014", (544, "544", "DatabaseTimeout", "The connection to the database timed out")),
        ("42P01", (400, "503", "DatabaseError", "said")),
        ("P0001", (500, "500", "DatabaseError", "database error, code: P0001")),
        ("40001", (500, "500", "DatabaseError", "database error, code: 40001")),
    ],
)
async def test_errors_that_sql_raises(
    conf: Lab, moment: str, state: str, answer: tuple[int, str, str, str]
) -> None:
    await conf.sql(raiser(moment, f"raise exception 'said' using errcode = '{state}';"))
    assert error(await conf.upload("29/a.png")) == answer
    assert (await conf.row("29/a.png"), conf.files()) == (None, [])


@pytest.mark.parametrize(
    ("claims", "answer"),
    [
        ({"role": None}, (400, "403", "AccessDenied", RLS)),
        ({"role": "nobody"}, (500, "500", "DatabaseError", "database error, code: 22023")),
        ({"role": "postgres"}, (400, "403", "AccessDenied", 'permission denied to set role "postgres"')),
        ({"nbf": 9_999_999_999}, (400, "403", "AccessDenied", '"nbf" claim timestamp check failed')),
        ({"iat": 9_999_999_999, "aud": "x"}, None),
    ],
)
async def test_claims_of_callers(conf: Lab, claims: dict[str, Any], answer: Any) -> None:
    role = claims.pop("role", "authenticated")
    metadata = {"player_id": 29}
    uploaded = await conf.upload("29/a.png", token=conf.token(role, app_metadata=metadata, **claims))
    assert (error(uploaded) if answer else uploaded.status_code) == (answer or 200)


async def test_a_token_ends_in_its_second(conf: Lab) -> None:
    await conf.upload("29/a.png")
    signed = await conf.ask("POST", "/object/sign/conf/29/a.png", conf.token(), json={"expiresIn": 1})
    url = signed.json()["signedURL"]

    async def ended() -> bool:
        return (await conf.http.get(url)).status_code == 400

    await until(ended)
    assert error(await conf.http.get(url))[3] == '"exp" claim timestamp check failed'
    for token, text in (("x.y", "Invalid Compact JWS"), ("x.y.z", "Invalid Compact JWS")):
        assert error(await conf.upload("29/b.png", token=token))[3] == text
    other = jwt.encode({"role": "service_role"}, "x" * 64, "HS512")
    assert error(await conf.upload("29/b.png", token=other))[3].startswith('"alg" (Algorithm)')


@pytest.mark.parametrize("held_back", ["raw", "multipart"])
async def test_surprise_1_the_later_end_of_two_uploads_wins(conf: Lab, held_back: str) -> None:
    await conf.fault({"mode": "hold", "times": 1})
    if held_back == "raw":
        first = asyncio.create_task(conf.upload("29/a.png", b"first"))
    else:
        body, headers = multipart([], "blob", b"first", "image/png")
        options = {"content": body, "headers": headers}
        first = asyncio.create_task(conf.ask("POST", "/object/conf/29/a.png", conf.player(29), **options))
    await until(conf.held)
    assert (await conf.upload("29/a.png", b"the second")).status_code == 200
    before = await conf.row("29/a.png")
    await conf.fault(None)
    assert (await first).status_code == 200
    after = await conf.row("29/a.png")
    assert before is not None and after is not None
    assert (after["id"], after["metadata"]["size"]) == (before["id"], 5)
    assert (await conf.ask("GET", "/object/conf/29/a.png", conf.player(29))).content == b"first"
    assert len(conf.files()) == 1


async def test_a_trigger_pins_what_was_checked(conf: Lab) -> None:
    await conf.upload("29/a.png")
    await conf.sql(
        raiser("tg_op = 'UPDATE' and new.version <> old.version", "raise 'pinned' using errcode = '42501';")
    )
    replaced = await conf.upload("29/a.png", b"x", token=conf.token(), x_upsert="true")
    assert error(replaced) == (400, "403", "AccessDenied", "pinned")
    assert (await conf.ask("GET", "/object/conf/29/a.png", conf.player(29))).content == PNG
    assert len(conf.files()) == 1


async def test_surprise_2_chunked_bodies_pass_limits(conf: Lab) -> None:
    async def chunked(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 100_000

    assert error(await conf.upload("29/a.png", b"x" * 200_001))[2] == "EntityTooLarge"
    assert (await conf.upload("29/b.png", chunked(3))).status_code == 200
    await conf.sql(
        raiser("(new.metadata->>'size')::bigint > 200000", "raise 'too large' using errcode = '42501';")
    )
    assert error(await conf.upload("29/c.png", chunked(3))) == (400, "403", "AccessDenied", "too large")
    assert len(conf.files()) == 1
    too_much = await conf.upload("29/d.png", chunked(672))  # the stand-in's own bound
    assert error(too_much)[2] == "EntityTooLarge"
    assert len(conf.files()) == 1


async def test_surprise_3_a_large_refused_body_is_not_read(conf: Lab) -> None:
    await conf.bucket("conf", allowed_mime_types=["image/png"])
    reader, writer = await asyncio.open_connection("127.0.0.1", conf.stack.port)
    size = 40_000_000
    head = f"POST /storage/v1/object/conf/30/a.png HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {size}\r\n"
    try:
        writer.write(f"{head}Authorization: Bearer {conf.player(29)}\r\n\r\n".encode() + b"x" * size)
        async with asyncio.timeout(120):
            assert b"400 Bad Request" in await reader.readuntil(b"\r\n\r\n")
            assert b"row-level security" in await reader.readuntil(b"}")
        unsent = writer.transport.get_write_buffer_size()
        await pause(0.3, "the server would read on in this time")
        assert writer.transport.get_write_buffer_size() == unsent > 20_000_000
        assert not reader.at_eof()
    finally:
        writer.transport.abort()
    small = await conf.upload("30/a.png", b"x" * 3_000_000)
    assert error(small)[3] == RLS
    large = await conf.upload("29/a.png", b"x" * 60_000_000)
    assert error(large)[2] == "EntityTooLarge"


async def test_surprise_4_a_client_that_does_not_wait_has_uploaded_nothing(conf: Lab) -> None:
    for name, sent in (("29/half.png", 35), ("29/all.png", 70)):
        head = f"POST /storage/v1/object/conf/{name} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 70\r\n"
        # Held open, so that the client has surely left before the end.
        await conf.fault({"mode": "hold"})
        _, writer = await asyncio.open_connection("127.0.0.1", conf.stack.port)
        writer.write(f"{head}Authorization: Bearer {conf.player(29)}\r\n\r\n".encode() + PNG[:sent])
        await until(conf.held if sent == 70 else conf.files)
        writer.transport.abort()
        await pause(0.05, "the server hears of it")
        await conf.fault(None)
        await until(lambda: not conf.files())
        assert await conf.row(name) is None


async def test_surprise_6_move_and_copy_ask_neither_types_nor_limits(conf: Lab) -> None:
    await conf.bucket("conf3", allowed_mime_types=["image/png"], file_size_limit=10)
    await conf.upload("29/a.txt", b"a longer text", content_type="text/plain")
    body = {"bucketId": "conf", "sourceKey": "29/a.txt", "destinationBucket": "conf3", "destinationKey": "b"}
    assert (await conf.ask("POST", "/object/copy", conf.token(), json=body)).status_code == 200
    again = await conf.ask("POST", "/object/move", conf.token(), json=body)
    assert error(again)[:3] == (400, "409", "ResourceAlreadyExists")
    body["destinationKey"] = "c"
    assert (await conf.ask("POST", "/object/move", conf.token(), json=body)).status_code == 200
    moved = await conf.ask("GET", "/object/conf3/c", conf.token())
    assert (moved.content, moved.headers["content-type"]) == (b"a longer text", "text/plain")
    assert (await conf.row("29/a.txt"), len(conf.files())) == (None, 2)


async def test_surprise_7_a_deletion_that_fails_leaves_a_row_without_bytes(conf: Lab) -> None:
    await conf.upload("29/a.png")
    await conf.sql(
        """create function public.act() returns trigger language plpgsql as
             $$ begin raise exception 'late' using errcode = '42501'; end $$;
           create constraint trigger late after delete on storage.objects deferrable initially deferred
             for each row execute function public.act();"""
    )
    refused = await conf.ask("DELETE", "/object/conf/29/a.png", conf.token())
    assert error(refused) == (400, "403", "AccessDenied", "late")
    assert await conf.row("29/a.png") is not None
    lost = await conf.ask("GET", "/object/conf/29/a.png", conf.token())
    assert error(lost)[:3] == (500, "500", "InternalError")
    assert (await conf.ask("GET", "/object/info/conf/29/a.png", conf.token())).status_code == 200
    await conf.sql("drop function public.act() cascade")
    assert (await conf.ask("DELETE", "/object/conf/29/a.png", conf.token())).status_code == 200


async def test_policies_of_upserts_and_deletions(conf: Lab) -> None:
    """Cases N and O of the recordings: what is asked beside INSERT and DELETE."""
    insert = "create policy t1 on storage.objects for insert to anon with check (bucket_id = 'conf')"
    delete = "create policy t2 on storage.objects for delete to anon using (bucket_id = 'conf')"
    await conf.sql(f"{insert}; {delete}")
    anon = conf.token("anon")
    try:
        assert (await conf.upload("1.png", token=anon)).status_code == 200
        assert error(await conf.upload("2.png", token=anon, x_upsert="true"))[3] == RLS
        put = await conf.ask("PUT", "/object/conf/3.png", anon, content=PNG, headers=IMAGE)
        assert error(put)[3] == RLS
        assert error(await conf.ask("DELETE", "/object/conf/1.png", anon))[3] == "Access denied"
        many = await conf.ask("DELETE", "/object/conf", anon, json={"prefixes": ["1.png"]})
        assert (many.status_code, many.json()) == (200, [])
        await conf.sql("create policy t3 on storage.objects for select to anon using (bucket_id = 'conf')")
        assert (await conf.upload("2.png", token=anon, x_upsert="true")).status_code == 200
        assert error(await conf.upload("2.png", token=anon, x_upsert="true"))[3] == RLS
        many = await conf.ask("DELETE", "/object/conf", anon, json={"prefixes": ["1.png", "none"]})
        assert [row["name"] for row in many.json()] == ["1.png"]
    finally:
        for name in ("t1", "t2", "t3"):
            await conf.sql(f"drop policy if exists {name} on storage.objects")


async def test_an_object_that_a_row_refers_to_stays(conf: Lab) -> None:
    await conf.upload("29/a.png")
    await conf.sql(
        "create table public.refers (id uuid references storage.objects (id));"
        " insert into public.refers select id from storage.objects"
    )
    try:
        refused = await conf.ask("DELETE", "/object/conf/29/a.png", conf.token())
        assert error(refused)[:3] == (400, "409", "ResourceReferenced")
        assert (await conf.ask("GET", "/object/conf/29/a.png", conf.token())).content == PNG
    finally:
        await conf.sql("drop table public.refers")


async def test_signed_uploads_are_of_the_signer_and_ask_nothing_more(conf: Lab) -> None:
    signed = "/object/upload/sign/conf/29/a.png"
    made = await conf.ask("POST", signed, conf.player(29))
    await conf.sql("alter policy conf_insert on storage.objects with check (false)")
    try:
        assert (await conf.http.put(made.json()["url"], content=PNG, headers=IMAGE)).status_code == 200
        assert error(await conf.ask("POST", "/object/upload/sign/conf/29/b.png", conf.player(29)))[3] == RLS
    finally:
        await conf.sql(
            "drop policy conf_insert on storage.objects; drop policy conf_select on storage.objects"
        )
        await conf.sql(POLICIES)
    again = await conf.http.put(made.json()["url"], content=b"x", headers={**IMAGE, "x-upsert": "true"})
    assert error(again)[2] == "KeyAlreadyExists"
    headers = {"x-upsert": "true"}
    upsert = await conf.ask("POST", signed, conf.token(), headers=headers)
    assert (await conf.http.put(upsert.json()["url"], content=b"x", headers=IMAGE)).status_code == 200
    nowhere = await conf.ask("POST", "/object/upload/sign/nobucket/a.png", conf.token())
    assert error(nowhere)[:3] == (400, "404", "InvalidRequest")


async def test_fields_of_a_form_may_come_before_and_after_its_file(conf: Lab) -> None:
    fields = [("cacheControl", "60"), ("metadata", '{"a":1}')]
    for name, before, after in (("29/1", fields, ()), ("29/2", [], tuple(fields))):
        body, headers = multipart(before, "x", b"text", "text/plain;charset=UTF-8", after=after)
        options = {"content": body, "headers": headers}
        assert (await conf.ask("POST", f"/object/conf/{name}", conf.player(29), **options)).status_code == 200
        info = (await conf.ask("GET", f"/object/info/conf/{name}", conf.player(29))).json()
        assert (info["cache_control"], info["metadata"]) == ("max-age=60", {"a": 1})
        assert (info["content_type"], info["size"]) == ("text/plain", 4)
    body, headers = multipart([("contentType", "text/html")], "x", b"", "text/plain")
    refused = await conf.ask("POST", "/object/conf/29/3", conf.player(29), content=body, headers=headers)
    assert error(refused)[2] == "InvalidMimeType"
    body, headers = multipart([], "x", b"", None)
    assert (
        await conf.ask("POST", "/object/conf/29/4", conf.player(29), content=body, headers=headers)
    ).status_code == 200
    body = f"--{BOUNDARY}--\r\n".encode()
    empty = await conf.ask("POST", "/object/conf/29/5", conf.player(29), content=body, headers=headers)
    assert error(empty)[2:] == ("InvalidRequest", "No content provided")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
async def test_a_form_is_read_the_same_in_pieces_of_any_size(size: int) -> None:
    data = b"\r\n--" + b"----gr" + b"\r\n--\r\n" * 20 + bytes(range(256))
    body, headers = multipart([("a", "1")], "x", data, "image/png", after=(("cacheControl", "9"),))
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in pieces(body, size)]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    queue = iter(messages)

    async def receive() -> Any:
        return next(queue)

    scope = {
        "method": "POST", "path": "/object/b/a", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    upload = UploadBody(Request(scope, receive))
    await upload.open()
    assert b"".join([chunk async for chunk in upload.chunks()]) == data
    assert (upload.mime_type, upload.cache_control) == ("image/png", "max-age=9")
    assert next(queue, None) is None


async def test_an_uploader_cannot_add_headers_to_downloads(conf: Lab) -> None:
    await conf.bucket("conf2")
    fields = [("cacheControl", "no-store\r\nx-evil: 1"), ("contentType", "a/b\nx-evil: 2")]
    body, headers = multipart(fields, "x", b"text", "text/plain")
    await conf.ask("POST", "/object/conf2/a", conf.token(), content=body, headers=headers)
    served = await conf.ask("GET", "/object/conf2/a", conf.token())
    assert (served.content, "x-evil" in served.headers) == (b"text", False)
    assert served.headers["cache-control"] == "no-store  x-evil: 1"
    await conf.ask("POST", "/bucket/conf2/empty", conf.token(), json={})


async def test_metadata_in_a_header_and_metadata_that_is_none(conf: Lab) -> None:
    await conf.upload("29/a.png", x_metadata="eyJhIjoxfQ==")
    await conf.upload("29/b.png", x_metadata="nothing")
    infos = [
        (await conf.ask("GET", f"/object/info/conf/29/{name}.png", conf.player(29))).json() for name in "ab"
    ]
    assert [info["metadata"] for info in infos] == [{"a": 1}, {}]
    body, headers = multipart([("metadata", "[1]")], "x", PNG, "image/png")
    refused = await conf.ask("POST", "/object/conf/29/c.png", conf.player(29), content=body, headers=headers)
    assert error(refused)[2] == "InvalidParameter"


@pytest.mark.parametrize(
    ("header", "status", "content"),
    [
        ("bytes=2-", 206, b"cdef"), ("bytes=-2", 206, b"ef"), ("bytes=4-99", 206, b"ef"),
        ("bytes=0-0", 206, b"a"), ("bytes=x", 200, b"abcdef"), ("bytes=0-1,3-4", 200, b"abcdef"),
    ],
)  # fmt: skip
async def test_ranges(conf: Lab, header: str, status: int, content: bytes) -> None:
    await conf.upload("29/a.txt", b"abcdef", content_type="text/plain")
    part = await conf.ask("GET", "/object/conf/29/a.txt", conf.player(29), headers={"range": header})
    assert (part.status_code, part.content) == (status, content)
    assert part.headers["content-length"] == str(len(content))


async def test_a_validator_that_differs_is_served_and_marked_stale(conf: Lab) -> None:
    await conf.upload("29/a.png", cache_control="max-age=9")
    headers = {"if-none-match": '"another"'}
    served = await conf.ask("GET", "/object/conf/29/a.png", conf.player(29), headers=headers)
    assert (served.status_code, served.content) == (200, PNG)
    assert served.headers["cache-control"] == "max-age=9, stale-while-revalidate=30"


async def test_a_key_that_the_client_escaped_gets_a_dead_url_unless_many_are_signed(conf: Lab) -> None:
    service = conf.token()
    await conf.ask("POST", "/object/conf/29/a%2Bb%20c.png", service, content=PNG, headers=IMAGE)
    one = await conf.ask("POST", "/object/sign/conf/29/a%2Bb%20c.png", service, json={"expiresIn": 60})
    assert error(await conf.http.get(one.json()["signedURL"]))[2] == "InvalidSignature"
    body = {"expiresIn": 60, "paths": ["29/a+b c.png"]}
    many = await conf.ask("POST", "/object/sign/conf", service, json=body)
    assert (await conf.http.get(many.json()[0]["signedURL"])).content == PNG


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        ("POST", "/object/sign/conf/a", {"expiresIn": 1.5}, "body/expiresIn must be integer"),
        ("POST", "/object/sign/conf/a", {"expiresIn": 10**15}, "expiresIn is too large"),
        ("POST", "/object/sign/conf", {"expiresIn": 1, "paths": []}, "body/paths must NOT have fewer than 1 items"),
        ("POST", "/object/list/conf", {}, "body must have required property 'prefix'"),
        ("POST", "/object/list/conf", {"prefix": "", "sortBy": {"column": "id"}}, "body/sortBy must be equal to one of the allowed values"),
        ("POST", "/object/move", None, "body must be object"),
        ("DELETE", "/object/conf", {"prefixes": [1]}, "body/prefixes/0 must be string"),
    ],
)  # fmt: skip
async def test_bodies_that_are_not_of_the_schema(
    conf: Lab, method: str, path: str, body: Any, answer: str
) -> None:
    await conf.upload("a", token=conf.token())
    assert error(await conf.ask(method, path, conf.token(), json=body))[3] == answer


async def test_broken_requests(conf: Lab) -> None:
    headers = {"content-type": "application/json"}
    empty = await conf.ask("DELETE", "/object/conf/29/a.png", conf.token(), headers=headers)
    assert empty.json()["error"] == "FastifyError"
    broken = await conf.ask("POST", "/object/move", conf.token(), headers=headers, content=b"{")
    assert broken.json()["error"] == "FastifyError"
    bad = await conf.http.get("/", extensions={"target": b"/storage/v1/object/conf/%zz"})
    assert bad.json()["code"] == "FST_ERR_BAD_URL"
    unknown = await conf.ask("PATCH", "/object/conf/a", conf.token())
    assert (unknown.status_code, unknown.json()["statusCode"]) == (404, "404")
    for path in ("/object/public/conf/a", "/render/image/authenticated/conf/a", "/s3"):
        assert (await conf.ask("GET", path, conf.token())).status_code == 501
    long = await conf.upload(f"29/{'x' * 256}")
    assert error(long)[:3] == (500, "500", "InternalError")
    assert (await conf.http.get("/status")).content == b""


async def test_lists(conf: Lab) -> None:
    for name in ("a.png", "sub/b.png", "sub/c.png", "B_1.png"):
        await conf.upload(f"29/{name}")

    async def listed(**body: Any) -> list[str]:
        answer = await conf.ask("POST", "/object/list/conf", conf.staff(), json={"prefix": "29", **body})
        return [entry["name"] for entry in answer.json()]

    assert await listed() == ["sub", "B_1.png", "a.png"]
    assert await listed(prefix="29/sub/") == ["b.png", "c.png"]
    assert await listed(search="b_") == ["B_1.png"]
    assert await listed(offset=1, limit=1) == ["B_1.png"]
    assert await listed(sortBy={"column": "created_at", "order": "desc"}) == ["sub", "B_1.png", "a.png"]
    everything: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        body = {"prefix": "29/", "limit": 3, "with_delimiter": False, **cursor}
        page = (await conf.ask("POST", "/object/list-v2/conf", conf.staff(), json=body)).json()
        everything += [entry["name"] for entry in page["objects"]]
        if not page["hasNext"]:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert everything == ["29/B_1.png", "29/a.png", "29/sub/b.png", "29/sub/c.png"]
    body = {"prefix": "29/", "with_delimiter": True}
    page = (await conf.ask("POST", "/object/list-v2/conf", conf.staff(), json=body)).json()
    assert [entry["name"] for entry in page["folders"]] == ["29/sub/"]
    assert [entry["name"] for entry in page["objects"]] == ["29/B_1.png", "29/a.png"]


async def test_buckets(lab: Lab) -> None:
    await lab.bucket("conf4", file_size_limit="1MB")
    service = lab.token()
    bucket = (await lab.ask("GET", "/bucket/conf4", service)).json()
    assert bucket["file_size_limit"] == 1_000_000
    body = {"public": False, "allowed_mime_types": ["image/png"]}
    assert (await lab.ask("PUT", "/bucket/conf4", service, json=body)).json() == {
        "message": "Successfully updated"
    }
    rows = (await lab.ask("GET", "/bucket", service)).json()
    row = next(row for row in rows if row["id"] == "conf4")
    assert (row["allowed_mime_types"], row["file_size_limit"], row["type"]) == (
        ["image/png"],
        1_000_000,
        "STANDARD",
    )
    assert (await lab.ask("GET", "/bucket", lab.player(29))).json() == []
    body = {"name": "conf5", "file_size_limit": 52_428_801}
    assert error(await lab.ask("POST", "/bucket", service, json=body))[2] == "EntityTooLarge"
    refused = await lab.ask("POST", "/bucket/conf4/empty", lab.player(29), json={})
    assert error(refused) == (403, "403", "AccessDenied", "Access denied: Invalid role")
    await lab.ask("POST", "/object/conf4/a", service, content=PNG, headers=IMAGE)
    assert error(await lab.ask("DELETE", "/bucket/conf4", lab.token("anon")))[2] == "ResourceNotEmpty"
    await lab.ask("POST", "/bucket/conf4/empty", service, json={})
    assert error(await lab.ask("DELETE", "/bucket/conf4", lab.token("anon")))[2] == "NoSuchBucket"
    assert (await lab.ask("DELETE", "/bucket/conf4", service)).status_code == 200


async def test_the_gateway_lets_browsers_in(conf: Lab) -> None:
    headers = {"origin": "http://portal.example", "access-control-request-headers": "x-signature"}
    asked = await conf.http.options("/object/conf/29/a.png", headers=headers)
    assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == "*"
    assert {"x-upsert", "authorization", "x-metadata", "x-signature"} <= set(
        asked.headers["access-control-allow-headers"].split(", ")
    )
    assert {"PUT", "DELETE", "PATCH"} <= set(asked.headers["access-control-allow-methods"].split(", "))
    refused = await conf.upload("30/a.png", origin="http://portal.example")
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, "*")


async def test_a_database_that_is_away_is_an_error_at_once_and_back_at_once(conf: Lab) -> None:
    await conf.upload("29/a.png")
    postgres = conf.stack.postgres
    await asyncio.to_thread(postgres.stop)
    try:
        lost = await conf.ask("GET", "/object/conf/29/a.png", conf.token())
        assert error(lost)[:3] == (500, "500", "InternalError")
        assert (await conf.http.get("/status")).status_code == 200
    finally:
        await asyncio.to_thread(postgres.start)
    assert (await conf.ask("GET", "/object/conf/29/a.png", conf.token())).content == PNG


# supabase-py 2.34 passes its own parts an option that they call deprecated.
@pytest.mark.filterwarnings("ignore:The '(timeout|verify)' parameter is deprecated:DeprecationWarning")
async def test_supabase_py(conf: Lab) -> None:
    player = await client(conf, conf.player(29))
    service = await client(conf, conf.token())
    chat, all_of_it = player.storage.from_("conf"), service.storage.from_("conf")
    made = await chat.upload("29/a.png", PNG, {"content-type": "image/png"})
    assert made.full_path == "conf/29/a.png"
    with pytest.raises(StorageException) as refused:
        await chat.upload("30/a.png", PNG, {"content-type": "image/png"})
    assert (refused.value.status, refused.value.code) == ("403", "Unauthorized")  # type: ignore[attr-defined]
    signed = await all_of_it.create_signed_url("29/a.png", 60, {"download": "ü.png"})
    served = await conf.http.get(signed["signedURL"])
    assert (served.content, "filename*=UTF-8''" in served.headers["content-disposition"]) == (PNG, True)
    slot = await chat.create_signed_upload_url("29/s.png")
    await chat.upload_to_signed_url("29/s.png", slot["token"], PNG, {"content-type": "image/png"})
    assert await chat.download("29/s.png") == PNG
    assert await chat.exists("29/s.png") and not await chat.exists("29/none.png")
    assert [entry["name"] for entry in await chat.list("29")] == ["a.png", "s.png"]
    urls = await all_of_it.create_signed_urls(["29/a.png", "29/none.png"], 60)
    assert [bool(url["signedURL"]) for url in urls] == [True, False]
    assert await chat.remove(["29/a.png"]) == []
    assert [row["name"] for row in await all_of_it.remove(["29/a.png"])] == ["29/a.png"]
    for each in (player, service):
        await each.storage.session.aclose()


async def client(lab: Lab, token: str) -> AsyncClient:
    return await acreate_client(lab.stack.url, token)


async def test_supabase_js(conf: Lab, tmp_path: Path) -> None:
    script = tmp_path / "portal.mjs"
    script.with_name("node_modules").symlink_to(node_modules())
    script.write_bytes((HERE / "portal.mjs").read_bytes())
    node = await asyncio.create_subprocess_exec(
        "node", str(script), conf.stack.url, conf.player(29), conf.token(), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        out, _ = await node.communicate()
    assert node.returncode == 0
    assert json.loads(out) == {
        "blob": "conf/29/a.png", "buffer": "29/b.png", "refused": ["403", "new row violates row-level security policy"],
        "slot": "conf/29/s.png", "downloaded": [70, "image/png"], "served": [70, "attachment; filename=a.png; filename*=UTF-8''a.png"],
        "info": {"note": "ü"}, "exists": [True, False], "listed": ["a.png", "b.png", "s.png"], "removed": [[], ["29/a.png"]],
    }  # fmt: skip
