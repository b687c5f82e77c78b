"""Factors that were moved from one layer into the next, consistently: the same network, although sizes differ.

AWQ and SmoothQuant divide what makes a unit by a factor and multiply what reads it; equalisation does so, too. Where
all who make a unit and all who read it have inverse factors (``rescalable.py`` tells who they are), and everything else
of a layer kept its size, nothing was done to the function. The layer is then compared as if the factors were undone. A
layer that does not have the factor that the others have is left as it is, and named.

All of it needs both weights: factors of a layer that was rescaled along both sides cannot be told from norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.change import AlignedChange, Change, Method
from layerwatch.metrics.coupling import Coupling, CouplingKind
from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.experts import ExpertGroup
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.rescalable import Bundle, Place, rescalable
from layerwatch.metrics.rescaling import RescaledLayer, Rescaling, UnsharedRescaling

_Floats = NDArray[np.float64]

_SHARE = 0.95
_TOLD = 0.75
"""Shares of the units that must agree, and whose factors must be known well enough to tell."""

_ERRORS = 4.0
_USUAL_ERRORS = 2.0
_STRAY = 3.0
"""Most units are within 4 standard errors, the middle one within 2, and none beyond three times the first."""

_KNOWN_TO = 0.35
"""A factor with a larger error than this says nothing."""

_STORED = 2.0**-8
"""Rounding to BF16, which a type that is stored later does not tell any more."""

_BORNE_OUT = 1.5
"""One with a larger error than that does not even bear out what another tells."""

_OF_ROUNDING = 0.25
_MOST_ROUNDING = 0.2
"""Rounding that clips makes rows and columns shorter by about this share of its own size, which counts up to 0.2."""

_LEAST = -30.0
_MOST_CLIPPED, _CLIPPED = 0.1, 4.0
"""It shortens what was made long the most: factors may differ by a tenth of their own size where rounding is coarse."""

_LOST = 0.5
"""A layer that differs by this from what it was, whatever the factors, is broken."""

_NEARER, _PLAINLY = 0.5, 5.0
"""Factors follow a pattern where they fit it better than one does, by this many standard errors."""

_SEEDS = 6
_MOVED = 0.01
_PLAIN, _BEYOND_ROUNDING = 0.05, 2.5
"""Factors that lie off one by the first of these have moved; by the second, and this many times what rounding does, others
must have them as well."""

_PAIR_EXPLAINED = 0.5
_PAIR_STILL = 0.25
_FEWEST_ROWS = 8
"""Of two alone: what share of one's change its factors must explain, and how much less the other
did."""

_BY_SIZE = frozenset(
    {
        CouplingKind.INTERFACE_NORMS,
        CouplingKind.FEED_FORWARD_NORMS,
        CouplingKind.QUERY_KEY_NORMS,
        CouplingKind.VALUE_OUTPUT_NORMS,
        CouplingKind.GAIN_TO_READER,
    }
)


@dataclass(frozen=True, slots=True)
class Rescaled:
    """What is known of factors that moved.

    Attributes:
        layers: all layers and vectors; those in ``carried`` compared as if their factors were undone.
        carried: layers and vectors whose factors others take back.
        unshared: those that lack the factor of the others that share their units.
    """

    layers: list[ExaminedLayer]
    carried: tuple[RescaledLayer, ...] = ()
    unshared: tuple[UnsharedRescaling, ...] = ()


def undo_rescalings(layers: Sequence[ExaminedLayer], exact: Mapping[str, AlignedChange]) -> Rescaled:
    """Compare consistently rescaled layers as if their factors were undone.

    Args:
        layers: layers and vectors beside their baseline, in file order.
        exact: element-wise comparisons at hand, by layer name.
    """
    if not any(one.unscaled is not None for one in exact.values()):
        return Rescaled(list(layers))
    tensors = _Tensors(layers, exact)
    bundles = [found for readings in rescalable(layers) if (found := _read(readings, tensors)) is not None]
    _fix_scales(bundles, tensors)
    for bundle in bundles:
        bundle.hold_scales()
    of_layer: dict[str, list[_Bundle]] = {}
    for bundle in bundles:
        for name in dict.fromkeys(carrier.layer for carrier in bundle.carriers):
            of_layer.setdefault(name, []).append(bundle)
    carried = [
        one
        for layer in layers
        if layer.name in of_layer and (one := _carried(layer, of_layer[layer.name], tensors)) is not None
    ]
    names = {one.layer for one in carried}
    unshared: dict[str, UnsharedRescaling] = {}
    pairs = sum(len(bundle.carriers) == 2 and bundle.is_shared and bundle.has_moved() for bundle in bundles)
    for bundle in bundles:
        for odd in bundle.odd(tensors, is_habit=pairs > 0):
            unshared.setdefault(odd.layer, odd)
    return Rescaled(
        [_unscaled(layer, exact.get(layer.name)) if layer.name in names else layer for layer in layers],
        tuple(carried),
        tuple(unshared[layer.name] for layer in layers if layer.name in unshared),
    )


def without_sizes(couplings: Sequence[Coupling], carried: Sequence[RescaledLayer]) -> tuple[Coupling, ...]:
    """The couplings, but for those that are about nothing but sizes of layers whose factors moved."""
    names = {one.layer for one in carried}
    return tuple(one for one in couplings if one.kind not in _BY_SIZE or names.isdisjoint(one.layers))


def with_sizes_undone(
    groups: Sequence[ExpertGroup], carried: Sequence[RescaledLayer]
) -> tuple[ExpertGroup, ...]:
    """The experts, with the baseline's norm for those whose factors others take back."""
    names = {one.layer for one in carried}
    return tuple(
        replace(
            group,
            experts=tuple(
                replace(one, norm=one.baseline_norm)
                if one.layer in names and one.baseline_norm is not None
                else one
                for one in group.experts
            ),
        )
        for group in groups
    )


