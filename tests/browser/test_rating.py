"""A player rates a closed conversation on its page: by keyboard, and nothing that it wrote is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.test_accessible import assert_accessible
from tests.browser.world import Player, World
from tests.support.waiting import wait_until

RATE = "**/rest/v1/rpc/gre_rate_session*"


@pytest.fixture
def closed(world: World) -> Iterator[str]:
    """A session with an answer of staff, closed while ratings are on."""
    world.sql("update gre_chat_settings set rating_enabled = true")
    world.write(29, "Is table 4 open?", "Asha")
    world.reply(29, "It is free from eight.")
    yield close(world)
    world.sql("update gre_chat_settings set rating_enabled = false")


def close(world: World) -> str:
    waiting = "select id from gre_chat_sessions where player_id = 29 and status <> 'closed'"
    wait_until(lambda: world.sql(waiting))
    rows = world.sql(
        "update gre_chat_sessions set status = 'closed' where player_id = 29 and status <> 'closed' returning id"
    )
    return str(rows[0]["id"])


def write(asha: Player, text: str, count: int) -> None:
    """Write the message with this number, and wait until it is stored: staff's answer must not come before it."""
    asha.type(text)
    expect(asha.at("try-message")).to_have_count(count)
    expect(asha.page.locator("[data-pending]")).to_have_count(0)


def ratings(world: World) -> list[dict[str, Any]]:
    return world.sql("select score, comment from gre_chat_ratings order by rated_at")


def test_a_closed_conversation_is_rated_by_keyboard(world: World, closed: str, join: Join) -> None:
    asha = join(Player).enter()
    form = asha.at("try-rating")
    expect(form).to_be_visible()
    assert_accessible(asha.page, "the form of a rating")
    stars = form.get_by_role("radio")
    expect(stars).to_have_count(5)
    expect(form.get_by_role("group", name="How was the conversation?")).to_be_visible()
    stars.first.focus()
    for key in ("Space", "ArrowRight", "ArrowRight", "ArrowRight"):
        asha.page.keyboard.press(key)
    expect(stars.nth(3)).to_be_checked()
    expect(stars.nth(3)).to_have_accessible_name("4 stars")
    asha.page.keyboard.press("Tab")
    asha.page.keyboard.type("Quick and friendly")
    asha.page.keyboard.press("Tab")
    asha.page.keyboard.press("Enter")
    thanks = asha.at("try-rating-thanks")
    expect(thanks).to_have_text("Thank you for your rating.")
    expect(thanks).to_be_focused()
    expect(form).to_be_hidden()
    assert ratings(world) == [{"score": 4, "comment": "Quick and friendly"}]
    asha.page.reload()
    expect(asha.at("try-message")).to_have_count(2)
    expect(form).to_be_hidden()


def test_a_rating_survives_a_failed_request_and_a_reload(world: World, closed: str, join: Join) -> None:
    asha = join(Player).enter()
    answers = [503, 500]

    def fail(route: Route) -> None:
        route.fulfill(status=answers.pop(), json={"message": "not now"}) if answers else route.continue_()

    asha.page.route(RATE, fail)
    form = asha.at("try-rating")
    form.get_by_role("radio", name="2 stars").check(force=True)
    asha.at("try-rating-comment").fill("Slow\nand late")
    asha.at("try-rate").click()
    expect(asha.at("try-rating-error")).to_contain_text("Not sent: not now")
    asha.page.reload()
    expect(asha.at("try-rating-comment")).to_have_value("Slow\nand late")
    expect(form.get_by_role("radio", name="2 stars")).to_be_checked()
    asha.at("try-rate").click()
    expect(asha.at("try-rating-error")).to_contain_text("Not sent: not now")
    assert ratings(world) == []
    asha.at("try-rate").click()
    expect(asha.at("try-rating-thanks")).to_have_text("Thank you for your rating.")
    assert ratings(world) == [{"score": 2, "comment": "Slow\nand late"}]
    assert (
        asha.page.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('gre-rating')).length")
        == 0
    )
    asha.errors.clear()  # the browser logs the failed requests


def test_it_is_asked_when_the_session_is_closed_and_not_before(world: World, asha: Player) -> None:
    form = asha.at("try-rating")
    world.sql("update gre_chat_settings set rating_enabled = true")
    try:
        write(asha, "Hello?", 1)
        close(world)
        write(asha, "Is anybody there?", 2)
        expect(form).to_be_hidden()
        world.reply(29, "We are here.")
        expect(asha.at("try-message")).to_have_count(3)
        expect(form).to_be_hidden()
        close(world)
        expect(form).to_be_visible()
        write(asha, "One more question", 4)
        expect(form).to_be_hidden()
        world.sql("update gre_chat_settings set rating_enabled = false")
        world.reply(29, "Yes?")
        expect(asha.at("try-message")).to_have_count(5)
        with asha.page.expect_response("**/rest/v1/rpc/gre_whoami*"):
            close(world)
        expect(form).to_be_hidden()
    finally:
        world.sql("update gre_chat_settings set rating_enabled = false")
