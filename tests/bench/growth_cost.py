"""What writing costs: CPU and WAL of a message by what is switched on, and what is left for vacuum."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.lab import percentile
from tests.bench.report import Section
from tests.support.access import Conn
from tests.support.auto import rule
from tests.support.cpu import server_cpu

EACH, SAMPLES = 20, 7
"""Messages of one sample, and samples of each kind and configuration; the configurations take turns."""
KINDS = {
    "player": "insert into gre_chat_messages (player_id, sender, message) values (%(open)s, 'player', 'a message as players write it')",
    "staff": "insert into gre_chat_messages (player_id, sender, sender_id, message) values (%(open)s, 'staff', 's1', 'an answer of staff')",
    "first of a session": "insert into gre_chat_messages (player_id, sender, message) values (%(new)s, 'player', 'the first message')",
    "player, with a file": "insert into gre_chat_messages (player_id, sender, message, attachment_ids) values (%(open)s, 'player', 'with a file',"
    " array[%(file)s::uuid])",
}
TRIGGERS = {
    "gre_chat_messages": ("gre_3_files_text", "gre_5_bind", "gre_5_figures", "gre_8_auto_reply"),
    "gre_chat_sessions": ("gre_6_figures", "zzz_gre_6_figures"),
}
"""What figures, files and auto-replies do for each message. Without them a message is stored, counted and enqueued."""
_FILE = (
    "insert into gre_chat_attachments (id, player_id, by, name, kind, type, bytes, announced_bytes, object_type, state, stored_at, ready_at,"
    " changed_at) values (%(file)s::uuid, %(open)s, 'player', 'photo.png', 'image', 'image/png', 70, 70, 'image/png', 'ready', now(), now(),"
    " now())"
)


@dataclass
class Writing:
    """Milliseconds of the server's CPU and bytes of WAL of a message of this kind, one in each sample."""

    kind: str
    switched: str
    cpu: list[float]
    wal: list[float]


class Switches:
    """Switches what a message causes: `off` nothing beyond its delivery, `default` as installed, `on` all of it, with ten rules."""

    def __init__(self, admin: Conn) -> None:
        self.admin = admin
        self.rules = False

    def set(self, to: str) -> None:
        """Switch."""
        for table, triggers in TRIGGERS.items():
            for trigger in triggers:
                self.admin.execute(
                    f"alter table {table} {'disable' if to == 'off' else 'enable'} trigger {trigger}".encode()
                )
        if to == "on" and not self.rules:
            self._make()
        self.admin.execute("update gre_auto_replies set active = %s", [to == "on"])
        self.admin.execute(
            "update gre_chat_settings set assignment = %s, hours = %s, first_reply_goal = %s, reply_goal = %s",
            ["round_robin", "desk", "5 min", "5 min"] if to == "on" else ["off", None, None, None],
        )

    def _make(self) -> None:
        self.admin.execute("insert into gre_hours (name, timezone) values ('desk', 'Europe/Malta')")
        self.admin.execute(
            "insert into gre_hours_week (hours, valid_from, weekday, opens, closes)"
            " select 'desk', (now() at time zone 'Europe/Malta')::date, d, '00:00', '24:00' from generate_series(1, 7) d"
        )
        for number in range(3):
            rule(self.admin, "closed_hours", f"c{number}")
            rule(self.admin, "nobody_online", f"n{number}")
            rule(self.admin, "waiting", f"w{number}", wait=f"{number + 1} minutes")
        rule(self.admin, "opened")
        self.rules = True


def writing(admin: Conn, sessions: int, say: Callable[[str], None], rounds: int = SAMPLES) -> list[Writing]:
    """Measure messages of each kind with everything switched off, as installed, and with everything on, in turn."""
    switches, turn, new = Switches(admin), 0, 10**7
    found: dict[tuple[str, str], Writing] = {}
    for _ in range(rounds + 1):  # the first makes the plans
        say("growth: messages with everything off, as installed, and on")
        for to in ("off", "default", "on"):
            switches.set(to)
            for kind, query in KINDS.items():
                if to == "off" and "file" in kind:
                    continue
                samples = []
                for _ in range(EACH):
                    turn, new = turn + 1, new + 1
                    values = {"open": 1 + turn % sessions, "new": new, "file": str(uuid.uuid4())}
                    if "file" in kind:
                        admin.execute(_FILE.encode(), values)
                    before = _spent(admin)
                    admin.execute(query.encode(), values)
                    samples.append([now - then for now, then in zip(_spent(admin), before, strict=True)])
                one = found.setdefault((kind, to), Writing(kind, to, [], []))
                one.cpu.append(sum(cpu for cpu, _ in samples) / EACH)
                one.wal.append(sum(wal for _, wal in samples) / EACH)
    switches.set("default")
    for one in found.values():
        del one.cpu[0], one.wal[0]
    return list(found.values())


def _spent(conn: Conn) -> tuple[float, float]:
    """Return the CPU time of the connection's process in milliseconds, and the end of the WAL in bytes."""
    row = conn.execute("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint as wal").fetchone()
    assert row is not None
    return server_cpu(conn) * 1000, float(row["wal"])


