"""Low-rank changes that stand beside the layers they belong to, added to them as the network adds them.

PEFT saves a model with its adapter as ``X.base_layer.weight`` (out, in), ``X.lora_A.<adapter>.weight`` (r, in) and
``X.lora_B.<adapter>.weight`` (out, r); it computes with ``W + alpha / r * B A`` (``peft/tuners/lora/layer.py``,
``get_delta_weight``; ``alpha / sqrt(r)`` with ``use_rslora``). alpha is in ``adapter_config.json``. Layers of GPT-2 are
stored transposed, and the change with them; that of an embedding is transposed, too; a convolution's factors have its
kernel in A.

An adapter in a file of its own has no base layer and stays as it is, and so do several adapters on one layer (which of
them is in use is not in the file), DoRA, and base layers that are not stored as plain numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.tensors import Array, Reader, TensorInfo, UnexaminedFile

_FACTOR = re.compile(
    r"^(?P<target>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.(?P<adapter>(?!weight$)[^.]+))?(?:\.weight)?$"
)
_BASE = ".base_layer.weight"
_FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
_NORMED = ".lora_magnitude_vector"
_OVER = "base_model.model."
_CONV1D = re.compile(r"(^|\.)(c_attn|c_proj|c_fc)$")


@dataclass(frozen=True, slots=True)
class Composition:
    """One layer and the change that is added to it.

    Attributes:
        base, a, b: the tensors.
        scaling: what ``B A`` is multiplied with.
        is_transposed: the change is added transposed.
    """

    base: TensorInfo
    a: TensorInfo
    b: TensorInfo
    scaling: float
    is_transposed: bool


class LoraReader:
    """The tensors of a model, layers with their low-rank changes as one; unchanged where there are none.

    Args:
        reader: the open model. Closed by :meth:`close`.
        path: its name in errors.
        adapter: the content of ``adapter_config.json``; without it a change counts as it stands, and this is told in
            :attr:`left_out`.
    """

    def __init__(self, reader: Reader, path: str, adapter: Mapping[str, Any] | None = None) -> None:
        self._reader = reader
        self._path = path
        stored = reader.tensors()
        found = _compositions({one.name: one for one in stored}, adapter)
        by_base = {one.base.name: one for one in found}
        added = {factor.name: one for one in found for factor in (one.a, one.b)}
        self._parts = [(name, _told(one, adapter)) for name, one in added.items()]
        shown = _names(stored, by_base, added)
        self._sources = {shown[one.name]: one.name for one in stored if one.name not in added}
        self._by_base = by_base
        self._tensors = tuple(
            TensorInfo(shown[one.name], one.shape, one.dtype, one.size_bytes)
            if shown[one.name] != one.name
            else one
            for one in stored
            if one.name not in added
        )

    @property
    def format(self) -> str:
        """That of the files."""
        return self._reader.format

    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors but the factors that are added to another one."""
        return self._tensors

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """The factors, then what the files leave out."""
        return (*self._parts, *self._reader.left_out)

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """As the files have it."""
        return self._reader.unexamined

    @property
    def metadata(self) -> Mapping[str, object]:
        """As the files have it."""
        return self._reader.metadata

    def load(self, name: str) -> Array:
        """One tensor; a layer with its change in float32, or float64 where it is stored so.

        Raises:
            UnreadableError: what the files raise; ``unsupported_tensor`` where a tensor is of another shape than was
                declared.
            KeyError: no such name.
        """
        source = self._sources[name]
        one = self._by_base.get(source)
        if one is None:
            return self._reader.load(source)
        a, b = (self._checked(factor).astype(np.float32) for factor in (one.a, one.b))
        base = self._checked(one.base)
        with np.errstate(all="ignore"):
            change = b.reshape(len(b), -1) @ a.reshape(len(a), -1)
            change *= np.float32(one.scaling)
            turned = change.T if one.is_transposed else change
            # float64 stays what it is, everything else becomes float32, as the factors are.
            values: Array = np.add(base, turned.reshape(base.shape), dtype=np.result_type(base, np.float32))
        values.flags.writeable = False
        return values

    def release(self) -> None:
        """Give back the memory of what was read so far."""
        self._reader.release()

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _checked(self, info: TensorInfo) -> Array:
        values = self._reader.load(info.name)
        if values.shape != info.shape:
            raise UnreadableError(
                UnreadableReason.UNSUPPORTED_TENSOR,
                self._path,
                f"{info.name} holds {values.shape} where {info.shape} was declared; write the file again",
                info.name,
            )
        return values


