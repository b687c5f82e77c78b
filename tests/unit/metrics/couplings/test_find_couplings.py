"""What the layers of a model share: invariant where the function is, gone where a layer is out of place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.coupling import Coupling, CouplingKind, coupling_of, coupling_to_json
from layerwatch.metrics.couplings.batchnorms import Moments, after_relu
from layerwatch.metrics.couplings.weights import MOST_UNITS, chosen_units
from layerwatch_testing.coupled import State, batchnormed, by_key, couplings_of, mlp, transformer


def kinds(couplings: tuple[Coupling, ...]) -> set[CouplingKind]:
    return {one.kind for one in couplings}


def alike(one: tuple[Coupling, ...], other: tuple[Coupling, ...]) -> None:
    assert [each.key for each in one] == [each.key for each in other]
    for first, second in zip(one, other, strict=True):
        assert second.value == pytest.approx(first.value, rel=1e-4, abs=1e-3), first.key
        assert np.allclose(first.profile, second.profile, atol=2e-3), first.key


@given(st.integers(0, 2**32 - 1))
def test_hidden_units_of_a_plain_network_may_stand_in_any_order(seed: int) -> None:
    state = mlp()
    order = np.random.default_rng(seed).permutation(96)
    moved = state | {
        "fc1.weight": state["fc1.weight"][order],
        "fc1.bias": state["fc1.bias"][order],
        "fc2.weight": state["fc2.weight"][:, order],
    }
    alike(couplings_of(state), couplings_of(moved))


@given(st.integers(0, 2**32 - 1))
def test_hidden_units_of_a_feed_forward_part_may_stand_in_any_order(seed: int) -> None:
    state = transformer()
    order = np.random.default_rng(seed).permutation(144)
    moved = state | {
        "h.1.mlp.fc1.weight": state["h.1.mlp.fc1.weight"][order],
        "h.1.mlp.fc1.bias": state["h.1.mlp.fc1.bias"][order],
        "h.1.mlp.fc2.weight": state["h.1.mlp.fc2.weight"][:, order],
    }
    alike(couplings_of(state), couplings_of(moved))


def test_channels_of_a_batch_normed_network_may_stand_in_any_order() -> None:
    state = batchnormed()
    order = np.random.default_rng(1).permutation(32)
    moved = state | {name: state[name][order] for name in state if name.startswith(("conv2.", "bn2."))}
    moved["conv3.weight"] = state["conv3.weight"][:, order]
    alike(couplings_of(state), couplings_of(moved))


def test_scaling_a_batch_normed_layer_with_its_statistics_changes_nothing() -> None:
    state = batchnormed()
    scaled = state | {
        "conv2.weight": 4 * state["conv2.weight"],
        "bn2.running_mean": 4 * state["bn2.running_mean"],
        "bn2.running_var": 16 * state["bn2.running_var"],
    }
    alike(couplings_of(state), couplings_of(scaled))


def test_storage_transposed_as_gpt2_does_gives_the_same_couplings() -> None:
    state = transformer()
    fused: State = {
        name: values for name, values in state.items() if ".attn." not in name and ".mlp." not in name
    }
    plain: State = dict(fused)
    for block in (0, 1):
        attention, feed_forward = f"h.{block}.attn", f"h.{block}.mlp"
        parts = [state[f"{attention}.{part}_proj.weight"] for part in "qkv"]
        together = np.concatenate(parts)
        for kept, turned in ((plain, False), (fused, True)):

            def stored(values: np.ndarray, turned: bool = turned) -> np.ndarray:
                return np.ascontiguousarray(values.T) if turned else values

            kept[f"{attention}.c_attn.weight"] = stored(together)
            kept[f"{attention}.c_proj.weight"] = stored(state[f"{attention}.o_proj.weight"])
            kept[f"{feed_forward}.c_fc.weight"] = stored(state[f"{feed_forward}.fc1.weight"])
            kept[f"{feed_forward}.c_proj.weight"] = stored(state[f"{feed_forward}.fc2.weight"])
    alike(couplings_of(plain), couplings_of(fused))


def permuted_rows(values: np.ndarray) -> np.ndarray:
    return values[np.random.default_rng(5).permutation(len(values))]


def permuted_columns(values: np.ndarray) -> np.ndarray:
    return values[:, np.random.default_rng(5).permutation(values.shape[1])]


@pytest.mark.parametrize(
    ("layer", "damage", "kind"),
    [
        ("h.0.mlp.fc1.weight", permuted_rows, CouplingKind.FEED_FORWARD_UNITS),
        ("h.0.mlp.fc1.weight", permuted_rows, CouplingKind.FEED_FORWARD_NORMS),
        ("h.0.mlp.fc2.weight", permuted_columns, CouplingKind.FEED_FORWARD_UNITS),
        ("h.1.attn.k_proj.weight", permuted_rows, CouplingKind.QUERY_KEY_UNITS),
        ("h.1.attn.v_proj.weight", permuted_rows, CouplingKind.VALUE_OUTPUT_UNITS),
        ("h.1.attn.q_proj.weight", permuted_columns, CouplingKind.STREAM_CHANNELS),
        ("lm_head.weight", permuted_rows, CouplingKind.VOCABULARY),
    ],
)
def test_a_permuted_layer_loses_its_couplings_and_leaves_the_others_alone(
    layer: str,
    damage: Callable[[np.ndarray], np.ndarray],
    kind: CouplingKind,
) -> None:
    state = transformer()
    before = by_key(couplings_of(state))
    after = by_key(couplings_of(state | {layer: damage(state[layer])}))
    name = layer.removesuffix(".weight")
    mine = [key for key in before if key[0] == kind and name in key]
    assert mine
    for key in mine:
        assert before[key].value > 6.0
        assert abs(after[key].value) < 4.5
    others = [
        key
        for key in before
        if key[0] == kind and name not in key and kind is not CouplingKind.STREAM_CHANNELS
    ]
    assert all(after[key].value == before[key].value for key in others)


def test_a_turned_sign_turns_the_couplings_that_have_one() -> None:
    state = transformer()
    before = by_key(couplings_of(state))
    after = by_key(couplings_of(state | {"h.0.mlp.fc1.weight": -state["h.0.mlp.fc1.weight"]}))
    signs = next(key for key in before if key[0] == CouplingKind.FEED_FORWARD_SIGNS and "h.0.mlp.fc1" in key)
    assert before[signs].value < -10.0
    assert after[signs].value == pytest.approx(-before[signs].value)


def test_batch_norm_statistics_follow_from_the_weights_in_front_of_them() -> None:
    found = [one for one in couplings_of(batchnormed()) if one.kind is CouplingKind.BATCHNORM_STATISTICS]
    direct = [one for one in found if not one.part]
    assert [one.layers[0] for one in direct] == ["conv2", "conv3"]
    for one in direct:
        assert one.value == pytest.approx(1.0, abs=1e-4)
        # The stored means are 0.95 of the predicted ones.
        assert one.slope == pytest.approx(1.0 / 0.95, rel=1e-3)


def test_a_bias_under_a_batch_norm_is_part_of_its_mean() -> None:
    state = batchnormed()
    bias = np.random.default_rng(2).standard_normal(32).astype(np.float32)
    with_bias = state | {"conv2.bias": bias, "bn2.running_mean": state["bn2.running_mean"] + bias}
    key = ("batchnorm_statistics", "", "conv2", "bn2.running_mean")
    assert by_key(couplings_of(with_bias))[key].value == pytest.approx(1.0, abs=1e-4)


def test_a_branch_that_was_removed_during_training_has_no_statistics_to_contradict() -> None:
    state = batchnormed()
    state["conv2.weight"] = np.zeros_like(state["conv2.weight"])
    state["bn2.running_mean"] = np.zeros_like(state["bn2.running_mean"])
    state["bn2.running_var"] = np.zeros_like(state["bn2.running_var"])
    assert not any("conv2" in one.layers for one in couplings_of(state) if "batchnorm" in one.kind)


@given(
    st.floats(-3, 3, allow_nan=False),
    st.floats(0.05, 3, allow_nan=False),
)
def test_moments_after_a_relu_are_those_of_a_gaussian_cut_off(mean: float, deviation: float) -> None:
    points = np.linspace(-9.0, 9.0, 20_001)
    density = np.exp(-0.5 * points**2) / np.sqrt(2 * np.pi) * (points[1] - points[0])
    values = np.maximum(mean + deviation * points, 0.0)
    expected, square = float(values @ density), float(values**2 @ density)
    found = after_relu(Moments(np.array([mean]), np.array([deviation**2])))
    # The error function is approximated to 1.5e-7, the integral to 1e-6.
    assert found.mean[0] == pytest.approx(expected, abs=1e-5)
    assert found.variance[0] == pytest.approx(square - expected**2, abs=1e-4)


def test_a_layer_that_is_not_finite_takes_part_in_nothing() -> None:
    state = transformer()
    broken = state["h.0.mlp.fc1.weight"].copy()
    broken[3, 4] = np.nan
    couplings = couplings_of(state | {"h.0.mlp.fc1.weight": broken})
    assert couplings
    assert not any("h.0.mlp.fc1" in one.layers for one in couplings)


def test_networks_of_unknown_names_and_tiny_ones_have_no_couplings() -> None:
    generator = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    assert couplings_of({"a": values(20, 20), "b": values(20, 20)}) == ()
    assert CouplingKind.INTERFACE_UNITS not in kinds(
        couplings_of({"fc1.weight": values(4, 3), "fc2.weight": values(2, 4)})
    )


def test_finding_twice_gives_the_same() -> None:
    assert couplings_of(transformer()) == couplings_of(transformer())


def test_wide_layers_are_looked_at_in_runs_of_whole_heads() -> None:
    assert len(chosen_units(100)) == 100
    chosen = chosen_units(4096)
    assert len(chosen) == MOST_UNITS
    assert len(set(chosen.tolist())) == MOST_UNITS
    assert chosen.max() < 4096
    assert all(run[0] % 128 == 0 for run in chosen.reshape(-1, 128))


def test_a_stream_too_wide_to_be_read_whole_has_no_effects_of_its_feed_forward_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 20 of the 48 channels of 144 hidden units; in earnest from 16,385 channels of 512 units on.
    monkeypatch.setattr("layerwatch.metrics.couplings.weights._MOST_ELEMENTS", 20 * 144)

    effects = [one for one in couplings_of(transformer()) if one.kind is CouplingKind.LOGIT_EFFECT]

    assert not [one for one in effects if one.layers[0].endswith("fc2")]


def test_couplings_survive_being_written_down() -> None:
    for one in couplings_of(transformer()):
        assert coupling_of(coupling_to_json(one)) == one


def test_what_was_stored_before_units_were_looked_at_one_by_one_is_read_all_the_same() -> None:
    stored = coupling_to_json(next(one for one in couplings_of(mlp()) if one.places is not None))
    del stored["places"]
    assert coupling_of(stored).places is None


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "friendship"},
        {"value": float("nan")},
        {"value": "1"},
        {"units": -1},
        {"units": 2.5},
        {"layers": []},
        {"layers": [1]},
        {"sides": ["outputs"]},
        {"profile": [float("inf")]},
        {"slope": True},
        {"places": [1, 2]},
        {"places": [-1, 0, 2.0]},
        {"places": [10**6, 0, 2.0]},
        {"places": [0, 0, float("nan")]},
        {"kind": "input_meaning", "units": 10**9, "profile": [0.5]},
        {"kind": "output_meaning", "units": 4, "profile": [0.5] * 5},
        {"kind": "end_to_end", "units": 0, "profile": []},
        {"kind": "end_to_end", "units": 2, "profile": [0.5] * 3},
    ],
)
def test_what_is_no_coupling_is_refused(change: dict[str, object]) -> None:
    good = coupling_to_json(couplings_of(mlp())[0])
    with pytest.raises((ValueError, TypeError, LookupError)):
        coupling_of(good | change)


def residual(seed: int = 0) -> State:
    """Stem, two stages and a head, the names as in torchvision; random."""
    generator = np.random.default_rng(seed)
    shapes = {
        "conv1": (16, 3, 3, 3),
        "layer1.0.conv1": (16, 16, 3, 3),
        "layer1.0.conv2": (16, 16, 3, 3),
        "layer2.0.conv1": (32, 16, 3, 3),
        "layer2.0.conv2": (32, 32, 3, 3),
        "layer2.0.downsample.0": (32, 16, 1, 1),
    }
    state: State = {}
    for name, shape in shapes.items():
        norm = name.replace("conv", "bn") if "downsample" not in name else "layer2.0.downsample.1"
        state[f"{name}.weight"] = generator.standard_normal(shape).astype(np.float32)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = np.abs(generator.standard_normal(shape[0])).astype(np.float32)
    state["fc.weight"] = generator.standard_normal((10, 32)).astype(np.float32)
    return state


def _cut_rows(values: np.ndarray) -> np.ndarray:
    return values[: max(1, len(values) // 2)]


def _cut_columns(values: np.ndarray) -> np.ndarray:
    return values[:, : max(1, values.shape[1] // 2)] if values.ndim > 1 else values


def _turned(values: np.ndarray) -> np.ndarray:
    return values.swapaxes(0, 1) if values.ndim > 1 else values


def _with_infinity(values: np.ndarray) -> np.ndarray:
    broken = values.copy()
    broken.reshape(-1)[0] = np.inf
    return broken


_CHANGES = (_cut_rows, _cut_columns, _turned, np.zeros_like, np.ravel, _with_infinity)
_NETWORKS = {"mlp": mlp(), "transformer": transformer(), "batch norms": batchnormed(), "residual": residual()}


@given(st.data())
def test_whatever_stands_under_known_names_costs_no_scan(data: st.DataObject) -> None:
    state = dict(_NETWORKS[data.draw(st.sampled_from(sorted(_NETWORKS)))])
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(sorted(state)))
        change = data.draw(st.none() | st.sampled_from(_CHANGES))
        if change is None:
            del state[name]
        else:
            state[name] = np.ascontiguousarray(change(state[name]))
    for one in couplings_of(state):
        assert np.isfinite(one.value)
        assert len(one.sides) == len(one.layers)
        assert coupling_of(coupling_to_json(one)) == one


def test_layers_of_a_stage_are_held_against_each_other_and_moments_carried_through_it() -> None:
    found = couplings_of(residual())
    stages = [(one.layers[0], one.part) for one in found if one.kind is CouplingKind.STAGE_CHANNELS]
    assert ("layer1.0.conv2", "outputs") in stages
    assert ("layer2.0.conv1", "inputs") in stages
    assert ("fc", "inputs") in stages
    estimated = {one.layers[0] for one in found if one.part == "estimated"}
    assert estimated == {"layer1.0.conv1", "layer2.0.conv1", "layer2.0.downsample.0"}


@pytest.mark.parametrize("network", sorted(_NETWORKS))
@given(st.data())
def test_the_order_of_the_tensors_in_the_file_does_not_matter(network: str, data: st.DataObject) -> None:
    state = _NETWORKS[network]
    names = data.draw(st.permutations(sorted(state)))

    assert couplings_of({name: state[name] for name in names}) == couplings_of(state)
