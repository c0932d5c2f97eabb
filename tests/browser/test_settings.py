"""The settings: opening hours with their preview, assignment, templates and auto-replies; templates in the reply box."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Join
from tests.browser.world import Player, Staff, World

DASH = "\u2013"


@pytest.fixture
def ann(world: World, join: Join) -> Staff:
    """Admin a1 at the settings, in a browser whose time zone is UTC."""
    ann: Staff = join(Staff, timezone_id="UTC", locale="en-GB").enter("admin:a1")
    return _open(ann)


def _open(staff: Staff) -> Staff:
    staff.at("nav-settings").click()
    expect(staff.at("template-settings")).to_have_attribute("data-loaded", "true")
    return staff


def _next(weekday: int) -> str:
    """The next day from tomorrow on with this weekday (1 is Monday), in UTC."""
    day = datetime.now(UTC).date() + timedelta(days=1)
    return str(day + timedelta(days=(weekday - day.isoweekday()) % 7))


def test_hours_are_shown_for_the_next_14_days_before_they_are_saved(world: World, ann: Staff) -> None:
    expect(ann.at("preview-day")).to_have_count(14)
    ann.at("hours-name").fill("desk")
    ann.at("hours-timezone").fill("Europe/Malta")
    ann.at("hours-0-6").fill("18-2")
    ann.at("hours-0-7").fill("nine")
    expect(ann.at("preview-day", day=_next(7))).to_contain_text("not a time")
    ann.at("hours-save").click()
    expect(ann.at("hours-error")).to_have_text(f"Sunday: write times as 09:00{DASH}18:00.")
    ann.at("hours-0-7").fill("")
    expect(ann.at("preview-day", day=_next(6))).to_contain_text(f"18:00{DASH}02:00")
    ann.at("add-special-day").click()
    ann.at("special-day-0").fill(_next(3))
    ann.at("special-label-0").fill("Republic Day")
    expect(ann.at("preview-day", day=_next(3))).to_contain_text("closed")
    expect(ann.at("preview-day", day=_next(3))).to_contain_text("Republic Day")
    # What was typed survives a reload.
    ann.page.reload()
    expect(ann.at("hours-0-6")).to_have_value("18-2")
    ann.at("hours-save").click()
    expect(ann.at("hours-choice")).to_have_value("desk")
    expect(ann.at("hours-0-6")).to_have_value(f"18:00{DASH}02:00")
    expect(ann.at("preview-day", day=_next(3))).to_contain_text("Republic Day")
    hours = world.call("GET", "/api/gre-admin/hours/desk", "staff:s1")["hours"]
    assert hours["timezone"] == "Europe/Malta"
    assert [entry["weekday"] for entry in hours["week"]] == [1, 2, 3, 4, 5, 6]
    assert hours["dates"] == [{"day": _next(3), "label": "Republic Day", "opens": None, "closes": None}]


def test_a_refusal_of_the_server_is_shown_and_the_input_stays(world: World, ann: Staff) -> None:
    ann.at("hours-name").fill("desk")
    ann.at("hours-timezone").fill("Europe/Nowhere")
    ann.at("hours-save").click()
    expect(ann.at("hours-error")).to_contain_text("time zone")
    expect(ann.at("hours-timezone")).to_have_value("Europe/Nowhere")
    assert world.call("GET", "/api/gre-admin/hours", "staff:s1")["hours"] == []


def test_assignment_is_switched_on_and_a_waiting_session_is_assigned(
    world: World, ann: Staff, join: Join
) -> None:
    sam = join(Staff).enter("staff:s1")
    ann.at("my-status").select_option("away")
    world.write(31, "Hello", "Ravi")
    expect(sam.row(31)).to_have_attribute("data-waiting", "true")
    ann.at("setting-assignment").select_option("round_robin")
    ann.at("setting-maxSessions").fill("many")
    ann.at("assignment-save").click()
    expect(ann.at("assignment-error")).to_contain_text("not a number")
    ann.at("setting-maxSessions").fill("4")
    ann.at("setting-returningWithin").fill("1.5")
    ann.at("assignment-save").click()
    expect(ann.at("assignment-reset")).to_have_count(0)
    settings = world.call("GET", "/api/gre-admin/settings", "staff:s1")["settings"]
    assert (settings["assignment"], settings["max_sessions"], settings["returning_within"]) == (
        "round_robin",
        4,
        5400,
    )
    expect(sam.row(31).get_by_test_id("assignee")).to_have_text("you")
    sam.open(31)
    expect(sam.at("event")).to_contain_text("Assigned to Sam")


def test_staff_who_are_no_admins_see_templates_only(sam: Staff) -> None:
    _open(sam)
    for name in ("assignment-settings", "hours-settings", "auto-reply-settings"):
        expect(sam.at(name)).to_have_count(0)


def test_a_template_is_inserted_by_its_shortcut_with_its_blanks_filled_in(
    world: World, ann: Staff, sam: Staff, asha: Player
) -> None:
    ann.at("template-shortcut").fill("refund")
    ann.at("template-title").fill("Money comes back")
    ann.at("template-settings").get_by_test_id("text-en").fill(
        "Hello {{player_name|there}}, we return {{?amount}} to you."
    )
    ann.at("template-save").click()
    expect(ann.at("template-choice")).to_contain_text("/refund")
    asha.type("Where is my money?")
    sam.open(29)
    keys = sam.page.keyboard
    sam.at("reply").focus()
    keys.type("Good news: /mon")
    expect(sam.at("template-option", shortcut="refund")).to_have_attribute("aria-selected", "true")
    expect(sam.at("template-preview")).to_contain_text("{{?amount}}")
    keys.press("Enter")
    expect(sam.at("blank-amount")).to_be_focused()
    assert sam.page.locator("form form").count() == 0
    keys.type("20 euros")
    expect(sam.at("blanks-preview")).to_have_text("Hello Asha, we return 20 euros to you.")
    keys.press("Enter")
    expect(sam.at("reply")).to_have_value("Good news: Hello Asha, we return 20 euros to you.")
    expect(sam.at("reply")).to_be_focused()
    assert world.texts(str(sam.at("conversation").get_attribute("data-session-id"))) == ["Where is my money?"]
    keys.press("Enter")
    expect(asha.at("try-message").last).to_contain_text("Good news: Hello Asha, we return 20 euros to you.")
    # Without a match, and after Escape, Enter sends.
    keys.type("/nothing")
    expect(sam.at("template-menu")).to_have_count(0)
    keys.press("Enter")
    expect(asha.at("try-message").last).to_contain_text("/nothing")
    keys.type("/refund")
    expect(sam.at("template-menu")).to_be_visible()
    keys.press("Escape")
    expect(sam.at("template-menu")).to_have_count(0)
    expect(sam.at("reply")).to_be_focused()
    keys.press("Enter")
    expect(asha.at("try-message").last).to_contain_text("/refund")


def test_the_focus_stays_at_the_form_after_save_undo_and_delete(ann: Staff) -> None:
    ann.at("template-shortcut").fill("hi")
    ann.at("template-title").fill("Hello")
    ann.at("template-settings").get_by_test_id("text-en").fill("Hello!")
    ann.at("template-save").click()
    expect(ann.at("template-choice")).to_contain_text("/hi")
    expect(ann.at("template-choice")).to_be_focused()
    ann.at("template-title").fill("Welcome")
    ann.at("template-reset").click()
    expect(ann.at("template-title")).to_have_value("Hello")
    expect(ann.at("template-save")).to_be_disabled()
    expect(ann.at("template-save")).to_be_focused()
    ann.at("template-title").fill("Welcome")
    ann.at("template-save").click()
    expect(ann.at("template-reset")).to_have_count(0)
    expect(ann.at("template-save")).to_be_disabled()
    expect(ann.at("template-save")).to_be_focused()
    ann.page.keyboard.press("Enter")
    expect(ann.at("template-choice")).to_contain_text("Welcome")
    ann.at("template-delete").click()
    expect(ann.at("template-choice")).not_to_contain_text("/hi")
    expect(ann.at("template-choice")).to_be_focused()


def test_an_own_template_is_seen_by_its_author_only(world: World, sam: Staff, sue: Staff) -> None:
    _open(sam)
    sam.at("template-shortcut").fill("bye")
    sam.at("template-title").fill("Goodbye")
    sam.at("text-en").fill("{{unknown}}")
    sam.at("template-save").click()
    expect(sam.at("template-error")).to_contain_text("placeholder")
    sam.at("text-en").fill("Goodbye!")
    sam.at("template-save").click()
    expect(sam.at("template-choice")).to_contain_text("/bye")
    world.write(31, "Hello", "Ravi")
    sam.at("nav-conversations").click()
    for staff, shown in ((sam, 1), (sue, 0)):
        staff.open(31)
        with (
            staff.page.expect_response("**/api/gre-admin/templates")
            if staff is sue
            else contextlib.nullcontext()
        ):
            staff.at("reply").press_sequentially("/bye")
        expect(staff.at("template-option")).to_have_count(shown)


def test_the_auto_reply_that_would_be_sent_now_is_shown(world: World, ann: Staff, asha: Player) -> None:
    expect(ann.at("auto-reply-now")).to_contain_text("no auto-reply now")
    ann.at("auto-reply-name").fill("Greeting")
    ann.at("auto-reply-settings").get_by_test_id("text-en").fill("Welcome, {{player_name|there}}!")
    ann.at("auto-reply-save").click()
    expect(ann.at("auto-reply-now")).to_contain_text("Welcome, there!")
    asha.type("Hello")
    expect(asha.at("try-message").last).to_contain_text("Welcome, Asha!")
    ann.at("auto-reply-active").uncheck()
    ann.at("auto-reply-save").click()
    expect(ann.at("auto-reply-now")).to_contain_text("no auto-reply now")
