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

    for_scans: Annotated[int, Field(ge=1), NO_SWITCH] = 1
    """Tell people only when so many scans in a row found it, each of what the ref then pointed at."""


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


class ZeroTailSettings(RuleSettings):
    """A tensor that ends in zeros where its baseline did not."""

    min_elements: Annotated[int, Field(ge=2), NO_SWITCH] = 32
    """Violated when at least this many elements at the end are zero ..."""

    share: Share = 0.005
    """... and more than this share of the tensor ..."""

    energy: Share = 0.20
    """... and the baseline had more than this share of its average energy there."""


class DuplicateRowsSettings(RuleSettings):
    """Rows that became copies of other rows of their layer."""

    min_rows: Annotated[int, Field(ge=1), NO_SWITCH] = 2
    """Violated when so many rows more than in the baseline are copies of another one."""


class FewLevelsSettings(RuleSettings):
    """A handful of different values is left of a layer that held many."""

    levels: PositiveNumber = 4.0
    """Violated when the median row holds at most this many different values ..."""

    baseline_levels: PositiveNumber = 16.0
    """... and held more than this many in the baseline."""

    model_levels: PositiveNumber = 16.0
    """A warning when most layers hold at most this many, and held more than twice as many in the baseline."""


class RankLostSettings(RuleSettings):
    """Most of a layer's singular values became zero."""

    share: Share = 0.2
    """Violated when the share of singular values that are zero to rounding rose by at least this."""


class SparsitySettings(RuleSettings):
    """One layer lost most of its weights."""

    rise: Share = 0.75
    """Violated when the share of weights that are exactly zero rose by more than this."""


class VectorResetSettings(RuleSettings):
    """A vector (bias, norm, running statistic) that was reset or rescaled."""

    norm_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False), NO_SWITCH] = 3.2
    """Violated when the norm changed by more than this many times, up or down; or when all became equal."""

    extreme_norm_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False), NO_SWITCH] = 100.0
    """Above this it is as bad after a long fine-tune or a retrain as after a short one."""

    min_elements: Annotated[int, Field(ge=1), NO_SWITCH] = 8
    """Shorter vectors are left out."""


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


Count = Annotated[int, Field(ge=1), NO_SWITCH]
"""A number of rows or columns."""


class SwappedSettings(RuleSettings):
    """One layer holds the weights of another layer of the baseline."""

    cosine: Share = 0.8
    """Violated when the cosine to another layer of the baseline is above this."""


class TransposedSettings(RuleSettings):
    """One layer is the baseline transposed."""

    cosine: Share = 0.6
    """Violated when the cosine to the transposed layer of the baseline is above this."""


class SignFlippedSettings(RuleSettings):
    """Rows, or one whole layer, with the opposite sign."""

    cosine: Share = 0.5
    """Violated when the cosine to the baseline's layer is below minus this ..."""

    least_rows: Count = 1
    """... or when at least this many live rows point the opposite way."""


class OrderNotUndoneSettings(RuleSettings):
    """Rows or columns in the order in which they were packed."""

    least: Count = 8
    """Violated when at least this many are found elsewhere in their run of 8, 16, .. 128."""


class PermutedSettings(RuleSettings):
    """Rows or columns of one layer stand at another place."""

    least: Count = 2
    """Violated when at least this many rows (columns) are found elsewhere ..."""

    share: Share = 0.5
    """... and at least this share of those that no longer look like their own."""


class ZeroPointSettings(RuleSettings):
    """The weights of one layer are off by one constant per group."""

    explained: Share = 0.8
    """Violated when one constant per group explains more than this share of the squared change."""


class ScalesShiftedSettings(RuleSettings):
    """Groups of weights have the scale of their neighbour."""

    explained: Share = 0.5
    """Violated when one factor per group explains more than this share of the squared change."""


class GroupScalesSettings(RuleSettings):
    """Groups of weights have a wrong scale each."""

    explained: Share = 0.5
    """Violated when one factor per group explains more than this share of the squared change."""


class ReplacedSettings(RuleSettings):
    """One layer has nothing in common with the baseline's."""

    cosine: Share = 0.3
    """Violated when the cosine to the baseline's layer is below this ..."""

    median_cosine: Share = 0.6
    """... while the median of the others is above this."""


