"""The calls for files. A part of `db.users`, with the same rules. The bytes are in Supabase Storage (`gre_bridge.storage`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gre_bridge.db.answers import Attachment, BegunAttachment, DroppedAttachment, ObjectName
from gre_bridge.db.callers import CallerDatabase
from gre_bridge.db.postgrest import Caller

Variant = Literal["thumb", "view", "file"]


class FileDatabase(CallerDatabase):
    """The functions for files, typed. Every method may raise Refused or TransientError."""

    async def begin_attachment(
        self,
        caller: Caller,
        *,
        attachment_id: str,
        player_id: int | None,
        session_id: str | None,
        name: str,
        media_type: str,
        size: int,
        alt: str | None,
    ) -> BegunAttachment:
        """Announce a file of `size` bytes: A, and the name of its object. Safe to repeat with the same id."""
        arguments = {
            "p_id": attachment_id, "p_player_id": player_id, "p_session_id": session_id, "p_name": name,
            "p_type": media_type, "p_bytes": size, "p_alt": alt,
        }  # fmt: skip
        return await self._write(BegunAttachment, "gre_attachment_begin", arguments, caller)

    async def attachment(self, caller: Caller, attachment_id: str) -> Attachment:
        """Read a file's state."""
        return await self._read(Attachment, "gre_attachment_get", {"p_id": attachment_id}, caller)

    async def drop_attachment(self, caller: Caller, attachment_id: str) -> None:
        """Give up a file that no message has; its bytes are deleted."""
        await self._write(DroppedAttachment, "gre_attachment_drop", {"p_id": attachment_id}, caller)

    async def object_names(self, caller: Caller, ids: Sequence[str], variant: Variant) -> list[ObjectName]:
        """Return the names of the objects that the caller may fetch. At most 100 ids."""
        arguments = {"p_ids": list(ids), "p_variant": variant}
        return await self._read_list(ObjectName, "gre_attachment_names", arguments, caller)
