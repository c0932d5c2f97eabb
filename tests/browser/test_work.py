"""Working through the queue: next conversation, unread messages, hand-over, links, search."""

from __future__ import annotations

import re
import threading

from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.world import Staff, World
from tests.support.waiting import wait_until


def _write_from(world: World, sam: Staff, *players: int) -> None:
    for player in players:
        world.write(player, f"Hello from {player}", f"Player {player}")
    expect(sam.at("session-row")).to_have_count(len(players))


def _expect_answered(sam: Staff, player: int) -> None:
    expect(sam.row(player)).to_have_attribute("data-waiting", "false")


def test_after_an_answer_j_opens_the_next_waiting_conversation(world: World, sam: Staff) -> None:
    _write_from(world, sam, 31, 32, 33, 34)
    keys = sam.page.keyboard
    for key, player in (("j", 31), ("j", 32)):
        keys.press(key)
        expect(sam.at("conversation")).to_have_attribute("data-player-id", str(player))
        expect(sam.at("reply")).to_be_visible()
    for player, after in ((32, 33), (33, 34), (34, 31)):
        keys.press("Enter")
        expect(sam.at("reply")).to_be_focused()
        keys.type("An answer")
        keys.press("Enter")
        _expect_answered(sam, player)
        keys.press("Escape")
        keys.press("j")
        expect(sam.at("conversation")).to_have_attribute("data-player-id", str(after))
        expect(sam.at("reply")).to_be_visible()


def test_control_enter_sends_and_opens_the_next_waiting_conversation(world: World, sam: Staff) -> None:
    _write_from(world, sam, 31, 32)
    sam.open(31)
    sam.at("reply").fill("An answer")
    sam.at("reply").press("Control+Enter")
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "32")
    _expect_answered(sam, 31)
    expect(sam.at("reply")).to_have_value("")
    assert [row["message"] for row in world.sql("select message from gre_chat_messages where sender = 'staff'")] == ["An answer"]  # fmt: skip


def test_a_conversation_opens_at_the_first_unread_message_and_visible_messages_are_marked_as_read(
    world: World, sam: Staff
) -> None:
    world.write(29, "number 0", "Asha")
    world.sql(
        "select gre_send_messages((select jsonb_agg(jsonb_build_object('player_id', 29, 'sender', 'player', 'message', 'number ' || n) order by n)"
        " from generate_series(1, 40) n))"
    )
    expect(sam.row(29)).to_have_attribute("data-unread", "41")
    sam.open(29)
    expect(sam.at("unread-line")).to_be_in_viewport()
    expect(sam.message("number 0")).to_be_in_viewport()
    expect(sam.message("number 40")).not_to_be_in_viewport()

    def unread() -> int:
        return int(sam.row(29).get_attribute("data-unread") or 0)

    wait_until(lambda: unread() < 41, what="marks for what is in sight")
    query = "select count(*) as n from gre_chat_messages where sender = 'player' and status = 'read'"
    wait_until(lambda: world.sql(query)[0]["n"] > 1, what="marks that are stored")
    assert world.sql(query)[0]["n"] < 41, "messages that were not visible are marked as read"
    sam.at("jump-latest").click()
    expect(sam.row(29)).to_have_attribute("data-unread", "0")


def _write_201_messages(world: World) -> None:
    world.write(29, "number 0", "Asha")
    for first in (1, 101):
        world.sql(
            "select gre_send_messages((select jsonb_agg(jsonb_build_object('player_id', 29, 'sender', 'player', 'message', 'number ' || n) order by n)"
            " from generate_series(%s::int, %s::int) n))", first, first + 99,
        )  # fmt: skip


def test_the_first_unread_message_is_found_beyond_the_first_page(world: World, sam: Staff) -> None:
    _write_201_messages(world)
    expect(sam.row(29)).to_have_attribute("data-unread", "201")
    sam.open(29)
    expect(sam.message("number 0")).to_be_in_viewport()
    expect(sam.message("number 60")).to_have_count(0)