@dataclass(slots=True)
class _Factors:
    """Logarithms of the factors of one tensor, with standard errors.

    Attributes:
        values, errors: by place.
        floor: what they may differ by for other reasons.
        shifted: of a vector's elements plus one.
        scale: what is to be added to those of rows and taken from those of columns; None while it is not known.
        supposed: whether nothing but another carrier tells the scale.
        size: relative change that is left when the factors are undone.
        explained: share of the squared change that they explain, 0..1.
        free: rows, columns or elements that no other tensor shares.
    """

    values: Mapping[Place, _Floats]
    errors: Mapping[Place, _Floats]
    floor: float
    shifted: _Floats | None = None
    scale: float | None = 0.0
    supposed: bool = False
    size: float = 0.0
    explained: float = 0.0
    free: dict[Place, NDArray[np.bool_]] = field(default_factory=dict)

    def of(self, place: Place) -> _Floats:
        turned = {Place.ROWS: 1.0, Place.COLUMNS: -1.0}.get(place, 0.0) * (self.scale or 0.0)
        return self.values[place] + turned

    def is_free(self, place: Place) -> NDArray[np.bool_]:
        return self.free.get(place, np.ones(len(self.values[place]), dtype=bool))


class _Tensors:
    """Factors of all tensors, read once."""

    def __init__(self, layers: Sequence[ExaminedLayer], exact: Mapping[str, AlignedChange]) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._exact = exact
        self._known: dict[str, _Factors | None] = {}

    def layer(self, name: str) -> ExaminedLayer:
        return self._layers[name]

    def explained(self, name: str) -> float:
        found = self._exact.get(name)
        return found.rescaling.explained if found is not None and found.rescaling is not None else 0.0

    def factors(self, name: str) -> _Factors | None:
        """None where they cannot be known."""
        if name not in self._known:
            self._known[name] = self._read(self._layers[name])
        return self._known[name]

    def _read(self, layer: ExaminedLayer) -> _Factors | None:
        new, old = layer.measurement, layer.baseline
        if new is None or old is None or layer.change is None or new.shape != old.shape:
            return None
        if new.folded_by is not None or old.folded_by is not None:
            return None
        sides = _sides(layer)
        if new.digest == old.digest:
            zeros = {place: np.zeros(length) for place, length in sides.items()}
            return _Factors(zeros, zeros, _STORED)
        exact = self._exact.get(layer.name)
        if exact is None:
            return None
        if exact.rescaling is not None:
            return _of_rescaling(exact, exact.rescaling, sides)
        if exact.relative_change is None or len(layer.shape) < 2:
            return None
        size = exact.relative_change
        zeros = {place: np.zeros(length) for place, length in sides.items()}
        across = {Place.ROWS: sides[Place.COLUMNS], Place.COLUMNS: sides[Place.ROWS]}
        errors = {
            place: np.full(length, size / sqrt(max(1, across[place]))) for place, length in sides.items()
        }
        return _Factors(zeros, errors, _STORED + _OF_ROUNDING * min(size, _MOST_ROUNDING), size=size)


