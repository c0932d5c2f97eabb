"""The Pusher sink with a server that checks signatures, sizes and batches as documented."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gre_bridge.db.http import Pool
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.sinks.base import Outcome, PusherEvent, Result, SinkRecord
from gre_bridge.sinks.http_errors import MAX_RETRY_AFTER, retry_after
from gre_bridge.sinks.pusher import CONTROL, CONTROL_SIZE, PusherSink
from tests.support.loopback import (
    GARBAGE,
    GONE,
    HALF_A_BODY,
    Bytes,
    Reply,
    Request,
    closed_port,
    json_reply,
    saying,
    serving,
    serving_bytes,
    silent_port,
    unaccepting_port,
)
from tests.support.waiting import pause

KEY, SECRET = "app-key", "app-secret"
ACCEPTED, REJECTED, FAILED, UNSENT = Result.ACCEPTED, Result.REJECTED, Result.FAILED, Result.UNSENT


class Pusher:
    """A stand-in for batch_events of Pusher: refuses a whole batch for one bad event, and stores accepted events."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.accepted: list[str] = []
        self.guilty: dict[str, int] = {}
        self.break_at: int | None = None
        self.controls: list[str] = []
        self.words = b"The data content of this event is bad"
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        assert_signed(request)
        assert request.path == "/apps/123/batch_events"
        events = request.json()["batch"]
        assert 1 <= len(events) <= 10
        if events[0]["channel"] == CONTROL.channel:
            self.controls.append(events[0]["data"])
            return json_reply({})
        names = [json.loads(event["data"])["n"] for event in events]
        self.batches.append(names)
        if self.break_at is not None and len(self.batches) >= self.break_at:
            return Reply(503)
        for name, event in zip(names, events, strict=True):
            status = 413 if len(event["data"]) > 10_240 else self.guilty.get(name)
            if status:
                return Reply(status, self.words)
        self.accepted += names
        return json_reply({})


def assert_signed(request: Request) -> None:
    query = dict(request.query)
    signature = query.pop("auth_signature")
    assert query["body_md5"] == hashlib.md5(request.content, usedforsecurity=False).hexdigest()
    assert query["auth_key"] == KEY
    assert query["auth_version"] == "1.0"
    assert abs(int(query["auth_timestamp"]) - time.time()) < 600
    canonical = "\n".join(
        [request.method, request.path, "&".join(f"{k}={v}" for k, v in sorted(query.items()))]
    )
    assert signature == hmac.new(SECRET.encode(), canonical.encode(), hashlib.sha256).hexdigest()
    assert request.content.isascii()


def event(n: str, *, channel: str = "private-staff-portal", text: str = "") -> PusherEvent:
    return PusherEvent(channel, "new-player-message", json.dumps({"n": n, "text": text}))


def record(n: str, lane: str = "a", count: int = 1) -> SinkRecord:
    events = tuple(event(n if count == 1 else f"{n}.{i}") for i in range(count))
    return SinkRecord(lane, (f"d-{n}",), events)


def results(outcomes: list[Outcome]) -> list[Result]:
    return [outcome.result for outcome in outcomes]


def pusher_at(port: int, **options: Any) -> PusherSink:
    return PusherSink(
        **{
            "app_id": "123",
            "key": KEY,
            "secret": SECRET,
            "host": "127.0.0.1",
            "port": port,
            "ssl": False,
            **options,
        }
    )


@asynccontextmanager
async def against(handler: Callable[[Request], Reply]) -> AsyncIterator[PusherSink]:
    """Yield a sink whose requests `handler` answers."""
    async with serving(handler) as port:
        sink = pusher_at(port, timeout=5)
        try:
            yield sink
        finally:
            await sink.aclose()


async def send_to(reply: Reply, *records: SinkRecord) -> list[Outcome]:
    async with against(lambda _: reply) as sink:
        return await sink.send(records or [record("1")])


@pytest.fixture
def service() -> Pusher:
    return Pusher()


@pytest.fixture
async def sink(service: Pusher) -> AsyncIterator[PusherSink]:
    async with against(service) as sink:
        yield sink


async def test_events_are_sent_signed_in_order_in_batches_of_ten(service: Pusher, sink: PusherSink) -> None:
    outcomes = await sink.send([record(str(n), lane=str(n % 3)) for n in range(25)])
    assert results(outcomes) == [ACCEPTED] * 25
    assert [len(batch) for batch in service.batches] == [10, 10, 5]
    assert service.accepted == [str(n) for n in range(25)]


async def test_a_record_of_more_than_ten_events_is_one_outcome(service: Pusher, sink: PusherSink) -> None:
    assert results(await sink.send([record("x", count=12), record("y")])) == [ACCEPTED, ACCEPTED]
    assert service.accepted == [*(f"x.{i}" for i in range(12)), "y"]
    service.guilty = {"z.11": 400}
    assert results(await sink.send([record("z", count=12)])) == [REJECTED]


