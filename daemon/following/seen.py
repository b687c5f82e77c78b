"""What the daemon's API says, as far as it is shown. A newer daemon may say more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, TypeAdapter

JUDGED, SCANNING, PENDING = "judged", "scanning", "pending"
"""States of a version (``store.records.VersionState``)."""


Judgement = tuple[int, datetime]
"""Number of a version and when it was judged: one judgement of one version."""


class _Seen(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class SeenVersion(_Seen):
    """One version; all names are foreign text."""

    id: int
    registry: str
    model: str
    version: str
    state: str
    verdict: str | None
    discovered_at: datetime
    judged_at: datetime | None

    @property
    def name(self) -> str:
        """``registry/model version``."""
        return f"{self.registry}/{self.model} {self.version}"

    @property
    def judgement(self) -> Judgement | None:
        """The one in force; None while there is none, or while it is judged again."""
        return (self.id, self.judged_at) if self.state == JUDGED and self.judged_at is not None else None


class SeenRef(_Seen):
    """A ref and what it points at."""

    ref: str
    version: str
    verdict: str | None


class SeenModel(_Seen):
    """A model and its refs."""

    registry: str
    model: str
    refs: tuple[SeenRef, ...]

    @property
    def name(self) -> str:
        """``registry/model``."""
        return f"{self.registry}/{self.model}"


class SeenAlert(_Seen):
    """One alert that fires."""

    alert_id: str
    registry: str
    model: str
    ref: str
    group: str
    severity: str
    version: str
    layers: tuple[str, ...]
    started_at: datetime
    acknowledged_by: str | None = None
    muted_by: str | None = None

    @property
    def about(self) -> str:
        """``registry/model ref version``."""
        return f"{self.registry}/{self.model} {self.ref} {self.version}"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the daemon found.

    Attributes:
        versions: the newest, newest first.
        alerts: that fire.
        verdicts: what is to be said of the newest judgements, by :attr:`SeenVersion.judgement`; a few words.
    """

    models: tuple[SeenModel, ...]
    versions: tuple[SeenVersion, ...]
    alerts: tuple[SeenAlert, ...]
    verdicts: Mapping[Judgement, str]

    def in_state(self, state: str) -> tuple[SeenVersion, ...]:
        """Versions that are pending, scanning or judged, newest first."""
        return tuple(one for one in self.versions if one.state == state)


MODELS = TypeAdapter(tuple[SeenModel, ...])
VERSIONS = TypeAdapter(tuple[SeenVersion, ...])
ALERTS = TypeAdapter(tuple[SeenAlert, ...])
