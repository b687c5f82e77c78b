"""Tensors that are in memory already: a torch module, a state dict, a dict of numpy arrays.

The same object saved with ``torch.save`` and read from its file gives the same tensors under the same names:
containers are searched by the rules for checkpoints (``checkpoint.py``), wrapper prefixes are taken off. torch is
not imported here; where nobody else has imported it, nothing can be a torch tensor.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

import numpy as np

from layerwatch.metrics.errors import MetricsError, UnreadableError, UnreadableReason
from layerwatch.metrics.readers.checkpoint import find_tensors
from layerwatch.metrics.readers.dtypes import (
    SAFETENSORS_TYPES,
    StoredType,
    loadable_type,
    torch_dtype,
)
from layerwatch.metrics.readers.names import without_wrappers
from layerwatch.metrics.readers.picklevalues import ExoticTensor
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

if TYPE_CHECKING:
    import torch

WHAT_TO_PASS = (
    "pass the path of a file or directory, a torch.nn.Module, a state dict (name -> torch.Tensor), or a dict of "
    "name -> numpy.ndarray"
)


class InputReason(StrEnum):
    """Why an object is not measured.

    ``not_a_model``: neither a path, a module nor a mapping; ``not_an_array``: a value that looks like weights and is
    neither a torch tensor nor a numpy array; ``not_numeric``: a numpy array of something else than plain numbers.
    """

    NOT_A_MODEL = "not_a_model"
    NOT_AN_ARRAY = "not_an_array"
    NOT_NUMERIC = "not_numeric"


class InputError(MetricsError):
    """An object was passed that is no model, or that holds weights in a form that is not taken.

    Attributes:
        reason: member of the closed list.
        name: where in the model, or None when it is the model itself.
        detail: one sentence: what was found and what to pass instead.
    """

    def __init__(self, reason: InputReason, detail: str, name: str | None = None) -> None:
        self.reason = reason
        self.name = name
        self.detail = detail
        where = "" if name is None else f"{name!r}: "
        super().__init__(f"{where}{reason.value}: {detail}")


class MemoryReader:
    """A model in memory, as a reader: names, shapes and types first, values one tensor at a time.

    Nothing is copied but what must be: tensors on a GPU are moved one at a time, and a tensor whose elements do not
    lie in row order is put in that order, which is how its file would have them.

    Args:
        model: a torch module or a mapping, nested or not.

    Raises:
        InputError: the object, or a value in it, is not taken.
        UnreadableError: NO_TENSORS, or TOO_DEEP and TOO_LARGE for absurd nesting.
    """

    def __init__(self, model: object) -> None:
        self.name = _name(model)
        tree = _Tree(model)
        try:
            found = find_tensors(tree.root, Path(self.name))
        except UnreadableError as error:
            if error.reason is not UnreadableReason.NO_TENSORS or tree.unexamined:
                raise
            raise UnreadableError(
                UnreadableReason.NO_TENSORS, self.name, "no tensor was found in it; " + WHAT_TO_PASS
            ) from error
        held = {name: tensor for name, tensor in found.tensors.items() if isinstance(tensor, _Held)}
        shown = without_wrappers(held)
        self._tensors = {shown[name]: tensor for name, tensor in held.items()}
        self._left_out = (*found.left_out, *tree.left_out)
        self._unexamined = tuple(tree.unexamined)

    @property
    def format(self) -> str:
        """``memory``."""
        return "memory"

    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, in the order of the module or mapping."""
        return tuple(
            TensorInfo(name, one.shape, one.type.name, math.prod(one.shape) * one.type.bits // 8)
            for name, one in self._tensors.items()
        )

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Training state beside the weights, and objects that are neither containers nor tensors."""
        return self._left_out

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Parameters that have no shape yet (lazy modules before their first use)."""
        return self._unexamined

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing: a model in memory declares none."""
        return {}

    def load(self, name: str) -> Array:
        """The values of one tensor, read-only, in row order; KeyError for a name that is not listed.

        Raises:
            UnreadableError: the tensor holds no plain values, or their type has no numpy counterpart.
        """
        held = self._tensors[name]
        if held.refusal:
            raise UnreadableError(UnreadableReason.UNSUPPORTED_TENSOR, self.name, held.refusal, name)
        dtype = loadable_type(held.type, Path(self.name), name)
        values = held.values
        if _is_torch_tensor(values):
            try:
                loaded = _from_torch(values, dtype)
            except (RuntimeError, TypeError, NotImplementedError) as error:
                # Subclasses (distributed, quantised by a library) refuse what plain tensors do, each in its own way.
                raise UnreadableError(
                    UnreadableReason.UNSUPPORTED_TENSOR,
                    self.name,
                    f"a {type(values).__name__} that cannot be turned into an array ({error}); pass a plain tensor",
                    name,
                ) from error
        else:
            loaded = np.asarray(values).astype(dtype, copy=False)
        # Of a single number this makes a vector of one.
        view = np.ascontiguousarray(loaded).reshape(loaded.shape).view()
        view.flags.writeable = False
        return view

    def release(self) -> None:
        """Nothing: the memory is the caller's."""

    def close(self) -> None:
        """Drop the references to the caller's tensors."""
        self._tensors = {}


@dataclass(frozen=True, eq=False, slots=True)
class _Held(ExoticTensor):
    """A tensor in memory, in the form in which checkpoints are searched; ``refusal`` is "" where it can be loaded."""

    values: Any


class _Tree:
    """The containers of a model, copied with a :class:`_Held` in place of each tensor.

    Containers and tensors that occur twice are the same object twice in the copy too, as in a pickle.
    """

    def __init__(self, model: object) -> None:
        self.left_out: list[tuple[str, str]] = []
        self.unexamined: list[UnexaminedFile] = []
        self._made: dict[int, object] = {}
        self._kept: list[object] = []
        self._waiting: list[tuple[Any, Any, str]] = []
        if not (_is_module(model) or isinstance(model, Mapping)):
            raise InputError(InputReason.NOT_A_MODEL, f"this is {_described(model)}; {WHAT_TO_PASS}")
        entries = _entries(model)
        # Beside nested weights a list of numbers is a record of the training; among weights it is meant as one.
        is_flat = not any(_is_module(value) or isinstance(value, Mapping) for value in entries.values())
        self.root = self._copy(entries, "")
        while self._waiting:
            source, target, place = self._waiting.pop()
            for key, value in _members(source):
                inside = f"{place}.{key}" if place else str(key)
                if target is self.root and is_flat and _begins_with_a_number(value):
                    _refuse(value, inside)
                copied = self._copy(value, inside)
                if isinstance(target, dict):
                    target[key] = copied
                else:
                    target.append(copied)

    def _copy(self, value: object, place: str) -> object:
        made = self._made.get(id(value))
        if made is None:
            made = self._made[id(value)] = self._new(value, place)
            # What is known by its id must outlive the search.
            self._kept.append(value)
        return made

    def _new(self, value: object, place: str) -> object:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, bytearray)):
            return value
        if _is_torch_tensor(value):
            return self._torch(value, place)
        if isinstance(value, (np.ndarray, np.generic)):
            return _numpy(value, place)
        if _is_module(value):
            return self._container(_entries(value), {}, place)
        if isinstance(value, Mapping):
            return self._container(value, {}, place)
        if isinstance(value, (list, tuple)):
            return self._container(value, [], place)
        if _looks_like_an_array(value):
            _refuse(value, place)
        self.left_out.append((place, f"{_described(value)}: holds no tensor that is read"))
        return None

    def _container(self, source: object, target: object, place: str) -> object:
        self._waiting.append((source, target, place))
        return target

    def _torch(self, tensor: torch.Tensor, place: str) -> object:
        if sys.modules["torch"].nn.parameter.is_lazy(tensor):
            detail = "a lazy parameter has no shape before the module's first use; run the module once"
            self.unexamined.append(UnexaminedFile(place, UnreadableReason.UNSUPPORTED_TENSOR, detail))
            return None
        stored = torch_dtype(str(tensor.dtype).removeprefix("torch."))
        return _Held(stored, tuple(tensor.shape), _refusal(tensor), tensor)


