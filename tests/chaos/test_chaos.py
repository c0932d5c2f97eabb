"""The most important short cases; `make chaos` runs all."""

from __future__ import annotations

import pytest

from tests.chaos.cases import CASES, Case
from tests.chaos.runner import run
from tests.chaos.simulated import SIMULATED
from tests.support.stack import StackProcess

SHORT = [case for case in CASES if case.short]


@pytest.mark.parametrize("case", SHORT, ids=[case.name for case in SHORT])
def test_nothing_is_lost_or_out_of_order_and_bystanders_do_not_wait(
    stack_process: StackProcess, case: Case
) -> None:
    for _ in range(3):  # the best of three, for the times only: the machine may have other load
        report = run(stack_process, case)
        assert not report.problems, report
        if report.ok:
            return
    pytest.fail(f"too slow, three times: {report}")


@pytest.mark.parametrize("name", SIMULATED)
def test_an_outage_of_hours_costs_no_attempt_and_no_message(name: str) -> None:
    report = SIMULATED[name].run()
    assert report.ok, report
