"""The decoder's process: `python -I -m gre_bridge.media.decoder TYPE MAX_PIXELS CPU_SECONDS MEMORY_BYTES`.

It reads one untrusted picture from standard input and writes to standard output one line of JSON, then the bytes of the view
and of the thumb:

    {"width": 4032, "height": 3024, "preview": "…", "pictures": [["image/jpeg", 2048, 1536, 312345], …]}
    {"refused": CODE}          the content of the file
    {"unavailable": REASON}    ours

Its limits are set before Pillow is imported. Before the file is read it loses the right to open anything (files, sockets,
pipes), to start processes, and to touch others; started as root it becomes nobody. Anything but such a line, and each end by a signal, is
judged by the parent (`decoding`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any, Final

NICENESS: Final = 19
NOBODY: Final = 65534
_LANDLOCK_CREATE_RULESET: Final = 444  # system calls, of the same number on every architecture
_LANDLOCK_RESTRICT_SELF: Final = 446
_PR_SET_NO_NEW_PRIVS: Final = 38
_OURS: Final = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.EIO,
        errno.EPIPE,
        errno.ENOSPC,
        errno.EFBIG,
        errno.ENOMEM,
        errno.EAGAIN,
    }
)
_SLACK: Final = (
    192 * 1024 * 1024
)  # bytes of address space that a picture and a thread may leave behind in the allocator

Render = Callable[[IO[bytes], str, int], tuple[int, int, str, list[Any]]]


def bound(cpu: int, memory: int) -> None:
    """Limit CPU seconds and the bytes of address space, forbid to write a file; be the last to run and the first to be killed.

    Raises ValueError if less is left to us than that: a picture that needs more than the rest would pay for our setting.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123 - no pathlib here
        file.write("1000")
    with contextlib.suppress(OSError):  # systemd's filter of @resources
        os.nice(NICENESS)
        if sys.platform == "linux":  # it does not displace what runs, such as the relay, when it wakes up
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    for what, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, cpu, cpu + 5),
    ):
        most = resource.getrlimit(what)[1]
        resource.setrlimit(what, (soft, hard if most == resource.RLIM_INFINITY else min(hard, most)))


def confine(*, threads: bool) -> None:
    """Give up opening anything and, unless the decoder starts `threads`, starting any. Import everything before.

    Raises RuntimeError if the decoder needs threads and the system allows none.
    """
    if not threads:  # the limit counts the threads of the same user in all processes, so zero is the only number that is known
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.geteuid() == 0:  # whom no limit of processes holds
        with contextlib.suppress(OSError):  # a container whose root may not: the other limits hold
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    isolate()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    if threads:
        one = threading.Thread(target=bool)
        one.start()
        one.join()


def isolate() -> None:
    """Forbid to look into processes outside or to send them signals: the daemon is often of the same user, with keys in its memory.

    By Landlock (kernel: Documentation/userspace-api/landlock.rst; linux/landlock.h): a domain without rules. It is not there before
    Linux 5.13, for signals 6.12, and where it is switched off; the other limits hold.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.syscall.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32)
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    # handled_access_fs, handled_access_net (version 4), scoped (version 6): everything that these versions know
    rules = struct.pack("QQQ", 2**13 - 1, 2**2 - 1, 2**2 - 1)[
        : 8 if version < 4 else 16 if version < 6 else 24
    ]
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, rules, len(rules), 0)
    if ruleset >= 0:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0)
        os.close(ruleset)


def spare(memory: int) -> Callable[[], bool]:
    """Return a test whether all of `memory` (bytes of address space) could be had but for what is in use now.

    With strict accounting (vm.overcommit_memory = 2, kernel: Documentation/mm/overcommit-accounting) the system refuses memory
    below the limit. Elsewhere it is always true.
    """
    try:
        with open("/proc/sys/vm/overcommit_memory", encoding="ascii") as file:  # noqa: PTH123
            strict = file.read().strip() == "2"
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            used = int(file.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return lambda: True

    def test() -> bool:
        try:
            mmap.mmap(-1, max(memory - used - _SLACK, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except (OSError, MemoryError):
            return False
        return True

    return test if strict else lambda: True


def answer(line: dict[str, Any], pictures: Sequence[bytes] = ()) -> None:
    """Write the one answer."""
    out = sys.stdout.buffer
    out.write(json.dumps(line).encode() + b"\n")
    for data in pictures:
        out.write(data)
    out.flush()


def examine(type_: str, max_pixels: int, render: Render, room: Callable[[], bool]) -> None:
    """Decode standard input and answer. What a file can cause is the file's; what only we can cause is ours.

    `room` says, when memory ran out and the picture is gone, whether the limit was the reason.
    """
    too_large = False
    try:
        width, height, preview, pictures = render(sys.stdin.buffer, type_, max_pixels)
    except MemoryError:
        too_large = True
    except ImportError:
        answer({"unavailable": "limits"})  # a module that should have been imported before `confine`
    except Exception as error:  # noqa: BLE001 - Pillow raises many kinds for files that it cannot read
        if isinstance(error, OSError) and error.errno in _OURS:
            answer({"unavailable": "limits"})
        elif type(error).__name__ == "TooManyPixels":
            answer({"refused": "too_many_pixels"})
        else:
            answer({"refused": "undecodable"})
    else:
        sizes = [[one.type, one.width, one.height, len(one.data)] for one in pictures]
        found = {"width": width, "height": height, "preview": preview, "pictures": sizes}
        answer(found, [one.data for one in pictures])
    if too_large:
        answer({"refused": "too_large_to_decode"} if room() else {"unavailable": "limits"})


def main(arguments: Sequence[str], render: Render | None = None) -> None:
    """Run with the four arguments. Tests replace `render`."""
    type_, max_pixels, cpu, memory = arguments
    room: Callable[[], bool] = bool
    reason: str | None = None
    try:
        bound(int(cpu), int(memory))
        from gre_bridge.media import pictures  # noqa: PLC0415 - after the limits

        reason = pictures.load_plugins(type_)
        if reason is None:
            room = spare(int(memory))
            confine(threads=type_ == "image/heic")  # libde265 decodes in a thread, whatever it is told
    except ModuleNotFoundError:
        reason = "not_installed"
    except (ImportError, MemoryError):
        reason = "start"
    except (OSError, ValueError, RuntimeError):
        reason = "limits"
    if reason:
        answer({"unavailable": reason})
    else:
        examine(type_, int(max_pixels), render or pictures.render, room)


if __name__ == "__main__":
    main(sys.argv[1:])
