"""The model of the outbox with operators: retry, drop, replay, expire, prune and reconcile between the other operations."""

from __future__ import annotations

import uuid
from bisect import insort
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from tests.conftest import Database
from tests.integration.test_outbox_model import SINKS, WORKERS, Key, Outboxes, on
from tests.support.relay import Row, now


class Operated(Outboxes):
    """The outbox in memory has no operators: their calls go to the database, and their effects are copied into memory."""

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
        """Insert more messages, so that there is something to operate on."""
        self.insert(player, count)

    @rule(
        worker=st.sampled_from(sorted(WORKERS)),
        sends=st.integers(0, 4),
        failing=st.sampled_from([None, "dead", "retry", "retry later"]),
    )
    def work(self, worker: int, sends: int, failing: str | None) -> None:
        """Claim, send a part, settle."""
        known = len(self.holds)
        self.claim(worker, 3, 4, 300.0, False)
        mine = self.holds[known:]
        for hold in mine:
            self.send_some(hold, sends)
        results = [self.result(hold, failing, False, False) for hold in mine]
        assert not self.both(WORKERS[worker], lambda outbox: outbox.settle(*results)).busy
        self.holds = self.holds[:known]

    def dead(self) -> list[tuple[Key, Row]]:
        """Return the dead letters in an order that is the same in a repetition of the example."""
        return [(key, row) for key, queue in self.lanes.items() for row in queue.rows if row.state == "dead"]

    @precondition(lambda self: self.dead())
    @rule(data=st.data(), drop=st.booleans())
    def resolve(self, data: st.DataObject, drop: bool) -> None:
        letters = self.dead()
        some = [letters[n] for n in data.draw(st.sets(st.integers(0, len(letters) - 1), min_size=1))]
        ids = [uuid.UUID(row.id) for _, row in some]
        assert self._one("select gre_relay_retry(%s, %s)", ids, drop) == len(some)
        for key, row in some:
            if drop:
                row.state = "expired"
                continue
            row.state, row.attempts = "pending", 0
            # Later ones of its lane were sent before it: it no longer counts for the order of first arrivals.
            if row.id not in self.arrived[key]:
                order = [r.id for r in self.lanes[key].rows]
                self.arrived[key] = [name for name in self.arrived[key] if name in order]
                insort(self.arrived[key], row.id, key=order.index)
        for key in {key for key, _ in some if not drop}:
            queue = self.lanes[key]
            queue.ready = min(row.created for row in queue.pending) if queue.ready is None else queue.ready

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
        """Expire what no worker holds."""
        at = self.run(now)
        mine = [
            row
            for key, queue in self.lanes.items()
            for row in queue.pending
            if queue.until <= at and sink in (None, key[0])
        ]
        count = 0
        while page := self._one("select gre_relay_expire('2999-01-01', %s, false, %s)", sink, limit):
            count += page
        assert count == len(mine)
        for row in mine:
            row.state, row.error = "expired", "expired by an operator"

    @rule(limit=st.integers(1, 50), drained=st.booleans())
    def prune(self, limit: int, drained: bool) -> None:
        """Two hours pass for what is done. (A worker that had something of a lane that goes is dead by then, and of
        such a lane what died is dropped first: the model knows no delivery without a lane.)"""
        for worker in (0, 3) * 3 * drained:
            self.work(worker, 4, None)
        dropped = [row for key, row in self.dead() if self.lanes[key].ready is None]
        self._one("select gre_relay_retry(%s, true)", [uuid.UUID(row.id) for row in dropped])
        for row in dropped:
            row.state = "expired"
        self.root.execute("update gre_relay_deliveries set created_at = now() - interval '2 hours', settled_at = now() - interval '2 hours' where state in ('done', 'expired')")  # fmt: skip
        self.root.execute("update gre_chat_messages m set created_at = now() - interval '2 hours' where exists (select from gre_relay_deliveries d where d.message_id = m.id and d.state in ('done', 'expired'))")  # fmt: skip
        self.root.execute("update gre_chat_sessions set updated_at = now() - interval '2 hours'")
        while any(self._one("select gre_relay_prune('1 hour', p_limit => %s)", limit).values()):
            pass
        for sink in SINKS:
            memory = self.memory[sink]
            memory.delete(
                *(name for name, (state, *_) in memory.deliveries().items() if state in ("done", "expired"))
            )
            for key in [key for key, queue in memory.outbox.lanes.items() if queue.ready is None]:
                del memory.outbox.lanes[key]
                self.holds = [hold for hold in self.holds if hold.key != (sink, key)]
        self.last = None

    @rule()
    def reconcile(self) -> None:
        """Reconcile finds nothing to repair, and enqueues nothing that was pruned."""
        assert self._one("select gre_relay_reconcile()") | {"checked": 0} == {"checked": 0, "missing": {}, "lanes": 0, "next": None}  # fmt: skip


@pytest.mark.past_triggers("settled messages become older")
def test_the_invariants_hold_for_any_sequence_of_workers_and_operators(db: Database) -> None:
    with on(db, Operated) as machine, db.connect("supabase_admin") as root:
        root.execute("set session_replication_role = replica")
        machine.root = root
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