class RowsReplacedSettings(RuleSettings):
    """Some rows of one layer are others now."""

    share: Share = 0.02
    """Violated when more than this share of the live rows has a cosine below 0.5, and the median layer has less."""


class RowScalesSettings(RuleSettings):
    """One row changed its norm."""

    limit: PositiveNumber = 3.2
    """Violated when a live row is more than this many times longer or shorter than the baseline's."""

    scatter: PositiveNumber = 0.05
    """Violated, too, when the logarithms of the ratios of the row norms scatter by more than this ..."""

    times_median: PositiveNumber = 6.0
    """... if that is also above this many times the median layer's."""


class SpectralChangeSettings(RuleSettings):
    """One layer changed far in one direction."""

    limit: PositiveNumber = 0.45
    """Violated when the largest singular value of the change is above this share of the baseline's ..."""

    times_median: PositiveNumber = 4.0
    """... if it is also above this many times the median layer's."""


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

    unaligned_severity_limit: PositiveNumber = 2.0
    """After a retrain from another seed a violation below this is a warning ..."""

    unaligned_times_median: PositiveNumber = 6.0
    """... and below this many times the median layer's ..."""

    unaligned_warning_share: Share = 0.9
    """... and nothing at all below this share of both."""

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


class ExportDiffersSettings(RuleSettings):
    """A re-export that is not bit-identical, or a cast that did more than round."""


class UnrelatedToParentSettings(RuleSettings):
    """A version that is declared to come from its parent and does not point the parent's way."""

    aligned_share: Share = 0.5
    """Violated when less than this share of the layers points the parent's way."""


class LineageContradictedSettings(RuleSettings):
    """A version whose weights come from another version than the declared one."""

    severity: SeverityName = "warning"
    """How bad a violation is."""

    unrelated: Share = 0.3
    """Violated when the cosine to the declared parent is below this ..."""

    related: Share = 0.5
    """... and that to the nearest known version above this ..."""

    ratio: PositiveNumber = 2.0
    """... or when a conversion lies so many times nearer to that one."""


class MergeRecipeSettings(RuleSettings):
    """A merge that was not made by its recipe, in one layer or in all."""

    coefficient: PositiveNumber = 0.25
    """A parent's share in a layer may differ by so much from the others, where a method drops elements (TIES, DARE)."""

    explained_share: Share = 0.5
    """From this share of layers that follow a recipe on, every layer must follow it."""


class MergeNormCollapseSettings(RuleSettings):
    """A merge of models that have nothing in common."""

    unsure_severity: SeverityName = "warning"
    """How bad it is where the parents are not known and no merge is declared."""

    parents_cosine: Share = 0.5
    """Violated below this cosine between two parents."""

    norm_ratio: Share = 0.85
    """Without parents: a layer collapsed below this part of the baseline's norm ..."""

    perpendicular: PositiveNumber = 0.25
    """... with more than this part of the baseline's norm turned away from it."""

    min_layers: Annotated[int, Field(ge=1), NO_SWITCH] = 2
    """Without parents: so many layers at least."""


class MergeWrongBaseSettings(RuleSettings):
    """A merge whose parents were not made from the base."""

    base_cosine: Share = 0.5
    """Violated below this cosine between a parent and the base."""


class MergeOvercountedSettings(RuleSettings):
    """What a parent learned, counted more than once."""

    shared_severity: SeverityName = "warning"
    """How bad it is that what several parents share was added up."""

    coefficient: PositiveNumber = 1.5
    """Violated when one parent's change counts more often than this, and than declared."""

    task_cosine: Share = 0.3
    """Parents share what they learned from this cosine of their changes on ..."""

    amplification: PositiveNumber = 1.5
    """... and it was added up when the version lies this many times as far from the base as they do."""


class MergeSignConflictSettings(RuleSettings):
    """Parents whose changes cancel each other."""

    severity: SeverityName = "warning"
    """How bad that is."""

    share: Share = 0.58
    """Violated when more than this share of the elements changed in opposite directions."""


class ExpertDuplicateSettings(RuleSettings):
    """Two experts of a mixture that are one and the same."""

    unsure_severity: SeverityName = "warning"
    """How bad that is without a baseline."""

    cosine: Share = 0.999
    """Violated above this cosine between two experts."""


