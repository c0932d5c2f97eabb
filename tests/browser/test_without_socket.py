"""The console where no socket can be had: it reads the API instead, and takes a socket once there is one."""

from __future__ import annotations

import threading

from playwright.sync_api import WebSocketRoute, expect

from tests.browser.conftest import Join
from tests.browser.world import WITHIN, Staff, World


def test_a_console_whose_sockets_are_closed_shows_and_sends_messages(world: World, join: Join) -> None:
    sam = join(Staff)
    is_back = threading.Event()

    def answer(socket: WebSocketRoute) -> None:
        if is_back.is_set():
            socket.connect_to_server()
        else:
            socket.close(code=1011)

    sam.page.route_web_socket("**/ws", answer)
    session = world.write(29, "Hello", "Asha")
    sam.page.goto(f"{world.console}/console#token={world.token('staff:s1')}")
    expect(sam.at("connection", state="polling")).to_be_visible(timeout=WITHIN)
    sam.open(29)
    sam.wait_until(lambda: world.sql("select seq from gre_chat_messages where status = 'read'"))
    sam.answer("Good evening")
    sam.wait_until(lambda: world.texts(session) == ["Hello", "Good evening"])
    world.write(29, "Is table 4 open?", "Asha")
    expect(sam.message("Is table 4 open?")).to_be_visible()
    world.write(41, "And I?", "Ravi")
    expect(sam.row(41)).to_be_visible()
    expect(sam.at("connection")).to_have_attribute("data-state", "polling")
    is_back.set()
    sam.wait_until_live()
    assert sam.all_texts() == ["Hello", "Good evening", "Is table 4 open?"]
