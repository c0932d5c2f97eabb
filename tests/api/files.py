"""Files of the API's tests: begun over REST, uploaded to the stack's Storage, examined as a worker would."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from tests.api.conftest import Api, Person
from tests.support.loopback import HTTP
from tests.support.waiting import wait_until

BEGIN = "/api/gre-chat/attachments"
LINKS = "/api/gre-chat/attachments/urls"
TEXT = b"Table 4: two seats by the window."


def begin(person: Person, content: bytes = TEXT, **body: Any) -> dict[str, Any]:
    """Begin a file; return the answer."""
    given = {"name": "plan.txt", "type": "text/plain", "bytes": len(content), **body}
    answer = person.post(BEGIN, **given)
    assert answer.status_code == 201, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


def put(upload: dict[str, Any], content: bytes = TEXT, **headers: str) -> httpx.Response:
    """Upload the bytes as a page does."""
    return HTTP.request(
        upload["method"], upload["url"], content=content, headers={**upload["headers"], **headers}
    )


def uploaded(person: Person, content: bytes = TEXT, **body: Any) -> str:
    """Begin a file and upload it; return its id."""
    begun = begin(person, content, **body)
    answer = put(begun["upload"], content)
    assert answer.status_code == 200, answer.text
    return str(begun["attachment"]["id"])


def links(person: Person, variant: str, *ids: str) -> dict[str, Any]:
    """Ask for links; return what each id got."""
    answer = person.post(LINKS, ids=ids, variant=variant)
    assert answer.status_code == 200, answer.text
    urls: dict[str, Any] = answer.json()["urls"]
    return urls


def examined(api: Api, attachment_id: str, result: str = "ready", **more: Any) -> None:
    """Settle the examination of a file, as the worker that has its lease. The daemon of these tests examines none."""
    worker = str(uuid.uuid4())
    lease = "update gre.media_jobs set claimed_by = %s, lease_until = now() + interval '1 minute' where attachment_id = %s"
    api.sql(lease, worker, attachment_id)

    def settled() -> Any:
        body = {"p_worker": worker, "p_results": [{"id": attachment_id, "result": result, **more}]}
        answer = api.stack.http.post(
            "/rest/v1/rpc/gre_media_settle_v1",
            json=body,
            headers=api.stack.headers(api.stack.env["SUPABASE_SERVICE_KEY"]),
        )
        assert not answer.raise_for_status().json()["lost"]
        return answer.json()["settled"]

    wait_until(settled, what="the file's session is not locked")
