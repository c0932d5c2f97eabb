"""The REST API as portals meet it: the embedded stack, `gre-bridge run`, and people with tokens.

Every answer that passes through here is held against the models that document it, and every refusal against
the one shape of errors.
"""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from gre_bridge.api.rest import (
    chat,
    colleagues,
    desk,
    files,
    health,
    operations,
    pusher_auth,
    replies,
    reports,
    staff,
)
from gre_bridge.api.schemas.responses import Error
from tests.support.canary import check_reader
from tests.support.loopback import NO_TLS, PATIENT
from tests.support.report_check import check_figures
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import wait_until

ORIGIN = "https://portal.example"
EXPORT = "/api/gre-admin/export"
"""The answer of this path is a file."""
NO_MEDIA = {"GRE_MEDIA": "off"}
"""For each daemon on the stack of these tests."""
_players = itertools.count(int(time.time()) % 1_000_000 * 1000)
_MODELS = [
    (method, route.path_regex, TypeAdapter[Any](route.response_model))
    for router in (
        chat.router,
        files.router,
        staff.router,
        desk.router,
        colleagues.router,
        replies.router,
        reports.router,
        reports.rating_router,
        operations.router,
        pusher_auth.router,
        health.router,
    )
    for route in router.routes
    if isinstance(route, APIRoute) and route.response_model
    for method in route.methods
]
_ERROR = TypeAdapter(Error)
_used: list[StackProcess] = []
"""The stack, once a daemon was started on it."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check(answer: httpx.Response) -> httpx.Response:
    """Check an answer against the rules for every answer, and against the document for its path."""
    assert _REQUEST_ID.fullmatch(answer.headers["x-request-id"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status_code == 304:
        assert not answer.content
        return answer
    if not answer.is_success:
        error = _ERROR.validate_json(answer.content, strict=True, extra="forbid")
        assert error.request_id == answer.headers["x-request-id"]
        assert error.error and error.code and "\n" not in error.error
        assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
        assert (answer.headers.get("www-authenticate") == "Bearer") == (answer.status_code == 401)
        return answer
    request = answer.request
    if request.url.path == EXPORT:
        assert answer.headers["content-disposition"].startswith("attachment; ")
        return answer
    (model,) = [m for method, path, m in _MODELS if method == request.method and path.match(request.url.path)]
    model.validate_json(answer.content, strict=True, extra="forbid")
    return answer


class Person:
    """A person with a token; each answer is checked."""

    def __init__(
        self, http: httpx.Client, token: str | None, act_as: str | None = None, role: str = "nobody"
    ) -> None:
        self.http = http
        self.role = role
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if act_as is not None:
            self.headers["X-GRE-Act-As"] = act_as

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        answer = check(self.http.request(method, path, headers=headers, **options))
        check_reader(self.role, answer.text)
        return answer

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.ask("POST", path, json=body)

    def put(self, path: str, **body: Any) -> httpx.Response:
        return self.ask("PUT", path, json=body)

    def send(self, message: str = "Is table 4 open?", **body: Any) -> Any:
        """Send, expect that it is stored, and return the answer."""
        answer = self.post("/api/gre-chat/send", message=message, **body)
        assert answer.status_code == 201, answer.text
        return answer.json()


@dataclass
class Api:
    """A daemon with its stack."""

    stack: StackProcess
    worker: Worker
    http: httpx.Client

    def player(self, player_id: int) -> Person:
        return Person(self.http, self.stack.keys.user_token("player", player_id=player_id), role="player")

    def staff(self, staff_id: str = "s1") -> Person:
        return Person(self.http, self.stack.keys.user_token("staff", staff_id=staff_id), role="staff")

    def admin(self, staff_id: str = "a1") -> Person:
        return Person(self.http, self.stack.keys.user_token("admin", staff_id=staff_id), role="admin")

    def backend(self, act_as: str | None = None) -> Person:
        role = "player" if (act_as or "").startswith("player") else "service"
        return Person(self.http, self.stack.env["SUPABASE_SERVICE_KEY"], act_as, role)

    def with_token(self, token: str | None) -> Person:
        return Person(self.http, token)

    def received(self, sink: str, **like: Any) -> list[dict[str, Any]]:
        """Return the items that a sink received whose data have these values."""
        found = []
        for item in self.stack.received(sink):
            # A refused request without events is an item without data.
            data = item.get("data", {}) if sink == "pusher" else item["body"]["data"]
            if like.items() <= data.items():
                found.append(item)
        return found

    def wait_received(self, sink: str, count: int = 1, **like: Any) -> list[dict[str, Any]]:
        """Wait for `count` of them."""
        return list(
            wait_until(lambda: (f := self.received(sink, **like)) and len(f) >= count and f, what=str(like))
        )

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with self.stack.db() as conn:
            cursor = conn.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """Check the figures of the stack after each file, once a daemon has used it."""
    yield
    for stack in _used:
        with stack.db() as conn:
            check_figures(conn)


def start(
    stack: StackProcess, *, constants: Mapping[str, float] | None = None, **settings: str
) -> Iterator[Api]:
    """A daemon of its own, and the staff that the tests name.

    None examines files, as all have one database: the tests settle that themselves (`tests.api.files`).
    """
    if stack not in _used:
        _used.append(stack)
    with stack.db() as conn:
        conn.execute("insert into gre_staff (staff_id) values ('s2'), ('s9') on conflict do nothing")
    worker = stack.worker(constants=constants, **NO_MEDIA, **settings).start()
    with httpx.Client(base_url=worker.url, timeout=PATIENT, trust_env=False, verify=NO_TLS) as http:
        try:
            yield Api(stack, worker, http)
        finally:
            assert worker.stop() == 0
    assert not [line for line in worker.log.read_text().splitlines() if '"level": "error"' in line]


@pytest.fixture(scope="package")
def api(stack_process: StackProcess) -> Iterator[Api]:
    """The daemon that most tests share: nothing is deleted between them, each uses new players."""
    stack_process.reset()
    yield from start(
        stack_process,
        GRE_DOCS="1",
        GRE_CORS_ORIGINS=ORIGIN,
        GRE_AUTH_FAILURES_PER_MINUTE="100000",
    )


@pytest.fixture(scope="package")
def particular(stack_process: StackProcess) -> Iterator[Api]:
    """A daemon that allows five failures a minute from one address, and calls of two seconds."""
    yield from start(stack_process, GRE_AUTH_FAILURES_PER_MINUTE="5", GRE_REQUEST_TIMEOUT="2")


@pytest.fixture
def player_id() -> int:
    """The id of a player that never wrote."""
    return next(_players)


@pytest.fixture
def other_id() -> int:
    """The id of another one."""
    return next(_players)


@pytest.fixture
def message_id() -> str:
    return str(uuid.uuid4())
