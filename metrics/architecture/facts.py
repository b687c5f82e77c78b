"""What a model declares about its architecture, in ``config.json`` or in the key-value pairs of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LARGEST = 1 << 20

_MODEL = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KEYS_AND_VALUES = ("num_key_value_heads", "num_kv_heads", "n_head_kv")


@dataclass(frozen=True, slots=True)
class Facts:
    """Declared facts; each is None where it is not declared, or is no number that could be right.

    Attributes:
        gguf: ``general.architecture`` of a GGUF file; None for every other format.
        model_type: that of ``config.json``, of its text part where the model has several.
        heads: heads of attention: one number, or one for each block.
        key_value_heads: heads of keys and values, likewise; None also where they are as many as :attr:`heads`.
        config: the part of ``config.json`` that describes the text model; empty without one.
    """

    gguf: str | None
    model_type: str | None
    heads: int | tuple[int, ...] | None
    key_value_heads: int | tuple[int, ...] | None
    config: Mapping[str, Any]

    def heads_of(self, block: int) -> tuple[int, int] | None:
        """Heads of the queries, and of keys and values, in a block; None where they are not known."""
        heads = _at(self.heads, block)
        shared = heads if self.key_value_heads is None else _at(self.key_value_heads, block)
        return None if heads is None or shared is None or heads % shared else (heads, shared)


def facts_of(config: Mapping[str, Any] | None, metadata: Mapping[str, object], file_format: str) -> Facts:
    """The facts of an open model: from the pairs of a GGUF file, else from ``config.json``.

    Beside files of another format, whose names the tensors of a GGUF file do not take, its pairs say nothing: ggml's
    order of rows and its gains are not those of the other files.
    """
    architecture = metadata.get("general.architecture")
    if file_format == "gguf" and isinstance(architecture, str):
        heads = metadata.get(f"{architecture}.attention.head_count")
        shared = metadata.get(f"{architecture}.attention.head_count_kv")
        return Facts(architecture, None, _counts(heads), _counts(shared), {})
    text = config or {}
    nested = text.get("text_config")
    if isinstance(nested, Mapping) and not any(key in text for key in _MODEL):
        text = nested
    model_type = text.get("model_type")
    return Facts(
        None,
        model_type if isinstance(model_type, str) else None,
        _first(text, _MODEL),
        _first(text, _KEYS_AND_VALUES),
        text,
    )


def _first(config: Mapping[str, Any], keys: Sequence[str]) -> int | tuple[int, ...] | None:
    return next((found for key in keys if (found := _counts(config.get(key))) is not None), None)


def _counts(value: object) -> int | tuple[int, ...] | None:
    if _is_count(value):
        return value  # type: ignore[return-value]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and value:
        return tuple(value) if all(map(_is_count, value)) else None
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST


def _at(counts: int | tuple[int, ...] | None, block: int) -> int | None:
    if isinstance(counts, tuple):
        return counts[block] if block < len(counts) else None
    return counts
