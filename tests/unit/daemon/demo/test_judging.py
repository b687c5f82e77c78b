"""The prepared weights under the product's own engine: the defect is seen, in its layer, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.story import CNN, MLP
from layerwatch.metrics.change import compare_layer
from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.measure import MeasuredLayer, measure_layers
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.detect import open_model

Versions = Mapping[tuple[str, str], PreparedVersion]

CHILDREN = [(model, version) for model in (MLP, CNN) for version in ("v2", "v3", "v4", "v5", "v6")]
each_child = pytest.mark.parametrize(("model", "version"), CHILDREN)


def measured(prepared: PreparedVersion, baseline: PreparedVersion | None) -> list[MeasuredLayer]:
    model = OpenModel(open_model(prepared.folder), str(prepared.folder))
    other = OpenModel(open_model(baseline.folder), str(baseline.folder)) if baseline else None
    try:
        return list(measure_layers(model, lambda digest: False, other))
    finally:
        model.close()
        if other is not None:
            other.close()


def examination(versions: Versions, model: str, version: str, exact: bool) -> Examination:
    prepared = versions[model, version]
    parent = versions[model, prepared.step.parent] if prepared.step.parent else None
    known = {one.layer.name: one.measurement for one in measured(parent, None)} if parent else {}
    examined = []
    for one in measured(prepared, parent if exact else None):
        assert one.problem is None
        assert one.measurement is not None
        old = known.get(one.layer.name)
        examined.append(
            ExaminedLayer(
                name=one.layer.name,
                kind=one.layer.kind,
                shape=one.layer.shape,
                dtype=one.layer.dtype,
                measurement=one.measurement,
                baseline=old,
                change=compare_layer(one.measurement, old, one.exact) if old else None,
            )
        )
    return Examination(
        layers=tuple(one for one in examined if len(one.shape) >= 2),
        vectors=tuple(one for one in examined if len(one.shape) < 2),
        missing=(),
        has_baseline=parent is not None,
    )


def judged(examined: Examination) -> Judgement:
    return judge(examined, RulesSettings())


@each_child
@pytest.mark.parametrize("exact", [True, False], ids=["both files", "sketches"])
def test_the_verdict_is_the_expected_one_and_names_the_broken_layer_alone(
    versions: Versions, model: str, version: str, exact: bool
) -> None:
    step = versions[model, version].step
    judgement = judged(examination(versions, model, version, exact))
    assert judgement.verdict is step.expected
    alarming = [one for one in judgement.findings if one.severity.at_least(Severity.WARNING)]
    assert {one.layer for one in alarming} == ({step.broken_layer} if step.broken_layer else set())
    if step.broken_layer:
        assert alarming[0].rule == "scaled"
        assert {"scaled", "relative_change"} <= {one.rule for one in alarming}


@pytest.mark.parametrize("model", [MLP, CNN])
def test_the_first_version_passes_without_a_baseline(versions: Versions, model: str) -> None:
    judgement = judged(examination(versions, model, "v1", exact=False))
    assert judgement.verdict is versions[model, "v1"].step.expected


@each_child
def test_healthy_layers_stay_well_below_the_limits(versions: Versions, model: str, version: str) -> None:
    examined = examination(versions, model, version, exact=True)
    severities = judged(examined).context.severities
    for layer in examined.layers:
        if layer.name == versions[model, version].step.broken_layer:
            continue
        assert layer.change is not None
        assert layer.change.aligned is not None
        assert layer.change.aligned.relative_change is not None
        # 0.35 is the limit of relative_change, 1 that of spectral_outlier.
        assert layer.change.aligned.relative_change < 0.28
        assert severities[layer.name] < 0.7


@pytest.mark.parametrize("model", [MLP, CNN])
def test_most_layers_are_large_enough_for_a_tail_fit(versions: Versions, model: str) -> None:
    layers = examination(versions, model, "v1", exact=False).layers
    numbers = [layer.measurement.numbers for layer in layers if layer.measurement]
    large = [one for one in numbers if one is not None and one.num_eigenvalues >= 50]
    assert len(large) >= 2
