"""What the graph does with each tensor: which way round a matrix is multiplied, and how quantised numbers are undone.

Operators: https://onnx.ai/onnx/operators/ , and ``docs/ContribOperators.md`` of ONNX Runtime for ``com.microsoft``.
"""

from __future__ import annotations

from dataclasses import dataclass

from layerwatch.metrics.readers.onnxgraph import Node, OnnxModel, Scope, TensorProto

_PASSING_ON = frozenset({"Identity", "Cast", "DequantizeLinear", "QuantizeLinear", "Dropout"})
"""Operators whose output is their first input with the same shape."""

_MAX_STEPS = 8
_MAX_READERS = 64
_MAX_VALUES = 64
_MAX_LOOKS = 2_000_000


@dataclass(frozen=True, slots=True)
class Packed:
    """Numbers of ``MatMulNBits``: rows of ``block``-sized blocks, each in whole bytes, the first number lowest.

    Attributes:
        bits: per number.
        rows, columns: shape of the matrix, (out, in).
        odd: why it is not undone, or "".
    """

    bits: int
    rows: int
    columns: int
    odd: str = ""


@dataclass(frozen=True, slots=True)
class Undoing:
    """How quantised numbers become values: ``(q - zero) * scale``.

    Attributes:
        scale: the factors.
        zero: the zero points, or None for 0.
        axis: which axis of the tensor a 1-D or blocked scale runs along; may be negative.
        block: elements of that axis that share one scale, 0 for scales per tensor or per slice of the axis.
        packed: how several numbers stand in one stored byte, or None.
    """

    scale: TensorProto
    zero: TensorProto | None
    axis: int
    block: int
    packed: Packed | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """One node that reads a tensor, directly or behind nodes that pass it on, and the graph it is in."""

    scope: Scope
    node: Node
    position: int


class Uses:
    """The uses of all tensors of a model."""

    def __init__(self, model: OnnxModel) -> None:
        # Keyed by the graph that holds the tensor; values that nodes make belong to the graph of the node.
        self._readers: dict[tuple[int, str], list[tuple[Scope, Node, int]]] = {}
        self._makers: dict[tuple[int, str], Node] = {}
        self._looks = 0
        for scope in model.scopes:
            for node in scope.nodes:
                for name in node.outputs:
                    self._makers.setdefault((id(scope), name), node)
        for scope in model.scopes:
            for node in scope.nodes:
                for position, name in enumerate(node.inputs):
                    if name:
                        key = (id(self._holder(scope, name)), name)
                        self._readers.setdefault(key, []).append((scope, node, position))

    def of(self, scope: Scope, tensor: TensorProto) -> list[Use]:
        """Who reads a tensor in the end."""
        return [Use(*found) for found in self._final(scope, tensor.name)]

    def bias_behind(self, use: Use) -> str | None:
        """Name of the tensor ``*.bias`` that the graph adds to what the node of a use computes, or None."""
        for output in use.node.outputs[:1]:
            for scope, reader, position in self._final(use.scope, output):
                if reader.operator == "Add" and len(reader.inputs) == 2:
                    found = scope.find(reader.inputs[1 - position])
                    if found is not None and found[1].name.endswith(".bias"):
                        return found[1].name
        return None

    def is_input_by_output(self, scope: Scope, tensor: TensorProto) -> bool:
        """True where every use multiplies with the tensor as (in, out): its transpose is the layer's matrix."""
        uses = self._final(scope, tensor.name)
        return bool(uses) and all(_takes_in_by_out(node, position) for _, node, position in uses)

    def undoing(self, scope: Scope, tensor: TensorProto) -> list[Undoing]:
        """The ways in which the graph turns a quantised tensor back into values, each once."""
        found: list[Undoing] = []
        for where, node, position in self._readers.get((id(scope), tensor.name), ())[:_MAX_READERS]:
            undoing = self._undoing(where, node, position)
            if undoing is not None and undoing not in found:
                found.append(undoing)
        return found

    def _holder(self, scope: Scope, name: str) -> Scope:
        """The graph that a name belongs to, seen from one inside it."""
        inner: Scope | None = scope
        while inner is not None:
            if name in inner.tensors or (id(inner), name) in self._makers:
                return inner
            inner = inner.parent
        return scope

    def _final(self, scope: Scope, name: str) -> list[tuple[Scope, Node, int]]:
        found: list[tuple[Scope, Node, int]] = []
        waiting = [(scope, name, 0)]
        for _ in range(_MAX_VALUES):
            if not waiting:
                return found
            holder, value, steps = waiting.pop()
            readers = self._readers.get((id(holder), value), ())[:_MAX_READERS]
            self._looks += 1 + len(readers)
            if self._looks > _MAX_LOOKS:
                break
            for where, node, position in readers:
                if node.operator in _PASSING_ON and position == 0 and node.outputs and steps < _MAX_STEPS:
                    waiting.append((where, node.outputs[0], steps + 1))
                else:
                    found.append((where, node, position))
        # Too many to follow: nothing is said about it.
        return []

    def _undoing(self, scope: Scope, node: Node, position: int) -> Undoing | None:
        for place, scale, zero, axis in _QUANTISED_INPUTS.get((node.domain, node.operator), ()):
            if place != position:
                continue
            if node.operator == "DequantizeLinear":
                axis = node.integers.get("axis", 1)
            elif node.operator == "QGemm" and node.integers.get("transB", 0):
                axis = 0
            factors = self._constant(scope, node, scale)
            if factors is None:
                return None
            offset = self._constant(scope, node, zero)
            if offset is None and _is_given(node, zero):
                # A zero point that is computed at run time cannot be undone here.
                return None
            return Undoing(factors, offset, axis, node.integers.get("block_size", 0))
        if node.domain == "com.microsoft" and node.operator in _PACKED_PRODUCTS and position == 1:
            return self._undoing_of_bits(scope, node)
        if node.operator in _INTEGER_PRODUCTS and position == 1:
            return self._undoing_of_product(scope, node)
        return None

    def _undoing_of_bits(self, scope: Scope, node: Node) -> Undoing | None:
        factors, offset = self._constant(scope, node, 2), self._constant(scope, node, 3)
        if factors is None or (offset is None and _is_given(node, 3)):
            return None
        rows, columns, bits = (
            node.integers.get(name, missing) for name, missing in (("N", 0), ("K", 0), ("bits", 4))
        )
        odd = "its inputs are in another order (g_idx)" if _is_given(node, 4) else ""
        if node.operator == "MatMulBnb4":
            odd = "its numbers are four-bit floats of bitsandbytes (MatMulBnb4), which are not undone in ONNX files"
        return Undoing(
            factors, offset, 1, node.integers.get("block_size", 0), Packed(bits, rows, columns, odd)
        )

    def _undoing_of_product(self, scope: Scope, node: Node) -> Undoing | None:
        """The scale that ONNX Runtime's dynamic quantisation multiplies with behind the operator and a ``Cast``."""
        zero = self._constant(scope, node, 3)
        if zero is None and _is_given(node, 3):
            return None
        for _, reader, position in self._final(scope, node.outputs[0] if node.outputs else ""):
            if reader.operator != "Mul" or len(reader.inputs) != 2:
                continue
            other = reader.inputs[1 - position]
            names = [other]
            maker = self._makers.get((id(self._holder(scope, other)), other))
            if maker is not None and maker.operator == "Mul":
                names = list(maker.inputs)
            constants = [found[1] for name in names if (found := scope.find(name)) is not None]
            if len(constants) == 1:
                return Undoing(constants[0], zero, _INTEGER_PRODUCTS[node.operator], 0)
        return None

    @staticmethod
    def _constant(scope: Scope, node: Node, position: int) -> TensorProto | None:
        if not 0 <= position < len(node.inputs) or not node.inputs[position]:
            return None
        found = scope.find(node.inputs[position])
        return None if found is None else found[1]


