"""The client of Supabase Storage with the embedded stack's Storage, and what its faults mean."""

from __future__ import annotations

import io
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gre_bridge.errors import ConfigurationError, TransientError
from gre_bridge.storage.bucket import BUCKET, MAX_FILE_BYTES
from gre_bridge.storage.client import StorageClient, with_download
from gre_bridge.storage.errors import Missing, StorageRefused
from tests.support.loopback import HTTP
from tests.support.stack import StackProcess

CONTENT = bytes(range(256)) * 40


@asynccontextmanager
async def opened(stack: StackProcess, key: str | None = None) -> AsyncIterator[StorageClient]:
    storage = StorageClient.open(
        url=stack.url, key=key or stack.env["SUPABASE_SERVICE_KEY"], apikey=stack.env["SUPABASE_ANON_KEY"], timeout=60
    )  # fmt: skip
    try:
        yield storage
    finally:
        await storage.aclose()


def begun(stack: StackProcess, player: int, size: int = len(CONTENT)) -> str:
    """Announce a picture as the player; returns the name of its object."""
    arguments = {
        "p_id": str(uuid.uuid4()), "p_player_id": player, "p_session_id": None, "p_name": "cat.png", "p_type": "image/png",
        "p_bytes": size, "p_alt": None,
    }  # fmt: skip
    return str(called(stack, player, "gre_attachment_begin", arguments)["object"])


def called(stack: StackProcess, player: int, function: str, arguments: dict[str, Any]) -> Any:
    """Call a function as the player."""
    token = stack.keys.token_of(f"player:{player}", expires_in=600)
    answer = stack.http.post(f"/rest/v1/rpc/{function}", json=arguments, headers=stack.headers(token))
    return answer.raise_for_status().json()


async def download(storage: StorageClient, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
    into = io.BytesIO()
    await storage.download(BUCKET, name, into, limit=limit)
    return into.getvalue()


async def test_an_object_is_stored_once_and_read_signed_and_deleted(stack: StackProcess) -> None:
    name = begun(stack, 29)
    view = name.replace("original", "view")
    async with opened(stack) as storage:
        with pytest.raises(Missing):
            await storage.info(BUCKET, name)
        await storage.upload(BUCKET, name, CONTENT, "image/png")
        assert await download(storage, name) == CONTENT
        with pytest.raises(StorageRefused):
            await download(storage, name, len(CONTENT) - 1)
        await storage.upload(BUCKET, view, b"view", "image/jpeg")
        await storage.upload(BUCKET, view, b"view", "image/jpeg")
        await storage.upload(BUCKET, view, b"of another worker", "image/jpeg")
        assert await download(storage, view) == b"view"
        links = await storage.sign(BUCKET, [name, "29/none"])
        assert list(links) == [name]
        saved = HTTP.get(with_download(links[name], "ü.png"))
        assert saved.content == CONTENT
        assert saved.headers["content-disposition"].startswith("attachment")
        with pytest.raises(StorageRefused, match="403"):
            await storage.delete(BUCKET, [view, name])
        assert await download(storage, name) == CONTENT
        called(stack, 29, "gre_attachment_drop", {"p_id": name.split("/")[1]})
        assert await storage.delete(BUCKET, [name, view, "29/none"]) == {name, view}
        assert await storage.sign(BUCKET, [name, view]) == {}
        with pytest.raises(Missing):
            await download(storage, name)


async def test_an_upload_link_of_a_player_is_for_a_file_that_it_began(stack: StackProcess) -> None:
    name, token = begun(stack, 29), stack.keys.token_of("player:29", expires_in=600)
    async with opened(stack) as storage:
        link = await storage.sign_upload(BUCKET, name, token=token)
        assert link.expires_at is not None
        answer = HTTP.put(link.url, content=CONTENT, headers={"content-type": "image/png"})
        assert answer.status_code == 200
        assert await download(storage, name) == CONTENT
        with pytest.raises(StorageRefused) as caught:
            await storage.sign_upload(BUCKET, begun(stack, 30), token=token)
        assert caught.value.code == "403"


async def test_what_nobody_began_and_what_is_too_large_is_refused(stack: StackProcess) -> None:
    async with opened(stack) as storage:
        for name, content in (("29/none/original", b"x"), (begun(stack, 29, 5), b"larger")):
            with pytest.raises(StorageRefused) as caught:
                await storage.upload(BUCKET, name, content, "image/png")
            assert caught.value.code == "403"


async def test_the_bucket_is_what_the_migrations_made_and_can_be_set_to_it(stack: StackProcess) -> None:
    async with opened(stack) as storage:
        bucket = await storage.bucket(BUCKET)
        assert (bucket.public, bucket.file_size_limit) == (False, MAX_FILE_BYTES)
        await storage.set_bucket(BUCKET, bucket)
        assert await storage.bucket(BUCKET) == bucket
        with pytest.raises(ConfigurationError):
            await storage.bucket("none")


async def test_a_wrong_key_is_a_matter_of_configuration(stack: StackProcess) -> None:
    wrong = stack.env["SUPABASE_SERVICE_KEY"][:-4] + "AAAA"
    async with opened(stack, wrong) as storage:
        with pytest.raises(ConfigurationError):
            await download(storage, "29/none/original")
        with pytest.raises(ConfigurationError):
            await storage.delete(BUCKET, ["29/none/original"])


async def test_each_fault_of_storage_is_an_outage(
    stack: StackProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = begun(stack, 29)
    async with opened(stack) as storage:
        await storage.upload(BUCKET, name, CONTENT, "image/png")
        monkeypatch.setattr("gre_bridge.storage.client.STALL", 0.5)
        for rule in ({"mode": "refused", "status": 500}, {"mode": "refused", "status": 544}, {"mode": "silent"},
                     {"mode": "cut", "bytes": 100}, {"mode": "lose_answer"}):  # fmt: skip
            stack.fault("storage", rule)
            with pytest.raises(TransientError):
                await download(storage, name)
            stack.http.delete("/__stack/faults").raise_for_status()
            monkeypatch.setattr("gre_bridge.storage.client.STALL", 60.0)
            assert await download(storage, name) == CONTENT
            monkeypatch.setattr("gre_bridge.storage.client.STALL", 0.5)


async def test_an_upload_of_a_worker_whose_answer_is_lost_is_a_success_when_it_is_repeated(
    stack: StackProcess,
) -> None:
    name = begun(stack, 29)
    view = name.replace("original", "view")
    async with opened(stack) as storage:
        await storage.upload(BUCKET, name, CONTENT, "image/png")
        stack.fault("storage", {"mode": "lose_answer", "times": 1, "methods": ["POST"]})
        with pytest.raises(TransientError):
            await storage.upload(BUCKET, view, b"view", "image/jpeg")
        await storage.upload(BUCKET, view, b"view", "image/jpeg")
        assert await download(storage, view) == b"view"
