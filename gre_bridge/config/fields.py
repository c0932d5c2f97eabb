"""The types of settings: each reads one spelling of a variable and refuses the others in words that quote no value."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

_HOST_NAME = r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_HOST = r"[-\w.]+|[0-9a-f:.]+"
_LOCAL_SUFFIXES = (".localhost", ".internal", ".local", ".svc", ".lan", ".home.arpa")


def _split(value: Any) -> Any:
    """Read a comma-separated list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _url(value: Any) -> Any:
    """Accept an http(s) address; remove its trailing slash."""
    try:
        parts = urlsplit(str(value).strip())
        valid = (
            parts.scheme in ("http", "https")
            and re.fullmatch(_HOST, parts.hostname or "")
            and parts.port != 0
        )
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("must be an address that starts with http:// or https://") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user and password: it is shown to pages")
    return str(value).strip().rstrip("/")


def _project_url(value: Any) -> Any:
    """Accept the origin of a project; http only on a local network."""
    url = _url(value)
    parts = urlsplit(url)
    if parts.path or parts.query or parts.fragment:
        raise ValueError("must be the project's address alone, without a path: https://<ref>.supabase.co")
    if parts.scheme == "http" and not _is_local(parts.hostname or ""):
        raise ValueError("must start with https://: the service key would cross the network in clear")
    return url


def _optional_project_url(value: Any) -> Any:
    value = _blank_to_none(value)
    return value if value is None else _project_url(value)


def _is_local(host: str) -> bool:
    """Return True for this machine, and for names and addresses that are not of the public internet."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_LOCAL_SUFFIXES)
    return address.is_private or address.is_loopback or address.is_link_local


def _blank_to_none(value: Any) -> Any:
    """Treat an empty variable as one that is not set."""
    return None if isinstance(value, str) and not value.strip() else value


def _retention(value: Any) -> Any:
    """Refuse less than a day: the database counts it as one day."""
    try:
        too_short = 0 < float(value) < 1
    except (TypeError, ValueError):
        return value
    if too_short:
        raise ValueError("must be 0 (off) or at least 1")
    return value


def _key(value: Any) -> Any:
    """Refuse a value that an HTTP header cannot hold, so it cannot be a key."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("is blank")
    if isinstance(value, str) and not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("has characters that no key has")
    return value


def _optional_key(value: Any) -> Any:
    """As `_key`; an empty variable is one that is not set."""
    value = _blank_to_none(value)
    return value if value is None else _key(value)


def _origins(value: Any) -> Any:
    """Read a list of origins and spell them as browsers do; refuse origins that no browser sends."""
    return tuple(map(_origin, _split(value))) if isinstance(value, str) else value


def _origin(text: str) -> str:
    if text in ("*", "null"):
        return text
    found = re.fullmatch(
        rf"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|{_HOST_NAME})(:(\d{{1,5}}|\*))?/?", text.lower()
    )
    if found is None:
        raise ValueError(
            "must list origins such as https://portal.example or http://localhost:* (scheme, host and port, no path)"
        )
    scheme, host, port = found[1], found[2], found[3] or ""
    return f"{scheme}://{host}{'' if port == _DEFAULT_PORTS.get(scheme) else port}"


def _networks(value: Any) -> Any:
    """Read a list of addresses and networks in a canonical form."""
    return tuple(map(_network, _split(value))) if isinstance(value, str) else value


def _network(text: str) -> str:
    if text == "*":
        return text
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must list addresses or networks such as 10.0.0.0/8, or be *") from None
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped is not None and found.prefixlen >= 96:
        found = ipaddress.ip_network((mapped, found.prefixlen - 96), strict=False)
    return str(found.network_address) if found.num_addresses == 1 else str(found)


def _port(value: Any) -> Any:
    """Explain an address: Kubernetes sets PUSHER_PORT to one for a Service that is named pusher."""
    value = _blank_to_none(value)
    if isinstance(value, str) and "://" in value:
        raise ValueError(
            "must be a number; an address there comes from Kubernetes, for a Service named pusher: "
            "set enableServiceLinks: false on the pod, or PUSHER_PORT itself"
        )
    return value


def _scanner(value: Any) -> Any:
    """Accept the address of clamd."""
    value = _blank_to_none(value)
    if isinstance(value, str) and not re.fullmatch(r"unix:/\S+|tcp://[^\s/@:]+:[1-9]\d{0,4}", value):
        raise ValueError("must be unix:/path or tcp://host:port")
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]
Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_networks)]
Url = Annotated[str, BeforeValidator(_url)]
ProjectUrl = Annotated[str, BeforeValidator(_project_url)]
OptionalProjectUrl = Annotated[str | None, BeforeValidator(_optional_project_url)]
Port = Annotated[int | None, BeforeValidator(_port)]
Days = Annotated[float, BeforeValidator(_retention)]
Secret = Annotated[SecretStr, BeforeValidator(_key)]
OptionalText = Annotated[str | None, BeforeValidator(_blank_to_none)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_optional_key)]
OptionalKey = Annotated[str | None, BeforeValidator(_optional_key)]
OptionalScanner = Annotated[str | None, BeforeValidator(_scanner)]
