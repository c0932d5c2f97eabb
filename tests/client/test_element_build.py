"""The committed build of the chat element is up to date, and writes no HTML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import npm

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "client"
NODE = (20, 19)
"""The oldest Node.js that Vite 8 runs on."""
BUILT = ROOT / "gre_bridge/widget"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def source() -> Path:
    """The folder of the client's source, with its packages installed."""
    npm.node_modules(SOURCE, NODE)
    return SOURCE


def test_the_committed_build_is_up_to_date(source: Path, tmp_path: Path) -> None:
    built = tmp_path / "widget"
    npm.run(source, "npm", "run", "widget", "--", "--outDir", str(built), "--emptyOutDir")
    assert _contents(built) == _contents(BUILT), f"{BUILT} is out of date: run `make client`"


def test_the_packages_element_is_imported_without_a_browser(source: Path) -> None:
    """A server that renders a page imports it, too."""
    script = (
        "import { defineChat } from '@gre-bridge/client/element';"
        "defineChat('http://chat.test');"
        "console.log(typeof customElements)"
    )
    found = npm.run(source, "node", "--input-type=module", "--eval", script)
    assert found.strip() == "undefined"


def test_no_source_writes_html_or_styles_as_text() -> None:
    for path in [*SOURCE.glob("element/**/*.ts"), *SOURCE.glob("element/**/*.tsx")]:
        text = path.read_text()
        assert not re.search(
            r"dangerouslySetInnerHTML|innerHTML|insertAdjacentHTML|outerHTML|document\.write|eval\(|style=",
            text,
        ), path