def _sides(layer: ExaminedLayer) -> dict[Place, int]:
    if len(layer.shape) < 2:
        return {Place.ELEMENTS: prod(layer.shape)}
    return {Place.ROWS: layer.shape[0], Place.COLUMNS: prod(layer.shape[1:])}


def _of_rescaling(exact: AlignedChange, rescaling: Rescaling, sides: Mapping[Place, int]) -> _Factors | None:
    is_vector = Place.ELEMENTS in sides
    kept = (
        {Place.ELEMENTS: rescaling.rows}
        if is_vector
        else {Place.ROWS: rescaling.rows, Place.COLUMNS: rescaling.columns}
    )
    if any(len(kept[place]) != length for place, length in sides.items()):
        return None
    values = {place: one.values() for place, one in kept.items()}
    errors = {
        place: np.where(
            np.isfinite(values[place]), one.standard_errors() / np.exp(np.maximum(values[place], _LEAST)), 0.0
        )
        for place, one in kept.items()
    }
    if is_vector:
        shifted = rescaling.columns.values() if len(rescaling.columns) == len(rescaling.rows) else None
        return _Factors(values, errors, _STORED, shifted)
    size = exact.unscaled.relative_change if exact.unscaled is not None else None
    if size is None:
        return None
    floor = _STORED + _OF_ROUNDING * min(size, _MOST_ROUNDING)
    return _Factors(values, errors, floor, scale=None, size=size, explained=rescaling.explained)


