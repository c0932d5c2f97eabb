"""Answers that do not wait: the first ones of a connection, and those beside a bulk insert."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from tests.api.client import entered
from tests.api.conftest import Api
from tests.api.test_socket_bulk import BASE, erase, seqs_of
from tests.support.loopback import NO_TLS, PATIENT
from tests.support.waiting import pause


@contextlib.asynccontextmanager
async def answering(api: Api) -> AsyncIterator[Callable[[], float]]:
    """Polls the daemon's health continuously; returns the longest time of an answer in seconds."""
    worst = 0.0

    async def ask() -> None:
        nonlocal worst
        async with httpx.AsyncClient(
            base_url=api.worker.url, timeout=PATIENT, trust_env=False, verify=NO_TLS
        ) as http:
            while True:
                began = time.monotonic()
                (await http.get("/healthz")).raise_for_status()
                worst = max(worst, time.monotonic() - began)
                await pause(0.02, "between two requests")

    asking = asyncio.create_task(ask())
    try:
        yield lambda: worst
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.quiet
def test_the_first_answers_of_a_connection_are_not_delayed(api: Api) -> None:
    """Answers do not wait 40 ms for an acknowledgement (Nagle's algorithm)."""

    def middle() -> float:
        took = []
        with httpx.Client(base_url=api.worker.url, trust_env=False, verify=NO_TLS, timeout=PATIENT) as http:
            for _ in range(60):
                began = time.monotonic()
                http.get("/healthz")
                took.append(time.monotonic() - began)
        return sorted(took)[30]

    assert any(middle() < 0.03 for _ in range(5))


@pytest.mark.quiet
async def test_an_insert_of_5000_messages_reaches_each_reader_once_and_in_order(api: Api) -> None:
    staff = api.stack.keys.user_token("staff", staff_id="s1")
    async with contextlib.AsyncExitStack() as stack, answering(api) as worst:
        desks = [await stack.enter_async_context(entered(api.worker.url, staff)) for _ in range(5)]
        await asyncio.to_thread(
            api.sql,
            "insert into gre_chat_messages (player_id, sender, message)"
            " select %s + n %% 500, 'staff', repeat('a word ', 40) || n from generate_series(0, 4999) n",
            BASE + 1,
        )
        wanted = {BASE + 1 + n: list(range(1, 11)) for n in range(500)}
        for desk in desks:
            await desk.until(
                lambda d=desk: len(d.frames) > 5000 and sum(map(len, seqs_of(d, BASE).values())) >= 5000,
                60,
            )
            assert desk.code is None
            assert seqs_of(desk, BASE) == wanted
            assert not any(frame["replay"] for frame in desk.all("chat_message"))
        for desk in desks:
            opened = [f["session"]["player_id"] for f in desk.all("session_updated")]
            assert {p for p in opened if BASE < p <= BASE + 500} == wanted.keys()
        assert worst() < 2.0, "the loop has turned meanwhile"
    await asyncio.to_thread(erase, api, BASE)
