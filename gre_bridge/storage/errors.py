"""The failures of Supabase Storage, sorted by its answer's body.

Nearly every refusal is HTTP 400; `statusCode` and `error` of the body tell them apart (measured on Storage 1.70). `code` is newer
than many servers. What is not in Storage's own words is an outage: the file that travelled with the call is not at fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gre_bridge.db.http import Answer
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError


class Missing(PermanentError):  # noqa: N818 - an answer
    """There is no such object, or the caller may not see it: Storage answers both alike."""


class Exists(PermanentError):  # noqa: N818 - an answer
    """The name is taken."""


class StorageRefused(PermanentError):  # noqa: N818 - an answer
    """Storage refuses this request and would refuse it again; `code` is a word such as `Payload too large`."""


_UNAVAILABLE = frozenset({"408", "423", "425", "429"})
_KEY_WORDS = ("signature verification failed", "Invalid Compact JWS", '"exp" claim', '"alg" (Algorithm)')
_CHECK_KEY = "SUPABASE_SERVICE_KEY was refused"


def failure(what: str, answer: Answer) -> BridgeError:
    """Return the error for an answer other than success. Its text has no name of an object and no token."""
    body = _json_object(answer.body)
    if "statusCode" not in body:
        return TransientError(
            f"{what}: Storage answered HTTP {answer.status} without its own words", code=str(answer.status)
        )
    return _from_body(what, body)


def _from_body(what: str, body: Mapping[str, Any]) -> BridgeError:
    status, error, message = str(body["statusCode"]), str(body.get("error", "")), str(body.get("message", ""))
    text = f"{what}: Storage answered {status} {error}"[:120]
    if status == "404":
        # A key that it refuses on a download is told as a bucket that is missing.
        if error == "Bucket not found":
            return ConfigurationError(
                f"{text}: gre-bridge migrate makes the bucket; or check SUPABASE_SERVICE_KEY",
                code="no_bucket",
            )
        return Missing(text, code="missing")
    if status == "403" and message.startswith(_KEY_WORDS):
        return ConfigurationError(f"{what}: {_CHECK_KEY} by Storage", code="403")
    if status == "409" and error in ("Duplicate", "KeyAlreadyExists"):
        return Exists(text, code="exists")
    if status in _UNAVAILABLE or not (status.isdigit() and 400 <= int(status) < 500):
        return TransientError(text, code=status)
    return StorageRefused(text, code=status)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
