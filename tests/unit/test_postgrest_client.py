"""The transport to PostgREST: headers of callers, results and errors."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gre_bridge import __version__
from gre_bridge.db import http
from gre_bridge.db import postgrest as module
from gre_bridge.db.postgrest import Caller, PostgrestClient, PostgrestError
from gre_bridge.errors import ConfigurationError, TransientError
from tests.support.loopback import HANG, Reply, Request, json_reply, serving

SERVICE, ANON, JWT = "sb_secret_service", "sb_publishable_anon", "aaa.bbb.ccc"


class Server:
    """Records requests, and returns the given answers."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.reply


@asynccontextmanager
async def talking(
    reply: Reply, *, apikey: str | None = ANON
) -> AsyncIterator[tuple[PostgrestClient, Server]]:
    server = Server(reply)
    async with serving(server) as port:
        rest = await PostgrestClient.open(url=f"http://127.0.0.1:{port}/", key=SERVICE, apikey=apikey)
        try:
            yield rest, server
        finally:
            await rest.aclose()


async def refusal(reply: Reply) -> PostgrestError:
    async with talking(reply) as (rest, _):
        with pytest.raises(PostgrestError) as caught:
            await rest.rpc("f", {})
    return caught.value


def signed(role: str) -> str:
    """Return a JWT of this role; its signature is not verified here."""
    claims = base64.urlsafe_b64encode(json.dumps({"role": role}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{claims}.c2ln"


@pytest.mark.parametrize(
    ("key", "anon", "shown"),
    [
        ("sb_secret_service", ANON, "the key"),
        (signed("service_role"), ANON, "the key"),
        (signed("gre_worker"), ANON, "the anon key"),
        (signed("gre_worker"), None, "the key"),
        ("no key at all", ANON, "the key"),
    ],
    ids=["secret", "service_role", "gre_worker", "no anon key", "unknown"],
)
async def test_the_gateway_gets_a_key_of_the_project(key: str, anon: str | None, shown: str) -> None:
    """Supabase's gateway accepts only its own keys; a token of another issuer is sent with the anon key."""
    server = Server(json_reply(1))
    async with serving(server) as port:
        rest = await PostgrestClient.open(url=f"http://127.0.0.1:{port}/", key=key, apikey=anon)
        try:
            await rest.rpc("gre_f", {})
        finally:
            await rest.aclose()
    (request,) = server.requests
    assert request.headers["apikey"] == (ANON if shown == "the anon key" else key)
    assert request.headers["Authorization"] == f"Bearer {key}"


async def test_a_call_of_the_service_has_its_key_twice_and_no_actor() -> None:
    async with talking(json_reply({"a": "é"})) as (rest, server):
        assert await rest.rpc("gre_f", {"p_text": "Žofie"}) == {"a": "é"}
    (request,) = server.requests
    assert (request.method, request.path, dict(request.query)) == ("POST", "/rest/v1/rpc/gre_f", {})
    assert request.json() == {"p_text": "Žofie"}
    found = {name: request.headers.get(name) for name in (
        "apikey", "Authorization", "X-GRE-Act-As", "Content-Type", "Accept", "Content-Profile", "Accept-Profile",
        "X-Client-Info",
    )}  # fmt: skip
    assert found == {
        "apikey": SERVICE, "Authorization": f"Bearer {SERVICE}", "X-GRE-Act-As": None,
        "Content-Type": "application/json", "Accept": "application/json", "Content-Profile": "public",
        "Accept-Profile": "public", "X-Client-Info": f"gre-bridge/{__version__}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("caller", "apikey", "shown", "act_as"),
    [
        (Caller(JWT), ANON, ANON, "nobody"),
        (Caller(JWT), None, SERVICE, "nobody"),
        (Caller(JWT, ""), ANON, ANON, "nobody"),
        (Caller("sb_secret_other", "s1"), ANON, "sb_secret_other", "s1"),
        (Caller(SERVICE, "Žofie"), ANON, SERVICE, "Žofie"),
    ],
)
async def test_a_callers_token_is_passed_through(
    caller: Caller, apikey: str | None, shown: str, act_as: str
) -> None:
    async with talking(json_reply(1), apikey=apikey) as (rest, server):
        await rest.rpc("f", {}, caller=caller)
    headers = server.requests[0].headers
    assert (headers["Authorization"], headers["apikey"]) == (f"Bearer {caller.token}", shown)
    assert headers["X-GRE-Act-As"] == act_as


@pytest.mark.parametrize("caller", [Caller("a\r\nX: 1"), Caller(""), Caller("ž"), Caller(JWT, "s1\r\nX: 1")])
async def test_a_value_that_no_header_can_contain_is_refused_and_not_sent(caller: Caller) -> None:
    async with talking(json_reply(1)) as (rest, server):
        with pytest.raises(PostgrestError) as caught:
            await rest.rpc("f", {}, caller=caller)
    assert caught.value.status in (400, 401)
    assert server.requests == []


@pytest.mark.parametrize(
    ("reply", "value"),
    [(Reply(204), None), (Reply(200), None), (json_reply(None), None), (json_reply([]), []), (json_reply(7, 201), 7)],
)  # fmt: skip
async def test_an_empty_body_is_no_result(reply: Reply, value: Any) -> None:
    async with talking(reply) as (rest, _):
        assert await rest.rpc("f", {}) == value


async def test_an_error_has_postgrests_four_keys() -> None:
    body = {"code": "PT409", "details": "Key (id)=(hush)", "hint": "h", "message": "message_id_taken"}
    found = await refusal(json_reply(body, 409))
    assert (found.status, found.code, found.message) == (409, "PT409", "message_id_taken")
    assert (found.hint, found.details) == ("h", "Key (id)=(hush)")
    assert "hush" not in str(found)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(502, b"<html>hush</html>"), "502"),
        (Reply(503, b"", {"Proxy-Status": "PostgREST; error=PGRST002"}), "PGRST002"),
        (json_reply({"message": "Invalid API key"}, 401), "401"),
        (json_reply({"code": "", "details": None, "hint": None, "message": ""}, 400), ""),
        (json_reply({"code": 429, "message": {"odd": 1}}, 429), "429"),
        (json_reply([1], 500), "500"),
        (Reply(302, b"", {"Location": "/elsewhere"}), "302"),
    ],
)
async def test_a_gateways_answer_has_a_code_too(reply: Reply, code: str) -> None:
    found = await refusal(reply)
    assert (found.status, found.code) == (reply.status, code)


