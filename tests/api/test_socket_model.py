"""Sessions and hub against a model of the database: each message once and in order, through losses, delays and outages.

Sessions and hub are the real ones. The database is a model in memory that fails, answers late and loses wake-ups as
hypothesis chooses. Time jumps, so that everything that is remembered for a while is forgotten.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
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

from gre_bridge.api.server.websocket_protocol import OFFER
from gre_bridge.api.ws.hub import Hub
from gre_bridge.api.ws.session import ClientSession
from gre_bridge.db.callers import Identity
from gre_bridge.db.types import NewRow
from gre_bridge.errors import Refused, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.polling import Listening
from tests.support.waiting import next_turn, pause, until

Json = dict[str, Any]
PLAYERS = (1, 2, 3)


CLAIMS = {"player:1": 1, "player:2": 3}
"""The player that a token names. The second one names another than it is verified as; staff's name none."""


@pytest.fixture(autouse=True)
def _claims() -> Iterator[None]:
    with mock.patch("gre_bridge.api.ws.session.claimed_player", lambda caller: CLAIMS.get(caller.token)):
        yield


class Chat:
    """A model of the database, with the methods of UserDatabase."""

    def __init__(self) -> None:
        self.sessions: dict[str, Json] = {}
        self.messages: dict[str, list[Json]] = defaultdict(list)
        self.notes: dict[str, list[Json]] = defaultdict(list)
        self.log: list[str] = []
        """Sessions in the order in which they changed."""
        self.listener: str | None = None
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

    def add(self, player: int) -> str | None:
        """Add a note to the player's latest session, if there is one."""
        found = [s for s in self.sessions.values() if s["player_id"] == player]
        if not found:
            return None
        key = found[-1]["id"]
        found[-1].update(rev=found[-1]["rev"] + 1, updated=self.now())
        self.notes[key].append(
            {"id": str(uuid.uuid4()), "session_id": key, "n": len(self.notes[key]) + 1, "created": self.now()}
        )
        self.log.append(key)
        return str(key)

    def _new_notes(self, key: str, after: int | None, edge: datetime | None) -> Json:
        """See gre.new_notes: at most two here."""
        notes = self.notes[key]
        new = [
            note
            for note in notes
            if note["n"] > (after or 0) and (after is not None or (edge and note["created"] > edge))
        ]
        cut = {"more": True} if len(new) > 2 else {}
        return {"last_note": len(notes), "notes": [self._shown(note) for note in new[:2]], **cut}

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

    async def enter(self, caller: Any, since: dict[str, int] | None) -> tuple[Identity, Json]:
        return await self.whoami(caller), await self.catch_up(caller, since)

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
            self.listener = None if idle else listener
        changed = None if snapshot is None else frozenset(self.log[int(snapshot) :])
        return await self._answer(Listening(1, 1, True, str(len(self.log)), changed))

    async def unlisten(self, listener: str) -> None:
        if self.listener == listener:
            self.listener = None

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
        for key, session in sorted(self.sessions.items(), key=lambda item: item[1]["updated"]):
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
            notes = (
                self._new_notes(key, known[key][2] if key in known else None, edge) if players is None else {}
            )
            found.append({
                "session": self._shown(session), "reads": {}, "messages": [self._shown(m) for m in after[:limit]], "more": len(after[:limit]) >= limit,
                **notes,
            })  # fmt: skip
        few, left = found[:2], [item["session"]["id"] for item in found[2:]]
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
    """The server side of a WebSocket."""

    def __init__(self, page: Page) -> None:
        self.headers = Headers({})
        self.client = None
        self.application_state = WebSocketState.CONNECTED
        self.inbox: asyncio.Queue[Json] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        self._page = page
        self.scope: Json = {"extensions": {OFFER: {"offer": self.offer}}}

    async def receive(self) -> Json:
        return await self.inbox.get()

    def offer(self, data: bytes) -> bool:
        if self.reads.is_set():
            self._page.receive(self, json.loads(data[data.index(b"{") :]))
        return self.reads.is_set()

    async def send_text(self, text: str) -> None:
        await self.reads.wait()
        self._page.receive(self, json.loads(text))

    async def close(self, *_: Any) -> None:
        self.application_state = WebSocketState.DISCONNECTED

    def say(self, **frame: Any) -> None:
        self.inbox.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})


