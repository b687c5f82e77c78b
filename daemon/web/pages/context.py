"""What pages are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from layerwatch.config.settings import Settings
from layerwatch.daemon.statusfacts import StatusFacts
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.web.admission import Admission
from layerwatch.daemon.web.decisions import Decisions


@dataclass(frozen=True, slots=True)
class PageContext:
    """The store, the configuration in force, what people may decide, in whose name, and how the daemon is."""

    database: Database
    settings: Callable[[], Settings]
    decisions: Decisions
    admission: Admission
    facts: Callable[[], StatusFacts]
