"""What rings and what is missing: the feed against a Realtime server, with the real client on real sockets."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator

import pytest

from gre_bridge.db.types import NewRow
from gre_bridge.realtime.subscription import DEAF, FeedState, sessions_of
from tests.support.feeds import BOTH, BROADCAST, KEY, S1, S2, running
from tests.support.phoenix import TEXT, PhoenixServer, until

# The client reads attributes of the exception that websockets has deprecated; a warning that is made an
# error would end its listener.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")


@pytest.fixture
async def server() -> AsyncIterator[PhoenixServer]:
    async with PhoenixServer() as phoenix:
        yield phoenix


# What rings


async def test_the_join_and_every_wake_up_ring(server: PhoenixServer) -> None:
    async with running(server) as it:
        await until(it.live)
        assert it.feed.bells == BROADCAST
        assert it.feed.healthy
        assert it.feed.detail == ""
        assert it.rings == [None]
        assert [join["topic"] for join in server.joins] == ["realtime:gre:relay"]
        await server.broadcast({"sessions": [S1, S2]})
        await until(lambda: len(it.rings) == 2)
        assert it.rings[1:] == [{S1, S2}]


async def test_row_changes_are_subscribed_to_only_while_they_are_wanted(server: PhoenixServer) -> None:
    """Each one counts against the project's limit; where the database can broadcast, nobody needs them."""
    async with running(server) as it:
        await until(it.live)
        it.feed.use_changes(False)
        it.feed.use_changes(True)
        await until(lambda: it.feed.bells == BOTH and len(server.sockets) == 1)
        assert server.connections == 2
        it.rings.clear()
        await server.insert({"session_id": S1})
        await until(lambda: it.rings == [{S1}])
        it.feed.use_changes(False)
        await until(lambda: it.feed.bells == BROADCAST and len(server.sockets) == 1)
        assert server.connections == 3
        assert it.feed.reconnections == {"renewal": 2}
        assert FeedState.WAITING not in it.states, "the old link served until the new one was ready"


async def test_a_feed_without_broadcasts_is_announced_step_by_step(server: PhoenixServer) -> None:
    server.join_private = "refuse"
    server.binding = "late"
    async with running(server, system=3.0) as it:
        await until(lambda: it.feed.state is FeedState.JOINED and it.feed.bells == set())
        assert not it.feed.healthy
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(it.live)
        assert it.feed.bells == {"postgres_changes"}
        assert it.feed.healthy, "one bell is enough"
    shown = [s for i, s in enumerate(it.states) if s not in it.states[:i]]
    assert [s for s in shown if s is not FeedState.WAITING] == [
        FeedState.CONNECTING,
        FeedState.JOINED,
        FeedState.LIVE,
        FeedState.STOPPED,
    ]


async def test_the_server_subscribing_again_rings_again(server: PhoenixServer) -> None:
    async with running(server, changes=True) as it:
        await until(it.live)
        it.rings.clear()
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(lambda: it.rings == [None])
        assert server.connections == 1


async def test_the_join_is_private_and_asks_for_inserts_of_the_messages(server: PhoenixServer) -> None:
    async with running(server, changes=True) as it:
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


async def test_a_row_that_everybody_has_read_rings_for_nobody_and_proves_the_bell_all_the_same(
    server: PhoenixServer,
) -> None:
    asked: list[NewRow] = []

    def known(row: NewRow) -> bool:
        asked.append(row)
        return row.seq == 1

    async with running(server, changes=True, known=known) as it:
        await until(it.live)
        it.rings.clear()
        heard = it.feed.last_wakeup
        await server.insert({"id": "m1", "session_id": S1, "seq": 1, "message": TEXT})
        await until(lambda: asked == [NewRow("m1", S1, 1)])
        assert it.feed.last_wakeup > heard
        # What does not say which row it is (a role that may not see the seq, say) rings.
        await server.insert({"id": "m2", "session_id": S1})
        await server.insert({"id": "m3", "session_id": S2, "seq": 2})
        await until(lambda: it.rings == [{S1}, {S2}])
        assert len(asked) == 2


async def test_a_token_that_is_no_key_of_the_project_comes_in_behind_the_anon_key(
    server: PhoenixServer,
) -> None:
    """Supabase's gateway knows the project's own keys; the channels are joined with the token."""
    token = f"{KEY.partition('.')[0]}.eyJyb2xlIjoiZ3JlX3dvcmtlciJ9.signature"
    async with running(server, key=token, apikey="the anon key") as it:
        await until(it.live)
    assert {path.partition("apikey=")[2].partition("&")[0] for path in server.requests} == {"the+anon+key"}
    assert {join["payload"]["access_token"] for join in server.joins} == {token}


async def test_rubbish_on_the_bell_still_rings(server: PhoenixServer) -> None:
    async with running(server, changes=True) as it:
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
    async with running(server, changes=True) as it:
        await until(it.live)
        it.rings.clear()
        socket = server.live("gre:relay")[0].socket
        for rubbish in ({"text": TEXT}, [TEXT], TEXT, {"event": "broadcast", "topic": "x", "payload": TEXT}):
            await socket.send(json.dumps(rubbish))
        await socket.send(TEXT)
        await socket.send(TEXT.encode() + b"\xff")
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


