"""Inhibitions: alerts that are not told while another one, which explains them, fires."""

from __future__ import annotations

from typing import Annotated

from layerwatch.config.base import SettingsModel
from layerwatch.config.lists import NotEmpty
from layerwatch.config.matchertext import MatcherText


class InhibitionSettings(SettingsModel):
    """Alerts that match `target` are not told while one that matches `source` fires with equal labels."""

    source: Annotated[tuple[MatcherText, ...], NotEmpty()]
    """Matchers of the alerts that explain others; all must match."""

    target: Annotated[tuple[MatcherText, ...], NotEmpty()]
    """Matchers of the alerts that need not be told then; all must match."""

    equal: tuple[str, ...] = ("registry", "model", "ref")
    """Labels that must be the same in both; with none, a source mutes the targets of all models."""
