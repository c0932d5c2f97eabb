"""Probes Pusher and OneSignal with one authenticated GET each, which changes nothing.

No finding quotes the body of an answer: it may contain messages.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import pusher as pusher_package  # type: ignore[import-untyped]

from gre_bridge.config.settings import Settings
from gre_bridge.db.http import Answer, Pool
from gre_bridge.doctor.probes.supabase import diagnose_connectivity
from gre_bridge.doctor.report import Finding, failed, ok, skipped, warn
from gre_bridge.errors import BridgeError

PUSHER, PUSHER_CLOCK, CHANNELS, ONESIGNAL = "Pusher", "clock and Pusher", "Pusher's channels", "OneSignal"
SKEW_WARN, SKEW_REFUSED = 60.0, 600.0
"""Seconds; Pusher rejects calls beyond SKEW_REFUSED (its documentation)."""
_NTP = "let NTP set this machine's clock (timedatectl set-ntp true)"


async def probe_pusher(settings: Settings) -> list[Finding]:
    """Check the credentials with a signed GET of the app's channels, the clock, and the names of the channels."""
    if not (settings.pusher_app_id and settings.pusher_key and settings.pusher_secret):
        return [skipped(PUSHER, "no credentials: the sink is off")]
    pool = Pool(service="Pusher", connections=1, timeout=settings.send_timeout)
    requested_url = ""

    class Backend:
        """Transport of Pusher's package: sends its signed request through our pool."""

        def __init__(self, _client: object) -> None:
            pass

        def send_request(self, request: Any) -> Awaitable[Answer]:
            nonlocal requested_url
            requested_url = request.url
            return pool.request(request.method, request.url, request.headers, request.body)

    client = pusher_package.Pusher(
        app_id=settings.pusher_app_id,
        key=settings.pusher_key,
        secret=settings.pusher_secret.get_secret_value(),
        cluster=settings.pusher_cluster,
        host=settings.pusher_host,
        port=settings.pusher_port,
        ssl=settings.pusher_ssl,
        backend=Backend,
    )
    before = time.time()
    try:
        # No channel has this prefix, so the answer is short whatever the app's channels.
        answer: Answer = await client.channels_info(prefix_filter="private-gre-bridge-doctor-")
    except BridgeError as error:
        variable = "PUSHER_HOST and PUSHER_PORT" if settings.pusher_host else "PUSHER_CLUSTER"
        return [
            await diagnose_connectivity(PUSHER, requested_url, variable, error),
            *check_channels(settings),
        ]
    finally:
        await pool.aclose()
    ahead = skew(answer.headers, before, time.time())
    found = [judge_pusher(answer.status, ahead)]
    if ahead is not None:
        found.append(judge_skew(ahead))
    return [*found, *check_channels(settings)]


def skew(headers: Mapping[str, str], before: float, after: float) -> float | None:
    """Return by how many seconds this clock is ahead of the server's `Date` header, or None if there is none.

    `before` and `after` are Unix seconds around the call.
    """
    try:
        # `Date` is truncated to whole seconds.
        theirs = parsedate_to_datetime(headers["date"]).timestamp() + 0.5
    except (KeyError, ValueError):
        return None
    ours = (before + after) / 2
    return 0.0 if abs(ours - theirs) <= 1 else ours - theirs


def judge_skew(ahead: float) -> Finding:
    """Judge the clock: Pusher's signatures contain the time. `ahead` is in seconds."""
    if abs(ahead) <= SKEW_WARN:
        return ok(PUSHER_CLOCK, f"within {max(1, round(abs(ahead)))} s of each other")
    found = f"this clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} Pusher's"
    if abs(ahead) > SKEW_REFUSED:
        return failed(PUSHER_CLOCK, f"{found}: Pusher refuses every call", _NTP)
    return warn(PUSHER_CLOCK, f"{found}: from {SKEW_REFUSED:.0f} s on Pusher refuses every call", _NTP)


