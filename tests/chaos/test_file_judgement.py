"""The eye of the cases with files: it must see what is wrong with a picture."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.files import wrong_picture
from tests.support.corpus import corners, encoded, exif, photo


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (encoded(corners(), "JPEG", quality=82), ""),
        (encoded(corners(), "JPEG", quality=82, exif=exif()), "it has metadata"),
        (photo(), "it has metadata"),
        (encoded(corners(64, 96), "JPEG"), "(64, 96)"),
        (encoded(corners(orientation=3), "JPEG"), "not upright"),
        (encoded(corners(orientation=2), "JPEG"), "not upright"),
    ],
    ids=["as it was sent", "with a place", "untouched", "lying", "upside down", "mirrored"],
)
def test_a_picture_is_judged_by_its_size_its_corners_and_its_metadata(content: Any, problem: str) -> None:
    found = wrong_picture(content)
    assert found.startswith(problem) and bool(found) == bool(problem)
