"""A shift at the desk: two staff who use the keyboard alone, and a player.

At each station axe looks at both staff's pages, no pointer event has reached them, and the test compares what the
player got: on the page, on the socket and in the database. At the end it searches for the notes in all that players,
public channels and OneSignal were sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Route, expect
from websockets.exceptions import ConnectionClosed

from tests.browser.conftest import Join
from tests.browser.keyboard import KeyboardStaff, ObservedPlayer, pointer_events, record_pointer_events
from tests.browser.sockets import PlayerSocket
from tests.browser.test_accessible import assert_accessible
from tests.browser.world import Player, Staff, World
from tests.support.canary import check_sinks, note
from tests.support.waiting import wait_until

HOUR = 3_600_000
"""The value of *For an hour* in the block's dialog, in milliseconds."""
EVENTS = ["Taken by Sam", "Handed over to Ann by Sam", "Player blocked by Sam", "Player unblocked by Ann"]
_KINDS = "rows => rows.map((row) => row.dataset.kind ?? row.dataset.staffId)"
REPLY = "**/api/gre-admin/reply"


@contextmanager
def _held_reply(keyboard: KeyboardStaff) -> Iterator[list[Route]]:
    """Hold the page's replies on their way to the server; they are let go at the end."""
    held: list[Route] = []
    keyboard.page.route(REPLY, lambda route: held.extend([route]))
    yield held
    for route in held:
        route.continue_()
    keyboard.page.unroute(REPLY)


def test_a_shift_of_two_staff_by_keyboard_alone(world: World, join_windows: Join) -> None:
    world.http.delete("/__stack/received").raise_for_status()
    player = join_windows(Player)
    record_pointer_events(player)
    player.enter()
    with PlayerSocket(world, 29) as socket:
        asha = ObservedPlayer(world, player, socket)
        ann = KeyboardStaff(join_windows(Staff, timezone_id="UTC", locale="en-GB"), "admin:a1")
        sam = KeyboardStaff(join_windows(Staff, timezone_id="UTC", locale="en-GB"), "staff:s1")
        _check_pages("signed in", ann, sam)
        _assign(asha, sam, ann)
        _hand_over(asha, sam, ann)
        _collide(asha, sam, ann)
        _use_template(asha, sam, ann)
        _answer_outside_the_hours(asha, sam, ann)
        _block(asha, sam, ann)
    for sink in ("pusher", "onesignal"):
        assert _received(world, sink), f"{sink} received nothing"
    check_sinks({sink: _received(world, sink) for sink in ("pusher", "onesignal")})
    # The recorder works: the player uses a mouse.
    player.page.mouse.click(100, 100)
    assert "pointerdown" in pointer_events(player.page)


def _received(world: World, sink: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = world.http.get("/__stack/received", params={"sink": sink}).json()["items"]
    return items


def _check_pages(station: str, *staff: KeyboardStaff) -> None:
    """axe finds no violation on these pages, and no pointer event has reached them."""
    for keyboard in staff:
        assert_accessible(keyboard.page, station)
        assert pointer_events(keyboard.page) == []


def _assign(asha: ObservedPlayer, sam: KeyboardStaff, ann: KeyboardStaff) -> None:
    asha.write("Hello, my bonus is missing")
    for keyboard in (ann, sam):
        expect(keyboard.staff.row(29)).to_have_attribute("data-waiting", "true")
    sam.push(sam.at("take-next"))
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "29")
    expect(sam.at("release")).to_be_visible()
    expect(ann.staff.row(29).get_by_test_id("assignee")).to_have_text("Sam")
    ann.press("Escape", "j")
    expect(ann.at("event")).to_have_text([re.compile("^Taken by Sam ")])
    expect(ann.at("viewers")).to_contain_text("Sam")
    expect(sam.at("viewers")).to_contain_text("Ann")
    _check_pages("assigned", ann, sam)
    asha.expect_nothing_more()


