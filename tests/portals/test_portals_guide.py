"""Every snippet of docs/portals.md runs unchanged and does what the guide says."""

from __future__ import annotations

import contextlib
import json
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.portals.harness import Guide, Portal, World, node_modules, wait_for
from tests.portals.test_samples import SAMPLES, AuthProxy
from tests.support.loopback import HTTP, NO_TLS

# The code around a snippet: its constants, the functions that it calls, and the end.
JS_BEFORE = """
import ws from 'ws'
globalThis.WebSocket ??= ws
const say = (line) => console.log(JSON.stringify(line))
const show = (...shown) => say({ shown })
const showSession = (session) => say({ session })
const ring = () => say({ rang: true })
const readAgain = () => say({ read: true })
const PLAYER_ID = Number(process.env.PLAYER_ID)
const { SESSION_ID, STAFF_ID } = process.env
const UP_TO_SEQ = Number(process.env.UP_TO_SEQ)
const PLAYER_IDS = JSON.parse(process.env.PLAYER_IDS ?? '[]')
const rows = JSON.parse(process.env.ROWS ?? '[]')
"""
JS_AFTER = """
if (typeof pusher !== 'undefined')
  while (pusher.connection.state !== 'connected' || pusher.allChannels().some((channel) => !channel.subscribed))
    await new Promise((resolve) => setTimeout(resolve, 10))
say({ done: true })
process.stdin.on('end', () => process.exit(0)).resume()
"""
PY_BEFORE = """
import asyncio, json, os, sys

def show(*shown):
    print(json.dumps({"shown": shown}), flush=True)

player_id, session_id = int(os.environ["PLAYER_ID"]), os.environ.get("SESSION_ID")

async def main():
"""
PY_AFTER = """
    print(json.dumps({"done": True}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await supabase.remove_all_channels()

asyncio.run(main())
"""
Program = tuple[str, ...]
Start = Callable[..., Portal]
RUN: set[tuple[str, str]] = {("js", "settings")}
"""The snippets that run here; test_samples.py runs those that receive."""


def by(*programs: Program) -> pytest.MarkDecorator:
    """Run the test once with each of these programs: a language and the names of its snippets."""
    RUN.update((language, name) for language, *names in programs for name in names)
    return pytest.mark.parametrize("program", programs, ids=[program[0] for program in programs])


@pytest.fixture
def start(world: World, guide: Guide, tmp_path: Path) -> Start:
    """Start a program and wait until only its subscriptions are left."""

    def start(program: Program, *, role: str = "player", player: int = 0, **env: Any) -> Portal:
        language, *names = program
        codes = [guide[language, name] for name in names]
        if language == "js":
            (tmp_path / "node_modules").symlink_to(node_modules())
            script, text = (
                tmp_path / "page.mjs",
                "".join([JS_BEFORE, guide["js", "settings"], *codes, JS_AFTER]),
            )
        else:
            script, text = (
                tmp_path / "page.py",
                PY_BEFORE + textwrap.indent("".join(codes), "    ") + PY_AFTER,
            )
        script.write_text(text)
        world.wait_until_relayed()
        env = {name: str(value) for name, value in env.items()} | {"PLAYER_ID": str(player), "STAFF_ID": "s1"}
        if names[0].startswith("back end"):
            portal = world.backend(script, **env)
        else:
            who: dict[str, Any] = {"player_id": player} if role == "player" else {"staff_id": "s1"}
            token = world.keys.user_token("player" if role == "player" else "staff", **who)
            portal = world.page(script, USER_TOKEN=token, **env)
        portal.line("done")
        return portal

    return start


@pytest.fixture
def rest(stack: World) -> Iterator[Callable[..., Any]]:
    """Send a request to PostgREST with the service key; return the rows."""
    key = stack.env["SUPABASE_SERVICE_KEY"]
    headers = {"apikey": key, "Authorization": f"Bearer {key}", "Prefer": "return=representation"}
    with httpx.Client(base_url=f"{stack.url}/rest/v1", headers=headers, timeout=60, verify=NO_TLS) as client:

        def request(method: str, path: str, json: Any = None) -> Any:
            answer = client.request(method, path, json=json)
            assert answer.status_code in (200, 201), answer.text
            return answer.json()

        yield request


