"""What a person has typed is never lost, never sent to somebody else, and never sent as somebody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Dialog, Route, expect

from tests.browser.conftest import Join
from tests.browser.world import Staff, World
from tests.support.stack import wait_until

REPLY = "**/api/gre-admin/reply"
BEGUN = "Dear guest, "
REST = "just ask for kevin, / your voucher is 4711?"


def _answers(world: World) -> list[tuple[int, str, str]]:
    """Every reply that is stored: to whom, by whom, what."""
    rows = world.sql(
        "select player_id, sender_id, message from gre_chat_messages where sender = 'staff' order by created_at"
    )
    return [(row["player_id"], row["sender_id"], row["message"]) for row in rows]


def _three(world: World) -> str:
    """Three players wait; the session of the last one."""
    world.write(1300, "How long?", "Asha Menon")
    world.write(1301, "And I?", "Ravi")
    return world.write(4104, "Hello", "Kevin")


def _close(world: World, session: str) -> None:
    world.ask("PUT", f"/api/gre-admin/session/{session}/status", "staff:s2", status="closed")


def _begin(sam: Staff, player: int = 4104) -> None:
    sam.open(player)
    sam.at("reply").click()
    sam.page.keyboard.type(BEGUN)
    expect(sam.at("reply")).to_have_value(BEGUN)


def _go_on(sam: Staff) -> None:
    """Type on without looking at the page."""
    keys = sam.page.keyboard
    for part in (REST, "Sam"):
        keys.type(part, delay=15)  # as fast as hands can, and slow enough for the page to follow
        keys.press("Enter")


def _later(sam: Staff) -> list[Any]:
    """From now on no reply gets through; what was tried."""
    tried: list[Any] = []

    def refuse(route: Route) -> None:
        tried.append(route.request.post_data_json)
        route.abort()

    sam.page.route(REPLY, refuse)
    return tried


# While one types, the conversation goes away


def test_a_conversation_closed_by_a_colleague_keeps_its_text_and_takes_no_other_keys(
    world: World, sam: Staff
) -> None:
    session = _three(world)
    _begin(sam)
    _close(world, session)
    expect(sam.at("conversation")).to_have_attribute("data-status", "closed")
    _go_on(sam)
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "4104")
    expect(sam.at("reply")).to_have_value(BEGUN)
    expect(sam.at("reply")).not_to_be_editable()
    expect(sam.at("reply-closed")).to_contain_text("closed")
    expect(sam.at("search")).to_have_value("")
    assert _answers(world) == []
    sam.at("reopen-send").click()
    expect(sam.message(BEGUN.strip())).to_be_visible()
    wait_until(lambda: [(p, m.strip()) for p, _, m in _answers(world)] == [(4104, BEGUN.strip())], 30)
    expect(sam.at("reply")).to_have_value("")
    expect(sam.at("reply")).to_be_editable()


def test_a_closed_conversation_that_a_colleague_opens_again_lets_one_write_on(
    world: World, sam: Staff
) -> None:
    session = _three(world)
    _begin(sam)
    _close(world, session)
    expect(sam.at("reply")).not_to_be_editable()
    world.ask("PUT", f"/api/gre-admin/session/{session}/status", "staff:s2", status="active")
    expect(sam.at("reply")).to_be_editable()
    expect(sam.at("reply")).to_be_focused()
    sam.page.keyboard.type("welcome")
    sam.page.keyboard.press("Enter")
    wait_until(lambda: [m for _, _, m in _answers(world)] == [BEGUN + "welcome"], 30)


def test_the_text_of_a_closed_conversation_can_be_copied_or_taken_to_the_players_new_one(
    world: World, join: Join
) -> None:
    sam = join(Staff, permissions=["clipboard-read", "clipboard-write"]).enter()
    session = _three(world)
    _begin(sam)
    _close(world, session)
    sam.at("reply-copy").click()
    wait_until(lambda: sam.page.evaluate("navigator.clipboard.readText()") == BEGUN, 30)
    newer = world.write(4104, "One more thing", "Kevin")
    sam.at("newer-send").click()
    expect(sam.at("conversation")).to_have_attribute("data-session-id", newer)
    expect(sam.at("reply")).to_have_value(BEGUN)
    assert _answers(world) == []


def test_keys_typed_into_a_conversation_that_was_switched_away_go_nowhere(world: World, sam: Staff) -> None:
    """A notification that is clicked, or the back button, opens another conversation under one's hands."""
    _three(world)
    _begin(sam)
    other = sam.row(1301).get_attribute("data-session-id")
    sam.page.evaluate("id => { location.hash = `#s=${id}` }", other)
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "1301")
    _go_on(sam)
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "1301")
    expect(sam.at("reply")).to_have_value("")
    expect(sam.at("search")).to_have_value("")
    expect(sam.page.get_by_role("dialog")).to_be_hidden()
    assert _answers(world) == []
    # The keyboard is the page's again once one says so.
    sam.page.keyboard.press("Escape")
    sam.page.keyboard.press("j")
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "4104")
    expect(sam.at("reply")).to_have_value(BEGUN)


