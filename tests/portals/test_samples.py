"""The documented pages show each message once and in order during outages.

The pages are the snippets of docs/portals.md and docs/websocket.md, unchanged but for one interval. Meanwhile the player's other device and
staff write.
"""

from __future__ import annotations

import contextlib
import re
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.portals.harness import Guide, Portal, World, node_modules, wait_for
from tests.support.loopback import HTTP, free_port
from tests.support.memory import cluster_directory
from tests.support.stack import StackProcess, Worker
from tests.support.template import Template
from tests.support.waiting import let_pass

ORDER = ("js", "player: show each message once and in order")
PUSHER = ("js", "player: receive through Pusher")
REALTIME = ("js", "player: receive through Supabase Realtime")
REALTIME_PY = ("python", "player: receive through Supabase Realtime")
SEND = ("js", "player: send until it is stored")
SAMPLES = {ORDER, PUSHER, REALTIME, REALTIME_PY, SEND}
"""The snippets of docs/portals.md that run here."""
SOCKET_GUIDE = Path(__file__).parents[2] / "docs" / "websocket.md"
_AUTH_PATH = "/api/pusher/auth"
LOOKS = "wanted.wait(), 30)"
"""The interval at which the page in Python looks for what Realtime did not tell; the only thing that is changed."""

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
  const command = JSON.parse(line)
  if (command.token) token = command.token
  if (command.send) void send(command.send)
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
    """A portal's server in front of the bridge's Pusher authorization, with a delay or error responses on request."""

    def __init__(self, bridge: str) -> None:
        self.delay = 0.0
        self.refusals: list[int] = []
        """Statuses of the next responses."""
        self.requests = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                proxy.requests += 1
                let_pass(proxy.delay, "a slow response")
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
        forwarded = {
            name: value for name, value in headers.items() if name in ("Authorization", "Content-Type")
        }
        try:
            answer = HTTP.post(f"{bridge}{_AUTH_PATH}", content=body, headers=forwarded)
        except httpx.HTTPError:
            return 502, b'{"error":"bad gateway"}'
        return answer.status_code, answer.content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class SampleStack:
    """A stack, a restartable daemon, and the portal's server between page and daemon."""

    stack: StackProcess
    conn: psycopg.Connection[dict[str, Any]]
    worker: Worker
    auth: AuthProxy
    world: World
    guide: Guide
    folder: Path
    written: int = 0
    page: Portal | None = None
    player: int = 0

    def open(self, *names: tuple[str, str], socket_page: bool = False, **token: Any) -> Portal:
        """Open a page made of these snippets, for a new player who has written before."""
        self.player = self.world.new_player()
        self.write("player", "staff")
        env = {"PLAYER_ID": str(self.player), "WS_URL": f"{self.worker.url.replace('http', 'ws')}/ws"}
        env["USER_TOKEN"] = self.token(**token)
        script = self.folder / ("page.py" if names and names[0][0] == "python" else "page.mjs")
        if script.suffix == ".py":
            codes = [self.guide["python", "page: set up"], *(self.guide[name] for name in names)]
            # It looks every half minute all the same; a test need not wait for that.
            assert "".join(codes).count(LOOKS) == 1
            codes = [code.replace(LOOKS, "wanted.wait(), 5)") for code in codes]
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
        self.wait_until_all_shown()
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
        self.conn.execute(
            "update gre_chat_sessions set status = 'closed' where player_id = %s", [self.player]
        )

    def stored(self) -> dict[str, list[str]]:
        """The stored messages of each session, in order."""
        rows = self.conn.execute(
            "select session_id::text as session, message from gre_chat_messages where player_id = %s order by session_id, seq",
            [self.player],
        ).fetchall()
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["session"], []).append(row["message"])
        return found

    def sent_by_page(self) -> list[str]:
        """The stored messages that the page has sent, in order."""
        return [text for texts in self.stored().values() for text in texts if text.startswith("mine")]

    def shown(self) -> dict[str, list[str]]:
        assert self.page is not None
        found: dict[str, list[str]] = {}
        for line in self.page.lines:
            if "shown" in line:
                found.setdefault(line["shown"]["session_id"], []).append(line["shown"]["message"])
        return found

    def wait_until_all_shown(self) -> None:
        """Wait until the page shows all stored messages, each once and in order."""
        # A message that the page is sending may be stored at any moment, so both are read anew each time.
        wait_for(
            lambda: self.shown() == self.stored(), f"the page shows {self.shown()} and not {self.stored()}"
        )

    def wait_until_no_fault(self) -> None:
        """Wait until the faults of PostgREST have occurred as often as they were set."""
        wait_for(
            lambda: self.stack.http.get("/__stack/faults").json()["rest"] == [], "the faults did not occur"
        )

    def assert_live(self) -> None:
        """Assert that the page shows new messages, each once."""
        self.write("staff", "player", "staff")
        self.wait_until_all_shown()

    def restart(self) -> None:
        """Kill the daemon, write messages, and start it again."""
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
def sample_stack(
    tmp_path_factory: pytest.TempPathFactory, guide: Guide, template: Template
) -> Iterator[SampleStack]:
    folder = tmp_path_factory.mktemp("samples")
    port = str(free_port())
    with (
        cluster_directory() as data,
        StackProcess(folder, template, data) as stack,
        stack.db() as conn,
        stack.worker(GRE_HTTP_PORT=port) as worker,
    ):
        auth = AuthProxy(f"http://127.0.0.1:{port}")
        env = {"GRE_DEV_STACK": stack.url, **stack.env, "PUSHER_AUTH_URL": auth.url}
        yield SampleStack(stack, conn, worker, auth, World(env=env, keys=stack.keys), guide, folder)
        auth.close()


