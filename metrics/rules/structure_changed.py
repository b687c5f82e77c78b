"""Layers that disappeared, changed shape or were added."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.adapters import is_adapter_factor
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.structure_changed
    if examination.problem is not None:
        # A file that cannot be read has no layers at all; saying that each is missing would hide the reason.
        return
    for missing in () if _is_adapter_on_its_base(examination) else examination.missing:
        if missing.tied_to is not None:
            yield Finding(
                RULE.name,
                RULE.group,
                Severity.INFO,
                missing.name,
                f"the baseline has this layer twice, here and as {missing.tied_to}, the version once: tied weights",
                {"shape": None, "baseline_shape": _text(missing.shape), "tied_to": missing.tied_to},
            )
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            missing.name,
            f"the baseline has this layer (shape {_text(missing.shape)}), the version does not",
            {"shape": None, "baseline_shape": _text(missing.shape)},
            strength=400.0,
        )
    for layer in examination.everything:
        if layer.problem is not None:
            continue
        if layer.baseline is None:
            yield Finding(
                RULE.name,
                RULE.group,
                Severity(settings.added_layer_severity),
                layer.name,
                f"the version has this layer (shape {_text(layer.shape)}), the baseline does not",
                {"shape": _text(layer.shape), "baseline_shape": None},
            )
        elif layer.baseline.shape != layer.shape:
            yield Finding(
                RULE.name,
                RULE.group,
                Severity(settings.changed_shape_severity),
                layer.name,
                f"shape {_text(layer.baseline.shape)} became {_text(layer.shape)}",
                {"shape": _text(layer.shape), "baseline_shape": _text(layer.baseline.shape)},
            )


def _is_adapter_on_its_base(examination: Examination) -> bool:
    """Whether the version holds factors of an adapter only, and the baseline none: it replaces no layer."""
    return (
        bool(examination.layers)
        and all(is_adapter_factor(layer.name) for layer in examination.layers)
        and not any(layer.baseline is not None for layer in examination.layers)
        and not any(is_adapter_factor(missing.name) for missing in examination.missing)
    )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) or "1"


RULE = Rule(
    name="structure_changed",
    group=RuleGroup.WEIGHTS,
    title="layers missing, reshaped or added",
    explanation="""\
A version that lacks a layer of its baseline was exported incompletely, or is another network.

A missing layer is critical, a changed shape a warning (channels were removed, a vocabulary grew), an added
layer information. Layers are matched by name. An adapter held against its base model lacks nothing: it is added to
the base's layers (adapter_wrong_base checks that it fits them).

Likely cause: an export that stopped early or left shards out, or another architecture under the same name.

What to do: compare the tensor lists; if the architecture was changed on purpose, accept the version as the new
baseline.

Cannot see: renamed layers; they appear as one missing and one added.""",
    needs_baseline=True,
    check=check,
)
