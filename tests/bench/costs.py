"""The costs of a message, as the simulation uses them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("costs.json")


@dataclass(frozen=True)
class Line:
    """CPU seconds of an operation: `fixed`, and `each` for every row or event."""

    fixed: float
    each: float = 0.0

    def of(self, rows: int) -> float:
        """CPU seconds for so many rows."""
        return self.fixed + self.each * rows

    @staticmethod
    def through(one: tuple[float, float], other: tuple[float, float]) -> Line:
        """The line through two points (rows, seconds); no part of it is negative."""
        each = max(0.0, (other[1] - one[1]) / (other[0] - one[0]))
        return Line(max(0.0, one[1] - each * one[0]), each)


@dataclass(frozen=True)
class Costs:
    """CPU seconds, by what uses them; `claim`, `settle` and `call` by rows, `worker` and `sink` by events of a request."""

    insert: float
    """PostgreSQL: the insert of a message, with the outbox's triggers."""
    claim: Line
    """PostgreSQL: a claim."""
    settle: Line
    """PostgreSQL: a settle."""
    call: Line
    """PostgREST (measured: the stand-in): a call."""
    disk: float
    """Seconds that a call that writes waits for the disk; no CPU."""
    worker_call: float
    """A worker: a call to the database."""
    worker: Line
    """A worker: a request to the sink, with everything that its events cost before and after."""
    sink: Line
    """The sink of the bench: a request."""

    @staticmethod
    def read() -> Costs:
        """The costs that `make bench ARGS="--only scale"` measured last; docs/scaling.md has them, too."""
        found = json.loads(FILE.read_text(encoding="utf-8"))
        return Costs(
            **{name: Line(**value) if isinstance(value, dict) else value for name, value in found.items()}
        )

    def write(self) -> None:
        """Keep these costs for later simulations."""
        FILE.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")
