"""`status`: what waits and why, and who works."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gre_bridge.desk.common import (
    AsJson,
    EnvFile,
    run,
)
from gre_bridge.errors import TransientError
from gre_bridge.models import Json
from gre_bridge.settings import Settings

if TYPE_CHECKING:
    from gre_bridge.operate import Operator


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it live until Ctrl-C.")] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show what waits and why, and who works. Exit status 1 when something needs a look."""
    from gre_bridge import board  # noqa: PLC0415

    async def work(operator: Operator, _: Settings) -> Json:
        found = await operator.status()
        if watch and not as_json:
            await _watch(operator, found)
        return found

    found = run(env_file, work)
    found["problems"] = board.problems(found)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        board.console().print(board.status_view(found))
    raise typer.Exit(1 if found["problems"] else 0)


async def _watch(operator: Operator, found: Json) -> NoReturn:
    """Show the status until cancelled, also through an outage of the database."""
    from rich.console import Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from gre_bridge import board  # noqa: PLC0415

    with Live(board.status_view(found), console=board.console(), auto_refresh=False) as live:
        while True:
            await asyncio.sleep(1.0)
            try:
                found = await operator.status()
                live.update(board.status_view(found), refresh=True)
            except TransientError as error:
                away = f"! {error} (above: what was known before)"
                live.update(Group(board.status_view(found), board.plain(away)), refresh=True)
