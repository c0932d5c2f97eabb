"""`gre-bridge dev`: the stack, the daemon beside it, a seeded database, and everything a developer needs printed.

The order: stack, migrations, seeds, daemon, and when that says it is ready the env file, so a script may wait
for the file. Ends on SIGINT or SIGTERM, or when the daemon dies. Message text is never printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TextIO

import httpx
import orjson
import psycopg

from gre_bridge.devstack import try_page
from gre_bridge.devstack.child_process import ChildProcess
from gre_bridge.devstack.faults import Request
from gre_bridge.devstack.keys import write_secret
from gre_bridge.devstack.server import listen
from gre_bridge.devstack.stack import Stack
from gre_bridge.errors import ConfigurationError
from gre_bridge.migrations.runner import migrate as apply_migrations

WRITTEN = "# Written by `gre-bridge dev`."
DAEMON = (sys.executable, "-m", "gre_bridge", "run")
STAFF, ADMIN, PLAYER = "s1", "a1", try_page.PLAYER
_FREE_PORTS = range(20_000, 32_000)
"""Ports to choose from. The daemon binds its ports seconds after they were chosen, and meanwhile the kernel would give one of its
own choice to a connection of any process (on Linux from 32768 on, elsewhere from 49152 on)."""
_READY_WITHIN = 60.0
_STOP_WITHIN = 25.0
_CURL = (
    'curl -X POST $SUPABASE_URL/rest/v1/gre_chat_messages -H "apikey: $KEY" -H "Authorization: Bearer $KEY"'
    """ -H "Content-Type: application/json" -d '{"player_id": 29, "sender": "player", "sender_name": "Asha","""
    """ "message": "Is table 4 open?"}'"""
)
_SEEDS = (
    (
        "insert into public.gre_staff (staff_id, display_name, role) values (%s, %s, %s) on conflict do nothing",
        (STAFF, "Sam", "staff"),
    ),
    (
        "insert into public.gre_staff (staff_id, display_name, role) values (%s, %s, %s) on conflict do nothing",
        (ADMIN, "Ann", "admin"),
    ),
    (
        "insert into public.gre_chat_players (player_id, display_name) values (%s, %s) on conflict do nothing",
        (PLAYER, try_page.NAME),
    ),
)


async def dev(
    *,
    port: int = 54321,
    data_dir: Path,
    env_file: Path | None = None,
    worker: bool = True,
    migrate: bool = True,
    http_port: int | None = None,
    daemon: Sequence[str] = DAEMON,
    out: TextIO | None = None,
) -> int:
    """Run until a signal; returns the exit status: 0 after a signal, 1 when the daemon died or never got ready.

    `port` is the stack's (0: a free one), `http_port` the daemon's (default GRE_HTTP_PORT or 5000). Without
    `worker` there is the stack alone; without `migrate` its database stays empty. `daemon` is the command,
    to which `--env-file FILE` is added. Raises ConfigurationError for what the developer must change.
    """
    out = out or sys.stdout
    _check_env_file(env_file)
    with _stopped_by_signals() as stopped:
        async with Stack(
            data_dir=data_dir, port=port, on_request=narrator(out) if out.isatty() else None
        ) as stack:
            env = {**stack.env(), **daemon_env(http_port)}
            if worker:
                env |= stack.try_page.beside(daemon_url(env), stack.url)
            if migrate:
                await asyncio.to_thread(migrate_and_seed, stack.postgres.dsn())
                # Whoever reads the addresses calls the functions at once.
                await stack.rest.reload()
            if not worker:
                _announce(out, stack, env, env_file)
                await stopped.wait()
                return 0
            # Another program on the daemon's ports would be mistaken for it.
            for port_of in ("GRE_HTTP_PORT", "GRE_ADMIN_PORT"):
                with listen(int(env[port_of])):
                    pass
            child = await asyncio.to_thread(start_daemon, daemon, env, stack.data_dir / "daemon.env")
            try:
                return await _attend(child, stopped, env, lambda: _announce(out, stack, env, env_file))
            finally:
                await asyncio.to_thread(child.close)


