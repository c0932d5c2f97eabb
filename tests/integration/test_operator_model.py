"""The outbox's model with operators in it: retry, drop, replay, expire, prune and reconcile between everything else."""

from __future__ import annotations

import uuid
from bisect import insort
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from tests.conftest import Database
from tests.integration.test_outbox_model import SINKS, Outbox, Queue, Row


class Operated(Outbox):
    """What the model knows of a delivery that an operator touched: it is in its lane's order, whenever it goes."""

    root: Any

    def __init__(self) -> None:
        super().__init__()
        self.root.execute("update gre_relay_sinks set reconcile_from = now() - interval '1 day'")

    @initialize(players=st.sets(st.integers(1, 3), min_size=1))
    def open(self, players: set[int]) -> None:
        for player in sorted(players):
            self.insert(player, 2)

    @rule(player=st.integers(1, 3), count=st.integers(1, 4))
    def talk(self, player: int, count: int) -> None:
        """(Again, so that there is something to operate on.)"""
        self.insert(player, count)

    @rule(
        worker=st.sampled_from(sorted(SINKS)),
        sends=st.integers(0, 4),
        failing=st.sampled_from([None, "dead", "retry", "retry later"]),
    )
    def work(self, worker: int, sends: int, failing: str | None) -> None:
        """Claim, send some of it, settle."""
        known = len(self.holds)
        self.claim(worker, 3, 4, False)
        mine = self.holds[known:]
        for hold in mine:
            hold.sent = min(sends, len(hold.ids))
            arrived = self.lanes[hold.key].arrived
            arrived += [name for name in hold.ids[: hold.sent] if name not in arrived]
        batch = [(hold, self._result(hold, failing, False, False)) for hold in mine]
        assert self._settle(SINKS[worker], batch)["busy"] == []
        self._apply(batch)
        self.holds = self.holds[:known]

    def dead(self) -> list[tuple[Queue, Row]]:
        """Dead letters, in an order that a replay of the test finds again."""
        return [(queue, row) for queue in self.lanes.values() for row in queue.rows if row.state == "dead"]

    def learn(self) -> None:
        """(A replay's rows come after their lane's, whatever their seq.)"""
        super().learn()
        replayed = {r["id"] for r in self.conn.execute("select id::text from gre_relay_deliveries where data ? 'replayed'")}  # fmt: skip
        for queue in self.lanes.values():
            for row in queue.rows:
                row.seq = None if row.id in replayed else row.seq

    @precondition(lambda self: self.dead())
    @rule(data=st.data(), drop=st.booleans())
    def resolve(self, data: st.DataObject, drop: bool) -> None:
        letters = self.dead()
        some = [letters[n] for n in data.draw(st.sets(st.integers(0, len(letters) - 1), min_size=1))]
        ids = [uuid.UUID(row.id) for _, row in some]
        assert self._one("select gre_relay_retry(%s, %s)", ids, drop) == len(some)
        for queue, row in some:
            if drop:
                row.state = "expired"
                continue
            row.state, row.attempts = "pending", 0
            if not queue.ready:
                queue.ready, queue.held_back = True, False
            # Others of its lane went before it: its own place is no first arrival's any more.
            if row.id not in queue.arrived:
                insort(queue.arrived, row.id, key=[r.id for r in queue.rows].index)

    @rule(sink=st.sampled_from([None, "pusher", "onesignal"]), limit=st.integers(1, 5))
    def replay(self, sink: str | None, limit: int) -> None:
        before = sum(len(queue.rows) for queue in self.lanes.values())
        waiting = self._one(
            "select count(*) from gre_relay_deliveries where state = 'pending' and event = 'message'"
        )
        count, after = 0, None
        while True:
            page = self._one(
                "select gre_relay_replay(p_since => '2001-01-01', p_sink => %s, p_after => %s, p_limit => %s)",
                sink, after, limit,
            )  # fmt: skip
            count, after = count + page["messages"], page["next"]
            if after is None:
                break
        self.learn()
        added = sum(len(queue.rows) for queue in self.lanes.values()) - before
        assert count <= added <= 2 * count
        messages = self._one("select count(*) from gre_chat_messages")
        if sink is None:
            assert added == 2 * messages - waiting

    @rule(sink=st.sampled_from([None, "pusher"]), limit=st.integers(1, 50))
    def expire(self, sink: str | None, limit: int) -> None:
        """What nobody has in hand."""
        mine = [
            row
            for key, queue in self.lanes.items()
            for row in queue.pending
            if (queue.token is None or queue.over) and sink in (None, key[0])
        ]
        count = 0
        while page := self._one("select gre_relay_expire('2999-01-01', %s, false, %s)", sink, limit):
            count += page
        assert count == len(mine)
        for row in mine:
            row.state = "expired"

    @rule(limit=st.integers(1, 50), drained=st.booleans())
    def prune(self, limit: int, drained: bool) -> None:
        """Two hours pass for what is done. (A worker that had something of a lane that goes is dead by then, and of
        such a lane what died is dropped first: the model knows no delivery without a lane.)"""
        for worker in (0, 3) * 3 * drained:
            self.work(worker, 4, None)
        dropped = [row for queue, row in self.dead() if not queue.ready]
        self._one("select gre_relay_retry(%s, true)", [uuid.UUID(row.id) for row in dropped])
        for row in dropped:
            row.state = "expired"
        self.root.execute("update gre_relay_deliveries set created_at = now() - interval '2 hours', settled_at = now() - interval '2 hours' where state in ('done', 'expired')")  # fmt: skip
        self.root.execute("update gre_chat_messages m set created_at = now() - interval '2 hours' where exists (select from gre_relay_deliveries d where d.message_id = m.id and d.state in ('done', 'expired'))")  # fmt: skip
        self.root.execute("update gre_chat_sessions set updated_at = now() - interval '2 hours'")
        while any(self._one("select gre_relay_prune('1 hour', p_limit => %s)", limit).values()):
            pass
        for queue in self.lanes.values():
            queue.rows = [row for row in queue.rows if row.state in ("pending", "dead")]
        gone = {key for key, queue in self.lanes.items() if not queue.ready}
        self.holds = [hold for hold in self.holds if hold.key not in gone]
        for key in gone:
            del self.lanes[key]
        self.last = None

    @rule()
    def reconcile(self) -> None:
        """There is nothing to repair, and nothing that was pruned comes back."""
        assert self._one("select gre_relay_reconcile()") | {"checked": 0} == {"checked": 0, "missing": {}, "lanes": 0, "next": None}  # fmt: skip


def test_whatever_operators_do_beside_them_the_outbox_keeps_its_promises(db: Database) -> None:
    with db.connect() as conn, db.connect(autocommit=False) as portal, db.connect("supabase_admin") as root:
        conn.execute("set statement_timeout = '5s'")
        root.execute("set session_replication_role = replica")

        class OnThisDatabase(Operated):
            pass

        OnThisDatabase.conn, OnThisDatabase.portal, OnThisDatabase.root = conn, portal, root
        run_state_machine_as_test(
            OnThisDatabase,
            settings=settings(
                max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
