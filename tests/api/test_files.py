"""Files over REST: begin, upload to Storage, send, show; who may do what; and where no address may appear."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest

from tests.api.conftest import Api, Person, start
from tests.api.files import BEGIN, LINKS, TEXT, begin, links, put, uploaded
from tests.support.loopback import HTTP
from tests.support.stack import StackProcess

UNKNOWN = "00000000-0000-4000-8000-0000000000ff"


def known(person: Person, attachment_id: str) -> dict[str, Any]:
    found: dict[str, Any] = person.get(f"{BEGIN}/{attachment_id}").json()["attachment"]
    return found


def said(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    """A refusal without the request's id."""
    body = answer.json()
    del body["request_id"]
    return answer.status_code, body


def test_a_file_is_begun_uploaded_sent_and_fetched(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    attachment_id = str(uuid.uuid4())
    begun = begin(player, id=attachment_id, alt="The window", player_id=player_id)
    assert begun["attachment"] == {
        "id": attachment_id, "kind": "file", "type": "text/plain", "name": "plan.txt", "alt": "The window",
        "bytes": len(TEXT), "width": None, "height": None, "preview": None, "place": None, "state": "awaited",
    }  # fmt: skip
    for alt, then in (("", None), ("The window", "The window")):
        assert begin(player, id=attachment_id, alt=alt)["attachment"]["alt"] == then
    upload = begun["upload"]
    assert (upload["method"], upload["headers"]) == ("PUT", {"content-type": "text/plain"})
    ends = datetime.fromisoformat(upload["expiresAt"])
    assert datetime.now(UTC) < ends < datetime.now(UTC) + timedelta(hours=3)
    assert put(upload).status_code == 200
    assert known(player, attachment_id)["state"] == "stored"

    sent = player.send("", attachmentIds=[attachment_id])
    (attachment,) = sent["message"]["attachments"]
    assert (attachment["id"], attachment["place"]) == (attachment_id, 0)
    assert attachment["state"] in ("stored", "ready")
    assert sent["message"]["message"].startswith("📎")
    (stored,) = player.get(f"/api/gre-chat/messages/{player_id}").json()
    assert [item["id"] for item in stored["attachments"]] == [attachment_id]
    (stored,) = api.staff().get(f"/api/gre-admin/messages/{sent['sessionId']}").json()["messages"]
    assert [item["id"] for item in stored["attachments"]] == [attachment_id]

    link = links(player, "file", attachment_id)[attachment_id]
    assert datetime.now(UTC) < datetime.fromisoformat(link["expiresAt"]) < ends + timedelta(minutes=6)
    got = HTTP.get(link["url"])
    assert (got.status_code, got.content) == (200, TEXT)
    assert got.headers["content-disposition"].startswith("attachment; filename=plan.txt")


def test_a_repeat_gives_a_new_address_until_the_bytes_are_there(api: Api, player_id: int) -> None:
    player, attachment_id = api.player(player_id), str(uuid.uuid4())
    first, second = (begin(player, id=attachment_id) for _ in range(2))
    assert first["attachment"] == second["attachment"]
    assert put(second["upload"]).status_code == 200
    assert begin(player, id=attachment_id)["upload"] is None
    assert put(first["upload"]).json()["statusCode"] in ("403", "409")
    other = player.post(BEGIN, id=attachment_id, name="plan.txt", type="text/plain", bytes=1)
    assert (other.status_code, other.json()["code"]) == (409, "id_taken")


@pytest.mark.parametrize("act_as", [True, False], ids=["back end", "token"])
def test_staff_send_files(api: Api, player_id: int, act_as: bool) -> None:
    session = api.player(player_id).send()["sessionId"]
    staff = api.backend("staff:s1") if act_as else api.staff()
    ids = [uploaded(staff, sessionId=session), uploaded(staff, player_id=player_id)]
    answer = staff.post("/api/gre-admin/reply", sessionId=session, message="Look", attachmentIds=ids)
    assert answer.status_code == 201, answer.text
    message = answer.json()["message"]
    assert (message["message"], [item["id"] for item in message["attachments"]]) == ("Look", ids)
    seen = api.player(player_id).get(f"/api/gre-chat/messages/{player_id}").json()[-1]
    assert [item["id"] for item in seen["attachments"]] == ids


def test_a_file_that_was_not_sent_can_be_given_up(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    attachment_id = uploaded(player)
    assert player.ask("DELETE", f"{BEGIN}/{attachment_id}").status_code == 200
    assert player.get(f"{BEGIN}/{attachment_id}").status_code == 404
    again = player.post(BEGIN, id=attachment_id, name="plan.txt", type="text/plain", bytes=len(TEXT))
    assert (again.status_code, again.json()["code"]) == (409, "attachment_gone")
    sent_id = uploaded(player)
    player.send(attachmentIds=[sent_id])
    kept = player.ask("DELETE", f"{BEGIN}/{sent_id}")
    assert (kept.status_code, kept.json()["code"]) == (409, "attachment_used")


def test_nobody_learns_of_the_files_of_others(api: Api, player_id: int, other_id: int) -> None:
    player, other = api.player(player_id), api.player(other_id)
    unsent, sent = uploaded(player), uploaded(player)
    player.send(attachmentIds=[sent])
    for stranger, hidden in ((other, (unsent, sent)), (api.staff(), (unsent,))):
        for attachment_id in hidden:
            for method in ("GET", "DELETE"):
                asked = [stranger.ask(method, f"{BEGIN}/{one}") for one in (attachment_id, UNKNOWN)]
                assert said(asked[0]) == said(asked[1]) and asked[0].status_code == 404
            for variant in ("thumb", "view", "file"):
                found = links(stranger, variant, attachment_id, UNKNOWN)
                assert found == {one: {"code": "attachment_not_found"} for one in (attachment_id, UNKNOWN)}
            bodies = [
                {"message": "x", "attachmentIds": [one], "playerId": other_id}
                for one in (attachment_id, UNKNOWN)
            ]
            asked = [stranger.post("/api/gre-chat/send", **body) for body in bodies]
            assert said(asked[0]) == said(asked[1]) and asked[0].status_code == 404
    assert not other.get(f"/api/gre-chat/messages/{other_id}").json()
    assert "url" in links(api.staff(), "file", sent)[sent] or known(api.staff(), sent)["state"] == "stored"


def test_only_files_whose_bytes_are_there_can_be_sent(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    awaited = begin(player)["attachment"]["id"]
    refused = player.post("/api/gre-chat/send", message="x", attachmentIds=[awaited])
    assert (refused.status_code, refused.json()["code"]) == (409, "attachment_not_stored")
    sent = uploaded(player)
    message_id = str(uuid.uuid4())
    first = player.send("x", attachmentIds=[sent], id=message_id)
    repeated = player.post("/api/gre-chat/send", message="x", attachmentIds=[sent], id=message_id)
    assert (repeated.status_code, repeated.json()["message"]) == (200, first["message"])
    used = player.post("/api/gre-chat/send", message="y", attachmentIds=[sent])
    assert (used.status_code, used.json()["code"]) == (409, "attachment_used")
    assert len(player.get(f"/api/gre-chat/messages/{player_id}").json()) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"message": "x", "attachmentIds": [UNKNOWN] * 6}, 422, "invalid"),
        ({"message": "x", "attachmentIds": ["x"]}, 422, "invalid"),
        ({"message": "", "attachmentIds": []}, 422, "invalid"),
        ({"attachmentIds": None}, 422, "invalid"),
        ({"message": None, "attachment_ids": [UNKNOWN]}, 404, "attachment_not_found"),
    ],
)
def test_a_message_needs_a_text_or_files(
    api: Api, player_id: int, body: dict[str, Any], status: int, code: str
) -> None:
    answer = api.player(player_id).post("/api/gre-chat/send", **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"bytes": 26_214_401}, 413, "file_too_large"),
        ({"bytes": -1}, 422, "invalid"),
        ({"type": ""}, 422, "invalid"),
        ({"type": "image/jpeg\r\nx-evil: 1"}, 422, "invalid"),
        ({"name": None}, 422, "invalid"),
        ({"alt": "x" * 1001}, 400, "attachment_invalid"),
        ({"playerId": 1}, 403, "player_mismatch"),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused(
    api: Api, player_id: int, body: dict[str, Any], status: int, code: str
) -> None:
    given = {"name": "x.jpg", "type": "image/jpeg", "bytes": 1, **body}
    answer = api.player(player_id).post(BEGIN, **given)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_what_could_run_in_a_page_is_a_download(api: Api, player_id: int) -> None:
    player, page = api.player(player_id), b"<script>alert(1)</script>"
    for claimed in ("text/html", "image/svg+xml", "TEXT/HTML;charset=utf-8", "application/xhtml+xml"):
        begun = begin(player, page, name='a"\r\nb.html', type=claimed)
        assert begun["upload"]["headers"] == {"content-type": "application/octet-stream"}
        forged = put(begun["upload"], page, **{"content-type": "text/html"})
        assert (forged.status_code, forged.json()["statusCode"]) == (400, "415")
        assert put(begun["upload"], page).status_code == 200
        found = begun["attachment"]["id"]
        got = HTTP.get(links(player, "file", found)[found]["url"])
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["content-disposition"].startswith("attachment;")
        assert links(player, "view", found)[found] == {"code": "attachment_not_found"}


