"""What breaks, what is deaf and what grows old: the feed against a misbehaving Realtime server."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import psutil
import pytest
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient

from gre_bridge.errors import TransientError
from gre_bridge.realtime.subscription import FeedState
from tests.support.feeds import KEY, S1, running
from tests.support.phoenix import PhoenixServer, until

# The client reads attributes of the exception that websockets has deprecated; a warning that is made an
# error would end its listener.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")


@pytest.fixture
async def server() -> AsyncIterator[PhoenixServer]:
    async with PhoenixServer() as phoenix:
        yield phoenix


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
        await until(lambda: server.connections >= 6)
        came = server.connected_at
        assert came[5] - came[3] >= 0.75, "the 4th pause and later ones last 0.4 s"
        assert set(it.feed.reconnections) == {"closed"}


async def test_joining_and_then_closing_does_not_end_the_backoff(server: PhoenixServer) -> None:
    async with running(server, backoff=0.05, backoff_max=0.4, jitter=lambda: 1.0) as it:
        for n in range(1, 5):
            await until(lambda n=n: server.connections == n and it.live())
            closed = time.monotonic()
            await server.close_sockets(1000)
        await until(lambda: server.connections == 5)
        assert time.monotonic() - closed >= 0.35


async def test_a_link_that_lasted_ends_the_backoff(server: PhoenixServer) -> None:
    async with running(server, backoff=0.05, backoff_max=60.0, jitter=lambda: 1.0, stable=0.0) as it:
        for n in range(1, 9):
            await until(lambda n=n: server.connections == n and it.live())
            await server.close_sockets()
        came = server.connected_at
        assert came[7] - came[0] < 5, "were it not for `stable`, the pauses would add up to more than 6 s"


async def test_a_half_open_socket_is_noticed_and_left_without_waiting_for_it(server: PhoenixServer) -> None:
    async with running(server, heartbeat=0.1, pong=0.7) as it:
        await until(lambda: it.live() and server.heartbeats >= 3)
        assert server.connections == 1
        frozen = list(server.sockets)
        server.freeze()
        await until(lambda: server.connections == 2 and it.live())
        assert it.feed.reconnections == {"silent": 1}
        assert len(connections_to(server)) == 1, "the old one was cut, not left to the other end"
        assert server.sockets.issuperset(frozen), "which has seen nothing of it"


async def test_a_closed_channel_rebuilds_the_link(server: PhoenixServer) -> None:
    async with running(server, changes=True) as it:
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
    async with running(server, changes=True, heartbeat=0.5) as it:
        await until(it.live)
        with monkeypatch.context() as patch:
            patch.setattr(AsyncRealtimeChannel, "_handle_message", lambda *_: 1 / 0)
            await server.live(":rows")[0].subscribed_to_postgres()
            await until(lambda: it.told("ZeroDivisionError"))
        await until(lambda: server.connections == 2 and it.live())


# Wake-ups that do not come, and renewal


def connections_to(server: PhoenixServer) -> list[object]:
    """This process's TCP connections to the server that are not closed."""
    port = urlsplit(server.url).port
    everything = psutil.Process().net_connections("tcp")
    return [c for c in everything if c.raddr and c.raddr.port == port and c.status == "ESTABLISHED"]


async def test_missed_wake_ups_are_polled_for_and_no_reason_to_connect_again(server: PhoenixServer) -> None:
    probes: list[float] = []

    async def probe() -> None:
        probes.append(time.monotonic())
        if len(probes) == 3:
            await server.broadcast({})
        elif len(probes) == 2:
            raise TransientError("away")

    async with running(server, probe=probe, throttled=0.3, probed=0.2) as it:
        await until(it.live)
        heartbeats, began = server.heartbeats, time.monotonic()
        it.feed.missed()
        assert not it.feed.healthy
        assert it.feed.state is FeedState.THROTTLED
        assert "limit of events" in it.feed.detail
        await until(lambda: server.heartbeats == heartbeats + 1)
        await server.broadcast({"sessions": [S1]})
        await until(lambda: it.rings[-1] == {S1})
        assert not it.feed.healthy, "one that comes says little about the next"
        it.feed.missed()
        assert it.feed.misses == 1
        await until(lambda: len(probes) == 3)
        assert time.monotonic() - began >= 0.9, "as long after each probe that was not heard"
        await until(lambda: it.feed.healthy)
        assert it.feed.state is FeedState.LIVE
        assert it.feed.detail == ""
        assert server.connections == 1
        assert it.feed.reconnections == {}


async def test_a_socket_that_is_dead_is_found_out_by_the_wake_up_that_was_missed(
    server: PhoenixServer,
) -> None:
    async def probe() -> None:
        await server.broadcast({})

    async with running(server, probe=probe, heartbeat=1e6, pong=0.3) as it:
        await until(it.live)
        server.freeze()
        it.feed.missed()
        await until(lambda: server.connections == 2 and it.live())
        assert it.feed.reconnections == {"silent": 1}
        await until(lambda: it.feed.healthy)  # the new link has heard a probe


async def test_a_channel_that_the_limit_shut_down_is_joined_again_and_not_relied_on(
    server: PhoenixServer,
) -> None:
    async with running(server) as it:
        await until(it.live)
        channel = server.live("gre:relay")[0]
        await channel.system("Too many messages per second", "error", extension="system")
        await channel.send("phx_close", {}, channel.join_ref)
        await until(lambda: server.connections == 2 and it.feed.state is FeedState.THROTTLED)
        assert it.feed.reconnections == {"throttled": 1}
        assert not it.feed.healthy


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
    async with running(server, renew=0.2, heartbeat=0.1, pong=0.7) as it:
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
