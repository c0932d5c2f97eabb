"""Opening hours, compared with a second implementation on Python's zoneinfo."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import Database

Entry = tuple[time, time] | None
"""Opens and closes; midnight as closing time is 24:00. None: closed."""
BEGIN, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
FOREVER = date(2000, 1, 3)


@pytest.fixture(scope="module")
def hours(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    pg.create_database("hours", migrated_template)
    with Database(pg, "hours").connect() as conn:
        # The triggers refuse changes of past days, and the tests need hours in the past.
        conn.execute("alter table public.gre_hours disable trigger gre_1_check")
        conn.execute("alter table public.gre_hours_week disable trigger gre_1_check")
        conn.execute("alter table public.gre_hours_dates disable trigger gre_1_check")
        conn.execute("set session timezone to 'Pacific/Kiritimati'")  # must not matter
        yield conn
    pg.drop_database("hours")


def store(
    conn: psycopg.Connection[Any],
    zone: str,
    weeks: dict[date, dict[int, list[Entry]]],
    days: dict[date, list[Entry]],
) -> None:
    conn.execute("delete from public.gre_hours where name = 'h'")
    conn.execute("insert into public.gre_hours (name, timezone) values ('h', %s)", [zone])
    for valid_from, week in weeks.items():
        for weekday, entries in week.items():
            for entry in entries:
                conn.execute(
                    "insert into public.gre_hours_week values ('h', %s, %s, %s, %s)",
                    [valid_from, weekday, *written(entry)],
                )
    for day, entries in days.items():
        for entry in entries:
            conn.execute(
                "insert into public.gre_hours_dates values ('h', %s, 'a holiday', %s, %s)",
                [day, *written(entry)],
            )


def written(entry: Entry) -> tuple[str | None, str | None]:
    if entry is None:
        return None, None
    return entry[0].isoformat(), "24:00" if entry[1] == time(0) else entry[1].isoformat()


# The second implementation


ZONEINFO: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def same_zones(pg: EmbeddedPostgres) -> None:
    """Let both implementations read the same files: their contents change from release to release."""
    ZONEINFO[:] = [path for path in [pg.bin_dir.parent / "share" / "timezone"] if path.is_dir()]


@cache
def zone_of(name: str) -> zoneinfo.ZoneInfo:
    for folder in ZONEINFO:
        with (folder / name).open("rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, name)
    return zoneinfo.ZoneInfo(name)


def instant(day: date, at: time, zone: str) -> datetime:
    """Convert a local time as PostgreSQL does: a skipped one with the offset before, one that occurs twice as the second."""
    local = datetime.combine(day, at, zone_of(zone))
    first, second = local.replace(fold=0), local.replace(fold=1)
    is_skipped = first.astimezone(UTC).astimezone(zone_of(zone)).replace(
        tzinfo=None, fold=0
    ) != local.replace(tzinfo=None)
    return (first if is_skipped else second).astimezone(UTC)


def expected(
    zone: str,
    weeks: dict[date, dict[int, list[Entry]]],
    days: dict[date, list[Entry]],
    begin: datetime,
    end: datetime,
) -> list[tuple[datetime, datetime]]:
    found: list[tuple[datetime, datetime]] = []
    day = begin.astimezone(zone_of(zone)).date() - timedelta(days=1)
    last = end.astimezone(zone_of(zone)).date()
    while day <= last:
        version = max((v for v in weeks if v <= day), default=None)
        if day in days:
            entries = days[day]
        elif version is None:
            entries = [(time(0), time(0))]
        else:
            entries = weeks[version].get(day.isoweekday(), [])
        for entry in entries:
            if entry is None:
                continue
            opens, closes = entry
            # 24:00 is later than any time of opening.
            next_day = closes == time(0) or closes <= opens
            lower, upper = instant(day, opens, zone), instant(day + timedelta(days=next_day), closes, zone)
            lower, upper = max(lower, begin), min(upper, end)
            if lower < upper:
                found.append((lower, upper))
        day += timedelta(days=1)
    merged: list[tuple[datetime, datetime]] = []
    for lower, upper in sorted(found):
        if merged and lower <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], upper))
        else:
            merged.append((lower, upper))
    return merged


def stored(conn: psycopg.Connection[Any], begin: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    rows = conn.execute(
        "select lower(r) as lower, upper(r) as upper from unnest(gre.open_ranges('h', %s, %s)) r order by 1",
        [begin, end],
    ).fetchall()
    return [(row["lower"].astimezone(UTC), row["upper"].astimezone(UTC)) for row in rows]


def one(conn: psycopg.Connection[Any], query: str, *values: object) -> Any:
    row = conn.execute(f"select {query} as found", values).fetchone()
    assert row is not None
    return row["found"]


# All zones


def test_every_zone_agrees_with_zoneinfo_around_each_change_of_clocks(hours: psycopg.Connection[Any]) -> None:
    """2024 to 2030: two shifts a day, one of them over midnight, three days before and after each change."""
    # An abbreviation stands for a fixed offset; hours cannot have one as their zone.
    known = {
        row["name"]
        for row in hours.execute(
            "select name from pg_timezone_names where upper(name) not in (select abbrev from pg_timezone_abbrevs)"
        ).fetchall()
    }
    names = sorted(known & zoneinfo.available_timezones() - {"localtime", "Factory", "posixrules"})
    assert len(names) > 400
    shifts: list[Entry] = [(time(22), time(6)), (time(1, 30), time(2, 30)), (time(9), time(17, 45))]
    week = {FOREVER: dict.fromkeys(range(1, 8), shifts)}
    store(hours, "UTC", week, {})
    changes = 0
    differing: list[str] = []
    for name in names:
        days = [BEGIN + timedelta(days=n) for n in range((END - BEGIN).days)]
        offsets = [day.astimezone(zone_of(name)).utcoffset() for day in days]
        around = [days[n] for n in range(1, len(days)) if offsets[n] != offsets[n - 1]]
        changes += len(around)
        hours.execute("update public.gre_hours set timezone = %s", [name])
        for day in [datetime(2026, 3, 4, 5, 6, tzinfo=UTC), *around]:
            begin, end = day - timedelta(days=3), day + timedelta(days=3)
            if stored(hours, begin, end) != expected(name, week, {}, begin, end):
                differing.append(f"{name} at {day:%Y-%m-%d}")
    assert changes > 1_000
    assert not differing, differing


@pytest.mark.parametrize(
    ("zone", "evening", "seconds"),
    [
        ("Europe/Malta", "2026-03-28", 7 * 3600),
        ("Europe/Malta", "2026-10-24", 9 * 3600),
        ("Europe/Malta", "2026-06-01", 8 * 3600),
        ("Australia/Lord_Howe", "2026-04-04", 8.5 * 3600),
        ("Australia/Lord_Howe", "2026-10-03", 7.5 * 3600),
    ],
)
def test_a_night_shift_over_a_change_of_clocks_is_an_hour_shorter_or_longer(
    hours: psycopg.Connection[Any], zone: str, evening: str, seconds: float
) -> None:
    store(hours, zone, {FOREVER: {day: [(time(22), time(6))] for day in range(1, 8)}}, {})
    begin = f"{evening} 12:00"
    found = one(
        hours,
        "gre.open_seconds('h', %s::timestamp at time zone %s, (%s::timestamp + interval '1 day') at time zone %s)",
        begin, zone, begin, zone,
    )  # fmt: skip
    assert found == seconds


# Any week

TIMES = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
ENTRIES = st.lists(st.tuples(TIMES, TIMES), min_size=0, max_size=3, unique_by=lambda entry: entry[0])
WEEKS = st.dictionaries(st.integers(1, 7), ENTRIES, max_size=7)
ZONES = st.sampled_from(
    ["Europe/Malta", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "Africa/Casablanca",
     "America/St_Johns", "Pacific/Chatham", "UTC", "Asia/Kathmandu", "America/Havana", "Antarctica/Troll"]
)  # fmt: skip
MOMENTS = st.integers(0, int((END - BEGIN).total_seconds()) - 1).map(lambda n: BEGIN + timedelta(seconds=n))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zone=ZONES, first=WEEKS, second=WEEKS, begin=MOMENTS, length=st.integers(1, 40), change=st.integers(0, 40),
    single=st.dictionaries(st.integers(0, 40), ENTRIES, max_size=3), after=st.integers(0, 400_000),
)  # fmt: skip
def test_any_hours_agree_with_the_second_implementation(
    hours: psycopg.Connection[Any],
    zone: str,
    first: dict[int, list[Entry]],
    second: dict[int, list[Entry]],
    begin: datetime,
    length: int,
    change: int,
    single: dict[int, list[Entry]],
    after: int,
) -> None:
    end = begin + timedelta(days=length, hours=7)
    # A version without an entry is written as one entry that is closed.
    weeks = {
        FOREVER: first or {1: [None]},
        begin.date() + timedelta(days=change): second or {1: [None]},
    }
    weeks = {day: {n: e or [None] for n, e in week.items()} for day, week in weeks.items()}
    days: dict[date, list[Entry]] = {
        begin.date() + timedelta(days=n): list(entries) or [None] for n, entries in single.items()
    }
    store(hours, zone, weeks, days)
    ranges = expected(zone, weeks, days, begin, end)
    assert stored(hours, begin, end) == ranges

    # Ranges add up, wherever they are cut.
    middle = begin + (end - begin) / 3
    seconds = sum((upper - lower).total_seconds() for lower, upper in ranges)
    assert float(one(hours, "gre.open_seconds('h', %s, %s)", begin, end)) == pytest.approx(seconds)
    parts = one(
        hours, "gre.open_seconds('h', %s, %s) + gre.open_seconds('h', %s, %s)", begin, middle, middle, end
    )
    assert float(parts) == pytest.approx(seconds)

    is_open = bool(ranges) and ranges[0][0] == begin
    assert one(hours, "gre.open_at('h', %s)", begin) is is_open
    if ranges:
        assert one(hours, "gre.next_open('h', %s)", begin) == ranges[0][0]
    left = float(after)
    for lower, upper in ranges:
        long = (upper - lower).total_seconds()
        if left < long:
            assert one(hours, "gre.after_open('h', %s, %s)", begin, after) == lower + timedelta(seconds=left)
            break
        left -= long
    if is_open and ranges[0][1] < end:
        assert one(hours, "gre.open_until('h', %s)", begin) == ranges[0][1]


def test_no_hours_means_always_open(hours: psycopg.Connection[Any]) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert one(hours, "gre.open_at(null, %s)", at) is True
    assert one(hours, "gre.open_seconds(null, %s, %s)", at, at + timedelta(hours=5)) == 5 * 3600
    assert one(hours, "gre.next_open(null, %s)", at) == at
    assert one(hours, "gre.after_open(null, %s, 90)", at) == at + timedelta(seconds=90)
    assert one(hours, "gre.open_until(null, %s)", at) is None


def test_hours_that_never_open_say_so(hours: psycopg.Connection[Any]) -> None:
    store(hours, "UTC", {FOREVER: {1: [None]}}, {})
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert one(hours, "gre.next_open('h', %s)", at) is None
    assert one(hours, "gre.after_open('h', %s, 1)", at) is None
    with pytest.raises(psycopg.Error, match="there are no such opening hours"):
        one(hours, "gre.open_at('unknown', %s)", at)


def test_the_search_looks_400_days_ahead(hours: psycopg.Connection[Any]) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    whole_day: Entry = (time(0), time(0))
    for days in (399, 400):
        change = at + timedelta(days=days)
        found = change if days == 399 else None
        store(hours, "UTC", {FOREVER: {1: [None]}}, {change.date(): [whole_day]})
        assert one(hours, "gre.next_open('h', %s)", at) == found
        assert one(hours, "gre.after_open('h', %s, 0)", at) == found
        store(hours, "UTC", {FOREVER: {day: [whole_day] for day in range(1, 8)}}, {change.date(): [None]})
        assert one(hours, "gre.open_until('h', %s)", at) == found


# Permissions


def test_days_that_are_over_stay_as_they_were(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("insert into public.gre_hours (name, timezone) values ('h', 'Pacific/Kiritimati')")
        add = "insert into public.gre_hours_week values ('h', %s, 1, '09:00', '17:00')"
        today = one(conn, "(now() at time zone 'Pacific/Kiritimati')::date")
        conn.execute(add, [today])
        for change in (
            f"insert into public.gre_hours_week values ('h', '{today - timedelta(days=1)}', 1, '09:00', '17:00')",
            f"insert into public.gre_hours_dates values ('h', '{today - timedelta(days=1)}', 'gone', null, null)",
        ):
            with pytest.raises(psycopg.Error, match="days that are over"):
                conn.execute(change)
        with pytest.raises(psycopg.Error, match="time zone of hours that apply already"):
            conn.execute("update public.gre_hours set timezone = 'UTC'")
        for zone in ("Mars/Base", "CET", "+03", "europe/malta", ""):
            with pytest.raises(psycopg.Error, match="name of an IANA time zone"):
                conn.execute("insert into public.gre_hours (name, timezone) values ('m', %s)", [zone])
        conn.execute("insert into public.gre_hours (name, timezone) values ('u', 'UTC')")
        conn.execute("delete from public.gre_hours where name = 'h'")


def test_nobody_reads_or_writes_the_tables_directly(db: Database) -> None:
    with db.connect() as conn:
        for table in ("gre_hours", "gre_hours_week", "gre_hours_dates"):
            for role in ("anon", "authenticated", "service_role"):
                for right in ("select", "insert", "update", "delete"):
                    assert not one(conn, "has_table_privilege(%s, %s, %s)", role, f"public.{table}", right)
