"""Child processes that end when the program that started them ends.

`ChildProcess` starts this file as a script, the monitor, between the starter and the command. The monitor reads a pipe
from the starter: a byte is a signal to forward, and end of file means that the starter closed the pipe or died. It then
stops the command: `stop_signal`, after `grace` seconds `last_signal`, after `grace` seconds more SIGKILL to its process
group. If the monitor itself is killed, the kernel (on Linux) sends `last_signal` to the command.

The script runs isolated (`python -I -S`), so this module imports the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# linux/prctl.h, linux/securebits.h, linux/capability.h
_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2
_SECBIT_NO_SETUID_FIXUP = 4
_CAPABILITY_VERSION_3, _CAP_DAC_OVERRIDE = 0x20080522, 1


class ChildProcess:
    """A running command with its monitor, as the starter sees it. Thread-safe."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stop_signal: signal.Signals,
        last_signal: signal.Signals = signal.SIGKILL,
        grace: float = 10.0,
        user: tuple[int, int] | None = None,
        keep_access: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        output: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start `command` in a new session, with /dev/null as its standard input.

        `grace` is in seconds. `user` (uid, gid) is the user that runs the command if the starter is root; `keep_access`
        then keeps the one capability to enter directories that are closed to that user (Linux). `output` is the file
        descriptor for stdout and stderr. Raises OSError if the monitor cannot be started.
        """
        self._grace = grace
        options = {
            "stages": [int(stop_signal), int(last_signal), int(signal.SIGKILL)],
            "grace": grace,
            "user": user,
            "keep_access": keep_access,
            "pass_fds": list(pass_fds),
        }
        inner, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__)), json.dumps(options), *command],
                stdin=inner,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(inner)

    @property
    def returncode(self) -> int | None:
        """The command's exit status, 128 + n if signal n ended it; None while it runs."""
        return self._process.poll()

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to the command; no effect after it has ended."""
        with contextlib.suppress(OSError):
            os.write(self._pipe, bytes([signum]))

    def wait(self, timeout: float) -> int:
        """Wait until the command ends, and return its exit status. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        return self._process.wait(timeout)

    def close(self) -> int:
        """Stop the command if it runs, as the module describes, and return its exit status."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        try:
            return self._process.wait(3 * self._grace + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(5)


def _become(uid: int, gid: int, keep_access: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if keep_access:
        if sys.platform != "linux":
            raise OSError("the program or its data is in a directory closed to that user")
        # Not PR_SET_KEEPCAPS: PostgreSQL finds its programs with access(2), which without this bit drops all
        # capabilities of a real user that is not root (fs/open.c, access_override_creds).
        if libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0):
            raise OSError(
                "the program or its data is in a directory closed to that user, and root has no CAP_SETPCAP here to pass"
                " it: run as an ordinary user, or in a directory that others may enter"
            )
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if keep_access:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        mask = 1 << _CAP_DAC_OVERRIDE
        sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
        if libc.capset(header, sets) or libc.prctl(
            _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0
        ):
            raise OSError(ctypes.get_errno(), "cannot keep the capability to pass closed directories")


def _start(options: dict[str, Any], command: list[str]) -> subprocess.Popen[bytes]:
    monitor = os.getpid()

    def prepare() -> None:
        os.setsid()
        if options["user"]:
            uid, gid = options["user"]
            try:
                _become(uid, gid, options["keep_access"])
            except OSError as error:
                # Popen would not report the reason.
                os.write(2, f"cannot become user {uid}: {error}\n".encode())
                os._exit(126)
        if sys.platform == "linux":
            # After the change of user, which clears this setting.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, options["stages"][1], 0, 0, 0)
            if os.getppid() != monitor:
                os._exit(1)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=prepare,  # noqa: PLW1509 (this program has one thread)
        pass_fds=options["pass_fds"],
    )


def _end(child: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if signum == signal.SIGKILL:
            os.killpg(child.pid, signum)
        else:
            child.send_signal(signum)


def _monitor(options: dict[str, Any], command: list[str]) -> int:
    wake_in, wake_out = os.pipe()
    os.set_blocking(wake_out, False)
    signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
    ends = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    for signum in (signal.SIGCHLD, *ends):
        signal.signal(signum, lambda *_: None)
    child = _start(options, command)
    stages, watched = list(options["stages"]), [0, wake_in]
    deadline = math.inf
    while child.poll() is None:
        timeout = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(watched, [], [], timeout)
        ending = bool(wake_in in ready and ends.intersection(os.read(wake_in, 64)))
        if 0 in ready:
            signals = os.read(0, 64)
            for number in signals:
                _end(child, number)
            if not signals:
                watched.remove(0)
                ending = True
        if time.monotonic() >= deadline or (ending and deadline == math.inf):
            _end(child, stages.pop(0) if stages else signal.SIGKILL)
            deadline = time.monotonic() + options["grace"]
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    try:
        sys.exit(_monitor(json.loads(sys.argv[1]), sys.argv[2:]))
    except (OSError, subprocess.SubprocessError) as error:
        # The command could not be started: the reason goes to its output.
        sys.stderr.write(f"cannot run {sys.argv[2]}: {error}\n")
        sys.exit(127)
