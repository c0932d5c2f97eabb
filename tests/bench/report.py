"""The report: tables for the terminal, docs/benchmark.md and the plot beside it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from rich.table import Table

from tests.bench.lab import BRIDGE, QUIET, ROOT, ROUNDS
from tests.bench.parts import Cost, Drain, Fault, Latency

Row = list[str]


class Section:
    """One table, with its text."""

    def __init__(self, title: str, columns: Row, rows: list[Row], *notes: str) -> None:
        self.title = title
        self.columns = columns
        self.rows = rows
        self.notes = notes

    def rich(self) -> Table:
        """Return the table for the terminal."""
        table = Table(title=self.title, caption=" ".join(self.notes) or None)
        for n, column in enumerate(self.columns):
            table.add_column(column, justify="right" if n else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return the table for the page."""
        head = [f"## {self.title}", "", *(f"{note}\n" for note in self.notes)]
        lines = [
            f"| {' | '.join(row)} |"
            for row in (self.columns, [":--", *["--:"] * (len(self.columns) - 1)], *self.rows)
        ]
        return "\n".join([*head, *lines, ""])


def latency_section(found: list[Latency]) -> Section:
    """Return the section about latencies, with the steps of gre-bridge, and ratios to the floor and the obvious design."""
    floors = {(f.rate, f.distance): f for f in found if f.design == "floor"}
    rows = []
    for f in found:
        floor = floors.get((f.rate, f.distance))
        hops = " + ".join(f"{hop:.1f}" for hop in f.hops) if f.hops else ""
        ratios = [f"{f.at(share) / floor.at(share):.1f}" if floor else "" for share in (0.5, 0.99)]
        rows.append(
            [
                _name(f),
                f"{f.rate:g}",
                *(f"{f.at(s):.1f}" for s in (0.5, 0.9, 0.99)),
                f"{f.at(1):.1f}",
                *ratios,
                hops,
                str(f.lost),
                f"{f.steal * 100:.0f}",
            ]
        )
    return Section(
        "Latency",
        [
            "design",
            "messages/s",
            "p50 ms",
            "p90",
            "p99",
            "max",
            "p50 ÷ floor",
            "p99 ÷ floor",
            "wake-up + claim + send",
            "lost",
            "steal %",
        ],
        rows,
        "The times are milliseconds from the commit of the insert to the arrival of the HTTP request at the sink, with 100 sessions.",
        "The floor is one wake-up, one RPC and one POST for each message. It does nothing else and stores nothing, and Realtime's limit of 100 events a second,"
        " which holds for all others, is lifted for it: it would lose most messages above that. The column wake-up + claim + send has the"
        " medians of three steps: from the commit to the request of the claim, to its answer, to the arrival at the sink.",
        "obvious is a postgres_changes callback that calls Pusher and OneSignal; procrastinate and pgqueuer are job queues, filled by a trigger.",
        "The job queues have their own connections to PostgreSQL and send to Pusher only. gre-bridge uses PostgREST and Realtime, as its"
        " environment requires, and sends to both sinks.",
        "Lost is what had not arrived 60 s after the last insert, or when nothing had arrived for 6 s: a design that is too slow loses nothing, but is"
        " stopped there, and started anew for the next load.",
    )


def drain_section(found: list[Drain]) -> Section:
    """Return the section about drains."""
    rows = [
        [_name(f), str(f.workers), str(f.sent), f"{f.rate:.0f}", str(f.wrong), str(f.repeats),
         "stopped" if f.lost is None else str(f.lost), f"{f.pusher / max(f.sent, 1):.3f}",
         "" if f.supabase is None else f"{f.supabase / max(f.sent, 1):.4f}", f"{f.cpu / max(f.sent, 1) * 1000:.2f}",
         f"{f.memory / 1e6:.0f}", f"{f.steal * 100:.0f}"]
        for f in found
    ]  # fmt: skip
    return Section(
        "Throughput and order",
        ["design", "workers", "events", "events/s", "out of order", "repeats", "lost", "Pusher requests/event", "Supabase requests/event",
         "CPU s/1,000 events", "memory MB", "steal %"],
        rows,
        "20,000 pending messages of 500 sessions are sent to Pusher. A job queue is stopped after 20 s. CPU includes the start of the"
        " process; memory is that of all workers together. One worker uses one core, and the database and the stand-ins use the other"
        " one. With a sink whose answers take 50 ms both cores have spare time, so those rows show the effect of a second worker.",
    )  # fmt: skip


