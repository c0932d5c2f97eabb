"""The view *Reports*: its numbers are those of REST, the keyboard, links, CSV, a cell's conversations, failures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser import report_answers
from tests.browser.conftest import Join
from tests.browser.test_accessible import assert_accessible
from tests.browser.world import PHONE, WIDE, Staff, World

_REPORT = "**/api/gre-admin/reports?*"
_SESSIONS = "**/api/gre-admin/reports/sessions?*"
_MONTH = "range=custom&from=2026-10-01&to=2026-10-31&zone=Europe%2FMalta"


def open_reports(staff: Staff, parameters: str = "") -> Staff:
    """Open the view, and wait for its answer."""
    staff.page.evaluate("(hash) => { location.hash = hash }", f"#reports{parameters and '?'}{parameters}")
    expect(staff.at("reports", state="done")).to_be_visible()
    return staff


def answer_reports(
    staff: Staff, answer: Callable[[str], dict[str, Any]] = report_answers.report
) -> list[str]:
    """Answer reports in the server's place; returns the addresses that are asked."""
    asked: list[str] = []

    def fulfil(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json=answer(route.request.url))

    staff.page.route(_REPORT, fulfil)
    return asked


def cells(staff: Staff) -> list[list[str]]:
    """The values of the table's cells, the total last; empty where there is none."""
    script = "rows => rows.map(row => [...row.querySelectorAll('[data-testid=cell]')].map(cell => cell.dataset.value))"
    return list(staff.page.get_by_test_id("figures").locator("tbody tr, tfoot tr").evaluate_all(script))


def shown(*values: float | None) -> list[str]:
    """Values as the page's cells have them."""
    return ["" if value is None else repr(value).removesuffix(".0") for value in values]


def durations(row: dict[str, Any], name: str) -> list[str]:
    """The cells of a row of durations."""
    return shown(*(row[name][part] for part in ("median", "mean", "p90", "max", "n")))


def conversations(row: dict[str, Any]) -> list[str]:
    """The cells of a row of conversations."""
    names = ("sessions_opened", "sessions_closed", "closed_idle", "missed", "dropped", "transfers")
    return shown(*(row[name] for name in names))


def test_what_is_asked_is_in_the_address(join: Join) -> None:
    ann = join(Staff, timezone_id="Asia/Tokyo", locale="en-GB").enter("admin:a1")
    asked = answer_reports(ann)
    ann.at("nav-reports").click()
    expect(ann.at("reports", state="done")).to_be_visible()
    assert "zone=Asia%2FTokyo" in ann.page.url
    ann.at("report-range").select_option("custom")
    ann.at("report-from").fill("2026-03-29")
    ann.at("report-to").fill("2026-03-29")
    ann.at("report-zone").select_option("Europe/Malta")
    ann.at("report-by").select_option("hour")
    ann.at("report-basis").select_option("closed")
    ann.at("report-hours").check()
    ann.at("total", group="reply").click()
    expect(ann.at("report-group", group="reply")).to_be_visible()
    expect(ann.at("reports", state="done")).to_be_visible()
    # A day of 23 hours.
    assert report_answers.parameters(asked[-1]) == {
        "from": "2026-03-28T23:00:00.000Z", "to": "2026-03-29T22:00:00.000Z", "timezone": "Europe/Malta", "by": "hour",
        "basis": "closed", "in_hours": "true",
    }  # fmt: skip
    expect(ann.at("figure-row")).to_have_count(23)
    # Another figure of the same answer is no question.
    before = len(asked)
    ann.at("total", group="rating").click()
    expect(ann.at("report-group", group="rating")).to_be_visible()
    assert len(asked) == before
    # A link: the same report in another browser, whose own zone is another one.
    link = ann.page.url.partition("#")[2]
    sue = join(Staff, timezone_id="UTC").enter("staff:s2")
    answer_reports(sue)
    open_reports(sue, link.partition("?")[2])
    expect(sue.at("report-group", group="rating")).to_be_visible()
    assert cells(sue) == cells(ann)
    expect(sue.at("report-zone")).to_have_value("Europe/Malta")
    expect(sue.at("report-hours")).to_be_checked()
    # The zone that a user chose is remembered; one that came with a link is not.
    for person, zone in ((ann, "Europe/Malta"), (sue, "UTC")):
        person.page.evaluate("location.hash = ''")
        person.at("nav-reports").click()
        expect(person.at("report-zone")).to_have_value(zone)


