"""What the migrations make, held against what is there: triggers, functions, policies, privileges and all the rest.

Pure: `schema_check` finds the differences; here each becomes a finding with the statement that mends it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from gre_bridge.doctor.report import Finding, failed, ok, warn
from gre_bridge.migrations.catalog import Difference

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
    """One finding for each kind of difference, and one line where there is none."""
    missing: dict[str, list[str]] = defaultdict(list)
    extra: dict[str, list[str]] = defaultdict(list)
    for one in found:
        (missing if one.missing else extra)[one.kind].append(one.line)
    if lost := missing["triggers"]:
        yield failed(
            TRIGGERS,
            f"not there: {_some(lost)}: what they do is not done",
            f"{_STATEMENT}, then `gre-bridge reconcile` announces what came in meanwhile",
        )
    kinds = ("columns", "constraints", "functions", "indexes")
    if lost := [
        f"{kind[:-1] if kind != 'indexes' else 'index'} {line}" for kind in kinds for line in missing[kind]
    ]:
        yield failed(OBJECTS, f"not there: {_some(lost)}", _STATEMENT)
    elif changed := missing["sources"]:
        names = [line.split(": ")[0] for line in changed]
        yield warn(
            OBJECTS,
            f"not as this release ships them: {_some(names)}",
            "find out who changed them; compare with sql/migrations",
        )
    else:
        yield ok(OBJECTS, "all that the migrations make")
    yield from _policies(missing["policies"], extra["policies"])
    yield from _privileges(missing["privileges"], extra["privileges"])
    if extra["open functions"]:
        names = [line.split(" may be executed by ")[0] for line in extra["open functions"]]
        yield warn(
            FUNCTIONS,
            f"read or write the chat with their owner's rights: {_some(extra['open functions'])}",
            f"let them ask who calls, or: revoke execute on function {', '.join(names)} from public, anon, authenticated",
        )


def _policies(missing: list[str], extra: list[str]) -> Iterator[Finding]:
    if extra:
        names = [re.match(r"(.*) on (\w+): ", line) for line in extra]
        drops = "; ".join(f'drop policy "{m[1]}" on public.{m[2]}' for m in names if m)
        yield failed(POLICIES, f"not of gre-bridge, and open to more than its own: {_some(extra)}", drops)
    if missing:
        yield failed(
            POLICIES,
            f"not there, or changed: {_some([line.split(':')[0] for line in missing])}: users do not see what is theirs, or more",
            _STATEMENT,
        )
    if not extra and not missing:
        yield ok(POLICIES, "as the migrations make them")


def _privileges(missing: list[str], extra: list[str]) -> Iterator[Finding]:
    # A right on a whole table hides the one on its columns, and takes that with it when it is revoked.
    tables = set(extra)
    hidden = [
        line for line in missing if (m := _COLUMN.fullmatch(line)) and f"{m[1]} may {m[2]} {m[4]}" in tables
    ]
    missing = [line for line in missing if line not in hidden]
    if extra:
        fix = _statements("revoke", extra) + ("; " + _statements("grant", hidden) if hidden else "")
        yield failed(PRIVILEGES, f"beyond what the migrations grant: {_some(extra)}", fix)
    if missing:
        yield failed(PRIVILEGES, f"withdrawn: {_some(missing)}", _statements("grant", missing))
    if not extra and not missing:
        yield ok(PRIVILEGES, "as the migrations grant them")


def _statements(verb: str, lines: list[str]) -> str:
    """The statements, one for each role and privilege, which mend it."""
    objects: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in lines:
        if m := _EXECUTE.fullmatch(line):
            objects[m[1], "execute on function"].append(m[2])
        elif m := _COLUMN.fullmatch(line):
            objects[m[1], f"{m[2]} ({m[3]}) on"].append(f"public.{m[4]}")
        elif m := _TABLE.fullmatch(line):
            objects[m[1], f"{m[2]} on"].append(f"public.{m[3]}")
    who = {"grant": "to {0}", "revoke": "from public, {0}"}[verb]
    return "; ".join(
        f"{verb} {what} {', '.join(names)} {who.format(role)}" for (role, what), names in objects.items()
    )


def _some(lines: list[str]) -> str:
    shown = "; ".join(lines[:_SHOWN])
    return shown if len(lines) <= _SHOWN else f"{shown} and {len(lines) - _SHOWN} more"
