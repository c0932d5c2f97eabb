"""Files that people send, friendly and hostile, made in code. Every place that can hold text holds `CANARY`."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pillow_heif
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

pillow_heif.register_heif_opener()

CANARY = b"canary-51.5007N-0.1246W"
TEXT = CANARY.decode()
RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 200, 20), (20, 20, 220), (240, 240, 240)
CORNERS = (RED, GREEN, BLUE, WHITE)
"""What a picture shows upright: top left, top right, bottom left, bottom right."""

# EXIF 2.32, 4.6.4: which side of the picture the stored rows begin with, and which the stored columns.
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def corners(width: int = 96, height: int = 64, orientation: int = 1) -> Image.Image:
    """A picture of four colours that is `width` x `height` upright, stored as the orientation says."""
    sides = ORIENTATIONS[orientation]
    turned = orientation > 4
    size = (height, width) if turned else (width, height)
    image = Image.new("RGB", size)
    for row in (0, 1):
        for column in (0, 1):
            x = y = 0
            for at, side in zip((row, column), sides, strict=True):
                if side in {"top", "bottom"}:
                    y = at if side == "top" else 1 - at
                else:
                    x = at if side == "left" else 1 - at
            left, top = column * (size[0] // 2), row * (size[1] // 2)
            image.paste(CORNERS[2 * y + x], (left, top, left + (size[0] + 1) // 2, top + (size[1] + 1) // 2))
    return image


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def exif(orientation: int = 1) -> bytes:
    """EXIF with a place, a text, and a thumbnail that has the canary, too."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010E] = TEXT  # ImageDescription
    tags[0x8298] = TEXT  # Copyright
    gps = tags.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "N", (51.0, 30.0, 2.5), "W", (0.0, 7.0, 28.6)
    gps[29] = TEXT
    return tags.tobytes() + encoded(Image.new("RGB", (16, 16)), "JPEG", comment=CANARY)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>' + CANARY + b"</rdf:RDF></x:xmpmeta>"


def profile() -> bytes:
    """A valid ICC profile whose description has the canary."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    old = "No copyright, use freely".encode("utf-16-be")
    assert old in data
    return data.replace(old, TEXT.ljust(24).encode("utf-16-be"))


def swapped_profile() -> bytes:
    """A valid ICC profile in which red and green are exchanged: a picture that is converted shows it."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")


def segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Return the JPEG with one more segment behind its start."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + jpeg[2:]


