"""A declared parent that the weights contradict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layerwatch.metrics.estimate import Estimate, LayerSketch
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.lineage import LineageEvidence, lineage_evidence
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.sketch import sketch
from layerwatch_testing.examinations import examination, findings_of, layer, settings

RULE = "lineage_contradicted"


def evidence(distance: float, nearest: float, **other: Any) -> LineageEvidence:
    """Distances to the declared parent and to the nearest other version; unrelated ones have no cosine."""
    values: dict[str, Any] = {
        "declared": "hf:org/base",
        "source": "card",
        "confidence": 0.4,
        "relation": Relation.FINETUNED,
        "distance": Estimate(distance, 0.01),
        "cosine": Estimate(max(0.0, 1 - distance**2 / 2), 0.01),
        "nearest": "prod/other/v3",
        "nearest_distance": Estimate(nearest, 0.001),
        "nearest_cosine": Estimate(max(0.0, 1 - nearest**2 / 2), 0.001),
        "is_nearer": nearest < distance,
    }
    return LineageEvidence(**(values | other))


def told(found: LineageEvidence | None, **rule: Any) -> list[str]:
    rules = settings(RULE, **rule) if rule else None
    return [one.message for one in findings_of(RULE, examination(layer(), lineage=found), rules)]


def test_an_unrelated_parent_beside_a_near_version_is_a_warning_with_both_distances() -> None:
    (found,) = findings_of(RULE, examination(layer(), lineage=evidence(1.41, 0.05)))
    assert found.severity is Severity.WARNING
    assert found.message == (
        "declared to be finetuned from hf:org/base (card), but does not point its way at all (distance 1.4); "
        "prod/other/v3 is the nearest known version (distance 0.05)"
    )
    assert found.evidence["nearest"] == "prod/other/v3"
    assert found.evidence["distance"] == pytest.approx(1.41)


@pytest.mark.parametrize(
    "relation",
    [
        None,
        *sorted(set(Relation) - {Relation.MERGED, Relation.ADAPTER, Relation.RETRAINED, Relation.DISTILLED}),
    ],
)
def test_whatever_was_done_but_training_anew(relation: Relation | None) -> None:
    assert told(evidence(1.41, 0.05, relation=relation))


@pytest.mark.parametrize(
    "relation", [Relation.MERGED, Relation.ADAPTER, Relation.RETRAINED, Relation.DISTILLED]
)
def test_what_need_not_resemble_its_parent_contradicts_nothing(relation: Relation) -> None:
    assert told(evidence(1.41, 0.05, relation=relation)) == []


def test_a_conversion_lies_nearest_to_what_was_converted() -> None:
    assert told(evidence(0.3, 0.05, relation=Relation.QUANTIZED))
    assert told(evidence(0.3, 0.2, relation=Relation.QUANTIZED)) == []
    # A fine-tune may lie nearer to its siblings than to the base.
    assert told(evidence(0.3, 0.05, relation=Relation.FINETUNED)) == []


def test_a_copy_under_another_name_says_nothing_of_where_both_came_from() -> None:
    """The same int4 version in two models: 0.013 from its parent, 0 from its copy."""
    assert told(evidence(0.013, 0.0, relation=Relation.QUANTIZED)) == []
    assert told(evidence(1.41, 0.0, relation=Relation.QUANTIZED))


def test_nothing_is_said_where_nothing_is_certain() -> None:
    assert told(None) == []
    assert told(evidence(1.41, 0.05, is_nearer=False)) == []
    assert told(evidence(1.41, 1.2)) == []
    assert told(evidence(1.41, 0.05, cosine=Estimate(0.28, 0.05))) == []
    assert told(evidence(1.41, 0.05, cosine=Estimate(0.2, 0.01)), unrelated=0.01, ratio=99.0) == []


def sketches(weights: np.ndarray[Any, Any], dtype: str = "F32") -> dict[str, LayerSketch]:
    return {"fc": LayerSketch(sketch(weights), float(np.linalg.norm(weights)), weights.shape, dtype)}


def test_the_evidence_is_taken_from_sketches() -> None:
    generator = np.random.default_rng(1)
    base, other = (generator.standard_normal((64, 48)).astype(np.float32) for _ in range(2))
    version = base + 0.1 * generator.standard_normal(base.shape).astype(np.float32)
    declared: dict[str, Any] = {
        "declared": "other",
        "source": "card",
        "confidence": 0.4,
        "relation": Relation.FINETUNED,
        "nearest": "base",
    }
    found = lineage_evidence(sketches(version), sketches(other), sketches(base), **declared)
    assert found is not None
    assert found.is_nearer
    assert found.nearest_distance.value == pytest.approx(0.1, rel=0.1)
    assert told(found)
    honest = lineage_evidence(sketches(version), sketches(base), sketches(other), **declared)
    assert honest is not None
    assert not honest.is_nearer
    assert lineage_evidence(sketches(version), {}, sketches(base), **declared) is None
