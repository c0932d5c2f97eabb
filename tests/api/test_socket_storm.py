"""Many pages that come back at once: from one address, while the database is slow."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from tests.api.client import entered
from tests.api.conftest import NO_MEDIA, Api
from tests.bench.pages import Pages, Person
from tests.support.hostile import UPGRADE
from tests.support.stack import StackProcess
from tests.support.waiting import until

PAGES = 400


async def test_pages_of_one_address_wait_for_their_turn_and_are_not_sent_away(
    api: Api, player_id: int
) -> None:
    url = urlsplit(api.worker.url)
    assert url.hostname and url.port
    people = [
        Person(
            api.stack.keys.user_token("player", player_id=player_id + n), staff=False, address="203.0.113.77", positions={}, talks=False
        )
        for n in range(PAGES)
    ]  # fmt: skip
    pages = Pages(url.hostname, url.port, people)
    try:
        with api.stack.db() as conn, conn.transaction():
            conn.execute(
                "lock table gre_chat_players, gre_staff in access exclusive mode"
            )  # tokens cannot be checked
            for page in pages.pages:
                pages.connect_soon(page)
            await until(lambda: all(page.upgraded for page in pages.pages), what="handshakes")
        await until(lambda: all(page.live for page in pages.pages), 120, what="all pages")
        assert not pages.tally.closes["4429"] and not pages.tally.closes["http 503"]
    finally:
        pages.over = True
        for page in pages.pages:
            if page.transport is not None:
                page.transport.abort()
        await until(lambda: not any(page.transport for page in pages.pages))
        await asyncio.gather(*pages.tasks)


async def test_a_flood_of_handshakes_from_one_address_fills_no_instance(
    stack_process: StackProcess, player_id: int
) -> None:
    """Nine of its connections wait for their turn, and the instance has ten places."""
    endpoint = "gre_bridge.api.ws.endpoint."
    constants = {endpoint + "HANDSHAKES": 1, endpoint + "HANDSHAKE_LASTS": 1.0}
    token = stack_process.keys.user_token("player", player_id=player_id)
    with stack_process.worker(constants=constants, **NO_MEDIA, GRE_MAX_SOCKETS="10") as worker:
        url = urlsplit(worker.url)
        assert url.hostname and url.port
        flood = [await asyncio.open_connection(url.hostname, url.port) for _ in range(11)]
        answers = [asyncio.create_task(reader.readline()) for reader, _ in flood]

        def refused() -> int:
            return sum(b" 503 " in answer.result() for answer in answers if answer.done())

        try:
            for _, writer in flood:
                writer.write(UPGRADE + b"X-Forwarded-For: 203.0.113.77\r\n\r\n")
            await until(lambda: refused() == 1, what="the instance to be full")
            async with entered(worker.url, token, headers={"X-Forwarded-For": "198.51.100.1"}):
                assert refused() == 2, "another one made room"
        finally:
            for _, writer in flood:
                writer.transport.abort()
            await asyncio.gather(*answers, return_exceptions=True)