@pytest.fixture
def samples(sample_stack: SampleStack) -> Iterator[SampleStack]:
    sample_stack.auth.delay, sample_stack.auth.refusals = 0.0, []
    yield sample_stack
    sample_stack.world.close_portals()
    sample_stack.stack.http.delete("/__stack/faults").raise_for_status()


def _drop_pusher(samples: SampleStack) -> None:
    samples.stack.fault("pusher", {"action": "drop_sockets"})


# Pusher


def test_the_pusher_page_shows_messages_during_a_slow_subscription(samples: SampleStack) -> None:
    """No event arrives between `connected` and `subscription_succeeded`, so the page must read after the latter."""
    samples.auth.delay = 3.0
    samples.open(ORDER, PUSHER)
    before = samples.auth.requests
    _drop_pusher(samples)
    wait_for(lambda: samples.auth.requests > before, "the page did not subscribe again")
    samples.write("staff", "player", "staff")
    samples.wait_until_all_shown()
    samples.auth.delay = 0.0
    samples.assert_live()


@pytest.mark.parametrize("status", [503, 429, 403])
def test_the_pusher_page_retries_a_failed_subscription(samples: SampleStack, status: int) -> None:
    page = samples.open(ORDER, PUSHER)
    samples.auth.refusals = [status] * 3
    _drop_pusher(samples)
    wait_for(lambda: not samples.auth.refusals, "the page gave up")
    samples.write("staff", "player")
    samples.wait_until_all_shown()
    # The subscription works again: only a received event calls `ring`.
    samples.assert_live()
    before = len(page.lines)
    samples.write("staff")
    page.line("rang", before)


def test_the_pusher_page_shows_messages_from_an_outage_of_pusher_or_the_daemon(samples: SampleStack) -> None:
    samples.open(ORDER, PUSHER)
    samples.assert_live()
    for _ in range(3):
        samples.write("player", "staff")
        _drop_pusher(samples)
        samples.write("staff", "player")
        samples.wait_until_all_shown()
    samples.restart()
    samples.wait_until_all_shown()
    samples.stack.fault("realtime", {"action": "close_all"})
    samples.assert_live()
    samples.close_session()
    _drop_pusher(samples)
    samples.write("player", "staff")
    samples.wait_until_all_shown()
    samples.assert_live()


def test_the_pusher_page_reads_a_truncated_text(samples: SampleStack) -> None:
    samples.open(ORDER, PUSHER)
    samples.stack.insert(player_id=samples.player, sender="staff", message="🎲" * 2000)
    samples.assert_live()


def test_a_sent_message_is_stored_once_and_shown_in_order(samples: SampleStack) -> None:
    page = samples.open(ORDER, PUSHER, SEND)
    fault = {"mode": "lose_answer", "path": "/rest/v1/gre_chat_messages", "match": "mine", "times": 1}
    samples.stack.fault("rest", fault)
    page.call("send", send="mine 1")
    wait_for(lambda: "mine 1" in str(samples.stored()), "the message was not stored")
    samples.wait_until_no_fault()
    samples.write("staff")
    page.call("send", send="mine 2")
    wait_for(lambda: "mine 2" in str(samples.stored()), "the message was not stored")
    samples.wait_until_all_shown()
    assert str(samples.stored()).count("mine 1") == 1


