"""A page of a house with `<gre-chat>`, under a Content-Security-Policy without exceptions, for the tests of the element."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Route, expect

from tests.browser.world import Person

STRICT = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws:"
"""Not even pictures."""
FAKE = (Path(__file__).parent / "element_chat.js").read_text()
_PAGE = """<!doctype html>
<html lang="{lang}" dir="{dir}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>A house</title>
<link rel="stylesheet" href="/house/page.css">
<script src="{daemon}/widget.js" async></script>
<script src="/house/page.js" defer></script>
</head>
<body>
<main>
<h1>A house</h1>
<button type="button" id="before">Before the chat</button>
</main>
<gre-chat {attributes}></gre-chat>
</body>
</html>
"""
_CSS = ":root { color-scheme: light dark; } body { font-family: sans-serif; background: Canvas; color: CanvasText; }"
_TOKEN = """
const chat = document.querySelector('gre-chat')
window.events = []
for (const name of ['gre-open', 'gre-close', 'gre-unread', 'gre-sign-in']) chat.addEventListener(name, (event) => window.events.push([name, event.detail ?? null]))
"""
WITH_TOKEN = "chat.getToken = async (refused) => (await fetch(`/house/token?refused=${refused}`)).text()\n"
WITH_FAKE = "chat.chat = window.fake.chat\n"


class Visitor(Person):
    """A player on a page of the house."""

    def visit(
        self, script: str = WITH_TOKEN, *, policy: str = STRICT, lang: str = "en", direction: str = "ltr",
        attributes: str = "", player: int = 29, origin: str = "",
    ) -> Visitor:  # fmt: skip
        """Open the page, by default at the daemon's origin.

        `script` runs with the element as `chat`; with WITH_FAKE it gets the tests' own chat.
        """
        daemon = self.world.console if origin else ""
        files = {
            "": ("text/html", _PAGE.format(lang=lang, dir=direction, attributes=attributes, daemon=daemon)),
            "page.css": ("text/css", _CSS),
            "page.js": ("text/javascript", FAKE + _TOKEN + script),
            "token": ("text/plain", self.world.token(f"player:{player}")),
        }

        def serve(route: Route) -> None:
            name = route.request.url.partition("/house/")[2].partition("?")[0]
            kind, body = files[name]
            route.fulfill(
                body=body, content_type=f"{kind}; charset=utf-8", headers={"Content-Security-Policy": policy}
            )

        self.page.route("**/house/*", serve)
        self.page.goto(f"{origin or self.world.console}/house/")
        expect(self.launcher).to_be_visible()
        return self

    @property
    def element(self) -> Locator:
        return self.page.locator("gre-chat")

    @property
    def launcher(self) -> Locator:
        return self.element.locator("[part=launcher]")

    @property
    def panel(self) -> Locator:
        return self.element.locator("[part=panel]")

    @property
    def field(self) -> Locator:
        return self.panel.get_by_role("textbox", name="Message", exact=True)

    @property
    def log(self) -> Locator:
        return self.panel.get_by_role("log")

    def open(self) -> Visitor:
        """Open the panel with the button."""
        self.launcher.click()
        expect(self.panel).to_be_visible()
        return self

    def texts(self) -> list[str]:
        """The texts of the messages, from the top."""
        return self.panel.locator("[part=bubble]").all_inner_texts()

    def set(self, **changes: Any) -> None:
        """Change the fake chat's snapshots."""
        self.page.evaluate("(changes) => window.fake.set(changes)", changes)

    def converse(self, **changes: Any) -> None:
        """Change the fake chat's conversation."""
        self.page.evaluate("(changes) => window.fake.conversation(changes)", changes)

    def calls(self, name: str) -> list[list[Any]]:
        """The arguments of each call of this action of the fake chat."""
        found: list[list[Any]] = self.page.evaluate("(name) => window.fake.of(name)", name)
        return found

    def events(self) -> list[str]:
        """The names of the element's events so far."""
        return [name for name, _ in self.page.evaluate("window.events")]


SESSION = "0b7e8f52-0000-4000-8000-000000000001"


def message(seq: int, text: str, sender: str = "player", **more: Any) -> dict[str, Any]:
    """One message of a conversation of 22 November, a minute after the one before it."""
    at = f"2026-11-22T17:{seq:02}:00.000Z"
    name = {"player": "Asha", "staff": "Sam"}.get(sender)
    return {
        "id": f"m{seq}", "seq": seq, "session_id": SESSION, "player_id": 29, "player_name": "Asha", "message": text, "sender": sender,
        "sender_name": name, "status": "sent", "timestamp": at, "created_at": at, **more,
    }  # fmt: skip


def unsent(name: str, text: str, state: str = "waiting", **more: Any) -> dict[str, Any]:
    """One text that is not stored."""
    return {
        "id": name,
        "text": text,
        "files": [],
        "createdAt": "2026-11-22T18:00:00.000Z",
        "state": state,
        **more,
    }


def file(name: str, kind: str = "file", state: str = "ready", **more: Any) -> dict[str, Any]:
    """One file of a message."""
    return {
        "id": name, "kind": kind, "type": "image/png" if kind == "image" else "application/pdf", "name": name, "alt": None, "bytes": 123456,
        "width": 300 if kind == "image" else None, "height": 200 if kind == "image" else None, "preview": None, "place": 0, "state": state,
        **more,
    }  # fmt: skip


TALK = [
    message(1, "Is table 4 open? See https://example.com/tables."),
    message(2, "It is free from eight.", "staff"),
    message(3, "Shall I keep it?", "staff"),
    message(4, "We are closed on Mondays.", "system", auto=True),
    message(5, "Yes, please."),
]
CLOSED = {
    "id": SESSION, "player_id": 29, "player_name": "Asha", "status": "closed", "assigned_staff_id": None, "last_seq": 5, "rev": 9,
    "unread_by_staff": 0, "unread_by_player": 0, "last_message": "Yes, please.", "last_message_at": "2026-11-22T17:05:00.000Z",
    "created_at": "2026-11-22T17:00:00.000Z", "closed_at": "2026-11-22T18:00:00.000Z",
}  # fmt: skip
LIVE = {
    "connection": "live",
    "me": {"role": "player", "playerId": 29, "displayName": "Asha", "chatEnabled": True},
}
