"""The console's pages over HTTP: the files that are served, their headers, and no secret in them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from gre_bridge.api import console
from gre_bridge.config.settings import Settings
from tests.api.conftest import Api, start
from tests.support.stack import StackProcess

BUDGET = 150 * 1024
"""Bytes of the whole console as it is sent."""


def _assets(api: Api) -> list[str]:
    return re.findall(r'(?:src|href)="(/console/[^"]+)"', api.http.get("/console").text)


def _jwt(role: str) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, {"role": role})]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2ln"])


def _raw(api: Api, target: str) -> tuple[int, bytes]:
    """Request a target unchanged: an HTTP client would normalize it."""
    address = urlsplit(api.worker.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as wire:
        wire.sendall(f"GET {target} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]), answer


def test_the_page_is_revalidated_and_its_assets_are_immutable(api: Api) -> None:
    for address in ("/console", "/console/"):
        page = api.http.get(address)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-cache"
        again = api.http.get(address, headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assets = _assets(api)
    assert {address.rsplit(".", 1)[1] for address in assets} == {"js", "css"}
    for address in assets:
        asset = api.http.get(address)
        assert asset.status_code == 200
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert asset.headers["content-type"] in ("text/javascript; charset=utf-8", "text/css; charset=utf-8")
        head = api.http.head(address)
        assert (head.status_code, head.content) == (200, b"")


def test_the_content_security_policy_allows_own_files_and_supabase_and_nothing_inline(api: Api) -> None:
    page = api.http.get("/console")
    rules = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    host = urlsplit(api.worker.url).netloc
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": f"'self' data: {api.stack.url}",
        "connect-src": f"'self' ws://{host} wss://{host} {api.stack.url}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page.text)


def test_an_invalid_host_is_not_in_the_policy(api: Api) -> None:
    page = api.http.get("/console", headers={"Host": "evil.example; script-src *"})
    assert "evil" not in page.headers["content-security-policy"]


def test_the_reports_are_loaded_when_they_are_opened(api: Api) -> None:
    views = [name for name in console.load() if re.match(r"assets/(Live|Reports)View-", name)]
    assert sorted(name.rsplit(".", 1)[1] for name in views) == ["css", "css", "js", "js"]
    first = "".join(_assets(api))
    for name in views:
        assert name not in first
        page = api.http.get(f"/console/{name}")
        assert page.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert page.headers["content-type"] in ("text/javascript; charset=utf-8", "text/css; charset=utf-8")


def test_everything_together_is_small_and_compressed(api: Api) -> None:
    total = 0
    # Also what is loaded later, when a view is opened.
    for address in ["/console", *(f"/console/{name}" for name in console.load() if name)]:
        with api.http.stream("GET", address, headers={"Accept-Encoding": "gzip"}) as answer:
            packed = b"".join(answer.iter_raw())
        plain = api.http.get(address, headers={"Accept-Encoding": "identity"})
        assert answer.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
        assert gzip.decompress(packed) == plain.content
        assert answer.headers["vary"].startswith("Accept-Encoding")
        total += len(packed)
    assert total < BUDGET


@pytest.mark.parametrize(
    "target",
    [
        "/console/../settings.py",
        "/console/..%2fsettings.py",
        "/console/%2e%2e/settings.py",
        "/console/%2e%2e%2f%2e%2e%2fpyproject.toml",
        "/console/assets/../../settings.py",
        "/console//etc/passwd",
        "/console/%2fetc%2fpasswd",
        "/console/..\\settings.py",
        "/console/index.html%00.js",
        "/console/assets",
        "/console/assets/",
        "/console/index.html/",
        "/consoles",
    ],
)
def test_other_files_are_not_found(api: Api, target: str) -> None:
    status, answer = _raw(api, target)
    assert status == 404
    assert b'"code":"not_found"' in answer
    assert b"import " not in answer and b"root:" not in answer


def test_the_page_gets_public_values_and_no_served_file_contains_a_secret(api: Api) -> None:
    answer = api.http.get("/console/config.json")
    assert answer.json() == {"supabaseUrl": api.stack.url, "anonKey": api.stack.env["SUPABASE_ANON_KEY"]}
    names = (
        "SUPABASE_SERVICE_KEY",
        "SUPABASE_JWT_SECRET",
        "PUSHER_SECRET",
        "ONESIGNAL_API_KEY",
        "SUPABASE_DB_URL",
    )
    for address in ["/console", "/console/config.json", *_assets(api)]:
        page = api.http.get(address)
        said = page.text + str(dict(page.headers))
        assert not [name for name in names if api.stack.env[name] in said]


@pytest.mark.parametrize(
    ("key", "public"),
    [
        (_jwt("anon"), True),
        ("sb_publishable_abc", True),
        (_jwt("service_role"), False),
        (_jwt("authenticated"), False),
        ("sb_secret_abc", False),
        ("a.b.c", False),
        (None, False),
    ],
)
def test_only_a_publishable_key_is_given_to_pages(key: str | None, public: bool) -> None:
    assert console.public_key(key) == (key if public else None)


async def test_the_page_gets_the_address_for_browsers() -> None:
    settings = Settings(
        supabase_url="http://kong:8000",
        supabase_public_url="https://project.example",
        supabase_service_key=SecretStr("sb_secret_0123456789"),
    )
    app = FastAPI()
    app.include_router(console.router(settings))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://daemon.example") as http:
        assert (await http.get("/console/config.json")).json()["supabaseUrl"] == "https://project.example"
        page = await http.get("/console")
    assert "https://project.example" in page.headers["content-security-policy"]


async def test_a_service_key_set_as_the_publishable_key_is_not_served() -> None:
    for key in (_jwt("service_role"), "sb_secret_0123456789"):
        settings = Settings(
            supabase_url="https://project.example",
            supabase_service_key=SecretStr(key),
            supabase_anon_key=SecretStr(key),
        )
        app = FastAPI()
        app.include_router(console.router(settings))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://daemon.example") as http:
            answer = await http.get("/console/config.json")
        assert answer.json() == {"supabaseUrl": "https://project.example", "anonKey": None}


@pytest.fixture
def without(stack_process: StackProcess) -> Iterator[Api]:
    """A daemon with the console disabled."""
    yield from start(stack_process, GRE_CONSOLE="false")


def test_the_console_can_be_disabled(without: Api) -> None:
    for address in ("/console", "/console/", "/console/config.json", *console.load()):
        answer = without.http.get(address if address.startswith("/") else f"/console/{address}")
        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"
    assert without.staff().get("/api/gre-admin/sessions").status_code == 200


def test_without_the_api_there_is_no_console(stack_process: StackProcess) -> None:
    for api in start(stack_process, SUPABASE_ANON_KEY=""):
        assert api.http.get("/console").status_code == 404
