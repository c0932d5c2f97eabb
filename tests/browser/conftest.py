"""A real browser for the console and the player's page, and what every test of them asserts at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.world import (
    FLAGS,
    WITHIN,
    Fragile,
    Person,
    Player,
    Staff,
    World,
    chromium,
    dev,
    fragile,
    person,
)
from tests.support.programs import missing

REPORT: list[str] = []
"""What was measured; printed at the end of the test report."""
AWAY = ("Failed to load resource", "WebSocket connection to", "net::ERR_")
"""What Chromium itself logs when a server does not answer, or refuses."""
NO_AUTH = "/auth/v1/settings"
"""The embedded stack has no Supabase Auth, which the console asks for."""
Join = Callable[..., Any]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that GRE_CHROMIUM names."""
    executable = chromium()
    if executable is None:
        missing("Chromium is missing: apt-get install chromium, or set GRE_CHROMIUM")
    expect.set_options(timeout=WITHIN)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="package")
def project(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """`gre-bridge dev`."""
    with dev(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def world(project: World) -> World:
    """The same, emptied."""
    project.empty()
    return project


@pytest.fixture(scope="module")
def breakable(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fragile]:
    """A stack and a daemon that may be killed."""
    with fragile(tmp_path_factory.mktemp("fragile")) as found:
        yield found


@pytest.fixture
def people(browser: Browser) -> Iterator[list[Person]]:
    """Everybody whom a test lets in. At its end no page may have met an error that it did not expect."""
    found: list[Person] = []
    yield found
    said = [
        (one, [e for e in one.errors if not e.startswith(AWAY) and NO_AUTH not in e], one.refused())
        for one in found
    ]
    for one in found:
        one.context.close()
    for _, errors, refused in said:
        assert not errors, errors
        assert not refused, refused


@pytest.fixture
def let_in(browser: Browser, people: list[Person]) -> Join:
    """Let somebody into a world: `let_in(world, Staff)`."""

    def let_in(world: World, kind: type[Person], **options: Any) -> Any:
        people.append(person(kind, world, browser, **options))
        return people[-1]

    return let_in


@pytest.fixture
def join(world: World, let_in: Join) -> Join:
    """Let somebody in: `join(Staff)`, `join(Player)`."""
    return partial(let_in, world)


@pytest.fixture
def sam(join: Join) -> Staff:
    """s1 at the console."""
    return join(Staff).enter("staff:s1")


@pytest.fixture
def sue(join: Join) -> Staff:
    """s2 at the console."""
    return join(Staff).enter("staff:s2")


@pytest.fixture
def asha(join: Join) -> Player:
    """Player 29 at her page."""
    return join(Player).enter()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REPORT:
        terminalreporter.section("the console in a browser")
        terminalreporter.write_line("\n".join(REPORT))
