"""Pages of a conversation have no gap and no repeat while messages arrive; and the poll of old portals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import Api, Person


@pytest.fixture
def conversation(api: Api, player_id: int) -> list[str]:
    """60 messages in two sessions, oldest first, imported by the back end, which has no rate limit."""
    for session in range(2):
        for n in range(30):
            api.backend(f"staff:s{n % 2 + 1}").post(
                "/api/gre-admin/reply", playerId=player_id, message=f"{session}.{n}"
            )
        if not session:
            api.staff().post(f"/api/gre-chat/close-session/{player_id}")
    rows = api.sql(
        "select message from gre_chat_messages where player_id = %s order by created_at, id", player_id
    )
    texts = [row["message"] for row in rows]
    assert texts == [f"{session}.{n}" for session in range(2) for n in range(30)]
    return texts


@pytest.fixture
def chatter(api: Api, player_id: int) -> Iterator[None]:
    """A player who writes continuously."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            api.staff().post("/api/gre-admin/reply", playerId=player_id, message="meanwhile")

    thread = threading.Thread(target=write)
    thread.start()
    yield
    stop.set()
    thread.join(60)


def pages(who: Person, path: str, limit: int) -> Iterator[list[dict[str, Any]]]:
    """Return page by page, the newest first, by the answer's cursor."""
    before: str | None = ""
    while before is not None:
        answer = who.get(path, params={"limit": limit, "before": before})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        messages = body if isinstance(body, list) else body["messages"]
        before = answer.headers.get("x-next-before") if isinstance(body, list) else body["next"]
        assert len(messages) == limit or before is None
        yield messages


@pytest.mark.parametrize("path", ["/api/gre-chat/messages/{}", "/api/chat-history/{}"])
def test_paging_backwards_has_no_gap_and_no_repeat(
    api: Api, player_id: int, conversation: list[str], chatter: None, path: str
) -> None:
    for limit in (7, 30, 500):
        read = list(pages(api.player(player_id), path.format(player_id), limit))
        found = [message for page in reversed(read) for message in page]
        assert [m["message"] for m in found if m["message"] != "meanwhile"] == conversation
        assert len({m["id"] for m in found}) == len(found)
        assert [m["created_at"] for m in found] == sorted(m["created_at"] for m in found)


def test_a_session_is_paged_by_seq_both_ways(
    api: Api, player_id: int, conversation: list[str], chatter: None
) -> None:
    (first, second) = [
        row["id"]
        for row in api.sql(
            "select id::text from gre_chat_sessions where player_id = %s order by created_at", player_id
        )
    ]
    staff = api.staff()
    for session in (first, second):
        path = f"/api/gre-admin/messages/{session}"
        forth: list[int] = []
        more = True
        while more and len(forth) < 30:
            page = staff.get(path, params={"after_seq": forth[-1] if forth else 0, "limit": 8}).json()
            forth += [m["seq"] for m in page["messages"]]
            more = page["has_more"]
        assert forth == list(range(1, len(forth) + 1)) and len(forth) >= 30
        back: list[int] = []
        more = True
        while more:
            query = {"before_seq": back[0]} if back else {}
            page = staff.get(path, params={"limit": 8, **query}).json()
            back = [m["seq"] for m in page["messages"]] + back
            more = page["has_more"]
        assert back == list(range(1, len(back) + 1)) and len(back) >= 30
    caught_up = api.player(player_id).get(
        f"/api/gre-chat/messages/{player_id}", params={"sessionId": first, "after_seq": 28}
    )
    assert [m["seq"] for m in caught_up.json()] == [29, 30] and "x-next-before" not in caught_up.headers


def test_a_history_has_its_messages_by_session(api: Api, player_id: int, conversation: list[str]) -> None:
    whole = api.player(player_id).get(f"/api/chat-history/{player_id}").json()
    assert [m["message"] for m in whole["messages"]] == conversation and whole["next"] is None
    assert [c["status"] for c in whole["conversations"]] == ["closed", "active"]
    assert [m for c in whole["conversations"] for m in c["chat_messages"]] == whole["messages"]
    of_one = (
        api.player(player_id)
        .get(f"/api/chat-history/{player_id}?sessionId={whole['conversations'][0]['id']}")
        .json()
    )
    assert of_one["conversations"] == whole["conversations"][:1]
    nobody = api.staff().get(f"/api/chat-history/{player_id + 1_000_000}").json()
    assert (nobody["messages"], nobody["conversations"], nobody["next"]) == ([], [], None)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("after_seq=1", 400, "session_missing"),
        ("before=00000000-0000-4000-8000-000000000000", 404, "message_unknown"),
        ("sessionId=00000000-0000-4000-8000-000000000000", 404, "session_unknown"),
        ("limit=0", 422, "invalid"),
        ("limit=501", 422, "invalid"),
        ("limit=-1", 422, "invalid"),
        ("limit=1e2", 422, "invalid"),
        ("before=1", 422, "invalid"),
        ("before=%00", 422, "invalid"),
        ("sessionId=' or 1=1 --", 422, "invalid"),
        (f"after_seq={2**63}", 422, "invalid"),
    ],
)
def test_invalid_paging_is_refused(api: Api, player_id: int, query: str, status: int, code: str) -> None:
    answer = api.player(player_id).get(f"/api/gre-chat/messages/{player_id}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_polling_an_unchanged_history_answers_304(api: Api, player_id: int) -> None:
    player, path = api.player(player_id), f"/api/gre-chat/messages/{player_id}"
    first = player.send()
    answer = player.get(path)
    etag = answer.headers["etag"]
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "Authorization" in answer.headers["vary"]
    for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        unchanged = player.get(path, headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.headers["etag"]) == (304, etag)
    api.staff().post("/api/gre-admin/reply", sessionId=first["sessionId"], message="Yes")
    changed = player.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200 and len(changed.json()) == 2
    # A message's status changes without a new message.
    etag = changed.headers["etag"]
    api.sql("update gre_chat_messages set status = 'read' where id = %s", first["messageId"])
    assert player.get(path, headers={"If-None-Match": etag}).status_code == 200
    stranger = api.player(player_id + 10**6).get(path, headers={"If-None-Match": etag})
    assert stranger.status_code == 403
