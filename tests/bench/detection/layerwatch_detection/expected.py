"""Which rules name a defect by its right type."""

from __future__ import annotations

from collections.abc import Mapping

from layerwatch_detection.versions import Regime

_COUPLINGS = frozenset({"batchnorm_statistics", "incoherent_interface", "broken_coupling"})
_AMOUNT = frozenset({"relative_change", "spectral_change", "spectral_outlier"})
_ORDER = frozenset({"permuted", "order_not_shared"})

RULES_BY_FAMILY: Mapping[str, frozenset[str]] = {
    "zero": frozenset({"emptied_layer"}),
    "reinit": frozenset({"replaced"}),
    "permuted rows": _ORDER,
    "permuted columns": _ORDER,
    "sign flip": frozenset({"sign_flipped"}),
    "transposed": frozenset({"transposed"}),
    "swapped layers": frozenset({"swapped"}),
    "scale": frozenset({"scaled"}),
    # Saturated weights: rows lose most of their norm, each by its own factor.
    "clipped": frozenset({"row_scales", "scaled", "beyond_conversion"}) | _AMOUNT,
    "row scales": frozenset({"row_scales", "scales_shifted"}),
    "few bits": frozenset({"few_levels", "beyond_conversion"}) | _AMOUNT,
    "pruned": frozenset({"sparsity"}) | _AMOUNT,
    "dead rows": frozenset({"zero_rows"}),
    "dead columns": frozenset({"zero_rows"}),
    "duplicated rows": frozenset({"duplicate_rows"}),
    "rank collapse": frozenset({"rank_lost"}) | _AMOUNT,
    "truncated": frozenset({"zero_tail"}),
    # The top bit of a weight between 1 and 2 makes it infinite.
    "bit flips": frozenset({"huge_value", "non_finite"}),
    "nan": frozenset({"non_finite"}),
    "inf": frozenset({"non_finite"}),
    "noise": frozenset({"noise_like", "noise_added", "beyond_conversion"}) | _AMOUNT,
    "batch norm reset": frozenset({"vector_reset", "batchnorm_statistics"}),
    "layer norm reset": frozenset({"vector_reset"}),
    "int4 zero point": frozenset({"zero_point"}),
    "int4 group size": frozenset({"group_scales"}),
    "int4 packing order": frozenset({"order_not_undone"}),
    "int4 row scales": frozenset({"row_scales", "scales_shifted"}),
    "int4 dead rows": frozenset({"zero_rows"}),
    "int4 giant scalar": frozenset({"huge_value"}),
    "re-export of another version": frozenset({"export_differs"}),
    "cast that changes": frozenset({"export_differs"}),
    "merge with a wrong weight": frozenset({"merge_recipe"}),
    "not the parent's fine-tune": frozenset({"unrelated_to_parent"}),
    "not the parent's int8": frozenset({"unrelated_to_parent"}),
}
"""Family of a defect -> rules, one of which must come first. Families of whole-model damage have no one type."""


def expected_rules(family: str, regime: str) -> frozenset[str]:
    """The rules that are right for a defect; without alignment, what sees the layer at all is right, too."""
    named = RULES_BY_FAMILY.get(family, frozenset())
    return named | _COUPLINGS | _AMOUNT if named and regime == Regime.NEW_SEED else named
