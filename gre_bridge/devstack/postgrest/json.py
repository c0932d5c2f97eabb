"""The keys of a JSON body, whatever its numbers and however deep it is nested.

PostgREST reads a body for its keys alone and hands the text on: a number beyond a double (1e400) and arrays nested
thousands of times pass, since `jsonb` takes them. Python's readers refuse both, so a body that they refuse is read here.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:(?P<mark>[{}\[\],:])
    |(?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")
    |(?P<other>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null))""",
    re.VERBOSE,
)
_BLANK: Final = re.compile(r"[ \t\r\n]*\Z")


def read(raw: bytes) -> tuple[str, Any]:
    """The body as text, and its value: exact, or with None in place of everything but the keys of its rows.

    Raises ValueError for what is no JSON.
    """
    text = raw.decode()
    try:
        return text, orjson.loads(raw)
    except orjson.JSONDecodeError:
        return text, _Scan(text).value()


class _Scan:
    """One pass over a text, with a stack of its own in place of recursion."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[Any] = []

    def value(self) -> Any:
        """The rows with their keys; raises ValueError."""
        top, expected = None, "value"
        while True:
            kind, token = self._next()
            if expected in ("value", "value or ]") and (kind != "mark" or token in "{["):
                found: Any = {} if token == "{" else [] if token == "[" else None
                if not self._open:
                    top = found
                elif len(self._open) == 1 and isinstance(self._open[0], list):
                    self._open[0].append(found)
                expected = self._open_value(found)
            elif expected in ("key", "key or }") and kind == "string":
                self._key(token)
                expected = "value"
            elif expected == "end" and token == ",":
                expected = "key" if isinstance(self._open[-1], dict) else "value"
            elif self._closes(token, expected):
                self._open.pop()
                expected = "end"
            else:
                raise ValueError("unexpected token")
            if not self._open:
                break
        if not _BLANK.match(self._text, self._at):
            raise ValueError("text behind the value")
        return top

    def _open_value(self, found: Any) -> str:
        if found is None:
            return "end"
        self._open.append(found)
        return "key or }" if isinstance(found, dict) else "value or ]"

    def _key(self, token: str) -> None:
        if len(self._open) <= 2:  # a row, or a row of the array
            self._open[-1][orjson.loads(token)] = None
        if self._next() != ("mark", ":"):
            raise ValueError("no colon")

    def _closes(self, token: str, expected: str) -> bool:
        mark = "}" if self._open and isinstance(self._open[-1], dict) else "]"
        return bool(self._open) and token == mark and (expected == "end" or expected.endswith(mark))

    def _next(self) -> tuple[str, str]:
        found = _TOKEN.match(self._text, self._at)
        if found is None or found.lastgroup is None:
            raise ValueError("no token")
        self._at = found.end()
        return found.lastgroup, found[found.lastgroup]
