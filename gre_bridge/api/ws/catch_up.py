"""Reads for sockets that are behind: a few at a time, so that many slow clients do not take the database from the others."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

from gre_bridge.api.pacing import ReadSize
from gre_bridge.db.answers import HubChanges
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import BridgeError

READERS = 4
"""Reads at once."""


class CatchUpReads:
    """Where sockets read what they were not told."""

    def __init__(self, portal: UserDatabase) -> None:
        """`portal` reads with the service key: who may hear which session is decided before."""
        self._portal = portal
        self._size = ReadSize(sessions=50, messages=100, size=256 * 1024)
        self._readers = asyncio.Semaphore(READERS)

    async def missed(self, positions: Mapping[str, int], player_id: int | None) -> HubChanges:
        """Read what is newer than these seqs, as `gre_hub_changes_v1` answers; of this player's sessions only, or of all."""
        size = self._size
        async with self._readers:
            asked = dict(itertools.islice(positions.items(), size.sessions))
            try:
                found = await self._portal.news(
                    known={session: (seq, -1) for session, seq in asked.items()},
                    sessions=list(asked),
                    players=None if player_id is None else [player_id],
                    limit=size.messages,
                    size=size.size,
                )
            except BridgeError:
                size.halve()
                raise
            size.grow()
        return {**found, "skipped": [*found["skipped"], *(key for key in positions if key not in asked)]}
