"""The versions of a network that are judged: what was done to it, to which layer, and what its author would declare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from zlib import crc32

import ml_dtypes
import numpy as np

from layerwatch.metrics.merge import MergeMethod, MergeRecipe
from layerwatch.metrics.relation import Relation
from layerwatch_detection.architectures import ARCHITECTURES, HiddenUnits
from layerwatch_detection.chain import Chain, Network
from layerwatch_detection.defects import QUANTISATION, SINGLE, WHOLE, Defect
from layerwatch_detection.healthy import (
    Change,
    Random,
    average,
    cast,
    dare,
    everywhere,
    in_another_order,
    int4_in_groups,
    int8_per_row,
    int8_per_tensor,
    only_in,
    pruned,
    slerp,
    stored_as_fp8,
    stored_as_int8,
    task_arithmetic,
    ties,
    with_lora,
    with_noise,
)
from layerwatch_detection.states import State, layer_name, matrices


class Regime(StrEnum):
    """What stands between the baseline and the version, beside what was done to it.

    ``aligned``: a healthy fine-tune, nothing is declared; ``new_seed``: a training from another seed, nothing is
    declared; ``declared``: nothing, and the author declares the step (conversion, merge, re-export); ``real``: as
    ``aligned``, with networks that others trained, whose function nobody tests here.
    """

    ALIGNED = "aligned"
    NEW_SEED = "new_seed"
    DECLARED = "declared"
    REAL = "real"


@dataclass(frozen=True, slots=True)
class Merge:
    """What the author of a merge declares.

    Attributes:
        parents: the models that went into it.
        recipe: how; with a base, that is the baseline.
    """

    parents: tuple[State, ...]
    recipe: MergeRecipe


@dataclass(frozen=True, slots=True)
class Version:
    """One version to be judged.

    Attributes:
        key: unique within its network, the same on every run.
        regime: see there.
        meant_broken: a defect was put in; whether it breaks the function is another matter.
        family, strength: what was done.
        layers: names of the layers it was done to, one of which is to be named first; empty for the whole model.
        relation: what the author declares.
        make: the tensors; None in a version that was kept.
        merge: what it was merged from, where that is declared.
    """

    key: str
    regime: Regime
    meant_broken: bool
    family: str
    strength: str
    layers: tuple[str, ...]
    relation: Relation | None
    make: Callable[[], State] | None
    merge: Merge | None = None

    def state(self) -> State:
        """The tensors, made now."""
        assert self.make is not None
        return self.make()

    def without_state(self) -> Version:
        """What can be kept."""
        return replace(self, make=None, merge=None)

    @property
    def is_single(self) -> bool:
        """Whether one layer is to be found."""
        return self.meant_broken and bool(self.layers)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of everything: the whole benchmark, or a small one.

    Attributes:
        backgrounds: healthy fine-tunes that changes are put on.
        seeds: trainings from another seed.
        layers_per_defect: layers that each defect is tried on.
        layers_per_change: layers that each healthy change of one layer is tried on.
    """

    backgrounds: int
    seeds: int
    layers_per_defect: int
    layers_per_change: int

    @property
    def key(self) -> str:
        """For names of files."""
        return f"{self.backgrounds}{self.seeds}{self.layers_per_defect}{self.layers_per_change}"


FULL = Extent(backgrounds=4, seeds=4, layers_per_defect=3, layers_per_change=2)
QUICK = Extent(backgrounds=1, seeds=1, layers_per_defect=1, layers_per_change=1)

_SMALLEST = 256
"""Tensors of fewer elements are not broken: a digit network's last bias is no layer to find."""


def versions_of(network: Network, chain: Chain, extent: Extent = FULL) -> list[Version]:
    """Every version of a network, in a fixed order."""
    units = ARCHITECTURES[network.architecture].hidden_units
    listed = [
        *_updates(chain, extent),
        *_aligned(network, chain, units, extent),
        *_from_other_seeds(network, chain, units, extent),
        *_declared(network, chain, extent),
    ]
    return _numbered(listed)


