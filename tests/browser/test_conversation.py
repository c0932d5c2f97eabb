"""Conversations: messages, replies, typing, read marks, drafts, retries and notifications."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.sockets import PlayerSocket
from tests.browser.world import Player, Staff, World
from tests.support.waiting import wait_until


def test_two_staff_and_two_players_at_once(
    world: World, sam: Staff, sue: Staff, asha: Player, join: Join
) -> None:
    ravi = join(Player).enter(30, "Ravi")
    asha.type("Is table 4 open?")
    ravi.type("Where is my bonus?")
    for staff in (sam, sue):
        expect(staff.row(29)).to_contain_text("Is table 4 open?")
        expect(staff.row(30)).to_contain_text("Where is my bonus?")
    sam.open(29)
    sue.open(29)
    sam.answer("It opens at eight.")
    expect(sue.message("It opens at eight.")).to_be_visible()
    expect(sue.at("message", sender="staff")).to_contain_text("Sam")
    expect(asha.at("try-message", sender="staff")).to_contain_text("It opens at eight.")
    sue.open(30).answer("I am looking.")
    sam.open(30)
    expect(sam.message("I am looking.")).to_be_visible()
    expect(ravi.at("try-message", sender="staff")).to_contain_text("I am looking.")
    asha.type("Thanks")
    ravi.type("Waiting …")
    expect(sam.row(29)).to_contain_text("Thanks")
    expect(sue.message("Waiting …")).to_be_visible()
    # Each player has its own conversation and nothing of the other's.
    assert "I am looking." not in asha.at("try-messages").inner_text()
    assert "It opens at eight." not in ravi.at("try-messages").inner_text()


def test_typing_indicators_of_players_and_staff_are_shown(world: World, sam: Staff, sue: Staff) -> None:
    session = world.write(29, "Hello", "Asha")
    sam.open(29)
    sue.open(29)
    with PlayerSocket(world, 29) as player:
        for staff in (sam, sue):
            # Again for each page: the sign ends after six seconds.
            player.send(type="typing", sessionId=session, typing=True)
            expect(staff.at("typing")).to_contain_text("Asha is typing")
        player.send(type="typing", sessionId=session, typing=False)
        for staff in (sam, sue):
            expect(staff.at("typing")).to_have_text("")
        sam.at("reply").press_sequentially("One mom")
        expect(sue.at("typing")).to_contain_text("Sam is typing")
        frame = player.receive("typing")
        assert (frame["by"], frame["typing"]) == ("staff", True)
        expect(sam.at("typing")).to_have_text("")
        sam.at("reply").press("Enter")
        expect(sue.at("typing")).to_have_text("")


def test_read_marks_of_both_sides_are_shown(world: World, sam: Staff, sue: Staff) -> None:
    session = world.write(29, "Hello", "Asha")
    expect(sam.row(29)).to_have_attribute("data-unread", "1")
    expect(sue.row(29)).to_have_attribute("data-unread", "1")
    with PlayerSocket(world, 29) as player:
        sam.open(29)
        read = player.receive("messages_read")
        assert (read["by"], read["upToSeq"]) == ("staff", 1)
        for staff in (sam, sue):
            expect(staff.row(29)).to_have_attribute("data-unread", "0")
        sam.answer("Good evening")
        expect(sam.at("message", sender="staff")).to_have_attribute(
            "data-state", re.compile("sent|delivered")
        )
        player.send(type="mark_read", sessionId=session, upToSeq=2)
        expect(sam.at("message", sender="staff", state="read")).to_be_visible()


@pytest.mark.past_triggers("messages are moved to the day before")
def test_days_senders_and_times_are_shown(world: World, join: Join) -> None:
    world.write(29, "Yesterday's question", "Asha")
    world.reply(29, "Yesterday's answer")
    world.sql('update gre_chat_messages set "timestamp" = "timestamp" where false')
    with world.db() as conn:
        conn.execute("alter table gre_chat_messages disable trigger user")
        conn.execute("update gre_chat_messages set created_at = created_at - interval '1 day'")
        conn.execute("alter table gre_chat_messages enable trigger user")
    world.write(29, "Today's question", "Asha")
    # A page that was open would get the first messages as they were before they were moved.
    sam = join(Staff).enter().open(29)
    expect(sam.at("day")).to_have_count(2)
    expect(sam.at("day").last).to_contain_text("Today")
    expect(sam.at("message").nth(0)).to_contain_text("Asha")
    expect(sam.at("message").nth(1)).to_contain_text("Sue")
    for message in sam.at("message").all():
        assert re.search(r"\d?\d:\d\d", message.inner_text())


def test_older_messages_are_loaded_while_scrolling_up(world: World, sam: Staff) -> None:
    session = world.write(29, "number 0", "Asha")
    for first in range(1, 401, 100):
        world.sql(
            "select gre_send_messages((select jsonb_agg(jsonb_build_object('player_id', 29, 'sender', 'player', 'message', 'number ' || n) order by n)"
            " from generate_series(%s::int, %s::int) n))", first, first + 99,
        )  # fmt: skip
    expect(sam.row(29)).to_have_attribute("data-unread", "401")
    world.sql("update gre_chat_sessions set unread_by_staff = 0")
    sam.page.reload()
    sam.wait_until_live().open(29)
    expect(sam.message("number 400")).to_be_visible()
    box = sam.at("messages")
    assert int(box.get_attribute("data-loaded") or 0) < 401
    box.hover()

    def scroll_to_top() -> bool:
        sam.page.mouse.wheel(0, -4000)
        return sam.message("number 0").count() > 0

    wait_until(scroll_to_top, what="the first message")
    expect(box).to_have_attribute("data-older", "false")
    expect(box).to_have_attribute("data-loaded", "401")
    sam.at("jump-latest").click()
    expect(sam.message("number 400")).to_be_visible()
    assert len(world.texts(session)) == 401


def test_the_view_stays_where_the_user_has_scrolled_when_a_message_arrives_in_that_moment(
    world: World, sam: Staff
) -> None:
    for number in range(40):
        world.write(29, f"line {number}")
    sam.open(29)
    sam.at("jump-latest").click()
    expect(sam.message("line 39")).to_be_visible()
    expect(sam.at("jump-latest")).to_have_count(0)
    # A frame is read, and its change rendered, before the browser tells the page of the scrolling.
    sam.page.evaluate(
        """() => {
          const { parse } = JSON
          window.__stop = () => (JSON.parse = parse)
          JSON.parse = (text, ...more) => {
            if (text.includes('the next line')) document.querySelector('[data-testid="messages"]').scrollTop = 0
            return parse(text, ...more)
          }
        }"""
    )
    world.write(29, "the next line")
    expect(sam.at("jump-latest")).to_be_visible()
    expect(sam.at("message").first).to_contain_text("line 0")
    assert sam.at("messages").evaluate("box => box.scrollTop") < 10
    sam.page.evaluate("window.__stop()")  # the row of the list may come in a frame of its own
    sam.at("jump-latest").click()
    expect(sam.at("message").last).to_contain_text("the next line")


def test_enter_sends_shift_enter_breaks_the_line_and_drafts_are_stored_by_session(
    world: World, sam: Staff
) -> None:
    session = world.write(29, "Hello", "Asha")
    world.write(30, "Hello too", "Ravi")
    sam.open(29)
    sam.at("reply").press_sequentially("first line")
    sam.at("reply").press("Shift+Enter")
    sam.at("reply").press_sequentially("second line")
    sam.open(30)
    expect(sam.at("reply")).to_have_value("")
    sam.at("reply").fill("for Ravi")
    sam.open(29)
    expect(sam.at("reply")).to_have_value("first line\nsecond line")
    sam.page.reload()
    sam.wait_until_live()
    expect(sam.at("reply")).to_have_value("first line\nsecond line")
    sam.at("reply").press("Enter")
    expect(sam.at("message", sender="staff")).to_contain_text("first line\nsecond line", use_inner_text=True)
    expect(sam.at("reply")).to_have_value("")
    wait_until(lambda: world.texts(session) == ["Hello", "first line\nsecond line"])
    sam.open(30)
    expect(sam.at("reply")).to_have_value("for Ravi")
    expect(sam.at("send")).to_be_enabled()
    sam.at("reply").fill("   ")
    expect(sam.at("send")).to_be_disabled()


def test_a_reply_without_a_response_is_sent_again_with_the_same_id(world: World, sam: Staff) -> None:
    session = world.write(29, "Hello", "Asha")
    sam.open(29)
    sent: list[Any] = []
    lost: list[Route] = []

    def lose(route: Route) -> None:
        route.abort()
        lost.append(route)

    sam.page.on("request", lambda r: sent.append(r.post_data_json) if r.url.endswith("/reply") else None)
    sam.page.route("**/api/gre-admin/reply", lose)
    sam.answer("Are you there?")
    expect(sam.message("Are you there?")).to_have_attribute("data-state", "sending")
    sam.wait_until(lambda: lost, what="a try")
    sam.page.unroute("**/api/gre-admin/reply")
    expect(sam.message("Are you there?")).to_have_attribute("data-state", re.compile("sent|delivered"))
    assert len(sent) >= 2
    assert len({reply["id"] for reply in sent}) == 1
    assert world.texts(session) == ["Hello", "Are you there?"]


def test_a_rejected_reply_shows_the_reason_and_can_be_retried(world: World, sam: Staff) -> None:
    session = world.write(29, "Hello", "Asha")
    sam.open(29)
    path = f"/api/gre-admin/session/{session}/status"
    ids: list[str] = []

    def close_first(route: Any) -> None:
        world.call("PUT", path, "staff:s2", status="closed")
        route.continue_()

    sam.page.on("request", lambda r: ids.append(r.post_data_json["id"]) if r.url.endswith("/reply") else None)
    sam.page.route("**/api/gre-admin/reply", close_first)
    sam.answer("Are you there?")
    expect(sam.message("Are you there?")).to_have_attribute("data-state", "failed")
    expect(sam.message("Are you there?")).to_contain_text("closed")
    sam.page.unroute("**/api/gre-admin/reply")
    sam.at("reopen").click()
    status = "select status from gre_chat_sessions where id = %s"
    sam.wait_until(lambda: world.sql(status, session)[0]["status"] != "closed", what="the session to be open")
    sam.at("retry").click()
    expect(sam.at("messages")).to_be_focused()
    expect(sam.message("Are you there?")).to_have_attribute("data-state", re.compile("sent|delivered"))
    assert len(ids) == 2
    assert uuid.UUID(ids[0]) == uuid.UUID(ids[1])
    assert world.texts(session) == ["Hello", "Are you there?"]


@pytest.mark.parametrize("focused", [True, False], ids=["focus", "no focus"])
def test_a_new_message_causes_a_notification_when_the_page_has_no_focus(
    world: World, join_windows: Join, focused: bool
) -> None:
    sam = join_windows(Staff, permissions=["notifications"])
    sam.context.add_init_script(
        "window.__notifications = []; window.Notification = class { static permission = 'granted'; constructor(title) { window.__notifications.push(title) } close() {} }"
    )
    sam.enter()
    if not focused:
        sam.context.new_cdp_session(sam.page).send("Emulation.setFocusEmulationEnabled", {"enabled": False})
        sam.context.new_page().bring_to_front()
        wait_until(lambda: not sam.page.evaluate("document.hasFocus()"), what="a page without focus")
    world.write(29, "secret text", "Asha")
    expect(sam.row(29)).to_have_attribute("data-unread", "1")
    if not focused:
        expect(sam.at("notify")).to_have_attribute("data-notifications", "1")
    count, titles = (
        int(sam.at("notify").get_attribute("data-notifications") or 0),
        sam.page.evaluate("window.__notifications"),
    )
    assert (count, titles) == ((0, []) if focused else (1, ["New message from Asha"]))
    assert "secret" not in str(titles)
