"""Writers that retry: over REST as portals do, and directly into the database as a back end does.

Each message has an id chosen here, and is written again until the result is known, so the database has exactly the sent
messages. Some messages of `marked` players have an id that a fault can match.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import psycopg

from tests.support.loopback import NO_TLS
from tests.support.stack import StackProcess
from tests.support.waiting import let_pass

SESSIONS = 24
MARK = "dead0000"
"""The prefix of the ids of marked messages."""
TEXT = "words that no log may hold"
_PAUSE = 0.05
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Sent:
    """A message whose commit was confirmed at `at` (Unix seconds)."""

    id: str
    at: float
    session: str = ""
    """Empty where the answer was lost."""
    seq: int = 0


class Load:
    """A thread for each writer, `rate` messages a second in all, until `stop`."""

    def __init__(
        self,
        stack: StackProcess,
        *,
        rate: float = 36.0,
        over_rest: int = 2,
        direct: int = 1,
        marked: frozenset[int] = frozenset(),
    ) -> None:
        self._stack = stack
        self._pace = (over_rest + direct) / rate
        self._marked = marked
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(n, n < over_rest)) for n in range(over_rest + direct)
        ]
        self.sent: list[Sent] = []
        self.problems: list[str] = []

    def start(self) -> None:
        """Begin to write."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when every message begun is committed."""
        self._over.set()
        for thread in self._threads:
            thread.join(_PATIENCE + 5)
            if thread.is_alive():
                self.problems.append("a writer hangs")

    def _write(self, number: int, rest: bool) -> None:
        rng = random.Random(number)
        writer = _Rest(self._stack) if rest else _Direct(self._stack)
        at = time.monotonic() + rng.random() * self._pace
        try:
            while not self._over.wait(max(0.0, at - time.monotonic())):
                # After an outage the rate stays the same: missed writes are not made up for.
                at = max(at + self._pace, time.monotonic())
                player = rng.randint(1, SESSIONS)
                self.sent.append(self._commit(writer, rng, player))
        except Exception as error:  # noqa: BLE001 - reported to the runner: a thread's end would be silent
            self.problems.append(f"a writer ended: {error!r}"[:300])
        finally:
            writer.close()

    def _commit(self, writer: _Rest | _Direct, rng: random.Random, player: int) -> Sent:
        message = str(uuid.uuid4())
        if player in self._marked and rng.random() < 0.5:
            message = MARK + message[len(MARK) :]
        staff = rng.random() < 0.25
        row = {
            "id": message,
            "player_id": player,
            "sender": "staff" if staff else "player",
            "message": TEXT,
            **({"sender_id": "s1", "sender_name": "Sam"} if staff else {}),
        }
        deadline = time.monotonic() + _PATIENCE
        while (sent := writer.write(row)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("a message could not be committed")
            let_pass(_PAUSE, "before the message is sent again")
        return sent


class _Rest:
    def __init__(self, stack: StackProcess) -> None:
        self._http = httpx.Client(
            base_url=stack.url, timeout=3, trust_env=False, headers=stack.headers(), verify=NO_TLS
        )

    def write(self, row: Mapping[str, object]) -> Sent | None:
        """None when it is not known whether it is there: again."""
        try:
            answer = self._http.post(
                "/rest/v1/gre_chat_messages", json=row, headers={"Prefer": "return=representation"}
            )
        except httpx.TransportError:
            return None
        if answer.status_code == 201:
            (made,) = answer.json()
            return Sent(str(row["id"]), time.time(), made["session_id"], made["seq"])
        if answer.status_code == 409:
            return Sent(str(row["id"]), time.time())
        # 400 with an empty code is a crashed database (measured on PostgREST 14.5).
        if answer.status_code >= 500 or answer.json()["code"] == "":
            return None
        raise ValueError(f"{answer.status_code} {answer.text}")

    def close(self) -> None:
        self._http.close()


class _Direct:
    def __init__(self, stack: StackProcess) -> None:
        self._stack = stack
        self._conn: psycopg.Connection[dict[str, object]] | None = None

    def write(self, row: Mapping[str, object]) -> Sent | None:
        """As over REST."""
        try:
            if self._conn is None:
                self._conn = self._stack.db()
            names = ", ".join(row)
            made = self._conn.execute(
                f"insert into gre_chat_messages ({names}) values ({', '.join(f'%({n})s' for n in row)})"
                " returning session_id::text, seq",
                row,
            ).fetchone()
        except psycopg.errors.UniqueViolation:
            return Sent(str(row["id"]), time.time())
        except psycopg.OperationalError:
            self.close()
            return None
        assert made is not None
        return Sent(str(row["id"]), time.time(), str(made["session_id"]), int(str(made["seq"])))

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
        self._conn = None
