"""The hub's reads: repeated while others write, they return every message once and in order."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Database
from tests.integration.test_outbox import one
from tests.integration.test_send import sessions, stored
from tests.support.access import SERVICE, Rest, player, staff
from tests.support.files import Storage
from tests.support.files import stored as stored_file


class Hub:
    """The state of a hub: the last seq and rev that it sent of each session, and the messages that it sent."""

    def __init__(self, rest: Rest, *, limit: int = 200, players: list[int] | None = None) -> None:
        self.rest = rest
        self.limit = limit
        self.players = players
        self.known: dict[str, list[int]] = {}
        self.told: dict[str, list[str]] = {}
        self.reads: dict[str, Any] = {}
        self.events: dict[str, list[Any]] = {}
        self.since: datetime | None = None
        self.epoch: datetime | None = None

    def ask(self, *ids: str) -> dict[str, Any]:
        """Read once and apply the answer; fail if a later answer could not continue from it."""
        news = self.rest.call("gre_hub_changes_v1", positions=self.known, sessions=[uuid.UUID(i) for i in ids], since=self.since,
                              epoch=self.epoch, players=self.players, limit=self.limit)  # fmt: skip
        for item in news["sessions"]:
            key = item["session"]["id"]
            seq, rev = self.known.get(key, [0, 0])
            assert item["session"]["rev"] > rev
            for message in item["messages"]:
                assert message["seq"] == seq + 1
                seq = message["seq"]
                self.told.setdefault(key, []).append(message["id"])
            assert len(item["messages"]) <= self.limit
            assert item["more"] or seq == item["session"]["last_seq"]
            if not item["more"]:
                self.events.setdefault(key, []).extend(item.get("events", []))
            assert self.players is None or "events" not in item
            self.known[key] = [
                seq,
                rev if item["more"] else item.get("events_more", item["session"]["rev"]),
            ]
            self.reads[key] = item["reads"]
        if not news["more"]:
            self.since = datetime.fromisoformat(news["now"]) - timedelta(seconds=5)
        return dict(news)

    def settle(self) -> None:
        """Read until nothing is new."""
        while self.ask()["sessions"]:
            pass


def write(db: Database, number: int) -> None:
    """A player and staff chat; sessions are read and closed meanwhile."""
    with Rest(db, player(number)) as mine, Rest(db, staff()) as theirs:
        for turn in range(25):
            session = mine.call("gre_send_message", message="x")["message"]["session_id"]
            theirs.call("gre_send_messages", messages=[{"player_id": p, "message": "y"} for p in (1, 2, 3)])
            if turn % 7 == 3:
                theirs.call("gre_mark_read", session_id=session, up_to_seq=10**9)
            if turn % 11 == 5:
                theirs.call("gre_close_session", player_id=number)


@pytest.mark.parametrize(("limit", "only"), [(200, None), (3, None), (2, [2, 3])])
def test_reads_return_every_message_once_and_in_order_while_others_write(
    db: Database, limit: int, only: list[int] | None
) -> None:
    with Rest(db, SERVICE) as rest, db.connect() as clock:
        hub = Hub(rest, limit=limit, players=only)
        hub.epoch = hub.since = one(clock, "select clock_timestamp() - interval '1 second'")
        with ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(write, db, number) for number in (1, 2, 3)]
            while not all(writer.done() for writer in writers):
                hub.ask()
            for writer in writers:
                writer.result(60)
        hub.settle()
        rows = {str(row["id"]): row for row in sessions(db) if only is None or row["player_id"] in only}
        wanted: dict[str, list[str]] = {key: [] for key in rows}
        for message in sorted(stored(db), key=lambda m: m["seq"]):
            wanted.get(str(message["session_id"]), []).append(str(message["id"]))
        assert hub.told == wanted
        assert hub.known == {key: [row["last_seq"], row["rev"]] for key, row in rows.items()}
        if only is None:
            for key in rows:
                story = rest.sql("select rev, kind from gre_chat_events where session_id = %s order by rev", uuid.UUID(key))  # fmt: skip
                assert [(e["rev"], e["kind"]) for e in hub.events[key]] == [
                    (e["rev"], e["kind"]) for e in story
                ]
        assert {k: r["staff"][0] for k, r in hub.reads.items()} == {
            k: row["staff_read_seq"] for k, row in rows.items()
        }


def test_many_events_of_a_session_are_read_in_parts(db: Database) -> None:
    with Rest(db, SERVICE) as rest, Rest(db, player(29)) as a, db.connect() as conn:
        session = a.call("gre_send_message", message="x")["message"]["session_id"]
        hub = Hub(rest)
        hub.epoch = one(conn, "select clock_timestamp() - interval '1 hour'")
        hub.ask(session)
        for number in range(120):  # one after the other, all before the next look
            conn.execute(
                "update gre_chat_sessions set assigned_staff_id = %s where id = %s",
                [f"s{number % 2}", session],
            )
        hub.ask(session)
        assert len(hub.events[session]) == 1 + 50
        while hub.ask(session)["sessions"]:
            pass
        story = conn.execute(
            "select rev from gre_chat_events where session_id = %s order by rev", [session]
        ).fetchall()
        assert len(story) == 121
        assert [event["rev"] for event in hub.events[session]] == [row["rev"] for row in story]
        assert hub.known[session][1] == story[-1]["rev"]


def test_sessions_beyond_one_answer_are_in_the_next(db: Database) -> None:
    with Rest(db, SERVICE) as rest, db.connect() as setup:
        hub = Hub(rest)
        hub.epoch = hub.since = one(setup, "select clock_timestamp() - interval '1 second'")
        setup.execute(
            "insert into gre_chat_messages (player_id, sender, message) select g, 'system', 'x' from generate_series(1, 1300) g"
        )
        answers = [hub.ask() for _ in range(3)]
        assert [(len(answer["sessions"]), answer["more"]) for answer in answers] == [
            (500, True),
            (500, True),
            (300, False),
        ]
        # All 1,300 have changed since then and have a position: the newest change is found among them.
        setup.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (1300, 'system', 'y')"
        )
        hub.since = hub.epoch
        (found,) = hub.ask()["sessions"]
        assert [m["message"] for m in found["messages"]] == ["y"]


def test_messages_before_the_epoch_are_not_returned(db: Database) -> None:
    with Rest(db, SERVICE) as rest, Rest(db, player(29)) as a, Rest(db, staff()) as s, db.connect() as clock:
        session = a.call("gre_send_message", message="before")["message"]["session_id"]
        hub = Hub(rest)
        hub.epoch = one(clock, "select clock_timestamp()")
        a.call("gre_send_message", message="after")
        (news,) = rest.call("gre_hub_changes_v1", sessions=[uuid.UUID(session)], epoch=hub.epoch)["sessions"]
        assert [m["message"] for m in news["messages"]] == ["after"]
        (news,) = rest.call(
            "gre_hub_changes_v1", positions={session: [0, 0]}, sessions=[uuid.UUID(session)], epoch=hub.epoch
        )["sessions"]
        assert [m["message"] for m in news["messages"]] == ["before", "after"]
        assert (
            rest.call(
                "gre_hub_changes_v1", positions={session: [2, 3]}, sessions=[uuid.UUID(session), uuid.uuid4()]
            )["sessions"]
            == []
        )
        s.call("gre_set_session_status", session_id=session, status="assigned")
        (news,) = rest.call("gre_hub_changes_v1", positions={session: [2, 3]}, sessions=[uuid.UUID(session)])[
            "sessions"
        ]
        assert (news["messages"], news["session"]["assigned_staff_id"]) == ([], "s1")
        assert rest.call("gre_hub_changes_v1")["sessions"] == []
        assert rest.call("gre_hub_changes_v1", sessions=[uuid.UUID(session)], players=[30])["sessions"] == []


def test_an_answer_is_bounded_and_names_the_sessions_that_it_left_out(db: Database) -> None:
    """200 messages of each of 500 sessions would be up to 1.6 GB, which no reader can take."""
    with Rest(db, SERVICE) as rest, db.connect() as setup:
        hub = Hub(rest)
        hub.epoch = hub.since = one(setup, "select clock_timestamp() - interval '1 second'")
        setup.execute(
            "insert into gre_chat_messages (player_id, sender, message)"
            " select g % 30 + 1, 'system', repeat('💬', 4000) from generate_series(1, 900) g"
        )
        ids = [str(row["id"]) for row in sessions(db)]
        first = rest.call("gre_hub_changes_v1", sessions=[uuid.UUID(i) for i in ids], epoch=hub.epoch)
        assert len(json.dumps(first, ensure_ascii=False).encode()) < 1_500_000
        assert first["more"] and {*first["skipped"], *(i["session"]["id"] for i in first["sessions"])} == {
            *ids
        }
        assert len(first["skipped"]) == 30 - len(first["sessions"])
        (little,) = rest.call("gre_hub_changes_v1", sessions=[uuid.UUID(ids[0])], epoch=hub.epoch, bytes=1)[
            "sessions"
        ]
        assert (len(little["messages"]), little["more"]) == (1, True), "one is returned in any case"
        hub.settle()
        assert [len(told) for told in hub.told.values()] == [30] * 30


def test_the_names_and_texts_of_files_count(db: Database) -> None:
    with Rest(db, SERVICE) as rest, db.connect() as setup, Storage(db) as storage, Rest(db, player(29)) as a:
        epoch = one(setup, "select clock_timestamp() - interval '1 second'")
        for _ in range(3):
            files = [
                stored_file(a, storage, name="💬" * 200, alt="💬" * 1000, type="text/plain") for _ in range(5)
            ]
            sent = a.call(
                "gre_send_message", message="x", attachment_ids=[uuid.UUID(file["id"]) for file in files]
            )
        wanted = [uuid.UUID(sent["message"]["session_id"])]
        found = rest.call("gre_hub_changes_v1", sessions=wanted, epoch=epoch, bytes=26_000)
        (item,) = found["sessions"]
        assert (len(item["messages"]), item["more"]) == (1, True)
        size = len(json.dumps(item["messages"][0], ensure_ascii=False).encode())
        assert 24_000 < size < 27_400, "five files of the size that is counted"


def test_a_read_only_database_answers_reads_of_presence(db: Database) -> None:
    """A full disk makes a database read-only; new sockets wait for this answer."""
    with Rest(db, staff("s7")) as s, db.connect() as conn:
        assert s.call("gre_set_online_status", status="online", expires_in=60)["status"] == "online"
        conn.execute("begin read only")
        found = one(conn, "select gre_hub_presence_v1(array['s7'], '{}', 45)")
        assert [row["staff_id"] for row in found["online"]] == ["s7"]
        conn.execute("rollback")
