"""The desk: the list, assignments, presence, keyboard, accessibility, phones and colours."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Join
from tests.browser.world import PHONE, Player, Staff, World
from tests.support.waiting import wait_until


def test_the_longest_wait_is_on_top_and_the_list_is_updated_live(world: World, sam: Staff) -> None:
    for player, name in ((31, "Ravi"), (32, "Mei"), (33, "Ola")):
        world.write(player, f"Hello, {name} here", name)
    wait_until(lambda: sam.listed_players() == [31, 32, 33])
    world.write(31, "Still here", "Ravi")
    expect(sam.row(31)).to_contain_text("Still here")
    expect(sam.row(31)).to_have_attribute("data-unread", "2")
    assert sam.listed_players() == [31, 32, 33]
    world.reply(31, "Yes?")
    expect(sam.row(31)).to_have_attribute("data-waiting", "false")
    wait_until(lambda: sam.listed_players() == [32, 33, 31])
    world.reply(33, "Yes?")
    wait_until(lambda: sam.listed_players() == [32, 33, 31])
    world.write(33, "I have a question", "Ola")
    wait_until(lambda: sam.listed_players() == [32, 33, 31])
    expect(sam.row(33)).to_have_attribute("data-waiting", "true")
    expect(sam.row(32).get_by_test_id("waiting")).to_be_visible()
    # After a reload the server's order is the same.
    sam.page.reload()
    sam.wait_until_live()
    wait_until(lambda: sam.listed_players() == [32, 33, 31])


def test_a_player_is_found_by_name_and_number(world: World, sam: Staff) -> None:
    for player, name in ((31, "Ravi"), (310, "Rania"), (32, "100% Mei")):
        world.write(player, "Hello", name)
    expect(sam.at("session-row")).to_have_count(3)
    for text, found in (("ra", [31, 310]), ("31", [31]), ("100%", [32]), ("%", []), ("nobody", [])):
        sam.at("search").fill(text)
        wait_until(lambda expected=found: sam.listed_players() == expected, what=text)
        if not found:
            expect(sam.at("queue-empty")).to_be_visible()
    world.call("POST", "/api/gre-chat/close-session/32", "staff:s2")
    sam.at("search").fill("100")
    wait_until(lambda: sam.listed_players() == [])
    sam.at("filter-closed").click()
    wait_until(lambda: sam.listed_players() == [32])
    sam.at("search").press("Escape")
    expect(sam.at("search")).to_have_value("")


def _wait_since(world: World, player: int, ago: str) -> None:
    """Set since when the player waits, as an interval before now."""
    world.sql(
        "update gre_chat_sessions set waiting_since = now() - %s::interval where player_id = %s", ago, player
    )


def _colour(ring: Locator) -> str:
    return str(ring.evaluate("element => getComputedStyle(element).color"))


def test_without_a_goal_a_row_has_no_ring(world: World, sam: Staff) -> None:
    world.write(31, "Hello", "Ravi")
    expect(sam.row(31).get_by_test_id("waiting")).to_be_visible()
    expect(sam.at("goal")).to_have_count(0)


def test_a_ring_shows_the_goal_of_the_first_reply_and_of_the_later_ones(world: World, join: Join) -> None:
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", first_reply_goal=300, reply_goal=900)
    for player, ago in ((31, "3 min"), (32, "7 min"), (33, "0 s")):
        world.write(player, "Hello", f"Player {player}")
        _wait_since(world, player, ago)
    sam = join(Staff).enter("staff:s1")
    rings = {player: sam.row(player).get_by_test_id("goal") for player in (31, 32, 33)}
    expect(sam.row(31).get_by_role("img", name="3 of 5 minutes", exact=True)).to_be_visible()
    expect(rings[31]).to_have_attribute("data-step", re.compile("2[4-9]|3[01]"))
    expect(sam.row(32).get_by_role("img", name="2 minutes over the goal", exact=True)).to_be_visible()
    # Over: another colour, and another shape.
    for player, state in ((31, "running"), (32, "over"), (33, "running")):
        expect(rings[player]).to_have_attribute("data-state", state)
    assert len({_colour(rings[n]) for n in (31, 32, 33)}) >= 2 and _colour(rings[32]) != _colour(rings[33])
    assert [rings[n].locator("path").count() for n in (31, 32, 33)] == [0, 1, 0]
    # A row's link says it, too.
    expect(sam.page.get_by_role("link", name=re.compile("2 minutes over the goal"))).to_have_count(1)
    # The goal of the next answer is another one: at once, and after a reload, when only the server knows it.
    world.reply(32, "Yes?")
    expect(rings[32]).to_have_count(0)
    world.write(32, "A question", "Player 32")
    for _ in range(2):
        expect(sam.row(32).get_by_role("img", name="0 of 15 minutes")).to_be_visible()
        sam.page.reload()
        sam.wait_until_live()
    # After a reopening the next answer is the first one.
    session = str(sam.row(32).get_attribute("data-session-id"))
    for status in ("closed", "active"):
        world.call("PUT", f"/api/gre-admin/session/{session}/status", "staff:s2", status=status)
    world.write(32, "One more thing", "Player 32")
    expect(sam.row(32).get_by_role("img", name="0 of 5 minutes")).to_be_visible()


def test_a_ring_fills_while_the_player_waits(world: World, sam: Staff, join: Join) -> None:
    ann = join(Staff).enter("admin:a1")
    world.write(31, "Hello", "Ravi")
    expect(ann.row(31)).to_be_visible()
    ann.at("nav-settings").click()
    ann.at("setting-firstReplyGoal").fill("0.5")
    ann.at("assignment-save").click()
    expect(ann.at("assignment-reset")).to_have_count(
        0
    )  # the button to save is disabled during the request, too
    assert world.call("GET", "/api/gre-admin/settings", "staff:s1")["settings"]["first_reply_goal"] == 30
    # The admin's page knows the goal at once; Sam's asks for it again from time to time, and at a reload.
    world.write(32, "Hello", "Mei")
    ann.at("nav-conversations").click()
    ring = ann.row(32).get_by_test_id("goal")
    expect(ring).to_have_attribute("data-state", "running")
    first = int(ring.get_attribute("data-step") or 0)
    wait_until(lambda: int(ring.get_attribute("data-step") or 0) > first)
    # The rest of the half minute is not waited for: as if she had asked before.
    asked = "update gre_chat_sessions set waiting_since = waiting_since - interval '24 seconds' where player_id = 32"
    world.sql(asked)
    expect(ring).to_have_attribute("data-state", "over")
    expect(ring).to_have_attribute(
        "aria-label", re.compile("^[0-9]+ seconds? over the goal|less than a second")
    )
    expect(sam.at("goal")).to_have_count(0)
    sam.page.reload()
    expect(sam.at("goal")).to_have_count(2)


def test_a_goal_that_counts_open_hours_is_paused_while_the_desk_is_closed(world: World, join: Join) -> None:
    week = [{"weekday": 1, "opens": None, "closes": None}]
    world.call(
        "POST", "/api/gre-admin/hours", "admin:a1", name="desk", timezone="Europe/Malta", week=week, dates=[]
    )
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", reply_goal=300, hours="desk")
    world.write(31, "Hello", "Ravi")
    sam = join(Staff).enter("staff:s1")
    name = "0 of 5 minutes, paused while the desk is closed"
    expect(sam.row(31).get_by_role("img", name=name, exact=True)).to_be_visible()
    expect(sam.row(31).get_by_test_id("goal").locator("path")).to_have_count(1)
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", goals_in_hours=False)
    _wait_since(world, 31, "7 min 10 s")
    sam.page.reload()
    expect(sam.row(31).get_by_role("img", name="2 minutes over the goal", exact=True)).to_be_visible()


def test_two_staff_see_each_others_assignments(world: World, sam: Staff, sue: Staff) -> None:
    world.write(31, "Hello", "Ravi")
    sam.open(31)
    sam.at("assign-me").click()
    expect(sam.row(31).get_by_test_id("assignee")).to_have_text("you")
    expect(sue.row(31).get_by_test_id("assignee")).to_have_text("Sam")
    sue.open(31)
    sam.hand_over("s2")
    expect(sue.row(31).get_by_test_id("assignee")).to_have_text("you")
    expect(sam.row(31).get_by_test_id("assignee")).to_have_text("Sue")
    sue.at("filter-mine").click()
    wait_until(lambda: sue.listed_players() == [31])
    sue.at("release").click()
    expect(sue.at("queue-empty")).to_be_visible()
    expect(sam.row(31).get_by_test_id("assignee")).to_have_count(0)


def test_a_conversation_is_closed_and_reopened_on_all_pages(world: World, sam: Staff, sue: Staff) -> None:
    world.write(31, "Hello", "Ravi")
    sam.open(31)
    sue.open(31)
    sam.at("close-session").click()
    for staff in (sam, sue):
        expect(staff.at("conversation")).to_have_attribute("data-status", "closed")
        expect(staff.at("reply")).to_have_count(0)
    wait_until(lambda: sam.listed_players() == [])
    sue.at("filter-closed").click()
    wait_until(lambda: sue.listed_players() == [31])
    sue.at("reopen").click()
    for staff in (sam, sue):
        expect(staff.at("conversation")).to_have_attribute("data-status", "active")
    wait_until(lambda: sam.listed_players() == [31])
    sam.at("close-session").click()
    expect(sue.at("conversation")).to_have_attribute("data-status", "closed")
    world.write(31, "One more thing", "Ravi")
    sam.at("newer-session").click()
    expect(sam.message("One more thing")).to_be_visible()


def test_changes_of_a_session_are_lines_between_its_messages(world: World, sam: Staff, sue: Staff) -> None:
    world.write(31, "Hello", "Ravi")
    for staff in (sam, sue):
        staff.open(31)
        expect(staff.message("Hello")).to_be_visible()
        expect(staff.at("event")).to_have_count(0)
    lines: list[str] = []

    def expect_lines(*added: str) -> None:
        # Each change is stored before the next is made: requests of two pages arrive in any order.
        lines.extend(added)
        for staff in (sam, sue):
            expect(staff.at("event")).to_have_text([re.compile(f"^{line} ") for line in lines])

    sam.at("assign-me").click()
    expect_lines("Taken by Sam")
    world.reply(31, "Yes?")
    expect(sam.message("Yes?")).to_be_visible()
    sam.hand_over("s2")
    expect_lines("Handed over to Sue by Sam")
    sue.at("close-session").click()
    expect_lines("Closed by Sue")
    sue.at("reopen").click()
    expect_lines("Reopened by Sue", "Unassigned by Sue")
    world.write(31, "Thank you", "Ravi")
    for staff in (sam, sue):
        expect(staff.message("Thank you")).to_be_visible()
        expect(staff.at("event")).to_have_count(len(lines))
    sam.page.reload()
    sam.wait_until_live()
    sam.open(31)
    expect(sam.at("event")).to_have_count(len(lines))
    rows = sam.page.locator("[data-testid=message], [data-testid=event]")
    which = "rows => rows.map((row) => row.dataset.seq ?? row.dataset.kind)"
    expected = ["1", "assigned", "2", "transferred", "closed", "reopened", "released", "3"]
    wait_until(lambda: rows.evaluate_all(which) == expected)


def test_a_player_is_blocked_with_a_reason_and_an_end_and_unblocked(
    world: World, sam: Staff, sue: Staff, asha: Player
) -> None:
    asha.type("Hello")
    sam.open(29)
    expect(sam.at("player-chat")).to_have_attribute("aria-pressed", "true")
    sam.at("player-chat").click()
    sam.at("block-end").select_option(label="For an hour")
    sam.at("block-reason").fill("Insulted a dealer")
    sam.page.keyboard.press("Escape")
    expect(sam.at("block-dialog")).to_have_count(0)
    expect(sam.at("player-chat")).to_have_attribute("aria-pressed", "true")
    sam.at("player-chat").click()
    expect(sam.at("block-reason")).to_have_value("Insulted a dealer")
    sam.at("block-end").select_option(label="For an hour")
    sam.at("block-dialog").get_by_role("button", name="Block").click()
    expect(sam.at("player-chat")).to_have_attribute("aria-pressed", "false")
    sue.open(29)
    for staff in (sam, sue):
        expect(staff.at("blocked")).to_contain_text(re.compile("blocked until .* by Sam: Insulted a dealer"))
    (stored,) = world.sql(
        "select blocked_until - clock_timestamp() between interval '50 minutes' and interval '1 hour' as in_an_hour"
        " from gre_chat_players"
    )
    assert stored["in_an_hour"]
    asha.type("May I?")
    expect(asha.at("try-state")).to_contain_text("disabled")
    expect(asha.at("try-input")).to_have_value("May I?")
    assert "Insulted" not in asha.page.content()
    sam.at("player-chat").click()
    expect(sam.at("blocked")).to_have_count(0)
    expect(sam.at("player-chat")).to_have_attribute("aria-pressed", "true")
    asha.type("May I?")
    expect(sam.message("May I?")).to_be_visible()


def test_the_presence_of_colleagues_is_shown(world: World, sam: Staff, sue: Staff, join: Join) -> None:
    expect(sam.at("colleague", staff_id="s2", status="online")).to_be_visible()
    expect(sue.at("colleague", staff_id="s1", status="online")).to_be_visible()
    sue.at("my-status").select_option("away")
    expect(sam.at("colleague", staff_id="s2", status="away")).to_be_visible()
    ann = join(Staff).enter("admin:a1")
    expect(ann.at("colleague", staff_id="s2", status="away")).to_be_visible()
    expect(sam.at("colleague", staff_id="a1", status="online")).to_be_visible()
    sue.at("my-status").select_option("offline")
    expect(sam.at("colleague", staff_id="s2")).to_have_count(0)
    sue.at("my-status").select_option("online")
    expect(sam.at("colleague", staff_id="s2", status="online")).to_be_visible()


def test_the_desk_works_by_keyboard(world: World, sam: Staff) -> None:
    for player, name in ((31, "Ravi"), (32, "Mei"), (33, "Ola")):
        world.write(player, f"Hello, {name} here", name)
    expect(sam.at("session-row")).to_have_count(3)
    keys = sam.page.keyboard
    for key, player in (("j", 31), ("j", 32), ("j", 33), ("k", 32)):
        keys.press(key)
        expect(sam.at("conversation")).to_have_attribute("data-player-id", str(player))
        expect(sam.row(player)).to_have_attribute("aria-current", "true")
    keys.press("Enter")
    expect(sam.at("reply")).to_be_focused()
    keys.type("jk/ are letters here")
    keys.press("Enter")
    expect(sam.message("jk/ are letters here")).to_be_visible()
    keys.press("Escape")
    expect(sam.at("reply")).not_to_be_focused()
    keys.press("/")
    expect(sam.at("search")).to_be_focused()
    keys.type("ola")
    wait_until(lambda: sam.listed_players() == [33])
    keys.press("Escape")
    wait_until(lambda: len(sam.listed_players()) == 3)
    keys.press("Escape")
    keys.press("?")
    expect(sam.page.get_by_role("dialog")).to_be_visible()
    keys.press("Escape")
    expect(sam.page.get_by_role("dialog")).to_be_hidden()
    keys.press("Escape")
    expect(sam.at("conversation")).to_have_count(0)


def test_a_key_right_after_the_help_was_closed(world: World, sam: Staff) -> None:
    """The focus leaves the dialog with the next frame; a key before that is a shortcut already."""
    world.write(31, "Hello", "Ravi")
    sam.open(31)
    sam.page.keyboard.press("Escape")
    sam.page.keyboard.press("?")
    expect(sam.page.get_by_role("dialog")).to_be_visible()
    sam.page.evaluate(
        """() => {
          document.querySelector('dialog').close()
          document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }))
        }"""
    )
    expect(sam.at("conversation")).to_have_count(0)


def test_new_messages_are_announced_to_screen_readers(world: World, sam: Staff) -> None:
    world.write(31, "Hello", "Ravi")
    expect(sam.at("announcer")).to_have_text("New message from Ravi")
    sam.open(31)
    world.write(31, "Are you there?", "Ravi")
    expect(sam.at("announcer")).to_have_text("Ravi: Are you there?")
    assert sam.at("announcer").get_attribute("aria-live") == "polite"
    expect(sam.page.get_by_role("log", name="Conversation with Ravi")).to_be_visible()
    expect(sam.page.get_by_role("textbox", name="Reply to Ravi")).to_be_visible()
    expect(sam.page.get_by_role("navigation")).to_be_visible()


def test_a_phone_shows_either_the_list_or_the_conversation(world: World, join: Join) -> None:
    world.write(31, "Hello from a phone", "Ravi")
    sam = join(Staff, viewport=PHONE, is_mobile=True, has_touch=True).enter()
    sam.row(31).tap()
    expect(sam.at("reply")).to_be_visible()
    expect(sam.at("queue")).to_be_hidden()
    sam.answer("Hello from another")
    expect(sam.message("Hello from another")).to_be_visible()
    assert sam.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    sam.page.get_by_label("Back to the list").tap()
    expect(sam.row(31)).to_be_visible()
    expect(sam.at("reply")).to_have_count(0)
    assert sam.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("system", ["light", "dark"])
def test_colours_follow_the_system_until_the_user_chooses(join: Join, system: str) -> None:
    sam = join(Staff, color_scheme=system).enter()

    def brightness() -> float:
        """The brightness of the page's background, from 0 to 255."""
        colour: str = sam.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(float(part) for part in colour.strip("rgba()").split(",")[:3]) / 3

    assert (brightness() > 128) == (system == "light")
    seen = set()
    for _ in range(3):
        sam.at("theme").click()
        seen.add((sam.at("theme").get_attribute("data-theme"), brightness() > 128))
    assert seen == {("auto", system == "light"), ("light", True), ("dark", False)}
    sam.at("theme").click()
    chosen = sam.at("theme").get_attribute("data-theme")
    sam.page.reload()
    expect(sam.at("theme")).to_have_attribute("data-theme", chosen or "")
