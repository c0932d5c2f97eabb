"""Judges a Supabase key by its kind, role, project and expiry. Pure; no signature is checked.

`probes.supabase` asks the server. This module explains a refusal, and finds mistakes that the server accepts, such as
the anon key given as the service key.
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
    """Return the project's ref, or None for an address that does not contain it (a custom domain)."""
    found = _REF.fullmatch(urlsplit(url).hostname or "")
    return found[1] if found else None


def judge_service_key(value: str, *, url: str, now: float) -> Finding:
    """Judge SUPABASE_SERVICE_KEY. `now` is in Unix seconds."""
    key = read_key(value)
    name = "SUPABASE_SERVICE_KEY"
    if defect := _defect(SERVICE_KEY, name, key, url, now):
        return defect
    if key.role in ("anon", "authenticated"):
        return failed(
            SERVICE_KEY,
            f"{name} contains the {key.role} key, which may not run the worker",
            f"set {name} to the service_role (or sb_secret_) key of {_WHERE}",
        )
    if key.role not in ("service_role", "gre_worker"):
        return warn(
            SERVICE_KEY,
            f"{name} contains a JWT of role {key.role or 'unknown'}",
            f"set {name} to a key of role service_role or gre_worker",
        )
    if key.kind == "jwt" and "exp" not in key.claims:
        # Realtime answers HTTP 401 "Fields `role` and `exp` are required in JWT"; PostgREST takes it.
        return failed(SERVICE_KEY, f"{name} has no expiry: Realtime refuses it", "sign it with the claim exp")
    return _expires_soon(SERVICE_KEY, name, key, now) or ok(SERVICE_KEY, _described(key))


def judge_anon_key(value: str, *, url: str, now: float) -> Finding:
    """Judge SUPABASE_ANON_KEY, which browsers see. `now` is in Unix seconds."""
    key = read_key(value)
    name = "SUPABASE_ANON_KEY"
    if defect := _defect(ANON_KEY, name, key, url, now):
        return defect
    if key.role != "anon":
        return failed(
            ANON_KEY,
            f"{name} contains a {key.role or 'unknown'} key",
            f"set {name} to the anon (or sb_publishable_) key of {_WHERE}",
        )
    return _expires_soon(ANON_KEY, name, key, now) or ok(ANON_KEY, _described(key))


def _defect(check: str, name: str, key: Key, url: str, now: float) -> Finding | None:
    if key.kind == "unknown":
        return failed(
            check,
            f"{name} is neither a JWT nor an sb_… key",
            f"copy {name} whole, without quotes, from {_WHERE}",
        )
    expires = _number(key.claims.get("exp"))
    if expires is not None and expires < now:
        return failed(
            check,
            f"{name} expired {_days(now - expires)} ago",
            f"make a new key in {_WHERE}, and restart with it in {name}",
        )
    ref, project = key.claims.get("ref"), project_of(url)
    if ref and project and ref != project:
        return failed(
            check,
            f"{name} belongs to project {ref}, SUPABASE_URL to {project}",
            f"take {name} and SUPABASE_URL from one project",
        )
    return None


def _expires_soon(check: str, name: str, key: Key, now: float) -> Finding | None:
    expires = _number(key.claims.get("exp"))
    if expires is None or expires > now + EXPIRES_SOON:
        return None
    return warn(
        check,
        f"{_described(key)}, which expires in {_days(expires - now)}",
        f"make a new key before then and restart with it in {name}",
    )


def _described(key: Key) -> str:
    if key.kind != "jwt":
        return f"an sb_{key.kind}_ key"
    return f"a JWT of role {key.role}" + (
        " (the least privileges that a worker needs)" * (key.role == "gre_worker")
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _days(seconds: float) -> str:
    """Format a duration in the largest unit of which it has at least two."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
