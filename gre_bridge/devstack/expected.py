"""`make expected`: writes sql/expected.json, what a new project has after all migrations (see sql/catalog.sql)."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from gre_bridge.devstack.postgres import EmbeddedPostgres
from gre_bridge.migrate import migrate
from gre_bridge.migrations import sql_file
from gre_bridge.postgres import connected
from gre_bridge.schema_check import catalog

FILE = sql_file("expected.json")


def main() -> None:
    """Migrate an empty project, as the role that Supabase gives, and ask."""
    with tempfile.TemporaryDirectory(prefix="gre-bridge-expected-") as place:
        Path(place).chmod(0o755)
        with EmbeddedPostgres(data_dir=Path(place) / "data", durable=False) as server:
            server.install_supabase()
            migrate(server.dsn())
            with connected(server.dsn(), application="make expected") as connection:
                found = catalog(connection)
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{FILE.name}: {sum(map(len, found.values()))} lines\n")


if __name__ == "__main__":
    main()
