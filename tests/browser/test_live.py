"""The view *Live*: figures that follow what happens, ways to the conversations, failures."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.test_accessible import assert_accessible
from tests.browser.world import PHONE, WIDE, Staff, World

_LIVE = "**/api/gre-admin/reports/live"


def open_live(staff: Staff) -> Staff:
    """Open the view, and wait for its figures."""
    staff.at("nav-live").click()
    expect(staff.at("live")).to_have_attribute("data-loaded", "true")
    return staff


def test_the_figures_follow_what_happens(world: World, join: Join) -> None:
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", assignment="least_busy", max_sessions=2)
    world.sql("update gre_staff set takes_sessions = false")
    ann = open_live(join(Staff).enter("admin:a1"))
    expect(ann.at("live-open")).to_contain_text("0")
    expect(ann.at("live-longest")).to_have_text("\N{EN DASH}Longest wait")
    expect(ann.at("live-member", staff_id="s2", status="offline")).to_be_visible()
    world.write(31, "Hello?", "Ravi")
    world.write(32, "Hello?", "Mei")
    expect(ann.at("live-waiting")).to_contain_text("2")
    expect(ann.at("live-unassigned")).to_contain_text("2")
    # The wait counts on.
    expect(ann.at("live-longest")).to_contain_text(re.compile(r"\d"))
    shown = ann.at("live-longest").inner_text()
    expect(ann.at("live-longest")).not_to_have_text(shown)
    sue = join(Staff).enter("staff:s2")
    expect(ann.at("live-member", staff_id="s2", status="online")).to_be_visible()
    sue.open(31)
    sue.at("assign-me").click()
    sue.answer("Yes")
    expect(ann.at("live-waiting")).to_contain_text("1")
    expect(ann.at("live-member", staff_id="s2", open=1, max=2)).to_contain_text("1 of 2")
    sue.open(32)
    sue.at("assign-me").click()
    expect(ann.at("live-member", staff_id="s2", open=2)).to_contain_text("full")
    expect(ann.at("live-member", staff_id="s2").get_by_role("img", name="2 of at most 2 conversations")).to_be_visible()  # fmt: skip
    sue.at("my-status").select_option("away")
    expect(ann.at("live-member", staff_id="s2", status="away")).to_be_visible()


def test_the_figures_lead_to_their_conversations(world: World, sam: Staff) -> None:
    for player in (31, 32, 33):
        world.write(player, "Hello?", f"Player {player}")
    world.reply(32, "Yes?")
    world.call("POST", "/api/gre-admin/take", "staff:s2", sessionId=world.write(33, "And?", "Player 33"))
    open_live(sam)
    expect(sam.at("live-waiting")).to_contain_text("2")
    sam.at("live-waiting").click()
    expect(sam.at("filter-waiting")).to_have_attribute("aria-pressed", "true")
    expect(sam.at("session-row")).to_have_count(2)
    sam.wait_until(lambda: sorted(sam.listed_players()) == [31, 33])
    world.reply(31, "Yes?")
    expect(sam.at("session-row")).to_have_count(1)
    world.reply(33, "Yes?")
    expect(sam.at("queue-empty")).to_have_text("Nobody waits for an answer.")
    # Another filter removes it from the row of filters.
    sam.at("filter-open").click()
    expect(sam.at("filter-waiting")).to_have_count(0)
    expect(sam.at("session-row")).to_have_count(3)
    open_live(sam)
    expect(sam.at("live-unassigned")).to_contain_text("2")
    sam.at("live-unassigned").press("Enter")
    expect(sam.at("filter-unassigned")).to_have_attribute("aria-pressed", "true")
    sam.wait_until(lambda: sorted(sam.listed_players()) == [31, 32])


def test_many_events_cause_few_requests_and_a_failure_keeps_the_figures(world: World, sam: Staff) -> None:
    asked: list[str] = []
    sam.page.on(
        "request", lambda request: asked.append(request.url) if request.url.endswith("/live") else None
    )
    open_live(sam)
    world.sql(
        "insert into gre_chat_messages (player_id, sender, sender_name, message) "
        "select n, 'player', 'Player ' || n, 'Hello?' from generate_series(41, 60) n"
    )
    expect(sam.at("live-waiting")).to_contain_text("20")
    assert 2 <= len(asked) < 20
    sam.page.route(
        _LIVE, lambda route: route.fulfill(status=500, json={"code": "internal", "error": "broken"})
    )
    world.write_as_backend(99, "Hello?", "Ravi")
    expect(sam.at("live-error")).to_have_text("Broken. The figures are older.")
    expect(sam.at("live-waiting")).to_contain_text("20")
    sam.page.unroute(_LIVE)
    world.write_as_backend(98, "Hello?", "Mei")
    expect(sam.at("live-waiting")).to_contain_text("22")
    expect(sam.at("live-error")).to_have_count(0)


@pytest.mark.parametrize("width", ["wide", "phone"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_live_view_is_accessible(world: World, join: Join, colours: str, width: str) -> None:
    world.write(31, "Hello?", "Ravi")
    size = WIDE if width == "wide" else PHONE
    ann = join(Staff, color_scheme=colours, viewport=size).enter("admin:a1")

    def busy(route: Route) -> None:
        found: dict[str, Any] = json.loads(route.fetch().body())
        for member, load in zip(found["staff"], (5, 2, 0), strict=True):
            member.update(open_sessions=load, max_sessions=5, status=("online", "away", "offline")[load % 3])
        route.fulfill(json={**found, "longest_wait": 700})

    ann.page.route(_LIVE, busy)
    open_live(ann)
    expect(ann.at("live-longest", state="bad")).to_be_visible()
    assert_accessible(ann.page, "live")
    assert ann.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    ann.at("live-waiting").click()
    expect(ann.at("filter-waiting")).to_be_visible()
    assert_accessible(ann.page, "waiting")
