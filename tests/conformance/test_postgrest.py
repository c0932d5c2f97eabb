"""The embedded PostgREST answers like the real one: exchanges recorded from PostgREST 14.5, replayed in order."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from gre_bridge.devstack.postgrest import PostgREST

SECRET = "a-secret-of-at-least-thirty-two-bytes-for-tests"
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "postgrest" / "cases.json").read_text())
USER = "11111111-1111-1111-1111-111111111111"

# Recorded exchanges that the stack does not reproduce, each with what it does instead and why.
DIFFERENT = {
    "empty bearer": (401, "the recording's client refused to send it; PostgREST's source says PGRST301"),
    "rpc raise_pt PT999": (500, "an ASGI server cannot send a status outside 100..599"),
}


def token(**claims: Any) -> str:
    return jwt.encode({"role": "service_role", **claims}, SECRET, algorithm="HS256")


def authorization(who: str | None) -> str | None:
    """The Authorization header of a case; the JWT cases are named for what is wrong with their token."""
    now = int(time.time())
    tokens = {
        "service": token(exp=now + 3600, iat=now, iss="supabase"),
        "anon": token(role="anon"),
        "user": token(role="authenticated", sub=USER),
        "empty bearer": "",
        "JWT bad signature": jwt.encode({"role": "anon"}, SECRET[::-1], algorithm="HS256"),
        "JWT garbage": "garbage",
        "JWT two parts": "a.b",
        "JWT three garbage parts": "a.b.c",
        "JWT expired 5 min": token(exp=now - 300),
        "JWT expired 10 s (within skew)": token(exp=now - 10),
        "JWT expired 31 s": token(exp=now - 32),
        "JWT nbf future": token(nbf=now + 300),
        "JWT iat future": token(iat=now + 300),
        "JWT unknown role": token(role="nobody_role"),
        "JWT role not granted": token(role="postgres"),
        "JWT no role claim": jwt.encode({"sub": "x"}, SECRET, algorithm="HS256"),
        "JWT no exp": token(),
        "JWT HS512": jwt.encode({"role": "anon"}, SECRET * 2, algorithm="HS512"),
        "JWT aud set": token(aud="someone-else"),
        "JWT alg none": jwt.encode({"role": "anon"}, None, algorithm="none"),
        "JWT exp as string": jwt.PyJWS().encode(b'{"role":"anon","exp":"soon"}', SECRET, algorithm="HS256"),
        "JWT sb_secret style key": "sb_secret_abcdef",
    }
    return None if who is None else f"Bearer {tokens[who]}"


def client(rest: PostgREST) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=rest), base_url="http://rest", timeout=15)


async def send(http: httpx.AsyncClient, case: dict[str, Any]) -> httpx.Response:
    headers = dict(case["headers"])
    if bearer := authorization(case["as"]):
        headers["Authorization"] = bearer
    body = case.get("body")
    return await http.request(
        case["method"], case["path"], headers=headers, content=body.encode() if body else None
    )


async def replay(dsn: str, cluster: EmbeddedPostgres) -> dict[str, httpx.Response]:
    rest = PostgREST(dsn=dsn, jwt_secret=SECRET, schemas=("public", "app"), max_rows=None)
    await rest.start()
    answers = {}
    try:
        async with client(rest) as http:
            for case in CASES:
                if "before" in case:
                    with cluster.connect() as conn:
                        conn.execute(case["before"])
                answers[case["name"]] = answer = await send(http, case)
                deadline = time.monotonic() + 5
                while case.get("reloads") and answer.status_code == 404 and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
                    answers[case["name"]] = answer = await send(http, case)
    finally:
        await rest.stop()
    return answers


@pytest.fixture(scope="module")
def answers(rest_dsn: str, rest_cluster: EmbeddedPostgres) -> dict[str, httpx.Response]:
    return asyncio.run(replay(rest_dsn, rest_cluster))


def masked(text: str) -> str:
    """Without what no two runs share: random uuids, the time of the insert, a planner's guess."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?\+00(:00)?", "TIME", text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_answers_as_recorded(case: dict[str, Any], answers: dict[str, httpx.Response]) -> None:
    answer = answers[case["name"]]
    if case["name"] in DIFFERENT:
        assert answer.status_code == DIFFERENT[case["name"]][0]
        return
    assert answer.status_code == case["status"], answer.text
    for name, value in case["expect_headers"].items():
        seen = answer.headers[name]
        if "count=planned" in str(case["headers"]) or "count=estimated" in str(case["headers"]):
            seen, value = re.sub(r"/\d+$", "/N", seen), re.sub(r"/\d+$", "/N", value)
        assert seen == value
    expected, body = masked(case["expect"]), masked(answer.text)
    if case.get("truncated"):
        body = body[: len(expected)]
    assert body == expected
