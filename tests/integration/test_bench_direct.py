"""The trial of a relay without PostgREST (`make bench ARGS="--only direct"`) still relays."""

from __future__ import annotations

from tests.bench.direct import direct_worker
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until


def test_a_relay_with_its_own_connections_relays_without_postgrest(stack: StackProcess) -> None:
    # Only tests/bench knows of it: the daemon itself has no such setting.
    worker = direct_worker(stack, stack.env, stack.directory / "direct.log")
    with worker:
        stack.insert(player_id=30, sender="player", message="hello").raise_for_status()
        wait_until(lambda: stack.accepted("pusher") >= 1 and stack.accepted("onesignal") >= 1, 60)
        with stack.db() as conn:
            found = conn.execute(
                "select usename, count(*) as n from pg_stat_activity where application_name = 'direct' group by 1"
            ).fetchall()
        assert [(row["usename"], row["n"] >= 1) for row in found] == [("gre_bench", True)]
