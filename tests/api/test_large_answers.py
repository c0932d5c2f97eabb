"""The cost of a long history: pages by bytes, unread answers, many reads of one person."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gre_bridge.api import read_limits
from gre_bridge.api.read_limits import ReadLimits
from tests.api.conftest import Api, Person
from tests.api.files import LINKS
from tests.support.hostile import memory, raw, send_all
from tests.support.loopback import NO_TLS, PATIENT
from tests.support.waiting import next_turn, until

MB = 1_000_000
LONG = 500


@pytest.fixture(scope="module")
def crowd(api: Api) -> Iterator[int]:
    """A player with 500 messages of 4,000 emoji (8 MB), and 300 players whose last message is as long."""
    from tests.api.conftest import _players

    first = next(_players)
    with api.stack.db() as conn:
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, sender_name, message)"
            " select %s, 'staff', 'Sam', repeat('\U0001f3b2', 3990) || n from generate_series(1, %s) n",
            (first, LONG),
        )
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, sender_name, message)"
            " select %s + n, 'staff', 'Sam', repeat('\U0001f3b2', 3990) || n from generate_series(1, 300) n",
            (first + 10**10,),
        )
    yield first
    with api.stack.db() as conn:
        conn.execute("delete from gre_chat_messages where player_id = %s or player_id > 10^10", (first,))


def walk(who: Person, path: str, key: str, cursor: str) -> tuple[list[dict[str, Any]], int]:
    """Return all rows of the pages, and the bytes of the longest page."""
    found: list[dict[str, Any]] = []
    longest, at = 0, ""
    for _ in range(200):
        answer = who.get(path, params={"limit": 500, **({cursor: at} if at else {})})
        assert answer.status_code == 200, answer.text
        longest = max(longest, len(answer.content))
        body = answer.json()
        found += body if isinstance(body, list) else body[key]
        at = answer.headers.get("x-next-before") if isinstance(body, list) else body.get("next")
        if not at:
            break
    return found, longest


def test_pages_are_a_megabyte_at_most_and_nothing_is_left_out(api: Api, crowd: int) -> None:
    for path in (f"/api/gre-chat/messages/{crowd}", f"/api/chat-history/{crowd}"):
        found, longest = walk(api.player(crowd), path, "messages", "before")
        assert len({message["id"] for message in found}) == len(found) == LONG
        assert longest < 1.2 * MB, path
    session = found[0]["session_id"]
    at, seqs = 0, []
    while True:
        answer = api.staff().get(f"/api/gre-admin/messages/{session}", params={"after_seq": at, "limit": 500})
        assert len(answer.content) < 1.2 * MB
        seqs += [message["seq"] for message in answer.json()["messages"]]
        if not answer.json()["has_more"]:
            break
        at = seqs[-1]
    assert seqs == list(range(1, LONG + 1))
    for path in ("/api/gre-admin/sessions", "/api/gre-admin/queue"):
        found, longest = walk(api.staff(), path, "sessions", "cursor")
        assert len({session["id"] for session in found}) == len(found) >= 301
        assert longest < 1.2 * MB, path


def test_unread_histories_cost_little(api: Api, crowd: int, player_id: int) -> None:
    token = api.stack.keys.user_token("player", player_id=crowd)
    request = (
        f"GET /api/chat-history/{crowd}?limit=500 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    api.player(crowd).get(f"/api/chat-history/{crowd}?limit=500")
    before, most = memory(api.worker.pid), 0
    with contextlib.ExitStack() as held:
        for _ in range(40):
            sock = held.enter_context(contextlib.closing(raw(api.worker.url, receive_buffer=4096)))
            send_all(sock, iter([request]), len(request))
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline:
            most = max(most, memory(api.worker.pid) - before)
            began = time.monotonic()
            assert api.player(player_id).get(f"/api/gre-chat/messages/{player_id}").status_code == 200
            assert time.monotonic() - began < read_limits.SEND_TIMEOUT
        # Its own reads are too many; everybody else's are answered.
        assert api.player(player_id).get(f"/api/chat-history/{player_id}").status_code == 200
    assert most < 60 * MB, f"{most / MB:.0f} MB"


def test_many_reads_of_one_person_are_answered_in_turn(api: Api, crowd: int, player_id: int) -> None:
    token = api.stack.keys.user_token("player", player_id=crowd)
    outcomes: Counter[int] = Counter()
    stop = threading.Event()

    def flood() -> None:
        with httpx.Client(base_url=api.worker.url, timeout=PATIENT, trust_env=False, verify=NO_TLS) as http:
            while not stop.is_set():
                answer = http.get(
                    f"/api/chat-history/{crowd}?limit=500", headers={"Authorization": f"Bearer {token}"}
                )
                outcomes[answer.status_code] += 1

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    try:
        for n in range(20):
            began = time.monotonic()
            api.player(player_id).send(f"hello {n}")
            slowest = max(slowest, time.monotonic() - began)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert set(outcomes) == {200} and outcomes[200] > 8
    assert slowest < read_limits.QUEUE_TIMEOUT * 2, "it does not stand in the queue of the other"


# The middleware alone -----------------------------------------------------------------------------------------


class Peer:
    """A peer that reads so many pieces and then stops reading."""

    def __init__(self, takes: int) -> None:
        self.left = takes
        self.got: list[Message] = []
        self.reads = asyncio.Event()

    async def send(self, message: Message) -> None:
        if self.left <= 0:
            await self.reads.wait()
        self.left -= 1
        self.got.append(message)

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.got[1:])


async def _big(scope: Scope, receive: Receive, send: Send) -> None:
    last = scope["path"].rpartition("/")[2]
    await Response(b"x" * (int(last) if last.isdigit() else 10))(scope, receive, send)


def ask(
    app: ReadLimits, peer: Peer, size: int, token: str = "t", method: str = "GET", path: str = ""
) -> asyncio.Task[None]:
    scope = {
        "type": "http", "method": method, "path": path or f"/api/{size}", "headers": [(b"authorization", token.encode())],
    }  # fmt: skip

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    return asyncio.create_task(app(scope, receive, peer.send))


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
async def test_an_answer_arrives_whole_in_pieces(size: int) -> None:
    app, peer = ReadLimits(_big), Peer(100)
    await ask(app, peer, size)
    assert peer.body == b"x" * size
    assert [message.get("more_body", False) for message in peer.got[1:]][-1:] == [False]
    assert all(len(message["body"]) <= 65_536 for message in peer.got[1:])
    assert not app._persons and not app._unsent


async def test_unread_answers_are_bounded_in_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_limits, "MAX_UNSENT", 1_000_000)
    app = ReadLimits(_big)
    slow = [Peer(1) for _ in range(6)]
    tasks = [ask(app, peer, 200_000, f"t{n}") for n, peer in enumerate(slow)]
    await next_turn()
    await until(lambda: slow[5].got, every=0)
    assert slow[5].status == 503 and [peer.status for peer in slow[:5]] == [200] * 5
    for peer in slow:
        peer.left = 100
        peer.reads.set()
    await asyncio.gather(*tasks)
    assert app._unsent == 0


async def test_an_answer_that_is_not_read_in_time_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_limits, "SEND_TIMEOUT", 0.05)
    app, peer = ReadLimits(_big), Peer(2)
    await ask(app, peer, 200_000)
    assert len(peer.body) < 200_000
    assert not app._persons and app._unsent == 0


async def test_reads_of_one_person_wait_for_each_other_and_delay_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_limits, "QUEUE_TIMEOUT", 0.05)
    app = ReadLimits(_big)
    slow = [Peer(0) for _ in range(read_limits.MAX_READS_PER_PERSON)]
    tasks = [ask(app, peer, 10) for peer in slow]
    await next_turn()
    late, other, linked, sent = (Peer(100) for _ in range(4))
    await asyncio.gather(
        ask(app, late, 10),
        ask(app, other, 10, "another"),
        ask(app, linked, 10, method="POST", path=LINKS),
        ask(app, sent, 10, method="POST", path="/api/gre-chat/send"),
    )
    assert (late.status, other.status, linked.status, sent.status) == (429, 200, 429, 200)
    for peer in slow:
        peer.left = 100
        peer.reads.set()
    await asyncio.gather(*tasks, ask(app, again := Peer(100), 10))
    assert again.status == 200 and not app._persons
