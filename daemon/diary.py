"""What a daemon did with itself, and when: start, configurations, retention, self-check."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from layerwatch.config.settings import Settings
from layerwatch.daemon.store.retention import Pruned


@dataclass(slots=True)
class Diary:
    """Written by the daemon's loops; each attribute is replaced whole.

    Attributes:
        started_at, started_with: since when, and with which configuration.
        loaded_at: when the configuration in force was taken over.
        load_failed_at: when a later one was refused; None when the last one was not.
        retained_at, pruned: of the last retention; None before the first.
        repeated: series that the exposition held twice at the last check, which refuses every scrape.
        checked_at: when that was; None before the first.
    """

    started_at: datetime
    started_with: Settings
    loaded_at: datetime
    load_failed_at: datetime | None = None
    retained_at: datetime | None = None
    pruned: Pruned | None = None
    repeated: tuple[str, ...] = ()
    checked_at: datetime | None = None