def _members(source: Any) -> Iterator[tuple[Any, object]]:
    yield from source.items() if isinstance(source, Mapping) else enumerate(source)


def _entries(model: Any) -> Mapping[Any, Any]:
    entries: Mapping[Any, Any] = model.state_dict() if _is_module(model) else model
    return entries


def _is_module(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _is_torch_tensor(value: object) -> TypeGuard[torch.Tensor]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _name(model: object) -> str:
    if _is_module(model):
        return type(model).__name__
    values = model.values() if isinstance(model, Mapping) else ()
    return "arrays" if any(isinstance(value, np.ndarray) for value in values) else "state dict"


def _refusal(tensor: torch.Tensor) -> str:
    """Why the values of a torch tensor cannot be loaded, or ""."""
    if tensor.is_nested:
        return "nested tensors are not read"
    if tensor.is_quantized:
        return "torch's own quantised tensors are not read; pass its .dequantize()"
    if str(tensor.layout) != "torch.strided":
        return "sparse tensors are not read; pass its .to_dense()"
    return "it holds no values (meta device); load the weights first" if tensor.is_meta else ""


def _from_torch(tensor: torch.Tensor, dtype: np.dtype[Any]) -> Array:
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    if dtype.isbuiltin != 2:
        return plain.numpy()
    # numpy knows these types by ml_dtypes, torch does not: the same bytes as integers lead from one to the other.
    torch = sys.modules["torch"]
    as_integers: Array = plain.view(torch.uint8 if dtype.itemsize == 1 else torch.int16).numpy()
    return as_integers.view(dtype)


_NUMPY_TYPES = {stored.numpy: stored for stored in SAFETENSORS_TYPES.values() if stored.numpy is not None}


def _numpy(values: Array | np.generic, place: str) -> _Held:
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(
            InputReason.NOT_NUMERIC, "a masked array has elements without a value; pass its .filled(0)", place
        )
    dtype = values.dtype.newbyteorder("<")
    if dtype.kind == "f" and dtype.itemsize > 8:
        # Long doubles have more digits than anything that is measured with.
        dtype = np.dtype("<f8")
    stored = _NUMPY_TYPES.get(dtype)
    if stored is None and dtype == np.complex128:
        stored = StoredType("C128", 128, dtype)
    if stored is None and dtype.type.__module__ == "ml_dtypes":
        stored = StoredType(dtype.name.upper(), 8 * dtype.itemsize, dtype)
    if stored is None:
        raise InputError(
            InputReason.NOT_NUMERIC,
            f"an array of {values.dtype}; pass an array of floats (ml_dtypes among them) or integers",
            place,
        )
    return _Held(stored, values.shape, "", values)


def _begins_with_a_number(value: object) -> bool:
    """Whether this is a list, nested or not, whose first element is a number."""
    for depth in range(64):
        if not isinstance(value, (list, tuple)):
            return depth > 0 and isinstance(value, (int, float))
        if not value:
            break
        value = value[0]
    return False


_ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__cuda_array_interface__", "__dlpack__")


def _looks_like_an_array(value: object) -> bool:
    if isinstance(value, (memoryview, array)):
        return True
    # Classes have these attributes as well, and are no values.
    return not isinstance(value, type) and any(hasattr(value, name) for name in _ARRAY_PROTOCOLS)


def _refuse(value: object, place: str) -> NoReturn:
    raise InputError(
        InputReason.NOT_AN_ARRAY,
        f"this is {_described(value)}, and weights are taken as torch tensors or numpy arrays only; pass "
        "numpy.asarray(...) of it",
        place,
    )


def _described(value: object) -> str:
    cls = type(value)
    name = cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}"
