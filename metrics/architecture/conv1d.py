"""GPT-2's layers, which its authors stored (inputs, outputs): turned over, and its fused attention taken apart.

transformers keeps them so (``pytorch_utils.Conv1D``); everybody else, GGUF among them, stores (outputs, inputs). That a
block is of this kind shows in the shape of its ``attn.c_attn``, (width, 3 x width), which holds queries, keys and
values one after the other. ``c_proj`` is square and says nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerwatch.metrics.architecture.arrangement import Group, Part, Take, Tensors, transposed
from layerwatch.metrics.architecture.facts import Facts
from layerwatch.metrics.architecture.fused import ATTENTION, Layout
from layerwatch.metrics.tensors import Array, TensorInfo

_ATTENTION = "attn.c_attn"
_OTHERS = ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def undo_conv1d(tensors: Tensors, facts: Facts) -> Sequence[Group]:
    """The blocks of GPT-2 as linear layers."""
    groups = []
    for name, info in tensors.items():
        before = name.removesuffix(f"{_ATTENTION}.weight")
        if before == name or (before and not before.endswith(".")):
            continue
        others = [tensors.get(f"{before}{one}.weight") for one in _OTHERS]
        output = others[0]
        if not _is_conv1d(info, output):
            continue
        turned = [one for one in others if one is not None and len(one.shape) == 2]
        if any(_is_scaled(one, tensors) for one in (info, *turned)):
            continue
        group: dict[str, tuple[Part, ...]] = {
            one.name: (Part(one.name, one.shape[::-1], transposed),) for one in turned
        }
        width = info.shape[0]
        takes = Layout(ATTENTION, (width,) * 3).takes()
        group[name] = tuple(
            Part(f"{before}attn.{part}.weight", (size, width), _of_transpose(take))
            for part, size, take in takes
        )
        bias = tensors.get(f"{before}{_ATTENTION}.bias")
        if bias is not None:
            if bias.shape != (3 * width,):
                continue
            group[bias.name] = tuple(
                Part(f"{before}attn.{part}.bias", (size,), take) for part, size, take in takes
            )
        groups.append(group)
    return groups


def _is_conv1d(attention: TensorInfo, output: TensorInfo | None) -> bool:
    if len(attention.shape) != 2 or 0 in attention.shape:
        return False
    width, outputs = attention.shape
    return outputs == 3 * width and output is not None and output.shape == (width, width)


def _is_scaled(info: TensorInfo, tensors: Tensors) -> bool:
    """Whether a scale per row belongs to it, which would have to be turned with it."""
    return any(info.name + end in tensors for end in ("_scale", "_scale_inv"))


def _of_transpose(take: Take) -> Take:
    def turned(values: Array) -> Array:
        return take(transposed(values))

    return turned
