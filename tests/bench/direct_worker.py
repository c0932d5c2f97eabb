"""`gre-bridge run` whose relay calls the database over connections of its own, for `make bench ARGS="--only direct"`.

A trial: PostgREST's place is taken by psycopg, under RelayDatabase, with a login of role gre_worker (BENCH_DIRECT_URL). With BENCH_DIRECT_LISTEN the relay also
listens on a channel that a trigger of the bench notifies. Nothing else differs from the daemon.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import orjson
import psycopg
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from gre_bridge.cli.app import main
from gre_bridge.daemon.relay_process import RelayProcess
from gre_bridge.db.postgrest import PostgrestClient, PostgrestError
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.errors import TransientError

CHANNEL = "gre_bench"
CONNECTIONS = 8
CLAIMS = '-c request.jwt.claims={"role":"gre_worker"}'
"""What PostgREST sets from the token: the functions look at it, since they run as their owner."""

_SIGNATURE = """select p.proretset, p.prorettype = 'void'::regtype,
    coalesce(array(select quote_ident(p.proargnames[n]) || ' ' || format_type(t, null)
      from unnest(p.proargtypes) with ordinality a (t, n)), '{}')
  from pg_proc p where p.proname = %s and p.pronamespace = 'public'::regnamespace"""


class Direct:
    """Calls functions as PostgREST does, with their arguments as one JSON object, each in a transaction of its own."""

    def __init__(self, url: str) -> None:
        self._pool = AsyncConnectionPool(
            url, min_size=2, max_size=CONNECTIONS, open=False,
            kwargs={"autocommit": True, "options": CLAIMS, "prepare_threshold": 0, "application_name": "direct"},
        )  # fmt: skip
        self._queries: dict[tuple[str, tuple[str, ...]], str] = {}
        self._opened: asyncio.Task[None] | None = None

    async def call(self, function: str, arguments: dict[str, Any]) -> Any:
        """Return the result, None where there is none. Raises as PostgrestClient.rpc."""
        if self._opened is None:
            self._opened = asyncio.create_task(self._pool.open(wait=True))
        await asyncio.shield(self._opened)
        try:
            async with self._pool.connection() as connection:
                key = (function, tuple(arguments))
                if key not in self._queries:
                    self._queries[key] = await self._query(connection, *key)
                found = await connection.execute(self._queries[key], [orjson.dumps(arguments).decode()])  # type: ignore[arg-type]
                row = await found.fetchone()
        except psycopg.Error as error:
            if not error.sqlstate:
                raise TransientError(f"{function}: no answer", code="connection") from None
            text = error.diag.message_primary or ""
            raise PostgrestError(status=400, code=error.sqlstate, message=text) from None
        return row[0] if row else None

    async def _query(
        self, connection: psycopg.AsyncConnection[Any], function: str, names: tuple[str, ...]
    ) -> str:
        found = await (await connection.execute(_SIGNATURE, [function])).fetchone()
        if found is None:
            raise PostgrestError(status=404, code="PGRST202", message="")
        rows, nothing, declared = found
        columns = [one for one in declared if one.partition(" ")[0] in names]
        given = ", ".join(f"{name} => a.{name}" for name in names)
        source = f"json_to_record(%s) a({', '.join(columns)})" if columns else "(select %s::json) a"
        if rows:
            return f"select json_agg(r) from {source}, lateral public.{function}({given}) r"
        result = f"public.{function}({given})"
        return (
            f"select {result}::text from {source}" if nothing else f"select to_json({result}) from {source}"
        )


async def listen(url: str, wake: Callable[[], None]) -> None:
    """Call `wake` for each notification; a connection that ends stays ended, since the polls go on."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        await connection.execute(f"listen {CHANNEL}")
        async for _ in connection.notifies():
            wake()


def install() -> None:
    """Put direct calls in the place of PostgREST's, for the whole process."""
    set_json_loads(orjson.loads)
    url = os.environ["BENCH_DIRECT_URL"]
    direct = Direct(url)
    relay = RelayProcess._relay

    async def rpc(_: PostgrestClient, function: str, arguments: dict[str, Any], **__: Any) -> Any:
        return await direct.call(function, arguments)

    async def with_listener(self: RelayProcess, store: RelayDatabase) -> None:
        listening = asyncio.create_task(listen(url, lambda: self.on_wakeup(None)))
        try:
            await relay(self, store)
        finally:
            listening.cancel()

    PostgrestClient.rpc = rpc  # type: ignore[method-assign, assignment]
    if os.environ.get("BENCH_DIRECT_LISTEN"):
        RelayProcess._relay = with_listener  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    main()