@dataclass(slots=True)
class _Bundle:
    """Carriers of the same units and how their factors agree.

    Attributes:
        carriers: all of them.
        factors: of each.
        shifted: whether the gain multiplies with one plus itself.
        together: places of those in ``carriers`` whose factors have one pattern; empty where no more than half do.
        silent: places of those whose factors are not known well enough.
        apart: places of those whose scale is another one, of those that are together.
        pattern: the factors of the others, as logarithms, shape (units,): those of the one that is known best.
        tellers: how many carriers tell the factor of each unit, shape (units,).
        movers: how many of those that agree have plainly other factors than one; 0 where it is one alone.
    """

    carriers: Bundle
    factors: tuple[_Factors, ...]
    shifted: bool
    together: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()
    apart: frozenset[int] = frozenset()
    pattern: _Floats = field(default_factory=lambda: np.zeros(0))
    tellers: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    movers: int = 0

    @property
    def is_shared(self) -> bool:
        """Whether one pattern explains all that can be told."""
        return bool(self.together) and len(self.together) + len(self.silent) == len(self.carriers)

    def units(self, place: int) -> tuple[_Floats, _Floats]:
        """Factors of the units that a carrier implies, as those of readers, and errors; shape (units, per unit)."""
        carrier, factors = self.carriers[place], self.factors[place]
        values = factors.of(carrier.place)
        if self.shifted and place == 0 and factors.shifted is not None:
            values = factors.shifted
        found = values[carrier.positions]
        return (-found if carrier.makes else found), factors.errors[carrier.place][carrier.positions]

    def is_known(self, place: int) -> bool:
        """Whether the scale of a carrier's factors is known."""
        return self.factors[place].scale is not None

    def known(self) -> int:
        """How many of those that are together have a scale that is known."""
        return sum(self.is_known(place) for place in self.together)

    def find_pattern(self) -> None:
        """Which carriers have one pattern of factors, whatever its scale."""
        seeds = sorted(
            (place for place in range(len(self.carriers)) if self._tells(place)),
            key=lambda place: float(np.median(self.units(place)[1])),
        )
        best: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
        for seed in seeds[:_SEEDS]:
            told = {place: self._alike(seed, place) for place in range(len(self.carriers))}
            together = frozenset(place for place, alike in told.items() if alike)
            silent = frozenset(place for place, alike in told.items() if alike is None)
            if len(together) > len(best[0]):
                best = together, silent
            if len(together) + len(silent) == len(self.carriers) and together:
                break
        together, silent = best
        # A layer that is broken beyond recognition, which other rules tell, is no evidence against the one beside it.
        enough = len(together) > 1 or (silent and all(self.factors[place].size >= _LOST for place in silent))
        if enough and 2 * len(together) > len(self.carriers) - len(silent):
            self.together, self.silent = together, silent

    def _alike(self, seed: int, place: int) -> bool | None:
        values, errors = self.units(seed)
        others, theirs = self.units(place)
        if seed == place and others.shape[1] == 1:
            return True
        floor = self.factors[seed].floor + self.factors[place].floor
        clipped = min(_MOST_CLIPPED, _CLIPPED * floor) * np.abs(values[:, :1] - np.median(values))
        return _agree(others - values[:, :1], np.hypot(theirs, errors[:, :1]), floor + clipped, centred=True)

    def _tells(self, place: int) -> bool:
        """Whether a carrier's factors are known, and are factors at all."""
        values, errors = self.units(place)
        return bool(np.isfinite(values).all()) and not _untold(errors)

    def offsets(self) -> dict[int, float]:
        """How much larger the factors of those that are together are, as a whole, than those of one of them."""
        if not self.together:
            return {}
        first = self.best(self.together)
        reference = self.units(first)[0][:, :1]
        return {place: _middle(self.units(place)[0] - reference) for place in sorted(self.together)}

    def typical_offset(self, offsets: Mapping[int, float]) -> float | None:
        """The offset that most have, of those whose scale is known."""
        known = [offset for place, offset in offsets.items() if self.is_known(place)]
        return float(np.median(known)) if known else None

    def best(self, places: frozenset[int]) -> int:
        """The carrier whose factors are known best."""
        telling = sorted(place for place in places if self._tells(place)) or sorted(places)
        return min(telling, key=lambda place: float(np.median(self.units(place)[1])))

    def hold_scales(self) -> None:
        """Find those whose scale is another one than that of the others that are together."""
        offsets = self.offsets()
        usual = self.typical_offset(offsets)
        if usual is None or not all(self.is_known(place) for place in offsets):
            self.apart = self.together
            return
        apart = frozenset(
            place for place, offset in offsets.items() if not self._has_scale(place, offset - usual)
        )
        self.apart = self.together if 2 * len(apart) >= len(offsets) else apart
        agreeing = self.together - self.apart
        if agreeing:
            best = self.best(agreeing)
            self.pattern = self.units(best)[0][:, 0]
            # What is as near to one as to the others says that nothing moved.
            movers = (not self._is_still(best)) + sum(
                self._follows(place) for place in agreeing if place != best
            )
            self.movers = movers if movers >= min(2, len(agreeing)) else 0
            self.tellers = np.sum([self._bears_out(place).any(axis=1) for place in agreeing], axis=0)

    def _is_still(self, place: int) -> bool:
        values, errors = self.units(place)
        return _agree(values, errors, self.factors[place].floor, centred=False) is True

    def _has_scale(self, place: int, offset: float) -> bool:
        values, errors = self.units(place)
        floor = max(factors.floor for factors in self.factors)
        return abs(offset) <= 1.5 * floor + _ERRORS * float(np.median(errors)) / sqrt(len(values))

    def has_moved(self) -> bool:
        """Whether the carriers that agree have factors other than one."""
        borne_out = self.tellers >= min(2, len(self.together - self.apart))
        least = _PLAIN if self._is_activated() else _MOVED
        return self.movers > 0 and self._is_explained() and self._plainness(self.pattern[borne_out]) >= least

    def _plainness(self, pattern: _Floats) -> float:
        """How far factors are from one; from each other, where nothing tells their scale."""
        # A layer that grew as a whole is no reader that took a factor back.
        return _size(pattern if self._is_scale_held() else pattern - _middle(pattern))

    def _is_scale_held(self) -> bool:
        """Whether both a maker and a reader of the units tell the scale by themselves."""
        agreeing = self.together - self.apart
        telling = {self.carriers[place].makes for place in agreeing if not self.factors[place].supposed}
        return len(telling) == 2 and not self._is_activated()

    def _is_activated(self) -> bool:
        return any(carrier.activated for carrier in self.carriers)

    def _is_explained(self) -> bool:
        """Whether factors are most of what was done, where training may move both sides of a plain chain a little."""
        return not self._is_activated() or all(
            self.factors[place].explained >= _PAIR_EXPLAINED
            for place in self.together - self.apart
            if self.carriers[place].place is not Place.ELEMENTS
        )

    def _follows(self, place: int) -> bool:
        """Whether a carrier's factors are plainly nearer to those of the others than to one."""
        values, errors = self.units(place)
        others = np.broadcast_to(self.pattern[:, None], values.shape)
        told = np.isfinite(values) & np.isfinite(others) & (errors <= _KNOWN_TO)
        if not told.any():
            return False
        pattern = others[told]
        own, floor = values[told], self.factors[place].floor
        if not self._is_scale_held():
            pattern, own = pattern - _middle(pattern), own - _middle(own)
        weights = 1.0 / (np.square(errors[told]) + floor**2)
        square = float((weights * np.square(pattern)).sum())
        slope = float((weights * own * pattern).sum()) / square if square > 0.0 else 0.0
        return slope > _NEARER and slope * sqrt(square) > _PLAINLY

    def _bears_out(self, place: int) -> NDArray[np.bool_]:
        """Units whose factor a carrier has as well, as far as it tells, shape (units, per unit)."""
        values, errors = self.units(place)
        sizes = _ERRORS * errors
        with np.errstate(invalid="ignore"):
            near = np.abs(values - self.pattern[:, None]) <= sizes + 2.0 * self.factors[place].floor + _MOVED
        # Those that are known well were held against each other before.
        return np.asarray(np.isfinite(values) & ((sizes <= _KNOWN_TO) | (near & (sizes <= _BORNE_OUT))))

    def stands_alone(self, place: int) -> bool:
        """Whether a carrier has plain factors for units for which no other bears them out."""
        if len(self.together - self.apart) < 2:
            return False
        values, errors = self.units(place)
        alone = (self.tellers < 2)[:, None] & (_ERRORS * errors <= _KNOWN_TO)
        return bool(np.any(np.abs(values[alone]) > _KNOWN_TO))

    def odd(self, tensors: _Tensors, *, is_habit: bool) -> Iterator[UnsharedRescaling]:
        """Carriers that lack a factor that the others plainly have; ``is_habit`` where pairs elsewhere have theirs."""
        if not self.factors:
            return
        agreeing = sorted(self.together - self.apart)
        if len(self.carriers) == 2 and (self.apart or not self.is_shared):
            yield from self._odd_of_two(tensors, is_habit=is_habit)
        if len(agreeing) < 2:
            return
        has_pattern = self.movers > 0 and self._is_explained() and self._plainness(self.pattern) >= _PLAIN
        if not has_pattern and not is_habit:
            # Training moves a gain alone; a factor is missing only where there are any.
            return
        least = max(_PLAIN, _BEYOND_ROUNDING * max(factors.floor for factors in self.factors))
        first = self.carriers[agreeing[0]].layer
        for place, carrier in enumerate(self.carriers):
            if place in agreeing or place in self.silent:
                continue
            values, _ = self.units(place)
            size = _size(np.where(np.isfinite(values), values, 0.0) - self.pattern[:, None])
            if size >= least and (has_pattern or carrier.place is Place.ELEMENTS):
                yield UnsharedRescaling(carrier.layer, first, len(agreeing), size)

    def _odd_of_two(self, tensors: _Tensors, *, is_habit: bool) -> Iterator[UnsharedRescaling]:
        if self.apart and min(self._spread(0), self._spread(1)) >= _PLAIN:
            # One pattern, and one of them larger or smaller as a whole.
            for place, other in ((0, 1), (1, 0)):
                size = self._spread(other)
                yield UnsharedRescaling(self.carriers[place].layer, self.carriers[other].layer, 1, size)
            return
        # Rows that became longer or shorter are a fault of their own, but where such factors were moved elsewhere; for
        # columns the layer in front must have cared.
        for place, other in ((1, 0), (0, 1)) if is_habit else ((1, 0),):
            carrier = self.carriers[place]
            if (
                len(tensors.layer(carrier.layer).shape) < 2
                or tensors.layer(carrier.layer).shape[0] < _FEWEST_ROWS
            ):
                continue
            moved = self._spread(place)
            plain = moved >= _PLAIN and tensors.explained(carrier.layer) >= _PAIR_EXPLAINED
            if plain and self._spread(other) <= _PAIR_STILL * moved:
                yield UnsharedRescaling(self.carriers[other].layer, carrier.layer, 1, moved)

    def _spread(self, place: int) -> float:
        values, errors = self.units(place)
        told = values[np.isfinite(values) & (errors <= _KNOWN_TO)]
        if len(told) < 2:
            return 0.0
        spread = float(np.std(told)) ** 2 - float(np.median(errors)) ** 2
        return sqrt(max(0.0, spread))


