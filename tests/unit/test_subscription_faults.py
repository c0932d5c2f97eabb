"""Broken connections, lost wake-ups and renewal: the subscription against a misbehaving Realtime server."""

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
from gre_bridge.realtime.subscription import SubscriptionState
from tests.support.phoenix import PhoenixServer
from tests.support.subscriptions import KEY, S1, Recorder, running
from tests.support.waiting import pause, until

# The client reads attributes of the exception that websockets has deprecated; a warning that is made an
# error would end its listener.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")


@pytest.fixture
async def server() -> AsyncIterator[PhoenixServer]:
    async with PhoenixServer() as phoenix:
        yield phoenix


# Broken connections


async def test_it_reconnects_when_the_server_is_back(server: PhoenixServer) -> None:
    await server.stop()
    async with running(server) as it:
        await until(lambda: it.subscription.reconnections["connect"] >= 3)
        assert it.subscription.state in (SubscriptionState.WAITING, SubscriptionState.CONNECTING)
        assert not it.subscription.healthy
        await until(lambda: it.reported("ConnectionRefusedError"))
        await server.start()
        await until(it.live)
        await server.stop()
        await until(lambda: it.subscription.reconnections["closed"] == 1)
        await server.start()
        await until(it.live)
        assert it.subscription.reconnections["closed"] == 1


async def test_a_refused_key_is_named_in_the_detail_without_the_key(server: PhoenixServer) -> None:
    server.handshake = "refuse"
    server.refusal = f"Token has expired:\n{KEY}"
    async with running(server) as it:
        await until(lambda: it.reported("connect: HTTP 401 Token has expired: ***"))
        server.handshake = "serve"
        await until(it.live)
        assert it.subscription.detail == ""


async def test_attempts_back_off_while_the_server_accepts_and_closes(server: PhoenixServer) -> None:
    server.handshake = "close"
    async with running(server, backoff=0.05, backoff_max=0.4, jitter=lambda: 1.0) as it:
        await until(lambda: server.connections >= 7)
        came = server.connected_at
        assert came[6] - came[4] >= 0.75, "the 5th wait and later ones last 0.4 s"
        assert set(it.subscription.reconnections) == {"closed"}


async def test_many_attempts_in_a_short_outage_make_no_wait_longer_than_the_outage(
    server: PhoenixServer,
) -> None:
    server.handshake = "close"
    short = iter([0.0] * 8)
    async with running(server, backoff=0.05, backoff_max=60.0, jitter=lambda: next(short, 1.0)) as it:
        await until(lambda: server.connections >= 9)
        server.handshake = "serve"
        began = time.monotonic()
        await until(it.live)
        assert time.monotonic() - began < 12.8, "a wait that doubles with each attempt would last as long"


async def test_time_with_a_connection_makes_no_wait_longer(server: PhoenixServer) -> None:
    async with running(server, backoff=0.05, backoff_max=60.0, jitter=lambda: 1.0) as it:
        await until(it.live)
        await server.close_sockets()
        await until(lambda: server.connections == 2 and it.live())
        await pause(6.0, "a connection of some length that is not stable yet")
        closed = time.monotonic()
        await server.close_sockets()
        await until(lambda: server.connections == 3)
        assert time.monotonic() - closed < 5.5, "the second wait lasts 0.1 s"


async def test_a_short_connection_does_not_reset_the_backoff(server: PhoenixServer) -> None:
    async with running(server, backoff=0.05, backoff_max=0.4, jitter=lambda: 1.0) as it:
        for n in range(1, 6):
            await until(lambda n=n: server.connections == n and it.live())
            closed = time.monotonic()
            await server.close_sockets(1000)
        await until(lambda: server.connections == 6)
        assert time.monotonic() - closed >= 0.35


async def test_a_stable_connection_resets_the_backoff(server: PhoenixServer) -> None:
    async with running(server, backoff=0.05, backoff_max=60.0, jitter=lambda: 1.0, stable=0.0) as it:
        for n in range(1, 9):
            await until(lambda n=n: server.connections == n and it.live())
            await server.close_sockets()
        came = server.connected_at
        assert came[7] - came[0] < 6, "without `stable` the pauses would add up to more than 6 s"


async def test_a_half_open_socket_is_detected_and_aborted(server: PhoenixServer) -> None:
    async with running(server, heartbeat=0.1, heartbeat_reply=3.0) as it:
        await until(lambda: it.live() and server.heartbeats >= 3)
        assert server.connections == 1
        frozen = list(server.sockets)
        server.freeze()
        await until(lambda: server.connections == 2 and it.live())
        assert it.subscription.reconnections == {"silent": 1}
        assert len(connections_to(server)) == 1, "the old one was aborted"
        assert server.sockets.issuperset(frozen), "the server has not noticed"


async def test_a_closed_channel_replaces_the_connection(server: PhoenixServer) -> None:
    async with running(server, row_changes=True) as it:
        await until(it.live)
        channel = server.live("gre:relay")[0]
        await channel.system("Token has expired 0 seconds ago", "error", extension="system")
        await channel.send("phx_close", {}, channel.join_ref)
        await until(lambda: it.reported("Token has expired 0 seconds ago"))
        await until(lambda: server.connections == 2 and it.live())
        channel = server.live(":rows")[0]
        await channel.send("phx_close", {}, channel.join_ref)
        await until(lambda: server.connections == 3 and it.live())
        await server.live(":rows")[0].send("phx_error", {})
        await until(lambda: server.connections == 4 and it.live())
        assert it.subscription.reconnections == {"channel": 3}