async def test_a_single_event_is_sent_once_and_its_data_unchanged(service: Pusher, sink: PusherSink) -> None:
    sent = event("1", text='emoji 😀, "quotes" and \\ and €')
    await sink.send([SinkRecord("a", ("d",), (sent,))])
    batch = service.requests[-1].json()["batch"]
    assert batch == [{"channel": sent.channel, "name": sent.name, "data": sent.data}]
    assert service.batches == [["1"]]


async def test_an_event_of_exactly_the_limit_is_not_refused_by_the_package(
    service: Pusher, sink: PusherSink
) -> None:
    room = 10_240 - len(event("1").data)
    full = SinkRecord("a", ("d",), (event("1", text="x" * room),))
    over = SinkRecord("b", ("e",), (event("2", text="x" * (room + 1)),))
    assert results(await sink.send([full, over])) == [ACCEPTED, REJECTED]
    assert service.accepted == ["1"]


async def test_a_refused_event_stops_its_lane_and_no_other(service: Pusher, sink: PusherSink) -> None:
    service.guilty = {"3": 413}
    lanes = "abababab"
    outcomes = await sink.send([record(str(n), lane=lane) for n, lane in enumerate(lanes)])
    assert results(outcomes) == [
        ACCEPTED, ACCEPTED, ACCEPTED, REJECTED, ACCEPTED, UNSENT, ACCEPTED, UNSENT
    ]  # fmt: skip
    assert isinstance(outcomes[3].error, PermanentError)
    assert outcomes[3].error.code == "413"
    assert service.accepted == ["0", "1", "2", "4", "6"]


async def test_a_service_that_fails_during_a_split_leaves_the_rest_unsent(
    service: Pusher, sink: PusherSink
) -> None:
    service.guilty, service.break_at = {"7": 400}, 3
    outcomes = await sink.send([record(str(n), lane=str(n)) for n in range(8)])
    assert service.batches == [
        ["0", "1", "2", "3", "4", "5", "6", "7"], ["0", "1", "2", "3"], ["4", "5", "6", "7"]
    ]  # fmt: skip
    assert results(outcomes) == [ACCEPTED] * 4 + [FAILED] * 4
    service.break_at, service.batches = 2, []
    outcomes = await sink.send([record(str(n), lane="a") for n in range(8)])
    assert results(outcomes) == [FAILED] + [UNSENT] * 7
    assert len(service.batches) == 2


async def test_nothing_is_sent_after_the_service_failed(service: Pusher, sink: PusherSink) -> None:
    service.break_at = 2
    records = [record(str(n), lane=str(n)) for n in range(30)] + [SinkRecord("x", ("d",))]
    outcomes = await sink.send(records)
    assert results(outcomes) == [ACCEPTED] * 10 + [FAILED] * 10 + [UNSENT] * 10 + [ACCEPTED]
    assert len(service.batches) == 2
    service.guilty, service.batches = {"0": 400}, []
    outcomes = await sink.send(records[:4])
    assert results(outcomes) == [FAILED, FAILED, UNSENT, UNSENT]
    assert service.batches == [["0", "1", "2", "3"], ["0", "1"]]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), min_size=1, max_size=16),
    data=st.data(),
)
def test_splits_find_every_refused_event_and_lose_no_other(
    shape: list[tuple[str, int]], data: st.DataObject
) -> None:
    records = [record(f"p{i}", lane, count) for i, (lane, count) in enumerate(shape)]
    names = [
        (i, json.loads(e.data)["n"])
        for i, p in enumerate(records)
        for e in p.payloads
        if isinstance(e, PusherEvent)
    ]
    service = Pusher()
    service.guilty = dict.fromkeys(data.draw(st.sets(st.sampled_from([n for _, n in names] or [""]))), 400)

    expected: dict[str, list[str]] = {lane: [] for lane in "abcd"}
    verdicts, stopped = [], set[str]()
    for i, p in enumerate(records):
        verdict = UNSENT if p.lane_key in stopped else ACCEPTED
        for name in [n for j, n in names if j == i]:
            if verdict is ACCEPTED and name in service.guilty:
                verdict = REJECTED
                stopped.add(p.lane_key)
            elif verdict is ACCEPTED:
                expected[p.lane_key].append(name)
        verdicts.append(verdict)

    async def send() -> list[Outcome]:
        async with against(service) as sink:
            return await sink.send(records)

    assert results(asyncio.run(send())) == verdicts
    owner = {name: records[i].lane_key for i, name in names}
    for lane, innocent in expected.items():
        assert [n for n in service.accepted if owner[n] == lane] == innocent


