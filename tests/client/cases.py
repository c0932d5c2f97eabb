"""What every page must bear: each case is a function of a world, and raises WrongPageError or AssertionError if its page fails.

After each fault all messages are shown, each once and in order, and each text that was sent is stored once. A page is
judged by each state that it has shown, not by the last one only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.client.network import Direction
from tests.client.tokens import (
    HOUR,
    another_person_signs_in,
    token_expires,
    token_never_renewed,
    token_of_another_person,
)
from tests.client.world import WITHIN, Scene, World

Case = Callable[..., None]
CUTTERS = 4
"""Players whose conversations are cut at the same time."""
MOST_ITEMS = 80
"""More than pass in one direction while a page comes back and talks."""


def conversation(world: World, within: float = WITHIN) -> None:
    """Nothing fails: what both sides write is shown and stored."""
    with world.scene(within) as scene:
        scene.open()
        for _ in range(3):
            scene.write("staff")
            scene.settle()
            scene.send()
            scene.settle()


def cut_going_up(world: World, within: float = WITHIN) -> None:
    """The connection is cut at each point of a return and of a talk: the n-th item to a server does not arrive."""
    _cut_everywhere(world, "up", within)


def cut_coming_down(world: World, within: float = WITHIN) -> None:
    """The same for each item to the page: it was carried out, and nobody is told."""
    _cut_everywhere(world, "down", within)


def _cut_everywhere(world: World, direction: Direction, within: float) -> None:
    with ThreadPoolExecutor(CUTTERS) as pool:
        starts = range(1, CUTTERS + 1)
        done = sum(pool.map(lambda first: _cut_at_each(world, direction, first, within), starts))
    assert done > 5, f"cut at {done} points only"


def _cut_at_each(world: World, direction: Direction, first: int, within: float) -> int:
    """Cut one conversation after the other at the items `first`, `first` + CUTTERS, … until one is not cut."""
    with world.scene(within) as scene:
        scene.open()
        for n in range(first, MOST_ITEMS, CUTTERS):
            if not _cut_at(scene, direction, n):
                return n // CUTTERS
    raise AssertionError(f"still cut at item {MOST_ITEMS}")


def _cut_at(scene: Scene, direction: Direction, n: int) -> bool:
    """Let the page come back and talk, cut at item `n`; return False if not so many items have passed."""
    network = scene.network
    network.unplug()
    scene.write("player", "staff")
    scene.send()
    network.cut_at(direction, n)
    network.plug()
    scene.wait(lambda: network.was_cut or scene.shows_all_and_sent(), "the page does not come back")
    if not network.was_cut:
        scene.send(2)
        scene.write("player", "staff")
        scene.wait(lambda: network.was_cut or scene.shows_all_and_sent(), "the page does not talk")
    was_cut = not network.never_cut()
    scene.settle()
    return was_cut


def cut_at_the_first_connection(world: World, within: float = WITHIN) -> None:
    """A page whose first connection is cut, at each of its items, shows everything and sends what was written at once."""
    with ThreadPoolExecutor(CUTTERS) as pool:
        done = list(pool.map(lambda n: _first_connection(world, n, within), range(1, 9)))
    assert sum(done) >= 3, f"cut at {sum(done)} points only"


def _first_connection(world: World, n: int, within: float) -> bool:
    with world.scene(within) as scene:
        scene.network.cut_at("up" if n % 2 else "down", (n + 1) // 2)
        scene.open(ready=False)
        scene.send()
        scene.settle()
        was_cut = not scene.network.never_cut()
        scene.assert_live()
    return was_cut


def daemon_killed(world: World, within: float = WITHIN) -> None:
    """The daemon is killed and started again, while both sides write."""
    with world.scene(within) as scene:
        scene.open()
        for _ in range(2):
            with world.daemon_killed():
                scene.write("staff", "player")
                scene.send(3)
                scene.write("staff")
            scene.settle()
        scene.assert_live()


def realtime_restarted(world: World, within: float = WITHIN) -> None:
    """Realtime closes all its connections, those of the daemon too."""
    with world.scene(within) as scene:
        scene.open()
        for _ in range(2):
            scene.write("staff")
            scene.send()
            world.stack.fault("realtime", {"action": "close_all"})
            scene.write("player", "staff")
            scene.send()
            scene.settle()
        scene.assert_live()


def session_closed_meanwhile(world: World, within: float = WITHIN) -> None:
    """While the page is away its session is closed, and the next message opens another one."""
    with world.scene(within) as scene:
        scene.open()
        scene.network.unplug()
        scene.write("staff")
        world.close_sessions(scene.player)
        scene.write("player", "staff")
        scene.send()
        scene.network.plug()
        scene.settle()
        assert len(scene.stored()) == 2, "no session was opened"
        scene.assert_live()


def slow_authentication(world: World, within: float = WITHIN) -> None:
    """Every answer takes seconds, while both sides write: between connecting and being told nothing may fall out."""
    with world.scene(within) as scene:
        scene.open()
        scene.network.delay = 1.5
        handshakes = scene.network.handshakes
        scene.network.drop()
        scene.wait(lambda: scene.network.handshakes > handshakes, "the page does not connect again")
        scene.write("staff", "player", "staff")
        scene.send()
        scene.wait(scene.shows_all_and_sent, "the page does not come back")
        scene.network.delay = 0.0
        scene.settle()
        scene.assert_live()


def lost_acknowledgement(world: World, within: float = WITHIN) -> None:
    """A text is stored, and the connection is lost before its sender is told; also if the text opens a session."""
    for opens in (False, True):
        with world.scene(within) as scene:
            scene.open()
            if opens:
                world.close_sessions(scene.player)
            page, text = scene.page, f"mine {world.number()}"
            scene.network.hold_answers_to(text)
            page.send(text)
            _wait_until_stored(scene, text)
            scene.write("staff")
            scene.network.drop()
            scene.settle()
            scene.assert_live()


def _wait_until_stored(scene: Scene, text: str) -> None:
    scene.wait(lambda: text in scene.stored_by_pages(), f"{text} is not stored")


def two_tabs(world: World, within: float = WITHIN) -> None:
    """Two pages of one person share their storage: both write while they are offline, then one is closed."""
    with world.scene(within) as scene:
        first, second = scene.open(), scene.open()
        scene.network.unplug()
        for _ in range(3):
            scene.send(page=first)
            scene.send(page=second)
        scene.write("staff")
        scene.network.plug()
        scene.settle()
        scene.assert_live()
        scene.network.unplug()
        scene.send(2, page=first)
        scene.send(page=second)
        scene.close(first)
        scene.network.plug()
        scene.wait(scene.shows_all, "the other page does not come back")
        scene.open()
        scene.settle()


def sleep_of_an_hour(world: World, within: float = WITHIN) -> None:
    """The page sleeps: its connections die without a sign, its clock jumps and its token has expired when it wakes up."""
    ways = world.subject.sleeps
    with ThreadPoolExecutor(len(ways)) as pool:
        list(pool.map(lambda how: _sleep(world, how, within), ways))


def _sleep(world: World, how: str, within: float) -> None:
    with world.scene(within) as scene:
        page = scene.open()
        scene.network.freeze()
        scene.write("player", "staff")
        page.call("token", token=scene.token(expires_in=3 * HOUR))
        page.call("sleep", seconds=HOUR, how=how)
        scene.write("staff")
        scene.send(2)
        scene.settle()
        scene.assert_live()


def reload_with_unsent_text(world: World, within: float = WITHIN) -> None:
    """The page is loaded again while texts wait, and again while one is being stored: each is shown, and sent once."""
    with world.scene(within) as scene:
        page = scene.open()
        scene.network.unplug()
        texts = scene.send(2)
        scene.close(page)
        page = scene.open(ready=False)
        scene.wait(lambda: page.unsent() == texts, "the texts are not on the page")
        scene.network.plug()
        scene.settle()
        text = f"mine {world.number()}"
        scene.network.hold_answers_to(text)
        page.send(text)
        _wait_until_stored(scene, text)
        scene.close(page)
        scene.network.drop()
        scene.open()
        scene.assert_live()


def ten_thousand_messages(world: World, within: float = WITHIN) -> None:
    """A page that was away for 10,000 messages, and one that is loaded afterwards, show them all.

    React and its document compute for ten seconds until the page is back, of a processor that other tests use, too.
    """
    with world.scene(3 * within) as scene:
        page = scene.open()
        scene.network.unplug()
        world.insert_many(scene.player, 10_000)
        scene.network.plug()
        scene.wait(lambda: page.refresh().ends_with(scene.stored()), "the page does not come back")
        scene.load_all(page)
        scene.settle()
        if world.subject.pages_back:
            scene.close(page)
            scene.load_all(scene.open(ready=False))
            scene.settle()
        scene.assert_live()


def upgrades_refused(world: World, within: float = WITHIN) -> None:
    """A proxy refuses the handshake of WebSockets, from the beginning or from some time on, and lets them through at last."""
    with world.scene(within) as scene:
        scene.network.refuse_upgrades = True
        page = scene.open()
        scene.assert_live()
        assert page.call("status")["connection"] == "polling", page.call("status")
        scene.network.refuse_upgrades = False
        scene.wait(lambda: page.call("status")["connection"] == "live", "the page opens no socket again")
        scene.assert_live()
        scene.network.refuse_upgrades = True
        scene.network.drop()
        scene.assert_live()


CASES: tuple[Case, ...] = (
    conversation,
    cut_going_up,
    cut_coming_down,
    cut_at_the_first_connection,
    daemon_killed,
    realtime_restarted,
    session_closed_meanwhile,
    slow_authentication,
    lost_acknowledgement,
    token_expires,
    token_never_renewed,
    another_person_signs_in,
    token_of_another_person,
    two_tabs,
    sleep_of_an_hour,
    reload_with_unsent_text,
    ten_thousand_messages,
    upgrades_refused,
)
"""All cases. A client may leave out none; a sample says in its table which ones it is not made for."""