_KEEP_SOCKETS = """
window.__sockets = []
window.WebSocket = class extends WebSocket {
  constructor(...options) {
    super(...options)
    window.__sockets.push(this)
  }
}
"""


def test_a_reconnection_while_older_pages_load_keeps_the_first_unread_message(
    world: World, join: Join
) -> None:
    """Otherwise the page would mark messages as read that were not visible."""
    sam = join(Staff)
    sam.context.add_init_script(_KEEP_SOCKETS)
    sam.enter()
    _write_201_messages(world)
    expect(sam.row(29)).to_have_attribute("data-unread", "201")
    held: list[Route] = []
    released = threading.Event()
    sam.page.route(
        "**/api/gre-admin/messages/*before_seq=*",
        lambda route: route.continue_() if released.is_set() else held.extend([route]),
    )
    with sam.page.expect_request("**/api/gre-admin/messages/*before_seq=*"):
        sam.row(29).first.click()
    sam.page.evaluate("window.__sockets[0].close()")
    wait_until(lambda: sam.page.evaluate("window.__sockets.length") > 1, what="a new connection")
    sam.wait_until_live()
    expect(sam.at("messages")).to_have_attribute("data-loaded", "100")
    expect(sam.at("unread-line")).to_have_count(0)
    released.set()
    for route in held:
        route.continue_()
    expect(sam.message("number 0")).to_be_in_viewport()
    wait_until(lambda: int(sam.row(29).get_attribute("data-unread") or 0) < 201, what="marks")
    query = "select max(seq) as n from gre_chat_messages where sender = 'player' and status = 'read'"
    seen = wait_until(lambda: world.sql(query)[0]["n"], what="marks that are stored")
    assert seen < 60


def test_a_conversation_handed_over_to_the_user_causes_a_notification(
    world: World, join_windows: Join
) -> None:
    sam = join_windows(Staff, permissions=["notifications"])
    sam.context.add_init_script(
        "window.__notifications = []; window.Notification = class { static permission = 'granted'; constructor(title) { window.__notifications.push(title) } close() {} }"
    )
    sam.enter()
    _write_from(world, sam, 31, 32)
    sam.open(32)
    sam.context.new_cdp_session(sam.page).send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    sam.context.new_page().bring_to_front()
    wait_until(lambda: not sam.page.evaluate("document.hasFocus()"), what="a page without focus")
    session = sam.row(31).get_attribute("data-session-id")
    expect(sam.at("mine-count")).to_have_count(0)
    world.call("PUT", f"/api/gre-admin/session/{session}/status", "staff:s2", status="assigned", staffId="s1")
    expect(sam.at("toast")).to_contain_text("Player 31 was handed over to you")
    sam.at("toast").get_by_role("link").click()  # it is shown for eight seconds
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "31")
    expect(sam.at("announcer")).to_contain_text("handed over to you")
    expect(sam.at("mine-count")).to_have_text("1")
    told = "Player 31 was handed over to you"
    wait_until(lambda: told in sam.page.evaluate("window.__notifications"), what="a notification")


def test_an_own_assignment_causes_no_notification(world: World, sam: Staff) -> None:
    _write_from(world, sam, 31)
    sam.open(31)
    sam.at("assign-me").click()
    expect(sam.at("mine-count")).to_have_text("1")
    world.write(31, "Thanks", "Player 31")
    expect(sam.message("Thanks")).to_be_visible()
    expect(sam.at("toast")).to_have_count(0)


_AT, _TEL = "https://example.com/a_(b)?x=1#y", "tel:+4930123456"
LINKS = [
    (f"See {_AT}.", [(_AT, _AT)]),
    ("(http://example.com)", [("http://example.com", "http://example.com/")]),
    ("write to kevin@example.com, please", [("kevin@example.com", "mailto:kevin@example.com")]),
    ("mailto:kevin@example.com", [("mailto:kevin@example.com", "mailto:kevin@example.com")]),
    (f"call {_TEL} or +49 (30) 123-456.", [(_TEL, _TEL), ("+49 (30) 123-456", "tel:+4930123456")]),
    ("javascript:alert(1) data:text/html,x file:///etc 12345678 a@b https://", []),
    ("<a href=https://example.com>x</a>", [("https://example.com", "https://example.com/")]),
]
"""A text, and the text and target of each link in it."""


