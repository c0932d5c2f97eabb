"""A read-only database (a full disk, a replica): clients connect and read, and a send is refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg.sql import SQL

from tests.api.client import entered
from tests.api.conftest import Api, start
from tests.support.stack import StackProcess


@pytest.fixture(scope="module")
def alone(stack_process: StackProcess) -> Iterator[Api]:
    """A daemon of its own, since a read-only database affects all."""
    yield from start(stack_process)


@pytest.fixture
def read_only(alone: Api) -> Iterator[None]:
    """Make every transaction of PostgREST read-only, on new connections."""
    superuser = alone.stack.env["SUPABASE_DB_URL"].replace("//postgres:", "//supabase_admin:")
    with psycopg.connect(superuser, autocommit=True) as conn:

        def alter(change: LiteralString) -> None:
            conn.execute(SQL("alter role authenticator ") + SQL(change))
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'authenticator'"
            )

        alter("set default_transaction_read_only = on")
        yield
        alter("reset default_transaction_read_only")


async def test_sockets_open_receive_and_read_while_the_database_is_read_only(
    alone: Api, player_id: int, read_only: None
) -> None:
    token = alone.stack.keys.user_token("player", player_id=player_id)
    async with (
        entered(alone.worker.url, token) as phone,
        entered(alone.worker.url, alone.stack.keys.user_token("staff", staff_id="s1")) as desk,
    ):
        await phone.send("send_message", message="hello", clientId="c1")
        error = await phone.wait("error", clientId="c1")
        assert (error["code"], error["error"]) == (
            "read_only",
            "the database takes no changes at the moment; reading goes on",
        )
        assert error["retryAfter"] > 0
        write = "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'by another way')"
        alone.sql(write, player_id)
        for client in (phone, desk):
            received = await client.wait("chat_message", message={"player_id": player_id})
            assert received["message"]["message"] == "by another way"
        history = alone.player(player_id).get(f"/api/gre-chat/messages/{player_id}")
        assert [m["message"] for m in history.json()] == ["by another way"]
        refused = alone.player(player_id).post("/api/gre-chat/send", message="hello")
        assert (refused.status_code, refused.json()["code"]) == (503, "read_only")
