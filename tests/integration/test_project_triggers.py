"""Triggers of the project on the chat's tables: their messages and changes are enqueued in order.

A trigger runs before the end of the statement that fired it: it inserts messages while earlier rows have not been
counted or enqueued yet.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.support.access import SERVICE, Rest, player, staff
from tests.support.story import check_stories

Conn = psycopg.Connection[dict[str, Any]]

GREET = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  if new.sender = 'player' and (select count(*) from public.gre_chat_messages m where m.player_id = new.player_id and m.sender = 'staff') = 0 then
    insert into public.gre_chat_messages (player_id, sender, sender_name, message) values (new.player_id, 'staff', 'Bot', 'Welcome!');
  end if;
  return new;
end $$;
create trigger {name} {when} insert on public.gre_chat_messages for each row execute function {name}();
"""
ANSWER_EACH = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  if exists (select from fresh where sender = 'player') then
    insert into public.gre_chat_messages (player_id, sender, message)
      select player_id, 'system', 'We have got ' || message from fresh where sender = 'player' order by player_id, seq;
  end if;
  return null;
end $$;
create trigger {name} after insert on public.gre_chat_messages referencing new table as fresh
  for each statement execute function {name}();
"""
CLOSE = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  if new.message = 'bye' then
    update public.gre_chat_sessions set status = 'closed' where id = new.session_id;
  end if;
  return null;
end $$;
create trigger {name} after insert on public.gre_chat_messages for each row execute function {name}();
"""
CLOSE_STATEMENT = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  update public.gre_chat_sessions set status = 'closed' where id in (select session_id from fresh where message = 'bye');
  return null;
end $$;
create trigger {name} after insert on public.gre_chat_messages referencing new table as fresh
  for each statement execute function {name}();
"""
GREET_SESSION = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  insert into public.gre_chat_messages (session_id, player_id, sender, message) values (new.id, new.player_id, 'system', 'Welcome!');
  return null;
end $$;
create trigger {name} after insert on public.gre_chat_sessions for each row execute function {name}();
"""
CHAIN = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  if new.sender = 'player' or new.message = 'one' then
    insert into public.gre_chat_messages (session_id, player_id, sender, message)
      values (new.session_id, new.player_id, 'staff', case new.sender when 'player' then 'one' else 'two' end);
  end if;
  return null;
end $$;
create trigger {name} after insert on public.gre_chat_messages for each row execute function {name}();
"""
DEFERRED = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  if new.sender = 'player' then
    insert into public.gre_chat_messages (session_id, player_id, sender, message) values (new.session_id, new.player_id, 'system', 'late');
  end if;
  return null;
end $$;
create constraint trigger {name} after insert on public.gre_chat_messages deferrable initially deferred
  for each row execute function {name}();
"""
TOUCH = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  update public.gre_chat_sessions set last_seq = 0, rev = 0, assigned_staff_id = 's' || new.seq where id = new.session_id;
  return null;
end $$;
create trigger {name} after insert on public.gre_chat_messages for each row execute function {name}();
"""
FAILS = """
create function {name}() returns trigger language plpgsql security definer as $$
begin
  begin
    insert into public.gre_chat_messages (session_id, player_id, sender, message) values (new.session_id, new.player_id, 'system', 'gone');
    raise exception 'no';
  exception when raise_exception then null;
  end;
  return null;
end $$;
create trigger {name} after insert on public.gre_chat_messages for each row
  when (new.sender = 'player') execute function {name}();
"""
TRIGGERS: dict[str, LiteralString] = {
    "greets after": GREET.replace("{when}", "after"),
    "greets before": GREET.replace("{when}", "before"),
    "answers each": ANSWER_EACH,
    "closes": CLOSE,
    "closes by statement": CLOSE_STATEMENT,
    "greets a session": GREET_SESSION,
    "chain": CHAIN,
    "deferred": DEFERRED,
    "touches the session": TOUCH,
    "fails": FAILS,
}
"""What projects do; each under names that sort before, among and after ours."""
NAMES = ("a_bot", "gre_message_bot", "y_bot")


def check(conn: Conn) -> dict[int, list[str]]:
    """Compare every session with its messages and deliveries; return the events of each player's lane at Pusher."""
    lanes: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in conn.execute(
        "select d.sink, d.lane_key, d.event, d.message_id, m.seq from gre_relay_deliveries d"
        " left join gre_chat_messages m on m.id = d.message_id order by d.ord"
    ):
        lanes[row["sink"], row["lane_key"]].append(row)
    events: dict[int, list[str]] = {}
    for session in conn.execute("select * from gre_chat_sessions order by created_at").fetchall():
        messages = conn.execute(
            "select * from gre_chat_messages where session_id = %s order by seq", [session["id"]]
        ).fetchall()
        assert [m["seq"] for m in messages] == list(range(1, len(messages) + 1))
        for sink in ("pusher", "onesignal"):
            lane = lanes[sink, str(session["id"])]
            assert [d["seq"] for d in lane if d["message_id"]] == [m["seq"] for m in messages]
        assert session["last_seq"] == len(messages)
        assert session["last_message_at"] == max((m["created_at"] for m in messages), default=None)
        by_player = [m for m in messages if m["sender"] == "player"]
        assert session["unread_by_staff"] == len(by_player)
        assert session["unread_by_player"] == len(messages) - len(by_player)
        answered = max((m["seq"] for m in messages if m["sender"] == "staff"), default=0)
        asked = [m["created_at"] for m in by_player if m["seq"] > answered]
        assert session["waiting_since"] == (asked[0] if asked and session["status"] != "closed" else None)
        assert session["rev"] >= session["last_seq"] + (session["status"] == "closed")
        told = [str(d["seq"] or d["event"]) for d in lanes["pusher", str(session["id"])]]
        assert told[0] == "session"
        events.setdefault(session["player_id"], []).extend(told)
    check_stories(conn)
    return events


