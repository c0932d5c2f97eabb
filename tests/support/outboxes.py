"""The outbox of one sink, in PostgreSQL or in memory, under one interface: a test written once runs against both.

A test calls the functions through `store`, as the relay does; the other methods prepare and inspect rows. The
coroutines run in a `VirtualLoop`, whose clock the outbox in memory uses.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from gre_bridge.db.postgrest import PostgrestClient
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Claim, ClaimRequest, LaneResult, Settled
from tests.conftest import SERVICE, Database
from tests.support.relay import Outbox, now

Conn = psycopg.Connection[dict[str, Any]]
DRIFT = 20.0
"""Seconds by which times of the two may differ: PostgreSQL's clock goes on while a test runs."""


@dataclass(frozen=True)
class LaneState:
    """A lane as it is stored; times are seconds from now, None where there is none."""

    ready_in: float | None
    lease_left: float | None
    token: str | None
    owner: str | None

    def about(self) -> LaneState:
        """The same with times that are compared as `about` does."""
        return replace(self, ready_in=about(self.ready_in), lease_left=about(self.lease_left))


RESTING = LaneState(None, None, None, None)


class Subject(ABC):
    """One implementation of the outbox."""

    store: RelayDatabase
    sink: str

    @abstractmethod
    def put(self, lane: str, count: int = 1) -> list[str]:
        """Commit deliveries; returns their ids in order."""

    @abstractmethod
    def delete(self, *ids: str) -> None:
        """Delete deliveries, as the deletion of their messages does."""

    @abstractmethod
    def age(self, seconds: float) -> None:
        """Let so much time pass, as far as the rows can tell; a negative number sets the clock back."""

    @abstractmethod
    def locked(self, *names: str) -> contextlib.AbstractContextManager[None]:
        """Lanes and deliveries that the open transaction of another has locked."""

    @abstractmethod
    def deliveries(self) -> dict[str, tuple[str, int, str]]:
        """State, attempts and last error by id."""

    @abstractmethod
    def lanes(self) -> dict[str, LaneState]:
        """The lanes by key."""

    async def claim(self, **options: Any) -> Claim:
        """Claim with the options of `request`."""
        return await self.store.claim(self.request(**options))

    async def exchange(self, *results: LaneResult, **options: Any) -> tuple[Settled, Claim]:
        return await self.store.exchange(results, self.request(**options))

    def request(
        self,
        owner: str | None = None,
        token: str | None = None,
        held: Sequence[str] = (),
        lanes: int = 100,
        per_lane: int = 100,
        lease: float = 60.0,
    ) -> ClaimRequest:
        """A claim of a worker of its own, unless an owner is given."""
        return ClaimRequest(
            sink=self.sink,
            owner=owner or str(uuid.uuid4()),
            token=token or str(uuid.uuid4()),
            held=tuple(held),
            lanes=lanes,
            per_lane=per_lane,
            lease=lease,
        )

    async def settle(self, *results: LaneResult) -> Settled:
        return await self.store.settle(sink=self.sink, results=results)

    async def extend(
        self, token: str, *lanes: str, lease: float = 60.0
    ) -> tuple[frozenset[str], frozenset[str]]:
        return await self.store.extend(sink=self.sink, token=token, lanes=list(lanes), lease=lease)

    async def release(self, owner: str) -> bool:
        return await self.store.release(sink=self.sink, owner=owner)


class InMemory(Subject):
    """tests/support/relay.py."""

    def __init__(self, sink: str = "pusher") -> None:
        self.sink = sink
        self.outbox = Outbox()
        self.store = self.outbox.store

    def put(self, lane: str, count: int = 1) -> list[str]:
        ids = [str(uuid.uuid4()) for _ in range(count)]
        self.outbox.put(lane, *ids)
        return ids

    def delete(self, *ids: str) -> None:
        for queue in self.outbox.lanes.values():
            queue.rows = [row for row in queue.rows if row.id not in ids]
        for name in ids:
            self.outbox.rows().pop(name, None)

    def age(self, seconds: float) -> None:
        for queue in self.outbox.lanes.values():
            queue.until -= seconds
            queue.ready = None if queue.ready is None else queue.ready - seconds
        for row in self.outbox.rows().values():
            row.created -= seconds

    @contextlib.contextmanager
    def locked(self, *names: str) -> Iterator[None]:
        self.outbox.locked |= set(names)
        yield
        self.outbox.locked -= set(names)

    def deliveries(self) -> dict[str, tuple[str, int, str]]:
        return {name: (row.state, row.attempts, row.error) for name, row in self.outbox.rows().items()}

    def lanes(self) -> dict[str, LaneState]:
        return {
            key: LaneState(
                None if q.ready is None else q.ready - now(),
                None if q.token is None else q.until - now(),
                q.token,
                q.owner,
            )
            for key, q in self.outbox.lanes.items()
        }


class _Functions:
    """PostgREST's part in a call: arguments by name, of the types that the function declares; its JSON comes back."""

    def __init__(self, worker: Conn) -> None:
        self._worker = worker
        self._types: dict[str, dict[str, str]] = {}

    async def rpc(self, function: str, arguments: dict[str, Any]) -> Any:
        if function not in self._types:
            rows = self._worker.execute(
                "select n as name, format_type(t, null) as type from pg_proc p, "
                "unnest(p.proargnames, p.proargtypes::oid[]) a (n, t) where p.proname = %s",
                [function],
            ).fetchall()
            self._types[function] = {row["name"]: row["type"] for row in rows}
        types = {name: self._types[function][name] for name in arguments}
        call = f"public.{function}({', '.join(f'{name} => x.{name}' for name in types)})"
        columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
        row = self._worker.execute(
            f"select {call} as answer from json_to_record(%s) x ({columns})".encode(), [json.dumps(arguments)]
        ).fetchone()
        assert row is not None
        return row["answer"]


