"""The table of cases: the fault, its duration, and the guarantees during and after it.

All times are in seconds. `recovers` bounds the time from the end of the fault (where one of two workers is killed: from
the kill) until all earlier messages have arrived and wake-ups arrive. `bystanders` are the sinks that the fault must not
slow down, with the time within which 99 of 100 messages that are committed during the fault reach them. If a fault
affects some sessions only, the limit is for the other sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.chaos import breaking as b
from tests.chaos.scene import Fault
from tests.chaos.tcp_proxy import TcpProxy
from tests.chaos.watch import SINKS

UNHARMED = 1.5
"""A message takes some 10 ms; the rest allows for two busy cores."""
BOTH = dict.fromkeys(SINKS, UNHARMED)
PUSHER, ONESIGNAL = {"pusher": UNHARMED}, {"onesignal": UNHARMED}
POLLED = dict.fromkeys(SINKS, 2.0)
"""No wake-up, and the worker knows it: a poll each second."""
UNNOTICED = dict.fromkeys(SINKS, 6.5)
"""No wake-up, and the worker does not know it yet: GRE_POLL_INTERVAL, 5 s."""

SHARED = dict.fromkeys(SINKS, 2.0)
"""Events that share a request with one that fails it: they are sent again after a moment."""
FOUND_BY_HEARTBEAT = 35.0
"""A silent socket is found by the next heartbeat within 20 s and 10 s for its answer, then replaced."""
LEASE = 3.0
_LEASE = {"GRE_LEASE_SECONDS": f"{LEASE:g}"}
_IMPATIENT = {"GRE_SEND_TIMEOUT": "2", "GRE_REQUEST_TIMEOUT": "2"}
_SOME = frozenset({1, 2, 3})
_TWICE_AFTER_A_CRASH = frozenset({"pusher"})
"""Claims and settles do not wait for the disk: a crash of the database may undo the last of them."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault under load."""

    name: str
    description: str
    fault: Fault
    lasts: float
    """Duration of the fault."""
    recovers: float
    bystanders: Mapping[str, float] = field(default_factory=dict)
    repeats: frozenset[str] = frozenset()
    """Sinks that may receive again messages that they received just before or during the fault."""
    repeated: bool = False
    """A repeat is required, else the case tests nothing."""
    reports: str = ""
    """Text that /readyz must contain during the fault."""
    workers: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    proxied: bool = False
    marked: frozenset[int] = frozenset()
    """Players of whose messages some are marked."""
    poisoned: bool = False
    """Marked messages are always refused: they become dead, and no others."""
    short: bool = False
    """Part of `make test`."""
    soak: bool = False
    """Part of the soak test."""
    rate: float = 36.0
    """Messages a second, those with files not counted."""
    files: float = 0.0
    """Files are sent, too; seconds from the end of the fault within which all are examined."""
    constants: Mapping[str, float] = field(default_factory=dict)
    """Of the workers, see `Worker`."""
    scanned: bool = False
    """A virus scanner examines the files, too."""


def _workers() -> list[Case]:
    may_repeat = frozenset(SINKS)
    return [
        Case(
            name="worker-killed", description="the worker is killed (SIGKILL) three times, at random moments",
            fault=b.killed_at_random, lasts=0, recovers=LEASE + 3, repeats=may_repeat, env=_LEASE,
        ),
        Case(
            name="relay-killed", description="only the relay's process is killed (SIGKILL) three times; the supervisor restarts it",
            fault=b.process_killed("relay"), lasts=0, recovers=LEASE + 3, repeats=may_repeat, env=_LEASE,
        ),
        Case(
            name="api-killed", description="only the API's process is killed (SIGKILL) three times",
            fault=b.process_killed("api"), lasts=0, recovers=12, bystanders=BOTH,
        ),
        Case(
            name="worker-killed-unsettled", description="the worker is killed between sending and settling",
            fault=b.killed_before_settle, lasts=0.5, recovers=LEASE + 1.5, repeats=may_repeat,
            repeated=True, env=_LEASE, short=True,
        ),
        Case(
            name="one-of-two-killed", description="one of two workers is killed while it holds leases",
            fault=b.one_of_two_killed, lasts=LEASE + 1, recovers=LEASE + 1.5, bystanders=BOTH, repeats=may_repeat,
            workers=2, env=_LEASE, short=True,
        ),
        Case(
            name="one-of-two-paused", description="one of two workers is stopped (SIGSTOP) for longer than its lease, then continued",
            fault=b.one_of_two_paused, lasts=LEASE + 2, recovers=LEASE + 1.5, bystanders=BOTH, repeats=may_repeat,
            workers=2, env=_LEASE,
        ),
        Case(
            name="worker-terminated", description="SIGTERM under load; a new worker 1 s later",
            fault=b.terminated, lasts=1, recovers=3,
        ),
        Case(
            name="worker-terminated-twice", description="SIGTERM while Pusher does not answer, then a second SIGTERM",
            fault=b.terminated_twice, lasts=0.5, recovers=LEASE + 1.5, env=_LEASE,
        ),
    ]  # fmt: skip


