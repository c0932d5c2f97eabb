"""Files through the services as a portal meets them: announced over PostgREST, uploaded to Storage, sent, signed."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import jwt
import pytest

from tests.support.stack import StackProcess

PNG = b"\x89PNG\r\n\x1a\n" + bytes(92)


def token(stack: StackProcess, **app: Any) -> str:
    claims = {
        "role": "authenticated",
        "exp": int(time.time()) + 600,
        "sub": str(uuid.uuid4()),
        "app_metadata": app,
    }
    return jwt.encode(claims, stack.keys.jwt_secret, "HS256")


def rpc(stack: StackProcess, key: str, function: str, **arguments: Any) -> httpx.Response:
    body = {f"p_{name}": value for name, value in arguments.items()}
    return stack.http.post(f"/rest/v1/rpc/{function}", json=body, headers=stack.headers(key))


def upload(
    stack: StackProcess, key: str | None, name: str, data: bytes = PNG, **headers: str
) -> dict[str, Any]:
    answer = stack.http.post(f"/storage/v1/object/gre-chat/{name}", content=data,
                             headers={**stack.headers(key), "content-type": "image/png", **headers})  # fmt: skip
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def keys(stack: StackProcess) -> dict[str, str]:
    return {
        "a": token(stack, gre_role="player", player_id=29),
        "b": token(stack, gre_role="player", player_id=30),
    }


def announced(stack: StackProcess, key: str, **given: Any) -> dict[str, Any]:
    arguments = {"id": str(uuid.uuid4()), "name": "cat.png", "type": "image/png", "bytes": len(PNG), **given}
    answer = rpc(stack, key, "gre_attachment_begin", **arguments)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_player_uploads_sends_and_fetches_and_another_cannot(
    stack: StackProcess, keys: dict[str, str]
) -> None:
    file = announced(stack, keys["a"])
    denied = {
        "statusCode": "403",
        "error": "Unauthorized",
        "message": "new row violates row-level security policy",
    }
    for key, name in (
        (keys["b"], file["object"]),
        (keys["b"], f"29/{uuid.uuid4()}/original"),
        (keys["a"], f"29/{uuid.uuid4()}/original"),
    ):
        found = upload(stack, key, name)
        assert (found["statusCode"], found["error"]) == (denied["statusCode"], denied["error"])
        assert found["message"].startswith(denied["message"])
    assert upload(stack, keys["a"], file["object"])["Key"] == f"gre-chat/{file['object']}"
    again = upload(stack, keys["a"], file["object"], PNG[:50])
    assert again["statusCode"] in ("403", "409"), "it is stored, so it is not written again"
    assert upload(stack, None, file["object"], PNG[:50], **{"x-upsert": "true"})["statusCode"] == "403"

    sent = rpc(stack, keys["a"], "gre_send_message", message="", attachment_ids=[file["id"]]).json()[
        "message"
    ]
    assert [f["state"] for f in sent["attachments"]] == ["stored"]
    path = f"/storage/v1/object/gre-chat/{file['object']}"
    assert stack.http.get(path, headers=stack.headers(keys["a"])).content == PNG
    assert stack.http.get(path, headers=stack.headers(keys["b"])).json()["statusCode"] == "404"
    for key in (keys["a"], keys["b"]):
        answer = stack.http.request(
            "DELETE",
            "/storage/v1/object/gre-chat",
            json={"prefixes": [file["object"]]},
            headers=stack.headers(key),
        )
        assert answer.json() == []
    assert stack.http.get(path, headers=stack.headers(keys["a"])).content == PNG


def test_an_upload_larger_or_of_another_type_than_announced_leaves_nothing(
    stack: StackProcess, keys: dict[str, str]
) -> None:
    file = announced(stack, keys["a"], bytes=50)
    for headers, said in (({}, "larger than announced"), ({"content-type": "image/gif"}, "")):
        found = upload(stack, keys["a"], file["object"], **headers)
        assert found["statusCode"] == "403"
        assert said in found["message"]
    with stack.db() as conn:
        assert conn.execute("select from storage.objects where name = %s", [file["object"]]).fetchall() == []
    assert upload(stack, keys["a"], file["object"], PNG[:50])["Key"]


def test_a_signed_upload_stores_the_file(stack: StackProcess, keys: dict[str, str]) -> None:
    file = announced(stack, keys["a"])
    sign = f"/storage/v1/object/upload/sign/gre-chat/{file['object']}"
    assert stack.http.post(sign, headers=stack.headers(keys["b"])).json()["statusCode"] == "403"
    url = stack.http.post(sign, headers=stack.headers(keys["a"])).json()["url"]
    answer = stack.http.put(f"/storage/v1{url}", content=PNG, headers={"content-type": "image/png"})
    assert answer.status_code == 200, answer.text
    assert rpc(stack, keys["a"], "gre_attachment_get", id=file["id"]).json()["state"] == "stored"
    second = stack.http.put(f"/storage/v1{url}", content=PNG[:9], headers={"content-type": "image/png"})
    assert second.json()["statusCode"] in ("403", "409")
