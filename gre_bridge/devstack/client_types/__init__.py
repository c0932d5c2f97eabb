"""`make types`: docs/asyncapi.json, and the TypeScript files of the client that are made of documents and of the schema."""

from __future__ import annotations

import json
from pathlib import Path

from gre_bridge.devstack.client_types.asyncapi import document

_ROOT = Path(__file__).parents[3]
OPENAPI = _ROOT / "docs" / "openapi.json"
ASYNCAPI = _ROOT / "docs" / "asyncapi.json"
PROTOCOL = _ROOT / "client" / "src" / "protocol.ts"
DATABASE = _ROOT / "client" / "src" / "database.ts"


def asyncapi_text() -> str:
    """Return the text of docs/asyncapi.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
