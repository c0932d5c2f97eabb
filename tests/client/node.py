"""Pages that run in Node.js, beside the files of `pages/`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.portals.harness import Portal, node_modules

if TYPE_CHECKING:
    from tests.client.world import Scene

PAGES = Path(__file__).parent / "pages"
CLIENT = Path(__file__).parents[2] / "client" / "dist"


def start_in_node(scene: Scene, token: str) -> Portal:
    """Run the module of the scene's subject."""
    folder = scene.folder
    script = folder / "page.mjs"
    if not script.exists():
        shutil.copytree(PAGES, folder)
        (folder / "node_modules").symlink_to(node_modules())
        script.write_text(scene.world.subject.source())
    return Portal(["node", str(script)], _environment(scene, token))


def _environment(scene: Scene, token: str) -> dict[str, str]:
    env, daemon = scene.world.stack.env, scene.through(scene.world.worker.url)
    return {
        "SUPABASE_URL": scene.through(scene.world.stack.url),
        "SUPABASE_ANON_KEY": env["SUPABASE_ANON_KEY"],
        "PUSHER_KEY": env["PUSHER_KEY"],
        "PUSHER_CLUSTER": env["PUSHER_CLUSTER"],
        "PUSHER_HOST": "127.0.0.1",
        "PUSHER_PORT": str(scene.forwarded(int(env["PUSHER_PORT"]))),
        "PUSHER_AUTH_URL": f"{daemon}/api/pusher/auth",
        "DAEMON": daemon,
        "WS_URL": f"{daemon.replace('http', 'ws', 1)}/ws",
        "CLIENT": str(CLIENT),
        "STORAGE": str(scene.folder / "storage"),
        "PLAYER_ID": str(scene.player),
        "SESSION_ID": scene.session,
        "USER_TOKEN": token,
    }
