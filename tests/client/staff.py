"""What a page of staff must bear beside the cases of all pages: the queue, assignment and notes, live and after faults.

What the page shows while it is live has come as an event: these pages read nothing from time to time.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from tests.client.world import WITHIN, Page, Scene, World
from tests.support.canary import note
from tests.support.loopback import HTTP

COLLEAGUES = ("s1", "s2", "s3")
"""The pages are of the first two; the third acts in the database."""
LONG = "é" * 3000
"""More than fits an event: Pusher's events are escaped, and have 10 KB at most."""
_STAFF = "insert into gre_staff (staff_id, display_name) values (%s, %s) on conflict do nothing"


@contextlib.contextmanager
def desk_scene(world: World, within: float) -> Iterator[tuple[Scene, Page, Page]]:
    """A scene with the pages of two colleagues, which show everything."""
    with world.conn.cursor() as cursor:
        cursor.executemany(_STAFF, [(name, name.upper()) for name in COLLEAGUES])
    with world.scene(within) as scene:
        first, second = scene.open(staff="s1"), scene.open(staff="s2")
        yield scene, first, second


def _row(page: Page, player: int) -> Any:
    """Who has the player's session, whether the player waits, what is unread, the last text; None if it is not listed."""
    return page.call("queue").get(str(player))


def _wait_for_rows(scene: Scene, expected: Any, player: int | None = None) -> None:
    """Wait until the player's row is this one on every page; `expected` may be shorter than the row."""

    def rows() -> list[Any]:
        found = [_row(page, player or scene.player) for page in scene.pages]
        return [row and row[: len(expected or row)] for row in found]

    scene.wait(lambda: rows() == [expected] * len(scene.pages), f"the queues do not show {expected}")


def _wait_for_notes(scene: Scene, expected: list[str]) -> None:
    scene.wait(
        lambda: all(page.call("notes") == expected for page in scene.pages), f"not all notes of {expected}"
    )


def _call(world: World, function: str, **arguments: Any) -> None:
    """The third colleague calls a function of the database."""
    token = world.stack.keys.user_token("staff", staff_id=COLLEAGUES[2])
    body = {f"p_{name}": value for name, value in arguments.items()}
    answer = world.stack.http.post(f"/rest/v1/rpc/{function}", json=body, headers=world.stack.headers(token))
    assert answer.status_code == 200, answer.text


def _send_file(scene: Scene) -> None:
    """The player sends a file, over REST."""
    token = scene.world.stack.keys.user_token("player", player_id=scene.player)
    url, headers = scene.world.worker.url, {"Authorization": f"Bearer {token}"}
    given = {"name": "plan.txt", "type": "text/plain", "bytes": 5}
    begun = HTTP.post(f"{url}/api/gre-chat/attachments", json=given, headers=headers).json()
    address = begun["upload"]
    assert HTTP.put(address["url"], content=b"Hello", headers=address["headers"]).status_code == 200
    body = {"attachmentIds": [begun["attachment"]["id"]], "message": "The plan."}
    assert HTTP.post(f"{url}/api/gre-chat/send", json=body, headers=headers).status_code == 201


def desk(world: World, within: float = WITHIN) -> None:
    """What one member of staff does, and what players write, is on a colleague's page at once, also after a lost event."""
    with desk_scene(world, within) as (scene, first, second):
        (text,) = scene.write("player")
        _wait_for_rows(scene, [None, True, 2, text])
        assert first.call("take") == "done"
        _wait_for_rows(scene, ["s1", True, 2, text])
        assert second.call("take") == "session_taken"
        (text,) = scene.send(page=first)
        scene.settle()
        _wait_for_rows(scene, ["s1", False, 2, text])
        second.call("markRead")
        _wait_for_rows(scene, ["s1", False, 0, text])
        notes = [note("table 4"), note(LONG)]
        first.call("note", text=notes[0])
        _wait_for_notes(scene, notes[:1])
        second.call("note", text=notes[1])
        _wait_for_notes(scene, notes)
        scene.world.insert(scene.player, "staff", f"long {LONG}")
        scene.settle()
        world.stack.fault("pusher", {"status": 400, "match": "refused by Pusher"})
        world.insert(scene.player, "player", "refused by Pusher")
        (text,) = scene.write("player")
        scene.settle()
        world.stack.fault("pusher", None)
        _wait_for_rows(scene, ["s1", True, 2, text])
        _send_file(scene)
        scene.settle()
        scene.wait(
            lambda: all(page.call("files") == ["ready"] for page in scene.pages), "the file is not shown"
        )
        assert first.call("transfer", to="s2") == "done"
        _wait_for_rows(scene, ["s2", True, 3])
        assert second.call("close") == "done"
        _wait_for_rows(scene, None)
        (text,) = scene.write("player")
        _wait_for_rows(scene, [None, True, 1, text])


def desk_after_faults(world: World, within: float = WITHIN) -> None:
    """What a colleague and players do meanwhile is on the pages after each fault, and they are live again."""
    with desk_scene(world, within) as (scene, *_):
        for fault in (_unplugged, _daemon_killed, _realtime_closed, _pusher_closed):
            with fault(scene):
                newcomer = world.new_player()
                notes = [*scene.page.call("notes"), note(f"during{fault.__name__}")]
                _call(world, "gre_add_note", session_id=scene.session, text=notes[-1], id=str(uuid.uuid4()))
                _call(world, "gre_transfer_session", session_id=scene.session, to_staff=None)
                _call(world, "gre_take_session", session_id=scene.session)
                scene.write("player", "staff")
                (last,) = scene.write("player")
                (hello,) = scene.write("player", player=newcomer)
            scene.settle()
            _wait_for_rows(scene, ["s3", True])
            _wait_for_rows(scene, [None, True, 1, hello], newcomer)
            _wait_for_notes(scene, notes)
            scene.wait(
                lambda text=last: all(_row(page, scene.player)[3] == text for page in scene.pages),  # type: ignore[misc]
                "the queues do not show the last text",
            )
            scene.assert_live()


@contextlib.contextmanager
def _unplugged(scene: Scene) -> Iterator[None]:
    scene.network.unplug()
    yield
    scene.network.plug()


@contextlib.contextmanager
def _daemon_killed(scene: Scene) -> Iterator[None]:
    with scene.world.daemon_killed():
        yield


@contextlib.contextmanager
def _realtime_closed(scene: Scene) -> Iterator[None]:
    scene.world.stack.fault("realtime", {"action": "close_all"})
    yield


@contextlib.contextmanager
def _pusher_closed(scene: Scene) -> Iterator[None]:
    scene.world.stack.fault("pusher", {"action": "drop_sockets"})
    yield
