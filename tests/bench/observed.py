"""`gre-bridge run` that records, for each delivery, when its claim was requested and answered.

It writes the records to GRE_BENCH_TRACE when it stops; nothing else differs from the daemon.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from gre_bridge.cli.app import main
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Claim

seen: list[tuple[str, str, float, float]] = []
_call = RelayDatabase.call


async def _observed(self: RelayDatabase, function: str, arguments: dict[str, Any], read: Any) -> Any:
    asked = time.time()
    answer = await _call(self, function, arguments, read)
    answered = time.time()
    claim = answer[1] if isinstance(answer, tuple) and isinstance(answer[-1], Claim) else answer
    if isinstance(claim, Claim):
        seen.extend(
            (arguments["p_sink"], delivery.message["id"], asked, answered)
            for lane in claim.lanes
            for delivery in lane.deliveries
            if delivery.message is not None
        )
    return answer


if __name__ == "__main__":
    RelayDatabase.call = _observed  # type: ignore[method-assign, assignment]
    try:
        main()
    finally:
        lines = "".join(f"{sink} {message} {asked} {answered}\n" for sink, message, asked, answered in seen)
        Path(os.environ["GRE_BENCH_TRACE"]).write_text(lines, encoding="utf-8")