class Page:
    """A page that reconnects with what it has seen."""

    def __init__(self, token: str, chat: Chat) -> None:
        self.token = token
        self.chat = chat
        self.notes: dict[str, list[int]] = defaultdict(list)
        """The notes that this connection has received, by session."""
        self.notes_before: dict[str, int] = {}
        """The number of notes when this connection had entered."""
        self.wire: Wire | None = None
        self.task: asyncio.Task[None] | None = None
        self.entered = False
        self.session: ClientSession | None = None
        self.base: dict[str, int] | None = None
        self.known = set[str]()
        """The sessions that it was told of."""
        self.late = False
        """What it had not received when time jumped may be older than the minute that `since` allows for."""
        self.received: dict[str, list[int]] = defaultdict(list)
        self.acked: dict[str, set[int]] = defaultdict(set)

    def since(self) -> dict[str, int] | None:
        if self.base is None:
            return None
        # What it missed may come after something newer, and the connection may end in between.
        found = {**dict.fromkeys(self.known, 0), **self.base}
        for session in {*self.received, *self.acked}:
            while found.get(session, 0) + 1 in {*self.received[session], *self.acked[session]}:
                found[session] = found.get(session, 0) + 1
        return found

    def receive(self, wire: Wire, frame: Json) -> None:
        if wire is not self.wire:
            return  # bytes in flight on a dead connection
        if frame["type"] == "authenticated":
            if not self.entered:
                self.notes_before = {key: len(notes) for key, notes in self.chat.notes.items()}
            self.entered = True
            self.known |= {s["id"] for s in frame["sessions"]}
            if self.base is None:
                self.base = {s["id"]: s["last_seq"] for s in frame["sessions"]}
        elif frame["type"] == "chat_message":
            self.received[frame["message"]["session_id"]].append(frame["message"]["seq"])
        elif frame["type"] == "session_note":
            self.notes[frame["note"]["session_id"]].append(frame["note"]["n"])
        elif frame["type"] == "message_ack":
            self.acked[frame["sessionId"]].add(frame["seq"])

    def set_reading(self, reading: bool) -> None:
        """Read, or stop reading."""
        if self.wire is not None:
            (self.wire.reads.set if reading else self.wire.reads.clear)()

    def set_muted(self, muted: bool) -> None:
        """Let the token expire, or renew it."""
        if self.session is not None and self.entered:
            subscriber = self.session._subscriber
            (subscriber.mute if muted else subscriber.unmute)()

    def leave(self) -> None:
        if self.wire is not None:
            self.wire.inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.wire, self.entered = None, False

    def come(self, hub: Hub, chat: Chat, metrics: Metrics) -> None:
        self.wire = Wire(self)
        self.notes.clear()
        endpoint: Any = SimpleNamespace(
            admits=lambda _: True,
            remove_pending=lambda _: None,
            spend=lambda _: 0.0,
            entering=lambda _: nullcontext(),
        )
        authenticator: Any = SimpleNamespace(
            whoami=lambda _, caller: chat.whoami(caller),
            enter=lambda _, caller, since: chat.enter(caller, since),
        )
        self.session = ClientSession(
            self.wire, endpoint=endpoint, hub=hub, users=chat, authenticator=authenticator, metrics=metrics
        )  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.session.run())
        since = self.since()
        self.wire.say(type="authenticate", token=self.token, **({} if since is None else {"since": since}))


STEPS = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(PLAYERS), st.booleans()),
    st.tuples(st.just("commit"), st.sampled_from(PLAYERS), st.booleans()),
    st.tuples(st.just("burst"), st.sampled_from(PLAYERS), st.booleans()),
    st.tuples(st.just("note"), st.tuples(st.sampled_from(PLAYERS), st.integers(1, 4)), st.booleans()),
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


class SilentRealtime:
    """A subscription that is healthy and delivers nothing."""

    healthy = True
    last_wakeup = listening_since = 0.0

    def __init__(self) -> None:
        self.missed_wakeups = 0

    def report_missed_wakeup(self) -> None:
        self.missed_wakeups += 1
        self.healthy = False

    def set_row_changes(self, enabled: bool) -> None:
        assert not enabled

    async def broadcast(self, event: str, payload: Json) -> None:
        pass


