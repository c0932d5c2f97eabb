"""The environments of the browser tests (`gre-bridge dev`, or a stack whose daemon can be killed), and their users.

A user is a page in a real Chromium. Errors that a page logs and violations of its Content-Security-Policy are
collected, and checked by the fixtures of conftest.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from psycopg.rows import dict_row

from gre_bridge.devstack.keys import Keys
from tests.support.dev import dev_process
from tests.support.loopback import HTTP, NO_TLS, PATIENT, free_port
from tests.support.memory import cluster_directory
from tests.support.stack import StackProcess, Worker
from tests.support.template import Template
from tests.support.waiting import wait_until

FLAGS = [
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Pages that a test serves by a route count as pages from elsewhere.
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
]
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 780}
WITHIN = 60_000
"""Milliseconds: the bound for everything on a page, on a loaded machine."""
SOON = {"gre_bridge.daemon.registration.REPORT_INTERVAL": 2.0}
"""The health view shows what the workers report every 15 s."""
_STAFF = [("s1", "Sam", "staff"), ("s2", "Sue", "staff"), ("a1", "Ann", "admin")]
_TABLES = """
select string_agg(quote_ident(tablename), ', ') as names from pg_tables
where schemaname = 'public' and (tablename like 'gre\\_%' and tablename not in (
  'gre_relay_sinks', 'gre_relay_workers', 'gre_chat_settings', 'gre_hours', 'gre_hours_week', 'gre_hours_dates')
  or tablename = 'push_notifications')
"""
"""The tables that `reset` empties with one statement. A truncate of gre_hours would empty the settings, too."""
_RESET_SETTINGS = """
update gre_chat_settings set assignment = default, max_sessions = default, returning_within = default,
  offline_after = default, idle_warn_after = default, idle_close_after = default, hours = default,
  first_reply_goal = default, reply_goal = default, goals_in_hours = default;
