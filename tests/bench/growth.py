"""Growth: what each call costs with ten million messages behind it, beside a desk without a history."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.bench.growth_cost import SAMPLES, vacuum, vacuum_section, writing, writing_section
from tests.bench.growth_sides import Say, Side, databases
from tests.bench.lab import percentile
from tests.bench.report import Section
from tests.support.access import ADMIN, SERVICE, WORKER, player, staff
from tests.support.grown import KEEP, PER_SESSION, PLAYERS, Size

MESSAGES = 10_000_000
ROUNDS, COUNTED = 40, 5
"""How often each call is timed on each side; and how often its reads are counted afterwards."""
LANES = 20
"""Lanes of one claim, and sessions that a page knows."""
CAUGHT_UP = 200
"""Sessions of which a page that catches up reads what it has missed, about four messages of each."""
FEW = 1_000
"""Rows that a call may read in sequential scans: those of settings, staff and sinks are fewer."""


def nothing(side: Side) -> None:
    """Prepare nothing."""


def _write(side: Side) -> None:
    """Settle what was claimed, and write a message into each of LANES sessions."""
    if side.claimed:
        _settle(side)
    side.admin.execute(
        "insert into gre_chat_messages (player_id, sender, message) select unnest(%s::bigint[]), 'player', 'waits'",
        [[side.next() for _ in range(LANES)]],
    )


def _claim(side: Side, sink: str = "pusher", lanes: int = LANES) -> float:
    token = str(uuid.uuid4())
    query = "select gre_relay_claim_v1(%s, %s, %s, 10, 30, %s) as c"
    took, found = side.time(WORKER, query, [sink, token, lanes, side.worker])
    side.claimed = [
        {"lane": lane["lane_key"], "token": token, "done": [one["id"] for one in lane["deliveries"]]}
        for lane in found["lanes"]
    ]
    return took


def _settle(side: Side, sink: str = "pusher") -> float:
    assert side.claimed
    took, found = side.call(WORKER, "gre_relay_settle_v1", sink=sink, results=side.claimed)
    assert found["busy"] == []
    side.claimed = []
    return took


def drained(side: Side) -> None:
    """Settle all that is pending, so that a claim finds what is written for it."""
    for sink in ("pusher", "onesignal"):
        _claim(side, sink, 500)
        while side.claimed:
            _settle(side, sink)
            _claim(side, sink, 500)


def _claimed(side: Side) -> None:
    _write(side)
    _claim(side)
    assert len(side.claimed) == LANES


def _send(sender: str) -> Callable[[Side], float]:
    def act(side: Side) -> float:
        number = side.next()
        query = "insert into gre_chat_messages (player_id, sender, message) values (%s, %s, 'what is written now') returning id"
        return side.time(player(number) if sender == "player" else staff(), query, [number, sender])[0]

    return act


def _mark(side: Side) -> float:
    session = uuid.UUID(side.sessions[side.next() - 1])
    return side.call(staff(), "gre_mark_read", session_id=session, up_to_seq=10**9)[0]


def _history(side: Side) -> float:
    number = side.next()
    took, found = side.call(
        player(number), "gre_chat_history", session_id=uuid.UUID(side.sessions[number - 1]), limit=50
    )
    assert len(found["messages"]) >= 19
    return took


def _deep(side: Side) -> float:
    took, found = side.call(staff(), "gre_chat_history", session_id=side.deep, before_seq=2500, limit=50)
    assert len(found["messages"]) == 50
    return took


def _catch_up(side: Side) -> float:
    since = dict.fromkeys(side.sessions[:LANES], 15)
    took, found = side.call(staff(), "gre_catch_up", since=since)
    # All open sessions were written to since those that the page knows: the answer has the latest 200 of them.
    assert len(found["sessions"]) >= min(CAUGHT_UP, side.size.open)
    assert len(found["missed"]) > 3 * len(found["sessions"])
    return took


def _listed(function: str, **arguments: Any) -> Callable[[Side], float]:
    def act(side: Side) -> float:
        took, found = side.call(staff(), function, limit=50, **arguments)
        assert len(found["sessions"]) == 50
        return took

    return act


def _search(query: str, wanted: int) -> Callable[[Side], float]:
    def act(side: Side) -> float:
        took, found = side.call(staff(), "gre_search_messages", query=query)
        assert len(found["messages"]) == wanted
        return took

    return act


def _report(ago: timedelta, by: str, filled: int) -> Callable[[Side], float]:
    def act(side: Side) -> float:
        end = side.since + timedelta(hours=1)
        took, found = side.call(staff(), "gre_report", **{"from": end - ago, "to": end}, by=by)
        assert sum(row["messages"]["player"] > 0 for row in found["rows"]) >= filled
        return took

    return act


def _changes(side: Side) -> float:
    """Read as a hub does: two messages in each of LANES sessions that were named, knowing those of all others."""
    known = {one: [17, 20] if place < LANES else [10**9, 10**9] for place, one in enumerate(side.sessions)}
    named = [uuid.UUID(one) for one in side.sessions[:LANES]]
    took, found = side.call(
        WORKER, "gre_hub_changes_v1", positions=known, sessions=named, since=side.since, limit=2
    )
    assert len(found["sessions"]) == LANES
    return took


def _prune(limit: int, what: str, **arguments: str) -> Callable[[Side], float]:
    def act(side: Side) -> float:
        took, found = side.call(SERVICE, "gre_relay_prune", keep=KEEP, limit=limit, **arguments)
        assert found[what] == limit, found
        return took

    return act


def _erase(side: Side) -> float:
    took, found = side.call(
        ADMIN, "gre_erase_player", player_id=PLAYERS["aged"] + side.size.aged - side.erased
    )
    assert (found["messages"] > 0, found["pushes"]) == (True, 1)
    side.erased += 1
    return took


CALLS: dict[str, tuple[Callable[[Side], None], Callable[[Side], float]]] = {
    "player's message": (nothing, _send("player")),
    "staff's message": (nothing, _send("staff")),
    f"claim of {LANES} lanes": (_write, _claim),
    f"settle of {LANES} lanes": (_claimed, _settle),
    "mark as read": (_write, _mark),
    "history, first page": (nothing, _history),
    "history, page 50 of 100": (nothing, _deep),
    f"catch up, {CAUGHT_UP} sessions": (nothing, _catch_up),
    "list of sessions": (nothing, _listed("gre_list_sessions")),
    "queue": (nothing, _listed("gre_session_queue")),
    "queue of closed sessions": (nothing, _listed("gre_session_queue", status="closed")),
    "search, a frequent word": (nothing, _search("frequent", 50)),
    "search, a rare word": (nothing, _search("rarely", 20)),
    "search, an absent word": (nothing, _search("absent", 0)),
    "report of today by hour": (nothing, _report(timedelta(hours=20), "hour", 1)),
    "changes for the hub": (nothing, _changes),
    "prune, 200 deliveries": (nothing, _prune(200, "deliveries")),
    "prune, 5 sessions": (nothing, _prune(5, "sessions", retention="730 days")),
    "erase a player": (nothing, _erase),
    "report of a year by day": (nothing, _report(timedelta(days=364), "day", 364)),
}
"""What is prepared, and what is timed. All answer with as many rows on either side."""


NOTES = (
    "Both databases have 500 open sessions, one session of ten messages on each day of the last year, one of 5,000 messages, and 400 old sessions"
    " to prune and erase; the full one has sessions of 50 messages of the last year, too, with their figures, events and marks, and the outbox"
    " as a daily prune leaves it. All calls answer with as many rows on either side, as PostgREST makes them, in turn on both. CPU is that of the"
    " server's process; other programs hardly change it. Rows and blocks are those of one call, found by indexes or scanned. Scanned: tables of"
    " which a call has read more than 1,000 rows without an index."
)


@dataclass
class Cost:
    """The cost of a call on one side: milliseconds, also of CPU; rows and blocks read by one call; tables scanned sequentially."""

    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rows: float = 0.0
    blocks: float = 0.0
    scanned: list[str] = field(default_factory=list)


@dataclass
class Call:
    """One call on both sides."""

    name: str
    empty: Cost = field(default_factory=Cost)
    full: Cost = field(default_factory=Cost)

    @property
    def ratio(self) -> float:
        """Median of the CPU time with the history ÷ median without it."""
        return percentile(self.full.cpu, 0.5) / percentile(self.empty.cpu, 0.5)


def calls(sides: tuple[Side, Side], say: Say, rounds: int) -> list[Call]:
    """Time each call on the empty side and on the full one, in turn; then count what it reads."""
    found = [Call(name) for name in CALLS]
    for call in found:
        say(f"growth: {call.name}")
        prepare, act = CALLS[call.name]
        costs = list(zip(sides, (call.empty, call.full), strict=True))
        for side in sides:
            drained(side)
            for _ in range(7):  # from the sixth time on, PostgreSQL may choose a plan for any arguments
                prepare(side)
                act(side)
        for turn in range(rounds):
            for side, cost in costs if turn % 2 else reversed(costs):
                prepare(side)
                cost.times.append(act(side))
                cost.cpu.append(side.cpu)
        for side, cost in costs:
            _count(side, prepare, act, cost)
    return found


def _count(side: Side, prepare: Callable[[Side], None], act: Callable[[Side], float], cost: Cost) -> None:
    scanned: dict[str, int] = {}
    for _ in range(COUNTED):
        prepare(side)
        before = side.reads()
        act(side)
        for table, now in side.reads().items():
            rows, found, blocks = (a - b for a, b in zip(now, before.get(table, (0, 0, 0)), strict=True))
            cost.rows += (rows + found) / COUNTED
            cost.blocks += blocks / COUNTED
            scanned[table] = max(scanned.get(table, 0), rows)
    cost.scanned = [table for table, rows in scanned.items() if rows > FEW]


def calls_section(found: list[Call], messages: int) -> Section:
    """Return the table of calls."""
    rows = []
    for call in found:
        sides = (call.empty, call.full)
        rows.append(
            [
                call.name,
                *(f"{percentile(cost.times, share):.1f}" for cost in sides for share in (0.5, 0.9)),
                *(f"{percentile(cost.cpu, 0.5):.1f}" for cost in sides),
                f"{call.ratio:.2f}",
                *(f"{cost.rows:.0f}" for cost in sides),
                *(f"{cost.blocks:.0f}" for cost in sides),
                ", ".join(call.full.scanned) or "none",
            ]
        )
    return Section(
        f"With {messages:,} messages behind it",
        ["call", "p50 ms, empty", "p90", "p50 ms, full", "p90", "CPU ms, empty", "full", "CPU, full ÷ empty", "rows read, empty", "full", "blocks read, empty", "full",
         "scanned tables"],
        rows,
        NOTES,
    )  # fmt: skip


def growth(say: Say, messages: int = MESSAGES, rounds: int = ROUNDS) -> list[Section]:
    """Measure calls, messages and vacuum with so many messages behind them, and calls without them, too."""
    size = Size(messages // PER_SESSION)
    with databases(size, say) as sides:
        return measured(sides, say, rounds)


def measured(sides: tuple[Side, Side], say: Say, rounds: int) -> list[Section]:
    """Measure two databases that are there."""
    full = sides[1]
    found = calls(sides, say, rounds)
    costs = writing(full.watch, full.size.open, say, min(rounds, SAMPLES))
    new = max(400, full.size.messages // 500)
    tables = vacuum(full.watch, new, full.size.open, say)
    return [
        calls_section(found, full.size.messages),
        writing_section(costs),
        vacuum_section(tables, new, full.size.messages),
    ]
