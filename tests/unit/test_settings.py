"""Settings: every variable is documented, and an invalid one is refused with one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import AliasChoices, SecretStr

from gre_bridge.config.proxies import proxy_for
from gre_bridge.config.settings import (
    Settings,
    SettingsError,
    known_names,
    load_db_url,
    load_settings,
    read_settings,
    secret_names,
)
from gre_bridge.config.sources import unknown_names
from gre_bridge.db.postgres import connect_error
from gre_bridge.errors import ConfigurationError
from gre_bridge.media.scanning import parse_address

EXAMPLE = Path(__file__).parents[2] / ".env.example"
KEY = "service-key-that-nobody-may-see"
NEEDED = {"SUPABASE_URL": "https://p.supabase.co", "SUPABASE_SERVICE_KEY": KEY}
PUSHER = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "k", "PUSHER_SECRET": "pusher-secret", "PUSHER_CLUSTER": "eu"}
ONESIGNAL = {
    "ONESIGNAL_APP_ID": "00000000-0000-0000-0000-000000000000",
    "ONESIGNAL_API_KEY": "onesignal-secret",
}


def variables() -> dict[str, tuple[str, ...]]:
    """Return for each field its variable and its older names."""
    found = {}
    for name, field in Settings.model_fields.items():
        assert isinstance(field.validation_alias, AliasChoices), name
        found[name] = tuple(str(choice) for choice in field.validation_alias.choices)
    return found


def example() -> dict[str, str]:
    lines = re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    return dict(lines)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("SUPABASE_", "STAFF_PORTAL_", "PUSHER_", "ONESIGNAL_", "GRE_")):
            monkeypatch.delenv(name)
    return


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def complaint(env_file: Path | None = None) -> str:
    """Return the line that refuses the settings."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file)
    text = str(caught.value)
    assert "\n" not in text
    return text


# The example file ---------------------------------------------------------------------------------------


def test_the_example_has_exactly_the_existing_variables() -> None:
    by_dev_alone = {"GRE_DEV_PAGES"}
    assert set(example()) == {names[0] for names in variables().values()} - by_dev_alone


def test_the_example_names_the_older_names_beside_the_new() -> None:
    text = EXAMPLE.read_text()
    for names in variables().values():
        for older in names[1:]:
            assert older in text