async def test_a_row_that_the_clients_models_refuse_rings(server: PhoenixServer) -> None:
    async with running(server, changes=True) as it:
        await until(it.live)
        it.rings.clear()
        await server.insert({"session_id": S1}, commit_timestamp=None)
        await until(lambda: it.rings == [{S1}])


async def test_after_an_outage_of_the_database_no_bell_is_relied_on_for_a_while(
    server: PhoenixServer,
) -> None:
    """Realtime loses what is written until it listens again, and shows nothing of that."""
    ahead = 0.0
    async with running(server, clock=lambda: time.monotonic() + ahead) as it:
        await until(it.live)
        assert it.feed.healthy
        it.states.clear()
        it.feed.doubt()
        assert not it.feed.healthy
        assert it.states == [FeedState.LIVE], "who sweeps slowly is told to sweep faster"
        ahead = DEAF / 2
        it.feed.missed()
        assert not it.feed.healthy
        assert it.feed.misses == 0, "which says nothing of Realtime's limits"
        ahead = DEAF + 0.1
        assert it.feed.healthy
        it.states.clear()
        it.feed.doubt()
        assert it.states, "and at the next outage again"
        assert not it.feed.healthy
        assert server.connections == 1


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


# What is missing


async def test_without_private_channels_changes_are_heard_on_a_public_one(server: PhoenixServer) -> None:
    server.join_private = "refuse"
    server.refusal_delay = 0.1
    async with running(server) as it:
        await until(lambda: it.feed.bells == {"postgres_changes"})
        await until(it.live)
        assert it.feed.bells == {"postgres_changes"}
        assert it.feed.healthy
        assert it.feed.detail.startswith("no broadcast: Unauthorized")
        it.rings.clear()
        await server.insert({"session_id": S1})
        await until(lambda: it.rings == [{S1}])
        assert server.connections == 2, "the first attempt, all private, and the second"


async def test_a_bell_is_believed_on_its_own_channel_only(server: PhoenixServer) -> None:
    """Where the rows' channel is public, anybody with the anon key may broadcast on it."""
    server.join_private = "refuse"
    events: list[object] = []
    async with running(server, on_event=lambda *told: events.append(told)) as it:
        await until(lambda: it.live() and it.feed.bells == {"postgres_changes"})
        it.rings.clear()
        rows = server.live(":rows")[0]
        assert not rows.private
        for name in ("typing", "wakeup"):
            await rows.send("broadcast", {"type": "broadcast", "event": name, "payload": {"sessions": [S2]}})
        rows.topic = "phoenix"
        await rows.send("broadcast", {"type": "broadcast", "event": "wakeup", "payload": {"sessions": [S2]}})
        await server.insert({"session_id": S2})
        rows.topic = "realtime:GRE:relay:rows"
        await server.insert({"session_id": S2})
        rows.topic = "realtime:gre:relay:rows"
        await server.insert({"session_id": S1})
        await until(lambda: {S1} in it.rings)
        assert it.rings == [{S1}]
        assert events == []


async def test_a_refused_binding_leaves_the_broadcasts_and_no_rejoin(server: PhoenixServer) -> None:
    server.binding = "refuse"
    async with running(server, changes=True) as it:
        await until(it.live)
        assert it.feed.bells == {"broadcast"}
        assert it.feed.detail.startswith("no postgres_changes: Unable to subscribe")
        # The client's own rejoin would come 1 s after the error, and end in a zombie.
        with pytest.raises(TimeoutError):
            await until(lambda: len(server.joins) > 2, seconds=1.3)
        await server.broadcast({"sessions": [S1]})
        await until(lambda: it.rings[-1] == {S1})
        assert server.connections == 1


async def test_broadcasts_that_are_missing_are_looked_for_again_while_row_changes_wake(
    server: PhoenixServer,
) -> None:
    server.join_private = "refuse"
    async with running(server, retry=0.2) as it:
        await until(lambda: it.live() and server.connections >= 3)
        assert it.feed.bells == {"postgres_changes"}
        server.join_private = "ok"
        it.states.clear()
        await until(lambda: it.feed.bells == BROADCAST)
        assert it.feed.detail == ""
        assert set(it.states) == {FeedState.LIVE}, "the old link served until the new one was ready"
        await until(lambda: len(server.sockets) == 1)


async def test_a_late_system_message_is_waited_for_and_a_later_one_still_counts(
    server: PhoenixServer,
) -> None:
    server.binding = "late"
    async with running(server, changes=True, system=0.1) as it:
        await until(it.live)
        assert it.feed.detail == 'no postgres_changes: no "Subscribed to PostgreSQL"'
        it.rings.clear()
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(lambda: it.feed.bells == BOTH)
        assert it.rings == [None]
        assert server.connections == 1
