"""What charts are drawn from. All text is foreign; charts escape it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from layerwatch.metrics.findings import LayerStatus, Verdict


@dataclass(frozen=True, slots=True)
class DepthPoint:
    """One layer along the depth of a model.

    Attributes:
        alpha, sigma: of the version shown; None where there is none.
        baseline, baseline_sigma: of its baseline; None where there is none.
        href: relative link to the layer, or None.
    """

    layer: str
    status: LayerStatus
    alpha: float | None
    sigma: float | None = None
    baseline: float | None = None
    baseline_sigma: float | None = None
    href: str | None = None


class HeatScale(StrEnum):
    """What colours of a heatmap mean."""

    ALPHA = "alpha"
    RELATIVE_CHANGE = "relative_change"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class HeatCell:
    """One layer of one version; ``value`` is None where there is none, or the scale is of statuses."""

    status: LayerStatus | None
    value: float | None = None
    href: str | None = None


@dataclass(frozen=True, slots=True)
class TreeVersion:
    """One version in a tree of where versions come from.

    Attributes:
        parents: places in the list of the versions it was made from, each with the relation, or None.
        parent_outside: name of a parent that is not in the list; empty where there is none.
    """

    version: str
    verdict: Verdict | None
    parents: tuple[tuple[int, str | None], ...] = ()
    parent_outside: str = ""
    is_baseline: bool = False
    is_current: bool = False
    href: str | None = None
