"""The settings of admins: opening hours with their preview, and assignment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Join
from tests.browser.world import Staff, World

DASH = "\u2013"


@pytest.fixture
def ann(world: World, join: Join) -> Staff:
    """Admin a1 at the settings, in a browser whose time zone is UTC."""
    ann: Staff = join(Staff, timezone_id="UTC", locale="en-GB").enter("admin:a1")
    return _open(ann)


def _open(staff: Staff) -> Staff:
    staff.at("nav-settings").click()
    expect(staff.at("hours-settings")).to_have_attribute("data-loaded", "true")
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
    expect(ann.at("assignment-save")).to_be_disabled()
    settings = world.call("GET", "/api/gre-admin/settings", "staff:s1")["settings"]
    assert (settings["assignment"], settings["max_sessions"], settings["returning_within"]) == (
        "round_robin",
        4,
        5400,
    )
    expect(sam.row(31).get_by_test_id("assignee")).to_have_text("you")
    sam.open(31)
    expect(sam.at("event")).to_contain_text("Assigned to Sam")


def test_staff_who_are_no_admins_have_no_settings(sam: Staff) -> None:
    expect(sam.at("nav-settings")).to_have_count(0)
    sam.page.evaluate("location.hash = '#settings'")
    expect(sam.at("settings")).to_contain_text("Only admins")
    for name in ("assignment-settings", "hours-settings"):
        expect(sam.at(name)).to_have_count(0)
