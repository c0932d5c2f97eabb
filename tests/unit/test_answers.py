"""The typed dictionaries of `gre_bridge.db` are the shapes that the API documents; other answers are refused."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from gre_bridge.api.schemas import desk, files, replies, responses, story
from gre_bridge.db import answers, desk_answers
from gre_bridge.db.callers import refusal
from gre_bridge.db.postgrest import Caller, PostgrestClient, PostgrestError
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import Refused, TransientError
from tests.support.loopback import json_reply, serving

MEMBER = {
    "staff_id": "s1", "display_name": "Sam", "role": "staff", "status": "online",
    "open_sessions": 1, "takes_sessions": True, "max_sessions": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        (answers.Message, responses.Message),
        (answers.Session, responses.Session),
        (answers.QueuedSession, responses.Waiting),
        (answers.SessionEvent, story.SessionEvent),
        (answers.Attachment, files.Attachment),
        (desk_answers.DeskSettings, desk.Settings),
        (desk_answers.Hours, desk.Hours),
        (desk_answers.Template, replies.Template),
        (desk_answers.AutoReply, replies.AutoReply),
        (desk_answers.AutoReplyNow, replies.AutoReplyNow),
    ],
)
def test_a_shape_has_the_keys_of_its_model(shape: type, model: type[BaseModel]) -> None:
    documented = {field.alias or name for name, field in model.model_fields.items()}
    assert set(shape.__annotations__) | set(getattr(shape, "__required_keys__", ())) == documented


def test_each_setting_of_the_desk_can_be_changed() -> None:
    assert desk.DeskSettings.model_fields.keys() == desk_answers.DeskSettings.__annotations__.keys()


async def list_staff(answer: Any) -> list[answers.StaffMember]:
    async with serving(lambda _: json_reply(answer)) as port:
        rest = await PostgrestClient.open(url=f"http://127.0.0.1:{port}", key="sb_secret_service")
        observer: Any = SimpleNamespace(database_called=lambda _: nullcontext())
        users = UserDatabase(rest, rest, observer)
        try:
            return await users.staff(Caller("aaa.bbb.ccc"))
        finally:
            await users.aclose()


async def test_a_list_of_its_shape_is_returned() -> None:
    assert await list_staff([]) == []
    assert await list_staff([MEMBER]) == [MEMBER]


@pytest.mark.parametrize(
    ("shape", "optional"), [(answers.Attachment, "refused"), (answers.CatchUp, "attachments")]
)
def test_a_key_that_is_not_always_there_is_not_required(shape: type, optional: str) -> None:
    """`NotRequired` is not seen in a module with postponed annotations, and an answer without the key would be refused."""
    required = getattr(shape, "__required_keys__", frozenset())
    assert optional in shape.__annotations__ and optional not in required and required


@pytest.mark.parametrize(
    ("detail", "details", "retry_after"),
    [
        ('{"by": "s2"}', {"by": "s2"}, None), ("retry_after=5", None, 5.0), (None, None, None), ("", None, None), ("[1]", None, None),
        ("Key (id)=(1) exists.", None, None), ('{"by": ', None, None), ('{"by": 1e400}', None, None),
    ],
)  # fmt: skip
def test_a_detail_that_is_an_object_is_passed_on(
    detail: str | None, details: Any, retry_after: float | None
) -> None:
    error = PostgrestError(
        status=409,
        code="PT409",
        message="somebody else has this session",
        hint="session_taken",
        details=detail,
    )
    found = refusal(error, "gre_take_session")
    assert isinstance(found, Refused)
    assert (found.status, found.code, found.details, found.retry_after) == (409, "session_taken", details, retry_after)  # fmt: skip


@pytest.mark.parametrize("answer", [None, {}, "x", [None], [MEMBER, {"staff_id": "s2"}]])
async def test_a_list_without_its_shape_is_a_transient_error(answer: Any) -> None:
    with pytest.raises(TransientError) as caught:
        await list_staff(answer)
    assert caught.value.code == "unreadable"
