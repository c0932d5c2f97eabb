"""The decoder's process: what it may not do, and whose fault each of its ends is."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from gre_bridge.media import decoding
from gre_bridge.media.decoding import DECODABLE, Limits, available, decode
from gre_bridge.media.pictures import FORMATS
from gre_bridge.media.results import Examined, MediaUnavailable, Refused
from tests.support import corpus
from tests.support.waiting import until

ROOT = str(Path(__file__).parents[2])
LIMITS = ["image/jpeg", "1000000", "20", str(1 << 30)]

# Runs in the decoder's place when a file would have been decoded: each attempt says how it ended.
ATTEMPTS = """
import ctypes, json, os, resource, socket, subprocess, sys, threading
from gre_bridge.media import decoder

def fork():
    if os.fork() == 0:
        os._exit(0)

def write():
    os.write(0, b"changed")

def attempts(source, type_, pixels):
    port = int(sys.argv[-1])
    for name, what in {
        "read": lambda: open("/etc/passwd"),
        "create": lambda: open("made", "w"),
        "list": lambda: os.listdir("."),
        "write": write,
        "connect": lambda: socket.create_connection(("127.0.0.1", port)),
        "socketpair": socket.socketpair,
        "pipe": os.pipe,
        "dup": lambda: os.dup(0),
        "fork": fork,
        "run": lambda: subprocess.run(["/bin/true"]),
        "thread": lambda: threading.Thread(target=print).start(),
        "raise the limit of files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        "raise the limit of memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40)),
        "much memory": lambda: bytearray(1 << 30),
        "be root": lambda: os.setuid(0),
    }.items():
        try:
            what()
            print(name, "done", flush=True)
        except BaseException as error:
            print(name, type(error).__name__, flush=True)
    print("order", os.nice(0), os.sched_getscheduler(0), open_score, flush=True)
    print("environment", dict(os.environ), flush=True)
    print("descriptors", [fd for fd in range(256) if alive(fd)], flush=True)
    print("user", os.geteuid(), os.getgroups(), flush=True)
    raise ValueError("that was all")

def alive(fd):
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False

def bound(*limits, real=decoder.bound):
    global open_score
    real(*limits)
    open_score = open("/proc/self/oom_score_adj").read().strip()

decoder.bound = bound
decoder.main(sys.argv[1:5], attempts)
"""


# A parent with a key in its memory, of the same user as the decoder: as the daemon is where it does not run as root.
LOOK = """
import codecs, ctypes, os, sys
from gre_bridge.media import decoder, pictures

class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

def look(source, type_, pixels):
    seen = ctypes.create_string_buffer(7)
    parts = [ctypes.byref(Part(ctypes.addressof(one), 7)) for one in (seen, key)]
    libc.process_vm_readv(parent, parts[0], 1, parts[1], 1, 0)
    print("seen", seen.value, flush=True)
    try:
        os.kill(parent, 0)
        print("signal done", flush=True)
    except PermissionError:
        print("signal refused", flush=True)
    raise ValueError("that was all")

pictures.load_plugins("image/jpeg")
codecs.lookup("ascii")  # what is imported now needs no right to be read later
libc = ctypes.CDLL(None)
key = ctypes.create_string_buffer(b"the key")
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: the change of the user has hidden its memory
parent = os.getpid()
if child := os.fork():
    os.waitpid(child, 0)
else:
    decoder.main(sys.argv[1:5], look)
"""


@pytest.fixture
def file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as made:
        made.write(corpus.photo())
        made.flush()
        yield made


def hooked(body: str) -> list[str]:
    """A decoder whose rendering is replaced by some lines."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    program = f"import os, signal, sys, time\nfrom gre_bridge.media import decoder\ndef render(source, type_, pixels):\n{lines}\ndecoder.main(sys.argv[1:], render)"
    return [sys.executable, "-I", "-c", program]


async def ours(file: IO[bytes], body: str, limits: Limits | None = None) -> str:
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/jpeg", limits=limits, command=hooked(body))
    return raised.value.reason