def _read(readings: tuple[Bundle, ...], tensors: _Tensors) -> _Bundle | None:
    """The reading of a bundle that agrees best with itself; None where a factor is not known."""
    first: _Bundle | None = None
    for carriers in readings:
        found = [tensors.factors(carrier.layer) for carrier in carriers]
        known = tuple(one for one in found if one is not None)
        if len(known) < len(carriers):
            # Nobody is blamed for it and nobody excused: whoever has these units is left as it is.
            _occupy(carriers, found)
            return _Bundle(carriers, (), shifted=False)
        gain = tensors.layer(carriers[0].layer).kind is LayerKind.NORM and known[0].shifted is not None
        for shifted in (False, True) if gain else (False,):
            bundle = _Bundle(carriers, known, shifted)
            bundle.find_pattern()
            if first is None or (bundle.is_shared and not first.is_shared):
                first = bundle
        if first is not None and first.is_shared:
            break
    if first is not None:
        _occupy(first.carriers, first.factors)
    return first


def _occupy(carriers: Bundle, factors: Sequence[_Factors | None]) -> None:
    for carrier, one in zip(carriers, factors, strict=True):
        if one is not None:
            taken = one.is_free(carrier.place).copy()
            taken[carrier.positions.reshape(-1)] = False
            one.free[carrier.place] = taken