def test_an_address_takes_what_was_announced_only(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    upload = begin(player, TEXT)["upload"]
    refused = put(upload, TEXT + b"!")
    assert (refused.json()["statusCode"], refused.json()["message"]) == (
        "403",
        "the file is larger than announced",
    )
    other = begin(player, TEXT)["upload"]
    moved = {**upload, "url": upload["url"].partition("?")[0] + "?" + other["url"].partition("?")[2]}
    assert put(moved).status_code == 400
    assert put(upload).status_code == 200


@pytest.fixture
def broken_storage(api: Api, request: pytest.FixtureRequest) -> Iterator[None]:
    """A Storage with this fault."""
    api.stack.fault("storage", request.param)
    yield
    api.stack.http.delete("/__stack/faults").raise_for_status()


@pytest.mark.parametrize(
    "broken_storage",
    [{"mode": "refused"}, {"mode": "refused", "status": 400, "body": "<html>"}, {"mode": "lose_answer"}],
    indirect=True,
)
@pytest.mark.usefixtures("broken_storage")
def test_an_outage_of_storage_is_said(api: Api, player_id: int) -> None:
    player, attachment_id = api.player(player_id), str(uuid.uuid4())
    answer = player.post(BEGIN, id=attachment_id, name="plan.txt", type="text/plain", bytes=len(TEXT))
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert player.send()["messageId"]
    # Another one is not begun in vain: it would count among the player's files of the day.
    vain = player.post(BEGIN, id=str(uuid.uuid4()), name="plan.txt", type="text/plain", bytes=len(TEXT))
    assert (vain.status_code, vain.json()["code"]) == (503, "storage_unavailable")
    rows = api.sql("select id::text from gre_chat_attachments where player_id = %s", player_id)
    assert rows == [{"id": attachment_id}]
    api.stack.http.delete("/__stack/faults").raise_for_status()
    # The same file can be begun again.
    assert put(begin(player, id=attachment_id)["upload"]).status_code == 200
    player.send("", attachmentIds=[attachment_id])


@pytest.fixture
def limited(stack_process: StackProcess) -> Iterator[Api]:
    """A daemon with a key of role gre_worker, which Storage does not know."""
    key = jwt.encode({"role": "gre_worker", "exp": 4_000_000_000}, stack_process.keys.jwt_secret, "HS256")
    yield from start(stack_process, SUPABASE_SERVICE_KEY=key)


def test_without_a_key_for_storage_no_file_is_begun(limited: Api, player_id: int) -> None:
    player = limited.player(player_id)
    answer = player.post(BEGIN, name="plan.txt", type="text/plain", bytes=len(TEXT))
    assert (answer.status_code, answer.json()["code"]) == (503, "files_off")
    rows = limited.sql("select id from gre_chat_attachments where player_id = %s", player_id)
    assert rows == []


def test_no_address_is_stored_relayed_or_logged(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    begun = begin(player, name="passport-9471.txt")
    put(begun["upload"])
    attachment_id = begun["attachment"]["id"]
    message = player.send("Look at this", attachmentIds=[attachment_id])["message"]
    (event,) = api.wait_received("pusher", id=message["id"])
    assert event["data"]["attachments"] == [{"id": attachment_id, "kind": "file"}]
    (push,) = api.wait_received("onesignal", message_id=message["id"])
    link = links(player, "file", attachment_id)[attachment_id]["url"]
    assert HTTP.get(link).status_code == 200
    secrets = [url.partition("token=")[2].partition("&")[0] for url in (begun["upload"]["url"], link)]
    assert all(len(secret) > 40 for secret in secrets)
    tables = api.sql(
        "select string_agg(x::text, ' ') as said from (select to_jsonb(m) as x from gre_chat_messages m union all"
        " select to_jsonb(a) from gre_chat_attachments a union all select to_jsonb(d) from gre_relay_deliveries d) y"
    )
    for kept in (json.dumps(event), json.dumps(push), tables[0]["said"], api.worker.log.read_text()):
        assert "token=" not in kept and "/storage/v1/object" not in kept
        assert not any(secret in kept for secret in secrets)
    for told in (json.dumps(event), json.dumps(push), api.worker.log.read_text()):
        assert "passport-9471" not in told


def test_a_link_is_asked_for_at_most_a_hundred_files(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    ids = [str(uuid.uuid4()) for _ in range(101)]
    assert player.post(LINKS, ids=ids, variant="view").status_code == 422
    assert len(links(player, "view", *ids[:100])) == 100
    assert links(player, "view") == {}
    assert player.post(LINKS, ids=[], variant="original").status_code == 422
