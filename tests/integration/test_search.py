"""Search of messages: what is found, in which order, page by page, with and without the extension pg_trgm."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import MIGRATIONS, Database
from tests.support.access import Conn, RefusalError, Rest, player, staff
from tests.support.desk import people


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        people(found, 2)
        yield found


@pytest.fixture
def desk(db: Database, conn: Conn) -> Iterator[Rest]:
    with Rest(db, staff("s1")) as rest:
        yield rest


def say(conn: Conn, number: int, text: str, **columns: Any) -> None:
    row = {"player_id": number, "sender": "player", "message": text, **columns}
    names = ", ".join(row)
    values = ", ".join(f"%({name})s" for name in row)
    conn.execute(f"insert into gre_chat_messages ({names}) values ({values})".encode(), row)


def found(desk: Rest, query: str, **arguments: Any) -> list[str]:
    """Texts of all pages."""
    texts, cursor = [], None
    while True:
        page = desk.call("gre_search_messages", query=query, cursor=cursor, **arguments)
        texts += [message["message"] for message in page["messages"]]
        cursor = page["next"]
        if cursor is None:
            return texts


TEXTS = [
    "When is my refund paid?", "REFUND, please", "The refunds are late", "prefund", "100% sure", "100 sure", "under_score",
    "underscore", "a back\\slash", "ฉันต้องการเงินคืน", "我要退款 谢谢", "退款", "Ünïcode straße", "' or '1'='1",
]  # fmt: skip


def test_each_word_is_found_in_any_case_and_in_the_middle_of_words(desk: Rest, conn: Conn) -> None:
    for n, text in enumerate(TEXTS):
        say(conn, 29 + n % 2, text)
    assert found(desk, "refund") == [
        "prefund",
        "The refunds are late",
        "REFUND, please",
        "When is my refund paid?",
    ]
    assert found(desk, "  refund   LATE ") == ["The refunds are late"]
    assert found(desk, "100%") == ["100% sure"]
    assert found(desk, "under_") == ["under_score"]
    assert found(desk, "k\\s") == ["a back\\slash"]
    assert found(desk, "เงินคืน") == ["ฉันต้องการเงินคืน"]
    assert found(desk, "退款") == ["退款", "我要退款 谢谢"]
    assert found(desk, "ÜNÏ") == ["Ünïcode straße"]
    assert found(desk, "' or '1'='1") == ["' or '1'='1"]
    assert found(desk, "nothing like it") == []
    page = desk.call("gre_search_messages", query="prefund")
    (message,) = page["messages"]
    assert message["session"]["id"] == message["session_id"]
    assert message["session"]["player_id"] == message["player_id"]


def test_a_search_is_limited_to_a_player_an_author_and_a_time(desk: Rest, conn: Conn) -> None:
    say(conn, 29, "table four")
    say(conn, 30, "table five")
    desk.call("gre_staff_reply", message="table six", player_id=29)
    say(conn, 29, "table seven", sender="staff", sender_id="s2")
    assert found(desk, "table") == ["table seven", "table six", "table five", "table four"]
    assert found(desk, "table", player=30) == ["table five"]
    assert found(desk, "table", staff="s1") == ["table six"]
    assert found(desk, "table", staff="s2", player=29) == ["table seven"]
    rows = conn.execute("select created_at from gre_chat_messages order by seq, created_at").fetchall()
    times = sorted(row["created_at"] for row in rows)
    assert found(desk, "table", **{"from": times[1], "to": times[3]}) == ["table six", "table five"]
    assert found(desk, "table", **{"from": times[3]}) == ["table seven"]
    assert found(desk, "table", to=times[0]) == []


@pytest.mark.parametrize("query", [None, "", " ", "x", " x ", "\u200b\u200b\u200b", "x" * 101])
def test_a_query_is_of_2_to_100_characters(desk: Rest, query: str | None) -> None:
    with pytest.raises(RefusalError) as refused:
        desk.call("gre_search_messages", query=query)
    assert (refused.value.status, refused.value.code) == (400, "query_invalid")
    with pytest.raises(RefusalError, match="cursor"):
        desk.call("gre_search_messages", query="xx", cursor="x")


def test_players_search_nothing(db: Database, conn: Conn) -> None:
    say(conn, 29, "table four")
    with Rest(db, player(29)) as phone, pytest.raises(RefusalError, match="only staff"):
        phone.call("gre_search_messages", query="table")


# As on a server where the extension cannot be created.
NO_EXTENSION = """
create function public.refuse() returns event_trigger language plpgsql as $$ begin raise exception 'no extensions here'; end $$;
create event trigger refuse on ddl_command_start when tag in ('CREATE EXTENSION') execute function public.refuse();
"""
MANY = """
set session_replication_role = replica;
insert into gre_chat_sessions (id, player_id, last_seq) select md5('s' || n)::uuid, n, 100 from generate_series(1, 300) n;
insert into gre_chat_messages (id, session_id, seq, player_id, sender, sender_id, message, created_at)
  select md5('m' || n)::uuid, md5('s' || 1 + n % 300)::uuid, 1 + n / 300, 1 + n % 300,
    case when n % 3 = 0 then 'staff' else 'player' end, case when n % 3 = 0 then 's' || 1 + n % 2 end,
    'message ' || n || case when n % 7 = 0 then ' seventh' else '' end || case when n % 4999 = 0 then ' rarely' else '' end,
    now() - n / 2 * interval '1 minute'
  from generate_series(1, 30000) n;
