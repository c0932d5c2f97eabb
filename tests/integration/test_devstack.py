"""The embedded stack as a whole: it starts in any directory, keeps its data, has faults on request, and stops cleanly."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil
import psycopg
import pusher
import pytest
from dotenv import dotenv_values

from gre_bridge.devstack import dev as dev_module
from gre_bridge.devstack.dev import daemon_env, dev, narrator
from gre_bridge.devstack.faults import Received
from gre_bridge.devstack.keys import Keys
from gre_bridge.devstack.postgres import EmbeddedPostgres
from gre_bridge.devstack.postgrest.database import Database as PostgrestDatabase
from gre_bridge.devstack.stack import Stack
from gre_bridge.errors import ConfigurationError
from tests.support.loopback import HTTP, NO_TLS, free_port
from tests.support.memory import cluster_directory
from tests.support.stack import StackProcess
from tests.support.waiting import until, wait_until

RUN = """
import json, sys
from pathlib import Path
from gre_bridge.devstack.dev import run
options = json.loads(sys.argv[1])
options["data_dir"], options["env_file"] = Path(options["data_dir"]), Path(options["env_file"])
sys.exit(run(port=0, migrate=False, **options))
"""
# A program in place of the daemon: the tests are about its start, supervision and end.
DAEMON = """
import http.server, os, sys
assert sys.argv[1] == "--env-file" and "SUPABASE_SERVICE_KEY" in open(sys.argv[2]).read()
assert "STAFF_PORTAL_SUPABASE_URL" not in os.environ and os.environ["SUPABASE_URL"].startswith("http://127.0.0.1:")
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer((os.environ["GRE_ADMIN_HOST"], int(os.environ["GRE_ADMIN_PORT"])), Ready).serve_forever()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users may enter, with a space in its name."""
    with cluster_directory() as directory:
        directory.chmod(0o755)
        place = directory / "gre bridge"
        place.mkdir()
        place.chmod(0o755)
        yield place


def processes_of(directory: Path) -> list[str]:
    """Return every process with the directory in its command line or as its working directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(directory) in " ".join([process.cwd(), *process.cmdline()]):
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def python_for(identity: dict[str, Any], environment: dict[str, str]) -> str:
    """Return an interpreter of this version that can import the package as this user, who may not read the checkout."""
    program = "import sys, gre_bridge.devstack.dev; print(*sys.version_info[:2])"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            found = subprocess.run(
                [python, "-c", program], capture_output=True, text=True, check=True, cwd="/",
                env=environment, **identity,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        if found.stdout.split() == list(map(str, sys.version_info[:2])):
            return python
    pytest.skip("no interpreter with which another user may import this checkout")


class Dev:
    """`gre-bridge dev` as a process, as this user or as another."""

    def __init__(self, place: Path, name: str, *, user: str | None = None, **options: Any) -> None:
        home = place / name
        home.mkdir(exist_ok=True)
        identity: dict[str, Any] = {}
        environment = {
            **os.environ,
            "HOME": str(home),
            "STAFF_PORTAL_SUPABASE_URL": "https://not-here.example",
        }
        python = sys.executable
        if user:
            entry = pwd.getpwnam(user)
            os.chown(home, entry.pw_uid, entry.pw_gid)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            python = python_for(identity, environment)
        self.home = home
        self.env_file = home / "stack.env"
        self.env_file.unlink(missing_ok=True)
        options = {"worker": False, "data_dir": str(home / "data"), "env_file": str(self.env_file), **options}
        self.process = subprocess.Popen(
            [python, "-c", RUN, json.dumps(options)],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **identity,
        )

    def ready(self) -> dict[str, str]:
        """Wait for the env file; return its variables."""
        wait_until(lambda: self.env_file.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[0]
        return {name: value or "" for name, value in dotenv_values(self.env_file).items()}

    def end(self, signum: signal.Signals) -> tuple[int, str]:
        """Send a signal; return the exit status and the output."""
        self.process.send_signal(signum)
        printed, _ = self.process.communicate(timeout=120)
        return self.process.returncode, printed


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Dev]]:
    """Start `gre-bridge dev` in a new directory; it is ended after the test."""
    started: list[Dev] = []

    def start(name: str, **options: Any) -> Dev:
        started.append(Dev(place, name, **options))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
    wait_until(lambda: not processes_of(place))


