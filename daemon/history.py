"""The healthy history of a model, out of the store: what is usual for each of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from sqlalchemy import Connection

from layerwatch.daemon.store import contents, measurements, versions
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.metrics.examination import LayerHistory, without_arrays
from layerwatch.metrics.history import (
    CALM_CHANGE,
    CALM_STEPS,
    MOST_VERSIONS,
    calm_versions,
    layer_histories,
    median_change,
)
from layerwatch.metrics.measurement import METRIC_SET, Measurement

_SAMPLED_LAYERS = 256
"""The median change of a step is taken over so many layers at most, spread evenly: sketches are large to read."""


@dataclass(frozen=True, slots=True)
class ModelHistory:
    """What is usual for a model.

    Attributes:
        layers: by layer name; empty while the history is immature.
        remark: why it is empty, in a sentence; None where it is not, or there is no earlier version at all.
    """

    layers: Mapping[str, LayerHistory] = field(default_factory=dict)
    remark: str | None = None


def load_history(connection: Connection, version: VersionRecord) -> ModelHistory:
    """The history of a model before one of its versions.

    Healthy versions of equal bytes count once, and those count whose measurements the store still holds.
    """
    known = _healthy_contents(connection, version)
    if not known:
        return ModelHistory()

    asked: dict[int, float | None] = {}

    def change(step: int) -> float | None:
        asked[step] = median_change(_pairs(connection, known[step], known[step + 1]))
        return asked[step]

    calm = calm_versions(len(known), change)
    if not calm:
        return ModelHistory(remark=_immature(len(known), asked.get(len(known) - 2)))
    return ModelHistory(layer_histories([_numbers(connection, content) for content in known[-calm:]]))


def _healthy_contents(connection: Connection, version: VersionRecord) -> list[ContentRecord]:
    """Oldest first."""
    key = version.key
    found: dict[str, ContentRecord] = {}
    # Copies and versions without numbers are passed over, so that a few more are looked at.
    before = versions.passing_before(
        connection, key.registry, key.model, version.order_key, limit=2 * MOST_VERSIONS
    )
    for one in before:
        content = contents.load(connection, one.fingerprint, METRIC_SET)
        if content is not None and content.file_problem is None:
            found.setdefault(one.fingerprint, content)
    return list(reversed(list(islice(found.values(), MOST_VERSIONS))))


def _pairs(
    connection: Connection, earlier: ContentRecord, later: ContentRecord
) -> Sequence[tuple[Measurement, Measurement]]:
    before = _digests(earlier)
    shared = [(before[name], digest) for name, digest in _digests(later).items() if name in before]
    step = max(1, -(-len(shared) // _SAMPLED_LAYERS))
    pairs = []
    for old, new in shared[::step]:
        first = measurements.load(connection, old)
        second = first if new == old else measurements.load(connection, new)
        if first is not None and second is not None:
            pairs.append((_sketch_only(first), _sketch_only(second)))
    return pairs


def _sketch_only(measurement: Measurement) -> Measurement:
    """The sketches of 256 layers are small, their spectra are not."""
    return replace(without_arrays(measurement), sketch=measurement.sketch)


def _numbers(connection: Connection, content: ContentRecord) -> dict[str, Measurement]:
    digests = _digests(content)
    found = measurements.load_scalars(connection, digests.values())
    return {name: found[digest] for name, digest in digests.items() if digest in found}


def _digests(content: ContentRecord) -> dict[str, str]:
    """Digests of the layers that have a spectrum, by name."""
    return {layer.name: layer.digest for layer in content.layers if layer.digest and len(layer.shape) > 1}


def _immature(count: int, last_change: float | None) -> str:
    needed = CALM_STEPS + 1
    if count < needed:
        versions_ = "1 healthy version" if count == 1 else f"{count} healthy versions"
        why = f"{versions_} before this one, {needed} are needed"
    elif last_change is not None and last_change >= CALM_CHANGE:
        why = f"the median layer still changed by {last_change:.2g} with the last version"
    else:
        why = (
            f"the last {CALM_STEPS} versions did not all change the median layer by less than {CALM_CHANGE:g}"
        )
    return f"Immature history ({why}): spectra were held against limits for all models, not against this one's own."
