"""The player's page shows each message once and in order, whatever happens to its subscription."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.world import Player, World
from tests.support.waiting import let_pass, wait_until

AUTH = "**/api/pusher/auth"


def _shown(asha: Player) -> list[str]:
    return asha.page.locator("[data-testid='try-message'] p").all_inner_texts()


def _stored(world: World) -> list[str]:
    rows = world.sql("select message from gre_chat_messages where player_id = 29 order by created_at, seq")
    return [row["message"] for row in rows]


@pytest.mark.parametrize("status", [503, 429])
def test_a_failed_subscription_is_retried(world: World, asha: Player, status: int) -> None:
    world.write(29, "Hello", "Asha")
    failures = [status] * 2

    def refuse(route: Route) -> None:
        route.fulfill(status=failures.pop(), body="not now") if failures else route.continue_()

    asha.page.route(AUTH, refuse)
    world.fault("pusher", {"action": "drop_sockets"})
    wait_until(lambda: asha.page.evaluate("1") and not failures, 30, what="two refusals")
    world.reply(29, "Are you there?")
    wait_until(lambda: _shown(asha) == _stored(world), 30)
    expect(asha.at("try-state")).to_have_attribute("data-state", "live")
    world.reply(29, "Still there?")
    wait_until(lambda: _shown(asha) == _stored(world), 30)


def test_messages_during_a_slow_subscription_are_shown(world: World, asha: Player) -> None:
    world.write(29, "Hello", "Asha")
    requests: list[str] = []

    def slow(route: Route) -> None:
        requests.append(route.request.url)
        world.reply(29, f"While you wait {len(requests)}")
        let_pass(1, "a slow response is the subject of this test")
        world.reply(29, f"And again {len(requests)}")
        route.continue_()

    asha.page.route(AUTH, slow)
    world.fault("pusher", {"action": "drop_sockets"})
    wait_until(lambda: asha.page.evaluate("1") and requests, 30, what="a new subscription")
    wait_until(lambda: len(_shown(asha)) == 3 and _shown(asha) == _stored(world), 30)
    asha.type("Thank you")
    wait_until(lambda: _shown(asha) == _stored(world) and len(_stored(world)) == 4, 30)


def test_a_message_without_a_response_is_sent_again_with_the_same_id(world: World, join: Join) -> None:
    asha = join(Player).enter()
    ids: list[str] = []

    def drop_first_response(route: Route) -> None:
        ids.append(route.request.post_data_json["id"])
        if len(ids) == 1:
            route.fetch()
            world.reply(29, "An answer meanwhile")
            route.abort()
        else:
            route.continue_()

    asha.page.route("**/rest/v1/gre_chat_messages*", lambda r: drop_first_response(r) if r.request.method == "POST" else r.continue_())  # fmt: skip
    asha.type("Is anybody there?")
    wait_until(lambda: asha.page.evaluate("1") and len(ids) == 2, 30)
    wait_until(lambda: _shown(asha) == ["Is anybody there?", "An answer meanwhile"], 30)
    assert len(set(ids)) == 1
    assert _stored(world) == _shown(asha)
