"""What an examination finds: a fact about the file, or a failure of ours, and never one for the other.

`Examined` and `Refused` are facts about the file's content and hold for ever. `MediaUnavailable` says nothing about the
file: examine it again later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gre_bridge.errors import TransientError

VIEW_SIDE: Final = 2048
"""The longer side of a view, in pixels, at most."""
THUMB_SIDE: Final = 360
"""The longer side of a thumb, in pixels, at most."""
MAX_BYTES: Final = 25 * 1024 * 1024
"""The largest file that is examined, in bytes: the limit of the bucket."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was encoded anew: upright, sRGB, without metadata. `type` is image/jpeg or image/webp."""

    type: str
    width: int
    height: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Examined:
    """A file that may be given out.

    `type` is the type of the original by its bytes. An image has its upright size in pixels, a preview and two pictures;
    anything else is a download and has none of them. `preview` has 36 hex digits: 4 x 3 colours of three digits each, row by
    row from the top left, so that `'#' + preview.slice(0, 3)` is the CSS colour of the top left twelfth.
    """

    kind: Literal["image", "file"]
    type: str
    width: int | None = None
    height: int | None = None
    preview: str | None = None
    view: Picture | None = None
    thumb: Picture | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The content of the file is why it is not given out.

    Codes: empty, too_large, virus, not_scanned; of images undecodable, unsupported (a format that is never decoded: TIFF and
    raw formats, JPEG XL and the like), too_many_pixels, too_large_to_decode (memory), too_slow_to_decode (CPU time).
    """

    code: str


class MediaUnavailable(TransientError):  # noqa: N818 - the name in the contract
    """We failed, whatever the file is: examine it again later.

    Reasons: not_installed, heic_not_installed, avif_not_installed; start (no process, or it could not import), wall_clock,
    killed (by a signal that we did not send: no memory left on the machine, an operator), crashed (the decoder died of its own
    accord or wrote nonsense: the only reason that may be the file's doing), limits; scanner (no connection), scanner_slow,
    scanner_error, scanner_limits (its own limits forbid to scan a file of this size).
    """

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is for programs, `message` for operators; neither has anything of the file."""
        super().__init__(message, code=reason)
        self.reason = reason
