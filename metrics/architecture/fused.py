"""Layers that hold several matrices: queries, keys and values; gate and up.

What stands behind one another in the rows is certain for the names below, with the layers beside them or the number
of heads (transformers, ``modeling_<model>.py``; torch, ``nn.MultiheadAttention``):

- ``self_attn.qkv_proj`` beside ``o_proj`` (Phi 3 and its descendants), ``Wqkv`` (MPT, ModernBERT, DBRX): queries, keys,
  values; the queries are as many as the output projection has inputs;
- ``in_proj_weight`` of torch: thirds;
- ``gate_up_proj`` beside ``down_proj``: the gate, then up;
- ``query_key_value`` with the number of heads from ``config.json``: GPT-NeoX and BLOOM q, k, v of each head in turn,
  Falcon the queries of a group, its key, its value; in GGUF one after the other, the converter has sorted them;
- ``c_attn`` stored (outputs, inputs): GPT-BigCode with one key for all heads, Qwen 1, and GGUF. That of GPT-2:
  ``conv1d.py``.

The parts are called ``q_proj``, ``k_proj``, ``v_proj``, ``gate_proj`` and ``up_proj``. Everything else stays whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from layerwatch.metrics.architecture.arrangement import Group, Part, Take, Tensors, rows
from layerwatch.metrics.architecture.facts import Facts
from layerwatch.metrics.tensors import Array, TensorInfo

ATTENTION = ("q_proj", "k_proj", "v_proj")
FEED_FORWARD = ("gate_proj", "up_proj")

PARTS_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("qkv_proj", "Wqkv", "query_key_value", "c_attn", "in_proj"), ATTENTION),
    "gate_up_proj": FEED_FORWARD,
}
"""What a fused module is taken apart into, by the last word of its name."""

_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "qkv_proj": ("o_proj",),
    "Wqkv": ("out_proj", "Wo"),
    "query_key_value": ("dense",),
    "c_attn": ("c_proj",),
}
"""The output projection beside a fused attention."""

_IN_TURN = frozenset({"gpt_neox", "bloom"})
_IN_GROUPS = frozenset({"falcon", "RefinedWeb", "RefinedWebModel"})
_SCALES = ("_scale", "_scale_inv")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which rows belong to which part.

    Attributes:
        names: of the parts, in the order of the rows.
        sizes: rows of each part.
        runs: how often the parts follow one another, each time with ``size / runs`` rows of each.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    runs: int = 1

    def takes(self) -> Sequence[tuple[str, int, Take]]:
        """Name, rows and way to the values of each part, along the first axis of a weight, a bias or a row scale."""
        shares = [size // self.runs for size in self.sizes]
        ends = list(accumulate(shares))
        return [
            (name, size, rows(end - share, end) if self.runs == 1 else self._run(end - share, end))
            for name, size, share, end in zip(self.names, self.sizes, shares, ends, strict=True)
        ]

    def _run(self, begin: int, end: int) -> Take:
        def take(values: Array) -> Array:
            others = values.shape[1:]
            return values.reshape(self.runs, -1, *others)[:, begin:end].reshape(-1, *others)

        return take


def take_fused_apart(tensors: Tensors, facts: Facts) -> Sequence[Group]:
    """Fused layers with their biases and scales, one tensor for each part."""
    groups = []
    for name, info in tensors.items():
        if len(info.shape) != 2 or 0 in info.shape:
            continue
        module, bias = _module(name)
        before, _, last = module.rpartition(".")
        if last not in PARTS_OF:
            continue
        prefix = f"{before}." if before else ""
        layout = _layout(prefix, last, info, tensors, facts)
        if layout is None or sum(layout.sizes) != info.shape[0]:
            continue
        together = [
            info,
            *(tensors[one] for one in (bias, *(name + end for end in _SCALES)) if one in tensors),
        ]
        group = dict(_apart(prefix, layout, together, info))
        if len(group) == len(together):
            groups.append(group)
    return groups


def _module(name: str) -> tuple[str, str]:
    """A weight's module and the name of its bias."""
    if name == "in_proj_weight" or name.endswith(".in_proj_weight"):
        return name.removesuffix("_weight"), name.removesuffix("weight") + "bias"
    module = name.removesuffix(".weight")
    # A linear layer called in_proj is another thing, of Mamba for one.
    return ("" if module == name or module.endswith("in_proj") else module), f"{module}.bias"


