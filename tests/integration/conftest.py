"""The access matrix at the end of the report, when its test ran."""

from __future__ import annotations

import sys

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    module = sys.modules.get("test_access_matrix") or sys.modules.get("tests.integration.test_access_matrix")
    lines = getattr(module, "REPORT", None)
    if lines:
        terminalreporter.section("who may do what")
        terminalreporter.write_line("\n".join(lines))