def run(**options: Any) -> int:
    """`dev` in an event loop of its own, uvloop's where that is installed."""
    # Imported modules stay, and each collection of them would block PostgREST, Realtime and the sinks at once.
    gc.freeze()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if importlib.util.find_spec("uvloop"):
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(dev(**options))


async def _attend(
    child: ChildProcess, stopped: asyncio.Event, env: dict[str, str], ready: Callable[[], None]
) -> int:
    """Wait until the daemon is ready, call `ready`, and watch the daemon until `stopped`."""
    announced = False
    deadline = time.monotonic() + _READY_WITHIN
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        while not stopped.is_set():
            if child.returncode is not None:
                _complain(f"gre-bridge dev: the daemon ended with status {child.returncode}")
                return 1
            if not announced and await is_ready(client, env):
                announced = True
                ready()
            if not announced and time.monotonic() > deadline:
                _complain(f"gre-bridge dev: the daemon was not ready after {_READY_WITHIN:g} s")
                return 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), 0.25 if announced else 0.05)
    return 0


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")


async def is_ready(client: httpx.AsyncClient, env: dict[str, str]) -> bool:
    """Return True if the daemon that was started with `env` reports that it is ready."""
    try:
        response = await client.get(f"{admin_url(env)}/readyz")
    except httpx.HTTPError:
        return False
    return response.status_code == 200


@contextlib.contextmanager
def _stopped_by_signals() -> Generator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for signum in signals:
        loop.add_signal_handler(signum, stopped.set)
    try:
        yield stopped
    finally:
        for signum in signals:
            loop.remove_signal_handler(signum)


def migrate_and_seed(db_url: str) -> None:
    """Apply the migrations, and add the member of staff and the player of the printed tokens."""
    apply_migrations(db_url)
    with psycopg.connect(db_url, autocommit=True, connect_timeout=10) as conn:
        seed(conn)


def seed(conn: psycopg.Connection[Any]) -> None:
    """Add staff `s1` and player 29, unless they exist."""
    for statement, values in _SEEDS:
        conn.execute(statement, values)


def daemon_env(http_port: int | None) -> dict[str, str]:
    """Return the daemon's ports: the given ones, else the default ones; a port that is in use or 0 becomes a free one."""
    wanted = http_port if http_port is not None else int(os.environ.get("GRE_HTTP_PORT") or 5000)
    operators = 0 if http_port == 0 else int(os.environ.get("GRE_ADMIN_PORT") or 5001)
    with socket.socket() as public, socket.socket() as admin:
        if not _bound(public, wanted) and http_port:
            raise ConfigurationError(f"--http-port: port {http_port} is in use")
        _bound(admin, operators)
        return {
            "GRE_HTTP_HOST": "127.0.0.1",
            "GRE_HTTP_PORT": str(public.getsockname()[1]),
            "GRE_ADMIN_HOST": "127.0.0.1",
            "GRE_ADMIN_PORT": str(admin.getsockname()[1]),
            # There is no load balancer, so Ctrl-C stops the daemon at once.
            "GRE_SHUTDOWN_DELAY": "0",
        }


def _bound(probe: socket.socket, wanted: int) -> bool:
    """Bind to this port, or to a free one if it is 0 or in use. The result says if it was this one."""
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for port in [*([wanted] if wanted else []), *random.sample(_FREE_PORTS, 100), 0]:
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port == wanted
    raise ConfigurationError("no port is free on 127.0.0.1")


def daemon_url(env: dict[str, str]) -> str:
    """Return the API address of the daemon that is started with `env`."""
    return f"http://{env['GRE_HTTP_HOST']}:{env['GRE_HTTP_PORT']}"


def admin_url(env: dict[str, str]) -> str:
    """Return its admin address."""
    return f"http://{env['GRE_ADMIN_HOST']}:{env['GRE_ADMIN_PORT']}"


