"""Pillow's part: an untrusted picture in, two clean ones out. Runs in the decoder's process only.

Every output is encoded from pixels that were copied into a new image, so nothing else of the input can be in it. Pillow's
plugins are imported by `load_plugins` before the process loses the right to open files; a format that is not in `FORMATS` is
never decoded.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import IO, Final

from PIL import Image, ImageCms, ImageFile, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from gre_bridge.media.results import THUMB_SIDE, VIEW_SIDE, Picture

_LATER: Final = (
    MpoImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)  # Pillow imports them when a file needs them: too late

FORMATS: Final = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/avif": "AVIF",
    "image/heic": "HEIF",
}
"""Pillow's name of each format. A JPEG may turn out to be an MPO, of which the first picture is taken."""

QUALITY: Final = 82
MAX_PROFILE: Final = 4 * 1024 * 1024  # of an ICC profile, in bytes; those of printers have two megabytes
_PREVIEW: Final = (4, 3)

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's tag Orientation (EXIF 2.32, 4.6.4); 1 and anything else is upright."""


class TooManyPixels(ValueError):  # noqa: N818 - a fact about the file
    """The picture has more pixels than allowed."""


def load_plugins(type_: str) -> str | None:
    """Import all that decoding a type needs. Return None, or the reason why it cannot be decoded here."""
    Image.preinit()  # BMP, GIF, JPEG, PNG
    if type_ == "image/avif":
        from PIL import AvifImagePlugin, features  # noqa: PLC0415 - for this type only

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        if not features.check("avif"):
            return "avif_not_installed"
    elif type_ == "image/heic":
        try:
            import pillow_heif  # noqa: PLC0415 - optional
        except ModuleNotFoundError:
            return "heic_not_installed"
        pillow_heif.register_heif_opener(
            decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
        )
    ImageCms.createProfile("sRGB")  # fails here where Pillow has no littlecms
    return None


def render(source: IO[bytes], type_: str, max_pixels: int) -> tuple[int, int, str, list[Picture]]:
    """Decode the first frame and return its upright width and height, the preview, and the view and the thumb.

    Raises TooManyPixels, MemoryError, and whatever Pillow raises for a file that it cannot read.
    """
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = max_pixels
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    PngImagePlugin.MAX_TEXT_CHUNK = (
        PngImagePlugin.MAX_TEXT_MEMORY
    )  # a long profile or XMP is no damage of the picture
    try:
        image: Image.Image = Image.open(source, formats=(FORMATS[type_],))
        width, height = image.size
        orientation = _orientation(image)
        profile = image.info.get("icc_profile")
        image.draft(None, _fit(image.size, VIEW_SIDE))  # a JPEG is decoded at a half, a quarter or an eighth
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixels from None
    if type_ != "image/jpeg":  # whose size is now that of the draft
        width, height = image.size  # a GIF's frame may be larger than its screen
    image = _halved(image)  # which frees the whole picture
    image = _shrink(image, VIEW_SIDE)
    image = _srgb(image, profile)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if orientation in {5, 6, 7, 8}:
        width, height = height, width
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    view = Image.new(image.mode, image.size)
    view.paste(image)
    thumb = _shrink(view, THUMB_SIDE)
    return width, height, _preview(thumb), [_encoded(view), _encoded(thumb)]


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size in the same proportions whose longer side is at most `side`, no side below one pixel."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 where there is none or it cannot be read."""
    with contextlib.suppress(Exception):  # metadata that is broken is no reason to refuse the picture
        return int(image.getexif().get(0x0112, 1))
    return 1


def _simple(image: Image.Image) -> Image.Image:
    """Return the image in a mode that can be scaled and converted: L, RGB, RGBA or CMYK, with 8 bits a channel."""
    if image.mode.startswith("I"):  # grey of 16 bits
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        image.info.pop("transparency", None)  # of 16 bits, too
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in {"L", "RGB", "CMYK"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _halved(image: Image.Image) -> Image.Image:
    """Return the image in a simple mode, and a large one at a half, a third … that is still twice the view.

    Strip by strip: a conversion of the whole would take the memory of another one or two.
    """
    factor = max(image.size) // (2 * VIEW_SIDE)
    if factor < 2:
        return _simple(image)
    wide, high = image.size
    reduced = None
    for top in range(0, high, 64 * factor):
        strip = _simple(image.crop((0, top, wide, min(high, top + 64 * factor)))).reduce(
            (factor, min(factor, high))
        )
        if reduced is None:
            reduced = Image.new(strip.mode, (strip.width, -(-high // factor)))
        reduced.paste(strip, (0, top // factor))
    assert reduced is not None
    return reduced


def _shrink(image: Image.Image, side: int) -> Image.Image:
    size = _fit(image.size, side)
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _srgb(image: Image.Image, profile: object) -> Image.Image:
    """Return the image in RGB or RGBA with sRGB's colours. A profile that is broken, too long or of another mode is ignored."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    if isinstance(profile, bytes) and 128 < len(profile) <= MAX_PROFILE:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(profile), target, outputMode=mode)
            assert converted is not None
            return converted
    return image if image.mode == mode else image.convert(mode)


def _preview(thumb: Image.Image) -> str:
    """Return the colours of the picture's twelfths, of three hex digits each, over white where it is transparent."""
    small = thumb.resize(_PREVIEW, Image.Resampling.BOX)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", _PREVIEW, "white"), small)
    return "".join(f"{round(value / 17):x}" for value in small.convert("RGB").tobytes())


def _encoded(image: Image.Image) -> Picture:
    """Encode as JPEG, or as WebP if something is transparent. `image` was made here and has no metadata."""
    out = io.BytesIO()
    if image.mode == "RGBA":
        image.save(out, "WEBP", quality=QUALITY)
        return Picture("image/webp", *image.size, out.getvalue())
    image.save(out, "JPEG", quality=QUALITY)
    return Picture("image/jpeg", *image.size, out.getvalue())
