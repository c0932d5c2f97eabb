"""The embedded PostgREST answers like the real one: exchanges recorded from PostgREST 14.5, replayed in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import uvicorn
from postgrest import APIError, CountMethod
from starlette.applications import Starlette
from starlette.routing import Mount
from supabase import AsyncClient, acreate_client

from gre_bridge.devstack.postgres import EmbeddedPostgres
from gre_bridge.devstack.postgrest import database as postgrest_database
from gre_bridge.devstack.postgrest.app import PostgREST, open_pool
from tests.support.waiting import pause, until, wait_until

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
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=rest), base_url="http://rest", timeout=60)


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
                deadline = time.monotonic() + 60
                while case.get("reloads") and answer.status_code == 404 and time.monotonic() < deadline:
                    await pause(0.02, "before the same request is sent again")
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
    guessed = case["headers"].get("Prefer") in ("count=planned", "count=estimated")
    for name, value in case["expect_headers"].items():
        seen = answer.headers[name]
        assert (re.sub(r"/\d+$", "/N", seen) == re.sub(r"/\d+$", "/N", value)) if guessed else seen == value
    expected, body = masked(case["expect"]), masked(answer.text)
    if case.get("truncated"):
        body = body[: len(expected)]
    assert body == expected


TABLES = """
create table public.rooms (id int primary key, name text, floor int);
create table public.notes (id int primary key, room_id int references public.rooms(id), body text, at timestamptz default now());
create table public.badges (room_id int primary key references public.rooms(id), colour text);
create table public.later (id int primary key, parent int references public.later(id) deferrable initially deferred);
create table public.tags (id int primary key, name varchar(5));
create table public.room_tags (room_id int references public.rooms(id), tag_id int references public.tags(id));
insert into public.rooms values (1, 'red', 1), (2, 'blue', 2), (3, null, 2);
insert into public.notes values (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
insert into public.badges values (1, 'gold');
create sequence public.attempts;
create function public.flaky(fails int) returns text language plpgsql as $$ begin
  if nextval('public.attempts') <= fails then raise exception 'again' using errcode = '40001'; end if; return 'done'; end $$;
create function public.tries() returns bigint language sql as $$ select last_value from public.attempts $$;
create function public.slow_insert(room int, wait float) returns void language plpgsql as $$ begin
  perform pg_sleep(wait); insert into public.rooms values (room, 'slow'); end $$;
create function public.patient() returns text language sql set statement_timeout = '9s' as $$ select current_setting('statement_timeout') $$;
create function public.sum_of(variadic xs int[]) returns bigint language sql immutable as $$ select sum(x) from unnest(xs) x $$;
"""


@pytest.fixture(scope="module")
def tables(rest_cluster: EmbeddedPostgres, answers: dict[str, httpx.Response]) -> None:
    """More than was recorded: embedding, deferred keys, conflicts, slow writes; made after the replay."""
    with rest_cluster.connect() as conn:
        conn.execute("alter event trigger pgrst_ddl_watch enable")
        conn.execute(TABLES)


@contextlib.asynccontextmanager
async def running(dsn: str, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The app, and a client that speaks as service_role."""
    rest = PostgREST(dsn=dsn, jwt_secret=SECRET, **options)
    await rest.start()
    try:
        async with client(rest) as http:
            http.headers["Authorization"] = f"Bearer {token()}"
            yield http
    finally:
        await rest.stop()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/notes?select=id,rooms(name)&id=eq.1", [{"id": 1, "rooms": {"name": "red"}}]),
        (
            "/rooms?select=name,notes(id)&order=id&notes.order=id.desc&notes.limit=1",
            [
                {"name": "red", "notes": [{"id": 2}]},
                {"name": "blue", "notes": [{"id": 3}]},
                {"name": None, "notes": []},
            ],
        ),
        ("/rooms?select=id,notes!inner(body)&notes.body=eq.c", [{"id": 2, "notes": [{"body": "c"}]}]),
        ("/rooms?select=id,n:notes!notes_room_id_fkey(body)&n.body=eq.b&id=eq.1", [{"id": 1, "n": [{"body": "b"}]}]),
        ("/rooms?select=id,badges(colour)&id=lt.3&order=id", [{"id": 1, "badges": {"colour": "gold"}}, {"id": 2, "badges": None}]),
        ("/rooms?select=id,notes(id,rooms(name))&id=eq.2", [{"id": 2, "notes": [{"id": 3, "rooms": {"name": "blue"}}]}]),
        ("/rooms?select=n:name,f:floor::text&id=eq.1", [{"n": "red", "f": "1"}]),
        ("/rooms?select=id&order=name.desc.nullslast,id", [{"id": 1}, {"id": 2}, {"id": 3}]),
        ("/rooms?select=id&order=name.nullsfirst", [{"id": 3}, {"id": 2}, {"id": 1}]),
        ('/rooms?select=id&and=(floor.eq.2,or(name.is.null,name.eq."blue"))&order=id', [{"id": 2}, {"id": 3}]),
        ("/rooms?select=id&not.or=(name.eq.red,id.in.(2,5))", []),
        ("/rooms?select=id&or=(name.like.b*,name.not.in.(blue,green))&order=id", [{"id": 1}, {"id": 2}]),
        ("/rooms?select=id&name=ilike(any).{R*,G*}", [{"id": 1}]),
        ("/rooms?select=id&name=isdistinct.red&order=id", [{"id": 2}, {"id": 3}]),
        ("/rpc/sum_of?xs=1&xs=2", 3),
        ("/rpc/patient", "9s"),
        ("/rpc/pairs?n=4&i=gt.1&select=sq&order=sq.desc&limit=2", [{"sq": 16}, {"sq": 9}]),
    ],
)  # fmt: skip
async def test_reads(tables: None, rest_dsn: str, path: str, expected: Any) -> None:
    async with running(rest_dsn) as http:
        answer = await http.get(path)
    assert answer.json() == expected


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "/rooms?select=id,...badges(colour)", {}, None),
        ("GET", "/rooms?select=id,tags(name)", {}, None),
        ("GET", "/rooms?select=id,notes(id)&notes=is.null", {}, None),
        ("GET", "/later?select=id,later(id)", {}, None),
        ("GET", "/notes?select=id&order=rooms(name)", {}, None),
        ("GET", "/notes?body=fts.word", {}, None),
        ("GET", "/notes", {"Prefer": "timezone=Europe/Rome"}, None),
        ("GET", "/notes", {"Accept": "application/vnd.pgrst.array+json;nulls=stripped"}, None),
        ("POST", "/rooms?select=id,notes(id)", {"Prefer": "return=representation"}, '{"id":9}'),
        ("POST", "/rooms", {"Content-Type": "text/csv"}, "id\n9"),
        ("POST", "/rpc/pairs?select=i,rooms(id)", {}, '{"n":1}'),
        ("PATCH", "/rooms?limit=1", {}, '{"floor":9}'),
        ("PUT", "/rooms?id=eq.1", {}, '{"id":1}'),
    ],
)
async def test_what_is_left_out_is_refused_and_changes_nothing(
    tables: None, rest_dsn: str, method: str, path: str, headers: dict[str, str], body: str | None
) -> None:
    async with running(rest_dsn) as http:
        answer = await http.request(method, path, headers=headers, content=body)
        assert (answer.status_code, answer.json()["code"]) == (501, "PGRST127")
        assert (await http.get("/rooms?or=(id.eq.9,floor.eq.9)")).json() == []


