"""What is kept of one layer beside its measurement: what it is, and why it could not be examined."""

from __future__ import annotations

from dataclasses import dataclass

from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.tensors import UnexaminedFile


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """One layer or vector of a content, or a file of it that was not examined.

    Attributes:
        shape: dimensions as stored; () for a file.
        dtype: type as stored.
        digest: key of its measurement; None when it could not be examined.
        problem_reason, problem_detail: why not, from a closed list and as a sentence, or None.
    """

    name: str
    kind: LayerKind
    shape: tuple[int, ...]
    dtype: str
    digest: str | None
    problem_reason: str | None = None
    problem_detail: str | None = None


def entry_of(measured: MeasuredLayer) -> LayerEntry:
    """The entry of one measured layer."""
    layer, problem = measured.layer, measured.problem
    return LayerEntry(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        digest=measured.digest,
        problem_reason=str(problem.reason) if problem else None,
        problem_detail=str(problem) if problem else None,
    )


def unexamined_entry(file: UnexaminedFile) -> LayerEntry:
    """A file in place of a layer: what cannot be examined is undecided, whatever it is."""
    return LayerEntry(
        name=file.name,
        kind=LayerKind.VECTOR,
        shape=(),
        dtype="",
        digest=None,
        problem_reason=str(file.reason),
        problem_detail=f"weights in {file.name} were not examined: {file.detail}",
    )
