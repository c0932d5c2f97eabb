"""Every snippet of docs/files.md runs unchanged and does what the guide says."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.portals.harness import Guide, Portal, World, node_modules, wait_for
from tests.support.dev import dev_process
from tests.support.loopback import HTTP

FILES_GUIDE = Path(__file__).parents[2] / "docs" / "files.md"
CALL, UPLOAD, SEND, SHOW, DIRECT = (
    "player or staff: call the bridge",
    "player or staff: upload a file",
    "player: send a photo",
    "player or staff: show the files of a message",
    "player: send a photo with supabase-js",
)
PICTURE = b"\x89PNG\r\n\x1a\n" + b"not decoded here"
BEFORE = f"""
import ws from 'ws'
globalThis.WebSocket ??= ws
const say = (line) => console.log(JSON.stringify(line))
const show = (...shown) => say({{ shown }})
const BRIDGE_URL = process.env.BRIDGE_URL
const PLAYER_ID = Number(process.env.PLAYER_ID)
const file = new File([new Uint8Array({list(PICTURE)})], 'my table.png', {{ type: process.env.TYPE ?? 'image/png' }})
let waiting
process.stdin.on('data', () => (say({{ answer: null }}), waiting?.())).on('end', () => process.exit(0))
const go = () => new Promise((resolve) => (waiting = resolve))
"""
AFTER = "\nsay({ done: true })\n"
BUCKET = "/storage/v1/object/gre-chat"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """`gre-bridge dev` with a daemon that examines no files: the tests do that."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRE_MEDIA", "off")
        with dev_process(tmp_path_factory.mktemp("files")) as started:
            yield World(env={**started.env, "BRIDGE_URL": started.daemon}, keys=started.keys)