class Play:
    """One run."""

    def __init__(self, delays: list[int]) -> None:
        self.chat, self.metrics = Chat(), Metrics()
        self.chat.delays = delays
        users: Any = self.chat
        self.realtime = SilentRealtime()
        self.hub = Hub(
            users=users, metrics=self.metrics, poll_interval=0.004, fast_poll_interval=0.004, realtime=self.realtime,
            clock=self.chat.clock,
        )  # fmt: skip
        tokens = ("staff:s1", "player:1", "player:1", "player:2")
        self.pages = [Page(token, self.chat) for token in tokens]

    async def step(self, kind: str, what: Any, wakeup: bool) -> None:
        await getattr(self, f"_{kind}")(what, wakeup)

    def _committed(self, player: int, wakeup: bool) -> None:
        session = self.chat.commit(player, "player")["message"]["session_id"]
        if wakeup:
            self.hub.notify(frozenset((session,)))

    async def _commit(self, player: int, wakeup: bool) -> None:
        self._committed(player, wakeup)

    async def _burst(self, player: int, wakeup: bool) -> None:
        for _ in range(7):
            self._committed(player, wakeup)

    async def _note(self, what: tuple[int, int], wakeup: bool) -> None:
        for _ in range(what[1]):
            session = self.chat.add(what[0])
            if wakeup and session is not None:
                self.hub.notify(frozenset((session,)))

    async def _close(self, player: int, wakeup: bool) -> None:
        for session in self.chat.sessions.values():
            if session["player_id"] == player and session["status"] == "active":
                session.update(status="closed", rev=session["rev"] + 1, updated=self.chat.now())
                if wakeup:
                    self.hub.notify(None)

    async def _send(self, n: int, _: bool) -> None:
        page = self.pages[n]
        if page.wire is not None:
            page.wire.say(
                type="send_message", message="x", playerId=2 if page.token.startswith("s") else None
            )

    async def _hop(self, what: tuple[int, int], wakeup: bool) -> None:
        n, turns = what
        if not self._stays(self.pages[n]):
            self.pages[n].leave()
            self.pages[n].come(self.hub, self.chat, self.metrics)
        # Commit at each moment of the entry.
        for _ in range(turns):
            await next_turn(turns)
            self._committed(1, wakeup)

    async def _leave(self, n: int, _: bool) -> None:
        if not self._stays(self.pages[n]):
            self.pages[n].leave()

    def _stays(self, page: Page) -> bool:
        """Return True if a connection must last until the page has everything: by time alone it would not get the rest."""
        page.late = page.late and page.wire is not None and bool(self.missing(page))
        return page.late

    async def _read(self, what: tuple[int, bool], _: bool) -> None:
        self.pages[what[0]].set_reading(what[1])

    async def _expire(self, what: tuple[int, bool], _: bool) -> None:
        self.pages[what[0]].set_muted(what[1])

    async def _away(self, what: bool, _: bool) -> None:
        self.chat.away = what

    async def _lose(self, what: bool, _: bool) -> None:
        self.chat.lose_answers = what

    async def _time(self, seconds: float, _: bool) -> None:
        self.chat.offset += seconds
        for page in self.pages if seconds > 60 else ():
            page.late |= page.wire is not None

    async def _turns(self, count: int, _: bool) -> None:
        await next_turn(count)

    async def _rest(self, _: int, wakeup: bool) -> None:
        await pause(0.006 if wakeup else 0, "timers of the hub run out")

    async def settle(self) -> None:
        """Repair everything; wait until each page is connected and has every message."""
        self.chat.away = self.chat.lose_answers = False
        deadline = time.monotonic() + 120
        while True:
            for page in self.pages:
                page.set_reading(True)
                page.set_muted(False)
                if page.task is None or page.task.done() or page.wire is None:
                    page.leave()
                    page.come(self.hub, self.chat, self.metrics)
            await pause(0.01, "before the next check of the pages")
            if (
                all(page.entered and not self.missing(page) for page in self.pages)
                and not self.missing_notes()
            ):
                return
            assert time.monotonic() < deadline, [self.missing(page) for page in self.pages]

    def missing_notes(self) -> list[tuple[str, int]]:
        """Return the notes since the staff's connection that it has not received."""
        page = self.pages[0]
        return [
            (key, n)
            for key, notes in self.chat.notes.items()
            for n in range(page.notes_before.get(key, 0) + 1, len(notes) + 1)
            if n not in page.notes[key]
        ]

    def missing(self, page: Page) -> list[tuple[str, int]]:
        role, _, who = page.token.partition(":")
        base = page.base or {}
        return [
            (key, seq)
            for key, session in self.chat.sessions.items() if role == "staff" or session["player_id"] == int(who)
            for seq in range(base.get(key, 0) + 1, session["last_seq"] + 1)
            if seq not in page.received[key] and seq not in page.acked[key]
        ]  # fmt: skip

    async def run(self, steps: list[tuple[str, Any, bool]]) -> None:
        running = asyncio.create_task(self.hub.run())
        try:
            # All pages enter before most messages are committed, so that they must receive all later ones.
            self.chat.commit(1, "player")
            self.chat.commit(2, "player")
            await self.settle()
            for kind, what, wakeup in steps:
                await self.step(kind, what, wakeup)
            await self.settle()
            for page in self.pages:
                role, _, who = page.token.partition(":")
                assert role == "staff" or not page.notes, "a player was sent a note"
                for numbers in page.notes.values():
                    assert numbers == sorted(set(numbers)), "a note twice or out of order"
                for key, seqs in page.received.items():
                    assert seqs == sorted(set(seqs)), "repeated or out of order"
                    assert not [s for s in seqs if s <= (page.base or {}).get(key, 0)], (
                        "sent again what it had at first"
                    )
                    assert role == "staff" or self.chat.sessions[key]["player_id"] == int(who), (
                        "sent another player's message"
                    )
        finally:
            for page in self.pages:
                page.leave()
            running.cancel()
            await asyncio.wait(
                [running, *(page.task for page in self.pages if page.task is not None)], timeout=60
            )


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(STEPS, max_size=40),
    delays=st.lists(st.sampled_from([0, 0, 0, 1, 4, 60]), min_size=1, max_size=7),
)
def test_each_page_receives_each_message_and_staff_each_note_once_and_in_order(
    steps: list[tuple[str, Any, bool]], delays: list[int]
) -> None:
    # With these limits a page that does not read is soon behind.
    with mock.patch.multiple("gre_bridge.api.ws.transport", FULL_FRAMES=3, BUSY_FRAMES=1):
        asyncio.run(Play(delays).run(steps))


