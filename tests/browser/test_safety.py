"""Text is never rendered as HTML, tokens are not leaked, and foreign code does not run."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import expect

from tests.browser.conftest import Join
from tests.browser.world import Player, Staff, World
from tests.support.loopback import HTTP
from tests.support.waiting import wait_until

TEXTS = [
    '<img src=x onerror="window.evil = 1"><script>window.evil = 2</script>',
    "<b>bold</b> &amp; &lt;i&gt; ${7*7} {{7*7}}",
    "javascript:alert(1) https://example.com/?a=1&b=2",
    "مرحبا، هل الطاولة 4 متاحة؟",
    "שלום (abc) 123!",
    "\u202eeverything turned around\u202c and back",
    "😀 👩‍👩‍👧‍👦 🇮🇳 e\u0301 中文 ไทย",
    "a" * 3900,
]


def test_message_text_is_never_rendered_as_html(sam: Staff, asha: Player, world: World) -> None:
    for text in TEXTS:
        asha.type(text)
        expect(asha.at("try-message").last).to_contain_text(text[:40])
    expect(sam.row(29)).to_have_attribute("data-unread", str(len(TEXTS)))
    sam.open(29)
    expect(sam.at("message")).to_have_count(len(TEXTS))
    assert sam.at("message-text").all_inner_texts() == [text.replace("\u202e", "\u202e") for text in TEXTS]
    for text in TEXTS:
        sam.answer(text)
        expect(asha.at("try-message", sender="staff").last).to_contain_text(text[:40])
    wait_until(lambda: sam.all_texts() == TEXTS * 2)
    for page in (sam.page, asha.page):
        assert page.evaluate("window.evil") is None
        assert page.locator("[data-testid$=message] :is(img, script, b b, i)").count() == 0
    # Only the web address is a link.
    links = sam.at("message-text").locator("*")
    found = links.evaluate_all("all => all.map(a => `${a.tagName} ${a.href} ${a.target} ${a.rel}`)")
    assert set(found) == {"A https://example.com/?a=1&b=2 _blank noopener noreferrer"}
    direction = "getComputedStyle(document.querySelectorAll('[data-testid=\"message-text\"]')[n]).direction"
    assert sam.page.evaluate(f"(n) => {direction}", 0) == "ltr"
    box = sam.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert box == 0, "a long word makes the page wider"


def test_a_name_is_never_rendered_as_html(sam: Staff, world: World) -> None:
    name = "<img src=x onerror=alert(1)>"
    world.write(41, "Hello", name)
    expect(sam.row(41).get_by_test_id("name")).to_have_text(name)
    sam.open(41)
    expect(sam.page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    world.write(42, "Hello", "مريم")
    row = sam.row(42).get_by_test_id("name")
    expect(row).to_have_text("مريم")
    assert row.evaluate("row => getComputedStyle(row).direction") == "rtl"


def test_the_content_security_policy_blocks_foreign_code(sam: Staff, asha: Player) -> None:
    for person in (sam, asha):
        assert person.csp_violations() == []
        person.page.evaluate(
            """() => {
              const script = document.createElement('script')
              script.textContent = 'window.evil = 1'
              document.body.append(script)
              const image = document.createElement('div')
              image.innerHTML = '<img src="data:," onerror="window.evil = 2"><iframe srcdoc="<script>parent.evil = 3</script>"></iframe>'
              document.body.append(image)
              const far = document.createElement('script')
              far.src = 'https://example.com/evil.js'
              document.body.append(far)
            }"""
        )
        wait_until(lambda person=person: len(person.csp_violations()) >= 3, what="three refusals")
        # Chromium logs these, and that of the script in the frame, whose document has no listener.
        person.wait_until(lambda person=person: len(person.errors) >= 4, what="four lines in the log")
        assert person.page.evaluate("window.evil") is None
        assert all(
            violation.startswith(("script-src", "frame-src", "default-src"))
            for violation in person.csp_violations()
        )
        # These violations were caused on purpose.
        person.page.evaluate("window.__cspViolations.length = 0")
        person.errors.clear()
    for url in (f"{sam.world.console}/console", f"{sam.world.stack}/try"):
        policy = HTTP.get(url).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy


def test_the_token_is_removed_from_the_address_at_once_and_from_the_tab_at_the_sign_out(
    join: Join, world: World
) -> None:
    sam = join(Staff).enter()
    token = world.token("staff:s1")
    expect(sam.page).not_to_have_url(re.compile("token"))
    for storage in ("localStorage", "document.cookie"):
        assert token.split(".")[0] not in json.dumps(sam.page.evaluate(f"JSON.stringify({storage})"))
    sam.at("sign-out").click()
    expect(sam.at("sign-in")).to_be_visible()
    assert "eyJ" not in str(sam.page.evaluate("JSON.stringify([sessionStorage, localStorage])"))
    sam.page.reload()
    expect(sam.at("sign-in")).to_be_visible()


def test_sign_in_with_a_pasted_token(join: Join, world: World) -> None:
    sam = join(Staff)
    sam.page.goto(f"{world.console}/console")
    for token, reason in (("x", "token"), (world.token("player:29"), "staff"), (world.token("staff:s1", expires_in=-60), "expired")):  # fmt: skip
        sam.page.get_by_label("Access token").fill(token)
        sam.page.get_by_role("button", name="Sign in", exact=True).click()
        expect(sam.at("sign-in-error")).to_contain_text(reason)
    sam.page.get_by_label("Access token").fill(world.token("staff:s1"))
    sam.page.get_by_role("button", name="Sign in", exact=True).click()
    sam.wait_until_live()


def test_an_expired_token_leads_to_the_sign_in_and_the_draft_is_kept(join: Join, world: World) -> None:
    world.write(29, "Hello", "Asha")
    for lifetime in (12, 60, 180):  # seconds, until this machine is fast enough to write a draft
        began = time.monotonic()
        sam = join(Staff)
        with contextlib.suppress(AssertionError, PlaywrightError):
            sam.enter(expires_in=lifetime).open(29)
            sam.at("reply").fill("Not finished yet", timeout=5_000)
            if time.monotonic() - began < lifetime - 2:
                break
    expect(sam.at("sign-in")).to_be_visible(timeout=(lifetime + 60) * 1000)
    expect(sam.at("sign-in-error")).to_contain_text("expired")
    assert "Not finished yet" not in sam.page.locator("body").inner_text()
    sam.page.get_by_label("Access token").fill(world.token("staff:s1"))
    sam.page.get_by_role("button", name="Sign in", exact=True).click()
    sam.wait_until_live().open(29)
    expect(sam.at("reply")).to_have_value("Not finished yet")
    sam.at("reply").press("Enter")
    expect(sam.message("Not finished yet")).to_be_visible()


def test_a_deactivated_staff_member_is_disconnected(join: Join, world: World) -> None:
    sam = join(Staff).enter()
    world.sql("update gre_staff set active = false where staff_id = 's1'")
    expect(sam.page.get_by_role("alert").first).to_contain_text("no longer active staff")
    expect(sam.at("connection")).to_have_attribute("data-state", "stopped")


@pytest.mark.parametrize("way", ["password", "link"])
def test_sign_in_with_supabase_auth(join: Join, world: World, way: str) -> None:
    """The embedded stack has no Auth: the test answers its three paths as Supabase documents them."""
    sam = join(Staff)
    requests: list[tuple[str, object]] = []

    def auth(route: object) -> None:
        request = route.request  # type: ignore[attr-defined]
        path = request.url.split("/auth/v1/")[1]
        requests.append((path, request.post_data_json if request.method == "POST" else None))
        answers = {
            "settings": {"external": {"email": True}},
            "token?grant_type=password": {
                "access_token": world.token("staff:s1", expires_in=8),
                "refresh_token": "r1",
            },
            "token?grant_type=refresh_token": {
                "access_token": world.token("staff:s1"),
                "refresh_token": "r2",
            },
        }
        route.fulfill(json=answers.get(path, {}), headers={"Access-Control-Allow-Origin": "*"})  # type: ignore[attr-defined]

    sam.page.route("**/auth/v1/**", auth)
    sam.page.goto(f"{world.console}/console")
    sam.page.get_by_label("E-mail").fill("sam@example.com")
    if way == "link":
        sam.page.get_by_role("button", name="Send me a link").click()
        expect(sam.page.get_by_role("status")).to_contain_text("on its way")
        path, body = requests[-1]
        assert path.startswith("otp?redirect_to=") and "console" in path
        assert body == {"email": "sam@example.com", "create_user": False}
        link = f"{world.console}/console#access_token={world.token('staff:s1')}&refresh_token=r1&token_type=bearer"
        sam.page.goto("about:blank")
        sam.page.goto(link)
        sam.wait_until_live()
        expect(sam.page).not_to_have_url(re.compile("token"))
        return
    sam.page.get_by_label("Password").fill("correct horse")
    sam.page.get_by_role("button", name="Sign in", exact=True).click()
    sam.wait_until_live()
    signed_in = ("token?grant_type=password", {"email": "sam@example.com", "password": "correct horse"})
    assert signed_in in requests
    # The short-lived token is renewed before it expires, without a visible effect.
    renewal = ("token?grant_type=refresh_token", {"refresh_token": "r1"})
    wait_until(
        lambda: json.loads(sam.page.evaluate("sessionStorage.getItem('gre.token')"))["refresh"] == "r2", 30
    )
    assert requests[-1] == renewal
    stored = sam.page.evaluate("sessionStorage.getItem('gre.token')")
    claims = json.loads(base64.urlsafe_b64decode(json.loads(stored)["token"].split(".")[1] + "=="))
    assert claims["exp"] > time.time() + 60
    expect(sam.at("connection")).to_have_attribute("data-state", "live")
