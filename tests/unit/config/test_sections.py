from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from layerwatch.config.alerts import (
    AlertsSettings,
    LogReceiverSettings,
    ReceiverSettings,
    RouteSettings,
    WebhookReceiverSettings,
)
from layerwatch.config.baselines import BaselinesSettings
from layerwatch.config.registries import DirectoryRegistrySettings
from layerwatch.config.rules import RulesSettings, SpectralDivisors, TailExponentSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.config.secrets import Secret
from layerwatch.config.server import ServerSettings
from layerwatch.config.settings import Settings
from layerwatch.config.store import StoreSettings


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:9466", "127.0.0.1", 9466),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        ("127.5.5.5:1", "127.5.5.5", 1),
    ],
)
def test_a_loopback_address_is_split_into_host_and_port(listen: str, host: str, port: int) -> None:
    server = ServerSettings(listen=listen)
    assert (server.host, server.port) == (host, port)


@pytest.mark.parametrize("listen", ["0.0.0.0:9466", "[::]:9466", "10.0.0.5:9466", "example.org:80"])
def test_an_address_beyond_loopback_needs_a_setting_that_the_error_names(listen: str) -> None:
    with pytest.raises(ValidationError, match=r"set server\.allow_non_loopback: true"):
        ServerSettings(listen=listen)
    assert ServerSettings(listen=listen, allow_non_loopback=True).listen == listen


@pytest.mark.parametrize(
    "listen",
    ["", "9466", ":9466", "127.0.0.1", "127.0.0.1:65536", "::1:9466", "[127.0.0.1]:1", "a b:1", "u@h:1"],
)
def test_an_address_without_host_or_port_is_refused(listen: str) -> None:
    with pytest.raises(ValidationError, match="must be HOST:PORT"):
        ServerSettings(listen=listen, allow_non_loopback=True)


def test_an_external_url_is_a_plain_http_url() -> None:
    assert ServerSettings(external_url="https://lw.example.org/x/").external_url == "https://lw.example.org/x"
    for url, message in {
        "lw.example.org": "must be a URL",
        "ftp://lw": "must be a URL",
        "https://": "must be a URL",
        "https://[::1": "must be a URL",
        "https://lw:99999": "must be a URL",
        "https://me:hunter2@lw": "user or password",
        "https://lw?x=1": "must not hold a \\?",
    }.items():
        with pytest.raises(ValidationError, match=message) as caught:
            ServerSettings(external_url=url)
        assert "hunter2" not in str(caught.value)


def test_proxies_are_believed_only_where_they_and_their_header_are_named() -> None:
    assert ServerSettings().trusted_proxies == ()
    named = ServerSettings(trusted_proxies=["10.1.2.0/24", "::1"], user_header="X-Forwarded-User")
    assert named.trusted_proxies == ("10.1.2.0/24", "::1/128")
    for given in ({"trusted_proxies": ["10.1.2.3"]}, {"user_header": "X-Forwarded-User"}):
        with pytest.raises(ValidationError, match="belong together"):
            ServerSettings(**given)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("0.0.0.0/0", "is everybody"),
        ("::/0", "is everybody"),
        ("10.1.2.3/8", r"write 10\.0\.0\.0/8"),
        ("proxy.example.org", "must be a network"),
        ("", "must be a network"),
    ],
)
def test_a_proxy_is_a_network_and_not_everybody(network: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ServerSettings(trusted_proxies=[network], user_header="X-Forwarded-User")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("X Forwarded User", "must be the name of a header"),
        ("X-User:", "must be the name of a header"),
        ("X-User\n", "must be the name of a header"),
        ("", "must be the name of a header"),
        ("Authorization", "does not say who"),
        ("COOKIE", "does not say who"),
    ],
)
def test_the_header_of_a_person_is_one_that_names_people(header: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ServerSettings(trusted_proxies=["10.1.2.3"], user_header=header)


def test_sqlite_files_and_postgresql_databases_are_accepted_as_a_store() -> None:
    for url in (
        "sqlite:////var/lib/lw.db",
        "postgresql://me:hunter2@db/lw",
        "postgresql+psycopg://me:hun/t?r%402@db:5433/lw?sslmode=verify-full",
        "postgresql:///lw?host=/run/postgresql",
    ):
        assert StoreSettings(url=url).url.reveal() == url
    assert StoreSettings(url={"env": "DATABASE_URL"}).url == Secret.from_env("DATABASE_URL")
    for url, message in {
        "postgres://me:hunter2@db/lw": "write postgresql://",
        "postgresql+asyncpg://me:hunter2@db/lw": "through psycopg: write postgresql://",
        "postgresql://me:hunter2@db": "names no database",
        "postgresql://me:hunter2@db/?sslmode=require": "names no database",
        "postgresql://me:hunter2@more@db/lw": "must be written %40",
        "mysql://me:hunter2@db/lw": "must be a SQLite file",
        "sqlite://": "must be a SQLite file",
        "sqlite:///": "must be a SQLite file",
        "layerwatch.db": "must be a SQLite file",
    }.items():
        with pytest.raises(ValidationError, match=message) as caught:
            StoreSettings(url=url)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["local", "0", "a-b_c9"])
