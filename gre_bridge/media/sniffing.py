"""What a file is, by its first bytes. The type that a client declares is not believed.

Sources: the WHATWG MIME Sniffing standard (images, audio and video, and what a browser takes for HTML), ISO/IEC 14496-12
(brands of `ftyp`), the libraries' own magic numbers for the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

HEAD: Final = 4096
"""How many bytes of a file `sniff` looks at."""

DOWNLOAD: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Sniffed:
    """`image` is a format that may carry EXIF or GPS, decodable or not; `markup` is what a browser might run.

    `type` is what the file may be given out as: `markup` and everything unknown is application/octet-stream.
    """

    kind: Literal["image", "markup", "file"]
    type: str


# A table of (first bytes, type). Whatever can carry EXIF, GPS or XMP of a camera belongs here, decodable or not: the
# original of an image is never given to the other side. ftyp formats are in the tables below.
_IMAGES: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\x8aMNG\r\n\x1a\n", "video/x-mng"),
    (b"\x8bJNG\r\n\x1a\n", "image/x-jng"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),  # DNG and most raw formats are TIFF
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),  # BigTIFF
    (b"MM\0+", "image/tiff"),
    (b"IIRO\x08\0", "image/x-olympus-orf"),
    (b"IIRS\x08\0", "image/x-olympus-orf"),
    (b"MMOR\0\0", "image/x-olympus-orf"),
    (b"IIU\0", "image/x-panasonic-rw2"),
    (b"II\xbc", "image/jxr"),
    (b"II\x1a\0\0\0HEAPCCDR", "image/x-canon-crw"),
    (b"FUJIFILMCCD-RAW", "image/x-fuji-raf"),
    (b"FOVb", "image/x-sigma-x3f"),
    (b"\0MRM", "image/x-minolta-mrw"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"8BPS\0", "image/vnd.adobe.photoshop"),
    (b"\0\0\1\0", "image/vnd.microsoft.icon"),
)
# Brands of ftyp, major or compatible; the first table that has one decides.
_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIF: Final = frozenset(
    {
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"hevx",
        b"hevm",
        b"hevs",
        b"heif",
        b"mif1",
        b"mif2",
        b"msf1",
    }
    | {b"mif3", b"jpeg", b"jpgs", b"j2ki", b"j2is", b"avci", b"avcs", b"vvic", b"vvis", b"evbi", b"miaf"}
)
_OTHER_IMAGES: Final = {
    b"crx ": "image/x-canon-cr3",
    b"jxl ": "image/jxl",
    b"jp2 ": "image/jp2",
    b"jpx ": "image/jp2",
}
_MOVIES: Final = {
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"f4a ": "audio/mp4",
}

_FILES: Final = (
    (b"%PDF-", "application/pdf"),
    (b"OggS\0", "application/ogg"),
    (b"ID3\2", "audio/mpeg"),
    (b"ID3\3", "audio/mpeg"),
    (b"ID3\4", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
)
_OFFICE: Final = (
    (b"word/", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (b"xl/", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (b"ppt/", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
)
_DIB_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})

# What makes a browser, or a person's viewer, take text for a document that runs: a tag at its start, or one of these anywhere
# in the head. NUL bytes are dropped before, which reads UTF-16 and UTF-32 without a mark, too.
_LEADING: Final = re.compile(rb"(?:[\s\x00-\x20\x7f]|\xef\xbb\xbf|\xff\xfe|\xfe\xff)*<\s*[a-z!?/%]")
_ANYWHERE: Final = re.compile(
    rb"<(?:!doctype|\?xml|html|head|body|script|svg|iframe|object|embed|meta|link|style|img|form|math|template|base|x:|xsl:)"
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")


def sniff(head: bytes) -> Sniffed:
    """Say what a file is from its first bytes (`HEAD` of them; fewer only if the file has no more). Raises nothing."""
    head = head[:HEAD]
    if (image := image_type(head)) is not None:
        return Sniffed("image", image)
    if (known := _file_type(head)) is not None:
        return Sniffed("file", known)
    plain = head.replace(b"\0", b"").lower()
    if _LEADING.match(plain) or _ANYWHERE.search(plain):
        return Sniffed("markup", DOWNLOAD)
    return Sniffed("file", "text/plain" if _is_text(head) else DOWNLOAD)


def image_type(head: bytes) -> str | None:
    """Return the type of an image's format, decodable or not, or None: what may carry EXIF or GPS is an image."""
    for magic, name in _IMAGES:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _DIB_HEADERS:
        return "image/bmp"
    brands = _brands(head)
    if _AVIF & brands:
        return "image/avif"
    if _HEIF & brands:
        return "image/heic"
    return next((name for brand, name in _OTHER_IMAGES.items() if brand in brands), None)


def _brands(head: bytes) -> set[bytes]:
    """Return the major and the compatible brands of a file that begins with `ftyp`."""
    if head[4:8] != b"ftyp":
        return set()
    size = int.from_bytes(head[:4], "big")
    end = min(size, len(head)) if size >= 16 else len(head)  # 0 and 1: to the end, or a size of 64 bits
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}


def _file_type(head: bytes) -> str | None:
    for magic, name in _FILES:
        if head.startswith(magic):
            return name
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        return _zip_type(head)
    if head[4:8] == b"ftyp":
        return _MOVIES.get(head[8:12], "video/mp4")
    if head[:4] == b"RIFF":
        return {b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}.get(head[8:12])
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] >> 4 not in {0, 15}:
        return "audio/mpeg"  # MPEG audio, layer III, without a tag
    return None


def _zip_type(head: bytes) -> str:
    """Return the office format of a ZIP whose first entries show it: ODF stores its type first, OOXML its folders."""
    found = re.match(
        rb"PK\x03\x04.{26}mimetype(application/vnd\.oasis\.opendocument\.[a-z-]{1,40})PK", head, re.DOTALL
    )
    if found:
        return found[1].decode()
    if b"[Content_Types].xml" in head or b"_rels/.rels" in head:
        return next((name for folder, name in _OFFICE if folder in head), "application/zip")
    return "application/zip"


def _is_text(head: bytes) -> bool:
    """True for UTF-8 without control characters; the last character may be cut off by the end of the head."""
    if not head or _CONTROL.search(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and len(head) == HEAD
    return True