def test_addresses_are_links_and_all_else_is_text(world: World, sam: Staff) -> None:
    for text, _ in LINKS:
        world.write(29, text, "Asha")
    expect(sam.row(29)).to_have_attribute("data-unread", str(len(LINKS)))
    sam.open(29)
    texts = [text for text, _ in LINKS]
    wait_until(lambda: sam.at("message-text").all_inner_texts() == texts, what="all messages")
    for (_, expected), message in zip(LINKS, sam.at("message-text").all(), strict=True):
        links = message.locator("a")
        found = links.evaluate_all("all => all.map(a => [a.textContent, a.href, a.target, a.rel])")
        assert found == [[text, href, "_blank", "noopener noreferrer"] for text, href in expected]
    assert sam.page.evaluate("window.evil") is None


def test_players_are_found_by_any_word_by_number_and_without_accents(world: World, sam: Staff) -> None:
    for player, name in ((5000, "Five Thousand"), (31, "Jürgen Groß"), (32, "مريم الأحمد")):
        world.write(player, "Hello", name)
    expect(sam.at("session-row")).to_have_count(3)
    for text, found in (("thousand", [5000]), ("#5000", [5000]), ("5000", [5000]), ("jurgen", [31]), ("JÜR", [31]), ("five tho", [5000]), ("الأحمد", [32]), ("housand", [])):  # fmt: skip
        sam.at("search").fill(text)
        wait_until(lambda expected=found: sam.listed_players() == expected, what=text)
    expect(sam.at("queue-empty")).to_contain_text("matches")


def test_no_button_moves_when_the_players_chat_setting_is_loaded(world: World, sam: Staff) -> None:
    _write_from(world, sam, 31)
    held: list[Route] = []
    sam.page.route("**/api/gre-admin/player/31", lambda route: held.extend([route]))
    sam.open(31)
    sam.wait_until(lambda: held)
    expect(sam.at("player-chat")).to_be_disabled()
    before = sam.at("close-session").bounding_box()
    held[0].continue_()
    expect(sam.at("player-chat")).to_be_enabled()
    assert sam.at("close-session").bounding_box() == before


def test_players_with_ids_beyond_2_53_are_not_mixed_up(world: World, sam: Staff) -> None:
    """New ids are limited; a server with older ones must not make the page act on another player."""
    _write_from(world, sam, 31)
    requested: list[str] = []

    def number(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub(r'"player_id": ?31\b', '"player_id":9007199254740993', answer.text()))  # fmt: skip

    def player(route: Route) -> None:
        address = route.request.url
        requested.append(address.removesuffix("/block").rsplit("/", 1)[1])
        state = {"playerId": 1, "displayName": None, "enabled": not address.endswith("/block")}
        route.fulfill(json={"success": True, "player": state})

    for path in ("queue*", "messages/*"):
        sam.page.route(f"**/api/gre-admin/{path}", number)
    sam.page.route("**/api/gre-admin/player/*", player)
    sam.page.route("**/api/gre-admin/player/*/block", player)
    sam.page.reload()
    sam.wait_until_live()
    expect(sam.at("session-row")).to_contain_text("#9007199254740993")
    sam.at("session-row").click()
    sam.at("player-chat").click()
    sam.at("block-dialog").get_by_role("button", name="Block").click()
    expect(sam.at("player-chat")).to_have_attribute("aria-pressed", "false")
    assert requested == ["9007199254740993"] * 2


def test_an_unknown_conversation_has_no_reply_box(world: World, sam: Staff) -> None:
    sam.page.evaluate("location.hash = '#s=00000000-0000-4000-8000-000000000000'")
    expect(sam.page.get_by_role("link", name="Back to the list").first).to_be_visible()
    expect(sam.page.get_by_role("heading", name="Unknown conversation")).to_be_visible()
    expect(sam.at("reply")).to_have_count(0)