def test_what_a_connection_has_read_ahead_of_the_hub_is_not_sent_again_after_an_outage() -> None:
    """The hub forgets the quiet session in the outage, and reads it anew after the slow connection has read it by itself."""
    steps: list[tuple[str, Any, bool]] = [
        ("burst", 2, True), ("read", (0, False), False), ("rest", 0, False), ("time", 70.0, True), ("turns", 10, True),
        ("away", True, False), ("close", 1, True), ("hop", (1, 11), False), ("time", 700.0, False), ("close", 1, False),
        ("burst", 2, True),
    ]  # fmt: skip
    with mock.patch.multiple("gre_bridge.api.ws.transport", FULL_FRAMES=3, BUSY_FRAMES=1):
        for _ in range(5):
            asyncio.run(Play([0]).run(steps))


def test_a_commit_at_any_moment_of_a_pages_entry_arrives() -> None:
    for delays in itertools.product([0, 4, 40], repeat=4):
        asyncio.run(Play(list(delays)).run([("hop", (1, 7), True), ("turns", 50, True), ("commit", 1, True)]))


class Recorder:
    """A subscriber that records the messages which the hub sends."""

    def __init__(self, identity: Identity = Identity("staff", None, "s1")) -> None:  # noqa: B008 - it is frozen
        self.identity = identity
        self.received: list[tuple[str, int]] = []
        self.frames: list[str] = []

    def send_message(self, message: Json, text: str) -> None:
        self.received.append((message["session_id"], message["seq"]))
        self.frames.append(text)

    busy = False

    def send_change(self, session: str, seq: int, change: int, text: str) -> None:  # noqa: ARG002
        self.frames.append(text)

    def send_note(self, seq: int, note: Json, text: str) -> None:  # noqa: ARG002
        self.frames.append(text)

    def send_staff_status(self, staff_id: str, text: str) -> None:  # noqa: ARG002
        self.frames.append(text)

    def send_hint(self, text: str) -> None:
        self.frames.append(text)

    def drop_positions(self, sent: Json, *, settled_at: float) -> None:
        pass

    def close(self, code: int, reason: str, error: str = "") -> None:
        raise AssertionError((code, reason, error))


