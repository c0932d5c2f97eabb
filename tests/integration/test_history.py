"""Reads: pages without gap or repeat, lists, and the messages that a returning reader has missed."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import Database, own_database
from tests.integration.test_send import refused
from tests.support.access import ADMIN, SERVICE, RefusalError, Rest, player, staff

Json = dict[str, Any]
PLAYER, OTHER = 29, 30


class Chat:
    """A database whose history can be replaced, and callers of its functions."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.admin = db.connect("supabase_admin")
        self.player = Rest(db, player(PLAYER))
        self.staff = Rest(db, staff())
        self.back_end = Rest(db, SERVICE.acting_as(f"player:{PLAYER}"))

    def close(self) -> None:
        self.admin.close()
        for rest in (self.player, self.staff, self.back_end):
            rest.conn.close()

    def lay(self, shape: list[tuple[int, int, list[int]]]) -> list[Json]:
        """Insert sessions as (player, status from 0: closed, seconds of each message); return the messages in order of time."""
        self.admin.execute("set session_replication_role = replica")
        self.admin.execute("delete from gre_chat_messages")
        self.admin.execute("delete from gre_chat_sessions")
        written = []
        for number, (owner, is_open, times) in enumerate(shape):
            session = uuid.UUID(int=number + 1)
            at = sorted(times)
            self.admin.execute(
                "insert into gre_chat_sessions (id, player_id, status, last_seq, created_at, last_message_at) values"
                " (%s, %s, %s, %s, timestamptz '2026-01-01Z' + %s * interval '1 second', timestamptz '2026-01-01Z' + %s * interval '1 second')",
                [session, owner, "active" if is_open else "closed", len(at), number, at[-1] if at else None],
            )
            for seq, second in enumerate(at, 1):
                key = uuid.UUID(int=random.Random(f"{number} {seq}").getrandbits(128))
                self.admin.execute(
                    "insert into gre_chat_messages (id, session_id, seq, player_id, sender, message, created_at) values"
                    " (%s, %s, %s, %s, 'player', 'x', timestamptz '2026-01-01Z' + %s * interval '1 second')",
                    [key, session, seq, owner, second],
                )
                written.append(
                    {
                        "id": str(key),
                        "session_id": str(session),
                        "seq": seq,
                        "player_id": owner,
                        "second": second,
                    }
                )
        return sorted(written, key=lambda m: (m["second"], m["id"]))


