"""How long a message takes from one page to the other."""

from __future__ import annotations

import statistics

import pytest
from playwright.sync_api import expect

from tests.browser import conftest
from tests.browser.world import Player, Staff


@pytest.mark.quiet
def test_a_message_appears_on_the_other_page_within_a_second(sam: Staff, asha: Player) -> None:
    for first in range(0, 15, 5):  # the best of three times, since other processes use the machine
        there, back = [], []
        for n in range(first, first + 5):
            sam.watch_for(f"question {n}.")
            there.append((asha.type(f"question {n}."), sam.wait_for_arrival()))
            if n == 0:
                sam.open(29)
            asha.watch_for(f"answer {n}.")
            sam.at("reply").fill(f"answer {n}.")
            began: float = sam.page.evaluate("Date.now()") / 1000
            sam.at("reply").press("Enter")
            back.append((began, asha.wait_for_arrival()))
        slowest = 0.0
        for what, times in (("player's page to console", there), ("console to player's page", back)):
            durations = [end - start for start, end in times]
            slowest = max(slowest, *durations)
            conftest.MEASUREMENTS.append(
                f"{what}: {', '.join(f'{1000 * seconds:.0f}' for seconds in durations)} ms (from the key to the screen; median {1000 * statistics.median(durations):.0f} ms)"
            )
        expect(asha.at("try-message")).to_have_count(2 * first + 10)
        # Only the rows in view are there.
        expect(sam.at("messages")).to_have_attribute("data-loaded", str(2 * first + 10))
        if slowest < 1.0:
            return
    pytest.fail("a message took over a second, three times")
