"""Full garbage collections: what survives a long one is left out of the next ones, until everything is examined again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gre_bridge.daemon.garbage import LONG, MUCH, THAW_EVERY, LongLived


class Collector:
    """Full collections with the times and the findings that the test gives."""

    def __init__(self) -> None:
        self.now = 0.0
        self.callback = LongLived(lambda: self.now)

    def collect(self, took: float, found: int = 0, generation: int = 2) -> bool:
        """Report a collection; return whether more is left out than before."""
        new = [self]
        before = gc.get_freeze_count()
        info = {"generation": generation, "collected": found, "uncollectable": 0}
        self.callback("start", info)
        self.now += took
        self.callback("stop", info)
        return bool(new) and gc.get_freeze_count() > before


@pytest.fixture
def collector() -> Iterator[Collector]:
    yield Collector()
    gc.unfreeze()


def test_the_survivors_of_a_long_collection_that_finds_little_are_left_out(collector: Collector) -> None:
    assert not collector.collect(LONG / 2)
    assert not collector.collect(1.0, found=MUCH + 1), "connections come and go"
    assert not collector.collect(1.0, generation=1)
    assert collector.collect(1.0, found=MUCH)


def test_everything_is_examined_again_after_an_hour(collector: Collector) -> None:
    assert collector.collect(1.0)
    collector.now = THAW_EVERY
    collector.collect(1.0)
    assert gc.get_freeze_count() == 0
    assert collector.collect(1.0), "and then left out again"


def test_everything_is_examined_again_when_much_has_been_left_out(collector: Collector) -> None:
    assert collector.collect(1.0), "everything took a second"
    for _ in range(2):
        assert collector.collect(0.6)
    collector.collect(0.1)
    assert gc.get_freeze_count() == 0, "1.2 seconds of collections are left out beside it"
    assert not collector.collect(2.0, found=3 * MUCH), "connections came and went, and are found now"
    assert collector.collect(2.0), "and then left out again"