def query(env: dict[str, str], statement: str) -> list[Any]:
    with psycopg.connect(env["SUPABASE_DB_URL"], autocommit=True, connect_timeout=60) as conn:
        cursor = conn.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_two_run_at_once_also_as_an_ordinary_user_and_leave_no_process_or_file(
    place: Path, start: Callable[..., Dev]
) -> None:
    other = "nobody" if os.geteuid() == 0 else None
    runs = [start("as me"), start("as other", user=other)]
    for run in runs:
        env = run.ready()
        assert HTTP.get(f"{env['GRE_DEV_STACK']}/__stack/health").json()["postgres"] is True
        assert query(
            env, "select current_user::text, rolsuper from pg_roles where rolname = current_user"
        ) == [("postgres", False)]
        assert (
            run.env_file.stat().st_mode & 0o777,
            (run.home / "data/keys.json").stat().st_mode & 0o777,
        ) == (
            0o600,
            0o600,
        )
    assert len(processes_of(place)) > 4
    for run, signum in zip(runs, (signal.SIGTERM, signal.SIGINT), strict=True):
        status, printed = run.end(signum)
        assert status == 0, printed
        assert "curl -X POST $SUPABASE_URL/rest/v1/gre_chat_messages" in printed
    assert processes_of(place) == []


def test_a_kill_leaves_no_process_and_the_next_start_has_the_rows_and_the_keys(
    place: Path, start: Callable[..., Dev]
) -> None:
    daemon = [sys.executable, "-c", DAEMON]
    run = start("killed", worker=True, daemon=daemon, http_port=free_port())
    before = run.ready()
    query(before, "create table kept as select 7 as n")
    query(before, "insert into kept values (8)")
    assert [line for line in processes_of(place) if "serve_forever" in line]
    run.process.kill()
    run.process.communicate()
    wait_until(lambda: not processes_of(place))

    # As after a crash of the machine: the file names a process that exists, but is no server.
    pid_file = run.home / "data/pg/postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{run.home / 'data/pg'}\n0\n5432\n\n127.0.0.1\n")
    run = start("killed", worker=True, daemon=daemon, http_port=free_port())
    after = run.ready()
    assert query(after, "select n from kept order by n") == [(7,), (8,)]
    same = (
        "SUPABASE_JWT_SECRET",
        "SUPABASE_SERVICE_KEY",
        "SUPABASE_ANON_KEY",
        "PUSHER_SECRET",
        "ONESIGNAL_API_KEY",
    )
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert run.end(signal.SIGTERM)[0] == 0
    assert processes_of(place) == []