def test_a_registry_name_of_lower_case_letters_digits_and_dashes_is_accepted(name: str) -> None:
    registry = DirectoryRegistrySettings(name=name, kind="directory", path="m")
    assert registry.name == name
    assert registry.path == Path("m")


@pytest.mark.parametrize("name", ["", "Local", "-a", "_a", "a b", "a\n", "ä", 'x"y', "a/b"])
def test_any_other_registry_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="must start with a-z or 0-9"):
        DirectoryRegistrySettings(name=name, kind="directory", path="m")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("poll", "0s", "longer than 0s"),
        ("reconcile", "0s", "longer than 0s"),
        ("complete_marker", "a/b", "without /"),
        ("complete_marker", "..", "without /"),
        ("complete_marker", " ", "must not be empty"),
        ("models", [""], "must not be empty"),
        ("refs", [], "must not be empty"),
    ],
)
def test_a_registry_that_could_not_be_watched_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DirectoryRegistrySettings.model_validate({"name": "a", "kind": "directory", "path": "m", key: value})


def test_a_registry_may_settle_at_once() -> None:
    assert not DirectoryRegistrySettings(name="a", kind="directory", path="m", settle="0s").settle


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    registry = DirectoryRegistrySettings(name="a", kind="directory", path="~/models")
    assert registry.path == Path("/home/me/models")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("workers", 0),
        ("workers", 65),
        ("workers", True),
        ("memory_limit", "0B"),
        ("timeout", "0s"),
        ("attempts", 0),
        ("niceness", 20),
        ("niceness", -1),
        ("threads", 0),
    ],
)
def test_scan_limits_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        ScanSettings.model_validate({key: value})


def test_the_default_thresholds_are_those_of_the_study() -> None:
    """Source: the detection study, section 10 (recommended rule set) and section 12 (amendments)."""
    rules = RulesSettings()
    assert (rules.huge_value.limit, rules.huge_value.vector_limit) == (8.0, 30.0)
    assert (rules.zero_rows.row_share, rules.zero_rows.column_share) == (0.02, 0.10)
    assert (rules.relative_change.limit, rules.relative_change.times_median) == (0.35, 4.0)
    assert (rules.scaled.cosine, rules.scaled.log10_norm_ratio) == (0.95, 0.45)
    outlier = rules.spectral_outlier
    assert (outlier.severity_limit, outlier.times_median) == (1.0, 3.0)
    assert (outlier.wide_severity_limit, outlier.wide_times_median) == (5.0, 6.0)
    assert outlier.divisors == SpectralDivisors(
        log_norm=0.20,
        log_spectral_norm=0.35,
        log_stable_rank=0.15,
        log_effective_rank=0.08,
        esd_distance=0.15,
        rank_loss=0.20,
        log_kurtosis=0.55,
    )
    assert (rules.tail_exponent.sigmas, rules.tail_exponent.min_eigenvalues) == (4.0, 50)


def sections() -> list[str]:
    return [name for name in RulesSettings.model_fields if hasattr(getattr(RulesSettings(), name), "enabled")]


def test_the_default_severities_are_critical_but_for_those_that_ask_for_a_look() -> None:
    rules = RulesSettings()
    severities = {name: getattr(rules, name).severity for name in sections()}
    warnings = {
        *(
            "unreadable",
            "merge_sign_conflict",
            "adapter_no_op",
            "noise_like",
            "uniform_scaling",
            "label_noise",
            "lineage_contradicted",
        ),
        "model_wide_shift",
    }
    assert severities == dict.fromkeys(severities, "critical") | dict.fromkeys(warnings, "warning") | {
        "tail_exponent": "info",
        "new_traps": "info",
        "permuted_copy": "info",
        "rescaled_copy": "info",
    }
    assert rules.structure_changed.changed_shape_severity == "warning"
    assert rules.structure_changed.added_layer_severity == "info"
    assert all(getattr(rules, name).enabled for name in sections())


def test_alpha_alone_cannot_be_made_critical() -> None:
    assert TailExponentSettings(severity="warning").severity == "warning"
    with pytest.raises(ValidationError, match="alpha alone is no alarm"):
        TailExponentSettings(severity="critical")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "fast"])
def test_a_threshold_must_be_a_positive_number(value: object) -> None:
    with pytest.raises(ValidationError):
        RulesSettings.model_validate({"huge_value": {"limit": value}})


