"""Each frame that a test's client receives, against the models that document it."""

from __future__ import annotations

import functools
from typing import Literal

import orjson
from pydantic import BaseModel, create_model

from gre_bridge.api.schemas.frames import SERVER_FRAMES


@functools.cache
def _frame(kind: str) -> type[BaseModel]:
    return create_model(kind, __base__=SERVER_FRAMES[kind], type=(Literal[kind], ...))  # type: ignore[valid-type]


def check_frame(text: str | bytes) -> None:
    """Check a frame of the server: no unknown field, none missing, none of another type."""
    _frame(orjson.loads(text)["type"]).model_validate_json(text, strict=True, extra="forbid")