def _hand_over(asha: ObservedPlayer, sam: KeyboardStaff, ann: KeyboardStaff) -> None:
    asked, settled = note("She asked for it twice."), note("It ended on Friday.")
    sam.push(sam.at("hand-over"))
    sam.choose(sam.at("hand-over-to"), "a1")
    sam.write(sam.at("hand-over-note"), asked)
    _check_pages("hand over", sam)
    sam.press("Control+Enter")
    expect(sam.page.get_by_role("dialog")).to_have_count(0)
    expect(sam.at("hand-over")).to_be_focused()
    expect(ann.at("toast")).to_contain_text("Asha was handed over to you")
    expect(ann.staff.row(29).get_by_test_id("assignee")).to_have_text("you")
    ann.focus_conversation("note-field")
    ann.type(settled)
    ann.press("Enter")
    for keyboard in (ann, sam):
        expect(keyboard.at("event").last).to_have_text(re.compile("^Handed over to Ann by Sam "))
        expect(keyboard.at("note-text")).to_have_text([asked, settled])
        asides = keyboard.page.locator("[data-testid=event], [data-testid=note]")
        # A note that is not stored yet has no author.
        wait_until(lambda a=asides: a.evaluate_all(_KINDS) == ["assigned", "s1", "transferred", "a1"])  # type: ignore[misc]
    _check_pages("handed over", ann, sam)
    asha.expect_nothing_more()
    assert asha.frames("typing") == []


def _collide(asha: ObservedPlayer, sam: KeyboardStaff, ann: KeyboardStaff) -> None:
    ann.focus_conversation("reply")
    with _held_reply(ann) as held:
        ann.type("No, it has ended.")
        ann.press("Enter")
        ann.staff.wait_until(lambda: held, what="a reply")
        sam.focus_conversation("reply")
        sam.type("Yes, we credit it today.")
        sam.press("Enter")
        asha.expect_message("staff", "Yes, we credit it today.")
        expect(ann.staff.message("Yes, we credit it today.")).to_be_visible()
    refused = ann.staff.message("No, it has ended.")
    expect(refused).to_have_attribute("data-state", "failed")
    expect(refused).to_contain_text("Sam has answered meanwhile: read, then send again.")
    _check_pages("a collision", ann, sam)
    asha.expect_nothing_more()
    ann.push(refused.get_by_test_id("edit"))
    expect(refused).to_have_count(0)
    expect(ann.at("reply")).to_be_focused()
    expect(ann.at("reply")).to_have_value("No, it has ended.")  # the page puts it there with its next frame
    ann.write(ann.at("reply"), "It is on your account now.")
    ann.press("Enter")
    asha.expect_message("staff", "It is on your account now.")
    _check_pages("resolved", ann, sam)


def _use_template(asha: ObservedPlayer, sam: KeyboardStaff, ann: KeyboardStaff) -> None:
    ann.open_settings()
    ann.write(ann.at("template-shortcut"), "refund")
    ann.write(ann.at("template-title"), "Money comes back")
    text = ann.at("template-settings").get_by_test_id("text-en")
    ann.write(text, "{{player_name|Hello}}, we return {{?amount}} to you. {{staff_name}}")
    ann.push(ann.at("template-save"))
    expect(ann.at("template-choice")).to_contain_text("/refund")
    _check_pages("settings", ann, sam)
    ann.return_to_conversation()
    # Sam's page was open before the template existed.
    sam.focus_conversation("reply")
    sam.type("/ref")
    expect(sam.at("template-option", shortcut="refund")).to_have_attribute("aria-selected", "true")
    _check_pages("a template", sam)
    sam.press("Enter")
    expect(sam.at("blank-amount")).to_be_focused()
    _check_pages("blanks", sam)
    sam.type("20 euros")
    sam.press("Enter")
    expect(sam.at("reply")).to_have_value("Asha, we return 20 euros to you. Sam")
    expect(sam.at("reply")).to_be_focused()
    asha.expect_nothing_more()
    sam.press("Enter")
    asha.expect_message("staff", "Asha, we return 20 euros to you. Sam")
    expect(ann.staff.message("Asha, we return 20 euros to you. Sam")).to_be_visible()
    _check_pages("sent", ann, sam)


