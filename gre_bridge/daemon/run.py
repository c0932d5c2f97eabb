"""Starts the daemon: two processes under the supervisor, or one of them alone in this process."""

from __future__ import annotations

import gc
import socket

import structlog

from gre_bridge.config.settings import Settings
from gre_bridge.daemon import link, relay_process
from gre_bridge.daemon.api_process import ApiProcess, raise_oom_score
from gre_bridge.daemon.listeners import Listeners, listen
from gre_bridge.daemon.process import DaemonProcess, ProcessContext, run_in_loop
from gre_bridge.daemon.relay_process import RELEASE_TIMEOUT, RelayProcess
from gre_bridge.daemon.reports import PipeReports
from gre_bridge.daemon.supervisor import CONFIGURATION, Child, Supervisor
from gre_bridge.errors import BridgeError, ConfigurationError
from gre_bridge.logging import LOGS
from gre_bridge.systemd import Notifier

log = structlog.get_logger()

STOP_MARGIN = 5.0
"""Seconds that a stop may take beyond the settings: closing connections, a busy machine."""


def run(settings: Settings, *, relay: bool = True, api: bool = True) -> int:
    """Run the daemon until a termination signal and return its exit status.

    Raises ConfigurationError, and for a process that runs alone any error that ends it.
    """
    if not relay and not api:
        raise ConfigurationError("--no-api and --no-relay: nothing is left to run")
    if relay:
        relay_process.check(settings)
    listeners = listen(settings, api=api)
    # No collection reads the imported objects, so the pages of the processes stay shared. A collection before would
    # take a tenth of a second for 2,000 of 200,000 objects.
    gc.freeze()
    try:
        if relay and api:
            return _supervise(settings, listeners)
        kind = RelayProcess if relay else ApiProcess
        structlog.contextvars.bind_contextvars(process=kind.name)
        LOGS.start()
        try:
            run_in_loop(lambda: kind(ProcessContext(settings, listeners, Notifier.from_environment())))
        finally:
            LOGS.stop()
        return 0
    finally:
        listeners.close()


def _supervise(settings: Settings, listeners: Listeners) -> int:
    ends = link.pair()

    def main(kind: type[DaemonProcess], end: socket.socket, reports: PipeReports) -> int:
        structlog.contextvars.bind_contextvars(process=kind.name)
        LOGS.start()
        if kind is ApiProcess:
            raise_oom_score()
        elif listeners.api is not None:
            listeners.api.close()
        try:
            run_in_loop(lambda: kind(ProcessContext(settings, listeners, reports, link.Link(end))))
        except BaseException as error:  # noqa: BLE001 - no caller may print its text
            return _failed(error, reports)
        finally:
            LOGS.stop()
        return 0

    children = [
        Child("relay", lambda reports: main(RelayProcess, ends[0], reports)),
        Child("api", lambda reports: main(ApiProcess, ends[1], reports)),
    ]
    return Supervisor(
        children=children,
        stop_within=settings.drain_seconds + RELEASE_TIMEOUT + STOP_MARGIN,
        listeners=listeners,
    ).run()


def _failed(error: BaseException, reports: PipeReports) -> int:
    first = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, ConfigurationError):
        reports.failed(str(first))
        return CONFIGURATION
    if isinstance(first, BridgeError):
        log.error("process_failed", error=str(first))
    else:
        log.error("process_failed", exc_info=first)
    return 1
