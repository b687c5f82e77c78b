"""A version that is ready to be published, with the truth about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from layerwatch.daemon.demo.story import Step

BROKEN_POINTS = 5.0
"""A version that lost more percentage points of test accuracy than this against its parent is broken."""


@dataclass(frozen=True, slots=True)
class PreparedVersion:
    """One version in the staging folder.

    Attributes:
        model: name of the model.
        version: name of the version.
        step: the story's step.
        accuracy: test accuracy of the stored bytes, 0..1.
        parent_accuracy: that of the parent's stored bytes, or None without a parent.
        folder: holds the weight file, ``accuracy.json`` and, with a parent, ``lineage.json``.
    """

    model: str
    version: str
    step: Step
    accuracy: float
    parent_accuracy: float | None
    folder: Path

    @property
    def points_lost(self) -> float:
        """Percentage points of accuracy below the parent's; negative when better, 0 without a parent."""
        return 0.0 if self.parent_accuracy is None else 100.0 * (self.parent_accuracy - self.accuracy)

    @property
    def is_broken(self) -> bool:
        """The truth, from labelled test images; the daemon never sees it."""
        return self.points_lost > BROKEN_POINTS