def test_a_newer_question_cancels_the_older_one(sam: Staff) -> None:
    held: list[Route] = []
    sam.page.route(_REPORT, lambda route: held.extend([route]))
    failed: list[str] = []
    sam.page.on("requestfailed", lambda request: failed.append(request.url))
    sam.at("nav-reports").click()
    expect(sam.at("report-status")).to_contain_text("Counting … a long time takes longer.")
    sam.at("report-by").select_option("staff")
    sam.wait_until(lambda: len(held) == 2 and len(failed) == 1, what="the newer question")
    assert report_answers.parameters(failed[0])["by"] == "day"
    held[1].fulfill(json=report_answers.report(held[1].request.url))
    expect(sam.at("figure-row")).to_have_count(4)
    # The next one: what is shown stays, and the user stops waiting.
    sam.at("report-by").select_option("week")
    expect(sam.at("reports", state="loading")).to_be_visible()
    expect(sam.at("figure-row")).to_have_count(4)
    sam.wait_until(lambda: len(held) == 3, what="the next question")
    sam.at("report-stop").click()
    expect(sam.at("report-status")).to_have_text("Stopped.")
    sam.wait_until(lambda: len(failed) == 2, what="the end of the question")
    sam.page.unroute(_REPORT)
    answer_reports(sam)
    sam.at("report-again").click()
    expect(sam.at("report-status")).to_contain_text("As of")
    expect(sam.at("figure-row")).to_have_count(1)


