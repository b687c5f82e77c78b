"""Merges of small networks that were trained for the purpose: healthy ones pass, broken ones fail where they broke.

Every merge is checked to work, or not to, on held-out digits first: the verdict is about that. Fine-tunes see all ten
classes, each class mostly in one of them, as two tasks of one base do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from layerwatch.metrics import compare_models
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch.metrics.merge import MergeMethod, MergeRecipe
from layerwatch.metrics.results import ModelComparison

sklearn_datasets = pytest.importorskip("sklearn.datasets")

State = dict[str, NDArray[np.float32]]
ODD = "2"
"""The layer in which one-layer faults are made."""


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 96),
        nn.ReLU(),
        nn.Linear(96, 96),
        nn.ReLU(),
        nn.Linear(96, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def _normed_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 96, bias=False),
        nn.BatchNorm1d(96),
        nn.ReLU(),
        nn.Linear(96, 96, bias=False),
        nn.BatchNorm1d(96),
        nn.ReLU(),
        nn.Linear(96, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@dataclass(frozen=True)
class Digits:
    images: torch.Tensor
    labels: torch.Tensor
    build: Callable[[], nn.Sequential] = _network

    def accuracy(self, state: Mapping[str, NDArray[np.float32]]) -> float:
        network = self.build().eval()
        network.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
        with torch.no_grad():
            return float((network(self.images[1200:]).argmax(1) == self.labels[1200:]).float().mean())

    def train(
        self, seed: int, epochs: int, rate: float, start: State | None = None, favoured: range = range(10)
    ) -> State:
        torch.manual_seed(seed)
        network = self.build()
        if start is not None:
            network.load_state_dict({name: torch.from_numpy(values) for name, values in start.items()})
        optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
        generator = torch.Generator().manual_seed(seed)
        images, labels = self.images[:1200], self.labels[:1200]
        weights = torch.tensor([3.0 if label in favoured else 1.0 for label in labels.tolist()])
        for _ in range(epochs):
            for batch in torch.multinomial(weights, 1200, True, generator=generator).split(50):  # type: ignore[no-untyped-call]
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return {name: values.detach().numpy().copy() for name, values in network.state_dict().items()}


@pytest.fixture(scope="module")
def digits() -> Digits:
    bundle = sklearn_datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(bundle.target))
    images = torch.from_numpy((bundle.images[order] / 16).reshape(-1, 64).astype(np.float32))
    return Digits(images, torch.from_numpy(bundle.target[order]))


@dataclass(frozen=True)
class Family:
    """A base, two fine-tunes of it, and a network of another seed with a fine-tune."""

    base: State
    one: State
    other: State
    stranger: State


@pytest.fixture(scope="module")
def family(digits: Digits) -> Family:
    return _family(digits)


@pytest.fixture(scope="module")
def normed(digits: Digits) -> Digits:
    return replace(digits, build=_normed_network)


@pytest.fixture(scope="module")
def normed_family(normed: Digits) -> Family:
    return _family(normed)


def _family(digits: Digits) -> Family:
    base = digits.train(0, 15, 2e-3)
    return Family(
        base,
        digits.train(1, 8, 1e-3, base, range(5)),
        digits.train(2, 8, 1e-3, base, range(5, 10)),
        digits.train(3, 15, 2e-3),
    )


def mixed(states: list[State], weights: list[float], base: State | None = None) -> State:
    rest = 1.0 - sum(weights) if base is not None else 0.0
    out: State = {}
    for name, values in states[0].items():
        total = np.zeros(values.shape) if base is None else rest * base[name].astype(np.float64)
        for weight, state in zip(weights, states, strict=True):
            total = total + weight * state[name]
        out[name] = total.astype(np.float32)
    return out


def slerp(one: State, other: State, t: float) -> State:
    out: State = {}
    for name, values in one.items():
        a, b = values.astype(np.float64), other[name].astype(np.float64)
        cosine = float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
        angle = np.arccos(min(1.0, cosine))
        shares = (
            (1 - t, t)
            if cosine > 0.9995
            else (np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle))
        )
        out[name] = (shares[0] * a + shares[1] * b).astype(np.float32)
    return out


def ties(base: State, states: list[State], density: float = 0.5) -> State:
    """Trim, elect signs, mean of those that agree (arXiv:2306.01708)."""
    out: State = {}
    for name, values in base.items():
        trimmed = []
        for state in states:
            task = state[name] - values
            least = np.quantile(np.abs(task), 1 - density)
            trimmed.append(np.where(np.abs(task) >= least, task, 0))
        sign = np.sign(sum(trimmed))
        agreeing = [np.where(np.sign(task) == sign, task, 0) for task in trimmed]
        count = np.maximum(1, sum((task != 0).astype(int) for task in agreeing))
        out[name] = (values + sum(agreeing) / count).astype(np.float32)
    return out


def dare(base: State, states: list[State], weights: list[float], dropped: float = 0.5) -> State:
    """Drop at random and rescale (arXiv:2311.03099)."""
    random = np.random.default_rng(0)
    out: State = {}
    for name, values in base.items():
        total = values.astype(np.float64)
        for weight, state in zip(weights, states, strict=True):
            kept = random.random(values.shape) >= dropped
            total = total + weight * kept * (state[name] - values) / (1 - dropped)
        out[name] = total.astype(np.float32)
    return out


Merge = Callable[[Family], tuple[State, MergeRecipe]]

HEALTHY: dict[str, Merge] = {
    "average": lambda f: (mixed([f.one, f.other], [0.5, 0.5]), MergeRecipe(MergeMethod.LINEAR, (1, 1))),
    "unequal": lambda f: (mixed([f.one, f.other], [0.3, 0.7]), MergeRecipe(MergeMethod.LINEAR, (0.3, 0.7))),
    "slerp": lambda f: (slerp(f.one, f.other, 0.4), MergeRecipe(MergeMethod.SLERP, (0.6, 0.4))),
    "task arithmetic": lambda f: (
        mixed([f.one, f.other], [0.5, 0.4], f.base),
        MergeRecipe(MergeMethod.TASK_ARITHMETIC, (0.5, 0.4), "base"),
    ),
    "ties": lambda f: (ties(f.base, [f.one, f.other]), MergeRecipe(MergeMethod.TIES, (1, 1), "base")),
    "dare": lambda f: (
        dare(f.base, [f.one, f.other], [0.5, 0.5]),
        MergeRecipe(MergeMethod.DARE_LINEAR, (0.5, 0.5), "base"),
    ),
}


def judged(merged: State, family: Family, recipe: MergeRecipe | None, **other: State) -> ModelComparison:
    needs_base = recipe is not None and recipe.base is not None
    return compare_models(
        merged,
        family.base,
        relation="merged",
        parents={"one": family.one, "other": family.other} | other,
        merge_base=family.base if needs_base else None,
        recipe=recipe,
    )


def critical(found: ModelComparison) -> set[tuple[str, str | None]]:
    return {
        (finding.rule, finding.layer)
        for finding in found.judgement.findings
        if finding.severity is Severity.CRITICAL
    }


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_merge_passes_and_its_recipe_is_told(name: str, family: Family, digits: Digits) -> None:
    merged, recipe = HEALTHY[name](family)
    assert digits.accuracy(merged) > 0.93

    found = judged(merged, family, recipe)

    assert critical(found) == set()
    (told,) = [one for one in found.judgement.findings if one.rule == "merge_recipe"]
    assert told.severity is Severity.INFO
    if recipe.method is not None and recipe.method.is_exact:
        assert "verified in 4 of 4 layers" in told.message
        expected = recipe.coefficients(0.98)
        assert expected is not None
        assert told.evidence["coefficient_of_one"] == pytest.approx(expected[0], abs=0.02)
        assert told.evidence["coefficient_of_other"] == pytest.approx(expected[1], abs=0.02)


@pytest.mark.parametrize("name", HEALTHY)
def test_one_layer_that_was_merged_with_a_wrong_coefficient_is_named(name: str, family: Family) -> None:
    merged, recipe = HEALTHY[name](family)
    key = f"{ODD}.weight"
    # As if this layer's difference between the parents had been weighted twice over.
    merged = merged | {key: (merged[key] + 0.8 * (family.one[key] - family.other[key])).astype(np.float32)}

    found = judged(merged, family, recipe)

    assert {layer for rule, layer in critical(found) if rule.startswith("merge_")} == {ODD}


NORMED_ODD = "3"
"""A layer with a batch norm behind it."""


def with_mean_statistics(merged: State, family: Family) -> State:
    """As merging tools leave them: what a batch norm has seen is averaged, whatever was done to the weights."""
    means = mixed([family.one, family.other], [0.5, 0.5])
    return merged | {name: np.asarray(values) for name, values in means.items() if _is_counted(name)}


def _is_counted(name: str) -> bool:
    return name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_merge_of_batch_normed_networks_passes(
    name: str, normed_family: Family, normed: Digits
) -> None:
    merged, recipe = HEALTHY[name](normed_family)
    merged = with_mean_statistics(merged, normed_family)
    assert normed.accuracy(merged) > 0.93

    found = judged(merged, normed_family, recipe)

    assert critical(found) == set()
    (told,) = [one for one in found.judgement.findings if one.rule == "merge_recipe"]
    assert told.evidence["left_out"] == 0
    if recipe.method is not None and recipe.method.is_exact:
        assert "verified in 4 of 4 layers" in told.message


@pytest.mark.parametrize("name", HEALTHY)
def test_a_wrong_coefficient_in_front_of_a_batch_norm_is_named(name: str, normed_family: Family) -> None:
    merged, recipe = HEALTHY[name](normed_family)
    merged = with_mean_statistics(merged, normed_family)
    key = f"{NORMED_ODD}.weight"
    step = 0.8 * (normed_family.one[key] - normed_family.other[key])
    merged = merged | {key: (merged[key] + step).astype(np.float32)}

    found = judged(merged, normed_family, recipe)

    assert {layer for rule, layer in critical(found) if rule.startswith("merge_")} == {NORMED_ODD}


def test_declared_weights_that_were_not_used_fail(family: Family) -> None:
    merged = mixed([family.one, family.other], [0.5, 0.5])

    found = judged(merged, family, MergeRecipe(MergeMethod.LINEAR, (0.8, 0.2)))

    assert critical(found) == {("merge_recipe", None)}


def test_an_average_of_two_seeds_fails_with_and_without_its_parents(family: Family, digits: Digits) -> None:
    merged = mixed([family.one, family.stranger], [0.5, 0.5])
    assert digits.accuracy(merged) < 0.8

    found = compare_models(
        merged, family.one, relation="merged", parents={"one": family.one, "stranger": family.stranger}
    )
    alone = compare_models(merged, family.one, relation="merged")

    assert ("merge_norm_collapse", None) in critical(found)
    assert ("merge_norm_collapse", None) in critical(alone)
    assert compare_models(merged, family.one).judgement.verdict is not Verdict.PASS


def test_differences_from_a_base_of_another_seed_fail(family: Family) -> None:
    merged = mixed([family.one, family.other], [0.5, 0.6], family.stranger)

    found = compare_models(
        merged,
        family.one,
        relation="merged",
        parents={"one": family.one, "other": family.other},
        merge_base=family.stranger,
        recipe=MergeRecipe(MergeMethod.TASK_ARITHMETIC, (0.5, 0.6), "base"),
    )

    assert ("merge_wrong_base", None) in critical(found)


def test_a_base_that_is_not_the_declared_one_fails(family: Family, digits: Digits) -> None:
    later = digits.train(9, 8, 1e-3, family.base)
    merged = mixed([family.one, family.other], [0.8, 0.8], later)

    found = judged(merged, family, MergeRecipe(MergeMethod.TASK_ARITHMETIC, (0.8, 0.8), "base"))

    assert ("merge_recipe", None) in critical(found)


def adapted(base: State, seed: int = 0, share: float = 0.1) -> State:
    """The base with an adapter of rank 4 merged into every matrix."""
    random = np.random.default_rng(seed)
    out = dict(base)
    for name, values in base.items():
        if values.ndim == 2:
            change = random.standard_normal((values.shape[0], 4)) @ random.standard_normal(
                (4, values.shape[1])
            )
            change *= share * np.linalg.norm(values) / np.linalg.norm(change)
            out[name] = (values + change).astype(np.float32)
    return out


@pytest.mark.parametrize(("layers", "where"), [((ODD,), ODD), (("0", "2", "4", "6"), None)])
def test_an_adapter_that_was_applied_twice_fails_where_it_was(
    layers: tuple[str, ...], where: str | None, family: Family
) -> None:
    once = adapted(family.base)
    twice = dict(once)
    for layer in layers:
        key = f"{layer}.weight"
        twice[key] = (2.0 * once[key] - family.base[key]).astype(np.float32)

    def judge_adapter(state: State) -> ModelComparison:
        return compare_models(
            state, family.base, relation="adapter", parents={"adapter": once}, merge_base=family.base
        )

    assert critical(judge_adapter(once)) == set()
    assert ("merge_overcounted", where) in critical(judge_adapter(twice))


def test_two_finetunes_on_the_same_task_that_are_added_up_are_a_warning(
    family: Family, digits: Digits
) -> None:
    twin = digits.train(4, 8, 1e-3, family.base, range(5))
    merged = mixed([family.one, twin], [1.0, 1.0], family.base)

    found = compare_models(
        merged,
        family.base,
        relation="merged",
        parents={"one": family.one, "twin": twin},
        merge_base=family.base,
        recipe=MergeRecipe(MergeMethod.TASK_ARITHMETIC, (1.0, 1.0), "base"),
    )

    assert "merge_overcounted" in {
        one.rule for one in found.judgement.findings if one.severity is Severity.WARNING
    }
