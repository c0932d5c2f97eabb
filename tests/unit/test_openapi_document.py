"""docs/openapi.json is the document that the daemon serves. `python -m tests.unit.test_openapi_document` writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import SecretStr

from gre_bridge.api.app import create_app
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.schemas.codes import Code
from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.config.settings import Settings
from gre_bridge.metrics import Metrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"


def served() -> dict[str, Any]:
    settings = Settings(
        supabase_url="https://p.supabase.co", supabase_service_key=SecretStr("key"), docs=True
    )
    app = create_app(
        health=cast("Any", None), authenticator=Authenticator(None, AuthThrottle(60)), settings=settings,
        endpoint=None, metrics=Metrics(),
    )  # fmt: skip
    return app.openapi()


def text() -> str:
    return json.dumps(served(), indent=1, ensure_ascii=False) + "\n"


def test_the_document_in_docs_is_the_one_that_is_served() -> None:
    assert DOCUMENT.read_text() == text(), "python -m tests.unit.test_openapi_document"


def test_operations_have_names_that_a_generated_client_can_use() -> None:
    names = [operation["operationId"] for path in served()["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)
    assert all(name.isalnum() and name[0].islower() for name in names)
    assert {"sendMessage", "listMessages", "sendReply", "listSessions"} <= set(names)


OF_NO_PATH = {
    "claim_invalid", "identities_invalid", "info_too_large", "keep_missing", "link_invalid", "replay_unbounded", "settle_invalid",
    "sink_unknown", "staff_invalid", "time_missing", "exchange_invalid", "audience_unknown", "recipients_missing", "push_too_large",
    "variant_unknown", "export_unknown",
    "basis_invalid", "by_invalid", "metric_unknown",
}  # fmt: skip
"""What the SQL says to workers, operators and back ends that write to a table: no path of the API leads there."""


def test_the_document_names_every_code_of_a_refusal() -> None:
    root = Path(__file__).parents[2]
    sql = "".join(path.read_text() for path in (root / "sql" / "migrations").glob("*.sql"))
    code = "".join(
        path.read_text() for path in (root / "gre_bridge").rglob("*.py") if path.name != "codes.py"
    )
    said = set(re.findall(r"gre\.raise_http\(\d{3},\s*'(\w+)'", sql)) - OF_NO_PATH
    said |= set(re.findall(r"(?:Refused\(|problem\(\s*(?:request\.)?scope,)\s*\d{3},\s*\"(\w+)\"", code))
    codes = set(get_args(Code))
    assert len(said) > 40
    assert said <= codes
    for word in codes:
        assert f"'{word}'" in sql or f'"{word}"' in code, f"nothing says {word}"
    assert set(served()["components"]["schemas"]["Error"]["properties"]["code"]["enum"]) == codes


if __name__ == "__main__":
    DOCUMENT.write_text(text())
