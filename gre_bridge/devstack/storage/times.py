"""Times as Storage writes them: ISO 8601 with milliseconds, and dates of HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, formatdate


def iso(at: datetime | None) -> str | None:
    """As JavaScript's toISOString: 2026-11-28T00:45:19.077Z."""
    if at is None:
        return None
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def http_date(at: str | float) -> str:
    """The date of a header, from ISO text or from Unix seconds."""
    if isinstance(at, str):
        return format_datetime(datetime.fromisoformat(at).astimezone(UTC), usegmt=True)
    return formatdate(at, usegmt=True)
