"""Two staff at the console and a player: taking, handing over, collisions, notes and viewers."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.sockets import PlayerSocket
from tests.browser.world import Player, Staff, World
from tests.support.waiting import wait_until

CANARY = "The player asked for a refund twice"
"""The text of a note: the player's page and socket must never get it."""
TAKE = "**/api/gre-admin/take"
REPLY = "**/api/gre-admin/reply"
NOTES = "**/api/gre-admin/notes"


def _hold(staff: Staff, pattern: str) -> list[Route]:
    """Hold the requests of a page; each continues when the test says so."""
    held: list[Route] = []
    staff.page.route(pattern, lambda route: held.extend([route]))
    return held


def _wait_for(held: list[Route], staff: Staff, count: int = 1) -> None:
    """Wait for the requests that a page holds; Playwright reports them during its own calls."""
    staff.wait_until(lambda: len(held) >= count, what="requests")


def test_of_two_who_take_a_conversation_the_second_is_told_who_has_it(
    world: World, sam: Staff, sue: Staff
) -> None:
    world.write(31, "Hello", "Ravi")
    sue.open(31)
    sam.open(31)
    held = _hold(sue, TAKE)
    sue.at("assign-me").click()
    _wait_for(held, sue)
    sam.at("assign-me").click()
    expect(sam.at("release")).to_be_visible()
    held[0].continue_()
    expect(sue.at("toast")).to_contain_text("Sam has this conversation now.")
    expect(sue.row(31).get_by_test_id("assignee")).to_have_text("Sam")
    # The page shows that Sam has it: to take it over is a decision.
    sue.page.unroute(TAKE)
    expect(sue.at("assign-me")).to_have_text("Take over")
    sue.at("assign-me").click()
    expect(sue.at("release")).to_be_visible()
    expect(sam.at("event").last).to_contain_text("Taken over from Sam by Sue")


def test_take_next_takes_the_longest_waiting_and_passes_over_one_that_was_just_taken(
    world: World, sam: Staff, sue: Staff
) -> None:
    for player, name in ((31, "Ravi"), (32, "Mei"), (33, "Ola")):
        world.write(player, "Hello", name)
    expect(sam.at("session-row")).to_have_count(3)
    sam.at("filter-unassigned").click()
    wait_until(lambda: sam.listed_players() == [31, 32, 33])
    held = _hold(sam, TAKE)
    sam.at("take-next").click()
    _wait_for(held, sam)
    sue.at("take-next").click()
    expect(sue.at("conversation")).to_have_attribute("data-player-id", "31")
    expect(sue.at("release")).to_be_visible()
    held[0].continue_()
    _wait_for(held, sam, 2)
    held[1].continue_()
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "32")
    expect(sam.at("mine-count")).to_have_text("1")
    wait_until(lambda: sam.listed_players() == [33])
    sam.at("release").click()
    wait_until(lambda: sam.listed_players() == [32, 33])
    sam.page.unroute(TAKE)
    sue.at("filter-mine").click()
    for player in (32, 33):
        sue.at("take-next").click()
        expect(sue.at("conversation")).to_have_attribute("data-player-id", str(player))
    sue.at("take-next").click()
    expect(sue.at("toast")).to_contain_text("Nobody waits unassigned.")
    sam.at("filter-unassigned").click()
    expect(sam.at("queue-empty")).to_contain_text("assigned")


