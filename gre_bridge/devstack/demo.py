"""`make demo`: one scripted conversation on its way, each hop with its time.

A player and a member of staff write with Supabase's client, as portals do, each with an own token and
under row-level security; the real daemon relays. Ends with 0 only if every line reached both sinks, each
in the session's order. The words shown are the script's own; nothing here may be imported by the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from postgrest.exceptions import APIError
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
from rich.console import Console
from rich.table import Table
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from gre_bridge.devstack.dev import (
    DAEMON,
    PLAYER,
    STAFF,
    daemon_env,
    is_ready,
    migrate_and_seed,
    start_daemon,
)
from gre_bridge.devstack.stack import Stack
from gre_bridge.errors import BridgeError, ConfigurationError, TransientError

SINKS = ("pusher", "onesignal")
SCRIPT = (
    ("player", "Hello, is table 4 open?"),
    ("staff", "Good evening! It opens at nine."),
    ("player", "Can you keep me a seat?"),
    ("staff", "Seat 3 is yours."),
    ("player", "And a jug of water, please."),
    ("staff", "Of course."),
    ("player", "Thank you!"),
    ("staff", "See you at nine."),
)
_READY_WITHIN = 60.0
_BELL_WITHIN = 1.0
_TYPING = 0.15


@dataclass(slots=True)
class Line:
    """One line of the script and when it was where, in Unix seconds; None where it has not been (yet)."""

    who: str
    text: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    session: str = ""
    seq: int = 0
    sent: float = 0.0
    committed: float | None = None
    bell: float | None = None
    accepted: dict[str, float] = field(default_factory=dict)


async def demo(*, wait: float = 10.0, fault: dict[str, Any] | None = None, console: Console) -> int:
    """Play the script, print the table; 0 when all arrived in order, else 1.

    `wait` is in seconds, from the last line until it must have arrived. `fault` is set at /__stack/faults
    beforehand. Raises ConfigurationError and TransientError when the stack or the daemon does not come up.
    """
    lines = [Line(who, text) for who, text in SCRIPT]
    with tempfile.TemporaryDirectory(prefix="gre-bridge-demo-") as directory:
        console.print("Starting the embedded stack and the daemon …")
        async with Stack(data_dir=Path(directory)) as stack, _daemon(stack):
            async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=10.0) as http:
                (await http.post("/__stack/faults", content=orjson.dumps(fault or {}))).raise_for_status()
                await _play(stack, lines)
                arrivals = await _collect(http, lines, wait)
    wrong = problems(lines, arrivals)
    console.print(_table(lines))
    for text in wrong:
        console.print(f"[red]{text}[/red]")
    if not wrong:
        console.print(_summary(lines))
    return 1 if wrong else 0


def problems(lines: Sequence[Line], arrivals: dict[str, list[str]]) -> list[str]:
    """What is missing or out of order, one line each; `arrivals` are the ids that each sink took, in its order."""
    numbers = {line.id: n for n, line in enumerate(lines, 1)}
    found = []
    for sink, came in arrivals.items():
        if missing := [f"#{n}" for id_, n in numbers.items() if id_ not in came]:
            found.append(f"{sink} did not accept {', '.join(missing)}")
        last: dict[str, int] = {}
        for id_ in came:
            line = lines[numbers[id_] - 1]
            if line.seq < last.get(line.session, 0):
                found.append(f"{sink} got seq {line.seq} after seq {last[line.session]}")
            last[line.session] = line.seq
    return found


@contextlib.asynccontextmanager
async def _daemon(stack: Stack) -> AsyncGenerator[None]:
    """The real daemon beside the stack, migrated, seeded, ready and with its bells live."""
    env = {**stack.env(), **daemon_env(0), "GRE_LOG_LEVEL": "warning"}
    await asyncio.to_thread(migrate_and_seed, stack.postgres.dsn())
    child = await asyncio.to_thread(start_daemon, DAEMON, env, stack.data_dir / "daemon.env")
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            deadline = time.monotonic() + _READY_WITHIN
            while not (await is_ready(client, env) and await _is_live(client, env)):
                if child.returncode is not None or time.monotonic() > deadline:
                    raise TransientError(f"the daemon was not ready (exit status {child.returncode})")
                await asyncio.sleep(0.05)
        yield
    finally:
        await asyncio.to_thread(child.close)


async def _is_live(client: httpx.AsyncClient, env: dict[str, str]) -> bool:
    metrics = await client.get(f"http://{env['GRE_HTTP_HOST']}:{env['GRE_HTTP_PORT']}/metrics")
    return 'gre_feed_state{state="live"} 1.0' in metrics.text


async def _play(stack: Stack, lines: Sequence[Line]) -> None:
    """Write every line, and note when the database had it and when its bell rang."""
    async with contextlib.AsyncExitStack() as exits:
        tokens = {
            "player": stack.user_token("player", player_id=PLAYER),
            "staff": stack.user_token("staff", staff_id=STAFF),
        }
        portals = {who: await _portal(exits, stack, token) for who, token in tokens.items()}
        rings = await _bell(exits, stack)
        for line in lines:
            while not rings.empty():
                rings.get_nowait()
            row = {"id": line.id, "player_id": PLAYER, "sender": line.who, "message": line.text}
            line.sent = time.time()
            answer = await portals[line.who].table("gre_chat_messages").insert(row).execute()
            line.committed = time.time()
            stored: Any = answer.data[0]
            line.session, line.seq = stored["session_id"], stored["seq"]
            # A bell is a hint: one that is lost costs time, and is no failure.
            with contextlib.suppress(TimeoutError):
                line.bell = await asyncio.wait_for(rings.get(), _BELL_WITHIN)
            await asyncio.sleep(_TYPING)


async def _portal(exits: contextlib.AsyncExitStack, stack: Stack, token: str) -> AsyncClient:
    """Supabase's client as a portal has it: the publishable key, and its user's token."""
    http = await exits.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=10.0))
    options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False)
    client = await acreate_client(stack.url, stack.keys.anon_key, options)
    client.postgrest.auth(token)
    # A portal has a connection open long before its user has typed the first word.
    await client.table("gre_online_status").select("staff_id").limit(1).execute()
    return client


async def _bell(exits: contextlib.AsyncExitStack, stack: Stack) -> asyncio.Queue[float]:
    """When the private topic of the bell rang, as the daemon's own subscription hears it."""
    rings: asyncio.Queue[float] = asyncio.Queue()
    joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_state(state: RealtimeSubscribeStates, _error: Exception | None) -> None:
        if state is RealtimeSubscribeStates.SUBSCRIBED and not joined.done():
            joined.set_result(None)

    client = AsyncRealtimeClient(f"{stack.url}/realtime/v1", stack.keys.service_key, auto_reconnect=False)
    exits.push_async_callback(client.close)
    options: Any = {"config": {"broadcast": {}, "presence": {"key": "", "enabled": False}, "private": True}}
    channel = client.channel("gre:relay", options)
    channel.on_broadcast("ring", lambda _payload: rings.put_nowait(time.time()))
    async with asyncio.timeout(15.0):
        await client.connect()
        await channel.subscribe(on_state)
        await joined
    return rings


