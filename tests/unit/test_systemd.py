"""Notifications to systemd, over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gre_bridge.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket in place of the service manager's, and its address in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@gre-bridge-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        taken.settimeout(60)
        yield name, taken


def heard(taken: socket.socket) -> str:
    return taken.recv(4096).decode()


def test_each_state_is_one_datagram(manager: tuple[str, socket.socket]) -> None:
    address, taken = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready("relaying to\npusher")
    assert heard(taken) == "READY=1\nSTATUS=relaying to pusher"
    notifier.status("waiting for the database")
    assert heard(taken) == "STATUS=waiting for the database"
    notifier.alive()
    assert heard(taken) == "WATCHDOG=1"
    notifier.stopping()
    assert heard(taken) == "STOPPING=1"


def test_without_a_socket_nothing_happens() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000000"})
    notifier.ready()
    notifier.alive()
    assert notifier.watchdog is None


def test_a_manager_that_is_gone_or_does_not_read_has_no_effect(tmp_path: Path) -> None:
    Notifier(address=str(tmp_path / "gone")).ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        notifier = Notifier(address=str(tmp_path / "deaf"))
        for _ in range(10_000):  # its queue is full: a blocking send would never end
            notifier.alive()


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_limit_is_systemds(environment: dict[str, str], limit: float | None) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/nowhere", **environment}).watchdog == limit


class Health:
    reason = ""

    def stalled(self) -> str:
        return self.reason


async def test_the_watchdog_is_reset_only_while_no_loop_is_stalled(
    manager: tuple[str, socket.socket],
) -> None:
    address, taken = manager
    health = Health()
    reporting = asyncio.create_task(Notifier(address=address, watchdog=0.06).report_alive(health))
    try:
        assert [await asyncio.to_thread(heard, taken) for _ in range(3)] == ["WATCHDOG=1"] * 3
        health.reason = "pusher: its loop has not turned for 60 s"
        said = ""
        while not said.startswith("STATUS="):
            said = await asyncio.to_thread(heard, taken)
        assert said == f"STATUS={health.reason}"
        taken.settimeout(0.3)  # fifteen intervals
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(heard, taken)
        taken.settimeout(60)
        health.reason = ""
        assert {await asyncio.to_thread(heard, taken) for _ in range(2)} == {"WATCHDOG=1", "STATUS=running"}
    finally:
        reporting.cancel()


async def test_without_a_watchdog_nothing_is_reported() -> None:
    async with asyncio.timeout(60):
        await Notifier(address=None, watchdog=10.0).report_alive(Health())
