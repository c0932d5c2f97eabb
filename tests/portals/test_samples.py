"""The documented pages that receive lose nothing, show nothing twice and show it in order, whatever breaks.

Each is run as it stands in docs/portals.md and docs/websocket.md, while a player's other device and staff write.
"""

from __future__ import annotations

import contextlib
import re
import socket
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.portals.harness import Guide, Portal, World, node_modules, wait_for
from tests.support.stack import StackProcess, Worker

ORDER = ("js", "player: show each message once and in order")
PUSHER = ("js", "player: receive through Pusher")
REALTIME = ("js", "player: receive through Supabase Realtime")
REALTIME_PY = ("python", "player: receive through Supabase Realtime")
SEND = ("js", "player: send until it is stored")
SAMPLES = {ORDER, PUSHER, REALTIME, REALTIME_PY, SEND}
"""The snippets of docs/portals.md that are run here."""
SOCKET_GUIDE = Path(__file__).parents[2] / "docs" / "websocket.md"
_AUTH_PATH = "/api/pusher/auth"

JS_BEFORE = """
import ws from 'ws'
import { createInterface } from 'node:readline'
globalThis.WebSocket ??= ws
const say = (line) => console.log(JSON.stringify(line))
const show = (message) => say({ shown: message })
const showSession = (session) => say({ session })
const ring = () => say({ rang: true })
const refused = (why) => say({ refused: why })
const stopped = (code) => say({ stopped: code })
const PLAYER_ID = Number(process.env.PLAYER_ID)
const { WS_URL } = process.env
let token = process.env.USER_TOKEN
const freshToken = async () => token
"""
JS_AFTER = """
say({ done: true })
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  if (asked.token) token = asked.token
  if (asked.send) void send(asked.send)
  say({ answer: null })
}
process.exit(0)
"""
PY_BEFORE = """
import asyncio, json, os, sys

def show(message):
    print(json.dumps({"shown": message}), flush=True)

player_id = int(os.environ["PLAYER_ID"])

async def main():
"""
PY_AFTER = """
    print(json.dumps({"done": True}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    reader.cancel()
    await supabase.remove_all_channels()

asyncio.run(main())
"""


