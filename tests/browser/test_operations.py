"""The health view, dead letters, and outages of the daemon, Realtime, Pusher and the network."""

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
from tests.browser.world import RestartableWorld, Staff, World
from tests.support.waiting import wait_until

OUTAGE = 20.0


@pytest.fixture
def restartable(restartable_world: RestartableWorld) -> RestartableWorld:
    """The stack with a restartable daemon, without data of earlier tests."""
    restartable_world.reset()
    return restartable_world


@contextmanager
def background_messages(world: World, player: int, pause: float) -> Iterator[list[str]]:
    """A player writes continuously, and a colleague replies through REST while the daemon is running."""
    stop = threading.Event()
    written: list[str] = []

    def wait(pause: float) -> bool:
        # Slow down after 40 messages: on a slow machine the message of a test must stay visible.
        return stop.wait(pause if len(written) < 40 else 10 * pause)

    def write() -> None:
        while not wait(pause):
            text = f"word {len(written)}"
            world.write_as_backend(player, text, "Asha")
            written.append(text)

    def answer() -> None:
        n = 0
        while not wait(pause * 3):
            try:
                world.reply(player, f"answer {n}", "staff:s2")
            except (httpx.HTTPError, AssertionError):
                continue
            n += 1

    threads = [threading.Thread(target=work) for work in (write, answer)]
    for thread in threads:
        thread.start()
    try:
        yield written
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def send_until_stored(staff: Staff, session: str, text: str) -> None:
    """Send a refused reply again until it is stored: a colleague answers all the time."""

    def is_stored() -> bool:
        if text in staff.world.texts(session):
            return True
        staff.message(text).get_by_test_id("retry").evaluate_all("found => found[0]?.click()")
        return False

    wait_until(is_stored, 60, 0.1, what="a stored reply")


def assert_complete(world: World, session: str, *staff: Staff) -> int:
    """Wait until each page shows all stored messages in order; return their number."""
    stored = world.texts(session)
    for person in staff:
        wait_until(
            lambda person=person: person.all_texts() == stored, 60, 0.5, what=f"all {len(stored)} messages"
        )
    return len(stored)


def test_no_message_is_lost_when_the_daemon_is_killed(restartable: RestartableWorld, open_page: Join) -> None:
    session = restartable.write(29, "Hello", "Asha")
    sam = open_page(restartable, Staff).enter("staff:s1").open(29)
    sue = open_page(restartable, Staff).enter("staff:s2").open(29)
    with background_messages(restartable, 29, 0.1) as written:
        wait_until(lambda: len(written) > 5)
        restartable.worker.kill()
        for staff in (sam, sue):
            expect(staff.at("connection")).to_have_attribute("data-state", re.compile("reconnecting|offline"))
        at = len(written)
        sam.answer("Written during the outage")
        expect(sam.message("Written during the outage")).to_have_attribute("data-state", re.compile("sending|failed"))  # fmt: skip
        wait_until(lambda: len(written) > at + 10)
        restartable.worker.start()
        for staff in (sam, sue):
            staff.wait_until_live()
        send_until_stored(sam, session, "Written during the outage")
    count = assert_complete(restartable, session, sam, sue)
    assert restartable.texts(session).count("Written during the outage") == 1
    conftest.MEASUREMENTS.append(
        f"daemon killed during a conversation: both consoles show all {count} messages, no gap, no repeat"
    )


