"""Files: examines what was stored, one at a time, and stores the view and the thumb of a picture.

The database decides which file is next, and what a failure of ours means: it only postpones. The bytes are written to a
temporary file without a name and read by the decoder's process; this process never decodes them. A worker may be killed at any
point: after the lease another one examines the file again, and a picture that was stored before counts as stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import IO, Literal, Protocol

import structlog

from gre_bridge.db.media import FileResult, MediaClaim, MediaFile, Settlement
from gre_bridge.errors import BridgeError, ConfigurationError, TransientError
from gre_bridge.jobs.loop import JobLoop, Pause
from gre_bridge.media.results import MAX_BYTES, Examined, MediaUnavailable, Refused
from gre_bridge.metrics import Metrics
from gre_bridge.storage.bucket import BUCKET
from gre_bridge.storage.errors import Missing

log = structlog.get_logger("gre.jobs")

DEBOUNCE, INTERVAL = 0.05, 5.0
"""Shortest and longest time in seconds from a call that found nothing to the next one: after a wake-up, and without."""
POLL_SHARE, LONGEST_POLL = 0.125, 0.5
"""The share of the time since the last file after which a process that polls looks again, and the longest such time in seconds."""
LEASE = 60.0
"""Seconds after which another worker may examine a file whose worker says nothing."""
EXTEND = 15.0
"""Seconds between two extensions of the lease."""
SETTLE_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt to settle: the work is not thrown away because the database restarts."""
BUSY_PAUSE, LONGEST_BUSY_PAUSE, BUSY_WITHIN = 0.02, 1.0, 30.0
"""First and longest pause, and all of them, in seconds, while another transaction holds the file or its session. Then the file is
given back."""
GONE_AFTER = 5
"""Failed attempts after which an object that Storage does not find counts as deleted by somebody."""
RELEASE_WITHIN = 2.0
"""Seconds for the release of the lease at a stop."""
OUTAGE, LONGEST_OUTAGE = 0.5, 30.0
"""First and longest pause in seconds after a failure that the next file is likely to meet, too."""
OUTAGES = frozenset({"not_installed", "start", "scanner"})
"""Reasons of such failures. The others may be of this file alone, whose next attempt has its own time."""
LACKING = frozenset({"heic_not_installed", "avif_not_installed"})
"""Reasons that last as long as this process: another worker may have the library. The file's bytes are not fetched again."""
MAX_LACKING = 10_000
"""Files of which that is remembered."""


class MediaStore(Protocol):
    """The database, as the job needs it. The methods raise BridgeError."""

    async def claim_file(self, worker: str, *, lease: float) -> MediaClaim:
        """Lease the next stored file for `lease` seconds, fairly between players."""

    async def extend_file(self, worker: str, file: str, *, lease: float) -> bool:
        """Let the lease end in `lease` seconds, at least one. Returns False if it is lost."""

    async def settle_file(self, worker: str, result: FileResult) -> Settlement:
        """Record what became of a leased file."""


class Objects(Protocol):
    """Storage, as the job needs it. The methods raise BridgeError."""

    async def download(self, bucket: str, name: str, into: IO[bytes], *, limit: int) -> int:
        """Write an object into a file; returns its bytes."""

    async def upload(self, bucket: str, name: str, content: bytes, type_: str) -> None:
        """Store an object; one that is there stays."""


Examine = Callable[[IO[bytes]], Awaitable[Examined | Refused]]


