"""The backup that docs/operations.md describes: dumped from one project, restored into a fresh one, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from gre_bridge.config.settings import Settings
from gre_bridge.devstack.stack import Stack
from gre_bridge.doctor import examine
from gre_bridge.migrations.runner import migrate
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import until, wait_until

ROOT = Path(__file__).parents[2]
WAIVED = {"workers": "warn", "Pusher's channels": "warn", "wake-up: postgres_changes": "skipped"}


def commands() -> list[str]:
    """The commands of the guide for a dump and a restore."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.split("### Back up, and try the backup\n")[1].split("\n### ")[0]
    return re.findall(r"```sh\n(.+?)```", section, re.DOTALL)


def contents(dsn: str) -> dict[str, list[str]]:
    """All rows of all tables of the chat and its outbox, as text, without the registrations of workers."""
    with psycopg.connect(dsn) as conn:
        tables = conn.execute(
            "select c.oid::regclass::text from pg_class c where relkind = 'r' and relnamespace in ('public'::regnamespace, 'gre'::regnamespace)"
            " and c.oid::regclass::text not in ('gre.listeners', 'gre_relay_workers') order by 1"
        ).fetchall()
        return {
            name: sorted(row[0] for row in conn.execute(f"select t::text from {name} t".encode()))
            for (name,) in tables
        }


def shell(script: str, bin_dir: Path, **env: str) -> None:
    done = subprocess.run(
        ["sh", "-euc", script],
        env={**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", **env},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


async def test_a_dump_restored_into_a_fresh_project_loses_nothing_and_goes_on(
    stack: StackProcess, tmp_path: Path
) -> None:
    with stack.worker("relay"):
        for n in range(40):
            stack.insert(player_id=1 + n % 5, sender="player", message=f"m{n}")
        stack.drained()
    # Without a worker these stay pending, as does a push that the back end queued.
    for n in range(10):
        stack.insert(player_id=1 + n % 5, sender="player", message=f"waits {n}")
    with stack.db() as conn:
        conn.execute("update gre_chat_sessions set status = 'closed' where player_id = 2")
        conn.execute("update gre_relay_sinks set enabled = false where name = 'onesignal'")
        conn.execute("insert into gre_hours (name, timezone) values ('desk', 'Europe/Malta')")
        conn.execute("update gre_chat_settings set assignment = 'round_robin', hours = 'desk'")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's1' where player_id = 3")
    before = await asyncio.to_thread(contents, stack.env["SUPABASE_DB_URL"])

    async with Stack(data_dir=tmp_path / "fresh", durable=False) as fresh:
        dsn = fresh.postgres.dsn()
        dump, restore = commands()
        tools = fresh.postgres.bin_dir
        where = {"BACKUP": str(tmp_path / "backup.dump")}
        await asyncio.to_thread(shell, dump, tools, SUPABASE_DB_URL=stack.env["SUPABASE_DB_URL"], **where)
        assert await asyncio.to_thread(migrate, dsn)
        await asyncio.to_thread(shell, restore, tools, SUPABASE_DB_URL=dsn, **where)
        after = await asyncio.to_thread(contents, dsn)
        assert after == before and len(after["gre_chat_messages"]) == 50

        env = {**fresh.env(), "SUPABASE_DB_URL": dsn, "ONESIGNAL_APP_ID": "", "ONESIGNAL_API_KEY": ""}
        settings = Settings(_env_file=None, **env)  # type: ignore[arg-type]

        async def nothing_wrong() -> bool:  # PostgREST loads the new schema after its notification
            report = await examine(settings)
            return all(
                f.status not in ("warn", "fail") or WAIVED.get(f.check) == f.status for f in report.findings
            )

        await until(nothing_wrong, every=0.5, what="a doctor that finds nothing wrong")

        # Pending deliveries are sent from the new project, and new messages continue the sessions' order.
        def go_on() -> list[dict[str, Any]]:
            with (
                Worker(env, tmp_path / "worker.log", only="relay"),
                psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as conn,
            ):
                conn.execute(
                    "insert into gre_chat_messages (player_id, sender, message) values (1, 'player', 'next')"
                )

                def pending() -> int:
                    row = conn.execute(
                        "select count(*) as n from gre_relay_deliveries where state = 'pending' and sink = 'pusher'"
                    ).fetchone()
                    return int(row["n"]) if row else -1

                wait_until(lambda: pending() == 0, what="what waited")
                return conn.execute(
                    "select seq from gre_chat_messages where player_id = 1 order by seq"
                ).fetchall()

        seqs = await asyncio.to_thread(go_on)
        assert [row["seq"] for row in seqs] == list(range(1, 12))
