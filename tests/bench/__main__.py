"""`make bench`: the relay and its alternatives, measured in one run on one machine.

Absolute times depend on the machine; the ratios are the result. A whole run takes about three quarters of an hour (longer where the
machine's host takes part of its CPU), a third of it for the part growth, which fills 8 GB of disk. It writes docs/benchmark.md and
docs/benchmark.png. `--only` and `--quick` print and write nothing, but for `scale`, whose tables are in docs/scaling.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tests.bench import parts, report, scale, scale_report
from tests.bench.direct import direct
from tests.bench.files import files
from tests.bench.growth import MESSAGES, growth
from tests.bench.lab import Lab, Steal
from tests.bench.limits import limits
from tests.bench.portals import portals
from tests.bench.pressure import pressure
from tests.bench.reports import reports
from tests.bench.sockets_report import sockets
from tests.support.stack import StackProcess

PARTS = (
    "latency",
    "drain",
    "pressure",
    "fault",
    "cost",
    "portals",
    "sockets",
    "files",
    "reports",
    "limits",
    "scale",
    "growth",
)
TRIALS = ("direct",)
"""What is measured only if it is asked for: designs that were not taken."""


def main() -> None:
    """Measure, print the tables, and write the page if everything was measured."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*PARTS, *TRIALS),
        default=PARTS,
        help="parts to measure (default: all but trials)",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages, to see that it works")
    parser.add_argument(
        "--messages",
        type=int,
        default=MESSAGES,
        help=f"messages behind the calls of growth (default: {MESSAGES:,}, 8 GB of disk)",
    )
    given = parser.parse_args()
    console = Console(width=150)
    began, load, steal = time.monotonic(), os.getloadavg()[0], Steal()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.0f} s  {text}[/dim]")

    sections: list[report.Section] = []

    def show(section: report.Section) -> None:
        sections.append(section)
        console.print(section.rich())

    with (
        tempfile.TemporaryDirectory(prefix="gre-bench-") as directory,
        StackProcess(Path(directory)) as stack,
    ):
        with Lab(stack) as lab:
            latencies, drains = _in_lab(stack, lab, say, show, given)
            if "scale" in given.only:
                costs, tables = scale_report.scale(
                    stack, lab, say, scale.QUICK if given.quick else scale.WHOLE
                )
                for table in tables:
                    console.print(table.rich())
                if not given.quick:
                    scale_report.write(costs, tables)
        _beside(stack, say, show, given)
    if set(given.only) == set(PARTS) and not given.quick:
        picture = report.draw(latencies, drains)
        page = report.write(sections, "make bench", load, steal.share(), plot=True)
        console.print(f"wrote {page.relative_to(Path.cwd())} and {picture.relative_to(Path.cwd())}")


def _in_lab(
    stack: StackProcess,
    lab: Lab,
    say: parts.Say,
    show: Callable[[report.Section], None],
    given: argparse.Namespace,
) -> tuple[list[parts.Latency], list[parts.Drain]]:
    """Measure what needs the lab, and show it."""
    rates = {rate: max(10, count // (10 if given.quick else 1)) for rate, count in parts.RATES.items()}
    waiting = parts.WAITING // (10 if given.quick else 1)
    backlogs = (1_000, 10_000) if given.quick else (1_000, 10_000, 100_000)
    behind = (0, 100_000) if given.quick else (0, 100_000, 1_000_000)
    latencies: list[parts.Latency] = []
    drains: list[parts.Drain] = []
    if "latency" in given.only:
        show(report.latency_section(latencies := parts.latency(lab, say, rates)))
    if "drain" in given.only:
        show(report.drain_section(drains := parts.drain(lab, say, waiting)))
    if "pressure" in given.only:
        show(pressure(lab, say, waiting))
    if "fault" in given.only:
        show(report.fault_section(parts.fault(lab, say)))
    if "cost" in given.only:
        show(report.cost_section(parts.cost(lab, say, backlogs, behind)))
    if "files" in given.only:
        for section in files(stack, lab, say, quick=given.quick):
            show(section)
    if "direct" in given.only:
        for section in direct(lab, say, quick=given.quick):
            show(section)
    lab.fresh(sinks=("pusher", "onesignal"))
    return latencies, drains


def _beside(
    stack: StackProcess, say: parts.Say, show: Callable[[report.Section], None], given: argparse.Namespace
) -> None:
    """Measure what needs the stack or a database, but not the lab, and show it."""
    if "portals" in given.only:
        show(portals(stack, say))
    if "sockets" in given.only:
        for section in sockets(stack, say, quick=given.quick):
            show(section)
    if "reports" in given.only:
        show(reports(say, 13_000 if given.quick else 130_000))
    if "limits" in given.only:
        show(limits(stack, say, 6.0 if given.quick else 60.0))
    if "growth" in given.only:
        for section in growth(say, given.messages // (100 if given.quick else 1)):
            show(section)


if __name__ == "__main__":
    main()
