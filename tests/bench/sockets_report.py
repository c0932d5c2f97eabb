"""The sections about sockets."""

from __future__ import annotations

from tests.bench.lab import percentile
from tests.bench.report import Section
from tests.bench.sockets import QUICK, Load, Say, Size, Stormed, measure
from tests.support.stack import StackProcess

BOUNDS = {"store": 50.0, "receipt": 100.0}
"""A tenth of the former system's bounds, in milliseconds."""


def sockets(stack: StackProcess, say: Say, *, quick: bool) -> list[Section]:
    """Measure, and return the sections."""
    size = QUICK if quick else Size()
    load, storms = measure(stack, say, size)
    return [_load_section(load, size), _storm_section(storms, size)]


def _load_section(load: Load, size: Size) -> Section:
    def at(values: list[float]) -> str:
        return f"{percentile(values, 0.5):.1f} / {percentile(values, 0.99):.1f}"

    empty, idle, after = load.rss
    others = load.frames - load.deliveries - load.messages
    rows = [
        ["open and authenticate, 100 at a time, ms, p50 / p99", at([took * 1000 for took in load.opened])],
        ["send → acknowledgement, ms, p50 / p99", at(load.store)],
        ["commit → frame at a reader, ms, p50 / p99", at(load.receipt)],
        ["send → frame at a reader, ms, p50 / p99", at(load.sent_to_receipt)],
        ["messages; frames of them; other frames", f"{load.messages:,}; {load.deliveries:,}; {others:,}"],
        ["lost; out of order; repeats", f"{load.loss.lost}; {load.loss.out_of_order}; {load.loss.repeats}"],
        ["CPU of the API, µs for each frame", f"{load.cpu / max(load.frames, 1) * 1e6:.1f}"],
        ["CPU of the API, share of a core", f"{load.cpu / size.seconds:.0%}"],
        ["CPU of the API with idle sockets, share of a core", f"{load.idle_cpu:.1%}"],
        ["memory of the API: empty, with idle sockets, afterwards", f"{empty / 1e6:.0f}, {idle / 1e6:.0f}, {after / 1e6:.0f} MB"],
        ["memory for each idle socket", f"{(idle - empty) / load.sockets / 1000:.1f} KB"],
        ["steal", f"{load.steal:.0%}"],
    ]  # fmt: skip
    return Section(
        f"{load.sockets:,} sockets: {size.staff} staff, {size.players:,} players, {size.rate:g} messages a second",
        ["", "value"],
        rows,
        f"One instance. Half of the messages are from players, half from staff, in {size.talking} sessions, for {size.seconds:g} s; each reaches"
        f" all staff and the player. The goal for the acknowledgement is {BOUNDS['store']:g} ms at p99, for the reader {BOUNDS['receipt']:g} ms: a"
        " tenth of the former system's bounds. The clients take a part of the same cores.",
    )


def _storm_section(storms: list[Stormed], size: Size) -> Section:
    rows = []
    for found in storms:
        back = found.back
        reached = [
            f"{back[max(0, int(found.sockets * share) - 1)]:.1f}"
            if len(back) >= int(found.sockets * share)
            else "never"
            for share in (0.5, 0.9, 1.0)
        ]
        closes = found.closes
        refused = sum(count for code, count in closes.items() if code in ("http 429", "http 503"))
        rows.append(
            [found.storm.name, *reached, f"{found.complete:.1f}", str(refused), str(closes.get("4429", 0)), str(closes.get("1013", 0)),
             f"{found.cpu:.1f}", f"{percentile(found.relay, 0.5):.1f}", f"{percentile(found.relay, 0.99):.1f}",
             f"{found.loss.lost}; {found.loss.out_of_order}; {found.loss.repeats}", f"{found.steal * 100:.0f}"]
        )  # fmt: skip
    return Section(
        "Storms: all sockets come back at once",
        ["storm", "50 % back, s", "90 %", "100 %", "nothing missing, s", "refused (429, 503)", "closed 4429", "closed 1013", "CPU of the API, s",
         "relay p50 ms", "p99", "lost; out of order; repeats", "steal %"],
        rows,
        f"Pages pause as documented before they reconnect (0.5 s first, doubled), with and without jitter. {size.storm_rate:g} messages a second are"
        " written meanwhile; the relay's times are from commit to Pusher. Each page has an address of its own, which a trusted proxy forwards,"
        " unless the storm says otherwise.",
    )  # fmt: skip
