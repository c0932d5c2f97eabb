"""The OneSignal sink: the outcome of every documented answer, and a receipt for every decided push."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.sinks.base import Outcome, Push, PusherEvent, Result, SinkRecord
from gre_bridge.sinks.onesignal import CONTROL, OneSignalSink
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

APP, API_KEY = "5b0f6a2e-7a3c-4a55-9f21-0d9f5d0c0001", "os_v2_app_hush"
DELIVERY = "0b6fb7a4-1d7b-4b43-8f62-6a1f86f0c0de"
ROW = {"delivery_id": DELIVERY, "message_id": "m1", "audience": "staff", "recipients": ["s1", "s2"]}
ACCEPTED, REJECTED, FAILED, UNSENT = Result.ACCEPTED, Result.REJECTED, Result.FAILED, Result.UNSENT


def push(text: str = "New message", row: dict[str, Any] | None = None) -> Push:
    body = {
        "target_channel": "push",
        "include_aliases": {"external_id": ["s1", "s2"]},
        "contents": {"en": text},
        "idempotency_key": DELIVERY,
    }
    return Push(body, row or ROW)


def record(lane: str = "a", *, text: str = "New message", row: dict[str, Any] | None = None) -> SinkRecord:
    return SinkRecord(lane, (DELIVERY,), (push(text, row),))


NOBODY = json_reply({"id": "", "errors": ["All included players are not subscribed"]})


class Service:
    """A stand-in for OneSignal: returns the given answers, and repeats the last one."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.replies = [json_reply({"id": "n"})]
        self.url = ""

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def respond(self, *replies: Reply) -> None:
        self.replies = list(replies)


@pytest.fixture
async def api() -> AsyncIterator[Service]:
    service = Service()
    async with serving(service) as port:
        service.url = f"http://127.0.0.1:{port}"
        yield service


@pytest.fixture
async def sink(api: Service) -> AsyncIterator[OneSignalSink]:
    sink = OneSignalSink(app_id=APP, api_key=API_KEY, api_url=api.url, timeout=1)
    yield sink
    await sink.aclose()


async def one(sink: OneSignalSink, **kwargs: Any) -> Outcome:
    (outcome,) = await sink.send([record(**kwargs)])
    return outcome


async def test_a_push_is_one_post_as_documented(sink: OneSignalSink, api: Service) -> None:
    api.respond(json_reply({"id": "n-1", "external_id": None}))
    outcome = await one(sink, text="Žofie 😀")
    assert len(api.requests) == 1
    (request,) = api.requests
    assert (request.method, request.path) == ("POST", "/notifications")
    assert request.headers["Authorization"] == f"Key {API_KEY}"
    assert request.headers["Content-Type"].startswith("application/json")
    assert request.json() == {"app_id": APP, **push("Žofie 😀").body}
    assert outcome == Outcome(
        ACCEPTED, receipts=[{**ROW, "status": "sent", "provider_id": "n-1", "error": None}]
    )


async def test_the_address_is_a_setting(api: Service) -> None:
    sink = OneSignalSink(app_id=APP, api_key=API_KEY, api_url=f"{api.url}/onesignal/")
    assert (await one(sink)).result is ACCEPTED
    assert [request.path for request in api.requests] == ["/onesignal/notifications"]
    await sink.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        {"id": "", "errors": ["All included players are not subscribed"]},
        {"id": "", "external_id": None},
        {"errors": ["All included players are not subscribed"]},
        {"id": None, "errors": {"invalid_aliases": {"external_id": ["s1", "s2"]}}},
    ],
)
async def test_a_success_without_an_id_reached_nobody(
    sink: OneSignalSink, api: Service, answer: dict[str, Any]
) -> None:
    api.respond(json_reply(answer))
    outcome = await one(sink)
    assert outcome.result is ACCEPTED
    (row,) = outcome.receipts
    assert row["status"] == "no_recipients"
    assert row["provider_id"] is None


async def test_a_push_to_some_of_the_recipients_is_sent_with_an_error_in_its_receipt(
    sink: OneSignalSink, api: Service
) -> None:
    api.respond(json_reply({"id": "n-1", "errors": {"invalid_aliases": {"external_id": ["s2"]}}}))
    outcome = await one(sink)
    assert outcome.result is ACCEPTED
    (row,) = outcome.receipts
    assert (row["status"], row["provider_id"]) == ("sent", "n-1")
    assert row["error"] == "OneSignal does not know 1 of the recipients"


