"""Fixtures with a real browser for the console and the player's page, and the checks after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from tests.browser.world import (
    FLAGS,
    WITHIN,
    Person,
    Player,
    RestartableWorld,
    Staff,
    World,
    chromium,
    dev,
    new_person,
    restartable_stack,
)
from tests.conftest import past_triggers
from tests.support.programs import missing
from tests.support.report_check import check_figures
from tests.support.template import Template

MEASUREMENTS: list[str] = []
"""Lines for the end of the test report."""
NETWORK_ERRORS = ("Failed to load resource", "WebSocket connection to", "net::ERR_")
"""Prefixes of the errors that Chromium logs when a server does not respond or returns an error."""
AUTH_SETTINGS_PATH = "/auth/v1/settings"
"""The console requests this path; the embedded stack has no Supabase Auth."""
Join = Callable[..., Any]


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=WITHIN)
    with sync_playwright() as started:
        yield started


@contextmanager
def _launched(playwright: Playwright, executable: str | None) -> Iterator[Browser]:
    if executable is None:
        missing("Chromium is missing: apt-get install chromium, or set GRE_CHROMIUM")
    started = playwright.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
    yield started
    started.close()


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Chromium from the path, without its own interface if possible, or the executable in GRE_CHROMIUM."""
    with _launched(playwright, chromium()) as started:
        yield started


@pytest.fixture(scope="package")
def windows_browser(playwright: Playwright) -> Iterator[Browser]:
    """The whole Chromium, for tests of the focus: without its interface, each page has the focus."""
    with _launched(playwright, chromium(windows=True)) as started:
        yield started


@pytest.fixture(scope="package")
def project(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """`gre-bridge dev`."""
    with dev(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def world(project: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The running `gre-bridge dev`, without any data of earlier tests; its figures are checked after the test."""
    project.reset()
    yield project
    if past_triggers(request.node) is None:
        with project.db() as conn:
            check_figures(conn)


@pytest.fixture(scope="module")
def restartable_world(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, template: Template
) -> Iterator[RestartableWorld]:
    """A stack whose daemon can be killed and restarted."""
    with restartable_stack(tmp_path_factory.mktemp("restartable"), template) as found:
        yield found


@pytest.fixture
def persons() -> Iterator[list[Person]]:
    """The pages that a test opens. At its end none may have logged an unexpected error or violated its policy."""
    opened: list[Person] = []
    yield opened
    results = [
        (
            [
                error
                for error in person.errors
                if not error.startswith(NETWORK_ERRORS) and AUTH_SETTINGS_PATH not in error
            ],
            person.csp_violations(),
        )
        for person in opened
    ]
    for person in opened:
        # A handler of a route that is at work would raise its error in the next test.
        for routed in (person.page, person.context):
            routed.unroute_all(behavior="ignoreErrors")
        person.context.close()
    for errors, violations in results:
        assert not errors, errors
        assert not violations, violations


def _opening(browser: Browser, persons: list[Person]) -> Join:
    def open_page(world: World, kind: type[Person], **options: Any) -> Any:
        persons.append(new_person(kind, world, browser, **options))
        return persons[-1]

    return open_page


@pytest.fixture
def open_page(browser: Browser, persons: list[Person]) -> Join:
    """Open a page in a world: `open_page(world, Staff)`."""
    return _opening(browser, persons)


@pytest.fixture
def join(world: World, open_page: Join) -> Join:
    """Open a page: `join(Staff)`, `join(Player)`."""
    return partial(open_page, world)


@pytest.fixture
def join_windows(world: World, windows_browser: Browser, persons: list[Person]) -> Join:
    """Open a page in the whole Chromium."""
    return partial(_opening(windows_browser, persons), world)


@pytest.fixture
def sam(join: Join) -> Staff:
    """Staff member s1 at the console."""
    return join(Staff).enter("staff:s1")


@pytest.fixture
def sue(join: Join) -> Staff:
    """Staff member s2 at the console."""
    return join(Staff).enter("staff:s2")


@pytest.fixture
def asha(join: Join) -> Player:
    """Player 29 at the player's page."""
    return join(Player).enter()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASUREMENTS:
        terminalreporter.section("the console in a browser")
        terminalreporter.write_line("\n".join(MEASUREMENTS))
