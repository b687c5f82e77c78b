from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from layerwatch.config.defaults import default_yaml
from layerwatch.config.inhibitions import InhibitionSettings
from layerwatch.config.loading import load_settings
from layerwatch.config.mutetimes import MuteSpanSettings, MuteTimeSettings
from layerwatch.config.owners import OwnerSettings
from layerwatch.config.receivers import (
    AlertmanagerReceiverSettings,
    AppriseReceiverSettings,
    HeartbeatReceiverSettings,
    HttpReceiverSettings,
    LogReceiverSettings,
    PagerDutyReceiverSettings,
    SlackReceiverSettings,
    TeamsReceiverSettings,
    WebhookReceiverSettings,
)
from layerwatch.config.registries import (
    BaseRegistrySettings,
    DirectoryRegistrySettings,
    HuggingFaceRegistrySettings,
    MlflowRegistrySettings,
    ObjectStoreRegistrySettings,
    OciRegistrySettings,
    RemoteRegistrySettings,
)
from layerwatch.config.routes import ChildRouteSettings, RouteSettings
from layerwatch.config.secrets import Secret
from layerwatch.config.settings import Settings

Writer = Callable[[str], Path]


def _without_empty_lists(value: object) -> object:
    if isinstance(value, dict):
        return {key: None if part == [] else _without_empty_lists(part) for key, part in value.items()}
    return value


def _with_shared_keys_told_once(settings: dict[str, Any]) -> dict[str, Any]:
    """Without ``for_scans``, which every rule has with one default, and which is told above all rules."""
    rules = {
        name: {key: part for key, part in rule.items() if key != "for_scans"}
        if isinstance(rule, dict)
        else rule
        for name, rule in settings["rules"].items()
    }
    return {**settings, "rules": rules}


def test_the_default_file_loads_to_the_defaults(write_config: Writer) -> None:
    assert load_settings(write_config(default_yaml()), {}) == Settings()


def test_the_default_file_holds_every_key_with_its_default_in_order() -> None:
    written = yaml.safe_load(default_yaml())
    expected = _without_empty_lists(_with_shared_keys_told_once(Settings().model_dump(mode="json")))
    assert yaml.safe_dump(written, sort_keys=False) == yaml.safe_dump(expected, sort_keys=False)


def test_the_key_that_every_rule_has_is_told_once() -> None:
    told = [line.strip() for line in default_yaml().splitlines() if "for_scans" in line]
    assert [line[:51] for line in told] == ["# Every rule also has the key for_scans, 1 by defau"]
    rules = [rule for rule in Settings().model_dump()["rules"].values() if isinstance(rule, dict)]
    assert {rule["for_scans"] for rule in rules} == {1}


def test_every_key_of_the_default_file_is_explained() -> None:
    """A line of explanation stands above the key, beside it, or above the key just before (paired keys)."""
    lines = default_yaml().splitlines()
    explained_by_rule = {"enabled", "severity"}
    for number, line in enumerate(lines):
        stripped = line.strip()
        if not stripped or stripped.startswith("#") or ":" not in stripped:
            continue
        key = stripped.partition(":")[0]
        section = not line.startswith(" ")
        near = lines[max(0, number - 2) : number]
        assert section or key in explained_by_rule or any(part.strip().startswith("#") for part in near), line