async def test_a_replayed_key_is_sent(sink: OneSignalSink, api: Service) -> None:
    api.respond(json_reply({"id": "n-1"}, headers={"Idempotent-Replayed": "true"}))
    assert (await one(sink)).receipts[0]["status"] == "sent"


async def test_a_queued_row_gets_its_status_by_its_own_id(sink: OneSignalSink, api: Service) -> None:
    api.respond(json_reply({"id": "n-1"}))
    outcome = await one(sink, row={"push_id": 7})
    assert outcome.receipts == [{"push_id": 7, "status": "sent", "provider_id": "n-1", "error": None}]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"errors": ["Notification content must not be null for any languages."]}', "must not be null"),
        (b'{"errors": ["hush: your text is bad"]}', None),
        (b'{"errors": {"hush": ["x"]}}', None),
        (b'{"errors": "hush"}', None),
        (b'{"errors": [{}, null, 3]}', None),
        (b"<html>hush</html>", None),
        (b"[1]", None),
        (b"", None),
    ],
)
async def test_a_400_is_permanent_and_its_echo_is_not_quoted(
    sink: OneSignalSink, api: Service, body: bytes, told: str | None
) -> None:
    api.respond(Reply(400, body), *([] if told else [NOBODY]))
    outcome = await one(sink)
    assert outcome.result is REJECTED
    assert isinstance(outcome.error, PermanentError)
    assert "hush" not in str(outcome.error)
    assert told is None or told in str(outcome.error)
    assert outcome.receipts == [{**ROW, "status": "failed", "provider_id": None, "error": str(outcome.error)}]


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (400, b'{"errors": ["app_id not found."]}', ConfigurationError),
        (401, b"", ConfigurationError),
        (403, b'{"errors": ["Access denied."]}', ConfigurationError),
        (404, b"<html>hush</html>", ConfigurationError),
        (301, b"", ConfigurationError),
        (429, b'{"errors": ["API rate limit exceeded"]}', TransientError),
        (408, b"", TransientError),
        (500, b"", TransientError),
        (502, b"<html>hush</html>", TransientError),
        (503, b"{", TransientError),
        (200, b"<html>hush</html>", TransientError),
        (200, b"", TransientError),
        (200, b"{}", TransientError),
        (200, b'{"id": 5}', TransientError),
        (204, b"", TransientError),
    ],
)
async def test_an_outage_spends_no_attempt_and_writes_no_receipt(
    sink: OneSignalSink, api: Service, status: int, content: bytes, kind: type[BridgeError]
) -> None:
    api.respond(Reply(status, content, {"Retry-After": "9"}))
    outcome = await one(sink)
    assert outcome.result is FAILED
    assert type(outcome.error) is kind
    assert outcome.receipts == []
    assert "hush" not in str(outcome.error)
    if status in (429, 503):
        assert outcome.error is not None
        assert outcome.error.retry_after == 9.0


@pytest.mark.parametrize("broken", [HANG, GONE], ids=["silent", "gone"])
async def test_a_broken_connection_is_transient_and_the_next_try_has_the_same_key(
    sink: OneSignalSink, api: Service, broken: Reply
) -> None:
    api.respond(broken, json_reply({"id": "n-1"}))
    first, second = await one(sink), await one(sink)
    assert first.result is FAILED
    assert isinstance(first.error, TransientError)
    assert second.result is ACCEPTED
    bodies = [request.content for request in api.requests]
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("answer", [HALF_A_BODY, GARBAGE], ids=["half", "garbage"])
async def test_half_an_answer_is_transient(answer: bytes) -> None:
    async with serving_bytes(saying(answer)) as port:
        sink = OneSignalSink(app_id=APP, api_key=API_KEY, api_url=f"http://127.0.0.1:{port}", timeout=5)
        outcome = await one(sink)
        await sink.aclose()
    assert outcome.result is FAILED
    assert isinstance(outcome.error, TransientError)


