"""A coupling: a number that two or more layers of one trained network share, and that breaks when one is damaged.

It needs no parent: training leaves the units of consecutive layers, and the channels of a residual stream, in step
with each other (detection study, sections 8 and 13).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CouplingKind(StrEnum):
    """What is coupled; formulas and sources: ``metrics/couplings/``, one file each."""

    BATCHNORM_STATISTICS = "batchnorm_statistics"
    INTERFACE = "interface"
    FFN_UNITS = "ffn_units"
    FFN_NORMS = "ffn_norms"
    QUERY_KEY_UNITS = "query_key_units"
    QUERY_KEY_NORMS = "query_key_norms"
    VALUE_OUTPUT_UNITS = "value_output_units"
    VALUE_OUTPUT_NORMS = "value_output_norms"
    GAIN_TO_READER = "gain_to_reader"
    WRITERS = "writers"
    WRITER_TO_GAIN = "writer_to_gain"


@dataclass(frozen=True, slots=True)
class Coupling:
    """One coupling of one version.

    Attributes:
        kind: what is coupled.
        layers: names of the layers and vectors that take part, the one that the coupling is about first.
        value: the coupling; its range and meaning belong to the kind (a correlation -1..1, or a score in standard
            deviations of what chance gives).
        slope: for ``batchnorm_statistics`` the slope of predicted on stored statistics, else None.
        units: number of units or channels it was taken over.
    """

    kind: CouplingKind
    layers: tuple[str, ...]
    value: float
    slope: float | None = None
    units: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """The same in every version of a model."""
        return (self.kind, *self.layers)
