"""Names the outages of the database for clients: the same codes and texts over REST and `/ws`."""

from __future__ import annotations

from gre_bridge.errors import Refused, TransientError

RETRY_AFTER = 2.0
"""Seconds after which a client should retry, unless the database says otherwise."""

_NAMED = {
    "PGRST202": (
        "schema_outdated",
        "the database's schema is older than this daemon: run `gre-bridge migrate`",
    ),
    "25006": ("read_only", "the database takes no changes at the moment; reading goes on"),
    "PGRST303": ("unavailable", "the token is not valid yet by Supabase's clock, try again in a moment"),
}


def as_refusal(error: TransientError) -> Refused:
    """Return the 503 for an error, by the database's code. It never quotes the error's text."""
    code, text = _NAMED.get(
        error.code, ("unavailable", "the database does not answer, try again in a moment")
    )
    return Refused(503, code, text, retry_after=error.retry_after or RETRY_AFTER)