async def _collect(http: httpx.AsyncClient, lines: Sequence[Line], wait: float) -> dict[str, list[str]]:
    """What each sink accepted of the lines, first arrivals only, once all are there or `wait` is over."""
    deadline = time.monotonic() + wait
    while True:
        arrivals = {sink: await _accepted(http, sink, lines) for sink in SINKS}
        complete = all(len(came) == len(lines) for came in arrivals.values())
        if complete or time.monotonic() > deadline:
            return arrivals
        await asyncio.sleep(0.05)


async def _accepted(http: httpx.AsyncClient, sink: str, lines: Sequence[Line]) -> list[str]:
    items = (await http.get("/__stack/received", params={"sink": sink})).json()["items"]
    by_id = {line.id: line for line in lines}
    came: list[str] = []
    for item in items:
        if sink == "pusher":
            id_ = (item.get("data") or {}).get("id", "")
        else:
            id_ = ((item.get("body") or {}).get("data") or {}).get("message_id", "")
        if item["status"] == 200 and id_ in by_id and id_ not in came:
            came.append(id_)
            by_id[id_].accepted[sink] = item["at"]
    return came


def _table(lines: Sequence[Line]) -> Table:
    table = Table(title="One conversation on its way: milliseconds after its insert was sent", title_style="")
    table.add_column("#", justify="right")
    table.add_column("who")
    table.add_column("said")
    for heading in ("seq", "committed", "bell", "Pusher accepted", "push accepted"):
        table.add_column(heading, justify="right")
    for n, line in enumerate(lines, 1):
        times = (line.committed, line.bell, *(line.accepted.get(sink) for sink in SINKS))
        shown = [f"{(at - line.sent) * 1e3:.1f}" if at else "-" for at in times]
        table.add_row(str(n), line.who, line.text, str(line.seq), *shown)
    return table


def _summary(lines: Sequence[Line]) -> str:
    medians = [
        f"{label} {statistics.median((line.accepted[sink] - line.sent) * 1e3 for line in lines):.1f} ms"
        for label, sink in (("Pusher", "pusher"), ("push", "onesignal"))
    ]
    return f"All {len(lines)} lines reached both sinks, in order. Median from insert: {', '.join(medians)}."


async def _until_signal(**options: Any) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await demo(**options)


def main() -> int:
    """The command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gre_bridge.devstack.demo", description=__doc__)
    parser.add_argument("--wait", type=float, default=10.0, help="seconds for the last line to arrive")
    parser.add_argument("--fault", type=orjson.loads, help="JSON for /__stack/faults, to see it fail")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        return asyncio.run(_until_signal(wait=given.wait, fault=given.fault, console=console))
    except (BridgeError, APIError, httpx.HTTPError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 2 if isinstance(error, ConfigurationError) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