def versions_of_real(network: Network, chain: Chain, extent: Extent = FULL) -> list[Version]:
    """Healthy changes and defects of single layers on top of a real network's fine-tune, or of itself."""
    under = chain.finetunes
    return _numbered(
        [
            *_healthy(network, Regime.REAL, under, (), extent),
            *_defects(network, Regime.REAL, under, SINGLE, extent),
        ]
    )


def _numbered(listed: Sequence[Version]) -> list[Version]:
    return [replace(one, key=f"{number:04d} {one.key}") for number, one in enumerate(listed)]


def _updates(chain: Chain, extent: Extent) -> Iterator[Version]:
    """What happens to a model in its life, without anything done to it afterwards."""

    def healthy(family: str, strength: str, make: Callable[[], State]) -> Version:
        return _version(Regime.ALIGNED, False, family, strength, (), make)

    baseline = chain.baseline
    yield healthy("same again", "", lambda: baseline)
    for name, state in chain.finetunes.items():
        yield healthy("fine-tune", name, _given(state))
    for back in range(1, len(chain.history)):
        yield healthy("older version", f"{back} back", _given(chain.history[-1 - back]))
    names = list(chain.finetunes)
    pairs = [(one, other) for number, one in enumerate(names) for other in names[:number]]
    for one, other in pairs[: 2 * extent.backgrounds]:
        two = (chain.finetunes[one], chain.finetunes[other])
        for family, make in _merges(baseline, two, f"{one}/{other}").items():
            yield healthy(family, f"{one} and {other}", make)


def _merges(base: State, two: tuple[State, State], seed: str) -> dict[str, Callable[[], State]]:
    return {
        "average": lambda: average(*two),
        "slerp": lambda: slerp(*two, 0.5),
        "ties": lambda: ties(base, two, 0.5, 1.0),
        "dare": lambda: dare(base, two, 0.7, _random(seed)),
        "task arithmetic": lambda: task_arithmetic(base, two, 0.6),
    }


def _light_changes(units: Sequence[HiddenUnits]) -> list[tuple[str, str, Change]]:
    changes: list[tuple[str, str, Change]] = [
        ("bf16", "all", cast(ml_dtypes.bfloat16)),
        ("fp16", "all", cast(np.float16)),
        ("int8", "all, per row, stored", stored_as_int8),
        ("int8", "all, per tensor", everywhere(int8_per_tensor)),
        ("int4 in groups of 32", "all", everywhere(int4_in_groups)),
        ("fp8", "all, stored", stored_as_fp8),
        ("lora merged", "all, rank 4, 2 %", everywhere(with_lora(4, 0.02))),
        ("lora merged", "all, rank 8, 5 %", everywhere(with_lora(8, 0.05))),
        ("pruned a little", "all, 10 %", everywhere(pruned(0.1))),
        ("pruned a little", "all, 20 %", everywhere(pruned(0.2))),
        ("pruned a little", "all, 30 %", everywhere(pruned(0.3))),
        ("little noise", "all, 1 %", everywhere(with_noise(0.01))),
        ("little noise", "all, 2 %", everywhere(with_noise(0.02))),
    ]
    return [*changes, ("units in another order", "all", in_another_order(units))] if units else changes


_ONE_LAYER = (
    ("int8 in one layer", "per row", int8_per_row),
    ("int4 in one layer", "groups of 32", int4_in_groups),
    ("lora in one layer", "rank 4, 5 %", with_lora(4, 0.05)),
    ("pruned a little in one layer", "30 %", pruned(0.3)),
    ("little noise in one layer", "2 %", with_noise(0.02)),
)


def _aligned(
    network: Network, chain: Chain, units: Sequence[HiddenUnits], extent: Extent
) -> Iterator[Version]:
    under = dict(list(chain.finetunes.items())[-extent.backgrounds :])
    yield from _healthy(network, Regime.ALIGNED, under, units, extent)
    yield from _defects(network, Regime.ALIGNED, under, SINGLE, extent)
    yield from _whole(Regime.ALIGNED, under)
    for name, state in chain.spoilt.items():
        yield _version(Regime.ALIGNED, True, *_family_of(name), (), _given(state))
    both = average(chain.baseline, next(iter(chain.other_seeds.values())))
    yield _version(Regime.ALIGNED, True, "average of two seeds", "", (), _given(both))


