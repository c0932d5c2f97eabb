"""The suite counts as wrong what a person would see, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.screen import Screen

Item = tuple[str, int, str, str]


def item(seq: int, session: str = "a") -> Item:
    return f"{session}{seq}", seq, session, f"text {session}{seq}"


def change(at: int, gone: int, *fresh: Item) -> dict[str, Any]:
    return {"shown": {"at": at, "gone": gone, "fresh": [list(each) for each in fresh]}}


def test_messages_in_order_are_right_also_of_two_sessions_and_when_older_ones_are_put_before_them() -> None:
    screen = Screen()
    for line in (
        change(0, 0, item(3), item(4)),
        change(2, 0, item(1, "b"), item(5)),
        change(0, 0, item(1), item(2)),
        {"asked": True},
    ):
        screen.apply(line)
    assert screen.faults == []
    assert screen.texts() == {"a": [f"text a{n}" for n in range(1, 6)], "b": ["text b1"]}
    assert screen.ends_with({"a": ["text a4", "text a5"], "b": ["text b1"]}) is False
    assert screen.ends_with({"a": [f"text a{n}" for n in range(-3, 6)], "b": ["text b1"]})


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([change(0, 0, item(1), item(1))], "twice: text a1"),
        ([change(0, 0, item(1)), change(1, 0, item(2)), change(2, 0, item(1))], "twice: text a1"),
        ([change(0, 0, item(1)), change(1, 0, item(3))], "a hole before: text a3 (3 after 1)"),
        ([change(0, 0, item(2)), change(1, 0, item(1))], "out of order: text a1 (1 after 2)"),
        ([change(0, 0, item(1), item(2)), change(1, 1)], "vanished: text a2"),
        ([change(0, 0, item(3)), change(0, 0, item(1))], "a hole before: text a3 (3 after 1)"),
        ([change(0, 0, item(1)), {"error": "Error: 418"}], "an error in the page: Error: 418"),
        ([change(0, 0, item(1)), {"loaded": True}, change(0, 0, item(1), item(1))], "twice: text a1"),
    ],
    ids=["twice at once", "twice", "hole", "order", "vanished", "hole in front", "error", "loaded again"],
)
def test_a_fault_counts_even_if_a_later_state_is_right(lines: list[dict[str, Any]], fault: str) -> None:
    screen = Screen()
    for line in lines:
        screen.apply(line)
    screen.apply(change(len(screen.messages), 0, item(1, "b"), item(2, "b")))
    assert screen.faults == [fault]


def test_all_messages_may_go_once_when_another_person_signs_in() -> None:
    screen = Screen()
    screen.apply(change(0, 0, item(1), item(2)))
    screen.may_clear = True
    for line in (change(0, 2), change(0, 0, item(1, "b"), item(2, "b"))):
        screen.apply(line)
    assert screen.faults == []
    screen.apply(change(0, 2))
    assert screen.faults == ["vanished: text b1", "vanished: text b2"]


def test_a_page_that_is_loaded_again_shows_its_messages_anew() -> None:
    screen = Screen()
    for line in (change(0, 0, item(1), item(2)), {"loaded": True}, change(0, 0, item(2), item(3))):
        screen.apply(line)
    assert screen.faults == []
    assert screen.texts() == {"a": ["text a2", "text a3"]}
