"""The feed against a misbehaving Realtime server, with the real client on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from realtime import AsyncRealtimeClient

from gre_bridge.feed import Feed, FeedState, Timing, sessions_of
from tests.phoenix import TEXT, PhoenixServer, until

# The client reads attributes of the exception that websockets has deprecated; a warning that is made an
# error would end its listener.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")

KEY = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0.a-key-that-no-log-may-show"
S1, S2 = str(uuid.uuid4()), str(uuid.uuid4())
BOTH = {"broadcast", "postgres_changes"}
FAST = {
    "connect": 0.5,
    "join": 0.3,
    "system": 0.3,
    "heartbeat": 5.0,
    "pong": 0.15,
    "close": 0.1,
    "renew": 1e6,
    "retry": 1e6,
    "backoff": 0.02,
    "backoff_max": 0.1,
    "stable": 30.0,
    "grace": 0.0,
}


class Running:
    """A feed that runs, with what it told its owner."""

    def __init__(self, server: PhoenixServer, *, on_ring: Callable[..., Any] | None = None, **options: Any):
        timing = Timing(**FAST | {k: options.pop(k) for k in list(options) if k in FAST})
        self.rings: list[frozenset[str] | None] = []
        self.states: list[FeedState] = []
        self.details: list[str] = []
        self.feed = Feed(
            url=server.url,
            key=KEY,
            on_ring=on_ring or self.rings.append,
            on_state=self._on_state,
            timing=timing,
            **options,
        )

    def _on_state(self, state: FeedState) -> None:
        self.states.append(state)
        self.details.append(self.feed.detail)

    def told(self, text: str) -> bool:
        return any(text in detail for detail in self.details)

    def live(self) -> bool:
        return self.feed.state is FeedState.LIVE


@pytest.fixture
async def server() -> AsyncIterator[PhoenixServer]:
    async with PhoenixServer() as phoenix:
        yield phoenix


@contextlib.asynccontextmanager
async def running(server: PhoenixServer, **options: Any) -> AsyncIterator[Running]:
    """Run a feed; on leaving, cancel it and insist that it left neither a task nor a socket behind."""
    before = asyncio.all_tasks()
    it = Running(server, **options)
    task = asyncio.create_task(it.feed.run())
    try:
        yield it
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert it.feed.state is FeedState.STOPPED
    assert not it.feed.healthy
    for socket in server.sockets:
        socket.transport.resume_reading()
    await until(lambda: not server.sockets)
    await until(lambda: not asyncio.all_tasks() - before, seconds=1.0)


# What rings


async def test_every_join_and_every_bell_rings(server: PhoenixServer) -> None:
    async with running(server) as it:
        await until(it.live)
        assert it.feed.bells == BOTH
        assert it.feed.healthy
        assert it.feed.detail == ""
        assert it.rings == [None, None, None]  # two joins, one "Subscribed to PostgreSQL"
        await server.broadcast({"sessions": [S1, S2]})
        await server.insert({"session_id": S1})
        await until(lambda: len(it.rings) == 5)
        assert it.rings[3:] == [{S1, S2}, {S1}]


async def test_a_live_feed_is_announced_step_by_step(server: PhoenixServer) -> None:
    server.binding = "late"
    async with running(server, system=3.0) as it:
        await until(lambda: it.feed.state is FeedState.JOINED and it.feed.bells == {"broadcast"})
        assert it.feed.healthy, "one bell is enough"
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(it.live)
        assert it.feed.bells == BOTH
    assert [s for i, s in enumerate(it.states) if s not in it.states[:i]] == [
        FeedState.CONNECTING,
        FeedState.JOINED,
        FeedState.LIVE,
        FeedState.STOPPED,
    ]


async def test_the_server_subscribing_again_rings_again(server: PhoenixServer) -> None:
    async with running(server) as it:
        await until(it.live)
        it.rings.clear()
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(lambda: it.rings == [None])
        assert server.connections == 1


async def test_the_join_is_private_and_asks_for_inserts_of_the_messages(server: PhoenixServer) -> None:
    async with running(server) as it:
        await until(it.live)
    bell, rows = sorted(server.joins, key=lambda join: len(join["topic"]))
    assert bell["topic"] == "realtime:gre:relay"
    assert bell["payload"]["config"]["private"] is True
    assert bell["payload"]["config"]["postgres_changes"] == []
    assert bell["payload"]["access_token"] == KEY
    assert rows["payload"]["config"]["postgres_changes"] == [
        {"event": "INSERT", "schema": "public", "table": "gre_chat_messages"}
    ]


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        ([S1], {S1}),
        ([S1.upper(), S1], {S1}),
        ([S1] * 50, {S1}),
        ([S1] * 51, None),
        ([], None),
        (None, None),
        (S1, None),
        ({"a": S1}, None),
        ([S1, "x"], None),
        ([S1, 7], None),
        ([S1, None], None),
        ([[S1]], None),
        ([S1 + "0" * 100_000], None),
    ],
)
def test_a_ring_is_believed_only_when_it_is_a_short_list_of_ids(ids: object, read: set[str] | None) -> None:
    assert sessions_of(ids) == read


async def test_rubbish_on_the_bell_still_rings(server: PhoenixServer) -> None:
    async with running(server) as it:
        await until(it.live)
        it.rings.clear()
        await server.broadcast({"sessions": {"drop": "table"}})
        await server.broadcast({})
        await server.insert({}, errors=["Error 413: Payload Too Large"])
        await server.insert(None)
        await until(lambda: it.rings == [None] * 4)
        assert it.feed.healthy


async def test_a_frame_that_the_client_refuses_leaks_nothing_and_kills_nothing(
    server: PhoenixServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(server) as it:
        await until(it.live)
        it.rings.clear()
        await server.insert({"session_id": S1}, commit_timestamp=None)
        await server.live("gre:relay")[0].socket.send(json.dumps({"text": TEXT}))
        await server.live("gre:relay")[0].socket.send(TEXT)
        await server.insert({"session_id": S2})
        await until(lambda: it.rings == [{S2}])
        await server.close_sockets()
        await until(lambda: server.connections == 2 and it.live())
        await server.stop()
        await until(lambda: it.feed.reconnections["connect"] > 1)
    assert "feed waiting" in caplog.text
    assert TEXT not in caplog.text
    assert KEY not in caplog.text
    assert S2 not in caplog.text


async def test_a_callback_that_raises_does_not_make_the_feed_deaf(server: PhoenixServer) -> None:
    rings: list[object] = []

    def explode(sessions: object) -> None:
        rings.append(sessions)
        raise ValueError(TEXT)

    async with running(server, on_ring=explode) as it:
        await until(it.live)
        rings.clear()
        await server.broadcast({"sessions": [S1]})
        await server.broadcast({"sessions": [S2]})
        await until(lambda: rings == [{S1}, {S2}])
        assert it.feed.healthy
        assert server.connections == 1


# What breaks


async def test_it_comes_back_when_the_server_does(server: PhoenixServer) -> None:
    await server.stop()
    async with running(server) as it:
        await until(lambda: it.feed.reconnections["connect"] >= 3)
        assert it.feed.state in (FeedState.WAITING, FeedState.CONNECTING)
        assert not it.feed.healthy
        await until(lambda: it.told("ConnectionRefusedError"))
        await server.start()
        await until(it.live)
        await server.stop()
        await until(lambda: it.feed.reconnections["closed"] == 1)
        await server.start()
        await until(it.live)
        assert it.feed.reconnections["closed"] == 1


async def test_a_refused_key_is_named_in_the_detail_without_the_key(server: PhoenixServer) -> None:
    server.handshake = "refuse"
    server.refusal = f"Token has expired:\n{KEY}"
    async with running(server) as it:
        await until(lambda: it.told("connect: HTTP 401 Token has expired: ***"))
        server.handshake = "serve"
        await until(it.live)
        assert it.feed.detail == ""


async def test_a_server_that_accepts_and_closes_is_not_stormed(server: PhoenixServer) -> None:
    server.handshake = "close"
    async with running(server, backoff=0.05, backoff_max=0.4, jitter=lambda: 1.0) as it:
        await until(lambda: server.connections >= 4)
        started = time.monotonic()
        await until(lambda: server.connections >= 6)
        assert time.monotonic() - started >= 0.75, "the 4th pause and later ones last 0.4 s"
        assert set(it.feed.reconnections) == {"closed"}


async def test_joining_and_then_closing_does_not_end_the_backoff(server: PhoenixServer) -> None:
    async with running(server, backoff=0.05, backoff_max=0.4, jitter=lambda: 1.0) as it:
        for n in range(1, 5):
            await until(lambda n=n: server.connections == n and it.live())
            await server.close_sockets(1000)
        closed = time.monotonic()
        await until(lambda: server.connections == 5)
        assert time.monotonic() - closed >= 0.35


async def test_a_link_that_lasted_ends_the_backoff(server: PhoenixServer) -> None:
    async with running(server, backoff=0.05, backoff_max=60.0, jitter=lambda: 1.0, stable=0.0) as it:
        for n in range(1, 9):  # were it not for `stable`, the pauses would add up to more than 6 s
            await until(lambda n=n: server.connections == n and it.live())
            await server.close_sockets()


async def test_a_half_open_socket_is_noticed_and_left_without_waiting_for_it(server: PhoenixServer) -> None:
    async with running(server, heartbeat=0.1, pong=0.1) as it:
        await until(lambda: it.live() and server.heartbeats >= 3)
        assert server.connections == 1
        frozen = list(server.sockets)
        server.freeze()
        await until(lambda: server.connections == 2 and it.live())
        assert it.feed.reconnections == {"silent": 1}
        assert len(connections_to(server)) == 1, "the old one was cut, not left to the other end"
        assert server.sockets.issuperset(frozen), "which has seen nothing of it"


async def test_a_closed_channel_rebuilds_the_link(server: PhoenixServer) -> None:
    async with running(server) as it:
        await until(it.live)
        channel = server.live("gre:relay")[0]
        await channel.system("Token has expired 0 seconds ago", "error", extension="system")
        await channel.send("phx_close", {}, channel.join_ref)
        await until(lambda: it.told("Token has expired 0 seconds ago"))
        await until(lambda: server.connections == 2 and it.live())
        channel = server.live(":rows")[0]
        await channel.send("phx_close", {}, channel.join_ref)
        await until(lambda: server.connections == 3 and it.live())
        await server.live(":rows")[0].send("phx_error", {})
        await until(lambda: server.connections == 4 and it.live())
        assert it.feed.reconnections == {"channel": 3}


async def test_unanswered_joins_are_given_up(server: PhoenixServer) -> None:
    server.join_private = server.join_public = "ignore"
    async with running(server, join=0.1) as it:
        await until(lambda: it.feed.reconnections["join"] >= 2)
        assert it.told("the join was not answered")
        assert not it.feed.healthy
        server.join_private = server.join_public = "ok"
        await until(it.live)


async def test_a_listener_that_died_is_noticed(
    server: PhoenixServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realtime import AsyncRealtimeChannel

    async with running(server) as it:
        await until(it.live)
        with monkeypatch.context() as patch:
            patch.setattr(AsyncRealtimeChannel, "_handle_message", lambda *_: 1 / 0)
            await server.broadcast({})
            await until(lambda: it.told("ZeroDivisionError"))
        await until(lambda: server.connections == 2 and it.live())


# What is missing


async def test_without_private_channels_changes_are_heard_on_a_public_one(server: PhoenixServer) -> None:
    server.join_private = "refuse"
    server.refusal_delay = 0.1
    async with running(server) as it:
        await until(lambda: it.feed.bells == {"postgres_changes"})
        assert it.feed.state is FeedState.JOINED, "the refusal of the other join is not waited for"
        await until(it.live)
        assert it.feed.bells == {"postgres_changes"}
        assert it.feed.healthy
        assert it.feed.detail.startswith("no broadcast: Unauthorized")
        it.rings.clear()
        await server.insert({"session_id": S1})
        await until(lambda: it.rings == [{S1}])
        assert server.connections == 2, "the first attempt, all private, and the second"


async def test_with_private_set_off_both_joins_are_public(server: PhoenixServer) -> None:
    server.join_private = "refuse"
    async with running(server, private=False) as it:
        await until(it.live)
        assert it.feed.bells == BOTH
        await server.broadcast({"sessions": [S1]}, private=False)
        await until(lambda: it.rings[-1] == {S1})


async def test_a_refused_binding_leaves_the_broadcasts_and_no_rejoin(server: PhoenixServer) -> None:
    server.binding = "refuse"
    async with running(server) as it:
        await until(it.live)
        assert it.feed.bells == {"broadcast"}
        assert it.feed.detail.startswith("no postgres_changes: Unable to subscribe")
        # The client's own rejoin would come 1 s after the error, and end in a zombie.
        with pytest.raises(TimeoutError):
            await until(lambda: len(server.joins) > 2, seconds=1.3)
        await server.broadcast({"sessions": [S1]})
        await until(lambda: it.rings[-1] == {S1})
        assert server.connections == 1


async def test_a_missing_bell_is_looked_for_again_while_the_other_rings_on(server: PhoenixServer) -> None:
    server.binding = "refuse"
    async with running(server, retry=0.2) as it:
        await until(lambda: it.live() and server.connections >= 2)
        server.binding = "ok"
        it.states.clear()
        await until(lambda: it.feed.bells == BOTH)
        assert it.feed.detail == ""
        assert set(it.states) == {FeedState.LIVE}, "the old link served until the new one was ready"
        await until(lambda: len(server.sockets) == 1)


async def test_a_late_system_message_is_waited_for_and_a_later_one_still_counts(
    server: PhoenixServer,
) -> None:
    server.binding = "late"
    async with running(server, system=0.1) as it:
        await until(it.live)
        assert it.feed.detail == 'no postgres_changes: no "Subscribed to PostgreSQL"'
        it.rings.clear()
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(lambda: it.feed.bells == BOTH)
        assert it.rings == [None]
        assert server.connections == 1


# Deafness and renewal


def connections_to(server: PhoenixServer) -> list[object]:
    """This process's TCP connections to the server that are not closed."""
    port = urlsplit(server.url).port
    everything = psutil.Process().net_connections("tcp")
    return [c for c in everything if c.raddr and c.raddr.port == port and c.status == "ESTABLISHED"]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_deaf_link_is_rebuilt_and_trusted_only_after_a_bell(server: PhoenixServer) -> None:
    clock = Clock()
    async with running(server, clock=clock, grace=2.0, jitter=lambda: 0.0) as it:
        await until(it.live)
        clock.now += 60
        it.feed.missed(30.0)
        assert it.feed.healthy, "once may be an accident"
        it.feed.missed(30.0)
        assert not it.feed.healthy
        await until(lambda: server.connections == 2 and it.live())
        assert it.feed.reconnections == {"deaf": 1}
        assert not it.feed.healthy
        assert "deaf" in it.feed.detail
        for _ in range(10):
            clock.now += 20
            it.feed.missed(15.0)
        assert server.connections == 2, "no rebuilding in a loop while nothing is believed"
        await server.insert({"session_id": S1})
        await until(lambda: it.feed.healthy)
        assert it.feed.detail == ""
        assert it.feed.misses == 2


