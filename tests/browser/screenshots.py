"""`make screenshots`: the pictures of the console that the README and the guide show, taken from a running project."""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Route, expect, sync_playwright

from tests.browser.figures import insert_month
from tests.browser.files import choose, payload
from tests.browser.sockets import PlayerSocket
from tests.browser.world import FLAGS, PHONE, WIDE, Player, Staff, World, chromium, dev, new_person
from tests.support.corpus import encoded

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
TALL = {"width": 1000, "height": 1700}
"""The settings: a section is not cut off."""
_TEMPLATES = [
    ("refund", "A refund", "Hello {{player_name|there}}, we return {{?amount}} to your account today."),
    ("reserve", "A reserved seat", "Your seat at {{?table}} is reserved. We look forward to seeing you."),
    ("bye", "Goodbye", "Thank you for your visit, {{player_name|dear guest}}!"),
]


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


def _picture(staff: Staff, name: str, part: Locator | None = None) -> None:
    """Take a picture of the page, or of a part of it."""
    staff.page.evaluate("document.fonts.ready")
    (part or staff.page).screenshot(path=DOCS / f"console-{name}.png", animations="disabled", caret="hide")
    sys.stdout.write(f"docs/console-{name}.png\n")


def _conversation(staff: Staff) -> Staff:
    staff.open(29)
    if staff.at("assign-me").count():
        staff.at("assign-me").click()
        expect(staff.at("release")).to_be_visible()
        staff.answer("Noted: table 4, at eight, two seats. There is parking behind the house.")
        expect(staff.at("message", sender="staff")).to_have_count(2)
    return staff


def _dismiss(staff: Staff) -> None:
    """Close the question about notifications, if the page asks it."""
    button = staff.page.get_by_role("button", name="Not now")
    if button.count():
        button.click()


def _colleagues(world: World, ann: Staff, sue: Staff) -> None:
    """Sue hands a conversation over; then both answer."""
    session = _session(world, 31)
    world.call("POST", "/api/gre-admin/take", "staff:s2", sessionId=session)
    world.reply(31, "Good evening Ravi, I look into it.")
    world.call("POST", "/api/gre-admin/notes", "staff:s2", sessionId=session, text="The weekend bonus was switched off on Friday. He played for it on Saturday.")  # fmt: skip
    sue.open(31)
    sue.at("hand-over").click()
    sue.at("hand-over-to").select_option("a1")
    sue.at("hand-over-note").fill("It needs an admin: 20 euros, please.")
    _picture(sue, "hand-over", sue.at("hand-over-dialog"))
    sue.page.get_by_role("dialog").get_by_role("button", name="Hand over").click()
    expect(ann.at("toast")).to_contain_text("Ravi")
    ann.at("toast").get_by_role("button", name="Dismiss").click()
    ann.open(31)
    expect(ann.at("note")).to_have_count(2)
    expect(ann.at("event")).to_have_count(2)
    sue.at("reply").press_sequentially("And")
    expect(ann.at("viewers")).to_contain_text("typing")
    _picture(ann, "colleagues", ann.at("conversation"))
    sue.at("reply").fill("")
    ann.at("reply").press_sequentially("/re")
    expect(ann.at("template-option")).to_have_count(2)
    _picture(ann, "template", ann.page.locator(".composer"))
    ann.at("reply").press("Enter")
    expect(ann.at("blank-amount")).to_be_focused()
    ann.page.keyboard.type("20 euros")
    _picture(ann, "blanks", ann.at("blanks"))
    ann.page.keyboard.press("Enter")
    expect(ann.at("reply")).to_have_value("Hello Ravi Menon, we return 20 euros to your account today.")
    _collision(world, ann)


def _collision(world: World, ann: Staff) -> None:
    """Ann's reply reaches the server after Sue's."""
    held: list[Route] = []
    ann.page.route("**/api/gre-admin/reply", lambda route: held.extend([route]))
    ann.at("reply").press("Enter")
    ann.wait_until(lambda: held, what="the reply")
    world.reply(31, "Ravi, the bonus is booked: 15 euros.")
    expect(ann.message("Ravi, the bonus is booked: 15 euros.")).to_be_visible()
    held[0].continue_()
    expect(ann.at("retry")).to_have_text("Send again")
    ann.page.unroute("**/api/gre-admin/reply")
    _picture(ann, "collision", ann.at("conversation"))
    ann.at("discard").click()


def _rules(world: World) -> None:
    """Templates, opening hours and auto-replies. The desk is closed today, at whatever hour the pictures are taken."""

    def save(path: str, method: str = "POST", **body: Any) -> None:
        world.call(method, f"/api/gre-admin/{path}", "admin:a1", **body)

    for shortcut, title, text in _TEMPLATES:
        save("templates", shortcut=shortcut, title=title, texts={"en": text})
    today = datetime.now(UTC).date()
    ranges = {day: [("10:00", "18:00")] for day in range(1, 6)} | {
        6: [("12:00", "15:00"), ("18:00", "24:00")]
    }
    week = [{"weekday": day, "opens": a, "closes": b} for day, times in ranges.items() for a, b in times]
    dates = [{"day": str(today), "label": "Staff training"}, {"day": str(today + timedelta(days=9)), "label": "Holiday"}]  # fmt: skip
    save("hours", name="desk", timezone="UTC", week=week, dates=dates)
    save("settings", "PUT", hours="desk", assignment="least_busy", max_sessions=5, returning_within=86_400)
    save("auto-replies", name="Greeting", occasion="opened", texts={"en": "Welcome, {{player_name|dear guest}}! Ann or Sue will answer in a moment."})  # fmt: skip
    save("auto-replies", name="Outside the hours", occasion="closed_hours", once="day", priority=10, texts={"en": "Thank you for your message, {{player_name|dear guest}}. We open again on {{next_open}}."})  # fmt: skip


