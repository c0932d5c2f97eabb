"""A player's portal with supabase-py: the steps of player.mjs that a bot needs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from postgrest.exceptions import APIError
from realtime import RealtimePostgresChangesListenEvent
from supabase import AsyncClient, AsyncClientOptions, acreate_client


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main() -> None:
    token = os.environ["USER_TOKEN"]
    supabase: AsyncClient = await acreate_client(
        os.environ["SUPABASE_URL"],
        os.environ["SUPABASE_ANON_KEY"],
        AsyncClientOptions(headers={"Authorization": f"Bearer {token}"}),
    )
    await supabase.realtime.set_auth(token)

    async def answered(request: Any) -> dict[str, Any]:
        try:
            return {"data": (await request.execute()).data, "error": None}
        except APIError as error:
            return {"data": None, "error": error.json()}

    def messages() -> Any:
        return supabase.table("gre_chat_messages")

    async def watch(filter: str | None = None) -> str:  # noqa: A002 - the client's own word
        flows: asyncio.Queue[str] = asyncio.Queue()
        channel = supabase.channel("watch")
        channel.on_postgres_changes(
            RealtimePostgresChangesListenEvent.Insert,
            lambda change: say(
                {"from": "postgres_changes", "event": "INSERT", "data": change["data"]["record"]}
            ),
            schema="public",
            table="gre_chat_messages",
            filter=filter,
        )
        channel.on_system(lambda message: flows.put_nowait(message.message))
        await channel.subscribe()
        return await flows.get()

    steps: dict[str, Callable[..., Awaitable[Any]]] = {
        "insert": lambda rows: answered(messages().insert(rows, returning="minimal")),
        "insertAndSelect": lambda rows: answered(messages().insert(rows)),
        "send": lambda row: answered(messages().upsert(row, on_conflict="id", ignore_duplicates=True)),
        "history": lambda player: answered(messages().select("*").eq("player_id", player).order("seq")),
        "everything": lambda: answered(messages().select("id")),
        "watch": watch,
    }
    while line := await asyncio.to_thread(sys.stdin.readline):
        options = json.loads(line)
        say({"answer": await steps[options.pop("step")](**options)})
    await supabase.remove_all_channels()


asyncio.run(main())
