"""The whole configuration: all sections in one immutable value."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from layerwatch.config.alerts import AlertsSettings
from layerwatch.config.base import SettingsModel
from layerwatch.config.baselines import BaselinesSettings
from layerwatch.config.composites import CompositeSettings
from layerwatch.config.crosschecks import raise_faults, registry_faults
from layerwatch.config.downloads import DownloadsSettings
from layerwatch.config.registries import RegistrySettings
from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.config.server import ServerSettings
from layerwatch.config.store import StoreSettings


class Settings(SettingsModel):
    """Configuration of the daemon. ``Settings()`` holds the defaults and reads neither files nor environment."""

    server: ServerSettings = ServerSettings()
    """The HTTP port."""

    store: StoreSettings = StoreSettings()
    """The database."""

    registries: tuple[RegistrySettings, ...] = ()
    """Where models come from."""

    downloads: DownloadsSettings = DownloadsSettings()
    """Where weights of remote registries are put while they are measured."""

    scan: ScanSettings = ScanSettings()
    """How weights are measured."""

    rules: RulesSettings = RulesSettings()
    """What is checked."""

    composites: tuple[CompositeSettings, ...] = ()
    """Models that are made of other models."""

    baselines: BaselinesSettings = BaselinesSettings()
    """What versions are judged against."""

    alerts: AlertsSettings = AlertsSettings()
    """Who is told."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        raise_faults("Settings", registry_faults(self))
        return self
