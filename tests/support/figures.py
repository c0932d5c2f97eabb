"""A second implementation of the figures (docs/reports.md), in Python, over the rows of an export.

It shares nothing with the SQL: it tells each session's story again from its messages and events, and counts.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]
Span = Callable[[datetime, datetime], int]
"""Seconds of open hours between two times, rounded down."""


@dataclass(frozen=True)
class Rules:
    """The settings that stories were told under; `goals` are for a first and a later question, in seconds."""

    first_reply_goal: int | None = None
    reply_goal: int | None = None
    rating_enabled: bool = False
    open_seconds: Span | None = None


@dataclass(frozen=True)
class Export:
    """The rows of `gre_export`, with times as datetimes in UTC."""

    messages: list[Row]
    events: list[Row]
    ratings: list[Row]
    assignments: list[Row]
    players: dict[str, int]
    """The player of each session, by whatever number stands for it."""


@dataclass
class Question:
    cycle: Cycle
    first: bool
    asked_at: datetime
    asked_seq: int
    answered_at: datetime | None = None
    staff_id: str | None = None


@dataclass
class Cycle:
    session: str
    number: int
    whole: bool
    """False: it had begun before gre-bridge was there."""
    opened_at: datetime
    opened_staff: str | None
    asked_at: datetime | None = None
    staff_at: datetime | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    closed_staff: str | None = None
    questions: list[Question] = field(default_factory=list)


@dataclass(frozen=True)
class Fact:
    """One thing that counts: `value` in seconds (or a score), `open_value` in seconds of open hours."""

    metric: str
    at: datetime
    who: str | None
    session: str
    cycle: int | None = None
    value: float | None = None
    open_value: float | None = None
    met: bool | None = None
    player: int | None = None


class _Story:
    """What is known of a session between two of its steps."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.cycle: Cycle | None = None
        self.question: Question | None = None
        self.staff: str | None = None
        self.waits = False  # also for what was asked before the story begins
        self.cycles: list[Cycle] = []

    def message(self, step: Row) -> None:
        at, cycle = step["created_at"], self.cycle
        if step["sender"] == "player":
            if cycle is not None:
                cycle.asked_at = cycle.asked_at or at
                if not self.waits:
                    first = cycle.whole and cycle.staff_at is None and not cycle.questions
                    self.question = Question(cycle, first, at, step["seq"])
                    cycle.questions.append(self.question)
            self.waits = True
        elif step["sender"] == "staff":
            self.waits = False
            if cycle is not None:
                cycle.staff_at = cycle.staff_at or at
            if self.question is not None:
                self.question.answered_at, self.question.staff_id = at, step["sender_id"]
                self.question = None

    def event(self, step: Row) -> None:
        kind, data = step["kind"], step["data"]
        if kind == "opened":
            self.staff = step["staff_id"]
            if data.get("status") != "closed":
                self._begin(step, data.get("cycle", 1), whole=not data.get("adopted", False))
        elif kind == "reopened":
            self._begin(step, data["cycle"], whole=True)
        elif kind in ("assigned", "transferred"):
            self.staff = step["staff_id"]
        elif kind == "released":
            self.staff = None
        elif kind == "closed":
            self._close(step)

    def _begin(self, step: Row, number: int, *, whole: bool) -> None:
        self.cycle = Cycle(self.session, number, whole, step["at"], self.staff)
        self.cycles.append(self.cycle)

    def _close(self, step: Row) -> None:
        if self.cycle is not None:
            self.cycle.closed_at, self.cycle.closed_by = step["at"], step["data"]["by"]
            self.cycle.closed_staff = self.staff
        self.cycle, self.question, self.waits = None, None, False


def stories(export: Export) -> Iterator[Cycle]:
    """Tell each session's story again, and yield its cycles."""
    steps: dict[str, list[tuple[int, int, int, Row]]] = defaultdict(list)
    for message in export.messages:
        steps[message["session_id"]].append((message["seq"], 0, 0, message))
    for event in export.events:
        steps[event["session_id"]].append((event["after_seq"], 1, event["rev"], event))
    for session, story in steps.items():
        teller = _Story(session)
        for *_, step in sorted(story, key=lambda step: step[:3]):
            if "kind" in step:
                teller.event(step)
            else:
                teller.message(step)
        yield from teller.cycles


def _quarter(at: datetime) -> datetime:
    """Return the begin of a quarter of an hour, to which messages belong."""
    return at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)


