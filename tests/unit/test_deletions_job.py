"""The job that deletes given-up objects, in virtual time, with a database and a Storage in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from gre_bridge.db.media import DeletionClaim, StorageState, Waiting
from gre_bridge.errors import BridgeError, ConfigurationError, TransientError
from gre_bridge.jobs.deletions import (
    FAILURES,
    INTERVAL,
    LEASE,
    LONGEST_OUTAGE,
    NAMES,
    SWEEP_INTERVAL,
    WITHIN,
    DeletionJob,
)
from gre_bridge.metrics import Metrics
from gre_bridge.storage.bucket import BUCKET
from gre_bridge.storage.errors import StorageRefused
from tests.support.relay import START, elapse, now, virtual

CONNECT = TransientError("down", code="connect")


class Names:
    """Names to delete; one that fails is due again after a minute. `unsent` files are swept."""

    def __init__(self, names: Sequence[str] = (), unsent: int = 0) -> None:
        self.due = dict.fromkeys(names, START)
        self.done: list[str] = []
        self.failed: dict[str, list[str]] = {}
        self.claims: list[float] = []
        self.sweeps: list[float] = []
        self.unsent = unsent
        self.still_there = set[str]()

    async def claim_deletions(self, worker: str, *, limit: int, lease: float) -> DeletionClaim:
        assert (len(worker), limit, lease) == (36, NAMES, LEASE)
        self.claims.append(now() - START)
        due = [name for name, at in self.due.items() if at <= now()]
        waits = min((at - now() for at in self.due.values()), default=None)
        return DeletionClaim(tuple(due[:limit]), None if due else waits)

    async def settle_deletions(self, worker: str, done: Sequence[str], failed: dict[str, str]) -> int:
        assert len(worker) == 36
        assert not set(done) & set(failed)
        left = [name for name in done if name in self.still_there]
        for name in done:
            if name not in left:
                del self.due[name]
                self.done.append(name)
        for name, code in {**failed, **dict.fromkeys(left, "still_there")}.items():
            self.due[name] = now() + 60
            self.failed.setdefault(name, []).append(code)
        return len(done) - len(left)

    async def sweep_files(self, *, limit: int) -> tuple[int, bool]:
        self.sweeps.append(now() - START)
        swept = min(limit, self.unsent)
        self.unsent -= swept
        return swept, swept >= limit

    async def state(self) -> StorageState:
        return StorageState(True, Waiting(1, 2.5, 3), Waiting(len(self.due), 5.5, 6))


class Bucket:
    """Objects; `fault` says what a call with these names raises."""

    def __init__(self, names: Sequence[str]) -> None:
        self.objects = set(names)
        self.protected = set[str]()
        self.fault: Callable[[Sequence[str]], BridgeError | None] = lambda _: None
        self.calls: list[int] = []
        self.took = 0.0

    async def delete(self, bucket: str, names: Sequence[str]) -> frozenset[str]:
        assert bucket == BUCKET
        self.calls.append(len(names))
        await elapse(self.took)
        if error := self.fault(names):
            raise error
        deleted = frozenset(names) & self.objects - self.protected
        self.objects -= deleted
        return deleted


@asynccontextmanager
async def running(names: Names, bucket: Bucket, metrics: Metrics | None = None) -> AsyncIterator[None]:
    job = DeletionJob(
        store=names, objects=bucket, metrics=metrics or Metrics(), jitter=lambda: 1.0, clock=now
    )
    task = asyncio.create_task(job.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=60)


def some(count: int) -> list[str]:
    return [f"29/{n:03}/original" for n in range(count)]


@virtual
async def test_names_are_deleted_in_bulk_and_those_without_an_object_are_done_too() -> None:
    names, bucket, metrics = Names(some(250)), Bucket(some(250)[:200]), Metrics()
    async with running(names, bucket, metrics):
        await elapse(0.1)
    assert sorted(names.done) == some(250)
    assert bucket.objects == set()
    assert bucket.calls == [100, 100, 50]
    assert metrics.registry.get_sample_value("gre_storage_deletions_total", {"result": "done"}) == 250


@virtual
@pytest.mark.parametrize(
    "error",
    [
        StorageRefused("409", code="409"),
        TransientError("500", code="500"),
        TransientError("t", code="timeout"),
    ],
)
async def test_an_object_that_cannot_be_deleted_keeps_no_other(error: BridgeError) -> None:
    names, bucket = Names(some(100)), Bucket(some(100))
    bad = some(100)[:4]
    bucket.fault = lambda asked: error if set(asked) & set(bad) else None
    async with running(names, bucket):
        await elapse(30)
    assert sorted(names.done) == some(100)[4:]
    assert {name: set(codes) for name, codes in names.failed.items()} == {
        key: {f"storage_{error.code}"} for key in bad
    }


@virtual
async def test_an_object_that_is_there_after_its_deletion_is_not_done() -> None:
    names, bucket = Names(some(3)), Bucket(some(3))
    bucket.protected = names.still_there = {some(3)[1]}
    async with running(names, bucket):
        await elapse(30)
    assert sorted(names.done) == [some(3)[0], some(3)[2]]
    assert names.failed == {some(3)[1]: ["still_there"]}


@virtual
@pytest.mark.parametrize("error", [CONNECT, ConfigurationError("key", code="403")])
async def test_while_storage_is_away_it_asks_once_for_a_claim(error: BridgeError) -> None:
    names, bucket = Names(some(100)), Bucket(some(100))
    bucket.fault = lambda _: error
    async with running(names, bucket):
        await elapse(1800)
        assert bucket.calls == [100] * len(bucket.calls)
        assert len(bucket.calls) <= 1800 / 60 + 1
        bucket.fault = lambda _: None
        await elapse(60 + LONGEST_OUTAGE)
    assert sorted(names.done) == some(100)


@virtual
async def test_a_storage_that_refuses_everything_costs_a_few_calls_for_a_claim() -> None:
    names, bucket = Names(some(100)), Bucket(some(100))
    bucket.fault = lambda _: TransientError("500", code="500")
    async with running(names, bucket):
        await elapse(1)
    assert bucket.calls == [100] + [1] * FAILURES
    assert {code for codes in names.failed.values() for code in codes} == {"storage_500"}


@virtual
async def test_the_calls_of_a_claim_end_before_the_lease() -> None:
    names, bucket = Names(some(100)), Bucket(some(100))
    bucket.took = 12
    bucket.fault = lambda asked: TransientError("t", code="timeout") if len(asked) > 1 else None
    async with running(names, bucket):
        await elapse(LEASE - 1)
        assert 10 <= len(names.done) <= WITHIN / 12 + 1
        assert set(names.failed) == set(names.due) == set(some(100)) - set(names.done)
        await elapse(3000)
    assert sorted(names.done) == some(100)


@virtual
async def test_while_nothing_is_to_be_deleted_it_polls_and_sweeps_every_minute() -> None:
    names = Names()
    async with running(names, Bucket([])):
        await elapse(2 * SWEEP_INTERVAL + 1)
    assert names.claims == [n * INTERVAL for n in range(9)]
    assert names.sweeps == [0, SWEEP_INTERVAL, 2 * SWEEP_INTERVAL]


@virtual
async def test_files_that_nobody_sent_are_swept_in_bounded_steps() -> None:
    names, metrics = Names(unsent=250), Metrics()
    async with running(names, Bucket([]), metrics):
        await elapse(0.1)
    assert names.sweeps == [0, 0, 0]
    assert metrics.registry.get_sample_value("gre_files_swept_total") == 250


@virtual
async def test_what_waits_is_exported_every_minute() -> None:
    names, metrics, bucket = Names(some(4)), Metrics(), Bucket(some(4))
    bucket.fault = lambda _: CONNECT
    async with running(names, bucket, metrics):
        await elapse(0.1)

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"gre_{name}")

    assert [value(name) for name in ("files_waiting", "files_oldest_age_seconds", "files_failing")] == [
        1,
        2.5,
        3,
    ]
    assert [value(f"storage_deletions_{name}") for name in ("waiting", "oldest_age_seconds")] == [4, 5.5]
