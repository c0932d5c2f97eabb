"""Times in the API's format: UTC, with milliseconds and `Z`."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(seconds: float | None) -> str | None:
    """Format unix seconds; None for None, and for times outside the years 1970 to 9999."""
    if seconds is None or not 0 <= seconds < 253402300800:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
