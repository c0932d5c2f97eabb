"""One project with a daemon that can be killed, and players with pages behind a network of their own."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg

from tests.client.network import Network
from tests.client.node import start_in_node
from tests.client.screen import Screen
from tests.portals.harness import wait_for
from tests.support.loopback import free_port
from tests.support.memory import cluster_directory
from tests.support.stack import StackProcess, Worker
from tests.support.template import Template
from tests.support.waiting import let_pass

WITHIN = 60.0
"""Seconds: the bound for each wait, on a loaded machine."""
ORIGINS = "http://127.0.0.1:*"
"""Of the pages in a browser."""
SOON = {"gre_bridge.api.ws.credentials.RENEW_TIMEOUT": 3.0}
"""A test need not wait for the ten seconds in which a page may send a new token."""
_STORED = """
select session_id::text as session, message from gre_chat_messages where player_id = %s order by session_id, seq
"""
_SESSION = "select id::text from gre_chat_sessions where player_id = %s and status = 'active'"
_OWN = """
select message from gre_chat_messages where player_id = %s and message like 'mine%%' order by created_at, seq
"""


class WrongPageError(AssertionError):
    """A page does not show what is stored, or has shown what it may not."""


class Running(Protocol):
    """A page that runs: it executes commands, `send` and `unsent` at least, and says in lines what it shows and does."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines so far."""

    def line(self, key: str, after: int = 0) -> Any:
        """Wait for the first line from number `after` on that has `key`; return its value."""

    def call(self, step: str, **options: Any) -> Any:
        """Execute a command; return its result."""

    def kill(self) -> None:
        """End the page at once."""


@dataclass(frozen=True)
class Subject:
    """A kind of page."""

    name: str
    source: Callable[[], str] = str
    """The module of a page that runs in Node.js, beside the files of `pages/`."""
    start: Callable[[Scene, str], Running] = start_in_node
    """Start one, for the player of a scene and with this token."""
    staff: str = ""
    """The id of the member of staff whose page it is; it shows the session of the scene's player. Else a player's."""
    pages_back: bool = False
    """True: it loads older messages at the command `loadOlder`, which returns whether there are more."""
    sleeps: Sequence[str] = ("laptop",)
    """How it can sleep: the values of the command's `how`."""
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Cases that it is not made for, by name, with the reason."""


class Page:
    """A running page, what it shows, and what its person was told to send."""

    def __init__(self, running: Running, player: int) -> None:
        self.running = running
        self.player = player
        self.screen = Screen()
        self._sent: dict[int, list[str]] = {}
        self._read = 0
        running.line("ready")

    def call(self, step: str, **options: Any) -> Any:
        """Execute a command; return its result."""
        return self.running.call(step, **options)

    def send(self, *texts: str) -> None:
        """Let the person of the page write these texts, one after the other."""
        for text in texts:
            self._sent.setdefault(self.player, []).append(text)
            self.call("send", text=text)

    def sent_by(self, player: int) -> list[str]:
        """The texts that this player has written here, in their order."""
        return self._sent.get(player, [])

    def unsent(self) -> list[str]:
        """The texts that the page shows as not sent yet."""
        found: list[str] = self.call("unsent")
        return found

    def refresh(self) -> Screen:
        """Return the page's screen as it is now. Raise WrongPageError if it has ever shown what it may not."""
        lines = self.running.lines[self._read :]
        self._read += len(lines)
        for line in lines:
            self.screen.apply(line)
        if self.screen.faults:
            raise WrongPageError("; ".join(self.screen.faults))
        return self.screen

    def count(self, key: str) -> int:
        """The number of lines so far that have this key."""
        return sum(key in line for line in self.running.lines)