def test_messages_are_stored_in_the_order_in_which_they_were_sent(samples: SampleStack) -> None:
    page = samples.open(ORDER, PUSHER, SEND)
    fault = {"status": 503, "path": "/rest/v1/gre_chat_messages", "match": "mine 1", "times": 2}
    samples.stack.fault("rest", fault)
    for n in (1, 2, 3):
        page.call("send", send=f"mine {n}")
    wait_for(lambda: len(samples.sent_by_page()) == 3, "the messages were not stored")
    samples.wait_until_no_fault()
    assert samples.sent_by_page() == ["mine 1", "mine 2", "mine 3"]
    samples.wait_until_all_shown()


# Realtime


@pytest.mark.parametrize("page", [(ORDER, REALTIME), (REALTIME_PY,)], ids=["js", "python"])
@pytest.mark.parametrize("cut", ["close_all", "phx_close_all"])
def test_the_realtime_page_shows_messages_from_an_outage_of_realtime(
    samples: SampleStack, page: tuple[tuple[str, str], ...], cut: str
) -> None:
    samples.open(*page)
    samples.assert_live()
    for _ in range(2):
        samples.write("player", "staff")
        samples.stack.fault("realtime", {"action": cut})
        samples.write("staff", "player")
        samples.wait_until_all_shown()
    samples.close_session()
    samples.assert_live()


# /ws


def test_the_socket_page_shows_messages_from_an_outage_of_the_network_or_the_daemon(
    samples: SampleStack,
) -> None:
    page = samples.open(socket_page=True)
    samples.assert_live()
    page.call("send", send="mine 1")
    for _ in range(2):
        samples.restart()
        samples.wait_until_all_shown()
    samples.stack.fault("realtime", {"action": "close_all"})
    page.call("send", send="mine 2")
    samples.assert_live()
    samples.close_session()
    samples.restart()
    samples.assert_live()
    wait_for(lambda: len(samples.sent_by_page()) >= 2, "the messages were not stored")
    samples.wait_until_all_shown()
    assert sorted(samples.sent_by_page()) == ["mine 1", "mine 2"]


@pytest.mark.parametrize("opens", [False, True], ids=["in its session", "opening one"])
def test_a_message_with_a_lost_acknowledgement_is_stored_and_shown_once(
    samples: SampleStack, opens: bool
) -> None:
    page = samples.open(socket_page=True)
    if opens:
        samples.close_session()
    samples.stack.fault("rest", {"mode": "stall", "match": "mine 1", "times": 1})
    page.call("send", send="mine 1")
    wait_for(samples.sent_by_page, "the message was not stored")
    assert "mine 1" not in str(samples.shown())
    samples.restart()
    samples.wait_until_all_shown()
    samples.assert_live()
    assert samples.sent_by_page() == ["mine 1"]


def test_the_first_message_of_a_session_and_its_answers_are_shown_once_after_a_restart(
    samples: SampleStack,
) -> None:
    """The page receives no event for its own message; it must count it, or the answers are out of order."""
    page = samples.open(socket_page=True)
    samples.close_session()
    page.call("send", send="mine first")
    wait_for(lambda: "mine first" in str(samples.shown()), "the message is not shown")
    samples.write("staff", "staff")
    samples.wait_until_all_shown()
    samples.restart()
    samples.wait_until_all_shown()
    samples.assert_live()


def test_a_message_sent_during_an_outage_of_the_daemon_is_stored_once(samples: SampleStack) -> None:
    page = samples.open(socket_page=True)
    samples.worker.kill()
    for n in range(5):
        page.call("send", send=f"mine {n}")
    samples.worker.start()
    wait_for(lambda: "mine 4" in str(samples.stored()), "the messages were not stored")
    samples.wait_until_all_shown()
    assert samples.sent_by_page() == [f"mine {n}" for n in range(5)]


def test_a_message_that_was_unavailable_is_not_overtaken(samples: SampleStack) -> None:
    page = samples.open(socket_page=True)
    # Longer than the API retries by itself, so that the page gets an error for the first message.
    samples.stack.fault("rest", {"status": 503, "match": "mine 1", "for": 11})
    page.call("send", send="mine 1")
    page.call("send", send="mine 2")
    wait_for(lambda: len(samples.sent_by_page()) == 2, "the messages were not stored")
    assert samples.sent_by_page() == ["mine 1", "mine 2"]
    samples.wait_until_all_shown()


def test_the_socket_page_reconnects_with_a_fresh_token(samples: SampleStack) -> None:
    page = samples.open(socket_page=True, expires_in=25)
    page.call("token", token=samples.token())
    deadline = time.monotonic() + 27
    while time.monotonic() < deadline:
        samples.assert_live()
    samples.assert_live()
