"""Cases of the suite about tokens, and about whose they are; tests/client/cases.py has the others."""

from __future__ import annotations

import time

from tests.client.world import WITHIN, Scene, World
from tests.support.waiting import let_pass

HOUR = 3600.0
SHORT = 4.0
"""Seconds that a token lives; `world_for` shortens the time of grace after it."""
GRACE = 4.0
"""Seconds until the daemon has closed a connection whose token has expired."""
OBSERVED = 5.0
"""Seconds during which attempts are counted."""


def token_expires(world: World, within: float = WITHIN) -> None:
    """The token expires while the page is open, and the page has a new one."""
    with world.scene(within) as scene:
        page = scene.open(expires_in=SHORT)
        page.call("token", token=scene.token())
        expired = time.monotonic() + SHORT + 1
        while time.monotonic() < expired:
            scene.assert_live()
        scene.assert_live()


def token_never_renewed(world: World, within: float = WITHIN) -> None:
    """The token expires and there is no other one: the page asks seldom, keeps what was written, and sends it at last.

    Supabase takes a token for half a minute after its end, so it is accepted and expired at once; then it is refused.
    """
    with world.scene(within) as scene:
        page = scene.open(expires_in=SHORT)
        let_pass(SHORT + GRACE, "the token expires, and its time of grace")
        _assert_seldom_asks(scene)
        page.call("token", token=scene.token(expires_in=-HOUR))
        scene.network.drop()
        texts = scene.send(2)
        scene.write("staff")
        _assert_seldom_asks(scene)
        assert page.unsent() == texts, f"unsent: {page.unsent()} instead of {texts}"
        page.call("token", token=scene.token())
        page.call("connect")
        scene.settle()
        scene.assert_live()


def _assert_seldom_asks(scene: Scene) -> None:
    attempts = scene.page.count("asked") + scene.network.handshakes
    let_pass(OBSERVED, "a page that is told no does not hammer")
    attempts = scene.page.count("asked") + scene.network.handshakes - attempts
    assert attempts <= OBSERVED * 4, f"{attempts} attempts in {OBSERVED} s"


def another_person_signs_in(world: World, within: float = WITHIN) -> None:
    """Another player signs in on the page while a text waits: it is not sent as the other one, and not lost either."""
    _change_the_person(world, within, reopen=True)


def token_of_another_person(world: World, within: float = WITHIN) -> None:
    """The page's token becomes another player's, under a chat that is open: texts of the first are not sent as the second."""
    _change_the_person(world, within, reopen=False)


def _change_the_person(world: World, within: float, *, reopen: bool) -> None:
    with world.scene(within) as scene:
        page, first, second = scene.open(), scene.player, world.new_player()
        scene.network.unplug()
        texts = scene.send(2)
        scene.write("staff", player=second)
        scene.sign_in(page, second, reopen=reopen)
        scene.network.plug()
        scene.settle()
        scene.assert_live()
        assert page.sent_by(first) == texts
        assert not scene.stored_by_pages(first), "texts of one player were sent while another was signed in"
        scene.sign_in(page, first)
        scene.settle()
        scene.assert_live()
