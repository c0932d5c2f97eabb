"""Fields that the models of answers share."""

from __future__ import annotations

from typing import Any

from pydantic import Field


def absent(**options: Any) -> Any:
    """Declare a field that an answer leaves out where it does not apply. It is never null. `options` are those of `Field`."""
    return Field(default_factory=_nothing, **options)


def _nothing() -> None:
    """Return the default value, which no answer is built with: a default would be in the documents."""