class AuthProxy:
    """A portal's own server before the bridge's Pusher authorization: slow, or out of order, when told to be."""

    def __init__(self, bridge: str) -> None:
        self.delay = 0.0
        self.refusals: list[int] = []
        """Statuses of the next answers."""
        self.asked = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                proxy.asked += 1
                time.sleep(proxy.delay)
                status, content = proxy.answer(bridge, dict(self.headers), body)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Nothing is logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}{_AUTH_PATH}"

    def answer(self, bridge: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if self.refusals:
            return self.refusals.pop(0), b'{"error":"not now"}'
        kept = {name: value for name, value in headers.items() if name in ("Authorization", "Content-Type")}
        try:
            answer = httpx.post(
                f"{bridge}{_AUTH_PATH}", content=body, headers=kept, timeout=20, trust_env=False
            )
        except httpx.HTTPError:
            return 502, b'{"error":"bad gateway"}'
        return answer.status_code, answer.content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Place:
    """A stack, a daemon that may be restarted, and the portal's server between page and daemon."""

    stack: StackProcess
    worker: Worker
    auth: AuthProxy
    world: World
    guide: Guide
    folder: Path
    written: int = 0
    page: Portal | None = None
    player: int = 0
    said: list[str] = field(default_factory=list)

    def open(self, *names: tuple[str, str], socket_page: bool = False, **token: Any) -> Portal:
        """Open a page made of these snippets, for a new player who has written before."""
        self.player = self.world.new_player()
        self.said = []
        self.write("player", "staff")
        env = {"PLAYER_ID": str(self.player), "WS_URL": f"{self.worker.url.replace('http', 'ws')}/ws"}
        env["USER_TOKEN"] = self.token(**token)
        script = self.folder / ("page.py" if names and names[0][0] == "python" else "page.mjs")
        if script.suffix == ".py":
            codes = [self.guide["python", "page: set up"], *(self.guide[name] for name in names)]
            script.write_text(PY_BEFORE + textwrap.indent("".join(codes), "    ") + PY_AFTER)
        else:
            if not (self.folder / "node_modules").exists():
                (self.folder / "node_modules").symlink_to(node_modules())
            codes = (
                [_socket_page()]
                if socket_page
                else [self.guide["js", "settings"], self.guide["js", "page: set up"]]
            )
            codes += [self.guide[name] for name in names]
            script.write_text("".join([JS_BEFORE, *codes, JS_AFTER]))
        self.page = self.world.page(script, **env)
        self.page.line("done")
        self.sees_all()
        return self.page

    def token(self, **options: Any) -> str:
        return self.world.keys.user_token("player", player_id=self.player, **options)

    def write(self, *senders: str) -> None:
        """The player's other device, or staff, write one message each."""
        for sender in senders:
            self.written += 1
            text = f"message {self.written}"
            answer = self.stack.insert(player_id=self.player, sender=sender, sender_name="Asha", message=text)
            assert answer.status_code == 201, answer.text

    def close_session(self) -> None:
        with self.stack.db() as conn:
            conn.execute("update gre_chat_sessions set status = 'closed' where player_id = %s", [self.player])

    def stored(self) -> dict[str, list[str]]:
        """Every session's messages in order."""
        with self.stack.db() as conn:
            rows = conn.execute(
                "select session_id::text as session, message from gre_chat_messages where player_id = %s order by session_id, seq",
                [self.player],
            ).fetchall()
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["session"], []).append(row["message"])
        return found

    def mine(self) -> list[str]:
        """What the page itself has written, in order."""
        return [text for texts in self.stored().values() for text in texts if text.startswith("mine")]

    def shown(self) -> dict[str, list[str]]:
        assert self.page is not None
        found: dict[str, list[str]] = {}
        for line in self.page.lines:
            if "shown" in line:
                found.setdefault(line["shown"]["session_id"], []).append(line["shown"]["message"])
        return found

    def sees_all(self, within: float = 60.0) -> None:
        """The page has shown what is stored: all of it, once, in order."""
        wait_for(
            lambda: sum(map(len, self.shown().values())) >= sum(map(len, self.stored().values())),
            f"the page shows {self.shown()} of {self.stored()}",
            within,
        )
        assert self.shown() == self.stored()

    def hears(self) -> None:
        """The page is told of what is written now; nothing of it comes twice."""
        self.write("staff", "player", "staff")
        self.sees_all()

    def restart(self) -> None:
        """The daemon dies; meanwhile both write; it comes back."""
        self.worker.kill()
        self.write("staff", "player", "staff")
        self.worker.start()


def _socket_page() -> str:
    found = re.findall(
        r"^```js\n// player: a whole page\n(.*?)^```$", SOCKET_GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(found) == 1
    return str(found[0])


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, guide: Guide) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("samples")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with StackProcess(folder) as stack, stack.worker(GRE_HTTP_PORT=port) as worker:
        auth = AuthProxy(f"http://127.0.0.1:{port}")
        env = {"GRE_DEV_STACK": stack.url, **stack.env, "PUSHER_AUTH_URL": auth.url}
        yield Place(stack, worker, auth, World(env=env, keys=stack.keys), guide, folder)
        auth.close()


@pytest.fixture
def place(ground: Place) -> Iterator[Place]:
    ground.auth.delay, ground.auth.refusals = 0.0, []
    yield ground
    ground.world.close_portals()
    ground.stack.http.delete("/__stack/faults").raise_for_status()


def _drop_pusher(place: Place) -> None:
    place.stack.fault("pusher", {"action": "drop_sockets"})


# Pusher


def test_the_pusher_page_misses_nothing_while_its_subscription_is_slow(place: Place) -> None:
    """Between `connected` and `subscription_succeeded` nothing is heard: what is read before is too early."""
    place.auth.delay = 3.0
    place.open(ORDER, PUSHER)
    asked = place.auth.asked
    _drop_pusher(place)
    wait_for(lambda: place.auth.asked > asked, "the page did not come back")
    place.write("staff", "player", "staff")
    place.sees_all()
    place.auth.delay = 0.0
    place.hears()


@pytest.mark.parametrize("status", [503, 429, 403])
def test_the_pusher_page_asks_again_where_its_subscription_was_refused(place: Place, status: int) -> None:
    page = place.open(ORDER, PUSHER)
    place.auth.refusals = [status] * 3
    _drop_pusher(place)
    wait_for(lambda: not place.auth.refusals, "the page gave up", 30)
    place.write("staff", "player")
    place.sees_all()
    # It hears again, and does not merely look: a bell rings for what comes.
    place.hears()
    before = len(page.lines)
    place.write("staff")
    page.line("rang", before)


