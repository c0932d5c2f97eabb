"""Bulk inserts: a client that reads receives all messages once and in order; one that does not read delays no other."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict

import psutil

from tests.api.client import Client, entered
from tests.api.conftest import Api
from tests.api.test_socket_limits import deaf
from tests.support.waiting import wait_until

BASE = 7_000_000_000


def seqs_of(client: Client, base: int) -> dict[int, list[int]]:
    """Return the received seqs by player, of the players from `base` on."""
    found = defaultdict(list)
    for frame in client.all("chat_message"):
        message = frame["message"]
        if base < message["player_id"] <= base + 1000:
            found[message["player_id"]].append(message["seq"])
    return found


def erase(api: Api, base: int) -> None:
    """Staff who connect within a minute would receive all this."""
    with api.stack.db() as conn:
        conn.execute("delete from gre_chat_messages where player_id between %s and %s", [base, base + 1000])
        conn.execute("delete from gre_chat_sessions where player_id between %s and %s", [base, base + 1000])


async def test_a_paused_reader_receives_the_rest_when_it_reads_again(api: Api, player_id: int) -> None:
    """Some 32 MB while it does not read: they take no memory, and nothing is lost, repeated or out of order."""
    staff = api.stack.keys.user_token("staff", staff_id="s1")
    process = psutil.Process(api.worker.pids["api"])
    session = (await asyncio.to_thread(api.player(player_id).send))["sessionId"]
    base = BASE + 1000
    async with entered(api.worker.url, staff) as desk, entered(api.worker.url, staff) as paused:
        paused.ws.transport.pause_reading()
        before = process.memory_info().rss
        for turn in range(10):
            await asyncio.to_thread(
                api.sql,
                "insert into gre_chat_messages (player_id, sender, message)"
                " select %s + n %% 10, 'staff', repeat('💬', 4000) from generate_series(0, 199) n",
                base + 1,
            )
            await asyncio.to_thread(
                api.staff().post, "/api/gre-admin/reply", sessionId=session, message=f"turn {turn}"
            )
            await desk.until(
                lambda n=turn: (
                    len(desk.all("chat_message", message={"session_id": session})) > n
                    and sum(map(len, seqs_of(desk, base).values())) == 200 * (n + 1)
                )
            )
        assert process.memory_info().rss - before < 40 * 1024 * 1024
        for other in range(2):
            await asyncio.to_thread(
                api.staff().put, f"/api/gre-admin/session/{session}/status",
                status="closed" if other else "assigned",
            )  # fmt: skip
        await desk.wait("session_updated", session={"id": session, "status": "closed"})
        paused.ws.transport.resume_reading()
        await paused.until(
            lambda: len(paused.frames) > 2000 and sum(map(len, seqs_of(paused, base).values())) >= 2000
        )
        for client in (desk, paused):
            await client.wait("session_updated", session={"id": session, "status": "closed"})
            assert seqs_of(client, base) == {base + 1 + n: list(range(1, 201)) for n in range(10)}
            assert [
                f["message"]["seq"] for f in client.all("chat_message", message={"session_id": session})
            ] == [*range(2, 12)]
        api.sql(
            "insert into gre_chat_messages (player_id, sender, message) values (%s, 'staff', 'live')",
            base + 1,
        )
        for client in (desk, paused):
            await client.wait("chat_message", message={"message": "live"}, replay=False)
    await asyncio.to_thread(erase, api, base)


async def test_sockets_that_ask_for_long_histories_and_read_nothing_cost_little(
    api: Api, player_id: int
) -> None:
    """500 messages of 16 KB for each of 20: as frames 160 MB."""
    session = (await asyncio.to_thread(api.player(player_id).send))["sessionId"]
    api.sql(
        "insert into gre_chat_messages (session_id, player_id, sender, message)"
        " select %s, %s, 'staff', repeat('💬', 4000) from generate_series(1, 500)", session, player_id,
    )  # fmt: skip
    mine = api.stack.keys.user_token("player", player_id=player_id)
    process = psutil.Process(api.worker.pids["api"])
    served = api.worker.metric("gre_socket_messages_total", way="replayed")
    before, socks = process.memory_info().rss, list[socket.socket]()
    try:
        socks += [await asyncio.to_thread(deaf, api.worker.url, mine, since={session: 0}) for _ in range(19)]
        # One that does read has everything, however long the others do not.
        async with entered(api.worker.url, mine, since={session: 0}) as reader:
            await reader.until(lambda: len(reader.all("chat_message")) == 501)
            assert [f["message"]["seq"] for f in reader.all("chat_message")] == list(range(1, 502))
        await asyncio.to_thread(
            wait_until,
            lambda: api.worker.metric("gre_socket_messages_total", way="replayed") > served + 501,
        )
        assert process.memory_info().rss - before < 50 * 1024 * 1024
    finally:
        for sock in socks:
            sock.close()
