"""OneSignal: one POST for each push through a pooled client, and a receipt with its result.

OneSignal's own packages are not used: one calls a retired address and fails on an HTML error page, the other blocks and
has no time-out. The text of an answer is compared with known sentences and never repeated: OneSignal may echo its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from yarl import URL

from gre_bridge.db.http import Answer, Pool, Transport
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError
from gre_bridge.sinks.base import Outcome, Push, PushStatus, Result, SinkRecord, receipt
from gre_bridge.sinks.http_errors import (
    EventRefused,
    RefusalHistory,
    failure,
    json_object,
    refuses_all,
    unreadable,
)

_SERVICE = "OneSignal"
_KNOWN = frozenset(
    {
        "You must include which players, segments, or tags you wish to send this notification to.",
        "Notification content must not be null for any languages.",
        "Message Notifications must have English language content",
        "Message Notifications must have Any/English language content",
    }
)
"""Sentences of OneSignal's 400 that may be quoted (its documentation and its packages' error catalog)."""
_NOBODY = "All included players are not subscribed"
CONTROL: dict[str, Any] = {
    "target_channel": "push",
    "include_aliases": {"external_id": ["gre-bridge-check"]},
    "contents": {"en": "Check"},
    # The fields of a message's push, empty, for whoever reads the record of what was sent.
    "data": {"type": "check", "message_id": None, "session_id": None, "seq": 0},
}
"""A valid push to an external id that nobody has: OneSignal answers that it reached nobody."""


class OneSignalSink:
    """Sends pushes to OneSignal's notifications API. See `gre_bridge.sinks.base.Sink`."""

    name = "onesignal"
    batch_size = 1

    def __init__(
        self,
        *,
        app_id: str,
        api_key: str,
        api_url: str = "https://api.onesignal.com",
        concurrency: int = 8,
        timeout: float = 10.0,
        transport: Transport | None = None,
    ) -> None:
        """`timeout`: seconds for a request as a whole; `/notifications` is added to `api_url`.

        Raises ConfigurationError for an address that is no http(s) URL and for a key that no header can
        hold (it would otherwise turn up in the client's error).
        """
        if not (api_key.isascii() and api_key.isprintable()):
            raise ConfigurationError("ONESIGNAL_API_KEY has characters that no key has")
        try:
            url = URL(f"{api_url.rstrip('/')}/notifications")
        except ValueError:
            url = URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigurationError("ONESIGNAL_API_URL is no http(s) URL")
        self.concurrency = concurrency
        self._refusals = RefusalHistory()
        self._app_id = app_id
        self._url = url
        self._headers = {
            "Authorization": f"Key {api_key}",
            "Content-Type": "application/json; charset=utf-8",
            "Accept": "application/json",
        }
        self._transport = transport or Pool(service=_SERVICE, connections=concurrency, timeout=timeout)

    async def send(self, records: Sequence[SinkRecord]) -> list[Outcome]:
        """See `gre_bridge.sinks.base.Sink.send`."""
        outcomes: list[Outcome] = []
        stopped = set[str]()
        down = False
        for record in records:
            outcome = Outcome(Result.UNSENT)
            if record.lane_key not in stopped:
                if ready := record.outcome_without_request():
                    outcome = ready
                elif not down:
                    outcome = await self._send(record)
                    down = outcome.result is Result.FAILED
            if outcome.result is not Result.ACCEPTED:
                stopped.add(record.lane_key)
            outcomes.append(outcome)
        return outcomes

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _send(self, record: SinkRecord) -> Outcome:
        receipts: list[dict[str, Any]] = []
        for push in record.payloads:
            if not isinstance(push, Push):
                raise TypeError("OneSignal is sent pushes, nothing else")
            error, written = await self._post(push)
            receipts += written
            if error is None:
                self._refusals.clear()
                continue
            if not isinstance(error, PermanentError):
                return Outcome(Result.FAILED, error, receipts)
            if not self._refusals.blames_record(record.lane_key, error) and (outage := await self._control()):
                return Outcome(Result.FAILED, outage, receipts)
            receipts.append(receipt(push.row, "failed", error=str(error)))
            return Outcome(Result.REJECTED, error, receipts)
        return Outcome(Result.ACCEPTED, receipts=receipts)

    async def _control(self) -> BridgeError | None:
        """Send a control push; return the error of a service that refuses everything, or None."""
        content = orjson.dumps({"app_id": self._app_id, **CONTROL})
        try:
            answer = await self._transport.request("POST", self._url, self._headers, content)
        except BridgeError as exc:
            return exc
        body = json_object(answer.body)
        if body is not None and (200 <= answer.status < 300 or _NOBODY in str(body.get("errors"))):
            return None
        return refuses_all(
            _SERVICE, unreadable(_SERVICE, answer) if answer.status < 300 else _refusal(answer)
        )

    async def _post(self, push: Push) -> tuple[BridgeError | None, list[dict[str, Any]]]:
        content = orjson.dumps({"app_id": self._app_id, **push.body})
        try:
            answer = await self._transport.request("POST", self._url, self._headers, content)
        except BridgeError as exc:
            return exc, []
        if 200 <= answer.status < 300:
            return _taken(push, answer)
        return _refusal(answer), []


def _taken(push: Push, answer: Answer) -> tuple[BridgeError | None, list[dict[str, Any]]]:
    """Return the receipt for a 2xx: sent, sent to some, or (without an id) to nobody, which no retry changes."""
    body = json_object(answer.body)
    if body is None or not (isinstance(body.get("id"), str) or body.get("errors")):
        return unreadable(_SERVICE, answer), []
    provider_id = (
        str(body.get("id") or "")[:100].replace("\x00", "") or None
    )  # PostgreSQL's text cannot contain NUL
    status: PushStatus = "sent" if provider_id else "no_recipients"
    return None, [receipt(push.row, status, provider_id=provider_id, error=_unknown_recipients(body))]


def _unknown_recipients(body: dict[str, Any]) -> str | None:
    errors = body.get("errors")
    aliases = errors.get("invalid_aliases") if isinstance(errors, dict) else None
    unknown = aliases.get("external_id") if isinstance(aliases, dict) else None
    return f"OneSignal does not know {len(unknown)} of the recipients" if isinstance(unknown, list) else None


def _refusal(answer: Answer) -> BridgeError:
    """Return the error of a refusal. A 400 about the app id is a configuration error; a known reason is repeated."""
    error = failure(
        _SERVICE,
        answer,
        credentials="ONESIGNAL_API_KEY and that it belongs to ONESIGNAL_APP_ID",
        address="ONESIGNAL_API_URL",
    )
    if not isinstance(error, PermanentError):
        return error
    reasons = (json_object(answer.body) or {}).get("errors")
    for reason in reasons if isinstance(reasons, list) else ():
        if isinstance(reason, str) and reason.startswith("app_id "):
            return ConfigurationError(f"{error}: check ONESIGNAL_APP_ID", code=error.code)
        if isinstance(reason, str) and reason in _KNOWN:
            return EventRefused(f"{error}: {reason}", code=error.code)
    return error