class ExpertOutlierSettings(RuleSettings):
    """An expert, or a router's row for it, that is unlike its siblings."""

    unsure_severity: SeverityName = "warning"
    """How bad that is without a baseline."""

    factor: Annotated[float, Field(gt=1, allow_inf_nan=False), NO_SWITCH] = 1.5
    """Violated when an expert's norm is further than this factor from the median of its siblings."""


class AdapterWrongBaseSettings(RuleSettings):
    """An adapter that does not fit the model that it is declared to belong to."""

    absent_severity: SeverityName = "warning"
    """How bad it is that some of its layers, not all, are missing in the base."""


class AdapterNoOpSettings(RuleSettings):
    """An adapter, or a part of one, that changes nothing."""

    severity: SeverityName = "warning"
    """How bad that is."""


class MemberFailedSettings(RuleSettings):
    """A composite with a member that failed, is missing, or is another version than before."""

    unsure_severity: SeverityName = "warning"
    """How bad a member is that warns, is undecided, missing, or not judged yet."""

    changed_severity: SeverityName = "info"
    """How bad it is that a member is another version now."""


class BeyondConversionSettings(RuleSettings):
    """A layer that a quantisation changed more than it changed the others, and more than it can."""

    times_median: PositiveNumber = 1.7
    """Violated above this many times the change of the others, and above what the type explains."""

    mixed_severity: SeverityName = "warning"
    """How bad it is where the layer is stored in fewer levels than the others."""

    min_layers: Annotated[int, Field(ge=1), NO_SWITCH] = 3
    """So many other layers must have changed."""


class StructuredRoundingSettings(RuleSettings):
    """A layer that a quantisation changed by more than rounding, hidden below the size of its errors."""

    times_median: PositiveNumber = 1.2
    """Violated above this many times the structure of the others' errors, and above ``least``."""

    critical_times_median: PositiveNumber = 1.4
    """The same, from where on it is sure."""

    feedback_times_median: PositiveNumber = 1.6
    """The same where the errors of the whole version have structure, as those of GPTQ have."""

    least: PositiveNumber = 0.9
    """Never violated below this share of the largest row and column norms together."""

    doubtful_severity: SeverityName = "warning"
    """How bad it is where it is not sure."""

    min_layers: Annotated[int, Field(ge=1), NO_SWITCH] = 3
    """So many other layers must have changed."""


class NoiseLikeSettings(RuleSettings):
    """Weights that changed by noise, as lossy compression does."""

    severity: SeverityName = "warning"
    """How bad that is."""

    limit: PositiveNumber = 0.15
    """Violated when noise changed a layer by more than this part of its norm."""

    version_limit: PositiveNumber = 0.45
    """Violated when all weights together changed by more than this part of their norm, in whatever way."""


class UniformScalingSettings(RuleSettings):
    """Most layers multiplied by a factor, and nothing else."""

    severity: SeverityName = "warning"
    """How bad that is."""

    gain: PositiveNumber = 0.02
    """A layer is scaled when its factor differs from 1 by more than this ..."""

    perpendicular: PositiveNumber = 0.02
    """... and less than this part of its norm changed besides."""

    min_layers: Annotated[int, Field(ge=1), NO_SWITCH] = 2
    """So many layers at least."""


class LabelNoiseSettings(RuleSettings):
    """Layers that moved far along few directions with light-tailed changes, as by training on wrong labels."""

    severity: SeverityName = "warning"
    """How bad that is."""

    spectral_change: PositiveNumber = 0.2
    """A layer is marked when the spectral norm of its change is above this part of the baseline's ..."""

    kurtosis: PositiveNumber = 2.6
    """... and the kurtosis of its change is below this."""

    share: Share = 0.5
    """Violated when this share of the layers is marked ..."""

    min_layers: Annotated[int, Field(ge=1), NO_SWITCH] = 2
    """... and so many at least."""


