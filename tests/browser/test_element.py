"""`<gre-chat>` in Chromium, with a chat whose contents the test sets: the states, the keyboard, the focus, phones, words."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.element import (
    CLOSED,
    LIVE,
    SESSION,
    STRICT,
    TALK,
    WITH_FAKE,
    Visitor,
    file,
    message,
    unsent,
)
from tests.browser.files import small_photo
from tests.browser.test_accessible import assert_accessible
from tests.browser.world import PHONE, WIDE

FOCUSED = "() => { let at = document.activeElement; while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement; return at?.getAttribute('part') ?? at?.id ?? '' }"
ARABIC = "chat.words = { title: 'محادثة', send: 'إرسال', message: 'رسالة', open: 'افتح المحادثة', typing: 'يكتب …' }\n"


def focused(asha: Visitor) -> str:
    """The part or the id of the element that has the focus, also inside the chat."""
    found: str = asha.page.evaluate(FOCUSED)
    return found


@pytest.fixture
def asha(join: Join) -> Visitor:
    """Player 29 on the house's page, with the fake chat."""
    return join(Visitor).visit(WITH_FAKE)


@pytest.mark.parametrize("width", ["wide", "phone"])
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_every_state_is_accessible(join: Join, colours: str, width: str, direction: str) -> None:
    viewport = WIDE if width == "wide" else PHONE
    asha: Visitor = join(Visitor, color_scheme=colours, viewport=viewport)
    asha.visit(WITH_FAKE, direction=direction, attributes="unread")
    assert_accessible(asha.page, "closed")
    asha.set(unread=3)
    expect(asha.launcher).to_have_accessible_name(re.compile("3"))
    asha.open()
    assert_accessible(asha.page, "open and empty")
    asha.converse(state="loading")
    assert_accessible(asha.page, "loading")
    asha.converse(
        messages=[*TALK, message(6, "📎 File", "staff", attachments=[file("plan.pdf"), file("a.zip", state="stored")])],
        unsent=[unsent("u1", "Sending", "sending"), unsent("u2", "No", "refused", error={"message": "too long"})],
        state="complete", hasOlder=True, readUpTo={SESSION: 1},
    )  # fmt: skip
    asha.set(
        typing=[{"by": "staff"}], staffOnline=[{"staffId": "s1", "displayName": "Sam", "status": "online"}]
    )
    expect(asha.panel.locator("[part~=message-unsent]")).to_have_count(2)
    assert_accessible(asha.page, "messages")
    opens = "2026-11-30T08:00:00.000Z"
    for name, desk in (
        ("desk open", {"open": True, "opensAt": None, "closesAt": opens}),
        ("desk closed", {"open": False, "opensAt": opens, "closesAt": None}),
    ):
        asha.set(desk={**desk, "timezone": "Europe/Malta"})
        expect(asha.panel.locator("[part=hours]")).to_have_attribute("data-open", str(desk["open"]).lower())
        assert_accessible(asha.page, name)
    asha.set(
        staffOnline=[
            {"staffId": f"s{n}", "displayName": "A long name " * 6, "status": "online"} for n in range(9)
        ]
    )
    asha.converse(
        messages=[
            message(n, f"Line {n} " + "and more " * 40, "staff" if n % 2 else "player") for n in range(1, 60)
        ],
        unsent=[],
    )
    expect(asha.panel.get_by_text("Line 59 ")).to_be_in_viewport()
    asha.field.fill("A long draft\n" * 40)
    asha.panel.locator("input[type=file]").set_input_files(
        [{"name": f"{n} {'long ' * 20}.png", "mimeType": "image/png", "buffer": b"x"} for n in range(5)]
    )
    expect(asha.panel.locator("[part=tray] li")).to_have_count(5)
    expect(asha.panel.get_by_role("button", name="Close chat")).to_be_in_viewport(ratio=1)
    assert_accessible(asha.page, "full")
    for _ in range(5):
        asha.panel.locator("[part=tray] button[aria-label^=Remove]").first.click()
    asha.field.fill("")
    asha.panel.locator("input[type=file]").set_input_files(
        [
            {"name": "a.png", "mimeType": "image/png", "buffer": b"x"},
            {"name": "b.txt", "mimeType": "text/plain", "buffer": b"x"},
        ]
    )
    asha.page.evaluate("window.fake.upload.to('failed', { message: 'no answer' })")
    expect(asha.panel.locator("[part=tray] li")).to_have_count(2)
    assert_accessible(asha.page, "files to send")
    asha.converse(unsent=[])
    asha.set(sessions=[CLOSED], status={**LIVE, "me": {**LIVE["me"], "ratingEnabled": True}})
    asha.panel.get_by_role("radio").nth(2).check(force=True)
    assert_accessible(asha.page, "rating")
    for status in (
        {"connection": "offline"},
        {"connection": "stopped", "reason": "signed_out"},
        {"connection": "stopped", "reason": "chat_disabled"},
        {"connection": "stopped", "reason": "defect", "error": {"message": "a defect"}},
    ):
        asha.set(status=status)
        expect(asha.panel.locator(f"[data-state={status['connection']}] [role=status]")).not_to_be_empty()
        assert_accessible(asha.page, str(status))
    asha.converse(state="failed", error={"message": "no answer"})
    assert_accessible(asha.page, "failed")


