"""One HTTP request as PostgREST sees it: profile, media type, preferences, range and payload.

What can be refused without the database is refused here, in PostgREST 14.5's words. This module knows no
SQL and sends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from gre_bridge.devstack.postgrest.errors import ServerError, bad_range, bad_request, left_out
from gre_bridge.devstack.postgrest.json import read
from gre_bridge.devstack.postgrest.query_tree import Node

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_BODY_LIMIT: Final = 16 * 1024 * 1024
_SHAPES: Final = {
    "*/*": "array", "application/*": "array", "application/json": "array", "text/csv": "csv",
    "application/vnd.pgrst.object+json": "object", "application/vnd.pgrst.object": "object",
}  # fmt: skip
_ACCEPTED: Final = {
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "return": ("representation", "minimal", "headers-only"),
    "count": ("exact", "planned", "estimated"),
    "handling": ("strict", "lenient"),
    "tx": ("commit", "rollback"),
}


@dataclass(slots=True)
class Answer:
    """A response; header names are lower case."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


@dataclass
class Request:
    """One request, read to its end; `path` is what follows the mount point."""

    method: str
    path: str
    query_string: str
    headers: dict[str, str]
    body: bytes

    @classmethod
    async def read(cls, scope: Scope, receive: Receive) -> Request:
        """Read the body; raises 413 beyond 16 MB, which nothing in a chat needs."""
        root = scope.get("root_path", "")
        path = scope["path"]
        path = path[len(root) :] if root and path.startswith(root) else path
        headers: dict[str, str] = {}
        for raw, value in scope["headers"]:
            name = raw.decode("latin-1")
            text = value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        body, more = b"", scope["method"] not in ("GET", "HEAD", "OPTIONS")
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > _BODY_LIMIT:
                raise ServerError(413, "PGRST102", "The body is larger than the embedded stack takes")
        return cls(scope["method"], path or "/", scope["query_string"].decode("latin-1"), headers, body)

    @property
    def reads(self) -> bool:
        """Whether the method promises to change nothing."""
        return self.method in ("GET", "HEAD")

    def schema(self, exposed: tuple[str, ...]) -> str:
        """The schema that the profile header names; raises PGRST106."""
        name = self.headers.get("accept-profile" if self.reads else "content-profile", exposed[0])
        if name not in exposed:
            raise ServerError(
                406,
                "PGRST106",
                f"Invalid schema: {name}",
                hint=f"Only the following schemas are exposed: {', '.join(exposed)}",
            )
        return name

    @cached_property
    def shape(self) -> str:
        """What the Accept header wants: array, object or csv; raises PGRST107."""
        accepted = [part.partition(";") for part in self.headers.get("accept", "*/*").split(",")]
        for media, _, parameters in accepted:
            if "nulls=stripped" in parameters:
                raise left_out("nulls=stripped")
            if media.strip().lower() in _SHAPES:
                return _SHAPES[media.strip().lower()]
        types = ", ".join(media.strip() for media, _, _ in accepted)
        raise ServerError(406, "PGRST107", f"None of these media types are available: {types}")

    @cached_property
    def prefer(self) -> dict[str, str]:
        """The preferences, the first of a kind counting; raises PGRST122, or 501 for a time zone."""
        prefer: dict[str, str] = {}
        invalid: list[str] = []
        for item in (part.strip() for part in self.headers.get("prefer", "").split(",")):
            name, _, value = item.partition("=")
            if value in _ACCEPTED.get(name, ()) or (name == "max-affected" and value.isdigit()):
                prefer.setdefault(name, value)
            elif name == "timezone":
                raise left_out("Prefer: timezone")
            elif item:
                invalid.append(item)
        if invalid and prefer.get("handling") == "strict":
            raise bad_request(
                "PGRST122",
                "Invalid preferences given with handling=strict",
                details=f"Invalid preferences: {', '.join(invalid)}",
            )
        return prefer

    @property
    def most_affected(self) -> int | None:
        """`max-affected`, which counts only with handling=strict."""
        strict = self.prefer.get("handling") == "strict" and "max-affected" in self.prefer
        return int(self.prefer["max-affected"]) if strict else None

    def applied(self, *names: str) -> list[tuple[str, str]]:
        """The Preference-Applied header, of the preferences that this kind of request knows."""
        known = [name for name in _ACCEPTED if name in names or name == "handling"]
        known += ["max-affected"] * (self.most_affected is not None)
        text = ", ".join(f"{name}={self.prefer[name]}" for name in known if name in self.prefer)
        return [("preference-applied", text)] if text else []

    def narrow(self, node: Node) -> None:
        """Apply the Range header (`0-9`, `5-`) to the root; raises PGRST103."""
        found = re.fullmatch(r"(\d+)-(\d*)", self.headers.get("range", "")) if self.method == "GET" else None
        if found:
            low, high = int(found.group(1)), int(found.group(2)) if found.group(2) else None
            node.offset = max(node.offset, low)
            if high is not None:
                if high < low:
                    raise bad_range(
                        "The lower boundary must be lower than or equal to the upper boundary in the Range header."
                    )
                length = high - node.offset + 1
                node.limit = length if node.limit is None else min(node.limit, length)

    def payload(
        self, *, columns: list[str] | None = None, default: bytes = b""
    ) -> tuple[str, list[str], bool]:
        """The JSON body as text, its keys in order, and whether it is an array; raises PGRST102."""
        media = self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if media in (
            "text/csv",
            "application/x-www-form-urlencoded",
            "text/plain",
            "application/octet-stream",
        ):
            raise left_out(f"a body of {media}")
        if media not in ("application/json", ""):
            raise bad_request("PGRST102", f"Content-Type not acceptable: {media}")
        raw = self.body or default
        try:
            text, value = read(raw)
        except ValueError:
            raise bad_request("PGRST102", "Empty or invalid json") from None
        rows = value if isinstance(value, list) else [value]
        if columns is not None:
            return text, sorted(set(columns)), isinstance(value, list)
        if any(not isinstance(row, dict) or row.keys() != rows[0].keys() for row in rows):
            raise bad_request("PGRST102", "All object keys must match")
        return text, sorted(rows[0]) if rows else [], isinstance(value, list)


def content_range(low: int, high: int, total: int | None) -> list[tuple[str, str]]:
    """The Content-Range header: `0-1/*`, `*/7` when there is nothing to show."""
    shown = f"{low}-{high}" if low <= high and total != 0 else "*"
    return [("content-range", f"{shown}/{'*' if total is None else total}")]


def cors(request: Request, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Add what a browser needs to be let in, as PostgREST behind Supabase's gateway answers: any origin."""
    added = list(headers)
    if "origin" in request.headers:
        added.append(("access-control-allow-origin", "*"))
        if request.method == "OPTIONS":
            asked = request.headers.get("access-control-request-headers", "")
            allowed = ["authorization", *asked.lower().replace(" ", "").split(",")]
            added.append(("access-control-allow-methods", "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD"))
            added.append(("access-control-allow-headers", ", ".join(dict.fromkeys(filter(None, allowed)))))
            added.append(("access-control-max-age", "86400"))
        else:
            exposed = (
                "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server"
            )
            added.append(("access-control-expose-headers", f"{exposed}, Transfer-Encoding, Range-Unit"))
    return added
