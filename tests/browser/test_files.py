"""Files in the chat, from the player's page and the console, in a real Chromium with a real upload to the embedded Storage."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Locator, Route, expect

from tests.browser.conftest import Join
from tests.browser.files import (
    HTML,
    SVG,
    choose,
    fetched,
    files_of,
    large_photo,
    objects,
    opened,
    payload,
    small_photo,
    source_of,
)
from tests.browser.test_accessible import assert_accessible
from tests.browser.world import PHONE, Person, Player, Staff, World
from tests.support.corpus import BLUE, CANARY, GREEN, RED, WHITE

HEIGHT = "element => element.getBoundingClientRect().height"
WOULD_ASK = """() => {
  const event = new Event('beforeunload', { cancelable: true })
  return !dispatchEvent(event)
}"""
DROP = """test => {
  const data = new DataTransfer()
  data.items.add(new File([new Uint8Array(8)], test))
  document.querySelector(`[data-testid="${test}"]`).dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true }))
}"""
LOADED = "[data-testid='picture'][data-loaded='true']"


def height_of(row: Locator) -> float:
    found: float = row.evaluate(HEIGHT)
    return found


def test_a_photo_appears_upright_without_metadata_and_nothing_jumps(
    world: World, asha: Player, sam: Staff
) -> None:
    original = large_photo()
    assert len(original) > 6_000_000
    assert CANARY in original
    world.write(29, "Look at this", "Asha")
    sam.open(29)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    sam.page.route("**/storage/v1/object/sign/**", hold)
    choose(asha, payload("table.jpg", original))
    asha.at("file-alt").fill("My table")
    asha.at("try-send").click()
    found = sam.at("attachment", state="ready")
    expect(found).to_be_visible()
    picture = sam.at("picture")
    expect(picture.locator("img")).to_have_count(1)
    sam.wait_until(lambda: held, what="the request for the thumbnail")
    # Its place is there, in its proportions, before it is loaded.
    before = height_of(sam.at("message").last)
    box = picture.bounding_box()
    assert box
    assert box["width"] / box["height"] == pytest.approx(0.75, abs=0.01)
    expect(picture.locator("svg.colours rect")).to_have_count(12)
    for route in held:
        route.continue_()
    sam.page.unroute("**/storage/v1/object/sign/**")
    expect(sam.page.locator(LOADED)).to_be_visible()
    assert height_of(sam.at("message").last) == pytest.approx(before, abs=0.5)
    # Its alt text came with it, though it was written during the upload; the text of old portals is not shown.
    expect(picture.locator("img")).to_have_attribute("alt", "My table")
    expect(sam.at("message").last.get_by_test_id("message-text")).to_have_count(0)
    thumb = fetched(source_of(picture)).content
    picture.click()
    expect(sam.at("viewer-picture")).to_have_attribute("data-loaded", "true")
    view = fetched(sam.at("viewer-picture").get_attribute("src") or "").content
    file = fetched(sam.at("viewer").get_by_test_id("download").get_attribute("href") or "").content
    for content, size in ((thumb, (270, 360)), (view, (1536, 2048)), (file, (1536, 2048))):
        assert CANARY not in content
        assert b"Exif" not in content
        image = opened(content)
        assert image.size == size
        width, height = image.size
        for (x, y), colour in zip(
            ((0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)), (RED, GREEN, BLUE, WHITE), strict=True
        ):
            middle = image.crop(
                (int(width * x) - 20, int(height * y) - 20, int(width * x) + 20, int(height * y) + 20)
            )
            seen = middle.resize((1, 1)).getpixel((0, 0))
            assert isinstance(seen, tuple)
            assert all(
                abs(part - (0.65 * whole + 0.35 * 128)) < 30 for part, whole in zip(seen, colour, strict=True)
            )
    # The player sees it, too.
    expect(asha.page.locator(LOADED)).to_be_visible()


def test_svg_and_html_are_downloads_that_run_nothing(world: World, asha: Player, sam: Staff) -> None:
    sent = {"picture.svg": SVG, "page.html": HTML}
    choose(asha, payload("picture.svg", SVG, "image/svg+xml"), payload("page.html", HTML, "text/html"))
    expect(asha.at("draft-file", state="stored")).to_have_count(2)
    asha.at("try-send").click()
    sam.open(29)
    expect(sam.at("attachment", state="ready", kind="file")).to_have_count(2)
    expect(sam.at("messages").locator("img")).to_have_count(0)
    links = sam.at("messages").get_by_test_id("download")
    expect(links).to_have_count(2)
    for link in links.all():
        url = link.get_attribute("href") or ""
        answer = fetched(url)
        assert answer.headers["content-type"].startswith("application/octet-stream")
        assert answer.headers["content-disposition"].startswith("attachment")
        # Opened in a tab, and also with what a stranger makes of the link: it is saved, not shown.
        for address in (url, url.partition("&download")[0]):
            tab = sam.context.new_page()
            with tab.expect_download() as download:
                tab.evaluate("url => { location.href = url }", address)
            assert download.value.path().read_bytes() in sent.values()
            assert tab.url == "about:blank"
            assert tab.evaluate("window.__ran") is None
            tab.close()
    with sam.page.expect_download() as download:
        links.first.click()
    assert download.value.suggested_filename in sent
    assert sam.page.url.startswith(world.console)


def test_an_upload_that_is_cut_or_whose_answer_is_lost_makes_no_copy(world: World, asha: Player) -> None:
    content = large_photo()
    world.fault("storage", {"mode": "cut", "bytes": len(content) // 2, "times": 1, "methods": ["PUT"]})
    choose(asha, payload("cut.jpg", content))
    expect(asha.at("draft-file", state="stored")).to_have_count(1)
    assert len(objects(world)) == 1
    sent: list[str] = []
    asha.page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    world.fault("storage", {"mode": "lose_answer", "times": 1, "methods": ["PUT"]})
    choose(asha, payload("lost.jpg", small_photo()))
    expect(asha.at("draft-file", state="stored")).to_have_count(2)
    assert len(sent) == 1
    assert len(objects(world)) == 2
    asha.type("Two photos")
    expect(asha.page.locator(LOADED)).to_have_count(2)
    assert [(file["name"], file["sent"]) for file in files_of(world)] == [
        ("cut.jpg", True),
        ("lost.jpg", True),
    ]


def test_an_upload_can_be_cancelled_and_retried_and_the_text_waits(world: World, sam: Staff) -> None:
    world.write(29, "Hello", "Asha")
    sam.open(29)
    world.fault("storage", {"mode": "slow", "delay": 0.5, "methods": ["PUT"]})
    choose(sam, payload("cancelled.jpg", large_photo()))
    expect(sam.at("draft-file", state="uploading").get_by_role("progressbar")).to_be_visible()
    sam.at("file-remove").click()
    expect(sam.at("draft-file")).to_have_count(0)
    sam.wait_until(lambda: not files_of(world), what="the file to be given up")
    world.fault("storage", {"mode": "refused", "status": 503, "methods": ["PUT"]})
    sam.at("reply").fill("Here is the plan")
    choose(sam, payload("plan.jpg", small_photo()))
    expect(sam.at("file-error")).to_have_text("The storage of the files does not take it at the moment.")
    expect(sam.at("send")).to_be_disabled()
    sam.at("reply").press("Enter")
    expect(sam.at("reply")).to_have_value("Here is the plan")
    world.http.delete("/__stack/faults").raise_for_status()
    sam.at("file-retry").click()
    expect(sam.at("draft-file", state="stored")).to_have_count(1)
    sam.at("reply").press("Enter")
    expect(sam.page.locator(LOADED)).to_be_visible()
    expect(sam.message("Here is the plan")).to_be_visible()
    assert len(objects(world)) == 1


def test_a_reply_waits_for_its_upload(world: World, sam: Staff) -> None:
    session = world.write(29, "Hello", "Asha")
    sam.open(29)
    world.fault("storage", {"mode": "hold", "methods": ["PUT"]})
    choose(sam, payload("held.jpg", small_photo()))
    sam.answer("With a photo")
    expect(sam.at("sending-files")).to_be_visible()
    expect(sam.at("reply")).to_have_value("")
    assert world.texts(session) == ["Hello"]
    world.http.delete("/__stack/faults").raise_for_status()
    expect(sam.page.locator(LOADED)).to_be_visible()
    sam.wait_until(lambda: world.texts(session) == ["Hello", "With a photo"])


@pytest.mark.parametrize("kind", [Player, Staff])
def test_leaving_the_page_is_asked_back_until_the_bytes_are_stored(
    world: World, join: Join, kind: type[Person]
) -> None:
    world.write(29, "Hello", "Asha")
    person = join(kind)
    if isinstance(person, Staff):
        person.enter("staff:s1").open(29)
        field, send = "reply", "send"
    else:
        assert isinstance(person, Player)
        person.enter()
        field, send = "try-input", "try-send"
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    person.page.on("dialog", stay)
    world.fault("storage", {"mode": "hold", "methods": ["PUT"]})
    choose(person, payload("held.jpg", small_photo()))
    expect(person.at("draft-file", state="uploading")).to_have_count(1)
    person.at(field).click()  # a browser asks only who has touched the page
    person.page.close(run_before_unload=True)
    person.wait_until(lambda: asked == ["beforeunload"], what="the question before the page is left")
    # The message that waits for it is in this page only, too.
    person.at(send).click()
    expect(person.at("draft-file", state="uploading")).to_have_count(1)
    person.page.close(run_before_unload=True)
    person.wait_until(lambda: asked == 2 * ["beforeunload"], what="the second question")
    world.http.delete("/__stack/faults").raise_for_status()
    expect(person.page.locator(LOADED)).to_be_visible()
    choose(person, payload("stored.jpg", small_photo()))
    expect(person.at("draft-file", state="stored")).to_have_count(1)
    person.wait_until(lambda: not person.page.evaluate(WOULD_ASK), what="the answer to the message")
    person.at(field).click()
    person.page.reload()
    expect(person.at("draft-file", state="stored")).to_have_count(1)
    assert asked == 2 * ["beforeunload"]


def test_too_large_too_many_and_damaged_files_are_said_in_words(
    world: World, asha: Player, sam: Staff, tmp_path: Path
) -> None:
    film = tmp_path / "film.mp4"
    film.touch()
    os.truncate(film, 26_214_401)
    asha.at("file-input").set_input_files(film)
    expect(asha.at("file-error")).to_have_text("The file is larger than 25 MB.")
    assert files_of(world) == []
    asha.at("file-remove").click()
    choose(asha, *(payload(f"{n}.jpg", small_photo()) for n in range(6)))
    expect(asha.at("try-error")).to_have_text("A message can have 5 files: 1 was not added.")
    expect(asha.at("draft-file", state="stored")).to_have_count(5)
    asha.type("Five photos")
    expect(asha.page.locator(LOADED)).to_have_count(5)
    choose(asha, payload("damaged.jpg", small_photo()[:400] + bytes(2000)))
    expect(asha.at("draft-file", state="stored")).to_have_count(1)
    asha.at("try-send").click()
    sam.open(29)
    refused = sam.at("attachment", state="refused")
    expect(refused.get_by_test_id("file-state")).to_have_text("Refused: the picture is damaged.")
    expect(refused.get_by_test_id("download")).to_have_count(0)


def test_the_files_of_a_draft_stay_with_their_conversation(world: World, sam: Staff) -> None:
    world.write(29, "Hello", "Asha")
    world.write(31, "Hi", "Ravi")
    sam.open(29)
    add = """([test, kind]) => {
      const data = new DataTransfer()
      data.items.add(new File([new Uint8Array(8)], `${kind}.bin`, { type: 'application/octet-stream' }))
      const event = kind === 'paste'
        ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
      document.querySelector(`[data-testid="${test}"]`).dispatchEvent(event)
      return event.defaultPrevented
    }"""
    assert sam.page.evaluate(add, ["reply", "paste"])
    assert sam.page.evaluate(add, ["messages", "drop"])
    expect(sam.at("draft-file", state="stored")).to_have_count(2)
    sam.open(31)
    expect(sam.at("draft-file")).to_have_count(0)
    sam.answer("Nothing for you")
    expect(sam.message("Nothing for you")).to_have_attribute("data-state", re.compile("sent|delivered"))
    # They survive a reload.
    sam.page.reload()
    sam.wait_until_live().open(29)
    expect(sam.at("draft-file", state="stored")).to_have_count(2)
    sam.at("send").click()
    expect(sam.at("attachment")).to_have_count(2)
    sent = "select s.player_id from gre_chat_attachments a join gre_chat_sessions s on s.id = a.session_id where message_id is not null"
    sam.wait_until(lambda: [row["player_id"] for row in world.sql(sent)] == [29, 29])
    # A conversation that somebody else closes keeps them, too.
    choose(sam, payload("late.jpg", small_photo()))
    expect(sam.at("draft-file", state="stored")).to_have_count(1)
    world.call("POST", "/api/gre-chat/close-session/29", "staff:s2")
    expect(sam.at("reply-closed")).to_be_visible()
    sam.at("reopen-send").click()
    expect(sam.at("attachment")).to_have_count(3)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_viewer_works_by_keyboard_and_everything_is_accessible(
    world: World, join: Join, colours: str
) -> None:
    world.write(29, "Hello", "Asha")
    sam = join(Staff, color_scheme=colours, viewport=PHONE).enter("staff:s1").open(29)
    choose(
        sam,
        payload("plan.jpg", small_photo()),
        payload("view.jpg", small_photo(480, 640)),
        payload("menu.txt", b"Soup", "text/plain"),
    )
    sam.at("file-alt").first.fill("The seating plan")
    expect(sam.at("draft-file", state="stored")).to_have_count(3)
    assert_accessible(sam.page, "draft with files")
    sam.at("send").click()
    expect(sam.page.locator(LOADED)).to_have_count(2)
    expect(sam.at("attachment", state="ready", kind="file").get_by_test_id("download")).to_be_visible()
    assert_accessible(sam.page, "files")
    by_name = {file["name"]: str(file["id"]) for file in files_of(world)}
    first, second = by_name["plan.jpg"], by_name["view.jpg"]
    sam.at("picture").first.focus()
    sam.page.keyboard.press("Enter")
    expect(sam.at("viewer", attachment_id=first)).to_be_visible()
    expect(sam.at("viewer-picture")).to_have_attribute("data-loaded", "true")
    expect(sam.at("viewer-picture")).to_have_attribute("alt", "The seating plan")
    expect(sam.at("viewer-caption")).to_contain_text("The seating plan")
    assert_accessible(sam.page, "viewer")
    sam.page.keyboard.press("ArrowRight")
    expect(sam.at("viewer", attachment_id=second)).to_be_visible()
    sam.page.keyboard.press("ArrowRight")
    expect(sam.at("viewer", attachment_id=second)).to_be_visible()
    sam.page.keyboard.press("ArrowLeft")
    expect(sam.at("viewer", attachment_id=first)).to_be_visible()
    sam.page.evaluate(DROP, "viewer")
    sam.page.keyboard.press("Escape")
    expect(sam.at("viewer")).to_have_count(0)
    expect(sam.at("picture").first).to_be_focused()
    # What was dropped on the viewer is no file of the draft, which it hides.
    sam.page.evaluate(DROP, "messages")
    expect(sam.at("draft-file")).to_have_text(re.compile("messages"))
    sam.at("file-remove").click()
    asha = join(Player, color_scheme=colours).enter()
    expect(asha.page.locator(LOADED)).to_have_count(2)
    choose(asha, payload("draft.jpg", small_photo()))
    expect(asha.at("draft-file", state="stored")).to_have_count(1)
    assert_accessible(asha.page, "player's page with files")
    asha.at("picture").first.click()
    expect(asha.at("viewer-picture")).to_have_attribute("data-loaded", "true")
    assert_accessible(asha.page, "player's viewer")