def _answer_outside_the_hours(asha: ObservedPlayer, sam: KeyboardStaff, ann: KeyboardStaff) -> None:
    opens = datetime.now(UTC).date() + timedelta(days=2)
    ann.open_settings()
    ann.write(ann.at("hours-name"), "desk")
    for weekday in range(1, 8):
        ann.write(ann.at(f"hours-0-{weekday}"), "10-18" if weekday == opens.isoweekday() else "")
    open_days = ann.at("preview-day").filter(has_text="10:00")
    expect(open_days).to_have_count(2)
    expect(open_days.first).to_have_attribute("data-day", str(opens))
    ann.push(ann.at("hours-save"))
    expect(ann.at("hours-choice")).to_have_value("desk")
    ann.choose(ann.at("setting-hours"), "desk")
    ann.push(ann.at("assignment-save"))
    expect(ann.at("assignment-reset")).to_have_count(0)
    ann.write(ann.at("auto-reply-name"), "Closed")
    ann.choose(ann.at("auto-reply-occasion"), "closed_hours")
    away = ann.at("auto-reply-settings").get_by_test_id("text-en")
    ann.write(away, "Thank you, {{player_name|dear guest}}. We are closed until {{next_open}}.")
    ann.push(ann.at("auto-reply-save"))
    expect(ann.at("auto-reply-now")).to_contain_text(re.compile("We are closed until .*10:00"))
    _check_pages("settings", ann, sam)
    ann.return_to_conversation()
    asha.expect_nothing_more()
    asha.page.type("Are you still there?")
    answer = asha.page.at("try-message", sender="system").locator("p")
    expect(answer).to_have_text(re.compile(r"^Thank you, Asha\. We are closed until .*10:00.*\.$"))
    asha.stored += [("player", "Are you still there?"), ("system", answer.inner_text())]
    asha.expect_nothing_more()
    asha.write("Until tomorrow, then")
    assert asha.world.sql("select skipped from gre_auto_sent") == [{"skipped": None}]
    for keyboard in (ann, sam):
        expect(keyboard.at("message", sender="system")).to_have_count(1)
        expect(keyboard.staff.message("Until tomorrow, then")).to_be_visible()
    _check_pages("outside the hours", ann, sam)


def _block(asha: ObservedPlayer, sam: KeyboardStaff, ann: KeyboardStaff) -> None:
    sam.push(sam.at("player-chat"))
    sam.choose(sam.at("block-end"), str(HOUR))
    sam.write(sam.at("block-reason"), "Insulted a dealer")
    _check_pages("block", sam)
    sam.press("Control+Enter")
    expect(sam.page.get_by_role("dialog")).to_have_count(0)
    expect(sam.at("player-chat")).to_be_focused()
    for keyboard in (ann, sam):
        expect(keyboard.at("blocked")).to_contain_text(re.compile("until .* by Sam: Insulted a dealer"))
    with pytest.raises(ConnectionClosed) as closed:
        asha.socket.receive("no such frame")
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4403, "chat is disabled")
    asha.page.type("May I?")
    expect(asha.page.at("try-state")).to_contain_text("disabled")
    expect(asha.page.at("try-input")).to_have_value("May I?")
    asha.expect_nothing_more_stored()
    assert "Insulted" not in asha.page.page.content()
    assert "Insulted" not in json.dumps(asha.socket.received)
    _check_pages("blocked", ann, sam)
    ann.push(ann.at("player-chat"))
    for keyboard in (ann, sam):
        expect(keyboard.at("blocked")).to_have_count(0)
    with PlayerSocket(asha.world, 29) as socket:
        asha.use(socket)
        asha.write("May I?")
        assert "Insulted" not in json.dumps(socket.received)
    for keyboard in (ann, sam):
        expect(keyboard.staff.message("May I?")).to_be_visible()
        expect(keyboard.at("event")).to_have_text([re.compile(f"^{line} ") for line in EVENTS])
    _check_pages("unblocked", ann, sam)
