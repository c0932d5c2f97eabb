"""What only PostgreSQL itself can tell, through SUPABASE_DB_URL: migrations, row-level security, Realtime's side, old transactions.

It reads, in one transaction that is read-only; what it found is judged by pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from gre_bridge.config.settings import Settings
from gre_bridge.db.postgres import connected
from gre_bridge.db.types import Json
from gre_bridge.doctor.probes.keys import project_of
from gre_bridge.doctor.probes.schema import TRIGGERS, judge_schema
from gre_bridge.doctor.report import Finding, failed, ok, skipped, warn
from gre_bridge.errors import BridgeError, ConfigurationError
from gre_bridge.migrations.catalog import catalog, differences, expected
from gre_bridge.migrations.files import Status as Migrations
from gre_bridge.migrations.files import sql_file
from gre_bridge.migrations.runner import status

DATABASE, MIGRATIONS, RLS, PUBLICATION = ("database", "migrations", "row-level security", "publication")
SEND, TRANSACTIONS, REPLICATION, CONNECTIONS = (
    "realtime.send",
    "old transactions",
    "replication",
    "connections",
)
NO_PARTITION = "restart Realtime (dashboard > Settings): it makes the partition of the day when it starts and when a client connects"
WITHIN = 10
"""Seconds for the connection, and again for the statement."""
SLOT_KEEPS = 1024**3
"""Bytes of WAL that an idle slot may keep before it is worth a word."""


def database(settings: Settings) -> list[Finding]:
    """Everything that SUPABASE_DB_URL can tell. Blocks; bounded by WITHIN."""
    if settings.supabase_db_url is None:
        return [
            skipped(
                DATABASE,
                "SUPABASE_DB_URL is not set: migrations, row-level security, publication, transactions not looked at",
            )
        ]
    url = settings.supabase_db_url.get_secret_value()
    if other := other_project(url, settings.supabase_url):
        return [failed(DATABASE, other, "take SUPABASE_DB_URL and SUPABASE_URL from one project")]
    try:
        migrations = status(url)
        facts = _facts(url)
    except BridgeError as error:
        told = str(error)
        wrong = isinstance(error, ConfigurationError)
        return [
            failed(
                DATABASE,
                told,
                "check SUPABASE_DB_URL (dashboard > Connect)"
                if wrong
                else "try again; see the project's state in the dashboard",
            )
        ]
    schema = differences(facts["catalog"], expected()) if migrations.installed else None
    return [
        ok(DATABASE, f"connected as {facts['role']}"),
        *judge_migrations(migrations, whole=schema is not None and not any(one.missing for one in schema)),
        *judge(facts),
        *(
            judge_schema(schema)
            if schema is not None and (migrations.applied or migrations.unrecorded)
            else ()
        ),
    ]


def password_of(url: str) -> str:
    """The password in an address, to be kept out of sight; empty when there is none."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""


def other_project(db_url: str, url: str) -> str | None:
    """What to say when a Supabase address of the database names another project than SUPABASE_URL."""
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


def _facts(url: str) -> Json:
    with connected(url, application="gre-bridge doctor", seconds=WITHIN) as connection:
        connection.read_only = True
        with connection.transaction():
            connection.execute(f"set local statement_timeout = '{WITHIN}s'")
            row = connection.execute(sql_file("doctor.sql").read_bytes()).fetchone()
            found = catalog(connection)
    assert row is not None
    facts: Json = {**row[0], "catalog": found}
    return facts


def judge_migrations(found: Migrations, *, whole: bool = False) -> Iterator[Finding]:
    """What is pending, and what was applied with another text. `whole`: the schema has all that the files make."""
    pending = [f"{e.version}_{e.name}" for e in found.entries if e.state == "pending"]
    drifted = [f"{e.version}_{e.name}" for e in found.entries if e.state == "drifted"]
    if pending and (whole or found.unrecorded):
        yield failed(
            MIGRATIONS,
            f"the schema is there, but {len(pending)} files are not recorded as applied (a restored dump, a repaired ledger)",
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
            f"applied with other text than this release ships: {', '.join(drifted)}",
            "find out who changed it; compare with sql/migrations",
        )
    if found.good:
        yield ok(MIGRATIONS, f"all {len(found.entries)} applied")


def judge(facts: Json) -> list[Finding]:
    """Everything that `sql/doctor.sql` tells."""
    return [
        *_tables(facts),
        *_realtime(facts),
        _transactions(facts),
        _replication(facts),
        _connections(facts),
    ]


