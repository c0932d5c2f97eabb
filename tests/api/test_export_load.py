"""What an export costs the daemon: some megabytes, and sockets that are served meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.api.client import entered
from tests.api.conftest import Api
from tests.support.hostile import memory
from tests.support.loopback import NO_TLS
from tests.support.waiting import pause

MB = 1_000_000
ROWS = 15_000


@pytest.fixture
def query(api: Api) -> Iterator[dict[str, str]]:
    """An export of 30 MB: events of a time long ago."""
    api.sql(
        "insert into gre_chat_events (session_id, rev, at, after_seq, kind, data)"
        " select gen_random_uuid(), 1, timestamptz '2001-01-01 UTC' + n * interval '1 minute', 0, 'blocked',"
        " jsonb_build_object('until', repeat('=', 2000)) from generate_series(1, %s) n",
        ROWS,
    )
    yield {"what": "events", "format": "csv", "from": "2001-01-01T00:00:00Z", "to": "2002-01-01T00:00:00Z"}
    api.sql("delete from gre_chat_events where at < '2003-01-01'")


@pytest.mark.quiet
async def test_an_export_of_any_length_takes_little_memory_and_delays_no_socket(
    api: Api, query: dict[str, str]
) -> None:
    admin = api.admin()
    pid = api.worker.pids["api"]
    admin.get("/api/gre-admin/export", params={**query, "to": "2001-01-02T00:00:00Z"})
    before, highest = memory(pid), 0
    waits: list[float] = []

    async def export() -> tuple[int, int]:
        nonlocal highest
        size = rows = 0
        async with (
            httpx.AsyncClient(base_url=api.worker.url, timeout=60, trust_env=False, verify=NO_TLS) as http,
            http.stream("GET", "/api/gre-admin/export", params=query, headers=admin.headers) as answer,
        ):
            async for part in answer.aiter_bytes():
                size += len(part)
                rows += part.count(b"\n")
                highest = max(highest, memory(pid))
        return size, rows

    async with entered(api.worker.url, api.stack.keys.user_token("staff", staff_id="s1")) as staff:
        exporting = asyncio.create_task(export())
        while not exporting.done():
            began = time.perf_counter()
            await staff.settled()
            waits.append(time.perf_counter() - began)
            await pause(0.01, "some hundred pings while the export runs")
        size, rows = await exporting
    assert (rows, size > 30 * MB) == (ROWS + 1, True)
    grown = highest - before
    waits.sort()
    assert grown < 20 * MB
    assert waits[len(waits) * 9 // 10] < 1, "some milliseconds on an idle machine"