def test_keys_typed_after_the_sign_in_has_ended_go_nowhere(world: World, sam: Staff) -> None:
    _three(world)
    _begin(sam)
    sam.page.route("**/api/**", lambda route: route.fulfill(status=401, json={"code": "token_expired", "error": "expired"}))  # fmt: skip
    sam.page.evaluate("dispatchEvent(new Event('online'))")
    sam.page.evaluate("document.querySelector('[data-testid=\"filter-closed\"]').click()")
    expect(sam.at("sign-in")).to_be_visible()
    _go_on(sam)
    assert sam.page.get_by_label("Access token").input_value() == ""
    sam.page.unroute("**/api/**")
    sam.sign_in("staff:s1").open(4104)
    expect(sam.at("reply")).to_have_value(BEGUN)
    assert _answers(world) == []


@pytest.mark.parametrize("accepted", [False, True], ids=["refused", "accepted"])
def test_a_link_with_another_persons_token_asks_first(world: World, sam: Staff, accepted: bool) -> None:
    _three(world)
    _begin(sam)
    sam.page.evaluate("token => { location.hash = `#token=${token}` }", world.token("staff:s2"))
    expect(sam.at("other-sign-in")).to_contain_text("s2")
    assert "token" not in sam.page.url
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "4104")
    expect(sam.at("reply")).to_be_focused()
    if not accepted:
        sam.page.keyboard.type("it is yours")
        sam.page.keyboard.press("Enter")
        wait_until(lambda: _answers(world) == [(4104, "s1", BEGUN + "it is yours")], 30)
        sam.at("other-sign-in").get_by_role("button", name="Stay").click()
        expect(sam.at("other-sign-in")).to_have_count(0)
        return
    sam.at("other-sign-in").get_by_role("button", name="Sign in as s2").click()
    expect(sam.page.get_by_label("Sign out Sue")).to_be_visible()
    sam.live().open(4104)
    expect(sam.at("reply")).to_have_value("")
    expect(sam.at("kept-for-others")).to_contain_text("1 draft of s1")
    assert _answers(world) == []


def test_a_link_opened_in_a_signed_in_tab_asks_too(world: World, sam: Staff) -> None:
    sam.page.goto("about:blank")
    sam.page.goto(f"{world.console}/console#token={world.token('staff:s2')}")
    expect(sam.at("other-sign-in")).to_contain_text("s2")
    expect(sam.page.get_by_label("Sign out Sam")).to_be_visible()


# Replies under way


def test_signing_out_asks_about_a_reply_that_is_not_sent(world: World, sam: Staff) -> None:
    _three(world)
    sam.open(4104)
    _later(sam)
    sam.answer("On its way")
    sam.at("sign-out").click()
    expect(sam.at("leaving")).to_contain_text("One reply is not sent yet")
    sam.at("leaving").get_by_role("button", name="Stay").click()
    expect(sam.message("On its way")).to_be_visible()
    sam.at("sign-out").click()
    sam.at("leaving").get_by_role("button", name="Wait").click()
    sam.page.unroute(REPLY)
    expect(sam.at("sign-in")).to_be_visible()
    assert _answers(world) == [(4104, "s1", "On its way")]
    assert sam.page.evaluate("sessionStorage.length") == 0