def _name(f: Latency | Drain) -> str:
    return f"{f.design}, sink {f.distance * 1000:g} ms away" if f.distance else f.design


def fault_section(found: list[Fault]) -> Section:
    """Return the section about the fault."""
    rows = [
        [
            f.design,
            str(f.count),
            str(f.lost),
            str(f.wrong),
            str(f.repeats),
            f"{f.p50:.0f}",
            f"{f.p99:.0f}",
            f"{f.steal * 100:.0f}",
        ]
        for f in found
    ]
    return Section(
        "Fault", ["design", "messages", "lost", "out of order", "repeats", "p50 ms", "p99 ms", "steal %"], rows,
        "The sink answers 500 for 3 s while 50 messages a second are written.",
    )  # fmt: skip


def cost_section(found: Cost) -> Section:
    """Return the section about cost and growth."""
    rows = []
    for n, drain in found.drains.items():
        rows.append([f"largest resident memory while draining {n:,}", f"{drain.memory / 1e6:.0f} MB"])
        rows.append([f"rate of the last quarter ÷ rate of the first, draining {n:,}", f"{drain.ending:.2f}"])
    rows += [
        [f"claim of 1,000 rows, with {n:,} settled rows in the table", f"{ms:.1f} ms"]
        for n, ms in found.claims.items()
    ]
    rows.append(["CPU of an idle worker", f"{found.idle * 100:.2f} % of a core"])
    return Section("Cost and growth", ["", "value"], rows)


def write(sections: list[Section], command: str, load: float, steal: float, plot: bool) -> Path:
    """Write docs/benchmark.md; return its path."""
    path = ROOT / "docs" / "benchmark.md"
    picture = (
        f"![Latency and throughput](benchmark.png)\n\nThe plot shows the same run (`{command}`).\n"
        if plot
        else ""
    )
    path.write_text(
        f"""# Benchmark

`{command}` writes this page. One machine ran everything: PostgreSQL, the stand-ins for PostgREST and Realtime, the sink, the writers and the
measured programs ({os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}). Absolute times depend on the machine and on its other load (load average
before the run: {load:.1f}). The ratios are the result.

Steal is the share of the CPU time that the machine's host used for other guests: {steal * 100:.0f} % over the whole run. A measurement with more than
{QUIET * 100:g} % was repeated, up to {ROUNDS} times in all. The row shows the round with the least steal, whatever its result. For lost, repeated and
out-of-order messages it shows the largest count of all rounds.

{picture}
"""
        + "\n".join(section.markdown() for section in sections),
        encoding="utf-8",
    )
    return path


def draw(latencies: list[Latency], drains: list[Drain]) -> Path:
    """Draw docs/benchmark.png; return its path."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.2), constrained_layout=True)
    for design in dict.fromkeys(f.design for f in latencies):
        points = sorted(
            (f.rate, f.at(0.5), f.at(0.99)) for f in latencies if f.design == design and not f.distance
        )
        rates, middle, worst = zip(*points, strict=True)
        (line,) = left.plot(
            rates, middle, marker="o", label=design, linewidth=2.5 if design == BRIDGE else 1.2
        )
        left.plot(rates, worst, marker=".", linestyle=":", color=line.get_color(), linewidth=1)
    left.set(
        xscale="log",
        yscale="log",
        xlabel="messages a second",
        ylabel="ms",
        title="Commit → sink: p50 (dotted: p99)",
    )
    left.grid(visible=True, which="both", alpha=0.2)
    left.legend(fontsize=8)
    names = [
        f"{f.design}\n{f.workers} worker{'s' if f.workers > 1 else ''}"
        + (f"\nsink {f.distance * 1000:g} ms\naway" if f.distance else "")
        for f in drains
    ]
    bars = right.bar(names, [f.rate for f in drains])
    right.bar_label(
        bars, [f"{f.rate:.0f}" + (f"\n{f.wrong} out of order" if f.wrong else "") for f in drains], fontsize=8
    )
    right.set(title="Draining 20,000 messages of 500 sessions", ylabel="events a second")
    right.tick_params(axis="x", labelsize=6.5)
    right.margins(y=0.15)
    path = ROOT / "docs" / "benchmark.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
