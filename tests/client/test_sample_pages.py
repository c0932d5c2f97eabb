"""The pages of the docs bear what the suite does to them; those of old do not, so the suite notices what it looks for.

`python -m tests.client` runs all cases with all pages. Here are those that tests/portals/test_samples.py has not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.client import cases
from tests.client.samples import EARLIER_PUSHER, EARLIER_SOCKET, PUSHER_SAMPLE, SOCKET_SAMPLE
from tests.client.world import Subject, World, world_for
from tests.support.template import Template

SOON = 6.0
"""Seconds: a page of old that shows nothing after this time has nothing to come back with."""
LATE = 30.0
"""Seconds, where every answer takes some: a page that comes back shows its fault on the way."""
TRIES = 8
"""A page of old may be lucky once, where its fault depends on which of two events arrives first.

On a slow machine a try may also fail because it is late: that is not the fault which is looked for.
"""
FAILING: list[tuple[Subject, cases.Case, str]] = [
    # What is sent without a connection is lost at the first point, whether or not the page is back within SOON.
    (EARLIER_SOCKET, cases.cut_coming_down, "lost: .* not stored|does not come back"),
    (EARLIER_SOCKET, cases.daemon_killed, "lost: .* not stored"),
    # An acknowledgement is shown before earlier messages. These come out of order then, maybe after the test has looked.
    (EARLIER_SOCKET, cases.realtime_restarted, "a hole before: mine"),
    (EARLIER_PUSHER, cases.daemon_killed, "a hole before: mine"),
    # Its own text is shown before the others, or by `catchUp` as well if that is answered first.
    (EARLIER_PUSHER, cases.slow_authentication, "a hole before|twice: mine"),
    # Nothing looks for the new session. An event that is late, of either session, comes after or as well as `catchUp`.
    (EARLIER_PUSHER, cases.session_closed_meanwhile, "lost|out of order: staff|twice: staff"),
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[World]:
    with world_for(SOCKET_SAMPLE, tmp_path_factory.mktemp("pages"), template) as world:
        yield world


@pytest.mark.parametrize(
    ("subject", "case"),
    [
        (SOCKET_SAMPLE, cases.cut_going_up),
        (SOCKET_SAMPLE, cases.cut_coming_down),
        (PUSHER_SAMPLE, cases.cut_coming_down),
    ],
)
def test_a_page_of_the_docs_bears(servers: World, subject: Subject, case: cases.Case) -> None:
    case(replace(servers, subject=subject))


@pytest.mark.parametrize("subject", [EARLIER_SOCKET, EARLIER_PUSHER], ids=["ws", "pusher"])
def test_an_earlier_page_talks_while_nothing_fails(servers: World, subject: Subject) -> None:
    """So what it fails below is a fault of the page, and not of what the suite has put around it."""
    cases.conversation(replace(servers, subject=subject), SOON)


@pytest.mark.parametrize(
    ("subject", "case", "how"),
    FAILING,
    ids=[f"{subject.name}-{case.__name__}" for subject, case, _ in FAILING],
)
def test_an_earlier_page_fails(servers: World, subject: Subject, case: cases.Case, how: str) -> None:
    within = LATE if case is cases.slow_authentication else SOON
    seen = []
    for _ in range(TRIES):
        try:
            case(replace(servers, subject=subject), within)
        except AssertionError as error:
            seen.append(str(error))
            if re.search(how, seen[-1]):
                return
    pytest.fail(f"in {TRIES} tries: {seen}")
