"""A scanner in clamd's place: its INSTREAM, as ClamAV 1.4.6 was seen to speak it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@dataclass
class Scanner:
    """`says` replaces the verdict, None closes without one; `silent` never answers. `seen` has what was sent."""

    limit: int = 26_214_400
    says: str | None = ""
    silent: bool = False
    seen: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
            data = bytearray()
            while size := int.from_bytes(await reader.readexactly(4), "big"):
                if len(data) + size > self.limit:
                    writer.write(b"INSTREAM size limit exceeded. ERROR\0")
                    await writer.drain()
                    return
                data += await reader.readexactly(size)
            self.seen.append(bytes(data))
            if self.silent:
                await reader.read()
            elif self.says is not None:
                verdict = "stream: Eicar-Test-Signature FOUND" if EICAR in data else "stream: OK"
                writer.write((self.says or verdict).encode() + b"\0")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.close()


@asynccontextmanager
async def scanning(scanner: Scanner, path: Path | None = None) -> AsyncIterator[str]:
    """Serve on a Unix socket, or else on a port; yield the address."""
    if path:
        server = await asyncio.start_unix_server(scanner.serve, path)
        address = f"unix:{path}"
    else:
        server = await asyncio.start_server(scanner.serve, "127.0.0.1", 0)
        address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield address
