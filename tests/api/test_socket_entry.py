"""How a page enters `/ws`: the calls that it costs, and the tokens that speak for nobody."""

from __future__ import annotations

import asyncio
from collections import Counter

from gre_bridge.devstack.keys import Keys
from tests.api.client import entered, opened
from tests.api.conftest import Api

CALLS = ("gre_enter", "gre_whoami", "gre_catch_up")


async def calls(api: Api) -> Counter[str]:
    """Return how often each function was called by the API so far."""

    def read() -> Counter[str]:
        name = "gre_database_requests_total"
        return Counter({call: int(api.worker.metric(name, function=call)) for call in CALLS})

    return await asyncio.to_thread(read)


async def test_a_player_enters_by_one_call_once_the_hub_runs(api: Api, player_id: int, other_id: int) -> None:
    def token(player: int) -> str:
        return api.stack.keys.user_token("player", player_id=player)

    def send(text: str) -> None:
        api.stack.insert(player_id=player_id, sender="player", message=text).raise_for_status()

    send("before")
    async with entered(api.worker.url, token(other_id)):
        before = await calls(api)
        async with entered(api.worker.url, token(player_id)) as page:
            (session,) = page.all("authenticated")[0]["sessions"]
            send("after")
            live = await page.wait("chat_message")
        assert await calls(api) - before == {"gre_enter": 1}
        async with entered(api.worker.url, token(player_id), since={session["id"]: 0}) as page:
            await page.until(lambda: len(page.all("chat_message")) == 2)
            assert [f["message"]["message"] for f in page.all("chat_message")] == ["before", "after"]
            assert live["message"]["seq"] == 2
        async with entered(api.worker.url, api.stack.keys.user_token("staff", staff_id="s1")):
            assert await calls(api) - before == {"gre_enter": 2, "gre_whoami": 1, "gre_catch_up": 1}


async def test_a_forged_token_that_names_a_player_gets_nothing_of_its_sessions(
    api: Api, player_id: int, other_id: int
) -> None:
    forged = Keys.generate().user_token("player", player_id=player_id)
    api.stack.insert(player_id=player_id, sender="player", message="hidden").raise_for_status()
    async with (
        entered(api.worker.url, api.stack.keys.user_token("player", player_id=other_id)),
        opened(api.worker.url) as page,
    ):
        await page.send("authenticate", token=forged, since={})
        await page.closed.wait()
        assert (page.code, [frame["type"] for frame in page.frames]) == (4401, ["error"])
