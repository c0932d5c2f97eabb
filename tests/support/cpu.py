"""CPU time of a process: what something costs, however busy the machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg


def cpu(pid: int) -> float:
    """CPU time of a process so far, in seconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def server_cpu(conn: psycopg.Connection[Any]) -> float:
    """CPU time of the server process of a connection so far, in seconds."""
    return cpu(conn.info.backend_pid)
