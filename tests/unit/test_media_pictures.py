"""What comes out of the decoder's process, for each kind of picture that people send."""

from __future__ import annotations

import io
import itertools
import struct
import tempfile
import zlib

import pytest
from PIL import Image, PngImagePlugin

from gre_bridge.media.decoding import Limits, decode
from gre_bridge.media.results import Examined, Picture, Refused
from gre_bridge.media.sniffing import sniff
from tests.support import corpus


async def decoded(data: bytes, type_: str | None = None, limits: Limits | None = None) -> Examined | Refused:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return await decode(file, type_ or sniff(data[:4096]).type, limits=limits)


async def examined(data: bytes) -> tuple[Examined, Image.Image]:
    """The result, and the view as a picture, both checked for what holds of every result."""
    found = await decoded(data)
    assert isinstance(found, Examined), found
    assert found.kind == "image" and found.view and found.thumb
    for picture, side in ((found.view, 2048), (found.thumb, 360)):
        assert max(picture.width, picture.height) <= side
        check_structure(picture)
        shown = Image.open(io.BytesIO(picture.data))
        shown.load()
        assert shown.size == (picture.width, picture.height) and set(shown.info) <= {
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
            "loop",
            "background",
            "timestamp",
            "duration",
        }
        for text in (
            corpus.CANARY,
            corpus.TEXT.encode("utf-16-be"),
            corpus.TEXT.encode("utf-16-le"),
            b"Exif",
            b"ICC",
            b"http",
            b"8BIM",
            b"PK\x03\x04",
        ):
            assert text not in picture.data
    view = Image.open(io.BytesIO(found.view.data))
    return found, view


def check_structure(picture: Picture) -> None:
    """Nothing but pixels: no segment or chunk that could carry more, and no byte behind the end."""
    data = picture.data
    if picture.type == "image/jpeg":
        at, markers = 2, set()
        while data[at + 1] != 0xDA:
            markers.add(data[at + 1])
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
        assert markers <= {0xE0, 0xDB, 0xC0, 0xC2, 0xC4, 0xDD}
        assert data.index(b"\xff\xd9", at) == len(data) - 2
    else:
        assert picture.type == "image/webp" and struct.unpack_from("<I", data, 4)[0] == len(data) - 8
        at, chunks = 12, set()
        while at < len(data):
            chunks.add(data[at : at + 4])
            size = struct.unpack_from("<I", data, at + 4)[0]
            at += 8 + size + size % 2
        assert at == len(data) and chunks <= {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}


