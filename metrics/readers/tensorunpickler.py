"""Torch checkpoints from pickles: which globals mean a tensor, and what they stand for.

Source of the argument lists: ``torch/_utils.py``, ``torch/_tensor.py`` and ``torch/serialization.py`` of
torch 2.13, and the older forms that torch still reads. Everything that is not in the table below becomes an
:class:`~layerwatch.metrics.readers.picklevalues.Opaque`; nothing is imported and nothing is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from layerwatch.metrics.errors import UnreadableReason
from layerwatch.metrics.readers.dtypes import (
    MAX_BYTES,
    MAX_DIMENSIONS,
    StoredType,
    torch_dtype,
    torch_storage_type,
)
from layerwatch.metrics.readers.picklemachine import PickleMachine, as_key
from layerwatch.metrics.readers.picklestream import MAX_OPCODES, PickleStream
from layerwatch.metrics.readers.picklevalues import (
    ExoticTensor,
    Global,
    Opaque,
    Storage,
    StoredTensor,
    describe,
)

Arguments = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint object.

    Attributes:
        root: containers, stored and exotic tensors, and inert stand-ins.
        storages: every storage that the pickle refers to, by key, whether a tensor uses it or not.
    """

    root: object
    storages: dict[str, Storage]


def unpickle(stream: PickleStream) -> Checkpoint:
    """Read a checkpoint object.

    Raises:
        UnreadableError: TRUNCATED, TOO_LARGE, or BAD_PICKLE.
    """
    builder = _Builder(stream)
    root = PickleMachine(stream, builder.construct, builder.persistent).run()
    return Checkpoint(root, builder.storages)


def unpickle_plain(stream: PickleStream) -> object:
    """The next pickle of a container that holds no tensors; a persistent id in it is an error."""
    builder = _Builder(stream)
    return PickleMachine(stream, builder.construct, builder.refuse_persistent).run()