def test_the_decoder_can_open_nothing_start_nothing_and_keep_nothing(file: IO[bytes], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-I", "-c", ATTEMPTS, *LIMITS, str(server.getsockname()[1])]
        file.seek(0)
        before = file.read()
        file.seek(0)
        done = subprocess.run(
            command, stdin=file, capture_output=True, cwd=tmp_path, env={}, timeout=60, check=False
        )
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    *lines, answer = done.stdout.decode().splitlines()
    ends = dict(line.rsplit(" ", 1) for line in lines[:-4])
    assert len(ends) == 15 and "done" not in ends.values(), ends
    assert json.loads(answer) == {"refused": "undecodable"}
    assert lines[-4] == f"order 19 {os.SCHED_BATCH} 1000"
    assert lines[-3:-1] == ["environment {'LC_CTYPE': 'C.UTF-8'}", "descriptors [0, 1, 2]"]
    if os.geteuid() == 0:
        assert lines[-1] == "user 65534 []"
    assert not list(tmp_path.iterdir())
    file.seek(0)
    assert file.read() == before


def test_the_decoder_cannot_look_into_the_daemon_nor_end_it(file: IO[bytes]) -> None:
    version = ctypes.CDLL(None).syscall(444, None, 0, 1)  # of Landlock: 6 knows signals
    command = [sys.executable, "-I", "-c", LOOK, *LIMITS]
    done = subprocess.run(command, stdin=file, capture_output=True, env={}, timeout=60, check=True)
    seen, signal_, answer = done.stdout.decode().splitlines()
    assert json.loads(answer) == {"refused": "undecodable"}
    assert seen == "seen b''" or version < 1
    assert signal_ == "signal refused" or version < 6


async def test_a_system_that_forbids_to_be_nice_is_no_obstacle(file: IO[bytes]) -> None:
    """As systemd's filter of @resources does (deploy/gre-bridge.service); the limits use prlimit, which it allows."""
    program = "import sys; from gre_bridge.media import decoder\ndef nice(_): raise PermissionError(1, 'no')\ndecoder.os.nice = nice; decoder.main(sys.argv[1:])"
    found = await decode(file, "image/jpeg", command=[sys.executable, "-I", "-c", program])
    assert isinstance(found, Examined)


async def test_the_decoder_has_a_low_weight_from_its_start_in_its_session_and_beside_others(
    file: IO[bytes],
) -> None:
    program = """
import os

def group():
    try:
        return open("/proc/self/autogroup").read().split()[1:]
    except (OSError, ValueError):  # a kernel without groups of sessions
        return []

while os.getpriority(os.PRIO_PROCESS, 0) != 19 or group() not in ([], ["nice", "5"]):
    pass
os.abort()
"""
    with pytest.raises(MediaUnavailable, match="SIGABRT"):
        await decode(
            file, "image/jpeg", limits=Limits(wall=60.0), command=[sys.executable, "-I", "-c", program]
        )


def test_no_other_program_runs_in_the_decoders_place(file: IO[bytes]) -> None:
    command = [*hooked("os.execv('/bin/echo', ['/bin/echo', 'another'])"), *LIMITS]
    done = subprocess.run(command, stdin=file, capture_output=True, env={}, timeout=60, check=False)
    assert b"another" not in done.stdout


@pytest.mark.parametrize("type_", sorted(DECODABLE))
def test_only_the_plugins_of_the_listed_formats_are_there(type_: str) -> None:
    program = (
        "import sys; from gre_bridge.media import pictures; assert not pictures.load_plugins(sys.argv[1])\n"
        "print(*(n for n in sys.modules if n.endswith('Plugin')))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, type_], capture_output=True, text=True, check=True
    )
    expected = {
        f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Mpo", "Png", "Ppm", "Tiff", "WebP")
    }
    expected |= {"PIL.AvifImagePlugin"} if type_ == "image/avif" else set()
    assert {name for name in done.stdout.split() if name.startswith("PIL.")} == expected
    assert FORMATS.keys() == DECODABLE


async def test_memory_and_content_are_the_files_fault(file: IO[bytes]) -> None:
    for body, code in (
        ("bytearray(1 << 31)", "too_large_to_decode"),
        ("raise RecursionError", "undecodable"),
        ("raise OSError('broken data stream when reading image file')", "undecodable"),
    ):
        assert await decode(file, "image/jpeg", command=hooked(body)) == Refused(code)


async def test_cpu_time_is_the_files_fault_and_the_clock_on_the_wall_is_ours(file: IO[bytes]) -> None:
    spin = hooked("while True: pass")
    assert await decode(file, "image/jpeg", limits=Limits(cpu=1), command=spin) == Refused(
        "too_slow_to_decode"
    )
    assert await ours(file, "time.sleep(600)", Limits(wall=0.5)) == "wall_clock"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "killed"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed"),
        ("os.abort()", "crashed"),
        ("os._exit(3)", "start"),
        ("sys.exit('no module')", "start"),
        ("os._exit(0)", "crashed"),
        ("import antigravity", "limits"),
        ("open('/etc/passwd')", "limits"),
        ("raise OSError(12, 'Cannot allocate memory')", "limits"),
        ("raise BlockingIOError(11, 'Resource temporarily unavailable')", "limits"),
    ],
)
async def test_what_is_ours(file: IO[bytes], body: str, reason: str) -> None:
    assert await ours(file, body) == reason


