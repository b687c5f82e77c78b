"""ONNX: the initialisers of a graph and the constants of its nodes, in all branches and bodies, as a model's weights.

Names are those of the file, with three exceptions that make the layers of an exported model comparable with those of
the model it was made from; each only where no other tensor has the name then:

- a tensor in a branch whose name another branch uses too is called after the way to it (``If_0.then_branch.w``);
- a name that an exporter made up (``onnx::MatMul_27``) gives way to that of the module that uses the tensor, taken
  from the bias that is added behind (``encoder.fc1.bias`` gives ``encoder.fc1.weight``), or else from the node's
  own name (``/encoder/fc1/MatMul``);
- ``_quantized``, ``_Q4`` and ``_DQ_Q4`` are taken off what ONNX Runtime's quantisers named so.

Shapes are (out, in): a matrix that the graph multiplies with as (in, out) in every place (second input of ``MatMul``,
``Gemm`` without ``transB``) is handed out transposed.

Quantised tensors whose scale and zero point the file holds too are handed out as float32,
``(q - zero_point) * scale`` per tensor, per slice of an axis, or per block; their type is called after the stored one
(``QINT8``, ``QUINT4``; FP8 keeps its name). Scales and zero points are not listed beside them. The numbers of
``MatMulNBits``, several in a byte, are handed out as the matrix (out, in) that they stand for.

Nothing but numpy is needed: see ``onnxgraph.py`` for why the package ``onnx`` is not used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.manifest import WEIGHT_SUFFIXES
from layerwatch.metrics.quantised.bits import row_blocks, unpack
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.onnxgraph import OnnxModel, Scope, TensorProto, parse_model
from layerwatch.metrics.readers.onnxuses import Packed, Undoing, Uses
from layerwatch.metrics.readers.onnxvalues import TEXT, OnnxValues, Placed
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

_QUANTISABLE = ("I8", "U8", "I16", "U16", "I32", "I4", "U4", "I2", "U2")
_QUANTISED = {name: f"Q{'U' * (name[0] == 'U')}INT{name[1:]}" for name in _QUANTISABLE}
_INTEGER_TABLES = frozenset({"I16", "U16", "I32", "U32", "I64", "U64", "BOOL"})
_MADE_UP = re.compile(r"(onnx::\w+?_\d+|\d+)(_quantized|(_DQ)?_Q[248])?", re.ASCII)
_MODULE_PATH = re.compile(r"/(?P<path>.+)/(?P<operator>[A-Za-z]+)(_\d+)?", re.ASCII)
_QUANTISED_NAME = re.compile(r"(?P<name>.+?)(_quantized|(_DQ)?_Q[248])", re.ASCII | re.DOTALL)
_PACKED_BITS = (2, 4, 8)
_ROLES = {
    (operator, position): role
    for operators, position, role in (
        (
            ("MatMul", "MatMulInteger", "MatMulNBits", "Gemm", "Conv", "ConvInteger", "ConvTranspose"),
            1,
            "weight",
        ),
        (("Gemm", "Conv", "ConvTranspose"), 2, "bias"),
    )
    for operator in operators
}
_NAMED_WEIGHT = re.compile(r".+[._](weight|bias)", re.DOTALL)
EXTERNAL_SUFFIXES = (".onnx.data", ".onnx_data")
"""Names of external data files that tell what they are."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Entry:
    """A listed tensor: what is told of it, where it is, and what is done to hand it out."""

    info: TensorInfo
    placed: Placed
    undoings: tuple[Undoing, ...]
    turned: bool


