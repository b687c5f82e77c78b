"""What an ONNX file says about its tensors and about the nodes that use them, without touching their values.

Format: ``onnx.proto`` of https://github.com/onnx/onnx (IR versions 3 to 13), read with :mod:`protobuf`. The reader
is our own because the package ``onnx`` copies a whole file into memory before it tells a single name; here a tensor
stays a range of bytes of the mapped file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.protobuf import TooManyFields, Wire, WireError, WireType, signed

MAX_NAME_BYTES = 4096
"""Longest name, as in the other formats."""

MAX_DEPTH = 24
"""Deepest nesting of graphs (branches, loop bodies) that is followed."""

MAX_RANK = 64
"""Most dimensions that numpy can hold."""

_Range = tuple[int, int]

# Fields of the messages, by number.
_MODEL = {"graph": 7, "training_info": 20, "functions": 25}
_GRAPH = {"node": 1, "initializer": 5, "sparse_initializer": 15}
_FUNCTION_NODE, _FUNCTION_NAME = 7, 1
_TYPED_DATA = (4, 5, 7, 10, 11)
_LONGEST_COEFFICIENTS = 16


@dataclass(slots=True)
class TensorProto:
    """One tensor as declared.

    Attributes:
        name: as the graph uses it; unique in its graph.
        code: number of the element type (``TensorProto.DataType``).
        dims: shape.
        raw: range of the bytes of ``raw_data``, or None.
        typed: number of the typed field in use (4 float, 5 int32, 7 int64, 10 double, 11 uint64), 0 for none.
        chunks: ranges of bytes that hold its numbers, in order.
        external: the entries of ``external_data``, or None where the values are inside the file.
        odd: why its values cannot be read, or "".
        constant: whether it is the value of a node, not an initialiser.
    """

    name: str = ""
    code: int = 0
    dims: tuple[int, ...] = ()
    raw: _Range | None = None
    typed: int = 0
    chunks: list[_Range] = field(default_factory=list)
    external: dict[str, str] | None = None
    odd: str = ""
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One node: operator, domain ("" for ONNX itself), name, inputs and outputs by position, whole-number attributes."""

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: dict[str, int]


@dataclass(slots=True)
class Scope:
    """One graph: the main one, a branch or body of a node, or a function.

    Attributes:
        label: "" for the main graph, else the way to it through node and attribute names, joined by dots.
        tensors: initialisers and constants by name.
    """

    label: str
    parent: Scope | None
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, TensorProto] = field(default_factory=dict)

    def find(self, name: str) -> tuple[Scope, TensorProto] | None:
        """The tensor that a name means here: a graph sees those of the graphs around it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.tensors:
                return scope, scope.tensors[name]
            scope = scope.parent
        return None


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A parsed file.

    Attributes:
        scopes: all graphs, the main one first, each before those inside it.
        has_training: whether the file carries training state beside the model.
        coefficients: nodes that keep more than a few numbers in plain attributes (``ai.onnx.ml``).
    """

    scopes: tuple[Scope, ...]
    has_training: bool
    coefficients: tuple[str, ...]


def parse_model(data: memoryview, path: Path) -> OnnxModel:
    """Parse an ONNX file.

    Args:
        data: its bytes.
        path: its name, for errors.

    Raises:
        UnreadableError: BAD_HEADER, TRUNCATED, TOO_DEEP or TOO_LARGE.
    """
    return _Parser(data, path).model()


