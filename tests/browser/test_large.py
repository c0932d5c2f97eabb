"""Five thousand sessions, and ten thousand messages in one: the list is there at once, and scrolling stays smooth.

The numbers are the browser's own: when the first row was painted, how long each frame took, which tasks were long.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import conftest
from tests.browser.conftest import Join
from tests.browser.crowd import MESSAGES, SESSIONS, fill
from tests.browser.world import Staff, World
from tests.support.stack import wait_until

FIRST_LIST = 1000
FRAME = 100
"""Milliseconds: the first list, and the slowest but five of a hundred frames, on a noisy machine with two cores."""
_FIRST_ROW = """
new MutationObserver((_, watching) => {
  if (!document.querySelector('[data-testid="session-row"]')) return
  watching.disconnect()
  requestAnimationFrame(() => { const seen = new MessageChannel(); seen.port1.onmessage = () => (window.__painted = performance.now()); seen.port2.postMessage(0) })
}).observe(document, { subtree: true, childList: true })
"""
# Scrolls by so many pixels in each frame, to one end or for so many frames; the time between frames.
_SCROLL = """async ([name, by, most]) => {
  const box = document.querySelector(`[data-testid="${name}"]`)
  const long = []
  const watching = new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)))
  watching.observe({ type: 'longtask' })
  const frames = []
  let before
  let resting = 0
  while (frames.length < most && resting < 30) {
    const now = await new Promise(requestAnimationFrame)
    if (before !== undefined) frames.push(now - before)
    before = now
    const at = box.scrollTop
    box.scrollTop += by
    resting = box.scrollTop === at ? resting + 1 : 0
  }
  watching.disconnect()
  return { frames, long }
}"""


@pytest.fixture
def crowd(world: World) -> World:
    fill(world)
    return world


def smooth(staff: Staff, name: str, by: int, most: int, what: str) -> None:
    """Scroll, and note and judge the frames: the best of three times, since others use the machine too."""
    for _ in range(3):
        found: dict[str, Any] = staff.page.evaluate(_SCROLL, [name, by, most])
        frames = sorted(found["frames"])
        assert len(frames) > 20, what
        middle, slow = frames[len(frames) // 2], frames[int(len(frames) * 0.95)]
        conftest.REPORT.append(
            f"{what}: {len(frames)} frames, median {middle:.0f} ms, 95 % under {slow:.0f} ms, longest {frames[-1]:.0f} ms;"
            f" tasks over 50 ms: {len(found['long'])}, longest {max(found['long'], default=0):.0f} ms"
        )
        if slow < FRAME:
            return
    pytest.fail(f"{what}: of a hundred frames, more than five took over {FRAME} ms, three times")


def test_the_first_list_of_five_thousand_is_painted_within_a_second(crowd: World, join: Join) -> None:
    sam = join(Staff)
    sam.page.goto(f"{crowd.console}/console")  # (so that Chromium itself has started)
    sam.context.add_init_script(_FIRST_ROW)
    cache = sam.context.new_cdp_session(sam.page)
    times = []
    for _ in range(3):
        sam.page.goto("about:blank")
        cache.send("Network.clearBrowserCache")
        sam.page.goto(f"{crowd.console}/console#token={crowd.token('staff:s1')}")
        wait_until(lambda: sam.page.evaluate("window.__painted"), 20, what="the first row")
        times.append(float(sam.page.evaluate("window.__painted")))
    conftest.REPORT.append(f"first list of {SESSIONS} sessions painted after {', '.join(f'{one:.0f}' for one in times)} ms (three times, with nothing cached)")  # fmt: skip
    assert sorted(times)[1] < FIRST_LIST, times
    sam.live()
    expect(sam.at("tally")).to_contain_text("5,000", timeout=20_000)
    assert "+" not in sam.at("tally").inner_text()
    assert sam.at("session-row").count() < 60
    # Those that wait longest are on top.
    assert sam.order()[0] == 5000
    smooth(sam, "queue", 300, 240, "scrolling the list of 5,000 sessions")


def test_a_conversation_of_ten_thousand_messages_scrolls_smoothly_to_its_first(
    crowd: World, join: Join
) -> None:
    sam = join(Staff).enter()
    sam.page.evaluate(
        "id => { location.hash = `#s=${id}` }", crowd.sql("select md5('s1')::uuid::text as id")[0]["id"]
    )
    expect(
        sam.message(f"Message {MESSAGES}" + " with some more words in it" * (MESSAGES * 7 % 5))
    ).to_be_visible()
    smooth(sam, "messages", -300, 240, "scrolling up through pages as they load")

    # (At the top the place is held while an older page comes: one goes up again and again.)
    def first() -> bool:
        sam.page.evaluate("document.querySelector('[data-testid=\"messages\"]').scrollTop = 0")
        return sam.at("message", seq=1).count() > 0

    wait_until(first, 90, what="the first of ten thousand messages")
    expect(sam.at("messages")).to_have_attribute("data-loaded", str(MESSAGES))
    expect(sam.at("messages")).to_have_attribute("data-older", "false")
    smooth(sam, "messages", 300, 240, f"scrolling with all {MESSAGES} messages loaded")
    assert sam.at("message").count() < 120
    began = sam.page.evaluate("performance.now()")
    sam.at("jump-latest").click()
    crowd.write(1, "The newest of all")
    expect(sam.message("The newest of all")).to_be_visible()
    sam.answer("And its answer")
    expect(sam.message("And its answer")).to_be_visible()
    conftest.REPORT.append(f"a message and its answer beside {MESSAGES} others: {sam.page.evaluate('performance.now()') - began:.0f} ms")  # fmt: skip
