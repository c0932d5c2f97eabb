"""`make types`: docs/asyncapi.json, and the TypeScript files of the client that are made of documents and of the schema."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[3]
OPENAPI = _ROOT / "docs" / "openapi.json"
ASYNCAPI = _ROOT / "docs" / "asyncapi.json"
PROTOCOL = _ROOT / "client" / "src" / "protocol.ts"
DATABASE = _ROOT / "client" / "src" / "database.ts"
