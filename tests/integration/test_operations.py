"""The state of the relay for staff, and dead letters for admins."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb

from tests.api.conftest import Api
from tests.conftest import Database
from tests.integration.test_dead_letters import drain, kill
from tests.integration.test_outbox import Conn, one, send
from tests.integration.test_send import refused, s
from tests.support.access import ADMIN, Rest
from tests.support.loopback import NO_TLS
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until

__all__ = ["s"]


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as connection:
        yield connection


@pytest.fixture
def admin(db: Database) -> Iterator[Rest]:
    with Rest(db, ADMIN) as rest:
        yield rest


def report(conn: Conn, host: str, ago: int, **breakers: str) -> None:
    """Insert the report of a daemon, this many seconds old."""
    sinks = {name: {"sink": name, "breaker": state, "error": f"{state} on {host}"} for name, state in breakers.items()}  # fmt: skip
    conn.execute(
        "insert into gre_relay_workers (id, host, version, seen_at, info) values (gen_random_uuid(), %s, '1', now() - %s * interval '1 s', %s)",
        [host, ago, Jsonb({"sinks": sinks})],
    )


def test_pending_and_dead_deliveries_are_counted_by_sink(conn: Conn, s: Rest) -> None:
    for player_id in (1, 2, 3):
        send(conn, player_id, "zebra")
    kill(conn, 1)  # the event of each opened session
    drain(conn, "onesignal")
    conn.execute("update gre_relay_sinks set enabled = false where name = 'onesignal'")
    found = s.call("gre_operations")
    assert (found["backlog"], found["dead"]) == (3, 3)
    assert 0 < found["oldest_age_seconds"] < 60
    onesignal, pusher = found["sinks"]
    assert onesignal == {"name": "onesignal", "enabled": False, "pending": 0, "dead": 0, "blocked": 0, "oldest_age_seconds": None, "breaker": None, "last_error": None}  # fmt: skip
    assert (pusher["name"], pusher["enabled"], pusher["pending"], pusher["dead"]) == ("pusher", True, 3, 3)
    assert "zebra" not in str(found)


def test_each_sink_has_the_worst_state_that_a_live_daemon_reported(conn: Conn, s: Rest) -> None:
    report(conn, "old", 90, pusher="open", onesignal="open")
    report(conn, "good", 5, pusher="closed", onesignal="closed")
    report(conn, "bad", 10, pusher="half_open")
    conn.execute("update gre_relay_workers set info = '[]' where host = 'none'")
    found = s.call("gre_operations")
    assert [(w["host"], w["version"]) for w in found["workers"]] == [
        ("old", "1"),
        ("good", "1"),
        ("bad", "1"),
    ]
    assert [89 < w["seen_seconds"] < 120 for w in found["workers"]] == [True, False, False]
    assert {x["name"]: (x["breaker"], x["last_error"]) for x in found["sinks"]} == {
        "pusher": ("half_open", "half_open on bad"),
        "onesignal": ("closed", "closed on good"),
    }


def test_deliveries_of_the_last_hour_are_counted_by_minute(conn: Conn, s: Rest) -> None:
    for player_id in range(1, 6):
        send(conn, player_id, "x")
    kill(conn, 1)
    drain(conn)
    drain(conn, "onesignal")
    conn.execute("update gre_relay_deliveries set state = 'expired' where id = (select id from gre_relay_deliveries where state = 'done' limit 1)")  # fmt: skip
    done = [row["id"] for row in conn.execute("select id from gre_relay_deliveries where state = 'done'").fetchall()]  # fmt: skip
    assert len(done) == 9
    this_minute = "select date_trunc('minute', now())"
    ages = [(3, 0), (3, 0), (3, 59), (59, 0), (60, 59), *[(0, 0)] * 4]
    while True:  # The next minute may begin between the two.
        minute = one(conn, this_minute)
        for id_, (minutes, seconds) in zip(done, ages, strict=True):
            at = minute - timedelta(minutes=minutes) + timedelta(seconds=seconds)
            conn.execute("update gre_relay_deliveries set settled_at = %s where id = %s", [at, id_])
        found = s.call("gre_operations")["per_minute"]
        if one(conn, this_minute) == minute:
            break
    assert [m["minute"] for m in found] == sorted(m["minute"] for m in found)
    assert len(found) == 60
    assert all(m["minute"].endswith(":00.000Z") for m in found)
    counts = [m["count"] for m in found]
    assert (counts[0], counts[56], counts[59]) == (1, 3, 4)
    assert sum(counts) == 8


def test_pages_of_dead_letters_are_ordered_from_the_latest_and_have_no_text(conn: Conn, admin: Rest) -> None:
    for number in range(12):
        send(conn, 1 + number, "zebra")
        kill(conn, 2, sink="pusher")
        kill(conn, 1, sink="onesignal", error="400: bad")
    conn.execute("update gre_relay_deliveries set settled_at = '2026-01-01' where ord % 3 = 0")
    conn.execute(
        "insert into push_notifications (audience, title, body, status) values ('staff', 'zebra', 'zebra', 'queued')"
    )
    kill(conn, 1, sink="onesignal")
    whole = admin.call("gre_dead_letters", limit=500)
    assert whole["next"] is None
    assert "zebra" not in str(whole)
    assert len(whole["dead"]) == 37
    assert set(whole["dead"][0]) == {"id", "sink", "event", "session_id", "message_id", "attempts", "error", "created_at"}  # fmt: skip
    for sink, count in ((None, 37), ("pusher", 24), ("onesignal", 13), ("unknown", 0)):
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = admin.call("gre_dead_letters", sink=sink, limit=5, cursor=cursor)
            found += page["dead"]
            if (cursor := page["next"]) is None:
                break
        assert found == [one for one in whole["dead"] if sink in (None, one["sink"])]
        assert len(found) == count
    (push,) = [one for one in whole["dead"] if one["event"] == "push"]
    assert (push["session_id"], push["message_id"]) == (None, None)
    for one_ in whole["dead"]:
        if one_["event"] == "message":
            row = conn.execute("select session_id::text as x from gre_chat_messages where id = %s", [one_["message_id"]]).fetchone()  # fmt: skip
            assert row is not None and row["x"] == one_["session_id"]
    for cursor in ("", "x", "0_1_" + str(uuid.uuid4())):
        assert refused(admin, "gre_dead_letters", cursor=cursor) == (400, "cursor_invalid")


def test_an_admin_sends_dead_letters_again(conn: Conn, admin: Rest, s: Rest) -> None:
    send(conn, 1, "one")
    send(conn, 1, "two")
    ids = kill(conn, 3)
    assert refused(s, "gre_retry_dead", ids=[uuid.UUID(x) for x in ids]) == (403, "admin_only")
    assert refused(s, "gre_dead_letters") == (403, "admin_only")
    assert drain(conn) == []
    unknown = [uuid.uuid4()]
    assert admin.call("gre_retry_dead", ids=[uuid.UUID(x) for x in ids[1:]] + unknown) == 2
    assert [one["id"] for one in admin.call("gre_dead_letters")["dead"]] == ids[:1]
    assert drain(conn) == ["one", "two"]
    assert admin.call("gre_retry_dead", ids=[uuid.UUID(x) for x in ids[1:]]) == 0
    assert admin.call("gre_retry_dead", ids=[uuid.uuid4() for _ in range(100)]) == 0
    assert refused(admin, "gre_retry_dead", ids=[uuid.uuid4() for _ in range(101)]) == (400, "ids_invalid")
    assert refused(admin, "gre_retry_dead", ids=None) == (400, "ids_invalid")
    assert one(conn, "select count(*) from gre_relay_deliveries where state = 'dead'") == 1


# Over REST --------------------------------------------------------------------------------------------------------


@pytest.fixture
def relaying(stack: StackProcess) -> Iterator[Api]:
    """A daemon that may log errors, and gives up an event after two refusals."""
    with (
        stack.worker(GRE_MAX_ATTEMPTS="2") as worker,
        httpx.Client(base_url=worker.url, timeout=60, trust_env=False, verify=NO_TLS) as http,
    ):
        yield Api(stack, worker, http)


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_unreachable_sink_is_shown_at_once(relaying: Api) -> None:
    api = relaying
    api.stack.fault("pusher", {"status": 500})
    try:
        api.player(29).send()

        def pusher() -> Any:
            (one,) = [
                one
                for one in ok(api.staff().get("/api/gre-admin/operations"))["sinks"]
                if one["name"] == "pusher"
            ]
            return one

        wait_until(lambda: pusher()["breaker"] in ("open", "half-open"), what="an open breaker")
        assert "last_error" in pusher()
        assert pusher()["pending"] >= 1
    finally:
        api.stack.http.delete("/__stack/faults").raise_for_status()
    api.stack.drained()


def test_a_dead_letter_is_listed_without_text_and_sent_again(relaying: Api) -> None:
    api = relaying
    api.stack.fault("pusher", {"status": 400, "match": str(29)})
    sent = api.player(29).send("zebra")
    letters: list[Any] = []

    def dead() -> Any:
        page = ok(api.admin().get("/api/gre-admin/dead", params={"sink": "pusher", "limit": 500}))
        letters[:] = [one for one in page["dead"] if one["sessionId"] == sent["sessionId"]]
        return [one for one in letters if one["messageId"] == sent["messageId"]]

    try:
        wait_until(dead, what="a dead letter")
    finally:
        api.stack.http.delete("/__stack/faults").raise_for_status()
    assert "zebra" not in str(letters)
    assert letters[0]["error"]
    ids = [one["id"] for one in letters]
    assert ok(api.admin().post("/api/gre-admin/dead/retry", ids=ids))["count"] == len(ids)
    api.wait_received("pusher", id=sent["messageId"])
    assert dead() == []
    assert ok(api.admin().post("/api/gre-admin/dead/retry", ids=ids))["count"] == 0
    for wrong in ([str(uuid.uuid4())] * 101, ["x"], "x", None):
        assert api.admin().post("/api/gre-admin/dead/retry", ids=wrong).status_code == 422