set session_replication_role = origin;
"""


@pytest.fixture(scope="module", params=["trigrams", "words", "no index"])
def many(pg: EmbeddedPostgres, supabase_template: str, request: pytest.FixtureRequest) -> Iterator[Rest]:
    """30,000 messages, of which two have each time, in databases with each kind of index."""
    name = f"search_{request.param.replace(' ', '_')}"
    pg.create_database(name, supabase_template)
    database = Database(pg, name)
    with database.connect("supabase_admin") as admin, database.connect() as conn:
        if request.param == "words":
            admin.execute(NO_EXTENSION)
        for path in MIGRATIONS:
            with conn.transaction():
                conn.execute(path.read_bytes(), prepare=False)
        definition = conn.execute(
            "select pg_get_indexdef('public.gre_chat_messages_search'::regclass) as text"
        ).fetchone()
        assert definition is not None
        assert ("gin_trgm_ops" in definition["text"]) == (request.param != "words")
        assert "gin_pending_list_limit" in definition["text"]
        if request.param == "no index":
            conn.execute("drop index gre_chat_messages_search")
        people(conn, 2)
        admin.execute(MANY, prepare=False)
        admin.execute("vacuum analyze gre_chat_messages, gre_chat_sessions")
    with Rest(database, staff("s1")) as rest:
        yield rest
    pg.drop_database(name)


def test_pages_are_complete_in_order_and_without_repeats(many: Rest) -> None:
    for query, step in (("seventh", 7), ("rarely", 4999), ("rarely seventh", 34993), ("message", 101)):
        wanted = [n for n in range(1, 30001) if n % step == 0]
        seen: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = many.call("gre_search_messages", query=query, cursor=cursor)
            assert len(page["messages"]) <= 50
            seen += page["messages"]
            cursor = page["next"]
            if cursor is None or (query == "message" and len(seen) > 300):
                break
        places = [(message["created_at"], message["id"]) for message in seen]
        assert places == sorted(places, reverse=True)
        assert len({message["id"] for message in seen}) == len(seen)
        numbers = {int(message["message"].split()[1]) for message in seen}
        if query == "message":
            assert len(seen) > 300
        else:
            assert numbers == set(wanted)


def test_filters_and_pages_together(many: Rest) -> None:
    rng = random.Random(13)
    now = datetime.now(UTC)
    for _ in range(20):
        number, author = rng.randint(1, 300), rng.choice(["s1", "s2"])
        texts = found(many, "seventh", player=number)
        wanted = {n for n in range(1, 30001) if n % 7 == 0 and 1 + n % 300 == number}
        assert {int(text.split()[1]) for text in texts} == wanted
        start = now - timedelta(minutes=rng.randint(5000, 15000))
        stop = start + timedelta(minutes=3000)
        texts = found(many, "seventh", staff=author, **{"from": start, "to": stop})
        numbers = [int(text.split()[1]) for text in texts]
        assert all(n % 21 == 0 and f"s{1 + n % 2}" == author for n in numbers)
        assert 6000 // 42 - 2 <= len(numbers) <= 6000 // 42 + 2
