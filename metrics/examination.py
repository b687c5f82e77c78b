"""The examination of one version: everything the rules may look at, and the context they judge it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import log10, sqrt
from statistics import median
from typing import Any

from layerwatch.config.rules import SpectralDivisors, SpectralOutlierSettings
from layerwatch.metrics.census.remark import StorageRemark
from layerwatch.metrics.change import Change
from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.experts import ExpertGroup
from layerwatch.metrics.lineage import LineageEvidence
from layerwatch.metrics.measurement import ARRAYS, LayerKind, Measurement
from layerwatch.metrics.members import MemberVerdict
from layerwatch.metrics.merge import MergeEvidence
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rescaling import RescaledLayer, UnsharedRescaling

_TINY = 1e-300

FEW_LAYERS = 4
"""With fewer compared layers than this, a layer is held against the others instead of against all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a layer, or the whole version, could not be examined: closed reason and a sentence."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Resemblance:
    """Another layer of the baseline that a layer looks like.

    Attributes:
        layer: its name.
        cosine: between the two, estimated from sketches, -1..1.
    """

    layer: str
    cosine: float


@dataclass(frozen=True, slots=True)
class ExaminedLayer:
    """One layer or vector of the new version, beside its baseline.

    Attributes:
        measurement: scalar numbers (arrays dropped); None when it could not be examined.
        problem: why not, or None.
        baseline: the baseline's numbers for the layer of the same name, or None.
        change: comparison of the two; None without a baseline or where either is not finite.
        resembles: the layer of another name in the baseline that it is most like, where it is unlike its own.
    """

    name: str
    kind: LayerKind
    shape: tuple[int, ...]
    dtype: str
    measurement: Measurement | None
    problem: Problem | None = None
    baseline: Measurement | None = None
    change: Change | None = None
    resembles: Resemblance | None = None


@dataclass(frozen=True, slots=True)
class MissingLayer:
    """A layer that the baseline has and the new version lacks.

    Attributes:
        tied_to: a layer of the same numbers in the baseline that the version has; None where there is none.
    """

    name: str
    shape: tuple[int, ...]
    tied_to: str | None = None


@dataclass(frozen=True, slots=True)
class InPlaceChange:
    """The same version name held other bytes before.

    Attributes:
        previous_fingerprint, fingerprint: then and now.
        was_readable: whether the earlier bytes could be examined; a version that could not is likely to have
            been completed, not tampered with.
    """

    previous_fingerprint: str
    fingerprint: str
    was_readable: bool


class Regime(StrEnum):
    """How the new version relates to its baseline (detection study, section 10).

    ``aligned``: most layers point the same way and the median change is small; ``long``: the same after a long
    fine-tune; ``unaligned``: trained from another seed; ``unaligned_wide``: the same with a model-wide shift of
    the spectra; ``none``: there is no baseline.
    """

    NONE = "none"
    ALIGNED = "aligned"
    LONG = "long"
    UNALIGNED = "unaligned"
    UNALIGNED_WIDE = "unaligned_wide"

    @property
    def comparable(self) -> bool:
        """True where element-wise comparison means something."""
        return self in (Regime.ALIGNED, Regime.LONG)

    @property
    def is_wide(self) -> bool:
        """True where every spectrum of the version moved, and one layer must stand out more to be one."""
        return self in (Regime.LONG, Regime.UNALIGNED_WIDE)


@dataclass(frozen=True, slots=True)
class Context:
    """What is normal in this version: the values that single layers are held against.

    Attributes:
        aligned_share: share of compared layers with a cosine above max(0.3, 6/sqrt(elements)), at most 0.95,
            0..1.
        median_relative_change: over compared layers of equal shape, unchanged ones included.
        median_severity: of the spectral severity of those layers.
        median_log_norm_ratio: of log10(norm ratio) of those layers.
        severities: spectral severity by layer name.
        relative_changes, log_norm_ratios: what the medians were taken over, by layer name.
    """

    regime: Regime
    aligned_share: float
    median_relative_change: float
    median_severity: float
    median_log_norm_ratio: float
    severities: dict[str, float]
    relative_changes: dict[str, float] = field(default_factory=dict)
    log_norm_ratios: dict[str, float] = field(default_factory=dict)

    def relative_change_around(self, layer: str) -> float:
        """What is normal around a layer: the model's median, or that of the other layers where they are few."""
        return _around(layer, self.relative_changes, self.median_relative_change)

    def severity_around(self, layer: str) -> float:
        """The same for the spectral severity."""
        return _around(layer, self.severities, self.median_severity)

    @property
    def usual_log_norm_ratio(self) -> float:
        """log10 of the norm ratio that is normal here: the model's median, or none at all where layers are few.

        Of two layers that moved apart, either could be the one that was scaled; the one that kept its norm is
        not.
        """
        return self.median_log_norm_ratio if len(self.log_norm_ratios) >= FEW_LAYERS else 0.0


