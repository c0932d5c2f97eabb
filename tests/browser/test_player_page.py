"""The player's page shows each message once and in order, whatever happens to its subscription."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.world import Player, World
from tests.support.waiting import let_pass, wait_until

AUTH = "**/api/pusher/auth"
SEND = "**/rest/v1/rpc/gre_send_message*"
READ = "**/rest/v1/rpc/gre_chat_history*"


def _shown(asha: Player) -> list[str]:
    return asha.page.locator("[data-testid='try-message'] p").all_inner_texts()


def _stored(world: World) -> list[str]:
    rows = world.sql("select message from gre_chat_messages where player_id = 29 order by created_at, seq")
    return [row["message"] for row in rows]


def _on_send(asha: Player, handle: Callable[[Route], Any]) -> None:
    """Let `handle` answer each request that sends a message."""
    asha.page.route(
        SEND, lambda route: handle(route) if route.request.method == "POST" else route.continue_()
    )


def _text(route: Route) -> str:
    return str(route.request.post_data_json["p_message"])


@pytest.mark.parametrize("status", [503, 429])
def test_a_failed_subscription_is_retried(world: World, asha: Player, status: int) -> None:
    world.write(29, "Hello", "Asha")
    failures = [status] * 2

    def refuse(route: Route) -> None:
        route.fulfill(status=failures.pop(), body="not now") if failures else route.continue_()

    asha.page.route(AUTH, refuse)
    world.fault("pusher", {"action": "drop_sockets"})
    asha.wait_until(lambda: not failures, what="two refusals")
    world.reply(29, "Are you there?")
    wait_until(lambda: _shown(asha) == _stored(world))
    expect(asha.at("try-state")).to_have_attribute("data-state", "live")
    world.reply(29, "Still there?")
    wait_until(lambda: _shown(asha) == _stored(world))


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
    asha.wait_until(lambda: requests, what="a new subscription")
    # Two replies for each request of a subscription.
    wait_until(lambda: len(_shown(asha)) == 1 + 2 * len(requests) and _shown(asha) == _stored(world))
    asha.type("Thank you")
    wait_until(lambda: "Thank you" in _stored(world) and _shown(asha) == _stored(world))


def test_a_message_without_a_response_is_sent_again_with_the_same_id(world: World, join: Join) -> None:
    asha = join(Player)
    reading: list[Route] = []
    ids: list[str] = []

    def read(route: Route) -> None:
        reading.append(route)
        route.fulfill(response=route.fetch())
        reading.remove(route)

    def read_later(route: Route) -> None:
        route.continue_() if len(ids) == 2 else route.fulfill(status=503, body="not now")

    def drop_first_response(route: Route) -> None:
        ids.append(route.request.post_data_json["p_id"])
        if len(ids) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    asha.page.route(READ, read)
    asha.enter()
    # Whatever is read after the first try shows that the message is stored, and it is not sent again.
    asha.page.route(READ, read_later)
    asha.wait_until(lambda: not reading)
    _on_send(asha, drop_first_response)
    asha.type("Is anybody there?")
    asha.wait_until(lambda: len(ids) == 2)
    world.reply(29, "An answer")
    wait_until(lambda: _shown(asha) == ["Is anybody there?", "An answer"])
    assert len(set(ids)) == 1
    assert _stored(world) == _shown(asha)


@pytest.mark.parametrize("failures", [[], [503, 429]], ids=["slow", "failing"])
def test_messages_are_stored_in_the_order_in_which_they_were_typed(
    world: World, asha: Player, failures: list[int]
) -> None:
    held: list[Route] = []
    requests: list[str] = []

    def hold_first(route: Route) -> None:
        requests.append(_text(route))
        if requests == ["one"]:
            held.append(route)
        elif failures and _text(route) == "one":
            route.fulfill(status=failures.pop(), json={"message": "not now"})
        else:
            route.continue_()

    _on_send(asha, hold_first)
    for text in ("one", "two", "three"):
        asha.type(text)
    asha.wait_until(lambda: held)
    world.reply(29, "Hello")
    wait_until(lambda: _shown(asha) == ["Hello", "one", "two", "three"])
    assert requests == ["one"]
    if failures:
        held[0].fulfill(status=failures.pop(), json={"message": "not now"})
    else:
        held[0].continue_()
    asha.wait_until(lambda: len(_stored(world)) == 4)
    assert _stored(world) == ["Hello", "one", "two", "three"]
    wait_until(lambda: _shown(asha) == _stored(world))


def test_a_refused_text_is_kept_and_stops_no_other(world: World, asha: Player) -> None:
    held: list[Route] = []
    refused = ["one", "two"]

    def refuse(route: Route) -> None:
        if _text(route) == "one" and not held:
            held.append(route)
        elif _text(route) in refused:
            route.fulfill(status=403, json={"message": "not allowed"})
        else:
            route.continue_()

    _on_send(asha, refuse)
    for text in ("one", "two", "three"):
        asha.type(text)
    asha.wait_until(lambda: held)
    asha.at("try-input").fill("four")
    held[0].fulfill(status=403, json={"message": "not allowed"})
    asha.wait_until(lambda: _stored(world) == ["three"])
    expect(asha.at("try-input")).to_have_value("four")
    wait_until(lambda: sorted(_shown(asha)) == ["one", "three", "two"])
    refused.clear()
    for text in ("one", "two"):
        asha.at("try-message").filter(has_text=text).get_by_role("button", name="Send again").click()
        asha.wait_until(lambda text=text: _stored(world)[-1] == text)
    wait_until(lambda: _shown(asha) == _stored(world) == ["three", "one", "two"])
