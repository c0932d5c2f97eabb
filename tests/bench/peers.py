"""The alternatives to gre-bridge, each a process: `python -m tests.bench.peers NAME`.

`floor`: a wake-up, one RPC, one POST, and nothing stored. `obvious`: the simplest program, a postgres_changes callback
that calls pusher.trigger and OneSignal. `procrastinate` and `pgqueuer`: job queues that a trigger on the same table
fills, with the same Pusher client as gre-bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
from realtime import AsyncRealtimeClient

from gre_bridge.db.postgrest import PostgrestClient
from gre_bridge.sinks.base import PusherEvent, Result, SinkRecord
from gre_bridge.sinks.pusher import PusherSink
from tests.support.waiting import pause

EVENT = """jsonb_build_object('id', new.id, 'message', new.message, 'sender', new.sender, 'sender_name', new.sender_name,
  'player_id', new.player_id, 'timestamp', new.created_at, 'status', 'sent', 'session_id', new.session_id, 'seq', new.seq)"""
PROCRASTINATE = f"""
create function bench_feed() returns trigger language plpgsql as $$ begin
  perform public.procrastinate_defer_jobs_v1(array[row('relay', 'relay', 0, new.session_id::text, null,
    jsonb_build_object('event', {EVENT}), null)::public.procrastinate_job_to_defer_v1]);
  return null;
end $$;
create trigger bench_feed after insert on gre_chat_messages for each row execute function bench_feed();
"""
PGQUEUER = f"""
create function bench_feed() returns trigger language plpgsql as $$ begin
  insert into public.pgqueuer (priority, entrypoint, payload, status)
  values (0, 'relay', convert_to(({EVENT})::text, 'UTF8'), 'queued');
  return null;
end $$;
create trigger bench_feed after insert on gre_chat_messages for each row execute function bench_feed();
"""
PARALLEL = 16
"""Jobs in flight in one worker of a job queue."""


def sink(concurrency: int) -> PusherSink:
    """Return the Pusher client of gre-bridge."""
    return PusherSink(
        app_id=os.environ["PUSHER_APP_ID"], key=os.environ["PUSHER_KEY"], secret=os.environ["PUSHER_SECRET"],
        host=os.environ["PUSHER_HOST"], port=int(os.environ["PUSHER_PORT"]), ssl=False, concurrency=concurrency,
    )  # fmt: skip


async def post(client: PusherSink, name: str, data: str) -> None:
    """Send one event; raise if it was not accepted."""
    (outcome,) = await client.send(
        [SinkRecord("lane", ("delivery",), (PusherEvent("staff-portal", name, data),))]
    )
    if outcome.result is not Result.ACCEPTED:
        raise RuntimeError("not taken")


def ready() -> None:
    """Report to the bench that work may begin."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


@contextlib.asynccontextmanager
async def channel(name: str, *, private: bool) -> AsyncIterator[Any]:
    """Yield a channel of the real client, to be subscribed in the block."""
    url, key = os.environ["SUPABASE_URL"], os.environ["SUPABASE_SERVICE_KEY"]
    client = AsyncRealtimeClient(f"{url}/realtime/v1", key, auto_reconnect=False)
    await client.connect()
    presence = {"key": "", "enabled": False}
    broadcast = {"self": False, "ack": False}
    try:
        yield client.channel(
            name, {"config": {"private": private, "broadcast": broadcast, "presence": presence}}
        )  # type: ignore[typeddict-item]
    finally:
        await client.close()


async def subscribed(joining: Any) -> None:
    """Subscribe, and return when the server has confirmed it."""
    done = asyncio.Event()
    await joining.subscribe(lambda state, _: done.set() if str(state).endswith("SUBSCRIBED") else None)
    await asyncio.wait_for(done.wait(), 20)


async def floor(stop: asyncio.Event) -> None:
    """Wake-up, RPC, POST."""
    rest = await PostgrestClient.open(url=os.environ["SUPABASE_URL"], key=os.environ["SUPABASE_SERVICE_KEY"])
    client = sink(64)
    jobs: set[asyncio.Task[None]] = set()

    async def once(session: str) -> None:
        await rest.rpc("gre_schema_version", {})
        await post(client, "floor", json.dumps({"session_id": session}))

    def ring(payload: dict[str, Any]) -> None:
        for session in payload.get("payload", payload).get("sessions", []):
            job = asyncio.ensure_future(once(session))
            jobs.add(job)
            job.add_done_callback(jobs.discard)

    async with channel("gre:relay", private=True) as wakeups:
        wakeups.on_broadcast("wakeup", ring)
        await subscribed(wakeups)
        ready()
        await stop.wait()
    await client.aclose()
    await rest.aclose()


