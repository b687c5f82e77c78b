"""What is done to healthy networks and leaves them healthy: roundings, pruning, adapters, noise, merges.

Rounding schemes are the common ones: symmetric integers with one scale per row, per tensor or per group of columns,
magnitude pruning, LoRA (arXiv:2106.09685), TIES (arXiv:2306.01708), DARE (arXiv:2311.03099), spherical interpolation
per tensor as in mergekit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import ml_dtypes
import numpy as np

from layerwatch.daemon.demo.compression import SCALE_SUFFIX, prune, quantise
from layerwatch_detection.architectures import HiddenUnits
from layerwatch_detection.states import State, Values, matrices

Random: TypeAlias = np.random.Generator
Change: TypeAlias = Callable[[State, Random], State]
TensorChange: TypeAlias = Callable[[Values, Random], Values]

_FP8_LARGEST = 448.0


def as_matrix(values: Values) -> Values:
    """Output rows by everything else."""
    return values.reshape(values.shape[0], -1)


def int8_per_row(values: Values, random: Random) -> Values:
    """Rounded to integers of eight bits with one scale per output row."""
    return rounded_per_row(values, bits=8)


def int8_per_tensor(values: Values, random: Random) -> Values:
    """The same with one scale for the whole tensor."""
    return rounded_per_tensor(values, bits=8)


def rounded_per_row(values: Values, bits: int) -> Values:
    """Symmetric integers with one scale per output row."""
    matrix = as_matrix(values)
    return _rounded(matrix, np.abs(matrix).max(axis=1, keepdims=True), bits).reshape(values.shape)


def rounded_per_tensor(values: Values, bits: int) -> Values:
    """Symmetric integers with one scale for the tensor."""
    return _rounded(values, np.abs(values).max(keepdims=True), bits)


def int4_in_groups(values: Values, random: Random, group: int = 32) -> Values:
    """Symmetric integers of four bits, one scale per group of consecutive columns of a row."""
    matrix = as_matrix(values)
    rounded = [
        _rounded(part, np.abs(part).max(axis=1, keepdims=True), 4)
        for begin in range(0, matrix.shape[1], group)
        for part in (matrix[:, begin : begin + group],)
    ]
    return np.concatenate(rounded, axis=1).reshape(values.shape)


def _rounded(values: Values, largest: Values, bits: int) -> Values:
    top = 2 ** (bits - 1) - 1
    scale = np.where(largest > 0.0, largest / top, 1.0)
    return np.asarray(np.clip(np.rint(values / scale), -top, top) * scale, dtype=np.float32)


def with_lora(rank: int, share: float) -> TensorChange:
    """A merged adapter: a random matrix of this rank is added, its norm this share of the tensor's."""

    def change(values: Values, random: Random) -> Values:
        matrix = as_matrix(values)
        update = random.standard_normal((matrix.shape[0], rank)) @ random.standard_normal(
            (rank, matrix.shape[1])
        )
        update *= share * np.linalg.norm(matrix) / np.linalg.norm(update)
        return np.asarray((matrix + update).reshape(values.shape), dtype=np.float32)

    return change


def with_noise(share: float) -> TensorChange:
    """White noise is added, its norm this share of the tensor's."""

    def change(values: Values, random: Random) -> Values:
        noise = random.standard_normal(values.shape)
        noise *= share * np.linalg.norm(values) / np.linalg.norm(noise)
        return np.asarray(values + noise, dtype=np.float32)

    return change


def pruned(share: float) -> TensorChange:
    """The smallest weights are set to zero."""
    return lambda values, random: prune({"": values}, share)[""]


def everywhere(change: TensorChange) -> Change:
    """The change in every tensor of two or more dimensions."""

    def changed(state: State, random: Random) -> State:
        touched = set(matrices(state))
        return {name: change(values, random) if name in touched else values for name, values in state.items()}

    return changed


def only_in(tensor: str, change: TensorChange) -> Change:
    """The change in one tensor."""
    return lambda state, random: {**state, tensor: change(state[tensor], random)}


