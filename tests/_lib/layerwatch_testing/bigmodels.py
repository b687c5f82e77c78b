"""Safetensors files too large to hold in memory: written tensor by tensor, with holes where nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_ITEM_BYTES = {"F32": 4, "BF16": 2}
_ROWS_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class BigTensor:
    """One tensor to be written.

    Attributes:
        name, shape: as in the file.
        dtype: ``F32`` or ``BF16``.
        seed: of its heavy-tailed values, or None for a hole, which reads as zeros and takes no room on the disk.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    seed: int | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes in the file."""
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


def write_big(path: Path, tensors: Sequence[BigTensor]) -> Path:
    """Write a safetensors file (https://huggingface.co/docs/safetensors, "Format"), tensors in given order.

    Never more than 16 MiB of a tensor are in memory.
    """
    header: dict[str, Any] = {}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.size_bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            if tensor.seed is None:
                file.seek(tensor.size_bytes, 1)
                continue
            for block in _blocks(tensor, tensor.seed):
                file.write(block.tobytes())
        file.truncate(8 + len(text) + end)
    return path


def write_shards(folder: Path, shards: Sequence[Sequence[BigTensor]]) -> Path:
    """Write a sharded model with its index, named as on the Hugging Face Hub; returns the folder."""
    folder.mkdir()
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_big(folder / name, tensors)
        weight_map |= {tensor.name: name for tensor in tensors}
    total = sum(tensor.size_bytes for tensors in shards for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@dataclass(frozen=True, slots=True)
class LlamaSizes:
    """Sizes of a LLaMA; the defaults are LLaMA-7B's (Touvron et al., arXiv:2302.13971, table 2): 6.7 billion numbers.

    Attributes:
        blocks: number of transformer blocks.
        wide: dimension.
        hidden: dimension inside the feed-forward networks.
        words: vocabulary.
    """

    blocks: int = 32
    wide: int = 4096
    hidden: int = 11008
    words: int = 32000


def llama(sizes: LlamaSizes, written: Mapping[str, int]) -> list[BigTensor]:
    """The tensors of a LLaMA in BF16, in file order, named as in transformers' ``LlamaForCausalLM``.

    Args:
        written: seeds of the tensors that hold numbers, by name; the others are holes.
    """
    wide, hidden, words = sizes.wide, sizes.hidden, sizes.words
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, wide)}
    for number in range(sizes.blocks):
        block = f"model.layers.{number}"
        shapes |= {f"{block}.self_attn.{part}_proj.weight": (wide, wide) for part in "qkvo"}
        shapes |= {f"{block}.mlp.{part}_proj.weight": (hidden, wide) for part in ("gate", "up")}
        shapes[f"{block}.mlp.down_proj.weight"] = (wide, hidden)
        shapes[f"{block}.input_layernorm.weight"] = (wide,)
        shapes[f"{block}.post_attention_layernorm.weight"] = (wide,)
    shapes["model.norm.weight"] = (wide,)
    shapes["lm_head.weight"] = (words, wide)
    unknown = set(written) - set(shapes)
    if unknown:
        raise ValueError(f"no such tensors: {', '.join(sorted(unknown))}")
    return [BigTensor(name, shape, "BF16", written.get(name)) for name, shape in shapes.items()]


def _blocks(tensor: BigTensor, seed: int) -> Iterator[NDArray[Any]]:
    """Rows of Gaussian numbers on heavy-tailed scales, so that the spectrum has a tail to fit."""
    random = np.random.default_rng(seed)
    columns = prod(tensor.shape[1:])
    rows = max(1, _ROWS_BYTES // (4 * columns))
    dtype = np.dtype(ml_dtypes.bfloat16) if tensor.dtype == "BF16" else np.dtype(np.float32)
    for begin in range(0, tensor.shape[0], rows):
        count = min(rows, tensor.shape[0] - begin)
        values = random.standard_normal((count, columns), dtype=np.float32)
        values *= (0.02 * random.pareto(4.0, (count, 1)) + 0.01).astype(np.float32)
        yield values.astype(dtype)
