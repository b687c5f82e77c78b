"""Which layer feeds which, from names and shapes alone.

Known are the habits of the common libraries (torch, torchvision, timm, transformers, GPT-2 and its descendants). A
name that fits none of them takes no part in anything: a wrong guess would be worse than none, and what is not wired
is told as a blind spot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Protocol, TypeVar


class NamedShape(Protocol):
    """A layer, a vector, an examined layer, or a tensor of a file."""

    @property
    def name(self) -> str:
        """Its name, with or without a trailing ``.weight``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``begin`` to ``end`` of a layer, or all of it.

    Attributes:
        layer: name of the layer.
        begin, end: output rows; of the transpose, where the layer is stored ``(inputs, outputs)``.
        transposed: stored ``(inputs, outputs)``, as GPT-2 does.
    """

    layer: str
    begin: int
    end: int
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """Units between two layers: the rows of one are read by the columns of the next, one unit after the other.

    Attributes:
        producer, consumer: names of the layers.
        units: output rows of the producer; each is read by ``columns / units`` columns of the consumer, in a block.
    """

    producer: str
    consumer: str
    units: int


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention: queries, keys and values (rows of one or three layers) and the output projection."""

    query: Part
    key: Part
    value: Part
    output: Part


@dataclass(frozen=True, slots=True)
class FeedForward:
    """One feed-forward part: the layer that widens, its gate if there is one, and the layer that narrows."""

    up: Part
    gate: Part | None
    down: Part


@dataclass(frozen=True, slots=True)
class Block:
    """One block on a residual stream.

    Attributes:
        attention_gain, feed_forward_gain: name of the norm's gain that the part *reads*, if it is known.
    """

    name: str
    attention: Attention | None
    feed_forward: FeedForward | None
    attention_gain: str | None
    feed_forward_gain: str | None


@dataclass(frozen=True, slots=True)
class Stream:
    """A residual stream: blocks that read from it and write to it, in order.

    Attributes:
        name: what the blocks' names begin with.
        width: number of channels.
        embeddings: layers ``(entries, width)`` that the stream begins with: tokens first, then positions.
        positions: those of the embeddings that stand for positions, by name.
        final_gain: gain of the norm behind the last block, or None.
        head: layer ``(entries, width)`` that reads the stream at its end, or None.
    """

    name: str
    width: int
    blocks: tuple[Block, ...]
    embeddings: tuple[str, ...]
    positions: str | None
    final_gain: str | None
    head: str | None


@dataclass(frozen=True)
class Wiring:
    """What is known of a model's wiring.

    Attributes:
        interfaces: from input to output. Feed-forward parts are not among them.
        streams: residual streams of transformers.
        residual_blocks: names of the modules of convolutional residual blocks (``layer1.0``), from input to output.
        head: the last layer of a plain or residual network, whose rows are classes; None where unknown.
    """

    interfaces: tuple[Interface, ...]
    streams: tuple[Stream, ...]
    residual_blocks: tuple[str, ...] = ()
    head: str | None = None
    _all: tuple[Interface, ...] = field(default=(), repr=False)

    @cached_property
    def _consumers(self) -> Mapping[str, Interface]:
        return {one.producer: one for one in reversed(self._all)}

    @cached_property
    def _producers(self) -> Mapping[str, Interface]:
        return {one.consumer: one for one in reversed(self._all)}

    def consumer_of(self, layer: str) -> Interface | None:
        """The interface behind a layer's rows: who reads them, all of them and nobody else; None where unknown."""
        return self._consumers.get(layer)

    def producer_of(self, layer: str) -> Interface | None:
        """The interface in front of a layer's columns: who makes them, all of them; None where unknown."""
        return self._producers.get(layer)


