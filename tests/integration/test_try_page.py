"""The player's page of the embedded stack: served to this machine alone, with a player's token and no secret."""

from __future__ import annotations

import re

import httpx
import pytest

from gre_bridge.config.settings import known_names
from gre_bridge.config.sources import unknown_names
from gre_bridge.devstack.keys import Keys
from gre_bridge.devstack.try_page import TryPage
from tests.support.loopback import HTTP
from tests.support.stack import StackProcess


def test_the_page_and_its_files_are_served_under_a_strict_policy(stack_process: StackProcess) -> None:
    page = stack_process.http.get("/try")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy and "unsafe" not in policy
    files = re.findall(r'(?:src|href)="(/try/[^"]+)"', page.text)
    assert {name.rsplit(".", 1)[1] for name in files} == {"js", "css"}
    for name in files:
        assert stack_process.http.get(name).status_code == 200


def test_its_values_are_those_of_a_player_and_contain_no_secret(stack_process: StackProcess) -> None:
    answer = stack_process.http.get("/try/config.json")
    config = answer.json()
    seen = stack_process.http.post(
        "/rest/v1/rpc/gre_whoami", json={}, headers=stack_process.headers(config["token"])
    )
    assert (seen.json()["role"], seen.json()["player_id"]) == ("player", config["playerId"])
    secrets = ("SUPABASE_SERVICE_KEY", "SUPABASE_JWT_SECRET", "PUSHER_SECRET", "ONESIGNAL_API_KEY")
    assert not [name for name in secrets if stack_process.env[name] in answer.text]


def test_a_request_with_a_foreign_host_name_reads_nothing(stack_process: StackProcess) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost:99999"):
        answer = stack_process.http.get("/try/config.json", headers={"Host": host})
        assert answer.status_code in (400, 403) and "token" not in answer.text


@pytest.mark.parametrize(
    "path", ["/try/../keys.py", "/try/%2e%2e/keys.py", "/try/..%2fkeys.py", "/try/nothing.js", "/tryst"]
)
def test_other_paths_are_not_found(stack_process: StackProcess, path: str) -> None:
    answer = HTTP.get(httpx.URL(stack_process.url, raw_path=path.encode()), timeout=60)
    assert answer.status_code in (404, 501)


def test_beside_a_daemon_pages_may_subscribe_unless_origins_were_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GRE_CORS_ORIGINS", "GRE_DOCS"):
        monkeypatch.delenv(name, raising=False)
    page = TryPage(Keys.generate())
    daemon, stack = "http://127.0.0.1:5000", "http://127.0.0.1:54321"
    local = "http://localhost:*,http://127.0.0.1:*"
    added = {"PUSHER_AUTH_URL": f"{daemon}/api/pusher/auth", "GRE_CORS_ORIGINS": f"{stack},{local}",
             "GRE_DOCS": "true", "GRE_DEV_PAGES": "true"}  # fmt: skip
    assert page.beside(daemon, stack) == added
    monkeypatch.setenv("GRE_CORS_ORIGINS", "https://portal.example")
    assert page.beside(daemon, stack)["GRE_CORS_ORIGINS"] == "https://portal.example"


def test_no_name_that_the_stack_writes_is_taken_for_a_misspelt_one(stack_process: StackProcess) -> None:
    written = [*stack_process.env, *TryPage(Keys.generate()).beside(stack_process.url, stack_process.url)]
    assert {"PUSHER_AUTH_URL", "GRE_DEV_STACK", "SUPABASE_JWT_SECRET"} <= {*written}
    assert unknown_names(written, known_names()) == []
