"""Fixtures: `gre-bridge dev` for the portals, and the snippets of docs/portals.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.portals.harness import Guide, World
from tests.support.dev import dev_process
from tests.support.report_check import check_figures

GUIDE = Path(__file__).parents[2] / "docs" / "portals.md"
_BLOCK = re.compile(r"^```(js|python)\n(?://|#) ([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def guide() -> Guide:
    """The snippets of docs/portals.md: each fenced block's first line is a comment with its name."""
    text = GUIDE.read_text()
    found = {(language, name): code for language, name, code in _BLOCK.findall(text)}
    assert len(found) == len(re.findall(r"^```(?:js|python)$", text, re.MULTILINE)), (
        "a block without its own name"
    )
    return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The running `gre-bridge dev`."""
    with dev_process(tmp_path_factory.mktemp("portals")) as started:
        env = {**started.env, "PUSHER_AUTH_URL": f"{started.daemon}/api/pusher/auth"}
        yield World(env=env, keys=started.keys)
        with psycopg.connect(env["SUPABASE_DB_URL"], autocommit=True, row_factory=dict_row) as conn:
            check_figures(conn)


@pytest.fixture
def world(stack: World) -> Iterator[World]:
    """The stack; the portals that a test opens are closed after it."""
    yield stack
    stack.close_portals()