def test_no_message_is_lost_during_an_outage_of_realtime_and_pusher(
    restartable: RestartableWorld, open_page: Join
) -> None:
    """Sam and Sue keep working; the health view shows Ann the outage and the recovery."""
    session = restartable.write(29, "zebra", "Asha")
    sam = open_page(restartable, Staff).enter("staff:s1").open(29)
    sue = open_page(restartable, Staff).enter("staff:s2").open(29)
    ann = open_page(restartable, Staff).enter("admin:a1")
    ann.at("nav-health").click()
    expect(ann.at("health")).to_have_attribute("data-loaded", "true")
    expect(ann.at("realtime-state")).to_have_text("live")
    expect(ann.at("worker").first).to_be_visible()
    expect(ann.at("plot")).to_be_visible()
    pusher = ann.at("sink", sink="pusher")
    expect(pusher).to_have_attribute("data-state", "working")
    began = time.monotonic()
    with background_messages(restartable, 29, 0.4) as written:
        restartable.fault("realtime", {"refuse": True})
        restartable.fault("realtime", {"action": "close_all"})
        restartable.fault("pusher", {"status": 500})
        expect(pusher).to_have_attribute("data-state", re.compile("failing|trying"))
        expect(pusher).to_contain_text("500")
        expect(ann.at("sink", sink="onesignal")).to_have_attribute("data-state", "working")
        expect(ann.at("realtime-state")).not_to_have_text("live")
        wait_until(lambda: int(ann.at("backlog").inner_text().replace(",", "")) >= 1, what="a backlog")
        restartable.http.delete("/__stack/faults", params={"service": "pusher"}).raise_for_status()
        sue.watch_for("From Sam, without Realtime")  # later messages may push it out of view at once
        sam.answer("From Sam, without Realtime")
        send_until_stored(sam, session, "From Sam, without Realtime")
        sue.wait_for_arrival()
        wait_until(lambda: time.monotonic() - began > OUTAGE, 2 * OUTAGE)
        # No page lost its connection: the daemon polls.
        for staff in (sam, sue):
            expect(staff.at("connection")).to_have_attribute("data-state", "live")
        restartable.http.delete("/__stack/faults").raise_for_status()
        last = f"word {len(written) - 1}"
        expect(sam.message(last)).to_be_visible()
    count = assert_complete(restartable, session, sam, sue)
    conftest.MEASUREMENTS.append(
        f"Realtime outage of {OUTAGE:.0f} s: both consoles show all {count} messages, no gap, no repeat"
    )
    expect(pusher).to_have_attribute("data-state", "working")
    expect(ann.at("backlog")).to_have_text("0")
    expect(ann.at("realtime-state")).to_have_text("live")
    assert not re.search("zebra|word", ann.at("health").inner_text())


def test_no_message_is_lost_without_network(restartable: RestartableWorld, open_page: Join) -> None:
    session = restartable.write(29, "Hello", "Asha")
    sam = open_page(restartable, Staff).enter("staff:s1").open(29)
    sam.context.set_offline(True)
    expect(sam.at("connection")).to_have_attribute("data-state", re.compile("reconnecting|offline"))
    for n in range(3):
        restartable.write(29, f"meanwhile {n}", "Asha")
    sam.context.set_offline(False)
    sam.wait_until_live()
    expect(sam.message("meanwhile 2")).to_be_visible()
    assert_complete(restartable, session, sam)


def test_an_admin_retries_dead_letters(restartable: RestartableWorld, open_page: Join) -> None:
    restartable.fault("pusher", {"status": 400, "match": "zebra"})
    session = restartable.write(29, "zebra", "Asha")
    ann = open_page(restartable, Staff).enter("admin:a1")
    ann.at("nav-health").click()
    expect(ann.at("health")).to_have_attribute("data-loaded", "true")
    expect(ann.at("dead-row")).to_have_count(2)  # the opened session, and the message
    expect(ann.at("dead-count")).to_have_text("2")
    assert "zebra" not in ann.at("health").inner_text()
    restartable.http.delete("/__stack/faults").raise_for_status()
    ann.at("dead-retry").last.click()
    expect(ann.at("dead-row")).to_have_count(1)
    ann.at("dead-retry-all").click()
    expect(ann.at("dead-row")).to_have_count(0)
    expect(ann.at("dead-count")).to_have_text("0")
    wait_until(
        lambda: not restartable.sql("select 1 from gre_relay_deliveries where lane_key = %s and state <> 'done'", session),
        what="its delivery",
    )  # fmt: skip
