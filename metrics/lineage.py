"""Whether a version's weights agree with what it is declared to be made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layerwatch.metrics.estimate import Estimate, LayerSketch
from layerwatch.metrics.nearest import Candidate, nearest_parent
from layerwatch.metrics.relation import Relation

CONVERSIONS = frozenset({Relation.QUANTIZED, Relation.CAST, Relation.REEXPORTED, Relation.PRUNED})
"""What is done to one model's weights without training: nothing lies nearer to the result than that model."""


@dataclass(frozen=True, slots=True)
class LineageEvidence:
    """A declared parent and the nearest known version, as far as sketches tell.

    Attributes:
        declared: the parent as it was declared.
        source: where that was read.
        confidence: of the declaration, 0..1.
        relation: as declared, or None.
        distance, cosine: of the version to the declared parent, over layers of equal name and shape
            (``nearest.py``).
        nearest: name of the nearest other version.
        nearest_distance, nearest_cosine: the same for that one.
        is_nearer: True when that one is nearer to the version than the declared parent and than an empty model, by
            more than two standard errors.
    """

    declared: str
    source: str
    confidence: float
    relation: Relation | None
    distance: Estimate
    cosine: Estimate
    nearest: str
    nearest_distance: Estimate
    nearest_cosine: Estimate
    is_nearer: bool


def lineage_evidence(
    version: Mapping[str, LayerSketch],
    parent: Mapping[str, LayerSketch],
    other: Mapping[str, LayerSketch],
    *,
    declared: str,
    source: str,
    confidence: float,
    relation: Relation | None,
    nearest: str,
) -> LineageEvidence | None:
    """Hold a declared parent against another version; None where either cannot be compared.

    Args:
        version, parent, other: sketches by layer name.
        declared, source, confidence, relation: of the declaration.
        nearest: name of the other version.
    """
    both = nearest_parent(version, {"parent": parent, "other": other})
    candidates = {one.name: one for one in both.candidates}
    of_parent, of_other = _numbers(candidates["parent"]), _numbers(candidates["other"])
    if of_parent is None or of_other is None:
        return None
    return LineageEvidence(
        declared,
        source,
        confidence,
        relation,
        *of_parent,
        nearest,
        *of_other,
        is_nearer=both.decisive and both.candidates[0].name == "other",
    )


def _numbers(candidate: Candidate) -> tuple[Estimate, Estimate] | None:
    if not candidate.comparable or candidate.distance is None or candidate.cosine is None:
        return None
    return candidate.distance, candidate.cosine
