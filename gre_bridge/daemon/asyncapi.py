"""/asyncapi.json, also docs/asyncapi.json: the frames of `/ws` and Pusher's events, from the models that the API and its tests use.

Names, fields and types come from `api.ws.frames`, `api.schemas.frames` and `api.schemas.pusher_events`, channels from the
relay's routes with their default settings. This module adds the frame of an AsyncAPI 3.0 document, and no field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gre_bridge.api.schemas.frames import SERVER_FRAMES
from gre_bridge.api.schemas.pusher_events import PUSHER_EVENTS
from gre_bridge.api.ws.frames import CLIENT_FRAMES
from gre_bridge.relay.routing.events import (
    MESSAGES_READ,
    PLAYER_MESSAGE,
    SESSION_NOTE,
    SESSION_TRANSFERRED,
    SESSION_UPDATED,
    STAFF_MESSAGE,
)
from gre_bridge.relay.routing.pusher import PusherRoutes

Json = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"
_ABOUT = (
    "Live messages: frames of the WebSocket at /ws (docs/websocket.md) and Pusher's events (docs/portals.md). Fields that are"
    " not required are absent where they do not apply. The server ignores unknown fields of a frame, and also reads fields in"
    " snake_case, ids as digits and null as absent. A later version may send further fields and types: ignore what you do not know."
)
_PUSHER = (
    "A channel of Pusher, by default: GRE_PUSHER_PLAYER_CHANNELS, GRE_PUSHER_STAFF_CHANNELS, GRE_PUSHER_SESSION_CHANNELS,"
    " GRE_PUSHER_READ_CHANNELS and GRE_PUSHER_DESK_CHANNELS say which events go where. `name` of a message is that of the event."
)


def document() -> Json:
    """Return the document. The version of the package is not in it, so that a release does not change it."""
    groups: dict[str, Mapping[str, type[BaseModel]]] = {
        "client": CLIENT_FRAMES,
        "server": SERVER_FRAMES,
        "pusher": PUSHER_EVENTS,
    }
    models = [model for group in groups.values() for model in group.values()]
    by_model, found = models_json_schema(
        [(model, "validation") for model in models], ref_template=_SCHEMAS + "{model}"
    )
    schemas: Json = {name: _plain(schema) for name, schema in found.get("$defs", {}).items()}
    messages: Json = {}
    for group, members in groups.items():
        for name, model in members.items():
            own = by_model[model, "validation"]["$ref"].removeprefix(_SCHEMAS)
            messages[f"{group}.{name}"] = _message(name, schemas[own], typed=group != "pusher")
    for model in models:
        schemas.pop(by_model[model, "validation"]["$ref"].removeprefix(_SCHEMAS), None)
    socket = [key for key in messages if not key.startswith("pusher.")]
    channels: Json = {"ws": _channel("/ws", "The WebSocket. Frames are JSON objects in text frames.", socket)}
    operations: Json = {
        "receiveFrames": _operation("receive", "ws", [key for key in socket if key.startswith("client.")]),
        "sendFrames": _operation("send", "ws", [key for key in socket if key.startswith("server.")]),
    }
    for address, events in _pusher_channels().items():
        key = address.replace("-{player_id}", "")
        channels[key] = _channel(address, _PUSHER, [f"pusher.{event}" for event in events])
        if "{player_id}" in address:
            channels[key]["parameters"] = {"player_id": {"description": "The player's id."}}
        operations[f"send-{key}"] = _operation("send", key, [f"pusher.{event}" for event in events])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "gre-bridge: live messages",
            "version": "1",
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def text() -> str:
    """Return the document as it is served."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _pusher_channels() -> dict[str, list[str]]:
    """Return the events of each channel, with the default settings."""
    routes = PusherRoutes()
    channels_of = {
        PLAYER_MESSAGE: routes.player_channels,
        STAFF_MESSAGE: routes.staff_channels,
        SESSION_UPDATED: routes.session_channels,
        MESSAGES_READ: routes.read_channels,
        SESSION_TRANSFERRED: routes.desk_channels,
        SESSION_NOTE: routes.desk_channels,
    }
    found: dict[str, list[str]] = {}
    for event, channels in channels_of.items():
        for channel in channels:
            found.setdefault(channel, []).append(event)
    return found


def _message(name: str, schema: Json, *, typed: bool) -> Json:
    """Return a message with its payload; a frame has its name as `type`."""
    payload = {**schema, "properties": dict(schema.get("properties", {}))}
    summary = payload.pop("description")
    if typed:
        payload["properties"] = {"type": {"const": name}, **payload["properties"]}
        payload["required"] = ["type", *payload.get("required", ())]
    return {"name": name, "summary": summary, "payload": payload}


def _channel(address: str, about: str, messages: list[str]) -> Json:
    return {
        "address": address,
        "description": about,
        "messages": {key: {"$ref": _MESSAGES + key} for key in messages},
    }


def _operation(action: str, channel: str, messages: list[str]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{key}"} for key in messages],
    }


def _plain(schema: Any, *, names: bool = False) -> Any:
    """Copy a schema without the titles that Pydantic makes of names. Keys below `properties` are names of fields."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: _plain(item, names=key == "properties" and not names)
        for key, item in schema.items()
        if names or key != "title"
    }