def test_a_conversation_is_handed_over_with_a_note_that_the_player_never_gets(
    world: World, sam: Staff, sue: Staff, asha: Player
) -> None:
    session = world.write(29, "Hello", "Asha")
    with PlayerSocket(world, 29) as socket:
        sue.open(29)
        sam.open(29)
        sam.at("assign-me").click()
        expect(sam.at("release")).to_be_visible()
        sam.hand_over("s2", CANARY)
        expect(sue.at("toast")).to_contain_text("Asha was handed over to you")
        expect(sue.at("toast").get_by_role("link")).to_have_count(0)  # she looks at it
        for staff in (sam, sue):
            expect(staff.at("note")).to_have_attribute("data-staff-id", "s1")
            expect(staff.at("note-text")).to_have_text(CANARY)
            expect(staff.at("event").last).to_contain_text("Handed over to Sue by Sam")
        assert world.sql("select text from gre_chat_notes") == [{"text": CANARY}]
        sue.note("Done, " + CANARY)
        expect(sam.at("note")).to_have_count(2)
        sue.at("kind-reply").click()
        sue.answer("All settled.")
        expect(asha.at("try-message").last).to_contain_text("All settled.")
        frames = [socket.receive("chat_message")]
        assert frames[0]["message"]["message"] == "All settled."
        assert CANARY not in json.dumps(socket.received)
    assert CANARY not in asha.page.content()
    assert world.texts(session) == ["Hello", "All settled."]
    # Its place is between the messages, also after a reload.
    sam.page.reload()
    sam.wait_until_live()
    sam.open(29)
    expect(sam.at("note")).to_have_count(2)
    rows = sam.page.locator("[data-testid=message], [data-testid=note]")
    which = "rows => rows.map((row) => row.dataset.seq ?? row.dataset.staffId)"
    wait_until(lambda: rows.evaluate_all(which) == ["1", "s1", "s2", "2"])


def test_a_hand_over_that_is_refused_keeps_its_note(world: World, sam: Staff) -> None:
    world.write(31, "Hello", "Ravi")
    sam.open(31)
    held = _hold(sam, "**/api/gre-admin/transfer")
    sam.at("hand-over").click()
    sam.at("hand-over-to").select_option("s2")
    sam.at("hand-over-note").fill(CANARY)
    sam.page.get_by_role("dialog").get_by_role("button", name="Hand over").click()
    _wait_for(held, sam)
    world.reply(31, "I have it already", "staff:s2")
    held[0].continue_()
    expect(sam.at("hand-over-dialog-error")).to_contain_text("Sue has answered meanwhile")
    sam.page.keyboard.press("Escape")
    expect(sam.page.get_by_role("dialog")).to_have_count(0)
    assert world.sql("select id from gre_chat_notes") == []
    sam.page.unroute("**/api/gre-admin/transfer")
    sam.page.reload()
    sam.wait_until_live()
    sam.open(31)
    sam.at("hand-over").click()
    expect(sam.at("hand-over-note")).to_have_value(CANARY)
    sam.page.keyboard.press("Escape")
    sam.hand_over("s2")
    expect(sam.at("note-text")).to_have_text(CANARY)
    sam.at("hand-over").click()
    expect(sam.at("hand-over-note")).to_have_value("")


def test_a_hand_over_of_a_session_that_a_colleague_has_taken_is_refused(
    world: World, sam: Staff, sue: Staff
) -> None:
    world.write(31, "Hello", "Ravi")
    sam.open(31)
    sue.open(31)
    sam.at("hand-over").click()
    sam.at("hand-over-to").select_option("a1")
    sue.at("assign-me").click()
    expect(sue.at("release")).to_be_visible()
    submit = sam.page.get_by_role("dialog").get_by_role("button", name="Hand over")
    submit.click()
    expect(sam.at("hand-over-dialog-error")).to_contain_text("Sue has this conversation now.")
    assert world.sql("select assigned_staff_id from gre_chat_sessions") == [{"assigned_staff_id": "s2"}]
    # Sam knows it by now: to hand it over all the same is a decision.
    submit.click()
    expect(sam.page.get_by_role("dialog")).to_have_count(0)
    assert world.sql("select assigned_staff_id from gre_chat_sessions") == [{"assigned_staff_id": "a1"}]