async def obvious(stop: asyncio.Event) -> None:
    """postgres_changes, pusher.trigger and a push in the callback."""
    import httpx
    import pusher

    client = pusher.Pusher(
        app_id=os.environ["PUSHER_APP_ID"], key=os.environ["PUSHER_KEY"], secret=os.environ["PUSHER_SECRET"],
        host=os.environ["PUSHER_HOST"], port=int(os.environ["PUSHER_PORT"]), ssl=False,
    )  # fmt: skip
    http = httpx.Client(timeout=10)

    def changed(payload: dict[str, Any]) -> None:
        record = payload["data"]["record"]
        event = {key: record[key] for key in ("id", "message", "session_id", "seq")}
        with contextlib.suppress(Exception):  # as the client's own loop does
            client.trigger("staff-portal", "new-player-message", event)
        with contextlib.suppress(httpx.HTTPError):
            http.post(
                f"{os.environ['ONESIGNAL_API_URL']}/notifications",
                json={"contents": {"en": "New message"}, "data": {"message_id": record["id"]}},
            )

    async with channel("obvious", private=False) as changes:
        changes.on_postgres_changes("INSERT", schema="public", table="gre_chat_messages", callback=changed)
        await subscribed(changes)
        await pause(2, "the server answers before it reads the WAL")
        ready()
        await stop.wait()
    http.close()  # noqa: ASYNC212 - blocking is what this design does


async def procrastinate(stop: asyncio.Event) -> None:
    """A job for each message, with a lock for each session."""
    from procrastinate import App, PsycopgConnector, RetryStrategy

    client = sink(PARALLEL)
    app = App(connector=PsycopgConnector(conninfo=os.environ["SUPABASE_DB_URL"], max_size=PARALLEL + 4))

    @app.task(queue="relay", name="relay", retry=RetryStrategy(max_attempts=1000, wait=1))
    async def relay(event: dict[str, Any]) -> None:
        await post(client, "new-player-message", json.dumps(event))

    async with app.open_async():
        worker = asyncio.create_task(
            app.run_worker_async(
                queues=["relay"],
                concurrency=PARALLEL,
                fetch_job_polling_interval=0.5,
                install_signal_handlers=False,
                shutdown_graceful_timeout=2,
                delete_jobs="never",
            )
        )
        ready()
        await _until(stop, worker)
    await client.aclose()


async def pgqueuer(stop: asyncio.Event) -> None:
    """A job for each message; the library has no lock for a session."""
    from pgqueuer import PgQueuer
    from pgqueuer.db import PsycopgDriver
    from pgqueuer.errors import RetryRequested
    from pgqueuer.models import Job

    client = sink(PARALLEL)
    async with await psycopg.AsyncConnection.connect(os.environ["SUPABASE_DB_URL"], autocommit=True) as conn:
        queue = PgQueuer(PsycopgDriver(conn))

        @queue.entrypoint("relay")
        async def relay(job: Job) -> None:
            try:
                await post(client, "new-player-message", (job.payload or b"").decode())
            except RuntimeError:
                raise RetryRequested(delay=timedelta(seconds=0.5)) from None

        worker = asyncio.create_task(
            queue.run(dequeue_timeout=timedelta(seconds=0.5), batch_size=50, max_concurrent_tasks=100)
        )
        ready()
        await _until(stop, worker)
    await client.aclose()


async def _until(stop: asyncio.Event, worker: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, worker}, return_when=asyncio.FIRST_COMPLETED)
    failed = worker.done()
    for task in (waiting, worker):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.wait_for(task, 5)
    if failed:
        raise SystemExit("the worker ended by itself")


async def install_queue(name: str, database: str) -> None:
    """Install a job queue and the trigger that fills it."""
    if name == "procrastinate":
        from procrastinate import App, PsycopgConnector

        async with App(connector=PsycopgConnector(conninfo=database)).open_async() as app:
            await app.schema_manager.apply_schema_async()
        trigger = PROCRASTINATE
    else:
        from pgqueuer.db import PsycopgDriver
        from pgqueuer.queries import Queries

        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            await Queries(PsycopgDriver(conn)).install()
        trigger = PGQUEUER
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute(trigger.encode())


async def main(design: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a design until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await design(stop)


if __name__ == "__main__":
    designs = {"floor": floor, "obvious": obvious, "procrastinate": procrastinate, "pgqueuer": pgqueuer}
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    asyncio.run(main(designs[sys.argv[1]]))
