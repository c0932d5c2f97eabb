"""The callers' writes through Supabase's client: the token of each request, and the result of each answer."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import orjson
import pytest
import respx

from gre_bridge import __version__
from gre_bridge.db.http import Pool
from gre_bridge.db.postgrest import Caller, PostgrestClient, PostgrestError
from gre_bridge.db.users import UserDatabase
from gre_bridge.db.writes import PoolTransport, Writes
from gre_bridge.errors import BridgeError, Refused, TransientError
from tests.support.loopback import (
    GARBAGE,
    GONE,
    HALF_A_BODY,
    HANG,
    Reply,
    Request,
    closed_port,
    json_reply,
    saying,
    serving,
    serving_bytes,
)

URL, ANON, SERVICE, JWT = "https://p.supabase.co", "sb_publishable_anon", "sb_secret_service", "aaa.bbb.ccc"
ANNA, BERT = Caller("anna.anna.anna"), Caller("bert.bert.bert")
SESSION = "6f1f7b0e-6d56-4d0c-8a3e-0c7a3b1d9f01"

WRITES: dict[str, Callable[[UserDatabase], Awaitable[Any]]] = {
    "gre_send_message": lambda portal: portal.send(ANNA, message="hush"),
    "gre_staff_reply": lambda portal: portal.reply(ANNA, message="hush", session_id=SESSION),
    "gre_mark_read": lambda portal: portal.mark_read(ANNA, session_id=SESSION, up_to_seq=3),
    "gre_set_session_status": lambda portal: portal.set_session_status(ANNA, session_id=SESSION, status="closed"),
    "gre_close_session": lambda portal: portal.close_session(ANNA, 29),
    "gre_enable_player": lambda portal: portal.enable_player(ANNA, 29, enabled=False),
    "gre_enable_all_players": lambda portal: portal.enable_all_players(ANNA),
    "gre_set_online_status": lambda portal: portal.set_online_status(ANNA, "online"),
    "gre_retry_dead": lambda portal: portal.retry_dead(ANNA, [SESSION]),
}  # fmt: skip


@pytest.fixture
def database() -> respx.MockRouter:
    """Answers in place of PostgREST."""
    return respx.MockRouter(assert_all_called=False, base_url=f"{URL}/rest/v1/rpc/")


@pytest.fixture
def writes(database: respx.MockRouter) -> Writes:
    return Writes(url=f"{URL}/", anon_key=ANON, transport=httpx.MockTransport(database.async_handler))


class Observed:
    """Records the calls that have begun and ended, and the sessions that were written."""

    def __init__(self) -> None:
        self.begun, self.ended, self.written = list[str](), list[str](), list[str]()

    @contextmanager
    def database_called(self, function: str) -> Iterator[None]:
        self.begun.append(function)
        try:
            yield
        finally:
            self.ended.append(function)

    def session_written(self, session: str) -> None:
        self.written.append(session)


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
async def portal(writes: Writes, observed: Observed) -> AsyncIterator[UserDatabase]:
    rest = await PostgrestClient.open(url="http://127.0.0.1:9", key=SERVICE, apikey=ANON)
    portal = UserDatabase(rest, writes, observed)
    yield portal
    await portal.aclose()


@asynccontextmanager
async def over_a_pool(port: int, *, timeout: float = 5.0, limit: int = 2**18) -> AsyncIterator[Writes]:
    pool = Pool(service="PostgREST", connections=4, timeout=timeout, limit=limit)
    try:
        yield Writes(url=f"http://127.0.0.1:{port}", anon_key=ANON, transport=PoolTransport(pool))
    finally:
        await pool.aclose()


# Requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "shown", "act_as"),
    [
        (Caller(JWT), ANON, "nobody"),
        (Caller(JWT, ""), ANON, "nobody"),
        (Caller("sb_secret_other", "s1"), "sb_secret_other", "s1"),
        (Caller(SERVICE, "Žofie"), SERVICE, "Žofie"),
    ],
)
async def test_a_write_is_one_post_with_the_callers_own_token(
    caller: Caller, shown: str, act_as: str
) -> None:
    """Over the wire, since names of people are no ASCII."""
    requests: list[Request] = []

    def answer(request: Request) -> Reply:
        requests.append(request)
        return json_reply({"a": "é"})

    async with serving(answer) as port, over_a_pool(port) as writes:
        assert await writes.rpc("gre_f", {"p_text": "Žofie", "p_n": 1}, caller=caller) == {"a": "é"}
    (request,) = requests
    assert (request.method, request.path, dict(request.query)) == ("POST", "/rest/v1/rpc/gre_f", {})
    assert request.json() == {"p_text": "Žofie", "p_n": 1}
    expected = {
        "apikey": shown, "Authorization": f"Bearer {caller.token}", "X-GRE-Act-As": act_as,
        "Content-Type": "application/json", "Accept": "application/json", "Content-Profile": "public",
        "Accept-Profile": "public", "X-Client-Info": f"gre-bridge/{__version__}",
        "User-Agent": f"gre-bridge/{__version__}", "Cookie": None, "Prefer": None,
    }  # fmt: skip
    assert {name: request.headers.get(name) for name in expected} == expected
    assert [len(request.headers.getall(name)) for name in ("apikey", "Authorization")] == [1, 1]  # type: ignore[attr-defined]


async def test_writes_of_several_callers_at_once_keep_their_tokens_apart(
    database: respx.MockRouter, writes: Writes
) -> None:
    arrived = asyncio.Barrier(3)

    async def token(request: httpx.Request) -> httpx.Response:
        async with asyncio.timeout(60):
            await arrived.wait()
        return httpx.Response(200, json=[request.headers[name] for name in ("Authorization", "X-GRE-Act-As")])

    database.post("gre_f").mock(side_effect=token)
    callers = [ANNA, BERT, Caller(SERVICE, "s1")]
    assert await asyncio.gather(*(writes.rpc("gre_f", {}, caller=one) for one in callers)) == [
        [f"Bearer {one.token}", one.act_as or "nobody"] for one in callers
    ]


async def test_a_cookie_that_one_caller_was_given_is_not_sent_for_the_next(
    database: respx.MockRouter, writes: Writes
) -> None:
    """Supabase stands behind Cloudflare, which sets cookies."""
    route = database.post("gre_f").respond(200, json=1, headers={"Set-Cookie": "__cf_bm=anna; Path=/"})
    await writes.rpc("gre_f", {}, caller=ANNA)
    await writes.rpc("gre_f", {}, caller=BERT)
    assert [call.request.headers.get("Cookie") for call in route.calls] == [None, None]


@pytest.mark.parametrize("caller", [Caller("a\r\nX: 1"), Caller(""), Caller("ž"), Caller(JWT, "s1\r\nX: 1")])
async def test_a_value_that_no_header_can_contain_is_refused_and_not_sent(
    database: respx.MockRouter, writes: Writes, caller: Caller
) -> None:
    with pytest.raises(PostgrestError) as caught:
        await writes.rpc("gre_f", {}, caller=caller)
    assert caught.value.status in (400, 401)
    assert not database.calls


@pytest.mark.parametrize("value", [object(), "\ud800", 2**64, b"bytes", {1}])
async def test_arguments_that_are_no_json_are_a_bad_request(
    database: respx.MockRouter, writes: Writes, value: Any
) -> None:
    with pytest.raises(PostgrestError) as caught:
        await writes.rpc("gre_f", {"p": value}, caller=ANNA)
    assert (caught.value.status, caught.value.code) == (400, "PGRST102")
    assert not database.calls


# Answers ----------------------------------------------------------------------------------------------------


def error(code: str, message: str = "some words", hint: str | None = None) -> bytes:
    return orjson.dumps({"code": code, "message": message, "hint": hint, "details": "Key (id)=(hush)"})


ANSWERS: dict[str, Reply] = {
    "a result": json_reply({"a": [1, None, "é"]}),
    "a number": json_reply(7, 201),
    "null": json_reply(None),
    "our own refusal": Reply(409, error("PT409", "this id is taken", "message_id_taken")),
    "too many": Reply(429, orjson.dumps({"code": "PT429", "message": "slowly", "hint": "h", "details": "retry_after=7"})),
    "no right": Reply(403, error("42501")),
    "no right without a token": Reply(401, error("42501")),
    "an expired token": Reply(401, error("PGRST303", "JWT expired")),
    "a token that is not valid yet": Reply(401, error("PGRST303", "JWT issued at future")),
    "a bad token": Reply(401, error("PGRST301")),
    "a bad value": Reply(400, error("22P02")),
    "an id that exists": Reply(409, error("23505")),
    "no such function": Reply(404, error("PGRST202")),
    "no schema cache": Reply(503, error("PGRST002")),
    "no connection to the database": Reply(504, error("PGRST003")),
    "a lock that was not had": Reply(500, error("55P03")),
    "a read-only database": Reply(405, error("25006")),
    "a crashed database": json_reply({"code": "", "details": None, "hint": None, "message": ""}, 400),
    "a gateway's key error": json_reply({"message": "Invalid API key"}, 401),
    "a gateway's page": Reply(502, b"<html>hush</html>", {"Content-Type": "text/html"}),
    "Cloudflare's 520": Reply(520, b"\xff\xfe no text"),
    "an empty 503 with PostgREST's code": Reply(503, b"", {"Proxy-Status": "PostgREST; error=PGRST002"}),
    "a code that is a number": json_reply({"code": 429, "message": {"odd": 1}}, 429),
    "an error that is a list": json_reply([1], 500),
    "half an error": Reply(400, b'{"code": "PT409", "mess'),
    "a redirect": Reply(302, b"", {"Location": "/rest/v1/rpc/gre_elsewhere"}),
    "a redirect that keeps the method": Reply(307, b"", {"Location": "/rest/v1/rpc/gre_elsewhere"}),
    "a page with status 200": Reply(200, b"<html>maintenance</html>", {"Content-Type": "text/html"}),
    "half a result": Reply(200, b'{"a": [1'),
    "not a number": Reply(200, b"NaN"),
    "bytes that are no text": Reply(200, b'"\xff"'),
    "an endless answer": Reply(200, b'"' + b"x" * 3000 + b'"'),
    "a compressed result": Reply(200, gzip.compress(b'{"a": 1}'), {"Content-Encoding": "gzip"}),
    "a compression that is none": Reply(200, b"plain", {"Content-Encoding": "gzip"}),
    "a header that is no ASCII": Reply(200, b"1", {"X-Odd": "é"}),
    "no answer in time": HANG,
    "a connection that ends": GONE,
}  # fmt: skip


async def outcome(call: Awaitable[Any]) -> tuple[Any, ...]:
    try:
        return ("result", await call)
    except PostgrestError as error:
        return ("refused", error.status, error.code, error.message, error.hint, error.details)
    except BridgeError as error:
        return (type(error), error.code, str(error))


@pytest.mark.parametrize("reply", ANSWERS.values(), ids=ANSWERS)
async def test_each_answer_has_the_same_result_for_a_write_and_a_read_and_nothing_is_repeated(
    reply: Reply,
) -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Reply:
        requests.append(request)
        return reply

    async with serving(answer) as port:
        pool = Pool(service="PostgREST", connections=4, timeout=1.0, limit=2000)
        url = f"http://127.0.0.1:{port}"
        rest = PostgrestClient(url=url, key=SERVICE, apikey=ANON, pool=pool)
        writes = Writes(url=url, anon_key=ANON, transport=PoolTransport(pool))
        read = await outcome(rest.rpc("gre_f", {}, caller=ANNA))
        written = await outcome(writes.rpc("gre_f", {}, caller=ANNA))
        await pool.aclose()
    assert written == read
    assert [request.path for request in requests] == ["/rest/v1/rpc/gre_f"] * 2


@pytest.mark.parametrize("answer", [HALF_A_BODY, GARBAGE, b""])
async def test_an_answer_that_is_no_http_is_a_lost_connection(answer: bytes) -> None:
    async with serving_bytes(saying(answer)) as port, over_a_pool(port) as writes:
        with pytest.raises(TransientError, match=r"^gre_f: ") as caught:
            await writes.rpc("gre_f", {}, caller=ANNA)
    assert caught.value.code == "connection"


async def test_the_error_of_a_refused_connection_names_the_address() -> None:
    with closed_port() as port:
        async with over_a_pool(port) as writes:
            with pytest.raises(
                TransientError, match=f"^gre_f: cannot connect to 127.0.0.1:{port}: "
            ) as caught:
                await writes.rpc("gre_f", {}, caller=ANNA)
    assert caught.value.code == "connection"


async def test_a_kept_connection_that_ends_does_not_repeat_the_write() -> None:
    replies = iter([json_reply(1), GONE, json_reply(3)])
    requests: list[Request] = []

    def answer(request: Request) -> Reply:
        requests.append(request)
        return next(replies)

    async with serving(answer) as port, over_a_pool(port) as writes:
        assert await writes.rpc("gre_f", {"p": 1}, caller=ANNA) == 1
        with pytest.raises(TransientError):
            await writes.rpc("gre_f", {"p": 2}, caller=ANNA)
        assert await writes.rpc("gre_f", {"p": 3}, caller=ANNA) == 3
    assert [request.json()["p"] for request in requests] == [1, 2, 3]


# The portals' writes ----------------------------------------------------------------------------------------


REFUSALS: list[tuple[Reply, type[BridgeError], str, int | None]] = [
    (ANSWERS["our own refusal"], Refused, "message_id_taken", 409),
    (ANSWERS["too many"], Refused, "h", 429),
    (ANSWERS["no right"], Refused, "forbidden", 403),
    (ANSWERS["no right without a token"], Refused, "not_authenticated", 401),
    (ANSWERS["an expired token"], Refused, "token_expired", 401),
    (ANSWERS["a bad token"], Refused, "token_invalid", 401),
    (ANSWERS["a gateway's key error"], Refused, "token_invalid", 401),
    (ANSWERS["a bad value"], Refused, "value_invalid", 400),
    (ANSWERS["an id that exists"], Refused, "conflict", 409),
    (ANSWERS["a token that is not valid yet"], TransientError, "PGRST303", None),
    (ANSWERS["no such function"], TransientError, "PGRST202", None),
    (ANSWERS["no schema cache"], TransientError, "PGRST002", None),
    (ANSWERS["an empty 503 with PostgREST's code"], TransientError, "PGRST002", None),
    (ANSWERS["no connection to the database"], TransientError, "PGRST003", None),
    (ANSWERS["a lock that was not had"], TransientError, "55P03", None),
    (ANSWERS["a read-only database"], TransientError, "25006", None),
    (ANSWERS["a crashed database"], TransientError, "", None),
    (ANSWERS["a gateway's page"], TransientError, "502", None),
    (ANSWERS["Cloudflare's 520"], TransientError, "520", None),
    (ANSWERS["an error that is a list"], TransientError, "500", None),
    (ANSWERS["a redirect"], TransientError, "302", None),
    (ANSWERS["a page with status 200"], TransientError, "unreadable", None),
    (ANSWERS["half a result"], TransientError, "unreadable", None),
    (Reply(200), TransientError, "unreadable", None),
    (Reply(204), TransientError, "unreadable", None),
    (json_reply(None), TransientError, "unreadable", None),
    (json_reply([]), TransientError, "unreadable", None),
    (json_reply("7"), TransientError, "unreadable", None),
    (json_reply(True), TransientError, "unreadable", None),
    (json_reply(1.5), TransientError, "unreadable", None),
]


@pytest.mark.parametrize("function", WRITES)
@pytest.mark.parametrize(("reply", "kind", "code", "status"), REFUSALS)
async def test_a_failed_write_has_a_reason_and_causes_no_wakeup(
    database: respx.MockRouter, portal: UserDatabase, observed: Observed, function: str,
    reply: Reply, kind: type[BridgeError], code: str, status: int | None,
) -> None:  # fmt: skip
    route = database.post(function).respond(reply.status, headers=dict(reply.headers), content=reply.body)
    with pytest.raises(kind) as caught:
        await WRITES[function](portal)
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert getattr(caught.value, "status", None) == status
    assert "hush" not in str(caught.value)
    assert (route.call_count, observed.begun, observed.ended) == (1, [function], [function])
    assert observed.written == []


async def test_a_write_that_succeeds_names_its_session(
    database: respx.MockRouter, portal: UserDatabase, observed: Observed
) -> None:
    message = {"message": {"session_id": SESSION}, "duplicate": False}
    database.post("gre_send_message").respond(200, json=message)
    assert await portal.send(ANNA, message="hello") == message
    database.post("gre_close_session").respond(200, json={"session": None})
    assert await portal.close_session(ANNA, 29) == {"session": None}
    database.post("gre_enable_all_players").respond(200, json=7)
    assert await portal.enable_all_players(ANNA) == 7
    assert observed.written == [SESSION]
    assert observed.ended == ["gre_send_message", "gre_close_session", "gre_enable_all_players"]
    assert orjson.loads(database.calls[0].request.content) == {"p_message": "hello"}


async def test_a_refusal_by_the_rate_limit_has_retry_after(
    database: respx.MockRouter, portal: UserDatabase
) -> None:
    reply = ANSWERS["too many"]
    database.post("gre_send_message").respond(reply.status, content=reply.body)
    with pytest.raises(Refused) as caught:
        await portal.send(ANNA, message="hello")
    assert caught.value.retry_after == 7


def test_the_command_and_the_relay_do_not_import_supabases_client() -> None:
    """It takes 0.3 s and 12 MB, and only the API's process needs it."""
    code = (
        "import sys; import gre_bridge.cli.app, gre_bridge.daemon.run;"
        " print([name for name in ('supabase', 'postgrest', 'gre_bridge.db.writes') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == "[]\n"