class _Parser:
    def __init__(self, data: memoryview, path: Path) -> None:
        self._wire = Wire(data)
        self._path = path
        self._scopes: list[Scope] = []
        self._coefficients: list[str] = []

    def model(self) -> OnnxModel:
        try:
            return self._model()
        except TooManyFields as error:
            self._fail(UnreadableReason.TOO_LARGE, str(error))
        except WireError as error:
            reason = UnreadableReason.TRUNCATED if "cut off" in str(error) else UnreadableReason.BAD_HEADER
            self._fail(reason, f"this is no ONNX file, or a damaged one: {error}")

    def _model(self) -> OnnxModel:
        graph: _Range | None = None
        functions: list[_Range] = []
        training = False
        for number, wire, begin, end in self._wire.fields(0, len(self._wire.data)):
            if number == _MODEL["graph"]:
                graph = self._once(graph, wire, (begin, end), "graph")
            elif number == _MODEL["functions"]:
                functions.append(self._delimited(wire, (begin, end)))
            elif number == _MODEL["training_info"]:
                training = True
        if graph is None:
            self._fail(
                UnreadableReason.BAD_HEADER, "this is no ONNX file, or a damaged one: it holds no graph"
            )
        self._graph(graph, "", None)
        for body in functions:
            self._function(body)
        return OnnxModel(tuple(self._scopes), training, tuple(self._coefficients))

    def _graph(self, extent: _Range, label: str, parent: Scope | None, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            self._fail(UnreadableReason.TOO_DEEP, f"graphs are nested deeper than {MAX_DEPTH} levels")
        scope = Scope(label, parent)
        self._scopes.append(scope)
        nodes: list[_Range] = []
        for number, wire, begin, end in self._wire.fields(*extent):
            if number == _GRAPH["node"]:
                nodes.append(self._delimited(wire, (begin, end)))
            elif number == _GRAPH["initializer"]:
                self._keep(scope, self._tensor(self._delimited(wire, (begin, end))))
            elif number == _GRAPH["sparse_initializer"]:
                self._keep(scope, self._sparse(self._delimited(wire, (begin, end))))
        for node in nodes:
            self._node(scope, node, depth)

    def _function(self, extent: _Range) -> None:
        nodes: list[_Range] = []
        name = ""
        for number, wire, begin, end in self._wire.fields(*extent):
            if number == _FUNCTION_NODE:
                nodes.append(self._delimited(wire, (begin, end)))
            elif number == _FUNCTION_NAME:
                name = self._text(wire, (begin, end))
        scope = Scope(name or "function", None)
        self._scopes.append(scope)
        for node in nodes:
            self._node(scope, node, 0)

    def _node(self, scope: Scope, extent: _Range, depth: int) -> None:
        inputs: list[str] = []
        outputs: list[str] = []
        texts = {3: "", 4: "", 7: ""}
        attributes: list[_Range] = []
        for number, wire, begin, end in self._wire.fields(*extent):
            if number == 1:
                inputs.append(self._text(wire, (begin, end)))
            elif number == 2:
                outputs.append(self._text(wire, (begin, end)))
            elif number in texts:
                texts[number] = self._text(wire, (begin, end))
            elif number == 5:
                attributes.append(self._delimited(wire, (begin, end)))
        name, operator, domain = texts[3], texts[4], texts[7]
        shown = name or f"{operator}_{len(scope.nodes)}"
        integers: dict[str, int] = {}
        node_label = f"{scope.label}.{shown}" if scope.label else shown
        for attribute in attributes:
            found = self._attribute(attribute)
            if found.integer is not None:
                integers[found.name] = found.integer
            if found.numbers > _LONGEST_COEFFICIENTS:
                self._coefficients.append(f"{node_label}.{found.name}"[:200])
            for graph in found.graphs:
                self._graph(graph, f"{node_label}.{found.name}"[-MAX_NAME_BYTES:], scope, depth + 1)
            is_value = operator == "Constant" and len(outputs) == 1
            for tensor in found.tensors:
                tensor.constant = True
                tensor.name = outputs[0] if is_value else f"{node_label}.{found.name}"[-MAX_NAME_BYTES:]
                self._keep(scope, tensor)
        scope.nodes.append(Node(operator, _domain(domain), name, tuple(inputs), tuple(outputs), integers))

    def _attribute(self, extent: _Range) -> _Attribute:
        found = _Attribute()
        for number, wire, begin, end in self._wire.fields(*extent):
            if number == 1:
                found.name = self._text(wire, (begin, end))
            elif number == 3 and wire == WireType.VARINT:
                found.integer = signed(begin)
            elif number in (5, 10):
                found.tensors.append(self._tensor(self._delimited(wire, (begin, end))))
            elif number in (6, 11):
                found.graphs.append(self._delimited(wire, (begin, end)))
            elif number in (22, 23):
                found.tensors.append(self._sparse(self._delimited(wire, (begin, end))))
            elif number == 7:
                found.numbers += (end - begin) // 4
        return found

    def _tensor(self, extent: _Range) -> TensorProto:
        tensor = TensorProto()
        external: dict[str, str] = {}
        is_external = False
        for number, wire, begin, end in self._wire.fields(*extent):
            if number == 1:
                tensor.dims += self._integers(wire, begin, end)
                if len(tensor.dims) > MAX_RANK:
                    self._fail(UnreadableReason.BAD_HEADER, f"a tensor has more than {MAX_RANK} dimensions")
            elif number == 2 and wire == WireType.VARINT:
                tensor.code = begin
            elif number == 3:
                tensor.odd = "it is a segment of a tensor that is split over several"
            elif number == 8:
                tensor.name = self._text(wire, (begin, end))
            elif number == 9:
                tensor.raw = self._once(tensor.raw, wire, (begin, end), "raw_data of a tensor")
            elif number == 13:
                key, value = self._entry(self._delimited(wire, (begin, end)))
                if key in external:
                    self._fail(UnreadableReason.BAD_HEADER, f"external_data gives {key[:40]!r} twice")
                external[key] = value
            elif number == 14 and wire == WireType.VARINT:
                is_external = begin == 1
            elif number in _TYPED_DATA:
                self._typed(tensor, number, wire, begin, end)
        if any(dimension < 0 for dimension in tensor.dims):
            self._fail(UnreadableReason.BAD_HEADER, "a dimension is negative", tensor.name)
        if is_external:
            tensor.external = external
        held = [tensor.raw is not None and tensor.raw[0] < tensor.raw[1], bool(tensor.chunks), is_external]
        if sum(held) > 1:
            self._fail(
                UnreadableReason.BAD_HEADER, "its values are given in more than one place", tensor.name
            )
        return tensor

    def _typed(self, tensor: TensorProto, number: int, wire: int, begin: int, end: int) -> None:
        if tensor.typed not in (0, number):
            self._fail(UnreadableReason.BAD_HEADER, "its values are given in more than one type", tensor.name)
        tensor.typed = number
        if wire == WireType.DELIMITED:
            if begin < end:
                tensor.chunks.append((begin, end))
            return
        self._fail(
            UnreadableReason.BAD_HEADER,
            "its numbers are written one by one instead of packed; save the model again with the onnx package",
            tensor.name,
        )

    def _sparse(self, extent: _Range) -> TensorProto:
        values = TensorProto()
        dims: tuple[int, ...] = ()
        for number, wire, begin, end in self._wire.fields(*extent):
            if number == 1:
                values = self._tensor(self._delimited(wire, (begin, end)))
            elif number == 3:
                dims += self._integers(wire, begin, end)
        if len(dims) > MAX_RANK or any(dimension < 0 for dimension in dims):
            self._fail(UnreadableReason.BAD_HEADER, "a sparse tensor has an impossible shape", values.name)
        return TensorProto(values.name, values.code, dims, odd="it is a sparse tensor, which is not read")

    def _entry(self, extent: _Range) -> tuple[str, str]:
        pair = {1: "", 2: ""}
        for number, wire, begin, end in self._wire.fields(*extent):
            if number in pair:
                pair[number] = self._text(wire, (begin, end))
        return pair[1], pair[2]

    def _integers(self, wire: int, begin: int, end: int) -> tuple[int, ...]:
        """One number, or as many of a packed field as a shape can have and one more."""
        if wire == WireType.VARINT:
            return (signed(begin),)
        if wire != WireType.DELIMITED:
            self._fail(UnreadableReason.BAD_HEADER, "a whole number is not written as one")
        numbers: list[int] = []
        for value in self._wire.varints(begin, end):
            numbers.append(signed(value))
            if len(numbers) > MAX_RANK:
                break
        return tuple(numbers)

    def _keep(self, scope: Scope, tensor: TensorProto) -> None:
        if not tensor.name:
            # Nothing can use it, and a loader ignores it; it is listed all the same.
            tensor.name = f"{scope.label}.unnamed".lstrip(".")
        if tensor.name in scope.tensors:
            self._fail(
                UnreadableReason.BAD_HEADER, "the graph holds two tensors of this name", tensor.name[:200]
            )
        scope.tensors[tensor.name] = tensor

    def _once(self, before: _Range | None, wire: int, extent: _Range, what: str) -> _Range:
        if before is not None:
            # Parsers differ on whether the second replaces the first or is joined to it.
            self._fail(UnreadableReason.BAD_HEADER, f"the file gives the {what} twice")
        return self._delimited(wire, extent)

    def _delimited(self, wire: int, extent: _Range) -> _Range:
        if wire != WireType.DELIMITED:
            self._fail(
                UnreadableReason.BAD_HEADER, "this is no ONNX file, or a damaged one: a message is a number"
            )
        return extent

    def _text(self, wire: int, extent: _Range) -> str:
        return self._wire.text(*self._delimited(wire, extent), MAX_NAME_BYTES)

    def _fail(self, reason: UnreadableReason, detail: str, tensor: str | None = None) -> NoReturn:
        raise UnreadableError(reason, self._path, detail, tensor or None)


@dataclass(slots=True)
class _Attribute:
    name: str = ""
    integer: int | None = None
    numbers: int = 0
    tensors: list[TensorProto] = field(default_factory=list)
    graphs: list[_Range] = field(default_factory=list)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
