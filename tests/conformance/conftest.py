"""The database that the PostgREST conformance tests run on, and the stack of those of Storage."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gre_bridge.devstack.postgres import EmbeddedPostgres
from gre_bridge.devstack.stack import Stack
from tests.conformance.storage_lab import POLICIES, Lab
from tests.support.loopback import NO_TLS, PATIENT
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[Lab]:
    with cluster_directory() as directory:
        directory.chmod(0o755)
        async with Stack(data_dir=directory / "stack", durable=False) as stack:
            http = httpx.AsyncClient(
                base_url=f"{stack.url}/storage/v1", trust_env=False, verify=NO_TLS, timeout=PATIENT
            )
            async with http:
                lab = Lab(stack, http)
                await lab.sql(POLICIES)
                yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def conf(lab: Lab) -> AsyncIterator[Lab]:
    """An empty bucket `conf` for PNG and plain text of at most 200,000 bytes; triggers and faults go afterwards."""
    await lab.bucket("conf", file_size_limit=200_000, allowed_mime_types=["image/png", "text/plain"])
    # Uploads in parts leave a note for ever, as those of the real server do.
    await asyncio.to_thread(shutil.rmtree, lab.stack.data_dir / "storage", ignore_errors=True)
    yield lab
    await lab.fault(None)
    await lab.sql("drop function if exists public.act() cascade")
