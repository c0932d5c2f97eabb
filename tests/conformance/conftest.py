"""The database that the PostgREST conformance tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.support.memory import cluster_directory

_SCHEMA = Path(__file__).parent / "postgrest" / "schema.sql"


@pytest.fixture(scope="session")
def rest_cluster() -> Iterator[EmbeddedPostgres]:
    """A cluster of its own: the recorded schema creates roles, which are the whole cluster's."""
    with cluster_directory() as directory, EmbeddedPostgres(data_dir=directory, durable=False) as postgres:
        with postgres.connect() as conn:
            conn.execute("create role postgres nologin")
            conn.execute(_SCHEMA.read_bytes())
        yield postgres


@pytest.fixture(scope="session")
def rest_dsn(rest_cluster: EmbeddedPostgres) -> str:
    """How PostgREST logs in."""
    return rest_cluster.dsn(user="authenticator", password="authpw")
