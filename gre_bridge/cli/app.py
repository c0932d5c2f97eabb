"""The command line: parses options, calls other packages, prints results. It has no logic of its own.

Exit status: 0 good, 1 a problem was found, 2 usage or configuration error.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gre_bridge import __version__
from gre_bridge.cli import commands
from gre_bridge.cli.commands.common import AsJson, EnvFile, fail, warn_of_unknown_names
from gre_bridge.config.settings import Settings, load_db_url, load_settings
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError, ConfigurationError
from gre_bridge.logging import LOGS, configure_logging

app = typer.Typer(
    name="gre-bridge",
    help="Relays every chat message committed in Supabase to Pusher and OneSignal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

commands.register(app)


def _settings(env_file: Path | None) -> Settings:
    try:
        settings = load_settings(env_file)
        warn_of_unknown_names(env_file)
    except ConfigurationError as error:
        fail(error)
    configure_logging(
        level=settings.log_level,
        style=settings.log_format,
        secrets=settings.secrets(),
        out=LOGS,
        access=settings.access_log,
    )
    return settings


@contextlib.contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable garbage collection for large imports: they create no garbage, and the search takes a sixth of the start-up."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _print(output: Json | list[str]) -> None:
    """Print lines as they are, an object as JSON."""
    typer.echo("\n".join(output) if isinstance(output, list) else json.dumps(output, indent=2))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"gre-bridge {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Relays every chat message committed in Supabase to Pusher and OneSignal."""


@app.command()
def run(
    env_file: EnvFile = None,
    no_api: Annotated[bool, typer.Option("--no-api", help="Run the relay only, in this process.")] = False,
    no_relay: Annotated[bool, typer.Option("--no-relay", help="Run the API only, in this process.")] = False,
) -> None:
    """Run the daemon: the relay and the API in separate processes, and the admin port."""
    settings = _settings(env_file)
    with _gc_disabled():
        from gre_bridge.daemon.run import run as run_daemon  # noqa: PLC0415 - other commands start faster without it

    status = 0
    try:
        status = run_daemon(settings, relay=not no_relay, api=not no_api)
    except* BridgeError as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        assert isinstance(first, BridgeError)
        fail(first)
    raise typer.Exit(status)


@app.command()
def migrate(
    env_file: EnvFile = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the changes, try them and roll back."),
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="List the migrations and their state.")] = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Record the migrations as applied, without applying them, if the schema matches them.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Apply the SQL migrations to SUPABASE_DB_URL; --dry-run also lists the policies and grants it replaces."""
    from gre_bridge.migrations import runner as migrations  # noqa: PLC0415 - other commands need no psycopg
    from gre_bridge.migrations.plan import plan  # noqa: PLC0415

    def say(line: str) -> None:
        typer.echo(line, err=True)

    try:
        db_url = load_db_url(env_file)
        if dry_run or status:
            report = plan(db_url, on_progress=say) if dry_run else migrations.status(db_url)
            _print(report.to_json() if as_json else report.lines())
            raise typer.Exit(0 if report.good else 1)
        applied = migrations.record(db_url) if record else migrations.migrate(db_url, on_progress=say)
    except BridgeError as error:
        fail(error)
    done, nothing = ("recorded", "nothing to record") if record else ("applied", "nothing to apply")
    _print({done: applied} if as_json else [f"{len(applied)} {done}" if applied else nothing])


@app.command()
def doctor(
    env_file: EnvFile = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Also send a test message through the whole system. Staff see it."),
    ] = False,
    player: Annotated[
        int | None,
        typer.Option(min=1, help="The sender of the test message, erased afterwards: an unused player id."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every service on which the daemon depends, and name a fix for each problem. Exit status 1 if a check fails."""
    with _gc_disabled():
        from gre_bridge import doctor as checks  # noqa: PLC0415 - other commands start faster without it

    raise typer.Exit(checks.run(env_file, live=live, player=player or checks.PLAYER, as_json=as_json))


dev_app = typer.Typer(invoke_without_command=True, add_completion=False)
app.add_typer(dev_app, name="dev")


@contextlib.contextmanager
def _embedded() -> Iterator[None]:
    """Turn a failed import of the embedded stack, an optional extra, into one clear line."""
    try:
        with _gc_disabled():
            yield
    except ImportError as error:
        needs = f"the embedded stack needs `pip install 'gre-bridge[dev]'` ({error.name} is missing)"
        fail(ConfigurationError(needs))


@dev_app.callback()
def dev(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the stack; 0 takes a free one.")
    ] = 54321,
    data_dir: Annotated[Path, typer.Option(help="Directory of its database and keys.")] = Path(".gre-dev"),
    write_env: Annotated[
        Path | None, typer.Option("--write-env", help="Write all variables to this dotenv file when ready.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the daemon (default GRE_HTTP_PORT or 5000).")
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Start the stack without the daemon.")
    ] = False,
) -> None:
    """Run the embedded stack (a stand-in for Supabase, Pusher and OneSignal) and the daemon."""
    if context.invoked_subcommand:
        return
    with _embedded():
        from gre_bridge.devstack.dev import run as run_stack  # noqa: PLC0415 - an optional extra
    try:
        status = run_stack(
            port=port, data_dir=data_dir, env_file=write_env, http_port=http_port, worker=not no_worker
        )
    except BridgeError as error:
        fail(error)
    raise typer.Exit(status)


@dev_app.command()
def token(
    person: Annotated[str, typer.Argument(metavar="player:ID|staff:ID|admin:ID")],
    expires: Annotated[float, typer.Option(min=1, help="Lifetime of the token in seconds.")] = 7 * 86400.0,
    data_dir: Annotated[Path, typer.Option(help="Directory of the stack's database and keys.")] = Path(
        ".gre-dev"
    ),
) -> None:
    """Print a user's token for the embedded stack."""
    with _embedded():
        from gre_bridge.devstack.keys import Keys  # noqa: PLC0415 - an optional extra
    try:
        typer.echo(Keys.existing(data_dir).token_of(person, expires_in=expires))
    except BridgeError as error:
        fail(error)


def main() -> None:
    """Entry point of the command."""
    app()