def _apart(
    prefix: str, layout: Layout, together: Sequence[TensorInfo], weight: TensorInfo
) -> Iterator[tuple[str, tuple[Part, ...]]]:
    count = weight.shape[0]
    for info in together:
        end = next((one for one in _SCALES if info.name == weight.name + one), None)
        kind = "weight" if info is weight else "bias" if end is None else f"weight{end}"
        if end is not None and prod(info.shape) == 1:
            yield info.name, tuple(Part(f"{prefix}{name}.{kind}", info.shape) for name in layout.names)
        elif info.shape[:1] == (count,):
            yield (
                info.name,
                tuple(
                    Part(f"{prefix}{name}.{kind}", (size, *info.shape[1:]), take)
                    for name, size, take in layout.takes()
                ),
            )


def _layout(prefix: str, last: str, info: TensorInfo, tensors: Tensors, facts: Facts) -> Layout | None:
    count, width = info.shape
    if last == "in_proj":
        return Layout(ATTENTION, (width,) * 3)
    if last == "gate_up_proj":
        down = tensors.get(f"{prefix}down_proj.weight")
        fits = down is not None and down.shape == (width, count // 2) and count % 2 == 0
        return Layout(FEED_FORWARD, (count // 2,) * 2) if fits else None
    if last == "query_key_value" and facts.gguf is None:
        return _by_head(count, width, facts)
    if last == "qkv_proj" and not prefix.endswith("self_attn."):
        return None
    if last == "c_attn" and facts.gguf is None and not _one_after_the_other(facts):
        return None
    return _behind_one_another(prefix, last, info, tensors)


def _one_after_the_other(facts: Facts) -> bool:
    if facts.model_type == "gpt_bigcode":
        return facts.config.get("multi_query", True) is True
    # GPT-2's own (inputs, outputs) were turned before; quantised, it is stored (outputs, inputs) to begin with.
    return facts.model_type in {"qwen", "gpt2"}


def _behind_one_another(prefix: str, last: str, info: TensorInfo, tensors: Tensors) -> Layout | None:
    count, width = info.shape
    beside = (tensors.get(f"{prefix}{name}.weight") for name in _OUTPUTS[last])
    output = next((one for one in beside if one is not None), None)
    if output is None or len(output.shape) != 2 or output.shape[0] != width:
        return None
    queries = output.shape[1]
    shared, odd = divmod(count - queries, 2)
    if odd or shared <= 0 or queries % shared:
        return None
    return Layout(ATTENTION, (queries, shared, shared))


def _by_head(count: int, width: int, facts: Facts) -> Layout | None:
    declared = facts.heads_of(0)
    if declared is None or width % declared[0]:
        return None
    heads, shared = declared
    if facts.model_type in _IN_TURN:
        shared = heads
    elif facts.model_type in _IN_GROUPS:
        shared = _falcon_groups(heads, shared, facts.config)
    else:
        return None
    size = width // heads
    sizes = (width, shared * size, shared * size)
    return Layout(ATTENTION, sizes, shared) if sum(sizes) == count else None


def _falcon_groups(heads: int, shared: int, config: Mapping[str, object]) -> int:
    """Keys of Falcon (``configuration_falcon.py``): one for all heads unless its newer form or its flag says otherwise."""
    if config.get("new_decoder_architecture", "n_head_kv" in config) is True:
        return shared
    return 1 if config.get("multi_query", True) is True else heads