def test_a_hand_over_whose_answer_is_lost_stores_its_note_once(world: World, sam: Staff) -> None:
    world.write(31, "Hello", "Ravi")
    sam.open(31)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    sam.page.route("**/api/gre-admin/transfer", lose, times=1)
    sam.at("hand-over").click()
    sam.at("hand-over-to").select_option("s2")
    sam.at("hand-over-note").fill(CANARY)
    submit = sam.page.get_by_role("dialog").get_by_role("button", name="Hand over")
    submit.click()
    expect(sam.at("hand-over-dialog-error")).not_to_be_empty()
    expect(sam.at("assignee").first).to_contain_text("Sue")
    # Another person is another hand-over, not a repeat: Sam is told who has the conversation now.
    sam.at("hand-over-to").select_option("a1")
    submit.click()
    expect(sam.at("hand-over-dialog-error")).to_contain_text("Sue has this conversation now.")
    # The same hand-over in a dialog that was opened again is a repeat.
    sam.page.keyboard.press("Escape")
    sam.at("hand-over").click()
    expect(sam.at("hand-over-note")).to_have_value(CANARY)
    sam.at("hand-over-to").select_option("a1")
    submit.click()
    expect(sam.page.get_by_role("dialog")).to_have_count(0)
    assert world.sql("select text from gre_chat_notes order by n") == [{"text": CANARY}] * 2
    assert world.sql("select assigned_staff_id from gre_chat_sessions") == [{"assigned_staff_id": "a1"}]


def test_a_reply_over_a_colleagues_head_is_refused_and_kept(world: World, sam: Staff, sue: Staff) -> None:
    session = world.write(31, "May I?", "Ravi")
    sam.open(31)
    sue.open(31)
    held = _hold(sue, REPLY)
    sue.answer("No, sorry")
    _wait_for(held, sue)
    sam.answer("Yes, of course")
    expect(sue.message("Yes, of course")).to_be_visible()
    held[0].continue_()
    failed = sue.message("No, sorry")
    expect(failed).to_have_attribute("data-state", "failed")
    expect(failed).to_contain_text("Sam has answered meanwhile: read, then send again.")
    assert world.texts(session) == ["May I?", "Yes, of course"]
    # The player's own new message is no collision; to send again is a decision of the writer, who has read by now.
    world.write(31, "Thanks", "Ravi")
    expect(sue.message("Thanks")).to_be_visible()
    sue.page.unroute(REPLY)
    failed.get_by_test_id("edit").click()
    expect(sue.at("reply")).to_have_value("No, sorry")
    expect(sue.message("No, sorry")).to_have_count(0)
    sue.answer("Enjoy!")
    expect(sue.message("Enjoy!")).to_have_attribute("data-state", re.compile("sent|delivered"))
    assert world.texts(session) == ["May I?", "Yes, of course", "Thanks", "Enjoy!"]


def test_a_refused_reply_is_sent_again_after_reading(world: World, sam: Staff, sue: Staff) -> None:
    session = world.write(31, "May I?", "Ravi")
    sue.open(31)
    held = _hold(sue, REPLY)
    sue.answer("And at eight")
    _wait_for(held, sue)
    world.reply(31, "Yes", "staff:s1")
    held[0].continue_()
    expect(sue.message("And at eight")).to_have_attribute("data-state", "failed")
    expect(sue.message("Yes")).to_be_visible()  # until then, to send again is refused again
    sue.page.unroute(REPLY)
    sue.at("retry").click()
    expect(sue.message("And at eight")).to_have_attribute("data-state", re.compile("sent|delivered"))
    assert world.texts(session) == ["May I?", "Yes", "And at eight"]


def test_a_note_and_a_reply_are_two_drafts(world: World, sam: Staff) -> None:
    session = world.write(31, "Hello", "Ravi")
    sam.open(31)
    sam.at("reply").fill("A reply")
    sam.at("kind-note").click()
    expect(sam.at("note-field")).to_be_focused()
    expect(sam.at("note-field")).to_have_value("")
    sam.at("note-field").fill(CANARY)
    sam.page.reload()
    sam.wait_until_live()
    sam.open(31)
    expect(sam.at("reply")).to_have_value("A reply")
    sam.at("kind-note").click()
    expect(sam.at("note-field")).to_have_value(CANARY)
    sam.at("add-note").click()
    expect(sam.at("note-text")).to_have_text(CANARY)
    expect(sam.at("note-field")).to_have_value("")
    sam.at("kind-reply").click()
    expect(sam.at("reply")).to_have_value("A reply")
    assert world.texts(session) == ["Hello"]


