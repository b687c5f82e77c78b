"""The exposition: readable by Prometheus' own parser, promised names, no duplicates, a visible cap."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from layerwatch.metrics.export import SERIES_PER_LAYER, join, render, render_ref
from layerwatch.metrics.exported import LayerSample, RefSample
from layerwatch.metrics.findings import LayerStatus, Verdict

_SUMMARIES = ("layerwatch_model_alpha", "layerwatch_experts_alpha")
Key = tuple[str, frozenset[tuple[str, str]]]


def layer(name: str = "fc", status: LayerStatus = LayerStatus.OK, **other: Any) -> LayerSample:
    values: dict[str, Any] = {
        "alpha": 3.25,
        "alpha_sigma": 0.4,
        "alpha_baseline": 3.0,
        "log_norm": 1.5,
        "log_spectral_norm": 0.5,
        "stable_rank": 8.0,
    }
    return LayerSample(name, status, **(values | other))


def ref(*layers: LayerSample, **other: Any) -> RefSample:
    values: dict[str, Any] = {
        "registry": "prod",
        "model": "fraud",
        "ref": "latest",
        "version": "7",
        "fingerprint": "ab12",
        "verdict": Verdict.PASS,
        "baseline": "6",
        "relation": "finetuned",
        "judged_at": 1_700_000_000.0,
    }
    return RefSample(layers=layers, **(values | other))


def scraped(*refs: RefSample, cap: int = 10_000) -> dict[Key, float]:
    found: list[tuple[Key, float]] = []
    for family in text_string_to_metric_families(render(refs, cap).decode()):
        # The label "quantile" is reserved for summaries.
        expected = "summary" if family.name in _SUMMARIES else "gauge"
        assert family.type == expected, family.name
        assert family.documentation
        for sample in family.samples:
            found.append(((sample.name, frozenset(sample.labels.items())), sample.value))
    duplicates = [key for key, count in Counter(key for key, _ in found).items() if count > 1]
    assert duplicates == []
    return dict(found)


def value(found: dict[Key, float], name: str, **labels: str) -> float:
    everywhere = {"registry": "prod", "model": "fraud", "ref": "latest"}
    return found[name, frozenset((everywhere | labels).items())]


def names(found: dict[Key, float]) -> set[str]:
    return {name for name, _ in found}


def test_a_layers_gauges_have_the_promised_names_and_values() -> None:
    found = scraped(ref(layer("encoder.fc")))

    # Design, section 4, "Metrics".
    assert value(found, "layerwatch_layer_alpha", layer="encoder.fc") == 3.25
    assert value(found, "layerwatch_layer_alpha_sigma", layer="encoder.fc") == 0.4
    assert value(found, "layerwatch_layer_alpha_baseline", layer="encoder.fc") == 3.0
    assert value(found, "layerwatch_layer_log_norm", layer="encoder.fc") == 1.5
    assert value(found, "layerwatch_layer_log_spectral_norm", layer="encoder.fc") == 0.5
    assert value(found, "layerwatch_layer_stable_rank", layer="encoder.fc") == 8.0
    assert value(found, "layerwatch_layer_status", layer="encoder.fc") == 0


def test_version_and_fingerprint_are_labels_of_the_info_metric_only() -> None:
    found = scraped(ref(layer()))

    labels = {"version": "7", "fingerprint": "ab12", "baseline": "6", "relation": "finetuned"}
    assert value(found, "layerwatch_model_info", **labels) == 1
    for name, keys in found:
        if name != "layerwatch_model_info":
            assert not {"version", "fingerprint", "type", "stage"} & {key for key, _ in keys}


@pytest.mark.parametrize(
    ("status", "number"),
    [
        (LayerStatus.OK, 0),
        (LayerStatus.INFO, 1),
        (LayerStatus.SUSPECT, 2),
        (LayerStatus.BROKEN, 3),
        (LayerStatus.UNDECIDED, 4),
    ],
)
def test_layer_statuses_are_numbers_by_severity(status: LayerStatus, number: int) -> None:
    assert value(scraped(ref(layer("fc", status))), "layerwatch_layer_status", layer="fc") == number


@pytest.mark.parametrize(
    ("verdict", "number"),
    [(Verdict.PASS, 0), (Verdict.WARN, 1), (Verdict.FAIL, 2), (Verdict.UNDECIDED, 3)],
)
def test_verdicts_are_numbers(verdict: Verdict, number: int) -> None:
    assert value(scraped(ref(verdict=verdict)), "layerwatch_model_verdict") == number


def test_layers_are_counted_by_status_zeros_included() -> None:
    found = scraped(ref(layer("a"), layer("b"), layer("c", LayerStatus.BROKEN)))

    counts = {
        status: value(found, "layerwatch_model_layers", status=status)
        for status in ("ok", "info", "suspect", "broken", "undecided")
    }
    assert counts == {"ok": 2, "info": 0, "suspect": 0, "broken": 1, "undecided": 0}


def test_alpha_is_summarised_by_its_quantiles() -> None:
    found = scraped(ref(*(layer(f"l{alpha}", alpha=float(alpha)) for alpha in (1, 2, 3, 4, 9))))

    quantiles = {
        q: value(found, "layerwatch_model_alpha", quantile=q) for q in ("0", "0.25", "0.5", "0.75", "1")
    }
    assert quantiles == {"0": 1, "0.25": 2, "0.5": 3, "0.75": 4, "1": 9}


def test_undefined_numbers_are_left_out_not_exported_as_zero_or_nan() -> None:
    bare = layer(
        "fc",
        alpha=None,
        alpha_sigma=None,
        alpha_baseline=None,
        log_norm=None,
        log_spectral_norm=None,
        stable_rank=None,
    )

    found = scraped(ref(bare))

    layer_series = {name for name, labels in found if "layer" in dict(labels)}
    assert layer_series == {"layerwatch_layer_status"}
    assert "layerwatch_model_alpha" not in names(found)


def test_zero_is_a_number_like_any_other() -> None:
    assert value(scraped(ref(layer(log_norm=0.0))), "layerwatch_layer_log_norm", layer="fc") == 0.0


def test_models_and_refs_stand_beside_each_other() -> None:
    found = scraped(ref(layer()), ref(layer(), ref="@champion"), ref(layer(), model="other"))

    assert sum(name == "layerwatch_layer_alpha" for name, _ in found) == 3


def test_an_empty_snapshot_is_valid() -> None:
    assert scraped() == {}


def test_what_left_the_snapshot_is_gone() -> None:
    before, after = scraped(ref(layer("a"), layer("b"))), scraped(ref(layer("a")))

    assert {dict(labels).get("layer") for _, labels in before} == {None, "a", "b"}
    assert {dict(labels).get("layer") for _, labels in after} == {None, "a"}


def test_the_cap_keeps_conspicuous_layers_and_counts_what_it_drops() -> None:
    layers = [layer(f"ok{number}") for number in range(5)]
    layers[3:3] = [layer("broken", LayerStatus.BROKEN), layer("suspect", LayerStatus.SUSPECT)]

    found = scraped(ref(*layers), cap=3 * SERIES_PER_LAYER + 2)

    kept = {dict(labels)["layer"] for name, labels in found if name == "layerwatch_layer_alpha"}
    assert kept == {"ok0", "broken", "suspect"}
    assert value(found, "layerwatch_series_dropped") == 4 * SERIES_PER_LAYER
    # The model's own gauges still speak of every layer.
    assert value(found, "layerwatch_model_layers", status="ok") == 5


def test_without_a_cap_in_the_way_nothing_is_dropped() -> None:
    assert value(scraped(ref(layer()), cap=SERIES_PER_LAYER), "layerwatch_series_dropped") == 0
    assert (
        value(scraped(ref(layer()), cap=SERIES_PER_LAYER - 1), "layerwatch_series_dropped")
        == SERIES_PER_LAYER
    )
    assert value(scraped(ref(layer()), cap=0), "layerwatch_series_dropped") == SERIES_PER_LAYER


@pytest.mark.parametrize(
    "name",
    [
        'fc"} 1\nlayerwatch_model_verdict{registry="prod',
        "back\\slash\\",
        "new\nline",
        'quote"d',
        "\\n",
        "{} , =",
        "zeichen-ü-層",
        "tab\tcr\rnul\0",
        "",
    ],
)
def test_hostile_names_cannot_forge_or_break_a_series(name: str) -> None:
    found = scraped(ref(layer(name), model=name))

    everywhere = {"registry": "prod", "model": name, "ref": "latest"}
    assert found["layerwatch_layer_alpha", frozenset((everywhere | {"layer": name}).items())] == 3.25
    assert sum(key == "layerwatch_model_verdict" for key, _ in found) == 1


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(text, max_size=6, unique=True), text, st.integers(0, 60))
def test_any_names_give_a_readable_exposition_without_duplicates(
    layers: list[str], model: str, cap: int
) -> None:
    found = scraped(ref(*(layer(name) for name in layers), model=model), cap=cap)

    kept = {dict(labels)["layer"] for name, labels in found if name == "layerwatch_layer_status"}
    assert kept <= set(layers)
    assert len(kept) == min(len(layers), cap // SERIES_PER_LAYER)
    assert {dict(labels)["model"] for _, labels in found} == {model}


def test_long_names_are_cut_and_stay_apart() -> None:
    long = "layer." * 1000
    found = scraped(ref(layer(long + "a"), layer(long + "b"), layer("x" * 200), model=long))

    shown = {dict(labels)["layer"] for name, labels in found if name == "layerwatch_layer_alpha"}
    assert len(shown) == 3
    assert "x" * 200 in shown
    assert all(
        name == "x" * 200 or (name.startswith(long[:200] + "~") and len(name) == 213) for name in shown
    )
    (model,) = {dict(labels)["model"] for _, labels in found}
    assert len(model) == 213


# Mixtures of experts


def expert(number: int, alpha: float = 3.0, status: LayerStatus = LayerStatus.OK) -> LayerSample:
    return layer(f"layers.0.mlp.experts.{number}.up_proj", status, alpha=alpha)


def test_experts_are_told_by_quantiles_of_alpha_and_counted_by_status() -> None:
    found = scraped(
        ref(layer("layers.0.attention"), *(expert(number, 2.0 + number) for number in range(101)))
    )

    together = {"layer": "layers.0.mlp.experts.*.up_proj"}
    # Linear interpolation between 2, 3, ... 102 (numpy.quantile).
    for quantile, alpha in (("0", 2.0), ("0.5", 52.0), ("0.95", 97.0), ("1", 102.0)):
        assert value(found, "layerwatch_experts_alpha", quantile=quantile, **together) == alpha
    assert value(found, "layerwatch_experts", status="ok", **together) == 101
    assert value(found, "layerwatch_experts", status="broken", **together) == 0
    assert {dict(keys)["layer"] for name, keys in found if name == "layerwatch_layer_alpha"} == {
        "layers.0.attention"
    }
    assert value(found, "layerwatch_model_layers", status="ok") == 102
    assert value(found, "layerwatch_series_dropped") == 0


@pytest.mark.parametrize("status", [LayerStatus.SUSPECT, LayerStatus.BROKEN, LayerStatus.UNDECIDED])
def test_a_conspicuous_expert_keeps_its_own_gauges(status: LayerStatus) -> None:
    found = scraped(ref(*(expert(number) for number in range(8)), expert(8, 9.0, status)))

    (shown,) = [dict(keys)["layer"] for name, keys in found if name == "layerwatch_layer_status"]
    assert shown == "layers.0.mlp.experts.8.up_proj"
    assert (
        value(found, "layerwatch_experts", status=status.value, layer="layers.0.mlp.experts.*.up_proj") == 1
    )


def test_three_experts_are_layers_like_others() -> None:
    found = scraped(ref(*(expert(number) for number in range(3))))

    assert "layerwatch_experts" not in names(found)
    assert len([name for name, _ in found if name == "layerwatch_layer_alpha"]) == 3


def test_the_cap_holds_for_a_mixture_with_more_layers_than_series_allowed() -> None:
    many = [
        layer(f"layers.{depth}.mlp.experts.{number}.up_proj") for depth in range(50) for number in range(4)
    ]
    found = scraped(ref(*many), cap=100)

    told = [name for name, keys in found if "layer" in dict(keys)]
    assert 0 < len(told) <= 100
    assert value(found, "layerwatch_series_dropped") > 0


# What a scrape must never hold


def test_of_two_layers_of_one_name_the_first_is_exported() -> None:
    found = scraped(ref(layer("fc", alpha=2.0), layer("fc", LayerStatus.BROKEN, alpha=9.0)))

    assert value(found, "layerwatch_layer_alpha", layer="fc") == 2.0
    assert value(found, "layerwatch_series_dropped") == SERIES_PER_LAYER


@given(st.lists(st.text(max_size=5), min_size=1, max_size=8, unique=True))
def test_refs_rendered_one_by_one_are_the_same_as_rendered_together(models: list[str]) -> None:
    samples = [ref(layer("fc"), layer("# HELP x"), model=model) for model in models]

    text = join([render_ref(sample, 10_000) for sample in samples])

    assert text == render(samples, 10_000)
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert len(families["layerwatch_model_verdict"].samples) == len(models)
    assert len(families["layerwatch_layer_alpha"].samples) == 2 * len(models)


def test_the_snapshot_reads_the_same_as_openmetrics() -> None:
    text = render([ref(layer('say "no" \\ é\n'), *(expert(number) for number in range(5)))], 10_000).decode()

    as_text = {family.name: family.samples for family in text_string_to_metric_families(text)}
    as_openmetrics = {family.name: family.samples for family in openmetrics_families(text + "# EOF\n")}  # type: ignore[no-untyped-call]

    assert as_openmetrics == as_text


# More about a version


def test_when_a_version_was_judged_and_where_its_report_is_are_exported() -> None:
    url = "https://layerwatch.example.org/report?registry=prod&model=fraud&ref=latest"
    found = scraped(ref(layer(), report_url=url))

    assert value(found, "layerwatch_model_judged_timestamp_seconds") == 1_700_000_000
    assert value(found, "layerwatch_model_report_info", url=url) == 1
    assert "layerwatch_model_report_info" not in names(scraped(ref(layer())))


def test_what_a_person_called_normal_is_told_apart() -> None:
    found = scraped(ref(model="a", verdict=Verdict.FAIL, accepted=True), ref(model="b", verdict=Verdict.FAIL))

    assert value(found, "layerwatch_model_accepted", model="a") == 1
    assert value(found, "layerwatch_model_accepted", model="b") == 0


@pytest.mark.parametrize("cap", [100, 1000, 10_000])
def test_under_the_cap_what_is_broken_goes_before_healthy_experts(cap: int) -> None:
    many = [
        layer(f"layers.{depth}.mlp.experts.{number}.up_proj") for depth in range(1200) for number in range(4)
    ]
    broken_expert = layer("layers.1200.mlp.experts.2.up_proj", LayerStatus.BROKEN)
    siblings = [layer(f"layers.1200.mlp.experts.{number}.up_proj") for number in (0, 1, 3)]
    head = layer("lm_head", LayerStatus.BROKEN)

    found = scraped(ref(layer("embed"), *many, *siblings, broken_expert, head), cap=cap)

    statuses = {
        dict(keys)["layer"]: number for (name, keys), number in found.items() if name.endswith("layer_status")
    }
    assert statuses["lm_head"] == statuses["layers.1200.mlp.experts.2.up_proj"] == 3
    assert value(found, "layerwatch_experts", status="broken", layer="layers.1200.mlp.experts.*.up_proj") == 1
    assert len([name for name, keys in found if "layer" in dict(keys)]) <= cap