async def test_a_page_with_status_200_is_unreadable() -> None:
    async with talking(Reply(200, b"<html>maintenance</html>")) as (rest, _):
        with pytest.raises(TransientError) as caught:
            await rest.rpc("f", {})
    assert caught.value.code == "unreadable"


async def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 1000)
    async with talking(Reply(200, b'"' + b" " * 2000 + b'"')) as (rest, _):
        with pytest.raises(TransientError) as caught:
            await rest.rpc("f", {})
    assert caught.value.code == "unreadable"


async def test_one_call_may_have_less_time_than_the_others() -> None:
    async with talking(HANG) as (rest, _):
        with pytest.raises(TransientError) as caught:
            await rest.rpc("f", {}, timeout=0.5)
    assert caught.value.code == "timeout"


async def test_arguments_that_are_no_json_are_a_bad_request() -> None:
    async with talking(json_reply(1)) as (rest, server):
        with pytest.raises(PostgrestError) as caught:
            await rest.rpc("f", {"p": object()})
    assert (caught.value.status, caught.value.code) == (400, "PGRST102")
    assert server.requests == []


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"url": "nonsense"}, "SUPABASE_URL"),
        ({"url": "https://"}, "SUPABASE_URL"),
        ({"url": "https://a:port"}, "SUPABASE_URL"),
        ({"key": ""}, "SUPABASE_SERVICE_KEY"),
        ({"key": "hush\n"}, "SUPABASE_SERVICE_KEY"),
        ({"apikey": "húsh"}, "SUPABASE_ANON_KEY"),
    ],
)
async def test_impossible_settings_are_named_and_not_quoted(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        await PostgrestClient.open(**{"url": "https://p.supabase.co", "key": SERVICE, **wrong})
    assert "sh" not in str(caught.value)


@pytest.mark.parametrize(("bypass", "through"), [("", True), ("project.invalid", False), ("*", False)])
async def test_a_proxy_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, bypass: str, through: bool
) -> None:
    server = Server(json_reply(5))
    async with serving(server) as port:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", bypass)
        rest = await PostgrestClient.open(url="http://project.invalid", key=SERVICE)
        if through:
            assert await rest.rpc("f", {}) == 5
        else:
            with pytest.raises(TransientError):
                await rest.rpc("f", {})
        await rest.aclose()
    assert len(server.requests) == through


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Write a key and a self-signed certificate for 127.0.0.1 into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gre-bridge test")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path / "server.pem"
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key.private_bytes(*form) + signed.public_bytes(Encoding.PEM))
    return path


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_certificate_that_is_not_trusted_is_refused(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    http._tls.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server(json_reply(5))
    async with serving(server, tls=context) as port:
        rest = await PostgrestClient.open(url=f"https://127.0.0.1:{port}", key=SERVICE)
        if trusted:
            assert await rest.rpc("f", {}) == 5
        else:
            with pytest.raises(TransientError, match="certificate verify failed"):
                await rest.rpc("f", {})
        await rest.aclose()
    http._tls.cache_clear()
    assert len(server.requests) == trusted