def _fix_scales(bundles: Sequence[_Bundle], tensors: _Tensors) -> None:
    """Settle how much of each layer's size belongs to its rows and how much to its columns.

    Rows, or columns, that nobody shares must have kept their size. Where all are shared, another carrier tells.
    """
    waiting: dict[str, _Factors] = {}
    for bundle in bundles:
        for carrier, one in zip(bundle.carriers, bundle.factors, strict=False):
            if one.scale is None:
                waiting[carrier.layer] = one
    for name, one in list(waiting.items()):
        for side, sign in ((Place.ROWS, -1.0), (Place.COLUMNS, 1.0)):
            left = one.values[side][one.is_free(side)]
            left = left[np.isfinite(left)]
            if len(left):
                one.scale = sign * float(np.median(left))
                del waiting[name]
                break
    settled = True
    while waiting and settled:
        settled = False
        # Where more carriers tell, one that is wrong tells less.
        for bundle in sorted(bundles, key=lambda one: -one.known()):
            if all(bundle.is_known(place) for place in bundle.together):
                continue
            offsets = bundle.offsets()
            usual = bundle.typical_offset(offsets)
            if usual is None:
                continue
            for place, offset in offsets.items():
                carrier, one = bundle.carriers[place], bundle.factors[place]
                if one.scale is not None or carrier.layer not in waiting:
                    continue
                sign = (1.0 if carrier.place is Place.ROWS else -1.0) * (-1.0 if carrier.makes else 1.0)
                one.scale = sign * (usual - offset)
                one.supposed = True
                del waiting[carrier.layer]
                settled = True


