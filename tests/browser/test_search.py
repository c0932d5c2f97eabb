"""The search of messages: how it is reached, what it shows and opens, its pages, filters and failures."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Join
from tests.browser.world import PHONE, Staff, World

_FILL = """
insert into gre_chat_sessions (id, player_id, player_name, last_seq, rev, last_message_at)
  values (md5('long')::uuid, 40, 'Lena', 700, 700, now());
insert into gre_chat_messages (session_id, seq, player_id, player_name, sender, sender_name, message, status, created_at, "timestamp")
  select md5('long')::uuid, n, 40, 'Lena', 'player', 'Lena', case when n <= 60 then 'Refund number ' || n else 'Message ' || n end, 'sent', at, at
  from generate_series(1, 700) n, lateral (select now() - (700 - n) * interval '1 minute' as at) x;
"""


def insert_long_session(world: World) -> None:
    """Insert an open session of 700 messages; the oldest 60 contain the word "Refund"."""
    with world.db() as conn, conn.transaction():
        for table in ("gre_chat_sessions", "gre_chat_messages"):
            conn.execute(f"alter table {table} disable trigger user".encode())
        conn.execute(_FILL.encode())
        for table in ("gre_chat_sessions", "gre_chat_messages"):
            conn.execute(f"alter table {table} enable trigger user".encode())


def search(staff: Staff, words: str) -> None:
    """Search messages from the list's field, and wait for the first page."""
    staff.at("search").fill(words)
    staff.at("search").press("Enter")
    expect(staff.at("message-search", state="done")).to_be_visible()


def found_texts(staff: Staff) -> list[str]:
    return staff.at("found-text").all_inner_texts()


def test_a_message_of_a_closed_conversation_is_found_and_opened(world: World, sam: Staff) -> None:
    session = world.write(31, "Where is my refund?", "Ravi")
    world.write(31, "Hello?", "Ravi")
    world.reply(31, "Your REFUND left today.")
    world.call("POST", "/api/gre-chat/close-session/31", "staff:s2")
    world.write(32, "A table for two", "Mei")
    expect(sam.at("session-row")).to_have_count(1)
    sam.at("search").fill("refund")
    expect(sam.at("search-messages")).to_contain_text("refund")
    search(sam, "refund")
    assert found_texts(sam) == ["Your REFUND left today.", "Where is my refund?"]
    expect(sam.page.locator("mark")).to_have_text(["REFUND", "refund"])
    answer, question = sam.at("found-message").all()
    expect(answer).to_contain_text("Ravi")
    expect(answer).to_contain_text("Sue:")
    expect(answer).to_contain_text("closed")
    expect(answer).to_contain_text("Today,")
    expect(question).to_contain_text("Ravi:")
    expect(sam.at("search-status")).to_have_text("2 messages found, the newest first.")
    question.click()
    expect(sam.at("conversation", session_id=session, status="closed")).to_be_visible()
    target = sam.message("Where is my refund?")
    expect(target).to_have_attribute("aria-current", "true")
    expect(sam.page.locator("[aria-current].message")).to_have_count(1)
    # Back to what was found, and to the list.
    sam.page.go_back()
    expect(sam.at("found-message")).to_have_count(2)
    expect(sam.at("search-words")).to_have_value("refund")
    sam.at("found-message").first.click()
    expect(sam.message("Your REFUND left today.")).to_have_attribute("aria-current", "true")
    sam.page.go_back()
    sam.page.go_back()
    expect(sam.at("queue")).to_be_visible()
    expect(sam.at("conversation")).to_have_count(0)


