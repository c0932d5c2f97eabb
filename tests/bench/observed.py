"""`gre-bridge run`, observed: the daemon itself, and for each delivery when its claim was asked for and answered.

What is noted is written to GRE_BENCH_TRACE when the daemon has stopped; nothing else differs.
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
_claim = RelayDatabase.claim


async def _observed(self: RelayDatabase, **arguments: Any) -> Claim:
    asked = time.time()
    claim = await _claim(self, **arguments)
    answered = time.time()
    seen.extend(
        (arguments["sink"], delivery.message["id"], asked, answered)
        for lane in claim.lanes
        for delivery in lane.deliveries
        if delivery.message is not None
    )
    return claim


if __name__ == "__main__":
    RelayDatabase.claim = _observed  # type: ignore[method-assign, assignment]
    try:
        main()
    finally:
        lines = "".join(f"{sink} {message} {asked} {answered}\n" for sink, message, asked, answered in seen)
        Path(os.environ["GRE_BENCH_TRACE"]).write_text(lines, encoding="utf-8")
