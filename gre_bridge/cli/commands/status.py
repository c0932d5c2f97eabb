"""`status`: what waits and why, and who works."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gre_bridge.cli.commands.common import (
    AsJson,
    EnvFile,
    run,
)
from gre_bridge.config.settings import Settings
from gre_bridge.db.types import Json
from gre_bridge.errors import TransientError

if TYPE_CHECKING:
    from gre_bridge.db.operations import OperatorDatabase


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it live until Ctrl-C.")] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show what waits and why, and who works. Exit status 1 when something needs a look."""
    from gre_bridge.cli import render  # noqa: PLC0415

    async def work(operator: OperatorDatabase, _: Settings) -> Json:
        found = await operator.status()
        if watch and not as_json:
            await _watch(operator, found)
        return found

    found = run(env_file, work)
    found["problems"] = render.problems(found)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        render.console().print(render.status_view(found))
    raise typer.Exit(1 if found["problems"] else 0)


async def _watch(operator: OperatorDatabase, found: Json) -> NoReturn:
    """Show the status until cancelled, also through an outage of the database."""
    from rich.console import Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from gre_bridge.cli import render  # noqa: PLC0415

    with Live(render.status_view(found), console=render.console(), auto_refresh=False) as live:
        while True:
            await asyncio.sleep(1.0)
            try:
                found = await operator.status()
                live.update(render.status_view(found), refresh=True)
            except TransientError as error:
                away = f"! {error} (above: what was known before)"
                live.update(Group(render.status_view(found), render.plain(away)), refresh=True)
