"""`/docs` shows the whole reference without other hosts; `/` of `gre-bridge dev` links to all pages."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import Route, expect

from tests.browser.conftest import Join
from tests.browser.world import Person, World
from tests.support.loopback import HTTP


def test_the_reference_shows_each_operation_without_requests_to_other_hosts(world: World, join: Join) -> None:
    reader = join(Person)
    foreign_requests: list[str] = []

    def block_other_hosts(route: Route) -> None:
        if route.request.url.startswith(f"{world.console}/"):
            route.continue_()
        else:
            foreign_requests.append(route.request.url)
            route.abort()

    reader.context.route("**/*", block_other_hosts)
    reader.page.goto(f"{world.console}/docs")
    document = HTTP.get(f"{world.console}/openapi.json").json()
    operations = sum(len(methods) for methods in document["paths"].values())
    expect(reader.page.locator(".opblock")).to_have_count(operations)
    # Execute one operation on the page: the response comes from this host.
    health = reader.page.locator("#operations-Health-getChatHealth")
    health.locator(".opblock-summary-control").click()
    health.get_by_role("button", name="Try it out").click()
    health.get_by_role("button", name="Execute", exact=True).click()
    expect(health.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    expect(reader.page.locator(".swagger-ui .errors-wrapper")).to_have_count(0)
    assert foreign_requests == []


def test_the_start_page_of_gre_bridge_dev_links_to_all_pages(world: World, join: Join) -> None:
    reader = join(Person)
    for name, path in (("Staff console", "/console"), ("A player's page", "/try"), ("Reference", "/docs")):
        reader.page.goto(f"{world.console}/")
        reader.page.get_by_role("link", name=name).click()
        reader.page.wait_for_url(lambda url, path=path: urlsplit(url).path.rstrip("/") == path)
        expect(reader.page.locator("body")).not_to_be_empty()
    for sink in ("Pusher", "OneSignal"):
        reader.page.goto(f"{world.console}/")
        with reader.page.expect_response("**/__stack/received*") as received:
            reader.page.get_by_role("link", name=sink).click()
        assert received.value.status == 200
