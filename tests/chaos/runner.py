"""Runs one case: load, fault, end of the fault, recovery; then judges the arrivals.

The verdict is from the rows of the database and the requests that the sinks received, never from the worker's reports.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import desk, files
from tests.chaos.cases import Case
from tests.chaos.load import MARK, TEXT
from tests.chaos.scene import Scene
from tests.chaos.watch import SINKS
from tests.support.report_check import check_figures
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until

QUICK = 0.75
"""Seconds; a message that took longer is late."""
WARM_UP = 25
"""Messages that arrive before the fault."""
FILE_RATE = 3.0
"""Files a second."""
FILES = 24
"""Files that are announced at least, half of them before the fault."""
MARGIN = 2.0
"""Seconds; a repeated message may have arrived first this long before the fault, or during it."""
GRACE = 15.0
"""Seconds to wait beyond a case's bound, to measure the recovery, and for other load on the machine."""


@dataclass
class Report:
    """The result of one case. Times are in seconds."""

    name: str
    description: str
    bound: float
    sent: int = 0
    delivered: int = 0
    """Messages that reached every sink."""
    lost: int = 0
    out_of_order: int = 0
    repeats: dict[str, int] = field(default_factory=dict)
    dead: int = 0
    bystanders: float | None = None
    """Time within which 99 of 100 messages of the bystanders arrived during the fault."""
    recovery: float = 0.0
    problems: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    """Times above their bounds."""
    files: files.FilesReport | None = None
    """Of a case with files."""

    @property
    def ok(self) -> bool:
        """True if every guarantee was met."""
        return not self.problems and not self.slow


def run(stack: StackProcess, case: Case, *, with_desk: bool = False) -> Report:
    """Run one case on the stack, which is emptied first; `with_desk`: with automatic assignment and auto-replies."""
    stack.reset()
    if with_desk:
        desk.switch_on(stack)
    report = Report(case.name, case.description, case.recovers)
    if case.files:
        report.files = files.FilesReport(case.files)
    try:
        with Scene(
            stack, workers=case.workers, env=dict(case.env), proxied=case.proxied, marked=case.marked, rate=case.rate,
            constants=case.constants or None, scanned=case.scanned, files=FILE_RATE if case.files else 0.0,
        ) as scene:  # fmt: skip
            _play(scene, case, report, with_desk)
            _judge(scene, case, report)
            report.problems += scene.problems + scene.load.problems
    except AssertionError as error:
        report.problems.append(str(error).partition("\n")[0])
    return report