async def test_quotes_in_names_and_values_stay_quotes(tables: None, rest_dsn: str) -> None:
    evil = "x'); drop table rooms; --\"\\"
    async with running(rest_dsn) as http:
        for params in (
            {"name": f"eq.{evil}"},
            {"select": f'"{evil[:-2]}"'},
            {"order": '"a""; drop table rooms"'},
        ):
            await http.get("/rooms", params=params)
        await http.get("/rooms", params={"select": "id::text); drop table rooms; --"})
        made = await http.post(
            "/rooms?select=name", json={"id": 77, "name": evil}, headers={"Prefer": "return=representation"}
        )
        assert made.json() == [{"name": evil}]
        assert (
            await http.get("/rooms", params={"select": "id", "name": f"in.({json.dumps(evil)})"})
        ).json() == [{"id": 77}]
        assert (await http.delete("/rooms?id=eq.77")).status_code == 204


async def test_a_deferred_constraint_that_fails_at_commit_is_an_error(tables: None, rest_dsn: str) -> None:
    async with running(rest_dsn) as http:
        answer = await http.post("/later", json={"id": 1, "parent": 99})
        assert (answer.status_code, answer.json()["code"]) == (409, "23503")
        assert (await http.get("/later")).json() == []


async def test_single_that_finds_two_rows_to_change_rolls_back(tables: None, rest_dsn: str) -> None:
    async with running(rest_dsn) as http:
        headers = {"Accept": "application/vnd.pgrst.object+json", "Prefer": "return=representation"}
        answer = await http.patch("/rooms?id=lt.3", json={"floor": 50}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (406, "PGRST116")
        assert (await http.get("/rooms?floor=eq.50")).json() == []
        one = await http.patch("/rooms?id=eq.3&select=floor", json={"floor": 2}, headers=headers)
        assert one.json() == {"floor": 2}


async def test_headers_only_names_the_new_row(tables: None, rest_dsn: str) -> None:
    async with running(rest_dsn) as http:
        answer = await http.post("/rooms", json={"id": 60}, headers={"Prefer": "return=headers-only"})
        assert (answer.headers["location"], answer.content) == ("/rooms?id=eq.60", b"")
        await http.delete("/rooms?id=eq.60")


async def test_max_rows_cuts_silently_and_a_count_tells(tables: None, rest_dsn: str) -> None:
    async with running(rest_dsn, max_rows=3) as http:
        cut = await http.post("/rpc/pairs", json={"n": 5})
        assert (cut.status_code, cut.headers["content-range"], len(cut.json())) == (200, "0-2/*", 3)
        told = await http.post("/rpc/pairs", json={"n": 5}, headers={"Prefer": "count=exact"})
        assert (told.status_code, told.headers["content-range"]) == (206, "0-2/5")
        texts = await http.post("/rpc/set_text", json={"n": 5}, headers={"Prefer": "count=exact"})
        assert (texts.json(), texts.headers["content-range"]) == (["v1", "v2", "v3"], "0-2/5")
        few = await http.get("/rooms?select=id&id=lt.3", headers={"Prefer": "count=estimated"})
        assert few.headers["content-range"] == "0-1/2"


async def test_functions_can_set_status_and_headers(tables: None, rest_dsn: str) -> None:
    async with running(rest_dsn) as http:
        answer = await http.post("/rpc/set_status", json={})
    assert (answer.status_code, answer.headers["x-foo"]) == (202, "bar")


async def test_serialization_failures_are_retried_but_not_for_ever(
    tables: None, rest_dsn: str, rest_cluster: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(rest_dsn) as http:
        with rest_cluster.connect() as conn:
            conn.execute("alter sequence public.attempts restart")
        assert (await http.post("/rpc/flaky", json={"fails": 3})).json() == "done"
        assert (await http.post("/rpc/tries", json={})).json() == 4
        monkeypatch.setattr(postgrest_database, "_RETRY_SECONDS", 0.2)
        answer = await http.post("/rpc/flaky", json={"fails": 1_000_000})
        assert (answer.status_code, answer.json()["code"]) == (500, "40001")


async def sleeping(cluster: EmbeddedPostgres) -> None:
    """Wait until a statement is in its pg_sleep."""
    now = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    with cluster.connect() as watch:
        await until(lambda: watch.execute(now).fetchone() != (0,), every=0.02)


async def test_a_caller_that_leaves_does_not_cancel_its_write(
    tables: None, rest_dsn: str, rest_cluster: EmbeddedPostgres
) -> None:
    async with running(rest_dsn) as http:
        leaving = asyncio.create_task(http.post("/rpc/slow_insert", json={"room": 88, "wait": 1}))
        await sleeping(rest_cluster)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving

        async def stored() -> bool:
            return bool((await http.get("/rooms?id=eq.88")).json())

        await until(stored, every=0.02)
        await http.delete("/rooms?id=eq.88")


async def test_a_full_pool_is_504(tables: None, rest_dsn: str, rest_cluster: EmbeddedPostgres) -> None:
    async with open_pool(rest_dsn, size=1) as pool:
        rest = PostgREST(pool=pool, jwt_secret=SECRET, acquire_timeout=0.1)
        await rest.start()
        async with client(rest) as http:
            slow = asyncio.create_task(http.post("/rpc/slow", json={"s": 2.5}))
            await sleeping(rest_cluster)
            answer = await http.post("/rpc/ret_text", json={})
            assert (answer.status_code, answer.json()["code"]) == (504, "PGRST003")
            assert (await slow).json() == 1
        await rest.stop()


NUMBERS = ("1e400", "-1E+400", "9" * 400, "0e-16000")


@pytest.mark.parametrize(
    "value", [*NUMBERS, "[" * 3000 + "]" * 3000], ids=[*(n[:8] for n in NUMBERS), "deep"]
)
async def test_any_json_passes_whatever_a_double_holds(rest_dsn: str, tables: None, value: str) -> None:
    """PostgREST reads a body for its keys and hands the text on; jsonb takes any number and 3,000 nested arrays."""
    async with running(rest_dsn) as http:
        headers = {"Content-Type": "application/json", "Prefer": "return=representation"}
        for body in (
            f'{{"sku": "n", "meta": {{"n": {value}}}}}',
            f'[{{"meta": {{"n": {value}}}, "sku": "n"}}]',
        ):
            made = await http.post("/items?select=meta", content=body, headers=headers)
            assert made.status_code == 201, made.text
            if value.isdigit():
                assert value in made.text
            await http.delete("/items?sku=eq.n")
        for broken in (
            f'{{"meta": {value}',
            f'{{"meta" {value}}}',
            f'{{"meta": {value},}}',
            f"{{{value}: 1}}",
            f'{{"a": {value}}} x',
        ):
            refused = await http.post("/items", content=broken, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (400, "PGRST102")


async def test_browsers_are_let_in(rest_dsn: str, tables: None) -> None:
    asked = "apikey,authorization,content-profile,prefer,x-client-info"
    async with running(rest_dsn, require_apikey=True) as http:
        preflight = await http.options(
            "/rooms",
            headers={"Origin": "http://portal", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked},
        )  # fmt: skip
        plain = await http.get("/rooms?limit=1", headers={"Origin": "http://portal"})
    assert preflight.status_code == 200
    assert set(asked.split(",")) <= set(preflight.headers["access-control-allow-headers"].split(", "))
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert plain.headers["access-control-allow-origin"] == "*"
    assert "Content-Range" in plain.headers["access-control-expose-headers"]


async def test_the_gateway_wants_a_key(rest_dsn: str, tables: None) -> None:
    async with running(rest_dsn, require_apikey=True) as http:
        del http.headers["Authorization"]
        refused = await http.get("/rooms")
        by_header = await http.get("/rooms?limit=1", headers={"apikey": "any"})
        by_parameter = await http.get("/rooms?limit=1&apikey=any")
    assert (refused.status_code, refused.json()["message"]) == (401, "No API key found in request")
    assert by_header.status_code == by_parameter.status_code == 200


async def test_a_changed_role_setting_counts_after_reload_config(
    rest_dsn: str, tables: None, rest_cluster: EmbeddedPostgres
) -> None:
    async with running(rest_dsn) as http:
        anon = {"Authorization": f"Bearer {token(role='anon')}"}
        assert (await http.post("/rpc/whoami", headers=anon)).json()["statement_timeout"] == "3s"
        with rest_cluster.connect() as conn:
            conn.execute("alter role anon set statement_timeout = '4s'; notify pgrst, 'reload config'")

        async def reloaded() -> bool:
            answer = await http.post("/rpc/whoami", headers=anon)
            return bool(answer.json()["statement_timeout"] == "4s")

        await until(reloaded, every=0.02)
        with rest_cluster.connect() as conn:
            conn.execute("alter role anon set statement_timeout = '3s'")


async def test_it_survives_the_database(rest_dsn: str, tables: None, rest_cluster: EmbeddedPostgres) -> None:
    """A crash is 400 with an empty code on what was idle, 503 on what was under way, then 503 until it is back."""
    async with running(rest_dsn) as http:
        assert (await http.post("/rpc/ret_text", json={})).json() == "hello"
        in_flight = asyncio.create_task(http.post("/rpc/slow", json={"s": 5}))
        await sleeping(rest_cluster)
        await asyncio.to_thread(rest_cluster.crash)
        seen = [await in_flight]
        seen += [await http.post("/rpc/ret_text", json={}) for _ in range(8)]
        await asyncio.to_thread(rest_cluster.start)

        async def recovered() -> httpx.Response | None:
            answer = await http.post("/rpc/ret_text", json={})
            return answer if answer.status_code == 200 else None

        assert (await until(recovered, every=0.05)).json() == "hello"
    codes = [(answer.status_code, answer.json()["code"]) for answer in seen]
    assert codes[0] == (503, "PGRST001")
    assert (400, "") in codes[1:]
    assert codes[-1] == (503, "PGRST002") and "retry-after" in seen[-1].headers
    assert set(codes) <= {(400, ""), (503, "PGRST001"), (503, "PGRST002"), (503, "57P01")}


async def test_a_database_that_is_stopped_says_so(
    rest_dsn: str, tables: None, rest_cluster: EmbeddedPostgres
) -> None:
    async with running(rest_dsn) as http:
        await asyncio.to_thread(rest_cluster.stop, "fast")
        try:
            first, *others = [await http.post("/rpc/ret_text", json={}) for _ in range(4)]
        finally:
            await asyncio.to_thread(rest_cluster.start)
    assert (first.status_code, first.json()["code"], first.headers["retry-after"]) == (503, "57P01", "0")
    assert {(answer.status_code, answer.json()["code"]) for answer in others} == {(503, "PGRST002")}


@pytest.fixture(scope="module")
def address(rest_dsn: str, tables: None) -> Iterator[str]:
    """The app mounted as the stack mounts it, behind a real HTTP server in a thread."""
    rest = PostgREST(dsn=rest_dsn, jwt_secret=SECRET)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await rest.start()
        yield
        await rest.stop()

    app = Starlette(routes=[Mount("/rest/v1", app=rest)], lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, every=0.01, what="the server")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


# supabase-py 2.34 passes its own parts an option that they call deprecated.
quiet = pytest.mark.filterwarnings("ignore:The '(timeout|verify)' parameter is deprecated:DeprecationWarning")


@quiet
async def test_supabase_py_works_with_it(address: str) -> None:
    supabase = await acreate_client(address, token(iat=int(time.time())))
    async with supabase.postgrest:
        await use(supabase)


async def use(supabase: AsyncClient) -> None:
    rooms = supabase.table("rooms")
    made = await rooms.insert({"id": 100, "name": "one"}).execute()
    assert made.data == [{"id": 100, "name": "one", "floor": None}]
    bulk = await supabase.table("rooms").insert([{"id": 101, "name": "x"}, {"id": 102}]).execute()
    assert [row["name"] for row in bulk.data] == ["x", None]
    merged = await supabase.table("rooms").upsert({"id": 100, "floor": 7}, on_conflict="id").execute()
    assert merged.data == [{"id": 100, "name": "one", "floor": 7}]
    query = supabase.table("rooms").select("id", count=CountMethod.exact)
    found = await query.gte("id", 100).order("id", desc=True).limit(2).execute()
    assert (found.data, found.count) == ([{"id": 102}, {"id": 101}], 3)
    single = await supabase.table("rooms").select("name").eq("id", 100).single().execute()
    assert single.data == {"name": "one"}
    assert await supabase.table("rooms").select("name").eq("id", -1).maybe_single().execute() is None
    assert (await supabase.rpc("add", {"a": 1, "b": 2}).execute()).data == 3
    assert (await supabase.rpc("add", {"a": 1, "b": 2}, get=True).execute()).data == 3
    assert (await supabase.rpc("ret_void").execute()).data == []
    changed = await supabase.table("rooms").update({"floor": 8}).in_("id", [100, 101]).execute()
    assert [row["floor"] for row in changed.data] == [8, 8]
    gone = await supabase.table("rooms").delete().gte("id", 100).execute()
    assert len(gone.data) == 3


@quiet
@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [
        ("raise_p0001", {}, "P0001"),
        ("nosuch", {}, "PGRST202"),
        ("raise_pt", {"code": "PT409"}, "PT409"),
        ("raise_code", {"code": "55P03"}, "55P03"),
    ],
)
async def test_supabase_py_gets_the_code_of_an_error(
    address: str, function: str, arguments: dict[str, str], code: str
) -> None:
    supabase = await acreate_client(address, token())
    async with supabase.postgrest:
        with pytest.raises(APIError) as caught:
            await supabase.rpc(function, arguments).execute()
    assert caught.value.code == code