@pytest.mark.parametrize(
    ("what", "value", "answered"),
    [
        ("RLIMIT_AS", 600 * 2**20, "limits"),
        ("RLIMIT_CPU", 20, "limits"),
        ("RLIMIT_CPU", 32, None),
    ],
)
async def test_a_limit_of_the_installation_that_is_lower_than_ours_is_ours(
    file: IO[bytes], what: str, value: int, answered: str | None
) -> None:
    program = (
        f"import resource, sys; resource.setrlimit(resource.{what}, ({value}, {value}))\n"
        "from gre_bridge.media import decoder; decoder.main(sys.argv[1:])"
    )
    command = [sys.executable, "-I", "-c", program]
    if answered is None:
        assert isinstance(await decode(file, "image/jpeg", command=command), Examined)
        return
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/jpeg", command=command)
    assert raised.value.reason == answered


async def test_a_system_that_allows_the_decoder_no_thread_is_ours(file: IO[bytes]) -> None:
    program = (
        "import sys, threading; from gre_bridge.media import decoder\n"
        'def start(_): raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = start; decoder.main(sys.argv[1:])"
    )
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/heic", command=[sys.executable, "-I", "-c", program])
    assert raised.value.reason == "limits"


async def test_memory_that_the_system_refuses_below_the_limit_is_ours(file: IO[bytes]) -> None:
    """As with vm.overcommit_memory=2, where the file's own greed is still the file's."""
    program = (
        "import io, mmap, sys; from gre_bridge.media import decoder\n"
        "def opened(name, *_, **__): return io.StringIO('2') if 'overcommit' in name else open(name)\n"
        "decoder.open = opened\n"
        "def render(*_): {fault}; raise MemoryError\n"
        "decoder.main(sys.argv[1:], render)"
    )
    greedy = [sys.executable, "-I", "-c", program.format(fault="bytearray(1 << 31)")]
    assert await decode(file, "image/jpeg", command=greedy) == Refused("too_large_to_decode")
    held = program.format(fault="global kept; kept = mmap.mmap(-1, 1 << 28)")
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/jpeg", command=[sys.executable, "-I", "-c", held])
    assert raised.value.reason == "limits"


FOUND = {
    "width": 9,
    "height": 9,
    "preview": "0" * 36,
    "pictures": [["image/jpeg", 9, 9, 4], ["image/jpeg", 9, 9, 4]],
}
JPEG = "ffd8ffe0"


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": "9"},
        {"height": True},
        {"preview": "<script>"},
        {"pictures": []},
        {"pictures": [["image/jpeg", 9, 9, 4]]},
        {"pictures": [["image/svg+xml", 9, 9, 4], ["image/jpeg", 9, 9, 4]]},
        {"pictures": [["image/webp", 9, 9, 4], ["image/jpeg", 9, 9, 4]]},
        {"pictures": [["image/jpeg", 2049, 9, 4], ["image/jpeg", 9, 9, 4]]},
        {"pictures": [["image/jpeg", 9, 9, 4], ["image/jpeg", 9, 9, 3]]},
        {"pictures": [["image/jpeg", 9, 9, -1], ["image/jpeg", 9, 9, 9]]},
        {"pictures": None},
        {"refused": "virus"},
        {"unavailable": "nonsense"},
        {"unavailable": []},
        {"nested": "NESTED"},
    ],
)
async def test_an_answer_that_the_decoder_must_not_give_is_not_believed(
    file: IO[bytes], change: dict[str, object]
) -> None:
    def says(line: dict[str, object]) -> list[str]:
        text = json.dumps(line).replace('"NESTED"', "[" * 2000 + "]" * 2000)
        return hooked(f"os.write(1, {text.encode()!r} + b'\\n' + bytes.fromhex('{JPEG * 2}'))\nos._exit(0)")

    assert isinstance(await decode(file, "image/jpeg", command=says(FOUND)), Examined)
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/jpeg", command=says(FOUND | change))
    assert raised.value.reason == "crashed"


