"""`dead list|show|retry|drop`: deliveries that a service refused for good."""

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

Error = Annotated[str | None, typer.Option(help="Whose error has this text in it.")]
OlderThan = Annotated[str | None, typer.Option(help="That died longer ago than this: 90s, 15m, 2h, 3d.")]
Ids = Annotated[list[UUID] | None, typer.Argument(help="Their ids, as `dead list` shows them.")]
All = Annotated[bool, typer.Option("--all", help="All that match, without naming ids.")]

dead = typer.Typer(no_args_is_help=True, help="Deliveries that a service refused for good.")


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
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """List them, newest first. Exit status 1 when there are any."""

    async def work(operator: OperatorDatabase, _: Settings) -> list[Json]:
        return await operator.dead(_filter(sink, session, older_than, error, None), limit=limit)

    letters = run(env_file, work)
    if as_json:
        typer.echo(json.dumps(letters, indent=2))
    elif not letters:
        typer.echo("no dead letters")
    else:
        from gre_bridge.cli import render  # noqa: PLC0415

        render.console().print(render.dead_table(letters))
    raise typer.Exit(1 if letters else 0)


@dead.command("show")
def dead_show(
    letter: Annotated[UUID, typer.Argument(help="Its id, as `dead list` shows it.")],
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show all that is known of one of them (the message's text is not)."""

    async def work(operator: OperatorDatabase, _: Settings) -> list[Json]:
        return await operator.dead(_filter(None, None, None, None, [letter]))

    found = run(env_file, work)
    if not found:
        fail(BridgeError(f"{letter} is no dead letter"))
    lines = (f"{name:<12}{'' if value is None else value}" for name, value in found[0].items())
    say(found[0], "\n".join(lines), as_json)


def _resolver(*, drop: bool) -> Callable[..., None]:
    """The command that gives dead letters up, or sends them again."""

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
            fail(ConfigurationError("name ids, or a filter, or --all"))

        async def work(operator: OperatorDatabase, _: Settings) -> int:
            pages = operator.resolve(_filter(sink, session, older_than, error, ids), drop=drop)
            return await total(pages, "dropped" if drop else "to be sent again")

        count = run(env_file, work)
        say({"count": count}, f"{count} {'dropped' if drop else 'will be sent again'}", as_json)

    return resolve


dead.command("retry", help="Send them again, with all their attempts back.")(_resolver(drop=False))
dead.command("drop", help="Give them up; the messages themselves stay in the database.")(_resolver(drop=True))