def _compositions(
    tensors: Mapping[str, TensorInfo], adapter: Mapping[str, Any] | None
) -> Sequence[Composition]:
    factors: dict[str, dict[str, list[TensorInfo]]] = {}
    for name, info in tensors.items():
        match = _FACTOR.match(name)
        if match is not None:
            side = (match["embedding"] or "") + match["side"]
            factors.setdefault(match["target"], {}).setdefault(side, []).append(info)
    normed = {name.partition(_NORMED)[0] for name in tensors if _NORMED in name}
    found = []
    for target, sides in factors.items():
        base = tensors.get(target + _BASE)
        if base is None or base.dtype not in _FLOATING or f"{target}.weight" in tensors or len(sides) != 2:
            continue
        if any(name in tensors for name in (f"{base.name}_scale", f"{base.name}_scale_inv")):
            continue
        if target in normed or any(
            len(listed) != 1 or listed[0].dtype not in _FLOATING or len(listed[0].shape) < 2
            for listed in sides.values()
        ):
            continue
        is_embedding = "embedding_A" in sides
        a, b = ((f"embedding_{side}" if is_embedding else side) for side in "AB")
        if a not in sides or b not in sides:
            continue
        turned = _turned(target, base, sides[a][0], sides[b][0], is_embedding, adapter)
        if turned is not None:
            scaling = _scaling(target, sides[a][0].shape[0], adapter)
            found.append(Composition(base, sides[a][0], sides[b][0], scaling, turned))
    return found


def _turned(
    target: str,
    base: TensorInfo,
    a: TensorInfo,
    b: TensorInfo,
    is_embedding: bool,
    adapter: Mapping[str, Any] | None,
) -> bool | None:
    """Whether the change is added transposed; None where it does not fit, or fits both ways and nobody says which."""
    rank = a.shape[0]
    if not rank or 0 in base.shape or prod(b.shape[1:]) != rank or len(base.shape) < 2:
        return None
    outputs, inputs = b.shape[0], prod(a.shape[1:])
    fits = (base.shape[0], prod(base.shape[1:])) == (outputs, inputs)
    fits_turned = base.shape == (inputs, outputs)
    if is_embedding:
        return True if fits_turned else None
    if fits and fits_turned and _CONV1D.search(target):
        declared = None if adapter is None else adapter.get("fan_in_fan_out")
        return declared if isinstance(declared, bool) else None
    return False if fits else True if fits_turned else None


def _scaling(target: str, rank: int, adapter: Mapping[str, Any] | None) -> float:
    if adapter is None:
        return 1.0
    alpha = adapter.get("lora_alpha", rank)
    patterns = adapter.get("alpha_pattern")
    if isinstance(patterns, Mapping):
        # Keys may be regular expressions; they are read as ends of names, which is what they are nearly always.
        alpha = next((v for key, v in patterns.items() if f".{target}".endswith(f".{key}")), alpha)
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not abs(alpha) < 1e9:
        return 1.0
    return float(alpha) / (sqrt(rank) if adapter.get("use_rslora") is True else rank)


def _told(one: Composition, adapter: Mapping[str, Any] | None) -> str:
    layer = one.base.name.removesuffix(_BASE)
    how = f"scaled by {one.scaling:g}" + (
        "" if adapter is not None else ", as no adapter_config.json beside the weights says otherwise"
    )
    return f"low-rank change of {layer}: added to it, {how}"


def _names(
    stored: Sequence[TensorInfo], by_base: Mapping[str, Composition], added: Mapping[str, Composition]
) -> Mapping[str, str]:
    """What each tensor that is left is called: without what PEFT wraps around a model, where that gives no name twice."""
    kept = [one.name for one in stored if one.name not in added]
    if not by_base:
        return {name: name for name in kept}
    targets = {name.removesuffix("weight") for name in by_base}

    def bare(name: str) -> str:
        module, _, last = name.rpartition(".")
        inside = f"{module}." in targets
        return f"{module.removesuffix('.base_layer')}.{last}" if inside else name

    names = {name: bare(name) for name in kept}
    if all(name.startswith(_OVER) for name in kept):
        names = {name: shown.removeprefix(_OVER) for name, shown in names.items()}
    if len(set(names.values())) < len(names):
        # A bias, or another module, has that name already.
        names = {name: f"{name.removesuffix(_BASE)}.weight" if name in by_base else name for name in kept}
    return names
