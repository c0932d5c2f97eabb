"""The calls for templates and auto-replies. A part of `db.users`, with the same rules."""

from __future__ import annotations

from gre_bridge.db.callers import CallerDatabase
from gre_bridge.db.desk_answers import AutoReply, AutoReplyList, Rendered, Template
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.types import Json


class RepliesDatabase(CallerDatabase):
    """The functions for prepared texts, typed. Every method may raise Refused or TransientError."""

    async def templates(self, caller: Caller) -> list[Template]:
        """List everybody's templates and the caller's own."""
        return await self._read_list(Template, "gre_list_templates", {}, caller)

    async def template(self, caller: Caller, template_id: str) -> Template:
        """Read a template."""
        return await self._read(Template, "gre_get_template", {"p_id": template_id}, caller)

    async def save_template(
        self, caller: Caller, fields: Json, *, template_id: str | None = None
    ) -> Template:
        """Create a template, or change the given fields of one."""
        arguments = {"p_template": fields, "p_id": template_id}
        return await self._write(Template, "gre_save_template", arguments, caller)

    async def delete_template(self, caller: Caller, template_id: str) -> None:
        """Delete a template."""
        await self._write(Template, "gre_delete_template", {"p_id": template_id}, caller)

    async def render_template(self, caller: Caller, template_id: str, session_id: str) -> Rendered:
        """Return the text of a template for a session: {"text", "missing"}."""
        arguments = {"p_template_id": template_id, "p_session_id": session_id}
        return await self._read(Rendered, "gre_render_template", arguments, caller)

    async def auto_replies(self, caller: Caller) -> AutoReplyList:
        """List the rules, and what a new session's first message would get now."""
        return await self._read(AutoReplyList, "gre_list_auto_replies", {}, caller)

    async def auto_reply(self, caller: Caller, rule_id: str) -> AutoReply:
        """Read a rule."""
        return await self._read(AutoReply, "gre_get_auto_reply", {"p_id": rule_id}, caller)

    async def save_auto_reply(self, caller: Caller, fields: Json, *, rule_id: str | None = None) -> AutoReply:
        """Create a rule, or change the given fields of one."""
        arguments = {"p_auto_reply": fields, "p_id": rule_id}
        return await self._write(AutoReply, "gre_save_auto_reply", arguments, caller)

    async def delete_auto_reply(self, caller: Caller, rule_id: str) -> None:
        """Delete a rule."""
        await self._write(AutoReply, "gre_delete_auto_reply", {"p_id": rule_id}, caller)
