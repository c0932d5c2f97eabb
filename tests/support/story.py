"""The story of a session in tests: apply its events, and compare the result with the session's row."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

import psycopg

Event = dict[str, Any]
STATE = ("status", "assigned_staff_id", "cycle", "closed_by", "closed_at")


def replay(events: list[Event]) -> dict[str, Any] | None:
    """Return the state that these events give, in the columns of STATE; None if the session was deleted."""
    state: dict[str, Any] | None = None
    for event in events:
        data, staff = event["data"], event["staff_id"]
        if event["kind"] == "opened":
            assert state is None
            state = {
                "status": data.get("status", "active"),
                "assigned_staff_id": staff,
                "cycle": data.get("cycle", 1),
                "closed_by": data.get("closed_by"),
                "closed_at": data.get("closed_at"),
            }
            continue
        assert state is not None
        match event["kind"]:
            case "assigned":
                assert state["assigned_staff_id"] is None
                state["assigned_staff_id"] = staff
            case "transferred":
                assert state["assigned_staff_id"] == data["from"] != staff
                state["assigned_staff_id"] = staff
            case "released":
                assert state["assigned_staff_id"] == staff
                state["assigned_staff_id"] = None
            case "closed":
                assert state["status"] == "active"
                state |= {"status": "closed", "closed_by": data["by"], "closed_at": event["at"]}
            case "reopened":
                assert state["status"] == "closed"
                assert data["cycle"] == state["cycle"] + 1
                state |= {"status": "active", "closed_by": None, "closed_at": None, "cycle": data["cycle"]}
            case "blocked" | "unblocked":
                assert (staff, data.keys() <= {"until"}) == (None, True)
            case "deleted":
                assert event is events[-1]
                return None
    return state


def as_replayed(session: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of STATE of a row or an S of the API, as `replay` gives them."""
    status = "closed" if session["status"] == "closed" else "active"
    # What S leaves out.
    state = {"closed_by": "staff" if status == "closed" else None, "cycle": 1}
    return state | {key: session[key] for key in STATE if key in session} | {"status": status}


def check_stories(conn: psycopg.Connection[dict[str, Any]]) -> list[Event]:
    """Compare each session with its story, and each story with its session; return all events."""
    sessions = {row["id"]: row for row in conn.execute("select * from public.gre_chat_sessions").fetchall()}
    events = conn.execute("select * from public.gre_chat_events order by session_id, rev").fetchall()
    stories: dict[Any, list[Event]] = defaultdict(list)
    for event in events:
        stories[event["session_id"]].append(event)
    assert sessions.keys() <= stories.keys()
    for key, story in stories.items():
        places = [event["after_seq"] for event in story]
        assert places == sorted(places)
        state, session = replay(story), sessions.get(key)
        if session is None:
            assert state is None, "a session without a row was deleted"
            continue
        assert state is not None
        # In the data of `opened`, the time is text in milliseconds.
        for found in (state, session):
            if isinstance(found["closed_at"], datetime) and "closed_at" in story[0]["data"]:
                found["closed_at"] = iso(found["closed_at"])
        assert state == as_replayed(session)
        assert story[-1]["rev"] <= session["rev"]
        assert places[-1] <= session["last_seq"]
    return events


def iso(time: datetime) -> str:
    """Return a time in UTC as the API does."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z"
