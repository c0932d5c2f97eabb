"""Checks what needs no network: the variables, and this machine's limits."""

from __future__ import annotations

import resource
import stat
from pathlib import Path

from gre_bridge.config.settings import Settings, known_names, variables
from gre_bridge.config.sources import read_variables, unknown_names
from gre_bridge.doctor.report import Finding, ok, warn

VARIABLES, FILES = "variables", "open files"
SPARE_FILES = 300
"""Descriptors beside the sockets: connections to the database and the sinks, logs, and those of the event loop."""


def check_variables(env_file: Path | None) -> list[Finding]:
    """Report older names, unknown names, and an env file that others may read."""
    values = read_variables(env_file)
    found = []
    for field in Settings.model_fields:
        name, *older = variables(field)
        for old in older:
            if old in values and name not in values:
                found.append(warn(VARIABLES, f"{old} is an older name", f"rename it to {name}"))
            elif old in values:
                found.append(warn(VARIABLES, f"{old} is set, but {name} overrides it", f"remove {old}"))
    for name, near in unknown_names(values, known_names()):
        fix = f"{near}?" if near else "remove it; .env.example lists all variables"
        found.append(warn(VARIABLES, f"{name} is not a variable of gre-bridge", fix))
    if env_file is not None and env_file.stat().st_mode & stat.S_IROTH:
        found.append(
            warn(
                VARIABLES,
                f"every user of this machine may read {env_file.name}",
                f"chmod o-r {env_file.name}",
            )
        )
    return found or [ok(VARIABLES, "complete and well formed")]


def check_open_files(settings: Settings, *, limit: int | None = None) -> list[Finding]:
    """Compare the connections that the settings allow with this process's hard limit, or with `limit`.

    The daemon raises its soft limit to the hard one.
    """
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = settings.max_sockets + settings.max_connections + SPARE_FILES
    if limit == resource.RLIM_INFINITY:
        return [ok(FILES, "no limit")]
    if limit >= needed:
        return [ok(FILES, f"{limit} allowed, {needed} may be needed")]
    return [
        warn(
            FILES,
            f"{limit} allowed here, but GRE_MAX_SOCKETS = {settings.max_sockets} and "
            f"GRE_MAX_CONNECTIONS = {settings.max_connections} may need {needed}",
            f"LimitNOFILE={needed} in the unit, ulimits in the compose file, `ulimit -n {needed}`; or a lower GRE_MAX_SOCKETS",
        )
    ]