async def test_a_new_subscriber_gets_nothing_from_before_and_everything_after() -> None:
    """A client reads the minute before its entry itself: for each connection, a bulk in it would be kept and dropped."""
    play, recorder = Play([0]), Recorder()
    old = [play.chat.commit(player, "player")["message"]["session_id"] for player in (1, 2, 3, 1, 1)]
    running = asyncio.create_task(play.hub.run())
    try:
        assert not play.hub.needs(NewRow("x", old[0], 3)), "no connection"
        play.hub.add(recorder)
        assert play.hub.needs(NewRow("x", old[0], 3)), "nothing was read yet"
        async with asyncio.timeout(60):
            await play.hub.wait_ready()
        assert recorder.received == []
        assert not play.hub.needs(NewRow("x", old[0], 3))
        for player in (
            1,
            1,
            1,
            1,
            1,
            4,
        ):  # more of one session than is read at once, and a session that is new
            last = play.chat.commit(player, "player")["message"]
        assert play.hub.needs(NewRow("x", old[0], 4))
        play.hub.notify(frozenset((old[0], last["session_id"])))
        async with asyncio.timeout(60):
            await until(lambda: len(recorder.received) >= 6, every=0)
        assert [seq for session, seq in recorder.received if session == old[0]] == [4, 5, 6, 7, 8]
        assert (last["session_id"], 1) in recorder.received
        assert not play.hub.needs(NewRow("x", old[0], 8))
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=60)


async def test_a_read_that_began_for_those_who_left_brings_nothing_to_the_next_subscriber() -> None:
    """Its answer comes when another one has entered, and would pass for the reads that this one waits for."""
    play, recorder, other = Play([0]), Recorder(), Recorder()
    play.hub = Hub(
        users=play.chat, metrics=play.metrics, poll_interval=1e6, fast_poll_interval=1e6,  # type: ignore[arg-type]
        realtime=play.realtime, clock=play.chat.clock,
    )  # fmt: skip
    news, asked, answers = play.chat.news, asyncio.Event(), asyncio.Event()

    async def slow(**asks: Any) -> Json:
        found = await news(**asks)
        asked.set()
        await answers.wait()
        return found

    running = asyncio.create_task(play.hub.run())
    try:
        async with asyncio.timeout(60):
            play.hub.add(recorder)
            await play.hub.wait_ready()
            play.chat.news = slow  # type: ignore[method-assign]
            session = play.chat.commit(1, "player")["message"]["session_id"]
            play.hub.notify(None)
            await asked.wait()
            play.hub.remove(recorder)
            play.hub.add(other)
            answers.set()
            await play.hub.wait_ready()
            await next_turn(50)
            assert (recorder.frames, other.frames) == ([], [])
            play.chat.commit(1, "player")
            play.hub.notify(frozenset((session,)))
            await until(lambda: other.received, every=0)
        assert other.received == [(session, 2)]
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=60)


async def test_nothing_is_sent_again_after_the_machine_has_slept_between_two_reads() -> None:
    """The first read after the sleep leaves a session out: its position must stay until no read goes back to before it."""
    play, recorder = Play([0]), Recorder()
    play.hub = Hub(
        users=play.chat, metrics=play.metrics, poll_interval=1e6, fast_poll_interval=1e6,  # type: ignore[arg-type]
        realtime=play.realtime, clock=play.chat.clock,
    )  # fmt: skip
    running = asyncio.create_task(play.hub.run())
    try:
        play.hub.add(recorder)
        async with asyncio.timeout(60):
            await play.hub.wait_ready()
            sessions = [play.chat.commit(player, "player")["message"]["session_id"] for player in PLAYERS]
            play.hub.notify(frozenset(sessions))
            await until(lambda: len(recorder.received) == 3, every=0)
            play.chat.offset += 700.0
            for player in PLAYERS:  # the model's read has two sessions at most
                play.chat.commit(player, "player")
            play.hub.notify(None)
            await until(lambda: len(recorder.received) >= 6, every=0)
            await next_turn(50)
        assert sorted(recorder.received) == sorted((key, seq) for key in sessions for seq in (1, 2))
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=60)


