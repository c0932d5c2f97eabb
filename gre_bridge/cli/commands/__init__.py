"""The operator's commands: their options and their output.

The work is done by functions of the database, through `db.operations`. Results go to stdout, progress to stderr;
`--json` prints one JSON value.
"""

from __future__ import annotations

import typer

from gre_bridge.cli.commands.dead import dead
from gre_bridge.cli.commands.files import files
from gre_bridge.cli.commands.maintenance import expire, prune, reconcile, replay
from gre_bridge.cli.commands.reports import export, report
from gre_bridge.cli.commands.status import status


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(dead, name="dead")
    app.add_typer(files, name="files")
    for command in (status, replay, reconcile, expire, prune, report, export):
        app.command()(command)
