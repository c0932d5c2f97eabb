"""What the models of answers share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Described(BaseModel):
    """A model that describes what goes out, for the documents and the tests. No answer is built or checked with it.

    So its validator is built at its first use, and not for each path and status at each start.
    """

    model_config = ConfigDict(defer_build=True)


def absent(**options: Any) -> Any:
    """Declare a field that an answer leaves out where it does not apply. It is never null. `options` are those of `Field`."""
    return Field(default_factory=_nothing, **options)


def _nothing() -> None:
    """Return the default value, which no answer is built with: a default would be in the documents."""
