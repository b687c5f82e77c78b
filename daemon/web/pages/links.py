"""Relative addresses of pages, and what a report links to. Names go into the query, where a slash does no harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlencode

from layerwatch.alerts.payload import name
from layerwatch.metrics.report import Report
from layerwatch.metrics.rules import RULES

_LONGEST_NAME = 2000
"""Servers take 16 KB of address. A longer name of a layer is shortened, and found by what is left of it."""

_RULES = frozenset(rule.name for rule in RULES)


class Links(Protocol):
    """What names in a report link to; None where there is nothing."""

    def layer(self, layer: str) -> str | None:
        """The page or the part about a layer."""

    def rule(self, rule: str) -> str | None:
        """What a rule means."""


@dataclass(frozen=True, slots=True)
class VersionLinks:
    """Links of the daemon's pages about one version.

    Attributes:
        fingerprint: of the bytes that are meant; empty for those that are under the name now.
    """

    registry: str
    model: str
    version: str
    fingerprint: str = ""

    @property
    def _names(self) -> dict[str, str]:
        bytes_ = {"fingerprint": self.fingerprint} if self.fingerprint else {}
        return {"registry": self.registry, "model": self.model, "version": self.version, **bytes_}

    def layer(self, layer: str) -> str:
        return self._of_layer("layer", layer)

    def rule(self, rule: str) -> str | None:
        return f"explain/{quote(rule, safe='')}" if rule in _RULES else None

    def spectrum(self, layer: str, kind: str) -> str:
        """The spectrum of a layer as ``png`` or ``json``."""
        return self._of_layer(f"spectrum.{kind}", layer)

    def this(self, **other: str) -> str:
        """The page of the version."""
        return f"version?{urlencode({**self._names, **other})}"

    @property
    def of_model(self) -> str:
        """The page of the model."""
        return f"model?{urlencode({'registry': self.registry, 'model': self.model})}"

    def act(self, action: str) -> str:
        """The form that does something to the version."""
        names = {"registry": self.registry, "model": self.model, "version": self.version}
        return f"act?{urlencode({'action': action, **names})}"

    @property
    def silence(self) -> str:
        """The form that silences the alerts of the model."""
        return f"alerts?{urlencode({'silence': f'{self.registry}/{self.model}'})}#form"

    def compare(self, registry: str, model: str, version: str) -> str:
        """The version beside another one, which takes the place of a baseline."""
        sides: Mapping[str, tuple[str, str, str]] = {
            "a": (self.registry, self.model, self.version),
            "b": (registry, model, version),
        }
        names = {
            f"{side}_{what}": value
            for side, values in sides.items()
            for what, value in zip(("registry", "model", "version"), values, strict=True)
        }
        return f"compare?{urlencode(names)}"

    def compare_baseline(self, report: Report | None) -> str | None:
        """The version beside what its report held it against; None where that is nothing."""
        if report is None or report.baseline is None:
            return None
        # The daemon writes the registry in front of the path: names of registries have no colon.
        registry = report.baseline.source.partition(":")[0]
        return self.compare(registry, report.baseline.name, report.baseline.version)

    def _of_layer(self, page: str, layer: str) -> str:
        asked = urlencode({**self._names, "layer": layer})
        if len(asked) > _LONGEST_NAME:
            asked = urlencode({**self._names, "layer": name(layer)})
        return f"{page}?{asked}"
