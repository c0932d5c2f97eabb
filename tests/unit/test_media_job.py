"""The job that examines files, in virtual time, with a database and a Storage in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import IO, Any

import jwt
import pytest

from gre_bridge.config.settings import Settings
from gre_bridge.db.media import FileResult, MediaClaim, MediaDatabase, MediaFile, Settlement
from gre_bridge.errors import BridgeError, ConfigurationError, TransientError
from gre_bridge.jobs.files import FileJobs, key_reason, off_reason
from gre_bridge.jobs.media import (
    BUSY_WITHIN,
    DEBOUNCE,
    EXTEND,
    GONE_AFTER,
    INTERVAL,
    LEASE,
    LONGEST_OUTAGE,
    LONGEST_POLL,
    MediaJob,
)
from gre_bridge.media.results import MAX_BYTES, Examined, MediaUnavailable, Picture, Refused
from gre_bridge.metrics import Metrics
from gre_bridge.storage.bucket import BUCKET
from gre_bridge.storage.errors import Missing, StorageRefused
from tests.support.relay import DOWN, START, elapse, now, until, virtual

IMAGE = Examined(
    "image", "image/png", 40, 30, "abc", Picture("image/jpeg", 40, 30, b"view"), Picture("image/webp", 40, 30, b"thumb")
)  # fmt: skip
DOCUMENT = Examined("file", "application/pdf")


class Files:
    """Stored files, with the leases of one worker. `answers` replace the next answers of settle."""

    def __init__(self, *names: str) -> None:
        self.stored = {name: b"bytes of " + name.encode() for name in names}
        self.waiting = list(names)
        self.leased: dict[str, float] = {}
        self.settled: list[FileResult] = []
        self.extended: list[float] = []
        self.claimed: list[float] = []
        self.attempts: dict[str, int] = {}
        self.busy = 0
        self.next_in: float | None = None
        self.failures: list[BridgeError] = []
        self.lost = False

    async def claim_file(self, worker: str, *, lease: float) -> MediaClaim:
        assert (len(worker), lease) == (36, LEASE)
        self.worker = worker
        self.claimed.append(now() - START)
        if not self.waiting:
            return MediaClaim(None, self.next_in)
        name = self.waiting.pop(0)
        self.leased[name] = now() + lease
        return MediaClaim(
            MediaFile(name, f"29/{name}/original", len(self.stored[name]), self.attempts.get(name, 0))
        )

    async def extend_file(self, worker: str, file: str, *, lease: float) -> bool:
        assert worker == self.worker
        self.extended.append(round(now() - START, 3))
        if self.failures:
            raise self.failures.pop(0)
        assert now() < self.leased[file], "the lease was over"
        self.leased[file] = now() + max(lease, 1)
        self.ended = now()
        return not self.lost

    async def settle_file(self, worker: str, result: FileResult) -> Settlement:
        assert worker == self.worker
        if self.failures:
            raise self.failures.pop(0)
        if self.busy:
            self.busy -= 1
            return Settlement.BUSY
        self.settled.append(result)
        return Settlement.SETTLED if now() < self.leased.pop(result.id) else Settlement.LOST


class Bucket:
    """Objects by name; `failures` are raised by the next calls."""

    def __init__(self, files: Files) -> None:
        self.objects = {f"29/{name}/original": content for name, content in files.stored.items()}
        self.types: dict[str, str] = {}
        self.failures: list[BridgeError | OSError] = []

    async def download(self, bucket: str, name: str, into: IO[bytes], *, limit: int) -> int:
        assert (bucket, limit) == (BUCKET, MAX_BYTES)
        if self.failures:
            raise self.failures.pop(0)
        return into.write(self.objects[name])

    async def upload(self, bucket: str, name: str, content: bytes, type_: str) -> None:
        assert bucket == BUCKET
        if self.failures:
            raise self.failures.pop(0)
        self.objects[name], self.types[name] = content, type_


Examine = Callable[[IO[bytes]], Awaitable[Examined | Refused]]


def finding(*found: Examined | Refused | Exception) -> Examine:
    """Return these results in turn, the last one again and again."""
    left = list(found)

    async def examine(source: IO[bytes]) -> Examined | Refused:
        source.seek(0)
        assert source.read().startswith(b"bytes of ")
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return examine


@asynccontextmanager
async def running(
    files: Files, examine: Examine, bucket: Bucket | None = None, metrics: Metrics | None = None
) -> AsyncIterator[MediaJob]:
    job = MediaJob(
        store=files, objects=bucket or Bucket(files), examine=examine, metrics=metrics or Metrics(), jitter=lambda: 1.0
    )  # fmt: skip
    task = asyncio.create_task(job.run())
    try:
        yield job
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=60)


@virtual
async def test_a_picture_gets_its_view_and_thumb_before_it_is_ready() -> None:
    files, metrics = Files("a"), Metrics()
    bucket = Bucket(files)
    async with running(files, finding(IMAGE), bucket, metrics):
        await elapse(0.1)
    assert files.settled == [
        FileResult("a", "ready", kind="image", type="image/png", width=40, height=30, preview="abc")
    ]
    assert files.settled[0].to_json() == {
        "id": "a", "result": "ready", "kind": "image", "type": "image/png", "width": 40, "height": 30, "preview": "abc",
    }  # fmt: skip
    assert {name: bucket.objects[name] for name in bucket.types} == {
        "29/a/view": b"view",
        "29/a/thumb": b"thumb",
    }
    assert bucket.types == {"29/a/view": "image/jpeg", "29/a/thumb": "image/webp"}
    assert metrics.registry.get_sample_value("gre_files_examined_total", {"result": "ready"}) == 1
    assert metrics.registry.get_sample_value("gre_file_examination_seconds_count") == 1


@virtual
async def test_a_document_has_no_pictures_and_files_follow_each_other_at_once() -> None:
    files = Files("a", "b", "c")
    bucket = Bucket(files)
    async with running(files, finding(DOCUMENT), bucket):
        await elapse(0.1)
    assert files.settled == [FileResult(name, "ready", kind="file", type="application/pdf") for name in "abc"]
    assert bucket.types == {}


@virtual
async def test_the_content_refuses_a_file_and_nothing_else_does() -> None:
    files = Files("virus", "crash", "slow", "gone", "large", "disk", "bug", "changed", "good")
    bucket = Bucket(files)
    bucket.objects["29/changed/original"] += b"more"
    plan: dict[str, Examined | Refused | Exception] = {
        "virus": Refused("virus"), "crash": MediaUnavailable("crashed", "x"), "slow": MediaUnavailable("wall_clock", "x"),
        "bug": ZeroDivisionError("with text of the file"), "good": DOCUMENT,
    }  # fmt: skip
    failures = {
        "gone": Missing("x", code="missing"),
        "large": StorageRefused("x", code="oversize"),
        "disk": OSError(28, "full"),
    }
    real = bucket.download

    async def download(place: str, name: str, into: IO[bytes], *, limit: int) -> int:
        if error := failures.get(name.split("/")[1]):
            raise error
        return await real(place, name, into, limit=limit)

    bucket.download = download  # type: ignore[method-assign]

    async def examine(source: IO[bytes]) -> Examined | Refused:
        source.seek(0)
        answer = plan[source.read().decode().removeprefix("bytes of ")]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with running(files, examine, bucket):
        await elapse(600)
    assert [(one.id, one.result, one.code) for one in files.settled] == [
        ("virus", "refused", "virus"),
        ("crash", "crashed", "crashed"),
        ("slow", "failed", "wall_clock"),
        ("gone", "failed", "storage_missing"),
        ("large", "failed", "storage_oversize"),
        ("disk", "failed", "disk"),
        ("bug", "failed", "defect"),
        ("changed", "failed", "size_differs"),
        ("good", "ready", None),
    ]


@virtual
async def test_a_picture_that_cannot_be_stored_is_postponed_and_not_refused() -> None:
    files = Files("a")
    bucket = Bucket(files)

    async def refuse(place: str, name: str, content: bytes, type_: str) -> None:
        raise StorageRefused("413", code="413")

    bucket.upload = refuse  # type: ignore[method-assign]
    async with running(files, finding(IMAGE), bucket):
        await elapse(0.1)
    assert files.settled == [FileResult("a", "failed", code="storage_413")]


@virtual
async def test_while_nothing_is_stored_it_polls_and_a_wakeup_makes_it_look_soon() -> None:
    files = Files()
    async with running(files, finding(DOCUMENT)) as job:
        await elapse(3 * INTERVAL + 0.5)
        assert files.claimed == [0, INTERVAL, 2 * INTERVAL, 3 * INTERVAL]
        for _ in range(10):
            job.notify()
            await elapse(DEBOUNCE / 10)
        assert len(files.claimed) == 6, "at once, and once more after the debounce"
        files.next_in = 0.0  # another worker is about to take it
        await elapse(INTERVAL)
    assert len(files.claimed) <= 7 + INTERVAL / LONGEST_POLL


@virtual
async def test_a_process_that_polls_looks_for_files_the_more_rarely_the_longer_there_was_none() -> None:
    files = Files()
    async with running(files, finding(DOCUMENT)) as job:

        async def polls(seconds: float) -> int:
            before = len(files.claimed)
            for _ in range(round(seconds / 0.02)):
                job.poll()
                await elapse(0.02)
            return len(files.claimed) - before

        assert 18 <= await polls(10) <= 20, "each half of a second, where nobody sends files"
        files.stored["a"] = b"bytes of a"
        files.waiting.append("a")
        job._objects.objects["29/a/original"] = files.stored["a"]  # type: ignore[attr-defined]
        await polls(0.6)
        assert [one.id for one in files.settled] == ["a"]
        assert await polls(0.2) >= 3, "the next one comes soon"
        assert await polls(10) <= 40
        assert 18 <= await polls(10) <= 20


@virtual
async def test_an_object_that_is_missing_again_and_again_is_gone_and_one_that_is_there_never() -> None:
    files = Files("once", "often")
    files.attempts["often"] = GONE_AFTER
    bucket = Bucket(files)

    async def missing(*_: object, **__: object) -> int:
        raise Missing("x", code="missing")

    bucket.download = missing  # type: ignore[method-assign, assignment]
    async with running(files, finding(IMAGE), bucket):
        await elapse(10)
    assert [(one.id, one.result) for one in files.settled] == [("once", "failed"), ("often", "gone")]

    files = Files("there")
    files.attempts["there"] = GONE_AFTER
    bucket = Bucket(files)
    bucket.upload = missing  # type: ignore[method-assign, assignment]
    async with running(files, finding(IMAGE), bucket):
        await elapse(1)
    assert [(one.id, one.result) for one in files.settled] == [("there", "failed")]


@virtual
async def test_an_outage_slows_it_down_and_its_end_does_not() -> None:
    files = Files(*(f"f{n}" for n in range(40)))
    bucket = Bucket(files)
    bucket.failures = [TransientError("down", code="connect") for _ in range(12)]
    async with running(files, finding(DOCUMENT), bucket):
        await elapse(600)
    gaps = [round(b - a, 3) for a, b in zip(files.claimed, files.claimed[1:], strict=False)]
    assert gaps[:12] == sorted(gaps[:12])
    assert gaps[11] == LONGEST_OUTAGE
    assert set(gaps[12:39]) == {0}
    assert [one.result for one in files.settled] == ["failed"] * 12 + ["ready"] * 28


@virtual
async def test_a_failure_that_is_one_files_own_keeps_no_other_waiting() -> None:
    """As 40 pictures in HEIC where pillow-heif is missing."""
    codes = (
        "heic_not_installed",
        "avif_not_installed",
        "wall_clock",
        "killed",
        "limits",
        "scanner_slow",
        "scanner_error",
    )
    files = Files(*(f"f{n}" for n in range(40)), "good")
    failures = [MediaUnavailable(codes[n % len(codes)], "x") for n in range(40)]
    async with running(files, finding(*failures, DOCUMENT)):
        await elapse(1)
    assert [one.result for one in files.settled] == ["failed"] * 40 + ["ready"]


@virtual
@pytest.mark.parametrize("code", ["not_installed", "start", "scanner"])
async def test_a_failure_that_the_next_file_meets_too_slows_it_down(code: str) -> None:
    files = Files(*(f"f{n}" for n in range(40)))
    async with running(files, finding(MediaUnavailable(code, "x"))):
        await elapse(60)
    assert 5 < len(files.settled) < 10


@virtual
async def test_a_file_that_another_worker_must_decode_is_fetched_and_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = Files("a")
    files.waiting *= 5
    bucket, fetched = Bucket(files), list[str]()
    real = bucket.download

    async def download(place: str, name: str, into: IO[bytes], *, limit: int) -> int:
        fetched.append(name)
        return await real(place, name, into, limit=limit)

    bucket.download = download  # type: ignore[method-assign]
    async with running(files, finding(MediaUnavailable("heic_not_installed", "x")), bucket):
        await elapse(1)
    assert [(one.result, one.code) for one in files.settled] == [("failed", "heic_not_installed")] * 5
    assert len(fetched) == 1
    assert capsys.readouterr().out.count("file_postponed") == 1


async def hang(source: IO[bytes]) -> Examined | Refused:
    await elapse(10 * LEASE)
    return DOCUMENT


@virtual
async def test_the_lease_is_prolonged_while_it_works_although_a_call_fails() -> None:
    files = Files("a")
    files.failures = [DOWN]
    async with running(files, hang):
        await until(lambda: files.settled, 3000)
    assert files.extended[:3] == [EXTEND, 2 * EXTEND, 3 * EXTEND]
    assert files.settled == [FileResult("a", "ready", kind="file", type="application/pdf")]


@virtual
async def test_a_lost_lease_ends_the_work_at_once() -> None:
    files, metrics, ended = Files("a", "b"), Metrics(), asyncio.Event()
    files.lost = True

    async def examine(source: IO[bytes]) -> Examined | Refused:
        try:
            if files.waiting:
                return await hang(source)
        finally:
            ended.set()
        return DOCUMENT

    async with running(files, examine, metrics=metrics):
        await elapse(EXTEND + 1)
    assert ended.is_set()
    assert [one.id for one in files.settled] == ["b"]
    assert metrics.registry.get_sample_value("gre_files_examined_total", {"result": "lost"}) == 1


@virtual
async def test_a_result_is_given_again_while_its_session_is_locked() -> None:
    files = Files("a", "b")
    files.busy = 8
    async with running(files, finding(DOCUMENT)):
        await elapse(10)
    assert [one.id for one in files.settled] == ["a", "b"]

    files = Files("a", "b")
    files.busy, began = 10_000, now()
    async with running(files, finding(DOCUMENT)):
        await elapse(BUSY_WITHIN + 2)
        files.busy = 0
        await elapse(1)
    assert [one.id for one in files.settled] == ["b"]
    assert files.ended < began + BUSY_WITHIN + 2
    assert files.leased["a"] == files.ended + 1, "another worker may have it in a second"


@virtual
async def test_a_result_is_kept_while_the_database_restarts() -> None:
    files = Files("a")
    files.failures = [DOWN, DOWN, DOWN]
    async with running(files, finding(DOCUMENT)):
        await elapse(10)
    assert [one.result for one in files.settled] == ["ready"]
    assert len([at for at in files.claimed if at == 0]) == 1


@virtual
async def test_an_error_of_the_schema_ends_nothing() -> None:
    files = Files("a", "b")
    files.failures = [ConfigurationError("gre_media_settle_v1: unknown function")]
    async with running(files, finding(DOCUMENT)):
        await elapse(30)
    assert [one.id for one in files.settled] == ["b"]


@virtual
async def test_a_stop_kills_the_work_and_gives_the_file_back() -> None:
    files, killed = Files("a"), asyncio.Event()

    async def examine(source: IO[bytes]) -> Examined | Refused:
        try:
            return await hang(source)
        except asyncio.CancelledError:
            killed.set()
            raise

    async with running(files, examine):
        await elapse(1)
    assert killed.is_set()
    assert files.settled == []
    assert files.leased["a"] == files.ended + 1, "another worker may have it in a second"


@virtual
@pytest.mark.parametrize(
    "found", [MediaUnavailable("scanner", "clamd says /path"), TransientError("t", code="timeout")]
)
async def test_nothing_of_a_file_is_logged_but_its_id(
    found: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Files("a")
    async with running(files, finding(found)):
        await elapse(0.1)
    said = capsys.readouterr().out
    assert said.count("file_postponed") == 1
    assert "/original" not in said
    assert "bytes of" not in said


# Which worker examines ----------------------------------------------------------------------------------------------


def settings(**values: str) -> Settings:
    needed = {"SUPABASE_URL": "http://localhost", "SUPABASE_SERVICE_KEY": "sb_secret_x"}
    return Settings(_env_file=None, **{**needed, **values})  # type: ignore[arg-type]


def test_a_worker_without_a_decoder_leaves_files_to_others_unless_it_must_not() -> None:
    assert off_reason(settings(), decoder=True) == ""
    assert off_reason(settings(GRE_MEDIA="on"), decoder=True) == ""
    assert "GRE_MEDIA" in off_reason(settings(GRE_MEDIA="off"), decoder=True)
    assert "Pillow" in off_reason(settings(), decoder=False)
    with pytest.raises(ConfigurationError, match="GRE_MEDIA"):
        off_reason(settings(GRE_MEDIA="on"), decoder=False)


def test_a_worker_with_fewer_rights_has_no_access_to_storage() -> None:
    limited = jwt.encode({"role": "gre_worker"}, "x" * 32)
    assert key_reason(settings()) == ""
    assert key_reason(settings(SUPABASE_SERVICE_KEY=jwt.encode({"role": "service_role"}, "x" * 32))) == ""
    assert "gre_worker" in key_reason(settings(SUPABASE_SERVICE_KEY=limited))


@virtual
async def test_a_worker_that_leaves_files_to_others_claims_none_and_deletes() -> None:
    claimed = list[str]()

    class Store:
        async def call(self, function: str, _: Any, read: Callable[[Any], Any]) -> Any:
            claimed.append(function)
            return read(
                {"names": [], "files": [], "next_in": None, "attachments": 0, "more": False, "on": True,
                 **{part: {"waiting": 0, "oldest": 0, "failing": 0, "error": None} for part in ("examinations", "deletions")}}
            )  # fmt: skip

    for values, functions in (
        ({"GRE_MEDIA": "off"}, {"gre_storage_state_v1", "gre_media_sweep_v1", "gre_storage_deletions_claim_v1"}),
        ({}, {"gre_media_claim_v1", "gre_storage_state_v1", "gre_media_sweep_v1", "gre_storage_deletions_claim_v1"}),
        ({"SUPABASE_SERVICE_KEY": jwt.encode({"role": "gre_worker"}, "x" * 32)}, set()),
    ):  # fmt: skip
        jobs = FileJobs(settings(**values), MediaDatabase(Store()), Metrics())  # type: ignore[arg-type]
        task = asyncio.create_task(jobs.run())
        jobs.notify()
        await elapse(1)
        task.cancel()
        await asyncio.wait({task}, timeout=60)
        assert set(claimed) == functions
        claimed.clear()