@dataclass(frozen=True, slots=True)
class LayerHistory:
    """How much the numbers of one layer moved from version to version, over the model's healthy history.

    Standard deviations of the last versions (detection study, section 5), in the units of the rules.

    Attributes:
        versions: number of versions they were taken over.
        log_norm, log_spectral_norm, log_stable_rank, log_effective_rank: of log10 of the squared Frobenius norm, the
            largest eigenvalue, the stable and the effective rank; all folded.
        log_kurtosis: of log10 of the kurtosis.
    """

    versions: int
    log_norm: float
    log_spectral_norm: float
    log_stable_rank: float
    log_effective_rank: float
    log_kurtosis: float


@dataclass(frozen=True, slots=True)
class Examination:
    """Input of the judge.

    Attributes:
        layers: layers with a spectrum, in file order.
        vectors: 1-D floating tensors, in file order.
        missing: layers and vectors of the baseline that are not there.
        has_baseline: whether a baseline was compared with at all.
        problem: why the whole version could not be examined, or None.
        baseline_problem: why a baseline that was asked for could not be examined, or None.
        in_place: set when the version's bytes changed under its name.
        relation: how the version came from its baseline, where that is declared.
        couplings, baseline_couplings: what the layers of each share (``coupling.py``).
        history: by layer name; empty where the model has none that is long and calm enough.
        history_remark: why it is empty, in a sentence; None where it is not, or nothing came before.
        permuted: names of layers whose units stand in another order, consistently (``carried.py``); their change is
            that after the order was undone.
        left_behind: names of layers that kept the old order where the others that share their units did not.
        not_shared: names of layers whose units stand in an order that no layer which shares them has.
        rescaled: layers and vectors with factors that others take back (``rescaled.py``); their change is that after the
            factors were undone.
        not_rescaled: layers and vectors that lack the factors which the others that share their units have.
        experts: mixtures of experts, one entry per group of sibling layers (``experts.py``).
        merge: how the version follows from the models that it was merged from; None where none are known.
        merge_remarks: why a declared merge could not be verified, in sentences.
        members: of a composite, with their verdicts (``members.py``).
        lineage: the declared parent beside the nearest known version (``lineage.py``); None where there are not both.
        remarks, baseline_remarks: what the storage of each contradicts (``census/``).
    """

    layers: tuple[ExaminedLayer, ...]
    vectors: tuple[ExaminedLayer, ...]
    missing: tuple[MissingLayer, ...]
    has_baseline: bool
    problem: Problem | None = None
    in_place: InPlaceChange | None = None
    baseline_problem: Problem | None = None
    relation: Relation | None = None
    couplings: tuple[Coupling, ...] = ()
    baseline_couplings: tuple[Coupling, ...] = ()
    history: Mapping[str, LayerHistory] = field(default_factory=dict)
    history_remark: str | None = None
    permuted: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    not_shared: tuple[str, ...] = ()
    rescaled: tuple[RescaledLayer, ...] = ()
    not_rescaled: tuple[UnsharedRescaling, ...] = ()
    experts: tuple[ExpertGroup, ...] = ()
    merge: MergeEvidence | None = None
    merge_remarks: tuple[str, ...] = ()
    members: tuple[MemberVerdict, ...] = ()
    lineage: LineageEvidence | None = None
    remarks: tuple[StorageRemark, ...] = ()
    baseline_remarks: tuple[StorageRemark, ...] = ()

    @property
    def everything(self) -> Iterable[ExaminedLayer]:
        """Layers, then vectors."""
        return (*self.layers, *self.vectors)

    @property
    def is_complete(self) -> bool:
        """True when everything that had to be examined was."""
        return self.problem is None and self.baseline_problem is None and not self.undecided

    @property
    def undecided(self) -> tuple[ExaminedLayer, ...]:
        """Layers and vectors that could not be examined."""
        return tuple(layer for layer in self.everything if layer.problem is not None)


def without_arrays(measurement: Measurement) -> Measurement:
    """The measurement's scalar part, which is what an examination keeps per layer."""
    nothing: dict[str, Any] = dict.fromkeys(ARRAYS)
    return replace(measurement, **nothing)


