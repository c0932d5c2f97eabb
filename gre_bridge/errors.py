"""The one hierarchy of errors: what failed, and what may be done about it.

Every failure that crosses a module boundary is one of three kinds. *Transient*: the same thing may
succeed later. *Permanent*: this very request was refused and will be refused again. *Configuration*:
a person must change something (a key, a variable, a missing migration). The decision what to do with
each is taken in `gre_bridge.relay.policy`, nowhere else. Messages are one line and never carry
secrets or chat text.
"""

from __future__ import annotations


class BridgeError(Exception):
    """Base of all errors that gre-bridge raises on purpose."""

    kind: str = "error"

    def __init__(self, message: str, *, code: str = "", retry_after: float | None = None) -> None:
        """`code` is the other side's own code (SQLSTATE, HTTP status); `retry_after` is in seconds."""
        super().__init__(" ".join(message.split()))
        self.code = code
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class TransientError(BridgeError):
    """It may succeed later: no connection, a time-out, 5xx, 429."""

    kind = "transient"


class PermanentError(BridgeError):
    """This request itself was refused and would be refused again: 400, 413."""

    kind = "permanent"


class ConfigurationError(BridgeError):
    """A person must act: bad credentials, a missing variable, missing migrations."""

    kind = "configuration"


class Refused(PermanentError):  # noqa: N818 - an answer, to be told as it is
    """The database refused a caller's request, in words that the caller may read."""

    kind = "refused"

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        """`status` is the HTTP status that says the same, `code` a word for programs."""
        super().__init__(message, code=code, retry_after=retry_after)
        self.status = status
