"""The bytes of objects: a directory for each object below the stack's data directory, a file for each version in it.

Names of objects never become paths: the directory is named by a digest. Bytes are written before the row, and never
change afterwards: a new version is another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from gre_bridge.devstack.storage.errors import internal, invalid_key, too_large

CHUNK: Final = 64 * 1024
"""Bytes that are read at a time."""
_SEGMENT: Final = 255


@dataclass(frozen=True, slots=True)
class Target:
    """A version of an object."""

    bucket: str
    name: str
    version: str

    @property
    def key(self) -> str:
        """Bucket and name, as tokens have them."""
        return f"{self.bucket}/{self.name}"


def target_of(row: dict[str, Any]) -> Target:
    """The bytes of a row; one that SQL wrote need not have a version."""
    return Target(row["bucket_id"], row["name"], row["version"] or "absent")


class Files:
    """The files below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, target: Target) -> Path:
        """The file of a version, which need not exist. Raises StorageError for a name that the file backend refuses."""
        segments = target.name.split("/")
        if {".", ".."} & set(segments):
            raise invalid_key(f"stub/stub/{target.key}/{target.version} contains dot path segment")
        if any(len(segment.encode()) > _SEGMENT for segment in segments):
            raise internal()
        digest = hashlib.sha256(target.key.encode()).hexdigest()
        return self._directory / digest[:2] / digest / target.version

    async def write(self, target: Target, chunks: AsyncIterator[bytes], limit: int | None) -> dict[str, Any]:
        """Write a new version; return the size in bytes and the MD5. Nothing stays of one that fails.

        Raises StorageError above `limit` bytes, and what the chunks raise.
        """
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        size, digest = 0, hashlib.md5(usedforsecurity=False)
        try:
            with path.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    _within(size, limit)
                    digest.update(chunk)
                    file.write(chunk)
        except BaseException:
            self.remove(target)
            raise
        return {"size": size, "md5": digest.hexdigest()}

    def append(self, target: Target, chunk: bytes) -> None:
        """Add to the end of a file that an upload in parts is making."""
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(chunk)

    def size(self, target: Target) -> int | None:
        """Bytes of a version; None if it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            return self.path(target).stat().st_size
        return None

    def md5(self, target: Target) -> str:
        """The MD5 of a version's bytes, in hexadecimal digits. Raises FileNotFoundError."""
        with self.path(target).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def copy(self, source: Target, target: Target) -> None:
        """Give a new version the bytes of another one. Raises StorageError if those are not there."""
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(self.path(source), path)
        except FileNotFoundError:
            raise internal() from None

    def open(self, target: Target) -> BinaryIO:
        """Open a version. Raises StorageError if its bytes are not there."""
        try:
            return self.path(target).open("rb")
        except FileNotFoundError:
            raise internal() from None

    def remove(self, target: Target) -> None:
        """Remove a version's bytes, and the directory when it is empty. No effect if there are none."""
        path = self.path(target)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def note(self, target: Target) -> dict[str, Any] | None:
        """What is noted beside a version, by uploads in parts; None if nothing is."""
        try:
            found: dict[str, Any] = json.loads(self._beside(target).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found

    def set_note(self, target: Target, note: dict[str, Any] | None) -> None:
        """Note something beside a version, or nothing (None)."""
        path = self._beside(target)
        if note is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(note))

    def _beside(self, target: Target) -> Path:
        path = self.path(target)
        return path.with_name(f"{path.name}.json")


def _within(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise too_large()


def pieces(file: BinaryIO, first: int, length: int) -> Iterator[bytes]:
    """Yield `length` bytes from number `first` on, piece by piece."""
    file.seek(first)
    while length > 0 and (piece := file.read(min(CHUNK, length))):
        length -= len(piece)
        yield piece
