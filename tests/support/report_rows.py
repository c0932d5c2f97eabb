"""Rows of figures at any time, written past the triggers: what a report counts, without the year in which it happened."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from tests.conftest import Database

BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)
"""The range of random rows. It is over, has changes of clocks, and whole months."""
COLUMNS = {
    "gre_chat_cycles": "session_id, cycle, player_key, opened_at, opened_staff_id, asked_at, staff_at, closed_at, closed_by,"
    " closed_staff_id, close_seconds, close_open_seconds, missed, dropped, rating_asked",
    "gre_chat_responses": "session_id, cycle, n, first, asked_seq, asked_at, due_at, ended, ended_at, answered_seq, answered_at,"
    " staff_id, wait_seconds, open_seconds",
    "gre_chat_activity": "session_id, quarter, sender, staff_id, player_key, messages",
    "gre_chat_ratings": "session_id, cycle, score, staff_id, rated_at",
    "gre_chat_assignments": "session_id, n, staff_id, how, after_seq, started_at, ended_at, end_how, open_seconds",
    "gre_chat_events": "session_id, rev, at, after_seq, kind, staff_id, by_staff_id",
}


def _seconds(begin: datetime, end: datetime) -> int:
    return (end - begin) // timedelta(seconds=1)


class Rows:
    """Collects rows, and writes them with `flush`."""

    def __init__(self, db: Database) -> None:
        self._conn = db.connect()
        self._random = random.Random(15)
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in COLUMNS}
        self._players: dict[uuid.UUID, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    def flush(self) -> None:
        """Write what was collected."""
        for table, rows in self._rows.items():
            with self._conn.cursor().copy(
                f"copy public.{table} ({COLUMNS[table]}) from stdin".encode()
            ) as copy:
                for row in rows:
                    copy.write_row(row)
            rows.clear()

    def session(self, player: int) -> uuid.UUID:
        """Make a session of this player."""
        session = uuid.UUID(int=self._random.getrandbits(128), version=4)
        self._players[session] = player
        return session

    def cycle(
        self, session: uuid.UUID, opened: datetime, *, closed: datetime | None = None, by: str | None = None, who: str | None = None,
        asked: datetime | None = None, cycle: int = 1, missed: bool = False, dropped: bool = False, rating_asked: bool = False,
    ) -> None:  # fmt: skip
        """Add a cycle."""
        seconds = _seconds(asked, closed) if asked and closed and by != "idle" else None
        self._rows["gre_chat_cycles"].append(
            (session, cycle, self._players[session], opened, who, asked, None, closed, by, who if closed else None, seconds,
             seconds and seconds // 2, missed, dropped, rating_asked)
        )  # fmt: skip

    def question(
        self, session: uuid.UUID, n: int, asked: datetime, *, answered: datetime | None = None, who: str | None = None,
        first: bool = False, due: datetime | None = None, cycle: int = 1,
    ) -> None:  # fmt: skip
        """Add a question."""
        seconds = _seconds(asked, answered) if answered else None
        self._rows["gre_chat_responses"].append(
            (session, cycle, n, first, n * 2, asked, due, "answered" if answered else "closed", answered, answered and n * 2 + 1,
             answered, who, seconds, seconds and seconds // 3)
        )  # fmt: skip

    def activity(self, session: uuid.UUID, quarter: datetime, sender: str, who: str, messages: int) -> None:
        """Add messages of a quarter of an hour."""
        self._rows["gre_chat_activity"].append(
            (session, quarter, sender, who, self._players[session], messages)
        )

    def rating(self, session: uuid.UUID, score: int, who: str | None, at: datetime, cycle: int = 1) -> None:
        """Add a rating."""
        self._rows["gre_chat_ratings"].append((session, cycle, score, who, at))

    def assignment(self, session: uuid.UUID, n: int, who: str, started: datetime, ended: datetime) -> None:
        """Add an assignment that has ended."""
        self._rows["gre_chat_assignments"].append(
            (
                session,
                n,
                who,
                "taken",
                1,
                started,
                ended,
                "released",
                min(_seconds(started, ended) // 4, 2**31 - 1),
            )
        )

    def random(self, sessions: int) -> None:
        """Write sessions of BEGIN to END: reopened, missed, dropped, idle, answered after days, of nobody."""
        draw = self._random
        for _ in range(sessions):
            session = self.session(draw.randint(1, sessions // 3))
            at = BEGIN + (END - BEGIN) * draw.random()
            for cycle in range(1, draw.randint(1, 2) + 1):
                at = self._random_cycle(session, cycle, at)
        self.flush()

    def _random_cycle(self, session: uuid.UUID, cycle: int, at: datetime) -> datetime:
        draw = self._random
        who = draw.choice(["s1", "s2", "s3", None])
        opened = at = at + timedelta(minutes=draw.randint(1, 3000), seconds=draw.randint(0, 59))
        answered = None
        for n in range(1, draw.randint(2, 5)):
            asked = at
            answered = asked + timedelta(
                seconds=draw.choice([7, 90, 400, 3_000, 90_000]) * (1 + draw.random())
            )
            if draw.random() < 0.2:
                self.question(session, n, asked, first=n == 1, cycle=cycle)
                answered = None
                break
            due = asked + timedelta(minutes=5) if draw.random() < 0.7 else None
            self.question(session, n, asked, answered=answered, who=who, first=n == 1, due=due, cycle=cycle)
            at = answered + timedelta(seconds=draw.randint(1, 600))
        closed = at + timedelta(minutes=draw.randint(0, 90))
        by = draw.choice(["staff", "player", "idle"])
        self.cycle(session, opened, closed=closed, by=by, who=who, asked=opened, cycle=cycle, missed=not answered and n == 1,
                   dropped=not answered and n > 1, rating_asked=draw.random() < 0.5)  # fmt: skip
        if draw.random() < 0.5:
            self.rating(session, draw.randint(1, 5), who, closed + timedelta(minutes=3), cycle)
        quarter = opened.replace(minute=opened.minute // 15 * 15, second=0, microsecond=0)
        for step, sender, author in (
            (0, "player", ""),
            (0, "staff", "s1"),
            (0, "staff", "s2"),
            (15, "player", ""),
            (15, "system", ""),
        ):
            self.activity(session, quarter + timedelta(minutes=step), sender, author, draw.randint(1, 4))
        self.assignment(
            session, 2 * cycle, who or "s4", opened, opened + timedelta(seconds=draw.randint(5, 9000))
        )
        if draw.random() < 0.4:
            self._rows["gre_chat_events"].append(
                (session, cycle, closed, 1, "transferred", "s1", draw.choice(["s2", None]))
            )
        return closed