def test_the_pusher_page_shows_what_came_while_it_or_the_daemon_was_away(place: Place) -> None:
    place.open(ORDER, PUSHER)
    place.hears()
    for _ in range(3):
        place.write("player", "staff")
        _drop_pusher(place)
        place.write("staff", "player")
        place.sees_all()
    place.restart()
    place.sees_all()
    place.stack.fault("realtime", {"action": "close_all"})
    place.hears()
    place.close_session()
    _drop_pusher(place)
    place.write("player", "staff")
    place.sees_all()
    place.hears()


def test_the_pusher_page_reads_a_text_that_was_cut(place: Place) -> None:
    place.open(ORDER, PUSHER)
    place.stack.insert(player_id=place.player, sender="staff", message="🎲" * 2000)
    place.hears()


def test_what_the_page_sends_is_stored_once_and_shown_in_its_place(place: Place) -> None:
    page = place.open(ORDER, PUSHER, SEND)
    fault = {"mode": "lose_answer", "path": "/gre_chat_messages", "match": "mine", "times": 1}
    place.stack.fault("rest", fault)
    page.ask("send", send="mine 1")
    wait_for(lambda: "mine 1" in str(place.stored()), "the message was not stored")
    place.write("staff")
    page.ask("send", send="mine 2")
    wait_for(lambda: "mine 2" in str(place.stored()), "the message was not stored")
    place.sees_all()
    assert str(place.stored()).count("mine 1") == 1


# Realtime


@pytest.mark.parametrize("page", [(ORDER, REALTIME), (REALTIME_PY,)], ids=["js", "python"])
@pytest.mark.parametrize("cut", ["close_all", "phx_close_all"])
def test_the_realtime_page_shows_what_came_while_realtime_was_away(
    place: Place, page: tuple[tuple[str, str], ...], cut: str
) -> None:
    place.open(*page)
    place.hears()
    for _ in range(2):
        place.write("player", "staff")
        place.stack.fault("realtime", {"action": cut})
        place.write("staff", "player")
        place.sees_all()
    place.close_session()
    place.hears()


# /ws


def test_the_socket_page_shows_what_came_while_it_or_the_daemon_was_away(place: Place) -> None:
    page = place.open(socket_page=True)
    place.hears()
    page.ask("send", send="mine 1")
    for _ in range(2):
        place.restart()
        place.sees_all()
    place.stack.fault("realtime", {"action": "close_all"})
    page.ask("send", send="mine 2")
    place.hears()
    place.close_session()
    place.restart()
    place.hears()
    assert sorted(place.mine()) == ["mine 1", "mine 2"]


@pytest.mark.parametrize("opens", [False, True], ids=["in its session", "opening one"])
def test_a_message_whose_acknowledgement_died_with_the_daemon_is_stored_and_shown_once(
    place: Place, opens: bool
) -> None:
    page = place.open(socket_page=True)
    if opens:
        place.close_session()
    place.stack.fault("rest", {"mode": "stall", "match": "mine 1", "times": 1})
    page.ask("send", send="mine 1")
    wait_for(place.mine, "the message was not stored")
    assert "mine 1" not in str(place.shown())
    place.restart()
    place.sees_all()
    place.hears()
    assert place.mine() == ["mine 1"]


def test_the_first_message_of_a_player_and_its_answers_are_shown_once_after_a_cut(place: Place) -> None:
    """The page's own message is only acknowledged: without counting it, the answers are never "the next"."""
    page = place.open(socket_page=True)
    place.close_session()
    page.ask("send", send="mine first")
    wait_for(lambda: "mine first" in str(place.shown()), "the message is not shown")
    place.write("staff", "staff")
    place.sees_all()
    place.restart()
    place.sees_all()
    place.hears()


def test_what_is_sent_while_the_daemon_is_away_is_stored_once(place: Place) -> None:
    page = place.open(socket_page=True)
    place.worker.kill()
    for n in range(5):
        page.ask("send", send=f"mine {n}")
    place.worker.start()
    wait_for(lambda: "mine 4" in str(place.stored()), "the messages were not stored", 60)
    place.sees_all()
    assert place.mine() == [f"mine {n}" for n in range(5)]


def test_the_socket_page_comes_back_with_a_fresh_token(place: Place) -> None:
    page = place.open(socket_page=True, expires_in=12)
    page.ask("token", token=place.token())
    deadline = time.monotonic() + 14
    while time.monotonic() < deadline:
        place.hears()
    place.hears()
