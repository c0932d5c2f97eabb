"""No gap and no repeat through outages: messages of every interface reach each page that may see them once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from tests.api.client import Follower, entered
from tests.api.conftest import NO_MEDIA
from tests.support.loopback import NO_TLS, PATIENT
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import pause, until

SETTINGS = {**NO_MEDIA, "GRE_AUTH_FAILURES_PER_MINUTE": "100000", "GRE_FAST_POLL_INTERVAL": "0.5"}


@pytest.fixture(scope="module")
def two_workers(stack_process: StackProcess) -> Iterator[list[Worker]]:
    """Two instances on one project."""
    two = [stack_process.worker(**SETTINGS) for _ in range(2)]
    try:
        yield two
    finally:
        for worker in two:
            worker.kill()


@pytest.fixture
def workers(stack_process: StackProcess, two_workers: list[Worker]) -> list[Worker]:
    """Both instances, running, without faults."""
    stack_process.http.delete("/__stack/faults").raise_for_status()
    for worker in two_workers:
        if worker.process is None or worker.process.poll() is not None:
            worker.start()
    return two_workers


@dataclass
class Storm:
    """People who write continuously by all interfaces, and pages that follow."""

    stack: StackProcess
    urls: Callable[[], list[str]]
    players: list[int]
    pages: dict[int | None, list[Follower]] = field(default_factory=dict)
    """By player; None for staff's."""
    sent: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the writers stop."""

    def follow(self, player_id: int | None, hop: float | None) -> Follower:
        keys = self.stack.keys
        token = (
            keys.user_token("staff", staff_id="s1")
            if player_id is None
            else keys.user_token("player", player_id=player_id)
        )
        page = Follower(self.urls, token, hop=hop)
        self.pages.setdefault(player_id, []).append(page)
        return page

    @property
    def everyone(self) -> list[Follower]:
        return [page for pages in self.pages.values() for page in pages]

    async def write(self, http: httpx.AsyncClient, player_id: int, every: float) -> None:
        """One conversation: each message goes by an interface chosen at random, repeated until it is accepted.

        It ends between two messages, so that nothing is stored any more once all have ended.
        """
        while not self.over.is_set():
            text, message_id = f"m{self.sent}", str(uuid.uuid4())
            self.sent += 1
            interface = random.choice(
                [
                    self._rest,
                    self._table,
                    self._function,
                    self._reply,
                    self._staff_table,
                    self._socket,
                    self._staff_socket,
                ]
            )
            await self._again(interface, http, player_id, message_id, text)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), every * random.random() * 2)

    async def _again(
        self,
        interface: Callable[..., Awaitable[bool]],
        http: httpx.AsyncClient,
        player_id: int,
        message_id: str,
        text: str,
    ) -> None:
        async with asyncio.timeout(180):
            while True:
                with contextlib.suppress(httpx.HTTPError, IndexError):
                    if await interface(http, player_id, message_id, text):
                        return
                await pause(0.1, "before the message is sent again")

    def _headers(self, player_id: int | None) -> dict[str, str]:
        keys = self.stack.keys
        return self.stack.headers(
            keys.user_token("staff", staff_id="s1")
            if player_id is None
            else keys.user_token("player", player_id=player_id)
        )

    def _any(self) -> str:
        return random.choice(self.urls())

    async def _rest(self, http: httpx.AsyncClient, player_id: int, message_id: str, text: str) -> bool:
        body = {"playerId": player_id, "message": text, "id": message_id}
        answer = await http.post(
            f"{self._any()}/api/gre-chat/send", json=body, headers=self._headers(player_id)
        )
        assert answer.status_code in (200, 201, 503), answer.text
        return answer.status_code != 503

    async def _reply(self, http: httpx.AsyncClient, player_id: int, message_id: str, text: str) -> bool:
        body = {"playerId": player_id, "message": text, "id": message_id}
        answer = await http.post(f"{self._any()}/api/gre-admin/reply", json=body, headers=self._headers(None))
        assert answer.status_code in (200, 201, 503), answer.text
        return answer.status_code != 503

    async def _insert(self, http: httpx.AsyncClient, headers: dict[str, str], **row: object) -> bool:
        answer = await http.post(f"{self.stack.url}/rest/v1/gre_chat_messages", json=row, headers=headers)
        return answer.status_code in (201, 409)

    async def _table(self, http: httpx.AsyncClient, player_id: int, message_id: str, text: str) -> bool:
        row = {"id": message_id, "player_id": player_id, "message": text, "sender": "player"}
        return await self._insert(http, self._headers(player_id), **row)

    async def _staff_table(self, http: httpx.AsyncClient, player_id: int, message_id: str, text: str) -> bool:
        row = {
            "id": message_id,
            "player_id": player_id,
            "message": text,
            "sender": "staff",
            "sender_id": "s1",
        }
        return await self._insert(http, self._headers(None), **row)

    async def _function(self, http: httpx.AsyncClient, player_id: int, message_id: str, text: str) -> bool:
        body = {"p_message": text, "p_id": message_id}
        answer = await http.post(
            f"{self.stack.url}/rest/v1/rpc/gre_send_message", json=body, headers=self._headers(player_id)
        )
        return answer.status_code == 200

    async def _socket(self, _: httpx.AsyncClient, player_id: int, message_id: str, text: str) -> bool:
        await random.choice(self.pages[player_id]).send(id=message_id, message=text)
        return True

    async def _staff_socket(self, _: httpx.AsyncClient, player_id: int, message_id: str, text: str) -> bool:
        await random.choice(self.pages[None]).send(id=message_id, message=text, playerId=player_id)
        return True

    def stored(self) -> dict[int, dict[str, int]]:
        """By player: its sessions with their last seq."""
        found: dict[int, dict[str, int]] = {player: {} for player in self.players}
        with self.stack.db() as conn:
            for row in conn.execute(
                "select player_id, session_id::text, max(seq) as last, count(*) as n from gre_chat_messages"
                " where player_id = any (%s) group by 1, 2", [self.players],
            ):  # fmt: skip
                assert row["last"] == row["n"]
                found[row["player_id"]][row["session_id"]] = row["last"]
        return found

    async def judge(self) -> None:
        """Check that each page has every message that it may see, once and in order, and no other."""
        stored = await asyncio.to_thread(self.stored)
        assert self.sent > 4 * len(self.players)
        assert sum(sum(sessions.values()) for sessions in stored.values()) == self.sent
        for player, pages in self.pages.items():
            mine = {
                s: n for one, sessions in stored.items() for s, n in sessions.items() if player in (None, one)
            }
            for page in pages:
                for session, last in mine.items():
                    seqs = page.received[session]
                    assert seqs == sorted(set(seqs)), f"repeated or out of order: {seqs}"
                    missing = set(range(1, last + 1)) - {*seqs, *page.acked[session]}
                    assert not missing, f"never sent to {player or 'staff'} of {last}: {sorted(missing)}"
                assert player is None or page.received.keys() <= mine.keys()

    async def complete(self) -> bool:
        if any(page.waiting for page in self.everyone):
            return False
        # All that was sent is stored by now: what a look finds before that may be less than what is judged.
        stored = await asyncio.to_thread(self.stored)
        return all(
            page.complete(session, last)
            for player, sessions in stored.items() for session, last in sessions.items()
            for page in (*self.pages[player], *self.pages[None])
        )  # fmt: skip


_players = iter(range(5_000_001, 6_000_000))


@asynccontextmanager
async def storm(
    stack: StackProcess,
    workers: list[Worker],
    *,
    players: int = 4,
    hop: float | None = None,
    every: float = 0.12,
) -> AsyncIterator[Storm]:
    """Run writers and pages during the body of a test, then judge them."""

    def urls() -> list[str]:
        return [
            w.url
            for w in workers
            if w.process is not None
            and w.process.poll() is None
            and '"address"' in w.log.read_text()[w._from :]
        ]

    people = Storm(stack, urls, [next(_players) for _ in range(players)])
    for player in (None, *people.players):
        for _ in range(2):
            people.follow(player, hop and hop * (0.5 + random.random()))
    async with (
        httpx.AsyncClient(timeout=20, trust_env=False, verify=NO_TLS) as http,
        asyncio.TaskGroup() as group,
    ):
        following = [group.create_task(page.run()) for page in people.everyone]
        await until(lambda: all(page.entries for page in people.everyone))
        writing = [group.create_task(people.write(http, player, every)) for player in people.players]
        # A page that knows no session is not told of one that was opened and closed while it was away.
        await until(lambda: all(page.received or page.acked for page in people.everyone), what="traffic")
        await pause(0.5, "traffic before the fault")
        yield people
        await pause(0.5, "traffic after the fault")
        await until(lambda: people.sent > 4 * players, what="traffic")
        people.over.set()
        await asyncio.wait(writing)
        for page in people.everyone:
            page.hop = None
        with contextlib.suppress(AssertionError):  # the judgement below names the missing messages
            await until(people.complete, 120, 0.1)
        await people.judge()
        for task in following:
            task.cancel()


async def test_no_gap_while_the_server_is_killed(stack_process: StackProcess, workers: list[Worker]) -> None:
    first = workers[:1]
    async with storm(stack_process, first) as people:
        for number in (signal.SIGKILL, signal.SIGTERM):
            first[0].signal(number)
            await asyncio.to_thread(first[0].process.wait, 60)  # type: ignore[union-attr]
            entries = [page.entries for page in people.everyone]
            await pause(0.3, "the server stays away")
            await asyncio.to_thread(first[0].start)
            await until(
                lambda e=entries: all(page.entries > n for page, n in zip(people.everyone, e, strict=True))
            )


@pytest.mark.parametrize("fault", ["refused", "deaf"])
async def test_no_gap_while_realtime_is_down(
    stack_process: StackProcess, workers: list[Worker], fault: str
) -> None:
    async with storm(stack_process, workers[:1]) as people:
        if fault == "refused":
            stack_process.fault("realtime", {"refuse": True})
            stack_process.fault("realtime", {"action": "close_all"})
        else:
            stack_process.fault("realtime", {"deaf": True})
        await pause(1.5, "events from before the fault arrive")

        def live() -> int:
            return sum(len(seqs) for page in people.everyone for seqs in page.live.values())

        before = live()
        await pause(1.5, "time in which nothing may arrive")
        if fault == "refused":
            await until(lambda: live() > before, what="what is polled")
        stack_process.fault("realtime", None)
    assert all(page.entries == 1 for page in people.everyone), "nobody had to reconnect"


@pytest.mark.parametrize("fault", ["503", "lost answers", "crash"])
async def test_no_gap_while_the_database_is_down(
    stack_process: StackProcess, workers: list[Worker], fault: str
) -> None:
    async with storm(stack_process, workers[:1], players=3, hop=1.5) as people:
        match fault:
            case "503":
                stack_process.fault("rest", {"mode": "status", "status": 503, "for": 2.5})
            case "lost answers":
                stack_process.fault("rest", {"mode": "lose_answer", "for": 2.0})
            case "crash":
                await asyncio.to_thread(stack_process.fault, "postgres", {"action": "crash"})
                await pause(1, "the database stays away")
                await asyncio.to_thread(stack_process.fault, "postgres", {"action": "start"})
        await pause(3, "traffic while the fault lasts")
        await until(lambda: all(page.entries > 1 for page in people.everyone))


async def test_no_gap_while_pages_change_instance_and_one_is_killed(
    stack_process: StackProcess, workers: list[Worker]
) -> None:
    async with storm(stack_process, workers, players=4, hop=0.8) as people:
        await pause(1, "traffic before the kill")
        workers[1].kill()
        for player in people.players[:2]:
            stack_process.http.post(
                "/rest/v1/rpc/gre_close_session", json={"p_player_id": player},
                headers=stack_process.headers(stack_process.keys.user_token("staff", staff_id="s1")),
            ).raise_for_status()  # fmt: skip
        await pause(0.5, "the instance stays away")
        await asyncio.to_thread(workers[1].start)
        await until(lambda: all(page.entries > 3 for page in people.everyone))


async def test_two_instances_serve_one_conversation(
    stack_process: StackProcess, workers: list[Worker]
) -> None:
    keys = stack_process.keys
    player, staff_id = next(_players), f"two{uuid.uuid4().hex[:6]}"
    with stack_process.db() as conn:
        conn.execute("insert into gre_staff (staff_id) values (%s)", [staff_id])
    one, two = workers[0].url, workers[1].url
    async with (
        entered(one, keys.user_token("player", player_id=player)) as phone,
        entered(two, keys.user_token("staff", staff_id=staff_id)) as desk,
        entered(two, keys.user_token("player", player_id=player)) as laptop,
    ):
        await phone.wait("staff_status", staffId=staff_id, status="online")
        await phone.send("send_message", message="Hello", clientId="1")
        session = (await phone.wait("message_ack"))["sessionId"]
        for client in (desk, laptop):
            await client.wait("chat_message", message={"session_id": session, "seq": 1})
        await desk.send("typing", sessionId=session)
        assert (await phone.wait("typing"))["by"] == "staff"
        await phone.send("typing", typing=False)
        for client in (desk, laptop):
            assert (await client.wait("typing", by="player")) == {
                "type": "typing", "sessionId": session, "playerId": player, "by": "player", "typing": False,
            }  # fmt: skip
        await desk.send("mark_read", sessionId=session, upToSeq=1)
        assert (await phone.wait("messages_read"))["by"] == "staff"
        await desk.send("send_message", sessionId=session, message="Welcome", clientId="2")
        for client in (phone, laptop):
            await client.wait("chat_message", message={"session_id": session, "seq": 2})
        await desk.send("set_status", status="away")
        await phone.wait("staff_status", staffId=staff_id, status="away")
        assert (
            len(phone.all("typing")) == 1
            and len(phone.all("chat_message")) == 1
            and len(laptop.all("chat_message")) == 2
        )


async def test_sigterm_closes_with_1012(stack_process: StackProcess, workers: list[Worker]) -> None:
    worker = stack_process.worker(**SETTINGS).start()
    try:
        token = stack_process.keys.user_token("player", player_id=next(_players))
        async with entered(worker.url, token) as phone, entered(worker.url, token) as laptop:
            worker.signal(signal.SIGTERM)
            assert [await phone.end(), await laptop.end()] == [1012, 1012]
        assert await asyncio.to_thread(worker.process.wait, 60) == 0  # type: ignore[union-attr]
    finally:
        worker.kill()


async def test_a_request_that_a_stop_overtakes_is_refused_as_unavailable(stack_process: StackProcess) -> None:
    staff = stack_process.headers(stack_process.keys.user_token("staff", staff_id="s1"))
    body = {"playerId": next(_players), "message": "Hello", "id": str(uuid.uuid4())}
    worker = stack_process.worker(**SETTINGS).start()
    try:
        async with httpx.AsyncClient(timeout=PATIENT, trust_env=False, verify=NO_TLS) as http:
            reply = f"{worker.url}/api/gre-admin/reply"
            first = (await http.post(reply, json={**body, "id": str(uuid.uuid4())}, headers=staff)).json()
            with stack_process.db() as holder, stack_process.db() as observer:
                holder.autocommit = False
                holder.execute(
                    "select from gre_chat_sessions where id = %s for update", [first["message"]["session_id"]]
                )
                waiting = asyncio.create_task(http.post(reply, json=body, headers=staff))
                await until(
                    lambda: observer.execute(
                        "select 1 from pg_stat_activity where pg_blocking_pids(pid) @> array[%s]::int[]",
                        [holder.info.backend_pid],
                    ).fetchone()
                )
                worker.signal(signal.SIGTERM)
                answer = await waiting
                holder.rollback()
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert await asyncio.to_thread(worker.process.wait, 60) == 0  # type: ignore[union-attr]
        assert "Traceback" not in worker.log.read_text()
    finally:
        worker.kill()
