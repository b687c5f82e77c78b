"""Experts: one layer each, under one spelling, however many a file keeps in one tensor.

The spelling is ``<block>.mlp.experts.<number>.gate_proj.weight`` (``up_proj``, ``down_proj``), each (outputs, inputs),
and ``<block>.mlp.gate.weight`` for the router. Brought to it are (the field report, section 6.2; transformers,
``modeling_mixtral.py``, ``modeling_gpt_oss.py``, ``modeling_llama4.py``, ``modeling_qwen3_vl_moe.py``):

- Mixtral of transformers 4: ``block_sparse_moe.experts.<number>.w1`` (gate), ``w3`` (up), ``w2`` (down);
- transformers 5: ``experts.gate_up_proj`` (experts, 2 x units, inputs), the gate first, and ``experts.down_proj``
  (experts, inputs, units);
- the same transposed: Llama 4 and Qwen 3 VL with the gate first, gpt-oss with rows of gate and up in turn;
- stacks of one kind, as the GGUF names give them.

A stack whose layout is not certain stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from layerwatch.metrics.architecture.arrangement import Group, Part, Tensors
from layerwatch.metrics.architecture.facts import Facts
from layerwatch.metrics.layers import FLOATING
from layerwatch.metrics.tensors import Array, TensorInfo

MAX_EXPERTS = 4096
"""Most experts that a stack is taken apart into; the largest models have 512."""

MAX_PARTS = 1 << 18
"""Most experts of all stacks together, beyond which all stay whole; the largest models have 70 000."""

_MIXTRAL = re.compile(
    r"^(?P<before>(?:.*\.)?)block_sparse_moe\.(?:experts\.(?P<number>\d{1,6})\.(?P<which>w[123])|gate)(?P<rest>(?:\.[^.]+)?)$"
)
_MODULES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_STACK = re.compile(
    r"^(?P<experts>(?:.*\.)?experts)\.(?P<which>gate_up_proj|gate_proj|up_proj|down_proj)(?P<rest>|\.weight|\.bias|_bias)$"
)
_GATE_FIRST_TRANSPOSED = frozenset(
    {"llama4", "llama4_text", "qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_omni_moe"}
)


def in_one_spelling(name: str) -> str:
    """A name of Mixtral's as other mixtures of experts have it; any other name as it is."""
    found = _MIXTRAL.match(name)
    if found is None:
        return name
    module = "gate" if found["which"] is None else f"experts.{found['number']}.{_MODULES[found['which']]}"
    return f"{found['before']}mlp.{module}{found['rest']}"


def one_spelling_of_mixtral(tensors: Tensors, facts: Facts) -> Sequence[Group]:
    """Mixtral's experts and router under the names that other mixtures of experts have."""
    return [
        {name: (Part(wanted, info.shape),)}
        for name, info in tensors.items()
        if (wanted := in_one_spelling(name)) != name
    ]


def take_experts_apart(tensors: Tensors, facts: Facts) -> Sequence[Group]:
    """Stacked experts, one tensor for each."""
    stacks: dict[str, dict[tuple[str, bool], TensorInfo]] = {}
    for name, info in tensors.items():
        found = _STACK.match(name)
        # Whole numbers have scales beside them that would have to be taken apart with them.
        if found is None or info.dtype in _WHOLE or f"{name}_scale" in tensors:
            continue
        is_bias = found["rest"].endswith("bias")
        if len(info.shape) == (2 if is_bias else 3) and 0 not in info.shape:
            stacks.setdefault(found["experts"], {})[found["which"], is_bias] = info
    if sum(info.shape[0] for stack in stacks.values() for info in stack.values()) > MAX_PARTS:
        return ()
    groups = []
    for experts, stack in stacks.items():
        group = dict(_apart(experts, stack, tensors, facts))
        if group:
            groups.append(group)
    return groups


_WHOLE = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"}) | {
    dtype for dtype in FLOATING if dtype.startswith("F8")
}


def _apart(
    experts: str, stack: Mapping[tuple[str, bool], TensorInfo], tensors: Tensors, facts: Facts
) -> Iterator[tuple[str, tuple[Part, ...]]]:
    counts = {info.shape[0] for info in stack.values()}
    if len(counts) != 1 or not 0 < max(counts) <= MAX_EXPERTS:
        return
    layout = _layout(experts, stack, tensors, facts) if ("gate_up_proj", False) in stack else (False, False)
    if layout is None:
        return
    is_transposed, in_turn = layout
    for (which, is_bias), info in stack.items():
        parts = []
        for number in range(info.shape[0]):
            halves = ("gate_proj", "up_proj") if which == "gate_up_proj" else (which,)
            for half, module in enumerate(halves):
                take = _Expert(number, is_transposed and not is_bias, len(halves), half, in_turn)
                suffix = "bias" if is_bias else "weight"
                parts.append(Part(f"{experts}.{number}.{module}.{suffix}", take.shape(info.shape), take))
        yield info.name, tuple(parts)


def _layout(
    experts: str, stack: Mapping[tuple[str, bool], TensorInfo], tensors: Tensors, facts: Facts
) -> tuple[bool, bool] | None:
    """Whether the stack is transposed, and whether gate and up take turns; None where that is not certain."""
    down = stack.get(("down_proj", False))
    if down is None:
        return None
    (_, rows, columns), (_, down_rows, down_columns) = stack["gate_up_proj", False].shape, down.shape
    is_plain = rows == 2 * down_columns and columns == down_rows
    is_transposed = columns == 2 * down_rows and rows == down_columns
    if not (is_plain or is_transposed):
        return None
    block = experts.rpartition(".mlp.experts")[0]
    bias = stack.get(("gate_up_proj", True))
    if bias is not None and bias.shape[1] != 2 * (down_rows if is_transposed else down_columns):
        return None
    if facts.model_type == "gpt_oss" or (bias is not None and f"{block}.self_attn.sinks" in tensors):
        return is_transposed, True
    if bias is not None:
        return None
    if is_plain or facts.model_type in _GATE_FIRST_TRANSPOSED or experts.endswith("feed_forward.experts"):
        return is_transposed, False
    return None


class _Expert:
    """One expert of a stack, or the gate's or the other half of it: a view."""

    __slots__ = ("_half", "_halves", "_in_turn", "_number", "_transposed")

    def __init__(self, number: int, transposed: bool, halves: int, half: int, in_turn: bool) -> None:
        self._number = number
        self._transposed = transposed
        self._halves = halves
        self._half = half
        self._in_turn = in_turn

    def shape(self, stack: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the part, from that of the stack."""
        one = stack[1:][::-1] if self._transposed else stack[1:]
        return (one[0] // self._halves, *one[1:])

    def __call__(self, stack: Array) -> Array:
        one: Array = stack[self._number]
        if self._transposed:
            one = one.T
        if self._halves == 1:
            return one
        if self._in_turn:
            return one[self._half :: 2]
        units = one.shape[0] // 2
        return one[self._half * units : (self._half + 1) * units]
