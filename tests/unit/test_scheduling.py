"""Long files start first and in parts: what `make test` names still exists."""

from __future__ import annotations

from tests.conftest import ROOT
from tests.support.scheduling import DIVIDED, SLOW, part, rank

FILES = [path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")]


def test_each_name_of_a_slow_file_is_that_of_one() -> None:
    assert [name for name in SLOW if not any(file.startswith(name) for file in FILES)] == []
    assert {name.removeprefix("tests/") for name in DIVIDED} <= {*FILES}


def test_divided_files_are_first_and_quick_ones_last() -> None:
    by_rank = sorted(FILES, key=rank)
    assert {*by_rank[: len(DIVIDED)]} == {name.removeprefix("tests/") for name in DIVIDED}
    assert by_rank[-1].startswith(("unit/", "conformance/"))


def test_a_part_is_a_file_or_the_tests_of_one_subject() -> None:
    assert part("tests/api/test_desk.py::test_a[one-two]") == "tests/api/test_desk.py"
    pages, samples = DIVIDED
    both = {part(f"{pages}::test_a[over /ws-conversation]"), part(f"{pages}::test_b[over /ws]")}
    assert both == {f"{pages}::over /ws"}
    assert part(f"{pages}::test_a[over Pusher-conversation]") == f"{pages}::over Pusher"
    assert part(f"{pages}::test_c") == f"{pages}::"
    builds = {
        part(f"{samples}::test_a[vite-conversation]"),
        part(f"{samples}::test_a[vite in development-x]"),
    }
    assert builds == {f"{samples}::vite"}, "two processes would build in one folder"