def colours(image: Image.Image) -> list[tuple[int, ...]]:
    """The middles of the four corners."""
    wide, high = image.size
    return [image.convert("RGB").getpixel((x * wide // 4, y * high // 4)) for y in (1, 3) for x in (1, 3)]  # type: ignore[misc]


def alike(left: tuple[int, ...], right: tuple[int, ...], by: int = 24) -> bool:
    return all(abs(a - b) <= by for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("name", corpus.CANARIES)
async def test_a_picture_is_upright_and_nothing_but_its_pixels_comes_out(name: str) -> None:
    data = corpus.CANARIES[name]()
    assert corpus.CANARY in data
    found, view = await examined(data)
    turned = name == "mpo"  # says in EXIF that it lies on its side
    assert (found.width, found.height) == view.size == ((64, 96) if turned else (96, 64))
    expected = [corpus.CORNERS[at] for at in ((2, 0, 3, 1) if turned else (0, 1, 2, 3))]
    assert all(map(alike, colours(view), expected)), colours(view)
    assert found.view and found.view.type == "image/jpeg"


async def test_a_preview_is_twelve_colours_from_the_top_left() -> None:
    found, _ = await examined(corpus.encoded(corpus.corners(), "PNG"))
    assert found.preview and len(found.preview) == 36
    cells = [tuple(17 * int(digit, 16) for digit in found.preview[at : at + 3]) for at in range(0, 36, 3)]
    for at, colour in ((0, 0), (1, 0), (2, 1), (3, 1), (8, 2), (9, 2), (10, 3), (11, 3)):
        assert alike(cells[at], corpus.CORNERS[colour]), (at, cells[at])


@pytest.mark.parametrize("mode", ["RGBA", "P"])
async def test_what_is_transparent_stays_transparent(mode: str) -> None:
    image = corpus.translucent(mode)
    found, view = await examined(corpus.encoded(image, "PNG"))
    assert found.view and found.view.type == found.thumb.type == "image/webp"  # type: ignore[union-attr]
    alpha = view.getchannel("A")
    assert alpha.getpixel((48, 2)) < 40 and alpha.getpixel((48, 61)) > 215  # type: ignore[operator]


async def test_an_alpha_channel_that_hides_nothing_is_dropped() -> None:
    found, _ = await examined(corpus.encoded(corpus.corners().convert("RGBA"), "PNG"))
    assert found.view and found.view.type == "image/jpeg"


async def test_the_colours_of_a_profile_are_converted() -> None:
    data = corpus.encoded(corpus.corners(), "PNG", icc_profile=corpus.swapped_profile())
    _, view = await examined(data)
    first = colours(view)[0]
    assert first[1] > first[0], "the profile says that red is green"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
async def test_grey_pictures_keep_their_tones(mode: str) -> None:
    if mode == "I;16":
        row = b"\0\x40" * 48 + b"\0\xc0" * 48
        image = Image.frombytes("I;16", (96, 64), row * 64)
    else:
        image = Image.new("L", (96, 64), 64)
        image.paste(192, (48, 0, 96, 64))
        image = image.convert(mode, dither=Image.Dither.NONE)
    _, view = await examined(corpus.encoded(image, "PNG"))
    dark, light = (0, 255) if mode == "1" else (64, 192)
    assert alike(colours(view)[0], (dark,) * 3, 4) and alike(colours(view)[1], (light,) * 3, 4)


@pytest.mark.parametrize(
    ("size", "view", "thumb"),
    [
        ((1, 1), (1, 1), (1, 1)),
        ((65_000, 1), (2048, 1), (360, 1)),
        ((1, 65_000), (1, 2048), (1, 360)),
        ((2049, 1024), (2048, 1024), (360, 180)),
        ((6000, 4000), (2048, 1365), (360, 240)),
    ],
)
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
async def test_sizes(
    size: tuple[int, int], view: tuple[int, int], thumb: tuple[int, int], format_: str
) -> None:
    found, _ = await examined(corpus.encoded(Image.new("RGB", size, "teal"), format_))
    assert (found.width, found.height) == size
    assert found.view and (found.view.width, found.view.height) == view
    assert found.thumb and (found.thumb.width, found.thumb.height) == thumb


WHOLE_IN_HALF = {"mpo", "apng", "gif", "gif+jar", "jpeg+zip", "jpeg+html", "webp-animated", "avif-sequence"}


async def test_a_long_text_or_profile_that_was_compressed_is_no_damage() -> None:
    chosen = PngImagePlugin.PngInfo()
    chosen.add_text("Comment", "a" * 1_500_000, zip=True)
    chosen.add_itxt("XML:com.adobe.xmp", "a" * 1_500_000, zip=True)
    out = io.BytesIO()
    Image.new("RGB", (20, 10)).save(out, "PNG", pnginfo=chosen, icc_profile=bytes(1_500_000))
    assert isinstance(await decoded(out.getvalue()), Examined)


@pytest.mark.parametrize("name", sorted(corpus.CANARIES.keys() - WHOLE_IN_HALF))
async def test_a_picture_that_was_cut_off_is_refused(name: str) -> None:
    data = corpus.CANARIES[name]().removesuffix(corpus.CANARY)
    assert await decoded(data[: len(data) // 2]) == Refused("undecodable")


@pytest.mark.parametrize("name", corpus.BOMBS)
async def test_a_bomb_is_the_files_fault(name: str) -> None:
    make, *codes = corpus.BOMBS[name]
    assert len(data := make()) < 1_000_000
    assert await decoded(data) in map(Refused, codes)


async def test_pixels_beyond_the_picture_are_not_unpacked() -> None:
    data = corpus.png(8, 8, data=corpus.zeros())
    assert isinstance(await decoded(data, limits=Limits(memory=80_000_000)), Examined)


async def test_a_format_is_decoded_as_what_it_is_and_as_nothing_else() -> None:
    tiff = corpus.encoded(corpus.corners(), "TIFF")
    assert await decoded(tiff) == Refused("unsupported")
    assert await decoded(tiff, "image/png") == Refused("undecodable")
    assert await decoded(corpus.encoded(corpus.corners(), "PPM"), "image/jpeg") == Refused("undecodable")


async def test_the_limit_of_pixels_counts_the_picture_and_not_the_draft() -> None:
    data = corpus.encoded(Image.new("RGB", (4096, 4096)), "JPEG")
    assert await decoded(data, limits=Limits(pixels=4096 * 4095)) == Refused("too_many_pixels")
    assert isinstance(await decoded(data, limits=Limits(pixels=4096 * 4096)), Examined)


async def test_a_picture_that_needs_too_much_memory_is_refused() -> None:
    data = corpus.png(4000, 4000, colour=6, data=zlib.compress(bytes(4000 * 16001), 1))
    assert isinstance(await decoded(data), Examined)
    assert await decoded(data, limits=Limits(memory=80_000_000)) == Refused("too_large_to_decode")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
async def test_a_large_picture_is_scaled_strip_by_strip_and_without_seams(mode: str) -> None:
    image = corpus.corners(8200, 800) if mode != "RGBA" else corpus.translucent().resize((8200, 800))
    found, view = await examined(corpus.encoded(image.convert(mode), "PNG", compress_level=1))
    assert (found.width, found.height) == (8200, 800) and view.size == (2048, 200)
    if mode != "RGBA":
        assert all(map(alike, colours(view), corpus.CORNERS))
    column = [view.convert("RGBA").getpixel((500, y)) for y in range(4, 96)]
    steps = [abs(one[3] - two[3]) for one, two in itertools.pairwise(column)]  # type: ignore[index]
    assert max(steps) <= 6, "the transparency grows evenly"