class MediaJob(JobLoop):
    """Has stored files examined."""

    name = "media"

    def __init__(
        self,
        *,
        store: MediaStore,
        objects: Objects,
        examine: Examine,
        metrics: Metrics,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`examine` is given a file and its position is not kept. See JobLoop."""
        super().__init__(metrics=metrics, jitter=jitter)
        self._store = store
        self._objects = objects
        self._examine = examine
        self._worker = str(uuid.uuid4())
        self._leased: str | None = None
        self._outages = 0
        self._lacking: dict[str, str] = {}
        self._found_at = self._called_at = -math.inf

    def poll(self) -> None:
        """Look for a file, the more rarely the longer there was none. For a process that polls, as often as it does."""
        now = asyncio.get_running_loop().time()
        if now - self._called_at >= min((now - self._found_at) * POLL_SHARE, LONGEST_POLL):
            self.notify()

    async def run(self) -> None:
        """Examine until cancelled; then kill the decoder and give the file back."""
        try:
            await super().run()
        finally:
            if self._leased is not None:
                with contextlib.suppress(BridgeError, TimeoutError):
                    async with asyncio.timeout(RELEASE_WITHIN):
                        await self._store.extend_file(self._worker, self._leased, lease=0.0)

    async def _call(self) -> Pause:
        claim = await self._store.claim_file(self._worker, lease=LEASE)
        self._called_at = asyncio.get_running_loop().time()
        if claim.file is None:
            self._outages = 0
            longest = INTERVAL if claim.next_in is None else min(max(claim.next_in, LONGEST_POLL), INTERVAL)
            return Pause(DEBOUNCE, longest)
        started, self._leased = time.monotonic(), claim.file.id
        known = self._lacking.get(claim.file.id)
        result = FileResult(claim.file.id, "failed", code=known) if known else await self._leasing(claim.file)
        settled = result is not None and await self._settle(result)
        kind = result.result if result is not None and settled else "lost"
        self._leased, self._found_at = None, asyncio.get_running_loop().time()
        self._metrics.files_examined.labels(kind).inc()
        self._metrics.file_time.observe(time.monotonic() - started)
        if result is not None and result.result == "failed" and not known:
            log.warning("file_postponed", file=result.id, code=result.code)
            if result.code in LACKING:
                if len(self._lacking) >= MAX_LACKING:
                    self._lacking.clear()
                self._lacking[result.id] = result.code
        if result is None or not result.outage:
            if result is None or result.result != "failed":
                self._outages = 0
            return Pause(0.0, 0.0)
        self._outages += 1
        return self._backoff(OUTAGE, LONGEST_OUTAGE, self._outages - 1)

    async def _leasing(self, file: MediaFile) -> FileResult | None:
        """Examine the file while its lease is prolonged. Returns None if the lease is lost."""
        work = asyncio.create_task(self._examined(file))
        try:
            while True:
                done, _ = await asyncio.wait({work}, timeout=EXTEND)
                if done:
                    return work.result()
                with contextlib.suppress(TransientError):  # the next one may succeed
                    if not await self._store.extend_file(self._worker, file.id, lease=LEASE):
                        return None
        finally:
            work.cancel()
            await asyncio.wait({work})

    async def _examined(self, file: MediaFile) -> FileResult:
        """Return what is to be settled. Only the content of the file may refuse it."""
        size: int | None = None
        try:
            with tempfile.TemporaryFile(prefix="gre-media-") as source:
                size = await self._objects.download(BUCKET, file.object, source, limit=MAX_BYTES)
                if size != file.bytes:
                    return FileResult(file.id, "failed", code="size_differs")
                source.flush()
                found = await self._examine(source)
            if isinstance(found, Refused):
                return FileResult(file.id, "refused", code=found.code)
            for variant, picture in (("view", found.view), ("thumb", found.thumb)):
                if picture is not None:
                    name = f"{file.object.removesuffix('original')}{variant}"
                    await self._objects.upload(BUCKET, name, picture.data, picture.type)
        except MediaUnavailable as error:
            kind: Literal["crashed", "failed"] = "crashed" if error.reason == "crashed" else "failed"
            return FileResult(file.id, kind, code=error.reason, outage=error.reason in OUTAGES)
        except BridgeError as error:
            if size is None and isinstance(error, Missing) and file.attempt >= GONE_AFTER:
                return FileResult(file.id, "gone", code=error.code)
            outage = isinstance(error, TransientError | ConfigurationError)
            return FileResult(file.id, "failed", code=f"storage_{error.code}"[:40], outage=outage)
        except OSError:
            return FileResult(file.id, "failed", code="disk", outage=True)
        except Exception as error:  # noqa: BLE001 - a defect of ours is no fault of the file
            log.error("file_examination_defect", file=file.id, error=type(error).__name__)
            return FileResult(file.id, "failed", code="defect")
        return FileResult(
            file.id, "ready", kind=found.kind, type=found.type, width=found.width, height=found.height, preview=found.preview
        )  # fmt: skip

    async def _settle(self, result: FileResult) -> bool:
        """Record the result; returns False if the lease is lost. A failure is repeated, for less than the lease."""
        failures, busy, waited = iter(SETTLE_PAUSES), 0, 0.0
        while True:
            try:
                settled = await self._store.settle_file(self._worker, result)
            except TransientError:
                if (pause := next(failures, None)) is None:
                    raise
            else:
                if settled is not Settlement.BUSY:
                    return settled is Settlement.SETTLED
                if waited >= BUSY_WITHIN:
                    await self._store.extend_file(self._worker, result.id, lease=0.0)
                    return False
                pause = min(BUSY_PAUSE * 2.0**busy, LONGEST_BUSY_PAUSE)
                busy, waited = busy + 1, waited + pause
            await asyncio.sleep(pause)