def _realtime() -> list[Case]:
    back = 12.0  # the pause between attempts has grown meanwhile
    return [
        Case(
            name="realtime-refuses", description="Realtime drops its sockets and refuses new ones (502)",
            fault=b.realtime(refuse=True), lasts=4, recovers=back, bystanders=POLLED, soak=True,
        ),
        Case(
            name="realtime-accepts-and-closes", description="Realtime accepts each socket and closes it",
            fault=b.realtime(accept_then_close=True), lasts=4, recovers=back, bystanders=POLLED, soak=True,
        ),
        Case(
            name="realtime-half-open", description="Realtime's sockets stay open, but no frame arrives and none is answered",
            fault=b.realtime(drop=False, mute=True), lasts=8, recovers=FOUND_BY_HEARTBEAT, bystanders=UNNOTICED,
        ),
        Case(
            name="realtime-no-wakeups", description="Realtime is joined and answers, but no wake-up arrives",
            fault=b.realtime(drop=False, deaf=True), lasts=8, recovers=6.5, bystanders=UNNOTICED, short=True, soak=True,
        ),
        Case(
            name="realtime-join-unanswered", description="Realtime's sockets are dropped, and no join is answered",
            fault=b.realtime(ignore_joins=True), lasts=4, recovers=35, bystanders=POLLED,
        ),
        Case(
            name="realtime-channel-closed", description="Realtime closes the channels (phx_close)",
            fault=b.action("realtime", {"action": "phx_close_all"}), lasts=2, recovers=5, bystanders=POLLED, soak=True,
        ),
        Case(
            name="realtime-system-error", description="Realtime sends each channel a system message of status error",
            fault=b.action("realtime", {"action": "system_error_all", "message": "Too many messages per second"}),
            lasts=2, recovers=5, bystanders=POLLED, soak=True,
        ),
        Case(
            name="realtime-token-expires", description="the worker's key expires while it is joined; then it gets a new one",
            fault=b.token_expires, lasts=4, recovers=2, bystanders=POLLED,
        ),
        Case(
            name="realtime-system-late", description='after a reconnection "Subscribed to PostgreSQL" arrives 6 s late',
            fault=b.realtime(system_delay=6.0), lasts=6, recovers=6, bystanders=POLLED, soak=True,
        ),
        Case(
            name="realtime-drops-rows", description="Realtime drops 7 of 10 rows and broadcasts without an error",
            fault=b.realtime(drop=False, drop_changes=0.7, drop_broadcasts=0.7), lasts=4, recovers=6.5, bystanders=UNNOTICED,
            soak=True,
        ),
    ]  # fmt: skip