def test_by_keyboard_the_focus_goes_in_and_comes_back(asha: Visitor) -> None:
    asha.converse(messages=TALK)
    asha.page.locator("#before").focus()
    asha.page.keyboard.press("Tab")
    assert focused(asha) == "launcher"
    asha.page.keyboard.press("Enter")
    expect(asha.field).to_be_focused()
    expect(asha.launcher).to_have_attribute("aria-expanded", "true")
    asha.page.keyboard.type("Hello")
    asha.page.keyboard.press("Shift+Enter")
    asha.page.keyboard.type("there")
    asha.page.keyboard.press("Enter")
    assert asha.calls("send") == [["Hello\nthere", {"files": []}]]
    expect(asha.field).to_have_value("")
    expect(asha.field).to_be_focused()
    # The log can be read by keyboard, and everything else is reached.
    reached = []
    for _ in range(6):
        asha.page.keyboard.press("Shift+Tab")
        reached.append(focused(asha))
    assert {"attach", "log", "close"} <= set(reached)
    asha.field.focus()
    asha.page.keyboard.press("Escape")
    expect(asha.panel).to_be_hidden()
    assert focused(asha) == "launcher"
    expect(asha.launcher).to_have_attribute("aria-expanded", "false")
    assert asha.events() == ["gre-open", "gre-close"]
    # What was being written is there again.
    asha.open()
    asha.field.fill("A draft")
    asha.panel.get_by_role("button", name="Close chat").click()
    assert focused(asha) == "launcher"
    asha.open()
    expect(asha.field).to_have_value("A draft")


def test_the_page_beside_an_open_panel_stays_usable(asha: Visitor) -> None:
    asha.open()
    asha.page.locator("#before").click()
    assert focused(asha) == "before"
    asha.element.evaluate("chat => { chat.open = false }")
    expect(asha.panel).to_be_hidden()
    assert focused(asha) == "before"


@pytest.fixture
def phone(join: Join) -> Visitor:
    """Player 29 on a phone."""
    asha: Visitor = join(Visitor, viewport=PHONE, has_touch=True, is_mobile=True)
    return asha.visit(WITH_FAKE)


def test_on_a_phone_it_fills_the_screen_and_nothing_behind_it_has_the_focus(phone: Visitor) -> None:
    phone.converse(messages=TALK)
    phone.launcher.tap()
    expect(phone.panel).to_be_visible()
    box = phone.panel.bounding_box()
    assert box == {"x": 0, "y": 0, "width": PHONE["width"], "height": PHONE["height"]}
    assert focused(phone) == "title"  # a field would bring the keyboard up
    for _ in range(12):
        phone.page.keyboard.press("Tab")
        assert focused(phone) not in {"before", "launcher"}
    field = phone.field.evaluate("field => parseFloat(getComputedStyle(field).fontSize)")
    assert field >= 16, "iOS zooms into smaller fields"
    for button in phone.panel.get_by_role("button").all():
        size = button.bounding_box()
        assert size
        assert min(size["width"], size["height"]) >= 24
    # Enter begins a line.
    phone.field.fill("Hello")
    phone.field.press("Enter")
    assert phone.calls("send") == []
    phone.panel.get_by_role("button", name="Send", exact=True).tap()
    assert phone.calls("send") == [["Hello", {"files": []}]]
    phone.page.keyboard.press("Escape")
    expect(phone.panel).to_be_hidden()
    assert focused(phone) == "launcher"


