"""The outbox's SQL against a small model: whatever order workers claim, settle, stall and die in.

Hypothesis interleaves inserts, claims, sends, settles of every kind, repeats, lost answers, expired leases and
crashes by several workers; after each step the database must be as the model says, and at the end a fresh
worker must be able to finish: every message done, expired or dead, first arrivals in each lane's order.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

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
from psycopg.types.json import Jsonb

from tests.conftest import Database

Conn = psycopg.Connection[dict[str, Any]]
Key = tuple[str, str]
SINKS = {0: "pusher", 1: "pusher", 2: "pusher", 3: "onesignal"}
"""Which sink each worker serves."""
OPEN = ("done", "expired", "dead")


@dataclass
class Row:
    """A delivery as the model has it."""

    id: str
    seq: int | None
    state: str = "pending"
    attempts: int = 0


@dataclass
class Queue:
    """A lane as the model has it. `token` is its lease, `over` says that the lease ran out."""

    rows: list[Row] = field(default_factory=list)
    ready: bool = False
    held_back: bool = False
    token: str | None = None
    owner: str | None = None
    over: bool = False
    arrived: list[str] = field(default_factory=list)

    @property
    def pending(self) -> list[Row]:
        return [row for row in self.rows if row.state == "pending"]

    def recoverable(self, owner: str, held: set[str]) -> bool:
        """Whether the lease is this owner's under a token that it does not hold."""
        return self.token is not None and self.owner == owner and self.token not in held

    def due(self, owner: str, held: set[str]) -> bool:
        leased = self.token is not None and not self.over and not self.recoverable(owner, held)
        return self.ready and not self.held_back and not leased


@dataclass(eq=False)
class Hold:
    """What a worker has in hand of one lane: the claimed ids, and how many of them went out."""

    worker: int
    key: Key
    token: str
    ids: list[str]
    sent: int = 0
    noted: int = 0
    alive: bool = True
    """Whether its lease has not run out: only then may it send."""


Batch = list[tuple[Hold, dict[str, Any]]]
"""What one settle is given: results, and whose they are."""


