"""Which versions become baselines by themselves."""

from __future__ import annotations

from typing import Literal

from layerwatch.config.base import SettingsModel


class BaselinesSettings(SettingsModel):
    """What a version is judged against where nobody chose and no parent is declared."""

    accept: Literal["never", "pass"] = "never"
    """Whether a version whose verdict is pass becomes the model's accepted baseline by itself."""