def test_nothing_is_sent_while_the_user_types_and_the_words_stay_in_memory(world: World, sam: Staff) -> None:
    world.write(31, "My secret word is kakapo", "Ravi")
    requests: list[str] = []
    sam.page.on("request", lambda request: requests.append(request.url))
    sam.at("search").press_sequentially("kakapo")
    expect(sam.at("queue-empty")).to_be_visible()
    sam.at("search-messages").click()
    expect(sam.at("found-message")).to_have_count(1)
    sam.at("search-words").fill("")
    sam.at("search-words").press_sequentially("secret kakapo")
    sam.at("search-start").click()
    expect(sam.page.locator("mark")).to_have_text(["secret", "kakapo"])
    asked = [url for url in requests if "/api/gre-admin/search" in url]
    assert [re.sub(".*q=", "", url) for url in asked] == ["kakapo", "secret+kakapo"]
    sam.at("found-message").click()
    expect(sam.message("My secret word is kakapo")).to_be_visible()
    kept = (
        "[location.href, document.title, JSON.stringify(sessionStorage), JSON.stringify(localStorage)].join()"
    )
    assert "kakapo" not in sam.page.evaluate(kept)
    sam.page.go_back()
    assert "kakapo" not in sam.page.evaluate(kept)
    # After a reload the view is empty.
    sam.page.reload()
    expect(sam.at("message-search", state="idle")).to_be_visible()
    expect(sam.at("search-words")).to_have_value("")
    expect(sam.at("search-words")).to_be_focused()


@pytest.mark.past_triggers("messages are moved to other days")
def test_the_filters(world: World, join: Join) -> None:
    ann = join(Staff, timezone_id="UTC").enter("admin:a1")
    for player, name in ((31, "Ravi"), (32, "Mei")):
        world.write(player, f"A refund for {name}", name)
        world.reply(player, f"Refund to {name}", who="staff:s1" if player == 31 else "staff:s2")
    old = "update gre_chat_messages set created_at = now() - interval '10 days' where message = 'A refund for Mei'"
    world.sql("alter table gre_chat_messages disable trigger user")
    world.sql(old)
    world.sql("alter table gre_chat_messages enable trigger user")
    search(ann, "refund")
    expect(ann.at("found-message")).to_have_count(4)

    def found(**fields: str) -> list[str]:
        for name in ("player", "from", "to"):
            ann.at(f"search-{name}").fill(fields.get(name, ""))
        ann.at("search-author").select_option(fields.get("author", ""))
        with ann.page.expect_response("**/api/gre-admin/search*"):
            ann.at("search-start").click()
        expect(ann.at("message-search", state="done")).to_be_visible()
        return found_texts(ann)

    today = datetime.now(UTC).date()
    assert found(player="#32") == ["Refund to Mei", "A refund for Mei"]
    assert found(author="s1") == ["Refund to Ravi"]
    assert found(to=str(today - timedelta(days=5))) == ["A refund for Mei"]
    assert len(found(**{"from": str(today - timedelta(days=1)), "to": str(today + timedelta(days=1))})) == 3
    assert found(player="32", author="s1") == []
    expect(ann.at("search-status")).to_have_text("Nothing found.")
    ann.at("search-player").fill("Mei")
    ann.at("search-player").press("Enter")
    expect(ann.at("search-error")).to_have_text("The player is a number.")


def test_the_next_page_and_a_message_far_up_in_a_conversation(world: World, sam: Staff) -> None:
    insert_long_session(world)
    search(sam, "refund number")
    assert found_texts(sam) == [f"Refund number {n}" for n in range(60, 10, -1)]
    sam.at("search-more").click()
    expect(sam.at("found-message")).to_have_count(60)
    expect(sam.at("search-more")).to_have_count(0)
    expect(sam.at("search-status")).to_have_text("60 messages found, the newest first.")
    sam.at("found-message", seq=5).click()
    target = sam.at("message", seq=5)
    expect(target).to_be_in_viewport()
    expect(target).to_have_attribute("aria-current", "true")
    # The messages around it are complete, and so is the way to the end.
    expect(sam.at("messages")).to_have_attribute("data-loaded", "700")
    sam.at("jump-latest").click()
    expect(sam.message("Message 700")).to_be_in_viewport()
    # The list of what was found is where the user left it.
    sam.page.go_back()
    expect(sam.at("found-message", seq=5)).to_be_in_viewport()
    # Of the conversation that is open already, another message.
    sam.at("found-message", seq=30).click()
    expect(sam.at("message", seq=30)).to_be_in_viewport()
    expect(sam.at("message", seq=30)).to_have_attribute("aria-current", "true")