def _seconds(begin: datetime, end: datetime) -> int:
    return (end - begin) // timedelta(seconds=1)


def facts(export: Export, rules: Rules, basis: str | None = None) -> list[Fact]:
    """Return everything that counts, at the time and with the person to which it belongs."""
    span = rules.open_seconds or _seconds
    found: list[Fact] = []
    cycles = list(stories(export))
    for cycle in cycles:
        found += _cycle_facts(cycle, rules, span)
        for question in cycle.questions:
            found += _question_facts(question, rules, span, basis)
    at_close = {(cycle.session, cycle.number): cycle.closed_staff for cycle in cycles}
    for message in export.messages:
        kind = {"player": "messages_player", "staff": "messages_staff", "system": "messages_auto"}[
            message["sender"]
        ]
        who = message["sender_id"] if message["sender"] == "staff" else None
        player = export.players[message["session_id"]] if message["sender"] == "player" else None
        found.append(Fact(kind, _quarter(message["created_at"]), who, message["session_id"], player=player))
    for event in export.events:
        if event["kind"] == "transferred":
            found.append(Fact("transfers", event["at"], event["by_staff_id"], event["session_id"]))
    for row in export.assignments:
        if row["ended_at"] is not None:
            times = row["started_at"], row["ended_at"]
            found.append(
                Fact(
                    "handle",
                    row["ended_at"],
                    row["staff_id"],
                    row["session_id"],
                    None,
                    _seconds(*times),
                    span(*times),
                )
            )
    for row in export.ratings:
        who = at_close.get((row["session_id"], row["cycle"]))
        found.append(
            Fact("rating", row["rated_at"], who, row["session_id"], row["cycle"], row["score"], row["score"])
        )
    return found


def _cycle_facts(cycle: Cycle, rules: Rules, span: Span) -> Iterator[Fact]:
    if not cycle.whole:
        return
    key = cycle.session, cycle.number
    yield Fact("sessions_opened", cycle.opened_at, cycle.opened_staff, *key)
    if cycle.closed_at is None:
        return
    names = ["sessions_closed"]
    if cycle.closed_by == "idle":
        names.append("closed_idle")
    answered = [question.answered_at is not None for question in cycle.questions]
    if answered and not answered[-1]:
        names.append("dropped" if any(answered) else "missed")
    if rules.rating_enabled and cycle.asked_at and cycle.staff_at:
        names.append("rating_asked")
    for name in names:
        yield Fact(name, cycle.closed_at, cycle.closed_staff, *key)
    if cycle.asked_at and cycle.closed_by != "idle":
        times = cycle.asked_at, cycle.closed_at
        yield Fact("time_to_close", cycle.closed_at, cycle.closed_staff, *key, _seconds(*times), span(*times))


def _question_facts(question: Question, rules: Rules, span: Span, basis: str | None) -> Iterator[Fact]:
    if question.answered_at is None:
        return
    key = question.cycle.session, question.cycle.number
    times = question.asked_at, question.answered_at
    spent = _seconds(*times), span(*times)
    own = {
        "first_reply": question.asked_at,
        "reply": question.answered_at,
        "within_goal": question.answered_at,
    }
    bases = {"asked": question.asked_at, "answered": question.answered_at, "closed": question.cycle.closed_at}
    goal = rules.first_reply_goal if question.first else rules.reply_goal
    for metric, at in own.items():
        at_basis = at if basis is None else bases[basis]
        if at_basis is None or (metric == "first_reply" and not question.first):
            continue
        if metric != "within_goal":
            yield Fact(metric, at_basis, question.staff_id, *key, *spent)
        elif goal is not None:
            met = question.answered_at <= question.asked_at + timedelta(seconds=goal)
            yield Fact(metric, at_basis, question.staff_id, *key, met=met)


# Buckets