async def test_work_that_a_bell_may_have_announced_is_no_miss(server: PhoenixServer) -> None:
    clock = Clock()
    async with running(server, clock=clock, grace=2.0) as it:
        await until(it.live)
        clock.now += 60
        for _ in range(5):
            it.feed.missed(1.0)  # its bell may still come
            it.feed.missed(61.0)  # committed before the last ring
        assert it.feed.misses == 0
        it.feed.missed(30.0)
        await server.broadcast({})
        await until(lambda: it.feed.last_ring == clock.now)
        clock.now += 60
        it.feed.missed(30.0)
        assert it.feed.misses == 2
        assert it.feed.healthy, "a bell rang between the two"


async def test_renewal_opens_the_new_link_before_it_closes_the_old(server: PhoenixServer) -> None:
    most = 0
    async with running(server, renew=0.15) as it:
        await until(it.live)
        it.states.clear()

        def renewed() -> bool:
            nonlocal most
            most = max(most, len(server.sockets))
            return it.feed.reconnections["renewal"] >= 4

        await until(renewed)
        assert set(it.states) <= {FeedState.LIVE}
        assert it.feed.reconnections == {"renewal": it.feed.reconnections["renewal"]}
        assert most == 2


async def test_a_renewal_that_fails_leaves_the_old_link_in_service(server: PhoenixServer) -> None:
    async with running(server, renew=0.2, heartbeat=0.1) as it:
        await until(it.live)
        it.states.clear()
        server.handshake = "refuse"
        await until(lambda: it.feed.reconnections["connect"] >= 3)
        it.rings.clear()
        await server.broadcast({"sessions": [S1]})
        await until(lambda: it.rings == [{S1}])
        assert it.feed.healthy
        assert it.states == []
        server.freeze()  # and the old one is still watched
        await until(lambda: it.feed.reconnections["silent"] == 1)
        assert not it.feed.healthy
        server.handshake = "serve"
        await until(it.live)


async def test_many_links_leave_nothing_behind(server: PhoenixServer) -> None:
    def clients() -> int:
        gc.collect()
        return sum(isinstance(one, AsyncRealtimeClient) for one in gc.get_objects())

    before = clients()
    async with running(server, backoff=0.001, backoff_max=0.001) as it:
        tasks = 0
        for n in range(1, 31):
            await until(lambda n=n: server.connections == n and it.live())
            if n == 5:
                tasks = len(asyncio.all_tasks())
            await server.close_sockets()
        await until(lambda: server.connections == 31 and it.live())
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert clients() - before <= 2
        assert len(server.sockets) == 1
