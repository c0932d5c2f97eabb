"""The relay with real processes: each inserted message reaches both sinks, whichever process dies."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.loopback import HTTP, NO_TLS, PATIENT
from tests.support.stack import StackProcess, Worker, judge
from tests.support.waiting import let_pass, wait_until

MESSAGES, SESSIONS, WRITERS = 5000, 200, 4


def write(stack: StackProcess, count: int, sessions: int, writers: int) -> threading.Thread:
    """Insert `count` messages over REST from concurrent writers; return the running thread."""

    def one(writer: int) -> None:
        rng = random.Random(writer)
        with httpx.Client(
            base_url=stack.url, timeout=PATIENT, trust_env=False, headers=stack.headers(), verify=NO_TLS
        ) as http:
            for n in range(count // writers):
                row = {
                    "player_id": rng.randint(1, sessions),
                    "sender": "player",
                    "message": f"w{writer} m{n}",
                }
                http.post(
                    "/rest/v1/gre_chat_messages", json=row, headers={"Prefer": "return=minimal"}
                ).raise_for_status()

    def run() -> None:
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(one, range(writers)))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_message_reaches_both_sinks_as_documented(stack: StackProcess) -> None:
    with stack.worker():
        answer = stack.insert(player_id=29, sender="player", sender_name="Asha", message="Is table 4 open?")
        assert answer.status_code == 201
        stack.drained()
    event = next(i for i in stack.received("pusher") if i["name"] == "new-player-message")
    assert event["channel"] == "staff-portal"
    assert event["status"] == 200  # the stack checks the signature
    assert list(event["data"]) == [
        "id",
        "message",
        "sender",
        "sender_name",
        "player_id",
        "timestamp",
        "status",
        "session_id",
        "seq",
    ]
    assert event["data"]["message"] == "Is table 4 open?"
    assert (event["data"]["sender"], event["data"]["sender_name"], event["data"]["player_id"]) == (
        "player",
        "Asha",
        29,
    )
    assert (event["data"]["status"], event["data"]["seq"]) == ("sent", 1)
    (push,) = stack.received("onesignal")
    # The stack's staff, none of them online, in any order.
    assert {name: sorted(ids) for name, ids in push["body"]["include_aliases"].items()} == {
        "external_id": ["a1", "s1"]
    }
    assert "table 4" not in str(push["body"])
    with stack.db() as conn:
        (row,) = conn.execute("select status, provider_id, recipients from push_notifications").fetchall()
    assert (row["status"], row["provider_id"], sorted(row["recipients"])) == (
        "sent",
        push["id"],
        ["a1", "s1"],
    )


@contextlib.contextmanager
def hangup(action: signal.Handlers) -> Iterator[None]:
    """Processes that are started in this block inherit `action` for SIGHUP."""
    before = signal.signal(signal.SIGHUP, action)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_signal_that_ends_it_is_a_graceful_stop(stack: StackProcess, number: signal.Signals) -> None:
    """A closing terminal sends SIGHUP: the daemon leaves no lease behind."""
    stack.fault("pusher", {"delay": 2})
    with hangup(signal.SIG_DFL):  # also where the tests themselves run under nohup
        worker = stack.worker().start()
    try:
        stack.insert(player_id=29, sender="player", message="in flight")
        wait_until(lambda: worker.metric("gre_requests_in_flight", sink="pusher"), what="a request")
        worker.signal(number)
        if number is signal.SIGHUP:  # from the shell and from the kernel
            worker.signal(number)
        assert worker.process is not None
        assert worker.process.wait(60) == 0
    finally:
        worker.kill()
    assert '"stopped"' in worker.log.read_text()
    with stack.db() as conn:
        (row,) = conn.execute(
            "select count(*) as n from gre_relay_lanes where lease_token is not null"
        ).fetchall()
    assert row["n"] == 0


def test_under_nohup_it_ignores_a_closing_terminal(stack: StackProcess) -> None:
    with hangup(signal.SIG_IGN):
        worker = stack.worker().start()
    try:
        worker.signal(signal.SIGHUP)
        stack.insert(player_id=29, sender="player", message="still there?")
        stack.drained()
    finally:
        assert worker.stop() == 0
    assert [item["status"] for item in stack.received("pusher") if item["name"] == "new-player-message"] == [
        200
    ]


def test_two_workers_share_the_work_without_a_repeat(stack: StackProcess) -> None:
    with stack.worker("relay") as one, stack.worker("relay") as two:
        writing = write(stack, 2000, SESSIONS, WRITERS)
        writing.join(240)
        stack.drained(180)
        shares = [w.metric("gre_deliveries_claimed_total", sink="pusher") for w in (one, two)]
        assert [w.stop() for w in (one, two)] == [0, 0]
    verdict = judge(stack)
    assert verdict.committed == 2000
    assert verdict.lost == {"pusher": [], "onesignal": []}
    assert verdict.out_of_order == {"pusher": [], "onesignal": []}
    assert verdict.repeats == {"pusher": [], "onesignal": []}
    assert min(shares) > 0


def test_without_realtime_polls_find_all_messages(stack: StackProcess) -> None:
    stack.fault("realtime", {"refuse": True})
    with stack.worker("relay") as worker:
        writing = write(stack, 1000, SESSIONS, WRITERS)
        writing.join(240)
        stack.drained(180)
        assert worker.metric("gre_wakeups_total") == 0
        assert worker.metric("gre_realtime_state", state="live") == 0
    verdict = judge(stack)
    assert verdict.committed == 1000
    assert verdict.lost == {"pusher": [], "onesignal": []}
    assert verdict.out_of_order == {"pusher": [], "onesignal": []}
    assert verdict.repeats == {"pusher": [], "onesignal": []}


def test_a_temporary_outage_of_a_sink_loses_nothing_spends_no_attempt_and_does_not_delay_the_other(
    stack: StackProcess,
) -> None:
    with stack.worker("relay") as worker:
        stack.fault("pusher", {"mode": "status", "status": 500})
        for n in range(100):
            assert stack.insert(player_id=1 + n % 20, sender="player", message=f"m{n}").status_code == 201
        # Not as many as messages: a late push stands for the earlier ones of its session.
        waits = "select from gre_relay_deliveries where sink = 'onesignal' and state = 'pending'"
        with stack.db() as conn:
            wait_until(lambda: conn.execute(waits).fetchone() is None, what="all pushes")
        refused = [item["status"] for item in stack.received("pusher")]
        assert refused and set(refused) == {500}, "the other sink did not wait for it"
        stack.fault("pusher", None)
        stack.drained()
        worker.stop()
    verdict = judge(stack)
    assert verdict.lost == {"pusher": [], "onesignal": []}
    assert verdict.out_of_order == {"pusher": [], "onesignal": []}
    with stack.db() as conn:
        spent = conn.execute(
            "select max(attempts) as a, count(*) filter (where state = 'dead') as d from gre_relay_deliveries"
        ).fetchone()
    assert spent == {"a": 0, "d": 0}


def test_only_the_refused_event_is_dead_and_the_rest_of_its_session_follows(stack: StackProcess) -> None:
    stack.fault("pusher", {"mode": "status", "status": 400, "match": "poison"})
    with stack.worker("relay", GRE_MAX_ATTEMPTS="2"):
        for n, text in enumerate(["a", "poison", "b"] + ["other"] * 20):
            assert (
                stack.insert(player_id=1 if n < 3 else 2 + n % 5, sender="player", message=text).status_code
                == 201
            )
        stack.drained()
    arrived = [
        i["data"]["message"]
        for i in stack.received("pusher")
        if i["status"] == 200 and i["name"] == "new-player-message"
    ]
    assert sorted(arrived) == sorted(["a", "b"] + ["other"] * 20)
    with stack.db() as conn:
        dead = conn.execute(
            "select attempts, state, last_error from gre_relay_deliveries where attempts > 0 and event = 'message'"
        ).fetchall()
    # The event of the session has its last message, so it may have been refused once, too.
    assert [(d["attempts"], d["state"]) for d in dead] == [(2, "dead")]
    assert "400" in dead[0]["last_error"]


def test_with_wrong_credentials_the_deliveries_wait_until_they_are_corrected(stack: StackProcess) -> None:
    with stack.worker("relay", PUSHER_SECRET="not-the-secret") as wrong:
        stack.insert(player_id=1, sender="player", message="waits")
        wait_until(lambda: any(i["status"] == 401 for i in stack.received("pusher")), what="a refusal")
        told = wait_until(
            lambda: "401" in (answer := HTTP.get(f"{wrong.admin_url}/readyz")).text and answer,
            what="/readyz to say so",
        )
        assert told.status_code == 200, "an outage of a sink makes no instance unready"
        (pusher,) = [one for one in told.json()["sinks"] if one["sink"] == "pusher"]
        assert pusher["error"]
        assert "not-the-secret" not in wrong.log.read_text()
        assert wrong.stop() == 0  # if it were killed during a probe, its lease would remain
    with stack.worker("relay"):
        stack.drained()
    assert judge(stack).lost == {"pusher": [], "onesignal": []}


def test_sigterm_under_load_settles_what_is_in_flight(stack: StackProcess) -> None:
    with stack.worker() as worker:
        writing = write(stack, 400, 50, 2)
        wait_until(lambda: len(stack.received("pusher")) > 50, what="progress")
        assert worker.stop() == 0
        with stack.db() as conn:
            leased = conn.execute(
                "select count(*) as n from gre_relay_lanes where lease_token is not null"
            ).fetchone()
        assert leased == {"n": 0}
        writing.join(60)
    with stack.worker("relay"):
        stack.drained()
    verdict = judge(stack)
    assert verdict.lost == {"pusher": [], "onesignal": []}
    assert verdict.repeats == {"pusher": [], "onesignal": []}


@pytest.mark.parametrize(
    ("row", "status", "words"),
    [
        ({"message": ""}, 400, "message is empty"),
        ({"message": "x" * 4001}, 400, "longer than 4000"),
        ({"message": "a\u0000b"}, 400, "unsupported Unicode escape"),
        ({"sender": "bot"}, 400, "sender must be"),
        ({"player_id": 10**19}, 400, "out of range"),
        ({"player_id": "abc"}, 400, "invalid input syntax"),
        ({"session_id": "other"}, 403, "does not belong"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(
    stack: StackProcess, row: dict[str, Any], status: int, words: str
) -> None:
    theirs = stack.http.post(
        "/rest/v1/gre_chat_messages", json={"player_id": 30, "sender": "player", "message": "theirs"},
        headers={**stack.headers(), "Prefer": "return=representation"},
    ).json()[0]  # fmt: skip
    if row.get("session_id") == "other":
        row = {"session_id": theirs["session_id"]}
    answer = stack.insert(**{"player_id": 29, "sender": "player", "message": "fine", **row})
    assert answer.status_code == status
    assert words in answer.json()["message"]
    assert "\n" not in answer.json()["message"]
    with stack.db() as conn:
        counts = conn.execute(
            "select (select count(*) from gre_chat_messages) m, (select count(*) from gre_chat_sessions) s"
        ).fetchone()
    assert counts == {"m": 1, "s": 1}


def test_an_idle_worker_uses_almost_no_cpu(stack: StackProcess) -> None:
    interval, seconds = 5, 15.0
    with stack.worker(GRE_POLL_INTERVAL=str(interval)) as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        # The claims after the last wake-up of the start.
        wait_until(lambda: _steady(worker), every=1.0, what="quiet")
        cpu = _cpu(worker)
        before = _claims(worker)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began >= seconds, seconds + 60, every=0.5)
        used = _cpu(worker) - cpu
        requests = _claims(worker) - before
        seconds = time.monotonic() - began
    # Two scrapes are in it; on a busy machine the same work costs more.
    assert used < 0.02 * seconds + 0.06, f"{used:.2f} s of CPU in {seconds:.0f} s"
    assert requests <= 2 * 2 * (seconds / interval + 1), "of two sinks"


def _cpu(worker: Worker) -> float:
    """Return the seconds of CPU that its processes have used."""
    return sum(sum(process.cpu_times()[:2]) for process in worker.all())


def _steady(worker: Worker) -> bool:
    one = _claims(worker)
    let_pass(0.5, "the interval in which no call may happen")
    return _claims(worker) == one


def _claims(worker: Worker) -> float:
    """Return the number of calls that claim."""
    names = ("gre_relay_claim_v1", "gre_relay_exchange_v1")
    return sum(worker.metric("gre_database_requests_total", function=name) for name in names)