def _play(scene: Scene, case: Case, report: Report, with_desk: bool) -> None:
    scene.load.start()
    scene.senders.start()
    wait_until(lambda: scene.arrived() >= WARM_UP and scene.calm(QUICK), 120, 0.05, what="a steady flow")
    scene.senders.until(FILES // 2)
    scene.broken_at = time.time()
    with case.fault(scene):
        reported = _hold_fault(scene, case, case.lasts)
    scene.over_at = time.time()
    scene.healed_at = scene.healed_at or scene.over_at
    scene.check(reported, f"/readyz did not say {case.reports!r}")
    deadline = time.monotonic() + case.recovers + GRACE
    try:
        wait_until(lambda: _wakeups_arrive(scene), case.recovers + GRACE, 0.05, what="wake-ups")
        left = max(GRACE, deadline - time.monotonic())
        wait_until(lambda: scene.calm(QUICK, since=scene.over_at), left, 0.05, what="a normal flow")
    except AssertionError as error:
        report.slow.append(str(error).partition("\n")[0])
    scene.senders.until(FILES)
    scene.load.stop()
    scene.senders.stop()
    if with_desk:
        wait_until(
            lambda: desk.is_idle(scene.stack), GRACE, 0.05, what="all sessions assigned, no timer left"
        )
        scene.problems += desk.find_problems(scene.stack)
    scene.stack.drained()
    if report.files:
        report.problems += files.settle(scene, report.files)
        report.slow += files.late(report.files)
        scene.stack.drained()
    scene.watch.read()
    if case.reports:
        for worker in scene.workers:
            wait_until(lambda w=worker: not scene.problems_reported(w), what="/readyz without problems")  # type: ignore[misc]
    for worker in scene.workers:
        scene.check(worker.stop() == 0, "SIGTERM at the end: exit status is not 0")
    scene.check(not scene.leased(), "leases are left behind")


def _wakeups_arrive(scene: Scene) -> bool:
    """Return True if every worker is connected to Realtime; record the time if not.

    A throttled worker counts as connected: it polls instead, which the times of the messages judge.
    """
    live = all(
        worker.metric("gre_realtime_state", state="live") == 1
        or worker.metric("gre_realtime_state", state="throttled", process="relay") == 1
        for worker in scene.workers
    )
    if not live:
        scene.no_wakeups_until = time.time()
    return live


def _hold_fault(scene: Scene, case: Case, seconds: float) -> bool:
    """Hold the fault for its duration, on a busy machine until /readyz reported it; return True if it did."""
    deadline = time.monotonic() + seconds
    reported = not case.reports
    while (left := deadline - time.monotonic()) > 0 or (seconds and not reported and left > -GRACE):
        scene.hold(min(0.3, max(0.1, left)))
        reported = reported or case.reports in scene.problems_reported(scene.workers[0])
    return reported


def _judge(scene: Scene, case: Case, report: Report) -> None:
    with scene.stack.db() as conn:
        try:
            scene.check(check_figures(conn) > 0, "the figures of no session could be checked")
        except AssertionError as error:
            report.problems.append(f"figures differ from messages and events: {error}")
        rows = conn.execute(
            "select id::text, session_id::text as session, seq, extract(epoch from created_at)::float8 as at,"
            " origin = 'auto' as auto from gre_chat_messages"
        ).fetchall()
        deliveries = conn.execute(
            "select message_id::text as message, sink, state, attempts from gre_relay_deliveries where event = 'message'"
        ).fetchall()
    arrivals = {
        (row["id"], sink): scene.watch.arrival(sink, row["id"], row["session"], row["seq"])
        for row in rows
        for sink in SINKS
        if not (row["auto"] and sink == "onesignal")  # an auto-reply causes no push
    }
    dead = {(d["message"], d["sink"]) for d in deliveries if d["state"] == "dead"}
    missed = {key for key, at in arrivals.items() if at is None}
    late = [
        (at, f"{sink}, written {row['at'] - scene.broken_at:+.1f} s from the fault")
        for row in rows
        for sink in SINKS
        if row["at"] < (scene.over_at if row["session"] in scene.affected else scene.healed_at)
        and (at := arrivals.get((row["id"], sink)))
        and at - row["at"] > QUICK
    ]
    last, which = max([*late, (scene.no_wakeups_until, "wake-ups of Realtime")])
    during = [
        at - row["at"]
        for row in rows
        for sink in case.bystanders
        if _bystander(scene, row) and (at := arrivals.get((row["id"], sink)))
    ]
    report.sent = len(rows)
    report.delivered = len(rows) - len({message for message, _ in missed})
    report.dead = len({message for message, _ in dead})
    report.lost = len(missed - dead)
    report.out_of_order = sum(len(seen.out_of_order) for seen in scene.watch.seen.values())
    report.repeats = {sink: len(seen.repeats) for sink, seen in scene.watch.seen.items()}
    report.recovery = max(0.0, last - scene.healed_at)
    report.bystanders = sorted(during)[int(len(during) * 0.99)] if during else None
    typed = sum(not row["auto"] for row in rows)
    wrong = sum(not _ended_well(case, row) for row in deliveries)
    for bad, problem in (
        (report.lost, f"lost {report.lost}"),
        (typed != len(scene.load.sent), f"{len(scene.load.sent)} written, {typed} are there"),
        (report.out_of_order, f"out of order {report.out_of_order}"),
        (case.bystanders and not during, "no bystander's message was committed during the fault"),
        (wrong, f"{wrong} deliveries spent attempts or ended otherwise than done"),
        (case.poisoned and not dead, "nothing was poisoned"),
        (case.repeated and not any(report.repeats.values()), "the fault met nothing in flight"),
    ):
        if bad:
            report.problems.append(problem)
    for slow, problem in (
        (report.recovery > case.recovers, f"recovery took {report.recovery:.1f} s ({which})"),
        (
            report.bystanders and report.bystanders > max(case.bystanders.values()),
            f"bystanders waited {report.bystanders} s",
        ),
    ):
        if slow:
            report.slow.append(problem)
    report.problems += _repeats(scene, case)
    for worker in scene.started:
        text = worker.log.read_text()
        if "Traceback" in text or TEXT in text:
            report.problems.append(f"{worker.log.name} has a traceback or chat text")


def _bystander(scene: Scene, row: dict[str, Any]) -> bool:
    """Return True if a message was committed during a fault that does not affect its session."""
    return scene.broken_at <= row["at"] <= scene.over_at and row["session"] not in scene.affected


def _ended_well(case: Case, delivery: dict[str, Any]) -> bool:
    """Return True if done without attempts, or if dead after all attempts for a poisoned message."""
    limit = int(case.env.get("GRE_MAX_ATTEMPTS", "5"))
    poison = case.poisoned and delivery["message"].startswith(MARK)
    if delivery["state"] == "dead":
        return poison and bool(delivery["attempts"] == limit)
    return bool(delivery["state"] == "done" and delivery["attempts"] <= (limit - 1 if poison else 0))


def _repeats(scene: Scene, case: Case) -> list[str]:
    """Return the problems of the repeats: only messages in flight at a fault may be repeated."""
    problems = []
    for sink in SINKS:
        repeats = scene.watch.seen[sink].repeats
        begin, end = scene.broken_at - MARGIN, scene.over_at + MARGIN
        strays = [first for _, first, _ in repeats if not begin <= first <= end]
        if repeats and sink not in case.repeats:
            problems.append(f"{len(repeats)} repeats at {sink}")
        elif strays:
            problems.append(f"{len(strays)} repeats at {sink} of messages that were not in flight")
    return problems
