"""Only `gre_bridge/db` names tables and functions of the database in its code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import gre_bridge
from gre_bridge.db.sql_files import sql_file

PACKAGE = Path(gre_bridge.__file__).parent
FREE = {
    "db": "the package that may",
    "migrations": "applies the schema, keeps the Supabase CLI's ledger, and looks for what it adopts",
    "devstack": "stands in for the server: it seeds, resets and reads the database itself",
}
EXCEPTIONS = {
    ("api/ws/handshake.py", "gre_staff"): "a role that clients may give when they authenticate (API.md)",
    ("api/ws/frames.py", "gre_staff"): "a role that clients may give when they authenticate (API.md)",
    ("api/schemas/requests.py", "gre_staff"): "a role that clients may give when they authenticate (API.md)",
}


def names() -> re.Pattern[str]:
    """Tables and functions of the schema, as a pattern that matches any of them."""
    catalog = json.loads(sql_file("expected.json").read_text())
    tables = {line.split(".")[0] for line in catalog["columns"]}
    functions = {line.split("(")[0].removeprefix("public.") for line in catalog["functions"]}
    assert {"gre_chat_messages", "push_notifications"} <= tables
    assert {"gre_relay_claim_v1", "gre_whoami", "gre.is_staff"} <= functions
    return re.compile(rf"\b({'|'.join(map(re.escape, sorted(tables | functions, key=len, reverse=True)))})\b")


def literals(source: str) -> Iterator[str]:
    """String literals of a module, parts of f-strings included, without docstrings."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_only_the_database_package_names_tables_and_functions() -> None:
    pattern = names()
    found = {
        (str(path.relative_to(PACKAGE)), name)
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in FREE
        for text in literals(path.read_text())
        for name in pattern.findall(text)
    }
    assert found - EXCEPTIONS.keys() == set(), "move the call to gre_bridge/db"
    assert EXCEPTIONS.keys() - found == set(), "an exception that is no longer needed"


def test_a_name_is_found_in_a_call_and_not_in_a_docstring() -> None:
    source = '"""Calls gre_whoami."""\nrest.rpc("gre_whoami", {})\nquery = f"select from {x}.gre_staff"\n'
    assert [n for text in literals(source) for n in names().findall(text)] == ["gre_whoami", "gre_staff"]
