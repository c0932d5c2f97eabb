"""The view *Reports* beside a running project: each number is the one that REST answers, a cell lists its conversations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Join
from tests.browser.figures import insert_month
from tests.browser.report_answers import parameters
from tests.browser.test_reports import cells, conversations, durations, open_reports, shown
from tests.browser.world import Staff, World
from tests.support.loopback import HTTP

_ZONE = "zone=Europe%2FMalta"


def asked_of(staff: Staff) -> dict[str, Any]:
    """Ask REST for the report that the page shows."""
    url = staff.page.evaluate(
        "performance.getEntriesByType('resource').map(r => r.name).findLast(name => name.includes('/reports?'))"
    )
    headers = {"Authorization": f"Bearer {staff.world.token('admin:a1')}"}
    answer = HTTP.get(url, headers=headers, timeout=60)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    # Of the day that has not ended, the page shows what has begun.
    now = datetime.now(UTC).isoformat()
    if parameters(url)["by"] not in ("none", "staff"):
        found["rows"] = [row for row in found["rows"] if row["start"] <= now]
    return found


def messages(row: dict[str, Any]) -> list[str]:
    """The cells of a row of messages."""
    return shown(*(row["messages"][sender] for sender in ("player", "staff", "auto")), row["players"])


def rating(row: dict[str, Any]) -> list[str]:
    """The cells of a row of ratings."""
    return shown(*(row["rating"][part] for part in ("mean", "good_share", "answered", "asked")))


def goal(row: dict[str, Any]) -> list[str]:
    """The cells of a row of goals."""
    n, met = row["within_goal"]["n"], row["within_goal"]["met"]
    return shown(None if n == 0 else met / n, met, n)


@pytest.mark.parametrize("by", ["none", "day", "week", "staff"])
def test_every_number_is_that_of_rest(world: World, sam: Staff, by: str) -> None:
    insert_month(world)
    groups: dict[str, Callable[[dict[str, Any]], list[str]]] = {
        "conversations": conversations, "messages": messages, "rating": rating, "goal": goal,
        **{name: partial(durations, name=name) for name in ("first_reply", "reply", "time_to_close", "handle")},
    }  # fmt: skip
    open_reports(sam, f"range=30d&{_ZONE}&by={by}&show=reply")
    for group, expected in groups.items():
        sam.at("total", group=group).click()
        expect(sam.at("report-group", group=group)).to_be_visible()
        found = asked_of(sam)
        rows = [] if by == "none" else found["rows"]
        assert cells(sam) == [expected(row) for row in (*rows, found["total"])], group
        assert any(value not in ("", "0") for value in cells(sam)[-1]), group
    # Another basis, and opening hours.
    sam.at("total", group="reply").click()
    before = cells(sam)
    sam.at("report-hours").check()
    expect(sam.at("report-group")).to_contain_text("the opening hours only")
    expect(sam.at("reports", state="done")).to_be_visible()
    sam.wait_until(lambda: cells(sam) != before, what="the open seconds")
    rows = [] if by == "none" else asked_of(sam)["rows"]
    assert cells(sam) == [durations(row, "reply") for row in (*rows, asked_of(sam)["total"])]


def test_a_cell_lists_its_conversations_and_opens_one(world: World, sam: Staff) -> None:
    for player in (31, 32, 33):
        world.write(player, "Where is my bonus?", f"Player {player}")
        world.reply(player, "On its way.", who="staff:s2" if player < 33 else "staff:s1")
    session = world.write(34, "Is anybody there?", "Ravi")
    world.call("POST", "/api/gre-chat/close-session/34", "staff:s2")
    open_reports(sam, f"range=today&{_ZONE}&by=staff&show=first_reply")
    cell = sam.at("figure-row", key="s2").locator("[data-column=n]")
    expect(cell).to_have_text("2")
    cell.click()
    expect(sam.at("cell-session")).to_have_count(2)
    expect(sam.at("cell-sessions")).to_contain_text("First reply")
    expect(sam.at("cell-session").first).to_contain_text("Sue")
    sam.page.keyboard.press("Escape")
    expect(sam.at("cell-sessions")).to_have_count(0)
    # Of nobody, and a total: the conversation that was missed.
    sam.at("total", group="conversations").click()
    expect(sam.at("report-group", group="conversations")).to_be_visible()
    for row in (sam.at("figure-row", key=""), sam.at("figure-total")):
        row.locator("[data-column=missed]").click()
        expect(sam.at("cell-session", session_id=session)).to_be_visible()
        expect(sam.at("cell-session")).to_have_count(1)
        sam.page.keyboard.press("Escape")
        expect(sam.at("cell-sessions")).to_have_count(0)
    sam.at("figure-total").locator("[data-column=missed]").press("Enter")
    sam.at("cell-session").press("Enter")
    expect(sam.at("conversation", session_id=session, status="closed")).to_be_visible()
    expect(sam.message("Is anybody there?")).to_be_visible()
    # Back to the list of the cell, which is in the address, too.
    sam.page.go_back()
    expect(sam.at("cell-session", session_id=session)).to_be_visible()
    sam.page.reload()
    expect(sam.at("cell-session", session_id=session)).to_be_visible()
    sam.at("cell-sessions").get_by_role("button", name="Close").click()
    expect(sam.at("cell-sessions")).to_have_count(0)
    assert "metric" not in sam.page.url


def test_the_pages_of_a_long_list(world: World, sam: Staff) -> None:
    insert_month(world)
    open_reports(sam, f"range=30d&{_ZONE}&by=none&show=reply")
    number = int(cells(sam)[-1][-1])
    assert number > 100
    sam.at("cell").last.click()
    expect(sam.at("cell-session")).to_have_count(50)
    expect(sam.at("cell-status")).to_have_text("50 so far")
    sam.at("cell-more").click()
    expect(sam.at("cell-session")).to_have_count(100)


def test_a_refused_report_says_why(world: World, sam: Staff) -> None:
    """More rows than the server counts."""
    last = datetime.now(UTC).date()
    first = last - timedelta(days=365)
    sam.page.evaluate("(hash) => { location.hash = hash }", f"#reports?range=custom&from={first}&to={last}&zone=UTC&by=hour")  # fmt: skip
    expect(sam.at("report-error")).to_contain_text("2500 rows")
    sam.at("report-by").select_option("week")
    expect(sam.at("reports", state="done")).to_be_visible()


def test_what_was_before_the_server_counted(world: World, join: Join) -> None:
    world.sql("update gre.settings set whole_from = now() - interval '2 days'")
    ann = join(Staff).enter("admin:a1")
    open_reports(ann, f"range=30d&{_ZONE}")
    expect(ann.at("whole-from")).to_contain_text("What was before is not in them.")
    open_reports(ann, f"range=today&{_ZONE}&by=hour")
    expect(ann.at("whole-from")).to_have_count(0)