async def test_records_without_events_make_no_request(service: Pusher, sink: PusherSink) -> None:
    unknown = SinkRecord("b", ("d2",), error=PermanentError("unknown event 'x'"))
    outcomes = await sink.send(
        [SinkRecord("a", ("d1",)), unknown, record("1", lane="b"), SinkRecord("b", ("d4",))]
    )
    assert results(outcomes) == [ACCEPTED, REJECTED, UNSENT, UNSENT]
    assert service.batches == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, TransientError), (413, TransientError),
        (401, ConfigurationError), (403, ConfigurationError), (404, ConfigurationError),
        (302, ConfigurationError), (402, ConfigurationError),
        (408, TransientError), (429, TransientError),
        (500, TransientError), (502, TransientError), (503, TransientError), (504, TransientError),
    ],
)  # fmt: skip
async def test_every_status_is_one_of_three_kinds(status: int, kind: type[BridgeError]) -> None:
    page = Reply(status, b"<html>secret chat text</html>", {"Location": "/elsewhere"})
    first, second = await send_to(page, record("1", "a"), record("2", "a"))
    assert type(first.error) is kind
    assert first.result is FAILED
    assert second.result is UNSENT
    assert str(status) in str(first.error)
    assert "secret" not in str(first.error)
    assert SECRET not in str(first.error)


REFUSALS = [
    (400, b"Unknown auth_key 3f2a\n", ConfigurationError, "check PUSHER_KEY"),
    (400, b"Invalid signature: you should have sent", ConfigurationError, "check PUSHER_KEY"),
    (400, b"<html><h1>400 Bad Request</h1></html>", TransientError, "a page that is not Pusher's"),
    (400, b"The plain HTTP request was sent to HTTPS port", TransientError, "refuses whatever it is sent"),
    (413, b"<html>Request Entity Too Large</html>", TransientError, "a page that is not Pusher's"),
    (400, b"The data content of this event is bad", TransientError, "refuses whatever it is sent"),
    (413, b"", TransientError, "HTTP 413"),
]


@pytest.mark.parametrize(("status", "body", "kind", "told"), REFUSALS)
async def test_a_service_that_refuses_everything_has_an_outage_whatever_its_answer(
    status: int, body: bytes, kind: type[BridgeError], told: str
) -> None:
    """An unknown key, a proxy, plain HTTP to an HTTPS port: the answer is about no single event."""
    outcomes = await send_to(Reply(status, body), *(record(str(n), lane=str(n)) for n in range(10)))
    assert REJECTED not in results(outcomes)[1:]
    assert FAILED in results(outcomes)
    error = next(o.error for o in outcomes if o.result is FAILED)
    assert type(error) is kind
    assert told in str(error)
    assert "3f2a" not in str(error)


async def test_a_single_event_is_not_rejected_by_a_service_that_refuses_everything() -> None:
    async with against(lambda _: Reply(400, b"<html>Bad Request</html>")) as sink:
        for _ in range(3):
            (outcome,) = await sink.send([record("1")])
            assert outcome.result is FAILED


@pytest.mark.parametrize("words", [b"The data content of this event is bad", b"<html>blocked</html>", b"no"])
async def test_a_single_event_is_rejected_if_the_control_is_accepted(
    service: Pusher, sink: PusherSink, words: bytes
) -> None:
    service.guilty, service.words = {"1": 400}, words
    for text in ("", "x" * 5000):
        bad = SinkRecord("a", ("d",), (event("1", text=text),))
        (outcome,) = await sink.send([bad])
        assert outcome.result is REJECTED
        if words != b"The data content of this event is bad":  # errors of Pusher about this event
            assert len(service.controls.pop()) == min(len(event("1", text=text).data), CONTROL_SIZE)
    assert service.controls == []
    assert service.accepted == []


@pytest.mark.parametrize(
    "body", [b"", b"<html>log in</html>", b"{", b"[]", b'"ok"', b"\xff\xfe", b"[" * 100_000]
)
async def test_a_foreign_answer_with_status_200_is_no_success(body: bytes) -> None:
    (outcome,) = await send_to(Reply(200, body))
    assert outcome.result is FAILED
    assert isinstance(outcome.error, TransientError)


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    (outcome,) = await send_to(Reply(200, b"{}" + b" " * 2**18))
    assert outcome.result is FAILED
    assert isinstance(outcome.error, TransientError)


@pytest.mark.parametrize("answer", [b"", HALF_A_BODY, GARBAGE], ids=["gone", "half", "garbage"])
async def test_broken_connections_are_transient(answer: bytes) -> None:
    (outcome,) = await at_local_port(saying(answer))
    assert outcome.result is FAILED
    assert isinstance(outcome.error, TransientError)


