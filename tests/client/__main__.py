"""Run all cases with some pages, and print which they bear: `python -m tests.client [client-ws|vite|…] [--only CASE]`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.client.cases import CASES, Case
from tests.client.chromium import Chromium, sample_subject
from tests.client.clients import (
    GUIDE,
    HOOKS,
    PUSHER_CLIENT,
    PUSHER_HOOKS,
    SOCKET_CLIENT,
    STAFF_PUSHER,
    STAFF_SOCKET,
    STAFF_SUPABASE,
    SUPABASE_CLIENT,
)
from tests.client.samples import EARLIER_PUSHER, EARLIER_SOCKET, PUSHER_SAMPLE, SOCKET_SAMPLE
from tests.client.sites import Build, next_site, vite_site
from tests.client.staff import desk, desk_after_faults
from tests.client.world import WITHIN, World, world_for
from tests.support.template import Template

SUBJECTS = {
    "client-ws": SOCKET_CLIENT,
    "client-pusher": PUSHER_CLIENT,
    "client-supabase": SUPABASE_CLIENT,
    "guide": GUIDE,
    "hooks": HOOKS,
    "hooks-pusher": PUSHER_HOOKS,
    "staff-ws": STAFF_SOCKET,
    "staff-pusher": STAFF_PUSHER,
    "staff-supabase": STAFF_SUPABASE,
    "sample-ws": SOCKET_SAMPLE,
    "sample-pusher": PUSHER_SAMPLE,
    "earlier-ws": EARLIER_SOCKET,
    "earlier-pusher": EARLIER_PUSHER,
}
SITES: dict[str, Build] = {"vite": vite_site, "next": next_site}
"""Pages that run in Chromium."""


def _result(case: Case, world: World, within: float) -> str:
    if why := world.subject.cannot.get(case.__name__):
        return f"-     {why}"
    began = time.monotonic()
    try:
        case(world, within)
    except AssertionError as error:
        return f"FAILS {str(error)[:150]}  ({time.monotonic() - began:.1f} s)"
    return f"ok    ({time.monotonic() - began:.1f} s)"


def _report(world: World, only: str, within: float) -> int:
    """Run the cases with the world's subject; return the number of those that failed."""
    failed, began = 0, time.monotonic()
    sys.stdout.write(f"\n{world.subject.name}\n")
    cases = (*CASES, desk, desk_after_faults) if world.subject.staff else CASES
    for case in (case for case in cases if only in case.__name__):
        result = _result(case, world, within)
        failed += result.startswith("FAILS")
        sys.stdout.write(f"  {case.__name__:30} {result}\n")
        sys.stdout.flush()
    sys.stdout.write(f"  {'':30} {time.monotonic() - began:.0f} s\n")
    return failed


def main(arguments: Sequence[str]) -> int:
    """Run, print a line for each case, and return the number of those that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.client", description=__doc__)
    names = [*SUBJECTS, *SITES]
    parser.add_argument("subjects", nargs="*", choices=[*names, []], help="default: all")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--within", type=float, default=WITHIN, help="bound for each wait, in seconds")
    options = parser.parse_args(arguments)
    chosen = options.subjects or names
    failed = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        template = stack.enter_context(Template(folder))
        servers = folder / "servers"
        servers.mkdir()
        world = stack.enter_context(world_for(SOCKET_SAMPLE, servers, template))
        browser = stack.enter_context(Chromium()) if {*chosen} & {*SITES} else None
        for name in chosen:
            if name in SUBJECTS:
                failed += _report(replace(world, subject=SUBJECTS[name]), options.only, options.within)
            elif browser:
                with SITES[name](folder / name) as site:
                    subject = sample_subject(f"the sample for {name}", browser, site)
                    failed += _report(replace(world, subject=subject), options.only, options.within)
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