async def test_unanswered_joins_time_out(server: PhoenixServer) -> None:
    server.join_private = server.join_public = "ignore"
    async with running(server, join=0.1) as it:
        await until(lambda: it.subscription.reconnections["join"] >= 2)
        assert it.reported("the join was not answered")
        assert not it.subscription.healthy
        server.join_private = server.join_public = "ok"
        await until(it.live)


async def test_the_end_of_the_clients_reader_is_detected(
    server: PhoenixServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(server, row_changes=True, heartbeat=0.5) as it:
        await until(it.live)
        with monkeypatch.context() as patch:
            patch.setattr(AsyncRealtimeChannel, "_handle_message", lambda *_: 1 / 0)
            await server.live(":rows")[0].subscribed_to_postgres()
            await until(lambda: it.reported("ZeroDivisionError"))
        await until(lambda: server.connections == 2 and it.live())


# Lost wake-ups and renewal


def connections_to(server: PhoenixServer) -> list[object]:
    """This process's TCP connections to the server that are not closed."""
    port = urlsplit(server.url).port
    everything = psutil.Process().net_connections("tcp")
    return [c for c in everything if c.raddr and c.raddr.port == port and c.status == "ESTABLISHED"]


class Prober(Recorder):
    """Has the server send a wake-up when it is requested."""

    def __init__(self, server: PhoenixServer) -> None:
        super().__init__()
        self.server = server

    async def request_wakeup(self) -> None:
        await self.server.broadcast({})


class SlowProber(Prober):
    """Has only the third request succeed."""

    requests = 0

    async def request_wakeup(self) -> None:
        self.requests += 1
        if self.requests == 3:
            await super().request_wakeup()
        elif self.requests == 2:
            raise TransientError("away")


async def test_missed_wakeups_throttle_the_subscription_and_keep_the_connection(
    server: PhoenixServer,
) -> None:
    async with running(server, SlowProber(server), throttled=1.0, probe=0.6) as it:
        await until(it.live)
        heartbeats, began = server.heartbeats, time.monotonic()
        it.subscription.report_missed_wakeup()
        assert not it.subscription.healthy
        assert it.subscription.state is SubscriptionState.THROTTLED
        assert "limit of events" in it.subscription.detail
        await until(lambda: server.heartbeats == heartbeats + 1)
        await server.broadcast({"sessions": [S1]})
        await until(lambda: it.wakeups[-1] == {S1})
        assert not it.subscription.healthy, "one wake-up says little about the next"
        it.subscription.report_missed_wakeup()
        assert it.subscription.missed_wakeups == 1
        await until(lambda: it.requests == 3)
        assert time.monotonic() - began >= 3.0, "the period starts again after each probe without a wake-up"
        await until(lambda: it.subscription.healthy)
        assert it.subscription.state is SubscriptionState.LIVE
        assert it.subscription.detail == ""
        assert server.connections == 1
        assert it.subscription.reconnections == {}


async def test_a_missed_wakeup_detects_a_dead_socket(
    server: PhoenixServer,
) -> None:
    async with running(server, Prober(server), heartbeat=1e6, heartbeat_reply=2.0) as it:
        await until(it.live)
        server.freeze()
        it.subscription.report_missed_wakeup()
        await until(lambda: server.connections == 2 and it.live())
        assert it.subscription.reconnections == {"silent": 1}
        await until(lambda: it.subscription.healthy)  # the probe of the new connection arrived


async def test_a_channel_closed_by_the_limit_is_joined_again_and_unreliable(
    server: PhoenixServer,
) -> None:
    async with running(server) as it:
        await until(it.live)
        channel = server.live("gre:relay")[0]
        await channel.system("Too many messages per second", "error", extension="system")
        await channel.send("phx_close", {}, channel.join_ref)
        await until(lambda: server.connections == 2 and it.subscription.state is SubscriptionState.THROTTLED)
        assert it.subscription.reconnections == {"throttled": 1}
        assert not it.subscription.healthy


async def test_renewal_opens_the_new_connection_before_it_closes_the_old(server: PhoenixServer) -> None:
    async with running(server, renew=0.15) as it:
        await until(it.live)
        it.states.clear()
        await until(lambda: it.subscription.reconnections["renewal"] >= 4)
        assert set(it.states) <= {SubscriptionState.LIVE}
        assert it.subscription.reconnections == {"renewal": it.subscription.reconnections["renewal"]}
        assert server.most_sockets == 2


async def test_a_failed_renewal_leaves_the_old_connection_in_use(server: PhoenixServer) -> None:
    async with running(server, renew=0.2, heartbeat=0.1, heartbeat_reply=3.0) as it:
        await until(it.live)
        it.states.clear()
        server.handshake = "refuse"
        await until(lambda: it.subscription.reconnections["connect"] >= 3)
        it.wakeups.clear()
        await server.broadcast({"sessions": [S1]})
        await until(lambda: it.wakeups == [{S1}])
        assert it.subscription.healthy
        assert it.states == []
        server.freeze()  # the old one is still watched
        await until(lambda: it.subscription.reconnections["silent"] == 1)
        assert not it.subscription.healthy
        server.handshake = "serve"
        await until(it.live)


async def test_many_connections_leave_nothing_behind(server: PhoenixServer) -> None:
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
