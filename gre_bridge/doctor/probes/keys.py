"""What to think of a Supabase key: its kind, role, project and expiry. Pure; no signature is checked.

The server's verdict on a key is asked elsewhere; this explains it, and finds what the server would accept but
is a mistake all the same (the anon key given as service key).
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from gre_bridge.config.keys import Key, read_key
from gre_bridge.doctor.report import Finding, failed, ok, warn

SERVICE_KEY, ANON_KEY = "service key", "anon key"
EXPIRES_SOON = 30 * 86400.0
_REF = re.compile(r"([a-z0-9]{20})\.supabase\.(?:co|in|red)")
_WHERE = "the project's dashboard, Settings > API keys"


def project_of(url: str) -> str | None:
    """The project's ref, when the address is Supabase's own (a custom domain does not tell)."""
    found = _REF.fullmatch(urlsplit(url).hostname or "")
    return found[1] if found else None


def judge_service_key(value: str, *, url: str, now: float) -> Finding:
    """Whether this can be the worker's key; `now` in Unix seconds."""
    key = read_key(value)
    name = "SUPABASE_SERVICE_KEY"
    if wrong := _unusable(SERVICE_KEY, name, key, url, now):
        return wrong
    if key.role in ("anon", "authenticated"):
        return failed(
            SERVICE_KEY,
            f"this is the {key.role} key: it may not do the worker's work",
            f"set {name} to the service_role (or sb_secret_) key of {_WHERE}",
        )
    if key.role not in ("service_role", "gre_worker"):
        return warn(
            SERVICE_KEY,
            f"a JWT of role {key.role or 'unknown'}",
            f"{name} should be of role service_role or gre_worker",
        )
    if key.kind == "jwt" and "exp" not in key.claims:
        # Realtime answers HTTP 401 "Fields `role` and `exp` are required in JWT"; PostgREST takes it.
        return failed(
            SERVICE_KEY, "a JWT without an expiry: Realtime refuses it", "sign it with the claim exp"
        )
    return _soon(SERVICE_KEY, name, key, now) or ok(SERVICE_KEY, _described(key))


def judge_anon_key(value: str, *, url: str, now: float) -> Finding:
    """Whether this can be the key that browsers may see."""
    key = read_key(value)
    name = "SUPABASE_ANON_KEY"
    if wrong := _unusable(ANON_KEY, name, key, url, now):
        return wrong
    if key.role != "anon":
        return failed(
            ANON_KEY,
            f"a key of role {key.role or 'unknown'} stands where the public key belongs",
            f"set {name} to the anon (or sb_publishable_) key of {_WHERE}",
        )
    return _soon(ANON_KEY, name, key, now) or ok(ANON_KEY, _described(key))


def _unusable(check: str, name: str, key: Key, url: str, now: float) -> Finding | None:
    if key.kind == "unknown":
        return failed(
            check, "neither a JWT nor an sb_… key", f"copy {name} whole, without quotes, from {_WHERE}"
        )
    expires = _number(key.claims.get("exp"))
    if expires is not None and expires < now:
        return failed(
            check,
            f"it expired {_days(now - expires)} ago",
            f"make a new key in {_WHERE}, and restart with it in {name}",
        )
    ref, project = key.claims.get("ref"), project_of(url)
    if ref and project and ref != project:
        return failed(
            check,
            f"it belongs to project {ref}, SUPABASE_URL to {project}",
            f"take {name} and SUPABASE_URL from one project",
        )
    return None


def _soon(check: str, name: str, key: Key, now: float) -> Finding | None:
    expires = _number(key.claims.get("exp"))
    if expires is None or expires > now + EXPIRES_SOON:
        return None
    return warn(
        check,
        f"{_described(key)}, which expires in {_days(expires - now)}",
        f"make a new key in good time and restart with it in {name}",
    )


def _described(key: Key) -> str:
    if key.kind != "jwt":
        return f"an sb_{key.kind}_ key"
    return f"a JWT of role {key.role}" + (" (the least that a worker needs)" * (key.role == "gre_worker"))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _days(seconds: float) -> str:
    """A time span in the unit in which it is not a fraction."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
