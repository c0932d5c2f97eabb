"""Decoding an image in a process of its own, and judging how that process ended. See `decoder` for what the process does."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from gre_bridge.media.results import THUMB_SIDE, VIEW_SIDE, Examined, MediaUnavailable, Picture, Refused
from gre_bridge.media.sniffing import HEAD, image_type

DECODABLE: Final = frozenset(
    {"image/jpeg", "image/png", "image/gif", "image/webp", "image/bmp", "image/avif", "image/heic"}
)
"""The formats that the decoder knows. Others are `unsupported`, whatever is installed."""

MAX_LINE: Final = 4096  # of the answer's first line, in bytes
MAX_OUTPUT: Final = 16 * 1024 * 1024  # of both pictures, in bytes: more than 2048 x 2048 pixels can take
_NICENESS: Final = 19  # the decoder's own, as in `decoder`
_SESSION_NICENESS: Final = 5  # a third of the others' weight: with 19 a busy machine would hardly ever decode
_CODES: Final = frozenset({"undecodable", "too_many_pixels", "too_large_to_decode"})
_MESSAGES: Final = {
    "not_installed": "pictures are not decoded: Pillow is missing (pip install 'gre-bridge[media]')",
    "heic_not_installed": "HEIC is not decoded: pillow-heif is missing (pip install 'gre-bridge[heic]')",
    "avif_not_installed": "AVIF is not decoded: this Pillow was built without it",
    "start": "the decoder could not start",
    "limits": "the decoder needed something that its limits forbid",
}
_CRASHES: Final = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What decoding one picture may cost.

    `pixels` of the picture; `cpu` in seconds of CPU time; `memory` in bytes of address space: 60 million pixels take
    240 MB, and a HEIC's twice that; `wall` in seconds, generous, since a busy machine is no fault of the file.
    """

    pixels: int = 60_000_000
    cpu: int = 30
    memory: int = 640 * 1024 * 1024
    wall: float = 180.0


def available() -> bool:
    """True if Pillow is installed. Without it no image is examined: `decode` raises MediaUnavailable."""
    return importlib.util.find_spec("PIL") is not None


async def decode(
    source: IO[bytes], type_: str, *, limits: Limits | None = None, command: Sequence[str] = ()
) -> Examined | Refused:
    """Decode an image whose type was sniffed, from a file with a descriptor. Takes up to `limits.wall` seconds.

    One at a time: `limits.memory` is for each. Raises MediaUnavailable for what is not the file's fault. If cancelled, the process is killed first. `command` replaces the
    program, for tests.
    """
    limits = limits or Limits()
    if type_ not in DECODABLE:
        return Refused("unsupported")
    if not available():
        raise _unavailable("not_installed")
    source.flush()
    program = command or (sys.executable, "-I", "-m", "gre_bridge.media.decoder")
    arguments = (type_, str(limits.pixels), str(limits.cpu), str(limits.memory))
    status, output = await _run([*program, *arguments], source, limits.wall)
    if status == -signal.SIGXCPU:
        return Refused("too_slow_to_decode")
    if status < 0:
        name = signal.Signals(-status)
        if name in _CRASHES:
            raise MediaUnavailable("crashed", f"the decoder died of {name.name}")
        raise MediaUnavailable("killed", f"the decoder was killed by {name.name}: is there enough memory?")
    if status > 0:  # Python's own end: the file is judged by an answer or, of C, by a signal
        raise MediaUnavailable("start", f"the decoder ended with status {status} and no answer")
    result = _judged(output, type_)
    if result is None:
        raise MediaUnavailable("crashed", "the decoder's answer is nonsense")
    return result


async def _run(command: list[str], source: IO[bytes], wall: float) -> tuple[int, bytes]:
    """Run a program in a group of its own, in an empty directory; return its status and what it wrote, cut off if too long."""
    with contextlib.ExitStack() as stack:
        try:
            directory = tempfile.TemporaryDirectory(prefix="gre-media-", ignore_cleanup_errors=True)
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stack.enter_context(_opened_again(source)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=stack.enter_context(directory),
                env={},
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            raise MediaUnavailable(
                "start", f"the decoder could not start: {os.strerror(error.errno or 0)}"
            ) from None
        _weigh_less(process.pid)
        try:
            async with asyncio.timeout(wall):
                output = await _output(process)
                status = await process.wait()
        except TimeoutError:
            raise MediaUnavailable("wall_clock", f"the decoder took more than {wall:g} s") from None
        finally:
            await _end(process)
    return status, output


def _weigh_less(pid: int) -> None:
    """Give a process that leads a session of its own a low weight, from its start on.

    Linux weighs sessions against each other first (sched(7), "The autogroup feature"): niceness alone counts within the session,
    in which the decoder is alone. Where there are no such groups, the write fails or does nothing.
    """
    with contextlib.suppress(OSError):  # systemd's filter of @resources
        os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)
    with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "wb", buffering=0) as file:  # noqa: PTH123
        file.write(b"%d" % _SESSION_NICENESS)


def _opened_again(source: IO[bytes]) -> IO[bytes]:
    """Open the file behind a descriptor for reading only, with a position of its own. Raises OSError."""
    return open(f"/dev/fd/{source.fileno()}", "rb", buffering=0)  # noqa: PTH123 - it may have no name


async def _output(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    output = bytearray()
    while block := await process.stdout.read(256 * 1024):
        if len(output) + len(block) > MAX_LINE + MAX_OUTPUT:
            raise MediaUnavailable("crashed", "the decoder wrote more than it may")
        output += block
    return bytes(output)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the whole group and collect the process, even while being cancelled."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await asyncio.shield(process.wait())


def _judged(output: bytes, type_: str) -> Examined | Refused | None:
    """Return what the process answered, or None for an answer that it must not give: it read an untrusted file."""
    line, _, rest = output.partition(b"\n")
    try:
        found = json.loads(line[:MAX_LINE])
        if "unavailable" in found:
            raise _unavailable(found["unavailable"])
        if "refused" in found:
            return Refused(found["refused"]) if found["refused"] in _CODES else None
        return _examined(found, rest, type_)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _examined(found: dict[str, Any], rest: bytes, type_: str) -> Examined | None:
    width, height, preview = found["width"], found["height"], found["preview"]
    if not (_size(width) and _size(height) and re.fullmatch(r"[0-9a-f]{36}", preview)):
        return None
    pictures: list[Picture] = []
    for (kind, wide, high, size), side in zip(found["pictures"], (VIEW_SIDE, THUMB_SIDE), strict=True):
        if not (_size(wide) and _size(high) and max(wide, high) <= side and 0 < size <= len(rest)):
            return None
        data, rest = rest[:size], rest[size:]
        if kind not in {"image/jpeg", "image/webp"} or image_type(data[:HEAD]) != kind:
            return None
        pictures.append(Picture(kind, wide, high, data))
    return None if rest else Examined("image", type_, width, height, preview, *pictures)


def _size(value: object) -> bool:
    return type(value) is int and 0 < value <= 2**31 - 1


def _unavailable(reason: str) -> MediaUnavailable:
    return MediaUnavailable(reason, _MESSAGES[reason])