def writing_section(found: list[Writing]) -> Section:
    """Return the table of the cost of a message."""
    by = {(one.kind, one.switched): one for one in found}
    rows = []
    for kind in KINDS:
        costs = [by.get((kind, to)) for to in ("off", "default", "on")]
        rows.append(
            [kind, *("" if one is None else f"{percentile(one.cpu, 0.5):.2f}" for one in costs),
             *("" if one is None else f"{percentile(one.wal, 0.5):,.0f}" for one in costs)]
        )  # fmt: skip
    return Section(
        "The cost of a message in PostgreSQL",
        [
            "message",
            "CPU ms, all off",
            "as installed",
            "all on",
            "WAL bytes, all off",
            "as installed",
            "all on",
        ],
        rows,
        "With the history. CPU time of the connection's process (the clients' own protocol and a query of the WAL's end are in it, about 0.1 ms),"
        " WAL without images of whole pages. All off: no figures, files and auto-replies; a message is stored, counted and enqueued for two"
        " sinks. All on: assignment, hours, goals and ten rules; the first message of a session gets a greeting, a second message.",
    )


_LOAD = """
do $load$
declare
  v_token uuid;
  v_claim json;
begin
  for i in 1..{messages} / 2 loop
    insert into public.gre_chat_messages (player_id, sender, message)
      values (1 + i % {open}, 'player', 'about ' || substr(md5((i % 5000)::text), 1, 9) || ', please');
    commit;
    insert into public.gre_chat_messages (player_id, sender, sender_id, message)
      values (1 + i % {open}, 'staff', 's1', 'yes, ' || substr(md5((i * 7 % 5000)::text), 1, 9));
    commit;
    if i % 2 = 0 then
      perform set_config('request.jwt.claims',
        '{{"role": "authenticated", "app_metadata": {{"gre_role": "staff", "staff_id": "s1"}}}}', true);
      perform public.gre_mark_read(s.id, s.last_seq) from public.gre_chat_sessions s
        where s.player_id = 1 + i % {open} and s.status <> 'closed';
      commit;
    end if;
    if i % 10 = 0 then
      for v_sink in 0..1 loop
        v_token := gen_random_uuid();
        v_claim := public.gre_relay_claim_v1((array['pusher', 'onesignal'])[1 + v_sink], v_token);
        commit;
        perform public.gre_relay_settle_v1((array['pusher', 'onesignal'])[1 + v_sink], (
          select coalesce(jsonb_agg(jsonb_build_object('lane', l ->> 'lane_key', 'token', v_token, 'done', (
            select jsonb_agg(d ->> 'id') from json_array_elements(l -> 'deliveries') d))), '[]')
          from json_array_elements(v_claim -> 'lanes') l));
        commit;
      end loop;
    end if;
  end loop;
end $load$;
"""
_STATE = """
select t.relname, t.n_tup_ins as ins, t.n_tup_upd as upd, t.n_tup_hot_upd as hot, t.n_tup_del as del, t.n_dead_tup as dead,
  pg_relation_size(t.relid) as heap, pg_indexes_size(t.relid) as indexes
from pg_stat_user_tables t where t.relname ~ '^(gre_|push_|report_)'"""


@dataclass
class Table:
    """What so many messages left in one table: changes of its counters, and its bytes with the history."""

    name: str
    changes: dict[str, int]
    heap: int
    indexes: int
    seconds: float | None = None
    """Of a vacuum afterwards."""


def load(admin: Conn, messages: int, sessions: int) -> list[Table]:
    """Write so many messages, half of them of staff, read and delivered, each in its transaction; return what that left."""

    def state() -> dict[str, dict[str, int]]:
        admin.execute("select pg_stat_force_next_flush()")
        admin.execute("select pg_stat_clear_snapshot()")
        return {row.pop("relname"): row for row in admin.execute(_STATE).fetchall()}

    before = state()
    admin.execute(_LOAD.format(messages=messages, open=sessions).encode(), prepare=False)
    return [
        Table(
            name, {key: value - before[name][key] for key, value in now.items()}, now["heap"], now["indexes"]
        )
        for name, now in state().items()
        if now["ins"] + now["upd"] > before[name]["ins"] + before[name]["upd"]
    ]


def vacuum(admin: Conn, messages: int, sessions: int, say: Callable[[str], None]) -> list[Table]:
    """Write messages without vacuum, then vacuum each table that they changed, and time it."""
    say(f"growth: {messages:,} messages without vacuum")
    admin.execute("vacuum")
    found = load(admin, messages, sessions)
    for table in found:
        began = time.perf_counter()
        schema = "gre" if table.name.startswith("report_") else "public"
        admin.execute(f"vacuum {schema}.{table.name}".encode())
        table.seconds = time.perf_counter() - began
    return found


def vacuum_section(found: list[Table], messages: int, all_messages: int) -> Section:
    """Return the table of what vacuum needs."""
    rows = []
    for table in sorted(found, key=lambda one: -one.changes["dead"]):
        one = table.changes
        rows.append(
            [table.name, *(f"{one[key] * 1000 / messages:,.0f}" for key in ("ins", "upd", "dead")),
             f"{one['hot'] / one['upd']:.0%}" if one["upd"] else "", f"{table.seconds or 0:.1f}",
             f"{one['heap'] / messages:,.0f} + {one['indexes'] / messages:,.0f}",
             f"{table.heap / all_messages:,.0f} + {table.indexes / all_messages:,.0f}"]
        )  # fmt: skip
    return Section(
        "What messages leave for vacuum",
        ["table", "rows inserted", "updated", "dead", "updates in place (HOT)", "vacuum s", "bytes + of indexes, each new message",
         "bytes + of indexes, each message of the history"],
        rows,
        f"Rows for each 1,000 messages, after {messages:,} without vacuum: half of them of staff, the player's read by staff two at a"
        " time, all delivered to two sinks.",
    )  # fmt: skip
