"""Faults of the embedded stack that the chaos suite relies on."""

from __future__ import annotations

from typing import Any, cast

import httpx
import psycopg_pool
import pytest

from gre_bridge.devstack.postgrest.database import Database
from gre_bridge.devstack.postgrest.errors import ServerError
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until


def test_a_stalled_call_is_carried_out_and_never_answered(stack: StackProcess) -> None:
    stack.fault("rest", {"mode": "stall", "times": 1})
    row = {"player_id": 1, "sender": "player", "message": "committed"}
    with pytest.raises(httpx.ReadTimeout):
        patience = httpx.Timeout(60, read=0.5)
        stack.http.post("/rest/v1/gre_chat_messages", json=row, headers=stack.headers(), timeout=patience)
    with stack.db() as conn:
        stored = wait_until(lambda: conn.execute("select message from gre_chat_messages").fetchall())
    assert stored == [{"message": "committed"}]


async def test_a_database_that_comes_back_while_a_request_waits_for_a_connection_is_back() -> None:
    class Pool:
        """Times out just after the listening connection has returned and the schema has been loaded."""

        async def getconn(self, _timeout: float) -> None:
            database._listening, database._pending = True, False
            raise psycopg_pool.PoolTimeout

    database = Database(
        pool=cast("Any", Pool()), schemas=("public",), acquire_timeout=1.0, request_timeout=1.0
    )
    with pytest.raises(ServerError, match="Retrying"):
        await database._connection()
    assert not database._pending