def _database() -> list[Case]:
    # Pauses between calls to a database that is away are 5 s at most.
    back = 6.0
    return [
        Case(
            name="postgrest-503", description="PostgREST answers 503 (PGRST001)", lasts=3, recovers=back, reports="gre_relay_",
            fault=b.service("rest", status=503, body=b.NO_CONNECTION, retry_after=0), soak=True,
        ),
        Case(
            name="postgrest-502", description="the gateway answers 502 with an HTML page", lasts=3, recovers=back, reports="gre_relay_",
            fault=b.service("rest", status=502, body=b.GATEWAY_PAGE), soak=True,
        ),
        Case(
            name="postgrest-resets", description="PostgREST resets each connection without an answer", lasts=3, recovers=back,
            fault=b.service("rest", mode="refuse"), reports="gre_relay_", soak=True,
        ),
        Case(
            name="supabase-refused", description="connections to Supabase (PostgREST and Realtime) are refused", lasts=3,
            recovers=12, fault=b.network("supabase", breaks=TcpProxy.unplug), reports="gre_relay_", proxied=True, soak=True,
        ),
        Case(
            name="claim-committed-unanswered", description="claims commit, but time out at the worker", lasts=4, recovers=back + 2,
            fault=b.service("rest", mode="stall", **b.CLAIM), env=_IMPATIENT, reports="no answer in time",
        ),
        Case(
            name="settle-committed-unanswered", description="settles commit, but time out at the worker", lasts=4,
            recovers=back + 2, fault=b.service("rest", mode="stall", **b.SETTLE), env=_IMPATIENT, bystanders=UNNOTICED,
        ),
        Case(
            name="postgrest-stalls", description="every call commits, and none is answered", lasts=4, recovers=back + 2,
            fault=b.service("rest", mode="stall"), env=_IMPATIENT, reports="no answer in time",
        ),
        Case(
            name="postgrest-empty-400", description="PostgREST answers 400 with an empty code, as after a crash", lasts=2,
            recovers=back, fault=b.service("rest", status=400, body=b.EMPTY_CODE), reports="the database is away", soak=True,
        ),
        Case(
            name="postgres-restarted", description="PostgreSQL is restarted (fast)", lasts=0, recovers=back + 2,
            fault=b.action("postgres", {"action": "restart"}), soak=True,
        ),
        Case(
            name="postgres-stopped", description="PostgreSQL is stopped for 6 s", lasts=6, recovers=back + 2,
            fault=b.action("postgres", {"action": "stop"}, after={"action": "start"}), reports="gre_relay_",
        ),
        Case(
            name="postgres-crashed", description="PostgreSQL crashes (immediate), is away for 1 s and recovers", lasts=1,
            recovers=back, fault=b.action("postgres", {"action": "crash"}, after={"action": "start"}),
            repeats=_TWICE_AFTER_A_CRASH, short=True, soak=True,
        ),
        Case(
            name="postgres-backend-killed", description="a backend of PostgreSQL is killed (SIGKILL): all backends end, and PostgreSQL recovers",
            lasts=0.5, recovers=back, fault=b.backend_killed, repeats=_TWICE_AFTER_A_CRASH, soak=True,
        ),
        Case(
            name="postgres-terminated", description="every connection to PostgreSQL is terminated", lasts=0, recovers=back,
            fault=b.action("postgres", {"action": "terminate_backends"}), soak=True,
        ),
        Case(
            name="clock-back", description="the database's clock steps back by an hour", lasts=0.5, recovers=1.5,
            fault=b.clock_steps(-3600),
        ),
        Case(
            name="clock-forward", description="the database's clock steps forward by an hour", lasts=0.5, recovers=1.5,
            fault=b.clock_steps(3600), repeats=frozenset(SINKS),
        ),
    ]  # fmt: skip


