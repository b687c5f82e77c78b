"""What files beside the weights say of a version's origin, and how far each is to be believed.

Everything here was written by whoever published the version: sizes are bounded, and what cannot be read is left out.

=========================== ========================================================================================
``lineage.json``            written for layerwatch, so it means what it says
``mergekit_config.yml``     written by the tool that made the merge; may hold ``path@revision`` and ``+lora``
``mergekit_moe_config.yml`` the same for a mixture of experts
``adapter_config.json``     PEFT: the name that the base was loaded by, and rarely its revision
``*.gguf``                  ``general.source.*`` is what was converted, ``general.base_model.*`` what its card named
``config.json``             ``_name_or_path`` beside a ``quantization_config``: whatever the weights were loaded from
=========================== ========================================================================================
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.registries.ggufheader import HEAD_BYTES, Value, general_pairs
from layerwatch.daemon.registries.lineagefile import (
    LINEAGE_FILE,
    MERGEKIT_FILE,
    MERGEKIT_MOE_FILE,
    parse_lineage,
    parse_mergekit,
    parse_mergekit_models,
)
from layerwatch.metrics.relation import Relation

_LOGGER = logging.getLogger(__name__)

ADAPTER_FILE = "adapter_config.json"
CONFIG_FILE = "config.json"
GGUF_SUFFIX = ".gguf"
GGUF_SOURCE = "gguf"

DECLARATION_FILES = (LINEAGE_FILE, MERGEKIT_FILE, MERGEKIT_MOE_FILE, ADAPTER_FILE, CONFIG_FILE)
"""In the order of how much they are believed."""

_CONFIDENCE = {
    LINEAGE_FILE: 1.0,
    MERGEKIT_FILE: 0.8,
    MERGEKIT_MOE_FILE: 0.8,
    ADAPTER_FILE: 0.6,
    GGUF_SOURCE: 0.6,
    # A model card is copied, inferred wrongly and not pinned (field study, 1.5).
    "card": 0.4,
    CONFIG_FILE: 0.3,
}
_USUAL = 0.5
_LEAST_FOR_BASELINE = 0.35

_MOST_JSON_BYTES = 4 * 2**20
_LONGEST_NAME = 1024
_MOST_BASES = 32
_FLOATING_FILE_TYPES = (0, 1, 32)
"""ggml's ALL_F32, MOSTLY_F16 and MOSTLY_BF16; every other file type is quantised."""

_REFUSALS = (ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError)


def declared_in(texts: Mapping[str, bytes]) -> tuple[DeclaredLineage, ...]:
    """The declarations in the files, the most reliable first; what cannot be read is told in the log.

    Args:
        texts: contents by name, of any of `DECLARATION_FILES`; of a ``.gguf`` file the first `HEAD_BYTES`.
    """
    found: list[DeclaredLineage] = []
    heads = sorted(name for name in texts if name.lower().endswith(GGUF_SUFFIX))
    for name in (*DECLARATION_FILES[:-1], *heads[:1], CONFIG_FILE):
        if name not in texts:
            continue
        read = _READERS.get(name, _read_gguf)
        try:
            found.extend(read(texts[name]))
        except _REFUSALS as error:
            _LOGGER.warning("%s is not used: %s", name, str(error).splitlines()[0] if str(error) else error)
    return tuple(found)


def confidence_of(declared: DeclaredLineage) -> float:
    """How far a declaration is to be believed, 0..1: its own word, or what is usual of its source."""
    return _CONFIDENCE.get(declared.source, _USUAL) if declared.confidence is None else declared.confidence


def for_baseline(declared: Sequence[DeclaredLineage]) -> DeclaredLineage | None:
    """The declaration that says what a version is judged against: the first that is fit for it, or None."""
    return next(
        (one for one in declared if one.is_baseline and confidence_of(one) >= _LEAST_FOR_BASELINE), None
    )


def _read_lineage_file(text: bytes) -> tuple[DeclaredLineage, ...]:
    return (parse_lineage(_bounded(text))[0],)


