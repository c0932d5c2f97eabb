"""What Storage answers when it refuses: nearly always HTTP 400, with the true status in the body.

Facts: recorded pairs (tests/conformance/storage) and measurements on v1.70.6, file backend, single tenant.
"""

from __future__ import annotations

from typing import Final

import orjson
import psycopg

_RLS: Final = "new row violates row-level security policy"


class StorageError(Exception):
    """A refusal. `http` is the status line's number, `status` the body's `statusCode`."""

    def __init__(self, status: int, error: str, message: str, code: str, *, http: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.code = code
        self.http = http
        self.reads_on = True
        """False: the rest of the request's body is neither read nor is the connection closed, as the real server does."""

    def body(self) -> bytes:
        """The JSON of the answer, with its keys in the real server's order."""
        return orjson.dumps(
            {
                "statusCode": str(self.status), "error": self.error, "message": self.message, "code": self.code,
            }
        )  # fmt: skip


class NotOfferedError(StorageError):
    """What the real server can and this cannot."""

    def __init__(self, what: str) -> None:
        super().__init__(
            501, "not_offered", f"the embedded stack does not offer {what}", "not_offered", http=501
        )


def invalid_request(message: str, *, error: str = "Error") -> StorageError:
    """The body, the query or a header is not of the route's schema."""
    return StorageError(400, error, message, "InvalidRequest")


def invalid_parameter(message: str) -> StorageError:
    """A value that the schema lets pass and the server does not."""
    return StorageError(400, "InvalidParameter", message, "InvalidParameter")


def access_denied(message: str, *, http: int = 400) -> StorageError:
    """The token, or the policies, say no."""
    return StorageError(403, "Unauthorized", message, "AccessDenied", http=http)


def no_such_key() -> StorageError:
    """The object does not exist, or its row cannot be seen."""
    return StorageError(404, "not_found", "Object not found", "NoSuchKey")


def no_such_bucket() -> StorageError:
    """The bucket does not exist, or its row cannot be seen."""
    return StorageError(404, "Bucket not found", "Bucket not found", "NoSuchBucket")


def invalid_key(message: str) -> StorageError:
    """The name is one that no object can have."""
    return StorageError(400, "InvalidKey", f"Invalid key: {message}", "InvalidKey")


def exists(code: str = "KeyAlreadyExists") -> StorageError:
    """The name is taken; `code` tells of what."""
    return StorageError(409, "Duplicate", "The resource already exists", code)


def too_large() -> StorageError:
    """Over the bucket's limit or the global one."""
    return StorageError(
        413, "Payload too large", "The object exceeded the maximum allowed size", "EntityTooLarge"
    )


def wrong_type(mime_type: str) -> StorageError:
    """Not in the bucket's list."""
    return StorageError(
        415, "invalid_mime_type", f"mime type {mime_type} is not supported", "InvalidMimeType"
    )


def internal() -> StorageError:
    """The database cannot be reached, or the bytes of a row are not there."""
    return StorageError(500, "Internal", "Internal Server Error", "InternalError", http=500)


def database_timeout() -> StorageError:
    """A statement or the connection took too long."""
    return StorageError(
        544, "DatabaseTimeout", "The connection to the database timed out", "DatabaseTimeout", http=544
    )


def from_database(error: psycopg.Error, *, taken: str = "KeyAlreadyExists") -> StorageError:
    """The answer for an error of PostgreSQL, at the check and at the end alike; `taken` is the code of a duplicate."""
    message = error.diag.message_primary or ""
    match error.sqlstate:
        case "42501":
            # The real server leaves the table's name out.
            return access_denied(_RLS if message.startswith(_RLS) else message)
        case "22P02":
            return invalid_parameter(message)
        case "23505":
            return exists(taken)
        case "23503":
            return StorageError(
                404, "InvalidRequest", "The related resource does not exist", "InvalidRequest"
            )
        case "55P03":
            return StorageError(423, "ResourceLocked", message, "ResourceLocked")
        case "57014":
            return database_timeout()
        case "42P01" | "42703":
            return StorageError(503, "DatabaseError", message, "DatabaseError")
        case None:
            return internal()
        case state:
            text = f"database error, code: {state}"
            return StorageError(500, "DatabaseError", text, "DatabaseError", http=500)


def validation_error(where: str, reason: str) -> StorageError:
    """A value of the body is not of the schema: `where` as in `/expiresIn`, the reason in the validator's words."""
    return invalid_request(f"body{where} {reason}")
