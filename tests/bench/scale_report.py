"""The tables of `scale`: for the terminal, and between two marks of docs/scaling.md."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.bench.costs import Costs
from tests.bench.lab import Lab, Steal
from tests.bench.report import ROOT, Section
from tests.bench.scale import DISTANCE, RATE, Run, costs_of, measure, predicted
from tests.bench.scale_calls import Calls, Size
from tests.bench.scene import Found, Scene
from tests.bench.simulation import simulate
from tests.support.stack import StackProcess

Say = Callable[[str], None]
PAGE = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
LOADS = ((2, 2, 100.0), (4, 2, 200.0), (8, 2, 400.0), (16, 2, 800.0), (16, 5, 800.0), (16, 20, 800.0))
"""Cores of the database, workers, messages a second."""
SHARE = 0.5
"""Of the database's cores, for the chat; the rest is for the project's own queries, vacuum, backups and peaks."""
SIZES = (
    ("Micro, Small, Medium", 2, "2, shared", "1, 2, 4"),
    ("Large", 2, "2, dedicated", "8"),
    ("XL", 4, "4", "16"),
    ("2XL", 8, "8", "32"),
    ("4XL", 16, "16", "64"),
    ("8XL", 32, "32", "128"),
    ("16XL", 64, "64", "256"),
)
"""Supabase's compute sizes (its page "Compute and Disk"): name, cores, cores and memory as text."""


def scale(stack: StackProcess, lab: Lab, say: Say, size: Size) -> tuple[Costs, list[Section]]:
    """Measure and simulate everything."""
    steal = Steal()
    calls, paced, near, runs = measure(stack, lab, say, size)
    costs, share = costs_of(calls, paced, near), steal.share()
    say("scale: the same runs, simulated")
    found = [(run, predicted(run, costs)) for run in runs]
    return costs, [
        cost_section(calls, paced, near),
        prediction_section(found, share),
        *large_sections(size, costs, say),
    ]


def cost_section(calls: Calls, paced: Run, backlog: Run) -> Section:
    """Return the section about one message."""

    def row(name: str, cpu: float, wal: float, *others: str) -> list[str]:
        return [name, f"{cpu * 1000:.2f}", f"{wal:.0f}", *(others or ("", "", ""))]

    def run(name: str, found: Run) -> list[str]:
        each = (found.calls, (found.cpu * 1000), (found.stand_in * 1000))
        return row(
            name,
            found.postgres / found.events,
            found.wal / found.events,
            *(f"{x / found.events:.2f}" for x in each),
        )

    return Section(
        "Cost of one message",
        ["", "PostgreSQL, CPU ms", "WAL, bytes", "HTTP calls to Supabase", "worker, CPU ms", "stand-in of PostgREST, CPU ms"],
        [
            row("insert, one sink", calls.insert, calls.insert_wal),
            row("insert, two sinks", calls.insert_two, calls.insert_two_wal),
            row("claim that finds nothing", calls.claim.fixed, 0),
            row("claim of one message", calls.claim.of(1), calls.claim_wal),
            row("settle of one message", calls.settle.of(1), calls.settle_wal),
            row("claim and settle, a message of a thousand", calls.claim.each + calls.settle.each, calls.batch_wal),
            run(f"whole: {RATE:g} messages a second, insert included", paced),
            run("whole: an event of a backlog, without its insert", backlog),
        ],
        "One sink, if not said otherwise: a second sink adds its own claims, settles and requests. CPU of PostgreSQL is that of all its processes, also of"
        " those that read the WAL for Realtime. WAL includes full pages after a checkpoint.",
    )  # fmt: skip


def prediction_section(found: list[tuple[Run, Found]], steal: float) -> Section:
    """Return the section with prediction beside measurement."""
    rows = [
        [str(run.workers), f"{run.rate:.0f}", f"{sim.throughput:.0f}", f"{sim.throughput / run.rate:.2f}",
         f"{run.calls / run.events:.4f}", f"{sum(sim.calls.values()) / len(sim.times):.4f}",
         f"{run.requests / run.events:.3f}", f"{sim.requests / len(sim.times):.3f}", str(run.wrong), str(run.lost), f"{run.others:.1f}"]
        for run, sim in found
    ]  # fmt: skip
    return Section(
        f"Prediction and measurement: a backlog, the sink {DISTANCE * 1000:g} ms away",
        ["workers", "events/s, measured", "simulated", "simulated ÷ measured", "calls/event, measured", "simulated",
         "requests/event, measured", "simulated", "out of order", "lost", "other programs"],
        rows,
        f"{found[0][0].events} events; all workers wait when they become due. Everything runs on {os.cpu_count()} cores: workers, PostgreSQL, the stand-ins, the"
        " sink. No run with a distant sink is among the measurements from which the simulation has its costs. Other programs: how many threads of the"
        f" machine's other users ran or waited for a core, on average; the simulation has as many. Steal: {steal * 100:.0f} %.",
    )  # fmt: skip


