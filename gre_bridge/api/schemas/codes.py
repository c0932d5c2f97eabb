"""Every `code` of a refusal, for the documentation and the clients that are generated from it.

A test holds this list against the code and the SQL. Triggers of a project may refuse with codes of their own.
"""

from __future__ import annotations

from typing import Literal

Code = Literal[
    # 400
    "act_as_invalid", "attachment_invalid", "attachments_invalid", "auto_reply_invalid", "comment_too_long", "cors_refused", "cursor_invalid", "enabled_invalid", "header_repeated", "hours_invalid", "ids_invalid", "key_unknown",
    "malformed", "message_empty", "message_too_long", "messages_invalid", "metadata_too_large", "note_empty", "note_too_long",
    "placeholder_invalid", "placeholder_unknown", "player_invalid", "query_invalid", "range_invalid", "reason_too_long", "report_too_large", "score_invalid", "sender_unknown", "seq_invalid", "session_missing", "settings_invalid",
    "since_invalid", "staff_missing", "status_unknown", "target_missing", "template_incomplete", "template_invalid",
    "texts_invalid", "timezone_unknown", "until_invalid", "value_invalid",
    # 401
    "not_authenticated", "token_expired", "token_invalid",
    # 403
    "act_as_required", "admin_only", "channel_refused", "chat_disabled", "forbidden", "no_identity", "origin_refused",
    "player_mismatch", "player_only", "sender_forged", "service_only", "session_mismatch", "socket_refused", "staff_mismatch", "staff_only",
    # 404
    "attachment_not_found", "auto_reply_unknown", "hours_unknown", "message_unknown", "not_found", "session_unknown", "staff_unknown", "template_unknown",
    # 409
    "already_rated", "attachment_gone", "attachment_not_stored", "attachment_refused", "attachment_used", "conflict", "hours_counted", "hours_exist", "hours_in_the_past", "hours_in_use", "id_conflict", "id_taken", "rating_off", "session_closed",
    "session_moved", "session_open", "session_taken", "shortcut_taken", "too_many",
    # 405, 408, 413, 415, 422, 431
    "file_too_large", "headers_too_large", "invalid", "method_not_allowed", "row_too_large", "too_large", "too_slow", "unsupported_media_type",
    # 429
    "file_quota", "too_fast", "too_many_failures", "too_many_files", "too_many_reads",
    # 500, 503
    "api_off", "busy", "files_off", "internal_error", "pusher_off", "read_only", "refused", "schema_outdated", "storage_unavailable", "too_many_connections",
    "unavailable",
]  # fmt: skip
"""Over REST. `refused` stands for a refusal of a project's own trigger that names no code."""

FrameCode = Literal["bad_frame", "identity_mismatch", "type_unknown"]
"""Of frames alone."""

AnyCode = Literal[Code, FrameCode]
"""On a socket."""