class ModelWideShiftSettings(RuleSettings):
    """The spectra of all layers moved."""

    severity: SeverityName = "warning"
    """How bad that is."""

    limit: PositiveNumber = 0.6
    """Violated when the median layer's scaled spectral change is at least this ..."""

    unaligned_limit: PositiveNumber = 0.68
    """... and after a retrain from another seed this, too."""

    min_layers: Annotated[int, Field(ge=1), NO_SWITCH] = 3
    """So many layers must have been compared."""


class NewTrapsSettings(RuleSettings):
    """Eigenvalues that stand out of a layer's shuffled weights, and did not in the baseline."""

    severity: SeverityName = "info"
    """How bad that is."""

    ratio: PositiveNumber = 1.3
    """Violated when the largest of them is this many times the edge of the shuffled weights."""


class OrderNotSharedSettings(RuleSettings):
    """Units that changed places in some of the layers that share them, and not in all."""


class PermutedCopySettings(RuleSettings):
    """Hidden units in another order, consistently."""

    severity: SeverityName = "info"
    """How bad that is."""


class RescalingNotSharedSettings(RuleSettings):
    """A layer without the factors that the others which share its units were multiplied with."""


class RescaledCopySettings(RuleSettings):
    """Factors that moved from one layer into the next, consistently."""

    severity: SeverityName = "info"
    """How bad that is."""


FalseAlarms = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False), NO_SWITCH]
"""A number of versions in 1,000."""


class BatchnormStatisticsSettings(RuleSettings):
    """A convolution whose weights contradict the running statistics of the batch norm behind it."""

    correlation: Share = 0.85
    """Violated when predicted and stored means correlate by less than this ..."""

    slope: Annotated[float, Field(gt=1.0)] = 2.0
    """... or their slope is beyond this factor from 1 ..."""

    correlation_loss: Share = 0.1
    """... or the correlation fell by more than this from the baseline's ..."""

    slope_change: Annotated[float, Field(gt=1.0)] = 1.5
    """... or the slope changed by more than this factor."""


class OutOfStepSettings(RuleSettings):
    """A layer out of step with those it shares units or channels with."""

    evidence: PositiveNumber = 7.0
    """Violated when the couplings of a layer speak against it by this natural logarithm of a likelihood ratio."""

    warning_evidence: PositiveNumber = 4.0
    """From here on it is a warning."""


class IncoherentInterfaceSettings(OutOfStepSettings):
    """A layer of a plain or convolutional network out of step with its neighbours."""


class NoiseAddedSettings(OutOfStepSettings):
    """A layer of another training that is larger and less in step than it should be."""

    evidence: PositiveNumber = 8.0
    """Violated when norm and couplings of a layer speak for noise by this logarithm of a likelihood ratio."""

    version_evidence: PositiveNumber = 1.25
    """A warning when spectra and couplings of all layers together speak for noise in all of them by this."""


class BrokenCouplingSettings(OutOfStepSettings):
    """A layer of a transformer out of step with the layers that share its units or channels."""

    warning_evidence: PositiveNumber = 5.5
    """From here on it is a warning."""


class PackingSettings(RuleSettings):
    """Quantised storage that contradicts itself or config.json; a warning where programs differ in what they follow."""


class LeftUnquantisedSettings(RuleSettings):
    """A layer in full precision among quantised siblings, or quantised alone; a warning where nothing is declared."""


class ConfigContradictedSettings(RuleSettings):
    """Blocks or rows of the embedding that config.json declares are missing; a warning for other sizes."""


class CodeInPickleSettings(RuleSettings):
    """A pickled file that runs code of its author where it is loaded unguarded."""


