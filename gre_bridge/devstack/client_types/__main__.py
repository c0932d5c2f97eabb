"""Write the files. docs/openapi.json must be up to date: `make types` writes it before."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from gre_bridge.daemon import asyncapi
from gre_bridge.devstack.client_types import ASYNCAPI, DATABASE, OPENAPI, PROTOCOL
from gre_bridge.devstack.client_types.database import database
from gre_bridge.devstack.client_types.protocol import protocol
from gre_bridge.devstack.postgres import EmbeddedPostgres
from gre_bridge.migrations.runner import migrate


def main() -> None:
    """Describe the code, and a new project's database."""
    text = asyncapi.text()
    ASYNCAPI.write_text(text, encoding="utf-8")
    openapi = json.loads(OPENAPI.read_text(encoding="utf-8"))
    PROTOCOL.write_text(protocol(openapi, json.loads(text)), encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="gre-bridge-types-") as place:
        Path(place).chmod(0o755)
        with EmbeddedPostgres(data_dir=Path(place) / "data", durable=False) as server:
            server.install_supabase()
            migrate(server.dsn())
            DATABASE.write_text(database(server.dsn()), encoding="utf-8")


if __name__ == "__main__":
    main()