class Scene:
    """A player who has written before, its pages, and the network between them and the servers."""

    def __init__(self, world: World, network: Network, within: float) -> None:
        self.world = world
        self.network = network
        self.within = within
        self.player = world.new_player()
        self.pages: list[Page] = []
        self.resources = contextlib.ExitStack()
        """What its pages share, closed after them."""
        self._left: list[list[str]] = []
        self.folder = world.folder / f"player-{self.player}"
        self._ports: dict[int, int] = {}
        self.write("player", "staff")

    @property
    def page(self) -> Page:
        """The page that was opened last."""
        return self.pages[-1]

    def open(self, *, ready: bool = True, **token: Any) -> Page:
        """Open a page, and wait until it shows everything if it should be `ready`; `token` are options of its token."""
        running = self.world.subject.start(self, self.token(**token))
        self.pages.append(Page(running, self.player))
        if ready:
            self.settle()
        return self.page

    def sign_in(self, page: Page, player: int, *, reopen: bool = True) -> None:
        """Give a page the token of a player, and let it open its chat for that player."""
        page.refresh().may_clear = bool(page.refresh().messages)
        page.player = player
        page.call("token", token=self.token(player))
        if reopen:
            page.call("reopen")

    def token(self, player: int | None = None, *, staff: str = "", **options: Any) -> str:
        """A token of this scene's player, or of another one; for a page of staff one of its person, or of `staff`."""
        keys = self.world.stack.keys
        if staff_id := staff or self.world.subject.staff:
            return keys.user_token("staff", staff_id=staff_id, **options)
        return keys.user_token("player", player_id=player or self.player, **options)

    def close(self, page: Page) -> None:
        """End the process of a page at once, as a crash of its tab does."""
        self.pages.remove(page)
        page.running.kill()
        self._left.append(page.sent_by(self.player))

    def write(self, *senders: str, player: int | None = None) -> list[str]:
        """The player's other device, or staff, write one message each; return their texts."""
        texts = [f"{sender} {self.world.number()}" for sender in senders]
        for sender, text in zip(senders, texts, strict=True):
            self.world.insert(player or self.player, sender, text)
        return texts

    def send(self, count: int = 1, page: Page | None = None) -> list[str]:
        """Let the person of a page send so many texts; return them."""
        texts = [f"mine {self.world.number()}" for _ in range(count)]
        (page or self.page).send(*texts)
        return texts

    def stored(self, player: int | None = None) -> dict[str, list[str]]:
        """The stored texts of each session, in their order."""
        found: dict[str, list[str]] = {}
        for row in self.world.conn.execute(_STORED, [player or self.player]).fetchall():
            found.setdefault(row["session"], []).append(row["message"])
        return found

    def stored_by_pages(self, player: int | None = None) -> list[str]:
        """The stored texts that pages have sent, in the order in which they were stored."""
        rows = self.world.conn.execute(_OWN, [player or self.player]).fetchall()
        return [row["message"] for row in rows]

    def wait(self, condition: Callable[[], Any], message: str, within: float | None = None) -> Any:
        """Wait for a condition; raise an AssertionError with the message after `within` seconds."""
        return wait_for(condition, message, within or self.within)

    def shows_all(self) -> bool:
        """Return True if every page shows all stored messages."""
        return all(page.refresh().texts() == self.stored(page.player) for page in self.pages)

    def shows_all_and_sent(self) -> bool:
        """Return True if every page shows all stored messages, and all its texts are stored."""
        return not any(self._problem(page) for page in self.pages)

    @property
    def session(self) -> str:
        """The id of the player's open session, "" without one."""
        row = self.world.conn.execute(_SESSION, [self.player]).fetchone()
        return row["id"] if row else ""

    def load_all(self, page: Page) -> None:
        """Load older messages until there are none, if the page can."""
        if self.world.subject.pages_back:
            self.wait(lambda: page.refresh().messages, "the page shows nothing")
            for _ in range(1000):
                if not page.call("loadOlder"):
                    return
            raise AssertionError("there are always older messages")

    def settle(self) -> None:
        """Wait until every page shows all messages, and has none to send; then each sent text is stored once, in order.

        Raises WrongPageError if that does not come to pass, or if a page has shown a message twice, a hole, or a wrong order.
        """
        deadline = time.monotonic() + self.within
        while problem := next(filter(None, map(self._problem, self.pages)), ""):
            if time.monotonic() > deadline:
                raise WrongPageError(problem)
            let_pass(0.05, "between two looks")
        written = [(page.player, page.sent_by(page.player)) for page in self.pages]
        for player, sent in [*written, *((self.player, left) for left in self._left)]:
            stored = [text for text in self.stored_by_pages(player) if text in sent]
            if stored != sent:
                raise WrongPageError(f"sent {sent}, stored {stored}")

    def assert_live(self) -> None:
        """Assert that each page receives and sends, now."""
        for page in self.pages:
            self.write("staff", "player", player=page.player)
            self.send(page=page)
            self.write("staff", player=page.player)
        self.settle()

    def _problem(self, page: Page) -> str:
        shown = page.refresh().texts()
        if unsent := page.unsent():
            return f"unsent: {unsent}"
        stored, own = self.stored(page.player), self.stored_by_pages(page.player)
        if missing := [text for text in page.sent_by(page.player) if text not in own]:
            return f"lost: {missing} are not stored"
        if shown == stored:
            return ""
        texts = {text for each in shown.values() for text in each}
        lost = [text for each in stored.values() for text in each if text not in texts]
        return f"lost: {lost} are not shown" if lost else f"shown {shown}, stored {stored}"

    def through(self, url: str) -> str:
        """The address by which a page of this scene reaches a server."""
        return f"http://127.0.0.1:{self.forwarded(urlsplit(url).port or 80)}"

    def forwarded(self, port: int) -> int:
        """The port by which a page of this scene reaches a port."""
        if port not in self._ports:
            self._ports[port] = self.network.forward(port)
        return self._ports[port]


