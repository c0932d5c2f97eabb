"""Sockets and hub against a model of the database: whatever is lost, late or away, each message once and in order.

The sockets and the hub are the real ones, what they talk to is a conversation in memory that fails, answers
late and loses bells as hypothesis says. Time jumps, so that everything that is remembered for a while is forgotten.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.websockets import WebSocketState
from structlog.testing import capture_logs

from gre_bridge.api.ws.hub import Hub
from gre_bridge.api.ws.session import ClientSession
from gre_bridge.db.types import NewRow
from gre_bridge.db.users import Identity
from gre_bridge.errors import Refused, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.polling import Listening
from tests.support.waiting import next_turn, pause, until

Json = dict[str, Any]
PLAYERS = (1, 2, 3)


class Chat:
    """What the database would say, as `gre_bridge.db.users` tells it."""

    def __init__(self) -> None:
        self.sessions: dict[str, Json] = {}
        self.messages: dict[str, list[Json]] = defaultdict(list)
        self.log: list[str] = []
        """Sessions in the order in which they changed."""
        self.listening: str | None = None
        self.offset = 0.0
        self.away = False
        self.lose_answers = False
        self.delays = [0]
        self._turn = 0

    def clock(self) -> float:
        return time.monotonic() + self.offset

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.clock())

    async def _wait(self) -> None:
        self._turn += 1
        await next_turn(self.delays[self._turn % len(self.delays)])

    async def _pass(self) -> None:
        await self._wait()
        if self.away:
            raise TransientError("away")

    async def _answer(self, value: Any) -> Any:
        await self._wait()
        if self.lose_answers:
            raise TransientError("lost")
        return value

    def commit(self, player: int, sender: str, message_id: str | None = None) -> Json:
        for known in self.messages.values():
            for message in known:
                if message["id"] == message_id:
                    return {"message": message, "duplicate": True}
        found = [s for s in self.sessions.values() if s["player_id"] == player and s["status"] == "active"]
        if not found:
            key = str(uuid.uuid4())
            self.sessions[key] = {
                "id": key, "player_id": player, "status": "active", "assigned_staff_id": None, "last_seq": 0, "rev": 1,
                "created": self.now(), "updated": self.now(),
            }  # fmt: skip
            found = [self.sessions[key]]
        session = found[0]
        session["last_seq"] += 1
        session["rev"] += 1
        session["updated"] = self.now()
        message = {
            "id": message_id or str(uuid.uuid4()), "seq": session["last_seq"], "session_id": session["id"], "player_id": player,
            "message": "x", "sender": sender, "timestamp": "t", "created": self.now(), "created_at": self.now().isoformat(),
        }  # fmt: skip
        self.messages[session["id"]].append(message)
        self.log.append(session["id"])
        return {"message": message, "duplicate": False}

    @staticmethod
    def _shown(row: Json) -> Json:
        return {name: value for name, value in row.items() if name not in ("created", "updated")}

    async def whoami(self, caller: Any) -> Identity:
        await self._pass()
        role, _, who = caller.token.partition(":")
        return Identity(role, int(who), None) if role == "player" else Identity("staff", None, who)

    async def catch_up(self, caller: Any, since: dict[str, int] | None) -> Json:
        await self._pass()
        role, _, who = caller.token.partition(":")
        mine = {k: s for k, s in self.sessions.items() if role == "staff" or s["player_id"] == int(who)}
        named = {k: v for k, v in (since or {}).items() if k in mine}
        newest = [m["created"] for k, v in named.items() for m in self.messages[k] if m["seq"] == v]
        since_when = max(newest) - timedelta(minutes=1) if newest else None
        listed = [
            s
            for k, s in mine.items()
            if s["status"] == "active" or k in named or (since_when and s["updated"] > since_when)
        ]
        positions = {}
        for session in listed:
            at = named.get(session["id"])
            if at is None and since is not None and since_when is None:
                at = 0
            elif at is None and since is not None:
                at = max(
                    (m["seq"] for m in self.messages[session["id"]] if m["created"] <= since_when), default=0
                )
            if at is not None and at < session["last_seq"]:
                positions[session["id"]] = at
        return await self._answer({"sessions": [self._shown(s) for s in listed], "positions": positions})

    async def send(self, caller: Any, *, player_id: int | None, message_id: str, **_: Any) -> Json:
        await self._pass()
        role, _, who = caller.token.partition(":")
        answer = self.commit(int(who) if role == "player" else int(player_id or 1), role, message_id)
        return await self._answer({**answer, "message": self._shown(answer["message"])})

    async def listen(
        self, listener: str, awake: float | None, snapshot: str | None = None, *, idle: bool = False
    ) -> Listening:
        await self._pass()
        if awake is not None:
            self.listening = None if idle else listener
        changed = None if snapshot is None else frozenset(self.log[int(snapshot) :])
        return await self._answer(Listening(1, 1, True, str(len(self.log)), changed))

    async def unlisten(self, listener: str) -> None:
        if self.listening == listener:
            self.listening = None

    async def set_online_status(self, caller: Any, status: str, **_: Any) -> Json:
        await self._pass()
        return {"staff_id": caller.token.partition(":")[2], "display_name": "S", "status": status}

    async def presence(self, **_: Any) -> Json:
        await self._pass()
        return {"online": [], "disabled": [], "revoked": []}

    async def news(
        self,
        *,
        known: Json,
        sessions: list[str],
        players: list[int] | None,
        limit: int,
        size: int,
        since: str | None = None,
        epoch: str | None = None,
    ) -> Json:
        assert limit >= 1 <= size
        await self._pass()
        when = datetime.fromisoformat(since) if since else None
        edge = datetime.fromisoformat(epoch) if epoch else None
        found, limit = list[Json](), min(limit, 3)
        for key, session in sorted(self.sessions.items(), key=lambda one: one[1]["updated"]):
            if not (key in sessions or (when and session["updated"] > when)):
                continue
            if (players is not None and session["player_id"] not in players) or session["rev"] <= known.get(
                key, (0, 0)
            )[1]:
                continue
            after = [
                m
                for m in self.messages[key]
                if m["seq"] > known.get(key, (0, 0))[0] and (key in known or (edge and m["created"] > edge))
            ]
            found.append({
                "session": self._shown(session), "reads": {}, "messages": [self._shown(m) for m in after[:limit]], "more": len(after[:limit]) >= limit,
            })  # fmt: skip
        few, left = found[:2], [one["session"]["id"] for one in found[2:]]
        others = [
            key
            for key in sessions
            if players is not None and key in self.sessions and self.sessions[key]["player_id"] not in players
        ]
        return await self._answer(
            {
                "now": self.now().isoformat(),
                "sessions": few,
                "more": bool(left),
                "skipped": left,
                "other_sessions": others,
            }
        )


class Wire:
    """A WebSocket's server side, by hand."""

    def __init__(self, page: Page) -> None:
        self.headers = Headers({})
        self.client = None
        self.application_state = WebSocketState.CONNECTED
        self.inbox: asyncio.Queue[Json] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        self._page = page

    async def receive(self) -> Json:
        return await self.inbox.get()

    async def send_text(self, text: str) -> None:
        await self.reads.wait()
        self._page.hear(self, json.loads(text))

    async def close(self, *_: Any) -> None:
        self.application_state = WebSocketState.DISCONNECTED

    def say(self, **frame: Any) -> None:
        self.inbox.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})


