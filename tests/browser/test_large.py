"""With 5,000 sessions, and 10,000 messages in one, the list is shown at once and scrolling is smooth.

The browser measures: the time of the first painted row, the duration of each frame, and long tasks.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import conftest
from tests.browser.bulk_data import MESSAGES, SESSIONS, insert_bulk_data
from tests.browser.conftest import Join
from tests.browser.world import Staff, World
from tests.support.waiting import wait_until

pytestmark = pytest.mark.quiet

FIRST_LIST = 1000
FRAME = 100
"""Milliseconds: the bounds for the first list, and for 95 of 100 frames, on a busy machine with two cores."""
_FIRST_ROW = """
new MutationObserver((_, watching) => {
  if (!document.querySelector('[data-testid="session-row"]')) return
  watching.disconnect()
  requestAnimationFrame(() => { const seen = new MessageChannel(); seen.port1.onmessage = () => (window.__paintedAt = performance.now()); seen.port2.postMessage(0) })
}).observe(document, { subtree: true, childList: true })
"""
# Scroll by so many pixels per frame, to the end or for so many frames; return the time between frames.
_SCROLL = """async ([name, by, most]) => {
  const box = document.querySelector(`[data-testid="${name}"]`)
  const long = []
  const watching = new PerformanceObserver((list) => long.push(...list.getEntries().map((entry) => entry.duration)))
  watching.observe({ type: 'longtask' })
  const frames = []
  let before
  let unchanged = 0
  while (frames.length < most && unchanged < 30) {
    const now = await new Promise(requestAnimationFrame)
    if (before !== undefined) frames.push(now - before)
    before = now
    const at = box.scrollTop
    box.scrollTop += by
    unchanged = box.scrollTop === at ? unchanged + 1 : 0
  }
  watching.disconnect()
  return { frames, long }
}"""


@pytest.fixture(scope="module")
def large_world(project: World) -> World:
    """The world with all that, for both tests: the second one adds two messages."""
    project.reset()
    insert_bulk_data(project)
    return project


def assert_smooth_scrolling(staff: Staff, name: str, by: int, most: int, label: str) -> None:
    """Scroll and check the frames: the best of three times, since other processes use the machine."""
    for _ in range(3):
        found: dict[str, Any] = staff.page.evaluate(_SCROLL, [name, by, most])
        frames = sorted(found["frames"])
        assert len(frames) > 20, label
        middle, slow = frames[len(frames) // 2], frames[int(len(frames) * 0.95)]
        conftest.MEASUREMENTS.append(
            f"{label}: {len(frames)} frames, median {middle:.0f} ms, 95 % under {slow:.0f} ms, longest {frames[-1]:.0f} ms;"
            f" tasks over 50 ms: {len(found['long'])}, longest {max(found['long'], default=0):.0f} ms"
        )
        if slow < FRAME:
            return
    pytest.fail(f"{label}: of a hundred frames, more than five took over {FRAME} ms, three times")


def test_the_first_list_of_five_thousand_sessions_is_painted_within_a_second(
    large_world: World, open_page: Join
) -> None:
    sam = open_page(large_world, Staff)
    sam.page.goto(f"{large_world.console}/console")  # so that Chromium has started
    sam.context.add_init_script(_FIRST_ROW)
    cache = sam.context.new_cdp_session(sam.page)
    times: list[float] = []
    # Three times at least, and more often while other processes use the machine: the second best counts.
    while len(times) < 3 or (len(times) < 9 and sorted(times)[1] >= FIRST_LIST):
        sam.page.goto("about:blank")
        cache.send("Network.clearBrowserCache")
        sam.page.goto(f"{large_world.console}/console#token={large_world.token('staff:s1')}")
        wait_until(lambda: sam.page.evaluate("window.__paintedAt"), what="the first row")
        times.append(float(sam.page.evaluate("window.__paintedAt")))
    conftest.MEASUREMENTS.append(f"first list of {SESSIONS} sessions painted after {', '.join(f'{milliseconds:.0f}' for milliseconds in times)} ms ({len(times)} times, with nothing cached)")  # fmt: skip
    assert sorted(times)[1] < FIRST_LIST, times
    sam.wait_until_live()
    expect(sam.at("tally")).to_contain_text("5,000")
    expect(sam.at("tally")).not_to_contain_text("+")
    assert sam.at("session-row").count() < 60
    # The longest wait is on top.
    wait_until(lambda: sam.listed_players()[0] == 5000)
    assert_smooth_scrolling(sam, "queue", 300, 240, "scrolling the list of 5,000 sessions")


def test_a_conversation_of_ten_thousand_messages_scrolls_smoothly_to_its_first(
    large_world: World, open_page: Join
) -> None:
    sam = open_page(large_world, Staff).enter()
    sam.page.evaluate(
        "id => { location.hash = `#s=${id}` }", large_world.sql("select md5('s1')::uuid::text as id")[0]["id"]
    )
    expect(
        sam.message(f"Message {MESSAGES}" + " with some more words in it" * (MESSAGES * 7 % 5))
    ).to_be_visible()
    assert_smooth_scrolling(sam, "messages", -300, 240, "scrolling up through pages as they load")

    # The position is kept while an older page loads, so the top is reached in several steps.
    def scroll_to_top() -> bool:
        sam.page.evaluate("document.querySelector('[data-testid=\"messages\"]').scrollTop = 0")
        return sam.at("message", seq=1).count() > 0

    wait_until(scroll_to_top, 90, what="the first of ten thousand messages")
    expect(sam.at("messages")).to_have_attribute("data-loaded", str(MESSAGES))
    expect(sam.at("messages")).to_have_attribute("data-older", "false")
    assert_smooth_scrolling(sam, "messages", 300, 240, f"scrolling with all {MESSAGES} messages loaded")
    assert sam.at("message").count() < 120
    began = sam.page.evaluate("performance.now()")
    sam.at("jump-latest").click()
    large_world.write(1, "The newest of all")
    expect(sam.message("The newest of all")).to_be_visible()
    sam.answer("And its answer")
    expect(sam.message("And its answer")).to_be_visible()
    conftest.MEASUREMENTS.append(f"a message and its answer beside {MESSAGES} others: {sam.page.evaluate('performance.now()') - began:.0f} ms")  # fmt: skip
