"""`api.schemas.codes` has every code with which the API, its sockets and the database refuse."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from gre_bridge.api import app, outages
from gre_bridge.api.schemas.codes import AnyCode, Code
from tests.unit.test_openapi_document import OF_NO_PATH

ROOT = Path(__file__).parents[2]
PLACES = {
    "Refused": 1, "problem": 2, "CloseConnection": 2, "send_error": 0, "FieldError": 1, "error_response": 1, "close": 2,
}  # fmt: skip
"""The argument with the code of each call that refuses."""
PASSED_ON = {
    "error.code", "refusal.code", "closing.error", "error",  # the code of a refusal that was made elsewhere
    "code",  # from the tables of `outages` and `app`, which are read below; a dictionary's entry
    "error.hint",  # the database's
}  # fmt: skip


def codes_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each code that a module names where it refuses, and "" with the expression that stands in place of one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        place = PLACES.get(name)
        if place is None or len(node.args) <= place:
            continue
        for part in ast.walk(node.args[place]):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value, ""
        if isinstance(node.args[place], ast.Name | ast.Attribute | ast.BoolOp):
            yield "", ast.unparse(node.args[place])


def test_no_code_is_missing_from_the_list() -> None:
    modules = [*(ROOT / "gre_bridge" / "api").rglob("*.py"), *(ROOT / "gre_bridge" / "db").glob("*.py")]
    found = [each for path in modules for each in codes_in(path)]
    named = {code for code, _ in found if code}
    assert {"too_fast", "type_unknown", "identity_mismatch", "channel_refused"} <= named
    passed_on = {name for _, expression in found if expression for name in expression.split(" or ")[:1]}
    assert passed_on <= PASSED_ON, "where a code comes from a variable, this test has to know of it"
    named |= {code for table in (outages._NAMED, app._TEXTS) for code, _ in table.values()}
    for path in modules:
        named |= set(re.findall(r'"code": "(\w+)"', path.read_text()))
    assert named <= set(get_args(AnyCode))


def test_no_hint_of_the_database_is_missing_from_the_list() -> None:
    sql = "".join(path.read_text() for path in (ROOT / "sql" / "migrations").glob("*.sql"))
    calls = re.findall(r"gre\.raise_http\((?!p_status)([^,]*),\s*([^,]*),", sql)
    assert len(calls) > 150
    assert [code for status, code in calls if not re.fullmatch(r"'\w+'", code)] == []
    hints = {code.strip("'") for _, code in calls}
    assert hints - OF_NO_PATH <= set(get_args(Code))
    assert len(re.findall(r"hint = p_code", sql)) == len(re.findall(r"errcode = 'PT'", sql)) == 2


def test_a_code_of_frames_alone_is_none_of_rest() -> None:
    assert len(get_args(AnyCode)) == len(set(get_args(AnyCode)))
    assert {"type_unknown", "bad_frame", "identity_mismatch"} == set(get_args(AnyCode)) - set(get_args(Code))
