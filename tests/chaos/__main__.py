"""`python -m tests.chaos`: every case, one line each; exit status 1 if a guarantee was not met."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.attacks import ATTACKS, AttackReport
from tests.chaos.attacks import run as run_attack
from tests.chaos.cases import CASES
from tests.chaos.file_cases import FILE_CASES
from tests.chaos.runner import Report, run
from tests.chaos.simulated import SIMULATED
from tests.support.stack import StackProcess
from tests.support.template import Template

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
FAULTS, FILES, ATTACKED, END = (
    "<!-- python -m tests.chaos --write -->",
    "<!-- python -m tests.chaos --write: files -->",
    "<!-- python -m tests.chaos --write: attacks -->",
    "<!-- end -->",
)
FILES_HEAD = (
    "| fault | files | given up | lost | doubled | left | all ready | bound |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)
ATTACKED_HEAD = (
    "| attack | description | relay's p99, no attack | attack | memory growth | other clients |\n"
    "| --- | --- | ---: | ---: | ---: | ---: |\n"
)
HEAD = (
    "| fault | description | sent | delivered | dead | lost | out of order | repeats"
    " | bystanders | recovery | bound |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)


def line(report: Report) -> str:
    """One report for the terminal."""
    bystanders = f"{report.bystanders:5.2f}" if report.bystanders is not None else "    -"
    files = (
        f" files {found.sent} given up {found.dropped} ready {found.ready:.1f} s of {found.bound:.0f}"
        if (found := report.files)
        else ""
    )
    verdict = "ok" if report.ok else "FAILED: " + "; ".join(report.problems + report.slow)
    return (
        f"{report.name:28} sent {report.sent:4} delivered {report.delivered:4} dead {report.dead:2}"
        f" lost {report.lost} out of order {report.out_of_order} repeats {_repeats(report):>5}"
        f" bystanders {bystanders} s recovery {report.recovery:5.1f} s of {report.bound:4.1f}{files}  {verdict}"
    )


def row(report: Report) -> str:
    """One report for the page."""
    cells = [
        f"`{report.name}`", report.description, report.sent, report.delivered, report.dead, report.lost,
        report.out_of_order, _repeats(report), "" if report.bystanders is None else f"{report.bystanders:.2f} s",
        f"{report.recovery:.1f} s", f"{report.bound:.1f} s" + ("" if report.ok else " FAILED"),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |\n"


def files_row(report: Report) -> str:
    """The files of one report for the page."""
    found = report.files
    assert found is not None
    cells = [
        f"`{report.name}`", found.sent, found.dropped, found.lost, found.doubled, found.left, f"{found.ready:.1f} s",
        f"{found.bound:.0f} s" + ("" if report.ok else " FAILED"),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |\n"


def _repeats(report: Report) -> str:
    return "/".join(str(count) for count in report.repeats.values()) or "0"


def attacked_row(report: AttackReport) -> str:
    """One attack for the page."""
    cells = [
        f"`{report.name}`", report.description, f"{report.quiet * 1000:.0f} ms",
        f"{report.attacked * 1000:.0f} ms" + ("" if report.ok else " FAILED"), f"{report.grown / 2**20:+.0f} MB",
        f"{report.served * 1000:.0f} ms",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |\n"


def write(begin: str, head: str, made: dict[str, str], names: Sequence[str]) -> None:
    """Put rows into the table of the page that follows `begin`, in the order of `names`; those of cases that were not run stay."""
    text = PAGE.read_text()
    before, rest = text.split(begin)
    old, after = rest.split(END, 1)
    rows = {line.split("`")[1]: f"{line}\n" for line in old.splitlines() if line.startswith("| `")} | made
    table = head + "".join(rows[name] for name in names if name in rows)
    PAGE.write_text(f"{before}{begin}\n\n{table}\n{END}{after}")


def print_line(text: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a case; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the cases")
    parser.add_argument(
        "--write", action="store_true", help="write the rows into the tables of docs/reliability.md"
    )
    parser.add_argument(
        "--desk",
        action="store_true",
        help="with automatic assignment and auto-replies on (the attacks and simulated cases have none)",
    )
    options = parser.parse_args()
    cases = {case.name: case for case in (*CASES, *FILE_CASES)}
    attacks = {attack.name: attack for attack in ATTACKS}
    names = [*cases, *SIMULATED, *attacks]
    if unknown := set(options.only) - set(names):
        parser.error(f"no case {', '.join(sorted(unknown))}; --list shows them")
    if options.list:
        for name in names:
            print_line(f"{name:28} {(cases | SIMULATED | attacks)[name].description}")
        return 0
    wanted = [name for name in names if not options.only or name in options.only]
    reports: list[Report] = []
    attacked: list[AttackReport] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        Template(Path(directory)) as template,
        StackProcess(Path(directory), template) as stack,
    ):
        for name in wanted:
            if name in attacks:
                attacked.append(run_attack(stack, attacks[name]))
                print_line(attacked[-1].line())
                continue
            report = (
                run(stack, cases[name], with_desk=options.desk) if name in cases else SIMULATED[name].run()
            )
            reports.append(report)
            print_line(line(report))
    if options.write:
        write(FAULTS, HEAD, {report.name: row(report) for report in reports}, names)
        write(
            FILES, FILES_HEAD, {report.name: files_row(report) for report in reports if report.files}, names
        )
        write(ATTACKED, ATTACKED_HEAD, {report.name: attacked_row(report) for report in attacked}, names)
    failed = [report.name for report in [*reports, *attacked] if not report.ok]
    print_line(f"{len(reports) + len(attacked)} cases, {len(failed)} failed {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