def _settings(ann: Staff) -> None:
    """Each section of the settings."""
    ann.page.set_viewport_size(TALL)
    ann.at("nav-settings").click()
    for section in ("assignment", "hours", "auto-reply"):
        expect(ann.at(f"{section}-settings")).to_have_attribute("data-loaded", "true")
    expect(ann.at("setting-hours")).to_have_value("desk")
    ann.at("auto-reply-choice").select_option(label="Outside the hours")
    expect(ann.at("auto-reply-name")).to_have_value("Outside the hours")
    for section, name in (("assignment", "assignment"), ("hours", "hours"), ("auto-reply", "auto-replies")):
        _picture(ann, name, ann.at(f"{section}-settings"))
    ann.page.set_viewport_size(WIDE)


def _figures(world: World, ann: Staff, phone: Staff) -> None:
    """The desk at this moment, and a month of figures."""
    insert_month(world)
    for staff, name in ((ann, ""), (phone, "-phone")):
        staff.at("nav-live").click()
        expect(staff.at("live-member", staff_id="s2", status="online")).to_be_visible()
        _picture(staff, f"live{name}")
        if staff is ann:
            staff.page.set_viewport_size(TALL)
        staff.at("nav-reports").click()
        staff.at("report-range").select_option("30d")
        staff.at("total", group="first_reply").click()
        expect(staff.at("figure-row")).to_have_count(30)
        if staff is phone:
            staff.at("report-group").evaluate(
                "part => { part.parentElement.parentElement.scrollTop = part.offsetTop - 60 }"
            )
        staff.at("chart").focus()
        for key in ("End", *["ArrowLeft"] * 9):
            staff.page.keyboard.press(key)
        _picture(staff, f"reports{name}")
    ann.page.set_viewport_size(WIDE)


def _plan(marked: int) -> bytes:
    """A plan of eight tables, one of them marked."""
    plan = Image.new("RGB", (1200, 900), "#e9e2d3")
    draw = ImageDraw.Draw(plan)
    draw.rectangle((60, 60, 1140, 840), outline="#8b7355", width=12)
    draw.rectangle((60, 360, 84, 560), fill="#7fb3d5")
    for n in range(8):
        x, y = 230 + n % 4 * 250, 260 + n // 4 * 360
        draw.ellipse((x - 80, y - 80, x + 80, y + 80), fill="#0f766e" if n + 1 == marked else "#b08d57")
        for dx, dy in ((-115, 0), (115, 0), (0, -115), (0, 115)):
            draw.ellipse((x + dx - 24, y + dy - 24, x + dx + 24, y + dy + 24), fill="#5d4a31")
    return encoded(plan, "JPEG", quality=85)


def _files(ann: Staff, asha: Player) -> None:
    """A picture from the player's page, and a reply with files that is being written."""
    loaded = "[data-testid='picture'][data-loaded='true']"
    choose(asha, payload("plan.jpg", _plan(4)))
    expect(asha.at("draft-file", state="stored")).to_have_count(1)
    asha.type("Is it this table?")
    ann.at("nav-conversations").click()
    ann.open(29)
    expect(ann.page.locator(loaded)).to_have_count(1)
    ann.at("jump-latest").or_(ann.at("reply")).first.click()
    choose(
        ann,
        payload("table 4.jpg", _plan(3)),
        payload("Menu.pdf", b"%PDF-1.4" + bytes(84_000), "application/pdf"),
    )
    ann.at("file-alt").fill("The plan of the room: table 4 is marked, the third by the window")
    ann.at("reply").fill("Nearly: it is the one beside it. Here is the menu, too.")
    expect(ann.at("draft-file", state="stored")).to_have_count(2)
    _picture(ann, "files")


def main() -> int:
    """Take all pictures; returns the exit status."""
    executable = chromium(windows=True)
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
        sue = new_person(Staff, world, browser, **options).enter("staff:s2")
        ann = new_person(Staff, world, browser, **options).enter("admin:a1")
        _dismiss(ann)
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
        _dismiss(phone)
        _conversation(phone)
        _picture(phone, "phone")
        _rules(world)
        ann.at("nav-conversations").click()
        _colleagues(world, ann, sue)
        _settings(ann)
        _files(ann, new_person(Player, world, browser, **options).enter())
        dismiss = phone.at("toast").get_by_role("button", name="Dismiss")
        if dismiss.count():
            dismiss.click()
        _figures(world, ann, phone)
        phone.at("nav-conversations").click()
        phone.open(31)
        expect(phone.at("note")).to_have_count(2)
        _picture(phone, "phone-note")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