def cast(dtype: type[np.generic]) -> Change:
    """Every tensor in another floating type."""
    return lambda state, random: {name: values.astype(dtype) for name, values in state.items()}


def stored_as_int8(state: State, random: Random) -> State:
    """Integers of eight bits and their scales, as they stand in a file."""
    return quantise(state)


def stored_as_fp8(state: State, random: Random) -> State:
    """FP8 (E4M3) with one scale per output row, as it stands in a file."""
    stored: dict[str, Values] = {}
    touched = set(matrices(state))
    for name, values in state.items():
        if name not in touched:
            stored[name] = values
            continue
        largest = np.abs(as_matrix(values)).max(axis=1)
        scale = np.where(largest > 0.0, largest / _FP8_LARGEST, 1.0).astype(np.float32)
        stored[name] = (values / scale.reshape((-1,) + (1,) * (values.ndim - 1))).astype(
            ml_dtypes.float8_e4m3fn
        )
        stored[name + SCALE_SUFFIX] = scale
    return stored


def in_another_order(units: Sequence[HiddenUnits]) -> Change:
    """Hidden units change places, the same way in every tensor that knows them: the function stays as it is."""

    def changed(state: State, random: Random) -> State:
        shuffled = dict(state)
        for one in units:
            order = random.permutation(state[one.rows[0]].shape[0])
            for name in one.rows:
                shuffled[name] = shuffled[name][order]
            for name in one.columns:
                shuffled[name] = shuffled[name][:, order]
        return shuffled

    return changed


def average(one: State, other: State) -> State:
    """Mean of two versions."""
    return {name: (values + other[name]) / 2 for name, values in one.items()}


def task_arithmetic(base: State, finetunes: Sequence[State], weight: float) -> State:
    """The base plus the weighted sum of what the fine-tunes added to it."""
    tasks = {name: np.stack([_task(base, one, name) for one in finetunes]) for name in base}
    return _plus(base, {name: weight * task.sum(axis=0) for name, task in tasks.items()})


def ties(base: State, finetunes: Sequence[State], density: float, weight: float) -> State:
    """Trimmed to the largest changes, one sign elected per element, the agreeing changes averaged."""
    merged: dict[str, Values] = {}
    for name in base:
        tasks = np.stack([_trimmed(_task(base, one, name), density) for one in finetunes])
        sign = np.sign(tasks.sum(axis=0))
        agreeing = (np.sign(tasks) == sign) & (tasks != 0.0)
        merged[name] = weight * (tasks * agreeing).sum(axis=0) / np.maximum(1, agreeing.sum(axis=0))
    return _plus(base, merged)


def dare(base: State, finetunes: Sequence[State], density: float, random: Random) -> State:
    """Changes dropped at random, the rest scaled up, then added at equal weights."""
    merged: dict[str, Values] = {}
    for name in base:
        kept = [
            _task(base, one, name) * (random.random(base[name].shape) < density) / density
            for one in finetunes
        ]
        merged[name] = np.stack(kept).mean(axis=0)
    return _plus(base, merged)


def slerp(one: State, other: State, share: float) -> State:
    """Along the great circle between two versions, tensor by tensor."""
    merged = {}
    for name, values in one.items():
        first, second = values.astype(np.float64), other[name].astype(np.float64)
        norms = np.linalg.norm(first) * np.linalg.norm(second)
        cosine = float(np.vdot(first, second) / norms) if norms > 0.0 else 1.0
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        if angle < 1e-4:
            mixed = (1 - share) * first + share * second
        else:
            mixed = (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)
        merged[name] = mixed.astype(np.float32)
    return merged


def _task(base: State, finetune: State, name: str) -> Values:
    return finetune[name].astype(np.float64) - base[name]


def _trimmed(task: Values, density: float) -> Values:
    count = max(1, round(density * task.size))
    floor = np.partition(np.abs(task), -count, axis=None)[-count]
    return np.where(np.abs(task) >= floor, task, 0.0)


def _plus(base: State, added: Mapping[str, Values]) -> State:
    return {name: (values + added[name]).astype(np.float32) for name, values in base.items()}
