"""Builders of examination values: a healthy default, and only what a test is about spelled out."""

from __future__ import annotations

import math
from typing import Any

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.change import AlignedChange, Change, Method
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.examination import Examination, ExaminedLayer, Problem, context_of
from layerwatch.metrics.findings import Finding
from layerwatch.metrics.measurement import FitStatus, LayerKind, Measurement, SpectralNumbers
from layerwatch.metrics.outline import OutlineChange
from layerwatch.metrics.rowchange import RowChange
from layerwatch.metrics.rowmatching import Axis, Reordering
from layerwatch.metrics.rules import RULES, Rule
from layerwatch.metrics.storagefaults import StorageFault, StorageFaultKind

SHAPE = (64, 64)


def numbers(**other: Any) -> SpectralNumbers:
    """Spectral numbers of a healthy layer."""
    values: dict[str, Any] = {
        "num_eigenvalues": 64,
        "fit_status": FitStatus.OK,
        "alpha": 3.0,
        "alpha_sigma": 0.4,
        "ks_distance": 0.08,
        "xmin": 1.5,
        "tail_size": 25,
        "alpha_hat": 2.7,
        "log_norm": 1.8,
        "log_spectral_norm": 0.9,
        "log_alpha_norm": 2.9,
        "stable_rank": 8.0,
        "entropy": 0.9,
        "effective_rank": 40.0,
        "rank_loss": 0,
    }
    return SpectralNumbers(**(values | other))


def measurement(**other: Any) -> Measurement:
    """The scalar measurement of a healthy layer."""
    values: dict[str, Any] = {
        "digest": "00",
        "kind": LayerKind.LINEAR,
        "shape": SHAPE,
        "dtype": "F32",
        "non_finite": 0,
        "max_abs": 0.5,
        "norm": 8.0,
        "zero_share": 0.0,
        "kurtosis": 3.0,
        "numbers": numbers(),
        "folded": numbers(),
    }
    return Measurement(**(values | other))


def aligned(relative_change: float = 0.05, cosine: float | None = 0.999, **other: Any) -> AlignedChange:
    """Element-wise numbers of a light fine-tune."""
    values: dict[str, Any] = {"error": 0.0, "method": Method.EXACT}
    return AlignedChange(relative_change=relative_change, cosine=cosine, **(values | other))


def row_change(**other: Any) -> RowChange:
    """What both weights of a lightly fine-tuned layer tell row by row."""
    values: dict[str, Any] = {
        "rows": 64,
        "live_rows": 64,
        "low_rows": 0,
        "flipped_rows": 0,
        "row_norm_ratio": 1.02,
        "rescaled_row": 3,
        "reordering": None,
        "transposed_cosine": None,
        "spectral_change": 0.06,
        "noise_ratio": 3.0,
        "residual_kurtosis": 3.5,
        "gain": 1.0,
        "relative_perpendicular": 0.05,
    }
    return RowChange(**(values | other))


def reordering(**other: Any) -> Reordering:
    """All rows found at another place."""
    values: dict[str, Any] = {"axis": Axis.ROWS, "moved": 64, "examined": 64, "matched": 64, "block": None}
    return Reordering(**(values | other))


def storage_fault(kind: StorageFaultKind = StorageFaultKind.ZERO_POINT, **other: Any) -> StorageFault:
    """A fault of storage in groups of 32."""
    values: dict[str, Any] = {"axis": Axis.COLUMNS, "group": 32, "explained": 0.92}
    return StorageFault(kind=kind, **(values | other))


def outline(**other: Any) -> OutlineChange:
    """An outline that kept everything."""
    values: dict[str, Any] = dict.fromkeys(
        ("rows", "columns", "sorted_rows", "sorted_columns", "spectrum"), 0.0
    )
    values |= {"exchanged": None, "folded": False, "concentrations": None, "exchanged_concentrations": None}
    return OutlineChange(**(values | other))


