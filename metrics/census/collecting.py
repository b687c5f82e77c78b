"""All remarks about the storage of one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from layerwatch.metrics.census.againstconfig import sizes_against_config
from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind
from layerwatch.metrics.census.siblings import unlike_siblings
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.quantised.declared import Configuration
from layerwatch.metrics.quantised.layer import Remark
from layerwatch.metrics.quantised.unpacked import UnpackedReader

MOST_REMARKS = 20_000
"""Of one model. Past that there is one thing to mend, and it was told 20,000 times."""

_MOST_PARTS = 3
"""Of a tensor that is taken apart: queries, keys and values. Of more (experts), the whole is told."""

_OWNERS = {
    "qzeros": "qweight",
    "g_idx": "qweight",
    "SCB": "weight",
    "weight_shape": "weight_packed",
    "absmax": "",
}
"""Parts that only a quantised layer has, and what holds its numbers."""


def census_of(
    unpacked: UnpackedReader,
    config: Mapping[str, Any] | None,
    shown: Mapping[str, Sequence[str]] | None = None,
) -> tuple[StorageRemark, ...]:
    """What contradicts what in the storage of a model, layers in the order of the file, then the model.

    Reads scales and zero points of quantised layers, one layer at a time, and no other weight.

    Args:
        unpacked: the open model.
        config: the content of its ``config.json``, or None.
        shown: names under which tensors are examined, by those under which they are stored, where there are others.
            A remark about one that is taken apart is made of each part, up to :data:`_MOST_PARTS`.
    """
    found = _census(unpacked, config)
    return tuple(islice(found if shown is None else _under_names(found, shown), MOST_REMARKS))


def _under_names(
    remarks: Iterator[StorageRemark], shown: Mapping[str, Sequence[str]]
) -> Iterator[StorageRemark]:
    for one in remarks:
        parts = shown.get(f"{one.layer}.weight", ()) or shown.get(one.layer, ())
        if not one.layer or not 0 < len(parts) <= _MOST_PARTS:
            yield one
            continue
        for part in parts:
            yield replace(one, layer=part.removesuffix(".weight"))


def _census(unpacked: UnpackedReader, config: Mapping[str, Any] | None) -> Iterator[StorageRemark]:
    yield from _code(unpacked)
    configuration = Configuration(config)
    for layer in unpacked.quantised:
        yield from (_of_layer(layer.name, one) for one in layer.remarks)
        try:
            found = unpacked.contradictions(layer, configuration)
        except UnreadableError:
            # Told when the layer's own turn comes.
            found = ()
        yield from (_of_layer(layer.name, one) for one in found)
        unpacked.release()
    yield from _without_numbers(unpacked)
    yield from unlike_siblings(unpacked, configuration)
    yield from sizes_against_config(unpacked.tensors(), config)


def _code(unpacked: UnpackedReader) -> Iterator[StorageRemark]:
    for one in unpacked.foreign_code:
        name = one.path.name.encode("utf-8", "backslashreplace").decode("utf-8")
        yield StorageRemark(
            "",
            StorageRemarkKind.CODE_IN_PICKLE,
            f"{name}: {one.sentence}",
            declared=name,
            stored=", ".join(one.names),
        )


def _of_layer(layer: str, remark: Remark) -> StorageRemark:
    return StorageRemark(
        layer, StorageRemarkKind(remark.kind.value), remark.detail, remark.declared, remark.stored
    )


def _without_numbers(unpacked: UnpackedReader) -> Iterator[StorageRemark]:
    """Parts of quantised layers whose numbers are not there."""
    names = {one.name for one in unpacked.tensors()}
    told: set[str] = set()
    for one in unpacked.tensors():
        owner, _, part = one.name.rpartition(".")
        if not owner or part not in _OWNERS:
            continue
        numbers = f"{owner}.{_OWNERS[part]}".rstrip(".")
        layer = owner.removesuffix(".weight")
        if numbers in names or layer in told:
            continue
        told.add(layer)
        yield StorageRemark(
            layer,
            StorageRemarkKind.MISSING_PART,
            f"{one.name} is there, and {numbers}, which holds the layer's numbers, is not",
            declared=numbers,
            stored="missing",
        )