class _Builder:
    def __init__(self, stream: PickleStream) -> None:
        self._stream = stream
        self._copied = 0
        self.storages: dict[str, Storage] = {}

    def fail(self, detail: str) -> NoReturn:
        raise self._stream.error(UnreadableReason.BAD_PICKLE, detail)

    def construct(self, made_by: object, arguments: Arguments) -> object:
        # (func, type, args[, state]): the tensor that func makes of args, as a subclass or with attributes.
        while isinstance(made_by, Global) and str(made_by) in _REBUILD_FROM_TYPE and len(arguments) >= 3:
            inner = arguments[2]
            if not isinstance(inner, tuple):
                self.fail("a tensor subclass is rebuilt from something that is no tuple")
            made_by, arguments = arguments[0], inner
        make = _BUILDERS.get((made_by.module, made_by.name)) if isinstance(made_by, Global) else None
        return Opaque(made_by, arguments) if make is None else make(self, arguments)

    def refuse_persistent(self, _: object) -> NoReturn:
        self.fail("a storage is referred to outside the checkpoint object")

    def persistent(self, identity: object) -> object:
        if not isinstance(identity, tuple) or not identity:
            self.fail(f"a persistent id is {describe(identity)}, not a tuple")
        kind = _text(identity[0])
        if kind == "module" and len(identity) >= 2:
            # Legacy containers wrap the classes of modules together with their source code.
            return identity[1]
        if kind != "storage" or len(identity) not in (5, 6):
            self.fail(
                f"a persistent id of kind {describe(identity[0])} with {len(identity)} parts is not known"
            )
        _, storage_class, key, _location, numel, *view = identity
        if not isinstance(storage_class, Global):
            self.fail(f"the class of a storage is {describe(storage_class)}")
        count = self.count(numel, "the size of a storage")
        view_offset, view_numel = 0, count
        if view and view[0] is not None:
            metadata = view[0]
            if not isinstance(metadata, tuple) or len(metadata) != 3:
                self.fail("the view of a storage is not described by three values")
            view_offset = self.count(metadata[1], "the offset of a storage view")
            view_numel = self.count(metadata[2], "the size of a storage view")
            if view_offset + view_numel > count:
                self.fail(
                    f"a storage view ends at element {view_offset + view_numel} of a storage of {count} elements"
                )
        name = _text(key) if isinstance(key, (str, bytes)) else None
        if name is None:
            name = str(self.count(key, "the key of a storage"))
        storage = Storage(name, torch_storage_type(storage_class.name), count, view_offset, view_numel)
        self.storages.setdefault(name, storage)
        return storage

    def count(self, value: object, what: str) -> int:
        if type(value) is not int or not 0 <= value <= MAX_BYTES:
            self.fail(f"{what} is {describe(value)}, not a count")
        return value

    def counts(self, value: object, what: str) -> tuple[int, ...]:
        if not isinstance(value, (tuple, list)):
            self.fail(f"{what} is {describe(value)}, not a list of counts")
        if len(value) > MAX_DIMENSIONS:
            self.fail(f"{what} has {len(value)} dimensions, at most {MAX_DIMENSIONS} exist")
        return tuple(self.count(item, what) for item in value)

    def ordered_dict(self, arguments: Arguments) -> object:
        entries: dict[object, object] = {}
        source = arguments[-1] if arguments else ()
        if isinstance(source, dict):
            return source
        if isinstance(source, (list, tuple)):
            self._copied += len(source)
            if self._copied > MAX_OPCODES:
                self.fail("the pickle copies its own lists over and over")
            for pair in source:
                if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                    self.fail("a dict is made of something that is no key and value")
                entries[as_key(pair[0])] = pair[1]
        return entries

    def sequence(self, arguments: Arguments) -> object:
        source = arguments[0] if arguments else None
        return source if isinstance(source, (list, tuple)) else []

    def size(self, arguments: Arguments) -> object:
        return self.counts(arguments[0], "a size") if arguments else ()

    def tensor(
        self, arguments: Arguments, dtype: StoredType | None = None, metadata: object = None
    ) -> object:
        if len(arguments) < 4:
            self.fail(f"a tensor is rebuilt from {len(arguments)} values, at least 4 are needed")
        storage, offset, shape, strides = arguments[:4]
        if isinstance(storage, Opaque):
            return self.storage_elsewhere(arguments, dtype)
        if not isinstance(storage, Storage):
            self.fail(f"the storage of a tensor is {describe(storage)}")
        type_ = dtype or storage.type
        refusal = None
        if type_.numpy is not None and type_.numpy.kind == "c":
            refusal = "complex weights have no spectrum in the sense measured here"
        elif isinstance(metadata, dict) and any(value is True for value in metadata.values()):
            refusal = "its values are stored negated or conjugated"
        return StoredTensor(
            storage,
            type_,
            self.count(offset, "the offset of a tensor"),
            self.counts(shape, "the shape of a tensor"),
            self.counts(strides, "the strides of a tensor"),
            refusal,
        )

    def storage_elsewhere(self, arguments: Arguments, dtype: StoredType | None) -> object:
        shape = self.counts(arguments[2], "the shape of a tensor")
        return ExoticTensor(
            dtype or _UNKNOWN, shape, "its values are pickled in a form of their own; save it with torch.save"
        )

    def tensor_v2(self, arguments: Arguments) -> object:
        return self.tensor(arguments, metadata=arguments[6] if len(arguments) > 6 else None)

    def tensor_v3(self, arguments: Arguments) -> object:
        if len(arguments) < 7 or not isinstance(arguments[6], Global):
            self.fail("a tensor with a type of its own is rebuilt without that type")
        metadata = arguments[7] if len(arguments) > 7 else None
        return self.tensor(arguments, torch_dtype(arguments[6].name), metadata)

    def wrapped_tensor(self, arguments: Arguments) -> object:
        inner = arguments[0] if arguments else None
        known = isinstance(inner, (StoredTensor, ExoticTensor))
        return inner if known else Opaque(Global("torch.nn.parameter", "Parameter"), arguments)

    def quantised(self, arguments: Arguments) -> object:
        made = self.tensor(arguments)
        type_, shape = (
            (made.type, made.shape) if isinstance(made, (StoredTensor, ExoticTensor)) else (_UNKNOWN, ())
        )
        return ExoticTensor(
            type_, shape, "torch's own quantised tensors are not read; save the float weights"
        )

    def sparse(self, arguments: Arguments) -> object:
        data = arguments[1] if len(arguments) > 1 else ()
        type_ = _UNKNOWN
        shape: tuple[int, ...] = ()
        for item in data if isinstance(data, tuple) else ():
            if isinstance(item, StoredTensor):
                # Indices come before values, so that the last tensor is the one with the element type.
                type_ = item.type
            elif isinstance(item, (tuple, list)):
                shape = self.counts(item, "the shape of a sparse tensor")
        return ExoticTensor(type_, shape, "sparse tensors are not read; save it with .to_dense()")

    def without_storage(self, arguments: Arguments) -> object:
        # (dtype, size, ...) for meta tensors, (class, dtype, size, ...) for wrapper subclasses.
        type_ = next(
            (torch_dtype(a.name) for a in arguments[:2] if isinstance(a, Global) and a.module == "torch"),
            _UNKNOWN,
        )
        shape = next((a for a in arguments[:3] if isinstance(a, (tuple, list))), ())
        return ExoticTensor(
            type_, self.counts(shape, "the shape of a tensor"), "the file holds no values for it"
        )

    def other(self, arguments: Arguments) -> object:
        return ExoticTensor(_UNKNOWN, (), "nested tensors and tensors of other devices are not read")