async def test_a_closed_port_is_transient() -> None:
    with closed_port() as port:
        sink = OneSignalSink(app_id=APP, api_key=API_KEY, api_url=f"http://127.0.0.1:{port}")
        outcome = await one(sink)
        await sink.aclose()
    assert outcome.result is FAILED
    assert isinstance(outcome.error, TransientError)


async def test_a_rejected_push_stops_its_lane_and_no_other(sink: OneSignalSink, api: Service) -> None:
    api.respond(Reply(400), NOBODY, json_reply({"id": "n"}))
    outcomes = await sink.send([record("a"), record("a"), SinkRecord("a", ("d",)), record("b")])
    assert [o.result for o in outcomes] == [REJECTED, UNSENT, UNSENT, ACCEPTED]
    assert len(api.requests) == 3
    control = api.requests[1].json()
    assert control.pop("app_id") == APP
    assert control == CONTROL


OWN = b'{"errors": ["Notification content must not be null for any languages."]}'


@pytest.mark.parametrize("body", [b"<html>Bad Request</html>", b'{"errors": ["no"]}', b"", OWN])
async def test_a_service_that_refuses_everything_has_an_outage_whatever_its_answer(
    sink: OneSignalSink, api: Service, body: bytes
) -> None:
    """A single refusal with OneSignal's error about the push counts; that of a second lane does not."""
    api.respond(Reply(400, body))
    first, second, third = [(await sink.send([record(lane)]))[0] for lane in ("a", "b", "a")]
    assert first.result is (REJECTED if body == OWN else FAILED)
    for outcome in (second, third):
        assert outcome.result is FAILED
        assert isinstance(outcome.error, TransientError)
        assert "refuses whatever it is sent" in str(outcome.error)
        assert outcome.receipts == []
    api.respond(json_reply({"id": "n"}))
    assert (await one(sink)).result is ACCEPTED
    api.respond(Reply(400, OWN))
    assert (await one(sink)).result is REJECTED


async def test_nothing_is_sent_after_the_service_failed(sink: OneSignalSink, api: Service) -> None:
    api.respond(Reply(503))
    outcomes = await sink.send([record("a"), record("b"), SinkRecord("c", ("d",))])
    assert [o.result for o in outcomes] == [FAILED, UNSENT, ACCEPTED]
    assert len(api.requests) == 1


async def test_receipts_without_a_push_are_written_without_a_post(sink: OneSignalSink, api: Service) -> None:
    nobody = {**ROW, "status": "no_recipients", "provider_id": None, "error": None}
    expired = {**ROW, "status": "expired", "provider_id": None, "error": None}
    unknown = PermanentError("unknown event 'x'")
    outcomes = await sink.send(
        [
            SinkRecord("a", ("d1",), receipts=(nobody,)),
            SinkRecord("a", ("d2",), receipts=(expired,), expired=True),
            SinkRecord("a", ("d3",), error=unknown),
            SinkRecord("a", ("d4",)),
        ]
    )
    assert outcomes == [
        Outcome(ACCEPTED, receipts=[nobody]),
        Outcome(ACCEPTED, receipts=[expired]),
        Outcome(REJECTED, unknown),
        Outcome(UNSENT),
    ]
    assert api.requests == []


async def test_an_event_for_pusher_is_an_error_of_the_program(sink: OneSignalSink) -> None:
    with pytest.raises(TypeError):
        await sink.send([SinkRecord("a", ("d",), (PusherEvent("c", "n", "{}"),))])


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": "hush\n"},
        {"api_key": "húsh"},
        {"api_url": "api.onesignal.com"},
        {"api_url": "ftp://api.onesignal.com"},
        {"api_url": "https://"},
        {"api_url": "https://a:port"},
    ],
)
def test_impossible_settings_are_named_and_not_quoted(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="ONESIGNAL_API_") as caught:
        OneSignalSink(**{"app_id": APP, "api_key": API_KEY, **wrong})
    assert "hush" not in str(caught.value)


async def test_neither_key_nor_text_is_logged(
    sink: OneSignalSink, api: Service, caplog: pytest.LogCaptureFixture
) -> None:
    api.respond(json_reply({"errors": ["hush"]}, 400))
    with caplog.at_level(logging.DEBUG):
        await one(sink, text="hush")
    assert "hush" not in caplog.text