def test_a_panel_follows_the_width_of_the_window(asha: Visitor) -> None:
    asha.open()
    asha.field.fill("A draft")
    asha.page.set_viewport_size(PHONE)
    expect(asha.panel).to_have_js_property("offsetWidth", PHONE["width"])
    expect(asha.field).to_be_focused()
    expect(asha.field).to_have_value("A draft")
    asha.wait_until(lambda: asha.panel.evaluate("panel => panel.matches(':modal')"))
    asha.page.set_viewport_size(WIDE)
    expect(asha.panel).to_have_js_property("offsetWidth", 380)
    asha.wait_until(lambda: not asha.panel.evaluate("panel => panel.matches(':modal')"))


def test_new_messages_are_announced_and_the_reader_is_not_moved(asha: Visitor) -> None:
    asha.open()
    asha.converse(messages=[message(n, f"Line {n}") for n in range(1, 60)])
    expect(asha.log).to_have_attribute("role", "log")
    expect(asha.panel.get_by_text("Line 59", exact=True)).to_be_in_viewport()
    asha.log.evaluate("log => { log.scrollTop = 200 }")
    expect(asha.panel.get_by_role("button", name="To the newest message")).to_be_visible()
    asha.page.evaluate("""() => {
      const { messages } = window.fake.chat.messages()
      window.fake.conversation({ messages: [...messages, { ...messages.at(-1), id: 'new', seq: 60, message: 'New', sender: 'staff' }] })
    }""")
    expect(asha.panel.get_by_text("New", exact=True)).to_be_attached()
    assert asha.log.evaluate("log => log.scrollTop") == 200
    asha.panel.get_by_role("button", name="To the newest message").click()
    expect(asha.panel.get_by_text("New", exact=True)).to_be_in_viewport()
    # Older messages come in above, and what is read stays where it is.
    asha.log.evaluate("log => { log.scrollTop = 200 }")
    expect(asha.panel.get_by_role("button", name="To the newest message")).to_be_visible()
    line = asha.panel.get_by_text("Line 6", exact=True)
    before = line.bounding_box()
    asha.page.evaluate("""() => {
      const { messages } = window.fake.chat.messages()
      const older = [1, 2, 3, 4].map((n) => ({ ...messages[0], id: `o${n}`, seq: -n, message: `Older ${n}` }))
      window.fake.conversation({ messages: [...older, ...messages] })
    }""")
    expect(asha.panel.get_by_text("Older 4", exact=True)).to_be_attached()
    after = line.bounding_box()
    assert before
    assert after
    assert after["y"] == pytest.approx(before["y"], abs=1.5)


def test_what_is_seen_is_marked_as_read_and_nothing_else(join: Join) -> None:
    asha: Visitor = join(Visitor).visit(WITH_FAKE, attributes="unread")
    asha.converse(messages=TALK)
    asha.set(unread=3)
    expect(asha.element.locator("[part=badge]")).to_have_text("3")
    expect(asha.launcher).to_have_accessible_name("Open chat, 3 new messages")
    assert asha.calls("markRead") == []
    asha.open()
    asha.wait_until(lambda: asha.calls("markRead"))
    expect(asha.element.locator("[part=badge]")).to_be_hidden()
    expect(asha.launcher).to_have_accessible_name("Open chat")
    asha.page.keyboard.press("Escape")
    read = len(asha.calls("markRead"))
    asha.set(unread=1)
    expect(asha.element.locator("[part=badge]")).to_have_text("1")
    assert len(asha.calls("markRead")) == read