def _family_of(training: str) -> tuple[str, str]:
    """ "label noise 0.6" -> ("label noise", "0.6")."""
    family, _, strength = training.rpartition(" ")
    return (family, strength) if family else (training, "")


def _from_other_seeds(
    network: Network, chain: Chain, units: Sequence[HiddenUnits], extent: Extent
) -> Iterator[Version]:
    under = dict(list(chain.other_seeds.items())[: extent.seeds])
    for name, state in under.items():
        yield _version(Regime.NEW_SEED, False, "new seed", name, (), _given(state))
    yield from _healthy(network, Regime.NEW_SEED, under, units, extent)
    chosen = [defect for defect in SINGLE if defect.from_other_seeds]
    yield from _defects(network, Regime.NEW_SEED, under, chosen, extent)
    yield from _whole(Regime.NEW_SEED, under)


def _declared(network: Network, chain: Chain, extent: Extent) -> Iterator[Version]:
    """One declared step from the baseline."""
    baseline = chain.baseline
    two = tuple(chain.finetunes.values())[-2:]

    def healthy(family: str, strength: str, relation: Relation, make: Callable[[], State]) -> Version:
        return _version(Regime.DECLARED, False, family, strength, (), make, relation)

    conversions: list[tuple[str, str, Relation, Change]] = [
        ("re-export", "", Relation.REEXPORTED, lambda state, random: state),
        ("bf16", "all", Relation.CAST, cast(ml_dtypes.bfloat16)),
        ("fp16", "all", Relation.CAST, cast(np.float16)),
        ("int8", "all, per row, stored", Relation.QUANTIZED, stored_as_int8),
        ("int8", "all, per tensor", Relation.QUANTIZED, everywhere(int8_per_tensor)),
        ("int4 in groups of 32", "all", Relation.QUANTIZED, everywhere(int4_in_groups)),
        ("fp8", "all, stored", Relation.QUANTIZED, stored_as_fp8),
        ("pruned a little", "all, 10 %", Relation.PRUNED, everywhere(pruned(0.1))),
        ("pruned a little", "all, 20 %", Relation.PRUNED, everywhere(pruned(0.2))),
        ("pruned a little", "all, 30 %", Relation.PRUNED, everywhere(pruned(0.3))),
        ("lora merged", "all, rank 4, 2 %", Relation.FINETUNED, everywhere(with_lora(4, 0.02))),
        ("lora merged", "all, rank 8, 5 %", Relation.FINETUNED, everywhere(with_lora(8, 0.05))),
    ]
    for family, strength, relation, change in conversions:
        make = _made(change, baseline, f"declared/{family}/{strength}")
        yield healthy(family, strength, relation, make)
    for name, state in chain.finetunes.items():
        yield healthy("fine-tune", name, Relation.FINETUNED, _given(state))
    for name, state in chain.other_seeds.items():
        yield healthy("new seed", name, Relation.RETRAINED, _given(state))
    for family, make in _merges(baseline, (two[0], two[1]), "declared").items():
        yield replace(
            healthy(family, "", Relation.MERGED, make), merge=Merge((two[0], two[1]), _RECIPES[family])
        )
    yield from _declared_defects(network, chain, extent)


