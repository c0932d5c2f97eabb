"""`files again`: files of the chat that were refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from gre_bridge.cli.commands.common import AsJson, EnvFile, fail, run, say, total
from gre_bridge.config.settings import Settings
from gre_bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from gre_bridge.db.operations import OperatorDatabase

files = typer.Typer(no_args_is_help=True, help="Have refused files of the chat examined again.")


@files.callback()
def _files() -> None:
    """Have refused files of the chat examined again."""


@files.command("again")
def again(
    ids: Annotated[list[UUID] | None, typer.Argument(help="Ids of files.")] = None,
    refused: Annotated[
        str | None, typer.Option(metavar="CODE", help="Only those refused with this code: not_scanned.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All refused files, if no id and no code is given.")
    ] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Have refused files examined again, after what refused them was corrected."""
    if not ids and not refused and not everything:
        fail(ConfigurationError("give ids, --refused, or --all"))

    async def work(operator: OperatorDatabase, _: Settings) -> int:
        pages = operator.examine_again(code=refused, ids=[str(one) for one in ids] if ids else None)
        return await total(pages, "files")

    count = run(env_file, work)
    say({"count": count}, f"{count} will be examined again", as_json)