def test_texts_of_people_are_text(asha: Visitor) -> None:
    evil = "<img src=x onerror=alert(1)> javascript:alert(1) {{title}}"
    asha.converse(messages=[message(1, evil, "staff", sender_name="<b>Sam</b>")])
    asha.open()
    assert asha.texts() == [evil]
    expect(asha.panel.get_by_text("<b>Sam</b>", exact=True)).to_be_visible()
    assert asha.panel.locator("img, b, [part=bubble] a").count() == 0


def test_links_open_elsewhere_and_tell_nothing(asha: Visitor) -> None:
    asha.converse(messages=TALK)
    asha.open()
    link = asha.panel.get_by_role("link")
    expect(link).to_have_attribute("href", "https://example.com/tables")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(link).to_have_attribute("target", "_blank")


def test_a_text_that_is_not_sent_says_so_and_can_be_sent_again_or_changed(asha: Visitor) -> None:
    asha.converse(
        unsent=[
            unsent("u1", "One"),
            unsent("u2", "Two", "sending"),
            unsent("u3", "Three", "refused", error={"message": "chat is closed"}),
        ]
    )
    asha.open()
    rows = asha.panel.locator("[part~=message-unsent]")
    expect(rows.nth(0)).to_contain_text("Not sent yet")
    expect(rows.nth(1)).to_contain_text("Sending …")
    expect(rows.nth(2).get_by_role("alert")).to_have_text("Not sent: chat is closed")
    rows.nth(2).get_by_role("button", name="Send again").click()
    assert asha.calls("retry") == [["u3"]]
    asha.field.fill("Four")
    rows.nth(2).get_by_role("button", name="Edit").click()
    expect(rows).to_have_count(2)
    expect(asha.field).to_have_value("Three\nFour")


def test_files_are_chosen_described_and_sent_when_they_are_stored(asha: Visitor) -> None:
    asha.open()
    asha.panel.locator("input[type=file]").set_input_files(
        [{"name": "a.png", "mimeType": "image/png", "buffer": b"x"}]
    )
    expect(asha.panel.get_by_role("progressbar", name="Uploading a.png")).to_have_js_property("value", 0.4)
    asha.panel.get_by_role("textbox", name="Describe a.png for people who cannot see it").fill("My table")
    asha.field.fill("Look")
    assert asha.calls("describe") == [["My table"]]
    assert len(asha.calls("upload")) == 1
    asha.field.press("Enter")
    expect(asha.panel.get_by_text("The files are still being uploaded.")).to_be_visible()
    assert asha.calls("send") == []
    expect(asha.field).to_have_value("Look")
    asha.page.evaluate("window.fake.upload.to('failed', { message: 'no answer' })")
    expect(
        asha.panel.get_by_role("alert").filter(has_text="a.png was not uploaded: no answer")
    ).to_be_visible()
    asha.panel.get_by_role("button", name="Upload a.png again").click()
    assert asha.calls("retryUpload") == [[]]
    asha.page.evaluate("window.fake.upload.to('stored')")
    asha.field.press("Enter")
    asha.wait_until(lambda: asha.calls("send") == [["Look", {"files": ["f1"]}]])
    expect(asha.panel.locator("[part=tray]")).to_have_count(0)


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_files_are_dropped_and_pasted(asha: Visitor, way: str) -> None:
    asha.open()
    asha.field.evaluate(
        """(field, way) => {
          const data = new DataTransfer()
          data.items.add(new File(['x'], 'a.txt'))
          const options = { bubbles: true, composed: true, cancelable: true }
          field.dispatchEvent(way === 'drop' ? new DragEvent('drop', { ...options, dataTransfer: data }) : new ClipboardEvent('paste', { ...options, clipboardData: data }))
        }""",
        way,
    )
    expect(asha.panel.locator("[part=tray] li")).to_contain_text("a.txt")
    asha.panel.get_by_role("button", name="Remove a.txt").click()
    assert asha.calls("cancelUpload") == [[]]
    expect(asha.panel.locator("[part=tray]")).to_have_count(0)


