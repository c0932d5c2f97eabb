"""Pusher Channels: batches of up to 10 events, signed by the `pusher` package, sent over one pool.

The package only signs. Its transports block, or open a connection for each call, so `backend=` is `_Backend`. Its size
check is bypassed (`already_encoded`): it measures Python objects and refuses events of 10,192 to 10,240 bytes, which
Pusher accepts; routing cuts texts to fit. A single event is sent as a batch of one, so that there is one code path.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pusher  # type: ignore[import-untyped]

from gre_bridge.db.http import Answer, Pool, Transport
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError
from gre_bridge.sinks.base import Outcome, PusherEvent, Result, SinkRecord
from gre_bridge.sinks.http_errors import (
    EventRefused,
    RefusalHistory,
    failure,
    json_object,
    refuses_all,
    unreadable,
)

MAX_BATCH = 10
"""Events in one call of `batch_events` (Pusher's documentation)."""

_SERVICE = "Pusher"
_WHERE = "PUSHER_KEY, PUSHER_SECRET and that PUSHER_CLUSTER (or PUSHER_HOST) is the app's"
_HOST = re.compile(r"[-\w.]+|\[[0-9a-fA-F:.]+\]")
_CREDENTIALS = re.compile(
    rb"(Unknown (auth_key|app_id)|Invalid (signature|auth_|body_md5)|Timestamp expired|Version required|App\b.*disabled)",
    re.IGNORECASE,
)
"""Begin of a 400 of Pusher that refuses the credentials: an unknown key, or a key of another cluster, is no 401."""
_EVENT = re.compile(
    rb"The data content of this event|Invalid (channel|event)|Event name too long|Too many channels",
    re.IGNORECASE,
)
"""Begin of a 400 or 413 of Pusher that refuses the event itself."""
CONTROL = PusherEvent("private-gre-bridge-check", "check", "")
"""Channel and name of a control event: a private channel that nobody may subscribe to."""
CONTROL_SIZE = 1024
"""Largest data of a control event in bytes. It is as large as the refused event: a proxy may refuse by size."""
_Item = tuple[int, PusherEvent]
"""An event and the index of its record."""
_Post = Callable[[Sequence[PusherEvent]], Awaitable[BridgeError | None]]


class PusherSink:
    """Sends events to Pusher's HTTP API. See `gre_bridge.sinks.base.Sink`."""

    name = "pusher"
    batch_size = MAX_BATCH

    def __init__(
        self,
        *,
        app_id: str,
        key: str,
        secret: str,
        cluster: str | None = None,
        host: str | None = None,
        port: int | None = None,
        ssl: bool = True,
        concurrency: int = 4,
        timeout: float = 10.0,
        transport: Transport | None = None,
    ) -> None:
        """`timeout`: seconds for a request as a whole; `host` wins over `cluster`.

        Raises ConfigurationError for an app id that is no number and for a host that is a URL.
        """
        if host and not _HOST.fullmatch(host):
            raise ConfigurationError("PUSHER_HOST is a host's name or address, without scheme, port and path")
        self.concurrency = concurrency
        self._refusals = RefusalHistory()
        self._transport = transport or Pool(service=_SERVICE, connections=concurrency, timeout=timeout)
        try:
            self._client = pusher.Pusher(
                app_id=app_id,
                key=key,
                secret=secret,
                cluster=cluster,
                host=host,
                port=port,
                ssl=ssl,
                backend=_Backend,
                transport=self._transport,
            )
        except (TypeError, ValueError) as exc:
            raise ConfigurationError(f"the PUSHER_ variables cannot be used: {exc}") from exc

    async def send(self, records: Sequence[SinkRecord]) -> list[Outcome]:
        """See `gre_bridge.sinks.base.Sink.send`. A record is accepted only if all of its events were."""
        return await _Sending(records, self._post, self._control, self._refusals).run()

    async def _control(self, refused: PusherEvent) -> BridgeError | None:
        """Send a control event; return the error of a service that refuses everything, or None."""
        size = min(len(refused.data), CONTROL_SIZE)
        data = '{"check":"' + "x" * (size - 12) + '"}'
        error = await self._post([PusherEvent(CONTROL.channel, CONTROL.name, data)])
        return refuses_all(_SERVICE, error) if error else None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _post(self, events: Sequence[PusherEvent]) -> BridgeError | None:
        # A new list for each attempt: the package keeps it, and the signature contains the time.
        batch = [{"channel": e.channel, "name": e.name, "data": e.data} for e in events]
        try:
            answer: Answer = await self._client.trigger_batch(batch, already_encoded=True)
        except BridgeError as exc:
            return exc
        if not 200 <= answer.status < 300:
            if answer.status == 400 and (found := _CREDENTIALS.match(answer.body.lstrip())):
                words = found[1].decode("ascii", "replace")
                return ConfigurationError(
                    f"{_SERVICE} answered HTTP 400 ({words}): check {_WHERE}", code="400"
                )
            error = failure(
                _SERVICE,
                answer,
                credentials="PUSHER_APP_ID, PUSHER_KEY, PUSHER_SECRET, the app's quota and the clock here",
                address="PUSHER_APP_ID and PUSHER_HOST or PUSHER_CLUSTER",
            )
            if isinstance(error, PermanentError) and _EVENT.match(answer.body.lstrip()):
                return EventRefused(str(error), code=error.code)
            return error
        return unreadable(_SERVICE, answer) if json_object(answer.body) is None else None


class _Backend:
    """The package calls this with a signed request, and returns the awaitable to its caller."""

    def __init__(self, _client: object, *, transport: Transport) -> None:
        self._transport = transport

    def send_request(self, request: Any) -> Awaitable[Answer]:
        return self._transport.request(request.method, request.url, request.headers, request.body)


class _Sending:
    """The state of one call of `send`: events left of each record, and the lanes that have stopped, with the reason."""

    def __init__(
        self,
        records: Sequence[SinkRecord],
        post: _Post,
        control: Callable[[PusherEvent], Awaitable[BridgeError | None]],
        refusals: RefusalHistory,
    ) -> None:
        self._refusals = refusals
        self._records = records
        self._post = post
        self._control = control
        self._takes = False
        """True once the service accepted something in this call."""
        self._left = [len(record.payloads) for record in records]
        self._errors: dict[int, BridgeError] = {}
        self._stopped = set[str]()
        self._down = False

    async def run(self) -> list[Outcome]:
        items: list[_Item] = []
        barred = set[str]()
        for index, record in enumerate(self._records):
            if record.error is not None:
                barred.add(record.lane_key)
            elif record.lane_key not in barred:
                items += [(index, event) for event in record.payloads if isinstance(event, PusherEvent)]
        for start in range(0, len(items), MAX_BATCH):
            await self._deliver(items[start : start + MAX_BATCH])
        return self._outcomes()

    async def _deliver(self, items: list[_Item]) -> None:
        items = [item for item in items if self._lane(item) not in self._stopped]
        if not items or self._down:
            return
        error = await self._post([event for _, event in items])
        alone = len(items) == 1 and not self._takes
        if (
            alone
            and isinstance(error, PermanentError)
            and not self._refusals.blames_record(self._lane(items[0]), error)
        ):
            error = await self._control(items[0][1]) or error
            self._takes = isinstance(error, PermanentError)
        if error is None:
            self._takes = True
            self._refusals.clear()
            for index, _ in items:
                self._left[index] -= 1
        elif not isinstance(error, PermanentError):
            self._down = True
            self._stop(items, error)
        elif len(items) == 1:
            self._stop(items, error)
        else:
            # The first half first, so that the events of a lane stay in order around the refused one.
            middle = len(items) // 2
            await self._deliver(items[:middle])
            await self._deliver(items[middle:])

    def _stop(self, items: list[_Item], error: BridgeError) -> None:
        for item in items:
            if self._lane(item) not in self._stopped:
                self._stopped.add(self._lane(item))
                self._errors[item[0]] = error

    def _lane(self, item: _Item) -> str:
        return self._records[item[0]].lane_key

    def _outcomes(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        stopped = set[str]()
        for index, record in enumerate(self._records):
            outcome = Outcome(Result.UNSENT)
            if record.lane_key not in stopped:
                if ready := record.outcome_without_request():
                    outcome = ready
                elif error := self._errors.get(index):
                    rejected = isinstance(error, PermanentError)
                    outcome = Outcome(Result.REJECTED if rejected else Result.FAILED, error)
                elif not self._left[index]:
                    outcome = Outcome(Result.ACCEPTED)
            if outcome.result is not Result.ACCEPTED:
                stopped.add(record.lane_key)
            outcomes.append(outcome)
        return outcomes
