"""The chat element's files over HTTP: what is served, its headers, its sizes, and what a stale loader gets."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator

import pytest

from gre_bridge.api.widget import BUILT
from tests.api.conftest import Api, start
from tests.support.stack import StackProcess

LOADER_BUDGET = 3 * 1024
"""Bytes of the loader as it is sent."""
PANEL_BUDGET = 24 * 1024
"""Bytes of the panel as it is sent, without the client."""
CORE_BUDGET = 8400
"""Bytes of the client as it is sent, without what it loads with the first file."""
ELSEWHERE = {"Origin": "https://shop.example"}
"""A page whose origin GRE_CORS_ORIGINS does not name."""


def _files() -> list[str]:
    return sorted(path.name for path in BUILT.iterdir())


def _text(stem: str) -> str:
    (path,) = BUILT.glob(f"{stem}-*.js")
    return path.read_text()


def test_the_package_has_a_loader_a_client_and_a_panel() -> None:
    names = [re.sub(r"-[\w-]{8}\.", ".", name) for name in _files()]
    assert {"core.js", "panel.js", "widget.js"} <= set(names)
    assert len(names) == len(set(names)), (
        "two files share a name, so that a stale loader could get the wrong one"
    )


def test_the_loader_is_cached_for_minutes_and_revalidated(api: Api) -> None:
    loader = api.http.get("/widget.js")
    assert loader.status_code == 200
    assert loader.content == (BUILT / "widget.js").read_bytes()
    assert loader.headers["content-type"] == "text/javascript; charset=utf-8"
    assert loader.headers["cache-control"] == "public, max-age=300"
    again = api.http.get("/widget.js", headers={"If-None-Match": loader.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert api.http.head("/widget.js").headers["etag"] == loader.headers["etag"]


def test_what_it_loads_is_immutable_and_named_in_it(api: Api) -> None:
    loader = api.http.get("/widget.js").text
    for name in _files():
        if name == "widget.js":
            continue
        if name.startswith(("core-", "panel-")):
            assert name in loader
        file = api.http.get(f"/widget/{name}")
        assert file.status_code == 200
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_pages_of_any_origin_may_load_it(api: Api) -> None:
    for address in ("/widget.js", *(f"/widget/{name}" for name in _files())):
        file = api.http.get(address, headers=ELSEWHERE)
        assert file.status_code == 200
        assert file.headers["access-control-allow-origin"] == "*"
        assert file.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "set-cookie" not in file.headers
    assert (
        "access-control-allow-origin" not in api.http.get("/api/gre-chat/health", headers=ELSEWHERE).headers
    )


def test_a_stale_loader_gets_the_present_files_uncached(api: Api) -> None:
    for name in _files():
        if name == "widget.js":
            continue
        stem, _, _ = name.partition("-")
        stale = api.http.get(f"/widget/{stem}-Old_hash.js")
        assert stale.status_code == 200
        assert stale.content == (BUILT / name).read_bytes()
        assert stale.headers["cache-control"] == "no-cache"
    for name in ("other-12345678.js", "panel.js", "panel-123.js", "../app.py", "x.js", "", "%2e%2e%2fapp.py"):
        answer = api.http.get(f"/widget/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_sizes_as_sent(api: Api) -> None:
    sizes = {}
    for name in _files():
        address = "/widget.js" if name == "widget.js" else f"/widget/{name}"
        with api.http.stream("GET", address, headers={"Accept-Encoding": "gzip"}) as answer:
            raw = b"".join(answer.iter_raw())
            assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == (BUILT / name).read_bytes()
        sizes[name.partition("-")[0].removesuffix(".js")] = len(raw)
    assert sizes["widget"] <= LOADER_BUDGET
    at_first = {"core", *re.findall(r"from\s*[\"'`]\./([a-z]+)-", _text("core"))}
    assert sum(sizes[name] for name in at_first) <= CORE_BUDGET
    assert sizes["panel"] <= PANEL_BUDGET


def test_nothing_in_it_evaluates_text_sets_cookies_or_names_another_host() -> None:
    for path in BUILT.iterdir():
        text = path.read_text()
        assert not re.search(
            r"\beval\(|new Function|document\.cookie|document\.write|insertAdjacentHTML", text
        )
        assert "lightningcss" not in text, "light-dark() was rewritten, so the panel has no colours"
        hosts = set(re.findall(r"https?://([\w.-]+)", text))
        assert hosts <= {"www.w3.org"}, f"{path.name}: {hosts}"


@pytest.fixture
def without(stack_process: StackProcess) -> Iterator[Api]:
    """A daemon with the element disabled."""
    yield from start(stack_process, GRE_WIDGET="false")


def test_it_can_be_disabled(without: Api) -> None:
    for address in ("/widget.js", *(f"/widget/{name}" for name in _files())):
        assert without.http.get(address).status_code == 404
    assert without.staff().get("/api/gre-admin/sessions").status_code == 200