def test_too_many_files_are_refused_in_words(asha: Visitor) -> None:
    asha.open()
    asha.panel.locator("input[type=file]").set_input_files(
        [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x"} for n in range(6)]
    )
    expect(asha.panel.get_by_role("alert").filter(has_text="A message can have 5 files.")).to_be_visible()
    expect(asha.panel.locator("[part=tray] li")).to_have_count(5)


@pytest.mark.parametrize(
    ("status", "text", "button"),
    [
        ({"connection": "reconnecting"}, "The connection is lost.", None),
        ({"connection": "offline"}, "You are offline.", None),
        ({"connection": "polling"}, "", None),
        ({"connection": "stopped", "reason": "signed_out"}, "Please sign in to chat.", "Sign in"),
        ({"connection": "stopped", "reason": "token_rejected"}, "Your sign-in has expired.", "Sign in"),
        ({"connection": "stopped", "reason": "chat_disabled"}, "The chat is not available", "Try again"),
        ({"connection": "stopped", "reason": "defect"}, "The chat has stopped.", "Try again"),
    ],
)
def test_the_state_of_the_connection_in_words(
    asha: Visitor, status: dict[str, str], text: str, button: str | None
) -> None:
    asha.open()
    asha.converse(state="loading")
    asha.set(status=status)
    notice = asha.panel.locator("[part=notice]")
    expect(notice).to_have_attribute("data-state", status["connection"])
    expect(notice.get_by_role("status")).to_contain_text(text)
    loading = status["connection"] != "stopped"
    expect(asha.panel.get_by_text("Loading messages")).to_have_count(int(loading))
    expect(asha.log).to_have_attribute("aria-busy", str(loading).lower())
    if button is None:
        expect(notice.get_by_role("button")).to_have_count(0)
        expect(asha.field).to_be_visible()
        return
    notice.get_by_role("button", name=button).click()
    assert asha.calls("connect") == [[]]
    assert ("gre-sign-in" in asha.events()) == (button == "Sign in")


@pytest.mark.parametrize("colours", ["light"])
def test_a_closed_conversation_is_rated_by_keyboard(join: Join, colours: str) -> None:
    asha: Visitor = join(Visitor, color_scheme=colours).visit(WITH_FAKE)
    asha.converse(messages=TALK)
    asha.set(sessions=[CLOSED], status={**LIVE, "me": {**LIVE["me"], "ratingEnabled": True}})
    asha.open()
    form = asha.panel.locator("[part=rating]")
    expect(form.get_by_role("group", name="How was the conversation?")).to_be_visible()
    form.get_by_role("radio").first.focus()
    for key in ("Space", "ArrowRight", "ArrowRight", "ArrowRight"):
        asha.page.keyboard.press(key)
    expect(form.get_by_role("radio", name="4 of 5 stars")).to_be_checked()
    asha.page.keyboard.press("Tab")
    asha.page.keyboard.type("Quick")
    asha.page.evaluate("window.fake.rateError = 'unavailable'")
    form.get_by_role("button", name="Send rating").press("Enter")
    expect(form.get_by_role("alert")).to_have_text("Your rating was not sent. Try again.")
    asha.page.evaluate("window.fake.rateError = ''")
    form.get_by_role("button", name="Send rating").press("Enter")
    expect(asha.panel.locator("[part=thanks]")).to_be_focused()
    assert asha.calls("rate") == [[SESSION, 4, "Quick"], [SESSION, 4, "Quick"]]
    expect(form).to_have_count(0)


def test_words_languages_and_direction(join: Join) -> None:
    german: Visitor = join(Visitor).visit(WITH_FAKE, lang="de")
    german.converse(messages=TALK)
    expect(german.launcher).to_have_accessible_name("Chat öffnen")
    german.launcher.click()
    expect(german.panel.get_by_role("textbox", name="Nachricht", exact=True)).to_be_focused()
    expect(german.panel.get_by_text("Sonntag, 22. November")).to_be_visible()
    german.element.evaluate("chat => { chat.words = { title: 'Fragen?', hours: 'Täglich 9 bis 18 Uhr.' } }")
    expect(german.panel.get_by_role("heading")).to_have_text("Fragen?")
    expect(german.panel.locator("[part=presence]")).to_have_text("Täglich 9 bis 18 Uhr.")
    german.element.evaluate("chat => { chat.lang = 'en' }")
    expect(german.field).to_be_visible()
    arabic: Visitor = join(Visitor).visit(WITH_FAKE + ARABIC, lang="ar", direction="rtl")
    arabic.converse(messages=TALK)
    expect(arabic.launcher).to_have_accessible_name("افتح المحادثة")
    box = arabic.launcher.bounding_box()
    assert box
    assert box["x"] < 100, "the end of a line is at the left"
    arabic.launcher.click()
    mine, theirs = (
        arabic.panel.locator(f"[part~=message-{side}]").first.bounding_box() for side in ("mine", "theirs")
    )
    assert mine
    assert theirs
    assert mine["x"] < theirs["x"]


def test_a_page_of_another_origin_loads_it(join: Join) -> None:
    asha: Visitor = join(Visitor)
    policy = f"default-src 'none'; script-src 'self' {asha.world.console}; style-src 'self'"
    asha.visit(WITH_FAKE, policy=policy, origin="http://house.example")
    asha.converse(messages=TALK)
    asha.open()
    expect(asha.field).to_be_focused()
    assert len(asha.texts()) == len(TALK)


def test_who_is_there(asha: Visitor) -> None:
    asha.open()
    presence = asha.panel.locator("[part=presence]")
    expect(presence).to_be_empty()
    asha.set(
        staffOnline=[
            {"staffId": "s1", "displayName": "Sam", "status": "online"},
            {"staffId": "s3", "displayName": "Tom", "status": "away"},
        ]
    )
    expect(presence).to_have_text("Sam is here.")
    asha.set(
        staffOnline=[
            {"staffId": f"s{n}", "displayName": name, "status": "online"}
            for n, name in enumerate(("Sam", "Sue", "Ann"))
        ]
    )
    expect(presence).to_have_text("Sam and 2 more are here.")


@pytest.mark.parametrize("lang", ["en-GB", "de"])
def test_whether_the_desk_is_open_in_words(join: Join, lang: str) -> None:
    asha: Visitor = join(Visitor, timezone_id="Europe/Athens", locale="en-GB")
    asha.page.clock.set_fixed_time("2026-11-29T21:00:00Z")  # still Sunday in Malta; in Athens, too
    asha.visit(WITH_FAKE, lang=lang)
    asha.launcher.click()
    hours = asha.panel.locator("[part=hours]")
    expect(hours).to_be_empty()
    closed = {"open": False, "opensAt": None, "closesAt": None, "timezone": "Europe/Malta"}
    opened = {**closed, "open": True}
    for desk, english, german in (
        ({**closed, "opensAt": "2026-11-30T08:00:00.000Z"}, "Closed. We open tomorrow at 09:00 CET.", "Geschlossen. Wir öffnen morgen um 09:00 MEZ."),
        ({**closed, "opensAt": "2026-12-02T08:00:00.000Z"}, "Closed. We open Wednesday at 09:00 CET.", "Geschlossen. Wir öffnen Mittwoch um 09:00 MEZ."),
        (closed, "Closed at the moment.", "Zurzeit geschlossen."),
        ({**opened, "closesAt": "2026-11-30T01:00:00.000Z"}, "Open until 02:00 CET.", "Geöffnet bis 02:00 MEZ."),
        ({**opened, "closesAt": "2026-12-05T01:00:00.000Z"}, "Open now.", "Jetzt geöffnet."),
    ):  # fmt: skip
        asha.set(desk=desk)
        # Browsers name the zone by its letters or by its difference.
        expect(hours).to_have_text(
            re.compile(re.sub("CET|MEZ", r"(CET|MEZ|GMT.1)", german if lang == "de" else english))
        )
    asha.set(desk={**opened, "timezone": None})
    expect(hours).to_be_empty()
    asha.set(desk=closed, staffOnline=[{"staffId": "s1", "displayName": "Sam", "status": "online"}])
    asha.element.evaluate(
        "chat => { chat.words = { closedNow: 'Back soon.', online: '', hours: 'Call us.' } }"
    )
    expect(asha.panel.locator("[part=presence]")).to_have_text("Back soon. Call us.")


def test_a_page_styles_it_with_properties_and_parts(join: Join) -> None:
    asha: Visitor = join(Visitor).visit(
        WITH_FAKE
        + "document.styleSheets[0].insertRule('gre-chat { --gre-accent: rgb(1, 80, 2); --gre-offset: 40px }')\n"
        "document.styleSheets[0].insertRule('gre-chat::part(bubble) { border-radius: 3px }')\n"
    )
    asha.converse(messages=TALK)
    expect(asha.launcher).to_have_css("background-color", "rgb(1, 80, 2)")
    asha.open()
    expect(asha.panel.locator("[part=header]")).to_have_css("background-color", "rgb(1, 80, 2)")
    expect(asha.panel.locator("[part=bubble]").first).to_have_css("border-top-left-radius", "3px")


def test_without_the_wish_for_motion_nothing_moves(asha: Visitor) -> None:
    """The tests' browser asks for reduced motion."""
    asha.open()
    running = asha.panel.evaluate("panel => panel.getAnimations({ subtree: true }).length")
    assert running == 0
    asha.page.keyboard.press("Escape")
    asha.page.emulate_media(reduced_motion="no-preference")
    assert asha.panel.evaluate("panel => { panel.show(); return panel.getAnimations().length }") == 1


def test_pictures_keep_their_place_open_large_and_close_with_escape_alone(join: Join) -> None:
    asha: Visitor = join(Visitor)
    held: list[Route] = []
    asha.page.route("https://files.example/**", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks its handlers
    asha.visit(WITH_FAKE, policy=f"{STRICT}; img-src https://files.example")
    picture = file("table.jpg", "image", id="p1", alt="My table", width=600, height=400)
    asha.converse(messages=[message(1, "📷 Photo", attachments=[picture])])
    asha.open()
    assert asha.texts() == [], "the text for pages without files is not shown"
    button = asha.panel.get_by_role("button", name="Open picture: My table")
    asha.wait_until(lambda: held, what="the request for the thumbnail")
    size = "button => [button.clientWidth, button.clientHeight]"
    before = button.evaluate(size)
    assert before == [240, 160]
    asha.page.unroute("https://files.example/**")
    asha.page.route(
        "https://files.example/**",
        lambda route: route.fulfill(body=small_photo(600, 400), content_type="image/jpeg"),
    )
    for route in held:
        route.fulfill(body=small_photo(240, 160), content_type="image/jpeg")
    expect(button.locator("img")).to_have_js_property("naturalWidth", 240)
    assert button.evaluate(size) == before
    button.press("Enter")
    viewer = asha.panel.locator("[part=viewer]")
    expect(viewer.get_by_role("img", name="My table")).to_be_visible()
    assert_accessible(asha.page, "picture")
    asha.page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    expect(asha.panel).to_be_visible()
    expect(button).to_be_focused()
    assert asha.calls("url") == [["p1", "thumb"], ["p1", "view"]]


def test_states_of_files_in_words(asha: Visitor) -> None:
    files = [
        file("plan.pdf"),
        file("wait.pdf", state="stored"),
        file("virus.pdf", state="refused"),
        file("old.pdf", state="gone"),
    ]
    asha.converse(messages=[message(1, "See", "staff", attachments=files)])
    asha.open()
    rows = asha.panel.locator(".files > li")
    expect(rows.nth(0).get_by_role("button", name="Download plan.pdf")).to_be_visible()
    for n, text in (
        (1, "Being checked …"),
        (2, "This file could not be accepted."),
        (3, "This file was deleted."),
    ):
        expect(rows.nth(n)).to_contain_text(text)
        expect(rows.nth(n).get_by_role("button")).to_have_count(0)