def test_a_note_that_is_not_stored_is_kept_and_stored_once(world: World, sam: Staff, sue: Staff) -> None:
    session = world.write(31, "Hello", "Ravi")
    sue.open(31)
    sam.open(31)
    lost: list[Route] = []

    def lose_the_first_response(route: Route) -> None:
        if not lost:
            lost.append(route)
            route.fetch()
            route.abort()
        else:
            route.continue_()

    sam.page.route(NOTES, lose_the_first_response)
    sam.note(CANARY)
    expect(sue.at("note-text")).to_have_text(CANARY)
    expect(sam.at("note")).to_have_count(1)
    expect(sam.at("note")).to_have_attribute("data-staff-id", "s1")
    assert len(world.sql("select id from gre_chat_notes")) == 1
    assert world.texts(session) == ["Hello"]


def test_typing_a_note_is_not_shown_to_the_player(world: World, sam: Staff) -> None:
    session = world.write(29, "Hello", "Asha")
    sam.open(29)
    with PlayerSocket(world, 29) as socket:
        sam.at("kind-note").click()
        sam.at("note-field").press_sequentially(CANARY)
        sam.at("add-note").click()
        expect(sam.at("note-text")).to_have_text(CANARY)
        sam.at("kind-reply").click()
        world.reply(29, "One moment")
        socket.receive("chat_message")
        assert [frame for frame in socket.received if frame["type"] == "typing"] == []
        sam.at("reply").press_sequentially("Yes")
        assert socket.receive("typing")["sessionId"] == session


def test_colleagues_who_look_at_the_same_conversation_see_each_other(
    world: World, sam: Staff, sue: Staff
) -> None:
    for player, name in ((31, "Ravi"), (32, "Mei")):
        world.write(player, "Hello", name)
    sam.open(31)
    expect(sam.at("viewers")).to_have_count(0)
    sue.open(31)
    expect(sam.at("viewers")).to_contain_text("Sue")
    expect(sue.at("viewers")).to_contain_text("Sam")
    sue.open(32)
    expect(sue.at("viewers")).to_have_count(0)
    expect(sam.at("viewers")).to_have_count(0)


def test_the_desk_of_two_works_by_keyboard_alone(world: World, sam: Staff, sue: Staff, join: Join) -> None:
    world.write(31, "Hello", "Ravi")
    expect(sam.at("session-row")).to_have_count(1)
    expect(sue.at("session-row")).to_have_count(1)
    keys = sam.page.keyboard

    def tab_to(staff: Staff, name: str, key: str = "Tab") -> None:
        for _ in range(60):
            if staff.at(name).evaluate("element => element === document.activeElement"):
                return
            staff.page.keyboard.press(key)
        raise AssertionError(f"{name} is not reached by {key}")

    keys.press("/")
    tab_to(sam, "take-next")
    keys.press("Enter")
    expect(sam.at("conversation")).to_have_attribute("data-player-id", "31")
    expect(sam.at("release")).to_be_visible()
    keys.press("Escape")
    keys.press("n")
    expect(sam.at("note-field")).to_be_focused()
    keys.type(CANARY)
    keys.press("Enter")
    expect(sam.at("note-text")).to_have_text(CANARY)
    keys.press("Escape")
    keys.press("Enter")
    expect(sam.at("reply")).to_be_focused()
    keys.type("One moment")
    keys.press("Enter")
    expect(sam.message("One moment")).to_be_visible()
    tab_to(sam, "hand-over", "Shift+Tab")
    keys.press("Enter")
    expect(sam.at("hand-over-to")).to_be_focused()
    sam.at("hand-over-to").press("S")
    expect(sam.at("hand-over-to")).to_have_value("s2")
    tab_to(sam, "hand-over-note")
    keys.type("Yours")
    keys.press("Control+Enter")
    expect(sam.page.get_by_role("dialog")).to_have_count(0)
    expect(sam.row(31).get_by_test_id("assignee")).to_have_text("Sue")
    sue.page.keyboard.press("j")
    expect(sue.at("note-text")).to_have_text([CANARY, "Yours"])
