"""Running it: the health view, dead letters, and what is seen while the daemon or Realtime is away."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser import conftest
from tests.browser.conftest import Join
from tests.browser.world import Fragile, Staff, World
from tests.support.stack import wait_until

OUTAGE = 30.0


@pytest.fixture
def shaky(breakable: Fragile) -> Fragile:
    """The project whose daemon may be killed, emptied."""
    breakable.empty()
    return breakable


@contextmanager
def chatter(world: World, player: int, pause: float) -> Iterator[list[str]]:
    """A player who writes all the while, and a colleague who answers from elsewhere when the daemon is there."""
    stop = threading.Event()
    said: list[str] = []

    def over(pause: float) -> bool:
        # However slow the machine: what a test looks for must not be scrolled out of sight meanwhile.
        return stop.wait(pause if len(said) < 40 else 10 * pause)

    def write() -> None:
        while not over(pause):
            text = f"word {len(said)}"
            world.import_(player, text, "Asha")
            said.append(text)

    def answer() -> None:
        n = 0
        while not over(pause * 3):
            try:
                world.reply(player, f"answer {n}", "staff:s2")
            except (httpx.HTTPError, AssertionError):
                continue
            n += 1

    threads = [threading.Thread(target=work) for work in (write, answer)]
    for thread in threads:
        thread.start()
    try:
        yield said
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def complete(world: World, session: str, *staff: Staff) -> int:
    """All of them show all that is stored, in order; how many messages that is."""
    stored = world.texts(session)
    for one in staff:
        wait_until(
            lambda one=one: one.whole() == stored, 60, 0.5, what=f"the whole of {len(stored)} messages"
        )
    return len(stored)


def test_the_daemon_is_killed_in_mid_conversation(shaky: Fragile, let_in: Join) -> None:
    session = shaky.write(29, "Hello", "Asha")
    sam = let_in(shaky, Staff).enter("staff:s1").open(29)
    sue = let_in(shaky, Staff).enter("staff:s2").open(29)
    with chatter(shaky, 29, 0.1) as said:
        wait_until(lambda: len(said) > 5, 30)
        shaky.worker.kill()
        for staff in (sam, sue):
            expect(staff.at("connection")).to_have_attribute("data-state", re.compile("reconnecting|offline"))
        at = len(said)
        sam.answer("Written while nobody answers")
        expect(sam.message("Written while nobody answers")).to_have_attribute("data-state", re.compile("sending|failed"))  # fmt: skip
        wait_until(lambda: len(said) > at + 10, 30)
        shaky.worker.start()
        for staff in (sam, sue):
            staff.live()
        expect(sam.message("Written while nobody answers")).to_have_attribute("data-state", re.compile("sent|delivered"))  # fmt: skip
    count = complete(shaky, session, sam, sue)
    assert shaky.texts(session).count("Written while nobody answers") == 1
    conftest.REPORT.append(
        f"daemon killed in mid-conversation: both consoles show all {count} messages, no gap, no repeat"
    )


def test_realtime_is_away_for_half_a_minute_and_pusher_too(shaky: Fragile, let_in: Join) -> None:
    """Sam and Sue go on working; Ann sees in the health view what is away, and that it comes back."""
    session = shaky.write(29, "zebra", "Asha")
    sam = let_in(shaky, Staff).enter("staff:s1").open(29)
    sue = let_in(shaky, Staff).enter("staff:s2").open(29)
    ann = let_in(shaky, Staff).enter("admin:a1")
    ann.at("nav-health").click()
    expect(ann.at("health")).to_have_attribute("data-loaded", "true")
    expect(ann.at("feed")).to_have_text("live")
    expect(ann.at("worker").first).to_be_visible(timeout=30_000)
    expect(ann.at("plot")).to_be_visible()
    pusher = ann.at("sink", sink="pusher")
    expect(pusher).to_have_attribute("data-state", "working")
    began = time.monotonic()
    with chatter(shaky, 29, 0.4) as said:
        shaky.fault("realtime", {"refuse": True})
        shaky.fault("realtime", {"action": "close_all"})
        shaky.fault("pusher", {"status": 500})
        expect(pusher).to_have_attribute("data-state", re.compile("failing|trying"), timeout=30_000)
        expect(pusher).to_contain_text("500")
        expect(ann.at("sink", sink="onesignal")).to_have_attribute("data-state", "working")
        expect(ann.at("feed")).not_to_have_text("live")
        assert int(ann.at("backlog").inner_text().replace(",", "")) >= 1
        shaky.http.delete("/__stack/faults", params={"face": "pusher"}).raise_for_status()
        sam.answer("From Sam, without a bell")
        expect(sue.message("From Sam, without a bell")).to_be_visible()
        wait_until(lambda: time.monotonic() - began > OUTAGE, 2 * OUTAGE)
        # Nobody was cut off: the daemon looks by itself.
        for staff in (sam, sue):
            expect(staff.at("connection")).to_have_attribute("data-state", "live")
        shaky.http.delete("/__stack/faults").raise_for_status()
        last = f"word {len(said) - 1}"
        expect(sam.message(last)).to_be_visible()
    count = complete(shaky, session, sam, sue)
    conftest.REPORT.append(
        f"Realtime away for {OUTAGE:.0f} s: both consoles show all {count} messages, no gap, no repeat"
    )
    expect(pusher).to_have_attribute("data-state", "working", timeout=40_000)
    expect(ann.at("backlog")).to_have_text("0", timeout=30_000)
    expect(ann.at("feed")).to_have_text("live", timeout=30_000)
    assert not re.search("zebra|word", ann.at("health").inner_text())


def test_the_network_is_away(shaky: Fragile, let_in: Join) -> None:
    session = shaky.write(29, "Hello", "Asha")
    sam = let_in(shaky, Staff).enter("staff:s1").open(29)
    sam.context.set_offline(True)
    expect(sam.at("connection")).to_have_attribute("data-state", re.compile("reconnecting|offline"))
    for n in range(3):
        shaky.write(29, f"meanwhile {n}", "Asha")
    sam.context.set_offline(False)
    sam.live()
    expect(sam.message("meanwhile 2")).to_be_visible()
    complete(shaky, session, sam)


def test_an_admin_sends_a_dead_letter_again(shaky: Fragile, let_in: Join) -> None:
    shaky.fault("pusher", {"status": 400, "match": "zebra"})
    session = shaky.write(29, "zebra", "Asha")
    ann = let_in(shaky, Staff).enter("admin:a1")
    ann.at("nav-health").click()
    expect(ann.at("health")).to_have_attribute("data-loaded", "true")
    expect(ann.at("dead-row")).to_have_count(2, timeout=60_000)  # that it was opened, and the message
    expect(ann.at("dead-count")).to_have_text("2")
    assert "zebra" not in ann.at("health").inner_text()
    shaky.http.delete("/__stack/faults").raise_for_status()
    ann.at("dead-retry").last.click()
    expect(ann.at("dead-row")).to_have_count(1)
    ann.at("dead-retry-all").click()
    expect(ann.at("dead-row")).to_have_count(0)
    expect(ann.at("dead-count")).to_have_text("0", timeout=30_000)
    wait_until(
        lambda: not shaky.sql("select 1 from gre_relay_deliveries where lane_key = %s and state <> 'done'", session),
        30, what="its delivery",
    )  # fmt: skip
