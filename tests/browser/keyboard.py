"""Staff who only press keys, and a player with all that the player gets."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.browser.sockets import PlayerSocket
from tests.browser.world import Person, Player, Staff, World
from tests.support.canary import CANARY
from tests.support.waiting import wait_until

_RECORD_POINTER = """
window.__pointerEvents = []
for (const kind of ['pointerdown', 'pointermove', 'mousedown', 'mousemove', 'touchstart', 'wheel', 'dragstart'])
  addEventListener(kind, (event) => window.__pointerEvents.push(event.type), { capture: true, passive: true })
"""
_DIRECTION = """(element) => {
  const { activeElement } = document
  if (activeElement === element) return 'here'
  return activeElement.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING ? 'Tab' : 'Shift+Tab'
}"""
"""The key that moves the focus towards an element. The body contains each element, so from there it is Tab."""
_HAS_OPTION = "(select, value) => [...select.options].some((option) => option.value === value)"
MAX_STEPS = 150
"""The bound of presses of one key on the way to an element or option."""


def record_pointer_events(person: Person) -> None:
    """Record the pointer events of the pages that this person opens from now on."""
    person.context.add_init_script(_RECORD_POINTER)


def pointer_events(page: Page) -> list[str]:
    """The pointer events that have reached a page."""
    found: list[str] = page.evaluate("window.__pointerEvents")
    return found


class KeyboardStaff:
    """A staff member who only presses keys. Locators serve to find the way and to look at the result."""

    def __init__(self, staff: Staff, who: str) -> None:
        self.staff = staff
        self.page = staff.page
        self.at = staff.at
        record_pointer_events(staff)
        self.page.goto(f"{staff.world.console}/console")
        self.write(self.page.get_by_label("Access token"), staff.world.token(who))
        self.push(self.page.get_by_role("button", name="Sign in", exact=True))
        staff.wait_until_live()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def tab_to(self, target: Locator) -> None:
        """Press Tab or Shift+Tab until the target has the focus."""
        expect(target).to_be_visible()
        for _ in range(MAX_STEPS):
            direction = target.evaluate(_DIRECTION)
            if direction == "here":
                return
            self.press(direction)
        raise AssertionError(f"the keyboard does not reach {target}")

    def push(self, button: Locator) -> None:
        """Go to a button or link and press Enter."""
        self.tab_to(button)
        expect(button).to_be_enabled()
        self.press("Enter")

    def write(self, field: Locator, text: str) -> None:
        """Go to a field and replace its text."""
        self.tab_to(field)
        self.press("Control+a", "Backspace")
        self.type(text)
        expect(field).to_have_value(text)

    def choose(self, field: Locator, value: str) -> None:
        """Go to a select and move to the option with this value, once it has that."""
        wait_until(lambda: field.evaluate(_HAS_OPTION, value), what=f"the option {value}")
        self.tab_to(field)
        self.press("Home")
        for _ in range(MAX_STEPS):
            if field.input_value() == value:
                return
            self.press("ArrowDown")
        raise AssertionError(f"{field} has no option {value}")

    def focus_conversation(self, field: str) -> None:
        """Leave the focused element, if there is one, then press the key of the reply or the note."""
        if self.page.evaluate("document.activeElement !== document.body"):
            self.press("Escape")
        self.press("n" if field == "note-field" else "Enter")
        expect(self.at(field)).to_be_focused()

    def open_settings(self) -> None:
        self.push(self.at("nav-settings"))
        for section in ("template", "assignment", "hours", "auto-reply"):
            expect(self.at(f"{section}-settings")).to_have_attribute("data-loaded", "true")

    def return_to_conversation(self) -> None:
        """Go from the settings to the only conversation in the list."""
        self.push(self.at("nav-conversations"))
        expect(self.at("session-row")).to_be_visible()
        self.press("Escape", "j")
        expect(self.at("messages")).to_have_attribute("aria-busy", "false")


class ObservedPlayer:
    """A player at the player's page, and a socket of the same player."""

    def __init__(self, world: World, player: Player, socket: PlayerSocket) -> None:
        self.world = world
        self.page = player
        self.stored: list[tuple[str, str]] = []
        """Sender and text of each message that the conversation must consist of."""
        self.use(socket)

    def use(self, socket: PlayerSocket) -> None:
        """Observe this socket from now on."""
        self.socket = socket
        self._before = len(self.stored)

    def write(self, text: str) -> None:
        self.page.type(text)
        self.expect_message("player", text)

    def expect_message(self, sender: str, text: str) -> None:
        """Expect one more message, and no other."""
        self.stored.append((sender, text))
        self.expect_nothing_more()

    def expect_nothing_more(self) -> None:
        """Expect the page, the database and the socket to have the expected messages, in order, and no note."""
        self.expect_nothing_more_stored()
        expected = self.stored[self._before :]
        wait_until(lambda: self._received() == expected, what=f"{expected} on the socket")
        assert CANARY not in json.dumps(self.socket.received)

    def expect_nothing_more_stored(self) -> None:
        """Do the same without the socket."""
        shown = self.page.at("try-message")
        expect(shown.locator("p")).to_have_text([text for _, text in self.stored])
        expect(self.page.page.locator("[data-pending]")).to_have_count(0)
        rows = self.world.sql("select sender, message from gre_chat_messages order by seq")
        assert [(row["sender"], row["message"]) for row in rows] == self.stored
        assert CANARY not in self.page.page.content()

    def frames(self, kind: str) -> list[dict[str, Any]]:
        """All frames of a type that were sent before this call."""
        self.socket.send(type="ping")
        self.socket.receive("pong")
        return [frame for frame in self.socket.received if frame["type"] == kind]

    def _received(self) -> list[tuple[str, str]]:
        messages = [frame["message"] for frame in self.frames("chat_message")]
        return [(message["sender"], message["message"]) for message in messages]