def _declared_defects(network: Network, chain: Chain, extent: Extent) -> Iterator[Version]:
    baseline = chain.baseline
    tensors = _breakable(baseline)
    for number, defect in enumerate(QUANTISATION):
        for tensor in _chosen(tensors, baseline, defect, 2 * extent.layers_per_defect, number + network.seed):
            yield _version(
                Regime.DECLARED,
                True,
                f"int4 {defect.family}",
                defect.strength,
                (layer_name(tensor),),
                _badly_quantised(baseline, tensor, defect),
                Relation.QUANTIZED,
            )
    older = chain.history[-2]
    for tensor in tensors[: 2 * extent.layers_per_defect]:
        where = (layer_name(tensor),)
        stale = _given({**baseline, tensor: older[tensor]})
        yield _version(
            Regime.DECLARED,
            True,
            "re-export of another version",
            "one layer",
            where,
            stale,
            Relation.REEXPORTED,
        )
        noisy = _made(only_in(tensor, with_noise(0.05)), baseline, tensor)
        yield _version(Regime.DECLARED, True, "cast that changes", "5 %", where, noisy, Relation.CAST)
    other = next(iter(chain.other_seeds.values()))
    yield from _bad_merges(chain, tensors[:: max(1, len(tensors) // 4)])
    unrelated = (
        ("not the parent's fine-tune", Relation.FINETUNED, _given(other)),
        ("not the parent's int8", Relation.QUANTIZED, lambda: stored_as_int8(other, _random(""))),
    )
    for family, relation, make in unrelated:
        yield _version(Regime.DECLARED, True, family, "", (), make, relation)


_RECIPES = {
    "average": MergeRecipe(MergeMethod.LINEAR, (0.5, 0.5)),
    "slerp": MergeRecipe(MergeMethod.SLERP, (0.5, 0.5)),
    "ties": MergeRecipe(MergeMethod.TIES, (1.0, 1.0), base="baseline"),
    "dare": MergeRecipe(MergeMethod.DARE_LINEAR, (0.5, 0.5), base="baseline"),
    "task arithmetic": MergeRecipe(MergeMethod.TASK_ARITHMETIC, (0.6, 0.6), base="baseline"),
}


def _bad_merges(chain: Chain, tensors: Sequence[str]) -> Iterator[Version]:
    one, other = list(chain.finetunes.values())[-2:]
    stranger = next(iter(chain.other_seeds.values()))

    def merged(
        family: str,
        layers: tuple[str, ...],
        make: Callable[[], State],
        parents: tuple[State, State],
        method: str,
    ) -> Version:
        version = _version(Regime.DECLARED, True, family, "", layers, make, Relation.MERGED)
        return replace(version, merge=Merge(parents, _RECIPES[method]))

    for tensor in tensors:
        wrong = {**average(one, other), tensor: 0.9 * one[tensor] + 0.1 * other[tensor]}
        where = (layer_name(tensor),)
        yield merged("merge with a wrong weight", where, _given(wrong), (one, other), "average")
    two_seeds = average(one, stranger)
    yield merged("merge of two seeds", (), _given(two_seeds), (one, stranger), "average")
    wrong_base = task_arithmetic(chain.history[0], (one, other), 0.6)
    yield merged("merge onto the wrong base", (), _given(wrong_base), (one, other), "task arithmetic")


def _badly_quantised(baseline: State, tensor: str, defect: Defect) -> Callable[[], State]:
    def make() -> State:
        random = _random(f"{defect.family}/{tensor}")
        rounded = everywhere(int4_in_groups)(baseline, random)
        # Codes are made from the original weights; what is wrong is how they are turned back.
        made_from = baseline if defect.family in {"zero point", "group size", "packing order"} else rounded
        return {**rounded, tensor: defect.change(made_from[tensor], random)}

    return make


def _healthy(
    network: Network, regime: Regime, under: Mapping[str, State], units: Sequence[HiddenUnits], extent: Extent
) -> Iterator[Version]:
    for position, (name, state) in enumerate(under.items()):
        for family, strength, change in _light_changes(units):
            make = _made(change, state, f"{family}/{strength}/{name}")
            yield _version(regime, False, family, f"{strength}, on {name}", (), make)
        tensors = _breakable(state)
        for number, (family, strength, tensor_change) in enumerate(_ONE_LAYER):
            begin = extent.layers_per_change * (position * len(_ONE_LAYER) + number) + network.seed
            for step in range(extent.layers_per_change):
                tensor = tensors[(begin + step) % len(tensors)]
                make = _made(only_in(tensor, tensor_change), state, f"{family}/{tensor}/{name}")
                yield _version(regime, False, family, f"{strength}, on {name}", (layer_name(tensor),), make)


def _defects(
    network: Network, regime: Regime, under: Mapping[str, State], defects: Sequence[Defect], extent: Extent
) -> Iterator[Version]:
    backgrounds = list(under.items())
    for number, defect in enumerate(defects):
        state = backgrounds[0][1]
        chosen = _chosen(_breakable(state), state, defect, extent.layers_per_defect, number + network.seed)
        for turn, tensor in enumerate(chosen):
            name, state = backgrounds[(number + turn) % len(backgrounds)]
            make = _made(only_in(tensor, defect.change), state, f"{defect.family}/{defect.strength}/{tensor}")
            where = (layer_name(tensor),)
            yield _version(regime, True, defect.family, f"{defect.strength}, on {name}", where, make)
    for number, (name, state) in enumerate(backgrounds[:2]):
        yield from _swapped(regime, name, state, number + network.seed)
        yield from _norms_reset(regime, name, state, number + network.seed)


def _swapped(regime: Regime, name: str, state: State, turn: int) -> Iterator[Version]:
    tensors = _breakable(state)
    pairs = [
        (one, other)
        for number, one in enumerate(tensors)
        for other in tensors[number + 1 :]
        if state[one].shape == state[other].shape
    ]
    for step in range(min(2, len(pairs))):
        one, other = pairs[(turn + step * 7) % len(pairs)]
        swapped = {**state, one: state[other], other: state[one]}
        layers = (layer_name(one), layer_name(other))
        yield _version(regime, True, "swapped layers", f"on {name}", layers, _given(swapped))


def _norms_reset(regime: Regime, name: str, state: State, turn: int) -> Iterator[Version]:
    """Batch norms and layer norms as they are before training."""
    initial = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    norms = [
        tensor.removesuffix(".weight")
        for tensor, values in state.items()
        if values.ndim == 1 and tensor.endswith(".weight")
    ]
    for step in range(min(2, len(norms))):
        norm = norms[(turn + step) % len(norms)]
        parts = {f"{norm}.{part}": value for part, value in initial.items() if f"{norm}.{part}" in state}
        reset = {
            **state,
            **{tensor: np.full_like(state[tensor], value) for tensor, value in parts.items()},
        }
        family = "batch norm reset" if f"{norm}.running_var" in state else "layer norm reset"
        layers = (*parts, *_folded_with(norm, state))
        yield _version(regime, True, family, f"on {name}", layers, _given(reset))


def _folded_with(norm: str, state: State) -> tuple[str, ...]:
    """The convolution before a batch norm: its folded weights change with the norm."""
    module, _, last = norm.rpartition(".")
    prefix = f"{module}." if module else ""
    for candidate in (
        f"{prefix}{last.replace('bn', 'conv')}",
        f"{prefix}{int(last) - 1 if last.isdigit() else 0}",
    ):
        if f"{candidate}.weight" in state and candidate != norm:
            return (candidate,)
    return ()


def _whole(regime: Regime, under: Mapping[str, State]) -> Iterator[Version]:
    backgrounds = list(under.items())
    for number, defect in enumerate(WHOLE):
        name, state = backgrounds[number % len(backgrounds)]
        make = _made(everywhere(defect.change), state, f"{defect.family}/{defect.strength}")
        yield _version(regime, True, defect.family, f"{defect.strength}, on {name}", (), make)


def _breakable(state: State) -> list[str]:
    return [name for name in matrices(state) if state[name].size >= _SMALLEST]


def _chosen(tensors: Sequence[str], state: State, defect: Defect, count: int, turn: int) -> list[str]:
    """So many of the tensors that a defect fits, other ones at every turn."""
    fitting = [tensor for tensor in tensors if defect.fits(state[tensor].shape)]
    stride = max(1, len(fitting) // max(1, count))
    return [fitting[(turn + step * stride) % len(fitting)] for step in range(min(count, len(fitting)))]


def _version(
    regime: Regime,
    meant_broken: bool,
    family: str,
    strength: str,
    layers: tuple[str, ...],
    make: Callable[[], State],
    relation: Relation | None = None,
) -> Version:
    where = f" in {', '.join(layers)}" if layers else ""
    key = f"{regime}: {family} {strength}{where}"
    return Version(key, regime, meant_broken, family, strength, layers, relation, make)


def _made(change: Change, state: State, seed: str) -> Callable[[], State]:
    return lambda: change(state, _random(seed))


def _given(state: State) -> Callable[[], State]:
    return lambda: state


def _random(seed: str) -> Random:
    return np.random.default_rng(crc32(seed.encode()))