_QUERY = frozenset({"q_proj", "query", "q", "wq", "q_lin", "query_proj", "to_q", "q_linear"})
_KEY = frozenset({"k_proj", "key", "k", "wk", "k_lin", "key_proj", "to_k", "k_linear"})
_VALUE = frozenset({"v_proj", "value", "v", "wv", "v_lin", "value_proj", "to_v", "v_linear"})
_FUSED = frozenset({"qkv", "qkv_proj", "c_attn", "in_proj_weight", "in_proj", "wqkv", "to_qkv"})
"""Queries, keys and values one after the other. ``query_key_value`` mixes them by head and is left out."""
_OUTPUT = frozenset(
    {"o_proj", "out_proj", "out_lin", "c_proj", "proj", "wo", "o", "to_out", "out", "output", "dense"}
)
_UP = frozenset(
    {
        "fc1",
        "c_fc",
        "up_proj",
        "linear1",
        "intermediate",
        "wi",
        "w3",
        "wi_1",
        "lin1",
        "fc_in",
        "dense_h_to_4h",
    }
)
_GATE = frozenset({"gate_proj", "w1", "wi_0"})
_FUSED_GATE = frozenset({"gate_up_proj"})
_DOWN = frozenset(
    {"fc2", "c_proj", "down_proj", "linear2", "output", "wo", "w2", "lin2", "fc_out", "dense_4h_to_h"}
)
_ATTENTION_NORM = (
    *("ln_1", "ln1", "norm1", "norm_1", "input_layernorm", "layernorm_before", "attention_norm", "attn_norm"),
    *("attn_ln", "self_attn_layer_norm", "sa_layer_norm", "attention.output.layernorm", "ln_attn"),
)
_FEED_FORWARD_NORM = (
    *(
        "ln_2",
        "ln2",
        "norm2",
        "norm_2",
        "post_attention_layernorm",
        "layernorm_after",
        "ffn_norm",
        "mlp_norm",
    ),
    *("mlp_ln", "final_layer_norm", "output_layer_norm", "output.layernorm", "ln_mlp"),
)
"""The first and the second norm of a block, wherever they stand in it."""
_FINAL_NORM = frozenset(
    {
        "ln_f",
        "norm",
        "final_layernorm",
        "final_layer_norm",
        "final_norm",
        "layernorm",
        "ln_final",
        "layer_norm",
    }
)
_POSITIONS = re.compile(r"(^|[._])(wpe|pos|positions?)([._]|$)|pos_?emb", re.IGNORECASE)
_TOKENS = re.compile(
    r"(^|[._])(wte|tok|tokens?|word|embed|embedding|embeddings|emb)([._]|$)|tok_?emb|embed_tokens|word_embeddings",
    re.IGNORECASE,
)
_HEAD = frozenset({"lm_head", "head", "output", "classifier", "unembed", "decoder", "embed_out", "to_logits"})
_IN_BLOCK = re.compile(r"^(?P<block>(?:.*\.)?\d+)\.(?P<rest>[^0-9].*)$")
_NUMBERED = re.compile(r"^(?P<word>.*?)(?P<number>\d+)$")
_ASIDE = re.compile(r"(^|\.)(downsample|shortcut|skip)(\.|$)")
_STEM = frozenset({"stem", "conv_stem"})
_ENDS = frozenset({"fc", "linear", "classifier", "head", "dense", "out", "output"})
_DIGITS = re.compile(r"(\d+)")
_FIRST_OF_HEAD = re.compile(r"^(fc|linear|classifier|head|dense|out|output)_?[01]?$", re.IGNORECASE)


Tensor = TypeVar("Tensor", bound=NamedShape)