def test_the_values_of_the_example_are_the_defaults(given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = tmp_path / "env"
    shown.write_text("".join(f"{name}={value}\n" for name, value in example().items() if name not in NEEDED))
    assert load_settings(shown) == load_settings()


def test_the_unchanged_example_lacks_only_the_service_key(given: pytest.MonkeyPatch) -> None:
    given.delenv("SUPABASE_SERVICE_KEY")
    given.delenv("SUPABASE_URL")
    assert "SUPABASE_SERVICE_KEY" in complaint(EXAMPLE)
    given.setenv("SUPABASE_SERVICE_KEY", KEY)
    settings = load_settings(EXAMPLE)
    assert not settings.has_pusher and not settings.has_onesignal


def test_the_defaults_are_those_of_the_contract(given: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert settings.http_port == 5000
    assert settings.http_host == "127.0.0.1"
    assert settings.onesignal_api_url == "https://api.onesignal.com"
    assert settings.late_after == 30
    assert settings.push_preview == 0
    assert settings.pusher_player_channels == ("staff-portal",)
    assert settings.pusher_staff_channels == ("private-staff-portal", "private-player-{player_id}")
    assert settings.docs is False


def test_the_address_for_browsers_is_the_projects_unless_it_is_set(given: pytest.MonkeyPatch) -> None:
    assert load_settings().public_url == NEEDED["SUPABASE_URL"]
    given.setenv("GRE_SUPABASE_PUBLIC_URL", "https://files.example/")
    assert load_settings().public_url == "https://files.example"
    given.setenv("GRE_SUPABASE_PUBLIC_URL", "https://files.example/path")
    assert "GRE_SUPABASE_PUBLIC_URL" in complaint()


# Missing and invalid values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(NEEDED))
def test_a_missing_variable_is_named(given: pytest.MonkeyPatch, name: str) -> None:
    given.delenv(name)
    assert complaint() == f"{name}: is missing"


@pytest.mark.parametrize("name", list(NEEDED))
@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_variable_counts_as_missing(given: pytest.MonkeyPatch, name: str, blank: str) -> None:
    given.setenv(name, blank)
    assert complaint().startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUPABASE_URL", "p.supabase.co"),
        ("SUPABASE_URL", "ftp://p.supabase.co"),
        ("SUPABASE_URL", "https://[oops"),
        ("SUPABASE_URL", "https://ops:hunter2@p.supabase.co"),
        ("SUPABASE_URL", "https://user:hunter2@h\u2100st"),
        ("PUSHER_APP_ID", "twelve"),
        ("PUSHER_CLUSTER", "EU west"),
        ("PUSHER_PORT", "65536"),
        ("PUSHER_SSL", "perhaps"),
        ("ONESIGNAL_APP_ID", "not-a-uuid"),
        ("ONESIGNAL_API_URL", "api.onesignal.com"),
        ("GRE_PUSHER_CONCURRENCY", "0"),
        ("GRE_POLL_INTERVAL", "soon"),
        ("GRE_POLL_INTERVAL", "nan"),
        ("GRE_LEASE_SECONDS", "inf"),
        ("GRE_MAX_ATTEMPTS", "2.5"),
        ("GRE_HTTP_PORT", "http"),
        ("GRE_HTTP_PORT", "-1"),
        ("GRE_LOG_LEVEL", "loud"),
        ("GRE_LOG_FORMAT", "xml"),
        ("GRE_DOCS", "maybe"),
        ("PUSHER_PORT", "tcp://10.0.0.1:6001"),
        ("GRE_CORS_ORIGINS", "staff.example.com"),
        ("GRE_CORS_ORIGINS", "https://staff.example.com/portal"),
        ("GRE_CORS_ORIGINS", "https://staff.example.com?x"),
        ("GRE_CORS_ORIGINS", "https://*.example.com"),
        ("GRE_CORS_ORIGINS", "https://me@example.com"),
        ("GRE_CORS_ORIGINS", "https://a.example https://b.example"),
        ("GRE_CORS_ORIGINS", "https://m\u00fcnchen.example"),
        ("GRE_TRUSTED_PROXIES", "proxy.internal"),
        ("GRE_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("GRE_TRUSTED_PROXIES", "127.0.0.1 10.0.0.1"),
        ("GRE_MEDIA", "maybe"),
        ("GRE_MEDIA_CONCURRENCY", "0"),
        ("GRE_MEDIA_UNSCANNED", "perhaps"),
        ("GRE_CLAMD_ADDRESS", "/run/clamd.ctl"),
        ("GRE_CLAMD_ADDRESS", "unix:clamd.ctl"),
        ("GRE_CLAMD_ADDRESS", "tcp://clamd"),
        ("GRE_CLAMD_ADDRESS", "tcp://me:hunter2@clamd:3310"),
    ],
)
def test_a_malformed_variable_is_named_and_not_quoted(
    given: pytest.MonkeyPatch, name: str, value: str
) -> None:
    given.setenv(name, value)
    text = complaint()
    assert text.startswith(f"{name}: ")
    assert value not in text
    assert "hunter2" not in text


def test_an_address_without_a_host_is_refused(given: pytest.MonkeyPatch) -> None:
    given.setenv("SUPABASE_URL", "https://")
    assert complaint().startswith("SUPABASE_URL: ")


def test_an_invalid_value_of_an_older_name_is_one_line_too(given: pytest.MonkeyPatch) -> None:
    given.delenv("SUPABASE_URL")
    given.setenv("STAFF_PORTAL_SUPABASE_URL", "nonsense")
    assert "SUPABASE_URL: must be an address" in complaint()


@pytest.mark.parametrize("group", [PUSHER, ONESIGNAL], ids=["pusher", "onesignal"])
def test_a_complete_set_of_credentials_enables_a_sink(
    given: pytest.MonkeyPatch, group: dict[str, str]
) -> None:
    for name, value in group.items():
        given.setenv(name, value)
    settings = load_settings()
    assert (settings.has_pusher, settings.has_onesignal) == (group is PUSHER, group is ONESIGNAL)


@pytest.mark.parametrize(
    ("group", "without"),
    [(PUSHER, name) for name in PUSHER] + [(ONESIGNAL, name) for name in ONESIGNAL],
)
def test_an_incomplete_set_of_credentials_is_refused_with_the_missing_names(
    given: pytest.MonkeyPatch, group: dict[str, str], without: str
) -> None:
    for name, value in group.items():
        given.setenv(name, "" if name == without else value)
    text = complaint()
    assert text.startswith(f"{without}: is missing")
    assert "secret" not in text


def test_a_pusher_host_needs_no_cluster(given: pytest.MonkeyPatch) -> None:
    for name, value in PUSHER.items():
        given.setenv(name, value)
    given.delenv("PUSHER_CLUSTER")
    given.setenv("PUSHER_HOST", "soketi.internal")
    assert load_settings().has_pusher


# Sources of values -------------------------------------------------------------------------------------


def test_older_names_are_read(given: pytest.MonkeyPatch) -> None:
    for name in NEEDED:
        given.delenv(name)
    given.setenv("STAFF_PORTAL_SUPABASE_URL", "https://old.supabase.co/")
    given.setenv("STAFF_PORTAL_SUPABASE_SERVICE_KEY", "old-key")
    settings = load_settings()
    assert settings.supabase_url == "https://old.supabase.co"
    assert settings.supabase_service_key.get_secret_value() == "old-key"


def test_the_new_name_takes_precedence_over_the_older_one(given: pytest.MonkeyPatch) -> None:
    given.setenv("STAFF_PORTAL_SUPABASE_URL", "https://old.supabase.co")
    assert load_settings().supabase_url == "https://p.supabase.co"


def test_the_environment_takes_precedence_over_the_file(given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("SUPABASE_URL=https://file.supabase.co\nGRE_HTTP_PORT=5001\nGRE_LOG_LEVEL=debug\n")
    given.setenv("GRE_HTTP_PORT", "5002")
    settings = load_settings(file)
    assert (settings.supabase_url, settings.http_port, settings.log_level) == (
        "https://p.supabase.co",
        5002,
        "debug",
    )


def test_the_environment_takes_precedence_over_the_file_with_an_older_name_too(
    given: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "env"
    file.write_text("SUPABASE_URL=https://file.supabase.co\n")
    given.delenv("SUPABASE_URL")
    given.setenv("STAFF_PORTAL_SUPABASE_URL", "https://old.supabase.co")
    assert load_settings(file).supabase_url == "https://old.supabase.co"


def test_lists_are_separated_by_commas(given: pytest.MonkeyPatch) -> None:
    given.setenv("GRE_PUSHER_PLAYER_CHANNELS", " staff-portal , private-staff-portal,")
    assert load_settings().pusher_player_channels == ("staff-portal", "private-staff-portal")


@pytest.mark.parametrize(
    ("given_as", "read_as"),
    [
        ("https://Staff.Example.com/", "https://staff.example.com"),
        ("HTTPS://a.example:443", "https://a.example"),
        ("http://a.example:8080", "http://a.example:8080"),
        ("http://localhost:*", "http://localhost:*"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("*", "*"),
    ],
)
def test_origins_are_read_as_browsers_spell_them(
    given: pytest.MonkeyPatch, given_as: str, read_as: str
) -> None:
    given.setenv("GRE_CORS_ORIGINS", given_as)
    assert load_settings().cors_origins == (read_as,)


def test_proxies_are_addresses_or_networks(given: pytest.MonkeyPatch) -> None:
    given.setenv("GRE_TRUSTED_PROXIES", "10.1.2.3/8, ::FFFF:192.0.2.7, 2001:DB8::1, ::ffff:10.0.0.0/104")
    assert load_settings().trusted_proxies == ("10.0.0.0/8", "192.0.2.7", "2001:db8::1", "10.0.0.0/8")


def test_the_error_for_an_address_that_kubernetes_sets_as_a_port_explains_it(
    given: pytest.MonkeyPatch,
) -> None:
    given.setenv("PUSHER_PORT", "tcp://10.0.0.1:6001")
    assert "Kubernetes" in complaint() and "10.0.0.1" not in complaint()


@pytest.mark.parametrize("content", [None, "", "no certificate\n"])
def test_certificates_that_cannot_be_read_are_named(
    given: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "roots.pem"
    if content is not None:
        file.write_text(content)
    given.setenv("SSL_CERT_FILE", str(file))
    assert complaint().startswith("SSL_CERT_FILE: ")
    given.delenv("SSL_CERT_FILE")
    given.setenv("SSL_CERT_DIR", str(file / "nowhere"))
    assert complaint().startswith("SSL_CERT_DIR: ")


@pytest.mark.parametrize(
    ("variables", "secure", "plain"),
    [
        ({}, None, None),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "http://q:2", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "WSS_PROXY": "http://w:3"}, "http://w:3", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, None, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "example.org"}, None, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "a.example.org:4000"}, "http://p:1", None),
    ],
    ids=["none", "all", "https", "wss", "http", "only https", "bypassed", "one port bypassed"],
)
def test_realtime_uses_the_proxy_of_the_other_connections(
    given: pytest.MonkeyPatch, variables: dict[str, str], secure: str | None, plain: str | None
) -> None:
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        given.delenv(name)
    for name, value in variables.items():
        given.setenv(name, value)
    before = dict(os.environ)
    load_settings()
    assert os.environ == before
    assert proxy_for("wss://a.example.org/realtime/v1/websocket?apikey=k") == secure
    assert proxy_for("ws://a.example.org:4000/realtime/v1/websocket?apikey=k") == plain
    if "WSS_PROXY" not in variables:
        assert proxy_for("https://a.example.org/rest/v1/") == secure
    assert proxy_for("http://a.example.org:4000/rest/v1/") == plain


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "WSS_PROXY", "WS_PROXY"])
def test_a_proxy_that_is_no_http_proxy_is_refused_by_name(given: pytest.MonkeyPatch, name: str) -> None:
    for scheme in ("HTTP_PROXY", "HTTPS_PROXY"):
        given.setenv(scheme, "http://p:1")
    given.setenv(name, "socks5://user:hush@p:1")
    assert complaint() == f"{name} must begin with http:// or https://; SOCKS is not supported"