def test_the_examples_of_the_default_file_load_when_put_in_force(
    write_config: Writer, example_yaml: str
) -> None:
    path = write_config(example_yaml)
    settings = load_settings(path, {})
    assert settings.registries == (
        DirectoryRegistrySettings(name="local", kind="directory", path=path.parent / "models"),
        MlflowRegistrySettings(
            name="prod", kind="mlflow", url="http://mlflow:5000", refs=("latest", "@champion")
        ),
        HuggingFaceRegistrySettings(
            name="hub", kind="huggingface", repositories=("my-org/*",), token=Secret.from_env("HF_TOKEN")
        ),
        OciRegistrySettings(
            name="oci", kind="oci", url="https://registry.internal", repositories=("models/*",)
        ),
        ObjectStoreRegistrySettings(name="bucket", kind="objectstore", url="s3://bucket/prefix"),
    )
    assert settings.alerts.receivers == (
        WebhookReceiverSettings(
            name="oncall",
            kind="webhook",
            url=Secret.from_file("/run/secrets/webhook-url"),
            secret=Secret.from_env("WEBHOOK_SECRET"),
        ),
        LogReceiverSettings(name="log", kind="log"),
        AlertmanagerReceiverSettings(
            name="alertmanager",
            kind="alertmanager",
            urls=(Secret("http://alertmanager-0:9093"), Secret("http://alertmanager-1:9093")),
        ),
        PagerDutyReceiverSettings(
            name="pager", kind="pagerduty", routing_key=Secret.from_env("PAGERDUTY_KEY")
        ),
        SlackReceiverSettings(name="slack", kind="slack", url=Secret.from_file("/run/secrets/slack-url")),
        TeamsReceiverSettings(name="teams", kind="teams", url=Secret.from_file("/run/secrets/teams-url")),
        AppriseReceiverSettings(
            name="phone",
            kind="apprise",
            url=Secret.from_env("APPRISE_URL"),
        ),
        HeartbeatReceiverSettings(
            name="alive", kind="heartbeat", url=Secret.from_file("/run/secrets/ping-url")
        ),
    )
    assert settings.alerts.route is not None
    assert settings.alerts.route.model_copy(update={"routes": ()}) == RouteSettings(receiver="oncall")
    assert [route.receiver for route in settings.alerts.route.routes] == ["pager"]
    assert [one.labels for one in settings.alerts.owners] == [{"team": "fraud"}]
    assert [len(one.times) for one in settings.alerts.mute_times] == [4]
    assert len(settings.alerts.inhibitions) == 1
    defaults = Settings()
    assert (settings.server, settings.store, settings.downloads, settings.scan, settings.rules) == (
        defaults.server,
        defaults.store,
        defaults.downloads,
        defaults.scan,
        defaults.rules,
    )


def test_the_examples_show_every_key_of_what_they_are_an_example_of(example_yaml: str) -> None:
    shown = yaml.safe_load(example_yaml)
    webhook, log, *services = shown["alerts"]["receivers"]
    directory, mlflow, *others = shown["registries"]
    assert directory.keys() == DirectoryRegistrySettings.model_fields.keys()
    shared = set(BaseRegistrySettings.model_fields)
    assert mlflow.keys() | shared == MlflowRegistrySettings.model_fields.keys()
    shared |= set(RemoteRegistrySettings.model_fields)
    assert [one.keys() | shared for one in others] == [
        kind.model_fields.keys()
        for kind in (HuggingFaceRegistrySettings, OciRegistrySettings, ObjectStoreRegistrySettings)
    ]
    assert webhook.keys() == WebhookReceiverSettings.model_fields.keys()
    assert log.keys() == LogReceiverSettings.model_fields.keys()
    posted = set(HttpReceiverSettings.model_fields)
    kinds = (
        AlertmanagerReceiverSettings,
        PagerDutyReceiverSettings,
        SlackReceiverSettings,
        TeamsReceiverSettings,
        AppriseReceiverSettings,
    )
    *posting, heartbeat = services
    assert [one.keys() | posted for one in posting] == [kind.model_fields.keys() for kind in kinds]
    assert heartbeat.keys() | {"allow_private_cidrs", "ca_file"} == (
        HeartbeatReceiverSettings.model_fields.keys()
    )
    route = shown["alerts"]["route"]
    assert route.keys() == RouteSettings.model_fields.keys()
    inherited = {"group_by", "group_wait", "group_interval", "repeat_interval"}
    shown_as = {"goes_on": "continue"}
    assert route["routes"][0].keys() == {
        shown_as.get(key, key) for key in ChildRouteSettings.model_fields.keys() - inherited
    }
    (mute_time,) = shown["alerts"]["mute_times"]
    assert mute_time.keys() == MuteTimeSettings.model_fields.keys()
    assert set().union(*mute_time["times"]) == MuteSpanSettings.model_fields.keys()
    assert shown["alerts"]["owners"][0].keys() == OwnerSettings.model_fields.keys()
    assert shown["alerts"]["inhibitions"][0].keys() == InhibitionSettings.model_fields.keys()
