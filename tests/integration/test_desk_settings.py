"""Settings of the staff's desk and opening hours: admins change them through functions that check every value."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, NOBODY, RefusalError, Rest, player, staff

DEFAULTS = {
    "assignment": "off", "max_sessions": None, "returning_within": None, "offline_after": 120, "idle_warn_after": None,
    "idle_close_after": None, "first_reply_goal": None, "reply_goal": None, "goals_in_hours": True, "hours": None,
    "rating_enabled": False,
}  # fmt: skip


@pytest.fixture
def admin(db: Database) -> Iterator[Rest]:
    with Rest(db, ADMIN) as rest:
        yield rest


def set_settings(rest: Rest, settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = rest.call("gre_set_settings", settings=settings)
    return found


def test_settings_begin_with_everything_off(db: Database) -> None:
    with Rest(db, staff()) as s1:
        assert s1.call("gre_get_settings") == DEFAULTS


def test_an_admin_changes_the_settings_that_are_given_and_no_other(db: Database, admin: Rest) -> None:
    changed = {"assignment": "least_busy", "max_sessions": 5, "returning_within": 3600, "reply_goal": 90.5}
    assert set_settings(admin, changed) == DEFAULTS | changed
    assert set_settings(admin, {"max_sessions": None, "rating_enabled": True}) == DEFAULTS | changed | {
        "max_sessions": None, "rating_enabled": True,
    }  # fmt: skip
    with Rest(db, staff()) as s1:
        assert s1.call("gre_get_settings")["assignment"] == "least_busy"
        with pytest.raises(RefusalError, match="only an admin"):
            set_settings(s1, {"assignment": "off"})


@pytest.mark.parametrize(
    "settings",
    [
        {"assignment": "random"}, {"assignment": None}, {"max_sessions": 0}, {"max_sessions": 1001}, {"max_sessions": "many"},
        {"max_sessions": 1e300}, {"offline_after": -1}, {"offline_after": None}, {"offline_after": "1 hour"}, {"reply_goal": 0.5},
        {"reply_goal": 1e300}, {"returning_within": 366 * 86400 + 1}, {"goals_in_hours": "maybe"}, {"goals_in_hours": {"a": 1}},
        {"single": False}, {"updated_at": None}, {"colour": "red"},
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed_changes_nothing(admin: Rest, settings: dict[str, Any]) -> None:
    with pytest.raises(RefusalError) as refused:
        set_settings(admin, settings | {"rating_enabled": True})
    assert (refused.value.status, refused.value.code) == (400, "settings_invalid")
    assert admin.call("gre_get_settings") == DEFAULTS


def test_hours_are_saved_listed_and_replaced_from_today_on(db: Database, admin: Rest) -> None:
    today = admin.sql("select (now() at time zone 'Europe/Malta')::date as day")[0]["day"]
    next_week = (today + timedelta(days=7)).isoformat()
    week = [{"weekday": 1, "opens": "09:00", "closes": "18:00"}, {"weekday": 2, "opens": "22:00", "closes": "06:00"},
            {"weekday": 1, "opens": "19:30", "closes": "24:00"}, {"weekday": 1, "opens": "10:00", "closes": "12:00", "valid_from": next_week}]  # fmt: skip
    dates = [{"day": next_week, "label": "a holiday", "opens": None, "closes": None}]
    found = admin.call("gre_set_hours", name="desk", timezone="Europe/Malta", week=week, dates=dates)
    assert found == {
        "name": "desk",
        "timezone": "Europe/Malta",
        "week": [
            {"weekday": 1, "opens": "09:00", "closes": "18:00", "valid_from": today.isoformat()},
            {"weekday": 1, "opens": "19:30", "closes": "24:00", "valid_from": today.isoformat()},
            {"weekday": 2, "opens": "22:00", "closes": "06:00", "valid_from": today.isoformat()},
            {"weekday": 1, "opens": "10:00", "closes": "12:00", "valid_from": next_week},
        ],
        "dates": dates,
    }
    with Rest(db, staff()) as s1:
        assert s1.call("gre_list_hours") == [found]
    # A listed object can be saved again, with its entries of days that are over.
    with db.connect() as conn:
        conn.execute("alter table gre_hours_week disable trigger gre_1_check")
        conn.execute(
            "update gre_hours_week set valid_from = valid_from - 30 where valid_from <> %s", [next_week]
        )
        conn.execute("alter table gre_hours_week enable trigger gre_1_check")
    past = (today - timedelta(days=30)).isoformat()
    found["week"] = [
        entry if entry["valid_from"] == next_week else entry | {"valid_from": past} for entry in found["week"]
    ]
    assert admin.call("gre_set_hours", **found) == found
    kept = [entry for entry in found["week"] if entry["valid_from"] == past]
    assert admin.call("gre_set_hours", name="desk", timezone="Europe/Malta")["week"] == kept
    with pytest.raises(RefusalError, match="days that are over"):
        admin.call(
            "gre_set_hours",
            **found | {"week": [{"weekday": 3, "opens": "09:00", "closes": "18:00", "valid_from": past}]},
        )
    with pytest.raises(RefusalError, match="time zone of hours that apply already"):
        admin.call("gre_set_hours", name="desk", timezone="UTC")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "No Name"}, {"name": None}, {"week": [{"weekday": 8}]}, {"week": [{"weekday": 1, "opens": "25:00"}]},
        {"week": [{"weekday": 1, "opens": "09:00"}]}, {"week": [{"weekday": 1, "opens": "09:00", "closes": "10:00"}] * 2},
        {"week": [{"weekday": 1, "opens": "09:00:30", "closes": "10:00"}]}, {"week": [{"weekday": 1, "valid_from": "infinity"}]},
        {"dates": [{"day": "infinity"}]}, {"dates": [{"label": "no day"}]}, {"dates": [{"day": "tomorrow or so"}]}, {"dates": [{"day": "2999-01-01", "label": "x" * 81}]},
    ],
)  # fmt: skip
def test_hours_that_are_not_valid_change_nothing(admin: Rest, changes: dict[str, Any]) -> None:
    before = admin.call("gre_set_hours", name="desk", timezone="UTC", week=[{"weekday": 1}])
    with pytest.raises(RefusalError) as refused:
        admin.call("gre_set_hours", **{"name": "desk", "timezone": "UTC", **changes})
    assert (refused.value.status, refused.value.code) == (400, "hours_invalid")
    assert admin.call("gre_list_hours") == [before]


def test_hours_are_created_once_and_replaced_by_name(db: Database, admin: Rest) -> None:
    created = admin.call("gre_set_hours", name="desk", timezone="UTC", week=[{"weekday": 1}], new=True)
    for arguments, refusal in (
        ({"name": "desk", "new": True}, (409, "hours_exist")),
        ({"name": "other", "new": False}, (404, "hours_unknown")),
    ):
        with pytest.raises(RefusalError) as refused:
            admin.call("gre_set_hours", timezone="Europe/Malta", **arguments)
        assert (refused.value.status, refused.value.code) == refusal
    with Rest(db, staff()) as s1:
        assert s1.call("gre_get_hours", name="desk") == created
        with pytest.raises(RefusalError, match="no such opening hours"):
            s1.call("gre_get_hours", name="other")
    assert admin.call("gre_set_hours", name="desk", timezone="UTC", new=False)["week"] == []
    assert admin.call("gre_delete_hours", name="desk")["name"] == "desk"


def test_what_is_over_is_kept_and_not_listed(db: Database, admin: Rest) -> None:
    entry = {"weekday": 1, "opens": "09:00", "closes": "18:00"}
    admin.call("gre_set_hours", name="desk", timezone="UTC", week=[entry], dates=[{"day": "2999-01-01"}])
    with db.connect() as conn:
        for table, column in (("gre_hours_week", "valid_from"), ("gre_hours_dates", "day")):
            conn.execute(f"alter table {table} disable trigger gre_1_check".encode())
            conn.execute(f"insert into {table} (hours, {column}{', weekday' if column != 'day' else ''})"
                         f" select 'desk', current_date - n{', 1' if column != 'day' else ''} from generate_series(1, 3) n".encode())  # fmt: skip
            conn.execute(f"alter table {table} enable trigger gre_1_check".encode())
        found = admin.call("gre_get_hours", name="desk")
        assert [e["opens"] for e in found["week"]] == ["09:00"]
        assert [e["day"] for e in found["dates"]] == ["2999-01-01"]
        assert len(admin.call("gre_set_hours", name="desk", timezone="UTC")["week"]) == 1, (
            "yesterday's applies again"
        )
        for table in ("gre_hours_week", "gre_hours_dates"):
            (row,) = conn.execute(f"select count(*) as n from {table}".encode()).fetchall()
            assert row["n"] >= 3


def test_the_number_of_opening_hours_is_bounded(db: Database, admin: Rest) -> None:
    with db.connect() as conn:
        conn.execute(
            "insert into gre_hours (name, timezone) select 'h' || n, 'UTC' from generate_series(1, 100) n"
        )
    with pytest.raises(RefusalError, match="at most 100"):
        admin.call("gre_set_hours", name="desk", timezone="UTC")
    admin.call("gre_set_hours", name="h7", timezone="UTC", week=[{"weekday": 1}])


def test_an_admin_sets_how_many_sessions_a_staff_member_gets(db: Database, admin: Rest) -> None:
    with db.connect() as conn:
        conn.execute(
            "insert into gre_staff (staff_id, active) values ('a1', true), ('s1', true), ('s4', false)"
        )
    found = admin.call("gre_set_staff", staff_id="s1", settings={"takes_sessions": False, "max_sessions": 3})
    assert (found["staff_id"], found["takes_sessions"], found["max_sessions"]) == ("s1", False, 3)
    assert admin.call("gre_set_staff", staff_id="s1", settings={"max_sessions": None}) == found | {"max_sessions": None}  # fmt: skip
    refusals: list[tuple[str, Any, str]] = [
        ("s4", {"max_sessions": 1}, "staff_unknown"), ("s9", {}, "staff_unknown"), ("s1", {"active": False}, "settings_invalid"),
        ("s1", {"max_sessions": -1}, "settings_invalid"), ("s1", {"max_sessions": 1e300}, "settings_invalid"),
        ("s1", {"max_sessions": "many"}, "settings_invalid"), ("s1", {"takes_sessions": None}, "settings_invalid"),
    ]  # fmt: skip
    for staff_id, settings, code in refusals:
        with pytest.raises(RefusalError) as refused:
            admin.call("gre_set_staff", staff_id=staff_id, settings=settings)
        assert refused.value.code == code
    assert admin.call("gre_set_staff", staff_id="s1", settings={}) == found | {"max_sessions": None}


@pytest.mark.parametrize("timezone", ["Mars/Base", "CET", "+03", "", None])
def test_a_time_zone_that_is_unknown_is_refused(admin: Rest, timezone: str | None) -> None:
    with pytest.raises(RefusalError) as refused:
        admin.call("gre_set_hours", name="desk", timezone=timezone)
    assert (refused.value.status, refused.value.code) == (400, "timezone_unknown")


def test_hours_in_use_cannot_be_deleted(admin: Rest) -> None:
    admin.call("gre_set_hours", name="desk", timezone="UTC")
    assert set_settings(admin, {"hours": "desk"})["hours"] == "desk"
    with pytest.raises(RefusalError) as refused:
        admin.call("gre_delete_hours", name="desk")
    assert (refused.value.status, refused.value.code) == (409, "hours_in_use")
    with pytest.raises(RefusalError, match="no such opening hours"):
        set_settings(admin, {"hours": "other"})
    set_settings(admin, {"hours": None})
    admin.call("gre_delete_hours", name="desk")
    with pytest.raises(RefusalError, match="no such opening hours"):
        admin.call("gre_delete_hours", name="desk")
    assert admin.call("gre_list_hours") == []


def test_a_day_is_a_date_of_the_hours_time_zone(admin: Rest) -> None:
    """Kiritimati is 14 hours ahead of UTC, Pago Pago 11 behind."""
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        today: date = admin.sql("select (now() at time zone %s)::date as day", zone)[0]["day"]
        found = admin.call("gre_set_hours", name="desk-" + zone[8:12].lower(), timezone=zone, week=[{"weekday": 1}],
                           dates=[{"day": today.isoformat(), "label": "today"}])  # fmt: skip
        assert found["week"][0]["valid_from"] == found["dates"][0]["day"] == today.isoformat()


MALTA = ZoneInfo("Europe/Malta")
"""Its clocks are changed twice a year."""


def desk_of(db: Database) -> dict[str, Any]:
    """What player 29 is told of the desk."""
    with Rest(db, player(29)) as asha:
        found: dict[str, Any] = asha.call("gre_get_desk")
    return found


def day_from_now(rest: Rest, days: int) -> date:
    today: date = rest.sql("select (now() at time zone 'Europe/Malta')::date as day")[0]["day"]
    return today + timedelta(days=days)


def test_a_desk_without_opening_hours_is_always_open(db: Database) -> None:
    found = desk_of(db)
    assert datetime.fromisoformat(found.pop("now"))
    assert found == {"open": True, "opens_at": None, "closes_at": None, "timezone": None, "staff": []}


def test_players_learn_when_a_closed_desk_opens_and_an_open_one_closes(db: Database, admin: Rest) -> None:
    days = [day_from_now(admin, n) for n in range(3)]
    week = [{"weekday": n} for n in range(1, 8)]

    def save(*times: tuple[str | None, str | None]) -> dict[str, Any]:
        dates = [
            {"day": day.isoformat(), "opens": opens, "closes": closes}
            for day, (opens, closes) in zip(days, times, strict=True)
        ]
        admin.call("gre_set_hours", name="desk", timezone="Europe/Malta", week=week, dates=dates)
        return desk_of(db)

    admin.call("gre_set_hours", name="desk", timezone="Europe/Malta", week=week)
    set_settings(admin, {"hours": "desk"})
    # Days of 23 and of 25 hours among them are the database's business: times are local ones.
    found = save((None, None), (None, None), ("09:30", "18:00"))
    assert (found["open"], found["closes_at"], found["timezone"]) == (False, None, "Europe/Malta")
    opens = datetime.fromisoformat(found["opens_at"]).astimezone(MALTA)
    assert (opens.date(), opens.strftime("%H:%M")) == (days[2], "09:30")
    found = save(("00:00", "24:00"), ("00:00", "24:00"), (None, None))
    assert (found["open"], found["opens_at"]) == (True, None)
    closes = datetime.fromisoformat(found["closes_at"]).astimezone(MALTA)
    assert (closes.date(), closes.strftime("%H:%M")) == (days[2], "00:00")
    found = save((None, None), (None, None), (None, None))
    assert (found["open"], found["opens_at"], found["closes_at"]) == (False, None, None)
    week = [{"weekday": n, "opens": "00:00", "closes": "24:00"} for n in range(1, 8)]
    admin.call("gre_set_hours", name="desk", timezone="Europe/Malta", week=week)
    found = desk_of(db)
    assert (found["open"], found["opens_at"], found["closes_at"]) == (True, None, None)
    # Beyond the week that is looked at first.
    later = day_from_now(admin, 30)
    dates = [{"day": later.isoformat(), "opens": "09:30", "closes": "18:00"}]
    closed = [{"weekday": n} for n in range(1, 8)]
    admin.call("gre_set_hours", name="desk", timezone="Europe/Malta", week=closed, dates=dates)
    opens = datetime.fromisoformat(desk_of(db)["opens_at"]).astimezone(MALTA)
    assert (opens.date(), opens.strftime("%H:%M")) == (later, "09:30")


def test_players_learn_who_of_the_active_staff_is_there(db: Database, admin: Rest) -> None:
    with db.connect() as conn:
        conn.execute("insert into gre_staff (staff_id, display_name, active) values ('s1', 'Sam', true), ('s8', 'Left', false)"
                     " on conflict (staff_id) do update set display_name = excluded.display_name, active = excluded.active")  # fmt: skip
        conn.execute("delete from gre_online_status")
        conn.execute("""
          insert into gre_online_status (staff_id, display_name, status, last_seen_at, expires_at) values
          ('s1', 'Sammy', 'online', now(), null), ('s8', 'Left', 'online', now(), null),
          ('s2', 'Ann', 'away', now(), null), ('s3', 'Zoe', 'online', now(), null),
          ('s4', 'Gone', 'offline', now(), null), ('s5', 'Asleep', 'online', now() - interval '1 day', null),
          ('s6', 'Cut', 'online', now(), now() - interval '1 second')""")
    assert desk_of(db)["staff"] == [
        {"staff_id": "s1", "display_name": "Sam", "status": "online"},
        {"staff_id": "s3", "display_name": "Zoe", "status": "online"},
        {"staff_id": "s2", "display_name": "Ann", "status": "away"},
    ]
    with Rest(db, NOBODY) as nobody, pytest.raises(RefusalError):
        nobody.call("gre_get_desk")
