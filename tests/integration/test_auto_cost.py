"""The cost of rules for each message, in CPU time of the database."""

from __future__ import annotations

from datetime import timedelta
from statistics import median
from typing import LiteralString

from tests.conftest import Database
from tests.support.access import Conn
from tests.support.auto import conversation, rule
from tests.support.cpu import server_cpu
from tests.support.desk import people

MESSAGES, ROUNDS = 50, 7
LATER: LiteralString = "insert into gre_chat_messages (player_id, sender, message) values (29, 'player', 'x')"
FIRST: LiteralString = "insert into gre_chat_messages (player_id, sender, message) values (1000 + nextval('players'), 'player', 'x')"
ANSWER: LiteralString = "insert into gre_chat_messages (player_id, sender, message) values (29, 'staff', 'x')"


class Lab:
    """Measures one message with the trigger of auto-replies and without, in turns."""

    def __init__(self, conn: Conn) -> None:
        self.conn = conn

    def _each(self, statement: LiteralString) -> float:
        before = server_cpu(self.conn)
        for _ in range(MESSAGES):
            self.conn.execute(statement)
        return 1000 * (server_cpu(self.conn) - before) / MESSAGES

    def more(self, statement: LiteralString) -> float:
        """Return the milliseconds that the trigger adds to a message: the median of differences of neighbours."""
        differences = []
        for _ in range(ROUNDS):
            self.conn.execute("alter table gre_chat_messages disable trigger gre_8_auto_reply")
            without = self._each(statement)
            self.conn.execute("alter table gre_chat_messages enable trigger gre_8_auto_reply")
            differences.append(self._each(statement) - without)
        return median(differences)


def test_a_message_costs_little_more_without_rules_and_with_ten(db: Database) -> None:
    with db.connect() as conn:
        people(conn, 3)
        conn.execute("create sequence players")
        conn.execute("insert into gre_hours (name, timezone) values ('desk', 'Europe/Malta')")
        conn.execute(
            "insert into gre_hours_week (hours, valid_from, weekday, opens, closes)"
            " select 'desk', (now() at time zone 'Europe/Malta')::date, d, '00:00', '24:00' from generate_series(1, 7) d"
        )
        conn.execute("update gre_chat_settings set hours = 'desk'")
        lab = Lab(conn)
        lab.more(LATER)  # plans are made
        found = {f"no rules, {name}": lab.more(statement) for name, statement in (
            ("player", LATER), ("first", FIRST), ("staff", ANSWER))}  # fmt: skip
        for number in range(3):
            rule(conn, "closed_hours", f"c{number}")
            rule(conn, "nobody_online", f"n{number}")
            rule(conn, "waiting", f"w{number}", wait=timedelta(minutes=number + 1))
        rule(conn, "reopened")
        lab.more(LATER)
        ten = {f"ten rules, {name}": lab.more(statement) for name, statement in (
            ("player", LATER), ("staff", ANSWER))}  # fmt: skip
        others = {"ten rules, first with three timers": lab.more(FIRST)}
        conn.execute("delete from gre_auto_replies where name like 'w%' or name = 'reopened'")
        for number in range(4):
            rule(conn, "opened", f"o{number}")
        others["ten rules, first with a greeting"] = lab.more(FIRST)
        assert len(conversation(conn, 1000 + MESSAGES)) in (1, 2)
    costs = found | ten | others
    assert max(found.values()) <= 0.3, costs
    assert max(ten.values()) <= 1.0, costs
