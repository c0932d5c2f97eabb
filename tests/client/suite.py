"""The cases in groups: those that wait most of their time run at the same time, with a player each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.client import cases, tokens
from tests.client.world import World

PATIENT: tuple[cases.Case, ...] = (
    tokens.token_never_renewed,
    cases.sleep_of_an_hour,
    cases.upgrades_refused,
    cases.two_tabs,
    cases.slow_authentication,
    tokens.token_expires,
    cases.reload_with_unsent_text,
    cases.lost_acknowledgement,
    tokens.another_person_signs_in,
    tokens.token_of_another_person,
    cases.session_closed_meanwhile,
)
"""The longest first."""
QUICK = [case for case in cases.CASES if case not in PATIENT]
AT_ONCE = 6
"""Patient cases that run at the same time: more would wait for the processor."""


def bear_what_takes_time(world: World) -> None:
    """Run the patient cases; raise an AssertionError with the errors of those that fail."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {case.__name__: pool.submit(case, world) for case in PATIENT}
    failed = {name: str(error) for name, run in runs.items() if (error := run.exception())}
    assert not failed
