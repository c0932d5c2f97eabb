"""Pages that are made with the client bear every case of the suite, over each transport and with the hooks; those of staff, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.client import cases, staff
from tests.client.clients import CLIENTS, HOOKS, PUSHER_HOOKS, STAFF_PUSHER, STAFF_SOCKET, STAFF_SUPABASE
from tests.client.suite import PATIENT, QUICK, bear_what_takes_time
from tests.client.world import Subject, World, world_for
from tests.support import npm
from tests.support.template import Template

PACKAGE = Path(__file__).parents[2] / "client"
NODE = (20, 19)
RUNS = [
    (subject, case)
    for subject in CLIENTS
    for case in QUICK
    # A minute: the hooks show as many over /ws, and the guide's page gets as many over Pusher.
    if not (subject is PUSHER_HOOKS and case is cases.ten_thousand_messages)
]
SUBJECTS = pytest.mark.parametrize("subject", CLIENTS, ids=[subject.name for subject in CLIENTS])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[World]:
    npm.node_modules(PACKAGE, NODE)  # React and a document, for the hooks
    with world_for(HOOKS, tmp_path_factory.mktemp("clients"), template) as world:
        yield world


@pytest.mark.parametrize(
    ("subject", "case"), RUNS, ids=[f"{subject.name}-{case.__name__}" for subject, case in RUNS]
)
def test_a_page_bears(servers: World, subject: Subject, case: cases.Case) -> None:
    case(replace(servers, subject=subject))


@SUBJECTS
def test_a_page_bears_what_takes_time(servers: World, subject: Subject) -> None:
    bear_what_takes_time(replace(servers, subject=subject))


STAFF = [
    (STAFF_SOCKET, staff.desk),
    (STAFF_PUSHER, staff.desk),
    (STAFF_PUSHER, staff.desk_after_faults),
    (STAFF_PUSHER, cases.cut_coming_down),
    (STAFF_SUPABASE, staff.desk),
    (STAFF_SUPABASE, staff.desk_after_faults),
]
"""What staff do is another half of the client; how it connects and sends is that of players' pages. `python -m tests.client` runs all."""


@pytest.mark.parametrize(
    ("subject", "case"), STAFF, ids=[f"{subject.name}-{case.__name__}" for subject, case in STAFF]
)
def test_a_page_of_staff_bears(servers: World, subject: Subject, case: cases.Case) -> None:
    case(replace(servers, subject=subject))


def test_a_client_leaves_out_no_case() -> None:
    assert {*PATIENT, *QUICK} == {*cases.CASES}
    assert all(subject.pages_back and not subject.cannot for subject in CLIENTS)
