"""Run portals as processes against `gre-bridge dev`, with tokens and the events that the sinks received.

Every wait has a bound. The portals themselves are in the other files of this directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from gre_bridge.devstack.keys import Keys
from tests.support import npm
from tests.support.loopback import HTTP
from tests.support.waiting import wait_until

HERE = Path(__file__).parent
WITHIN = 60.0
"""Seconds: the bound for each wait, on a loaded machine."""
NODE = (20, 0)
"""The oldest Node.js that supabase-js 2.109 supports."""
PUBLIC = (
    "SUPABASE_URL",
    "SUPABASE_ANON_KEY",
    "PUSHER_KEY",
    "PUSHER_CLUSTER",
    "PUSHER_HOST",
    "PUSHER_PORT",
    "PUSHER_AUTH_URL",
)
"""The environment variables that a browser may know."""
Json = dict[str, Any]
Guide = dict[tuple[str, str], str]
"""The code of each snippet of docs/portals.md, by language and name."""


def node_modules() -> Path:
    """Install the JavaScript packages of this directory once, and return their path."""
    return npm.node_modules(HERE, NODE)


def wait_for(condition: Callable[[], Any], message: str, within: float = WITHIN, every: float = 0.05) -> Any:
    """Call `condition` until its result is true, and return that; fail with `message` after `within` seconds."""
    return wait_until(condition, within, every, message)


class Portal:
    """A running portal: it executes steps and collects events."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.name = Path(command[-1]).name
        self.lines: list[Json] = []
        self._process = subprocess.Popen(
            command,
            cwd=HERE,
            env={"PATH": os.environ["PATH"], **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout
        self.lines.extend(json.loads(line) for line in self._process.stdout)

    def _read_errors(self) -> None:
        assert self._process.stderr
        self._errors.extend(self._process.stderr)

    def line(self, key: str, after: int = 0) -> Any:
        """The value of the first line from number `after` on that has `key`."""

        def found() -> list[Any]:
            lines = [line[key] for line in self.lines[after:] if key in line]
            assert lines or self._process.poll() is None, f"{self.name} ended: {''.join(self._errors)}"
            return lines

        return wait_for(found, f"{self.name} did not print {key!r}", every=0.01)[0]

    def call(self, step: str, **options: Any) -> Any:
        """Execute a step; return its result."""
        assert self._process.stdin
        before = len(self.lines)
        print(json.dumps({"step": step, **options}), file=self._process.stdin, flush=True)
        return self.line("answer", before)

    def events(self, from_: str, **like: Any) -> list[Json]:
        """The events of a channel so far whose data has these values."""
        lines = [line for line in self.lines if line.get("from") == from_]
        return [line for line in lines if like.items() <= line["data"].items()]

    def wait_for_events(self, count: int, from_: str, **like: Any) -> list[Json]:
        """Wait for `count` such events, and return them."""
        return list(
            wait_for(
                lambda: (
                    self.events(from_, **like)[:count] if len(self.events(from_, **like)) >= count else []
                ),
                f"{self.name} received {self.events(from_, **like)}, not {count} from {from_} with {like}",
            )
        )

    def end(self) -> int:
        """Close the portal's input, wait for its end, and return its exit status."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            status = self._process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait(WITHIN)
        self._release()
        return status

    def kill(self) -> None:
        """End the portal at once, as a crash does."""
        assert self._process.stdin
        self._process.kill()
        self._process.wait(WITHIN)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._release()

    def _release(self) -> None:
        for thread in self._threads:
            thread.join(60)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream
            stream.close()


@dataclass(repr=False)
class World:
    """The stack with its daemon, and the open portals."""

    env: dict[str, str]
    keys: Keys
    portals: list[Portal] = field(default_factory=list)
    _players: int = 1000

    @property
    def url(self) -> str:
        """The stack's address."""
        return self.env["GRE_DEV_STACK"]

    def new_player(self) -> int:
        """A new player's id."""
        self._players += 1
        return self._players

    def player(self, player_id: int, script: str = "player.mjs") -> Portal:
        """Start the portal of a signed-in player."""
        return self.page(script, USER_TOKEN=self.keys.user_token("player", player_id=player_id))

    def staff(self, staff_id: str = "s1") -> Portal:
        """Start the portal of a signed-in staff member."""
        return self.page("staff.mjs", USER_TOKEN=self.keys.user_token("staff", staff_id=staff_id))

    def page(self, script: str | Path, **more: str) -> Portal:
        """Start a script with the environment that a browser may know, and `more`."""
        return self._open(script, {name: self.env[name] for name in PUBLIC} | more)

    def backend(self, script: str | Path = "backend.mjs", **more: str) -> Portal:
        """Start a script with the whole environment, secrets included."""
        return self._open(script, self.env | more)

    def _open(self, script: str | Path, env: dict[str, str]) -> Portal:
        if str(script).endswith(".py"):
            command = [sys.executable, str(script)]
        else:
            node_modules()
            command = ["node", str(script)]
        self.portals.append(Portal(command, env))
        return self.portals[-1]

    def received(self, sink: str) -> list[Json]:
        """All events that a sink has received."""
        answer = HTTP.get(f"{self.url}/__stack/received", params={"sink": sink, "limit": 100_000})
        return list(answer.json()["items"])

    def wait_until_relayed(self) -> None:
        """Wait until all events so far have been sent: a page that subscribes later receives none of them."""
        with psycopg.connect(self.env["SUPABASE_DB_URL"], autocommit=True, connect_timeout=60) as conn:
            waits = "select from gre_relay_deliveries where state = 'pending'"
            wait_for(lambda: conn.execute(waits).fetchone() is None, "events are waiting")

    def close_portals(self) -> None:
        """End all open portals."""
        while self.portals:
            self.portals.pop().end()
