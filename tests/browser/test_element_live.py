"""`<gre-chat>` with its own client against the real daemon, on a page with a strict Content-Security-Policy."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.element import STRICT, Visitor
from tests.browser.files import payload, small_photo
from tests.browser.test_accessible import assert_accessible
from tests.browser.world import Staff, World

TOKEN_EVENT = "addEventListener('house-token', (event) => event.detail.respond(fetch('/house/token').then((answer) => answer.text())))\n"
SIGNED_OUT = "let token = null; chat.getToken = () => token; window.signIn = async () => { token = await (await fetch('/house/token')).text() }\n"
SIGN_IN = "chat.addEventListener('gre-sign-in', () => window.signIn())\n"


def _loaded(asha: Visitor) -> list[str]:
    """The element's files that the page has loaded, without their hashes."""
    names = asha.page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    return sorted({name.rpartition("/")[2].partition("-")[0] for name in names if "/widget" in name})


def _stored(world: World) -> list[str]:
    return [
        row["message"] for row in world.sql("select message from gre_chat_messages order by created_at, seq")
    ]


def test_a_conversation(world: World, join: Join, sam: Staff) -> None:
    asha: Visitor = join(Visitor).visit()
    assert _loaded(asha) == ["widget.js"]
    asha.open()
    assert {"core", "panel"} <= set(_loaded(asha))
    assert "uploads" not in _loaded(asha)
    expect(asha.panel.locator("[part=empty]")).to_be_visible()
    asha.field.fill("Is table 4 open?")
    asha.field.press("Enter")
    expect(asha.panel.locator("[part~=message-mine]")).to_contain_text("Sent")
    sam.open(29)
    expect(sam.message("Is table 4 open?")).to_be_visible()
    sam.answer("It is free from eight.")
    expect(asha.panel.get_by_text("It is free from eight.", exact=True)).to_be_visible()
    # Sam has read it, and Asha's page says that it has read Sam's.
    expect(asha.panel.locator("[part~=message-mine]")).to_contain_text("Read")
    asha.wait_until(
        lambda: world.sql("select 1 from gre_chat_messages where sender = 'staff' and status = 'read'")
    )
    assert asha.texts() == _stored(world) == ["Is table 4 open?", "It is free from eight."]
    assert_accessible(asha.page, "a conversation")
    assert asha.page.context.cookies() == []
    hosts = asha.page.evaluate(
        "[...new Set(performance.getEntriesByType('resource').map(({ name }) => new URL(name).host))]"
    )
    assert hosts == [world.console.partition("//")[2]]


def test_with_unread_the_badge_counts_before_it_is_opened(world: World, join: Join) -> None:
    world.write(29, "Hello", "Asha")
    asha: Visitor = join(Visitor).visit(attributes="unread")
    world.reply(29, "Yes?")
    badge = asha.element.locator("[part=badge]")
    expect(badge).to_have_text("1")
    assert "core" in _loaded(asha)
    assert "panel" not in _loaded(asha)
    expect(asha.launcher).to_have_accessible_name("Open chat, 1 new messages")
    asha.open()
    expect(badge).to_be_hidden()
    asha.page.keyboard.press("Escape")
    world.reply(29, "Are you there?")
    expect(badge).to_have_text("1")
    assert "gre-unread" in asha.events()


def test_the_token_comes_by_an_event(world: World, join: Join) -> None:
    world.write(29, "Hello", "Asha")
    asha: Visitor = join(Visitor).visit(TOKEN_EVENT, attributes='token-event="house-token"').open()
    expect(asha.panel.get_by_text("Hello", exact=True)).to_be_visible()
    markup = asha.element.evaluate("chat => chat.outerHTML + chat.shadowRoot.innerHTML")
    assert world.token("player:29").partition(".")[0] not in markup


def test_signing_in_on_the_page(world: World, join: Join) -> None:
    world.write(29, "Hello", "Asha")
    asha: Visitor = join(Visitor).visit(SIGNED_OUT).open()
    expect(asha.panel.get_by_text("Please sign in to chat.")).to_be_visible()
    expect(asha.field).to_have_count(0)
    asha.page.evaluate("window.signIn()")
    asha.panel.get_by_role("button", name="Sign in").click()
    expect(asha.panel.get_by_text("Hello", exact=True)).to_be_visible()
    expect(asha.field).to_be_visible()


def test_another_person_sees_nothing_of_the_one_before(world: World, join: Join) -> None:
    world.write(29, "A secret", "Asha")
    asha: Visitor = join(Visitor).visit().open()
    expect(asha.panel.get_by_text("A secret", exact=True)).to_be_visible()
    asha.field.fill("A draft")
    asha.element.evaluate("(chat, token) => { chat.getToken = () => token }", world.token("player:31"))
    expect(asha.panel.locator("[part=empty]")).to_be_visible()
    expect(asha.panel.get_by_text("A secret")).to_have_count(0)
    expect(asha.field).to_have_value("")
    asha.field.fill("I am Ravi")
    asha.field.press("Enter")
    asha.wait_until(
        lambda: world.sql("select 1 from gre_chat_messages where player_id = 31 and message = 'I am Ravi'")
    )


def test_a_panel_that_cannot_be_loaded_is_loaded_at_the_next_press(world: World, join: Join) -> None:
    asha: Visitor = join(Visitor)
    failures = ["failed"]

    def fail(route: Route) -> None:
        if failures:
            failures.pop()
            route.abort()
        else:
            route.continue_()

    asha.page.route("**/widget/panel-*", fail)
    asha.visit()
    asha.launcher.click()
    expect(asha.element.get_by_role("status").filter(has_text="could not be loaded")).to_be_attached()
    expect(asha.launcher).to_have_attribute("aria-expanded", "false")
    asha.open()
    expect(asha.field).to_be_focused()


