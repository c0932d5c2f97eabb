"""`make screenshots`: the pictures of the console that the README and the guide show, taken from a running project."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.browser.sockets import PlayerSocket
from tests.browser.world import FLAGS, PHONE, WIDE, Staff, World, chromium, dev, new_person

DOCS = Path(__file__).parents[2] / "docs"
_TALK = {
    31: ("Ravi Menon", ["My bonus of last night is missing, can you look?", "It was the weekend one"]),
    32: ("Mei Lin", ["Can I move my booking to Saturday?"]),
    33: ("مريم", ["مرحبا، هل الطاولة ٤ متاحة الليلة؟"]),
    34: ("Ola Berg", ["Thank you, that was quick 🙏"]),
    35: ("Tomás Ruiz", ["The app says my card has expired, but it has not."]),
    36: ("Priya Nair", ["Which tables are open after midnight?"]),
}
# The last hour of a busy evening, for the plot; and one event that Pusher would not take.
_HOUR = """
insert into gre_relay_deliveries (sink, lane_key, ord, event, state, created_at, settled_at)
  select sink, 'picture', nextval('gre.delivery_ord'), 'message', 'done', at, at from unnest(array['pusher', 'onesignal']) sink,
    lateral (select now() - interval '59 minutes' + m * interval '1 minute' as at, k
             from generate_series(0, 58) m, lateral generate_series(1, (14 + 10 * sin(m / 7.0) + (m * 37 %% 11))::int) k) x;
update gre_relay_deliveries set state = 'dead', attempts = 5, last_error = 'Pusher refused it: HTTP 413'
  where id = (select id from gre_relay_deliveries where event = 'message' and state = 'done' and message_id is not null and sink = 'pusher' limit 1);
"""


def _people(world: World) -> None:
    """An evening at the desk."""
    for player, (name, texts) in _TALK.items():
        for text in texts:
            world.write(player, text, name)
    world.write(29, "Hello! Is table 4 open tonight?", "Asha")
    world.reply(29, "Good evening Asha. It opens at eight, shall I keep a seat for you?")
    world.write(29, "Yes please, for two. And my friend asks in his language:", "Asha")
    world.write(29, "هل يوجد موقف للسيارات؟", "Asha")
    world.reply(34, "Your voucher is on its way.")
    world.reply(36, "Tables 2, 4 and 7, until five.")
    world.call("PUT", f"/api/gre-admin/session/{_session(world, 32)}/status", "staff:s2", status="assigned")


def _session(world: World, player: int) -> str:
    rows = world.sql("select id::text as id from gre_chat_sessions where player_id = %s", player)
    return str(rows[0]["id"])


def _picture(staff: Staff, name: str) -> None:
    staff.page.evaluate("document.fonts.ready")
    staff.page.screenshot(path=DOCS / f"console-{name}.png", animations="disabled", caret="hide")
    sys.stdout.write(f"docs/console-{name}.png\n")


def _conversation(staff: Staff) -> Staff:
    staff.open(29)
    if staff.at("assign-me").count():
        staff.at("assign-me").click()
        expect(staff.at("release")).to_be_visible()
        staff.answer("Noted: table 4, at eight, two seats. There is parking behind the house.")
        expect(staff.at("message", sender="staff")).to_have_count(2)
    return staff


def main() -> int:
    """Take all pictures; returns the exit status."""
    executable = chromium()
    if executable is None:
        sys.stderr.write(
            "make screenshots: no Chromium here (apt-get install chromium, or set GRE_CHROMIUM)\n"
        )
        return 1
    with (
        tempfile.TemporaryDirectory() as folder,
        dev(Path(folder)) as world,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=executable, headless=True, args=FLAGS) as browser,
    ):
        world.reset()
        _people(world)
        options = {"color_scheme": "light", "viewport": WIDE, "timezone_id": "UTC", "locale": "en-GB"}
        sue = new_person(Staff, world, browser).enter("staff:s2")
        ann = new_person(Staff, world, browser, **options).enter("admin:a1")
        dismiss = ann.page.get_by_role("button", name="Not now")
        if dismiss.count():
            dismiss.click()
        expect(ann.at("session-row")).to_have_count(7)
        expect(ann.at("colleague", staff_id="s2")).to_be_visible()
        _picture(ann, "list")
        _conversation(ann)
        with PlayerSocket(world, 29) as asha:
            asha.send(type="mark_read", sessionId=_session(world, 29), upToSeq=5)
            asha.send(type="typing", sessionId=_session(world, 29), typing=True)
            expect(ann.at("typing")).to_contain_text("typing")
            _picture(ann, "conversation")
            ann.page.emulate_media(color_scheme="dark")
            asha.send(type="typing", sessionId=_session(world, 29), typing=True)
            _picture(ann, "dark")
        ann.page.emulate_media(color_scheme="light")
        world.sql(_HOUR)
        ann.at("nav-health").click()
        expect(ann.at("dead-row")).to_have_count(1)
        expect(ann.at("worker").first).to_be_visible(timeout=20_000)
        _picture(ann, "health")
        phone = new_person(
            Staff, world, browser, **{**options, "viewport": PHONE}, device_scale_factor=2
        ).enter("admin:a1")
        dismiss = phone.page.get_by_role("button", name="Not now")
        if dismiss.count():
            dismiss.click()
        _conversation(phone)
        _picture(phone, "phone")
        sue.context.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
