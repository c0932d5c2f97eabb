"""Requests that follow the OpenAPI document's schemas, and others, are answered as it describes.

Thousands of requests, drawn from the OpenAPI document that the daemon serves: half of the values as it wants
them, half of them not, from people of every kind. Nothing may be a 500, nothing undocumented.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import EXPORT, Api, Person
from tests.api.files import BEGIN, uploaded
from tests.support.canary import CANARY

HOSTILE = [
    "", " ", "\0", "\ud800", "null", "true", "NaN", "-1", "0", "29", "1e309", "9" * 40, "٣", "' or '1'='1", "'; drop table gre_chat_messages; --",
    "{}", "[]", "%00", "../..", "a" * 5000, "<script>", "\u202e", "{player_id}", "${jndi:x}", "active", "me", "none", "player", "gre",
]  # fmt: skip
# In a tuple: beside good values, one_of would count each of these choices as much as all the good ones.
JUNK = st.tuples(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 1e308, 0.5, -0.0]),
        st.sampled_from(HOSTILE),
        st.text(max_size=20),
        st.lists(st.integers(), max_size=2),
        st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
    )
).map(lambda choice: choice[0])
OFTEN_REFUSED = {"/api/pusher/auth", "/api/gre-chat/rate"}
"""Paths that need more than a request: a socket's id; a closed session while ratings are on (test_rate)."""
GENERAL = {400, 404, 405, 415}
"""Answers that every path may give, documented or not."""


