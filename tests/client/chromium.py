"""Pages of the suite in Chromium: a scene is a browser context, and its pages are tabs that share its storage.

The samples are used as a person uses them, without commands of their own: what they show is read from the document, and
the database says which message a text is, since no two texts of the suite are equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    async_playwright,
    expect,
)

from tests.browser.world import FLAGS, chromium
from tests.client.background import Background
from tests.client.sites import PortalServer, Site
from tests.client.world import WITHIN, Running, Scene, Subject
from tests.portals.harness import wait_for
from tests.support.programs import missing

_WATCH = (Path(__file__).parent / "watch.js").read_text()
_NETWORK = ("Failed to load resource", "WebSocket connection to", "net::ERR_", "Access to fetch at")
"""What Chromium itself logs as an error while a network fails."""
_FIND = "select id::text, seq, session_id::text as session, message from gre_chat_messages where message = any(%s)"


class Chromium(Background):
    """A browser, driven from a thread of its own."""

    _started: Playwright
    browser: Browser

    def __init__(self) -> None:
        self._executable = chromium()
        if self._executable is None:
            missing("Chromium is missing: apt-get install chromium, or set GRE_CHROMIUM")

    async def _begin(self) -> None:
        self._started = await async_playwright().start()
        self.browser = await self._started.chromium.launch(executable_path=self._executable, args=FLAGS)

    async def _end(self) -> None:
        await self.browser.close()
        await self._started.stop()


@dataclass
class _Person:
    """What the tabs of a scene share."""

    context: BrowserContext
    server: PortalServer
    tabs: list[Tab]


def sample_subject(name: str, browser: Chromium, site: Site) -> Subject:
    """The pages of a site, in this browser."""
    return Subject(name, start=_start(browser, site), pages_back=True, sleeps=("laptop", "tab"))


def _start(browser: Chromium, site: Site) -> Callable[[Scene, str], Running]:
    persons: WeakKeyDictionary[Scene, _Person] = WeakKeyDictionary()

    def arrive(scene: Scene) -> _Person:
        tabs: list[Tab] = []

        def asked(refused: bool) -> None:
            for tab in tabs:
                tab.said.append({"asked": refused})

        server = PortalServer(site, scene.through(scene.world.worker.url), asked)
        scene.resources.callback(server.close)
        context = browser.do(browser.browser.new_context())
        scene.resources.callback(lambda: browser.do(context.close()))
        context.set_default_timeout(WITHIN * 1000)
        browser.do(context.add_init_script(_WATCH))
        return _Person(context, server, tabs)

    def start(scene: Scene, token: str) -> Running:
        if scene not in persons:
            persons[scene] = arrive(scene)
        person = persons[scene]
        person.server.token = token
        person.tabs.append(Tab(browser, scene, person))
        return person.tabs[-1]

    return start


class Tab:
    """A tab with a sample's page, as a `Running`."""

    def __init__(self, browser: Chromium, scene: Scene, person: _Person) -> None:
        self.said: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []
        self._browser = browser
        self._scene = scene
        self._person = person
        self._known: dict[str, list[Any]] = {}
        self._page = self._do(self._open())

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines so far; the texts of `shown` have been found in the database."""
        fresh = self.said[len(self._lines) :]
        texts = {text for line in fresh if "shown" in line for text in line["shown"]["fresh"]}
        if unknown := texts - self._known.keys():
            for row in self._scene.world.conn.execute(_FIND, [[*unknown]]):
                self._known[row["message"]] = [row["id"], row["seq"], row["session"], row["message"]]
        if strange := texts - self._known.keys():
            raise AssertionError(f"shown, and not stored: {strange}")
        for line in fresh:
            if "shown" in line:
                line["shown"]["fresh"] = [self._known[text] for text in line["shown"]["fresh"]]
            self._lines.append(line)
        return self._lines

    def line(self, key: str, after: int = 0) -> Any:
        """Wait for the first line from number `after` on that has `key`; return its value."""
        return wait_for(
            lambda: [line[key] for line in self.said[after:] if key in line],
            f"no {key!r} in the page",
            every=0.01,
        )[0]

    def call(self, step: str, **options: Any) -> Any:
        """Do what a person does, or read what the page shows."""
        return getattr(self, f"do_{step}")(**options)

    def kill(self) -> None:
        """Close the tab."""
        self._person.tabs.remove(self)
        self._do(self._page.close())

    def do_send(self, text: str) -> None:
        self._do(self._write(text))

    def do_unsent(self) -> list[str]:
        found: list[str] = self._do(self._page.evaluate("suite.unsent()"))
        return found

    def do_status(self) -> dict[str, str]:
        shown = self._do(self._page.get_by_role("status").text_content()) or ""
        return {"connection": shown.partition(",")[0]}

    def do_token(self, token: str) -> None:
        self._person.server.token = token

    def do_reopen(self) -> None:
        """Another person has signed in at the portal: it loads the page again."""
        self._do(self._load())

    def do_connect(self) -> None:
        """The page says that it has stopped, and its person loads it again."""
        self._do(self._load())

    def do_loadOlder(self) -> bool:  # noqa: N802 the command's name
        more: bool = self._do(self._load_older())
        return more

    def do_sleep(self, seconds: float, how: str) -> None:
        self._do(self._sleep(seconds, how))

    def _do(self, work: Any) -> Any:
        return self._browser.do(work, WITHIN + 10)

    async def _open(self) -> Page:
        page = await self._person.context.new_page()
        page.on("pageerror", lambda error: self.said.append({"error": str(error)}))
        page.on("console", self._logged)
        self._cdp = await self._person.context.new_cdp_session(page)
        self._cdp.on("Runtime.bindingCalled", lambda event: self.said.append(json.loads(event["payload"])))
        await self._cdp.send("Runtime.enable")
        await self._cdp.send("Runtime.addBinding", {"name": "suiteSay"})
        await page.goto(self._person.server.address)
        await page.get_by_label("Message").wait_for()
        self.said.append({"ready": True})
        return page

    def _logged(self, message: ConsoleMessage) -> None:
        # React reports differences between the server's page and the browser's, and its warnings, as errors.
        if message.type == "error" and not any(each in message.text for each in _NETWORK):
            self.said.append({"error": message.text})

    async def _load(self) -> None:
        await self._page.reload()
        await self._page.get_by_label("Message").wait_for()

    async def _write(self, text: str) -> None:
        box = self._page.get_by_label("Message")
        await box.fill(text)
        await box.press("Enter")
        await expect(box).to_have_value("", timeout=WITHIN * 1000)

    async def _load_older(self) -> bool:
        return bool(await self._page.evaluate("suite.loadOlder()"))

    async def _sleep(self, seconds: float, how: str) -> None:
        """`laptop`: the page stops without an event. `tab`: Chromium freezes it, as it does with tabs in the background."""
        if how == "laptop":
            await self._page.evaluate("(seconds) => suite.stop(seconds)", seconds)
            return
        await self._cdp.send("Page.setWebLifecycleState", {"state": "frozen"})
        await self._page.evaluate("(seconds) => suite.jump(seconds)", seconds)
        await self._cdp.send("Page.setWebLifecycleState", {"state": "active"})
