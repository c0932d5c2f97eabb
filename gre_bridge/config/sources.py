"""Reads variables from the environment, a dotenv file and files of single secrets. `settings` interprets them."""

from __future__ import annotations

import difflib
import os
import re
import ssl
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from gre_bridge.errors import ConfigurationError

_ADDRESS = re.compile(r"postgres(?:ql)?://(?:[^@/?#]*@)?[^@/?#]*(?:/[^@/?#]*)?(?:\?[^#@]*)?")


def db_url_problem(url: str) -> str | None:
    """Return the problem with the address of a database, without quoting it; None if it is unambiguous."""
    if not url.startswith(("postgresql://", "postgres://")):
        return "must be an address that starts with postgresql://"
    if re.search(r"%(?![0-9A-Fa-f]{2})", url) or not _ADDRESS.fullmatch(url):
        return "the password holds characters that must be percent-encoded: @ is %40, : %3A, / %2F, # %23, ? %3F, % %25"
    return None


def read_variables(env_file: Path | None = None) -> dict[str, str]:
    """Return all variables that are not blank; the environment wins over `env_file`.

    Raises ConfigurationError for a file that cannot be read, with the number of the line.
    """
    sources: list[Mapping[str, str]] = [read_env_file(env_file) if env_file else {}, os.environ]
    return {name: value for source in sources for name, value in source.items() if value.strip()}


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a dotenv file. `${...}` in a value is not expanded.

    systemd and Docker do not expand it either, and a secret may hold these characters.
    """
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise ConfigurationError(f"--env-file: cannot read {path}")
    values: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                line = (
                    binding.original.line
                    + len(binding.original.string)
                    - len(binding.original.string.lstrip("\n"))
                )
                if binding.error:
                    raise ConfigurationError(
                        f"--env-file: {path}, line {line}: is not NAME=value, or a quote is not closed"
                    )
                if binding.key is not None and binding.value is None:
                    raise ConfigurationError(
                        f"--env-file: {path}, line {line}: {binding.key} has no value, not even ="
                    )
                if binding.key is not None and binding.value is not None:
                    values[binding.key] = binding.value
    except UnicodeDecodeError:
        raise ConfigurationError(f"--env-file: {path} is not a text file in UTF-8") from None
    return values


def read_secret_files(values: Mapping[str, str], *names: tuple[str, ...]) -> dict[str, str]:
    """Return the secrets among `names` whose NAME_FILE names a file (Docker's secrets, systemd's credentials).

    An empty file counts as a variable that is not set: a deployment may name a file for each possible secret.
    """
    found: dict[str, str] = {}
    for name, *older in names:
        path = values.get(f"{name}_FILE")
        if path is None:
            continue
        if duplicate := next((n for n in (name, *older) if n in values), None):
            raise ConfigurationError(f"{name}_FILE: is set, and {duplicate} too: only one of them may be")
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            raise ConfigurationError(f"{name}_FILE: cannot read {path}") from None
        if len(text.splitlines()) > 1:
            raise ConfigurationError(f"{name}_FILE: {path} must hold one line, the value")
        if text:
            found[name] = text
    return found


def check_certificates() -> None:
    """Refuse root certificates that cannot be read: each call would fail with an error about the server's address."""
    for name, argument in (("SSL_CERT_FILE", "cafile"), ("SSL_CERT_DIR", "capath")):
        path = os.environ.get(name)
        if not path:
            continue
        try:
            if argument == "capath":
                os.scandir(path).close()
            else:
                ssl.create_default_context(cafile=path)
        except (OSError, ValueError):
            raise ConfigurationError(f"{name}: cannot read certificates from {path}") from None


_PREFIXES = ("GRE_", "PUSHER_", "ONESIGNAL_", "SUPABASE_", "STAFF_PORTAL_SUPABASE_")
_FOREIGN = re.compile(
    r"GRE_DEV_\w+|PUSHER_AUTH_URL|SUPABASE_(JWT_SECRET|ACCESS_TOKEN|DB_PASSWORD|PROJECT_\w+|AUTH_\w+)|\w+_SERVICE_(HOST|PORT)\w*|\w+_PORT_\d+_\w+"
)
"""Variables of the embedded stack, of portals (docs/portals.md), of the Supabase CLI, and of Kubernetes for each Service."""


def unknown_names(names: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """Return names that have a prefix of ours and are not read, each with the nearest known name or an empty string."""
    unknown = [n for n in names if n.startswith(_PREFIXES) and n not in known and not _FOREIGN.fullmatch(n)]
    return [(name, next(iter(difflib.get_close_matches(name, known, n=1)), "")) for name in sorted(unknown)]
