"""A photo from a phone to the desk, with a real worker: begun over REST, uploaded, sent by socket, examined, told and fetched."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from tests.api.client import entered
from tests.integration.test_files_worker import SOON
from tests.support.corpus import CANARY, photo
from tests.support.loopback import HTTP
from tests.support.stack import StackProcess

ATTACHMENTS = "/api/gre-chat/attachments"


class Person:
    """A person at the daemon."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def post(self, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = HTTP.post(f"{self.url}{path}", json=body, headers=headers)
        return answer.raise_for_status().json()

    def fetch(self, attachment_id: str, variant: str) -> httpx.Response:
        found = self.post(f"{ATTACHMENTS}/urls", ids=[attachment_id], variant=variant)["urls"][attachment_id]
        return HTTP.get(found["url"]).raise_for_status()


async def test_a_photo_comes_from_the_phone_to_the_desk(stack: StackProcess) -> None:
    content = photo(6)
    with stack.worker(constants=SOON) as worker:
        player = Person(worker.url, stack.keys.user_token("player", player_id=29))
        staff = Person(worker.url, stack.keys.user_token("staff", staff_id="s1"))
        async with entered(worker.url, player.token) as phone, entered(worker.url, staff.token) as desk:
            begun = await asyncio.to_thread(
                player.post, ATTACHMENTS, name="IMG_1.jpg", type="image/jpeg", bytes=len(content)
            )
            attachment_id, upload = begun["attachment"]["id"], begun["upload"]
            HTTP.put(upload["url"], content=content, headers=upload["headers"]).raise_for_status()
            await phone.send("send_message", attachmentIds=[attachment_id])
            message = (await desk.wait("chat_message"))["message"]
            assert (message["message"], len(message["attachments"])) == ("📷 Photo", 1)
            for client in (phone, desk):
                # It may have been examined before it was sent: then it comes ready.
                await client.until(lambda c=client: "ready" in str(c.frames))
            shown = [item for item in desk.frames if "ready" in str(item)][-1]
            told = shown.get("attachment") or shown["message"]["attachments"][0]
            assert (told["id"], told["state"], told["width"], told["height"]) == (
                attachment_id,
                "ready",
                96,
                64,
            )
            for variant in ("thumb", "view", "file"):
                got = await asyncio.to_thread(staff.fetch, attachment_id, variant)
                assert got.headers["content-type"] == "image/jpeg"
                assert got.content.startswith(b"\xff\xd8") and CANARY not in got.content
                assert ("content-disposition" in got.headers) == (variant == "file")
            # Its sender alone gets what it uploaded.
            assert (await asyncio.to_thread(player.fetch, attachment_id, "file")).content == content
        log = worker.log.read_text()
    assert "token=" not in log and "IMG_1" not in log and attachment_id not in log