def start_daemon(daemon: Sequence[str], env: dict[str, str], env_file: Path) -> ChildProcess:
    """Start the daemon as a child process, with `env` written to `env_file` for it."""
    write_secret(env_file, _dotenv(env))
    # The environment overrides the file: variables that the developer has exported for a real project must
    # not reach the daemon.
    mine = {name: value for name, value in os.environ.items() if not name.startswith("STAFF_PORTAL_")}
    return ChildProcess(
        [*daemon, "--env-file", str(env_file)],
        stop_signal=signal.SIGTERM,
        grace=_STOP_WITHIN,
        # Everything is on loopback, which a proxy of the developer's network cannot reach.
        env={**mine, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", **env},
    )


def _dotenv(env: dict[str, str]) -> str:
    return "".join(f'{name}="{value}"\n' for name, value in env.items())


def _announce(out: TextIO, stack: Stack, env: dict[str, str], env_file: Path | None) -> None:
    tokens = {
        f"player {PLAYER}": stack.user_token("player", player_id=PLAYER, expires_in=7 * 86400),
        f"staff {STAFF}": stack.user_token("staff", staff_id=STAFF, expires_in=7 * 86400),
        f"admin {ADMIN}": stack.user_token("admin", staff_id=ADMIN, expires_in=7 * 86400),
    }
    # The links are last, because the lines above scroll away.
    links = []
    if stack.try_page.daemon_url:
        # A fragment reaches no server and no server's log; the page removes it from the address at once.
        links += ["", "Open both, and write from one to the other:"]
        links += [
            f"  the staff console  {stack.try_page.daemon_url}/console#token={tokens[f'staff {STAFF}']}"
        ]
        links += [f"  a player's page    {stack.url}/try"]
        links += [f"  all other pages    {stack.try_page.daemon_url}/"]
    lines = ["gre-bridge dev is ready.", ""]
    lines += [f"  {name}={value}" for name, value in env.items()]
    lines += ["", "Tokens of users (valid for 7 days; others: gre-bridge dev token player:30 --expires 60):"]
    lines += [f"  {name}: {token}" for name, token in tokens.items()]
    lines += ["", "Send a player's message:"]
    lines += [f"  SUPABASE_URL={env['SUPABASE_URL']} KEY={env['SUPABASE_SERVICE_KEY']}"]
    lines += [f"  {_CURL}", ""]
    lines += [f"Received: {stack.url}/__stack/received?sink=pusher   Faults: {stack.url}/__stack/faults"]
    print("\n".join(lines + links), file=out, flush=True)
    if env_file:
        write_secret(env_file, f"{WRITTEN}\n{_dotenv(env)}")


def _check_env_file(env_file: Path | None) -> None:
    """Refuse to overwrite a file that the stack did not write, such as the variables of a real project."""
    if env_file and env_file.is_file():
        text = env_file.read_text(encoding="utf-8", errors="replace")
        if text.strip() and not text.startswith(WRITTEN):
            raise ConfigurationError(
                f"--write-env: {env_file} was not written by gre-bridge dev; choose another file"
            )


def narrator(out: TextIO) -> Callable[[str, Request], None]:
    """Prints one line for each event that a sink accepted or refused, without its text."""

    def on_request(sink: str, request: Request) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(request.at))
        for item in request.items:
            said = _pusher_line(item) if sink == "pusher" else _onesignal_line(item)
            refused = "" if request.status == 200 else f" [{request.status or 'no answer'}]"
            print(f"{clock} {sink}{refused} {said}", file=out, flush=True)

    return on_request


def _pusher_line(item: dict[str, Any]) -> str:
    try:
        data = orjson.loads(item.get("data", "{}"))
    except orjson.JSONDecodeError:
        data = {}
    shown = [f"{name}={data[name]}" for name in ("id", "seq") if isinstance(data, dict) and name in data]
    return " ".join([item.get("channel", "-"), item.get("name", "-"), *shown])


def _onesignal_line(item: dict[str, Any]) -> str:
    aliases = (item.get("body") or {}).get("include_aliases") or {}
    return f"to {','.join(aliases.get('external_id') or ['-'])} id={item.get('id') or '-'}"
