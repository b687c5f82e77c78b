"""Markdown (GitHub's flavour) for job summaries and merge requests: the verdict, then the worst layers first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerwatch.daemon.gate.facts import (
    THE_VERSION,
    answer,
    counted,
    ignore_remarks,
    is_known,
    status_counts,
)
from layerwatch.daemon.gate.formats.escaping import code, prose
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import DiagnosisPart, FindingPart, Report

SUMMARY_LIMIT = 2**20
"""Bytes that GitHub accepts as the summary of one step; a larger one is not shown at all."""

SHOWN_LAYERS = 50
_SHOWN_SUPPRESSED = 50
_SHOWN_ADVICE = 3
_LONGEST = 400
"""So many characters of a sentence or a name are shown."""


def to_markdown(report: Report, rendering: Rendering) -> str:
    """At most :data:`SUMMARY_LIMIT` bytes."""
    return markdown_within(report, SUMMARY_LIMIT)


def markdown_within(report: Report, limit: int) -> str:
    """As many layers as fit into ``limit`` bytes, and at most :data:`SHOWN_LAYERS`.

    Where not even the verdict fits, the text is empty.
    """
    layers = SHOWN_LAYERS
    while True:
        text = _document(report, layers)
        if len(text.encode()) <= limit:
            return text
        if layers == 0:
            return ""
        layers //= 2


def _document(report: Report, layers: int) -> str:
    parts = [_verdict(report), _findings(report, layers)]
    if layers:
        parts += [_advice(report.diagnoses), _suppressed(report), _remarks(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(report: Report) -> str:
    model, baseline = report.model, report.baseline
    rows = [
        ("verdict", f"**{report.verdict}**"),
        ("gate", prose(answer(report))),
        ("model", f"{code(_cut(model.source))}{_fingerprint(model.fingerprint)}"),
    ]
    if baseline is None:
        rows.append(("baseline", "none"))
    else:
        relation = baseline.relation or (f"looks {baseline.looks_like}" if baseline.looks_like else "")
        told = f", {prose(relation)}" if relation else ""
        rows.append(("baseline", f"{code(_cut(baseline.source))}{_fingerprint(baseline.fingerprint)}{told}"))
    rows.append(("layers", status_counts(report) or "none could be examined"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"### layerwatch: {report.verdict}: {code(_cut(model.name))}\n\n| | |\n|---|---|\n{table}"


def _fingerprint(fingerprint: str | None) -> str:
    return f" ({code(fingerprint[:12])})" if fingerprint else ""


def _findings(report: Report, limit: int) -> str:
    rows = list(_rows(report))
    if not rows:
        return ""
    lines = ["| layer | status | finding |", "|---|---|---|", *rows[:limit]]
    text = "\n".join(lines) if limit else ""
    if len(rows) > limit:
        text += f"\n\n{counted(len(rows) - limit, 'more layer' if limit else 'layer')} with findings in the report."
    return text


def _rows(report: Report) -> Iterator[str]:
    statuses = {layer.name: layer.status for layer in report.layers}
    by_layer: dict[str | None, list[FindingPart]] = {}
    # The report has the worst findings first.
    for finding in report.findings:
        if finding.suppressed is None:
            by_layer.setdefault(finding.layer, []).append(finding)
    for layer, findings in by_layer.items():
        status = statuses.get(layer) if layer is not None else None
        yield _row(report, layer, str(status or findings[0].severity), findings)
    for name, status in statuses.items():
        if status is LayerStatus.UNDECIDED and name not in by_layer:
            yield f"| {code(_cut(name))} | undecided | could not be examined |"


def _row(report: Report, layer: str | None, status: str, findings: Sequence[FindingPart]) -> str:
    first = findings[0]
    message = f"{prose(_cut(first.message))} ({code(first.rule)})"
    if is_known(report, first):
        message += ", not new"
    if len(findings) > 1:
        message += f", and {counted(len(findings) - 1, 'more finding')}"
    name = THE_VERSION if layer is None else code(_cut(layer))
    return f"| {name} | {status} | {message} |"


def _advice(diagnoses: Sequence[DiagnosisPart]) -> str:
    told = [one for one in diagnoses if one.what_to_do][:_SHOWN_ADVICE]
    lines = [
        f"- {THE_VERSION if one.layer is None else code(_cut(one.layer))}: {prose(one.title)}. "
        f"{prose(one.what_to_do[:1].upper() + one.what_to_do[1:])}"
        for one in told
    ]
    return "**What to do**\n\n" + "\n".join(lines) if lines else ""


def _suppressed(report: Report) -> str:
    lines = [
        f"| {THE_VERSION if one.layer is None else code(_cut(one.layer))} | {code(one.rule)} | "
        f"{prose(one.suppressed.expires)} | {prose(_cut(one.suppressed.reason))} |"
        for one in report.findings
        if one.suppressed is not None
    ]
    if not lines:
        return ""
    more = len(lines) - _SHOWN_SUPPRESSED
    end = f"\n\nand {more} more" if more > 0 else ""
    table = "\n".join(("| layer | rule | until | reason |", "|---|---|---|---|", *lines[:_SHOWN_SUPPRESSED]))
    summary = f"{counted(len(lines), 'suppressed finding')}"
    return f"<details><summary>{summary}</summary>\n\n{table}{end}\n\n</details>"


def _remarks(report: Report) -> str:
    lines = [
        *(f"- {prose(_cut(remark))}" for remark in ignore_remarks(report)[:_SHOWN_SUPPRESSED]),
        *(f"- not seen: {prose(_cut(spot))}" for spot in report.blind_spots),
    ]
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