def local_instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Convert a local time as PostgreSQL does: a skipped one with the offset before, one that occurs twice as the second."""
    first = local.replace(tzinfo=zone, fold=0)
    skipped = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) != local
    return (first if skipped else local.replace(tzinfo=zone, fold=1)).astimezone(UTC)


def _first(unit: str, at: datetime, zone: ZoneInfo) -> datetime:
    """Return the start of the bucket around a time, as local time."""
    local = at.astimezone(zone).replace(tzinfo=None, fold=0)
    day = datetime.combine(local.date(), time())
    match unit:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
    raise ValueError(unit)


def _next(unit: str, local: datetime) -> datetime:
    match unit:
        case "day":
            return local + timedelta(days=1)
        case "week":
            return local + timedelta(days=7)
        case "month":
            return (local + timedelta(days=32)).replace(day=1)
    raise ValueError(unit)


def buckets(begin: datetime, end: datetime, unit: str, zone: ZoneInfo) -> list[tuple[datetime, datetime]]:
    """Return the [start, end) of each bucket; the first and the last are cut."""
    starts: list[datetime] = []
    if unit == "hour":
        at = begin
        while at < end:
            starts.append(at)
            at = _next_hour(at, zone)
    else:
        local = _first(unit, begin, zone)
        while (at := local_instant(local, zone)) < end:
            starts.append(at)
            local = _next(unit, local)
    edges = sorted({begin, *(at for at in starts if begin < at < end), end})
    return list(itertools.pairwise(edges))


def _next_hour(at: datetime, zone: ZoneInfo) -> datetime:
    """Return the next full hour on the clocks of the zone: the hour's start, or a change of clocks that sets one."""
    minute = timedelta(minutes=1)
    offset = at.astimezone(zone).utcoffset() or timedelta()
    fixed = timezone(offset)
    hour = at.astimezone(fixed).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    after = hour.astimezone(UTC)
    if (after.astimezone(zone).utcoffset() or timedelta()) == offset:
        return after
    step = at.replace(second=0, microsecond=0) + minute
    while step < after:
        if (step.astimezone(zone).utcoffset() or timedelta()) != offset and step.astimezone(zone).minute == 0:
            return step
        step += minute
    return after


# The report


def spread(values: list[float]) -> Row:
    """Return n, mean, median, p90 and max; the percentiles are values that occur (nearest rank)."""
    if not values:
        return {"n": 0, "mean": None, "median": None, "p90": None, "max": None}
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "mean": round(sum(ordered) / len(ordered), 3),
        "median": ordered[math.ceil(len(ordered) * 0.5) - 1],
        "p90": ordered[-(-len(ordered) * 9 // 10) - 1],
        "max": ordered[-1],
    }


def row(found: list[Fact], *, in_hours: bool) -> Row:
    """Count these facts."""
    of: dict[str, list[Fact]] = defaultdict(list)
    for fact in found:
        of[fact.metric].append(fact)

    def durations(metric: str) -> Row:
        values = [fact.open_value if in_hours else fact.value for fact in of[metric]]
        return spread([value for value in values if value is not None])

    scores = [int(fact.value or 0) for fact in of["rating"]]
    counted = ("sessions_opened", "sessions_closed", "closed_idle", "missed", "dropped", "transfers")
    return {
        **{metric: len(of[metric]) for metric in counted},
        "messages": {kind: len(of[f"messages_{kind}"]) for kind in ("player", "staff", "auto")},
        "players": len({fact.player for fact in of["messages_player"]}),
        **{metric: durations(metric) for metric in ("first_reply", "reply", "time_to_close", "handle")},
        "rating": {
            "asked": len(of["rating_asked"]),
            "answered": len(scores),
            "mean": round(sum(scores) / len(scores), 3) if scores else None,
            "good_share": round(sum(score >= 4 for score in scores) / len(scores), 3) if scores else None,
        },
        "within_goal": {
            "n": len(of["within_goal"]),
            "met": sum(bool(fact.met) for fact in of["within_goal"]),
        },
    }


def report(
    found: list[Fact], begin: datetime, end: datetime, zone: ZoneInfo, by: str, *, in_hours: bool = False
) -> Row:
    """Return {"rows": [...], "total": row} of the facts in [begin, end); a row of time has its start and end."""
    inside = [fact for fact in found if begin <= fact.at < end]
    rows: list[Row] = []
    if by == "staff":
        people = sorted({fact.who for fact in inside if fact.who is not None})
        keys = [*people, *([None] if any(fact.who is None for fact in inside) else [])]
        rows = [{"key": key, **row([f for f in inside if f.who == key], in_hours=in_hours)} for key in keys]
    elif by != "none":
        for lower, upper in buckets(begin, end, by, zone):
            within = [fact for fact in inside if lower <= fact.at < upper]
            rows.append({"start": lower, "end": upper, **row(within, in_hours=in_hours)})
    return {"rows": rows, "total": row(inside, in_hours=in_hours)}
