"""axe finds no violation in any view: light and dark, wide and on a phone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Join
from tests.browser.world import PHONE, WIDE, Player, Staff, World


def assert_accessible(page: Page, view: str) -> None:
    """Assert that the page violates neither WCAG 2.2 A and AA nor axe's best practices."""
    found = Axe().run(page)
    assert found.violations_count == 0, f"{view}: {found.generate_report()}"


@pytest.mark.parametrize("width", ["wide", "phone"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_view_is_accessible(world: World, join: Join, colours: str, width: str) -> None:
    for player, name in ((31, "Ravi"), (32, "مريم"), (33, "Ola")):
        world.write(player, f"Hello, {name} here", name)
    world.reply(31, "Yes?")
    world.call("POST", "/api/gre-chat/close-session/33", "staff:s2")
    world.write(31, "A question", "Ravi")
    # Rings: one over its goal, one that runs.
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", first_reply_goal=1, reply_goal=3600)
    ann = join(Staff, color_scheme=colours, viewport=WIDE if width == "wide" else PHONE)
    ann.page.goto(f"{world.console}/console")
    expect(ann.page.get_by_label("Access token")).to_be_visible()
    assert_accessible(ann.page, "sign-in")
    ann.enter("admin:a1")
    expect(ann.at("session-row")).to_have_count(2)
    expect(ann.at("goal", state="over")).to_be_visible()
    expect(ann.at("goal", state="running")).to_be_visible()
    assert_accessible(ann.page, "list")
    ann.at("search").fill("here")
    assert_accessible(ann.page, "search field")
    ann.at("search").press("Enter")
    expect(ann.at("found-message")).to_have_count(3)
    assert_accessible(ann.page, "search of messages")
    ann.at("search-words").fill("x")
    ann.at("search-start").click()
    expect(ann.at("search-error")).to_be_visible()
    assert_accessible(ann.page, "refused search")
    ann.at("nav-conversations").click()
    ann.at("search").press("Escape")
    ann.open(31)
    ann.at("assign-me").click()
    expect(ann.at("release")).to_be_visible()
    ann.answer("An answer")
    expect(ann.message("An answer")).to_be_visible()
    ann.at("reply").fill("A draft")
    assert_accessible(ann.page, "conversation")
    ann.note("A note")
    expect(ann.at("note-text")).to_have_text("A note")
    ann.at("note-field").fill("Another one")
    assert_accessible(ann.page, "notes")
    ann.at("hand-over").click()
    assert_accessible(ann.page, "hand-over")
    ann.page.keyboard.press("Escape")
    ann.at("kind-reply").click()
    ann.at("close-session").click()
    expect(ann.at("reopen")).to_be_visible()
    assert_accessible(ann.page, "closed conversation")
    ann.page.keyboard.press("Escape")
    ann.page.evaluate("location.hash = '#health'")
    expect(ann.at("health")).to_have_attribute("data-loaded", "true")
    assert_accessible(ann.page, "health")
    ann.page.evaluate("location.hash = '#settings'")
    for section in ("template", "assignment", "hours", "auto-reply"):
        expect(ann.at(f"{section}-settings")).to_have_attribute("data-loaded", "true")
    assert_accessible(ann.page, "settings")
    if width == "wide":
        ann.at("help").click()
        expect(ann.page.get_by_role("dialog")).to_be_visible()
        assert_accessible(ann.page, "keyboard help")


def test_the_players_page_is_accessible(join: Join, world: World) -> None:
    world.write(29, "Hello", "Asha")
    world.reply(29, "Yes?")
    asha = join(Player).enter()
    expect(asha.at("try-message")).to_have_count(2)
    assert_accessible(asha.page, "player's page")