def test_blank_optional_variables_count_as_not_set(given: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_ANON_KEY", "PUSHER_PORT", "PUSHER_HOST", "GRE_METRICS_TOKEN"):
        given.setenv(name, "")
    settings = load_settings()
    assert settings.supabase_anon_key is None
    assert settings.pusher_port is None
    assert settings.pusher_host is None
    assert settings.metrics_token is None


def test_the_fast_poll_is_never_slower_than_the_slow_one(given: pytest.MonkeyPatch) -> None:
    given.setenv("GRE_POLL_INTERVAL", "0.5")
    assert load_settings().fast_poll_interval == 0.5


# Secrets in files -------------------------------------------------------------------------------------------

SECRETS = {
    "SUPABASE_SERVICE_KEY": "supabase_service_key",
    "SUPABASE_ANON_KEY": "supabase_anon_key",
    "SUPABASE_DB_URL": "supabase_db_url",
    "PUSHER_SECRET": "pusher_secret",
    "ONESIGNAL_API_KEY": "onesignal_api_key",
    "GRE_METRICS_TOKEN": "metrics_token",
}


def test_every_secret_may_be_in_a_file() -> None:
    assert {names[0] for names in secret_names()} == SECRETS.keys()


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("where", ["environment", "env file"])
def test_a_secret_is_read_from_its_file(
    given: pytest.MonkeyPatch, tmp_path: Path, name: str, where: str
) -> None:
    for other, value in {**PUSHER, **ONESIGNAL}.items():
        given.setenv(other, value)
    given.delenv(name, raising=False)
    secret, env_file = tmp_path / "secret", tmp_path / "env"
    secret.write_text("postgresql://from-a-file\n")
    env_file.write_text(f"{name}=\n" + (f"{name}_FILE={secret}\n" if where == "env file" else ""))
    if where == "environment":
        given.setenv(f"{name}_FILE", str(secret))
    found = getattr(load_settings(env_file), SECRETS[name])
    assert found.get_secret_value() == "postgresql://from-a-file"
    if name == "SUPABASE_DB_URL":
        assert load_db_url(env_file) == "postgresql://from-a-file"


@pytest.mark.parametrize("other", ["SUPABASE_SERVICE_KEY", "STAFF_PORTAL_SUPABASE_SERVICE_KEY"])
def test_a_secret_in_a_variable_and_a_file_is_refused(
    given: pytest.MonkeyPatch, tmp_path: Path, other: str
) -> None:
    given.delenv("SUPABASE_SERVICE_KEY")
    given.setenv(other, KEY)
    (tmp_path / "secret").write_text("another")
    given.setenv("SUPABASE_SERVICE_KEY_FILE", str(tmp_path / "secret"))
    assert complaint() == f"SUPABASE_SERVICE_KEY_FILE: is set, and {other} too: only one of them may be"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot read"), (b"a-key\nand more\n", "must hold one line"), (b"\xff", "cannot read")],
    ids=["missing", "two lines", "binary"],
)  # fmt: skip
def test_a_secrets_file_that_cannot_be_used_is_one_line(
    given: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    given.delenv("SUPABASE_SERVICE_KEY")
    given.setenv("SUPABASE_SERVICE_KEY_FILE", str(file))
    text = complaint()
    assert text.startswith("SUPABASE_SERVICE_KEY_FILE: ") and says in text and str(file) in text
    assert "a-key" not in text


def test_a_malformed_secret_from_a_file_is_named_and_not_quoted(
    given: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("two words")
    given.delenv("SUPABASE_SERVICE_KEY")
    given.setenv("SUPABASE_SERVICE_KEY_FILE", str(tmp_path / "secret"))
    assert complaint() == "SUPABASE_SERVICE_KEY: has characters that no key has"


@pytest.mark.parametrize("name", ["PUSHER_KEY", "PUSHER_SECRET", "ONESIGNAL_API_KEY", "GRE_METRICS_TOKEN"])
@pytest.mark.parametrize("value", [" abc123", "abc 123", "abc123\t", "äbc123"])
def test_a_blank_pasted_with_a_key_is_named_and_not_quoted(
    given: pytest.MonkeyPatch, name: str, value: str
) -> None:
    given.setenv(name, value)
    assert complaint() == f"{name}: has characters that no key has"


def test_a_retention_of_less_than_a_day_is_refused(given: pytest.MonkeyPatch) -> None:
    given.setenv("GRE_RETENTION_DAYS", "0.5")
    assert complaint() == "GRE_RETENTION_DAYS: must be 0 (off) or at least 1"


def test_all_errors_are_returned_to_a_caller_that_collects_them(given: pytest.MonkeyPatch) -> None:
    given.setenv("SUPABASE_URL", "nonsense")
    given.setenv("GRE_HTTP_PORT", "http")
    complaints = read_settings()
    assert isinstance(complaints, list)
    assert [line.partition(":")[0] for line in complaints] == ["SUPABASE_URL", "GRE_HTTP_PORT"]
    given.setenv("SUPABASE_URL", "https://p.supabase.co")
    given.delenv("GRE_HTTP_PORT")
    assert read_settings() == load_settings()


# Files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_file_that_cannot_be_read_is_one_line(given: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "env"
    if kind == "folder":
        file.mkdir()
    elif kind == "binary":
        file.write_bytes(b"GRE_DOCS=\xff\xfe\x00\n")
    assert complaint(file).startswith("--env-file: ")
    with pytest.raises(ConfigurationError, match=r"^--env-file: "):
        load_db_url(file)


# Secrets ----------------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_repr(given: pytest.MonkeyPatch) -> None:
    secrets = {
        "SUPABASE_SERVICE_KEY": KEY,
        "SUPABASE_ANON_KEY": "anon-secret",
        "SUPABASE_DB_URL": "postgresql://postgres:db-secret@db/postgres",
        "GRE_METRICS_TOKEN": "metrics-secret",
    }
    for name, value in {**PUSHER, **ONESIGNAL, **secrets}.items():
        given.setenv(name, value)
    settings = load_settings()
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "secret" not in re.sub(r"pusher_secret|PUSHER_SECRET|SecretStr", "", shown)
        assert KEY not in shown
    assert set(settings.secrets()) == {*secrets.values(), "pusher-secret", "onesignal-secret"}


def test_fields_with_the_name_of_a_secret_have_a_secret_type(given: pytest.MonkeyPatch) -> None:
    """`PUSHER_KEY` is public: every page contains it."""
    for name, value in {**PUSHER, **ONESIGNAL, "GRE_METRICS_TOKEN": "t", "SUPABASE_DB_URL": "d"}.items():
        given.setenv(name, value)
    given.setenv("SUPABASE_ANON_KEY", "a")
    settings = load_settings()
    for field, names in variables().items():
        if re.search(r"SECRET|TOKEN|API_KEY|SERVICE_KEY|DB_URL", names[0]):
            assert isinstance(getattr(settings, field), SecretStr), field


@pytest.mark.parametrize("value", ["", "mysql://root:hunter2@db/x", "db.supabase.co"])
def test_the_databases_address_is_refused_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SUPABASE_DB_URL", value)
    with pytest.raises(ConfigurationError) as caught:
        load_db_url()
    assert str(caught.value).startswith("SUPABASE_DB_URL: ")
    assert not value or value not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_databases_address_comes_from_the_environment_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "env"
    file.write_text("SUPABASE_DB_URL=postgresql://file/db\n")
    assert load_db_url(file) == "postgresql://file/db"
    monkeypatch.setenv("SUPABASE_DB_URL", "postgres://env/db")
    assert load_db_url(file) == "postgres://env/db"


# The file -----------------------------------------------------------------------------------------------------------------


def test_an_empty_file_of_a_secret_counts_as_not_set(given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name in ("PUSHER_SECRET", "ONESIGNAL_API_KEY"):
        given.delenv(name, raising=False)
        given.setenv(f"{name}_FILE", str(tmp_path / "empty"))
    settings = load_settings()
    assert not settings.has_pusher and settings.onesignal_api_key is None
    given.delenv("SUPABASE_SERVICE_KEY")
    given.setenv("SUPABASE_SERVICE_KEY_FILE", "/dev/null")
    assert complaint() == "SUPABASE_SERVICE_KEY: is missing"


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_nothing_is_expanded_in_a_file(given: pytest.MonkeyPatch, tmp_path: Path, quote: str) -> None:
    file = tmp_path / "env"
    file.write_text(f"GRE_METRICS_TOKEN={quote}a${{HOME}}b$c{quote}\n")
    found = load_settings(file).metrics_token
    assert found is not None and found.get_secret_value() == "a${HOME}b$c"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("GRE_HTTP_PORT=1\n\nGRE_DOCS='true\n", 3),
        ("this is no variable\n", 1),
        ("GRE_HTTP_PORT=1\nGRE_DOCS\n", 2),
    ],
    ids=["unclosed quote", "words", "no value"],
)
def test_an_unreadable_line_is_refused_with_its_number(
    given: pytest.MonkeyPatch, tmp_path: Path, text: str, line: int
) -> None:
    file = tmp_path / "env"
    file.write_text(text)
    assert complaint(file).startswith(f"--env-file: {file}, line {line}: ")


def test_all_errors_are_reported_at_once(given: pytest.MonkeyPatch) -> None:
    given.setenv("GRE_HTTP_PORT", "http")
    given.setenv("GRE_DOCS", "perhaps")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert [line.split(":")[0] for line in caught.value.problems] == ["GRE_HTTP_PORT", "GRE_DOCS"]


def test_unknown_names_are_reported_with_the_nearest_known_one() -> None:
    names = ["GRE_POLL_INTERVALL", "GRE_SWEEP_INTERVAL", "PUSHER_SECERT", "GRE_DEV_STACK", "SUPABASE_JWT_SECRET", "PUSHER_SERVICE_HOST", "PUSHER_PORT_6001_TCP",
             "PUSHER_KEY", "PATH", "SUPABASE_DB_URL_FILE"]  # fmt: skip
    assert unknown_names(names, known_names()) == [
        ("GRE_POLL_INTERVALL", "GRE_POLL_INTERVAL"),
        ("GRE_SWEEP_INTERVAL", "GRE_POLL_INTERVAL"),
        ("PUSHER_SECERT", "PUSHER_SECRET"),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https://p.supabase.co/rest/v1",
        "http://p.supabase.co",
        "http://9.9.9.9:8000",
        "https://p.supabase.co/?a=b",
    ],
)
def test_a_path_and_a_key_in_clear_over_the_internet_are_refused(given: pytest.MonkeyPatch, url: str) -> None:
    given.setenv("SUPABASE_URL", url)
    assert complaint().startswith("SUPABASE_URL: must ")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:54321",
        "http://localhost:54321/",
        "http://kong:8000",
        "http://10.0.0.4:8000",
        "http://[::1]:1",
    ],
)
def test_clear_text_to_this_machine_or_network_is_accepted(given: pytest.MonkeyPatch, url: str) -> None:
    given.setenv("SUPABASE_URL", url)
    assert load_settings().supabase_url == url.rstrip("/")