@dataclass
class World:
    """The stack with its daemon, for one subject."""

    subject: Subject
    stack: StackProcess
    conn: psycopg.Connection[dict[str, Any]]
    worker: Worker
    folder: Path
    _players: Iterator[int] = field(default_factory=lambda: itertools.count(1001))
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_player(self) -> int:
        """A new player's id."""
        return next(self._players)

    def number(self) -> int:
        """A number for a text, so that no two texts are equal."""
        return next(self._numbers)

    def insert(self, player: int, sender: str, text: str) -> None:
        """Store a message, as a portal does."""
        answer = self.stack.insert(player_id=player, sender=sender, sender_name="Asha", message=text)
        assert answer.status_code == 201, answer.text

    def insert_many(self, player: int, count: int) -> None:
        """Store so many messages of staff at once."""
        first = self.number()
        self.conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) select %s, 'staff', 'many ' || %s || '.' || n from generate_series(1, %s) n",
            [player, first, count],
        )

    def close_sessions(self, player: int) -> None:
        """Close the player's open session."""
        self.conn.execute("update gre_chat_sessions set status = 'closed' where player_id = %s", [player])

    @contextlib.contextmanager
    def daemon_killed(self) -> Iterator[None]:
        """Kill the daemon, and start it again at the end."""
        self.worker.kill()
        try:
            yield
        finally:
            self.worker.start()

    @contextlib.contextmanager
    def scene(self, within: float = WITHIN) -> Iterator[Scene]:
        """A new player, without a page. `within` bounds each wait, in seconds."""
        with Network() as network:
            scene = Scene(self, network, within)
            try:
                yield scene
            finally:
                for page in list(scene.pages):
                    scene.close(page)
                scene.resources.close()


@contextlib.contextmanager
def world_for(subject: Subject, folder: Path, template: Template) -> Iterator[World]:
    """A stack and a daemon for the pages of one subject."""
    with (
        cluster_directory() as data,
        StackProcess(folder, template, data) as stack,
        stack.db() as conn,
        stack.worker(GRE_HTTP_PORT=str(free_port()), GRE_CORS_ORIGINS=ORIGINS, constants=SOON) as worker,
    ):
        yield World(subject, stack, conn, worker, folder)
