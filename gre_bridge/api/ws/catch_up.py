"""Reads for connections that are behind: a few at a time, so that many slow clients do not use up the database."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

from gre_bridge.api.pacing import ReadSize
from gre_bridge.db.answers import HubChanges
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import BridgeError

CONCURRENCY = 4


class CatchUpReads:
    """Reads what a connection was not sent."""

    def __init__(self, users: UserDatabase) -> None:
        """Reads use the service key; callers must have decided which sessions a person may receive."""
        self._users = users
        self._size = ReadSize(sessions=50, messages=100, size=256 * 1024)
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def missed(
        self, positions: Mapping[str, tuple[int, int | None]], player_id: int | None
    ) -> HubChanges:
        """Read what is newer than these seqs, and notes after these numbers (None: no notes), in the shape of `gre_hub_changes_v1`.

        Only this player's sessions unless `player_id` is None. Raises BridgeError.
        """
        size = self._size
        async with self._slots:
            requested = dict(itertools.islice(positions.items(), size.sessions))
            try:
                found = await self._users.news(
                    known={session_id: (seq, -1, note) for session_id, (seq, note) in requested.items()},
                    sessions=list(requested),
                    players=None if player_id is None else [player_id],
                    limit=size.messages,
                    size=size.size,
                )
            except BridgeError:
                size.halve()
                raise
            size.grow()
        return {**found, "skipped": [*found["skipped"], *(key for key in positions if key not in requested)]}
