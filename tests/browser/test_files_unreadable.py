"""Files that cannot be read by the browser, for a while by the worker, or after a sign-out."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.files import choose, payload
from tests.browser.world import Player, Staff, World


def test_a_file_that_is_gone_from_the_disk_is_said_in_words(world: World, sam: Staff, tmp_path: Path) -> None:
    world.write(29, "Hello", "Asha")
    sam.open(29)
    file = tmp_path / "plan.bin"
    file.write_bytes(bytes(100_000))

    def delete(route: Route) -> None:
        file.unlink(missing_ok=True)
        route.continue_()

    sam.page.route("**/api/gre-chat/attachments", delete)
    sam.at("file-input").set_input_files(file)
    expect(sam.at("file-error")).to_contain_text("This file cannot be read")
    # The message does not wait for it: nothing holds up the next one.
    expect(sam.at("send")).to_be_disabled()
    sam.at("file-remove").click()
    sam.answer("Without it")
    expect(sam.message("Without it")).to_have_attribute("data-state", "sent")


def test_a_file_that_waits_does_not_delay_the_sight_of_the_next(world: World, join: Join, sam: Staff) -> None:
    world.write(29, "Hello", "Asha")
    sam.open(29)
    asha = join(Player)
    asha.page.clock.install()
    asha.enter()
    world.fault("storage", {"status": 503, "methods": ["GET"]})
    for n in (1, 2):
        choose(sam, payload(f"{n}.txt", b"Soup", "text/plain"))
        sam.answer(f"Menu {n}")
        expect(asha.at("attachment")).to_have_count(n)
        # From now on the player's page has no timers: only what arrives can make it look.
        asha.page.clock.pause_at(asha.page.evaluate("Date.now() / 1000 + 60"))


def test_the_sign_out_says_that_bytes_are_not_kept(world: World, sam: Staff) -> None:
    world.write(29, "Hello", "Asha")
    sam.open(29)
    world.fault("storage", {"mode": "hold", "methods": ["PUT"]})
    choose(sam, payload("menu.txt", b"Soup", "text/plain"))
    expect(sam.at("draft-file", state="uploading")).to_have_count(1)
    sam.at("sign-out").click()
    expect(sam.at("leaving")).to_contain_text("Files that are not uploaded yet are not kept")
    world.http.delete("/__stack/faults").raise_for_status()
    expect(sam.at("draft-file", state="stored")).to_have_count(1)
    expect(sam.at("leaving")).not_to_contain_text("not uploaded")
    expect(sam.at("leaving")).to_contain_text("1 draft is not finished")