async def test_more_notes_than_a_read_has_bring_no_message_from_before_in_a_session_without_a_position() -> (
    None
):
    play, recorder = Play([0]), Recorder()
    for _ in range(3):
        session = play.chat.commit(1, "player")["message"]["session_id"]
    play.chat.offset += 700.0  # the hub does not know the session when it starts
    running = asyncio.create_task(play.hub.run())
    try:
        play.hub.add(recorder)
        async with asyncio.timeout(60):
            await play.hub.wait_ready()
            for _ in range(4):  # the model's read has two at most
                play.chat.add(1)
            play.hub.notify(frozenset((session,)))
            await until(lambda: sum("session_note" in text for text in recorder.frames) == 4, every=0)
            last = play.chat.commit(1, "player")["message"]
            play.hub.notify(frozenset((session,)))
            await until(lambda: (session, last["seq"]) in recorder.received, every=0)
        assert recorder.received == [(session, 4)]
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=60)


async def test_a_hub_without_wakeups_polls_and_reports_the_missed_ones() -> None:
    """In a daemon without a relay nothing else would notice that wake-ups do not arrive."""
    play, recorder, realtime = Play([0]), Recorder(), SilentRealtime()
    play.hub = Hub(
        users=play.chat, metrics=play.metrics, poll_interval=0.5, fast_poll_interval=0.05,  # type: ignore[arg-type]
        realtime=realtime, clock=play.chat.clock,
    )  # fmt: skip
    play.chat.commit(1, "player")
    running = asyncio.create_task(play.hub.run())
    try:
        assert play.chat.listener is None, "no connection"
        play.hub.add(recorder)
        async with asyncio.timeout(60):
            await play.hub.wait_ready()
            await until(lambda: play.chat.listener is not None, every=0.001)
            for count in itertools.count(1):
                play.chat.commit(count % 3, "player")
                play.chat.offset += 1.0
                await until(lambda count=count: len(recorder.received) >= count, every=0.001)
                if realtime.missed_wakeups:
                    break
            assert count > 1, "the wake-up may have been on its way"
            play.hub.remove(recorder)
            await until(lambda: play.chat.listener is None, every=0.001)
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=60)


async def test_a_session_is_foreign_only_if_the_database_says_so() -> None:
    """A wake-up may arrive before its commit is visible: a session not found then is read again at the next wake-up."""
    play, recorder = Play([0]), Recorder(Identity("player", 1, None))
    mine, yours = (play.chat.commit(player, "player")["message"]["session_id"] for player in (1, 2))
    running = asyncio.create_task(play.hub.run())
    try:
        play.hub.add(recorder)
        async with asyncio.timeout(60):
            await play.hub.wait_ready()
            unseen = str(uuid.uuid4())
            play.hub.notify(frozenset((mine, yours, unseen)))
            await until(lambda: not play.hub.needs(NewRow("x", yours, 9)), every=0)
            assert play.hub.needs(NewRow("x", unseen, 1))
            assert play.hub.needs(NewRow("x", mine, 2))
            committed = play.chat.commit(1, "player")["message"]
            play.hub.notify(frozenset((mine,)))
            await until(lambda: recorder.received == [(mine, committed["seq"])], every=0)
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=60)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused(401, "token_invalid", "the token is not valid"), 4401),
        (None, 4403),
        (TransientError("away"), None),
    ],
)
async def test_a_connection_by_the_service_key_verifies_key_and_person(
    error: Exception | None, code: int | None
) -> None:
    """The key does not expire, or only in ten years, but it can be revoked."""
    play = Play([0])
    page = Page("sb_secret_key", play.chat)
    asked = asyncio.Event()
    closed: list[int] = []

    async def whoami(_: Any) -> Identity:
        if not page.entered:
            return Identity("player", 1, expires_at=2e9)
        asked.set()
        if error is not None:
            raise error
        return Identity("none")

    async def catch_up(*_: Any) -> Json:
        return {"sessions": [], "positions": {}}

    play.chat.whoami, play.chat.catch_up = whoami, catch_up  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(play.hub.run())
    with mock.patch("gre_bridge.api.ws.credentials.VERIFY_INTERVAL", 0.01):
        page.come(play.hub, play.chat, play.metrics)
        assert page.wire is not None and page.task is not None

        async def close(number: int, *_: Any) -> None:
            closed.append(number)

        page.wire.close = close  # type: ignore[method-assign, assignment]
        async with asyncio.timeout(60):
            await asked.wait()
            if code:
                await page.task
            else:
                asked.clear()
                await asked.wait()
    assert closed == ([code] if code else [])
    page.leave()
    running.cancel()
    await asyncio.wait([running, page.task], timeout=60)


