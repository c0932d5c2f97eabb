"""Pages that are made with the client bear every case of the suite, over each transport and with the hooks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.client import cases
from tests.client.clients import CLIENTS, HOOKS
from tests.client.world import Subject, World, world_for
from tests.support import npm
from tests.support.template import Template

PACKAGE = Path(__file__).parents[2] / "client"
NODE = (20, 19)
PATIENT: tuple[cases.Case, ...] = (
    cases.slow_authentication,
    cases.token_expires,
    cases.token_never_renewed,
    cases.upgrades_refused,
)
"""Cases that wait most of their time. They run at the same time, with a player each."""
QUICK = [case for case in cases.CASES if case not in (*PATIENT, cases.sleep_of_an_hour)]
SUBJECTS = pytest.mark.parametrize("subject", CLIENTS, ids=[subject.name for subject in CLIENTS])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[World]:
    npm.node_modules(PACKAGE, NODE)  # React and a document, for the hooks
    with world_for(HOOKS, tmp_path_factory.mktemp("clients"), template) as world:
        yield world


@SUBJECTS
@pytest.mark.parametrize("case", QUICK, ids=[case.__name__ for case in QUICK])
def test_a_page_bears(servers: World, subject: Subject, case: cases.Case) -> None:
    case(replace(servers, subject=subject))


@SUBJECTS
def test_a_page_bears_what_takes_time(servers: World, subject: Subject) -> None:
    world = replace(servers, subject=subject)
    with ThreadPoolExecutor(len(PATIENT)) as pool:
        runs = {case.__name__: pool.submit(case, world) for case in PATIENT}
    failed = {name: str(error) for name, run in runs.items() if (error := run.exception())}
    assert not failed


@SUBJECTS
def test_a_page_bears_a_sleep(servers: World, subject: Subject) -> None:
    cases.sleep_of_an_hour(replace(servers, subject=subject))


def test_a_client_leaves_out_no_case() -> None:
    assert {*PATIENT, *QUICK, cases.sleep_of_an_hour} == {*cases.CASES}
    assert all(subject.pages_back and not subject.cannot for subject in CLIENTS)