class OnnxFile:
    """One ``.onnx`` file and the files its external data is in.

    Raises:
        UnreadableError: the file is missing, empty, truncated, breaks the format or a limit; its external data is
            missing (MISSING_SHARD), too short, or outside its folder; it holds no weights.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            model = parse_model(memoryview(self._file.map), path)
            self._values = OnnxValues(self._file)
            placed = [
                (scope, self._values.place(proto))
                for scope in model.scopes
                for proto in scope.tensors.values()
            ]
            self._placed = {id(one.proto): one for _, one in placed}
            self._left_out: list[tuple[str, str]] = []
            self._entries = self._listed(model, placed)
            self._unexamined = (*self._coefficients(model), *self._uncounted())
            self._check_overlaps()
        except BaseException:
            self._file.close()
            raise

    @property
    def format(self) -> str:
        """``onnx``."""
        return "onnx"

    @property
    def external_files(self) -> Sequence[Path]:
        """The files beside this one that hold its external data."""
        return self._values.files()

    def tensors(self) -> Sequence[TensorInfo]:
        """All weights, graph by graph, in the order of the file. ``size_bytes`` are those in the file."""
        return tuple(entry.info for entry in self._entries.values())

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Scales and zero points that are applied, text, and constants that are no weights."""
        return self._left_out

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """This file where nodes keep numbers in plain attributes, and external files that no fingerprint counts."""
        return self._unexamined

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing that readings of layers need."""
        return {}

    def load(self, name: str) -> Array:
        """The values of one tensor, read-only: as stored, or float32 where they are quantised.

        Raises:
            UnreadableError: the type cannot be held, the tensor is sparse, or its scale does not fit.
            KeyError: no such name.
        """
        entry = self._entries[name]
        try:
            values = self._values.load(entry.placed)
            if len(entry.undoings) > 1:
                raise self._error(
                    UnreadableReason.UNSUPPORTED_TENSOR,
                    f"the graph turns it back into numbers in {len(entry.undoings)} different ways",
                )
            if entry.undoings and (values.size or entry.undoings[0].packed is not None):
                values = self._undone(values, entry.undoings[0])
        except UnreadableError as error:
            raise UnreadableError(error.reason, error.path, error.detail, name) from error
        return values.swapaxes(-1, -2) if entry.turned else values

    def release(self) -> None:
        """Give back the memory of what was read so far; views already handed out stay valid."""
        self._values.release()

    def close(self) -> None:
        """Close the files; views already handed out stay valid."""
        self._values.close()

    def _listed(self, model: OnnxModel, placed: list[tuple[Scope, Placed]]) -> dict[str, _Entry]:
        uses = Uses(model)
        undoings = {id(one.proto): tuple(uses.undoing(scope, one.proto)) for scope, one in placed}
        # What undoes another tensor is none itself, even where that tensor is undone in two ways.
        applied = {
            id(part): one.proto.name
            for _, one in placed
            for undoing in undoings[id(one.proto)]
            for part in (undoing.scale, undoing.zero)
            if part is not None
        }
        listed = []
        passed_over = 0
        for scope, one in placed:
            if id(one.proto) in applied:
                self._left_out.append(
                    (one.proto.name, f"undoes the quantisation of {applied[id(one.proto)]}")
                )
            elif one.proto.code == TEXT:
                self._left_out.append((one.proto.name, "text: holds no numbers"))
            elif one.proto.constant and _is_no_weight(one):
                passed_over += 1
            else:
                listed.append((scope, one))
        if passed_over:
            what = "single numbers, shapes and indices in nodes: no weights"
            self._left_out.append((f"{passed_over} constants", what))
        if model.has_training:
            self._left_out.append(("training_info", "training state: not examined"))
        entries: dict[str, _Entry] = {}
        for (scope, one), name in zip(listed, self._names(listed, uses, undoings), strict=True):
            proto = one.proto
            turned = len(proto.dims) >= 2 and uses.is_input_by_output(scope, proto)
            shape = (*proto.dims[:-2], proto.dims[-1], proto.dims[-2]) if turned else proto.dims
            dtype = _QUANTISED.get(one.type.name, one.type.name) if undoings[id(proto)] else one.type.name
            packed = next((each.packed for each in undoings[id(proto)] if each.packed is not None), None)
            if packed is not None:
                shape, dtype = _whole_matrix(one, packed), f"QUINT{packed.bits}"[:40]
            info = TensorInfo(name, shape, dtype, one.size_bytes)
            entries[name] = _Entry(info, one, undoings[id(proto)], turned)
        if not entries and not model.coefficients:
            raise self._error(UnreadableReason.NO_TENSORS, "the graph holds no weights")
        return entries

    def _names(
        self, listed: list[tuple[Scope, Placed]], uses: Uses, undoings: dict[int, tuple[Undoing, ...]]
    ) -> list[str]:
        own = Counter(one.proto.name for _, one in listed)
        names = [
            f"{scope.label}.{one.proto.name}" if own[one.proto.name] > 1 and scope.label else one.proto.name
            for scope, one in listed
        ]
        if len(set(names)) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise self._error(
                UnreadableReason.BAD_HEADER, "two tensors of the file have this name", twice[:200]
            )
        better = []
        for (scope, one), name in zip(listed, names, strict=True):
            if _MADE_UP.fullmatch(name):
                better.append(_name_by_use(scope, one.proto, uses) or name)
            else:
                found = _QUANTISED_NAME.fullmatch(name) if undoings[id(one.proto)] else None
                better.append(name if found is None else found["name"])
        # A name that stays the same is counted twice, a new one must be wanted once.
        wanted = Counter(names) + Counter(better)
        return [new if new and wanted[new] == 1 else name for name, new in zip(names, better, strict=True)]

    def _coefficients(self, model: OnnxModel) -> tuple[UnexaminedFile, ...]:
        if not model.coefficients:
            return ()
        names = ", ".join(model.coefficients[:_SHOWN])
        detail = (
            f"{len(model.coefficients)} nodes keep their numbers in attributes, which are not read: {names}"
        )
        if not self._entries:
            raise self._error(UnreadableReason.UNSUPPORTED_TENSOR, detail)
        return (UnexaminedFile(_printable(self.path.name), UnreadableReason.UNSUPPORTED_TENSOR, detail),)

    def _uncounted(self) -> tuple[UnexaminedFile, ...]:
        """External files that no list of weight files holds: they could change without a new version."""
        return tuple(
            UnexaminedFile(
                _printable(file.relative_to(self.path.parent).as_posix()),
                UnreadableReason.UNSUPPORTED_TENSOR,
                "external data under a name that no fingerprint counts, so that a change of it would not be seen; "
                f"save the model with a name that ends in {' or '.join(EXTERNAL_SUFFIXES)}",
            )
            for file in self.external_files
            if not file.name.lower().endswith((*WEIGHT_SUFFIXES, *EXTERNAL_SUFFIXES))
        )

    def _check_overlaps(self) -> None:
        """Two tensors may share the same bytes of an external file; partly shared ones are damage."""
        places = sorted(
            (str(one.file), one.offset, one.offset + one.size_bytes, one.proto.name)
            for one in self._placed.values()
            if one.file is not None and one.size_bytes
        )
        for before, one in pairwise(places):
            if one[0] == before[0] and one[1] < before[2] and one[1:3] != before[1:3]:
                raise self._error(
                    UnreadableReason.BAD_HEADER,
                    f"its external data begins at byte {one[1]}, inside that of {before[3]!r}",
                    one[3],
                )

    def _undone(self, stored: Array, undoing: Undoing) -> Array:
        if undoing.packed is not None:
            return self._undone_bits(stored, undoing, undoing.packed)
        scale = self._operand(undoing.scale, stored, undoing)
        wide = np.float64 if stored.dtype.itemsize >= 4 else np.float32
        values: NDArray[np.floating] = stored.astype(wide)
        with np.errstate(all="ignore"):
            if undoing.zero is not None:
                values -= self._operand(undoing.zero, stored, undoing)
            values *= scale
        result = values.astype(np.float32, copy=False)
        result.flags.writeable = False
        return result

    def _undone_bits(self, stored: Array, undoing: Undoing, packed: Packed) -> Array:
        """``(q - zero) * scale`` of ``MatMulNBits``; without zero points those are the middle."""
        bits, block = packed.bits, undoing.block
        blocks = -(-packed.columns // block) if block > 0 else 0
        width = -(-block * bits // 8)
        scales = self._values.load(self._placed[id(undoing.scale)])
        if packed.odd or bits not in _PACKED_BITS or blocks < 1 or packed.rows < 1:
            raise self._error(
                UnreadableReason.UNSUPPORTED_TENSOR,
                packed.odd or f"{bits} bits in blocks of {block} of {packed.columns} inputs are not undone",
            )
        count = packed.rows * blocks
        if stored.dtype != np.uint8 or stored.size != count * width or scales.size != count:
            raise self._error(
                UnreadableReason.UNSUPPORTED_TENSOR,
                f"{packed.rows} x {packed.columns} numbers of {bits} bits in blocks of {block} take {count * width} "
                f"bytes and {count} scales; there are {stored.size} elements and {scales.size} scales",
            )
        factors = scales.astype(np.float32).reshape(packed.rows, blocks, 1)
        zeros = self._zeros_of_bits(undoing, packed, blocks)
        flat = stored.reshape(packed.rows, -1)
        result = np.empty((packed.rows, packed.columns), np.float32)
        with np.errstate(all="ignore"):
            for begin, end in row_blocks(packed.rows, blocks * block):
                by_block = flat[begin:end].reshape(-1, width)
                codes = unpack(by_block, bits, block).reshape(end - begin, blocks, block).astype(np.float32)
                codes -= zeros[begin:end]
                codes *= factors[begin:end]
                result[begin:end] = codes.reshape(end - begin, -1)[:, : packed.columns]
        result.flags.writeable = False
        return result

    def _zeros_of_bits(self, undoing: Undoing, packed: Packed, blocks: int) -> NDArray[np.float32]:
        """Shape (rows, blocks, 1): whole numbers packed row by row, or floating ones as they are."""
        if undoing.zero is None:
            return np.full((packed.rows, blocks, 1), 2.0 ** (packed.bits - 1), np.float32)
        stored = self._values.load(self._placed[id(undoing.zero)])
        width = -(-blocks * packed.bits // 8)
        if stored.dtype == np.uint8 and stored.size == packed.rows * width:
            zeros = unpack(stored.reshape(packed.rows, width), packed.bits, blocks).astype(np.float32)
        elif stored.dtype.kind not in "iub" and stored.size == packed.rows * blocks:
            zeros = stored.astype(np.float32)
        else:
            raise self._error(
                UnreadableReason.UNSUPPORTED_TENSOR,
                f"{undoing.zero.name} has {stored.size} elements, which are no zero points of {packed.rows} rows of "
                f"{blocks} blocks in {packed.bits} bits",
            )
        return zeros.reshape(packed.rows, blocks, 1)

    def _operand(self, proto: TensorProto, stored: Array, undoing: Undoing) -> NDArray[np.float32]:
        """A scale or zero point in a shape that numpy spreads over the stored tensor."""
        operand = self._values.load(self._placed[id(proto)]).astype(np.float32)
        if operand.size == 1:
            return operand.reshape(())
        axis = undoing.axis + stored.ndim if undoing.axis < 0 else undoing.axis
        if 0 <= axis < stored.ndim:
            length = stored.shape[axis]
            if undoing.block > 0:
                blocks = -(-length // undoing.block)
                if operand.shape == (*stored.shape[:axis], blocks, *stored.shape[axis + 1 :]):
                    # The last block may be shorter.
                    return operand.take(np.arange(length) // undoing.block, axis)
            elif operand.shape == (length,):
                return operand.reshape((length,) + (1,) * (stored.ndim - axis - 1))
        raise self._error(
            UnreadableReason.UNSUPPORTED_TENSOR,
            f"{proto.name} has shape {list(operand.shape)}, which fits neither the axis {undoing.axis} of shape "
            f"{list(stored.shape)} nor blocks of {undoing.block}; one number, one per slice or one per block is needed",
        )

    def _error(self, reason: UnreadableReason, detail: str, tensor: str | None = None) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, tensor)


def _whole_matrix(one: Placed, packed: Packed) -> tuple[int, ...]:
    """The shape of a packed matrix as the node declares it, where the bytes can hold it."""
    rows, columns, bits = packed.rows, packed.columns, packed.bits
    if min(rows, columns, bits) > 0 and rows * columns * bits <= one.size_bytes * 8:
        return rows, columns
    # Never a vector: those have no spectrum, and this one has to be told of.
    return one.proto.dims if len(one.proto.dims) > 1 else (1, *one.proto.dims)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_no_weight(one: Placed) -> bool:
    """Single numbers, and rows of whole numbers: shapes, axes, indices."""
    dims = one.proto.dims
    if one.proto.odd or (dims and _NAMED_WEIGHT.fullmatch(one.proto.name)):
        return False
    single = all(dimension == 1 for dimension in dims)
    return single or (len(dims) < 2 and one.type.name in _INTEGER_TABLES)


def _name_by_use(scope: Scope, proto: TensorProto, uses: Uses) -> str | None:
    readers = uses.of(scope, proto)
    if len(readers) != 1:
        return None
    node = readers[0].node
    role = _ROLES.get((node.operator, readers[0].position))
    if role is None:
        return None
    if role == "weight" and (bias := uses.bias_behind(readers[0])) is not None:
        return bias.removesuffix("bias") + role
    found = _MODULE_PATH.fullmatch(node.name)
    if found is None or found["operator"] != node.operator:
        return None
    return f"{found['path'].replace('/', '.')}.{role}"
