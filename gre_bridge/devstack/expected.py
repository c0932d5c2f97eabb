"""`make expected`: writes the catalog (sql/expected.json, see sql/catalog.sql) and the schema (sql/schema.sql) of a new project."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from gre_bridge.db.catalog import read_catalog
from gre_bridge.db.postgres import connected
from gre_bridge.db.sql_files import sql_file
from gre_bridge.devstack.postgres import SUPERUSER, EmbeddedPostgres
from gre_bridge.devstack.schema_file import dump
from gre_bridge.migrations.runner import migrate

FILE = sql_file("expected.json")
SCHEMA = sql_file("schema.sql")


def main() -> None:
    """Migrate an empty project with the role that Supabase gives, and write both files."""
    with tempfile.TemporaryDirectory(prefix="gre-bridge-expected-") as place:
        Path(place).chmod(0o755)
        with EmbeddedPostgres(data_dir=Path(place) / "data", durable=False) as server:
            server.install_supabase()
            migrate(server.dsn())
            with connected(server.dsn(), application="make expected") as connection:
                found = read_catalog(connection)
            schema = dump(bin_dir=server.bin_dir, dsn=server.dsn(user=SUPERUSER))
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    SCHEMA.write_text(schema, encoding="utf-8")
    sys.stdout.write(f"{SCHEMA.name}: {schema.count(chr(10))} lines\n")
    sys.stdout.write(f"{FILE.name}: {sum(map(len, found.values()))} lines\n")


if __name__ == "__main__":
    main()
