"""The settings, read once from the environment and a dotenv file, and checked at start.

A missing or malformed variable raises `ConfigurationError` with one line that names it; values of secrets never appear
in a message, a repr or a log. Durations are in seconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from gre_bridge.config.fields import (
    Days,
    Names,
    Networks,
    OptionalKey,
    OptionalProjectUrl,
    OptionalScanner,
    OptionalSecret,
    OptionalText,
    Origins,
    Port,
    ProjectUrl,
    Secret,
    Url,
)
from gre_bridge.config.proxies import check_proxies
from gre_bridge.config.sources import check_certificates, db_url_problem, read_secret_files, read_variables
from gre_bridge.errors import ConfigurationError


def _env(name: str, *older: str, default: Any = ..., **rules: Any) -> Any:
    """Declare a field that is read from the variable `name` or one of its older names."""
    return Field(default, validation_alias=AliasChoices(name, *older), **rules)


class SettingsError(ConfigurationError):
    """Variables are missing or wrong; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        """The message joins all problems."""
        super().__init__("; ".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """All settings of the daemon; field by field the variables of .env.example."""

    model_config = SettingsConfigDict(
        extra="ignore", case_sensitive=True, populate_by_name=True, env_ignore_empty=True
    )

    # Supabase
    supabase_url: ProjectUrl = _env("SUPABASE_URL", "STAFF_PORTAL_SUPABASE_URL")
    supabase_public_url: OptionalProjectUrl = _env("GRE_SUPABASE_PUBLIC_URL", default=None)
    supabase_service_key: Secret = _env("SUPABASE_SERVICE_KEY", "STAFF_PORTAL_SUPABASE_SERVICE_KEY")
    supabase_anon_key: OptionalSecret = _env("SUPABASE_ANON_KEY", default=None)
    supabase_db_url: OptionalSecret = _env("SUPABASE_DB_URL", default=None)

    @property
    def public_url(self) -> str:
        """The project's address for browsers."""
        return self.supabase_public_url or self.supabase_url

    @property
    def service_key(self) -> str:
        """The service key in clear."""
        return self.supabase_service_key.get_secret_value()

    @property
    def anon_key(self) -> str | None:
        """The anon key in clear, or None."""
        return self.supabase_anon_key.get_secret_value() if self.supabase_anon_key else None

    # Pusher Channels
    pusher_app_id: OptionalText = _env("PUSHER_APP_ID", default=None, pattern=r"^\d+$")
    pusher_key: OptionalKey = _env("PUSHER_KEY", default=None)
    pusher_secret: OptionalSecret = _env("PUSHER_SECRET", default=None)
    pusher_cluster: OptionalText = _env("PUSHER_CLUSTER", default=None, pattern=r"^[a-z0-9-]+$")
    pusher_host: OptionalText = _env("PUSHER_HOST", default=None)
    pusher_port: Port = _env("PUSHER_PORT", default=None, ge=1, le=65535)
    pusher_ssl: bool = _env("PUSHER_SSL", default=True)
    pusher_player_channels: Names = _env("GRE_PUSHER_PLAYER_CHANNELS", default=("staff-portal",))
    pusher_staff_channels: Names = _env(
        "GRE_PUSHER_STAFF_CHANNELS", default=("private-staff-portal", "private-player-{player_id}")
    )
    pusher_session_channels: Names = _env(
        "GRE_PUSHER_SESSION_CHANNELS", default=("private-staff-portal", "private-player-{player_id}")
    )
    pusher_read_channels: Names = _env(
        "GRE_PUSHER_READ_CHANNELS", default=("private-staff-portal", "private-player-{player_id}")
    )
    pusher_desk_channels: Names = _env("GRE_PUSHER_DESK_CHANNELS", default=("private-staff-portal",))
    pusher_concurrency: int = _env("GRE_PUSHER_CONCURRENCY", default=64, ge=1, le=256)
    pusher_rate: float = _env("GRE_PUSHER_RATE", default=0, ge=0, le=10_000)

    # OneSignal
    onesignal_app_id: OptionalText = _env(
        "ONESIGNAL_APP_ID", default=None, pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
    )
    onesignal_api_key: OptionalSecret = _env("ONESIGNAL_API_KEY", default=None)
    onesignal_api_url: Url = _env("ONESIGNAL_API_URL", default="https://api.onesignal.com")
    onesignal_concurrency: int = _env("GRE_ONESIGNAL_CONCURRENCY", default=64, ge=1, le=256)
    onesignal_rate: float = _env("GRE_ONESIGNAL_RATE", default=0, ge=0, le=10_000)
    push_preview: int = _env("GRE_PUSH_PREVIEW", default=0, ge=0, le=200)
    push_max_age: float = _env("GRE_PUSH_MAX_AGE", default=3600.0, ge=1)
    push_ttl: int = _env("GRE_PUSH_TTL", default=86400, ge=0, le=2419200)
    push_player_external_id: str = _env("GRE_PUSH_PLAYER_EXTERNAL_ID", default="player_{player_id}")
    push_staff_external_id: str = _env("GRE_PUSH_STAFF_EXTERNAL_ID", default="{staff_id}")

    # Relay
    poll_interval: float = _env("GRE_POLL_INTERVAL", default=5.0, ge=0.1, le=300)
    fast_poll_interval: float = _env("GRE_FAST_POLL_INTERVAL", default=1.0, ge=0.05, le=60)
    lease_seconds: float = _env("GRE_LEASE_SECONDS", default=30.0, ge=1, le=300)
    max_attempts: int = _env("GRE_MAX_ATTEMPTS", default=5, ge=1, le=100)
    late_after: float = _env("GRE_LATE_AFTER", default=30.0, ge=0)
    auto_late: float = _env("GRE_AUTO_LATE", default=300.0, ge=0, le=86_400)
    send_timeout: float = _env("GRE_SEND_TIMEOUT", default=10.0, ge=0.5, le=120)
    request_timeout: float = _env("GRE_REQUEST_TIMEOUT", default=12.0, ge=0.5, le=120)
    """PostgREST waits 10 s for one of its own connections before it answers with an error."""
    retention_days: Days = _env("GRE_RETENTION_DAYS", default=0, ge=0)
    shutdown_delay: float = _env("GRE_SHUTDOWN_DELAY", default=3.0, ge=0, le=120)
    drain_seconds: float = _env("GRE_DRAIN_SECONDS", default=10.0, ge=0, le=120)

    # Files
    media: str = _env("GRE_MEDIA", default="auto", pattern=r"^(auto|on|off)$")
    media_concurrency: int = _env("GRE_MEDIA_CONCURRENCY", default=1, ge=1, le=8)
    media_unscanned: str = _env("GRE_MEDIA_UNSCANNED", default="refuse", pattern=r"^(refuse|allow)$")
    clamd_address: OptionalScanner = _env("GRE_CLAMD_ADDRESS", default=None)

    # Realtime
    realtime_renew: float = _env("GRE_REALTIME_RENEW", default=4 * 3600.0, ge=60)

    # HTTP, logs
    http_host: str = _env("GRE_HTTP_HOST", default="127.0.0.1")
    http_port: int = _env("GRE_HTTP_PORT", default=5000, ge=0, le=65535)
    admin_host: str = _env("GRE_ADMIN_HOST", default="127.0.0.1")
    admin_port: int = _env("GRE_ADMIN_PORT", default=5001, ge=0, le=65535)
    cors_origins: Origins = _env("GRE_CORS_ORIGINS", default=())
    trusted_proxies: Networks = _env("GRE_TRUSTED_PROXIES", default=("127.0.0.1", "::1"))
    max_sockets: int = _env("GRE_MAX_SOCKETS", default=5000, ge=1, le=100_000)
    max_connections: int = _env("GRE_MAX_CONNECTIONS", default=2000, ge=2, le=100_000)
    sockets_per_person: int = _env("GRE_SOCKETS_PER_PERSON", default=20, ge=1, le=10_000)
    auth_failures: int = _env("GRE_AUTH_FAILURES_PER_MINUTE", default=60, ge=1, le=100_000)
    metrics_token: OptionalSecret = _env("GRE_METRICS_TOKEN", default=None)
    docs: bool = _env("GRE_DOCS", default=False)
    dev_pages: bool = _env("GRE_DEV_PAGES", default=False)
    """Set only by `gre-bridge dev`, whose stack is at `supabase_url`."""
    console: bool = _env("GRE_CONSOLE", default=True)
    widget: bool = _env("GRE_WIDGET", default=True)
    access_log: bool = _env("GRE_ACCESS_LOG", default=False)
    log_level: str = _env("GRE_LOG_LEVEL", default="info", pattern=r"^(debug|info|warning|error)$")
    log_format: str = _env("GRE_LOG_FORMAT", default="auto", pattern=r"^(auto|json|console)$")

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        """Refuse incomplete credentials of a sink. Without any, the sink is off."""
        groups = {
            "PUSHER_": {
                "PUSHER_APP_ID": self.pusher_app_id,
                "PUSHER_KEY": self.pusher_key,
                "PUSHER_SECRET": self.pusher_secret,
            },
            "ONESIGNAL_": {
                "ONESIGNAL_APP_ID": self.onesignal_app_id,
                "ONESIGNAL_API_KEY": self.onesignal_api_key,
            },
        }
        for group in groups.values():
            missing = [name for name, value in group.items() if value is None]
            if missing and len(missing) < len(group):
                present = next(name for name in group if name not in missing)
                msg = f"{missing[0]}: is missing, though {present} is set"
                raise ValueError(msg)
        if self.pusher_app_id and not (self.pusher_cluster or self.pusher_host):
            msg = "PUSHER_CLUSTER: is missing (or set PUSHER_HOST)"
            raise ValueError(msg)
        self.fast_poll_interval = min(self.fast_poll_interval, self.poll_interval)
        return self

    @property
    def has_pusher(self) -> bool:
        """True if the credentials of Pusher Channels are set."""
        return self.pusher_app_id is not None

    @property
    def has_onesignal(self) -> bool:
        """True if the credentials of OneSignal are set."""
        return self.onesignal_app_id is not None

    @property
    def pusher_channels(self) -> dict[str, tuple[str, ...]]:
        """The channels of each kind of event, by the name of their variable."""
        return {
            variables(field)[0]: getattr(self, field)
            for field in type(self).model_fields
            if field.startswith("pusher_") and field.endswith("_channels")
        }

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for redaction."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(v.get_secret_value() for v in values if isinstance(v, SecretStr))


def variables(field: str) -> tuple[str, ...]:
    """Return the name of the variable for a field of Settings, then its older names."""
    alias = Settings.model_fields[field].validation_alias
    return tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else (field,)


def _describe(error: ValidationError) -> list[str]:
    """Return one line for each of pydantic's errors. It names the variable and quotes no value."""
    return [
        _line(item) for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _line(error: ErrorDetails) -> str:
    text = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return text
    name = str(error["loc"][0])
    if name in Settings.model_fields:
        name = variables(name)[0]
    if error["type"] == "missing":
        return f"{name}: is missing"
    return f"{name}: {text[0].lower()}{text[1:]}"


def secret_names() -> list[tuple[str, ...]]:
    """Return the names of variables that hold secrets, each with its older names. NAME_FILE may name a file with the value."""
    fields = Settings.model_fields.items()
    return [
        variables(name)
        for name, field in fields
        if SecretStr in (field.annotation, *get_args(field.annotation))
    ]


def known_names() -> set[str]:
    """Return the names of all variables that are read."""
    files = {f"{secret[0]}_FILE" for secret in secret_names()}
    return files | {name for field in Settings.model_fields for name in variables(field)}


def load_db_url(env_file: Path | None = None) -> str:
    """Read only SUPABASE_DB_URL or its file, which is all that `gre-bridge migrate` needs.

    Raises ConfigurationError with one line that does not quote the address, since it holds a password.
    """
    values = read_variables(env_file)
    url: str | None = {**values, **read_secret_files(values, variables("supabase_db_url"))}.get(
        "SUPABASE_DB_URL"
    )
    if not url:
        raise ConfigurationError("SUPABASE_DB_URL: is missing")
    if problem := db_url_problem(url):
        raise ConfigurationError(f"SUPABASE_DB_URL: {problem}")
    return url


def load_settings(env_file: Path | None = None) -> Settings:
    """Read the settings from the environment, which wins over `env_file` (dotenv).

    Raises ConfigurationError with one line for each variable that is wrong (or the file that cannot be read).
    """
    settings = read_settings(env_file)
    if isinstance(settings, Settings):
        return settings
    raise SettingsError(settings)


def read_settings(env_file: Path | None = None) -> Settings | list[str]:
    """As `load_settings`, but return the problems, one line each."""
    try:
        check_certificates()
        check_proxies()
        values = read_variables(env_file)
        values |= read_secret_files(values, *secret_names())
        chosen: dict[str, Any] = {}
        for field in Settings.model_fields:
            names = [name for name in variables(field) if name in values]
            # The environment wins over the file, under an older name as well.
            if name := next(iter(sorted(names, key=lambda n: not os.environ.get(n, "").strip())), None):
                chosen[name] = values[name]
        return Settings(_env_file=None, **chosen)
    except ValidationError as error:
        return _describe(error)
    except ConfigurationError as error:
        return [str(error)]