@pytest.mark.parametrize("wanted", [0, None], ids=["none wanted", "the default ones in use"])
def test_free_ports_of_the_daemon_are_none_that_a_connection_may_get_meanwhile(
    monkeypatch: pytest.MonkeyPatch, wanted: int | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("GRE_HTTP_PORT", str(one.getsockname()[1]))
        monkeypatch.setenv("GRE_ADMIN_PORT", str(other.getsockname()[1]))
        env = daemon_env(wanted)
    ports = {int(env["GRE_HTTP_PORT"]), int(env["GRE_ADMIN_PORT"])}
    assert len(ports) == 2
    assert all(1024 < port < 32768 for port in ports), "Linux gives those from 32768 on to connections"


def test_the_exit_status_is_1_if_the_daemon_dies(place: Path, start: Callable[..., Dev]) -> None:
    run = Dev(
        place,
        "dying",
        worker=True,
        daemon=[sys.executable, "-c", "raise SystemExit(3)"],
        http_port=free_port(),
    )
    printed, _ = run.process.communicate(timeout=120)
    assert (run.process.returncode, "the daemon ended with status 3" in printed) == (1, True)
    assert not run.env_file.exists()
    assert processes_of(place) == []


def test_a_second_start_on_a_directory_in_use_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gre_bridge.devstack.postgres.LOCK_TIMEOUT", 0.2)
    second = EmbeddedPostgres(data_dir=place / "one", durable=False)
    with (
        EmbeddedPostgres(data_dir=place / "one", durable=False),
        pytest.raises(ConfigurationError, match="is in use"),
    ):
        second.start()


def test_it_starts_in_a_directory_closed_to_other_users_and_clones_databases(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(data_dir=closed / "data", durable=False) as pg:
        pg.install_supabase()
        pg.create_database("template")
        with pg.connect("template") as conn:
            conn.execute("create table t as select 1")
        pg.create_database("copy", "template")
        with pg.connect("copy") as conn:
            assert conn.execute("select * from t").fetchall() == [(1,)]
        pg.drop_database("copy")


def test_it_starts_with_binaries_in_a_directory_closed_to_other_users(place: Path) -> None:
    closed = place / "checkout"
    closed.mkdir(mode=0o700)

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)

    package = EmbeddedPostgres(data_dir=place / "unused").bin_dir.parents[1]
    for part in (
        package,
        *package.parent.glob(f"{package.name}.libs"),
    ):  # the directory of the wheel's libraries
        shutil.copytree(part, closed / part.name, copy_function=link, symlinks=True)
    programs = closed / package.name / "pginstall" / "bin"
    before = os.umask(0o077)
    try:
        with EmbeddedPostgres(data_dir=closed / "data", bin_dir=programs, durable=False) as pg:
            pg.install_supabase()
    finally:
        os.umask(before)


async def test_what_the_migrations_made_can_be_called_once_the_addresses_are_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(db_url: str) -> None:
        with psycopg.connect(db_url, autocommit=True) as conn:
            conn.execute("create function public.made() returns integer language sql as 'select 7'")
            conn.execute("grant execute on function public.made() to anon")

    async def never(*_: Any) -> None:
        """As if the notification of the migrations was still to be followed."""
        await asyncio.Event().wait()

    monkeypatch.setattr(dev_module, "migrate_and_seed", make)
    monkeypatch.setattr(PostgrestDatabase, "_follow", never)
    file = place / "env"
    running = asyncio.create_task(
        dev(port=0, data_dir=place / "data", env_file=file, worker=False, out=io.StringIO())
    )
    await until(lambda: file.exists() or running.done(), 120, what="the env file")
    try:
        env = dotenv_values(file)
        async with httpx.AsyncClient(trust_env=False, timeout=60, verify=NO_TLS) as client:
            answer = await client.post(
                f"{env['SUPABASE_URL']}/rest/v1/rpc/made",
                json={},
                headers={"apikey": env["SUPABASE_ANON_KEY"] or ""},
            )
        assert (answer.status_code, answer.text) == (200, "7")
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(data_dir=tmp_path / "stack", durable=False) as stack:
        yield stack


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    key = stack.keys.service_key
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60, verify=NO_TLS) as client:
        yield client


async def answers(http: httpx.AsyncClient, path: str, status: int, timeout: float = 120.0) -> httpx.Response:
    """Repeat the request until the status is the expected one."""

    async def answered() -> httpx.Response | None:
        response = await http.get(path)
        return response if response.status_code == status else None

    found: httpx.Response = await until(answered, timeout, 0.05, f"{path} answers {status}")
    return found


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `gre-bridge dev …` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gre_bridge", "dev", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_file_of_another_program_is_not_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "prod.env"
    mine.write_text("SUPABASE_URL=https://p.supabase.co\n")
    done = command("--data-dir", str(tmp_path / "data"), "--port", "0", "--write-env", str(mine))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "was not written by gre-bridge dev" in done.stderr
    assert mine.read_text() == "SUPABASE_URL=https://p.supabase.co\n"


