"""Factors that moved from layer to layer: consistently, the same network; forgotten in one place, a broken one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics import compare_models
from layerwatch.metrics.change import Method
from layerwatch.metrics.coupling import CouplingKind
from layerwatch.metrics.experts import Expert, ExpertGroup
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch.metrics.rescaled import with_sizes_undone, without_sizes
from layerwatch.metrics.rescaling import RescaledLayer
from layerwatch.metrics.results import ModelComparison
from layerwatch_testing.examinations import coupling

State = dict[str, NDArray[np.float32]]
WIDTH, HEAD, HIDDEN, BLOCKS, EXPERTS = 64, 8, 96, 2, 4
NORMS = ("input_layernorm", "post_attention_layernorm")


def weights(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    # Channels and units of different strength, as training makes them.
    strengths = np.exp(0.3 * random.standard_normal((rows, 1)) + 0.3 * random.standard_normal((1, columns)))
    return (strengths * random.standard_normal((rows, columns)) / 8).astype(np.float32)


def transformer(seed: int = 0, *, shared: int = 1, experts: bool = False, biases: bool = False) -> State:
    """Llama's layout; ``shared`` queries per value; Mixtral's experts; biases at norms and values."""
    random = np.random.default_rng(seed)
    state: State = {"model.embed_tokens.weight": weights(random, 120, WIDTH)}
    for block in range(BLOCKS):
        p = f"model.layers.{block}."
        for norm in NORMS:
            state[f"{p}{norm}.weight"] = np.exp(0.2 * random.standard_normal(WIDTH)).astype(np.float32)
        for name, rows in (("q", WIDTH), ("k", WIDTH // shared), ("v", WIDTH // shared), ("o", WIDTH)):
            state[f"{p}self_attn.{name}_proj.weight"] = weights(random, rows, WIDTH)
        if biases:
            for norm in NORMS:
                state[f"{p}{norm}.bias"] = random.standard_normal(WIDTH).astype(np.float32)
            state[f"{p}self_attn.v_proj.bias"] = random.standard_normal(WIDTH // shared).astype(np.float32)
        if experts:
            state[f"{p}mlp.gate.weight"] = weights(random, EXPERTS, WIDTH)
        for part in parts(experts):
            for name in ("gate_proj", "up_proj"):
                state[f"{p}mlp.{part}{name}.weight"] = weights(random, HIDDEN, WIDTH)
            state[f"{p}mlp.{part}down_proj.weight"] = weights(random, WIDTH, HIDDEN)
    state["model.norm.weight"] = np.exp(0.2 * random.standard_normal(WIDTH)).astype(np.float32)
    state["lm_head.weight"] = weights(random, 120, WIDTH)
    return state


def parts(experts: bool) -> list[str]:
    return [f"experts.{number}." for number in range(EXPERTS)] if experts else [""]


def folded(
    base: Mapping[str, NDArray[np.float32]], seed: int, spread: float = 0.4, left: tuple[str, ...] = ()
) -> State:
    """As AWQ folds its scales (arXiv:2306.00978); what is in ``left`` is forgotten."""
    random = np.random.default_rng(seed)
    state = {name: values.astype(np.float64) for name, values in base.items()}

    def fold(made: list[str], read: list[str], places: NDArray[np.intp] | None = None) -> None:
        size = len(state[made[0]])
        scales = np.exp(spread * random.standard_normal(size))
        for name in made:
            if name in state and name not in left:
                state[name] = (state[name].T / scales).T
        for name in read:
            if name not in left:
                state[name] = state[name] * (scales if places is None else scales[places])

    for block in range(BLOCKS):
        p = f"model.layers.{block}."
        inside = [name for name in state if name.startswith(p) and state[name].ndim == 2]
        attention = [name for name in inside if "self_attn" in name and "o_proj" not in name]
        others = [name for name in inside if ".mlp." in name and "down_proj" not in name]
        for norm, readers in zip(NORMS, (attention, others), strict=True):
            fold([f"{p}{norm}.weight", f"{p}{norm}.bias"], readers)
        values, output = f"{p}self_attn.v_proj.weight", f"{p}self_attn.o_proj.weight"
        count = len(state[values])
        # repeat_kv of transformers: query head h reads the values of head h // shared.
        places = np.arange(count).reshape(-1, HEAD).repeat(WIDTH // count, axis=0).reshape(-1)
        fold([values, f"{p}self_attn.v_proj.bias"], [output], places)
        for name in inside:
            if name.endswith("up_proj.weight"):
                fold([name], [name.replace("up_proj", "down_proj")])
    return {name: values.astype(np.float32) for name, values in state.items()}


def rounded(
    state: Mapping[str, NDArray[np.float32]], bits: int = 4, group: int = 32, clip: float = 1.0
) -> State:
    """Linear layers to the nearest of 2^bits levels between the extremes of each group; the rest in half precision."""
    found: State = {}
    for name, values in state.items():
        if "_proj.weight" not in name:
            found[name] = values.astype(np.float16).astype(np.float32)
            continue
        grouped = values.reshape(len(values), -1, group)
        low, high = clip * grouped.min(axis=2, keepdims=True), clip * grouped.max(axis=2, keepdims=True)
        step = (high - low) / (2**bits - 1)
        found[name] = (
            (low + step * np.round((grouped.clip(low, high) - low) / step))
            .reshape(values.shape)
            .astype(np.float32)
        )
    return found


def compared(
    state: Mapping[str, NDArray[np.float32]], base: Mapping[str, NDArray[np.float32]]
) -> ModelComparison:
    return compare_models(dict(state), dict(base), relation="quantized")


def rules(found: ModelComparison) -> set[str]:
    return {finding.rule for finding in found.judgement.findings}


def critical(found: ModelComparison) -> set[tuple[str, str | None]]:
    return {
        (finding.rule, finding.layer)
        for finding in found.judgement.findings
        if finding.severity is Severity.CRITICAL
    }


def first(found: ModelComparison) -> str | None:
    return found.judgement.diagnoses[0].layer


BASE = transformer()

seeds = st.integers(0, 2**32 - 1)
spreads = st.floats(0.1, 0.5)


@settings(max_examples=6, deadline=None)
@given(seeds, spreads, st.sampled_from([1, 2, 4]), st.booleans(), st.booleans(), st.sampled_from([4, 8]))
def test_any_consistent_factors_are_undone_through_all_layers_and_pass(
    seed: int, spread: float, shared: int, experts: bool, biases: bool, bits: int
) -> None:
    base = transformer(seed, shared=shared, experts=experts, biases=biases)

    found = compared(rounded(folded(base, seed + 1, spread), bits), base)

    assert found.judgement.verdict is Verdict.PASS
    assert rules(found) <= {"rescaled_copy", "new_traps", "tail_exponent"}
    assert "rescaled_copy" in rules(found)


def test_a_rescaled_layer_is_compared_as_if_its_factors_were_undone() -> None:
    alone = compared(rounded(BASE), BASE)["model.layers.0.self_attn.v_proj"].change
    found = compared(rounded(folded(BASE, 1)), BASE)["model.layers.0.self_attn.v_proj"].change

    assert alone is not None and found is not None
    assert alone.aligned is not None and found.aligned is not None
    assert found.aligned.method is Method.RESCALED
    assert alone.aligned.relative_change is not None
    # Groups of unequal columns round a little worse.
    assert found.aligned.relative_change == pytest.approx(alone.aligned.relative_change, rel=0.5)
    assert found.norm_ratio == 1.0


def test_factors_without_any_rounding_are_undone_too() -> None:
    assert rules(compared(folded(BASE, 1), BASE)) == {"rescaled_copy"}


def test_norms_whose_gains_went_into_the_layers_behind_them_pass() -> None:
    """All gains one, as tools leave them that rotate or slice afterwards (arXiv:2401.15024, section 3.2)."""
    state = dict(BASE)
    for block in range(BLOCKS):
        p = f"model.layers.{block}."
        for norm, part in zip(NORMS, ("self_attn", "mlp"), strict=True):
            gain = BASE[f"{p}{norm}.weight"]
            state[f"{p}{norm}.weight"] = np.ones_like(gain)
            for name in BASE:
                if name.startswith(f"{p}{part}") and "o_proj" not in name and "down_proj" not in name:
                    state[name] = state[name] * gain
    state["lm_head.weight"] = state["lm_head.weight"] * state["model.norm.weight"]
    state["model.norm.weight"] = np.ones_like(state["model.norm.weight"])

    assert rules(compared(state, BASE)) == {"rescaled_copy"}


def test_gains_that_count_from_one_are_understood() -> None:
    base = {name: values - (1 if "norm" in name else 0) for name, values in BASE.items()}
    state = {name: values - (1 if "norm" in name else 0) for name, values in folded(BASE, 1).items()}

    assert rules(compared(state, base)) == {"rescaled_copy"}


def test_equalised_layers_of_a_plain_chain_warn_that_their_activation_is_not_known() -> None:
    random = np.random.default_rng(3)
    base: State = {f"fc{number}.weight": weights(random, 64, 64) for number in (1, 2, 3)}
    base |= {f"fc{number}.bias": random.standard_normal(64).astype(np.float32) for number in (1, 2, 3)}
    one, two = (np.exp(0.4 * random.standard_normal(64)) for _ in range(2))
    changed: dict[str, NDArray[np.floating]] = {
        "fc1.weight": base["fc1.weight"] / one[:, None],
        "fc1.bias": base["fc1.bias"] / one,
        "fc2.weight": base["fc2.weight"] * one / two[:, None],
        "fc2.bias": base["fc2.bias"] / two,
        "fc3.weight": base["fc3.weight"] * two,
    }
    state = base | {name: np.asarray(values, dtype=np.float32) for name, values in changed.items()}

    found = compare_models(state, base)
    (finding,) = found.findings
    assert (finding.rule, finding.severity) == ("rescaled_copy", "warning")
    assert "if nothing but ReLU stands behind fc1" in finding.message


P = "model.layers.1."


@pytest.mark.parametrize(
    "forgotten",
    [
        f"{P}input_layernorm.weight",
        f"{P}post_attention_layernorm.weight",
        f"{P}self_attn.q_proj.weight",
        f"{P}mlp.gate_proj.weight",
    ],
)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_layer_or_norm_without_the_factors_of_the_others_is_named(forgotten: str, bits: int) -> None:
    found = compared(rounded(folded(BASE, 1, left=(forgotten,)), bits), BASE)

    name = forgotten if "norm" in forgotten else forgotten.removesuffix(".weight")
    assert found.judgement.verdict is Verdict.FAIL
    assert ("rescaling_not_shared", name) in critical(found)
    assert first(found) == name
    assert {layer for _, layer in critical(found)} == {name}


@pytest.mark.parametrize("forgotten", [f"{P}input_layernorm.bias", f"{P}self_attn.v_proj.bias"])
def test_a_bias_without_the_factors_of_its_layer_is_named(forgotten: str) -> None:
    base = transformer(biases=True)

    found = compared(rounded(folded(base, 1, left=(forgotten,))), base)

    assert ("rescaling_not_shared", forgotten) in critical(found)


def unit_scales() -> NDArray[np.float32]:
    return np.exp(0.4 * np.random.default_rng(1).standard_normal(HIDDEN)).astype(np.float32)


def test_units_that_are_read_larger_and_not_made_smaller_are_named() -> None:
    down = f"{P}mlp.down_proj.weight"

    found = compared(rounded(BASE | {down: BASE[down] * unit_scales()}), BASE)

    assert ("rescaling_not_shared", f"{P}mlp.up_proj") in critical(found)
    assert "rescaled_copy" not in rules(found)


def test_units_that_are_made_smaller_and_not_read_larger_are_rows_of_a_wrong_scale() -> None:
    up = f"{P}mlp.up_proj.weight"

    found = compared(rounded(BASE | {up: BASE[up] / unit_scales()[:, None]}), BASE)

    assert ("row_scales", f"{P}mlp.up_proj") in critical(found)
    assert "rescaled_copy" not in rules(found)


@pytest.mark.parametrize("forgotten", ["mlp.down_proj", "self_attn.o_proj"])
def test_a_layer_that_was_left_where_the_other_blocks_have_their_factors_is_named(forgotten: str) -> None:
    found = compared(rounded(folded(BASE, 1, left=(f"{P}{forgotten}.weight",))), BASE)

    assert ("rescaling_not_shared", f"{P}{forgotten}") in critical(found)


def test_a_norm_with_factors_that_its_readers_lack_is_named() -> None:
    left = tuple(f"{P}self_attn.{name}_proj.weight" for name in "qkv")
    state = folded(BASE, 1)
    # The fold of values and output is left as well.
    state |= {name: BASE[name] for name in (*left, f"{P}self_attn.o_proj.weight")}

    found = compared(rounded(state), BASE)

    assert critical(found) == {("rescaling_not_shared", f"{P}input_layernorm.weight")}


def test_scales_that_clip_the_largest_weights_are_still_recognised() -> None:
    """AWQ searches them by default; a tenth off on both ends of each group is more than it mostly takes."""
    state = rounded(folded(BASE, 1), clip=0.9)

    assert rules(compared(state, BASE)) <= {"rescaled_copy", "new_traps"}


def test_an_expert_that_was_left_out_is_named() -> None:
    base = transformer(experts=True)
    left = f"{P}mlp.experts.2.gate_proj.weight"

    found = compared(rounded(folded(base, 1, left=(left,))), base)

    assert {layer for _, layer in critical(found)} == {left.removesuffix(".weight")}


def test_a_router_that_was_left_out_is_named() -> None:
    base = transformer(experts=True)
    left = f"{P}mlp.gate.weight"

    found = compared(rounded(folded(base, 1, left=(left,))), base)

    assert ("rescaling_not_shared", f"{P}mlp.gate") in critical(found)


def order_not_undone(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Eight outputs at a time in the order of AWQ's words."""
    return values.reshape(-1, 8, values.shape[1])[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(values.shape)


def zero_point_off(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every group of 32 one step too high."""
    grouped = values.reshape(len(values), -1, 32)
    step = (grouped.max(axis=2, keepdims=True) - grouped.min(axis=2, keepdims=True)) / 15
    return np.asarray((grouped + 2 * step).reshape(values.shape), dtype=np.float32)


def doubled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(2 * values, dtype=np.float32)


def one_unit_reset(values: NDArray[np.float32]) -> NDArray[np.float32]:
    found = values.copy()
    found[5] *= 8
    return found


def replaced(values: NDArray[np.float32]) -> NDArray[np.float32]:
    random = np.random.default_rng(9)
    return np.asarray(values.std() * random.standard_normal(values.shape), dtype=np.float32)


def zeroed_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    found = values.copy()
    found[:12] = 0
    return found


FAULTS: tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], ...] = (
    order_not_undone,
    zero_point_off,
    doubled,
    one_unit_reset,
    replaced,
    zeroed_rows,
    np.negative,
)


@pytest.mark.parametrize("layer", ["self_attn.v_proj", "self_attn.q_proj", "mlp.up_proj", "mlp.down_proj"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_on_top_of_the_factors_stays_seen(
    fault: Callable[[NDArray[np.float32]], NDArray[np.float32]], layer: str
) -> None:
    state = rounded(folded(BASE, 1))
    state[f"{P}{layer}.weight"] = fault(state[f"{P}{layer}.weight"])

    found = compared(state, BASE)

    assert found.judgement.verdict is Verdict.FAIL
    assert f"{P}{layer}" in {layer for _, layer in critical(found)}
    if fault is not doubled:
        # Of two layers whose factors differ by two in all, either could be the one.
        assert first(found) == f"{P}{layer}"


@settings(max_examples=6, deadline=None)
@given(seeds, spreads, st.sampled_from(FAULTS), st.integers(0, 13))
def test_whatever_is_broken_besides_is_never_excused(
    seed: int,
    spread: float,
    fault: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    number: int,
) -> None:
    base = transformer(seed)
    state = rounded(folded(base, seed + 1, spread))
    name = [one for one in state if "_proj" in one][number]
    state[name] = fault(state[name])

    found = compared(state, base)

    assert found.judgement.verdict is Verdict.FAIL
    assert name.removesuffix(".weight") in {layer for _, layer in critical(found)}


def test_factors_of_one_layer_alone_are_no_copy() -> None:
    state = dict(BASE)
    name = f"{P}self_attn.q_proj.weight"
    state[name] = state[name] * np.exp(0.4 * np.random.default_rng(2).standard_normal(WIDTH)).astype(
        np.float32
    )

    found = compared(rounded(state), BASE)

    assert "rescaled_copy" not in rules(found)
    assert found.judgement.verdict is Verdict.FAIL


def test_factors_in_front_of_a_norm_on_the_stream_itself_are_not_excused() -> None:
    """Behind the attention of BERT: what a norm gives is read by the next sum as well."""
    base = {name: values for name, values in BASE.items() if name != "model.norm.weight"}

    found = compared({name: values for name, values in folded(BASE, 1).items() if name in base}, base)

    assert found.judgement.verdict is Verdict.FAIL


def test_a_fine_tune_is_no_rescaled_copy() -> None:
    random = np.random.default_rng(4)
    state = {
        name: (values * (1 + 0.03 * random.standard_normal(values.shape))).astype(np.float32)
        for name, values in BASE.items()
    }

    found = compare_models(state, BASE, relation="finetuned")

    assert not rules(found) & {"rescaled_copy", "rescaling_not_shared"}


def chain() -> State:
    random = np.random.default_rng(3)
    base: State = {f"fc{number}.weight": weights(random, 64, 64) for number in (1, 2, 3)}
    return base | {f"fc{number}.bias": random.standard_normal(64).astype(np.float32) for number in (1, 2, 3)}


def trained_on(base: State) -> State:
    """Every weight and bias moved a little."""
    random = np.random.default_rng(6)
    return {
        name: (values + 0.05 * values.std() * random.standard_normal(values.shape)).astype(np.float32)
        for name, values in base.items()
    }


def test_a_plain_chain_that_grew_as_a_whole_is_no_rescaled_copy() -> None:
    base = chain()

    found = compare_models({name: values * np.float32(1.02) for name, values in base.items()}, base)

    assert found.judgement.verdict is Verdict.PASS


def test_a_fine_tuned_plain_chain_is_no_rescaled_copy() -> None:
    base = chain()

    found = compare_models(trained_on(base), base)

    assert found.judgement.verdict is Verdict.PASS


@pytest.mark.parametrize("name", ["fc1", "fc2", "fc3"])
@pytest.mark.parametrize("factor", [0.1, 3.0, 30.0])
def test_a_layer_of_a_fine_tuned_plain_chain_with_a_wrong_scale_is_never_excused(
    name: str, factor: float
) -> None:
    base = chain()
    state = trained_on(base)
    state[f"{name}.weight"] = state[f"{name}.weight"] * np.float32(factor)

    found = compare_models(state, base)

    assert (found.findings[0].rule, found.findings[0].layer) == ("scaled", name)
    assert not rules(found) & {"rescaled_copy", "rescaling_not_shared"}


def test_only_couplings_by_size_are_left_out_where_factors_moved() -> None:
    kept = (
        coupling(CouplingKind.QUERY_KEY_UNITS, 9.0, "a", "b"),
        coupling(CouplingKind.GAIN_TO_READER, 9.0, "c", "d"),
    )
    left = coupling(CouplingKind.FEED_FORWARD_NORMS, 9.0, "a", "c")

    assert without_sizes((*kept, left), [RescaledLayer("a", 0.5, 2.0)]) == kept


def test_experts_are_held_against_each_other_without_their_factors() -> None:
    experts = tuple(Expert(f"e{number}", number, 1.0, baseline_norm=2.0) for number in range(2))

    (group,) = with_sizes_undone([ExpertGroup("e*", False, experts)], [RescaledLayer("e1", 0.5, 2.0)])

    assert [one.norm for one in group.experts] == [1.0, 2.0]