def test_a_refusal_a_busy_server_and_a_lost_connection(sam: Staff) -> None:
    asked: list[Route] = []

    def refuse_first(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            busy = {"code": "busy", "error": "too many reports at once"}
            route.fulfill(status=503, json=busy, headers={"Retry-After": "1"})

    sam.page.route(_REPORT, refuse_first)
    sam.at("nav-reports").click()
    # The second try has no answer until this was seen.
    expect(sam.at("report-status")).to_have_text("The server counts other reports: waiting …")
    sam.wait_until(lambda: len(asked) == 2, what="another try")
    asked[1].fulfill(status=400, json={"code": "report_too_large", "error": "a report has at most 2500 rows"})
    expect(sam.at("report-error")).to_have_text("A report has at most 2500 rows.")
    sam.page.unroute(_REPORT)
    sam.page.context.set_offline(True)
    sam.at("report-again").click()
    expect(sam.at("report-error")).to_have_text("The server does not answer.")
    sam.page.context.set_offline(False)
    answer_reports(sam)
    sam.at("report-again").click()
    expect(sam.at("report-error")).to_have_count(0)
    expect(sam.at("figure-row")).to_have_count(7)


def test_nothing_happened_and_figures_that_are_not_whole(sam: Staff) -> None:
    def empty(url: str) -> dict[str, Any]:
        found = report_answers.report(url, whole_from="2026-10-10T08:00:00Z")
        blank = report_answers.figures(None, 0)
        rows = [{**blank, **{name: row[name] for name in ("key", "start", "end")}} for row in found["rows"]]
        return {**found, "rows": rows, "total": blank}

    answer_reports(sam, empty)
    open_reports(sam, f"{_MONTH}&show=reply")
    expect(sam.at("report-empty")).to_have_text("Nothing happened in this time.")
    expect(sam.at("chart")).to_have_count(0)
    expect(sam.at("figure-row")).to_have_count(31)
    expect(sam.at("whole-from")).to_contain_text("10")
    assert cells(sam)[-1] == ["", "", "", "", "0"]
    # The figures after that time are whole.
    sam.at("report-from").fill("2026-10-20")
    expect(sam.at("whole-from")).to_have_count(0)


def test_the_chart_and_the_table_by_keyboard(sam: Staff) -> None:
    asked: list[dict[str, str]] = []

    def list_sessions(route: Route) -> None:
        asked.append(report_answers.parameters(route.request.url))
        route.fulfill(json={"success": True, "items": [], "next": None})

    answer_reports(sam)
    sam.page.route(_SESSIONS, list_sessions)
    open_reports(sam, f"{_MONTH}&show=conversations")
    keys, chart = sam.page.keyboard, sam.at("chart")
    expect(chart).to_have_attribute("aria-valuetext", "No place chosen")
    chart.focus()
    keys.press("Home")
    keys.press("ArrowRight")
    rows = report_answers.report(_asked(sam))["rows"]
    opened, closed = rows[1]["sessions_opened"], rows[1]["sessions_closed"]
    text = chart.get_attribute("aria-valuetext") or ""
    assert f": opened {opened}, closed {closed}, missed " in text and text.endswith("Enter lists: opened")
    keys.press("ArrowDown")
    expect(chart).to_have_attribute("aria-valuetext", f"{text.removesuffix('opened')}closed")
    keys.press("Enter")
    expect(sam.at("cell-sessions")).to_be_visible()
    # The page asks once the dialog is painted.
    sam.wait_until(lambda: len(asked) == 1, what="the question of the first cell")
    keys.press("Escape")
    expect(sam.at("cell-sessions")).to_have_count(0)
    expect(chart).to_be_focused()
    keys.press("End")
    expect(chart).to_have_attribute("aria-valuenow", "31")
    # The table has one place in the order of Tab.
    keys.press("Tab")
    first = sam.at("cell").first
    expect(first).to_be_focused()
    keys.press("ArrowRight")
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    focused = sam.page.locator("[data-testid=cell]:focus")
    expect(focused).to_have_attribute("data-column", "sessions_closed")
    expect(focused).to_have_attribute("data-value", str(rows[2]["sessions_closed"]))
    keys.press("Enter")
    expect(sam.at("cell-sessions")).to_be_visible()
    sam.wait_until(lambda: len(asked) == 2, what="the question of the second cell")
    keys.press("Escape")
    expect(focused).to_have_attribute("data-value", str(rows[2]["sessions_closed"]))
    keys.press("Control+End")
    keys.press("Enter")
    expect(sam.at("cell-sessions")).to_contain_text("Total")
    sam.wait_until(lambda: len(asked) == 3, what="the question of the total")
    assert [(one["metric"], one["by"], one.get("key")) for one in asked] == [
        ("sessions_closed", "day", rows[1]["key"]),
        ("sessions_closed", "day", rows[2]["key"]),
        ("transfers", "none", None),
    ]
    assert sam.page.evaluate("document.activeElement.closest('dialog') !== null")


def _asked(staff: Staff) -> str:
    """The address of the report that the page shows, as `report_answers` reads it."""
    found: str = staff.page.evaluate(
        "performance.getEntriesByType('resource').map(r => r.name).findLast(name => name.includes('/reports?'))"
    )
    return found


def test_the_values_of_a_chart_for_the_mouse_and_for_a_finger(join: Join) -> None:
    for options in ({}, {"viewport": PHONE, "is_mobile": True, "has_touch": True}):
        sam = join(Staff, **options).enter()
        answer_reports(sam)
        sam.page.route(
            _SESSIONS, lambda route: route.fulfill(json={"success": True, "items": [], "next": None})
        )
        open_reports(sam, f"{_MONTH}&show=first_reply")
        legend, chart = sam.page.locator(".legend"), sam.at("chart")
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        assert box
        place = {"x": box["width"] / 2, "y": box["height"] / 2}
        if options:
            chart.tap(position=place)
        else:
            chart.hover(position=place)
        expect(legend).to_contain_text("Oct")
        expect(legend).to_contain_text("min")
        expect(sam.at("cell-sessions")).to_have_count(0)
        if options:
            chart.tap(position=place)
        else:
            chart.click(position=place)
        expect(sam.at("cell-sessions")).to_contain_text("First reply")


def test_the_table_as_csv(world: World, sam: Staff) -> None:
    world.sql("update gre_staff set display_name = %s where staff_id = 's2'", '=HYPERLINK("http://x","Sue")')
    sam.page.reload()
    sam.wait_until_live()
    answer_reports(sam)

    def saved() -> list[list[str]]:
        with sam.page.expect_download() as download:
            sam.at("csv").click()
        text = Path(download.value.path()).read_bytes().decode("utf-8-sig")
        return list(csv.reader(io.StringIO(text, newline="")))

    open_reports(sam, f"{_MONTH}&show=reply&by=staff")
    expect(sam.at("figure-row", key="s2")).to_contain_text("=HYPERLINK")
    head, *rows = saved()
    assert head == [
        "staff_id",
        "name",
        *(f"{name}_seconds" for name in ("median", "mean", "p90", "max")),
        "n",
    ]
    assert [row[2:] for row in rows] == cells(sam)[:-1]
    assert [row[:2] for row in rows] == [["a1", "Ann"], ["s1", "Sam"], ["s2", '\'=HYPERLINK("http://x","Sue")'], ["", ""]]  # fmt: skip
    open_reports(sam, f"{_MONTH}&show=conversations&by=day")
    expect(sam.at("figure-row")).to_have_count(31)
    head, *rows = saved()
    assert head[:3] == ["from", "to", "sessions_opened"] and len(rows) == 31
    assert [row[2:] for row in rows] == cells(sam)[:-1]


def test_many_rows(sam: Staff) -> None:
    answer_reports(sam)
    open_reports(sam, "range=custom&from=2026-09-01&to=2026-10-31&zone=UTC&by=hour&show=reply")
    expect(sam.at("figure-row")).to_have_count(120)
    expect(sam.at("chart")).to_have_attribute("aria-valuemax", str(61 * 24))
    sam.at("all-rows").click()
    expect(sam.at("figure-row")).to_have_count(61 * 24)
    expect(sam.at("all-rows")).to_have_count(0)


@pytest.mark.parametrize("view", ["Live", "Reports"])
def test_a_view_whose_code_is_gone(sam: Staff, view: str) -> None:
    """The daemon was updated while the page was open."""
    sam.page.route(f"**/assets/{view}View-*.js", lambda route: route.fulfill(status=404))
    sam.at(f"nav-{view.lower()}").click()
    expect(sam.at("view-failed")).to_be_visible()
    sam.page.unroute(f"**/assets/{view}View-*.js")
    sam.at("view-failed").get_by_role("button", name="Reload").click()
    expect(sam.at(view.lower())).to_be_visible()


@pytest.mark.parametrize("width", ["wide", "phone"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_reports_are_accessible(join: Join, colours: str, width: str) -> None:
    ann = join(Staff, color_scheme=colours, viewport=WIDE if width == "wide" else PHONE).enter("admin:a1")
    answer_reports(ann, lambda url: report_answers.report(url, whole_from="2026-10-10T08:00:00Z"))
    item = {"session_id": "5e4b9a52-7a0e-4a57-9d05-32d1c6f2f0a1", "cycle": 1, "at": "2026-10-02T08:00:00Z", "value": 40, "count": None, "staff_id": "s1"}  # fmt: skip
    ann.page.route(
        _SESSIONS, lambda route: route.fulfill(json={"success": True, "items": [item], "next": "x"})
    )
    for group, by in (
        ("conversations", "day"),
        ("first_reply", "staff"),
        ("rating", "none"),
        ("goal", "hour"),
    ):
        open_reports(ann, f"{_MONTH}&show={group}&by={by}")
        expect(ann.at("report-group", group=group)).to_be_visible()
        expect(ann.at("whole-from")).to_be_visible()
        assert_accessible(ann.page, f"reports, {group} by {by}")
        assert ann.page.evaluate("document.documentElement.scrollWidth") <= (WIDE if width == "wide" else PHONE)["width"]  # fmt: skip
    ann.at("cell").first.click()
    expect(ann.at("cell-session")).to_have_count(1)
    assert_accessible(ann.page, "sessions of a cell")