def judge_pusher(status: int, ahead: float | None) -> Finding:
    """Judge the credentials by the HTTP status of the answer."""
    if 200 <= status < 300:
        return ok(PUSHER, "accepts the credentials")
    if status == 401 and ahead is not None and abs(ahead) > SKEW_REFUSED:
        return failed(PUSHER, "HTTP 401: the signature's time is too far from Pusher's clock", _NTP)
    found, fix = {
        400: ("Pusher does not know the key at this address", "check PUSHER_KEY, and that PUSHER_CLUSTER (or PUSHER_HOST) is the app's"),
        401: ("Pusher refused the key or the signature", "check PUSHER_KEY and PUSHER_SECRET (App Keys in Pusher's dashboard)"),
        403: ("the app is disabled or over its quota", "check the app in Pusher's dashboard"),
        404: ("this address has no such app", "check PUSHER_APP_ID and PUSHER_CLUSTER (or PUSHER_HOST)"),
    }.get(status, ("an unexpected answer", "check PUSHER_CLUSTER or PUSHER_HOST, and Pusher's status page"))  # fmt: skip
    return failed(PUSHER, f"HTTP {status}: {found}", fix)


def check_channels(settings: Settings) -> list[Finding]:
    """Report public channels: anybody with the app key, which every page contains, can subscribe to them."""
    found = []
    for variable, names in settings.pusher_channels.items():
        public = [name for name in names if not name.startswith(("private-", "presence-"))]
        if not public:
            continue
        private = ",".join(dict.fromkeys(n if n not in public else f"private-{n}" for n in names))
        both = ",".join(dict.fromkeys((*names, *private.split(","))))
        found.append(
            warn(
                CHANNELS,
                f"{', '.join(public)} is public: anybody with the app key, which every page contains, can listen",
                f"let pages subscribe to private- channels (POST /api/pusher/auth signs them): first {variable}={both}, then {private}",
            )
        )
    return found or [ok(CHANNELS, "all private")]


async def probe_onesignal(settings: Settings) -> list[Finding]:
    """Check the credentials with a GET of the newest notification (OneSignal's documentation, "View messages")."""
    if not (settings.onesignal_app_id and settings.onesignal_api_key):
        return [skipped(ONESIGNAL, "no credentials: the sink is off")]
    key = settings.onesignal_api_key.get_secret_value()
    pool = Pool(service="OneSignal", connections=1, timeout=settings.send_timeout)
    url = f"{settings.onesignal_api_url}/notifications?app_id={settings.onesignal_app_id}&limit=1"
    try:
        answer = await pool.request(
            "GET", url, {"Authorization": f"Key {key}", "Accept": "application/json"}, b""
        )
    except BridgeError as error:
        return [await diagnose_connectivity(ONESIGNAL, url, "ONESIGNAL_API_URL", error)]
    finally:
        await pool.aclose()
    return [judge_onesignal(answer.status)]


def judge_onesignal(status: int) -> Finding:
    """Judge the credentials by the HTTP status of the answer."""
    if 200 <= status < 300:
        return ok(ONESIGNAL, "accepts the credentials")
    if status == 429:
        return warn(
            ONESIGNAL,
            "HTTP 429: too many requests",
            "try again in a minute; the worker slows down by itself",
        )
    keys = "check that ONESIGNAL_API_KEY is an App API key (not an organization's) of the app ONESIGNAL_APP_ID, and its IP allowlist"
    found, fix = {
        400: ("OneSignal does not know the app, or the key is of another app", keys),
        401: ("OneSignal refused the key", keys),
        403: ("OneSignal refused the key", keys),
        404: ("this address has no such app", "check ONESIGNAL_APP_ID and ONESIGNAL_API_URL"),
    }.get(status, ("an unexpected answer", "check ONESIGNAL_API_URL, and OneSignal's status page"))
    return failed(ONESIGNAL, f"HTTP {status}: {found}", fix)
