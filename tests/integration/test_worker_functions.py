"""Functions for the worker check its role themselves, whatever is granted."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.conftest import PLAYER, STAFF, Database
from tests.integration.test_outbox import claim, one, send
from tests.support.waiting import quickest

WORKERS = ("service_role", "gre_worker")
ANON = {"role": "anon"}
NOBODY = {"role": "authenticated", "sub": str(uuid.uuid4())}
FORGED = {
    "role": "authenticated",
    "user_metadata": {"role": "service_role"},
    "app_metadata": {"role": "service_role"},
}
OPERATORS = {"gre_relay_dead", "gre_relay_retry", "gre_relay_replay", "gre_relay_reconcile", "gre_relay_expire", "gre_relay_prune"}  # fmt: skip
SESSION = str(uuid.uuid4())
CALLS = {
    "gre_relay_claim_v1": f"select gre_relay_claim_v1('pusher', '{SESSION}')",
    "gre_relay_settle_v1": "select gre_relay_settle_v1('pusher', '[]')",
    "gre_relay_exchange_v1": f"select gre_relay_exchange_v1('pusher', '[]', '{SESSION}')",
    "gre_relay_extend_v1": f"select gre_relay_extend_v1('pusher', '{SESSION}', '{{}}')",
    "gre_relay_release_v1": f"select gre_relay_release_v1('pusher', '{SESSION}')",
    "gre_relay_stats_v1": "select gre_relay_stats_v1()",
    "gre_relay_report_v1": f"select gre_relay_report_v1('{SESSION}', 'h', 'v')",
    "gre_relay_leave_v1": f"select gre_relay_leave_v1('{SESSION}')",
    "gre_relay_listen_v1": f"select gre_relay_listen_v1('{SESSION}', 'relay', 1)",
    "gre_relay_unlisten_v1": f"select gre_relay_unlisten_v1('{SESSION}')",
    "gre_relay_status": "select gre_relay_status()",
    "gre_relay_notify_v1": "select gre_relay_notify_v1()",
    "gre_relay_dead": "select gre_relay_dead()",
    "gre_relay_retry": "select gre_relay_retry('{}')",
    "gre_relay_replay": "select gre_relay_replay(now() - interval '1 day')",
    "gre_relay_reconcile": "select gre_relay_reconcile()",
    "gre_relay_expire": "select gre_relay_expire(now())",
    "gre_relay_prune": "select gre_relay_prune('1 day')",
    "gre_hub_changes_v1": "select gre_hub_changes_v1()",
    "gre_hub_presence_v1": "select gre_hub_presence_v1('{}', '{}', 45)",
}


@pytest.fixture
def granted(db: Database) -> Database:
    """A project after the widespread snippet against "permission denied for schema public"."""
    with db.connect() as conn:
        conn.execute("grant usage on schema public to anon, authenticated")
        conn.execute(
            "grant all privileges on all functions in schema public to anon, authenticated, gre_worker"
        )
        send(conn, text="secret")
    return db


def test_the_list_of_this_file_has_all_functions_of_the_worker(db: Database) -> None:
    with db.connect() as conn:
        found = conn.execute(
            "select proname from pg_proc where pronamespace = 'public'::regnamespace "
            r"and (proname like 'gre\_relay\_%' or proname like 'gre\_hub\_%')"
        ).fetchall()
    assert {row["proname"] for row in found} == set(CALLS)


@pytest.mark.parametrize(
    "claims", [ANON, NOBODY, FORGED, PLAYER, STAFF], ids=["anon", "nobody", "forged", "player", "staff"]
)
def test_only_the_worker_may_call_them_although_everything_is_granted(
    granted: Database, claims: dict[str, Any]
) -> None:
    status = "PT401" if claims is ANON else "PT403"
    with granted.as_caller(claims) as caller:
        for name, call in CALLS.items():
            with pytest.raises(psycopg.Error, match="only the service key") as refused:
                caller.execute(call)
            assert refused.value.sqlstate == status, name
    with granted.connect() as conn:
        assert len(claim(conn)["lanes"]) == 1


@contextmanager
def worker(db: Database, role: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """Calls with a worker's token."""
    with db.connect("supabase_admin") as conn:
        conn.execute("set session authorization authenticator")
        conn.execute("select set_config('request.jwt.claims', %s, false)", [json.dumps({"role": role})])
        conn.execute(f"set role {role}")
        yield conn


@pytest.mark.parametrize("role", WORKERS)
def test_the_worker_may_call_them_and_its_own_role_no_operators_functions(
    granted: Database, role: str
) -> None:
    with worker(granted, role) as caller:
        for name, call in CALLS.items():
            if role == "gre_worker" and name in OPERATORS:
                with pytest.raises(psycopg.Error, match="only the service key"):
                    caller.execute(call)
            else:
                caller.execute(call)


def test_a_direct_connection_needs_the_owners_role(granted: Database) -> None:
    with granted.connect("supabase_admin") as conn:
        conn.execute("create role reporting")
        conn.execute("grant execute on all functions in schema public to reporting")
        conn.execute("set session authorization reporting")
        with pytest.raises(psycopg.Error, match="only the service key"):
            conn.execute(CALLS["gre_relay_claim_v1"])
        conn.execute("reset session authorization")
        conn.execute("drop owned by reporting")
        conn.execute("drop role reporting")


def test_the_check_takes_microseconds(granted: Database) -> None:
    with granted.as_caller({"role": "service_role"}) as caller:
        caller.execute("reset role")
        query = "select count(gre.require_worker()) from generate_series(1, 20000)"
        assert quickest(lambda: one(caller, query), 20_000 * 50e-6) < 20_000 * 50e-6