def context_of(examination: Examination, settings: SpectralOutlierSettings) -> Context:
    """Regime and medians of a version (detection study, section 10, "Context")."""
    compared = [layer for layer in examination.layers if layer.change and layer.change.aligned]
    if not examination.has_baseline or not compared:
        return Context(Regime.NONE, 0.0, 0.0, 0.0, 0.0, {})
    changes = [(layer, layer.change) for layer in compared if layer.change is not None]
    cosines = [(layer, change.aligned.cosine) for layer, change in changes if change.aligned is not None]
    known = [(layer, cosine) for layer, cosine in cosines if cosine is not None]
    aligned = [layer for layer, cosine in known if cosine > _alignment_floor(layer)]
    share = len(aligned) / len(known) if known else 0.0
    relative_changes = {
        layer.name: change.aligned.relative_change
        for layer, change in changes
        if change.aligned is not None and change.aligned.relative_change is not None
    }
    relative = _median(relative_changes.values())

    def severities_by(divisors: SpectralDivisors) -> dict[str, float]:
        return {
            layer.name: spectral_severity(change, divisors, examination.history.get(layer.name))
            for layer, change in changes
        }

    severities = severities_by(settings.divisors)
    # Nothing of another seed aligns by chance: where few layers are compared, one that does tells the lineage.
    if share >= 0.5 or (aligned and len(known) < FEW_LAYERS):
        regime = Regime.ALIGNED if relative < 0.2 else Regime.LONG
    else:
        regime = Regime.UNALIGNED_WIDE if _median(severities.values()) >= 0.6 else Regime.UNALIGNED
    if regime.is_wide:
        # Another recipe moves every effective rank (detection study, section 12, P2).
        wide = max(settings.divisors.log_effective_rank, settings.wide_log_effective_rank)
        severities = severities_by(settings.divisors.model_copy(update={"log_effective_rank": wide}))
    ratios = {
        layer.name: log10(change.norm_ratio)
        for layer, change in changes
        if change.norm_ratio and change.norm_ratio > _TINY
    }
    return Context(
        regime,
        share,
        relative,
        _median(severities.values()),
        _median(ratios.values()),
        severities,
        relative_changes,
        ratios,
    )


def spectral_severity(
    change: Change, divisors: SpectralDivisors, history: LayerHistory | None = None
) -> float:
    """How far a layer's spectrum moved, in units of the largest healthy move of each number; >= 0.

    The largest of seven quotients (detection study, section 10, "S"). A layer that changed shape has none.

    Args:
        change: of the layer.
        divisors: the largest healthy moves.
        history: where the layer moved further than that from one healthy version to the next, five of its
            standard deviations are the unit instead (section 5).
    """
    usual = _Usual(divisors, history)
    parts = [
        _log_part(change.norm_ratio, 2.0, usual.of("log_norm")),
        _log_part(change.spectral_ratio, 2.0, usual.of("log_spectral_norm")),
        _log_part(change.stable_rank_ratio, 1.0, usual.of("log_stable_rank")),
        _log_part(change.effective_rank_ratio, 1.0, usual.of("log_effective_rank")),
        _log_part(change.kurtosis_ratio, 1.0, usual.of("log_kurtosis")),
        max(0.0, change.rank_loss_shift or 0.0) / divisors.rank_loss,
    ]
    if change.esd_distance is not None and change.num_eigenvalues:
        # Below 1.63 sqrt(2/n) two samples of one law differ by chance (1 % point of the two-sample KS law).
        chance = 1.63 * (2.0 / change.num_eigenvalues) ** 0.5
        parts.append(change.esd_distance / max(divisors.esd_distance, chance))
    return float(max(parts))


@dataclass(frozen=True, slots=True)
class _Usual:
    divisors: SpectralDivisors
    history: LayerHistory | None

    def of(self, name: str) -> float:
        divisor = float(getattr(self.divisors, name))
        return divisor if self.history is None else max(divisor, 5.0 * float(getattr(self.history, name)))


def _log_part(ratio: float | None, power: float, divisor: float) -> float:
    if ratio is None or ratio <= _TINY:
        return 0.0
    return float(abs(power * log10(ratio)) / divisor)


def _alignment_floor(layer: ExaminedLayer) -> float:
    elements = 1
    for side in layer.shape:
        elements *= side
    # Six standard deviations of a chance cosine exceed any cosine at 36 elements and fewer.
    return min(0.95, max(0.3, 6.0 / sqrt(elements)))


def _around(layer: str, values: Mapping[str, float], overall: float) -> float:
    """A broken layer is the median, or half of it, where only a few were compared; then it does not count."""
    if len(values) >= FEW_LAYERS or layer not in values:
        return overall
    return _median(value for name, value in values.items() if name != layer)


def _median(values: Iterable[float]) -> float:
    listed: Sequence[float] = list(values)
    return float(median(listed)) if listed else 0.0
