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

from gre_bridge.devstack import dev
from gre_bridge.devstack.stack import Stack
from gre_bridge.errors import BridgeError, ConfigurationError, TransientError

SCRIPT = (
    ("player", "Hello, is table 4 open?"), ("staff", "Good evening! It opens at nine."),
    ("player", "Can you keep me a seat?"), ("staff", "Seat 3 is yours."),
    ("player", "And a jug of water, please."), ("staff", "Of course."),
    ("player", "Thank you!"), ("staff", "See you at nine."),
)  # fmt: skip
_LISTENER = uuid.uuid4()
_LIVE = 'gre_realtime_state{process="relay",state="live"} 1.0'
_READY_WITHIN = 60.0
_BELL_WITHIN = 1.0
_TYPING = 0.15


@dataclass(slots=True)
class Line:
    """One line of the script, and the times of its steps in Unix seconds."""

    who: str
    text: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    session: str = ""
    seq: int = 0
    sent: float = 0.0
    committed: float = 0.0
    wakeup: float | None = None
    accepted: dict[str, float] = field(default_factory=dict)


async def demo(*, wait: float = 10.0, fault: dict[str, Any] | None = None) -> int:
    """Play the script, print the table; 0 when all arrived in order, else 1.

    `wait` is how many seconds the last line may take; `fault` is set at /__stack/faults beforehand. Raises
    ConfigurationError or TransientError when the stack or the daemon does not come up.
    """
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    lines = [Line(who, text) for who, text in SCRIPT]
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print("Starting the embedded stack and the daemon …")
    with tempfile.TemporaryDirectory(prefix="gre-bridge-demo-") as directory:
        async with Stack(data_dir=Path(directory)) as stack, _daemon(stack), _client(stack.url) as http:
            (await http.post("/__stack/faults", content=orjson.dumps(fault or {}))).raise_for_status()
            await _play(stack, lines)
            arrivals = await _collect(http, lines, wait)
    console.print(_table(lines))
    if wrong := problems(lines, arrivals):
        console.print("\n".join(wrong), style="red")
        return 1
    console.print(f"All {len(lines)} lines reached both sinks, in order.")
    return 0


def problems(lines: Sequence[Line], arrivals: dict[str, list[str]]) -> list[str]:
    """Return the missing and misordered messages, one line each; `arrivals` are the ids that each sink accepted, in order."""
    numbers = {line.id: n for n, line in enumerate(lines, 1)}
    found = []
    for sink, came in arrivals.items():
        if missing := [f"#{n}" for id_, n in numbers.items() if id_ not in came]:
            found.append(f"{sink} did not accept {', '.join(missing)}")
        last: dict[str, int] = {}
        for line in (lines[numbers[id_] - 1] for id_ in came):
            if line.seq < last.get(line.session, 0):
                found.append(f"{sink} got seq {line.seq} after seq {last[line.session]}")
            last[line.session] = line.seq
    return found


def _client(address: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, trust_env=False, timeout=10.0)


@contextlib.asynccontextmanager
async def _daemon(stack: Stack) -> AsyncGenerator[None]:
    """Run the real daemon beside the stack: migrated, seeded, ready, and subscribed to Realtime."""
    env = {**stack.env(), **dev.daemon_env(0), "GRE_LOG_LEVEL": "warning"}
    await asyncio.to_thread(dev.migrate_and_seed, stack.postgres.dsn())
    child = await asyncio.to_thread(dev.start_daemon, dev.DAEMON, env, stack.data_dir / "daemon.env")
    metrics = f"{dev.admin_url(env)}/metrics?process=relay"
    deadline = time.monotonic() + _READY_WITHIN
    try:
        async with _client() as client:
            while not (await dev.is_ready(client, env) and _LIVE in (await client.get(metrics)).text):
                if child.returncode is not None or time.monotonic() > deadline:
                    raise TransientError(f"the daemon was not ready (exit status {child.returncode})")
                await asyncio.sleep(0.05)
        yield
    finally:
        await asyncio.to_thread(child.close)


