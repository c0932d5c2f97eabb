"""Wake-ups and unavailable channels: the subscription against a Realtime server, with the real client on real sockets."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from gre_bridge.db.types import NewRow
from gre_bridge.realtime.messages import parse_session_ids
from gre_bridge.realtime.subscription import UNRELIABLE_AFTER_OUTAGE, SubscriptionState
from tests.support.phoenix import TEXT, PhoenixServer
from tests.support.subscriptions import BOTH, BROADCAST, KEY, S1, S2, Recorder, running
from tests.support.waiting import until

# The client reads attributes of the exception that websockets has deprecated; a warning that is made an
# error would end its listener.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")


@pytest.fixture
async def server() -> AsyncIterator[PhoenixServer]:
    async with PhoenixServer() as phoenix:
        yield phoenix


# Wake-ups


async def test_each_join_and_each_broadcast_is_a_wakeup(server: PhoenixServer) -> None:
    async with running(server) as it:
        await until(it.live)
        assert it.subscription.ready_channels == BROADCAST
        assert it.subscription.healthy
        assert it.subscription.detail == ""
        assert it.wakeups == [None]
        assert [join["topic"] for join in server.joins] == ["realtime:gre:relay"]
        await server.broadcast({"sessions": [S1, S2]})
        await until(lambda: len(it.wakeups) == 2)
        assert it.wakeups[1:] == [{S1, S2}]


async def test_row_changes_are_subscribed_to_only_while_they_are_enabled(server: PhoenixServer) -> None:
    """Each row change counts against the project's limit and is redundant where the database can broadcast."""
    async with running(server) as it:
        await until(it.live)
        it.subscription.set_row_changes(False)
        it.subscription.set_row_changes(True)
        await until(lambda: it.subscription.ready_channels == BOTH and len(server.sockets) == 1)
        assert server.connections == 2
        it.wakeups.clear()
        await server.insert({"session_id": S1})
        await until(lambda: it.wakeups == [{S1}])
        it.subscription.set_row_changes(False)
        await until(lambda: it.subscription.ready_channels == BROADCAST and len(server.sockets) == 1)
        assert server.connections == 3
        assert it.subscription.reconnections == {"renewal": 2}
        assert SubscriptionState.WAITING not in it.states, (
            "the old connection stays in use until the new one is ready"
        )


async def test_each_state_is_reported_where_broadcasts_are_unavailable(server: PhoenixServer) -> None:
    server.join_private = "refuse"
    server.binding = "late"
    async with running(server, system=3.0) as it:
        await until(
            lambda: (
                it.subscription.state is SubscriptionState.JOINED and it.subscription.ready_channels == set()
            )
        )
        assert not it.subscription.healthy
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(it.live)
        assert it.subscription.ready_channels == {"postgres_changes"}
        assert it.subscription.healthy, "one ready channel is enough"
    shown = [s for i, s in enumerate(it.states) if s not in it.states[:i]]
    assert [s for s in shown if s is not SubscriptionState.WAITING] == [
        SubscriptionState.CONNECTING,
        SubscriptionState.JOINED,
        SubscriptionState.LIVE,
        SubscriptionState.STOPPED,
    ]


async def test_each_subscribed_message_is_a_wakeup(server: PhoenixServer) -> None:
    async with running(server, row_changes=True) as it:
        await until(it.live)
        it.wakeups.clear()
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(lambda: it.wakeups == [None])
        assert server.connections == 1


async def test_the_join_is_private_and_asks_for_inserts_of_the_messages(server: PhoenixServer) -> None:
    async with running(server, row_changes=True) as it:
        await until(it.live)
    broadcasts, rows = sorted(server.joins, key=lambda join: len(join["topic"]))
    assert broadcasts["topic"] == "realtime:gre:relay"
    assert broadcasts["payload"]["config"]["private"] is True
    assert broadcasts["payload"]["config"]["postgres_changes"] == []
    assert broadcasts["payload"]["access_token"] == KEY
    assert rows["payload"]["config"]["postgres_changes"] == [
        {"event": "INSERT", "schema": "public", "table": "gre_chat_messages"}
    ]


