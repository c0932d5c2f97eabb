"""Many pages that come back at once: from one address, while the database is slow."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from tests.api.conftest import Api
from tests.bench.pages import Pages, Person
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
