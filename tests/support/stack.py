"""The embedded stack and workers as real processes, for tests that kill them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import psycopg
from dotenv import dotenv_values
from psycopg.rows import dict_row

from gre_bridge.devstack.dev import seed
from gre_bridge.devstack.keys import Keys
from tests.support.canary import check_sinks, check_tables
from tests.support.loopback import HTTP, NO_TLS, PATIENT
from tests.support.template import Forked, Template
from tests.support.waiting import wait_until

TO_ALL = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT)
"""Signals that are sent to all processes of the daemon; others go to the supervisor, which forwards them."""


def wait_until_ended(processes: Sequence[psutil.Process], within: float = 60.0) -> None:
    """Wait until these processes have ended, also those that their parent has not reaped yet.

    Process 1 reaps orphans when it likes, seconds later on some machines; they hold neither files nor ports until then.
    """

    def ended(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        return True

    wait_until(lambda: all(map(ended, processes)), within, 0.01, f"the end of {processes}")


class Worker:
    """`gre-bridge run`, on free ports: supervisor, relay and API; its log is kept in a file.

    `only` starts one half, in one process (`relay` or `api`): quicker, where a test needs no more. It is a fork of
    `template`, if there is one, else a command. `constants` (of a fork only) replace the values of the daemon's
    constants, so that a test need not wait for the interval that suits production.
    """

    def __init__(
        self,
        env: dict[str, str],
        log: Path,
        *,
        only: str | None = None,
        template: Template | None = None,
        constants: Mapping[str, float] | None = None,
        **changes: str,
    ) -> None:
        assert template is not None or not constants, "a command has the constants of its source"
        self._options = {None: [], "relay": ["--no-api"], "api": ["--no-relay"]}[only]
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SUPABASE_", "PUSHER_", "GRE_", "ONESIGNAL_"))},
            **env, "GRE_HTTP_PORT": "0", "GRE_ADMIN_PORT": "0", "GRE_SHUTDOWN_DELAY": "0", "GRE_LOG_FORMAT": "json",
            **changes,
        }  # fmt: skip
        self.log = log
        self._template = template
        self._constants = constants
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def start(self, *, ready: bool = True, within: float = 60.0) -> Self:
        """Start the process; with `ready`, return when /readyz says so."""
        self._from = self.log.stat().st_size if self.log.exists() else 0
        arguments = ["run", *self._options]
        with self.log.open("ab") as out:
            if self._template is not None:
                self.process = self._template.start(arguments, self._env, out, self._constants)
            else:
                command = [sys.executable, "-m", "gre_bridge", *arguments]
                self.process = subprocess.Popen(command, env=self._env, stdout=out, stderr=out)
        if ready:
            self._wait_ready(within)
        return self

    def _wait_ready(self, within: float) -> None:
        """Wait for /readyz. A worker that is not ready in time is killed: it would work for the tests that follow."""
        try:
            wait_until(self._ready, within, what="the worker's /readyz")
        except BaseException:
            self.kill()
            raise

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        with contextlib.suppress(httpx.HTTPError, IndexError):
            return HTTP.get(f"{self.admin_url}/readyz", timeout=20).status_code == 200
        return False

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it runs with."""
        return self._env

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        """The API's address, read from its log."""
        return self._logged("address")

    @property
    def admin_url(self) -> str:
        """The admin port's address, read from its log."""
        return self._logged("admin_address")

    def _logged(self, name: str) -> str:
        text = self.log.read_text()[self._from :]
        return "http://" + text.split(f'"{name}": "http://', 1)[1].split('"', 1)[0]

    @property
    def pids(self) -> dict[str, int]:
        """Its processes by name, as /readyz has them."""
        processes = HTTP.get(f"{self.admin_url}/readyz", timeout=60).json()["processes"]
        return {name: process["pid"] for name, process in processes.items() if process}

    def all(self) -> list[psutil.Process]:
        """The supervisor and its children; empty once it has ended, because its pid may be reused."""
        if self.process is None or self.process.poll() is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value, summed over the series that have these labels.

        A Realtime state counts if every process has it; wake-ups are the relay's, if there is one.
        """
        values: dict[str, float] = defaultdict(float)
        for line in HTTP.get(f"{self.admin_url}/metrics", timeout=60).text.splitlines():
            if line.startswith((f"{name} ", f"{name}{{")) and all(
                f'{k}="{v}"' in line for k, v in labels.items()
            ):
                values[line.partition('process="')[2].partition('"')[0]] += float(line.rsplit(" ", 1)[1])
        if name == "gre_realtime_state" and values:
            return min(values.values())
        if name == "gre_wakeups_total" and "relay" in values:
            return values["relay"]
        return sum(values.values())

    def signal(self, number: int) -> None:
        """Send a signal."""
        for process in self.all() if number in TO_ALL else self.all()[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> float:
        """SIGKILL to all of it at once, and reap; returns when the last signal was sent, in Unix seconds."""
        every = self.all()
        for process in every:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        killed_at = time.time()
        if self.process is not None:
            self.process.wait(60)
            wait_until_ended(every)
        return killed_at

    def kill_relay(self) -> None:
        """SIGKILL to the relay alone."""
        os.kill(self.pids["relay"], signal.SIGKILL)

    def kill_api(self) -> None:
        """SIGKILL to the API alone."""
        os.kill(self.pids["api"], signal.SIGKILL)

    def stop(self, within: float = 60.0) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


@dataclass
class StackProcess:
    """`gre-bridge dev --no-worker` as a child process. Its workers are forks of `template`, if there is one.

    `data` is for its cluster, in `directory` by default.
    """

    directory: Path
    template: Template | None = None
    data: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    workers: int = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as started:
            started.callback(self.kill)
            self._start("0")
            started.pop_all()
        assert self.data is not None
        self.url = self.env["SUPABASE_URL"]
        self.http = httpx.Client(base_url=self.url, timeout=PATIENT, trust_env=False, verify=NO_TLS)
        self.keys = Keys.of(self.data)
        return self

    def kill(self) -> None:
        """SIGKILL: PostgreSQL ends with it. What it recorded is lost, the data stay."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def start_again(self) -> None:
        """Start it on its port after it was killed."""
        self._start(self.url.rpartition(":")[2])

    def _start(self, port: str) -> None:
        env_file, log = self.directory / "env", self.directory / "stack.log"
        env_file.unlink(missing_ok=True)
        self.data = self.data or self.directory / "data"
        command = [sys.executable, "-m", "gre_bridge", "dev", "--no-worker", "--port", port,
                   "--data-dir", str(self.data), "--write-env", str(env_file)]  # fmt: skip
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

        def up() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, log.read_text()
            return env_file.exists()

        wait_until(up, 180, what="the stack")
        self.env = {k: v for k, v in dotenv_values(env_file).items() if v is not None}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.check_notes()
        finally:
            self.http.close()
            assert self.process is not None
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def reset(self) -> None:
        """Delete everything but the seeds: rows, faults, received requests."""
        self.http.delete("/__stack/faults").raise_for_status()
        self.check_notes()
        with self.db() as conn:
            found = conn.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
            tables = ", ".join(row["tablename"] for row in found if row["tablename"] != "gre_relay_sinks")
            for attempt in range(3):
                try:
                    conn.execute(f"truncate {tables}, gre.report_players")
                    break
                except psycopg.errors.DeadlockDetected:  # with what a killed worker has asked for
                    if attempt == 2:
                        raise
            conn.execute("select gre.report_unpack()")
            conn.execute("insert into gre_chat_settings default values")
            conn.execute("update gre_relay_sinks set enabled = true")
            conn.execute("delete from gre.listeners")  # those of killed workers
            conn.execute("delete from gre.attachment_quotas")
            conn.execute("delete from gre.media_jobs")
            seed(conn)
        self.http.delete("/__stack/received").raise_for_status()

    def check_notes(self) -> None:
        """Check that no note was sent to a player, a public channel or OneSignal."""
        with self.db() as conn:
            if check_tables(conn):
                check_sinks({sink: self.received(sink) for sink in ("pusher", "onesignal")})

    def db(self) -> psycopg.Connection[dict[str, Any]]:
        """The database as role postgres, autocommit, rows as dicts."""
        return psycopg.connect(
            self.env["SUPABASE_DB_URL"], autocommit=True, row_factory=dict_row, connect_timeout=60
        )

    def worker(
        self, only: str | None = None, *, constants: Mapping[str, float] | None = None, **changes: str
    ) -> Worker:
        """A worker for this stack (not started), or `only` its relay or api; `changes` are variables."""
        self.workers += 1
        log = self.directory / f"worker-{self.workers}.log"
        return Worker(self.env, log, only=only, template=self.template, constants=constants, **changes)

    def fault(self, service: str, rule: Any) -> None:
        """Set a fault, see /__stack/faults."""
        self.http.post("/__stack/faults", json={service: rule}).raise_for_status()

    def accepted(self, sink: str) -> int:
        """The number of items that the sink has accepted; cheap to poll."""
        return int(self.http.get("/__stack/health").json()["received"][sink]["accepted"])

    def received(self, sink: str) -> list[dict[str, Any]]:
        """The items that the sink received, in order of arrival.

        A request to Pusher that was refused, or cut before its end, has no event: then its texts are empty.
        """
        items: list[dict[str, Any]] = []
        no_event = {"channel": "", "name": "", "data": {}} if sink == "pusher" else {}
        since = 0
        while True:
            page = self.http.get(
                "/__stack/received", params={"sink": sink, "since": since, "limit": 5000}
            ).json()
            items += [{**no_event, **item} for item in page["items"]]
            if not page["items"]:
                return items
            since = page["items"][-1]["n"]

    def headers(self, key: str | None = None) -> dict[str, str]:
        """A Supabase client's headers, with the service key or a user's token."""
        return {"apikey": self.env["SUPABASE_ANON_KEY" if key else "SUPABASE_SERVICE_KEY"],
                "Authorization": f"Bearer {key or self.env['SUPABASE_SERVICE_KEY']}"}  # fmt: skip

    def insert(
        self, table: str = "gre_chat_messages", *, key: str | None = None, **row: Any
    ) -> httpx.Response:
        """Insert a row as a portal does, over REST."""
        return self.http.post(f"/rest/v1/{table}", json=row, headers=self.headers(key))

    def drained(self, within: float = 60.0) -> None:
        """Wait until no delivery is pending."""
        with self.db() as conn:

            def empty() -> bool:
                row = conn.execute(
                    "select count(*) as n from gre_relay_deliveries where state = 'pending'"
                ).fetchone()
                return row is not None and row["n"] == 0

            wait_until(empty, within, 0.1, what="an empty outbox")


