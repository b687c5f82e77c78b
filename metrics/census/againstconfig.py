"""Sizes that ``config.json`` declares, against the tensors: blocks of layers, entries of the vocabulary, hidden size.

Keys: https://huggingface.co/docs/transformers/main_classes/configuration. Only what can mean one thing is compared: one
stack of blocks and one declared number of them, one embedding and one vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind
from layerwatch.metrics.tensors import TensorInfo

_STACKS = frozenset({"layers", "layer", "h", "blocks", "block", "blk"})
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_OTHER_BLOCKS = (
    "encoder_layers",
    "decoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
    "num_hidden_groups",
)
"""Where one of these is declared, there are several stacks, or blocks that share their weights."""
_MORE_BLOCKS = ("nextn", "mtp")
"""A key with one of these in it counts blocks that predict further tokens and stand behind the others."""
_EMBEDDINGS = frozenset(
    {
        "embed_tokens",
        "wte",
        "word_embeddings",
        "tok_embeddings",
        "token_embedding",
        "embed_in",
        "token_embd",
        "shared",
    }
)
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_OTHER_WIDTHS = ("emb", "dim", "width", "d_model", "hidden")
"""A key with one of these in it may be what the embedding is as wide as."""
_ADAPTED = re.compile(r"(^|\.)base_model\.model\.")
"""What PEFT puts in front of the names of an adapter, and of what was trained with it."""
_PADDING = 8
_MOST_PADDING = 1024
"""Embeddings are padded to a multiple of 8 (mamba), 64, 128 or 256, and by 8-fold model parallelism up to 1024."""
_READABLE = frozenset({"F64", "F32", "F16", "BF16"})
_LARGEST = 2**31
_SHOWN = 8


def sizes_against_config(
    tensors: Sequence[TensorInfo], config: Mapping[str, Any] | None
) -> Iterator[StorageRemark]:
    """Remarks about declared sizes that the tensors do not have.

    Args:
        tensors: of the model, each quantised layer as one.
        config: the content of ``config.json``, or None.
    """
    if not isinstance(config, Mapping):
        return
    # Adapters lie beside the configuration of the model that they belong to, in its directory or one of their own.
    tensors = [one for one in tensors if not _ADAPTED.search(one.name)]
    if any("lora_" in one.name for one in tensors):
        return
    inner = config.get("text_config")
    for_text = inner if isinstance(inner, Mapping) else config
    if inner is None:
        yield from _blocks(tensors, config)
    yield from _embedding(tensors, for_text)


def _blocks(tensors: Sequence[TensorInfo], config: Mapping[str, Any]) -> Iterator[StorageRemark]:
    declared = {number for key in _BLOCKS if (number := _whole(config.get(key))) is not None}
    if len(declared) != 1 or "vocab_size" not in config or any(key in config for key in _OTHER_BLOCKS):
        return
    (count,) = declared
    stacks: dict[str, set[int]] = {}
    for one in tensors:
        parts = one.name.split(".")
        place = next((place for place, part in enumerate(parts) if _is_number(part)), None)
        if place and parts[place - 1] in _STACKS:
            stacks.setdefault(".".join(parts[:place]), set()).add(int(parts[place]))
    if len(stacks) != 1:
        return
    ((stack, present),) = stacks.items()
    # Counted from one, as some converters do.
    if min(present) == 1 and len(present) == count == max(present):
        return
    above = [number for number in present if number >= count]
    gone = count - (len(present) - len(above))
    if gone > 0:
        named = [str(number) for number in islice((n for n in range(count) if n not in present), _SHOWN)]
        named += ["..."] * (gone > _SHOWN)
        yield StorageRemark(
            "",
            StorageRemarkKind.MISSING_BLOCKS,
            f"the configuration declares {count} blocks of layers, and {gone} of them have no tensor: {stack}."
            f"{', '.join(named)}",
            declared=str(count),
            stored=str(len(present) - len(above)),
        )
    more = sum(
        _whole(value) or 0 for key, value in config.items() if any(part in key for part in _MORE_BLOCKS)
    )
    if above and max(above) >= count + more:
        yield StorageRemark(
            "",
            StorageRemarkKind.EXTRA_BLOCKS,
            f"the configuration declares {count} blocks of layers, and there are {len(present)}, up to "
            f"{stack}.{max(present)}: those above are not used",
            declared=str(count),
            stored=str(len(present)),
        )


def _embedding(tensors: Sequence[TensorInfo], config: Mapping[str, Any]) -> Iterator[StorageRemark]:
    found = [
        one
        for one in tensors
        if len(one.shape) == 2
        and one.name.endswith(".weight")
        and one.name.removesuffix(".weight").rpartition(".")[2] in _EMBEDDINGS
    ]
    if len({one.shape for one in found}) != 1 or found[0].dtype not in _READABLE:
        return
    embedding = found[0]
    name = embedding.name.removesuffix(".weight")
    rows, columns = embedding.shape
    vocabulary = _whole(config.get("vocab_size"))
    if vocabulary is not None and rows < vocabulary:
        yield StorageRemark(
            name,
            StorageRemarkKind.VOCABULARY,
            f"the embedding has {rows} rows, the configuration declares a vocabulary of {vocabulary}: the last "
            f"{vocabulary - rows} tokens have no weights",
            declared=str(vocabulary),
            stored=str(rows),
        )
    elif vocabulary is not None and rows > vocabulary and not _is_padding(rows, vocabulary):
        yield StorageRemark(
            name,
            StorageRemarkKind.EXTRA_ROWS,
            f"the embedding has {rows} rows, the configuration declares a vocabulary of {vocabulary}; padding would "
            f"end at a multiple of {_PADDING}, at most {_MOST_PADDING} above",
            declared=str(vocabulary),
            stored=str(rows),
        )
    hidden = {number for key in _HIDDEN if (number := _whole(config.get(key))) is not None}
    others = {
        number
        for key, value in config.items()
        if any(part in key for part in _OTHER_WIDTHS) and (number := _whole(value)) is not None
    }
    if len(hidden) == 1 and columns not in others:
        (width,) = hidden
        yield StorageRemark(
            name,
            StorageRemarkKind.HIDDEN_SIZE,
            f"the embedding is {columns} wide, the configuration declares a hidden size of {width}",
            declared=str(width),
            stored=str(columns),
        )


def _is_padding(rows: int, vocabulary: int) -> bool:
    return rows % _PADDING == 0 and rows - vocabulary < _MOST_PADDING


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= 6


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 < value < _LARGEST else None
