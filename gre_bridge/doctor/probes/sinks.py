"""Pusher and OneSignal: do they take the credentials? One harmless, authenticated GET each.

Nothing is sent and no answer's text is repeated: it may hold messages.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import pusher as pusher_package  # type: ignore[import-untyped]

from gre_bridge.config.settings import Settings
from gre_bridge.db.http import Answer, Pool
from gre_bridge.doctor.probes.supabase import where_it_ends
from gre_bridge.doctor.report import Finding, failed, ok, skipped, warn
from gre_bridge.errors import BridgeError

PUSHER, PUSHER_CLOCK, CHANNELS, ONESIGNAL = "Pusher", "clock and Pusher", "Pusher's channels", "OneSignal"
SKEW_WARN, SKEW_REFUSED = 60.0, 600.0
"""Seconds; from the second on Pusher refuses every call (its documentation)."""
_NTP = "let NTP set this machine's clock (timedatectl set-ntp true)"


async def pusher(settings: Settings) -> list[Finding]:
    """Credentials, by a signed GET of the app's channels; the clock; and which channels anybody may hear."""
    if not (settings.pusher_app_id and settings.pusher_key and settings.pusher_secret):
        return [skipped(PUSHER, "no credentials: the sink is off")]
    pool = Pool(service="Pusher", connections=1, timeout=settings.send_timeout)
    asked = ""

    class Backend:
        """Takes the signed request from Pusher's package."""

        def __init__(self, _client: object) -> None:
            pass

        def send_request(self, request: Any) -> Awaitable[Answer]:
            nonlocal asked
            asked = request.url
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
        # A prefix that no channel has: an app may have more channels than an answer should list.
        answer: Answer = await client.channels_info(prefix_filter="private-gre-bridge-doctor-")
    except BridgeError as error:
        variable = "PUSHER_HOST and PUSHER_PORT" if settings.pusher_host else "PUSHER_CLUSTER"
        return [await where_it_ends(PUSHER, asked, variable, error), *channels(settings)]
    finally:
        await pool.aclose()
    ahead = skew(answer.headers, before, time.time())
    found = [judge_pusher(answer.status, ahead)]
    if ahead is not None:
        found.append(judge_skew(ahead))
    return [*found, *channels(settings)]


def skew(headers: Mapping[str, str], before: float, after: float) -> float | None:
    """By how many seconds this clock is ahead of the server's `Date`; None when it gives none."""
    try:
        # `Date` is cut to whole seconds.
        theirs = parsedate_to_datetime(headers["date"]).timestamp() + 0.5
    except (KeyError, ValueError):
        return None
    ours = (before + after) / 2
    return 0.0 if abs(ours - theirs) <= 1 else ours - theirs


def judge_skew(ahead: float) -> Finding:
    """Whether Pusher will go on taking our signatures; they hold the time."""
    if abs(ahead) <= SKEW_WARN:
        return ok(PUSHER_CLOCK, f"within {max(1, round(abs(ahead)))} s of each other")
    told = f"this clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} Pusher's"
    if abs(ahead) > SKEW_REFUSED:
        return failed(PUSHER_CLOCK, f"{told}: it refuses every call", _NTP)
    return warn(PUSHER_CLOCK, f"{told}: from {SKEW_REFUSED:.0f} s on it refuses every call", _NTP)


def judge_pusher(status: int, ahead: float | None) -> Finding:
    """What the answer says of the credentials."""
    if 200 <= status < 300:
        return ok(PUSHER, "takes the credentials")
    if status == 401 and ahead is not None and abs(ahead) > SKEW_REFUSED:
        return failed(PUSHER, "HTTP 401: the signature's time is too far from Pusher's clock", _NTP)
    found, fix = {
        400: ("it does not know the key here", "check PUSHER_KEY, and that PUSHER_CLUSTER (or PUSHER_HOST) is the app's"),
        401: ("it refused the key or the signature", "check PUSHER_KEY and PUSHER_SECRET (App Keys in Pusher's dashboard)"),
        403: ("the app is disabled or over its quota", "look at the app in Pusher's dashboard"),
        404: ("there is no such app at this address", "check PUSHER_APP_ID and PUSHER_CLUSTER (or PUSHER_HOST)"),
    }.get(status, ("not an answer to be expected", "check PUSHER_CLUSTER or PUSHER_HOST, and Pusher's status page"))  # fmt: skip
    return failed(PUSHER, f"HTTP {status}: {found}", fix)


def channels(settings: Settings) -> list[Finding]:
    """Channels that anybody may hear who has the app key, which every page shows."""
    lists = {
        "GRE_PUSHER_PLAYER_CHANNELS": settings.pusher_player_channels,
        "GRE_PUSHER_STAFF_CHANNELS": settings.pusher_staff_channels,
        "GRE_PUSHER_SESSION_CHANNELS": settings.pusher_session_channels,
        "GRE_PUSHER_READ_CHANNELS": settings.pusher_read_channels,
    }
    found = []
    for variable, names in lists.items():
        public = [name for name in names if not name.startswith(("private-", "presence-"))]
        if not public:
            continue
        private = ",".join(dict.fromkeys(n if n not in public else f"private-{n}" for n in names))
        both = ",".join(dict.fromkeys((*names, *private.split(","))))
        found.append(
            warn(
                CHANNELS,
                f"{', '.join(public)} is public: whoever has the app key, which every page shows, can listen",
                f"let pages subscribe to private- channels (POST /api/pusher/auth signs them), meanwhile {variable}={both}, then {private}",
            )
        )
    return found or [ok(CHANNELS, "all private")]


async def onesignal(settings: Settings) -> list[Finding]:
    """Credentials, by a GET of the newest notification's record (OneSignal's documentation, "View messages")."""
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
        return [await where_it_ends(ONESIGNAL, url, "ONESIGNAL_API_URL", error)]
    finally:
        await pool.aclose()
    return [judge_onesignal(answer.status)]


def judge_onesignal(status: int) -> Finding:
    """What the answer says of the credentials."""
    if 200 <= status < 300:
        return ok(ONESIGNAL, "takes the credentials")
    if status == 429:
        return warn(
            ONESIGNAL,
            "HTTP 429: too many requests just now",
            "try again in a minute; the worker slows down by itself",
        )
    keys = "check that ONESIGNAL_API_KEY is an App API key (not an organization's) of the app ONESIGNAL_APP_ID, and its IP allowlist"
    found, fix = {
        400: ("it does not know the app, or the key is not the app's", keys),
        401: ("it refused the key", keys),
        403: ("it refused the key", keys),
        404: ("there is no such app at this address", "check ONESIGNAL_APP_ID and ONESIGNAL_API_URL"),
    }.get(status, ("not an answer to be expected", "check ONESIGNAL_API_URL, and OneSignal's status page"))
    return failed(ONESIGNAL, f"HTTP {status}: {found}", fix)