@pytest.mark.parametrize("value", [0, 1.01])
def test_a_share_must_be_above_zero_and_at_most_one(value: float) -> None:
    with pytest.raises(ValidationError):
        RulesSettings.model_validate({"zero_rows": {"row_share": value}})


def test_a_receiver_is_chosen_by_its_kind() -> None:
    adapter: TypeAdapter[ReceiverSettings] = TypeAdapter(ReceiverSettings)
    log = adapter.validate_python({"name": "a", "kind": "log"})
    webhook = adapter.validate_python({"name": "a", "kind": "webhook", "url": "https://example.org/hook"})
    assert isinstance(log, LogReceiverSettings)
    assert isinstance(webhook, WebhookReceiverSettings)
    assert (webhook.timeout, webhook.max_age) == (timedelta(seconds=15), timedelta(days=3))
    assert webhook.secret is None
    assert webhook.send_resolved


@pytest.mark.parametrize(
    "url", ["hunter2", "ftp://h/hunter2", "https://", "https://[hunter2", "file:///hunter2"]
)
def test_a_webhook_url_that_is_not_http_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValidationError, match="must be an http:// or https:// URL") as caught:
        WebhookReceiverSettings(name="a", kind="webhook", url=url)
    assert "hunter2" not in str(caught.value)


def test_private_networks_are_written_with_their_network_address() -> None:
    def networks(*texts: str) -> tuple[str, ...]:
        return WebhookReceiverSettings(
            name="a", kind="webhook", url="http://a", allow_private_cidrs=texts
        ).allow_private_cidrs

    assert networks("10.0.0.0/8", "192.168.1.7", "fd00::/8") == ("10.0.0.0/8", "192.168.1.7/32", "fd00::/8")
    with pytest.raises(ValidationError, match=r"write 10\.0\.0\.0/8"):
        networks("10.1.2.3/8")
    with pytest.raises(ValidationError, match="must be a network such as"):
        networks("localhost")


def test_receivers_and_route_must_fit_together() -> None:
    log = LogReceiverSettings(name="slack", kind="log")
    assert AlertsSettings(receivers=(log,), route=RouteSettings(receiver="slack")).receivers == (log,)
    with pytest.raises(ValidationError, match='unknown receiver "slak", did you mean "slack"') as caught:
        AlertsSettings(receivers=(log, log), route=RouteSettings(receiver="slak"))
    assert [detail["loc"] for detail in caught.value.errors()] == [
        ("receivers", 1, "name"),
        ("route", "receiver"),
    ]
    with pytest.raises(ValidationError, match=r"add route: \{receiver: slack\}"):
        AlertsSettings(receivers=(log,))
    with pytest.raises(ValidationError, match="there are no receivers"):
        AlertsSettings(route=RouteSettings(receiver="slack"))


def test_registry_names_are_unique() -> None:
    registry = DirectoryRegistrySettings(name="a", kind="directory", path="m")
    with pytest.raises(ValidationError, match=r'"a" is already used by registries\[0\]'):
        Settings(registries=(registry, registry))


def test_settings_are_immutable_and_comparable() -> None:
    settings = Settings()
    assert settings == Settings()
    assert hash(settings) == hash(Settings())
    with pytest.raises(ValidationError, match="frozen"):
        settings.scan.workers = 5  # type: ignore[misc]


@pytest.mark.parametrize("value", [0, -1, 1001, float("inf"), True, "few"])
def test_the_alarm_budget_is_a_number_of_versions_in_a_thousand(value: object) -> None:
    assert RulesSettings().false_alarms_per_1000_versions == 2.0
    with pytest.raises(ValidationError):
        RulesSettings.model_validate({"false_alarms_per_1000_versions": value})


def test_versions_are_accepted_by_themselves_only_where_it_is_asked_for_and_only_on_a_pass() -> None:
    assert BaselinesSettings().accept == "never"
    assert BaselinesSettings(accept="pass").accept == "pass"
    with pytest.raises(ValidationError):
        BaselinesSettings.model_validate({"accept": "warn"})


def test_parents_in_other_models_are_allowed_by_registry_and_model_and_not_at_all_by_default() -> None:
    assert not BaselinesSettings().allows_parents_from("hub", "base")
    settings = BaselinesSettings(parents_from=("hub/meta/*", "local/base"))
    assert settings.allows_parents_from("hub", "meta/llama")
    assert settings.allows_parents_from("local", "base")
    assert not settings.allows_parents_from("hub", "metal/llama")
    assert not settings.allows_parents_from("local", "base2")
    assert not settings.allows_parents_from("local", "Base")


@pytest.mark.parametrize("pattern", ["*", "hub", "hub/", "/base", "hub/ ", ""])
def test_a_pattern_of_models_without_a_registry_or_a_model_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="REGISTRY/MODEL"):
        BaselinesSettings.model_validate({"parents_from": [pattern]})
