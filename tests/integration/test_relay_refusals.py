"""A service that refuses everything has an outage, whatever its answer: no delivery is dead, and the reason is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.loopback import HTTP
from tests.support.stack import StackProcess, Worker, judge
from tests.support.waiting import wait_until

PAGE = "<html><head><title>400 Bad Request</title></head><body>nginx</body></html>"
CASES = [
    ("pusher", 400, "Unknown auth_key", "check PUSHER_KEY"),
    ("pusher", 400, PAGE, "a page that is not Pusher's"),
    ("pusher", 413, "Request Entity Too Large", "refuses whatever it is sent"),
    ("onesignal", 400, PAGE, "a page that is not OneSignal's"),
    ("onesignal", 400, '{"errors": ["something is wrong"]}', "refuses whatever it is sent"),
]


SOON = {"gre_bridge.daemon.registration.REPORT_INTERVAL": 1.0}
"""`gre-bridge status` shows what the workers report every 15 s."""


def reason(worker: Worker, sink: str) -> str:
    """Return the line of /metrics with the reason why the breaker is not closed, empty if it is closed."""
    lines = HTTP.get(f"{worker.admin_url}/metrics", timeout=60).text.splitlines()
    return next(
        (line for line in lines if line.startswith("gre_breaker_reason{") and f'sink="{sink}"' in line),
        "",
    )


@pytest.mark.parametrize(("sink", "status", "body", "told"), CASES)
def test_a_service_that_refuses_everything_spends_no_attempt_and_the_reason_is_shown(
    stack: StackProcess, sink: str, status: int, body: str, told: str
) -> None:
    stack.fault(sink, {"status": status, "body": body})
    with stack.worker("relay", constants=SOON, GRE_MAX_ATTEMPTS="2") as worker:
        for n in range(120):
            assert stack.insert(player_id=1 + n % 12, sender="player", message=f"m{n}").status_code == 201
        found = wait_until(lambda: reason(worker, sink), what="the reason in /metrics")
        assert told in found
        wait_until(lambda: len(stack.received(sink)) > 30, what="some tries")

        def error(row: dict[str, Any]) -> str:
            return str(row["info"]["sinks"].get(sink, {}).get("error"))

        with stack.db() as conn:
            wait_until(
                lambda: any(told in error(row) for row in conn.execute("select info from gre_relay_workers")),
                what="the worker's report",
            )  # fmt: skip
        command = [sys.executable, "-m", "gre_bridge", "status", "--json"]
        said = subprocess.run(
            command, env=worker.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert any(told in error(one) for one in json.loads(said.stdout)["workers"])
        with stack.db() as conn:
            spent = conn.execute(
                "select max(attempts) as attempts, count(*) filter (where state = 'dead') as dead from gre_relay_deliveries"
            ).fetchone()
        assert spent == {"attempts": 0, "dead": 0}
        stack.fault(sink, None)
        stack.drained()
        wait_until(lambda: reason(worker, sink) == "", what="the end of the outage in /metrics")
    verdict = judge(stack)
    assert verdict.lost == {"pusher": [], "onesignal": []}
    assert verdict.out_of_order == {"pusher": [], "onesignal": []}


def test_with_a_key_of_another_cluster_deliveries_wait_and_a_single_bad_event_is_dead(
    stack: StackProcess,
) -> None:
    """Pusher answers an unknown key with 400; it answers a bad event with 400, too."""
    with stack.worker("relay", PUSHER_KEY="ffffffffffffffffffff") as wrong:
        stack.insert(player_id=1, sender="player", message="waits")
        assert "check PUSHER_KEY" in wait_until(lambda: reason(wrong, "pusher"), what="the reason")
        assert wrong.stop() == 0  # killed in mid-probe it would leave a lease to wait for
    stack.fault("pusher", {"status": 400, "body": PAGE, "match": "poison"})
    with stack.worker("relay", GRE_MAX_ATTEMPTS="2"), stack.db() as conn:
        stack.drained()
        stack.insert(player_id=1, sender="player", message="poison")
        stack.drained(90)
        rows = conn.execute(
            "select d.state, d.attempts, m.message from gre_relay_deliveries d join gre_chat_messages m on m.id = d.message_id"
            " where d.sink = 'pusher' order by d.ord"
        ).fetchall()
    assert [(row["message"], row["state"], row["attempts"]) for row in rows] == [
        ("waits", "done", 0),
        ("poison", "dead", 2),
    ]


def test_a_worker_without_work_does_not_report_an_outage_that_has_ended(
    stack: StackProcess,
) -> None:
    """Three messages in an outage, two workers, and no traffic afterwards."""
    settings = {"GRE_POLL_INTERVAL": "1"}
    with stack.worker("relay", **settings) as one, stack.worker("relay", **settings) as other:
        stack.fault("pusher", {"status": 500})
        for n in range(6):
            stack.insert(player_id=1 + n, sender="player", message=f"m{n}")
        both = (one, other)
        wait_until(
            lambda: any(w.metric("gre_breaker_state", sink="pusher") for w in both),
            what="an open breaker",
        )
        stack.fault("pusher", None)
        stack.drained()
        wait_until(
            lambda: not any(w.metric("gre_breaker_state", sink="pusher") for w in both),
            60,
            what="both closed",
        )
        wait_until(lambda: [reason(w, "pusher") for w in both] == ["", ""], what="no reason")
