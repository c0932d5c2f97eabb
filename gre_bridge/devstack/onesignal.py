"""OneSignal: `POST …/notifications` for push messages to external ids, with the answers that its docs list.

`GET …/notifications` answers an empty page, to those who have the key. Nobody is really pushed to. By default everybody is subscribed; a test may say who is. Segments,
subscription ids, templates and every other endpoint are refused with 501.
"""

from __future__ import annotations

import hmac
import uuid
from collections import OrderedDict
from typing import Any
from urllib.parse import parse_qsl

import orjson

from gre_bridge.devstack.faults import Receive, Received, Scope, Send, answer, read_body

MAX_ALIASES = 20_000
MAX_COLLAPSE_ID = 64
_REMEMBERED = 50_000
_NO_APP = "app_id not found. You may be missing a Content-Type: application/json header."
_NO_KEY = str(uuid.UUID(int=0))
_LEFT_OUT = (
    "included_segments",
    "include_subscription_ids",
    "include_player_ids",
    "template_id",
    "send_after",
)


class RefusedError(Exception):
    """A request that OneSignal would refuse: the status, and the one text of its `errors`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class OneSignal:
    """The ASGI application for {prefix}/notifications."""

    def __init__(self, *, app_id: str, api_key: str, received: Received) -> None:
        self._app_id = app_id
        self._api_key = api_key
        self._received = received
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.subscribers: set[str] | None = None
        """The external ids that are subscribed to push; None means everybody."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = await read_body(receive)
        if scope["method"] == "GET" and scope["path"].endswith("/notifications"):
            await self._view(scope, send)
            return
        try:
            result, replayed = self._notify(scope, body)
        except RefusedError as refusal:
            self.refused(refusal.status, body)
            await answer(send, refusal.status, {"errors": [refusal.text]})
        else:
            await answer(send, 200, result, [("idempotent-replayed", "true")] if replayed else [])

    async def _view(self, scope: Scope, send: Send) -> None:
        """Answer "View messages" with an empty page: nothing that was sent is kept here."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        limit = min(int(query.get("limit", "50")), 50)
        page = {"total_count": 0, "offset": 0, "limit": limit, "notifications": []}
        try:
            self._authorize(dict(scope["headers"]))
        except RefusedError as refusal:
            await answer(send, refusal.status, {"errors": [refusal.text]})
        else:
            known = query.get("app_id") == self._app_id
            await answer(send, 200 if known else 400, page if known else {"errors": [_NO_APP]})

    def _authorize(self, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, f"Key {self._api_key}".encode()):
            raise RefusedError(
                403, "Access denied.  Please include an 'Authorization: ...' header with a valid API key."
            )

    def refused(self, status: int, body: bytes) -> None:
        """Record a request that was not carried out."""
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            content = None
        self._received.record(status, [{"body": content}], len(body))

    def _notify(self, scope: Scope, body: bytes) -> tuple[dict[str, Any], bool]:
        if scope["method"] != "POST" or not scope["path"].endswith("/notifications"):
            raise RefusedError(501, "not offered by the embedded stack")
        headers = dict(scope["headers"])
        self._authorize(headers)
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            content = None
        if not isinstance(content, dict) or not headers.get(b"content-type", b"").startswith(
            b"application/json"
        ):
            raise RefusedError(400, _NO_APP)
        wanted = self._validate(content)
        key = content.get("idempotency_key") or content.get("external_id")
        if key and key in self._answers:
            result = self._answers[key]
            self._record(content, result, len(body), replayed=True)
            return result, True
        result = self._deliver(wanted, key)
        self._record(content, result, len(body), replayed=False)
        return result, False

    def _validate(self, content: dict[str, Any]) -> list[str] | None:
        """The external ids addressed, None for filters."""
        if content.get("app_id") != self._app_id:
            raise RefusedError(400, _NO_APP)
        if left_out := [name for name in _LEFT_OUT if name in content]:
            raise RefusedError(501, f"{left_out[0]} is not offered by the embedded stack")
        contents = content.get("contents")
        if not isinstance(contents, dict) or not contents.get("en"):
            raise RefusedError(400, "Message Notifications must have English language content")
        if len(str(content.get("collapse_id") or "")) > MAX_COLLAPSE_ID:
            raise RefusedError(400, f"collapse_id must be at most {MAX_COLLAPSE_ID} characters")
        if not isinstance(content.get("ttl", 0), int):
            raise RefusedError(400, "ttl must be an integer")
        _check_key(content.get("idempotency_key") or content.get("external_id"))
        if len([name for name in ("include_aliases", "filters") if content.get(name)]) != 1:
            raise RefusedError(
                400,
                "You must include which players, segments, or tags you wish to send this notification to.",
            )
        return None if content.get("filters") else _recipients(content)

    def _deliver(self, wanted: list[str] | None, key: str | None) -> dict[str, Any]:
        unknown = (
            [] if self.subscribers is None else [one for one in wanted or () if one not in self.subscribers]
        )
        nobody = self.subscribers == set() if wanted is None else len(unknown) == len(wanted)
        if nobody:
            return {"id": "", "external_id": None, "errors": ["All included players are not subscribed"]}
        result: dict[str, Any] = {"id": str(uuid.uuid4()), "external_id": key}
        if unknown:
            result["errors"] = {"invalid_aliases": {"external_id": unknown}}
        if key:
            self._answers[key] = result
            if len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        return result

    def _record(self, content: dict[str, Any], result: dict[str, Any], size: int, *, replayed: bool) -> None:
        item = {"id": result["id"], "replayed": replayed, "errors": result.get("errors"), "body": content}
        self._received.record(200, [item], size)


def _check_key(key: Any) -> None:
    try:
        uuid.UUID(key or _NO_KEY)
    except (ValueError, AttributeError, TypeError):
        raise RefusedError(400, "idempotency_key must be a valid UUID") from None


def _recipients(content: dict[str, Any]) -> list[str]:
    aliases = content["include_aliases"]
    if content.get("target_channel") != "push":
        raise RefusedError(400, "target_channel must be push when include_aliases is used")
    if not isinstance(aliases, dict) or list(aliases) != ["external_id"]:
        raise RefusedError(501, "aliases other than external_id are not offered by the embedded stack")
    wanted = aliases["external_id"]
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise RefusedError(400, "include_aliases must be an object of lists of strings")
    if len(wanted) > MAX_ALIASES:
        raise RefusedError(400, f"include_aliases must not have more than {MAX_ALIASES} entries")
    return wanted
