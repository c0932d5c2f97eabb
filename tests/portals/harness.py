"""Portals as processes, and the world they live in: `gre-bridge dev` with its daemon, tokens, what the sinks got.

Whatever a test waits for has a bound. What the portals do is in their own files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gre_bridge.devstack.keys import Keys
from tests.support import npm

HERE = Path(__file__).parent
WITHIN = 20.0
"""Seconds that anything may take on a loaded machine."""
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
"""What a page may know."""
Json = dict[str, Any]
Guide = dict[tuple[str, str], str]
"""The code of each snippet of docs/portals.md, by language and name."""


def node_modules() -> Path:
    """The installed JavaScript packages of this folder."""
    return npm.node_modules(HERE, NODE)


def wait_for(what: Callable[[], Any], why: str, within: float = WITHIN) -> Any:
    """What `what` returns as soon as that is true; fails with `why` after `within` seconds."""
    deadline = time.monotonic() + within
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.01)
    return found


class Portal:
    """A running portal: ask it for steps, look at what it heard."""

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

        return wait_for(found, f"{self.name} did not say {key!r}")[0]

    def ask(self, step: str, **options: Any) -> Any:
        """Do a step; its answer."""
        assert self._process.stdin
        before = len(self.lines)
        print(json.dumps({"step": step, **options}), file=self._process.stdin, flush=True)
        return self.line("answer", before)

    def heard(self, from_: str, **like: Any) -> list[Json]:
        """What it heard so far from a channel, where the data has these values."""
        lines = [line for line in self.lines if line.get("from") == from_]
        return [line for line in lines if like.items() <= line["data"].items()]

    def hears(self, count: int, from_: str, **like: Any) -> list[Json]:
        """The first `count` of them, once they are there."""
        return list(
            wait_for(
                lambda: self.heard(from_, **like)[:count] if len(self.heard(from_, **like)) >= count else [],
                f"{self.name} heard {self.heard(from_, **like)}, not {count} from {from_} with {like}",
            )
        )

    def end(self) -> int:
        """Close its input, wait, and say how it ended."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            status = self._process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait(10)
        for thread in self._threads:
            thread.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream
            stream.close()
        return status


@dataclass(repr=False)
class World:
    """The stack with its daemon, and the portals that were opened in it."""

    env: dict[str, str]
    keys: Keys
    portals: list[Portal] = field(default_factory=list)
    _players: int = 1000

    @property
    def url(self) -> str:
        """Where the stack is."""
        return self.env["GRE_DEV_STACK"]

    def new_player(self) -> int:
        """The id of a player that never wrote."""
        self._players += 1
        return self._players

    def player(self, player_id: int, script: str = "player.mjs") -> Portal:
        """The portal of a player who is signed in."""
        return self.page(script, USER_TOKEN=self.keys.user_token("player", player_id=player_id))

    def staff(self, staff_id: str = "s1") -> Portal:
        """The portal of somebody of the staff."""
        return self.page("staff.mjs", USER_TOKEN=self.keys.user_token("staff", staff_id=staff_id))

    def page(self, script: str | Path, **more: str) -> Portal:
        """Start a script that knows what a browser may know, and `more`."""
        return self._open(script, {name: self.env[name] for name in PUBLIC} | more)

    def backend(self, script: str | Path = "backend.mjs", **more: str) -> Portal:
        """Start a script that knows the secrets too."""
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
        """Every event that a sink took so far."""
        answer = httpx.get(
            f"{self.url}/__stack/received", params={"sink": sink, "limit": 100_000}, timeout=20
        )
        return list(answer.json()["items"])

    def close_portals(self) -> None:
        """End what the last test opened."""
        while self.portals:
            self.portals.pop().end()
