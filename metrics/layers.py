"""From tensor names and shapes to layers: what is examined, how, and what has no spectrum by nature."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from layerwatch.metrics.batchnorm import BatchNorm, find_batchnorms
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.tensors import TensorInfo, UnexaminedFile

FLOATING = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
BUFFERS = frozenset({"U16", "I16", "U32", "I32", "U64", "I64", "C32", "C64", "C128"})
"""Types of counters, indices and tables. Any other type may hold packed or quantised weights."""

_EMBEDDING = re.compile(
    r"(^|[._])(emb(ed(ding)?s?)?|embed_tokens|wte|wpe|tok_embeddings|word_embeddings)([._]|$)", re.IGNORECASE
)
_STATISTICS = ("running_mean", "running_var", "running_std")
_SCALE_SUFFIXES = ("_scale", "_scale_inv")
"""Beside a weight: the factors that its stored numbers are multiplied with, whatever the name says."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One weight tensor that is examined.

    Attributes:
        name: the tensor's name without a trailing ``.weight``, unless another tensor has that name.
        tensor: the tensor's full name in the file.
        kind: linear, embedding, conv, stack (3-D and not a convolution by name), or a 1-D kind.
        shape, dtype: as stored.
        batchnorm: the BatchNorm that follows and is folded in before comparisons, or None.
        scale: name of the tensor that undoes an integer or FP8 storage (``<tensor>_scale``
            or ``_scale_inv``), or None.
    """

    name: str
    tensor: str
    kind: LayerKind
    shape: tuple[int, ...]
    dtype: str
    batchnorm: BatchNorm | None = None
    scale: str | None = None

    @property
    def has_spectrum(self) -> bool:
        """True for tensors of two or more dimensions."""
        return len(self.shape) >= 2


@dataclass(frozen=True, slots=True)
class Skipped:
    """A tensor that has no spectrum by nature, with the reason in plain words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What will be done with each tensor of a model.

    Attributes:
        layers: tensors with a spectrum, in file order.
        vectors: 1-D floating tensors, in file order; they have no spectrum but are checked for hygiene.
        skipped: every tensor that gets no spectrum, the vectors among them, with its reason; in the plan of an
            open model also what its reader left out.
        unexamined: files that may hold weights of the model and cannot be read.
    """

    layers: tuple[Layer, ...]
    vectors: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    unexamined: tuple[UnexaminedFile, ...] = ()


def plan_layers(tensors: Sequence[TensorInfo]) -> LayerPlan:
    """Sort a model's tensors into layers, vectors and tensors without a spectrum.

    No tensor is dropped in silence: each is in ``layers`` or in ``skipped``.
    """
    names = {tensor.name for tensor in tensors}
    batchnorms = find_batchnorms(tensors)
    scales = {
        tensor.name: tensor.name + suffix
        for tensor in tensors
        for suffix in _SCALE_SUFFIXES
        if tensor.name + suffix in names and tensor.dtype not in {"F64", "F32"}
    }
    taken = set(scales.values())
    layers: list[Layer] = []
    vectors: list[Layer] = []
    skipped: list[Skipped] = []
    for tensor in tensors:
        reason = _reason_without_spectrum(tensor, taken)
        short = tensor.name.removesuffix(".weight")
        layer = Layer(
            # Two tensors must never end under one name.
            name=short if short and short not in names else tensor.name,
            tensor=tensor.name,
            kind=_kind(tensor),
            shape=tensor.shape,
            dtype=tensor.dtype,
            batchnorm=batchnorms.get(tensor.name),
            scale=scales.get(tensor.name),
        )
        if reason is None:
            layers.append(layer)
            continue
        skipped.append(Skipped(tensor.name, reason))
        if len(tensor.shape) == 1 and tensor.dtype in FLOATING and tensor.name not in taken:
            vectors.append(Layer(tensor.name, tensor.name, layer.kind, tensor.shape, tensor.dtype))
    return LayerPlan(tuple(layers), tuple(vectors), tuple(skipped))


def _reason_without_spectrum(tensor: TensorInfo, scales: set[str]) -> str | None:
    if tensor.name in scales:
        return "scale of a quantised layer: applied to it"
    if len(tensor.shape) == 0:
        return "single number"
    if 0 in tensor.shape:
        return "empty tensor"
    if tensor.dtype == "BOOL":
        return "mask"
    if tensor.dtype in BUFFERS:
        # Some formats pack their weights into wide integers; they are known by these names, and so are weights
        # stored as integers, which must not pass for tables of indices. Complex weights are not measured, and must end as undecided; complex tables (rotary frequencies) are no weights.
        if tensor.name.endswith(("qweight", "weight_packed")):
            return None
        if len(tensor.shape) >= 2 and (tensor.name == "weight" or tensor.name.endswith(".weight")):
            return None
        if tensor.dtype.startswith("C") and tensor.name.endswith("weight"):
            return None
        return f"integer buffer ({tensor.dtype})" if tensor.dtype[0] in "IU" else f"{tensor.dtype} buffer"
    if len(tensor.shape) == 1:
        return _VECTOR_REASONS[_vector_kind(tensor.name)]
    return None


def _kind(tensor: TensorInfo) -> LayerKind:
    if len(tensor.shape) <= 1:
        return _vector_kind(tensor.name)
    if len(tensor.shape) == 2:
        return LayerKind.EMBEDDING if _EMBEDDING.search(tensor.name) else LayerKind.LINEAR
    if len(tensor.shape) == 3 and not _looks_like_conv1d(tensor):
        return LayerKind.STACK
    return LayerKind.CONV


def _looks_like_conv1d(tensor: TensorInfo) -> bool:
    # Conv1d kernels are short along the last axis; stacked experts are not.
    return "conv" in tensor.name.lower() or tensor.shape[2] <= 31


def _vector_kind(name: str) -> LayerKind:
    last = name.rsplit(".", 1)[-1]
    if last in _STATISTICS:
        return LayerKind.STATISTIC
    if "bias" in last:
        return LayerKind.BIAS
    if last in {"weight", "gamma", "scale", "beta"}:
        return LayerKind.NORM
    return LayerKind.VECTOR


_VECTOR_REASONS = {
    LayerKind.STATISTIC: "running statistic of a batch norm: a vector has no spectrum",
    LayerKind.BIAS: "bias: a vector has no spectrum",
    LayerKind.NORM: "norm gain: a vector has no spectrum",
    LayerKind.VECTOR: "vector: has no spectrum",
}


def view_sides(kind: LayerKind, shape: tuple[int, ...]) -> tuple[int, int]:
    """Longer and shorter side of one matrix view of a layer (``spectra.view_stack``).

    That of a kernel position for a convolution, else that of the tensor unfolded along its first axis.
    """
    rows, columns = shape[0], prod(shape[1:])
    if kind is LayerKind.CONV and len(shape) > 2 and shape[1] > 1:
        columns = shape[1]
    return max(rows, columns), min(rows, columns)
