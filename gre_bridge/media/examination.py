"""The whole examination of one file, in the order of cost: its size, its first bytes, the scanner, the decoder."""

from __future__ import annotations

import os
from typing import IO

from gre_bridge.media.decoding import Limits, decode
from gre_bridge.media.results import MAX_BYTES, Examined, MediaUnavailable, Refused
from gre_bridge.media.scanning import Unscanned, scan
from gre_bridge.media.sniffing import HEAD, sniff


async def examine(
    source: IO[bytes],
    *,
    scanner: str | None = None,
    scan_seconds: float = 120.0,
    allow_unscanned: bool = False,
    limits: Limits | None = None,
) -> Examined | Refused:
    """Examine a file that has a descriptor and is open for reading; its position is not kept.

    It takes up to `scan_seconds` and `limits.wall` together, seconds both. `scanner` is clamd's address (`scanning.scan`), or None. What it will not scan to its end
    by its own limits is Refused('not_scanned'), unless `allow_unscanned`. Raises MediaUnavailable for what is not the file's fault, as a
    StreamMaxLength of clamd that is too low.
    """
    size = source.seek(0, os.SEEK_END)
    if size == 0:
        return Refused("empty")
    if size > MAX_BYTES:
        return Refused("too_large")
    source.seek(0)
    sniffed = sniff(source.read(HEAD))
    if scanner is not None:
        verdict = await scan(scanner, source, seconds=scan_seconds)
        if isinstance(verdict, Refused):
            return verdict
        if isinstance(verdict, Unscanned) and not allow_unscanned:
            if (
                verdict.reason == "size"
            ):  # of the stream, which our bucket allows: clamd's settings are too low
                raise MediaUnavailable(
                    "scanner_limits", "clamd's StreamMaxLength is below the size of the file"
                )
            return Refused("not_scanned")
    if sniffed.kind == "image":
        return await decode(source, sniffed.type, limits=limits)
    return Examined("file", sniffed.type)