# The database's address ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password", ["Secr3t@w0rd", "Secr3t/w0rd", "Secr3t#w0rd", "Secr3t?w0rd", "Secr3t%w0rd"]
)
def test_an_unencoded_password_is_reported_without_any_part_of_it(
    given: pytest.MonkeyPatch, password: str
) -> None:
    given.setenv("SUPABASE_DB_URL", f"postgresql://postgres:{password}@db.example.com:5432/postgres")
    with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
        load_db_url()
    assert "w0rd" not in str(caught.value) and "Secr3t" not in str(caught.value)


REFUSED = """connection failed: connection to server at "127.0.0.1", port 5432 failed: Connection refused
\tIs the server running on that host and accepting TCP/IP connections?"""
WRONG_PASSWORD = """connection failed: connection to server at "10.1.1.1", port 5432 failed: FATAL:  password authentication failed for user "w0rd"
connection to server at "10.1.1.1", port 5432 failed: FATAL:  no pg_hba.conf entry"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (REFUSED, "Connection refused"),
        (WRONG_PASSWORD, "password authentication failed for user …"),
        ("failed to resolve host 'w0rd@db.example.com': [Errno -2] Name or service not known", "failed to resolve host …: [Errno -2] Name or service not known"),
        ('could not translate host name "w0rd@db.example.com" to address: Name or service not known',
         "could not translate host name … to address: Name or service not known"),
        ("connection to server at x failed: FATAL: (ENOTFOUND) tenant/user postgres.secretref not found", "(ENOTFOUND) tenant/user ….… not found"),
        ("", "no reason was given"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failed_connection_is_reported_without_the_address(text: str, told: str) -> None:
    url = "postgresql://postgres.secretref:Secr3t@w0rd@db.example.com:5432/postgres"
    found = connect_error(text, url)
    assert not [part for part in ("w0rd", "Secr3t", "example", "secretref") if part in found]
    assert found == told or "tenant" in told


def test_the_channels_of_every_event_are_listed_for_signing_and_for_doctor() -> None:
    settings = Settings(
        supabase_url="https://p.supabase.co",
        supabase_service_key=SecretStr("key"),
        pusher_read_channels=("private-reads",),
    )
    assert settings.pusher_channels == {
        "GRE_PUSHER_PLAYER_CHANNELS": ("staff-portal",),
        "GRE_PUSHER_STAFF_CHANNELS": ("private-staff-portal", "private-player-{player_id}"),
        "GRE_PUSHER_SESSION_CHANNELS": ("private-staff-portal", "private-player-{player_id}"),
        "GRE_PUSHER_READ_CHANNELS": ("private-reads",),
        "GRE_PUSHER_DESK_CHANNELS": ("private-staff-portal",),
    }


@pytest.mark.parametrize(
    "address", ["unix:/run/clamav/clamd.ctl", "tcp://clamd:3310", "tcp://127.0.0.1:3310"]
)
def test_the_scanners_address_is_one_that_it_can_be_asked_at(given: pytest.MonkeyPatch, address: str) -> None:
    given.setenv("GRE_CLAMD_ADDRESS", address)
    assert load_settings().clamd_address == address
    parse_address(address)
    given.setenv("GRE_CLAMD_ADDRESS", " ")
    assert load_settings().clamd_address is None