async def test_the_file_can_be_read_as_before_and_by_the_decoder_from_its_start(file: IO[bytes]) -> None:
    file.seek(0)
    whole = file.read()
    file.seek(100)
    assert isinstance(await decode(file, "image/jpeg"), Examined)
    assert file.tell() == 100 and file.read() == whole[100:]
    assert await decode(file, "image/jpeg", command=hooked("os.ftruncate(0, 1)")) == Refused("undecodable")
    file.seek(0)
    assert file.read() == whole


async def test_the_decoder_inherits_nothing(file: IO[bytes]) -> None:
    body = """
descriptors = [fd for fd in range(256) if os.path.exists(f"/proc/self/fd/{fd}")]
alone = os.getsid(0) == os.getpgid(0) == os.getpid() and os.stat(".").st_mode & 0o777 == 0o700
if alone and descriptors == [0, 1, 2] and set(os.environ) <= {"LC_CTYPE"}:
    decoder.answer({"refused": "too_many_pixels"})
    os._exit(0)
"""
    looks = hooked(body)
    looks[-1] = looks[-1].replace(
        "decoder.main(", "render(0, 0, 0); decoder.main("
    )  # before it can open nothing
    reading, writing = os.pipe()
    try:
        os.set_inheritable(writing, True)
        assert await decode(file, "image/jpeg", command=looks) == Refused("too_many_pixels")
    finally:
        os.close(reading)
        os.close(writing)


async def test_what_a_decoder_started_ends_with_it(file: IO[bytes]) -> None:
    nap = f"597.{os.getpid()}"  # no other run's

    def left() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", nap]]

    with pytest.raises(MediaUnavailable) as raised:
        await decode(
            file, "image/jpeg", limits=Limits(wall=1), command=["sh", "-c", f"sleep {nap} & sleep {nap}"]
        )
    assert raised.value.reason == "wall_clock"
    await until(lambda: not left())


async def test_output_without_end_is_cut_off(file: IO[bytes]) -> None:
    assert await ours(file, "while True: os.write(1, bytes(1 << 16))") == "crashed"


async def test_a_decoder_that_is_cancelled_ends_and_leaves_no_folder(
    file: IO[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def children() -> list[psutil.Process]:
        return [one for one in psutil.Process().children() if "time.sleep(598)" in " ".join(one.cmdline())]

    def folders() -> list[str]:
        return [str(one) for one in tmp_path.iterdir()]

    task = asyncio.create_task(decode(file, "image/jpeg", command=hooked("time.sleep(598)")))
    await until(children)
    [process] = children()
    assert os.getpgid(process.pid) == process.pid and folders() == [process.cwd()]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not process.is_running() and not folders()


async def test_without_pillow_or_a_process_nothing_is_the_files_fault(
    file: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available()
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/jpeg", command=["/nowhere/python"])
    assert raised.value.reason == "start"
    bare = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.append({ROOT!r}); from gre_bridge.media import decoder; decoder.main(sys.argv[1:])",
    ]
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/jpeg", command=bare)
    assert raised.value.reason == "not_installed"
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/jpeg", limits=Limits(memory=16_000_000))
    assert raised.value.reason in {"start", "crashed"}, "Python alone needs more"
    monkeypatch.setattr(decoding.importlib.util, "find_spec", lambda _name: None)
    assert not available()
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/jpeg")
    assert raised.value.reason == "not_installed" and "gre-bridge[media]" in str(raised.value)
    assert await decode(file, "image/tiff") == Refused("unsupported"), "no installation decodes it"


async def test_heic_without_its_decoder_waits(file: IO[bytes]) -> None:
    hide = "import sys; sys.modules['pillow_heif'] = None; from gre_bridge.media import decoder; decoder.main(sys.argv[1:])"
    with pytest.raises(MediaUnavailable) as raised:
        await decode(file, "image/heic", command=[sys.executable, "-I", "-c", hide])
    assert raised.value.reason == "heic_not_installed"


def test_every_reason_of_the_decoder_has_words_for_the_operator() -> None:
    assert decoding._CRASHES.isdisjoint({signal.SIGKILL, signal.SIGXCPU, signal.SIGTERM})
    for reason in ("not_installed", "heic_not_installed", "avif_not_installed", "start", "limits"):
        assert str(decoding._unavailable(reason))
