"""The client of Supabase Storage: its requests, its answers and errors, and servers that break off, hang or lie."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from gre_bridge.errors import BridgeError, ConfigurationError, TransientError
from gre_bridge.storage import client as module
from gre_bridge.storage.client import Bucket, ObjectInfo, StorageClient, with_download
from gre_bridge.storage.errors import Missing, StorageRefused
from tests.support.loopback import (
    GARBAGE,
    GONE,
    HALF_A_BODY,
    HANG,
    Bytes,
    Reply,
    Request,
    closed_port,
    json_reply,
    saying,
    serving,
    serving_bytes,
)
from tests.support.waiting import pause

KEY, ANON = "sb_secret_service", "sb_publishable_anon"
NAME = "29/3f2c9a4e-0000-4000-8000-000000000001/original"
IN_FLIGHT = 8 * 2**20
"""Bytes of an upload that no buffer between two sockets can hold."""


def refusal(status: str, error: str, message: str = "", *, http: int = 400) -> Reply:
    return json_reply({"statusCode": status, "error": error, "message": message}, http)


DUPLICATE = refusal("409", "Duplicate", "The resource already exists")
NOT_FOUND = refusal("404", "not_found", "Object not found")


class Server:
    """Records requests, and returns the given answers in turn; the last one again and again."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@asynccontextmanager
async def talking(*replies: Reply, timeout: float = 60.0) -> AsyncIterator[tuple[StorageClient, Server]]:
    server = Server(*replies)
    async with serving(server) as port, opened(port, timeout) as storage:
        yield storage, server


@asynccontextmanager
async def opened(port: int, timeout: float = 60.0) -> AsyncIterator[StorageClient]:
    storage = StorageClient.open(url=f"http://127.0.0.1:{port}/", key=KEY, apikey=ANON, timeout=timeout)
    try:
        yield storage
    finally:
        await storage.aclose()


async def download(storage: StorageClient, limit: int = 10**9) -> bytes:
    into = io.BytesIO()
    size = await storage.download("gre-chat", NAME, into, limit=limit)
    assert size == len(into.getvalue())
    return into.getvalue()


async def test_a_download_writes_the_bytes_in_pieces() -> None:
    content = bytes(range(256)) * 5000
    async with talking(Reply(body=content)) as (storage, server):
        assert await download(storage) == content
        assert await download(storage, len(content)) == content
    first = server.requests[0]
    assert (first.method, first.path) == ("GET", f"/storage/v1/object/authenticated/gre-chat/{NAME}")
    assert (first.headers["Authorization"], first.headers["apikey"]) == (f"Bearer {KEY}", KEY)


async def test_an_empty_object_is_a_download_of_no_bytes() -> None:
    async with talking(Reply()) as (storage, _):
        assert await download(storage) == b""


async def test_a_download_ends_at_the_limit_although_the_server_never_does() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    async with serving_bytes(endless) as port, opened(port) as storage:
        with pytest.raises(StorageRefused) as caught:
            await download(storage, 2**20)
    assert caught.value.code == "oversize"


@pytest.mark.parametrize("serve", [saying(HALF_A_BODY), saying(GARBAGE), saying(b"")])
async def test_a_download_that_breaks_off_is_an_outage(serve: Bytes) -> None:
    async with serving_bytes(serve) as port, opened(port) as storage:
        with pytest.raises(TransientError):
            await download(storage)


async def test_a_download_that_stalls_or_takes_for_ever_ends_by_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dripping(drop: bytes) -> Bytes:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
            while not reader.at_eof():
                await pause(0.02, "a byte now and then")
                writer.write(drop)

        return drip

    for name, drop in (("STALL", b""), ("DOWNLOAD", b"x")):
        monkeypatch.setattr(module, name, 0.3)
        async with serving_bytes(dripping(drop)) as port, opened(port) as storage:
            with pytest.raises(TransientError) as caught:
                await download(storage)
        assert caught.value.code == "timeout"
        monkeypatch.setattr(module, name, 60.0)