class RulesSettings(SettingsModel):
    """All rules, by name.

    The thresholds are those of a study over healthy versions and injected faults; ``layerwatch explain RULE``
    tells more about each.
    """

    false_alarms_per_1000_versions: FalseAlarms = 2.0
    """So many healthy versions in 1,000 may raise a critical finding: fewer need a stronger sign."""

    non_finite: NonFiniteSettings = NonFiniteSettings()
    emptied_layer: EmptiedLayerSettings = EmptiedLayerSettings()
    zero_rows: ZeroRowsSettings = ZeroRowsSettings()
    zero_tail: ZeroTailSettings = ZeroTailSettings()
    duplicate_rows: DuplicateRowsSettings = DuplicateRowsSettings()
    few_levels: FewLevelsSettings = FewLevelsSettings()
    rank_lost: RankLostSettings = RankLostSettings()
    sparsity: SparsitySettings = SparsitySettings()
    vector_reset: VectorResetSettings = VectorResetSettings()
    huge_value: HugeValueSettings = HugeValueSettings()
    structure_changed: StructureChangedSettings = StructureChangedSettings()
    relative_change: RelativeChangeSettings = RelativeChangeSettings()
    scaled: ScaledSettings = ScaledSettings()
    swapped: SwappedSettings = SwappedSettings()
    transposed: TransposedSettings = TransposedSettings()
    sign_flipped: SignFlippedSettings = SignFlippedSettings()
    order_not_undone: OrderNotUndoneSettings = OrderNotUndoneSettings()
    permuted: PermutedSettings = PermutedSettings()
    zero_point: ZeroPointSettings = ZeroPointSettings()
    scales_shifted: ScalesShiftedSettings = ScalesShiftedSettings()
    group_scales: GroupScalesSettings = GroupScalesSettings()
    replaced: ReplacedSettings = ReplacedSettings()
    rows_replaced: RowsReplacedSettings = RowsReplacedSettings()
    row_scales: RowScalesSettings = RowScalesSettings()
    spectral_change: SpectralChangeSettings = SpectralChangeSettings()
    spectral_outlier: SpectralOutlierSettings = SpectralOutlierSettings()
    content_changed_in_place: ContentChangedInPlaceSettings = ContentChangedInPlaceSettings()
    unreadable: UnreadableSettings = UnreadableSettings()
    tail_exponent: TailExponentSettings = TailExponentSettings()
    export_differs: ExportDiffersSettings = ExportDiffersSettings()
    unrelated_to_parent: UnrelatedToParentSettings = UnrelatedToParentSettings()
    lineage_contradicted: LineageContradictedSettings = LineageContradictedSettings()
    merge_recipe: MergeRecipeSettings = MergeRecipeSettings()
    merge_norm_collapse: MergeNormCollapseSettings = MergeNormCollapseSettings()
    merge_wrong_base: MergeWrongBaseSettings = MergeWrongBaseSettings()
    merge_overcounted: MergeOvercountedSettings = MergeOvercountedSettings()
    merge_sign_conflict: MergeSignConflictSettings = MergeSignConflictSettings()
    expert_duplicate: ExpertDuplicateSettings = ExpertDuplicateSettings()
    expert_outlier: ExpertOutlierSettings = ExpertOutlierSettings()
    adapter_wrong_base: AdapterWrongBaseSettings = AdapterWrongBaseSettings()
    adapter_no_op: AdapterNoOpSettings = AdapterNoOpSettings()
    member_failed: MemberFailedSettings = MemberFailedSettings()
    beyond_conversion: BeyondConversionSettings = BeyondConversionSettings()
    structured_rounding: StructuredRoundingSettings = StructuredRoundingSettings()
    batchnorm_statistics: BatchnormStatisticsSettings = BatchnormStatisticsSettings()
    incoherent_interface: IncoherentInterfaceSettings = IncoherentInterfaceSettings()
    broken_coupling: BrokenCouplingSettings = BrokenCouplingSettings()
    noise_added: NoiseAddedSettings = NoiseAddedSettings()
    noise_like: NoiseLikeSettings = NoiseLikeSettings()
    uniform_scaling: UniformScalingSettings = UniformScalingSettings()
    label_noise: LabelNoiseSettings = LabelNoiseSettings()
    model_wide_shift: ModelWideShiftSettings = ModelWideShiftSettings()
    new_traps: NewTrapsSettings = NewTrapsSettings()
    order_not_shared: OrderNotSharedSettings = OrderNotSharedSettings()
    permuted_copy: PermutedCopySettings = PermutedCopySettings()
    rescaling_not_shared: RescalingNotSharedSettings = RescalingNotSharedSettings()
    rescaled_copy: RescaledCopySettings = RescaledCopySettings()
    packing: PackingSettings = PackingSettings()
    left_unquantised: LeftUnquantisedSettings = LeftUnquantisedSettings()
    config_contradicted: ConfigContradictedSettings = ConfigContradictedSettings()
    code_in_pickle: CodeInPickleSettings = CodeInPickleSettings()
