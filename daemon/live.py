"""Everything that depends on the configuration, built whole before anything live is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layerwatch.alerts.errors import ReceiversError
from layerwatch.alerts.inhibition import build_inhibitions
from layerwatch.alerts.receivers import build_heartbeats, build_receivers
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.alerts.receivers.heartbeat import HeartbeatReceiver
from layerwatch.alerts.routing import build_routes
from layerwatch.config.errors import ConfigError, ConfigProblem
from layerwatch.config.loading import load_settings, secret_problems
from layerwatch.config.registries import RemoteRegistrySettings
from layerwatch.config.rules import RuleSettings
from layerwatch.config.settings import Settings
from layerwatch.daemon.alerting import AlertPolicy
from layerwatch.daemon.notifying import Routing
from layerwatch.daemon.registries import build_registry
from layerwatch.daemon.registries.base import Registry, RegistryUnavailable
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.storelocation import downloads_of
from layerwatch.metrics.findings import Severity


@dataclass(frozen=True, slots=True)
class Live:
    """One generation of the configuration and what was built from it. Replaced whole by a reload."""

    settings: Settings
    registries: Mapping[str, Registry]
    downloads: Downloads
    receivers: Mapping[str, Receiver]
    policy: AlertPolicy
    routing: Routing
    heartbeats: tuple[HeartbeatReceiver, ...]


def load_live(path: Path | None, downloads: Downloads | None = None) -> Live:
    """Read, check and build; raises ConfigError with every problem and touches nothing that runs.

    Args:
        downloads: of the generation before; None for the first one.
    """
    settings = load_settings(path, os.environ)
    problems = secret_problems(settings)
    if problems:
        raise ConfigError(problems)
    return build_live(settings, downloads or downloads_of(settings, path))


def build_live(settings: Settings, downloads: Downloads) -> Live:
    """Build registries and receivers; raises ConfigError."""
    problems = list(secret_problems(settings))
    if problems:
        raise ConfigError(problems)
    try:
        receivers = build_receivers(settings.alerts.receivers)
        heartbeats = build_heartbeats(settings.alerts.receivers)
    except ReceiversError as error:
        raise ConfigError(
            [ConfigProblem("alerts.receivers", None, problem) for problem in error.problems]
        ) from None
    policy = AlertPolicy(
        fire_on=Severity(settings.alerts.fire_on),
        external_url=settings.server.external_url,
        for_scans={
            name: rule.for_scans
            for name, rule in settings.rules
            if isinstance(rule, RuleSettings) and rule.for_scans > 1
        },
    )
    routing = Routing(
        root=build_routes(settings.alerts),
        wants_ends={name: receiver.send_resolved for name, receiver in receivers.items()},
        inhibitions=build_inhibitions(settings.alerts),
        owners=settings.alerts.owners,
    )
    registries = {}
    for place, one in enumerate(settings.registries):
        if isinstance(one, RemoteRegistrySettings) and one.ca_file is not None and not one.ca_file.is_file():
            why = f"there is no file {one.ca_file}; it must hold certificates in PEM form"
            problems.append(ConfigProblem(f"registries[{place}].ca_file", None, why))
        try:
            registries[one.name] = build_registry(one, downloads)
        except RegistryUnavailable as error:
            problems.append(ConfigProblem(f"registries[{place}]", None, error.detail))
    if problems:
        raise ConfigError(problems)
    return Live(settings, registries, downloads, receivers, policy, routing, heartbeats)


def settings_that_need_a_restart(old: Settings, new: Settings) -> list[str]:
    """Keys whose change a reload cannot apply."""
    pairs = {
        "server.listen": (old.server.listen, new.server.listen),
        "store.url": (old.store.url, new.store.url),
        "downloads.path": (old.downloads.path, new.downloads.path),
        "downloads.size_limit": (old.downloads.size_limit, new.downloads.size_limit),
        "scan.workers": (old.scan.workers, new.scan.workers),
        "scan.memory_limit": (old.scan.memory_limit, new.scan.memory_limit),
        "scan.timeout": (old.scan.timeout, new.scan.timeout),
        "scan.niceness": (old.scan.niceness, new.scan.niceness),
        "scan.threads": (old.scan.threads, new.scan.threads),
        "scan.precision": (old.scan.precision, new.scan.precision),
        "scan.device": (old.scan.device, new.scan.device),
    }
    return [key for key, (before, after) in pairs.items() if before != after]
