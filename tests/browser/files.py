"""Files for the browser tests, and what is found of them in Storage."""

from __future__ import annotations

import functools
import io
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import FilePayload, Locator

from tests.browser.world import Person, World
from tests.support.corpus import corners, encoded, exif
from tests.support.loopback import NO_TLS, PATIENT

SCRIPT = "window.__ran = true; document.title = 'ran'; fetch('/ran')"
SVG = f'<svg xmlns="http://www.w3.org/2000/svg"><script>{SCRIPT}</script></svg>'.encode()
HTML = f'<!doctype html><script>{SCRIPT}</script><img src=x onerror="{SCRIPT}">'.encode()


@functools.cache
def large_photo() -> bytes:
    """A photo of more than 6 MB, 2400 x 3200 upright and stored lying, with a place in its metadata."""
    lying = corners(2400, 3200, 6)
    noise = Image.merge("RGB", [Image.effect_noise(lying.size, 90) for _ in range(3)])
    return encoded(Image.blend(lying, noise, 0.35), "JPEG", quality=95, exif=exif(6))


def small_photo(width: int = 640, height: int = 480) -> bytes:
    return encoded(corners(width, height), "JPEG", quality=80)


def payload(name: str, content: bytes, type_: str = "image/jpeg") -> FilePayload:
    return {"name": name, "mimeType": type_, "buffer": content}


def choose(person: Person, *files: FilePayload) -> None:
    """Choose files with the button's file dialog."""
    person.at("file-input").set_input_files(list(files))


def fetched(url: str) -> httpx.Response:
    """What anybody who has the link gets."""
    with httpx.Client(trust_env=False, verify=NO_TLS, timeout=PATIENT) as http:
        return http.get(url)


def source_of(picture: Locator) -> str:
    found = picture.locator("img").get_attribute("src")
    assert found
    return found


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def objects(world: World) -> list[str]:
    """The names of all originals in the bucket that belong to a file."""
    rows: list[dict[str, Any]] = world.sql(
        "select o.name from storage.objects o join gre_chat_attachments a on o.name like '%%' || a.id || '/original'"
        " where o.bucket_id = 'gre-chat'"
    )
    return [row["name"] for row in rows]


def files_of(world: World) -> list[dict[str, Any]]:
    return world.sql(
        "select id::text, name, alt, state, kind, message_id is not null as sent from gre_chat_attachments"
        " order by created_at"
    )
