"""Parts of `make bench`, small: that they run to their end, and count what was lost."""

from __future__ import annotations

from pathlib import Path

from tests.bench.pages import Pages, Person
from tests.bench.sockets import STORMS, Size, measure
from tests.support.memory import cluster_directory
from tests.support.stack import StackProcess
from tests.support.template import Template

SMALL = Size(staff=5, players=45, talking=10, rate=25.0, seconds=2.0, idle=0.5)


def test_fifty_sockets_hear_everything_once_and_come_back_from_storms(
    tmp_path: Path, template: Template
) -> None:
    storms = (STORMS[0], STORMS[-1])
    with cluster_directory() as data, StackProcess(tmp_path, template, data) as stack:
        load, stormed = measure(stack, print, SMALL, storms)
    assert load.loss == (loss := type(load.loss)(0, 0, 0))
    assert len(load.opened) == 50
    assert 0 < load.messages <= 50
    assert load.deliveries == 5 * load.messages  # to all staff and the player, but for who sent it
    assert len(load.receipt) == len(load.sent_to_receipt) == load.deliveries
    assert min(load.receipt) > 0
    assert load.cpu > 0
    assert load.rss[1] > load.rss[0]
    for found in stormed:
        assert found.loss == loss, found.storm
        assert len(found.back) == 50, found.closes
        assert found.closes["1006"] >= 50
        assert found.relay


async def test_pages_notice_what_is_lost_repeated_or_out_of_order() -> None:
    pages = Pages("", 0, [Person("", staff=False, address="", positions={"a": 1}, talks=False)])
    (page,) = pages.pages

    def hear(seq: int) -> tuple[int, int, int]:
        page.hear(_message(seq))
        return pages.missing({"a": 5}), pages.tally.out_of_order, pages.tally.repeats

    assert hear(2) == (3, 0, 0)
    assert hear(4) == (3, 0, 0)
    assert hear(3) == (1, 1, 0)
    assert hear(3) == (1, 2, 1)
    assert hear(5) == (0, 2, 1)


def _message(seq: int) -> bytes:
    return b'{"type":"chat_message","replay":false,"message":{"id":"m%d","session_id":"a","seq":%d}}' % (
        seq,
        seq,
    )