def _carried(layer: ExaminedLayer, bundles: Sequence[_Bundle], tensors: _Tensors) -> RescaledLayer | None:
    """The layer's factors, where all who share its units have the inverse ones and nothing else was rescaled."""
    factors = tensors.factors(layer.name)
    if factors is None or factors.scale is None or layer.change is None:
        return None
    if layer.change.aligned is not None and layer.change.aligned.method is Method.PERMUTED:
        return None
    if not any(bundle.factors and bundle.has_moved() for bundle in bundles):
        return None
    for bundle in bundles:
        own = {place for place, carrier in enumerate(bundle.carriers) if carrier.layer == layer.name}
        if not bundle.factors or not own <= bundle.together - bundle.apart:
            return None
        if any(bundle.stands_alone(place) for place in own):
            return None
    for side in factors.values:
        free = factors.is_free(side)
        values, errors = factors.of(side)[free][:, None], factors.errors[side][free][:, None]
        if free.any() and not _agree(values, errors, 2.0 * factors.floor, centred=False):
            return None
    told = [
        one
        for bundle in bundles
        for place, carrier in enumerate(bundle.carriers)
        if carrier.layer == layer.name
        for one in _range(*bundle.units(place), inverse=carrier.makes)
    ]
    # Nothing is undone where factors explain nothing.
    if not told or tensors.explained(layer.name) <= 0.0:
        return None
    assumed = any(one.activated for bundle in bundles for one in bundle.carriers if one.layer == layer.name)
    return RescaledLayer(layer.name, min(told), max(told), assumed)


def _range(values: _Floats, errors: _Floats, *, inverse: bool) -> tuple[float, ...]:
    told = values[np.isfinite(values) & (errors <= _KNOWN_TO)]
    if not len(told):
        return ()
    low, high = float(np.exp(told.min())), float(np.exp(told.max()))
    return (1.0 / high, 1.0 / low) if inverse else (low, high)


def _agree(differences: _Floats, errors: _Floats, floor: _Floats | float, *, centred: bool) -> bool | None:
    """Whether differences of logarithms, shape (units, ...), are no more than errors; None where these are too large.

    Args:
        floor: what they may be for other reasons; one number, or one per unit, shape (units, 1).
    """
    if _untold(errors):
        return None
    told = _ERRORS * errors <= _KNOWN_TO
    left = differences[told]
    if not np.isfinite(left).all():
        return False
    if centred:
        left = left - np.median(left)
    sizes, own, least = np.abs(left), errors[told], np.broadcast_to(floor, errors.shape)[told]
    limits = _ERRORS * own + least
    usual = 1.4826 * float(np.median(sizes))
    return bool(
        usual <= _USUAL_ERRORS * float(np.median(own)) + float(np.median(least)) / 2.0
        and np.count_nonzero(sizes > limits) <= max(1.0, (1.0 - _SHARE) * len(sizes))
        and np.all(sizes <= _STRAY * limits)
    )


def _untold(errors: _Floats) -> bool:
    return bool(np.mean(_ERRORS * errors <= _KNOWN_TO) < _TOLD)


def _middle(values: _Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _size(values: _Floats) -> float:
    """Root mean square."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(known)))) if len(known) else 0.0


def _unscaled(layer: ExaminedLayer, exact: AlignedChange | None) -> ExaminedLayer:
    change: Change | None = layer.change
    if change is None or exact is None or exact.rescaling is None:
        return layer
    undone = replace(
        change,
        aligned=exact.unscaled if len(layer.shape) >= 2 else AlignedChange(0.0, 1.0, 0.0, Method.RESCALED),
        # Sizes that the factors moved: what was done besides shows in the comparison above.
        norm_ratio=1.0,
        spectral_ratio=1.0,
        stable_rank_ratio=1.0,
        effective_rank_ratio=1.0,
        kurtosis_ratio=1.0,
        esd_distance=0.0,
        alpha_shift=0.0,
        alpha_shift_sigmas=0.0,
        max_abs_ratio=_largest(layer, exact.rescaling),
        row_norm_scatter=None,
        outline=None,
    )
    return replace(layer, change=undone, resembles=None)


def _largest(layer: ExaminedLayer, rescaling: Rescaling) -> float | None:
    if layer.measurement is None or rescaling.largest <= 0.0:
        return None
    return layer.measurement.max_abs / rescaling.largest
