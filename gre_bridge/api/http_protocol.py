"""uvicorn's HTTP protocol, within bounds that uvicorn leaves open.

h11 rather than httptools, although it takes 0.4 ms of processor time for a request where that takes 0.15 (measured):
it bounds the bytes of headers and trailers, and does not read on while a pipelined request waits.
"""

from __future__ import annotations

from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpProtocol(H11Protocol):
    """One HTTP connection."""