def test_a_text_that_is_not_stored_survives_a_reload(world: World, join: Join) -> None:
    asha: Visitor = join(Visitor).visit().open()
    expect(asha.panel.locator("[part=empty]")).to_be_visible()
    asha.context.set_offline(True)
    asha.field.fill("Is anybody there?")
    asha.field.press("Enter")
    expect(asha.panel.locator("[part~=message-unsent]")).to_contain_text("Is anybody there?")
    asha.context.set_offline(False)
    asha.page.reload()
    asha.open()
    asha.wait_until(lambda: _stored(world) == ["Is anybody there?"])
    expect(asha.panel.locator("[part~=message-mine]")).to_have_count(1)
    assert asha.texts() == ["Is anybody there?"]


def test_a_closed_desk_says_when_it_opens_and_who_is_there_all_the_same(world: World, join: Join) -> None:
    later = (datetime.now(UTC) + timedelta(days=2)).date()
    hours = {
        "name": "desk", "timezone": "UTC", "week": [{"weekday": n} for n in range(1, 8)],
        "dates": [{"day": later.isoformat(), "opens": "09:30", "closes": "18:00"}],
    }  # fmt: skip
    world.call("POST", "/api/gre-admin/hours", "admin:a1", **hours)
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", hours="desk")
    world.sql("insert into gre_online_status (staff_id, display_name, status, last_seen_at) values ('s2', 'Sue', 'online', now())"
              " on conflict (staff_id) do update set status = 'online', last_seen_at = now(), expires_at = null")  # fmt: skip
    asha: Visitor = join(Visitor, timezone_id="UTC").visit().open()
    expect(asha.panel.locator("[part=hours]")).to_have_text(
        re.compile(rf"Closed\. We open {later:%A} at 09:30( AM)?\.")
    )
    expect(asha.panel.locator("[part=presence]")).to_contain_text("Sue is here.")
    assert_accessible(asha.page, "a closed desk")
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", hours=None)


def test_a_draft_survives_a_reload_and_is_shown_to_nobody_else(world: World, join: Join) -> None:
    asha: Visitor = join(Visitor).visit().open()
    expect(asha.panel.locator("[part=empty]")).to_be_visible()
    asha.field.press_sequentially("A secret draft")
    asha.page.reload()
    asha.open()
    expect(asha.field).to_have_value("A secret draft")
    asha.element.evaluate("(chat, token) => { chat.getToken = () => token }", world.token("player:31"))
    expect(asha.panel.locator("[part=empty]")).to_be_visible()
    expect(asha.field).to_have_value("")
    asha.element.evaluate("(chat, token) => { chat.getToken = () => token }", world.token("player:29"))
    expect(asha.field).to_have_value("A secret draft")
    asha.field.press("Enter")
    asha.wait_until(lambda: _stored(world) == ["A secret draft"])
    asha.page.reload()
    asha.open()
    expect(asha.panel.get_by_text("A secret draft", exact=True)).to_be_visible()
    expect(asha.field).to_have_value("")


@pytest.fixture
def rated(world: World) -> str:
    """A session with an answer, while ratings are on."""
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", rating_enabled=True)
    world.write(29, "Is table 4 open?", "Asha")
    return world.reply(29, "It is free from eight.")


def test_a_conversation_is_rated_when_staff_close_it(world: World, join: Join, rated: str) -> None:
    asha: Visitor = join(Visitor).visit().open()
    expect(asha.panel.get_by_text("It is free from eight.", exact=True)).to_be_visible()
    expect(asha.panel.locator("[part=rating]")).to_have_count(0)
    world.call("PUT", f"/api/gre-admin/session/{rated}/status", "staff:s2", status="closed")
    asha.panel.get_by_role("radio", name="5 of 5 stars").check(force=True)
    asha.panel.get_by_role("button", name="Send rating").click()
    expect(asha.panel.locator("[part=thanks]")).to_have_text("Thank you for your rating.")
    assert world.sql("select score from gre_chat_ratings") == [{"score": 5}]
    world.call("PUT", "/api/gre-admin/settings", "admin:a1", rating_enabled=False)


def test_a_photo_with_its_description(world: World, join: Join, sam: Staff) -> None:
    policy = f"{STRICT} {world.stack}; img-src {world.stack}"
    asha: Visitor = join(Visitor).visit(policy=policy).open()
    puts: list[str] = []
    asha.page.on("request", lambda request: puts.append(request.url) if request.method == "PUT" else None)
    asha.panel.locator("input[type=file]").set_input_files(payload("table.jpg", small_photo()))
    described = asha.panel.get_by_role("textbox", name="Describe table.jpg for people who cannot see it")
    # The bytes are stored before it is described, and are not uploaded again.
    expect(asha.panel.locator("[part=tray] li")).to_have_attribute("data-state", "stored")
    described.fill("My table")
    described.press("Tab")
    asha.panel.get_by_role("button", name="Send", exact=True).click()
    expect(asha.panel.get_by_role("button", name="Open picture: My table")).to_be_visible()
    assert world.sql("select alt, message_id is not null as sent from gre_chat_attachments") == [
        {"alt": "My table", "sent": True}
    ]
    assert len(puts) == 1
    sam.open(29)
    expect(sam.at("picture").locator("img")).to_have_attribute("alt", "My table")