delete from gre_hours;
"""
_WATCH = """
window.__cspViolations = []
addEventListener('securitypolicyviolation', (event) =>
  window.__cspViolations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`))
"""
_EXPECT = """(text) => {
  window.__arrival = new Promise((resolve) => {
    const look = () => {
      if (!document.body.innerText.includes(text)) return
      watching.disconnect()
      resolve(Date.now())
    }
    const watching = new MutationObserver(look)
    watching.observe(document.body, { subtree: true, childList: true, characterData: true })
    look()
  })
}"""

_READ = """async () => {
  const box = document.querySelector('[data-testid="messages"]')
  const texts = {}
  const disorder = []
  box.scrollTop = 0
  for (let turn = 0; turn < 1000; turn += 1) {
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))
    if (box.getAttribute('aria-busy') === 'true') continue
    const rows = [...box.querySelectorAll('[data-testid="message"]')]
    const seqs = rows.map((row) => Number(row.dataset.seq))
    if (seqs.some((seq, n) => n > 0 && !(seq === seqs[n - 1] + 1))) disorder.push(seqs)
    for (const row of rows) texts[row.dataset.seq] = row.querySelector('[data-testid="message-text"]').textContent
    if (box.dataset.older === 'true' && box.scrollTop < 10) continue
    if (box.scrollTop + box.clientHeight >= box.scrollHeight - 2) break
    box.scrollTop += box.clientHeight / 2
  }
  return { texts, disorder }
}"""


def chromium(*, windows: bool = False) -> str | None:
    """The path of the browser, if there is one; Playwright's own download is not used.

    Chromium without its own interface opens a page for a quarter of the CPU time. With `windows` it is the whole
    Chromium, in which a page that another one covers loses the focus.
    """
    quick = [] if windows else ["chromium-headless-shell"]
    paths = [os.environ.get("GRE_CHROMIUM"), *map(shutil.which, [*quick, "chromium", "chromium-browser"])]
    return next((path for path in paths if path), None)


@dataclass
class World:
    """One project: its stack, its daemon, its database."""

    console: str
    """Address of the daemon."""
    env: dict[str, str]
    keys: Keys
    http: httpx.Client
    """A client with the stack's address."""

    @property
    def stack(self) -> str:
        return self.env["SUPABASE_URL"]

    def db(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(
            self.env["SUPABASE_DB_URL"], autocommit=True, row_factory=dict_row, connect_timeout=60
        )

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with self.db() as conn:
            done = conn.execute(statement.encode(), values)
            return done.fetchall() if done.description else []

    def reset(self) -> None:
        """Delete all data and faults, and insert three staff members."""
        self.http.delete("/__stack/faults").raise_for_status()
        with self.db() as conn:
            (tables,) = conn.execute(_TABLES.encode()).fetchall()
            # The daemon reads these tables in another order, so PostgreSQL may end a truncate as a deadlock.
            for attempt in range(3):
                try:
                    conn.execute(f"truncate {tables['names']}".encode())
                    break
                except psycopg.errors.DeadlockDetected:
                    if attempt == 2:
                        raise
            conn.execute(_RESET_SETTINGS.encode())
            for row in _STAFF:
                conn.execute("insert into gre_staff (staff_id, display_name, role) values (%s, %s, %s)", row)

    def token(self, who: str, **options: Any) -> str:
        """`player:29`, `staff:s1` or `admin:a1`."""
        role, _, name = who.partition(":")
        own: dict[str, Any] = {"player_id": int(name)} if role == "player" else {"staff_id": name}
        return self.keys.user_token(role, **own, **options)

    def fault(self, service: str, rule: Any) -> None:
        self.http.post("/__stack/faults", json={service: rule}).raise_for_status()

    def call(self, method: str, path: str, who: str, **body: Any) -> Any:
        """Call the daemon's REST API as a user; return the parsed response."""
        answer = HTTP.request(
            method, f"{self.console}{path}", json=body or None,
            headers={"Authorization": f"Bearer {self.token(who)}"},
        )  # fmt: skip
        assert answer.is_success, answer.text
        return answer.json()

    def write(self, player: int, text: str, name: str | None = None) -> str:
        """Insert a player's message as a portal does; return the session's id."""
        row = {"id": str(uuid.uuid4()), "player_id": player, "sender": "player", "sender_name": name or f"Player {player}", "message": text}  # fmt: skip
        answer = self.http.post(
            "/rest/v1/gre_chat_messages",
            json=row,
            headers={
                "apikey": self.env["SUPABASE_ANON_KEY"],
                "Authorization": f"Bearer {self.token(f'player:{player}')}",
                "Prefer": "return=representation",
            },
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()[0]["session_id"])

    def write_as_backend(self, player: int, text: str, name: str) -> None:
        """Insert a player's message with the service key, which has no rate limit."""
        row = {"player_id": player, "sender": "player", "sender_name": name, "message": text}
        key = self.env["SUPABASE_SERVICE_KEY"]
        answer = self.http.post(
            "/rest/v1/gre_chat_messages", json=row, headers={"apikey": key, "Authorization": f"Bearer {key}"}
        )
        assert answer.status_code == 201, answer.text

    def reply(self, player: int, text: str, who: str = "staff:s2") -> str:
        """Reply as a staff member through REST; return the session's id."""
        return str(self.call("POST", "/api/gre-admin/reply", who, playerId=player, message=text)["sessionId"])

    def texts(self, session: str) -> list[str]:
        """The stored texts of a session, in order."""
        rows = self.sql(
            "select message from gre_chat_messages where session_id = %s::uuid order by seq", session
        )
        return [row["message"] for row in rows]


@contextlib.contextmanager
def dev(folder: Path) -> Iterator[World]:
    """Run `gre-bridge dev`."""
    with (
        dev_process(folder) as started,
        httpx.Client(
            base_url=started.env["SUPABASE_URL"], timeout=PATIENT, trust_env=False, verify=NO_TLS
        ) as http,
    ):
        yield World(started.daemon, started.env, started.keys, http)


@dataclass
class RestartableWorld(World):
    """A stack and a daemon as a separate process, always at the same address."""

    worker: Worker


@contextlib.contextmanager
def restartable_stack(folder: Path, template: Template) -> Iterator[RestartableWorld]:
    """Run a stack, and a daemon that gives up an event after two attempts."""
    port = str(free_port())
    with (
        cluster_directory() as data,
        StackProcess(folder, template, data) as stack,
        stack.worker(constants=SOON, GRE_HTTP_PORT=port, GRE_MAX_ATTEMPTS="2") as worker,
    ):
        yield RestartableWorld(f"http://127.0.0.1:{port}", stack.env, stack.keys, stack.http, worker)


@dataclass
class Person:
    """A user with a page in a browser profile of its own."""

    world: World
    context: BrowserContext
    page: Page
    errors: list[str] = field(default_factory=list)

    def at(self, name: str, **attributes: Any) -> Locator:
        """The element with this test id and these data attributes (`session_id=…`)."""
        more = "".join(f'[data-{key.replace("_", "-")}="{value}"]' for key, value in attributes.items())
        return self.page.locator(f'[data-testid="{name}"]{more}')

    def wait_until(self, condition: Callable[[], Any], within: float = 60.0, what: str = "") -> Any:
        """Wait like `support.waiting.wait_until`, and meanwhile run the handlers of routes and events.

        Playwright runs them only inside its own calls: a handler whose request comes during a plain wait never runs.
        """
        return wait_until(condition, within, what=what, wait=lambda s: self.page.wait_for_timeout(s * 1000))

    def watch_for(self, text: str) -> None:
        """Record the time at which this text appears on the page."""
        self.page.evaluate(_EXPECT, text)

    def wait_for_arrival(self) -> float:
        """Wait for the text of `watch_for`, and return the time at which it appeared, in seconds since 1970."""
        found: float = self.page.evaluate("window.__arrival")
        return found / 1000

    def csp_violations(self) -> list[str]:
        """The violations of the Content-Security-Policy so far."""
        found: list[str] = self.page.evaluate("window.__cspViolations ?? []")
        return found


class Staff(Person):
    """A staff member at the console."""

    def enter(self, who: str = "staff:s1", **options: Any) -> Staff:
        """Sign in with a link, as `gre-bridge dev` prints it."""
        self.page.goto(f"{self.world.console}/console#token={self.world.token(who, **options)}")
        return self.wait_until_live()

    def sign_in(self, who: str, **options: Any) -> Staff:
        """Sign in on the form with a token."""
        self.page.get_by_label("Access token").fill(self.world.token(who, **options))
        self.page.get_by_role("button", name="Sign in", exact=True).click()
        return self.wait_until_live()

    def wait_until_live(self) -> Staff:
        expect(self.at("connection", state="live")).to_be_visible(timeout=WITHIN)
        return self

    def row(self, player: int) -> Locator:
        """A player's session in the list."""
        return self.at("session-row", player_id=player)

    def open(self, player: int) -> Staff:
        """Open a player's conversation."""
        self.row(player).first.click()
        expect(self.at("conversation", player_id=player)).to_be_visible()
        expect(self.at("messages")).to_have_attribute("aria-busy", "false")
        return self

    def answer(self, text: str) -> None:
        """Write a reply and press Enter."""
        self.at("reply").fill(text)
        self.at("reply").press("Enter")

    def hand_over(self, to: str, note: str = "") -> None:
        """Hand the open conversation over to a staff member ("" is the queue), with a private note."""
        self.at("hand-over").click()
        self.at("hand-over-to").select_option(to)
        if note:
            self.at("hand-over-note").fill(note)
        self.page.get_by_role("dialog").get_by_role("button", name="Hand over").click()
        expect(self.page.get_by_role("dialog")).to_have_count(0)

    def note(self, text: str) -> None:
        """Write a private note and press Enter."""
        self.at("kind-note").click()
        self.at("note-field").fill(text)
        self.at("note-field").press("Enter")

    def message(self, text: str) -> Locator:
        """Find the message with this text."""
        return self.at("message").filter(has=self.page.get_by_text(text, exact=True))

    def all_texts(self) -> list[str]:
        """Scroll through the open conversation and return its texts; a line reports each gap between visible messages."""
        found: dict[str, Any] = self.page.evaluate(_READ)
        texts = [found["texts"][seq] for seq in sorted(found["texts"], key=int)]
        return [*texts, *(f"out of order: {seqs}" for seqs in found["disorder"])]

    def listed_players(self) -> list[int]:
        """The players in the list, from the top."""
        found: list[str] = self.at("session-row").evaluate_all("rows => rows.map(r => r.dataset.playerId)")
        return [int(player) for player in found]


class Player(Person):
    """A player at the player's page."""

    def enter(self, player: int = 29, name: str = "Asha") -> Player:
        """Open /try; for a player other than 29, the page gets that player's token."""
        if player != 29:
            self.page.route("**/try/config.json", lambda route: self._configure(route, player, name))
        self.page.goto(f"{self.world.stack}/try")
        expect(self.at("try-state", state="live")).to_be_visible(timeout=WITHIN)
        return self

    def _configure(self, route: Any, player: int, name: str) -> None:
        answer = route.fetch()
        token = self.world.token(f"player:{player}")
        route.fulfill(response=answer, json={**answer.json(), "playerId": player, "playerName": name, "token": token})  # fmt: skip

    def type(self, text: str) -> float:
        """Type a message and press Enter; return the time in seconds since 1970."""
        self.at("try-input").fill(text)
        at = time.time()
        self.at("try-input").press("Enter")
        return at


def new_person(kind: type[Person], world: World, browser: Browser, **options: Any) -> Any:
    """Open an empty page in a new browser profile."""
    context = browser.new_context(viewport=options.pop("viewport", WIDE), reduced_motion="reduce", **options)
    context.set_default_timeout(WITHIN)
    context.add_init_script(_WATCH)
    found = kind(world, context, context.new_page())
    found.page.on("pageerror", lambda error: found.errors.append(f"uncaught: {error}"))
    found.page.on("console", lambda line: found.errors.append(line.text) if line.type == "error" else None)
    return found
