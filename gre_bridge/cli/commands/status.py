"""`status`: the backlog of each sink, blocked sessions, and the workers."""

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
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second until Ctrl-C.")] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show the backlog of each sink, blocked sessions, and the workers. Exit status 1 if there is a problem."""
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
    """Refresh the status until cancelled. During an outage of the database the last status stays."""
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
                outage = f"! {error} (above: the last known status)"
                live.update(Group(render.status_view(found), render.plain(outage)), refresh=True)