async def _play(stack: Stack, lines: Sequence[Line]) -> None:
    """Insert every line, and record the times of its commit and of its wake-up."""
    async with contextlib.AsyncExitStack() as exits:
        portals = {
            "player": await _portal(exits, stack, stack.user_token("player", player_id=dev.PLAYER)),
            "staff": await _portal(exits, stack, stack.user_token("staff", staff_id=dev.STAFF)),
        }
        wakeups = await _wakeups(exits, stack)
        for line in lines:
            row = {"id": line.id, "player_id": dev.PLAYER, "sender": line.who, "message": line.text}
            await asyncio.to_thread(_ask_for_wakeups, stack)
            line.sent = time.time()
            stored: Any = (await portals[line.who].table("gre_chat_messages").insert(row).execute()).data[0]
            line.committed = time.time()
            line.session, line.seq = stored["session_id"], stored["seq"]
            # A wake-up is a hint: a lost one costs time and is not a failure.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BELL_WITHIN):
                    while (heard_at := await wakeups.get()) < line.sent:
                        pass
                    line.wakeup = heard_at
            await asyncio.sleep(_TYPING)


async def _portal(exits: contextlib.AsyncExitStack, stack: Stack, token: str) -> AsyncClient:
    """Return Supabase's client as a portal creates it: with the publishable key and its user's token."""
    http = await exits.enter_async_context(_client())
    options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False)
    client = await acreate_client(stack.url, stack.keys.anon_key, options)
    client.postgrest.auth(token)
    # A portal's connection is open before its user sends the first message.
    await client.table("gre_online_status").select("staff_id").limit(1).execute()
    return client


def _ask_for_wakeups(stack: Stack) -> None:
    """Let the database send a wake-up for the next line, also while the daemon polls."""
    with stack.postgres.connect() as conn:
        conn.execute("select public.gre_relay_listen_v1(%s, 'relay', 0)", (_LISTENER,))


async def _wakeups(exits: contextlib.AsyncExitStack, stack: Stack) -> asyncio.Queue[float]:
    """Records the times of wake-ups, received by a subscription like the daemon's."""
    wakeups: asyncio.Queue[float] = asyncio.Queue()
    joined = asyncio.Event()

    def on_state(state: RealtimeSubscribeStates, _error: Exception | None) -> None:
        if state is RealtimeSubscribeStates.SUBSCRIBED:
            joined.set()

    client = AsyncRealtimeClient(f"{stack.url}/realtime/v1", stack.keys.service_key, auto_reconnect=False)
    exits.push_async_callback(client.close)
    options: Any = {"config": {"broadcast": {}, "presence": {"key": "", "enabled": False}, "private": True}}
    channel = client.channel("gre:relay", options)
    channel.on_broadcast("wakeup", lambda _payload: wakeups.put_nowait(time.time()))
    async with asyncio.timeout(15.0):
        await client.connect()
        await channel.subscribe(on_state)
        await joined.wait()
    return wakeups


async def _collect(http: httpx.AsyncClient, lines: Sequence[Line], wait: float) -> dict[str, list[str]]:
    """Return the ids that each sink accepted, in order, once all have arrived or after `wait` seconds."""
    deadline = time.monotonic() + wait
    while True:
        arrivals: dict[str, list[str]] = {"pusher": [], "onesignal": []}
        for sink, came in arrivals.items():
            for item in (await http.get("/__stack/received", params={"sink": sink})).json()["items"]:
                about = item.get("data") or (item.get("body") or {}).get("data") or {}
                line = next((x for x in lines if x.id in (about.get("id"), about.get("message_id"))), None)
                if line and item["status"] == 200 and line.id not in came:
                    came.append(line.id)
                    line.accepted[sink] = item["at"]
        if all(len(came) == len(lines) for came in arrivals.values()) or time.monotonic() > deadline:
            return arrivals
        await asyncio.sleep(0.05)


def _table(lines: Sequence[Line]) -> Table:
    table = Table(title="One conversation on its way: milliseconds after its insert was sent", title_style="")
    for heading in ("#", "who", "said", "seq", "committed", "wake-up", "Pusher accepted", "push accepted"):
        table.add_column(heading, justify="left" if heading in ("who", "said") else "right")
    for n, line in enumerate(lines, 1):
        times = (line.committed, line.wakeup, line.accepted.get("pusher"), line.accepted.get("onesignal"))
        shown = [f"{(at - line.sent) * 1e3:.1f}" if at else "-" for at in times]
        table.add_row(str(n), line.who, line.text, str(line.seq), *shown)
    return table


def main() -> int:
    """The command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gre_bridge.devstack.demo", description=__doc__)
    parser.add_argument("--wait", type=float, default=10.0, help="seconds in which the last line must arrive")
    parser.add_argument("--fault", type=orjson.loads, help="JSON for /__stack/faults, to see it fail")
    given = parser.parse_args()
    try:
        return asyncio.run(demo(wait=given.wait, fault=given.fault))
    except (BridgeError, APIError, httpx.HTTPError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 2 if isinstance(error, ConfigurationError) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
