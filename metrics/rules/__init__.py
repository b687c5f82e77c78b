"""The rules, one file each, in order of how specific their diagnosis is.

A new rule is a file here, a line in this table and a section in ``config/rules.py``.
"""

from __future__ import annotations

from layerwatch.metrics.rules import (
    content_changed_in_place,
    emptied_layer,
    huge_value,
    non_finite,
    relative_change,
    scaled,
    spectral_outlier,
    structure_changed,
    tail_exponent,
    unreadable,
    zero_rows,
)
from layerwatch.metrics.rules.base import Rule

RULE_SET = "1"
"""Version of the rules and their default thresholds."""

RULES: tuple[Rule, ...] = (
    unreadable.RULE,
    content_changed_in_place.RULE,
    non_finite.RULE,
    emptied_layer.RULE,
    structure_changed.RULE,
    zero_rows.RULE,
    scaled.RULE,
    huge_value.RULE,
    relative_change.RULE,
    spectral_outlier.RULE,
    tail_exponent.RULE,
)

__all__ = ["RULES", "RULE_SET", "Rule"]