async def test_a_slow_download_that_goes_on_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL", 2.0)

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await pause(0.25, "more than the longest wait, in all")
            writer.write(b"x")

    async with serving_bytes(slowly) as port, opened(port) as storage:
        assert await download(storage) == b"x" * 10


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (NOT_FOUND, Missing, "missing"),
        (refusal("404", "Bucket not found", "Bucket not found"), ConfigurationError, "no_bucket"),
        (refusal("403", "Unauthorized", "new row violates row-level security policy"), StorageRefused, "403"),
        (refusal("403", "Unauthorized", '"exp" claim timestamp check failed'), ConfigurationError, "403"),
        (refusal("413", "Payload too large"), StorageRefused, "413"),
        (refusal("415", "invalid_mime_type"), StorageRefused, "415"),
        (refusal("423", "ResourceLocked"), TransientError, "423"),
        (refusal("500", "Internal", http=500), TransientError, "500"),
        (refusal("544", "DatabaseTimeout", http=544), TransientError, "544"),
        (json_reply({"statusCode": 413, "error": "x"}, 400), StorageRefused, "413"),
        (Reply(413, b"<html>too large</html>"), TransientError, "413"),
        (Reply(404, b"[]"), TransientError, "404"),
        (GONE, TransientError, "transport"),
    ],
)  # fmt: skip
async def test_errors_are_sorted_by_the_body_and_not_by_the_status(
    reply: Reply, kind: type[BridgeError], code: str
) -> None:
    async with talking(reply) as (storage, _):
        for call in (lambda: download(storage), lambda: storage.delete("gre-chat", [NAME])):
            with pytest.raises(BridgeError) as caught:
                await call()
            assert (type(caught.value), caught.value.code) == (kind, code)
            assert NAME not in str(caught.value)


async def test_without_a_server_or_an_answer_it_is_an_outage() -> None:
    with closed_port() as port:
        async with opened(port) as storage:
            with pytest.raises(TransientError) as caught:
                await storage.info("gre-chat", NAME)
    assert caught.value.code == "connect"
    async with talking(HANG, timeout=1.0) as (storage, _):
        with pytest.raises(TransientError) as caught:
            await storage.info("gre-chat", NAME)
    assert caught.value.code == "timeout"


async def test_an_upload_sends_its_size_and_type() -> None:
    async with talking(json_reply({"Key": "k", "Id": "i"})) as (storage, server):
        await storage.upload("gre-chat", NAME, b"\xff\xd8bytes", "image/jpeg")
    (sent,) = server.requests
    assert (sent.method, sent.path, sent.content) == (
        "POST",
        f"/storage/v1/object/gre-chat/{NAME}",
        b"\xff\xd8bytes",
    )
    assert (sent.headers["Content-Type"], sent.headers["Content-Length"]) == ("image/jpeg", "7")
    assert "x-upsert" not in sent.headers


def stored(size: int) -> Reply:
    return json_reply({"size": size, "content_type": "image/jpeg", "version": "v"})


async def test_an_object_that_is_there_stays_whatever_its_size() -> None:
    async with talking(DUPLICATE) as (storage, server):
        await storage.upload("gre-chat", NAME, b"1234567", "image/jpeg")
    assert [one.method for one in server.requests] == ["POST"], "nothing is asked, deleted or replaced"


async def test_an_upload_that_is_refused_early_gets_its_answer() -> None:
    """Storage neither reads on nor closes after an early refusal."""
    refused = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = refusal("403", "Unauthorized", "new row violates row-level security policy").body
        writer.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        )
        await writer.drain()
        await refused.wait()

    async with serving_bytes(refuse) as port, opened(port) as storage:
        with pytest.raises(StorageRefused):
            await storage.upload("gre-chat", NAME, bytes(IN_FLIGHT), "image/jpeg")
        refused.set()


async def test_an_upload_that_nobody_reads_ends_by_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRANSFER", 0.2)
    closed = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await closed.wait()

    async with serving_bytes(deaf) as port, opened(port) as storage:
        with pytest.raises(TransientError) as caught:
            await storage.upload("gre-chat", NAME, bytes(IN_FLIGHT), "image/jpeg")
        closed.set()
    assert caught.value.code == "timeout"


async def test_a_deletion_tells_the_names_that_were_deleted() -> None:
    async with talking(json_reply([{"name": "a"}, {"name": "b"}])) as (storage, server):
        assert await storage.delete("gre-chat", ["a", "b", "c"]) == {"a", "b"}
    (sent,) = server.requests
    assert (sent.method, sent.path, sent.json()) == (
        "DELETE",
        "/storage/v1/object/gre-chat",
        {"prefixes": ["a", "b", "c"]},
    )


async def test_links_are_made_for_the_names_that_exist() -> None:
    rows = [
        {"error": None, "path": "a", "signedURL": "/object/sign/gre-chat/a?token=t"},
        {"error": "Either the object does not exist or you do not have access to it", "path": "b", "signedURL": None},
    ]  # fmt: skip
    async with talking(json_reply(rows)) as (storage, server):
        links = await storage.sign("gre-chat", ["a", "b"])
    assert list(links) == ["a"]
    assert links["a"].endswith("/storage/v1/object/sign/gre-chat/a?token=t")
    assert server.requests[0].json() == {"expiresIn": 300, "paths": ["a", "b"]}
    assert with_download("u?token=t", 'ü "&\r\n').endswith("?token=t&download=%C3%BC%20%22%26%0D%0A")


