"""Drafts and unsent replies are never lost, never sent to another player, and never sent as another person."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Dialog, Route, expect

from tests.browser.conftest import Join
from tests.browser.world import Staff, World
from tests.support.waiting import wait_until

REPLY = "**/api/gre-admin/reply"
DRAFT = "Dear guest, "
REST = "just ask for kevin, / your voucher is 4711?"


def _stored_replies(world: World) -> list[tuple[int, str, str]]:
    """The stored replies: player id, staff id and text."""
    rows = world.sql(
        "select player_id, sender_id, message from gre_chat_messages where sender = 'staff' order by created_at"
    )
    return [(row["player_id"], row["sender_id"], row["message"]) for row in rows]


def _three_players(world: World) -> str:
    """Three players write; return the session of the last one."""
    world.write(1300, "How long?", "Asha Menon")
    world.write(1301, "And I?", "Ravi")
    return world.write(4104, "Hello", "Kevin")


def _close(world: World, session: str) -> None:
    world.call("PUT", f"/api/gre-admin/session/{session}/status", "staff:s2", status="closed")


def _start_reply(sam: Staff, player: int = 4104) -> None:
    sam.open(player)
    sam.at("reply").click()
    sam.page.keyboard.type(DRAFT)
    expect(sam.at("reply")).to_have_value(DRAFT)


def _type_on(sam: Staff) -> None:
    """Keep typing, regardless of the page."""
    keys = sam.page.keyboard
    for part in (REST, "Sam"):
        keys.type(part, delay=15)  # a fast typist, and slow enough for the page to follow
        keys.press("Enter")


def _block_replies(sam: Staff) -> list[Any]:
    """Abort all requests that send a reply; return their bodies."""
    attempts: list[Any] = []

    def refuse(route: Route) -> None:
        attempts.append(route.request.post_data_json)
        route.abort()

    sam.page.route(REPLY, refuse)
    return attempts


def _wait_until_forgotten(sam: Staff, text: str) -> None:
    """Wait until the tab keeps no copy of a text: the answer comes after the row is stored."""
    sam.wait_until(lambda: text not in sam.page.evaluate("JSON.stringify(sessionStorage)"))


# The conversation disappears while the user types


def test_a_conversation_closed_by_a_colleague_keeps_the_draft_and_ignores_other_keys(
    world: World, sam: Staff
) -> None:
    session = _three_players(world)
    _start_reply(sam)
    _close(world, session)
    expect(sam.at("conversation")).to_have_attribute("data-status", "closed")
    _type_on(sam)
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "4104")
    expect(sam.at("reply")).to_have_value(DRAFT)
    expect(sam.at("reply")).not_to_be_editable()
    expect(sam.at("reply-closed")).to_contain_text("closed")
    expect(sam.at("search")).to_have_value("")
    assert _stored_replies(world) == []
    sam.at("reopen-send").click()
    expect(sam.message(DRAFT.strip())).to_be_visible()
    sam.wait_until(
        lambda: [(p, m.strip()) for p, _, m in _stored_replies(world)] == [(4104, DRAFT.strip())], 30
    )
    expect(sam.at("reply")).to_have_value("")
    expect(sam.at("reply")).to_be_editable()


def test_a_conversation_that_a_colleague_reopens_can_be_written_in_again(world: World, sam: Staff) -> None:
    session = _three_players(world)
    _start_reply(sam)
    _close(world, session)
    expect(sam.at("reply")).not_to_be_editable()
    world.call("PUT", f"/api/gre-admin/session/{session}/status", "staff:s2", status="active")
    expect(sam.at("reply")).to_be_editable()
    expect(sam.at("reply")).to_be_focused()
    sam.page.keyboard.type("welcome")
    sam.page.keyboard.press("Enter")
    sam.wait_until(lambda: [m for _, _, m in _stored_replies(world)] == [DRAFT + "welcome"])


def test_the_draft_of_a_closed_conversation_can_be_copied_or_moved_to_the_new_one(
    world: World, join: Join
) -> None:
    sam = join(Staff, permissions=["clipboard-read", "clipboard-write"]).enter()
    session = _three_players(world)
    _start_reply(sam)
    _close(world, session)
    sam.at("reply-copy").click()
    wait_until(lambda: sam.page.evaluate("navigator.clipboard.readText()") == DRAFT)
    newer = world.write(4104, "One more thing", "Kevin")
    sam.at("newer-send").click()
    expect(sam.at("conversation")).to_have_attribute("data-session-id", newer)
    expect(sam.at("reply")).to_have_value(DRAFT)
    assert _stored_replies(world) == []


def test_keys_meant_for_a_conversation_that_was_switched_away_are_ignored(world: World, sam: Staff) -> None:
    """A click on a notification, or the back button, opens another conversation while the user types."""
    _three_players(world)
    _start_reply(sam)
    other = sam.row(1301).get_attribute("data-session-id")
    sam.page.evaluate("id => { location.hash = `#s=${id}` }", other)
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "1301")
    _type_on(sam)
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "1301")
    expect(sam.at("reply")).to_have_value("")
    expect(sam.at("search")).to_have_value("")
    expect(sam.page.get_by_role("dialog")).to_be_hidden()
    assert _stored_replies(world) == []
    # Escape enables the shortcuts again.
    sam.page.keyboard.press("Escape")
    sam.page.keyboard.press("j")
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "4104")
    expect(sam.at("reply")).to_have_value(DRAFT)


def test_after_discarding_a_text_the_focus_is_in_the_conversation(world: World, sam: Staff) -> None:
    session = _three_players(world)
    _start_reply(sam)
    _close(world, session)
    expect(sam.at("reply-closed")).to_contain_text("Your text is kept")
    sam.at("reply-discard").focus()
    sam.page.keyboard.press("Enter")
    expect(sam.at("reply")).to_have_value("")
    expect(sam.at("reply")).to_be_focused()
    sam.page.reload()
    sam.wait_until_live()
    expect(sam.at("reopen")).to_be_visible()
    expect(sam.at("reply")).to_have_count(0)  # no draft is left


def test_keys_typed_after_the_sign_in_has_ended_are_ignored(world: World, sam: Staff) -> None:
    _three_players(world)
    _start_reply(sam)
    sam.page.route("**/api/**", lambda route: route.fulfill(status=401, json={"code": "token_expired", "error": "expired"}))  # fmt: skip
    sam.page.evaluate("dispatchEvent(new Event('online'))")
    sam.page.evaluate("document.querySelector('[data-testid=\"filter-closed\"]').click()")
    expect(sam.at("sign-in")).to_be_visible()
    _type_on(sam)
    assert sam.page.get_by_label("Access token").input_value() == ""
    sam.page.unroute("**/api/**")
    sam.sign_in("staff:s1").open(4104)
    expect(sam.at("reply")).to_have_value(DRAFT)
    assert _stored_replies(world) == []


@pytest.mark.parametrize("accepted", [False, True], ids=["refused", "accepted"])
def test_a_link_with_another_persons_token_asks_first(world: World, sam: Staff, accepted: bool) -> None:
    _three_players(world)
    _start_reply(sam)
    sam.page.evaluate("token => { location.hash = `#token=${token}` }", world.token("staff:s2"))
    expect(sam.at("other-sign-in")).to_contain_text("s2")
    expect(sam.page).not_to_have_url(re.compile("token"))
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "4104")
    expect(sam.at("reply")).to_be_focused()
    if not accepted:
        sam.page.keyboard.type("it is yours")
        sam.page.keyboard.press("Enter")
        sam.wait_until(lambda: _stored_replies(world) == [(4104, "s1", DRAFT + "it is yours")])
        sam.at("other-sign-in").get_by_role("button", name="Stay").click()
        expect(sam.at("other-sign-in")).to_have_count(0)
        return
    sam.at("other-sign-in").get_by_role("button", name="Sign in as s2").click()
    expect(sam.page.get_by_label("Sign out Sue")).to_be_visible()
    sam.wait_until_live().open(4104)
    expect(sam.at("reply")).to_have_value("")
    expect(sam.at("kept-for-others")).to_contain_text("1 draft of s1")
    assert _stored_replies(world) == []


def test_a_link_opened_in_a_signed_in_tab_asks_too(world: World, sam: Staff) -> None:
    sam.page.goto("about:blank")
    sam.page.goto(f"{world.console}/console#token={world.token('staff:s2')}")
    expect(sam.at("other-sign-in")).to_contain_text("s2")
    expect(sam.page.get_by_label("Sign out Sam")).to_be_visible()


# Pending replies


def test_signing_out_asks_about_an_unsent_reply(world: World, sam: Staff) -> None:
    _three_players(world)
    sam.open(4104)
    _block_replies(sam)
    sam.answer("On its way")
    sam.at("sign-out").click()
    expect(sam.at("leaving")).to_contain_text("One reply is not sent yet")
    sam.at("leaving").get_by_role("button", name="Stay").click()
    expect(sam.message("On its way")).to_be_visible()
    sam.at("sign-out").click()
    sam.at("leaving").get_by_role("button", name="Wait").click()
    sam.page.unroute(REPLY)
    expect(sam.at("sign-in")).to_be_visible()
    assert _stored_replies(world) == [(4104, "s1", "On its way")]
    assert sam.page.evaluate("sessionStorage.length") == 0


def test_replies_and_drafts_discarded_at_the_sign_out_are_deleted(world: World, sam: Staff) -> None:
    _three_players(world)
    sam.open(1300)
    sam.at("reply").fill("A draft")
    sam.open(4104)
    _block_replies(sam)
    sam.answer("On its way")
    sam.at("sign-out").click()
    expect(sam.at("leaving")).to_contain_text("1 draft")
    sam.at("leaving").get_by_role("button", name="Discard").click()
    expect(sam.at("sign-in")).to_be_visible()
    assert sam.page.evaluate("sessionStorage.length") == 0
    sam.page.unroute(REPLY)
    sam.sign_in("staff:s1").open(1300)
    expect(sam.at("reply")).to_have_value("")
    assert _stored_replies(world) == []


def test_a_stored_reply_is_sent_only_by_its_author(world: World, sam: Staff) -> None:
    _three_players(world)
    sam.open(1300)
    sam.at("reply").fill("A draft of Sam's")
    sam.open(4104)
    attempts = _block_replies(sam)
    sam.answer("On its way")
    expect(sam.message("On its way")).to_be_visible()
    sam.wait_until(lambda: attempts)
    sam.at("sign-out").click()
    sam.at("leaving").get_by_role("button", name="Keep").click()
    expect(sam.at("sign-in")).to_be_visible()
    sam.page.unroute(REPLY)
    sam.sign_in("staff:s2").open(4104)
    expect(sam.at("kept-for-others")).to_contain_text("1 reply and 1 draft of s1")
    expect(sam.message("On its way")).to_have_count(0)
    sam.open(1300)
    expect(sam.at("reply")).to_have_value("")
    # In another conversation: Sam's reply would be refused after one of Sue's (session_moved).
    sam.answer("This is Sue")
    sam.wait_until(lambda: _stored_replies(world) == [(1300, "s2", "This is Sue")])
    _wait_until_forgotten(sam, "This is Sue")  # before its answer has come, the page would ask
    sam.at("sign-out").click()
    expect(sam.at("sign-in")).to_be_visible()
    sent: list[Any] = []
    sam.page.on("request", lambda r: sent.append(r.post_data_json) if r.url.endswith("/reply") else None)
    sam.sign_in("staff:s1")
    sam.wait_until(lambda: (4104, "s1", "On its way") in _stored_replies(world))
    assert [reply["id"] for reply in sent] == [attempts[0]["id"]]
    assert len(_stored_replies(world)) == 2
    sam.open(1300)
    expect(sam.at("reply")).to_have_value("A draft of Sam's")


def _reload(sam: Staff, world: World) -> Staff:
    sam.page.reload()
    return sam.wait_until_live()


def _crash(sam: Staff, world: World) -> Staff:
    """Close the tab without its events, and open it again with its sessionStorage."""
    stored, url = sam.page.evaluate("JSON.stringify(sessionStorage)"), sam.page.url
    sam.page.close(run_before_unload=False)
    sam.page = sam.context.new_page()
    sam.page.goto(f"{world.console}/console/config.json")
    sam.page.evaluate("stored => Object.assign(sessionStorage, JSON.parse(stored))", stored)
    sam.page.goto(url)
    return sam.wait_until_live()


def _expire(sam: Staff, world: World) -> Staff:
    answer = {"code": "token_expired", "error": "expired"}
    sam.page.route("**/api/gre-admin/queue*", lambda route: route.fulfill(status=401, json=answer))
    sam.page.evaluate("document.querySelector('[data-testid=\"filter-closed\"]').click()")
    expect(sam.at("sign-in")).to_be_visible()
    sam.page.unroute("**/api/gre-admin/queue*")
    return sam.sign_in("staff:s1")


@pytest.mark.parametrize("interrupt", [_reload, _crash, _expire], ids=["refresh", "crash", "expiry"])
def test_a_pending_reply_survives_the_page(
    world: World, sam: Staff, interrupt: Callable[[Staff, World], Staff]
) -> None:
    _three_players(world)
    sam.open(4104)
    attempts = _block_replies(sam)

    def leave(dialog: Dialog) -> None:
        dialog.accept()

    sam.page.on("dialog", leave)
    sam.answer("On its way")
    sam.wait_until(lambda: attempts)
    # No reply is sent before the page is closed, nor between these two lines.
    sam.context.route(REPLY, lambda route: route.abort())
    sam.page.unroute(REPLY)
    sent: list[Any] = []
    sam.context.on("request", lambda r: sent.append(r.post_data_json) if r.url.endswith("/reply") else None)
    interrupt(sam, world)
    sam.context.unroute(REPLY)
    sam.open(4104)
    sam.wait_until(lambda: _stored_replies(world) == [(4104, "s1", "On its way")])
    expect(sam.message("On its way")).to_have_count(1)
    sam.wait_until(lambda: sent)
    assert {reply["id"] for reply in sent} == {attempts[0]["id"]}
    _wait_until_forgotten(sam, "On its way")


def test_no_request_is_made_after_the_sign_out(world: World, join: Join) -> None:
    sam = join(Staff)
    sam.page.clock.install()
    sam.enter()
    _three_players(world)
    sam.open(4104)
    _block_replies(sam)
    sam.answer("On its way")
    expect(sam.message("On its way")).to_be_visible()
    sam.at("sign-out").click()
    sam.at("leaving").get_by_role("button", name="Keep").click()
    expect(sam.at("sign-in")).to_be_visible()
    requests: list[str] = []
    sam.page.on("request", lambda r: requests.append(r.url) if "/api/" in r.url else None)
    sam.page.on("websocket", lambda ws: requests.append(ws.url))
    sam.page.clock.run_for(120_000)
    assert requests == []


# Replies that fail in another conversation


def test_a_failed_reply_in_another_conversation_is_reported(world: World, sam: Staff) -> None:
    _three_players(world)
    sam.open(4104)
    held: list[Route] = []
    sam.page.route(REPLY, lambda route: held.extend([route]))
    sam.answer("On its way")
    sam.wait_until(lambda: held)
    sam.open(1300)
    sam.at("reply").fill("Another")
    held[0].fulfill(status=403, json={"code": "not_allowed", "error": "you may not"})
    expect(sam.row(4104).get_by_test_id("unsent")).to_have_text("not sent")
    expect(sam.at("toast")).to_contain_text("Kevin")
    expect(sam.at("announcer")).to_contain_text("not sent to Kevin")
    expect(sam.at("unsent-count")).to_contain_text("1 not sent")
    expect(sam.page).to_have_title(re.compile("1 not sent"))
    sam.at("toast").get_by_role("link").click()
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "4104")
    expect(sam.message("On its way")).to_have_attribute("data-state", "failed")
    sam.page.unroute(REPLY)
    sam.at("retry").click()
    sam.wait_until(lambda: _stored_replies(world) == [(4104, "s1", "On its way")])
    expect(sam.at("unsent-count")).to_have_count(0)
    expect(sam.page).not_to_have_title(re.compile("not sent"))
    _wait_until_forgotten(sam, "On its way")


def test_a_reply_without_a_response_is_reattempts_automatically(world: World, join: Join) -> None:
    """The socket stays connected, so no event tells the page when to retry."""
    sam = join(Staff)
    sam.page.clock.install()
    sam.enter()
    _three_players(world)
    sam.open(4104)
    sam.page.route(REPLY, lambda route: route.fulfill(status=503, json={"code": "away", "error": "the database is away"}))  # fmt: skip
    sam.answer("On its way")

    def has_failed() -> bool:
        # Between two attempts the page waits for 1, 3 and 6 s, from the moment at which it has read an answer.
        sam.page.clock.run_for(1_000)
        return sam.message("On its way").get_attribute("data-state") == "failed"

    sam.wait_until(has_failed)
    expect(sam.message("On its way")).to_contain_text("kept")
    sam.page.unroute(REPLY)
    sam.page.clock.run_for(31_000)
    sam.wait_until(lambda: _stored_replies(world) == [(4104, "s1", "On its way")])