async def test_a_request_is_not_repeated_by_the_transport() -> None:
    asked = 0

    def gone(_: Request) -> Reply:
        nonlocal asked
        asked += 1
        return GONE if asked > 1 else json_reply({})

    async with against(gone) as sink:
        (first,), (second,) = await sink.send([record("1")]), await sink.send([record("2")])
    assert (first.result, second.result, asked) == (ACCEPTED, FAILED, 2)


@pytest.mark.parametrize("port", [silent_port, unaccepting_port])
async def test_a_service_that_does_not_answer_is_given_up_in_time(
    port: Callable[[], AbstractContextManager[int]],
) -> None:
    with port() as number:
        sink = pusher_at(number, timeout=0.2, concurrency=1)
        started = time.monotonic()
        # With one connection the second request waits for the pool, which has a time limit too.
        outcomes = await asyncio.gather(sink.send([record("1")]), sink.send([record("2")]))
        await sink.aclose()
    assert time.monotonic() - started < 30
    for (outcome,) in outcomes:
        assert outcome.result is FAILED
        assert isinstance(outcome.error, TransientError)
        assert outcome.error.code == "timeout"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "86400"}, MAX_RETRY_AFTER),
        ({"Retry-After": formatdate(1_800_000_020, usegmt=True)}, 20.0),
        ({"Retry-After": formatdate(1_800_000_020, usegmt=True), "Date": formatdate(1_800_000_015)}, 5.0),
        ({"Retry-After": formatdate(1_700_000_000, usegmt=True)}, 0.0),
        ({"Retry-After": formatdate(1_900_000_000, usegmt=True)}, MAX_RETRY_AFTER),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(CIMultiDict(headers), now=1_800_000_000.0) == seconds


async def test_retry_after_reaches_the_error() -> None:
    (outcome,) = await send_to(Reply(429, headers={"Retry-After": "12"}))
    assert outcome.error is not None
    assert outcome.error.retry_after == 12.0


async def at_local_port(serve: Bytes, sends: int = 1, bound: float = 5.0) -> list[Outcome]:
    """Send `sends` times to a real server."""
    async with serving_bytes(serve) as port:
        sink = pusher_at(port, timeout=bound)
        try:
            return [outcome for n in range(sends) for outcome in await sink.send([record(str(n))])]
        finally:
            await sink.aclose()


async def test_one_connection_serves_many_requests() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line[15:] for line in head.lower().split(b"\r\n") if b"content-length:" in line)
            await reader.readexactly(int(length))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    assert results(await at_local_port(serve, sends=5)) == [ACCEPTED] * 5
    assert connections == 1


async def test_a_server_that_answers_byte_by_byte_does_not_block_the_worker() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b" ")
            await writer.drain()
            await pause(0.02, "between two bytes of a slow answer")

    started = time.monotonic()
    (outcome,) = await at_local_port(serve, bound=0.2)
    assert outcome.result is FAILED
    assert outcome.error is not None
    assert outcome.error.code == "timeout"
    assert time.monotonic() - started < 30


async def test_a_closed_port_is_transient_and_named_in_the_error() -> None:
    with closed_port() as port:
        sink = pusher_at(port)
        first, second = await sink.send([record("1", "a"), record("2", "b")])
        await sink.aclose()
    assert (first.result, second.result) == (FAILED, FAILED)
    assert isinstance(first.error, TransientError)
    assert "cannot connect" in str(first.error)


@pytest.mark.parametrize(
    "wrong", [{"app_id": "my-app"}, {"host": "https://pusher.example"}, {"host": "a:80"}]
)
def test_impossible_settings_are_configuration_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="PUSHER_"):
        PusherSink(**{"app_id": "123", "key": KEY, "secret": SECRET, **wrong})


async def test_a_transport_never_repeats_a_header_it_cannot_send() -> None:
    transport = Pool(service="Test", connections=1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving_bytes(serve) as port:
        with pytest.raises(TransientError) as caught:
            await transport.request("POST", f"http://127.0.0.1:{port}/", {"Authorization": "hush\n"}, b"")
        await transport.aclose()
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_cancelling_a_send_frees_its_connection() -> None:
    waiting = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.set()
        await reader.read()

    sending = asyncio.create_task(at_local_port(serve, bound=120))
    await asyncio.wait_for(waiting.wait(), 60)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(sending, 60)


async def test_the_sink_itself_logs_nothing(
    sink: PusherSink, service: Pusher, caplog: pytest.LogCaptureFixture
) -> None:
    service.guilty = {"1": 400}
    with caplog.at_level(logging.DEBUG):
        await sink.send([SinkRecord("a", ("d",), (event("1", text="hush"),)), record("2", "b")])
    assert not [r for r in caplog.records if r.name.startswith(("gre_bridge", "pusher"))]
    assert "hush" not in caplog.text
    assert SECRET not in caplog.text