async def test_a_read_that_is_too_large_is_halved_until_it_succeeds() -> None:
    """It was repeated unchanged, without end."""
    play, recorder = Play([0]), Recorder()
    news, asked = play.chat.news, list[tuple[int, int]]()

    async def small_only(**asks: Any) -> Json:
        asked.append((asks["limit"], asks["size"]))
        if asks["size"] > 100_000:
            raise TransientError("the answer is too long", code="unreadable")
        return await news(**asks)

    running = asyncio.create_task(play.hub.run())
    with mock.patch("gre_bridge.api.ws.hub.RETRY", 0.001):
        try:
            play.hub.add(recorder)
            async with asyncio.timeout(60):
                await play.hub.wait_ready()
                play.chat.news = small_only  # type: ignore[method-assign, assignment]
                for _ in range(5):
                    last = play.chat.commit(1, "player")["message"]
                play.hub.notify(frozenset((last["session_id"],)))
                await until(lambda: len(recorder.received) >= 5, every=0.001)
        finally:
            running.cancel()
            await asyncio.wait([running], timeout=60)
    assert [seq for _, seq in recorder.received] == [1, 2, 3, 4, 5]
    assert asked[0] == (200, 1_000_000) and (12, 62_500) in asked, asked


async def test_unreadable_news_of_one_session_do_not_delay_the_others() -> None:
    """One session's entry is malformed: it is skipped with a log line, and the session's next message is sent."""
    play, recorder = Play([0]), Recorder()
    news, broken = play.chat.news, set[str]()

    async def spoilt(**asks: Any) -> Json:
        found = await news(**asks)
        for entry in found["sessions"]:
            if entry["session"]["id"] in broken:
                entry["messages"] = [{"seq": message["seq"]} for message in entry["messages"]]
        return found

    play.chat.news = spoilt  # type: ignore[method-assign]
    running = asyncio.create_task(play.hub.run())
    try:
        play.hub.add(recorder)
        async with asyncio.timeout(60):
            await play.hub.wait_ready()
            sessions = [play.chat.commit(player, "player")["message"]["session_id"] for player in (1, 2, 3)]
            broken.add(sessions[0])
            with capture_logs() as lines:
                play.hub.notify(frozenset(sessions))
                await until(lambda: len(recorder.received) >= 2, every=0.001)
            assert {session for session, _ in recorder.received} == {*sessions[1:]}
            assert [line["session"] for line in lines if line["log_level"] == "error"] == [sessions[0]]
            broken.clear()
            play.chat.commit(1, "player")
            play.hub.notify(frozenset(sessions))
            await until(lambda: recorder.received[-1] == (sessions[0], 2), every=0.001)
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=60)


async def test_messages_after_the_clients_own_wait_for_its_acknowledgement() -> None:
    """Sent before, they would be sent again: a returning client says up to which seq it has everything, and its own is missing."""
    play = Play([0])
    send, answered = play.chat.send, asyncio.Event()

    async def slow(*arguments: Any, **asks: Any) -> Json:
        answer = await send(*arguments, **asks)
        await answered.wait()
        return answer

    play.chat.send = slow  # type: ignore[method-assign]
    running = asyncio.create_task(play.hub.run())
    page = play.pages[1]
    frames: list[tuple[str, int]] = []
    receive = page.receive

    def note(wire: Wire, frame: Json) -> None:
        if frame["type"] in ("message_ack", "chat_message"):
            frames.append((frame["type"], frame.get("seq") or frame["message"]["seq"]))
        receive(wire, frame)

    page.receive = note  # type: ignore[method-assign]
    try:
        page.come(play.hub, play.chat, play.metrics)
        other = play.pages[2]
        other.come(play.hub, play.chat, play.metrics)
        async with asyncio.timeout(60):
            await until(lambda: page.entered and other.entered, every=0)
            assert page.wire is not None
            page.wire.say(type="send_message", message="x")
            await until(lambda: play.chat.messages, every=0)
            last = play.chat.commit(1, "staff")["message"]
            play.hub.notify(frozenset((last["session_id"],)))
            await until(lambda: other.received[last["session_id"]] == [1, 2], every=0.001)
            assert frames == []
            answered.set()
            await until(lambda: len(frames) >= 2, every=0.001)
        assert frames == [("message_ack", 1), ("chat_message", 2)]
    finally:
        for item in (page, play.pages[2]):
            item.leave()
        running.cancel()
        await asyncio.wait([running], timeout=60)