@dataclass
class Verdict:
    """The sinks' items compared with the committed messages."""

    committed: int
    lost: dict[str, list[str]]
    out_of_order: dict[str, list[str]]
    repeats: dict[str, list[tuple[str, float, float]]]
    """By sink: (message id, first arrival, this arrival)."""


def judge(stack: StackProcess) -> Verdict:
    """Compare: every message in every sink, first arrivals in order of seq, repeats listed."""
    with stack.db() as conn:
        rows = conn.execute("select id::text, session_id::text, seq from gre_chat_messages").fetchall()
    verdict = Verdict(len(rows), {}, {}, {})
    arrivals = {
        "pusher": [(i["data"]["id"], i["data"]["session_id"], i["data"]["seq"], i["at"]) for i in stack.received("pusher")
                   if i["status"] == 200 and i["channel"] in ("staff-portal", "private-staff-portal") and i["name"].startswith("new-")],
        "onesignal": [(i["body"]["data"]["message_id"], i["body"]["data"]["session_id"], i["body"]["data"]["seq"], i["at"])
                      for i in stack.received("onesignal")
                      if i["status"] == 200 and not i["replayed"] and i["body"]["data"]["message_id"]],
    }  # fmt: skip
    for sink, seen in arrivals.items():
        first: dict[str, float] = {}
        newest: dict[str, int] = defaultdict(int)
        wrong: list[str] = []
        again: list[tuple[str, float, float]] = []
        for message, session, seq, at in seen:
            if message in first:
                again.append((message, first[message], at))
                continue
            first[message] = at
            if seq < newest[session]:
                wrong.append(message)
            newest[session] = max(newest[session], seq)
        # A merged push stands for the earlier messages of its session.
        merged = sink == "onesignal"
        verdict.lost[sink] = [
            r["id"]
            for r in rows
            if r["id"] not in first and not (merged and newest[r["session_id"]] > r["seq"])
        ]
        verdict.out_of_order[sink] = wrong
        verdict.repeats[sink] = again
    return verdict
