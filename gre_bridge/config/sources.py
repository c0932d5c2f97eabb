"""Where settings come from: the environment, a dotenv file, files of single secrets. What they mean is `settings`' business."""

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
    """What is wrong with the address of a database, without a word of it; None when it can be read in one way only."""
    if not url.startswith(("postgresql://", "postgres://")):
        return "must be an address that starts with postgresql://"
    if re.search(r"%(?![0-9A-Fa-f]{2})", url) or not _ADDRESS.fullmatch(url):
        return "the password holds characters that must be percent-encoded: @ is %40, : %3A, / %2F, # %23, ? %3F, % %25"
    return None


def given(env_file: Path | None = None) -> dict[str, str]:
    """Every variable that is set and not blank: the environment's, then those of `env_file`.

    Raises ConfigurationError for a file that cannot be read, with the line that cannot be.
    """
    sources: list[Mapping[str, str]] = [read_env_file(env_file) if env_file else {}, os.environ]
    return {name: value for source in sources for name, value in source.items() if value.strip()}


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a dotenv file, as they are written: `${...}` in a value is part of the value.

    (systemd, Docker and a shell's single quotes expand nothing either; a secret may hold these characters.)
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


def from_files(values: Mapping[str, str], *names: tuple[str, ...]) -> dict[str, str]:
    """The secrets among `names` whose values are in files (Docker's secrets, systemd's credentials).

    An empty file counts as a variable that is not set: a deployment may name a file for every secret that there is.
    """
    found: dict[str, str] = {}
    for name, *older in names:
        path = values.get(f"{name}_FILE")
        if path is None:
            continue
        if twice := next((one for one in (name, *older) if one in values), None):
            raise ConfigurationError(f"{name}_FILE: is set, and {twice} too: only one of them may be")
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
    """Refuse roots that cannot be read: every call would fail, with words about the other side's address."""
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


_OURS = ("GRE_", "PUSHER_", "ONESIGNAL_", "SUPABASE_", "STAFF_PORTAL_SUPABASE_")
_OTHERS = re.compile(
    r"GRE_DEV_\w+|SUPABASE_(JWT_SECRET|ACCESS_TOKEN|DB_PASSWORD|PROJECT_\w+|AUTH_\w+)|\w+_SERVICE_(HOST|PORT)\w*|\w+_PORT_\d+_\w+"
)
"""Of the embedded stack, the Supabase CLI, and what Kubernetes sets for each service."""


def unknown_names(names: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """Names that look like a variable of ours and are none, each with the known name that is nearest (or empty)."""
    unknown = [n for n in names if n.startswith(_OURS) and n not in known and not _OTHERS.fullmatch(n)]
    return [(name, next(iter(difflib.get_close_matches(name, known, n=1)), "")) for name in sorted(unknown)]
