"""Which layer is out of step: couplings of a version against those of a baseline that may be of another seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.outofstep import (
    LEARNED_FROM,
    Suspicion,
    compared_couplings,
    suspects,
    watched,
)
from layerwatch.metrics.unitplaces import UnitPlaces
from layerwatch_testing.coupled import State, couplings_of, mlp, transformer
from layerwatch_testing.examinations import coupling, examination, findings_of, layer, settings

PLAIN, TRANSFORMER = "incoherent_interface", "broken_coupling"


def interface(value: float, producer: str, consumer: str, places: UnitPlaces | None = None) -> Coupling:
    return coupling(
        CouplingKind.INTERFACE_UNITS,
        value,
        producer,
        consumer,
        sides=(Side.OUTPUTS, Side.INPUTS),
        places=places,
    )


def judged(rule: str, now: tuple[Coupling, ...], before: tuple[Coupling, ...]) -> list[Finding]:
    found: Examination = examination(layer(), couplings=now, baseline_couplings=before)
    return sorted(findings_of(rule, found), key=lambda one: -one.strength)


def shuffled_rows(values: np.ndarray) -> np.ndarray:
    return values[np.random.default_rng(0).permutation(len(values))]


def shuffled_columns(values: np.ndarray) -> np.ndarray:
    return values[:, np.random.default_rng(0).permutation(values.shape[1])]


def random_again(values: np.ndarray) -> np.ndarray:
    random = values.std() * np.random.default_rng(0).standard_normal(values.shape)
    return np.asarray(random, dtype=np.float32)


Damage = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize("entries", [1, 2, 4, 10, 47])
def test_a_vocabulary_or_a_head_of_few_entries_is_compared_as_well(entries: int) -> None:
    def small(seed: int) -> State:
        state = transformer(seed)
        few = {name: state[name][:entries] for name in ("wte.weight", "lm_head.weight")}
        return state | few

    assert judged(TRANSFORMER, couplings_of(small(1)), couplings_of(small(0))) == []


@pytest.mark.parametrize("make", [mlp, transformer])
def test_another_seed_is_not_out_of_step(make: Callable[[int], State]) -> None:
    before = couplings_of(make(0))
    for seed in range(1, 6):
        now = couplings_of(make(seed))
        assert judged(PLAIN, now, before) == []
        assert judged(TRANSFORMER, now, before) == []


@pytest.mark.parametrize("damage", [shuffled_rows, shuffled_columns, random_again])
@pytest.mark.parametrize(
    "name",
    [
        "h.0.mlp.fc1",
        "h.0.mlp.fc2",
        "h.1.attn.q_proj",
        "h.1.attn.k_proj",
        "h.1.attn.v_proj",
        "h.1.attn.o_proj",
        "lm_head",
        "wte",
    ],
)
def test_a_broken_layer_of_a_transformer_of_another_seed_is_found(name: str, damage: Damage) -> None:
    before, healthy = couplings_of(transformer(0)), transformer(1)
    weight = f"{name}.weight"
    found = judged(TRANSFORMER, couplings_of(healthy | {weight: damage(healthy[weight])}), before)
    assert found
    assert found[0].severity is Severity.CRITICAL
    named = {found[0].layer, *str(found[0].evidence["or"]).split(", ")}
    assert name in named
    assert judged(PLAIN, couplings_of(healthy | {weight: damage(healthy[weight])}), before) == []


@pytest.mark.parametrize("damage", [shuffled_rows, random_again])
@pytest.mark.parametrize("name", ["fc1", "fc2"])
def test_a_broken_layer_of_a_plain_network_of_another_seed_is_found(name: str, damage: Damage) -> None:
    before, healthy = couplings_of(mlp(0)), mlp(1)
    weight = f"{name}.weight"
    found = judged(PLAIN, couplings_of(healthy | {weight: damage(healthy[weight])}), before)
    assert found[0].severity is Severity.CRITICAL
    assert name in {found[0].layer, *str(found[0].evidence["or"]).split(", ")}


def test_of_two_layers_the_one_in_trouble_everywhere_is_named() -> None:
    before = (interface(20.0, "a", "b"), interface(20.0, "b", "c"), interface(20.0, "c", "d"))
    now = (interface(0.0, "a", "b"), interface(0.0, "b", "c"), interface(20.0, "c", "d"))
    first, *others = suspects(compared_couplings(now, before))
    assert (first.layer, first.suspicion, first.partners) == ("b", Suspicion.BOTH, ())
    assert others == []


def test_where_one_coupling_is_gone_both_layers_are_named() -> None:
    before = (interface(20.0, "a", "b"), interface(20.0, "b", "c"), interface(20.0, "c", "d"))
    now = (before[0], interface(0.0, "b", "c"), before[2])
    first, *others = suspects(compared_couplings(now, before))
    assert {first.layer, *first.partners} == {"b", "c"}
    assert others == []


def test_a_turned_sign_is_told_from_a_lost_coupling() -> None:
    before = (coupling(CouplingKind.FEED_FORWARD_SIGNS, -12.0, "up", "down"),)
    turned = suspects(
        compared_couplings((coupling(CouplingKind.FEED_FORWARD_SIGNS, 12.0, "up", "down"),), before)
    )
    assert turned[0].suspicion is Suspicion.SIGN
    # Signs come and go from seed to seed: one that is merely gone says nothing.
    gone = suspects(
        compared_couplings((coupling(CouplingKind.FEED_FORWARD_SIGNS, 0.0, "up", "down"),), before)
    )
    assert gone == []


def test_couplings_that_were_weak_or_have_other_units_say_nothing() -> None:
    before = (interface(2.0, "a", "b"), interface(20.0, "b", "c"))
    now = (interface(-1.0, "a", "b"), coupling(CouplingKind.INTERFACE_UNITS, 0.0, "b", "c", units=32))
    assert judged(PLAIN, now, before) == []


@pytest.mark.parametrize("places", [UnitPlaces(12, 0, 3.0), UnitPlaces(0, 12, 3.0)])
def test_units_out_of_place_are_seen_where_the_coupling_as_a_whole_is_as_strong_as_it_was(
    places: UnitPlaces,
) -> None:
    before = interface(60.0, "a", "b", UnitPlaces(0, 0, 3.2))
    (finding,) = judged(PLAIN, (interface(55.0, "a", "b", places),), (before,))
    assert finding.severity is Severity.CRITICAL


def test_as_many_units_as_seem_out_of_place_in_healthy_trainings_say_nothing() -> None:
    before = interface(60.0, "a", "b", UnitPlaces(0, 0, 3.2))
    assert judged(PLAIN, (interface(55.0, "a", "b", UnitPlaces(2, 1, 3.0)),), (before,)) == []
    # What was stored before units were looked at one by one is compared by its score alone.
    assert (
        judged(PLAIN, (interface(55.0, "a", "b", UnitPlaces(30, 0, 3.0)),), (interface(60.0, "a", "b"),))
        == []
    )


def test_outputs_that_do_what_others_did_are_seen() -> None:
    generator = np.random.default_rng(0)
    profile = generator.standard_normal((10, 64))

    def end_to_end(rows: np.ndarray) -> Coupling:
        numbers = rows / np.linalg.norm(rows)
        return coupling(
            CouplingKind.END_TO_END, 1.0, "fc1", "fc2", units=10, profile=tuple(numbers.reshape(-1).tolist())
        )

    exchanged = profile.copy()
    exchanged[[1, 4, 7]] = profile[[4, 7, 1]]
    before = (end_to_end(profile),)
    noisy = profile + 0.3 * generator.standard_normal(profile.shape)
    assert judged(PLAIN, (end_to_end(noisy),), before) == []
    (finding,) = judged(PLAIN, (end_to_end(exchanged),), before)
    assert (finding.layer, finding.severity) == ("fc2", Severity.CRITICAL)


def test_a_model_that_is_out_of_step_as_a_whole_is_one_warning() -> None:
    before = tuple(interface(20.0, f"l{number}", f"l{number + 1}") for number in range(12))
    now = tuple(interface(0.5, f"l{number}", f"l{number + 1}") for number in range(12))
    (finding,) = judged(PLAIN, now, before)
    assert (finding.layer, finding.severity) == (None, Severity.WARNING)


def test_a_strong_coupling_watches_the_sides_that_take_part_in_it_and_a_weak_one_none() -> None:
    assert watched((interface(20.0, "a", "b"), interface(3.0, "b", "c"))) == {
        "a": {Suspicion.OUTPUTS},
        "b": {Suspicion.INPUTS},
    }


def test_signs_sizes_and_what_comes_and_goes_do_not_watch_an_order() -> None:
    signs = coupling(CouplingKind.FEED_FORWARD_SIGNS, -20.0, "up", "down")
    sizes = coupling(CouplingKind.INTERFACE_NORMS, 20.0, "up", "down")
    assert watched((signs, sizes)) == {"up": {Suspicion.SIGN}, "down": {Suspicion.SIGN}}
    gain = coupling(CouplingKind.GAIN_TO_READER, 20.0, "up", "norm", sides=(Side.INPUTS, Side.VECTOR))
    assert watched((gain,)) == {"norm": {Suspicion.VECTOR}}


@pytest.mark.parametrize(("value", "is_watched"), [(0.9, True), (-0.9, True), (0.6, False)])
def test_the_statistics_of_a_batch_norm_count_by_their_correlation(value: float, is_watched: bool) -> None:
    sides = (Side.OUTPUTS, Side.VECTOR)
    one = coupling(CouplingKind.BATCHNORM_STATISTICS, value, "conv", "mean", units=16, sides=sides)
    found = watched((one,)).get("conv", frozenset())
    assert found == ({Suspicion.OUTPUTS, Suspicion.SIGN} if is_watched else set())


def test_a_layer_that_takes_part_twice_turns_the_sign_back() -> None:
    fused = coupling(CouplingKind.QUERY_KEY_SIGNS, 20.0, "qkv", "qkv")
    assert watched((fused,)) == {}
    layers = ("query", "query", "key", "key", "positions", "positions")
    near = coupling(CouplingKind.NEARNESS, 20.0, *layers, sides=(Side.OUTPUTS, Side.INPUTS) * 3)
    both = {Suspicion.OUTPUTS, Suspicion.INPUTS}
    assert watched((near,)) == {
        "query": both | {Suspicion.SIGN},
        "key": both | {Suspicion.SIGN},
        "positions": both,
    }


@pytest.mark.parametrize(("inputs", "is_watched"), [(64, True), (9, False)])
def test_the_way_from_input_to_output_tells_signs_unless_it_begins_with_a_kernel(
    inputs: int, is_watched: bool
) -> None:
    profile = tuple(np.random.default_rng(0).standard_normal(10 * inputs).tolist())
    one = coupling(CouplingKind.END_TO_END, 1.0, "first", "last", units=10, profile=profile)
    assert watched((one,)).get("last", frozenset()) == ({Suspicion.SIGN} if is_watched else set())


def test_relations_of_inputs_watch_them_where_they_were_learned() -> None:
    related = np.random.default_rng(0).standard_normal((48, 6))
    numbers = np.asarray(np.corrcoef(related))[np.triu_indices(48, 1)]
    profile = tuple((numbers / np.linalg.norm(numbers)).tolist())

    def relations(learned: float) -> Coupling:
        return coupling(
            CouplingKind.INPUT_MEANING, 0.1, "embedding", units=48, slope=learned, profile=profile
        )

    assert watched((relations(LEARNED_FROM),)) == {"embedding": {Suspicion.OUTPUTS}}
    assert watched((relations(LEARNED_FROM - 1.0),)) == {}


@pytest.mark.parametrize(
    ("layer_name", "damage", "suspicion"),
    [("fc2", shuffled_rows, Suspicion.OUTPUTS), ("fc2", shuffled_columns, Suspicion.INPUTS)],
)
def test_what_is_watched_is_seen_when_it_is_damaged(
    layer_name: str, damage: Damage, suspicion: Suspicion
) -> None:
    state = mlp(0)
    couplings = couplings_of(state)
    assert suspicion in watched(couplings)[layer_name]
    name = f"{layer_name}.weight"
    broken = {**state, name: damage(state[name])}
    found = suspects(compared_couplings(couplings_of(broken), couplings))
    # Outputs of one and inputs of the next are the same units: the couplings may not say which of the two.
    assert layer_name in {name for one in found if one.evidence > 7.0 for name in (one.layer, *one.partners)}


def test_limits_can_be_set() -> None:
    before, now = (interface(7.0, "a", "b"),), (interface(0.0, "a", "b"),)
    found = examination(layer(), couplings=now, baseline_couplings=before)
    strict = settings(PLAIN, evidence=1.0, warning_evidence=0.5)
    assert [one.severity for one in findings_of(PLAIN, found, strict)] == [Severity.CRITICAL]
    loose = settings(PLAIN, evidence=11.9, warning_evidence=11.0)
    assert findings_of(PLAIN, found, loose) == []


def test_tokens_that_hardly_left_their_random_start_are_another_set_in_every_training() -> None:
    def embedded(seed: int, learned: float) -> tuple[Coupling, ...]:
        # What is learned is the same in every training up to a rotation of the channels; the start is not.
        meaning = np.random.default_rng(7).standard_normal((60, 6))
        random = np.random.default_rng(seed)
        table = learned * meaning @ random.standard_normal((6, 48)) + random.standard_normal((60, 48))
        state = {**transformer(seed), "wte.weight": table.astype(np.float32)}
        return tuple(one for one in couplings_of(state) if one.kind is CouplingKind.INPUT_MEANING)

    (start,), (other_start,) = embedded(1, 0.0), embedded(2, 0.0)
    assert start.slope is not None
    assert abs(start.slope) < 4.0
    assert compared_couplings([other_start], [start]) == []
    (trained,), (other,) = embedded(1, 2.0), embedded(2, 2.0)
    assert trained.slope is not None
    assert trained.slope > LEARNED_FROM
    (compared,) = compared_couplings([other], [trained])
    assert compared.lost < 0.0
