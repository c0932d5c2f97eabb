"""`dead list|show|retry|drop`: dead letters, which a service rejected permanently."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from gre_bridge.cli.commands.common import (
    AsJson,
    EnvFile,
    Session,
    Sink,
    SinkName,
    fail,
    run,
    say,
    seconds,
    total,
)
from gre_bridge.config.settings import Settings
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError, ConfigurationError

if TYPE_CHECKING:
    from gre_bridge.db.operations import DeadFilter, OperatorDatabase

Error = Annotated[str | None, typer.Option(help="Only those with this text in their error.")]
OlderThan = Annotated[
    str | None, typer.Option(help="Only those that died longer ago than this: 90s, 15m, 2h, 3d.")
]
Ids = Annotated[list[UUID] | None, typer.Argument(help="Ids of deliveries, as in `dead list`.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters, if no id and no filter is given.")]

dead = typer.Typer(
    no_args_is_help=True, help="List, retry or drop dead letters, which a service rejected permanently."
)


def _filter(
    sink: SinkName | None,
    session: UUID | None,
    older_than: str | None,
    error: str | None,
    ids: list[UUID] | None,
) -> DeadFilter:
    from gre_bridge.db.operations import DeadFilter  # noqa: PLC0415

    return DeadFilter(
        sink=sink,
        session=str(session) if session else None,
        older_than=seconds(older_than, "--older-than") if older_than else None,
        error=error,
        ids=[str(one) for one in ids] if ids else None,
    )


@dead.command("list")
def dead_list(
    sink: Sink = None,
    session: Session = None,
    older_than: OlderThan = None,
    error: Error = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """List dead letters, newest first. Exit status 1 if there are any."""

    async def work(operator: OperatorDatabase, _: Settings) -> list[Json]:
        return await operator.dead(_filter(sink, session, older_than, error, None), limit=limit)

    deliveries = run(env_file, work)
    if as_json:
        typer.echo(json.dumps(deliveries, indent=2))
    elif not deliveries:
        typer.echo("no dead letters")
    else:
        from gre_bridge.cli import render  # noqa: PLC0415

        render.console().print(render.dead_table(deliveries))
    raise typer.Exit(1 if deliveries else 0)


@dead.command("show")
def dead_show(
    delivery: Annotated[UUID, typer.Argument(help="Id of a delivery, as in `dead list`.")],
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show all fields of a dead letter. It holds no message text."""

    async def work(operator: OperatorDatabase, _: Settings) -> list[Json]:
        return await operator.dead(_filter(None, None, None, None, [delivery]))

    found = run(env_file, work)
    if not found:
        fail(BridgeError(f"{delivery} is not a dead letter"))
    lines = (f"{name:<12}{'' if value is None else value}" for name, value in found[0].items())
    say(found[0], "\n".join(lines), as_json)


def _resolver(*, drop: bool) -> Callable[..., None]:
    """Return the command that drops dead letters, or that retries them."""

    def resolve(
        ids: Ids = None,
        sink: Sink = None,
        session: Session = None,
        older_than: OlderThan = None,
        error: Error = None,
        everything: All = False,
        as_json: AsJson = False,
        env_file: EnvFile = None,
    ) -> None:
        if not any((ids, sink, session, older_than, error)) and not everything:
            fail(ConfigurationError("give ids, a filter, or --all"))

        async def work(operator: OperatorDatabase, _: Settings) -> int:
            pages = operator.resolve(_filter(sink, session, older_than, error, ids), drop=drop)
            return await total(pages, "dropped" if drop else "scheduled")

        count = run(env_file, work)
        say({"count": count}, f"{count} {'dropped' if drop else 'will be retried'}", as_json)

    return resolve


dead.command("retry", help="Retry dead letters, with their attempts reset.")(_resolver(drop=False))
dead.command("drop", help="Drop dead letters. The messages stay in the database.")(_resolver(drop=True))
