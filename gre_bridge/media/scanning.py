"""A virus scanner: clamd, by its command INSTREAM over a Unix socket or TCP.

Protocol (clamd(8), ClamAV 1.4): the client writes `zINSTREAM` and a NUL, then chunks, each with its length as four bytes in
network order before it, and ends with a length of zero. clamd answers one line that ends with NUL, as `z` asks:
`stream: OK`, `stream: NAME FOUND`, or a text that ends with ` ERROR`. A file beyond its StreamMaxLength is answered
`INSTREAM size limit exceeded. ERROR` while the client still writes, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from dataclasses import dataclass
from typing import IO, Any, Final
from urllib.parse import urlsplit

from gre_bridge.media.results import MediaUnavailable, Refused

_CHUNK: Final = 64 * 1024
_MAX_ANSWER: Final = 4096
_LIMIT_EXCEEDED: Final = "INSTREAM size limit exceeded"
_LIMITS: Final = "Heuristics.Limits.Exceeded"  # what clamd calls "found" with AlertExceedsMax: it did not look at all of it


@dataclass(frozen=True, slots=True)
class Clean:
    """The scanner knows nothing bad of the file."""


@dataclass(frozen=True, slots=True)
class Unscanned:
    """The scanner will not scan this file, now or later, by its own limits. Whether it is given out is a setting."""

    reason: str


async def scan(address: str, source: IO[bytes], *, seconds: float = 120.0) -> Clean | Unscanned | Refused:
    """Have clamd scan a file from its start. `address` is `unix:/path` or `tcp://host:port`; `seconds` bound all of it.

    Returns Refused('virus') for a find. Raises MediaUnavailable where no verdict can be had: 'scanner' without a connection,
    'scanner_slow', 'scanner_error' for an answer that is none. Raises ValueError for an
    address of another form. The name of what was found is not kept: it says nothing that a person can act on.
    """
    try:
        async with asyncio.timeout(seconds):
            answer = await _ask(address, source)
    except TimeoutError:
        raise MediaUnavailable("scanner_slow", f"the scanner took more than {seconds:g} s") from None
    except OSError as error:
        raise MediaUnavailable("scanner", f"the scanner cannot be asked: {type(error).__name__}") from None
    return _verdict(answer)


def parse_address(address: str) -> str | tuple[str, int]:
    """Return the path of a Unix socket, or host and port. Raises ValueError."""
    parts = urlsplit(address)
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return parts.path
    if parts.scheme == "tcp" and parts.hostname and parts.port and not parts.path.strip("/"):
        return parts.hostname, parts.port
    raise ValueError("must be unix:/path or tcp://host:port")


async def _ask(address: str, source: IO[bytes]) -> str:
    # A bare socket: a stream of asyncio drops what was received when it finds that it can send no more.
    loop = asyncio.get_running_loop()
    with await _connected(address) as connection:
        # Closed while we send: it has answered before, or says nothing.
        with contextlib.suppress(ConnectionError):
            source.seek(0)
            await loop.sock_sendall(connection, b"zINSTREAM\0")
            while block := source.read(_CHUNK):
                await loop.sock_sendall(connection, len(block).to_bytes(4, "big") + block)
            await loop.sock_sendall(connection, bytes(4))
        answer = b""
        while b"\0" not in answer and len(answer) < _MAX_ANSWER:
            received = await loop.sock_recv(connection, _MAX_ANSWER)
            if not received:
                break
            answer += received
    return answer.partition(b"\0")[0].decode("utf-8", "replace").strip()


async def _connected(address: str) -> socket.socket:
    """Connect to the first address that accepts. Raises OSError."""
    loop = asyncio.get_running_loop()
    where = parse_address(address)
    choices: list[tuple[int, Any]] = [(socket.AF_UNIX, where)]
    if not isinstance(where, str):
        found = await loop.getaddrinfo(*where, type=socket.SOCK_STREAM)
        choices = [(family, peer) for family, _, _, _, peer in found]
    failure: OSError | None = None
    for family, peer in choices:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, peer)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure or OSError("no address")


def _verdict(answer: str) -> Clean | Unscanned | Refused:
    if answer == "stream: OK":
        return Clean()
    if found := re.fullmatch(r"stream: (.+) FOUND", answer):
        return Unscanned("limits") if found[1].startswith(_LIMITS) else Refused("virus")
    if _LIMIT_EXCEEDED in answer:
        return Unscanned("size")
    if not answer:
        raise MediaUnavailable("scanner", "the scanner closed without an answer")
    raise MediaUnavailable("scanner_error", "the scanner answered with an error")
