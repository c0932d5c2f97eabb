"""The cost of one peer of the API is bounded: bytes, time and connections, whatever it sends or does not send."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gre_bridge.api.server.http_protocol import HEAD_WITHIN
from tests.api.conftest import Api, start
from tests.support.hostile import UPGRADE, answer, closes, endless, established, memory, raw, send_all
from tests.support.loopback import NO_TLS, PATIENT
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until

MB = 1_000_000


def shape(said: bytes) -> tuple[int, str]:
    """Return status and code of an answer, which must have the documented shape."""
    head, _, body = said.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    error = json.loads(body)
    assert set(error) == {"success", "error", "code", "request_id"} and error["success"] is False
    assert f"x-request-id: {error['request_id']}".encode() in head.lower()
    assert b"content-type: application/json" in head.lower()
    return status, error["code"]


@pytest.mark.parametrize("part", list(endless()))
def test_a_request_without_an_end_costs_little_memory(api: Api, player_id: int, part: str) -> None:
    token = api.stack.keys.user_token("player", player_id=player_id)
    assert api.http.get("/healthz").status_code == 200
    with contextlib.closing(raw(api.worker.url)) as warm:
        send_all(warm, endless(token)[part], 200_000)
    before = memory(api.worker.pid)
    with contextlib.closing(raw(api.worker.url)) as sock:
        send_all(sock, endless(token)[part], 30 * MB)
        assert api.http.get("/healthz").status_code == 200
        grown = memory(api.worker.pid) - before
    assert grown < 5 * MB, f"{part}: {grown / MB:.1f} MB"


def test_headers_that_are_too_long_or_too_many_are_refused_in_the_documented_shape(api: Api) -> None:
    line = b"GET /api/gre-chat/health HTTP/1.1\r\nHost: x\r\n"
    for request, expected in {
        line + b"X: " + b"x" * 48_000 + b"\r\n\r\n": (431, "headers_too_large"),
        line + b"".join(b"X-%d: a\r\n" % n for n in range(150)) + b"\r\n": (431, "headers_too_large"),
        UPGRADE + b"".join(b"X-%d: a\r\n" % n for n in range(150)) + b"\r\n": (431, "headers_too_large"),
        b"no request\r\n\r\n": (400, "malformed"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01": (400, "malformed"),
        line + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx": (400, "malformed"),
    }.items():
        with contextlib.closing(raw(api.worker.url)) as sock:
            sock.sendall(request)
            assert shape(answer(sock)) == expected, request[:60]


def test_an_invalid_handshake_is_answered_and_closed(api: Api) -> None:
    posted = UPGRADE.replace(b"GET", b"POST", 1) + b"\r\n"
    long_line = UPGRADE + b"Authorization: Bearer " + b"x" * 20_000 + b"\r\n\r\n"
    for request in (posted, posted[:-2] + b"Content-Length: 0\r\n\r\n", UPGRADE.replace(b"1.1", b"1.0") + b"\r\n", long_line,
                    UPGRADE.replace(b"Version: 13", b"Version: 7") + b"\r\n", UPGRADE.replace(b"Key", b"Kez") + b"\r\n"):  # fmt: skip
        with contextlib.closing(raw(api.worker.url)) as sock:
            sock.sendall(request)
            began = time.monotonic()
            said = answer(sock)
            assert 400 <= int(said.split()[1]) < 500, request
            assert time.monotonic() - began < HEAD_WITHIN, "at once, and not as too slow"


def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    with contextlib.closing(raw(api.worker.url)) as sock:
        sock.sendall(
            b"".join(
                b"GET /api/gre-chat/health HTTP/1.1\r\nHost: x\r\nX-Request-Id: r%d\r\n\r\n" % n
                for n in range(50)
            )
            + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        said = answer(sock)
    assert re.findall(rb"x-request-id: r(\d+)", said.lower()) == [str(n).encode() for n in range(50)]
    assert said.endswith(b"ok\n")


IMPATIENT = {"HEAD_WITHIN": 4.0, "BODY_WITHIN": 6.0, "TAKEN_WITHIN": 6.0}
"""Seconds, a fifth to two fifths of what a daemon has."""


@pytest.fixture(scope="module")
def small(stack_process: StackProcess) -> Iterator[Api]:
    """A daemon with a limit of 40 HTTP connections."""
    yield from start(
        stack_process,
        constants={f"gre_bridge.api.server.http_protocol.{name}": value for name, value in IMPATIENT.items()},
        GRE_MAX_CONNECTIONS="40", GRE_DOCS="1", GRE_CORS_ORIGINS="https://portal.example",
    )  # fmt: skip


def test_incomplete_requests_time_out(small: Api) -> None:
    """Slowloris: nothing, half a request line, headers and a body byte by byte."""
    url = small.worker.url
    begun = {
        "nothing": b"",
        "half a line": b"GET /heal",
        "headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        "body": b"POST /api/gre-chat/send HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        "body of a GET": b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    }
    drops = {"headers": b"X: a\r\n", "body": b" ", "body of a GET": b" "}
    open_ones = {name: raw(url) for name in begun}
    ended: dict[str, bytes] = {}
    for name, sock in open_ones.items():
        sock.sendall(begun[name])
        sock.setblocking(False)
    said: dict[str, bytes] = dict.fromkeys(begun, b"")

    def look() -> bool:
        for name, sock in open_ones.items():
            if name in ended:
                continue
            try:
                sock.send(drops.get(name, b""))
                chunk = sock.recv(65_536)
                said[name] += chunk
                if not chunk:
                    ended[name] = said[name]
            except BlockingIOError:
                pass
            except OSError:
                ended[name] = said[name]
        return len(ended) == len(begun)

    wait_until(look, every=0.3, what="the end of all, though some send on and on")
    assert shape(ended["half a line"]) == (408, "too_slow")
    assert shape(ended["headers"]) == (408, "too_slow")
    assert ended["nothing"] == b""
    for sock in open_ones.values():
        sock.close()


def test_idle_connections_make_room_for_others(small: Api) -> None:
    url = small.worker.url
    port = urlsplit(url).port
    assert port
    crowd = [raw(url) for _ in range(120)]
    try:
        with httpx.Client(base_url=url, timeout=PATIENT, trust_env=False, verify=NO_TLS) as http:
            for _ in range(5):
                assert http.get("/healthz").status_code == 200
        wait_until(lambda: established(small.worker.pid, port) <= 42, what="the end of the idle ones")
        # Those that half-sent something keep nobody out either.
        for sock in crowd[100:]:
            with contextlib.suppress(OSError):
                sock.sendall(b"GET /heal")
        with contextlib.closing(raw(url)) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert answer(sock).endswith(b"ok\n")
    finally:
        for sock in crowd:
            sock.close()


def test_an_answer_that_is_not_read_times_out(small: Api) -> None:
    """The daemon keeps unsent output for a bounded time."""
    with contextlib.closing(raw(small.worker.url, receive_buffer=2048)) as sock:
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        send_all(sock, iter([request] * 500), MB)
        port = sock.getsockname()[1]

        def gone() -> bool:
            import psutil

            return not any(
                c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED
                for one in [psutil.Process(small.worker.pid), *psutil.Process(small.worker.pid).children(recursive=True)]
                for c in one.net_connections("tcp")
            )  # fmt: skip

        assert not gone()
        wait_until(gone, every=0.5, what="the end of a reader that does not read")


def test_a_malformed_origin_is_refused_like_any_other(small: Api) -> None:
    for origin in ("http://[", "http://[::1", "\x7f", "https://" + "a" * 5000, "null", "//[", "http://a]b"):
        request = UPGRADE + b"Origin: " + origin.encode() + b"\r\n\r\n"
        with contextlib.closing(raw(small.worker.url)) as sock:
            sock.sendall(request)
            status = int(answer(sock).split()[1])
        assert status in (400, 403), origin


def test_refused_requests_are_logged_with_their_id_and_a_flood_is_sampled(small: Api) -> None:
    def lines() -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in small.worker.log.read_text().splitlines()
            if "request_refused" in line
        ]

    answer = small.player(29).ask(
        "POST", "/api/gre-chat/send", json={"message": "secret text", "player_id": 30}
    )
    assert answer.status_code == 403
    [line] = wait_until(lambda: [one for one in lines() if one["request_id"] == answer.json()["request_id"]])
    assert (line["status"], line["code"], line["route"]) == (403, answer.json()["code"], "/api/gre-chat/send")
    assert (line["method"], line["role"], line["level"]) == ("POST", "player", "info")
    assert "secret text" not in small.worker.log.read_text()

    before, began = len(lines()), time.monotonic()
    for _ in range(120):
        assert small.with_token(None).ask("GET", "/api/gre-admin/nothing/none?x=secret").status_code in (
            401,
            404,
            429,
        )
    most = 15 + (time.monotonic() - began) / 5
    assert len(lines()) - before <= most, "a client could fill the disk"
    assert "secret" not in small.worker.log.read_text()


def test_the_log_has_no_line_for_malformed_requests(small: Api) -> None:
    """A line for each connection or each malformed request would let a client fill the disk."""
    lines = len(small.worker.log.read_text().splitlines())

    def stranger(request: bytes) -> None:
        with contextlib.suppress(OSError), contextlib.closing(raw(small.worker.url)) as sock:
            sock.sendall(request)
            closes(sock, 1)

    frame = UPGRADE + b"\r\n"
    requests = [
        b"\x00\xff nonsense\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        frame + b"\x81\x82\x00\x00\x00\x00\xff\xff",
        frame,
    ]
    threads = [threading.Thread(target=stranger, args=(request,)) for request in requests * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = small.worker.log.read_text().splitlines()[lines:]
    assert not [line for line in text if '"level": "debug"' not in line], text[:3]
    assert all(line.startswith("{") for line in text)
