"""The staff's desk in tests: staff with presence, waiting players, a worker's calls, and the invariants of assignment."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.support.access import WORKER, Conn, request

WRONG_LOADS = """
    select coalesce(l.staff_id, x.staff_id) as staff_id, coalesce(l.open_sessions, 0) as load, coalesce(x.n, 0) as open
    from gre_staff_load l full join (
      select assigned_staff_id as staff_id, count(*) as n from gre_chat_sessions
      where status <> 'closed' and assigned_staff_id is not null group by 1
    ) x on x.staff_id = l.staff_id
    where coalesce(l.open_sessions, 0) <> coalesce(x.n, 0)"""
WRONG_ASSIGNMENTS = """
    select s.id from gre_chat_sessions s
    left join gre_chat_assignments a on a.session_id = s.id and a.ended_at is null
    where (case when s.status <> 'closed' then s.assigned_staff_id end) is distinct from a.staff_id"""


def check(conn: Conn) -> None:
    """Compare loads and assignments with the sessions, in one snapshot."""
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        assert conn.execute(WRONG_LOADS).fetchall() == []
        assert conn.execute(WRONG_ASSIGNMENTS).fetchall() == []


def people(conn: Conn, count: int, *, online: bool = True) -> list[str]:
    names = [f"s{n}" for n in range(1, count + 1)]
    for name in names:
        conn.execute("insert into gre_staff (staff_id, display_name) values (%s, %s)", [name, name.upper()])
        if online:
            set_presence(conn, name, "online")
    return names


def set_presence(conn: Conn, name: str, status: str) -> None:
    conn.execute(
        "insert into gre_online_status (staff_id, status, last_seen_at, expires_at)"
        " values (%s, %s, now(), now() + interval '1 hour') on conflict (staff_id) do update set"
        " status = excluded.status, last_seen_at = now(), updated_at = now(), expires_at = excluded.expires_at",
        [name, status],
    )


def configure(conn: Conn, assignment: str = "round_robin", **columns: Any) -> None:
    """Switch assignment on, with these settings."""
    values = {"assignment": assignment, **columns}
    conn.execute(
        f"update gre_chat_settings set {', '.join(f'{name} = %({name})s' for name in values)}".encode(),
        values,
    )


def waiting(conn: Conn, *players: int) -> list[UUID]:
    """Return the open sessions of these players, who begin to wait in this order."""
    for number in players:
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x')", [number]
        )
    rows = conn.execute(
        "select id, player_id from gre_chat_sessions where player_id = any (%s) and status <> 'closed'",
        [list(players)],
    )
    by = {row["player_id"]: row["id"] for row in rows.fetchall()}
    return [by[number] for number in players]


def assign(worker: Conn, limit: int = 50) -> dict[str, Any]:
    """Call once, as a worker."""
    with request(worker, WORKER) as conn:
        row = conn.execute("select gre_assign_waiting_v1(%s) as found", [limit]).fetchone()
    assert row is not None
    found: dict[str, Any] = row["found"]
    return found


def assign_all(worker: Conn) -> int:
    """Call until nothing is left to do; return the number of assigned sessions."""
    total = 0
    while True:
        found = assign(worker)
        assert found["enabled"]
        assert not found["busy"]
        total += found["assigned"]
        if not found["more"]:
            return total


def assigned(conn: Conn) -> dict[int, str | None]:
    rows = conn.execute(
        "select player_id, assigned_staff_id from gre_chat_sessions where status <> 'closed'"
    ).fetchall()
    return {row["player_id"]: row["assigned_staff_id"] for row in rows}


def ends(conn: Conn, session: UUID) -> list[tuple[str, str, str | None]]:
    """Return staff, how and end of a session's assignments."""
    rows = conn.execute(
        "select staff_id, how, end_how from gre_chat_assignments where session_id = %s order by n", [session]
    )
    return [(row["staff_id"], row["how"], row["end_how"]) for row in rows.fetchall()]
