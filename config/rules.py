"""Which checks run, how bad a violation is, and from where on it is one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from layerwatch.config.base import NO_SWITCH, PositiveNumber, SettingsModel, SeverityName, Share


class RuleSettings(SettingsModel):
    """What every rule has."""

    enabled: bool = True
    """Whether the rule is checked."""

    severity: SeverityName = "critical"
    """How bad a violation is."""


class NonFiniteSettings(RuleSettings):
    """NaN or infinite weights."""


class EmptiedLayerSettings(RuleSettings):
    """A layer, or a norm's gain, that is all zero."""


class ZeroRowsSettings(RuleSettings):
    """Rows or columns that were alive in the baseline and are exactly zero now."""

    row_share: Share = 0.02
    """Violated when at least this share of the rows became zero."""

    column_share: Share = 0.10
    """Violated when at least this share of the columns became zero."""


class HugeValueSettings(RuleSettings):
    """A largest weight far above the baseline's."""

    limit: PositiveNumber = 8.0
    """Violated when the largest absolute weight of a layer is more than this many times the baseline's."""

    vector_limit: PositiveNumber = 30.0
    """The same for vectors: biases, norms."""


class StructureChangedSettings(RuleSettings):
    """Layers that are missing, have another shape, or are new. ``severity`` is that of a missing layer."""

    changed_shape_severity: SeverityName = "warning"
    """How bad a layer with another shape is."""

    added_layer_severity: SeverityName = "info"
    """How bad a layer that the baseline did not have is."""


class RelativeChangeSettings(RuleSettings):
    """One layer changed far more than the others."""

    limit: PositiveNumber = 0.35
    """Violated above this relative change (norm of the difference over norm of the baseline) ..."""

    times_median: PositiveNumber = 4.0
    """... if it is also above this many times the median layer's."""


class ScaledSettings(RuleSettings):
    """One layer kept its direction but not its size."""

    cosine: Share = 0.95
    """Violated when the cosine to the baseline's layer is above this ..."""

    log10_norm_ratio: PositiveNumber = 0.45
    """... and log10 of the norm ratio is further than this from the median layer's."""


class SpectralDivisors(SettingsModel):
    """The change of each spectral number that counts as severity 1."""

    log_norm: PositiveNumber = 0.20
    """Change of log10 of the squared Frobenius norm."""

    log_spectral_norm: PositiveNumber = 0.35
    """Change of log10 of the largest eigenvalue."""

    log_stable_rank: PositiveNumber = 0.15
    """Change of log10 of the stable rank."""

    log_effective_rank: PositiveNumber = 0.08
    """Change of log10 of the effective rank."""

    esd_distance: PositiveNumber = 0.15
    """Kolmogorov-Smirnov distance of the eigenvalue densities; layers with few eigenvalues get a larger one."""

    rank_loss: PositiveNumber = 0.20
    """Growth of the share of lost rank."""

    log_kurtosis: PositiveNumber = 0.55
    """Change of log10 of the kurtosis of the weights."""


class SpectralOutlierSettings(RuleSettings):
    """One layer's spectrum changed far more than the others'."""

    severity_limit: PositiveNumber = 1.0
    """Violated when the layer's largest scaled spectral change is at least this ..."""

    times_median: PositiveNumber = 3.0
    """... and at least this many times the median layer's."""

    wide_severity_limit: PositiveNumber = 5.0
    """`severity_limit` where the whole version moved far from its baseline."""

    wide_times_median: PositiveNumber = 6.0
    """`times_median` where the whole version moved far from its baseline."""

    wide_log_effective_rank: PositiveNumber = 0.20
    """`divisors.log_effective_rank` where the whole version moved far from its baseline."""

    divisors: SpectralDivisors = SpectralDivisors()
    """The change of each spectral number that counts as severity 1."""


class ContentChangedInPlaceSettings(RuleSettings):
    """The bytes of a version that must not change did change."""


class UnreadableSettings(RuleSettings):
    """Something that had to be examined could not be."""

    severity: SeverityName = "warning"
    """How bad that is; the verdict is undecided in any case."""


class TailExponentSettings(RuleSettings):
    """The tail exponent alpha of a layer moved."""

    severity: SeverityName = Field(default="info", json_schema_extra={"enum": ["info", "warning"]})
    """How bad that is; critical is refused, because alpha alone is no alarm."""

    sigmas: PositiveNumber = 4.0
    """Violated when alpha moved by more than this many standard errors of the difference."""

    min_eigenvalues: Annotated[int, Field(ge=2), NO_SWITCH] = 50
    """Layers with fewer eigenvalues in the tail fit are left out."""

    @field_validator("severity")
    @classmethod
    def _never_critical(cls, severity: SeverityName) -> SeverityName:
        if severity == "critical":
            raise ValueError(
                "must not be critical: along healthy trainings alpha jumps by up to 21 in one layer, so alpha "
                "alone is no alarm; use info or warning"
            )
        return severity


class RulesSettings(SettingsModel):
    """All rules, by name.

    The thresholds are those of a study over healthy versions and injected faults; ``layerwatch explain RULE``
    tells more about each.
    """

    non_finite: NonFiniteSettings = NonFiniteSettings()
    emptied_layer: EmptiedLayerSettings = EmptiedLayerSettings()
    zero_rows: ZeroRowsSettings = ZeroRowsSettings()
    huge_value: HugeValueSettings = HugeValueSettings()
    structure_changed: StructureChangedSettings = StructureChangedSettings()
    relative_change: RelativeChangeSettings = RelativeChangeSettings()
    scaled: ScaledSettings = ScaledSettings()
    spectral_outlier: SpectralOutlierSettings = SpectralOutlierSettings()
    content_changed_in_place: ContentChangedInPlaceSettings = ContentChangedInPlaceSettings()
    unreadable: UnreadableSettings = UnreadableSettings()
    tail_exponent: TailExponentSettings = TailExponentSettings()
