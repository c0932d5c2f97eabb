"""What a file is by its first bytes, whatever its name and its declared type say."""

from __future__ import annotations

import io
import struct
import wave
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gre_bridge.media.sniffing import DOWNLOAD, HEAD, Sniffed, sniff
from tests.support import corpus


def office(*names: str, mimetype: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if mimetype:
            archive.writestr(zipfile.ZipInfo("mimetype"), mimetype)
        for name in names:
            archive.writestr(name, "<xml/>")
    return out.getvalue()


def wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as made:
        made.setparams((1, 2, 8000, 0, "NONE", ""))
        made.writeframes(bytes(100))
    return out.getvalue()


def ftyp(major: bytes, *compatible: bytes, size: int | None = None) -> bytes:
    box = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(box) + 4 if size is None else size) + box + b"\0\0\0\x08mdat"


OOXML = "application/vnd.openxmlformats-officedocument."
ODT = "application/vnd.oasis.opendocument.text"
IMAGES = {
    "image/jpeg": [corpus.photo],
    "image/png": [corpus.noted_png],
    "image/gif": [lambda: corpus.encoded(corpus.corners(), "GIF")],
    "image/webp": [lambda: corpus.encoded(corpus.corners(), "WEBP")],
    "image/bmp": [lambda: corpus.encoded(corpus.corners(), "BMP")],
    "image/avif": [lambda: corpus.encoded(corpus.corners(), "AVIF"), lambda: ftyp(b"mif1", b"miaf", b"avif")],
    "image/heic": [
        lambda: corpus.encoded(corpus.corners(), "HEIF"),
        lambda: ftyp(b"mif1", b"heic"),
        lambda: ftyp(b"isom", b"mp42", b"heix"),
        lambda: ftyp(b"isom", b"heix", size=0),
        lambda: ftyp(b"isom", b"heix", size=1),
    ],
    "image/tiff": [
        lambda: corpus.encoded(corpus.corners(), "TIFF"),
        lambda: b"MM\0*" + bytes(20),
        lambda: b"II+\0\x08\0\0\0" + bytes(20),
    ],
    "image/jxl": [lambda: b"\xff\x0a" + bytes(20), lambda: b"\0\0\0\x0cJXL \r\n\x87\n" + ftyp(b"jxl ")],
    "image/jp2": [
        lambda: corpus.encoded(corpus.corners(), "JPEG2000"),
        lambda: corpus.encoded(corpus.corners(), "JPEG2000", no_jp2=True),
    ],
    "image/x-canon-cr3": [lambda: ftyp(b"crx ", b"isom")],
    "image/x-fuji-raf": [lambda: b"FUJIFILMCCD-RAW 0201" + bytes(20)],
}
FILES = {
    "application/pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n<html>",
    "application/zip": office("a.txt"),
    OOXML + "wordprocessingml.document": office("[Content_Types].xml", "_rels/.rels", "word/document.xml"),
    OOXML + "spreadsheetml.sheet": office("[Content_Types].xml", "xl/workbook.xml"),
    OOXML + "presentationml.presentation": office("_rels/.rels", "ppt/presentation.xml"),
    ODT: office("content.xml", mimetype=ODT),
    "audio/mpeg": b"ID3\x04\0\0\0\0\0\0" + bytes(20),
    "audio/wav": wav(),
    "application/ogg": b"OggS\0\x02" + bytes(20),
    "video/webm": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm",
    "video/x-matroska": b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska",
    "video/mp4": ftyp(b"isom", b"iso2", b"avc1", b"mp41"),
    "audio/mp4": ftyp(b"M4A ", b"mp42"),
    "video/quicktime": ftyp(b"qt  "),
    "text/plain": "Grüße, 你好\t<3 a < b\r\n".encode(),
}
TEXTS = [
    b"BMW, ID3, MMORPG, OggS and II* are words.",
    b"ID3 tags are explained here",
    b"MMORPG guide",
    b"BM is short",
    b"OggS is a word",
    b"RIFF is a word, too",
    b"a,b\n1,2\n",
    ("é" * HEAD).encode()[: HEAD + 1],
    ("x" + "é" * HEAD).encode(),
]
MARKUP = [
    b"<html>",
    b"<!DOCTYPE html>",
    b" \r\n\t\x0c<HTML><body>",
    b"\xef\xbb\xbf<!-- hello --><html>",
    b"<!-- a comment --> <p>text</p>",
    b"<?xml version='1.0'?><x/>",
    b"\0\0<script>",
    b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    b"<a href=javascript:alert(1)>",
    b"some text first\n<script src=//evil>",
    b"x" * 4000 + b"<iframe ",
    b"<%@ page %>",
    "<html>".encode("utf-16"),
    "<html>".encode("utf-16-le"),
    "<svg>".encode("utf-16-be"),
    "\ufeff  <?xml?>".encode("utf-16-be"),
    "<html>".encode("utf-32"),
    b"\x1b\x80\x99<svg ",
    b"< script>alert(1)</script>",
]
DOWNLOADS = [
    b"\0\1\2\3",
    b"\x7fELF\2\1\1",
    b"MZ\x90\0",
    "Grüße".encode("latin-1"),
    "text".encode("utf-16"),
    b"\xd0\xcf\x11\xe0" + bytes(20),
]


@pytest.mark.parametrize("type_", IMAGES)
def test_images(type_: str) -> None:
    for make in IMAGES[type_]:
        assert sniff(make()) == Sniffed("image", type_)


@pytest.mark.parametrize("type_", FILES)
def test_files(type_: str) -> None:
    assert sniff(FILES[type_]) == Sniffed("file", type_)


def test_mpeg_audio_without_a_tag() -> None:
    assert sniff(b"\xff\xfb\x90\x64" + bytes(100)) == Sniffed("file", "audio/mpeg")


@pytest.mark.parametrize("data", TEXTS, ids=lambda data: data[:12])
def test_text_is_text_whatever_it_begins_with(data: bytes) -> None:
    assert sniff(data) == Sniffed("file", "text/plain")


@pytest.mark.parametrize("data", MARKUP, ids=range(len(MARKUP)))
def test_what_a_browser_might_run_is_markup(data: bytes) -> None:
    assert sniff(data) == Sniffed("markup", DOWNLOAD)


@pytest.mark.parametrize("data", DOWNLOADS, ids=range(len(DOWNLOADS)))
def test_everything_else_is_a_download(data: bytes) -> None:
    assert sniff(data) == Sniffed("file", DOWNLOAD)


@pytest.mark.parametrize("name", corpus.CANARIES)
def test_an_image_stays_one_whatever_follows(name: str) -> None:
    assert sniff(corpus.CANARIES[name]()).kind == "image"


@given(st.one_of(st.binary(max_size=64), st.text(max_size=64).map(str.encode)))
def test_no_bytes_fail_it(data: bytes) -> None:
    found = sniff(data)
    assert found.kind in {"image", "markup", "file"} and found.type
    assert not found.type.endswith(("html", "xml"))


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="<", min_codepoint=32), min_size=1, max_size=64)
)
def test_plain_text_is_no_markup(text: str) -> None:
    assert sniff(text.encode()).kind != "markup"
