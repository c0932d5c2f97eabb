"""Judges the differences between the schema and the migrations: each becomes a finding with the SQL that repairs it.

Pure: `db.catalog` finds the differences.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from gre_bridge.db.catalog import Difference
from gre_bridge.doctor.report import Finding, failed, ok, warn

OBJECTS, POLICIES, PRIVILEGES, FUNCTIONS, TRIGGERS = (
    "schema objects",
    "policies",
    "privileges",
    "open functions",
    "triggers",
)
_SHOWN = 4
_STATEMENT = "find its statement in sql/migrations and run it again"
_EXECUTE = re.compile(r"(\w+) may execute (.*)")
_COLUMN = re.compile(r"(\w+) may (\w+) \((.*)\) of (.*)")
_TABLE = re.compile(r"(\w+) may (\w+) (.*)")


def judge_schema(found: Sequence[Difference]) -> Iterator[Finding]:
    """Yield a finding for each kind of difference, or "ok" where there is none."""
    missing: dict[str, list[str]] = defaultdict(list)
    extra: dict[str, list[str]] = defaultdict(list)
    for item in found:
        (missing if item.missing else extra)[item.kind].append(item.line)
    if lost := missing["triggers"]:
        yield failed(
            TRIGGERS,
            f"missing: {_some(lost)}",
            f"{_STATEMENT}, then run `gre-bridge reconcile` for the messages of the meantime",
        )
    kinds = ("columns", "constraints", "functions", "indexes")
    if lost := [
        f"{kind[:-1] if kind != 'indexes' else 'index'} {line}" for kind in kinds for line in missing[kind]
    ]:
        yield failed(OBJECTS, f"missing: {_some(lost)}", _STATEMENT)
    elif changed := missing["sources"]:
        names = [line.split(": ")[0] for line in changed]
        yield warn(
            OBJECTS,
            f"differ from those of this release: {_some(names)}",
            "find out who changed them; compare with sql/migrations",
        )
    else:
        yield ok(OBJECTS, "as the migrations make them")
    yield from _policies(missing["policies"], extra["policies"])
    yield from _privileges(missing["privileges"], extra["privileges"])
    if extra["open functions"]:
        names = [line.split(" may be executed by ")[0] for line in extra["open functions"]]
        yield warn(
            FUNCTIONS,
            f"access the chat with their owner's rights: {_some(extra['open functions'])}",
            f"let them check their caller, or: revoke execute on function {', '.join(names)} from public, anon, authenticated",
        )


def _policies(missing: list[str], extra: list[str]) -> Iterator[Finding]:
    if extra:
        names = [re.match(r"(.*) on (\w+): ", line) for line in extra]
        drops = "; ".join(f'drop policy "{m[1]}" on public.{m[2]}' for m in names if m)
        yield failed(
            POLICIES, f"additional, and more permissive than gre-bridge's own: {_some(extra)}", drops
        )
    if missing:
        yield failed(
            POLICIES,
            f"missing or changed: {_some([line.split(':')[0] for line in missing])}: users read too little or too much",
            _STATEMENT,
        )
    if not extra and not missing:
        yield ok(POLICIES, "as the migrations make them")


def _privileges(missing: list[str], extra: list[str]) -> Iterator[Finding]:
    # A privilege on a table hides the one on its columns; revoking it revokes that one too.
    tables = set(extra)
    hidden = [
        line for line in missing if (m := _COLUMN.fullmatch(line)) and f"{m[1]} may {m[2]} {m[4]}" in tables
    ]
    missing = [line for line in missing if line not in hidden]
    if extra:
        fix = _statements("revoke", extra) + ("; " + _statements("grant", hidden) if hidden else "")
        yield failed(PRIVILEGES, f"in excess of the migrations: {_some(extra)}", fix)
    if missing:
        yield failed(PRIVILEGES, f"revoked: {_some(missing)}", _statements("grant", missing))
    if not extra and not missing:
        yield ok(PRIVILEGES, "as the migrations grant them")


def _statements(verb: str, lines: list[str]) -> str:
    """Return SQL, one statement for each role and privilege."""
    objects: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in lines:
        if m := _EXECUTE.fullmatch(line):
            objects[m[1], "execute on function"].append(m[2])
        elif m := _COLUMN.fullmatch(line):
            objects[m[1], f"{m[2]} ({m[3]}) on"].append(f"public.{m[4]}")
        elif m := _TABLE.fullmatch(line):
            objects[m[1], f"{m[2]} on"].append(f"public.{m[3]}")
    grantee = {"grant": "to {0}", "revoke": "from public, {0}"}[verb]
    return "; ".join(
        f"{verb} {privilege} {', '.join(names)} {grantee.format(role)}"
        for (role, privilege), names in objects.items()
    )


def _some(lines: list[str]) -> str:
    shown = "; ".join(lines[:_SHOWN])
    return shown if len(lines) <= _SHOWN else f"{shown} and {len(lines) - _SHOWN} more"
