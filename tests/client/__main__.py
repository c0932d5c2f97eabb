"""Run all cases with some pages, and print which they bear: `python -m tests.client [ws|pusher|…] [--only CASE]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.client.cases import CASES, Case
from tests.client.clients import HOOKS, PUSHER_CLIENT, SOCKET_CLIENT, SUPABASE_CLIENT
from tests.client.samples import EARLIER_PUSHER, EARLIER_SOCKET, PUSHER_SAMPLE, SOCKET_SAMPLE
from tests.client.world import WITHIN, World, world_for
from tests.support.template import Template

SUBJECTS = {
    "client-ws": SOCKET_CLIENT,
    "client-pusher": PUSHER_CLIENT,
    "client-supabase": SUPABASE_CLIENT,
    "hooks": HOOKS,
    "sample-ws": SOCKET_SAMPLE,
    "sample-pusher": PUSHER_SAMPLE,
    "earlier-ws": EARLIER_SOCKET,
    "earlier-pusher": EARLIER_PUSHER,
}


def _result(case: Case, world: World, within: float) -> str:
    if why := world.subject.cannot.get(case.__name__):
        return f"-     {why}"
    began = time.monotonic()
    try:
        case(world, within)
    except AssertionError as error:
        return f"FAILS {str(error)[:150]}  ({time.monotonic() - began:.1f} s)"
    return f"ok    ({time.monotonic() - began:.1f} s)"


def main(arguments: Sequence[str]) -> int:
    """Run, print a line for each case, and return the number of those that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.client", description=__doc__)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="default: all")
    parser.add_argument("--only", help="cases whose name contains this text")
    parser.add_argument("--within", type=float, default=WITHIN, help="bound for each wait, in seconds")
    options = parser.parse_args(arguments)
    failed = 0
    with tempfile.TemporaryDirectory() as folder, Template(Path(folder)) as template:
        servers = Path(folder) / "servers"
        servers.mkdir()
        with world_for(SOCKET_SAMPLE, servers, template) as world:
            for name in options.subjects or SUBJECTS:
                sys.stdout.write(f"\n{SUBJECTS[name].name}\n")
                for case in (case for case in CASES if (options.only or "") in case.__name__):
                    result = _result(case, replace(world, subject=SUBJECTS[name]), options.within)
                    failed += result.startswith("FAILS")
                    sys.stdout.write(f"  {case.__name__:30} {result}\n")
                    sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