@pytest.fixture
def snippets() -> dict[str, str]:
    text = FILES_GUIDE.read_text()
    found: dict[str, str] = dict(
        re.findall(r"^```js\n// ([^\n]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    )
    assert list(found) == [CALL, UPLOAD, SEND, SHOW, DIRECT]
    return found


@pytest.fixture
def start(world: World, snippets: dict[str, str], tmp_path: Path) -> Callable[..., Portal]:
    """Start a page of these pieces of code, as a player."""

    def start(*codes: str, player: int, **env: str) -> Portal:
        (tmp_path / "node_modules").symlink_to(node_modules())
        script = tmp_path / "page.mjs"
        top = f"const USER_TOKEN = {world.keys.user_token('player', player_id=player)!r}\n"
        if "from '@supabase" in "".join(codes):
            top = ""
        script.write_text(BEFORE + top + "".join(snippets.get(code, code) for code in codes) + AFTER)
        return world.page(
            script,
            USER_TOKEN=world.keys.user_token("player", player_id=player),
            BRIDGE_URL=world.env["BRIDGE_URL"],
            PLAYER_ID=str(player),
            **env,
        )

    return start


def shown(portal: Portal, count: int) -> list[Any]:
    """Wait for the first `count` values that the page showed."""

    def found() -> list[Any]:
        return [line["shown"] for line in portal.lines if "shown" in line]

    return list(wait_for(lambda: len(found()) >= count and found(), f"the page showed only {found()}"))


def examine(world: World, player: int, kind: str) -> None:
    """Make the player's file ready, as a worker does."""
    headers = {"Authorization": f"Bearer {world.env['SUPABASE_SERVICE_KEY']}", "content-type": "image/png"}
    with psycopg.connect(world.env["SUPABASE_DB_URL"], autocommit=True) as conn:
        row = conn.execute("select id from gre_chat_attachments where player_id = %s", [player]).fetchone()
        assert row is not None
        for variant in ("view", "thumb") if kind == "image" else ():
            answer = HTTP.post(
                f"{world.url}{BUCKET}/{player}/{row[0]}/{variant}", content=variant.encode(), headers=headers
            )
            assert answer.status_code == 200, answer.text
        worker = str(uuid.uuid4())
        conn.execute("update gre.media_jobs set claimed_by = %s where attachment_id = %s", [worker, row[0]])
    result = {
        "id": str(row[0]),
        "result": "ready",
        "kind": kind,
        "type": "image/png",
        "width": 4,
        "height": 3,
    }
    body = {"p_worker": worker, "p_results": [result]}
    answer = HTTP.post(
        f"{world.url}/rest/v1/rpc/gre_media_settle_v1",
        json=body,
        headers={**headers, "content-type": "application/json"},
    )
    assert answer.json()["settled"] == 1, answer.text


READ = """
await go()
const [message2] = await call('GET', `/api/gre-chat/messages/${PLAYER_ID}`)
{
  const message = message2
"""


@pytest.mark.parametrize("kind", ["image", "file"])
def test_a_player_sends_and_sees_a_photo(world: World, start: Callable[..., Portal], kind: str) -> None:
    player = world.new_player()
    page = start(CALL, UPLOAD, SEND, READ, SHOW, "}\n", player=player)
    (attachments,) = shown(page, 1)[0]
    assert [(a["name"], a["kind"], a["state"], a["place"]) for a in attachments] == [
        ("my table.png", "image", "stored", 0)
    ]
    examine(world, player, kind)
    page.call("go")
    variant, name, width, height, url = shown(page, 2)[1]
    assert (variant, name, width, height) == ("thumb" if kind == "image" else "file", "my table.png", 4, 3)
    got = HTTP.get(url)
    assert got.content == (b"thumb" if kind == "image" else PICTURE)
    assert ("content-disposition" in got.headers) == (kind == "file")
    page.line("done")


@pytest.mark.parametrize(
    "fault",
    [
        {"mode": "refused", "times": 1},
        {"mode": "lose_answer", "times": 1, "path": "/object/upload/sign/gre-chat", "methods": ["PUT"]},
        {"mode": "cut", "times": 1, "bytes": 3, "methods": ["PUT"]},
        {"mode": "refused", "times": 2, "status": 504, "methods": ["PUT"]},
    ],
    ids=["no address", "lost answer", "cut", "gateway"],
)
def test_an_upload_that_fails_is_tried_again(
    world: World, start: Callable[..., Portal], fault: dict[str, Any]
) -> None:
    HTTP.post(f"{world.url}/__stack/faults", json={"storage": fault}).raise_for_status()
    player = world.new_player()
    (attachments,) = shown(start(CALL, UPLOAD, SEND, player=player), 1)[0]
    assert [a["state"] for a in attachments] == ["stored"]
    left = HTTP.get(f"{world.url}/__stack/faults").json()["storage"]
    assert not [rule for rule in left if rule["times"]]
    with psycopg.connect(world.env["SUPABASE_DB_URL"]) as conn:
        rows = conn.execute(
            "select count(*) from storage.objects where name like %s", [f"{player}/%"]
        ).fetchone()
    assert rows == (1,)


def test_a_refused_upload_is_given_up(world: World, start: Callable[..., Portal]) -> None:
    forged = (
        "const honest = call\ncall = (method, path, body) => honest(method, path, { ...body, bytes: 3 })\n"
    )
    told = "try { await upload(file, {}) } catch (error) { show(error.message) }\n"
    player = world.new_player()
    assert shown(start(CALL, forged, UPLOAD, told, player=player), 1)[0] == [
        "the file is larger than announced"
    ]


def test_a_player_sends_a_photo_with_supabase_js(
    world: World, guide: Guide, start: Callable[..., Portal]
) -> None:
    player = world.new_player()
    setup = guide["js", "settings"] + guide["js", "page: set up"]
    page = start(setup, DIRECT, player=player, TYPE="image/png")
    (rows,), (url,) = shown(page, 2)
    assert [(row["seq"], row["message"], len(row["attachment_ids"])) for row in rows] == [(1, "📷 Photo", 1)]
    got = HTTP.get(url)
    assert (got.content, got.headers["content-type"]) == (PICTURE, "image/png")
    assert got.headers["content-disposition"].startswith("attachment; filename=my%20table.png")
