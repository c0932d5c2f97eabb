"""The worker's calls for files: what is examined next, what became of it, and which objects are to be deleted.

Each is safe to repeat. Raises as `db.relay` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Self

from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Json


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A stored file: `object` is the name of its original, `bytes` the size that Storage recorded, `attempt` the failed ones so far."""

    id: str
    object: str
    bytes: int
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class MediaClaim:
    """The file to examine next, or None; then `next_in` is the time in seconds until one is due (None: there is none)."""

    file: MediaFile | None = None
    next_in: float | None = None

    @classmethod
    def from_json(cls, answer: Any) -> Self:
        """Read the answer of `gre_media_claim_v1`."""
        files = [
            MediaFile(str(row["id"]), str(row["object"]), int(row["bytes"]), int(row["attempt"]))
            for row in answer["files"]
        ]
        return cls(files[0] if files else None, _seconds(answer["next_in"]))


@dataclass(frozen=True, slots=True)
class FileResult:
    """What an examination found.

    `ready` and `refused` are facts about the content, `gone` says that there is no object. `failed` (a failure of ours) and
    `crashed` (the decoder died) only postpone. `code` says why; the rest belongs to `ready`. `outage`: the next file is likely to
    meet that failure, too; the database is not told.
    """

    id: str
    result: Literal["ready", "refused", "gone", "failed", "crashed"]
    code: str | None = None
    kind: str | None = None
    type: str | None = None
    width: int | None = None
    height: int | None = None
    preview: str | None = None
    outage: bool = False

    def to_json(self) -> Json:
        """Return the result for `gre_media_settle_v1`."""
        names = ("id", "result", "code", "kind", "type", "width", "height", "preview")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Settlement(Enum):
    """What became of a result: it is stored, it has to be given again in some milliseconds, or the lease is lost."""

    SETTLED = "settled"
    BUSY = "busy"
    LOST = "lost"

    @classmethod
    def from_json(cls, answer: Any) -> Self:
        """Read the answer of `gre_media_settle_v1` for one result."""
        if answer["busy"]:
            return cls.BUSY
        return cls.LOST if answer["lost"] else cls.SETTLED


@dataclass(frozen=True, slots=True)
class DeletionClaim:
    """Names of objects to delete; if there are none, `next_in` is the time in seconds until one is due."""

    names: tuple[str, ...] = ()
    next_in: float | None = None

    @classmethod
    def from_json(cls, answer: Any) -> Self:
        """Read the answer of `gre_storage_deletions_claim_v1`."""
        return cls(tuple(str(name) for name in answer["names"]), _seconds(answer["next_in"]))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work that waits: `oldest` is an age in seconds; `failing` counts what failures of ours postpone, `error` is the code of one."""

    count: int
    oldest: float
    failing: int
    error: str | None = None

    @classmethod
    def from_json(cls, answer: Any) -> Self:
        """Read a part of the answer of `gre_storage_state_v1`."""
        return cls(int(answer["waiting"]), float(answer["oldest"]), int(answer["failing"]), answer["error"])


@dataclass(frozen=True, slots=True)
class StorageState:
    """How files are doing, for metrics and doctor. `on` is False while the project has no Storage."""

    on: bool
    examinations: Waiting
    deletions: Waiting

    @classmethod
    def from_json(cls, answer: Any) -> Self:
        """Read the answer of `gre_storage_state_v1`."""
        parts = (Waiting.from_json(answer[name]) for name in ("examinations", "deletions"))
        return cls(bool(answer["on"]), *parts)


class MediaDatabase:
    """The functions for files, typed."""

    def __init__(self, relay: RelayDatabase) -> None:
        """Call through the worker's database."""
        self._call = relay.call

    async def claim_file(self, worker: str, *, lease: float) -> MediaClaim:
        """Lease the next stored file for `lease` seconds."""
        arguments = {"p_worker": worker, "p_limit": 1, "p_lease": f"{lease} seconds"}
        return await self._call("gre_media_claim_v1", arguments, MediaClaim.from_json)

    async def extend_file(self, worker: str, file: str, *, lease: float) -> bool:
        """Let the lease end in `lease` seconds; 0 gives the file back. Returns False if it is lost."""
        arguments = {"p_worker": worker, "p_ids": [file], "p_lease": f"{lease} seconds"}
        return await self._call("gre_media_extend_v1", arguments, lambda answer: file in answer["held"])

    async def settle_file(self, worker: str, result: FileResult) -> Settlement:
        """Record what became of a leased file."""
        arguments = {"p_worker": worker, "p_results": [result.to_json()]}
        return await self._call("gre_media_settle_v1", arguments, Settlement.from_json)

    async def claim_deletions(self, worker: str, *, limit: int, lease: float) -> DeletionClaim:
        """Lease up to `limit` names for `lease` seconds."""
        arguments = {"p_worker": worker, "p_limit": limit, "p_lease": f"{lease} seconds"}
        return await self._call("gre_storage_deletions_claim_v1", arguments, DeletionClaim.from_json)

    async def settle_deletions(self, worker: str, done: Sequence[str], failed: dict[str, str]) -> int:
        """Record the names that were deleted, and of the others the code of the failure.

        Returns the number of those that are gone: Storage answers alike for what it deleted and for what it may not delete.
        """
        results = [{"name": name, "result": "done"} for name in done]
        results += [{"name": name, "result": "failed", "code": code} for name, code in failed.items()]
        arguments = {"p_worker": worker, "p_results": results}
        return await self._call(
            "gre_storage_deletions_settle_v1", arguments, lambda answer: int(answer["done"])
        )

    async def sweep_files(self, *, limit: int) -> tuple[int, bool]:
        """Give up to `limit` files up that no message has taken for a day; returns their number, and True if there may be more."""
        return await self._call(
            "gre_media_sweep_v1",
            {"p_limit": limit},
            lambda answer: (int(answer["attachments"]), bool(answer["more"])),
        )

    async def state(self) -> StorageState:
        """Return how files are doing."""
        return await self._call("gre_storage_state_v1", {}, StorageState.from_json)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