def _is_given(node: Node, position: int) -> bool:
    return position < len(node.inputs) and bool(node.inputs[position])


def _takes_in_by_out(node: Node, position: int) -> bool:
    for operator, place, attribute, without in _MATRIX_INPUTS.get(node.domain, ()):
        if operator == node.operator and place == position:
            turned = bool(attribute) and node.integers.get(attribute, 0) != 0
            return without is not turned
    return False


# Operator, position, attribute that turns the matrix round, and whether it is (in, out) without that attribute.
_MATRIX_INPUTS: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "": (
        ("MatMul", 1, "", True),
        ("Gemm", 0, "transA", False),
        ("Gemm", 1, "transB", True),
        ("MatMulInteger", 1, "", True),
        ("QLinearMatMul", 3, "", True),
    ),
    "com.microsoft": (
        ("FusedMatMul", 1, "transB", True),
        ("FusedGemm", 1, "transB", True),
        ("QGemm", 3, "transB", True),
        ("DynamicQuantizeMatMul", 1, "", True),
        ("MatMulIntegerToFloat", 1, "", True),
    ),
}

_PACKED_PRODUCTS = frozenset({"MatMulNBits", "MatMulBnb4"})
_INTEGER_PRODUCTS = {"MatMulInteger": -1, "ConvInteger": 0}
"""Operators that multiply whole numbers, and the axis of their weight that a row of scales runs along."""

# Position of the quantised numbers, of their scale and of their zero point, and the axis of a scale that is a row.
_QUANTISED_INPUTS: dict[tuple[str, str], tuple[tuple[int, int, int, int], ...]] = {
    ("", "DequantizeLinear"): ((0, 1, 2, 1),),
    ("com.microsoft", "DequantizeLinear"): ((0, 1, 2, 1),),
    ("", "QLinearMatMul"): ((3, 4, 5, -1), (0, 1, 2, -2)),
    ("", "QLinearConv"): ((3, 4, 5, 0),),
    ("com.microsoft", "QGemm"): ((3, 4, 5, 1),),
    ("com.microsoft", "DynamicQuantizeMatMul"): ((1, 2, 3, -1),),
    ("com.microsoft", "MatMulIntegerToFloat"): ((1, 3, 5, -1),),
}
