"""Pages that are made with the client bear every case of the suite, over each transport and with the hooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.client import cases
from tests.client.clients import CLIENTS, HOOKS
from tests.client.suite import PATIENT, QUICK, bear_what_takes_time
from tests.client.world import Subject, World, world_for
from tests.support import npm
from tests.support.template import Template

PACKAGE = Path(__file__).parents[2] / "client"
NODE = (20, 19)
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
    bear_what_takes_time(replace(servers, subject=subject))


def test_a_client_leaves_out_no_case() -> None:
    assert {*PATIENT, *QUICK} == {*cases.CASES}
    assert all(subject.pages_back and not subject.cannot for subject in CLIENTS)