async def test_an_upload_link_tells_when_it_ends_and_may_be_asked_for_as_a_user() -> None:
    token = jwt.encode({"exp": 1_800_000_000, "scope": "upload"}, "x" * 32)
    answer = json_reply({"url": f"/object/upload/sign/gre-chat/{NAME}?token={token}", "token": token})
    async with talking(answer) as (storage, server):
        link = await storage.sign_upload("gre-chat", NAME, token="a.b.c")
        await storage.sign_upload("gre-chat", NAME)
    assert link.url.endswith(f"/storage/v1/object/upload/sign/gre-chat/{NAME}?token={token}")
    assert link.expires_at == datetime.fromtimestamp(1_800_000_000, UTC)
    told = [(one.headers["apikey"], one.headers["Authorization"]) for one in server.requests]
    assert told == [(ANON, "Bearer a.b.c"), (KEY, f"Bearer {KEY}")]


@pytest.mark.parametrize("end", [1e30, -1e30, 10**20])
async def test_an_upload_link_whose_end_is_no_time_is_an_outage(end: float) -> None:
    token = jwt.encode({"exp": end}, "x" * 32)
    async with talking(json_reply({"url": "/u", "token": token})) as (storage, _):
        with pytest.raises(TransientError):
            await storage.sign_upload("gre-chat", NAME)


async def test_links_have_the_address_for_browsers_and_requests_the_other() -> None:
    answers = (
        json_reply([{"error": None, "path": "a", "signedURL": "/object/sign/gre-chat/a?token=t"}]),
        json_reply({"url": f"/object/upload/sign/gre-chat/{NAME}?token=t", "token": "t"}),
    )
    server = Server(*answers)
    async with serving(server) as port:
        storage = StorageClient.open(
            url=f"http://127.0.0.1:{port}", public_url="https://files.example/", key=KEY
        )
        try:
            assert (await storage.sign("gre-chat", ["a"]))["a"].startswith(
                "https://files.example/storage/v1/object/sign/"
            )
            link = await storage.sign_upload("gre-chat", NAME)
        finally:
            await storage.aclose()
    assert link.url.startswith("https://files.example/storage/v1/object/upload/sign/")
    assert len(server.requests) == 2


async def test_a_bucket_is_read_and_set() -> None:
    row = {"public": False, "file_size_limit": 5, "allowed_mime_types": ["image/png"], "owner": ""}
    settings = Bucket(public=False, file_size_limit=5, types=("image/png",))
    replies = (
        json_reply(row),
        json_reply({"message": "Successfully updated"}),
        refusal("413", "Payload too large"),
    )
    async with talking(*replies) as (storage, server):
        assert await storage.bucket("gre-chat") == settings
        await storage.set_bucket("gre-chat", settings)
        with pytest.raises(StorageRefused) as caught:
            await storage.set_bucket("gre-chat", settings)
    assert caught.value.code == "413"
    assert (server.requests[1].method, server.requests[1].path) == ("PUT", "/storage/v1/bucket/gre-chat")
    assert server.requests[1].json() == {
        "public": False,
        "file_size_limit": 5,
        "allowed_mime_types": ["image/png"],
    }


CALLS: list[Callable[[StorageClient], Any]] = [
    lambda storage: storage.info("gre-chat", NAME),
    lambda storage: storage.delete("gre-chat", [NAME]),
    lambda storage: storage.sign("gre-chat", [NAME]),
    lambda storage: storage.sign_upload("gre-chat", NAME),
    lambda storage: storage.bucket("gre-chat"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"[1]", b"null", b'{"name": {}}'])
async def test_a_success_that_is_not_storages_is_an_outage(
    call: Callable[[StorageClient], Any], body: bytes
) -> None:
    async with talking(Reply(body=body)) as (storage, _):
        if body == b"[]" and call in (CALLS[1], CALLS[2]):
            assert not await call(storage)
            return
        with pytest.raises(TransientError) as caught:
            await call(storage)
    assert caught.value.code == "unreadable"


async def test_what_storage_knows_of_an_object() -> None:
    async with talking(stored(7), NOT_FOUND) as (storage, _):
        assert await storage.info("gre-chat", NAME) == ObjectInfo(7, "image/jpeg", "v")
        with pytest.raises(Missing):
            await storage.info("gre-chat", NAME)