@pytest.fixture(scope="module")
def chat(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[Chat]:
    with own_database(pg, migrated_template, "reading") as database:
        found = Chat(database)
        yield found
        found.close()


quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
# Few different times, so that many messages share one.
closed_sessions = st.lists(
    st.tuples(st.sampled_from([PLAYER, OTHER]), st.just(0), st.lists(st.integers(0, 6), max_size=12)),
    max_size=5,
)


@quick
@given(shape=closed_sessions, limit=st.integers(1, 7), rest=st.sampled_from(["player", "staff", "back_end"]))
def test_pages_of_a_players_history_hold_every_message_once(
    chat: Chat, shape: Any, limit: int, rest: str
) -> None:
    written = [m["id"] for m in chat.lay(shape) if m["player_id"] == PLAYER]
    read: list[str] = []
    before = None
    for _ in range(len(written) + 1):
        page = getattr(chat, rest).call(
            "gre_chat_history", player_id=PLAYER, before=before, limit=limit, sessions=True
        )
        ids = [m["id"] for m in page["messages"]]
        assert len(ids) <= limit
        assert {s["id"] for s in page["sessions"]} == {m["session_id"] for m in page["messages"]}
        read = ids + read
        assert page["has_more"] == (page["next"] is not None)
        before = page["next"]
        if before is None:
            break
        assert before == ids[0]
    assert read == written


@quick
@given(
    length=st.integers(0, 25),
    limit=st.integers(1, 9),
    by=st.sampled_from(["before", "before_seq", "after_seq"]),
)
def test_pages_of_a_session_hold_every_message_once(chat: Chat, length: int, limit: int, by: str) -> None:
    chat.lay([(PLAYER, 1, [0] * length), (PLAYER, 0, [0, 0, 0]), (OTHER, 1, [0])])
    session = str(uuid.UUID(int=1))
    read: list[int] = []
    at: Any = 0 if by == "after_seq" else None
    for _ in range(length + 2):
        page = chat.player.call("gre_chat_history", session_id=session, limit=limit, **{by: at})
        seqs = [m["seq"] for m in page["messages"]]
        read = read + seqs if by == "after_seq" else seqs + read
        if not page["has_more"]:
            break
        assert len(seqs) == limit
        at = {"before": page["next"], "before_seq": seqs[0], "after_seq": seqs[-1]}[by]
    assert read == list(range(1, length + 1))
    assert page["session"]["last_seq"] == length


def test_invalid_arguments_of_a_page_are_refused(chat: Chat) -> None:
    mine, theirs = (str(uuid.UUID(int=n)) for n in (1, 2))
    written = chat.lay([(PLAYER, 1, [0, 1]), (OTHER, 1, [0, 1])])
    their_message = next(m["id"] for m in written if m["player_id"] == OTHER)
    for rest in (chat.player, chat.back_end):
        assert refused(rest, "gre_chat_history", player_id=OTHER) == (403, "player_mismatch")
        assert refused(rest, "gre_chat_history", session_id=theirs) == (404, "session_unknown")
        assert refused(rest, "gre_chat_history", session_id=uuid.uuid4()) == (404, "session_unknown")
        assert refused(rest, "gre_chat_history", before=their_message) == (404, "message_unknown")
        assert refused(rest, "gre_chat_history", before=uuid.uuid4()) == (404, "message_unknown")
        assert refused(rest, "gre_chat_history", session_id=mine, before=their_message) == (
            404,
            "message_unknown",
        )
        assert refused(rest, "gre_chat_history", after_seq=1) == (400, "session_missing")
    assert refused(chat.staff, "gre_chat_history") == (400, "target_missing")
    assert refused(chat.staff, "gre_chat_history", player_id=OTHER, session_id=mine) == (
        404,
        "session_unknown",
    )
    assert refused(chat.staff, "gre_chat_history", player_id=PLAYER, before=their_message) == (
        404,
        "message_unknown",
    )
    assert chat.staff.call("gre_chat_history", player_id=12345)["messages"] == []
    for odd in ({"before_seq": -5}, {"before_seq": 0}, {"after_seq": 2**62}):
        assert chat.player.call("gre_chat_history", session_id=mine, **odd)["messages"] == []
    for limit in (-1, 0, None, 2**31 - 1):
        assert (
            chat.player.call("gre_chat_history", session_id=mine, after_seq=-(2**62), limit=limit)["messages"]
            != []
        )


# Lists --------------------------------------------------------------------------------------------------


@quick
@given(
    shape=st.lists(
        st.tuples(
            st.booleans(), st.lists(st.integers(0, 3), max_size=2), st.sampled_from([None, "s1", "s2"])
        ),
        max_size=12,
    ),
    limit=st.integers(1, 5),
    status=st.sampled_from([None, "active", "closed"]),
    assigned=st.sampled_from([None, "me", "none", "s2"]),
)
def test_pages_of_the_session_list_hold_every_session_once(
    chat: Chat, shape: Any, limit: int, status: Any, assigned: Any
) -> None:
    chat.lay([(100 + n, is_open, times) for n, (is_open, times, _) in enumerate(shape)])
    for n, (_, _, who) in enumerate(shape):
        chat.admin.execute(
            "update gre_chat_sessions set assigned_staff_id = %s where id = %s", [who, uuid.UUID(int=n + 1)]
        )
    who_is = {"me": "s1", "none": None}
    wanted = [
        (max(times) if times else n, str(uuid.UUID(int=n + 1)))
        for n, (is_open, times, who) in enumerate(shape)
        if (status is None or (status == "active") == is_open)
        and (assigned is None or who == who_is.get(assigned, assigned))
    ]
    read: list[str] = []
    cursor = None
    for _ in range(len(wanted) + 1):
        page = chat.staff.call(
            "gre_list_sessions", status=status, assigned=assigned, limit=limit, cursor=cursor
        )
        assert len(page["sessions"]) <= limit
        read += [s["id"] for s in page["sessions"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert read == [session for _, session in sorted(wanted, reverse=True)]


def test_a_player_lists_its_own_sessions_and_wrong_arguments_are_refused(chat: Chat) -> None:
    chat.lay([(PLAYER, 0, [1]), (PLAYER, 1, [2]), (OTHER, 1, [3])])
    own = [str(uuid.UUID(int=n)) for n in (2, 1)]
    for rest in (chat.player, chat.back_end):
        assert [s["id"] for s in rest.call("gre_list_sessions")["sessions"]] == own
        assert [s["id"] for s in rest.call("gre_list_sessions", status="active")["sessions"]] == own[:1]
        assert rest.call("gre_list_sessions", assigned="me")["sessions"] == []
    (session,) = chat.staff.call("gre_list_sessions", limit=1)["sessions"]
    assert set(session) == {"id", "player_id", "player_name", "status", "assigned_staff_id", "last_seq", "rev", "unread_by_staff", "unread_by_player", "last_message", "last_message_at", "created_at", "closed_at"}  # fmt: skip
    assert session["last_message"] == "x"
    for status in ("open", "", "ACTIVE"):
        assert refused(chat.staff, "gre_list_sessions", status=status) == (400, "status_unknown")
    key = uuid.UUID(int=1)
    for cursor in (
        "",
        "1",
        f"1_{key}x",
        f"--1_{key}",
        f"1_{key}\n",
        f"{'9' * 18}_{key}",
        "1_'; drop table x",
    ):
        assert refused(chat.staff, "gre_list_sessions", cursor=cursor) == (400, "cursor_invalid")
    assert chat.staff.call("gre_list_sessions", cursor=f"{'9' * 17}_{key}", limit=-3)["next"] is not None


# Catching up ---------------------------------------------------------------------------------------------


def model(
    shape: Any, since: dict[str, int] | None, limit: int, *, own: int | None
) -> tuple[set[str], set[tuple[str, int]]]:
    """Return the sessions, and the messages of each, that a reader gets while p_total is not reached."""
    sessions = {
        str(uuid.UUID(int=n + 1)): (owner, is_open, sorted(times), n)
        for n, (owner, is_open, times) in enumerate(shape)
        if own is None or owner == own
    }
    named = since or {}
    times = [
        sessions[k][2][v - 1] for k, v in named.items() if k in sessions and 0 < v <= len(sessions[k][2])
    ]
    newest = max(times) - 60 if times else None
    listed = {
        k
        for k, (_, is_open, at, opened) in sessions.items()
        if is_open or k in named or (newest is not None and (at[-1] if at else opened) > newest)
    }
    missed = set()
    for key in listed:
        _, is_open, at, _ = sessions[key]
        if key in named:
            seen = named[key]
        elif since is None or (newest is None and not is_open):
            seen = len(at)
        else:
            seen = sum(newest is not None and time <= newest for time in at)
        missed |= {(key, seq) for seq in range(max(seen, len(at) - limit, 0) + 1, len(at) + 1)}
    return listed, missed


@quick
@given(data=st.data())
def test_the_missed_messages_are_those_of_the_model(chat: Chat, data: st.DataObject) -> None:
    # The n-th session was opened at second n; times of minutes make the newest message named matter.
    shape = data.draw(
        st.lists(
            st.tuples(st.booleans(), st.lists(st.sampled_from([20, 61, 62, 63, 200]), max_size=5)), max_size=5
        )
    )
    laid = [(PLAYER if n == 0 else 100 + n, is_open, times) for n, (is_open, times) in enumerate(shape)]
    chat.lay(laid)
    keys = [str(uuid.UUID(int=n + 1)) for n in range(len(shape) + 1)]
    since = data.draw(st.none() | st.dictionaries(st.sampled_from(keys), st.integers(0, 7)))
    limit = data.draw(st.integers(1, 6))
    for rest, own in ((chat.staff, None), (chat.player, PLAYER), (chat.back_end, PLAYER)):
        found = rest.call("gre_catch_up", since=since, limit=limit)
        listed, missed = model(laid, since, limit, own=own)
        assert {s["id"] for s in found["sessions"]} == listed
        assert {(m["session_id"], m["seq"]) for m in found["missed"]} == missed
        order = [(m["session_id"], m["seq"]) for m in found["missed"]]
        assert order == sorted(order)
        assert own is None or {m["player_id"] for m in found["missed"]} <= {own}


def test_catching_up_is_bounded_and_ignores_invalid_positions(chat: Chat) -> None:
    chat.lay([(PLAYER, 1, [0] * 600), (OTHER, 1, [1] * 10)])
    mine, theirs = (str(uuid.UUID(int=n)) for n in (1, 2))
    assert [m["seq"] for m in chat.player.call("gre_catch_up", since={mine: 0})["missed"]] == list(
        range(401, 601)
    )
    most = chat.player.call("gre_catch_up", since={mine: 0}, limit=2**31 - 1, total=2**31 - 1)["missed"]
    assert [m["seq"] for m in most] == list(range(101, 601))
    total = chat.staff.call("gre_catch_up", since={mine: 0, theirs: 0}, total=15)["missed"]
    assert [m["seq"] for m in total] == [*range(596, 601), *range(1, 11)]
    found = chat.staff.call("gre_catch_up", since={mine: 7}, total=0)
    assert (found["missed"], found["positions"]) == ([], {mine: 7, theirs: 0}), (
        "the position to read from is independent of the limits"
    )
    assert chat.staff.call("gre_catch_up", since={}, total=0)["positions"] == {mine: 400, theirs: 0}
    assert chat.player.call("gre_catch_up", since=None, total=0)["positions"] == {}
    nothing = {"nonsense": 5, mine: "600", theirs: -1, "'; drop table x": 1}
    assert chat.player.call("gre_catch_up", since=nothing)["sessions"][0]["id"] == mine
    for odd in (1e300, 600.9, 2**62):
        assert chat.player.call("gre_catch_up", since={mine: odd})["missed"] == []
    assert chat.player.call("gre_catch_up", since={mine.upper(): 599})["missed"][0]["seq"] == 600
    assert chat.player.call("gre_catch_up", since=None, limit=-1, total=0)["missed"] == []
    assert chat.player.call("gre_catch_up", since={theirs: 0})["sessions"][0]["id"] == mine
    for wrong in ([{"a": 1}],):
        assert refused(chat.player, "gre_catch_up", since=wrong) == (400, "since_invalid")
    with Rest(chat.db, ADMIN) as admin, pytest.raises(RefusalError, match="since_invalid"):
        admin.sql("select gre_catch_up(p_since => '\"text\"')")


def test_the_session_of_another_player_changes_nothing_in_the_answer(chat: Chat) -> None:
    """Otherwise a player could find out the time of another player's message."""
    chat.lay([(PLAYER, 1, [0]), (OTHER, 1, [200])])
    mine, theirs = (str(uuid.UUID(int=n)) for n in (1, 2))
    for rest in (chat.player, chat.back_end):
        for seq in (0, 1, 2):
            found = rest.call("gre_catch_up", since={theirs: seq})
            assert [s["id"] for s in found["sessions"]] == [mine]
            assert [m["session_id"] for m in found["missed"]] == [mine]
