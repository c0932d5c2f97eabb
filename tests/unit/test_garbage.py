"""Full garbage collections: what has survived one is left out of the next ones, for an hour."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from gre_bridge.daemon.garbage import THAW_EVERY, LongLived


class Node:
    """An object that can be part of a cycle."""

    def __init__(self) -> None:
        self.other: Node | None = None


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    callback = LongLived(clock)
    gc.callbacks.append(callback)
    yield clock
    gc.callbacks.remove(callback)
    gc.unfreeze()


def make_garbage(node: Node) -> None:
    """Make this object a cycle of its own."""
    node.other = node


def test_what_survived_a_full_collection_is_examined_again_after_an_hour(clock: Clock) -> None:
    before = gc.get_freeze_count()
    node = Node()
    seen = weakref.ref(node)
    gc.collect()
    assert gc.get_freeze_count() > before
    make_garbage(node)
    del node
    gc.collect()
    assert seen() is not None, "the collector leaves it out"
    clock.now = THAW_EVERY
    gc.collect()
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert seen() is None
    assert gc.get_freeze_count() > 0, "what is left is left out again"


@pytest.mark.usefixtures("clock")
def test_what_is_new_is_examined_and_collections_of_the_young_freeze_nothing() -> None:
    gc.collect()
    frozen = gc.get_freeze_count()
    node = Node()
    seen = weakref.ref(node)
    gc.collect(1)
    assert gc.get_freeze_count() == frozen
    make_garbage(node)
    del node
    gc.collect()
    assert seen() is None
