"""The examples of docs/rest.md are run unchanged, and it names every code that REST can return."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.api.conftest import Api
from tests.support.programs import need

GUIDE = (Path(__file__).parents[2] / "docs" / "rest.md").read_text()
EXAMPLES = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_examples_work_one_after_the_other(api: Api) -> None:
    need("curl", "curl")
    assert len(EXAMPLES) == 27
    env = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "NO_PROXY": "127.0.0.1",
        "GRE": api.worker.url,
        "PLAYER": api.stack.keys.user_token("player", player_id=29),
        "STAFF": api.stack.keys.user_token("staff", staff_id="s1"),
        "ADMIN": api.stack.keys.user_token("admin", staff_id="a1"),
        "SERVICE_KEY": api.stack.env["SUPABASE_SERVICE_KEY"],
    }
    for example in EXAMPLES:
        done = subprocess.run(
            ["sh", "-euc", example], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (example, done.stdout, done.stderr)


def test_every_path_is_named(api: Api) -> None:
    for path in api.http.get("/openapi.json").json()["paths"]:
        assert re.sub(r"_i(?=d\})", "I", path) in GUIDE