def _read_mergekit(text: bytes) -> tuple[DeclaredLineage, ...]:
    try:
        return (parse_mergekit(text),)
    except yaml.YAMLError:
        raise
    except _REFUSALS:
        # No recipe that can be checked; the models are told none the less.
        return parse_mergekit_models(text)


def _read_mixture(text: bytes) -> tuple[DeclaredLineage, ...]:
    return parse_mergekit_models(text, MERGEKIT_MOE_FILE)


def _read_adapter(text: bytes) -> tuple[DeclaredLineage, ...]:
    config = _object(text)
    base = _name(config.get("base_model_name_or_path"))
    if base is None:
        return ()
    revision = _name(config.get("revision"))
    parent = base if revision is None else f"{base}@{revision}"
    return (DeclaredLineage(parent, Relation.ADAPTER, ADAPTER_FILE),)


def _read_config(text: bytes) -> tuple[DeclaredLineage, ...]:
    config = _object(text)
    if not isinstance(config.get("quantization_config"), Mapping):
        return ()
    base = _name(config.get("_name_or_path"))
    return () if base is None else (DeclaredLineage(base, Relation.QUANTIZED, CONFIG_FILE),)


def _read_gguf(head: bytes) -> tuple[DeclaredLineage, ...]:
    pairs = general_pairs(head[:HEAD_BYTES])
    is_adapter = pairs.get("general.type") == "adapter"
    file_type = pairs.get("general.file_type")
    converted = None
    if isinstance(file_type, int) and file_type not in _FLOATING_FILE_TYPES:
        converted = Relation.QUANTIZED
    found = []
    source = _address(pairs, "general.source") or _name(pairs.get("general.source.huggingface.repository"))
    if source is not None and not is_adapter:
        found.append(DeclaredLineage(source, converted, GGUF_SOURCE))
    count = pairs.get("general.base_model.count", 0)
    bases = []
    for number in range(min(count, _MOST_BASES) if isinstance(count, int) else 0):
        key = f"general.base_model.{number}"
        base = _address(pairs, key)
        if base is None and (name := _name(pairs.get(f"{key}.name"))) is not None:
            owner = _name(pairs.get(f"{key}.organization"))
            base = name if owner is None else f"{owner}/{name}"
        bases += [] if base is None or base == source else [base]
    relation = Relation.ADAPTER if is_adapter else Relation.MERGED if len(bases) > 1 else None
    # Cards are copied from what was converted: a quantised merge names what went into the merge.
    fit = is_adapter or (source is None and len(bases) == 1)
    found += [DeclaredLineage(base, relation, GGUF_SOURCE, confidence=0.5, is_baseline=fit) for base in bases]
    return tuple(found)


def _address(pairs: Mapping[str, Value], key: str) -> str | None:
    return _name(pairs.get(f"{key}.repo_url")) or _name(pairs.get(f"{key}.url"))


def _object(text: bytes) -> Mapping[str, Any]:
    found = json.loads(_bounded(text))
    if not isinstance(found, Mapping):
        raise TypeError("not a JSON object")
    return found


def _bounded(text: bytes) -> bytes:
    if len(text) > _MOST_JSON_BYTES:
        raise ValueError(f"larger than {_MOST_JSON_BYTES // 2**20} MiB")
    return text


def _name(value: object) -> str | None:
    """A name that can be looked up, or None for anything else; raises ValueError for what is no text at all."""
    if not isinstance(value, str) or not value.strip(" ./"):
        return None
    value.encode()
    if len(value) > _LONGEST_NAME:
        raise ValueError(f"a name is longer than {_LONGEST_NAME} characters")
    return value.strip()


_READERS: Mapping[str, Callable[[bytes], tuple[DeclaredLineage, ...]]] = {
    LINEAGE_FILE: _read_lineage_file,
    MERGEKIT_FILE: _read_mergekit,
    MERGEKIT_MOE_FILE: _read_mixture,
    ADAPTER_FILE: _read_adapter,
    CONFIG_FILE: _read_config,
}
