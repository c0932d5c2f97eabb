"""Times as the API writes them: UTC, with milliseconds and `Z`."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(seconds: float | None) -> str | None:
    """Write unix seconds as the API writes times; None for none, and for what no date can say."""
    if seconds is None or not 0 <= seconds < 253402300800:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
