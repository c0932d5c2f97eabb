"""The supervisor with scripts as children: restarts, kills, and the exit status."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.waiting import wait_until

SCRIPT = """
import json, os, signal, sys, time
from gre_bridge.daemon.supervisor import Child, Supervisor
from gre_bridge.systemd import Notifier
from gre_bridge.logging import LOGS, configure_logging

configure_logging(level="info", style="json", out=LOGS)

def line(**said):
    sys.stdout.write(json.dumps(said) + "\\n")
    sys.stdout.flush()

def well(reports, name="well"):
    stopped = []  # a threading.Event would wait for itself if the signal came while it is looked at
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    line(started=name, pid=os.getpid())
    reports.ready("fine")
    while not stopped:
        time.sleep(0.05)
        reports.alive("")
    line(stopped=name)
    return 0

def silent(reports):
    line(started="other", pid=os.getpid())
    reports.ready()
    time.sleep(3600)

def stalled(reports):
    line(started="other", pid=os.getpid())
    while True:
        reports.alive("pusher: its loop has not turned for 99 s")
        time.sleep(0.05)

def dies(reports):
    line(started="other", pid=os.getpid(), at=time.monotonic())
    return 1

def misconfigured(reports):
    reports.failed("PUSHER_SECRET: was refused")
    return 2

def ignores_sigterm(reports):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    line(started="other", pid=os.getpid())
    while True:
        reports.alive("")
        time.sleep(0.05)

other = {"well": lambda r: well(r, "other"), "silent": silent, "stalled": stalled, "dies": dies,
         "misconfigured": misconfigured, "ignores_sigterm": ignores_sigterm}[sys.argv[1]]
children = [Child("well", well), Child("other", other)]
sys.exit(Supervisor(children=children, stop_within=5.0, silence=3.0).run())
"""


class Run:
    """A running script and its output."""

    def __init__(self, other: str, directory: Path, **environment: str) -> None:
        self.out, self.log = directory / "out", directory / "log"
        with self.out.open("wb") as out, self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, other],
                stdout=out,
                stderr=log,
                env={**os.environ, **environment},
            )

    def said(self, **like: Any) -> list[dict[str, Any]]:
        lines = [
            json.loads(line) for line in self.out.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]
        return [line for line in lines if like.items() <= line.items()]

    def until(self, condition: Callable[[], Any], within: float = 60.0) -> Any:
        try:
            return wait_until(condition, within, 0.01)
        except AssertionError as error:
            raise AssertionError(self.log.read_text()) from error


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(other: str, **environment: str) -> Run:
        runs.append(Run(other, tmp_path, **environment))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            for child in psutil.Process(run.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):  # one that ends by itself is restarted
                    child.kill()
            run.process.kill()
        run.process.wait(60)


def test_both_are_started_and_a_stop_reaches_both(start: Callable[..., Run]) -> None:
    run = start("well")
    run.until(lambda: len(run.said(started="well")) == len(run.said(started="other")) == 1)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) == 0
    assert run.said(stopped="well") and run.said(stopped="other")


@pytest.mark.parametrize("other", ["silent", "stalled"])
def test_a_stalled_process_is_killed_and_restarted_without_the_other(
    start: Callable[..., Run], other: str
) -> None:
    run = start(other)
    run.until(lambda: len(run.said(started="other")) > 1)
    assert len(run.said(started="well")) == 1
    assert "process_killed" in run.log.read_text()
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) in (0, 1)


def test_a_process_that_dies_repeatedly_is_restarted_with_growing_pauses(start: Callable[..., Run]) -> None:
    run = start("dies")
    run.until(lambda: len(run.said(started="other")) >= 5)
    at = [line["at"] for line in run.said(started="other")]
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert all(pause >= 0.1 * 2**n for n, pause in enumerate(pauses))
    assert len(run.said(started="well")) == 1


def test_an_error_in_the_settings_ends_everything_with_one_line(start: Callable[..., Run]) -> None:
    run = start("misconfigured")
    assert run.process.wait(60) == 2
    plain = [line for line in run.log.read_text().splitlines() if not line.startswith("{")]
    assert plain == ["gre-bridge: PUSHER_SECRET: was refused"]


def test_a_process_that_does_not_stop_is_killed(start: Callable[..., Run]) -> None:
    run = start("ignores_sigterm")
    run.until(lambda: run.said(started="other") and run.said(started="well"))
    began = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) == 1
    assert time.monotonic() - began > 4.9
    assert run.said(stopped="well")


def test_no_process_is_killed_after_a_pause_of_the_whole_machine(start: Callable[..., Run]) -> None:
    run = start("well")
    run.until(lambda: run.said(started="well") and run.said(started="other"))
    every = [*psutil.Process(run.process.pid).children(), psutil.Process(run.process.pid)]
    for process in every:
        process.suspend()
    until = time.monotonic() + 7.0
    run.until(lambda: time.monotonic() > until)
    every[-1].resume()  # the supervisor first: no report has arrived for longer than its limit
    for process in every[:-1]:
        process.resume()
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) == 0
    assert "process_killed" not in run.log.read_text()
    assert len(run.said(started="well")) == 1


def test_systemd_is_notified_of_ready_watchdog_and_stopping(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        run = start("well", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="600000")
        heard: list[str] = []
        while not any(line.startswith("READY=1") for line in heard):
            heard.append(manager.recv(4096).decode())
        while heard[-3:] != ["WATCHDOG=1"] * 3:
            heard.append(manager.recv(4096).decode())
        run.process.send_signal(signal.SIGTERM)
        while not heard[-1].startswith("STOPPING=1"):
            heard.append(manager.recv(4096).decode())
        assert run.process.wait(60) == 0
