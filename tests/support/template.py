"""A process that has imported the daemon and forks one for each request.

Importing the daemon costs two seconds of CPU, most of the time of many tests. A forked daemon has its own pid, session
membership, environment, log and signals, as one that was started by a command; only the imports are shared.
`python -m tests.support.template PATH` is the template; `Template` starts it and asks it for daemons.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from gre_bridge.daemon.supervisor import end_with
from tests.support.waiting import wait_until

_INHERITED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
"""Signals that a command ignores if the process that starts it does."""


class Forked:
    """A forked process, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, connection: socket.socket) -> None:
        """`connection` brings the pid, and the exit status when the process has ended."""
        self._lines = connection.makefile("rb")
        self._connection = connection
        self._lock = threading.Lock()
        self.returncode: int | None = None
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        """Return the exit status, None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; raise subprocess.TimeoutExpired after `timeout` seconds."""
        with self._lock, selectors.DefaultSelector() as selector:
            if self.returncode is None:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("forked", timeout or 0.0)
                self.returncode = int(self._lines.readline())
                self._lines.close()
                self._connection.close()
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Template:
    """The client's side. The process ends with this one."""

    def __init__(self, directory: Path) -> None:
        """`directory`: an existing one for the socket; the path must be short (108 bytes)."""
        self._path = directory / "template"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-m", __name__, str(self._path)])
        wait_until(self._path.exists, 60, what="the template")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)

    def start(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        out: IO[bytes],
        constants: Mapping[str, float] | None = None,
    ) -> Forked:
        """Start `gre-bridge` with these arguments and variables, and with `out` as its output.

        `constants` are values of constants in this daemon alone: `{"gre_bridge.api.ws.session.SEND_TIMEOUT": 1.0}`.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self._path))
        ignored = [number for number in _INHERITED if signal.getsignal(number) is signal.SIG_IGN]
        request = {
            "arguments": list(arguments), "env": dict(env), "constants": dict(constants or {}),
            "cwd": str(Path.cwd()), "ignored": ignored,
        }  # fmt: skip
        socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], [out.fileno()])
        return Forked(connection)


def _serve(path: str) -> NoReturn:
    """Fork a daemon for each connection, until the parent of this process ends."""
    import gre_bridge.cli.app
    import gre_bridge.daemon.run
    import gre_bridge.db.writes  # noqa: F401 - the API imports it when it starts

    gc.collect()
    gc.freeze()
    end_with(os.getppid())
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{path}.new")
    listener.listen(64)
    Path(f"{path}.new").rename(path)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(reading, selectors.EVENT_READ)
    children: dict[int, socket.socket] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection = listener.accept()[0]
                request, out = _read(connection)
                if (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    selector.close()
                    for opened in (listener, connection, *children.values()):
                        opened.close()
                    os.close(reading)
                    os.close(writing)
                    _become(request, out)
                os.close(out)
                children[pid] = connection
                connection.sendall(b"%d\n" % pid)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(reading, 4096)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with children.pop(ended[0]) as connection, contextlib.suppress(OSError):
                    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(ended[1]))


def _read(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """Return the request and the file for the output."""
    data, (out,), _, _ = socket.recv_fds(connection, 65536, 1)
    while not data.endswith(b"\n"):
        data += connection.recv(65536)
    request: dict[str, Any] = json.loads(data)
    return request, out


def _set_constant(name: str, value: float) -> None:
    """Replace a constant of a module that is imported; raise KeyError or AttributeError if there is none."""
    module, _, constant = name.rpartition(".")
    getattr(sys.modules[module], constant)
    setattr(sys.modules[module], constant, value)


def _become(request: dict[str, Any], out: int) -> NoReturn:
    """Run the command in the forked process; do not return."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in _INHERITED:
            ignored = number in request["ignored"]
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        sys.argv = ["gre-bridge", *request["arguments"]]
        for name, value in request["constants"].items():
            _set_constant(name, value)
        from gre_bridge.cli.main import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
