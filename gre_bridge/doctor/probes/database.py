"""Probes PostgreSQL directly, through SUPABASE_DB_URL: migrations, row-level security, Realtime's objects, transactions.

The facts come from `db.catalog`, in one read-only transaction; the functions named `judge…` are pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from gre_bridge.config.settings import Settings
from gre_bridge.db.catalog import differences, expected_catalog, read_facts
from gre_bridge.db.inspection import PUBLISH_MESSAGES
from gre_bridge.db.names import MESSAGES
from gre_bridge.db.names import PUBLICATION as PUBLICATION_NAME
from gre_bridge.db.types import Json
from gre_bridge.doctor.probes.files import judge_objects
from gre_bridge.doctor.probes.keys import project_of
from gre_bridge.doctor.probes.schema import TRIGGERS, judge_schema
from gre_bridge.doctor.report import Finding, failed, ok, skipped, warn
from gre_bridge.errors import BridgeError, ConfigurationError
from gre_bridge.migrations.files import Status as Migrations
from gre_bridge.migrations.runner import status

DATABASE, MIGRATIONS, RLS, PUBLICATION = ("database", "migrations", "row-level security", "publication")
SEND, TRANSACTIONS, REPLICATION, CONNECTIONS = (
    "realtime.send",
    "old transactions",
    "replication",
    "connections",
)
NO_PARTITION = "restart Realtime (dashboard > Settings): it makes the day's partition when it starts and when a client connects"
TIMEOUT = 10
"""Seconds for the connection, and again for each statement."""
MAX_RETAINED_WAL = 1024**3
"""Bytes of WAL; an idle slot that retains more is a warning."""


def probe_database(settings: Settings) -> list[Finding]:
    """Make every check that needs SUPABASE_DB_URL. Blocks the thread; TIMEOUT bounds each step."""
    if settings.supabase_db_url is None:
        return [
            skipped(
                DATABASE,
                "SUPABASE_DB_URL is not set: migrations, row-level security, publication and transactions were not checked",
            )
        ]
    url = settings.supabase_db_url.get_secret_value()
    if mismatch := other_project(url, settings.supabase_url):
        return [failed(DATABASE, mismatch, "take SUPABASE_DB_URL and SUPABASE_URL from one project")]
    try:
        migrations = status(url)
        facts = read_facts(url, timeout=TIMEOUT)
    except BridgeError as error:
        if isinstance(error, ConfigurationError):
            return [failed(DATABASE, str(error), "check SUPABASE_DB_URL (dashboard > Connect)")]
        return [failed(DATABASE, str(error), "try again; check the project's state in the dashboard")]
    schema = differences(facts["catalog"], expected_catalog()) if migrations.installed else None
    return [
        ok(DATABASE, f"connected as {facts['role']}"),
        *judge_migrations(
            migrations, complete=schema is not None and not any(item.missing for item in schema)
        ),
        *judge(facts),
        *(
            judge_schema(schema)
            if schema is not None and (migrations.applied or migrations.unrecorded)
            else ()
        ),
    ]


def password_of(url: str) -> str:
    """Return the password of an address, or an empty string."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""


def other_project(db_url: str, url: str) -> str | None:
    """Return an error if the database's address at Supabase is of another project than SUPABASE_URL, else None."""
    project = project_of(url)
    try:
        parts = urlsplit(db_url)
        named = [*(parts.hostname or "").split("."), *(parts.username or "").split(".")]
    except ValueError:
        return None
    if (
        project is None
        or not (parts.hostname or "").endswith((".supabase.co", ".supabase.com"))
        or project in named
    ):
        return None
    return f"SUPABASE_DB_URL is not the database of {project}"


def judge_migrations(found: Migrations, *, complete: bool = False) -> Iterator[Finding]:
    """Report pending and drifted migrations. `complete`: the schema has every object that the files make."""
    pending = [f"{e.version}_{e.name}" for e in found.entries if e.state == "pending"]
    drifted = [f"{e.version}_{e.name}" for e in found.entries if e.state == "drifted"]
    if pending and (complete or found.unrecorded):
        yield failed(
            MIGRATIONS,
            f"the schema is complete, but {len(pending)} files are not recorded as applied (a restored dump, a repaired ledger)",
            "gre-bridge migrate --record",
        )
    elif pending:
        yield failed(
            MIGRATIONS,
            f"{len(pending)} pending: {', '.join(pending)}",
            "gre-bridge migrate (see --dry-run first)",
        )
    if drifted:
        yield warn(
            MIGRATIONS,
            f"applied with a text that differs from this release's: {', '.join(drifted)}",
            "find out who changed it; compare with sql/migrations",
        )
    if found.good:
        yield ok(MIGRATIONS, f"all {len(found.entries)} applied")


def judge(facts: Json) -> list[Finding]:
    """Judge the facts of `sql/doctor.sql`."""
    return [
        *_tables(facts),
        *_realtime(facts),
        _transactions(facts),
        _replication(facts),
        _connections(facts),
        judge_objects(facts["storage"]),
    ]


