"""The hierarchy of errors.

Each failure that crosses a module boundary is of one of three kinds. *Transient*: the operation may succeed later.
*Permanent*: this request was refused and will be refused again. *Configuration*: a person must change something (a key, a
variable, a missing migration). Only `gre_bridge.relay.policy` decides how to react to each. Messages are one line and
never carry secrets or chat text.
"""

from __future__ import annotations

from collections.abc import Mapping


class BridgeError(Exception):
    """Base class of the errors that gre-bridge raises."""

    kind: str = "error"

    def __init__(self, message: str, *, code: str = "", retry_after: float | None = None) -> None:
        """`code` is the peer's code (SQLSTATE, HTTP status); `retry_after` is in seconds."""
        super().__init__(" ".join(message.split()))
        self.code = code
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class TransientError(BridgeError):
    """The operation may succeed later: no connection, a time-out, 5xx, 429."""

    kind = "transient"


class PermanentError(BridgeError):
    """The request was refused and would be refused again: 400, 413."""

    kind = "permanent"


class ConfigurationError(BridgeError):
    """A person must act: bad credentials, a missing variable, missing migrations."""

    kind = "configuration"


class Refused(PermanentError):  # noqa: N818 - a response to the caller
    """The database refused a caller's request; the message is meant for the caller."""

    kind = "refused"

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        """`status` is the HTTP status, `code` an identifier for programs, `details` more for them, as JSON."""
        super().__init__(message, code=code, retry_after=retry_after)
        self.status = status
        self.details = details
