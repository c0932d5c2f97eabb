"""The worker's calls for files: what is examined next, what became of it, and which objects are to be deleted.

Each is safe to repeat. Raises as `db.relay` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Json


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A stored file: `object` is the name of its original in the bucket, `bytes` the size that Storage recorded."""

    id: str
    object: str
    bytes: int


@dataclass(frozen=True, slots=True)
class MediaClaim:
    """The file to examine next, or None; then `next_in` is the time in seconds until one is due (None: there is none).

    `enabled` is False while the project has no Storage.
    """

    file: MediaFile | None = None
    next_in: float | None = None
    enabled: bool = True

    @classmethod
    def from_json(cls, answer: Any) -> Self:
        """Read the answer of `gre_media_claim_v1`."""
        files = [MediaFile(str(row["id"]), str(row["object"]), int(row["bytes"])) for row in answer["files"]]
        return cls(files[0] if files else None, _seconds(answer["next_in"]), bool(answer["enabled"]))


@dataclass(frozen=True, slots=True)
class FileResult:
    """What an examination found.

    `ready` and `refused` are facts about the content. `unavailable` (a failure of ours) and `crashed` (the decoder died) only
    postpone, `released` gives the file back. `code` says why; the rest belongs to `ready`.
    """

    id: str
    result: Literal["ready", "refused", "unavailable", "crashed", "released"]
    code: str | None = None
    kind: str | None = None
    type: str | None = None
    width: int | None = None
    height: int | None = None
    preview: str | None = None

    def to_json(self) -> Json:
        """Return the result for `gre_media_settle_v1`."""
        names = ("id", "result", "code", "kind", "type", "width", "height", "preview")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


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
class StorageState:
    """How files and deletions are doing, for metrics and doctor. Times are ages in seconds.

    `oldest_age`: of the file that was stored first and is not examined. `failing`: files that a failure of ours postpones.
    """

    enabled: bool
    waiting: int
    oldest_age: float
    failing: int
    deletions: int
    deletions_age: float
    deletions_failing: int

    @classmethod
    def from_json(cls, answer: Any) -> Self:
        """Read the answer of `gre_storage_state_v1`."""
        return cls(
            bool(answer["enabled"]), int(answer["waiting"]), float(answer["oldest_age"]), int(answer["failing"]),
            int(answer["deletions"]), float(answer["deletions_oldest_age"]), int(answer["deletions_failing"]),
        )  # fmt: skip


class MediaDatabase:
    """The functions for files, typed."""

    def __init__(self, relay: RelayDatabase) -> None:
        """Call through the worker's database."""
        self._call = relay.call

    async def claim_file(self, worker: str, *, lease: float) -> MediaClaim:
        """Lease the next stored file for `lease` seconds."""
        arguments = {"p_worker": worker, "p_limit": 1, "p_lease": lease}
        return await self._call("gre_media_claim_v1", arguments, MediaClaim.from_json)

    async def extend_file(self, worker: str, file: str, *, lease: float) -> bool:
        """Prolong the lease. Returns False if it is lost."""
        arguments = {"p_worker": worker, "p_ids": [file], "p_lease": lease}
        return await self._call("gre_media_extend_v1", arguments, lambda answer: file in answer["extended"])

    async def settle_file(self, worker: str, result: FileResult) -> bool:
        """Record what became of a leased file. Returns False if the lease is lost."""
        arguments = {"p_worker": worker, "p_results": [result.to_json()]}
        return await self._call(
            "gre_media_settle_v1", arguments, lambda answer: result.id in answer["settled"]
        )

    async def claim_deletions(self, worker: str, *, limit: int, lease: float) -> DeletionClaim:
        """Lease up to `limit` names for `lease` seconds."""
        arguments = {"p_worker": worker, "p_limit": limit, "p_lease": lease}
        return await self._call("gre_storage_deletions_claim_v1", arguments, DeletionClaim.from_json)

    async def settle_deletions(self, worker: str, done: Sequence[str], failed: dict[str, str]) -> None:
        """Record the names that are gone, and of the others the code of the failure."""
        results = [{"name": name, "done": True} for name in done]
        results += [{"name": name, "done": False, "code": code} for name, code in failed.items()]
        arguments = {"p_worker": worker, "p_results": results}
        await self._call("gre_storage_deletions_settle_v1", arguments, lambda _: None)

    async def sweep_files(self, *, limit: int) -> int:
        """Give up to `limit` files up that no message has taken for a day; returns their number."""
        return await self._call("gre_attachments_sweep_v1", {"p_limit": limit}, int)

    async def state(self) -> StorageState:
        """Return how files and deletions are doing."""
        return await self._call("gre_storage_state_v1", {}, StorageState.from_json)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