@pytest.fixture
def send(rest: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Insert one message; return the stored row."""

    def send(player: int, message: str, sender: str = "player") -> dict[str, Any]:
        row = {"player_id": player, "sender": sender, "sender_name": "Asha", "message": message}
        stored: dict[str, Any] = rest("POST", "gre_chat_messages", row)[0]
        return stored

    return send


def shown(portal: Portal, count: int) -> list[Any]:
    """Wait for the first `count` values that the page showed."""

    def found() -> list[Any]:
        return [line["shown"] for line in portal.lines if "shown" in line]

    return list(
        wait_for(lambda: found()[:count] if len(found()) >= count else [], f"the page showed only {found()}")
    )


def stored(rest: Callable[..., Any], player: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = rest("GET", f"gre_chat_messages?player_id=eq.{player}&order=seq")
    return rows


@by(("js", "page: set up", "player: send a message"), ("python", "page: set up", "player: send a message"))
def test_a_player_sends(world: World, start: Start, rest: Any, program: Program) -> None:
    id_ = world.new_player()
    portal = start(program, player=id_)
    (row,) = stored(rest, id_)
    assert (row["seq"], row["sender"], row["sender_name"], row["message"]) == (
        1,
        "player",
        "Asha",
        "Is table 4 open?",
    )
    assert not [line for line in portal.lines if "shown" in line]


@by(("js", "page: set up", "player: send and read back"))
def test_a_player_reads_its_sent_message(world: World, start: Start, rest: Any, program: Program) -> None:
    id_ = world.new_player()
    portal = start(program, player=id_)
    (row,) = stored(rest, id_)
    assert shown(portal, 1) == [[1, row["session_id"]]]


@by(("js", "page: set up", "player: send safely and read back"))
def test_a_player_reads_the_message_that_a_repeat_stored(
    world: World, start: Start, rest: Any, program: Program
) -> None:
    id_ = world.new_player()
    portal = start(program, player=id_)
    (row,) = stored(rest, id_)
    assert shown(portal, 1) == [[1, row["session_id"], 1]]


@by(
    ("js", "page: set up", "player: show the history"), ("python", "page: set up", "player: show the history")
)
def test_a_player_sees_its_history_in_order(world: World, start: Start, send: Any, program: Program) -> None:
    id_ = world.new_player()
    for n in range(3):
        send(id_, f"message {n}")
    portal = start(program, player=id_)
    assert [row["message"] for (row,) in shown(portal, 3)] == ["message 0", "message 1", "message 2"]
    assert [row["seq"] for (row,) in shown(portal, 3)] == [1, 2, 3]


def test_the_bridge_authorizes_users_that_the_database_knows(world: World) -> None:
    def status(token: str, channel: str, socket: str = "1.2") -> int:
        form, headers = {"socket_id": socket, "channel_name": channel}, {"Authorization": f"Bearer {token}"}
        return HTTP.post(world.env["PUSHER_AUTH_URL"], data=form, headers=headers).status_code

    player = world.keys.user_token("player", player_id=29)
    staff = world.keys.user_token("staff", staff_id="s1")
    of_players = [
        status(player, name) for name in ("private-player-29", "private-player-2", "private-staff-portal")
    ]
    assert of_players == [200, 403, 403]
    of_staff = [
        status(staff, name) for name in ("private-staff-portal", "presence-staff-portal", "private-else")
    ]
    assert of_staff == [200, 200, 403]
    assert status(player, "private-player-29", "1.2:presence-x") == 403
    assert status("nonsense", "private-player-29") == 401
    assert status(world.env["SUPABASE_ANON_KEY"], "private-player-29") == 403


@by(("js", "staff: receive"))
def test_staff_receive(world: World, start: Start, send: Any, program: Program) -> None:
    id_ = world.new_player()
    portal = start(program, role="staff")
    session = send(id_, "Hello")["session_id"]
    assert shown(portal, 1) == [[session, 1, "Asha", "Hello"]]
    portal.line("rang")
    portal.line("read")


@by(("js", "page: set up", "staff: receive what colleagues do"))
def test_staff_receive_the_actions_of_colleagues(
    world: World, start: Start, send: Any, program: Program
) -> None:
    id_ = world.new_player()
    with contextlib.closing(
        AuthProxy(world.env["PUSHER_AUTH_URL"].removesuffix("/api/pusher/auth"))
    ) as proxy:
        proxy.refusals = [503]
        portal = start(program, role="staff", PUSHER_AUTH_URL=proxy.url)
        assert proxy.requests == 2, "the refused subscription was not repeated"
    portal.line("read")
    send(id_, "Welcome", sender="staff")
    (session,), (event,) = shown(portal, 2)
    assert (session["player_id"], event["message"], event["player_id"]) == (id_, "Welcome", id_)


@by(("js", "page: set up", "staff: open sessions, the newest message first"))
def test_staff_list_open_sessions(world: World, start: Start, send: Any, program: Program) -> None:
    ids = [world.new_player(), world.new_player()]
    for id_ in ids:
        send(id_, "Hello")
    first, second = shown(start(program, role="staff"), 2)
    assert [first[0]["player_id"], second[0]["player_id"]] == ids[::-1]


@by(
    ("js", "page: set up", "staff: messages of a session"),
    ("js", "page: set up", "staff: sessions with their messages"),
)
def test_staff_read_a_conversation(world: World, start: Start, send: Any, program: Program) -> None:
    id_ = world.new_player()
    session = send(id_, "one")["session_id"]
    send(id_, "two")
    portal = start(program, role="staff", player=id_, SESSION_ID=session)
    if program[-1] == "staff: messages of a session":
        messages = [row for (row,) in shown(portal, 2)]
    else:
        ((found, messages),) = shown(portal, 1)
        assert found == session
    assert [message["message"] for message in messages] == ["one", "two"]


@by(("js", "page: set up", "staff: say that I am online, and see who is"))
def test_staff_set_their_online_status(world: World, start: Start, program: Program) -> None:
    ((colleague,),) = shown(start(program, role="staff"), 1)
    assert (colleague["staff_id"], colleague["display_name"], colleague["status"]) == ("s1", "Sam", "online")


@by(("js", "page: set up", "staff: reply"), ("python", "page: set up", "staff: reply"))
def test_staff_reply(world: World, start: Start, send: Any, program: Program) -> None:
    id_ = world.new_player()
    session = send(id_, "Hello")["session_id"]
    ((reply,),) = shown(start(program, role="staff", SESSION_ID=session), 1)
    assert (reply["player_id"], reply["seq"], reply["sender_id"], reply["sender_name"]) == (
        id_,
        2,
        "s1",
        "Sam",
    )


@by(("js", "page: set up", "staff: assign and close"))
def test_staff_assign_and_close(world: World, start: Start, send: Any, rest: Any, program: Program) -> None:
    session = send(world.new_player(), "Hello")["session_id"]
    ((status, closed_at),) = shown(start(program, role="staff", SESSION_ID=session), 1)
    (row,) = rest("GET", f"gre_chat_sessions?id=eq.{session}")
    assert (status, row["status"], row["assigned_staff_id"], row["closed_at"]) == (
        "closed",
        "closed",
        "s1",
        closed_at,
    )


@by(("js", "page: set up", "staff: take and transfer"))
@pytest.mark.parametrize("owner", [None, "s2"])
def test_staff_take_and_transfer(
    world: World, start: Start, send: Any, rest: Any, owner: str | None, program: Program
) -> None:
    session = send(world.new_player(), "Hello")["session_id"]
    if not rest("GET", "gre_staff?staff_id=eq.s2"):
        rest("POST", "gre_staff", {"staff_id": "s2"})
    rest("PATCH", f"gre_chat_sessions?id=eq.{session}", {"assigned_staff_id": owner})
    taken = ["s1"] if owner is None else ["taken by", "s2"]
    assert shown(start(program, role="staff", SESSION_ID=session), 2) == [taken, ["s2", None]]


@by(("js", "page: set up", "player or staff: mark as read"))
@pytest.mark.parametrize("role", ["player", "staff"])
def test_each_side_marks_as_read(
    world: World, start: Start, send: Any, rest: Any, role: str, program: Program
) -> None:
    id_ = world.new_player()
    session = send(id_, "Hello")["session_id"]
    send(id_, "Welcome", sender="staff")
    portal = start(program, role=role, player=id_, SESSION_ID=session, UP_TO_SEQ=2)
    assert shown(portal, 1) == [[role, 2, True]]
    (row,) = rest("GET", f"gre_chat_sessions?id=eq.{session}")
    assert (row["unread_by_player"], row["unread_by_staff"]) == ((0, 1) if role == "player" else (1, 0))


@by(("js", "page: set up", "player: show what staff have read"))
def test_a_player_sees_read_marks_of_staff(world: World, start: Start, send: Any, program: Program) -> None:
    id_ = world.new_player()
    session = send(id_, "Hello")["session_id"]
    portal = start(program, player=id_)
    staff = {
        "apikey": world.env["SUPABASE_ANON_KEY"],
        "Authorization": f"Bearer {world.keys.user_token('staff', staff_id='s1')}",
    }
    body = {"p_session_id": session, "p_up_to_seq": 1}
    mark = HTTP.post(f"{world.url}/rest/v1/rpc/gre_mark_read", json=body, headers=staff).json()
    assert shown(portal, 1) == [[session, "staff", 1, mark["timestamp"]]]


@by(("js", "page: set up", "player or staff: who am I"))
def test_a_page_reads_its_identity_and_whether_chat_is_enabled(
    world: World, start: Start, rest: Any, program: Program
) -> None:
    id_ = world.new_player()
    rest("POST", "gre_chat_players", {"player_id": id_, "chat_enabled": False})
    assert shown(start(program, player=id_), 1) == [["The chat is off for you."]]


@by(("js", "page: set up", "player: is the desk open, and who is there"))
def test_a_page_learns_whether_the_desk_is_open(world: World, start: Start, program: Program) -> None:
    [[desk]] = shown(start(program, player=world.new_player()), 1)
    assert desk | {"now": "", "staff": []} == {
        "open": True, "opens_at": None, "closes_at": None, "timezone": None, "now": "", "staff": [],
    }  # fmt: skip
    assert isinstance(desk["staff"], list)


@by(("js", "page: set up", "player: rate a closed session"))
def test_a_player_rates_its_session(
    world: World, start: Start, send: Any, rest: Any, program: Program
) -> None:
    id_ = world.new_player()
    session = send(id_, "Hello")["session_id"]
    rest("POST", "rpc/gre_set_settings", {"p_settings": {"rating_enabled": True}})
    rest("PATCH", f"gre_chat_sessions?id=eq.{session}", {"status": "closed"})
    assert shown(start(program, player=id_, SESSION_ID=session), 1) == [[5]]


@by(("js", "back end: set up", "back end: send a system message"))
def test_a_back_end_sends_a_system_message(world: World, start: Start, rest: Any, program: Program) -> None:
    id_ = world.new_player()
    portal = start(program, player=id_)
    (row,) = stored(rest, id_)
    assert shown(portal, 1) == [[row["session_id"], 1, "System"]]
    (session,) = rest("GET", f"gre_chat_sessions?player_id=eq.{id_}")
    assert (session["status"], session["waiting_since"], session["unread_by_staff"]) == ("active", None, 0)


@by(("js", "back end: set up", "back end: send a notice to many players"))
def test_a_system_message_leaves_no_open_session(
    world: World, start: Start, send: Any, rest: Any, program: Program
) -> None:
    talking, *others = ids = [world.new_player() for _ in range(103)]
    send(talking, "Hello")
    start(program, PLAYER_IDS=json.dumps(ids[::-1]))
    sessions = rest("GET", f"gre_chat_sessions?player_id=in.({','.join(map(str, ids))})")
    open_ = [session["player_id"] for session in sessions if session["status"] != "closed"]
    assert (len(sessions), open_) == (103, [talking])
    assert [row["message"] for row in stored(rest, others[-1])] == ["We close at ten today."]


@by(("js", "back end: set up", "back end: queue a push"), ("python", "back end: queue a push"))
def test_a_back_end_queues_a_push(world: World, start: Start, rest: Any, program: Program) -> None:
    (push,) = shown(start(program), 1)
    uuid.UUID(push[0])

    def settled() -> Any:
        (row,) = rest("GET", f"push_notifications?id=eq.{push[0]}&select=status,provider_id")
        return row["status"] != "queued" and row

    row = wait_for(settled, "the push stayed queued")
    assert row["status"] == "sent"
    (sent,) = [item for item in world.received("onesignal") if item["id"] == row["provider_id"]]
    to = sent["body"]["include_aliases"]["external_id"]
    assert to == (["player_29"] if program[0] == "js" else ["s1"])


@by(("js", "back end: set up", "back end: send to many players"))
def test_a_back_end_sends_to_many_players(world: World, start: Start, rest: Any, program: Program) -> None:
    ids = [world.new_player() for _ in range(3)]
    rows = [{"player_id": id_, "sender": "staff", "message": "We close at ten."} for id_ in reversed(ids)]
    start(program, ROWS=json.dumps(rows))
    assert [[row["message"] for row in stored(rest, id_)] for id_ in ids] == [["We close at ten."]] * 3


def test_every_snippet_of_the_guide_is_run(guide: Guide) -> None:
    assert set(guide) == RUN | SAMPLES
