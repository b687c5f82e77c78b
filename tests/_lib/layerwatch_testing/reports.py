"""Reports of examination values, as the gate builds them."""

from __future__ import annotations

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.judge import judge
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.report import BaselinePart, ModelPart, Report, build_report

MODEL = ModelPart(
    source="models/v2.safetensors",
    name="v2",
    version="v2.safetensors",
    fingerprint="ab" * 32,
    format="safetensors",
    size_bytes=1000,
)
BASELINE = BaselinePart(**(MODEL.model_dump() | {"source": "v1"}), relation="finetuned", chosen_by="parent")


def report_of(
    examination: Examination, rules: RulesSettings | None = None, skipped: tuple[Skipped, ...] = ()
) -> Report:
    """Judge an examination and build its report, with fixed names and timings."""
    return build_report(
        MODEL,
        BASELINE if examination.has_baseline else None,
        examination,
        judge(examination, rules or RulesSettings()),
        skipped,
        {"measure_seconds": 1.5, "judge_seconds": 0.25},
    )
