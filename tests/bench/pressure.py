"""A sink that bears less than a worker could send: how hard it is pushed, and how much of what it bears is used."""

from __future__ import annotations

from tests.bench.lab import BRIDGE, Lab, percentile
from tests.bench.parts import DISTANCE, Say, drain_once
from tests.bench.report import Section

FORMER = {"GRE_PUSHER_CONCURRENCY": "8"}
"""Requests in flight before they followed the sink."""
BEARS = 200
"""Requests a second. With answers that take DISTANCE, ten in flight use all of it."""


def pressure(lab: Lab, say: Say, waiting: int) -> Section:
    """Drain a backlog into a sink that bears everything, one that answers slower when pushed, and one that refuses then."""
    rows = []
    for name, settings, capacity in (
        ("bears everything; 8 requests in flight, as before", FORMER, None),
        ("bears everything", None, None),
        (
            f"bears {BEARS} requests a second, answers later above",
            None,
            {"per_second": BEARS, "refuses": False},
        ),
        (f"bears {BEARS} requests a second, answers 429 above", None, {"per_second": BEARS, "refuses": True}),
    ):
        say(f"pressure: {waiting} messages, a sink {DISTANCE * 1000:g} ms away that {name}")
        one = drain_once(lab, BRIDGE, 1, waiting, distance=DISTANCE, capacity=capacity, settings=settings)
        state = lab.state()
        requests = state["requests"]["pusher"]
        # The backlog's last requests are not of interest: there is no more to send.
        beside = state["beside"][: len(state["beside"]) * 9 // 10]
        accepted = len({item[4] for item in state["items"] if item[5] == 200})
        refused = len({item[4] for item in state["items"] if item[5] == 429})
        rows.append(
            [
                name,
                f"{one.rate:.0f}",
                f"{accepted / one.seconds:.0f}",
                f"{refused / max(requests, 1):.1%}",
                f"{percentile(beside, 0.5)}",
                f"{max(beside)}",
                str(one.wrong),
                str(one.repeats),
                "stopped" if one.lost is None else str(one.lost),
                f"{one.steal * 100:.0f}",
            ]
        )
    return Section(
        "A sink that bears less",
        [
            "sink",
            "events/s",
            "accepted requests/s",
            "refused",
            "in flight p50",
            "in flight max",
            "out of order",
            "repeats",
            "lost",
            "steal %",
        ],
        rows,
        f"{waiting:,} pending messages of 500 sessions, one worker, default settings if not said otherwise, answers after {DISTANCE * 1000:g} ms. A sink that bears"
        f" {BEARS} requests a second is used fully by {BEARS * DISTANCE:g} requests in flight; what is more than that waits there, or is refused.",
    )