def test_a_page_that_ends_before_anything_is_found(world: World, sam: Staff) -> None:
    """The server ends a search after a second. Here the browser answers the first requests in its place."""
    world.write(31, "Where is my refund?", "Ravi")
    first, second = re.compile(r"/search\?q=refund$"), re.compile(r"/search\?.*cursor=later$")
    sam.page.route(
        first,
        lambda route: route.fulfill(json={"success": True, "messages": [], "next": "later"}),
    )
    sam.page.route(
        second,
        lambda route: route.continue_(url=route.request.url.replace("&cursor=later", "")),
    )
    search(sam, "refund")
    expect(sam.at("search-status")).to_contain_text("Nothing found so far")
    expect(sam.at("search-more")).to_have_text("Search on")
    sam.page.unroute(first)
    sam.at("search-more").click()
    expect(sam.at("found-message")).to_have_count(1)
    expect(sam.at("search-more")).to_have_count(0)


def test_a_refusal_and_a_lost_connection_are_shown_and_tried_again(world: World, sam: Staff) -> None:
    world.write(31, "Where is my refund?", "Ravi")
    sam.at("search").fill("x")
    sam.at("search").press("Enter")
    expect(sam.at("search-error")).to_have_text("Write 2 to 100 characters to search for.")
    expect(sam.at("search-more")).to_have_count(0)
    answer = {"code": "too_many_reads", "error": "too many reads at once; wait for the answers"}
    sam.page.route(
        "**/api/gre-admin/search*",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json=answer),
    )
    sam.at("search-words").fill("refund")
    sam.at("search-words").press("Enter")
    expect(sam.at("search-error")).to_contain_text("Too many reads at once")
    expect(sam.at("search-error")).to_contain_text("Try again in 1 s.")
    sam.page.unroute("**/api/gre-admin/search*")
    sam.page.context.set_offline(True)
    sam.at("search-more").click()
    expect(sam.at("search-error")).to_have_text("The server does not answer.")
    sam.page.context.set_offline(False)
    sam.at("search-more").click()
    expect(sam.at("found-message")).to_have_count(1)
    expect(sam.at("search-error")).to_have_count(0)


def test_the_text_found_is_text(world: World, sam: Staff) -> None:
    text = '<img src=x onerror="alert(1)"> & <mark>refund</mark>'
    world.write(31, text, "<b>Ravi</b>")
    search(sam, "refund <img")
    assert found_texts(sam) == [text]
    expect(sam.page.locator("mark")).to_have_text(["<img", "refund"])
    expect(sam.at("found-message")).to_contain_text("<b>Ravi</b>")
    expect(sam.at("message-search").locator("img, b")).to_have_count(0)


def test_the_search_works_by_keyboard(world: World, sam: Staff) -> None:
    world.write(31, "Where is my refund?", "Ravi")
    expect(sam.at("session-row")).to_have_count(1)
    keys = sam.page.keyboard
    keys.press("s")
    expect(sam.at("search-words")).to_be_focused()
    keys.type("refund")
    keys.press("Enter")
    expect(sam.at("found-message")).to_have_count(1)
    # A date field has several parts.
    for _ in range(20):
        if sam.page.evaluate("document.activeElement.dataset.testid") == "found-message":
            break
        keys.press("Tab")
    expect(sam.at("found-message")).to_be_focused()
    keys.press("Enter")
    expect(sam.message("Where is my refund?")).to_be_visible()
    sam.page.go_back()
    expect(sam.at("found-message")).to_have_count(1)
    keys.press("/")
    expect(sam.at("search-words")).to_be_focused()
    keys.press("Escape")
    keys.press("Escape")
    expect(sam.at("queue")).to_be_visible()
    # From the list's field, the view has the focus.
    keys.press("/")
    expect(sam.at("search")).to_be_focused()
    keys.type("my refund")
    keys.press("Enter")
    expect(sam.at("found-message")).to_have_count(1)
    expect(sam.at("message-search")).to_be_focused()
    keys.press("Escape")
    expect(sam.at("queue")).to_be_visible()


@pytest.mark.parametrize("words", ["refund", "no such word"])
def test_the_search_on_a_phone(world: World, join: Join, words: str) -> None:
    world.write(31, "Where is my refund? " + "x" * 200, "Ravi")
    sam = join(Staff, viewport=PHONE, is_mobile=True, has_touch=True).enter()
    sam.at("search").fill(words)
    sam.at("search-messages").tap()
    expect(sam.at("message-search", state="done")).to_be_visible()
    assert sam.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    if words == "refund":
        sam.at("found-message").tap()
        expect(sam.at("reply")).to_be_visible()
    else:
        expect(sam.at("search-status")).to_have_text("Nothing found.")