def install(conn: Conn, kind: str, name: str) -> None:
    conn.execute(TRIGGERS[kind].replace("{name}", name).encode())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", TRIGGERS)
def test_messages_of_the_projects_triggers_are_counted_and_enqueued_in_order(
    db: Database, kind: str, name: str
) -> None:
    with db.connect() as conn, Rest(db, player(29)) as a, Rest(db, staff()) as s, Rest(db, SERVICE) as back:
        install(conn, kind, name)
        first = "insert into gre_chat_messages (player_id, sender, message) values (29, 'player', %s) returning session_id"
        a.sql(first, "hello")
        check(conn)
        # Many sessions and several messages of each in one statement, as its role and as the owner of the tables.
        many: LiteralString = (
            "insert into gre_chat_messages (player_id, sender, message)"
            " select 100 * %s + p, case n when 3 then 'staff' else 'player' end, case n when 5 then 'bye' else 'm' || n end"
            " from generate_series(1, 20) p, generate_series(1, %s) n order by p, n"
        )
        back.sql(many, 1, 4)
        conn.execute(many, [2, 5 if kind.startswith("closes") else 4])
        check(conn)
        a.call("gre_send_message", message="more")
        s.call("gre_staff_reply", message="answer", player_id=29)
        s.call(
            "gre_send_messages", messages=[{"player_id": 101 + n % 3, "message": "to all"} for n in range(9)]
        )
        with conn.transaction():
            conn.execute(first, ["kept"])
            for _ in range(2):
                with conn.transaction(force_rollback=True):
                    conn.execute(first, ["rolled back"])
            conn.execute(many, [1, 2])
        a.sql(first, "bye")
        check(conn)
        a.call("gre_send_message", message="again")
        events = check(conn)
        assert len(events) == 41


@pytest.mark.parametrize("name", NAMES)
def test_a_greeting_follows_the_message_that_it_greets(db: Database, name: str) -> None:
    with db.connect() as conn, Rest(db, player(29)) as a:
        install(conn, "greets after", name)
        a.call("gre_send_message", message="hello")
        rows = conn.execute("select seq, sender from gre_chat_messages order by seq").fetchall()
        assert [(r["seq"], r["sender"]) for r in rows] == [(1, "player"), (2, "staff")]
        assert check(conn) == {29: ["session", "1", "2"]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["closes", "closes by statement"])
def test_the_event_of_a_session_closed_by_a_message_follows_it(db: Database, kind: str, name: str) -> None:
    with db.connect() as conn, Rest(db, player(29)) as a:
        install(conn, kind, name)
        a.call("gre_send_message", message="hello")
        a.call("gre_send_message", message="bye")
        assert check(conn) == {29: ["session", "1", "2", "session"]}
        a.call("gre_send_message", message="back again")
        assert check(conn) == {29: ["session", "1", "2", "session", "session", "1"]}


def test_a_trigger_that_reads_new_messages_reads_all_of_them(db: Database) -> None:
    """A bot marks the answered messages as read, as the player of the request."""
    with db.connect() as conn, Rest(db, player(29)) as a:
        conn.execute(
            "create function seen() returns trigger language plpgsql security definer as $$ begin"
            " perform public.gre_mark_read(new.session_id, new.seq); return null; end $$;"
            "create trigger seen after insert on gre_chat_messages for each row when (new.sender = 'staff') execute function seen()"
        )
        install(conn, "greets after", "b_bot")
        a.call("gre_send_message", message="hello")
        row = conn.execute(
            "select last_seq, unread_by_staff, unread_by_player, player_read_seq from gre_chat_sessions"
        ).fetchone()
        assert row == {"last_seq": 2, "unread_by_staff": 1, "unread_by_player": 0, "player_read_seq": 2}
        events = conn.execute(
            "select d.event, m.seq from gre_relay_deliveries d left join gre_chat_messages m on m.id = d.message_id"
            " where d.sink = 'pusher' order by d.ord"
        ).fetchall()
        assert [(e["event"], e["seq"]) for e in events] == [
            ("session", None),
            ("message", 1),
            ("message", 2),
            ("read", None),
        ]


def test_a_trigger_that_clears_counters_does_not_set_them_back(db: Database) -> None:
    with db.connect() as conn, Rest(db, player(29)) as a:
        for _ in range(3):
            a.call("gre_send_message", message="x")
        conn.execute("update gre_chat_sessions set last_seq = 1, rev = 0, last_message_at = null")
        row = conn.execute(
            "select last_seq, rev, last_message_at is not null as kept from gre_chat_sessions"
        ).fetchone()
        assert row == {"last_seq": 3, "rev": 5, "kept": True}
