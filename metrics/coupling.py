"""A coupling: a number that two or more layers of one trained network share, and that breaks when one is damaged.

It needs no parent: training leaves the units of consecutive layers, and the channels of a residual stream, in step
with each other (detection study, sections 8 and 13).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from layerwatch.metrics.unitplaces import UnitPlaces


class Side(StrEnum):
    """Where a layer takes part: with its outputs, its inputs, or its numbers as they are (a vector)."""

    OUTPUTS = "outputs"
    INPUTS = "inputs"
    VECTOR = "vector"


class CouplingKind(StrEnum):
    """What is coupled; formulas and sources: ``metrics/couplings/``, one file each."""

    BATCHNORM_STATISTICS = "batchnorm_statistics"
    BATCHNORM_INPUTS = "batchnorm_inputs"
    INTERFACE_UNITS = "interface_units"
    INTERFACE_NORMS = "interface_norms"
    FEED_FORWARD_UNITS = "feed_forward_units"
    FEED_FORWARD_NORMS = "feed_forward_norms"
    FEED_FORWARD_SIGNS = "feed_forward_signs"
    QUERY_KEY_UNITS = "query_key_units"
    QUERY_KEY_NORMS = "query_key_norms"
    QUERY_KEY_SIGNS = "query_key_signs"
    VALUE_OUTPUT_UNITS = "value_output_units"
    VALUE_OUTPUT_NORMS = "value_output_norms"
    VALUE_OUTPUT_SIGNS = "value_output_signs"
    STREAM_CHANNELS = "stream_channels"
    STREAM_PARTNERS = "stream_partners"
    STAGE_CHANNELS = "stage_channels"
    STAGE_PARTNERS = "stage_partners"
    GAIN_TO_READER = "gain_to_reader"
    BIAS = "bias"
    VOCABULARY = "vocabulary"
    POSITIONS = "positions"
    NEARNESS = "nearness"
    INPUT_MEANING = "input_meaning"
    OUTPUT_MEANING = "output_meaning"
    HEAD_ENTRIES = "head_entries"
    END_TO_END = "end_to_end"
    LOGIT_EFFECT = "logit_effect"
    TOKEN_EFFECT = "token_effect"

    @property
    def signed(self) -> bool:
        """True where the sign of one layer decides the sign of the coupling."""
        return self in _SIGNED

    @property
    def is_profile(self) -> bool:
        """True where the coupling is a profile that means the same in every training, and is compared as such."""
        return self in _PROFILES


_SIGNED = frozenset(
    {
        CouplingKind.BATCHNORM_STATISTICS,
        CouplingKind.FEED_FORWARD_SIGNS,
        CouplingKind.QUERY_KEY_SIGNS,
        CouplingKind.VALUE_OUTPUT_SIGNS,
        CouplingKind.BIAS,
        CouplingKind.NEARNESS,
        CouplingKind.HEAD_ENTRIES,
        CouplingKind.END_TO_END,
        CouplingKind.LOGIT_EFFECT,
        CouplingKind.TOKEN_EFFECT,
    }
)
_PROFILES = frozenset(
    {
        CouplingKind.INPUT_MEANING,
        CouplingKind.OUTPUT_MEANING,
        CouplingKind.END_TO_END,
        CouplingKind.LOGIT_EFFECT,
        CouplingKind.TOKEN_EFFECT,
    }
)


@dataclass(frozen=True, slots=True)
class Coupling:
    """One coupling of one version.

    Attributes:
        kind: what is coupled.
        layers: names of the layers and vectors that take part, the one that the coupling is about first.
        value: the coupling; a score in standard deviations of what chance gives, with its sign. For
            ``batchnorm_statistics`` a correlation, -1..1; for a profile its root mean square.
        slope: for ``batchnorm_statistics`` the slope of predicted on stored statistics; for relations of inputs and
            outputs the agreement of one half of the features with the other, in standard deviations; else None.
        units: number of units or channels it was taken over.
        sides: where each of the layers takes part, in the order of ``layers``.
        part: of a layer that holds several (queries, keys and values in one), which one; else empty.
        profile: numbers that mean the same in every training of the model, normalised; empty for other kinds.
        places: how the units find each other, one by one; None where that was not looked at.
    """

    kind: CouplingKind
    layers: tuple[str, ...]
    value: float
    slope: float | None = None
    units: int = 0
    sides: tuple[Side, ...] = ()
    part: str = ""
    profile: tuple[float, ...] = ()
    places: UnitPlaces | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The same in every version of a model."""
        return (self.kind, self.part, *self.layers)


def coupling_to_json(coupling: Coupling) -> dict[str, Any]:
    """A coupling as data: what the scan process sends and the store keeps."""
    places = coupling.places
    return {
        "kind": coupling.kind.value,
        "layers": list(coupling.layers),
        "value": coupling.value,
        "slope": coupling.slope,
        "units": coupling.units,
        "sides": [side.value for side in coupling.sides],
        "part": coupling.part,
        "profile": list(coupling.profile),
        "places": None if places is None else [places.displaced, places.reversed, places.clarity],
    }


def coupling_of(data: dict[str, Any]) -> Coupling:
    """The coupling of :func:`coupling_to_json`; raises ValueError, LookupError or TypeError."""
    if type(data["units"]) is not int or data["units"] < 0:
        raise TypeError("units must be a count")
    coupling = Coupling(
        kind=CouplingKind(data["kind"]),
        layers=tuple(_text(name) for name in data["layers"]),
        value=_number(data["value"]),
        slope=None if data["slope"] is None else _number(data["slope"]),
        units=data["units"],
        sides=tuple(Side(side) for side in data["sides"]),
        part=_text(data["part"]),
        profile=tuple(_number(value) for value in data["profile"]),
        # What was stored before units were looked at one by one has none.
        places=_places(data.get("places"), data["units"]),
    )
    if not coupling.layers or len(coupling.sides) != len(coupling.layers):
        raise ValueError("a coupling needs layers, and a side of each")
    if not _fits(coupling):
        raise ValueError("the profile of a coupling must have the numbers that its units call for")
    return coupling


def _fits(coupling: Coupling) -> bool:
    count, units = len(coupling.profile), coupling.units
    if coupling.kind in (CouplingKind.INPUT_MEANING, CouplingKind.OUTPUT_MEANING):
        return 2 * count == units * (units - 1)
    if coupling.kind is CouplingKind.END_TO_END:
        return units > 0 and count % units == 0
    return True


def _places(data: Any, units: int) -> UnitPlaces | None:
    if data is None:
        return None
    displaced, turned, clarity = data
    if any(type(count) is not int or not 0 <= count <= units for count in (displaced, turned)):
        raise TypeError("units out of place must be counts, of no more than there are")
    return UnitPlaces(displaced, turned, _number(clarity))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("must be text")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise TypeError("must be a finite number")
    return float(value)
