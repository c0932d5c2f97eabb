"""What the database's outages are called towards clients: the same code and words over REST and `/ws`."""

from __future__ import annotations

from gre_bridge.errors import Refused, TransientError

RETRY_AFTER = 2.0
"""Seconds after which a client should ask again when the database did not say."""

_NAMED = {
    "PGRST202": (
        "schema_outdated",
        "the database's schema is older than this daemon: run `gre-bridge migrate`",
    ),
    "25006": ("read_only", "the database takes no changes at the moment; reading goes on"),
    "PGRST303": ("unavailable", "the token is not valid yet by Supabase's clock, try again in a moment"),
}


def as_refusal(error: TransientError) -> Refused:
    """Return the 503 that tells a client of `error`, by the database's code; it never quotes the error's text."""
    code, text = _NAMED.get(
        error.code, ("unavailable", "the database does not answer, try again in a moment")
    )
    return Refused(503, code, text, retry_after=error.retry_after or RETRY_AFTER)