def _tables(facts: Json) -> Iterator[Finding]:
    if not facts["tables"]:
        yield skipped(RLS, "there are no tables yet")
        return
    if facts["open_tables"]:
        names = ", ".join(facts["open_tables"])
        fix = "; ".join(
            f"alter table public.{name} enable row level security" for name in facts["open_tables"]
        )
        yield failed(RLS, f"off on {names}: the anon key reads them whole", fix)
    else:
        yield ok(RLS, f"on for all {facts['tables']} tables")
    if facts["disabled_triggers"]:
        names = ", ".join(facts["disabled_triggers"])
        yield failed(
            TRIGGERS,
            f"disabled: {names}",
            "alter table … enable trigger …, then `gre-bridge reconcile` announces what came in meanwhile",
        )
    else:
        yield ok(TRIGGERS, "none is disabled")
    if facts["published"]:
        yield ok(PUBLICATION, "supabase_realtime has gre_chat_messages")
    else:
        what = "lacks gre_chat_messages" if facts["publication"] else "does not exist"
        create = "" if facts["publication"] else "create publication supabase_realtime; "
        yield warn(
            PUBLICATION,
            f"supabase_realtime {what}: the second bell is silent",
            f"{create}alter publication supabase_realtime add table public.gre_chat_messages",
        )


def _realtime(facts: Json) -> Iterator[Finding]:
    messages = facts["messages"]
    if not facts["send"] or messages is None:
        yield warn(
            SEND,
            "this project has no realtime.send(): the first bell is silent",
            "upgrade the project (Supabase: Settings > Infrastructure)",
        )
        return
    if not messages["today"]:
        yield failed(SEND, "realtime.messages has no partition for today (UTC): broadcasts are lost", NO_PARTITION)  # fmt: skip
    elif not facts["send_allowed"]:
        yield failed(
            SEND,
            f"role {facts['send_owner']}, who owns gre-bridge's functions, may not call it: no wake-up is sent, and no error is told",
            f"grant usage on schema realtime to {facts['send_owner']}; grant execute on function realtime.send to {facts['send_owner']};"
            f" grant insert on realtime.messages to {facts['send_owner']}",
        )
    elif not messages["policy"] and facts["tables"]:
        yield warn(SEND, "no policy keeps signed-in users from hearing and ringing the topic gre:relay (session ids, never text)",
                   "run the part `gre_relay_is_private` of sql/migrations/20261128101000_gre_access.sql in the dashboard's SQL editor")  # fmt: skip
    elif not messages["rls"]:
        yield failed(
            SEND,
            "row-level security is off on realtime.messages: whoever has the anon key can ring",
            "alter table realtime.messages enable row level security",
        )
    else:
        yield ok(SEND, "there, with today's partition, and closed to users")


def _transactions(facts: Json) -> Finding:
    old = facts["transactions"]
    if not old and not facts["prepared"]:
        return ok(TRANSACTIONS, "none older than 5 minutes")
    told = [
        f"pid {t['pid']} ({t['user']}, {t['application'] or 'no name'}, {t['state']}) for {t['age'] / 60:.0f} minutes"
        for t in old
    ]
    told += [f"{facts['prepared']} prepared"] if facts["prepared"] else []
    fix = (
        f"end them: select pg_terminate_backend({old[0]['pid']})"
        if old
        else "rollback prepared '…' (pg_prepared_xacts)"
    )
    return warn(TRANSACTIONS, f"{'; '.join(told)}: they hold locks, and keep vacuum from the outbox", fix)


def _replication(facts: Json) -> Finding:
    if facts["wal_level"] != "logical":
        return failed(
            REPLICATION,
            f"wal_level is {facts['wal_level']}: postgres_changes cannot work",
            "set wal_level = logical and restart PostgreSQL",
        )
    slots = facts["slots"]
    if idle := [s for s in slots if not s["active"] and (s["kept"] or 0) > SLOT_KEEPS]:
        kept = sum(s["kept"] for s in idle) / 1024**3
        return warn(
            REPLICATION,
            f"idle slots keep {kept:.1f} GB of WAL: {', '.join(s['name'] for s in idle)}",
            f"if nobody needs it: select pg_drop_replication_slot('{idle[0]['name']}')",
        )
    if len(slots) >= facts["max_slots"]:
        return warn(
            REPLICATION,
            f"all {facts['max_slots']} replication slots are taken: Realtime may find none",
            "drop one, or raise max_replication_slots",
        )
    return ok(REPLICATION, f"logical, {len(slots)} of {facts['max_slots']} slots taken")


def _connections(facts: Json) -> Finding:
    used, most = facts["connections"], facts["max_connections"]
    told = f"{used} of {most} in use"
    return (
        ok(CONNECTIONS, told)
        if used < 0.8 * most
        else warn(
            CONNECTIONS, told, "find who holds them (pg_stat_activity), use the pooler, or a larger project"
        )
    )
