"""Reports over REST: figures, what they count, the desk at this moment, the check; who may read them, and how many at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import httpx
import pytest

from gre_bridge.api.figure_limits import MAX_READS, FigureLimits
from gre_bridge.api.schemas.reports import Metric
from gre_bridge.errors import Refused
from tests.api.client import entered
from tests.api.conftest import Api, Person
from tests.support.waiting import next_turn

REPORTS = "/api/gre-admin/reports"
LATER = datetime.now(UTC) + timedelta(hours=2)
WHOLE: dict[str, Any] = {"from": (LATER - timedelta(days=3)).isoformat(), "to": LATER.isoformat()}


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def answered(api: Api, player_id: int) -> str:
    """A closed session with a question and s1's answer."""
    session: str = api.player(player_id).send()["sessionId"]
    staff = api.staff()
    ok(staff.post("/api/gre-admin/take", sessionId=session))
    assert staff.post("/api/gre-admin/reply", sessionId=session, message="Yes").status_code == 201
    ok(staff.put(f"/api/gre-admin/session/{session}/status", status="closed"))
    return session


def test_a_report_says_what_was_done(api: Api, answered: str) -> None:
    staff = api.staff()
    before = ok(staff.get(REPORTS, params=WHOLE))
    assert (before["timezone"], before["by"], before["basis"], before["in_hours"]) == (
        "UTC",
        "none",
        None,
        False,
    )
    assert before["rows"] == []
    assert datetime.fromisoformat(before["from"]) < datetime.fromisoformat(before["whole_from"])
    other = api.player(10**12 + int(LATER.timestamp()))
    session = other.send()["sessionId"]
    ok(staff.post("/api/gre-admin/take", sessionId=session))
    after = ok(staff.get(REPORTS, params=WHOLE))["total"]
    assert after["sessions_opened"] == before["total"]["sessions_opened"] + 1
    assert after["messages"]["player"] == before["total"]["messages"]["player"] + 1
    assert after["players"] == before["total"]["players"] + 1
    assert after["reply"] == before["total"]["reply"]
    assert after["reply"]["n"] >= 1
    ok(staff.put(f"/api/gre-admin/session/{session}/status", status="closed"))
    assert ok(staff.get(REPORTS, params=WHOLE))["total"]["missed"] == before["total"]["missed"] + 1


def test_rows_have_keys_with_which_their_cells_are_listed(api: Api, answered: str) -> None:
    staff = api.staff()
    for by in ("day", "staff"):
        query = {**WHOLE, "timezone": "Europe/Malta", "by": by}
        report = ok(staff.get(REPORTS, params=query))
        assert report["timezone"] == "Europe/Malta"
        rows = [row for row in report["rows"] if row["reply"]["n"]]
        assert rows
        for row in rows:
            assert ("start" in row) == (by == "day")
            listed: list[Any] = []
            cursor = None
            while True:
                more = {} if cursor is None else {"cursor": cursor}
                cell = {"metric": "reply", "key": row["key"], "limit": 2, **more}
                page = ok(staff.get(f"{REPORTS}/sessions", params={**query, **cell}))
                assert len(page["items"]) <= 2
                listed += page["items"]
                if (cursor := page["next"]) is None:
                    break
            assert len(listed) == row["reply"]["n"]
            assert max(item["value"] for item in listed) == row["reply"]["max"]
        assert by == "staff" or answered in {item["session_id"] for item in listed}


@pytest.mark.parametrize("metric", get_args(Metric))
def test_each_figure_of_the_total_can_be_listed(api: Api, answered: str, metric: str) -> None:
    query = {**WHOLE, "metric": metric, "limit": 500, "basis": ""}
    items = ok(api.staff().get(f"{REPORTS}/sessions", params=query))["items"]
    assert items or metric in (
        "closed_idle",
        "dropped",
        "missed",
        "transfers",
        "messages_auto",
        "rating_asked",
        "rating",
        "within_goal",
    )