def photo(orientation: int = 1, **options: Any) -> bytes:
    """A JPEG with all that a camera and an editor write into it, and bytes after its end."""
    options = {"exif": exif(orientation), "xmp": XMP, "comment": CANARY, "icc_profile": profile()} | options
    data = encoded(corners(orientation=orientation), "JPEG", quality=95, **options)
    data = segment(
        data, 0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x1c\x1c\x02\x78\0\x17" + CANARY
    )  # IPTC: caption
    return segment(data, 0xEB, b"JP\0" + CANARY) + CANARY


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, data: bytes | None = None
) -> bytes:
    """A PNG by hand: its header may promise anything."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)) if data is None else data)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def noted_png(**options: Any) -> bytes:
    notes = PngInfo()
    notes.add_text("Comment", TEXT)
    notes.add_text("Zipped", TEXT, zip=True)
    notes.add_itxt("XML:com.adobe.xmp", XMP.decode())
    notes.add(b"prIv", CANARY, after_idat=True)
    return encoded(corners(), "PNG", pnginfo=notes, exif=exif(), icc_profile=profile(), **options) + CANARY


def translucent(mode: str = "RGBA") -> Image.Image:
    image = corners().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image if mode == "RGBA" else image.quantize(32)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", CANARY)
    return out.getvalue()


def frames() -> list[Image.Image]:
    """What follows the first frame: other pictures, in one colour."""
    return [Image.new("RGB", (96, 64), tuple(CANARY[:3])), Image.new("RGB", (96, 64))]


def noted(format_: str, **options: Any) -> bytes:
    """The corners in a format that takes EXIF, XMP and a profile as options."""
    notes = {"exif": exif(), "xmp": XMP, "icc_profile": profile(), "quality": 95}
    return encoded(corners(), format_, **notes, **options) + CANARY


def _photo_with_html() -> bytes:
    html = b"<html><script>alert(1)</script>" + CANARY
    return segment(photo() + html, 0xFE, html)


ANIMATED: dict[str, Any] = {"save_all": True, "append_images": frames()}
CANARIES: dict[str, Callable[[], bytes]] = {
    **{f"jpeg-{orientation}": partial(photo, orientation) for orientation in ORIENTATIONS},
    "jpeg+zip": lambda: photo() + zipped(),
    "jpeg+html": _photo_with_html,
    "gif+jar": lambda: encoded(corners(), "GIF", comment=CANARY) + zipped(),
    "mpo": lambda: encoded(corners(), "MPO", exif=exif(6), quality=95, **ANIMATED) + CANARY,
    "progressive": lambda: encoded(corners(), "JPEG", progressive=True, quality=95, exif=exif()) + CANARY,
    "png": noted_png,
    "apng": lambda: noted_png(**ANIMATED),
    "gif": lambda: encoded(corners(), "GIF", comment=CANARY, **ANIMATED) + CANARY,
    "webp": lambda: noted("WEBP"),
    "webp-animated": lambda: noted("WEBP", **ANIMATED),
    "avif": lambda: noted("AVIF"),
    "avif-sequence": lambda: noted("AVIF", **ANIMATED),
    "heic": lambda: noted("HEIF"),
    "bmp": lambda: encoded(corners(), "BMP") + CANARY,
    "palette": lambda: encoded(corners().quantize(8), "PNG") + CANARY,
    "cmyk": lambda: encoded(corners().convert("CMYK"), "JPEG", quality=95, exif=exif()) + CANARY,
    "broken-profile": lambda: photo(icc_profile=bytes(200) + CANARY),
    "broken-exif": lambda: photo(exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + CANARY),
}
"""Pictures that show `CORNERS` upright (the MPO lies on its side), each with the canary in every place that its format has."""


def zeros() -> bytes:
    """Some kilobytes that unpack to 80 MB."""
    return zlib.compress(bytes(80_000_000), 1)


def _gif_bomb() -> bytes:
    data = encoded(Image.new("L", (8, 8)), "GIF")
    at = data.index(b",\0\0\0\0\x08\0\x08\0")  # the frame's size may be beyond that of the screen
    return data[:at] + struct.pack("<BHHHH", 0x2C, 0, 0, 65535, 65535) + data[at + 9 :]


def _webp_bomb() -> bytes:
    data = encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
    at = data.index(b"VP8L") + 9  # behind a signature: 14 bits of width - 1, 14 of height - 1
    return data[:at] + struct.pack("<I", 0x0FFFFFFF) + data[at + 4 :]


def _jpeg_bomb() -> bytes:
    data = encoded(corners(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 65500, 65500) + data[at + 4 :]


def _bmp_bomb() -> bytes:
    data = encoded(corners(), "BMP")
    return data[:18] + struct.pack("<ii", 2**30, 2**30) + data[26:]


BOMBS: dict[str, tuple[Callable[[], bytes], *tuple[str, ...]]] = {
    "png-header": (lambda: png(60_000, 60_000), "too_many_pixels"),
    "png-header-largest": (lambda: png(2**31 - 1, 2**31 - 1), "too_many_pixels"),
    "png-ztxt": (lambda: png(8, 8, chunk(b"zTXt", b"Comment\0\0" + zeros())), "undecodable"),
    "png-itxt": (lambda: png(8, 8, chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros())), "undecodable"),
    "gif-frame": (_gif_bomb, "too_many_pixels"),
    "webp-header": (_webp_bomb, "too_many_pixels", "undecodable"),  # before Pillow 13 the latter
    "jpeg-header": (_jpeg_bomb, "too_many_pixels"),
    "bmp-header": (_bmp_bomb, "too_many_pixels"),
}
"""Small files that would be large, each with the codes that it may be refused with."""