def test_a_reply_or_draft_that_is_given_up_at_the_sign_out_is_gone(world: World, sam: Staff) -> None:
    _three(world)
    sam.open(1300)
    sam.at("reply").fill("A draft")
    sam.open(4104)
    _later(sam)
    sam.answer("On its way")
    sam.at("sign-out").click()
    expect(sam.at("leaving")).to_contain_text("1 draft")
    sam.at("leaving").get_by_role("button", name="Discard").click()
    expect(sam.at("sign-in")).to_be_visible()
    assert sam.page.evaluate("sessionStorage.length") == 0
    sam.page.unroute(REPLY)
    sam.sign_in("staff:s1").open(1300)
    expect(sam.at("reply")).to_have_value("")
    assert _answers(world) == []


def test_a_kept_reply_is_sent_by_its_writer_alone_whoever_signs_in_meanwhile(
    world: World, sam: Staff
) -> None:
    _three(world)
    sam.open(1300)
    sam.at("reply").fill("A draft of Sam's")
    sam.open(4104)
    tried = _later(sam)
    sam.answer("On its way")
    expect(sam.message("On its way")).to_be_visible()
    sam.at("sign-out").click()
    sam.at("leaving").get_by_role("button", name="Keep").click()
    sam.page.unroute(REPLY)
    sam.sign_in("staff:s2").open(4104)
    expect(sam.at("kept-for-others")).to_contain_text("1 reply and 1 draft of s1")
    expect(sam.message("On its way")).to_have_count(0)
    sam.answer("This is Sue")
    wait_until(lambda: _answers(world) == [(4104, "s2", "This is Sue")], 30)
    sam.open(1300)
    expect(sam.at("reply")).to_have_value("")
    sam.at("sign-out").click()
    expect(sam.at("sign-in")).to_be_visible()
    sent: list[Any] = []
    sam.page.on("request", lambda r: sent.append(r.post_data_json) if r.url.endswith("/reply") else None)
    sam.sign_in("staff:s1")
    wait_until(lambda: (4104, "s1", "On its way") in _answers(world), 30)
    assert [one["id"] for one in sent] == [tried[0]["id"]]
    assert len(_answers(world)) == 2
    sam.open(1300)
    expect(sam.at("reply")).to_have_value("A draft of Sam's")


def _reload(sam: Staff, world: World) -> Staff:
    sam.page.reload()
    return sam.live()


def _crash(sam: Staff, world: World) -> Staff:
    """The tab goes without a word; the browser opens it again with what the tab had kept."""
    kept, url = sam.page.evaluate("JSON.stringify(sessionStorage)"), sam.page.url
    sam.page.close(run_before_unload=False)
    sam.page = sam.context.new_page()
    sam.page.goto(f"{world.console}/console/config.json")
    sam.page.evaluate("kept => Object.assign(sessionStorage, JSON.parse(kept))", kept)
    sam.page.goto(url)
    return sam.live()


def _expire(sam: Staff, world: World) -> Staff:
    answer = {"code": "token_expired", "error": "expired"}
    sam.page.route("**/api/gre-admin/queue*", lambda route: route.fulfill(status=401, json=answer))
    sam.page.evaluate("document.querySelector('[data-testid=\"filter-closed\"]').click()")
    expect(sam.at("sign-in")).to_be_visible()
    sam.page.unroute("**/api/gre-admin/queue*")
    return sam.sign_in("staff:s1")