def scenes(size: Size) -> dict[str, list[Scene]]:
    """Return the simulations with very many sessions, by title."""
    base = Scene(sessions=size.sessions, seconds=5.0, busy=0.01, spread=0.3)
    count = size.sessions
    return {
        f"{size.sessions:,} sessions, steady load (simulated)": [
            replace(base, cores=cores, workers=workers, rate=rate)
            for cores, workers, rate in LOADS
            if workers <= max(size.workers)
        ],
        f"{size.sessions:,} sessions, a backlog of {count:,} (simulated)": [
            replace(base, cores=16, workers=workers, backlog=count, busy=0.0) for workers in size.workers
        ],
    }


def large_sections(size: Size, costs: Costs, say: Say) -> list[Section]:
    """Simulate many sessions, and compute from the steady load what Supabase's compute sizes carry."""
    simulated = {
        title: [(scene, _simulated(scene, costs, say)) for scene in some]
        for title, some in scenes(size).items()
    }
    steady = [row for rows in simulated.values() for row in rows if row[0].rate and row[0].workers == 2]
    return [*(large_section(title, rows) for title, rows in simulated.items()), sizes_section(steady, costs)]


def _simulated(scene: Scene, costs: Costs, say: Say) -> Found:
    say(f"scale: simulated, {scene.workers} workers, {scene.cores} cores, {scene.rate:g} messages a second")
    began = time.monotonic()
    found = simulate(scene, costs)
    say(f"scale: {found.written} messages in {time.monotonic() - began:.0f} s")
    return found


def large_section(title: str, some: list[tuple[Scene, Found]]) -> Section:
    """Return the section about simulations with one title."""
    rows = []
    for scene, found in some:
        calls = {name: count / len(found.times) for name, count in found.calls.items()}
        busy = f"{found.at(0.99, busy=True) * 1000:.0f}" if scene.busy else ""
        rows.append(
            [str(scene.cores), str(scene.workers), f"{scene.rate:g}" if scene.rate else "", f"{found.throughput:.0f}",
             f"{found.at(0.5) * 1000:.0f}", f"{found.at(0.99, busy=False) * 1000:.0f}", busy,
             f"{sum(calls.values()):.2f}", f"{found.used * 100:.0f}", f"{found.worker * 100:.0f}", f"{found.evenness:.2f}",
             str(found.out_of_order + found.repeats + found.written - len(found.times))]
        )  # fmt: skip
    return Section(
        title,
        ["database cores", "workers", "written/s", "delivered/s", "p50 ms", "p99 ms", "p99 ms, busy sessions", "calls/message",
         "database CPU %", "busiest worker, % of a core", "fewest ÷ most of a worker", "lost, repeated or out of order"],
        rows,
        f"One sink, whose answers take {DISTANCE * 1000:g} ms on average, 35 ms at least. Under steady load one session in a hundred is busy; these write half of all messages. Inserts use the"
        " database's cores, too, and so does PostgREST, with the CPU of its stand-in."
        if some[0][0].rate
        else f"One sink, whose answers take {DISTANCE * 1000:g} ms on average, 35 ms at least.",
    )  # fmt: skip


def sizes_section(steady: list[tuple[Scene, Found]], costs: Costs) -> Section:
    """Return the section about compute sizes: half of the cores, divided by the CPU of one message.

    `steady`: simulations of two workers under steady load, by rising number of cores.
    """
    each = {scene.cores: found.used * scene.cores / found.throughput for scene, found in steady}

    def carried(cores: int, sinks: int) -> str:
        one = each.get(cores, each[max(each)])
        cost = one + (sinks - 1) * max(0.0, one - costs.insert)
        return f"{float(f'{cores * SHARE / cost:.2g}'):,.0f}"

    return Section(
        "What Supabase's compute sizes carry (computed)",
        ["size", "cores", "memory, GB", "CPU ms for one message", "messages/s, one sink", "with two sinks"],
        [
            [name, cores, memory, f"{each.get(count, each[max(each)]) * 1000:.1f}", carried(count, 1), carried(count, 2)]
            for name, count, cores, memory in SIZES
        ],
        f"{SHARE * 100:.0f} % of the cores for the chat, divided by what one message costs PostgreSQL and PostgREST in the simulation of steady load with two workers, polls"
        " included; a second sink costs again what is not the insert. The cores are taken to be as fast as those of this machine. Sizes with more cores than were simulated are extrapolated.",
    )  # fmt: skip


def write(costs: Costs, sections: list[Section]) -> Path:
    """Keep the costs, and put the tables between the marks of docs/scaling.md."""
    costs.write()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(section.markdown().replace("## ", "### ", 1) for section in sections)
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")
    return PAGE
