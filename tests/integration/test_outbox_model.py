"""The SQL and the outbox in memory agree for any sequence of claims, settles, stalls and crashes of workers.

Hypothesis interleaves inserts, claims, sends, settles of every kind, repeats, lost answers, expired leases and
crashes by several workers. Each call goes to both, with equal answers; after each step both are in the same state;
and at the end a fresh worker must be able to finish: every message done, expired or dead, first arrivals in each
lane's order.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gre_bridge.db.types import Claim, Failure, LaneResult
from tests.conftest import SERVICE, Database
from tests.support.outboxes import InDatabase, InMemory, Subject, assert_same_claim, lanes_by_sink
from tests.support.relay import Queue, VirtualLoop, elapse

T = TypeVar("T")
Conn = psycopg.Connection[dict[str, Any]]
Key = tuple[str, str]
WORKERS = {0: "pusher", 1: "pusher", 2: "pusher", 3: "onesignal"}
"""Which sink each worker serves."""
SINKS = sorted(set(WORKERS.values()))
LEASE = 300.0
OPEN = ("done", "expired", "dead")


@dataclass(eq=False)
class Hold:
    """One lane that a worker has in hand: the claimed ids, and how many of them were sent."""

    worker: int
    key: Key
    token: str
    ids: list[str]
    left: float = LEASE
    """Seconds of its lease: only before its end may it send."""
    sent: int = 0
    noted: int = 0


class Outboxes(RuleBasedStateMachine):
    """The rules; one database serves all examples."""

    conn: Conn
    worker: Conn
    portal: Conn
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.conn.execute(
            "truncate gre_chat_sessions, gre_chat_messages, gre_relay_deliveries, gre_relay_lanes, push_notifications"
            " cascade"
        )
        self.sql = {sink: InDatabase(self.conn, self.worker, self.portal, sink) for sink in SINKS}
        self.memory = {sink: InMemory(sink) for sink in SINKS}
        self.arrived: dict[Key, list[str]] = defaultdict(list)
        self.holds: list[Hold] = []
        self.owners = {worker: str(uuid.uuid4()) for worker in WORKERS}
        self.seen = 0
        self.last: tuple[str, list[LaneResult]] | None = None

    @property
    def lanes(self) -> dict[Key, Queue]:
        """The lanes in memory."""
        return {(sink, key): q for sink in SINKS for key, q in self.memory[sink].outbox.lanes.items()}

    # Portals ------------------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Put new deliveries into the memory, in the order in which they were committed."""
        rows = self.conn.execute(
            "select id::text, sink, lane_key, ord from gre_relay_deliveries where ord > %s order by ord",
            [self.seen],
        ).fetchall()

        async def put() -> None:
            for row in rows:
                self.seen = row["ord"]
                self.memory[row["sink"]].outbox.put(row["lane_key"], row["id"])
            await elapse(0.001)

        self.run(put)

    @rule(player=st.integers(1, 3), count=st.integers(1, 4))
    def insert(self, player: int, count: int) -> None:
        self.conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) "
            "select %s, 'player', 'm' || g from generate_series(1, %s) g",
            [player, count],
        )
        self.learn()

    @rule(player=st.integers(1, 3))
    def roll_an_insert_back(self, player: int) -> None:
        with contextlib.suppress(ZeroDivisionError), self.conn.transaction():
            self.conn.execute(
                "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x')",
                [player],
            )
            raise ZeroDivisionError

    @rule(player=st.integers(1, 3))
    def close_a_session(self, player: int) -> None:
        self.conn.execute(
            "update gre_chat_sessions set status = 'closed' where player_id = %s and status <> 'closed'",
            [player],
        )
        self.learn()

    @rule(player=st.integers(1, 3), data=st.data())
    def delete_messages_that_wait(self, player: int, data: st.DataObject) -> None:
        """The deliveries of a message are deleted with it; the lane may then have nothing pending."""
        self.conn.execute(
            "delete from gre_chat_messages m where player_id = %s and seq %% 2 = %s",
            [player, data.draw(st.integers(0, 1))],
        )
        for sink in SINKS:
            self.memory[sink].delete(
                *self.memory[sink].deliveries().keys() - self.sql[sink].deliveries().keys()
            )

    # Workers ------------------------------------------------------------------------------------------------

    @rule(
        worker=st.sampled_from(sorted(WORKERS)),
        lanes=st.integers(1, 4),
        rows=st.integers(1, 4),
        lease=st.sampled_from([60.0, LEASE]),
        lost=st.booleans(),
    )
    def claim(self, worker: int, lanes: int, rows: int, lease: float, lost: bool) -> None:
        """With `lost` the answer does not arrive: the worker's next claim takes these lanes."""
        held = sorted({hold.token for hold in self.holds if hold.worker == worker})
        got = self.claim_both(
            WORKERS[worker], owner=self.owners[worker], held=held, lanes=lanes, per_lane=rows, lease=lease
        )
        if not lost:
            self.holds += [
                Hold(worker, (WORKERS[worker], lane.key), got.token, [d.id for d in lane.deliveries], lease)
                for lane in got.lanes
            ]

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def stop(self, worker: int) -> None:
        """A worker releases its lanes and ends; another one replaces it."""
        assert self.both(WORKERS[worker], lambda outbox: outbox.release(self.owners[worker]))
        self.crash(worker)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), count=st.integers(1, 4))
    def send(self, data: st.DataObject, count: int) -> None:
        """Send deliveries in order, while the worker's lease lasts."""
        hold = self._pick(data)
        if hold.left > 0:
            self.send_some(hold, count)

    def send_some(self, hold: Hold, count: int) -> None:
        names = hold.ids[hold.sent : hold.sent + count]
        hold.sent += len(names)
        self.arrived[hold.key] += [name for name in names if name not in self.arrived[hold.key]]

    @precondition(lambda self: self.holds)
    @rule(
        data=st.data(),
        failing=st.sampled_from([None, "retry", "retry later", "outage", "dead"]),
        expired=st.booleans(),
        keep=st.booleans(),
        locked=st.sampled_from([None, "lane", "delivery"]),
        together=st.booleans(),
        forgotten=st.booleans(),
    )
    def settle(
        self,
        data: st.DataObject,
        failing: str | None,
        expired: bool,
        keep: bool,
        locked: str | None,
        together: bool,
        forgotten: bool,
    ) -> None:
        """Settle what was sent, by the owner or by a worker whose lease has expired; a portal may have locked the lane.

        If it is `forgotten`, a crash of PostgreSQL takes it back after it was answered.
        """
        first = self._pick(data)
        sink = first.key[0]
        others = [h for h in self.holds if h is not first and h.key[0] == sink] if together else []
        # One call may have two results of one lane: of its owner, and of a former one.
        results = [self.result(h, failing, expired, keep and h is first) for h in (first, *others)]
        if forgotten:
            with self.worker.transaction(force_rollback=True):
                self.run(lambda: self.sql[sink].settle(*results))
        else:
            if locked:
                name = first.key[1] if locked == "lane" else first.ids[0]
                with self.sql[sink].locked(name), self.memory[sink].locked(name):
                    self.both(sink, lambda outbox: outbox.settle(*results))
                    self.agree()
            assert not self.both(sink, lambda outbox: outbox.settle(*results)).busy
            self.last = (sink, results)
        first.noted = first.sent
        self.holds = [h for h in self.holds if h not in (first, *others) or (keep and h is first)]

    @precondition(lambda self: self.last)
    @rule()
    def settle_the_same_again(self) -> None:
        assert self.last is not None
        sink, results = self.last
        before = self._everything()
        answer = self.both(sink, lambda outbox: outbox.settle(*results))
        assert (answer.busy, answer.waiting) == (frozenset(), 0)
        assert self._everything() == before

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), locked=st.booleans())
    def extend(self, data: st.DataObject, locked: bool) -> None:
        hold = self._pick(data)
        sink, lane = hold.key
        with contextlib.ExitStack() as stack:
            for outboxes in (self.sql, self.memory) if locked else ():
                stack.enter_context(outboxes[sink].locked(lane))
            extended, _ = self.both(sink, lambda outbox: outbox.extend(hold.token, lane, lease=LEASE))
        if extended:
            hold.left = LEASE

    @rule(seconds=st.sampled_from([60.0, 120.0, LEASE]))
    def time_passes(self, seconds: float) -> None:
        """Leases run out and backoffs end."""
        for sink in SINKS:
            self.sql[sink].age(seconds)
            self.memory[sink].age(seconds)
        for hold in self.holds:
            hold.left -= seconds

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def crash(self, worker: int) -> None:
        """Its leases stay until they run out."""
        self.holds = [hold for hold in self.holds if hold.worker != worker]
        self.owners[worker] = str(uuid.uuid4())

    # Invariants -----------------------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        """The two have the same deliveries and lanes, no work is stuck, and first arrivals are in order."""
        deliveries: dict[str, dict[str, tuple[str, int, str]]] = {sink: {} for sink in SINKS}
        newest: dict[Key, int] = defaultdict(int)
        for row in self.conn.execute(
            "select d.sink, d.lane_key, d.id::text, d.state, d.attempts, coalesce(d.last_error, '') as error,"
            " d.settled_at is not null as settled, m.seq from gre_relay_deliveries d"
            " left join gre_chat_messages m on m.id = d.message_id and d.data is null order by d.ord"
        ):
            assert row["settled"] == (row["state"] != "pending")
            deliveries[row["sink"]][row["id"]] = (row["state"], row["attempts"], row["error"])
            if row["seq"] is not None:
                key = (row["sink"], row["lane_key"])
                assert row["seq"] > newest[key]
                newest[key] = row["seq"]
        assert deliveries == {sink: self.memory[sink].deliveries() for sink in SINKS}
        stored = lanes_by_sink(self.conn)
        for sink, lanes in self.run(lambda: {name: self.memory[name].lanes() for name in SINKS}).items():
            assert stored.get(sink, {}) == {key: lane.about() for key, lane in lanes.items()}
        for key, queue in self.lanes.items():
            assert queue.ready is not None or not queue.pending, (
                "a lane with pending deliveries is not scheduled"
            )
            assert self.in_order(key)

    def in_order(self, key: Key) -> bool:
        """Return True if the first arrivals of a lane, as far as its rows exist, are in its order."""
        order = {row.id: n for n, row in enumerate(self.lanes[key].rows)}
        known = [order[name] for name in self.arrived[key] if name in order]
        return known == sorted(known)

    def teardown(self) -> None:
        """All workers die; a new one sends the rest."""
        self.holds.clear()
        self.time_passes(600.0)
        for sink in SINKS:
            for _ in range(200):
                got = self.claim_both(sink, lanes=3, per_lane=5)
                if not got.lanes and not got.emptied_lanes:
                    break
                results = []
                for lane in got.lanes:
                    hold = Hold(0, (sink, lane.key), got.token, [d.id for d in lane.deliveries])
                    self.send_some(hold, len(hold.ids))
                    results.append(self.result(hold, None, False, False))
                answer = self.both(sink, lambda outbox, results=results: outbox.settle(*results))
                assert (answer.busy, answer.lost) == (frozenset(), frozenset())
            assert got.next_in is None, "a pending lane cannot be claimed"
        assert self._one("select count(*) from gre_relay_deliveries where state = 'pending'") == 0
        assert self._one(
            "select count(*) from gre_relay_lanes where ready_at is not null or lease_token is not null"
        ) == 0  # fmt: skip
        self.agree()
        for key, queue in self.lanes.items():
            # All others have arrived.
            assert {row.id for row in queue.rows if row.state not in ("dead", "expired")} <= set(
                self.arrived[key]
            )

    # Helpers ------------------------------------------------------------------------------------------------

    def run(self, work: Callable[[], Awaitable[T] | T]) -> T:
        """Call `work` on the loop with the virtual clock, and await its result."""

        async def call() -> T:
            found = work()
            return cast("T", await found if inspect.isawaitable(found) else found)

        return self.runner.run(call())

    def both(self, sink: str, call: Callable[[Subject], Awaitable[T]]) -> T:
        """Make the same call to both; return their common answer."""
        answer = self.run(lambda: call(self.sql[sink]))
        assert self.run(lambda: call(self.memory[sink])) == answer
        return answer

    def claim_both(self, sink: str, **options: Any) -> Claim:
        """Claim the same lanes from both; return the database's answer."""
        options = {"owner": str(uuid.uuid4()), "token": str(uuid.uuid4()), **options}
        got = self.run(lambda: self.sql[sink].claim(**options))
        self._resolve_ties(sink, [lane.key for lane in got.lanes])
        assert_same_claim(got, self.run(lambda: self.memory[sink].claim(**options)))
        return got

    def _resolve_ties(self, sink: str, taken: Sequence[str]) -> None:
        """Order lanes that became ready at the same time in memory as the database orders them."""
        stored = self.sql[sink].lanes()
        lanes = self.memory[sink].outbox.lanes
        first = [*taken, *(key for key in lanes if stored[key].ready_in is None)]
        for n, key in enumerate(first):
            if (ready := lanes[key].ready) is not None:
                lanes[key].ready = ready - (len(first) - n) * 1e-6

    def _one(self, query: str, *args: Any) -> Any:
        row = self.conn.execute(query, list(args)).fetchone()
        assert row is not None
        return next(iter(row.values()))

    def _everything(self) -> list[dict[str, Any]]:
        found = []
        for table in ("gre_relay_deliveries", "gre_relay_lanes", "push_notifications"):
            found += self.conn.execute(f"select * from {table} order by 1, 2").fetchall()
        return found

    def _pick(self, data: st.DataObject) -> Hold:
        return self.holds[data.draw(st.integers(0, len(self.holds) - 1))]

    def result(self, hold: Hold, failing: str | None, expired: bool, keep: bool) -> LaneResult:
        """Return the result of a lane: some deliveries were sent, the next one expired or failed."""
        result = LaneResult(hold.key[1], hold.token, hold.ids[hold.noted : hold.sent], keep=keep)
        rest = hold.ids[hold.sent :]
        if expired and rest and hold.left > 0 and not keep:
            result.expired, rest = rest[:1], rest[1:]
        if failing and rest and not keep:
            result.failure = Failure(
                (rest[0],),
                "dead" if failing == "dead" else "retry",
                "400: refused",
                spend=failing != "outage",
                retry_in=120.0 if failing == "retry later" else 0.0,
            )
        return result


@contextlib.contextmanager
def on(db: Database, machine: type[Outboxes]) -> Iterator[type[Outboxes]]:
    """The machine on a database of its own."""
    with (
        db.connect() as conn,
        db.as_caller(SERVICE) as worker,
        db.connect(autocommit=False) as portal,
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        for connection in (conn, worker):
            connection.execute("set statement_timeout = '30s'")
        names = {"conn": conn, "worker": worker, "portal": portal, "runner": runner}
        yield type(machine.__name__, (machine,), names)


def test_the_invariants_hold_for_any_sequence_of_workers(db: Database) -> None:
    with on(db, Outboxes) as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=80,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
