"""Event names, and the errors and templates that both routes share."""

from __future__ import annotations

from typing import Any

from gre_bridge.db.types import Delivery
from gre_bridge.errors import ConfigurationError, PermanentError

PLAYER_MESSAGE = "new-player-message"
STAFF_MESSAGE = "new-staff-message"
SESSION_UPDATED = "session-updated"
MESSAGES_READ = "messages-read"
SESSION_TRANSFERRED = "session-transferred"
SESSION_NOTE = "session-note"


def unknown_event(delivery: Delivery) -> PermanentError:
    """Return the error of an event that this version does not know."""
    return PermanentError(f"unknown event {delivery.event!r:.60}")


def incomplete_event(delivery: Delivery, missing: KeyError) -> PermanentError:
    """Return the error of an event without a required key: one such row must not fail the whole claim."""
    return PermanentError(f"the claim gave a {delivery.event} event without {missing}")


def fill_template(template: str, **values: Any) -> str:
    """Fill `{placeholder}`s. Raise ConfigurationError for one that is not among `values`."""
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError) as exc:
        raise ConfigurationError(
            f"{template!r} may hold no placeholder but {{{next(iter(values))}}}"
        ) from exc