def _sinks() -> list[Case]:
    cases = []
    for sink, port, other in (("pusher", "pusher", ONESIGNAL), ("onesignal", "onesignal", PUSHER)):
        # Pusher has no idempotency key: it receives again what it accepted without our knowledge.
        unknown = frozenset({sink}) if sink == "pusher" else frozenset()
        called = {"pusher": "Pusher", "onesignal": "OneSignal"}[sink]
        cases += [
            Case(
                name=f"{sink}-500", description=f"{called} answers 500 for 3 s", lasts=3, recovers=2.5, bystanders=other,
                fault=b.service(sink, status=500), reports=f"{sink}: ", short=sink == "pusher", soak=True,
            ),
            Case(
                name=f"{sink}-refused", description=f"connections to {called} are refused", lasts=3, recovers=2.5, bystanders=other,
                fault=b.network(port, breaks=TcpProxy.unplug), reports=f"{sink}: ", proxied=True, soak=True,
            ),
            Case(
                name=f"{sink}-hangs", description=f"{called} does not answer", lasts=4, recovers=4, bystanders=other,
                fault=b.service(sink, mode="hang"), reports=f"{sink}: ", env=_IMPATIENT,
            ),
            Case(
                name=f"{sink}-429", description=f"{called} answers 429 with Retry-After: 2", lasts=3, recovers=3.5, bystanders=other,
                fault=b.service(sink, status=429, retry_after=2), reports=f"{sink}: ", soak=True,
            ),
            Case(
                name=f"{sink}-401", description=f"{called} answers 401 for 3 s", lasts=3, recovers=2.5, bystanders=other,
                fault=b.service(sink, status=401), reports=f"{sink}: ", soak=True,
            ),
            Case(
                name=f"{sink}-403", description=f"{called} answers 403 for 3 s", lasts=3, recovers=2.5, bystanders=other,
                fault=b.service(sink, status=403), reports=f"{sink}: ", soak=True,
            ),
            Case(
                name=f"{sink}-truncated", description=f"{called} accepts events, and its answers are truncated", lasts=2, recovers=2.5,
                bystanders=other, fault=b.service(sink, mode="truncate"), reports=f"{sink}: ", repeats=unknown, soak=True,
            ),
            Case(
                name=f"{sink}-no-json", description=f"a proxy answers for {called} with an HTML page and a 2xx status", lasts=2,
                recovers=2.5, bystanders=other, fault=b.service(sink, status=203, body="<html>Welcome</html>"),
                reports=f"{sink}: ", soak=True,
            ),
            Case(
                name=f"{sink}-answer-lost", description=f"{called} accepts events, and its answers are lost", lasts=2, recovers=2.5,
                bystanders=other, fault=b.service(sink, mode="lose_answer"), reports=f"{sink}: ", repeats=unknown,
                repeated=bool(unknown), soak=True,
            ),
        ]  # fmt: skip
    cases += [
        Case(
            name="poison-400", description="both sinks refuse some events (400), in the middle of batches", lasts=3, recovers=3,
            bystanders=BOTH, fault=b.marked(*SINKS, status=400), marked=_SOME, poisoned=True, env={"GRE_MAX_ATTEMPTS": "2"},
            short=True,
        ),
        Case(
            name="poison-413", description="both sinks refuse some events as too large (413)", lasts=3, recovers=3, bystanders=BOTH,
            fault=b.marked(*SINKS, status=413), marked=_SOME, poisoned=True, env={"GRE_MAX_ATTEMPTS": "2"},
        ),
        Case(
            name="some-events-500", description="Pusher answers 500 to some events only, for 4 s", lasts=4, recovers=6,
            bystanders=SHARED, fault=b.marked("pusher", status=500), marked=_SOME, short=True,
        ),
    ]  # fmt: skip
    return cases


def _network() -> list[Case]:
    everything = ("supabase", *SINKS)
    unknown = frozenset({"pusher"})
    return [
        Case(
            name="network-cut", description="every byte between the worker and all services is lost for 5 s", lasts=5, recovers=12,
            fault=b.network(*everything, breaks=TcpProxy.cut), repeats=unknown, proxied=True, env=_IMPATIENT, short=True,
        ),
        Case(
            name="network-half-open", description="the worker's open connections are cut without a reset; new ones work", lasts=0,
            recovers=FOUND_BY_HEARTBEAT, fault=b.network(*everything, breaks=TcpProxy.freeze), repeats=unknown, proxied=True,
            env=_IMPATIENT,
        ),
        Case(
            name="network-unplugged", description="all connections of the worker are reset, and new ones refused, for 3 s", lasts=3,
            recovers=12, fault=b.network(*everything, breaks=TcpProxy.unplug), repeats=unknown, proxied=True, reports="gre_relay_",
            soak=True,
        ),
        Case(
            name="network-slow", description="every byte is delayed by 0.2 s in each direction", lasts=4, recovers=3,
            bystanders=dict.fromkeys(SINKS, 4.0), fault=b.network(*everything, breaks=lambda proxy: proxy.slow(0.2)), proxied=True,
            soak=True,
        ),
    ]  # fmt: skip


CASES: tuple[Case, ...] = (*_workers(), *_realtime(), *_database(), *_sinks(), *_network())