class Page:
    """A page that reconnects with what it has seen."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.wire: Wire | None = None
        self.task: asyncio.Task[None] | None = None
        self.inside = False
        self.socket: ClientSession | None = None
        self.base: dict[str, int] | None = None
        self.told: dict[str, list[int]] = defaultdict(list)
        self.acked: dict[str, set[int]] = defaultdict(set)

    def since(self) -> dict[str, int] | None:
        if self.base is None:
            return None
        found = dict(self.base)
        for session in {*self.told, *self.acked}:
            while found.get(session, 0) + 1 in {*self.told[session], *self.acked[session]}:
                found[session] = found.get(session, 0) + 1
        return found

    def hear(self, wire: Wire, frame: Json) -> None:
        if wire is not self.wire:
            return  # bytes that a dead connection had under way
        if frame["type"] == "authenticated":
            self.inside = True
            if self.base is None:
                self.base = {s["id"]: s["last_seq"] for s in frame["sessions"]}
        elif frame["type"] == "chat_message":
            self.told[frame["message"]["session_id"]].append(frame["message"]["seq"])
        elif frame["type"] == "message_ack":
            self.acked[frame["sessionId"]].add(frame["seq"])

    def read(self, whether: bool) -> None:
        """Read on, or read nothing more for the time being."""
        if self.wire is not None:
            (self.wire.reads.set if whether else self.wire.reads.clear)()

    def hear_nothing(self, whether: bool) -> None:
        """Its token has expired, or was renewed."""
        if self.socket is not None and self.inside:
            hears = self.socket._hears
            (hears.mute if whether else hears.unmute)()

    def leave(self) -> None:
        if self.wire is not None:
            self.wire.inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.wire, self.inside = None, False

    def come(self, hub: Hub, chat: Chat, metrics: Metrics) -> None:
        self.wire = Wire(self)
        door: Any = SimpleNamespace(admit=lambda _: True, entered=lambda _: None, spend=lambda _: 0.0)
        access: Any = SimpleNamespace(ask=lambda _, __, question: question())
        socket = self.socket = ClientSession(
            self.wire, door=door, hub=hub, portal=chat, access=access, metrics=metrics
        )  # type: ignore[arg-type]
        self.task = asyncio.create_task(socket.run())
        since = self.since()
        self.wire.say(type="authenticate", token=self.token, **({} if since is None else {"since": since}))


STEPS = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(PLAYERS), st.booleans()),
    st.tuples(st.just("commit"), st.sampled_from(PLAYERS), st.booleans()),
    st.tuples(st.just("burst"), st.sampled_from(PLAYERS), st.booleans()),
    st.tuples(st.just("send"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("hop"), st.tuples(st.integers(0, 3), st.integers(0, 12)), st.booleans()),
    st.tuples(st.just("hop"), st.tuples(st.integers(0, 3), st.integers(0, 12)), st.booleans()),
    st.tuples(st.just("leave"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("close"), st.sampled_from(PLAYERS), st.booleans()),
    st.tuples(st.just("read"), st.tuples(st.integers(0, 3), st.booleans()), st.booleans()),
    st.tuples(st.just("expire"), st.tuples(st.integers(0, 3), st.booleans()), st.booleans()),
    st.tuples(st.just("away"), st.booleans(), st.booleans()),
    st.tuples(st.just("lose"), st.booleans(), st.booleans()),
    st.tuples(st.just("time"), st.sampled_from([1.0, 30.0, 70.0, 700.0]), st.booleans()),
    st.tuples(st.just("turns"), st.integers(1, 30), st.booleans()),
    st.tuples(st.just("rest"), st.just(0), st.booleans()),
)


class Play:
    """One run."""

    def __init__(self, delays: list[int]) -> None:
        self.chat, self.metrics = Chat(), Metrics()
        self.chat.delays = delays
        portal: Any = self.chat
        self.hub = Hub(
            portal=portal, metrics=self.metrics, sweep_interval=0.004, fast_sweep_interval=0.004, feed_healthy=lambda: True,
            broadcast=self._nowhere, clock=self.chat.clock,
        )  # fmt: skip
        self.pages = [Page("staff:s1"), Page("player:1"), Page("player:1"), Page("player:2")]

    async def _nowhere(self, event: str, body: Json) -> None:
        pass

    async def step(self, kind: str, what: Any, bell: bool) -> None:
        await getattr(self, f"_{kind}")(what, bell)

    def _committed(self, player: int, bell: bool) -> None:
        session = self.chat.commit(player, "player")["message"]["session_id"]
        if bell:
            self.hub.ring(frozenset((session,)))

    async def _commit(self, player: int, bell: bool) -> None:
        self._committed(player, bell)

    async def _burst(self, player: int, bell: bool) -> None:
        for _ in range(7):
            self._committed(player, bell)

    async def _close(self, player: int, bell: bool) -> None:
        for session in self.chat.sessions.values():
            if session["player_id"] == player and session["status"] == "active":
                session.update(status="closed", rev=session["rev"] + 1, updated=self.chat.now())
                if bell:
                    self.hub.ring(None)

    async def _send(self, n: int, _: bool) -> None:
        page = self.pages[n]
        if page.wire is not None:
            page.wire.say(
                type="send_message", message="x", playerId=2 if page.token.startswith("s") else None
            )

    async def _hop(self, what: tuple[int, int], bell: bool) -> None:
        n, turns = what
        self.pages[n].leave()
        self.pages[n].come(self.hub, self.chat, self.metrics)
        # Something commits in each moment of its entering.
        for _ in range(turns):
            await next_turn(turns)
            self._committed(1, bell)

    async def _leave(self, n: int, _: bool) -> None:
        self.pages[n].leave()

    async def _read(self, what: tuple[int, bool], _: bool) -> None:
        self.pages[what[0]].read(what[1])

    async def _expire(self, what: tuple[int, bool], _: bool) -> None:
        self.pages[what[0]].hear_nothing(what[1])

    async def _away(self, what: bool, _: bool) -> None:
        self.chat.away = what

    async def _lose(self, what: bool, _: bool) -> None:
        self.chat.lose_answers = what

    async def _time(self, seconds: float, _: bool) -> None:
        self.chat.offset += seconds

    async def _turns(self, count: int, _: bool) -> None:
        await next_turn(count)

    async def _rest(self, _: int, bell: bool) -> None:
        await pause(0.006 if bell else 0, "timers of the hub run out")

    async def settle(self) -> None:
        """Everything works again; every page is there and has everything."""
        self.chat.away = self.chat.lose_answers = False
        deadline = time.monotonic() + 40
        while True:
            for page in self.pages:
                page.read(True)
                page.hear_nothing(False)
                if page.task is None or page.task.done() or page.wire is None:
                    page.leave()
                    page.come(self.hub, self.chat, self.metrics)
            await pause(0.01, "before the next look at the pages")
            if all(page.inside and not self.missing(page) for page in self.pages):
                return
            assert time.monotonic() < deadline, [self.missing(page) for page in self.pages]

    def missing(self, page: Page) -> list[tuple[str, int]]:
        role, _, who = page.token.partition(":")
        base = page.base or {}
        return [
            (key, seq)
            for key, session in self.chat.sessions.items() if role == "staff" or session["player_id"] == int(who)
            for seq in range(base.get(key, 0) + 1, session["last_seq"] + 1)
            if seq not in page.told[key] and seq not in page.acked[key]
        ]  # fmt: skip

    async def run(self, steps: list[tuple[str, Any, bool]]) -> None:
        telling = asyncio.create_task(self.hub.run())
        try:
            # Everybody comes before most is there, so that everything afterwards is theirs to hear.
            self.chat.commit(1, "player")
            self.chat.commit(2, "player")
            await self.settle()
            for kind, what, bell in steps:
                await self.step(kind, what, bell)
            await self.settle()
            for page in self.pages:
                role, _, who = page.token.partition(":")
                for key, seqs in page.told.items():
                    assert seqs == sorted(set(seqs)), "repeated, or out of order"
                    assert not [s for s in seqs if s <= (page.base or {}).get(key, 0)], (
                        "told what it had at first"
                    )
                    assert role == "staff" or self.chat.sessions[key]["player_id"] == int(who), (
                        "told what is another's"
                    )
        finally:
            for page in self.pages:
                page.leave()
            telling.cancel()
            await asyncio.wait(
                [telling, *(page.task for page in self.pages if page.task is not None)], timeout=5
            )


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(STEPS, max_size=40),
    delays=st.lists(st.sampled_from([0, 0, 0, 1, 4, 60]), min_size=1, max_size=7),
)
def test_each_page_hears_each_message_once_and_in_order(
    steps: list[tuple[str, Any, bool]], delays: list[int]
) -> None:
    # (So that a page that does not read is soon behind.)
    with mock.patch.multiple("gre_bridge.api.ws.transport", FULL_FRAMES=3, BUSY_FRAMES=1):
        asyncio.run(Play(delays).run(steps))


def test_whatever_moment_something_commits_while_a_page_enters() -> None:
    for delays in itertools.product([0, 4, 40], repeat=4):
        asyncio.run(Play(list(delays)).run([("hop", (1, 7), True), ("turns", 50, True), ("commit", 1, True)]))


class Ear:
    """A socket that writes down which messages the hub told it."""

    def __init__(self, identity: Identity = Identity("staff", None, "s1")) -> None:  # noqa: B008 - it is frozen
        self.identity = identity
        self.told: list[tuple[str, int]] = []
        self.frames: list[str] = []

    def message(self, message: Json, text: str) -> None:
        self.told.append((message["session_id"], message["seq"]))
        self.frames.append(text)

    busy = False

    def news(self, session: str, seq: int, what: int, text: str) -> None:  # noqa: ARG002
        self.frames.append(text)

    def staff_status(self, staff_id: str, text: str) -> None:  # noqa: ARG002
        self.frames.append(text)

    def hint(self, text: str) -> None:
        self.frames.append(text)

    def forget(self, passed: Json, *, since: float) -> None:
        pass

    def end(self, code: int, reason: str, error: str = "") -> None:
        raise AssertionError((code, reason, error))


async def test_who_comes_in_is_told_nothing_of_the_minute_before_and_everything_after() -> None:
    """Who comes in reads that minute itself: a bulk in it would be held for each socket, and thrown away."""
    play, ear = Play([0]), Ear()
    old = [play.chat.commit(player, "player")["message"]["session_id"] for player in (1, 2, 3, 1, 1)]
    telling = asyncio.create_task(play.hub.run())
    try:
        assert play.hub.has_told(NewRow("x", old[0], 3)), "nobody is here"
        play.hub.add(ear)
        assert not play.hub.has_told(NewRow("x", old[0], 3)), "it has not looked yet"
        async with asyncio.timeout(20):
            await play.hub.looking()
        assert ear.told == []
        assert play.hub.has_told(NewRow("x", old[0], 3))
        for player in (
            1,
            1,
            1,
            1,
            1,
            4,
        ):  # more of one session than is read at once, and a session that is new
            last = play.chat.commit(player, "player")["message"]
        assert not play.hub.has_told(NewRow("x", old[0], 4))
        play.hub.ring(frozenset((old[0], last["session_id"])))
        async with asyncio.timeout(20):
            await until(lambda: len(ear.told) >= 6, every=0)
        assert [seq for session, seq in ear.told if session == old[0]] == [4, 5, 6, 7, 8]
        assert (last["session_id"], 1) in ear.told
        assert play.hub.has_told(NewRow("x", old[0], 8))
    finally:
        telling.cancel()
        await asyncio.wait([telling], timeout=5)


class Silent:
    """A feed that can be relied on, and that nothing comes of."""

    healthy = True
    last_wakeup = listening_since = 0.0

    def __init__(self) -> None:
        self.missed_wakeups = 0

    def report_missed_wakeup(self) -> None:
        self.missed_wakeups += 1
        self.healthy = False

    def set_row_changes(self, enabled: bool) -> None:
        assert not enabled


async def test_a_hub_that_is_not_woken_looks_by_itself_and_notices_it() -> None:
    """Without a relay beside it nobody else would notice that wake-ups do not arrive."""
    play, ear, feed = Play([0]), Ear(), Silent()
    play.hub = Hub(
        portal=play.chat, metrics=play.metrics, sweep_interval=0.5, fast_sweep_interval=0.05,  # type: ignore[arg-type]
        feed_healthy=lambda: True, broadcast=play._nowhere, wakeups=feed, clock=play.chat.clock,
    )  # fmt: skip
    play.chat.commit(1, "player")
    telling = asyncio.create_task(play.hub.run())
    try:
        assert play.chat.listening is None, "nobody is here"
        play.hub.add(ear)
        async with asyncio.timeout(20):
            await play.hub.looking()
            await until(lambda: play.chat.listening is not None, every=0.001)
            for told in itertools.count(1):
                play.chat.commit(told % 3, "player")
                play.chat.offset += 1.0
                await until(lambda told=told: len(ear.told) >= told, every=0.001)
                if feed.missed_wakeups:
                    break
            assert told > 1, "the wake-up may have been on its way"
            play.hub.remove(ear)
            await until(lambda: play.chat.listening is None, every=0.001)
    finally:
        telling.cancel()
        await asyncio.wait([telling], timeout=5)


async def test_a_session_is_anothers_only_when_the_database_says_so() -> None:
    """A bell may come before its commit can be seen: what is not found then is looked for again at the next bell."""
    play, ear = Play([0]), Ear(Identity("player", 1, None))
    mine, yours = (play.chat.commit(player, "player")["message"]["session_id"] for player in (1, 2))
    telling = asyncio.create_task(play.hub.run())
    try:
        play.hub.add(ear)
        async with asyncio.timeout(20):
            await play.hub.looking()
            unseen = str(uuid.uuid4())
            play.hub.ring(frozenset((mine, yours, unseen)))
            # It is another's, so nobody here waits for it.
            await until(lambda: play.hub.has_told(NewRow("x", yours, 9)), every=0)
            assert not play.hub.has_told(NewRow("x", unseen, 1))
            assert not play.hub.has_told(NewRow("x", mine, 2))
            told = play.chat.commit(1, "player")["message"]
            play.hub.ring(frozenset((mine,)))
            await until(lambda: ear.told == [(mine, told["seq"])], every=0)
    finally:
        telling.cancel()
        await asyncio.wait([telling], timeout=5)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused(401, "token_invalid", "the token is not valid"), 4401),
        (None, 4403),
        (TransientError("away"), None),
    ],
)
async def test_a_socket_by_the_service_key_asks_whether_the_key_still_speaks_for_its_person(
    error: Exception | None, code: int | None
) -> None:
    """The key has no end, or one in ten years; but it can be withdrawn."""
    play, page = Play([0]), Page("sb_secret_key")
    asked = asyncio.Event()
    closed: list[int] = []

    async def whoami(_: Any) -> Identity:
        if not page.inside:
            return Identity("player", 1, expires_at=2e9)
        asked.set()
        if error is not None:
            raise error
        return Identity("none")

    async def catch_up(*_: Any) -> Json:
        return {"sessions": [], "positions": {}}

    play.chat.whoami, play.chat.catch_up = whoami, catch_up  # type: ignore[method-assign, assignment]
    telling = asyncio.create_task(play.hub.run())
    with mock.patch("gre_bridge.api.ws.session.ASK_AGAIN", 0.01):
        page.come(play.hub, play.chat, play.metrics)
        assert page.wire is not None and page.task is not None

        async def close(number: int, *_: Any) -> None:
            closed.append(number)

        page.wire.close = close  # type: ignore[method-assign, assignment]
        async with asyncio.timeout(20):
            await asked.wait()
            if code:
                await page.task
            else:
                asked.clear()
                await asked.wait()
    assert closed == ([code] if code else [])
    page.leave()
    telling.cancel()
    await asyncio.wait([telling, page.task], timeout=5)


async def test_a_read_that_is_too_large_is_halved_until_it_succeeds() -> None:
    """It was repeated as it was, without end."""
    play, ear = Play([0]), Ear()
    news, asked = play.chat.news, list[tuple[int, int]]()

    async def small_only(**asks: Any) -> Json:
        asked.append((asks["limit"], asks["size"]))
        if asks["size"] > 100_000:
            raise TransientError("the answer is too long", code="unreadable")
        return await news(**asks)

    telling = asyncio.create_task(play.hub.run())
    with mock.patch("gre_bridge.api.ws.hub.RETRY", 0.001):
        try:
            play.hub.add(ear)
            async with asyncio.timeout(20):
                await play.hub.looking()
                play.chat.news = small_only  # type: ignore[method-assign, assignment]
                for _ in range(5):
                    last = play.chat.commit(1, "player")["message"]
                play.hub.ring(frozenset((last["session_id"],)))
                await until(lambda: len(ear.told) >= 5, every=0.001)
        finally:
            telling.cancel()
            await asyncio.wait([telling], timeout=5)
    assert [seq for _, seq in ear.told] == [1, 2, 3, 4, 5]
    assert asked[0] == (200, 1_000_000) and (12, 62_500) in asked, asked


async def test_news_that_cannot_be_told_hold_nobody_else_up() -> None:
    """One session's entry is not what it should be: that one is passed over, visibly, and the next message is told again."""
    play, ear = Play([0]), Ear()
    news, broken = play.chat.news, set[str]()

    async def spoilt(**asks: Any) -> Json:
        found = await news(**asks)
        for entry in found["sessions"]:
            if entry["session"]["id"] in broken:
                entry["messages"] = [{"seq": message["seq"]} for message in entry["messages"]]
        return found

    play.chat.news = spoilt  # type: ignore[method-assign]
    telling = asyncio.create_task(play.hub.run())
    try:
        play.hub.add(ear)
        async with asyncio.timeout(20):
            await play.hub.looking()
            sessions = [play.chat.commit(player, "player")["message"]["session_id"] for player in (1, 2, 3)]
            broken.add(sessions[0])
            with capture_logs() as said:
                play.hub.ring(frozenset(sessions))
                await until(lambda: len(ear.told) >= 2, every=0.001)
            assert {session for session, _ in ear.told} == {*sessions[1:]}
            assert [line["session"] for line in said if line["log_level"] == "error"] == [sessions[0]]
            broken.clear()
            play.chat.commit(1, "player")
            play.hub.ring(frozenset(sessions))
            await until(lambda: ear.told[-1] == (sessions[0], 2), every=0.001)
    finally:
        telling.cancel()
        await asyncio.wait([telling], timeout=5)