def _tables(facts: Json) -> Iterator[Finding]:
    if not facts["tables"]:
        yield skipped(RLS, "no tables yet")
        return
    if facts["open_tables"]:
        names = ", ".join(facts["open_tables"])
        fix = "; ".join(
            f"alter table public.{name} enable row level security" for name in facts["open_tables"]
        )
        yield failed(RLS, f"off on {names}: the anon key reads every row", fix)
    else:
        yield ok(RLS, f"on for all {facts['tables']} tables")
    if facts["disabled_triggers"]:
        names = ", ".join(facts["disabled_triggers"])
        yield failed(
            TRIGGERS,
            f"disabled: {names}",
            "alter table … enable trigger …, then run `gre-bridge reconcile` for the messages of the meantime",
        )
    else:
        yield ok(TRIGGERS, "all enabled")
    if facts["published"]:
        yield ok(PUBLICATION, f"{PUBLICATION_NAME} has {MESSAGES}")
    else:
        problem = f"lacks {MESSAGES}" if facts["publication"] else "does not exist"
        create = "" if facts["publication"] else f"create publication {PUBLICATION_NAME}; "
        yield warn(
            PUBLICATION,
            f"{PUBLICATION_NAME} {problem}: row changes do not wake the workers",
            create + PUBLISH_MESSAGES,
        )


def _realtime(facts: Json) -> Iterator[Finding]:
    messages = facts["messages"]
    if not facts["send"] or messages is None:
        yield warn(
            SEND,
            "this project has no realtime.send(): the database cannot send wake-ups",
            "upgrade the project (Supabase: Settings > Infrastructure)",
        )
        return
    if not messages["today"]:
        yield failed(SEND, "realtime.messages has no partition for today (UTC): broadcasts are lost", NO_PARTITION)  # fmt: skip
    elif not facts["send_allowed"]:
        yield failed(
            SEND,
            f"role {facts['send_owner']}, the owner of gre-bridge's functions, may not call it: no wake-up is sent, and no error is reported",
            f"grant usage on schema realtime to {facts['send_owner']}; grant execute on function realtime.send to {facts['send_owner']};"
            f" grant insert on realtime.messages to {facts['send_owner']}",
        )
    elif not messages["policy"] and facts["tables"]:
        yield warn(SEND, "no policy keeps signed-in users from receiving and sending on the topic gre:relay (session ids, never text)",
                   "run the part `gre_relay_is_private` of sql/migrations/20261128101000_gre_access.sql in the dashboard's SQL editor")  # fmt: skip
    elif not messages["rls"]:
        yield failed(
            SEND,
            "row-level security is off on realtime.messages: anybody with the anon key can send wake-ups",
            "alter table realtime.messages enable row level security",
        )
    else:
        yield ok(SEND, "exists, has today's partition, and is closed to users")


def _transactions(facts: Json) -> Finding:
    old = facts["transactions"]
    if not old and not facts["prepared"]:
        return ok(TRANSACTIONS, "none older than 5 minutes")
    found = [
        f"pid {t['pid']} ({t['user']}, {t['application'] or 'no name'}, {t['state']}) for {t['age'] / 60:.0f} minutes"
        for t in old
    ]
    found += [f"{facts['prepared']} prepared"] if facts["prepared"] else []
    fix = (
        f"end them: select pg_terminate_backend({old[0]['pid']})"
        if old
        else "rollback prepared '…' (pg_prepared_xacts)"
    )
    return warn(TRANSACTIONS, f"{'; '.join(found)}: they hold locks, and vacuum cannot clean the outbox", fix)


def _replication(facts: Json) -> Finding:
    if facts["wal_level"] != "logical":
        return failed(
            REPLICATION,
            f"wal_level is {facts['wal_level']}: postgres_changes cannot work",
            "set wal_level = logical and restart PostgreSQL",
        )
    slots = facts["slots"]
    if idle := [s for s in slots if not s["active"] and (s["kept"] or 0) > MAX_RETAINED_WAL]:
        kept = sum(s["kept"] for s in idle) / 1024**3
        return warn(
            REPLICATION,
            f"idle slots retain {kept:.1f} GB of WAL: {', '.join(s['name'] for s in idle)}",
            f"if it is not needed: select pg_drop_replication_slot('{idle[0]['name']}')",
        )
    if len(slots) >= facts["max_slots"]:
        return warn(
            REPLICATION,
            f"all {facts['max_slots']} replication slots are in use: Realtime may get none",
            "drop one, or raise max_replication_slots",
        )
    return ok(REPLICATION, f"logical, {len(slots)} of {facts['max_slots']} slots in use")


def _connections(facts: Json) -> Finding:
    used, limit = facts["connections"], facts["max_connections"]
    found = f"{used} of {limit} in use"
    return (
        ok(CONNECTIONS, found)
        if used < 0.8 * limit
        else warn(
            CONNECTIONS, found, "find their clients (pg_stat_activity), use the pooler, or a larger project"
        )
    )
