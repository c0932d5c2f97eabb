"""The samples of client/samples, built as portals build them, bear the suite in Chromium."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.client import cases, tokens
from tests.client.chromium import Chromium, sample_subject
from tests.client.clients import SOCKET_CLIENT
from tests.client.sites import CLIENT, Build, development_site, next_site, vite_site
from tests.client.suite import QUICK, bear_what_takes_time
from tests.client.world import World, world_for
from tests.support.template import Template

SITES: dict[str, Build] = {"vite": vite_site, "next": next_site, "vite in development": development_site}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as found:
        yield found


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[World]:
    with world_for(SOCKET_CLIENT, tmp_path_factory.mktemp("samples"), template) as world:
        yield world


@pytest.fixture(scope="module")
def sample(
    browser: Chromium, servers: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], World]]:
    """Returns the world of a sample, whose pages are built once for all cases."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def world_of(name: str) -> World:
            site = stack.enter_context(SITES[name](tmp_path_factory.mktemp("built")))
            return replace(servers, subject=sample_subject(f"the sample for {name}", browser, site))

        yield world_of


BORNE = [
    *(("vite", case) for case in QUICK),
    ("next", cases.conversation),
    ("next", cases.cut_at_the_first_connection),
    ("next", cases.daemon_killed),
    ("next", tokens.token_of_another_person),
    ("next", cases.reload_with_unsent_text),
    ("vite in development", cases.conversation),
    ("vite in development", cases.reload_with_unsent_text),
]
"""The page for Next.js is the one for Vite, rendered on the server first; `python -m tests.client next` runs the others, too.

In development React's StrictMode mounts each component twice, and what React warns of is an error.
"""


@pytest.mark.parametrize(("name", "case"), BORNE, ids=[f"{name}-{case.__name__}" for name, case in BORNE])
def test_a_sample_bears(sample: Callable[[str], World], name: str, case: cases.Case) -> None:
    case(sample(name))


@pytest.mark.parametrize("name", ["vite"])
def test_a_sample_bears_what_takes_time(sample: Callable[[str], World], name: str) -> None:
    bear_what_takes_time(sample(name))


def test_the_lock_files_of_the_samples_contain_no_addresses() -> None:
    for name in ("vite", "next"):
        lock = json.loads((CLIENT / "samples" / name / "package-lock.json").read_text())
        found = {package["resolved"] for package in lock["packages"].values() if "resolved" in package}
        assert found == {"file:../.."}