async def test_what_follows_ones_own_message_waits_for_its_acknowledgement() -> None:
    """Told before, it would come again: who comes back says up to where it has everything, and its own is missing there."""
    play = Play([0])
    send, answered = play.chat.send, asyncio.Event()

    async def slow(*arguments: Any, **asks: Any) -> Json:
        answer = await send(*arguments, **asks)
        await answered.wait()
        return answer

    play.chat.send = slow  # type: ignore[method-assign]
    telling = asyncio.create_task(play.hub.run())
    page = play.pages[1]
    frames: list[tuple[str, int]] = []
    hear = page.hear

    def note(wire: Wire, frame: Json) -> None:
        if frame["type"] in ("message_ack", "chat_message"):
            frames.append((frame["type"], frame.get("seq") or frame["message"]["seq"]))
        hear(wire, frame)

    page.hear = note  # type: ignore[method-assign]
    try:
        page.come(play.hub, play.chat, play.metrics)
        other = play.pages[2]
        other.come(play.hub, play.chat, play.metrics)
        async with asyncio.timeout(20):
            await until(lambda: page.inside and other.inside, every=0)
            assert page.wire is not None
            page.wire.say(type="send_message", message="x")
            await until(lambda: play.chat.messages, every=0)
            last = play.chat.commit(1, "staff")["message"]
            play.hub.ring(frozenset((last["session_id"],)))
            await until(lambda: other.told[last["session_id"]] == [1, 2], every=0.001)
            assert frames == []
            answered.set()
            await until(lambda: len(frames) >= 2, every=0.001)
        assert frames == [("message_ack", 1), ("chat_message", 2)]
    finally:
        for one in (page, play.pages[2]):
            one.leave()
        telling.cancel()
        await asyncio.wait([telling], timeout=5)