_UNKNOWN = StoredType("UNKNOWN", 0, None)

_REBUILD_FROM_TYPE = frozenset({"torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2"})

_BUILDERS: dict[tuple[str, str], Callable[[_Builder, Arguments], object]] = {
    ("collections", "OrderedDict"): _Builder.ordered_dict,
    ("collections", "defaultdict"): lambda builder, _: builder.ordered_dict(()),
    ("builtins", "dict"): _Builder.ordered_dict,
    ("builtins", "set"): _Builder.sequence,
    ("builtins", "frozenset"): _Builder.sequence,
    ("builtins", "list"): _Builder.sequence,
    ("__builtin__", "dict"): _Builder.ordered_dict,
    ("__builtin__", "set"): _Builder.sequence,
    ("__builtin__", "frozenset"): _Builder.sequence,
    ("__builtin__", "list"): _Builder.sequence,
    ("torch", "Size"): _Builder.size,
    ("torch._utils", "_rebuild_tensor"): _Builder.tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Builder.tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _Builder.tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _Builder.wrapped_tensor,
    ("torch._utils", "_rebuild_parameter_with_state"): _Builder.wrapped_tensor,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _Builder.wrapped_tensor,
    ("torch.nn.parameter", "Parameter"): _Builder.wrapped_tensor,
    ("torch.nn.parameter", "Buffer"): _Builder.wrapped_tensor,
    ("torch.autograd.variable", "Variable"): _Builder.wrapped_tensor,
    ("torch._utils", "_rebuild_qtensor"): _Builder.quantised,
    ("torch._utils", "_rebuild_sparse_tensor"): _Builder.sparse,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _Builder.sparse,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _Builder.without_storage,
    ("torch._utils", "_rebuild_wrapper_subclass"): _Builder.without_storage,
    ("torch._utils", "_rebuild_nested_tensor"): _Builder.other,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _Builder.other,
    ("torch._utils", "_rebuild_xla_tensor"): _Builder.other,
}
"""Every global that means something. Two of them (``_REBUILD_FROM_TYPE``) wrap another of this table."""


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""
