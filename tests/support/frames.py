"""Every frame that a test's client receives, and every event that Pusher received, against the models that document them."""

from __future__ import annotations

import functools
from typing import Any, Literal

import orjson
from pydantic import BaseModel, create_model

from gre_bridge.api.schemas.frames import SERVER_FRAMES
from gre_bridge.api.schemas.pusher_events import PUSHER_EVENTS


@functools.cache
def _frame(kind: str) -> type[BaseModel]:
    return create_model(kind, __base__=SERVER_FRAMES[kind], type=(Literal[kind], ...))  # type: ignore[valid-type]


def check_frame(text: str | bytes) -> None:
    """Check a frame of the server: no unknown field, none missing, none of another type."""
    _frame(orjson.loads(text)["type"]).model_validate_json(text, strict=True, extra="forbid")


def check_event(name: str, data: dict[str, Any]) -> None:
    """Check the data of one of Pusher's events."""
    PUSHER_EVENTS[name].model_validate_json(orjson.dumps(data), strict=True, extra="forbid")