async def test_live_figures_show_who_is_there(api: Api, player_id: int) -> None:
    live = f"{REPORTS}/live"
    assert (
        next(p for p in ok(api.staff("s9").get(live))["staff"] if p["staff_id"] == "s9")["status"]
        == "offline"
    )
    before = ok(api.staff().get(live))
    async with entered(api.worker.url, api.stack.keys.user_token("staff", staff_id="s9")):
        session = api.player(player_id).send()["sessionId"]
        found = ok(api.staff().get(live))
        assert (found["open"], found["waiting"], found["unassigned"]) == tuple(
            before[name] + 1 for name in ("open", "waiting", "unassigned")
        )
        assert found["longest_wait"] >= 0
        ok(api.staff("s9").post("/api/gre-admin/take", sessionId=session))
        found = ok(api.staff().get(live))
        s9 = next(person for person in found["staff"] if person["staff_id"] == "s9")
        assert (s9["status"], s9["open_sessions"], s9["max_sessions"]) == ("online", 1, None)
        assert found["unassigned"] == before["unassigned"]
    ok(api.staff().put(f"/api/gre-admin/session/{session}/status", status="closed"))


def test_the_check_finds_a_figure_that_is_wrong(api: Api, answered: str) -> None:
    admin = api.admin()

    def differences(session: str | None) -> list[Any]:
        found: list[Any] = []
        cursor = None
        while True:
            page = ok(admin.get(f"{REPORTS}/check", params=WHOLE | ({"cursor": cursor} if cursor else {})))
            found += [one for one in page["differences"] if one["session_id"] == session]
            if (cursor := page["next"]) is None:
                return found

    assert differences(answered) == []
    api.sql("update gre_chat_cycles set missed = true where session_id = %s", answered)
    assert len(differences(answered)) == 1
    api.sql("update gre_chat_cycles set missed = false where session_id = %s", answered)
    assert differences(None) == []
    api.sql("update gre.report_packed set until = now()")  # as if hours had been packed without these figures
    assert differences(None)
    api.sql("select gre.report_unpack()")


@pytest.fixture
def everybody(api: Api, player_id: int) -> dict[str, Person]:
    return {
        "player": api.player(player_id), "back end as player": api.backend(f"player:{player_id}"), "back end": api.backend(),
        "staff": api.staff(), "back end as staff": api.backend("staff:s1"), "admin": api.admin(),
        "nobody": api.with_token(None),
    }  # fmt: skip


def test_staff_read_reports_and_admins_check_them(everybody: dict[str, Person]) -> None:
    readers = {"staff", "back end as staff", "admin"}
    for path, allowed in (
        (REPORTS, readers), (f"{REPORTS}/live", readers), (f"{REPORTS}/sessions", readers), (f"{REPORTS}/check", {"admin"}),
    ):  # fmt: skip
        for name, who in everybody.items():
            answer = who.get(path, params={**WHOLE, "metric": "reply"})
            assert (answer.status_code == 200) == (name in allowed), (path, name, answer.text)
            assert name in allowed or answer.status_code in (401, 403)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"to": None}, (422, "invalid")),
        ({"from": "yesterday"}, (422, "invalid")),
        ({"by": "year"}, (422, "invalid")),
        ({"basis": "opened"}, (422, "invalid")),
        ({"from": WHOLE["to"]}, (400, "range_invalid")),
        ({"timezone": "Mars/Olympus"}, (400, "timezone_unknown")),
        ({"from": "2001-01-01T00:00:00Z"}, (400, "report_too_large")),
        ({"by": "hour", "from": (LATER - timedelta(days=200)).isoformat()}, (400, "report_too_large")),
    ],
)
def test_a_question_without_an_answer_is_refused(api: Api, query: dict[str, Any], expected: Any) -> None:
    params = {name: value for name, value in (WHOLE | query).items() if value is not None}
    assert code(api.staff().get(REPORTS, params=params)) == expected


async def test_more_reports_at_once_wait_and_are_refused_when_it_takes_long() -> None:
    limits = FigureLimits()
    end = asyncio.Event()

    async def read(wait: float | None) -> None:
        async with limits.read(wait):
            await end.wait()

    running = [asyncio.create_task(read(0.05)) for _ in range(MAX_READS)]
    await next_turn(3)
    patient = asyncio.create_task(read(None))
    with pytest.raises(Refused) as refused:
        await read(0.05)
    assert (refused.value.status, refused.value.code) == (503, "busy")
    assert refused.value.retry_after
    end.set()
    await asyncio.gather(*running, patient)
    await read(0.05)