def test_a_token_for_any_user_is_printed(tmp_path: Path) -> None:
    assert "start `gre-bridge dev` first" in command("token", "player:30", "--data-dir", str(tmp_path)).stderr
    keys = Keys.of(tmp_path)
    done = command("token", "player:30", "--expires", "60", "--data-dir", str(tmp_path))
    claims = jwt.decode(done.stdout.strip(), keys.jwt_secret, ["HS256"], audience="authenticated")
    assert claims["app_metadata"] == {"gre_role": "player", "player_id": 30}
    assert claims["exp"] - claims["iat"] == 60
    assert command("token", "guest:1", "--data-dir", str(tmp_path)).returncode == 2


async def test_one_port_serves_all_services_and_refuses_other_paths(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    env = stack.env()
    for name in ("SUPABASE_URL", "ONESIGNAL_API_URL", "GRE_DEV_STACK"):
        assert env[name].startswith(stack.url)
    await asyncio.to_thread(query, env, "create table public.t as select 5 as n")
    assert (await answers(http, "/rest/v1/t", 200)).json() == [{"n": 5}]
    assert (await http.get("/realtime/v1/nothing")).status_code == 404
    sender = pusher.Pusher(
        env["PUSHER_APP_ID"],
        env["PUSHER_KEY"],
        env["PUSHER_SECRET"],
        host=env["PUSHER_HOST"],
        port=int(env["PUSHER_PORT"]),
        ssl=False,
    )
    await asyncio.to_thread(sender.trigger, "c", "e", {"id": "x"})
    push = {
        "app_id": env["ONESIGNAL_APP_ID"],
        "target_channel": "push",
        "contents": {"en": "x"},
        "include_aliases": {"external_id": ["s1"]},
    }
    key = {"Authorization": f"Key {env['ONESIGNAL_API_KEY']}"}
    assert (await http.post(f"{env['ONESIGNAL_API_URL']}/notifications", json=push, headers=key)).json()["id"]
    received = (await http.get("/__stack/received?sink=pusher")).json()
    assert [(item["channel"], item["name"], item["data"]) for item in received["items"]] == [
        ("c", "e", {"id": "x"})
    ]
    assert (await http.get(f"/__stack/received?sink=pusher&since={received['last']}")).json()["items"] == []
    health = (await http.get("/__stack/health")).json()
    assert health["received"] == {sink: {"requests": 1, "accepted": 1} for sink in ("pusher", "onesignal")}
    await http.delete("/__stack/received")
    assert (await http.get("/__stack/received?sink=onesignal")).json() == {"items": [], "last": 0}
    assert (await http.get("/storage/v1/bucket")).json() == []
    for path in ("/auth/v1/user", "/storage/v1/s3", "/"):
        assert (await http.get(path)).status_code == 501


def test_tokens_have_the_identity_in_app_metadata() -> None:
    keys = Keys.generate()
    token = keys.user_token("player", player_id=29, expires_in=60)
    claims = jwt.decode(token, keys.jwt_secret, ["HS256"], audience="authenticated")
    assert claims["app_metadata"] == {"gre_role": "player", "player_id": 29}
    assert claims["role"] == "authenticated"
    assert claims["exp"] - claims["iat"] == 60


def test_each_event_of_a_sink_is_logged_in_a_line_without_its_text() -> None:
    out = io.StringIO()
    told = narrator(out)
    pusher_record, onesignal_record = (
        Received(on_request=partial(told, sink)) for sink in ("pusher", "onesignal")
    )
    event = {"id": "m1", "seq": 3, "message": "secret text"}
    pusher_record.record(200, [{"channel": "staff-portal", "name": "new", "data": json.dumps(event)}], 99)
    pusher_record.record(503, [], 0)
    body = {"include_aliases": {"external_id": ["s1", "s2"]}, "contents": {"en": "secret text"}}
    onesignal_record.record(200, [{"id": "p1", "body": body}], 99)
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == ["pusher staff-portal new id=m1 seq=3", "pusher [503] - -", "onesignal to s1,s2 id=p1"]


async def test_faults_of_a_service_end_by_count_by_time_and_by_request(
    http: httpx.AsyncClient, stack: Stack
) -> None:
    await asyncio.to_thread(query, stack.env(), "create table public.t as select 5 as n")
    await answers(http, "/rest/v1/t", 200)
    rules = [
        {"status": 429, "retry_after": 1.5, "times": 1},
        {"status": 500, "for": 2.0, "path": "/rest/v1/t"},
    ]
    await http.post("/__stack/faults", json={"rest": rules})
    first = await http.get("/rest/v1/t")
    assert (first.status_code, first.headers["retry-after"]) == (429, "1.5")
    assert (await http.get("/rest/v1/t")).status_code == 500
    await answers(http, "/rest/v1/t", 200)
    await http.post("/__stack/faults", json={"rest": {"mode": "refuse"}, "realtime": {"refuse": True}})
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/rest/v1/t")
    assert (await http.get("/__stack/faults")).json()["realtime"]["refuse"] is True
    cleared = (await http.delete("/__stack/faults")).json()
    assert (cleared["rest"], cleared["realtime"]["refuse"]) == ([], False)
    assert (await http.get("/rest/v1/t")).status_code == 200


def test_an_invalid_fault_is_refused(stack_process: StackProcess) -> None:
    nonsense: Any
    for nonsense in (
        {"rest": {"statu": 500}},
        {"rest": {"mode": "x"}},
        {"rest": 7},
        {"nobody": {}},
        {"postgres": {"action": "x"}},
        {"realtime": {"x": 1}},
        [],
    ):
        assert stack_process.http.post("/__stack/faults", json=nonsense).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Content-Type": "text/plain"},
        {"Origin": "null", "Content-Type": "text/plain"},
        {"Host": "evil.example:54321"},
        {"Origin": "http://127.0.0.1.evil.example"},
    ],
    ids=["another site", "a sandboxed page", "a rebound name", "a look-alike"],
)
def test_pages_of_other_sites_cannot_set_faults_or_read_events(
    stack_process: StackProcess, headers: dict[str, str]
) -> None:
    http = stack_process.http
    http.delete("/__stack/faults").raise_for_status()
    for method, path in (
        ("POST", "faults"),
        ("DELETE", "faults"),
        ("GET", "received?sink=pusher"),
        ("GET", "health"),
    ):
        refused = http.request(
            method, f"/__stack/{path}", content='{"rest": {"status": 500}}', headers=headers
        )
        assert refused.status_code == 403
    assert http.get("/__stack/faults").json()["rest"] == []
    from_here = {"Origin": "http://localhost:5173", "Content-Type": "application/json"}
    assert http.get("/__stack/health", headers=from_here).status_code == 200


async def test_postgres_can_crash_and_restart_with_all_committed_rows(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    env = stack.env()
    await asyncio.to_thread(query, env, "create table public.t as select 5 as n")
    await answers(http, "/rest/v1/t", 200)
    await http.post("/__stack/faults", json={"postgres": {"action": "crash"}})
    await answers(http, "/rest/v1/t", 503)
    assert (await http.get("/__stack/health")).json()["postgres"] is False
    await http.post("/__stack/faults", json={"postgres": {"action": "start"}})
    assert (await answers(http, "/rest/v1/t", 200)).json() == [{"n": 5}]
    await http.post("/__stack/faults", json={"postgres": {"action": "terminate_backends"}})
    assert (await answers(http, "/rest/v1/t", 200)).json() == [{"n": 5}]