def change(**other: Any) -> Change:
    """A change that means nothing."""
    values: dict[str, Any] = {
        "aligned": aligned(),
        "norm_ratio": 1.0,
        "max_abs_ratio": 1.0,
        "spectral_ratio": 1.0,
        "stable_rank_ratio": 1.0,
        "effective_rank_ratio": 1.0,
        "kurtosis_ratio": 1.0,
        "rank_loss_shift": 0.0,
        "esd_distance": 0.0,
        "num_eigenvalues": 64,
        "alpha_shift": 0.0,
        "alpha_shift_sigmas": 0.0,
        "new_zero_rows": 0,
        "new_zero_columns": 0,
        "rows": 64,
        "columns": 64,
        "emptied": False,
    }
    return Change(**(values | other))


def layer(name: str = "fc", **other: Any) -> ExaminedLayer:
    """A healthy layer beside its baseline."""
    values: dict[str, Any] = {
        "kind": LayerKind.LINEAR,
        "shape": SHAPE,
        "dtype": "F32",
        "measurement": measurement(),
        "baseline": measurement(),
        "change": change(),
    }
    return ExaminedLayer(name=name, **(values | other))


def new_layer(name: str = "fc", **other: Any) -> ExaminedLayer:
    """A healthy layer without a baseline."""
    return layer(name, **({"baseline": None, "change": None} | other))


def unreadable_layer(name: str = "fc", reason: str = "truncated") -> ExaminedLayer:
    """A layer that could not be examined."""
    problem = Problem(reason, "3 bytes are missing")
    return layer(name, measurement=None, change=None, problem=problem)


def vector(name: str = "fc.bias", kind: LayerKind = LayerKind.BIAS, **other: Any) -> ExaminedLayer:
    """A healthy 1-D tensor beside its baseline."""
    bare = measurement(kind=kind, shape=(64,), kurtosis=None, numbers=None, folded=None)
    unaligned = change(
        aligned=None, norm_ratio=None, spectral_ratio=None, stable_rank_ratio=None, esd_distance=None
    )
    values: dict[str, Any] = {"shape": (64,), "measurement": bare, "baseline": bare, "change": unaligned}
    return layer(name, kind=kind, **(values | other))


def examination(*layers: ExaminedLayer, **other: Any) -> Examination:
    """A version with these layers (those of one dimension become its vectors), compared with a baseline."""
    values: dict[str, Any] = {
        "layers": tuple(one for one in layers if len(one.shape) > 1),
        "vectors": tuple(one for one in layers if len(one.shape) == 1),
        "missing": (),
        "has_baseline": True,
    }
    return Examination(**(values | other))


def coupling(kind: CouplingKind, value: float, *layers: str, **other: Any) -> Coupling:
    """A coupling between the outputs of layers, over 64 units."""
    values: dict[str, Any] = {"units": 64, "sides": (Side.OUTPUTS,) * len(layers)}
    return Coupling(kind, layers, value, **(values | other))


def among_healthy(*layers: ExaminedLayer, **other: Any) -> Examination:
    """These layers in a version with four healthy ones."""
    return examination(*(layer(f"healthy{number}") for number in range(4)), *layers, **other)


def settings(rule: str, **values: Any) -> RulesSettings:
    """The default settings with some keys of one rule's section changed, validated as the file would be."""
    return RulesSettings.model_validate({rule: values})


def rule_named(name: str) -> Rule:
    """The rule of this name."""
    return next(rule for rule in RULES if rule.name == name)


def findings_of(name: str, found: Examination, rules: RulesSettings | None = None) -> list[Finding]:
    """What one rule says about a version, its evidence checked to be finite or None."""
    rules = rules or RulesSettings()
    findings = list(rule_named(name).check(found, context_of(found, rules.spectral_outlier), rules))
    for finding in findings:
        assert finding.rule == name
        assert finding.message
        assert finding.evidence
        assert math.isfinite(finding.strength)
        for value in finding.evidence.values():
            assert not isinstance(value, float) or math.isfinite(value)
    return findings