def in_module_order(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors in the order in which a network most likely runs through them, whatever the order of the file.

    Formats order by name, by type or not at all. ``layer2`` stands before ``layer10``, a stem before and a head
    (``fc``, ``classifier``) behind the other modules beside it.
    """
    return sorted(tensors, key=lambda tensor: [_place(word) for word in tensor.name.split(".")])


def _place(word: str) -> tuple[int, list[tuple[int, str]]]:
    group = 0 if word in _STEM else 2 if word in _ENDS else 1
    return group, [(int(part) if part.isdecimal() else -1, part) for part in _DIGITS.split(word)]


def find_wiring(tensors: Iterable[NamedShape]) -> Wiring:
    """Read the wiring of a model.

    Args:
        tensors: layers and vectors, in any order.

    Returns:
        the wiring; layers and vectors have in it the names they came with.
    """
    listed = in_module_order(tensors)
    matrices = [_Matrix.of(one.name, one.shape) for one in listed if len(one.shape) >= 2 and all(one.shape)]
    gains = {
        _bare(one.name).lower(): one
        for one in listed
        if len(one.shape) == 1 and not one.name.endswith("bias")
    }
    streams = _streams(matrices, gains)
    taken = {
        part.layer
        for stream in streams
        for block in stream.blocks
        for whole in (block.attention, block.feed_forward)
        if whole is not None
        for part in _parts(whole)
    }
    free = [matrix for matrix in matrices if matrix.name not in taken]
    interfaces = _interfaces(free)
    sides = {matrix.name: matrix.shape for matrix in matrices}
    inner = [one for stream in streams for block in stream.blocks for one in _inner_interfaces(block, sides)]
    last = matrices[-1] if matrices and not streams else None
    head = last.name if last and len(last.shape) == 2 and _FIRST_OF_HEAD.match(last.last) else None
    return Wiring(interfaces, streams, _residual_blocks(free), head, (*interfaces, *inner))


@dataclass(frozen=True, slots=True)
class _Matrix:
    name: str
    module: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...]) -> _Matrix:
        return cls(name, _bare(name), shape)

    @property
    def parent(self) -> str:
        return self.module.rpartition(".")[0]

    @property
    def last(self) -> str:
        return self.module.rpartition(".")[2]


def _bare(name: str) -> str:
    return name.removesuffix(".weight")


def _parts(whole: Attention | FeedForward) -> list[Part]:
    if isinstance(whole, Attention):
        return [whole.query, whole.key, whole.value, whole.output]
    return [part for part in (whole.up, whole.gate, whole.down) if part is not None]


def _inner_interfaces(block: Block, shapes: Mapping[str, tuple[int, ...]]) -> list[Interface]:
    """Where all rows of one stored layer are all columns of another; transposed storage has no such rows."""
    found = []
    if block.feed_forward is not None:
        up, gate, down = block.feed_forward.up, block.feed_forward.gate, block.feed_forward.down
        if not up.transposed and up.end - up.begin == shapes[up.layer][0]:
            found.append(Interface(up.layer, down.layer, up.end))
        if gate is not None and gate.layer != up.layer:
            found.append(Interface(gate.layer, down.layer, gate.end))
    if block.attention is not None:
        value, output = block.attention.value, block.attention.output
        whole = not value.transposed and value.end - value.begin == shapes[value.layer][0]
        if whole and value.end == shapes[output.layer][1]:
            found.append(Interface(value.layer, output.layer, value.end))
    return found


def norms_of_block(block: str, width: int, tensors: Iterable[NamedShape]) -> tuple[str | None, str | None]:
    """Names of the gains of the first and the second norm of a block that begins its parts with them; None unknown."""
    gains = {_bare(one.name).lower(): one for one in tensors if len(one.shape) == 1}
    first = _gain(block, _ATTENTION_NORM, width, gains)
    return first, _gain(block, ("pre_feedforward_layernorm", *_FEED_FORWARD_NORM), width, gains)


def writes_to_stream(name: str) -> bool:
    """Whether a layer of a block writes to the residual stream, by the last word of its name."""
    last, _ = _role(_bare(name).lower())
    return last in _OUTPUT or last in _DOWN


# --- plain chains ---------------------------------------------------------------------------------------------------


def _interfaces(matrices: Sequence[_Matrix]) -> tuple[Interface, ...]:
    found = []
    for producer, consumer in pairwise(matrices):
        units, columns = producer.shape[0], consumer.shape[1]
        if not _follows(producer, consumer):
            continue
        # A convolution that is flattened before a linear layer hands on a block of columns per channel.
        flattened = len(producer.shape) > 2 and len(consumer.shape) == 2 and columns % units == 0
        if columns == units or flattened:
            found.append(Interface(producer.name, consumer.name, units))
    return tuple(found)


def _follows(producer: _Matrix, consumer: _Matrix) -> bool:
    """Whether the names say that one comes right behind the other; they are neighbours already."""
    if (len(producer.shape) == 2 and len(consumer.shape) > 2) or _ASIDE.search(producer.module):
        return False
    before, after = _NUMBERED.match(producer.last), _NUMBERED.match(consumer.last)
    if producer.parent == consumer.parent:
        if before and after and before["word"] == after["word"]:
            step = int(after["number"]) - int(before["number"])
            return step == 1 if before["word"] else step >= 1
        # conv3 -> fc, fc3 -> out: the first of another kind, in a model whose layers stand side by side.
        return bool(before and _FIRST_OF_HEAD.match(consumer.last) and int(before["number"]) > 1)
    return bool(
        producer.parent
        and before
        and not before["word"]
        and (_FIRST_OF_HEAD.match(consumer.module) or _FIRST_OF_HEAD.match(consumer.parent))
        and (not after or after["word"] or int(after["number"]) <= 2)
    )


def _residual_blocks(matrices: Sequence[_Matrix]) -> tuple[str, ...]:
    """Modules ``layerS.B`` that hold ``conv1`` and ``conv2``."""
    modules = {matrix.module for matrix in matrices}
    return tuple(
        matrix.parent
        for matrix in matrices
        if matrix.last == "conv1"
        and len(matrix.shape) == 4
        and re.fullmatch(r"(.*\.)?layer\d+\.\d+", matrix.parent)
        and f"{matrix.parent}.conv2" in modules
    )


# --- transformers ---------------------------------------------------------------------------------------------------


def _streams(matrices: Sequence[_Matrix], gains: Mapping[str, NamedShape]) -> tuple[Stream, ...]:
    blocks: dict[str, dict[str, _Matrix]] = {}
    for matrix in matrices:
        match = _IN_BLOCK.match(matrix.module)
        if match and len(matrix.shape) == 2:
            blocks.setdefault(match["block"], {})[match["rest"].lower()] = matrix
    streams: dict[str, list[tuple[str, Attention | None, FeedForward | None, int]]] = {}
    for name, members in blocks.items():
        feed_forward = _feed_forward(members)
        attention = _attention(members)
        if feed_forward is None and attention is None:
            continue
        width = _width(attention, feed_forward, {one.name: one.shape for one in members.values()})
        if width is not None:
            streams.setdefault(name.rpartition(".")[0], []).append((name, attention, feed_forward, width))
    return tuple(
        _stream(name, found, matrices, gains)
        for name, found in streams.items()
        if len({width for *_, width in found}) == 1
    )


def _width(
    attention: Attention | None, feed_forward: FeedForward | None, shapes: Mapping[str, tuple[int, ...]]
) -> int | None:
    widths = set()
    for part in (
        *((attention.query, attention.key, attention.value) if attention else ()),
        *((feed_forward.up,) if feed_forward else ()),
    ):
        widths.add(shapes[part.layer][0 if part.transposed else 1])
    for part in (
        *((attention.output,) if attention else ()),
        *((feed_forward.down,) if feed_forward else ()),
    ):
        widths.add(shapes[part.layer][1 if part.transposed else 0])
    # Keys and values of another width belong to a cross attention, which reads another stream.
    return widths.pop() if len(widths) == 1 else None


def _role(rest: str) -> tuple[str, str]:
    """The last word of a name inside its block, and what stands before it; ``output.dense`` counts as one word."""
    before, _, last = rest.rpartition(".")
    if last in {"dense", "0"} and before:
        if last == "dense" and before.rpartition(".")[2] not in {"output", "intermediate"}:
            return "dense", before
        before, _, last = before.rpartition(".")
    return last, before


def _is_attention(before: str) -> bool:
    return "att" in before


def _is_cross(before: str) -> bool:
    return any(word in before for word in ("cross", "encoder_attn", "encdec", "multihead_attn"))


def _attention(members: Mapping[str, _Matrix]) -> Attention | None:
    roles: dict[str, _Matrix] = {}
    for rest, matrix in members.items():
        last, before = _role(rest)
        if _is_cross(before):
            continue
        for role, words in (("q", _QUERY), ("k", _KEY), ("v", _VALUE), ("qkv", _FUSED)):
            if last in words and (
                _is_attention(before) or last not in {"q", "k", "v", "key", "value", "query"} or not before
            ):
                roles.setdefault(role, matrix)
        inside = last in _OUTPUT and _is_attention(before)
        if inside or (last in {"o_proj", "out_proj"} and not before):
            roles.setdefault("o", matrix)
    output = roles.get("o")
    if output is None:
        return None
    fused = roles.get("qkv")
    if fused is not None:
        return _fused_attention(fused, output)
    if not {"q", "k", "v"} <= roles.keys():
        return None
    heads = roles["q"].shape[0]
    if roles["k"].shape != roles["v"].shape or output.shape[1] != heads or heads % roles["k"].shape[0]:
        return None
    query, key, value = (Part(roles[role].name, 0, roles[role].shape[0]) for role in "qkv")
    return Attention(query, key, value, Part(output.name, 0, output.shape[0]))


def _fused_attention(fused: _Matrix, output: _Matrix) -> Attention | None:
    width = output.shape[0]
    rows, columns = fused.shape
    transposed = fused.last == "c_attn" and rows == width and columns > rows
    if transposed:
        rows, columns = columns, rows
    heads = output.shape[0] if transposed else output.shape[1]
    shared, odd = divmod(rows - heads, 2)
    if columns != width or odd or shared <= 0 or heads % shared:
        return None
    ends = (0, heads, heads + shared, rows)
    query, key, value = (Part(fused.name, begin, end, transposed) for begin, end in pairwise(ends))
    return Attention(query, key, value, Part(output.name, 0, width, transposed))


def _feed_forward(members: Mapping[str, _Matrix]) -> FeedForward | None:
    roles: dict[str, _Matrix] = {}
    for rest, matrix in members.items():
        last, before = _role(rest)
        if _is_attention(before):
            continue
        for role, words in (("up", _UP), ("gate", _GATE), ("fused", _FUSED_GATE), ("down", _DOWN)):
            if last in words:
                roles.setdefault(role, matrix)
    down = roles.get("down")
    if down is None:
        return None
    fused = roles.get("fused")
    if fused is not None:
        width, units = down.shape
        if fused.shape != (2 * units, width):
            return None
        gate, up = Part(fused.name, 0, units), Part(fused.name, units, 2 * units)
        return FeedForward(up, gate, Part(down.name, 0, width))
    up_matrix, gate_matrix = roles.get("up"), roles.get("gate")
    if up_matrix is None and gate_matrix is not None and gate_matrix.last == "w1":
        up_matrix, gate_matrix = gate_matrix, None
    if up_matrix is None or up_matrix.shape != down.shape[::-1]:
        return None
    if gate_matrix is not None and gate_matrix.shape != up_matrix.shape:
        return None
    units, width = up_matrix.shape
    # Of (d, 4d) and (4d, d) the file does not say which is which; that the inner side is the wider one does.
    transposed = up_matrix.last == "c_fc" and units < width
    if transposed:
        units, width = width, units
    gate_part = None if gate_matrix is None else Part(gate_matrix.name, 0, units)
    return FeedForward(
        Part(up_matrix.name, 0, units, transposed), gate_part, Part(down.name, 0, width, transposed)
    )


def _stream(
    name: str,
    found: Sequence[tuple[str, Attention | None, FeedForward | None, int]],
    matrices: Sequence[_Matrix],
    gains: Mapping[str, NamedShape],
) -> Stream:
    width = found[0][-1]
    root = name.rpartition(".")[0]
    final = _final_gain(root, width, gains)
    first = [_gain(block, _ATTENTION_NORM, width, gains) for block, *_ in found]
    second = [_gain(block, _FEED_FORWARD_NORM, width, gains) for block, *_ in found]
    # A norm behind the last block tells that the blocks begin with theirs; else a part reads what the norm of the
    # part before it gave.
    readers = list(zip(first, second, strict=True))
    if final is None:
        readers = list(zip([None, *second[:-1]], first, strict=True))
    inside = {matrix.name for matrix in matrices if _IN_BLOCK.match(matrix.module)}
    outside = [one for one in matrices if one.name not in inside and one.shape[1:] == (width,)]
    positions = [one.name for one in outside if _POSITIONS.search(one.module)]
    head = [one.name for one in outside if one.last in _HEAD and one.name not in positions]
    tokens = [
        one.name
        for one in outside
        if one.name not in positions
        and one.name not in head
        and _TOKENS.search(one.module)
        and one.shape[0] > 2
    ]
    return Stream(
        name,
        width,
        tuple(
            Block(block, attention, feed_forward, *norms)
            for (block, attention, feed_forward, _), norms in zip(found, readers, strict=True)
        ),
        (*tokens[:1], *positions[:1]),
        positions[0] if positions else None,
        final,
        head[0] if head else None,
    )


def _gain(block: str, names: Sequence[str], width: int, gains: Mapping[str, NamedShape]) -> str | None:
    for name in names:
        gain = gains.get(f"{block}.{name}".lower())
        if gain is not None and gain.shape == (width,):
            return gain.name
    return None


def _final_gain(root: str, width: int, gains: Mapping[str, NamedShape]) -> str | None:
    prefix = f"{root}." if root else ""
    for name in sorted(_FINAL_NORM):
        gain = gains.get(f"{prefix}{name}".lower())
        if gain is not None and gain.shape == (width,):
            return gain.name
    return None