class Outbox(RuleBasedStateMachine):
    """The rules; one database serves all examples."""

    conn: Conn
    portal: Conn

    def __init__(self) -> None:
        super().__init__()
        self.conn.execute(
            "truncate gre_chat_sessions, gre_chat_messages, gre_relay_deliveries, gre_relay_lanes, push_notifications"
        )
        self.lanes: dict[Key, Queue] = defaultdict(Queue)
        self.holds: list[Hold] = []
        self.owners = {worker: str(uuid.uuid4()) for worker in SINKS}
        self.seen = 0
        self.last: tuple[str, Batch] | None = None

    # Portals ------------------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Take new deliveries into the model, in the order in which they were committed."""
        rows = self.conn.execute(
            "select d.id::text, d.sink, d.lane_key, d.ord, m.seq from gre_relay_deliveries d "
            "left join gre_chat_messages m on m.id = d.message_id where d.ord > %s order by d.ord",
            [self.seen],
        ).fetchall()
        for row in rows:
            self.seen = row["ord"]
            queue = self.lanes[row["sink"], row["lane_key"]]
            queue.rows.append(Row(row["id"], row["seq"]))
            if not queue.ready:
                queue.ready, queue.held_back = True, False

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
        """Its deliveries go with a message; the lane may be left with nothing to do."""
        waiting = self.conn.execute(
            "delete from gre_chat_messages m where player_id = %s and seq %% 2 = %s returning m.id::text",
            [player, data.draw(st.integers(0, 1))],
        ).fetchall()
        if waiting:
            left = {
                r["id"] for r in self.conn.execute("select id::text from gre_relay_deliveries").fetchall()
            }
            for queue in self.lanes.values():
                queue.rows = [row for row in queue.rows if row.id in left]

    # Workers ------------------------------------------------------------------------------------------------

    @rule(
        worker=st.sampled_from(sorted(SINKS)),
        lanes=st.integers(1, 4),
        rows=st.integers(1, 4),
        lost=st.booleans(),
    )
    def claim(self, worker: int, lanes: int, rows: int, lost: bool) -> None:
        """With `lost` the answer does not arrive: the worker's next claim takes these lanes."""
        sink, token, owner = SINKS[worker], str(uuid.uuid4()), self.owners[worker]
        held = {hold.token for hold in self.holds if hold.worker == worker}
        got = self._one(
            "select gre_relay_claim_v1(%s, %s, %s, %s, 300, %s, %s::uuid[])", sink, token, lanes, rows, owner, list(held)
        )  # fmt: skip
        due = {key for key, queue in self.lanes.items() if key[0] == sink and queue.due(owner, held)}
        recoverable = sum(self.lanes[k].recoverable(owner, held) and not self.lanes[k].over for k in due)
        assert got["recovered_lanes"] <= recoverable
        assert len(due) > lanes or got["recovered_lanes"] == recoverable
        taken = {(sink, lane["lane_key"]): lane["deliveries"] for lane in got["lanes"]}
        assert set(taken) <= due
        assert len(taken) + got["emptied_lanes"] == min(lanes, len(due))
        rested = {key for key in due if not self.lanes[key].pending}
        assert got["emptied_lanes"] <= len(rested)
        assert not rested & set(taken)
        for key in rested:
            if self._lane(key)["ready_at"] is None:
                self.lanes[key].ready, self.lanes[key].token, self.lanes[key].over = False, None, False
        for key, deliveries in taken.items():
            queue = self.lanes[key]
            assert [d["id"] for d in deliveries] == [row.id for row in queue.pending[:rows]]
            assert [d["attempts"] for d in deliveries] == [row.attempts for row in queue.pending[:rows]]
            queue.token, queue.owner, queue.over = token, owner, False
            if not lost:
                self.holds.append(Hold(worker, key, token, [d["id"] for d in deliveries]))
        others = [q for key, q in self.lanes.items() if key[0] == sink and q.ready and key not in taken]
        if len(due) >= lanes:
            assert got["next_in"] == 0
        elif others:
            assert got["next_in"] is not None
        else:
            assert got["next_in"] is None

    @rule(worker=st.sampled_from(sorted(SINKS)))
    def stop(self, worker: int) -> None:
        """A worker ends and gives its lanes back; another takes its place."""
        mine = [
            queue
            for key, queue in self.lanes.items()
            if key[0] == SINKS[worker] and queue.ready and queue.token and queue.owner == self.owners[worker]
        ]
        answer = self._one("select gre_relay_release_v1(%s, %s)", SINKS[worker], self.owners[worker])
        assert answer == {"released": len(mine), "busy": 0}
        for queue in mine:
            queue.token, queue.over = None, False
        self.crash(worker)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), count=st.integers(1, 4))
    def send(self, data: st.DataObject, count: int) -> None:
        """Deliveries go out, in order, while the worker's lease lasts."""
        hold = self._pick(data)
        if hold.alive:
            for name in hold.ids[hold.sent : hold.sent + count]:
                hold.sent += 1
                if name not in self.lanes[hold.key].arrived:
                    self.lanes[hold.key].arrived.append(name)

    @precondition(lambda self: self.holds)
    @rule(
        data=st.data(),
        failing=st.sampled_from([None, "retry", "retry later", "outage", "dead"]),
        expired=st.booleans(),
        keep=st.booleans(),
        locked=st.booleans(),
        together=st.booleans(),
        forgotten=st.booleans(),
    )
    def settle(
        self,
        data: st.DataObject,
        failing: str | None,
        expired: bool,
        keep: bool,
        locked: bool,
        together: bool,
        forgotten: bool,
    ) -> None:
        """Record what went out, by an owner or by one whose lease is long over; now and then a portal holds the lane.

        If it is `forgotten`, a crash of PostgreSQL takes it back after it was answered.
        """
        first = self._pick(data)
        sink = first.key[0]
        others = [h for h in self.holds if h is not first and h.key[0] == sink] if together else []
        # One call may bring two results of one lane: an heir's and a zombie's.
        batch = [(h, self._result(h, failing, expired, keep and h is first)) for h in (first, *others)]
        freeing = [h for h, result in batch if not result.get("keep")]
        if forgotten:
            with self.conn.transaction(force_rollback=True):
                self._settle(sink, batch)
            first.noted = first.sent if keep else first.noted
            self.holds = [h for h in self.holds if h not in freeing]
            return
        if locked:
            with self.portal.transaction(force_rollback=True):
                self.portal.execute(
                    "select from gre_relay_lanes where sink = %s and lane_key = %s for no key update",
                    first.key,
                )
                answer = self._settle(sink, batch)
            assert set(answer["busy"]) == {h.key[1] for h in freeing if h.key == first.key}
            self._apply(batch, locked=first.key)
            self.agree()
        mine = [h for h in freeing if self.lanes[h.key].token == h.token]
        answer = self._settle(sink, batch)
        self._apply(batch)
        assert answer["busy"] == []
        assert set(answer["lost"]) == {h.key[1] for h in freeing if h not in mine}
        assert answer["waiting"] == sum(bool(self.lanes[h.key].pending) for h in mine)
        self.last = (sink, batch)
        if keep:
            first.noted = first.sent
        self.holds = [h for h in self.holds if h not in freeing]

    @precondition(lambda self: self.last)
    @rule()
    def settle_the_same_again(self) -> None:
        assert self.last is not None
        before = self._everything()
        answer = self._settle(*self.last)
        assert answer["busy"] == []
        assert answer["waiting"] == 0
        assert self._everything() == before

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        hold = self._pick(data)
        sink, lane = hold.key
        answer = self._one("select gre_relay_extend_v1(%s, %s, %s, 300)", sink, hold.token, [lane])
        queue = self.lanes[hold.key]
        mine = queue.token == hold.token
        assert answer == {"extended": [lane] if mine else [], "busy": []}
        if mine:
            queue.over, hold.alive = False, True

    @precondition(lambda self: any(q.token and not q.over for q in self.lanes.values()))
    @rule(data=st.data())
    def a_lease_runs_out(self, data: st.DataObject) -> None:
        # By number, since the keys are random and a replay must choose the same.
        leased = [key for key, queue in self.lanes.items() if queue.token and not queue.over]
        self._run_out(leased[data.draw(st.integers(0, len(leased) - 1))])

    @precondition(lambda self: any(q.held_back for q in self.lanes.values()))
    @rule()
    def backoff_passes(self) -> None:
        self._backoff_passes()

    @rule(worker=st.sampled_from(sorted(SINKS)))
    def crash(self, worker: int) -> None:
        """Its leases stay until they run out."""
        self.holds = [hold for hold in self.holds if hold.worker != worker]
        self.owners[worker] = str(uuid.uuid4())

    # What must hold -----------------------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        """The database is as the model says, and first arrivals are in order."""
        rows = self.conn.execute(
            "select id::text, state, attempts, settled_at is not null as settled from gre_relay_deliveries"
        ).fetchall()
        model = {row.id: (row.state, row.attempts) for queue in self.lanes.values() for row in queue.rows}
        assert {row["id"]: (row["state"], row["attempts"]) for row in rows} == model
        assert all(row["settled"] == (row["state"] in OPEN) for row in rows)
        lanes = self.conn.execute(
            "select sink, lane_key, ready_at is not null as ready, ready_at > clock_timestamp() as held_back, "
            "lease_token::text as token, lease_until <= clock_timestamp() as over from gre_relay_lanes"
        ).fetchall()
        assert {(lane["sink"], lane["lane_key"]) for lane in lanes} == set(self.lanes)
        for lane in lanes:
            queue = self.lanes[lane["sink"], lane["lane_key"]]
            assert lane["ready"] == queue.ready
            assert (lane["held_back"] or False) == queue.held_back
            assert lane["token"] == queue.token
            assert (lane["over"] or False) == queue.over
            assert queue.ready or not queue.pending, "a stuck lane: work, and nobody will ever look"
            order = [row.id for row in queue.rows]
            known = [name for name in queue.arrived if name in order]
            assert known == sorted(known, key=order.index)
            seqs = [row.seq for row in queue.rows if row.seq is not None]
            assert seqs == sorted(seqs)

    def teardown(self) -> None:
        """Every worker dies; one more comes and finishes."""
        self.holds.clear()
        self._backoff_passes()
        for key in [key for key, queue in self.lanes.items() if queue.token and not queue.over]:
            self._run_out(key)
        for sink in sorted(set(SINKS.values())):
            for _ in range(200):
                got = self._one(
                    "select gre_relay_claim_v1(%s, %s, 3, 5, 300)", sink, (token := str(uuid.uuid4()))
                )
                if not got["lanes"] and not got["emptied_lanes"]:
                    break
                batch: Batch = []
                for lane in got["lanes"]:
                    names = [d["id"] for d in lane["deliveries"]]
                    queue = self.lanes[sink, lane["lane_key"]]
                    queue.arrived += [name for name in names if name not in queue.arrived]
                    hold = Hold(0, (sink, lane["lane_key"]), token, names, sent=len(names))
                    batch.append((hold, self._result(hold, None, False, False)))
                answer = self._settle(sink, batch)
                assert (answer["busy"], answer["lost"]) == ([], [])
            assert got["next_in"] is None, "something waits and cannot be claimed"
        stuck = self.conn.execute(
            "select (select count(*) from gre_relay_deliveries where state = 'pending') as pending, "
            "(select count(*) from gre_relay_lanes where ready_at is not null or lease_token is not null) as lanes"
        ).fetchone()
        assert stuck == {"pending": 0, "lanes": 0}
        for row in self.conn.execute("select id::text, state from gre_relay_deliveries").fetchall():
            assert row["state"] in OPEN
        for queue in self.lanes.values():
            order = [row.id for row in queue.rows]
            arrived = [name for name in queue.arrived if name in order]
            assert arrived == sorted(arrived, key=order.index)
            # What never arrived was given up on purpose.
            assert {row.id for row in queue.rows if row.id not in arrived} <= {
                row.id for row in queue.rows if row.state in ("dead", "expired")
            }

    # Helpers ------------------------------------------------------------------------------------------------

    def _one(self, query: str, *args: Any) -> Any:
        row = self.conn.execute(query, list(args)).fetchone()
        assert row is not None
        return next(iter(row.values()))

    def _lane(self, key: Key) -> dict[str, Any]:
        row = self.conn.execute(
            "select * from gre_relay_lanes where sink = %s and lane_key = %s", key
        ).fetchone()
        assert row is not None
        return row

    def _everything(self) -> list[dict[str, Any]]:
        found = []
        for table in ("gre_relay_deliveries", "gre_relay_lanes", "push_notifications"):
            found += self.conn.execute(f"select * from {table} order by 1, 2").fetchall()
        return found

    def _pick(self, data: st.DataObject) -> Hold:
        return self.holds[data.draw(st.integers(0, len(self.holds) - 1))]

    def _settle(self, sink: str, batch: Batch) -> dict[str, Any]:
        results = Jsonb([result for _, result in batch])
        found: dict[str, Any] = self._one("select gre_relay_settle_v1(%s, %s)", sink, results)
        return found

    def _run_out(self, key: Key) -> None:
        self.conn.execute(
            "update gre_relay_lanes set lease_until = clock_timestamp() - interval '1 s' where sink = %s and lane_key = %s",
            key,
        )
        self.lanes[key].over = True
        for hold in self.holds:
            if hold.key == key and hold.token == self.lanes[key].token:
                hold.alive = False

    def _backoff_passes(self) -> None:
        self.conn.execute(
            "update gre_relay_lanes set ready_at = clock_timestamp() - interval '1 s' where ready_at > clock_timestamp()"
        )
        for queue in self.lanes.values():
            queue.held_back = False

    def _result(self, hold: Hold, failing: str | None, expired: bool, keep: bool) -> dict[str, Any]:
        """What a worker says: so many went out; the next one expired, or failed."""
        result: dict[str, Any] = {
            "lane": hold.key[1],
            "token": hold.token,
            "done": hold.ids[hold.noted : hold.sent],
        }
        if keep:
            return {**result, "keep": True}
        rest = hold.ids[hold.sent :]
        if expired and rest and hold.alive:
            result["expired"] = rest[:1]
            rest = rest[1:]
        if failing and rest:
            state = "dead" if failing == "dead" else "retry"
            result["failed"] = {
                "ids": rest[:1], "state": state, "error": "400: refused", "spend": failing != "outage",
            }  # fmt: skip
            result["retry_in"] = 100 if failing == "retry later" else 0
        return result

    def _apply(self, batch: Batch, locked: Key | None = None) -> None:
        """What a settle means to the model: what went out always counts, the rest is for the lease's owner."""
        for hold, result in batch:
            for row in self.lanes[hold.key].pending:
                for state in ("done", "expired"):
                    if row.id in result.get(state, ()):
                        row.state = state
        for hold, result in batch:
            queue = self.lanes[hold.key]
            if queue.token != hold.token or result.get("keep") or hold.key == locked:
                continue
            failed = result.get("failed", {"ids": ()})
            for row in queue.pending:
                if row.id in failed["ids"]:
                    row.attempts += failed["spend"]
                    row.state = "dead" if failed["state"] == "dead" else "pending"
            queue.token, queue.over = None, False
            queue.ready = bool(queue.pending)
            queue.held_back = queue.ready and result.get("retry_in", 0) > 0


def test_whatever_workers_do_the_outbox_keeps_its_promises(db: Database) -> None:
    with db.connect() as conn, db.connect(autocommit=False) as portal:
        conn.execute("set statement_timeout = '5s'")

        class OnThisDatabase(Outbox):
            pass

        OnThisDatabase.conn, OnThisDatabase.portal = conn, portal
        run_state_machine_as_test(
            OnThisDatabase,
            settings=settings(
                max_examples=80,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