@pytest.mark.parametrize(
    ("ids", "expected"),
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
def test_session_ids_are_read_from_a_short_list_of_uuids_only(ids: object, expected: set[str] | None) -> None:
    assert parse_session_ids(ids) == expected


class FirstRowIsHandled(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[NewRow] = []

    def is_handled(self, row: NewRow) -> bool:
        self.rows.append(row)
        return row.seq == 1


async def test_a_handled_row_is_no_wakeup_but_shows_that_row_changes_arrive(server: PhoenixServer) -> None:
    async with running(server, FirstRowIsHandled(), row_changes=True) as it:
        await until(it.live)
        it.wakeups.clear()
        before = it.subscription.last_wakeup
        await server.insert({"id": "m1", "session_id": S1, "seq": 1, "message": TEXT})
        await until(lambda: it.rows == [NewRow("m1", S1, 1)])
        assert it.subscription.last_wakeup > before
        # A row without its fields is a wake-up: the key's role may not be allowed to read the seq.
        await server.insert({"id": "m2", "session_id": S1})
        await server.insert({"id": "m3", "session_id": S2, "seq": 2})
        await until(lambda: it.wakeups == [{S1}, {S2}])
        assert len(it.rows) == 2


async def test_a_token_that_is_not_a_project_key_is_sent_with_the_anon_key(
    server: PhoenixServer,
) -> None:
    """Supabase's gateway accepts only the project's own keys; the channels are joined with the token."""
    token = f"{KEY.partition('.')[0]}.eyJyb2xlIjoiZ3JlX3dvcmtlciJ9.signature"
    async with running(server, key=token, apikey="the anon key") as it:
        await until(it.live)
    assert {path.partition("apikey=")[2].partition("&")[0] for path in server.requests} == {"the+anon+key"}
    assert {join["payload"]["access_token"] for join in server.joins} == {token}


async def test_a_malformed_wakeup_is_a_wakeup_for_all_sessions(server: PhoenixServer) -> None:
    async with running(server, row_changes=True) as it:
        await until(it.live)
        it.wakeups.clear()
        await server.broadcast({"sessions": {"drop": "table"}})
        await server.broadcast({})
        await server.insert({}, errors=["Error 413: Payload Too Large"])
        await server.insert(None)
        await until(lambda: it.wakeups == [None] * 4)
        assert it.subscription.healthy


async def test_a_frame_that_the_client_rejects_is_not_logged_and_does_not_end_the_connection(
    server: PhoenixServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as events:
        async with running(server, row_changes=True) as it:
            await until(it.live)
            it.wakeups.clear()
            socket = server.live("gre:relay")[0].socket
            for rubbish in (
                {"text": TEXT},
                [TEXT],
                TEXT,
                {"event": "broadcast", "topic": "x", "payload": TEXT},
            ):
                await socket.send(json.dumps(rubbish))
            await socket.send(TEXT)
            await socket.send(TEXT.encode() + b"\xff")
            await server.insert({"session_id": S2})
            await until(lambda: it.wakeups == [{S2}])
            await server.close_sockets()
            await until(lambda: server.connections == 2 and it.live())
            await server.stop()
            await until(lambda: it.subscription.reconnections["connect"] > 1)
    assert {"waiting", "live"} <= {e["state"] for e in events if e["event"] == "realtime_state_changed"}
    for secret in (TEXT, KEY, S2):
        assert secret not in caplog.text
        assert secret not in str(events)


async def test_a_row_that_the_clients_models_reject_is_a_wakeup(server: PhoenixServer) -> None:
    async with running(server, row_changes=True) as it:
        await until(it.live)
        it.wakeups.clear()
        await server.insert({"session_id": S1}, commit_timestamp=None)
        await until(lambda: it.wakeups == [{S1}])


async def test_wakeups_are_unreliable_for_a_while_after_an_outage_of_the_database(
    server: PhoenixServer,
) -> None:
    """Realtime loses rows written before it listens again, and does not report it."""
    ahead = 0.0
    async with running(server, clock=lambda: time.monotonic() + ahead) as it:
        await until(it.live)
        assert it.subscription.healthy
        it.states.clear()
        it.subscription.mark_unreliable()
        assert not it.subscription.healthy
        assert it.states == [SubscriptionState.LIVE], "the listener can poll faster"
        ahead = UNRELIABLE_AFTER_OUTAGE / 2
        it.subscription.report_missed_wakeup()
        assert not it.subscription.healthy
        assert it.subscription.missed_wakeups == 0, "the limits of Realtime are not the cause"
        ahead = UNRELIABLE_AFTER_OUTAGE + 0.1
        assert it.subscription.healthy
        it.states.clear()
        it.subscription.mark_unreliable()
        assert it.states, "also at the next outage"
        assert not it.subscription.healthy
        assert server.connections == 1


class Raising(Recorder):
    def on_wakeup(self, sessions: frozenset[str] | None) -> None:
        super().on_wakeup(sessions)
        raise ValueError(TEXT)


async def test_a_listener_that_raises_does_not_end_the_subscription(server: PhoenixServer) -> None:
    async with running(server, Raising()) as it:
        await until(it.live)
        it.wakeups.clear()
        await server.broadcast({"sessions": [S1]})
        await server.broadcast({"sessions": [S2]})
        await until(lambda: it.wakeups == [{S1}, {S2}])
        assert it.subscription.healthy
        assert server.connections == 1


# Unavailable channels


async def test_without_private_channels_row_changes_arrive_on_a_public_one(server: PhoenixServer) -> None:
    server.join_private = "refuse"
    server.refusal_delay = 0.1
    async with running(server) as it:
        await until(lambda: it.subscription.ready_channels == {"postgres_changes"})
        await until(it.live)
        assert it.subscription.ready_channels == {"postgres_changes"}
        assert it.subscription.healthy
        assert it.subscription.detail.startswith("no broadcast: Unauthorized")
        it.wakeups.clear()
        await server.insert({"session_id": S1})
        await until(lambda: it.wakeups == [{S1}])
        assert server.connections == 2, "the first attempt, all private, and the second"


async def test_a_wakeup_on_another_topic_is_ignored(server: PhoenixServer) -> None:
    """Where the rows' channel is public, anybody with the anon key may broadcast on it."""
    server.join_private = "refuse"
    async with running(server) as it:
        await until(lambda: it.live() and it.subscription.ready_channels == {"postgres_changes"})
        it.wakeups.clear()
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
        await until(lambda: {S1} in it.wakeups)
        assert it.wakeups == [{S1}]
        assert it.events == []


async def test_a_refused_binding_leaves_the_broadcasts_and_no_rejoin(server: PhoenixServer) -> None:
    server.binding = "refuse"
    async with running(server, row_changes=True) as it:
        await until(it.live)
        assert it.subscription.ready_channels == {"broadcast"}
        assert it.subscription.detail.startswith("no postgres_changes: Unable to subscribe")
        # The client would rejoin 1 s after the error.
        with pytest.raises(AssertionError):
            await until(lambda: len(server.joins) > 2, within=1.3)
        await server.broadcast({"sessions": [S1]})
        await until(lambda: it.wakeups[-1] == {S1})
        assert server.connections == 1


async def test_unavailable_broadcasts_are_retried_while_row_changes_are_in_use(
    server: PhoenixServer,
) -> None:
    server.join_private = "refuse"
    async with running(server, retry=0.2) as it:
        await until(lambda: it.live() and server.connections >= 3)
        assert it.subscription.ready_channels == {"postgres_changes"}
        server.join_private = "ok"
        it.states.clear()
        await until(lambda: it.subscription.ready_channels == BROADCAST)
        assert it.subscription.detail == ""
        assert set(it.states) == {SubscriptionState.LIVE}, (
            "the old connection stays in use until the new one is ready"
        )
        await until(lambda: len(server.sockets) == 1)


async def test_a_late_system_message_is_waited_for_and_a_later_one_still_counts(
    server: PhoenixServer,
) -> None:
    server.binding = "late"
    async with running(server, row_changes=True, system=0.1) as it:
        await until(it.live)
        assert it.subscription.detail == 'no postgres_changes: no "Subscribed to PostgreSQL"'
        it.wakeups.clear()
        await server.live(":rows")[0].subscribed_to_postgres()
        await until(lambda: it.subscription.ready_channels == BOTH)
        assert it.wakeups == [None]
        assert server.connections == 1
