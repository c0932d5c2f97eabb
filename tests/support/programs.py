"""Programs that are not installed by pip: a test that needs one fails on CI without it, and is skipped elsewhere."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Fail the test if CI=true, and skip it otherwise: a test that is skipped on CI too would never run."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def need(program: str, package: str) -> str:
    """The path of a program of a Debian package."""
    return shutil.which(program) or missing(f"{program} is missing: apt-get install {package}")