@pytest.mark.parametrize("gone", [_reload, _crash, _expire], ids=["refresh", "crash", "expiry"])
def test_a_reply_under_way_outlives_the_page(
    world: World, sam: Staff, gone: Callable[[Staff, World], Staff]
) -> None:
    _three(world)
    sam.open(4104)
    tried = _later(sam)

    def leave(dialog: Dialog) -> None:
        dialog.accept()

    sam.page.on("dialog", leave)
    sam.answer("On its way")
    wait_until(lambda: tried, 30)
    sam.page.unroute(REPLY)
    # (Until the page is gone nothing gets through.)
    sam.context.route(REPLY, lambda route: route.abort())
    sent: list[Any] = []
    sam.context.on("request", lambda r: sent.append(r.post_data_json) if r.url.endswith("/reply") else None)
    gone(sam, world)
    sam.context.unroute(REPLY)
    sam.open(4104)
    wait_until(lambda: _answers(world) == [(4104, "s1", "On its way")], 60)
    expect(sam.message("On its way")).to_have_count(1)
    assert {one["id"] for one in sent} == {tried[0]["id"]}
    wait_until(lambda: "On its way" not in sam.page.evaluate("JSON.stringify(sessionStorage)"), 30)


def test_nothing_of_a_session_goes_on_after_the_sign_out(world: World, join: Join) -> None:
    sam = join(Staff)
    sam.page.clock.install()
    sam.enter()
    _three(world)
    sam.open(4104)
    _later(sam)
    sam.answer("On its way")
    expect(sam.message("On its way")).to_be_visible()
    sam.at("sign-out").click()
    sam.at("leaving").get_by_role("button", name="Keep").click()
    expect(sam.at("sign-in")).to_be_visible()
    asked: list[str] = []
    sam.page.on("request", lambda r: asked.append(r.url) if "/api/" in r.url else None)
    sam.page.on("websocket", lambda ws: asked.append(ws.url))
    sam.page.clock.run_for(120_000)
    assert asked == []


# A reply that fails elsewhere


def test_a_reply_that_fails_in_another_conversation_is_told(world: World, sam: Staff) -> None:
    _three(world)
    sam.open(4104)
    held: list[Route] = []
    sam.page.route(REPLY, lambda route: held.extend([route]))
    sam.answer("On its way")
    wait_until(lambda: held, 30)
    sam.open(1300)
    sam.at("reply").fill("Another")
    held[0].fulfill(status=403, json={"code": "not_allowed", "error": "you may not"})
    expect(sam.row(4104).get_by_test_id("unsent")).to_have_text("not sent")
    expect(sam.at("toast")).to_contain_text("Kevin")
    expect(sam.at("announcer")).to_contain_text("not sent to Kevin")
    expect(sam.at("unsent-count")).to_contain_text("1 not sent")
    assert "1 not sent" in sam.page.title()
    sam.at("toast").get_by_role("link").click()
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "4104")
    expect(sam.message("On its way")).to_have_attribute("data-state", "failed")
    sam.page.unroute(REPLY)
    sam.at("retry").click()
    wait_until(lambda: _answers(world) == [(4104, "s1", "On its way")], 30)
    expect(sam.at("unsent-count")).to_have_count(0)
    assert "not sent" not in sam.page.title()
    kept = json.loads(sam.page.evaluate("JSON.stringify(sessionStorage)"))
    assert not any("On its way" in value for value in kept.values())


def test_a_reply_that_got_no_answer_is_tried_again_by_itself(world: World, join: Join) -> None:
    """Also while the socket stays up: nothing tells the page that the reply's way is free again."""
    sam = join(Staff)
    sam.page.clock.install()
    sam.enter()
    _three(world)
    sam.open(4104)
    sam.page.route(REPLY, lambda route: route.fulfill(status=503, json={"code": "away", "error": "the database is away"}))  # fmt: skip
    sam.answer("On its way")
    for _ in range(4):
        sam.page.clock.run_for(7_000)
    expect(sam.message("On its way")).to_have_attribute("data-state", "failed")
    expect(sam.message("On its way")).to_contain_text("kept")
    sam.page.unroute(REPLY)
    sam.page.clock.run_for(31_000)
    wait_until(lambda: _answers(world) == [(4104, "s1", "On its way")], 30)
