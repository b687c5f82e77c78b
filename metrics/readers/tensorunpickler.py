"""Torch checkpoints from pickles: which globals mean a tensor, and what they stand for.

Source of the argument lists: ``torch/_utils.py``, ``torch/_tensor.py`` and ``torch/serialization.py`` of
torch 2.13, and the older forms that torch still reads. Everything that is not in the table below becomes an
:class:`~layerwatch.metrics.readers.picklevalues.Opaque`; nothing is imported and nothing is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn, TypeGuard

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dangerousglobals import GETATTR, ForeignCode, runs_code
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
    Quantiser,
    Storage,
    StoredTensor,
    describe,
)

Arguments = tuple[object, ...]

MAX_NESTED_BYTES = 16 * 2**20
"""Most bytes of pickles inside a pickle that are looked into; those of 40,000 storages."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint object.

    Attributes:
        root: containers, stored and exotic tensors, and inert stand-ins.
        storages: every storage that the pickle refers to, by key, whether a tensor uses it or not.
    """

    root: object
    storages: dict[str, Storage]


def unpickle(stream: PickleStream, code: ForeignCode, storages: str = "") -> Checkpoint:
    """Read a checkpoint object.

    Args:
        stream: its pickle.
        code: takes up what the pickle asks for that runs code, up to where it is refused.
        storages: what the container puts before the key of each storage (``data/``).

    Raises:
        UnreadableError: TRUNCATED, TOO_LARGE, or BAD_PICKLE.
    """
    builder = _Builder(stream, code, storages)
    root = PickleMachine(stream, builder.construct, builder.persistent, code.meet).run()
    return Checkpoint(root, builder.storages)


def unpickle_plain(stream: PickleStream, code: ForeignCode) -> object:
    """The next pickle of a container that holds no tensors; a persistent id in it is an error."""
    builder = _Builder(stream, code)
    return PickleMachine(stream, builder.construct, builder.refuse_persistent, code.meet).run()


class _Builder:
    def __init__(
        self, stream: PickleStream, code: ForeignCode, prefix: str = "", nested_bytes: int = MAX_NESTED_BYTES
    ) -> None:
        self._stream = stream
        self._code = code
        self._nested_bytes = nested_bytes
        self._prefix = prefix
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
        self._look_for_code(made_by, arguments)
        make = _BUILDERS.get((made_by.module, made_by.name)) if isinstance(made_by, Global) else None
        return Opaque(made_by, arguments) if make is None else make(self, arguments)

    def _look_for_code(self, made_by: object, arguments: Arguments) -> None:
        """Judge the calls that honest pickles make, too."""
        if isinstance(made_by, Global):
            called = str(made_by)
            if called in GETATTR and not _is_plain_getattr(arguments):
                self._code.add(called)
            elif called == _NESTED and not self._is_pickled_storage(arguments):
                self._code.add(_NESTED)
        # Few: a pickle may hand one huge tuple to many calls.
        for one in arguments[:_JUDGED_ARGUMENTS]:
            if isinstance(one, Global) and str(one) in GETATTR:
                self._code.add(str(one))

    def _is_pickled_storage(self, arguments: Arguments) -> bool:
        """Whether the bytes in the pickle are what torch makes of a storage: a small file of the legacy container."""
        content = arguments[0] if len(arguments) == 1 else None
        if isinstance(content, Opaque) and content.made_by == _ENCODE and content.arguments:
            # How bytes are pickled below protocol 3.
            text = content.arguments[0]
            content = text[:_NESTED_BYTES].encode("latin-1", "replace") if isinstance(text, str) else None
        if not isinstance(content, (bytes, bytearray)):
            return False
        stream = PickleStream(bytes(content[: min(_NESTED_BYTES, self._nested_bytes)]), self._stream.path)
        # Storages hold no storages: there is nothing to look into in there.
        inner = _Builder(stream, self._code, nested_bytes=0)
        try:
            made = {
                part: PickleMachine(stream, inner.construct, inner.persistent, self._code.meet).run()
                for part in _LEGACY_PICKLES
            }
        except UnreadableError:
            return False
        finally:
            self._nested_bytes -= stream.tell()
        return isinstance(made["object"], Storage)

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
        name = self._prefix + name
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

    def first(self, arguments: Arguments) -> object:
        return arguments[0] if arguments else None

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
        if not isinstance(made, StoredTensor):
            return made
        quantiser = self.quantiser(arguments[4] if len(arguments) > 4 else None, len(made.shape))
        if quantiser is None or made.type.name not in QUANTISED_TYPES:
            return ExoticTensor(
                made.type, made.shape, f"quantised by torch as {made.type.name}, which is not undone"
            )
        return replace(made, quantiser=quantiser)

    def quantiser(self, parameters: object, dimensions: int) -> Quantiser | None:
        """From (scheme, scale, zero point[, axis]); None where it is another."""
        if not isinstance(parameters, tuple) or len(parameters) not in (3, 4):
            return None
        scheme, scale, zero = parameters[:3]
        name = scheme.name if isinstance(scheme, Global) and scheme.module == "torch" else ""
        if name == "per_tensor_affine" and len(parameters) == 3 and _is_number(scale) and _is_number(zero):
            return Quantiser(scale, zero, None)
        if name not in ("per_channel_affine", "per_channel_affine_float_qparams") or len(parameters) != 4:
            return None
        axis = self.count(parameters[3], "the axis of a quantised tensor")
        vectors = isinstance(scale, StoredTensor) and isinstance(zero, StoredTensor)
        return Quantiser(scale, zero, axis) if vectors and axis < dimensions else None

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

    def wrapper(self, arguments: Arguments) -> object:
        made = self.without_storage(arguments[1:])
        return replace(
            made,
            refusal=f"a tensor of the class {describe(arguments[0] if arguments else None)}, whose parts are not put "
            "together; save it as safetensors in that library's way, or before it is quantised",
        )

    def without_storage(self, arguments: Arguments) -> ExoticTensor:
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


QUANTISED_TYPES = frozenset({"QINT8", "QUINT8", "QINT32"})
"""Of torch's quantised types those with one number per element of a storage."""

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
    ("torch._utils", "_rebuild_wrapper_subclass"): _Builder.wrapper,
    ("torch._utils", "_rebuild_nested_tensor"): _Builder.other,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _Builder.other,
    ("torch._utils", "_rebuild_xla_tensor"): _Builder.other,
    # TorchScript says the type of each list and dict beside it (torch/jit/_pickle.py).
    ("torch.jit._pickle", "restore_type_tag"): _Builder.first,
    ("torch.jit._pickle", "build_tensorlist"): _Builder.first,
}
"""Every global that means something. Two of them (``_REBUILD_FROM_TYPE``) wrap another of this table."""


_NESTED = "torch.storage._load_from_bytes"
"""How a storage is pickled without ``torch.save``: by a call of ``torch.load``."""

_LEGACY_PICKLES = ("magic number", "version", "system", "object", "keys")

_JUDGED_ARGUMENTS = 8

_ENCODE = Global("_codecs", "encode")

_NESTED_BYTES = 4096
"""The pickles in front of the numbers of such a storage take about 400 bytes."""


def _is_plain_getattr(arguments: Arguments) -> bool:
    """An attribute of a class or an object, as nested classes and bound methods are pickled."""
    if len(arguments) not in (2, 3) or not isinstance(arguments[1], str):
        return False
    of, name = arguments[0], arguments[1]
    module, within = (of.module, f"{of.name}.{name}") if isinstance(of, Global) else ("", name)
    return not runs_code(module, within)


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) is float or (type(value) is int and value.bit_length() <= 64)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""