class InDatabase(Subject):
    """The SQL functions, called by the daemon's own `RelayDatabase` with the rights of the service key."""

    def __init__(self, owner: Conn, worker: Conn, portal: Conn, sink: str = "pusher") -> None:
        """`owner` owns the tables, `worker` has the claims of a service key, `portal` commits nothing by itself."""
        self._owner, self._portal = owner, portal
        self.sink = sink
        observer: Any = SimpleNamespace(
            database_called=lambda _: contextlib.nullcontext(), database_recovered=lambda: None
        )
        self.store = RelayDatabase(rest=cast("PostgrestClient", _Functions(worker)), observer=observer)

    @classmethod
    @contextlib.contextmanager
    def of(cls, db: Database) -> Iterator[InDatabase]:
        with (
            db.connect() as owner,
            db.as_caller(SERVICE) as worker,
            db.connect(autocommit=False) as portal,
        ):
            worker.execute("set statement_timeout = '30s'")  # nothing here waits for a lock
            yield cls(owner, worker, portal)

    def clear(self) -> None:
        """Delete all lanes and deliveries."""
        self._owner.execute("delete from gre_relay_deliveries")
        self._owner.execute("delete from gre_relay_lanes")

    def put(self, lane: str, count: int = 1) -> list[str]:
        for _ in range(count):
            self._enqueue(self._owner, lane)
        rows = self._owner.execute(
            "select id::text from gre_relay_deliveries where sink = %s and lane_key = %s order by ord desc limit %s",
            [self.sink, lane, count],
        ).fetchall()
        return [row["id"] for row in reversed(rows)]

    def _enqueue(self, conn: Conn, lane: str) -> None:
        conn.execute("select gre.enqueue_event(%s, %s, 'read', '{}')", [[self.sink], lane])

    def delete(self, *ids: str) -> None:
        self._owner.execute("delete from gre_relay_deliveries where id = any(%s::uuid[])", [list(ids)])

    def age(self, seconds: float) -> None:
        for table, columns in (
            ("gre_relay_lanes", ("ready_at", "lease_until")),
            ("gre_relay_deliveries", ("created_at", "settled_at")),
        ):
            moved = ", ".join(f"{column} = {column} - %(by)s * interval '1 second'" for column in columns)
            self._owner.execute(
                f"update {table} set {moved} where sink = %(sink)s".encode(),
                {"by": seconds, "sink": self.sink},
            )

    @contextlib.contextmanager
    def locked(self, *names: str) -> Iterator[None]:
        with self._portal.transaction(force_rollback=True):
            for lane in sorted(self.lanes().keys() & set(names)):
                self._enqueue(self._portal, lane)  # as the trigger of a portal's insert does
            self._portal.execute(
                "select from gre_relay_deliveries where id::text = any(%s) order by id for no key update",
                [list(names)],
            )
            yield

    def deliveries(self) -> dict[str, tuple[str, int, str]]:
        rows = self._owner.execute(
            "select id::text, state, attempts, coalesce(last_error, '') as error, settled_at is not null as settled "
            "from gre_relay_deliveries where sink = %s",
            [self.sink],
        ).fetchall()
        assert all(row["settled"] == (row["state"] != "pending") for row in rows)
        return {row["id"]: (row["state"], row["attempts"], row["error"]) for row in rows}

    def lanes(self) -> dict[str, LaneState]:
        return lanes_by_sink(self._owner).get(self.sink, {})


def lanes_by_sink(conn: Conn) -> dict[str, dict[str, LaneState]]:
    """The lanes of each sink that has any, by key."""
    found: dict[str, dict[str, LaneState]] = {}
    for row in conn.execute(
        "select sink, lane_key, extract(epoch from ready_at - clock_timestamp())::float as ready_in, "
        "extract(epoch from lease_until - clock_timestamp())::float as lease_left, "
        "lease_token::text as token, lease_owner::text as owner from gre_relay_lanes"
    ):
        sink, key = row.pop("sink"), row.pop("lane_key")
        found.setdefault(sink, {})[key] = LaneState(**row)
    return found


def about(seconds: float | None) -> Any:
    """Return an object that equals every time at most DRIFT seconds away."""
    return None if seconds is None else pytest.approx(seconds, abs=DRIFT)


def assert_same_claim(one: Claim, other: Claim) -> None:
    """Two answers bring the same; of a delivery's content only what the loop needs is compared."""
    assert [(lane.key, [(d.id, d.attempts, d.age) for d in lane.deliveries]) for lane in one.lanes] == [
        (lane.key, [(d.id, d.attempts, about(d.age)) for d in lane.deliveries]) for lane in other.lanes
    ]
    assert (one.token, one.emptied_lanes, one.recovered_lanes) == (
        other.token, other.emptied_lanes, other.recovered_lanes,
    )  # fmt: skip
    assert one.next_in == about(other.next_in)