def fitting(schema: dict[str, Any], known: list[Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows; ids are often `known` ones."""
    if "anyOf" in schema:
        examples = [st.sampled_from(schema["examples"])] if "examples" in schema else []
        return st.one_of(*examples, *(fitting(choice, known) for choice in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema.get("type"):
        case "integer":
            numbers = st.sampled_from([1, *(one for one in known if isinstance(one, int))])
            return numbers | st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"))
        case "string":
            return fitting_text(schema, known)
        case "object" if "examples" in schema:
            return st.sampled_from(schema["examples"])
        case "array":
            return st.just([])
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    return JUNK


def fitting_text(schema: dict[str, Any], known: list[Any]) -> st.SearchStrategy[str]:
    """Texts that a schema allows, often its examples."""
    if schema.get("format") == "uuid":
        ids = st.sampled_from([one for one in known if isinstance(one, str)])
        return st.one_of(ids, ids, st.uuids().map(str))
    if schema.get("format") == "date-time":
        times = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
        return st.one_of(*[st.sampled_from(schema["examples"])] * 3, times) if "examples" in schema else times
    if "pattern" in schema:
        texts = st.from_regex(re.compile(schema["pattern"], re.ASCII), fullmatch=True)
    else:
        words = st.sampled_from(["player", "staff", "s1", "me", "Hello"])
        texts = words | st.text(min_size=schema.get("minLength", 0), max_size=200)
    examples = st.sampled_from(schema["examples"]) if "examples" in schema else texts
    return st.one_of(examples, examples, texts)


def operations(
    document: dict[str, Any], known: list[Any], ids: dict[str, str]
) -> list[st.SearchStrategy[dict[str, Any]]]:
    """Requests to each path: parameters and bodies, each value fitting or not; `ids` are for `{id}` after a path."""

    def value(schema: dict[str, Any], *, junk: bool, before: str = "") -> st.SearchStrategy[Any]:
        good = fitting(schema, [ids[before]] if before in ids else known)
        return st.one_of(good, good, JUNK) if junk else good

    def body(operation: dict[str, Any], *, junk: bool) -> st.SearchStrategy[bytes]:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            return st.just(b"{}")
        schema = content["schema"]
        while "$ref" in schema or "anyOf" in schema:
            schema = next((c for c in schema.get("anyOf", []) if "$ref" in c), schema)
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        bodies = []
        for some_junk in (False, True):
            fields = {name: value(field, junk=some_junk) for name, field in schema["properties"].items()}
            wanted = {name: fields.pop(name) for name in schema.get("required", [])}
            bodies.append(st.fixed_dictionaries(wanted, optional=fields))
        if not junk:
            return bodies[0].map(lambda body: json.dumps(body).encode())
        broken = st.binary(max_size=30) | JUNK.map(lambda junk: json.dumps(junk).encode())
        return st.one_of(
            *[whole.map(lambda body: json.dumps(body).encode()) for whole in (*bodies, *bodies, bodies[0])],
            broken,
        )

    def request(path: str, method: str, operation: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        requests = []
        parameters = operation.get("parameters", [])
        wanted = [each["name"] for each in parameters if each["in"] == "query" and each["required"]]
        for junk in (False, True):
            places: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
            for parameter in parameters:
                name = parameter["name"]
                before = path.partition(f"/{{{name}}}")[0]
                places[parameter["in"]][name] = value(parameter["schema"], junk=junk, before=before)
            required = {} if junk else {name: places["query"].pop(name) for name in wanted}
            requests.append(
                st.fixed_dictionaries(
                    {
                        "method": st.just(method.upper()),
                        "template": st.just(path),
                        "path": st.fixed_dictionaries(places["path"]),
                        "query": st.fixed_dictionaries(required, optional=places["query"]),
                        "body": body(operation, junk=junk) if method != "get" else st.none(),
                    }
                )
            )
        return st.one_of(requests)

    paths = document["paths"].items()
    return [request(path, *one) for path, methods in paths for one in methods.items()]


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture
def desk(api: Api) -> Iterator[None]:
    """Undo what the requests set for the whole desk."""
    yield
    api.sql("delete from gre_chat_settings")
    api.sql("insert into gre_chat_settings default values")
    api.sql("delete from gre_auto_replies")  # which may refer to hours
    api.sql("delete from gre_hours")
    api.sql("update gre_staff set takes_sessions = true, max_sessions = null")
    # The texts that are drawn are no notes of the suite, which contain the canary word.
    api.sql("delete from gre_chat_notes where text not like %s", f"%{CANARY}%")
    api.sql("delete from gre_templates")


def prepared(api: Api, player_id: int) -> dict[str, str]:
    """Create a template, an auto-reply and a player's file, and return the id at each path."""
    templates, rules, texts = "/api/gre-admin/templates", "/api/gre-admin/auto-replies", {"en": "Hello"}
    template = api.admin().post(templates, shortcut="known", title="Known", texts=texts)
    rule = api.admin().post(rules, name="Known", occasion="reopened", texts=texts)
    return {
        templates: template.json()["template"]["id"],
        rules: rule.json()["auto_reply"]["id"],
        BEGIN: uploaded(api.player(player_id)),
    }


@pytest.mark.usefixtures("desk")
def test_every_answer_matches_the_document(api: Api, player_id: int) -> None:
    document = api.http.get("/openapi.json").json()
    sent = api.player(player_id).send()
    known = [sent["messageId"], sent["sessionId"], player_id]
    people = [api.staff(), api.admin(), api.backend("staff:s1"), api.player(player_id), api.backend(f"player:{player_id}"), api.backend(), api.with_token("x"), api.with_token(None)]  # fmt: skip
    statuses: Counter[tuple[str, int]] = Counter()

    def answer(asked: tuple[Person, dict[str, Any]]) -> None:
        who, request = asked
        path = request["template"]
        for name, value in request["path"].items():
            path = path.replace(
                f"{{{name}}}", quote(written(value).encode("utf-8", "replace"), safe="") or "-"
            )
        query = "&".join(
            f"{name}={quote(written(value).encode('utf-8', 'replace'))}"
            for name, value in request["query"].items()
        )
        got: httpx.Response = who.ask(
            request["method"],
            f"{path}?{query}",
            content=request["body"],
            headers={"Content-Type": "application/json"},
        )
        documented = document["paths"][request["template"]][request["method"].lower()]["responses"]
        assert got.status_code < 500, (request, got.text)
        assert str(got.status_code) in documented or got.status_code in GENERAL, (request, got.text)
        statuses[f"{request['method']} {request['template']}", got.status_code] += 1

    patient = settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    with ThreadPoolExecutor(6) as pool:
        for requests in operations(document, known, prepared(api, player_id)):

            @patient
            @given(st.lists(st.tuples(st.sampled_from(people), requests), min_size=10, max_size=20))
            def ask(batch: list[tuple[Person, dict[str, Any]]]) -> None:
                list(pool.map(answer, batch))

            # An earlier path may have closed the session, deleted the hours, or had a setting refer to them.
            api.sql("update gre_chat_settings set hours = null")
            api.sql(
                "insert into gre_hours (name, timezone) values ('desk', 'Europe/Malta') on conflict do nothing"
            )
            api.sql("update gre_chat_sessions set status = 'closed' where player_id = %s and id <> %s", player_id, sent["sessionId"])  # fmt: skip
            api.sql("update gre_chat_sessions set status = 'active' where id = %s", sent["sessionId"])
            ask()

    assert statuses.total() > 2000
    for path, methods in document["paths"].items():
        for method in methods:
            well = [s for (name, s) in statuses if name == f"{method.upper()} {path}" and s < 300]
            assert well or path in OFTEN_REFUSED, f"{method} {path} was never answered well"


def test_every_path_of_the_contract_is_documented(api: Api) -> None:
    document = api.http.get("/openapi.json").json()
    paths = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert paths == {
        "POST /api/gre-chat/send",
        "POST /api/unified-chat/send",
        "POST /api/gre-admin/reply",
        "GET /api/gre-chat/messages/{player_id}",
        "GET /api/chat-history/{player_id}",
        "POST /api/gre-chat/read/{session_id}",
        "GET /api/gre-chat/me",
        "GET /api/gre-chat/desk",
        "POST /api/gre-chat/rate",
        "POST /api/gre-chat/attachments",
        "GET /api/gre-chat/attachments/{id}",
        "DELETE /api/gre-chat/attachments/{id}",
        "POST /api/gre-chat/attachments/urls",
        "GET /api/gre-admin/sessions",
        "GET /api/gre-admin/queue",
        "GET /api/gre-admin/staff",
        "PUT /api/gre-admin/staff/{staff_id}",
        "POST /api/gre-admin/take",
        "POST /api/gre-admin/release",
        "POST /api/gre-admin/transfer",
        "GET /api/gre-admin/settings",
        "PUT /api/gre-admin/settings",
        "GET /api/gre-admin/hours",
        "POST /api/gre-admin/hours",
        "GET /api/gre-admin/hours/{name}",
        "PUT /api/gre-admin/hours/{name}",
        "DELETE /api/gre-admin/hours/{name}",
        "GET /api/gre-admin/player/{player_id}",
        "PUT /api/gre-admin/player/{player_id}/block",
        "DELETE /api/gre-admin/player/{player_id}/block",
        "GET /api/gre-admin/notes/{session_id}",
        "POST /api/gre-admin/notes",
        "GET /api/gre-admin/search",
        "GET /api/gre-admin/export",
        "GET /api/gre-admin/reports",
        "GET /api/gre-admin/reports/sessions",
        "GET /api/gre-admin/reports/live",
        "GET /api/gre-admin/reports/check",
        "GET /api/gre-admin/operations",
        "GET /api/gre-admin/dead",
        "POST /api/gre-admin/dead/retry",
        "GET /api/gre-admin/messages/{session_id}",
        "GET /api/gre-admin/events/{session_id}",
        "GET /api/gre-admin/templates",
        "POST /api/gre-admin/templates",
        "GET /api/gre-admin/templates/{id}",
        "PUT /api/gre-admin/templates/{id}",
        "DELETE /api/gre-admin/templates/{id}",
        "POST /api/gre-admin/templates/{id}/render",
        "GET /api/gre-admin/auto-replies",
        "POST /api/gre-admin/auto-replies",
        "GET /api/gre-admin/auto-replies/{id}",
        "PUT /api/gre-admin/auto-replies/{id}",
        "DELETE /api/gre-admin/auto-replies/{id}",
        "PUT /api/gre-admin/session/{session_id}/status",
        "POST /api/gre-chat/close-session/{player_id}",
        "POST /api/gre-chat/enable-player/{player_id}",
        "POST /api/gre-chat/enable-all-players",
        "GET /api/gre-chat/health",
        "POST /api/pusher/auth",
        "POST /api/pusher/user-auth",
    }
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and operation["description"] and operation["tags"]
            assert operation["security"], path
            for status, answer in operation["responses"].items():
                if status != "304":
                    file = path == EXPORT and status == "200"
                    kinds = ["application/x-ndjson", "text/csv"] if file else ["application/json"]
                    assert [*answer["content"]] == kinds, (path, status)
                    assert all(kind["schema"] for kind in answer["content"].values())
    schemas = document["components"]["schemas"]
    assert {"Message", "Session", "Error", "SendMessage"} <= schemas.keys()
    assert "HTTPValidationError" not in schemas
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_the_documentation_is_served_if_enabled(api: Api, path: str) -> None:
    assert api.http.get(path).status_code == 200
