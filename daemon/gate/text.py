"""Reports for people: a table of layers, the findings in words, the verdict."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from layerwatch.daemon.gate.facts import answer, counted, set_aside
from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.report import DiagnosisPart, FindingPart, LayerPart, Report

_SEVERITY_STYLE = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_STATUS_STYLE = {
    LayerStatus.OK: "green",
    LayerStatus.INFO: "cyan",
    LayerStatus.SUSPECT: "yellow",
    LayerStatus.BROKEN: "bold red",
    LayerStatus.UNDECIDED: "magenta",
}
_VERDICT_STYLE = {
    Verdict.PASS: "bold green",
    Verdict.WARN: "bold yellow",
    Verdict.FAIL: "bold red",
    Verdict.UNDECIDED: "bold magenta",
}

_SHOWN_DIAGNOSES = 3
"""Of so many layers the text says what to do; a hundred broken layers have one cause."""

_SHOWN_LAYERS = 3
"""Of layers with one and the same fault so many are named."""


def print_table(report: Report, console: Console) -> None:
    """Every layer with its numbers, then the findings and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    compared = report.baseline is not None
    for title in ("layer", "kind", "shape"):
        table.add_column(title, overflow="fold")
    numbers = ["alpha", "D", "tail", "log norm", "stable rank"]
    if compared:
        numbers.insert(1, "before")
        numbers.append("change")
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("fit")
    table.add_column("status")
    for layer in report.layers:
        table.add_row(*_cells(layer, compared))
    if report.layers:
        console.print(table)
        console.print()
    print_findings(report, console)


def print_findings(report: Report, console: Console, show_suppressed: bool = False) -> None:
    """The findings, worst first, what was not seen, the verdict, and what the gate makes of it where that differs.

    Args:
        show_suppressed: list what an ignore file suppresses, too; otherwise it is counted.
    """
    counting = tuple(finding for finding in report.findings if finding.suppressed is None)
    suppressed = tuple(finding for finding in report.findings if finding.suppressed is not None)
    lines = [*_finding_lines(report, counting)]
    if show_suppressed:
        lines += [_finding_line(finding) for finding in suppressed]
    elif suppressed:
        name = report.gate.ignore_file if report.gate and report.gate.ignore_file else "the ignore file"
        lines.append(
            Text(
                printable(
                    f"{counted(len(suppressed), 'finding')} suppressed by {name}; see --show-suppressed"
                )
            )
        )
    for line in lines:
        console.print(line, soft_wrap=True)
    if lines:
        console.print()
    _print_diagnoses(_still_of_interest(report.diagnoses, counting, suppressed), console)
    undecided = [layer.name for layer in report.layers if layer.status is LayerStatus.UNDECIDED]
    console.print(f"[dim]{escape(printable(_examined(report, undecided)))}[/dim]", soft_wrap=True)
    for spot in report.blind_spots:
        console.print(f"[dim]not seen: {escape(printable(spot))}[/dim]", soft_wrap=True)
    style = _VERDICT_STYLE[report.verdict]
    console.print(f"verdict: [{style}]{report.verdict}[/{style}]", soft_wrap=True)
    if report.gate is not None and set_aside(report):
        console.print(Text(f"gate {answer(report)}"), soft_wrap=True)


def _still_of_interest(
    diagnoses: tuple[DiagnosisPart, ...],
    counting: tuple[FindingPart, ...],
    suppressed: tuple[FindingPart, ...],
) -> tuple[DiagnosisPart, ...]:
    """Without those of which nothing is left that counts."""

    def is_among(diagnosis: DiagnosisPart, findings: tuple[FindingPart, ...]) -> bool:
        if diagnosis.layer is None:
            return any(one.rule == diagnosis.defect for one in findings)
        return any(one.layer == diagnosis.layer for one in findings)

    return tuple(one for one in diagnoses if is_among(one, counting) or not is_among(one, suppressed))


def _print_diagnoses(diagnoses: tuple[DiagnosisPart, ...], console: Console) -> None:
    for diagnosis in diagnoses[:_SHOWN_DIAGNOSES]:
        layer = "the version" if diagnosis.layer is None else printable(diagnosis.layer)
        if diagnosis.layer is None and diagnosis.layers:
            layer += f", in {counted(diagnosis.layers, 'tensor')}"
        console.print(
            Text.assemble((layer, "bold"), f": {diagnosis.title} (layerwatch explain {diagnosis.defect})"),
            soft_wrap=True,
        )
        for title, text in (("likely cause", diagnosis.likely_cause), ("what to do", diagnosis.what_to_do)):
            if text:
                console.print(Text(f"  {title}: {text}"), soft_wrap=True)
    more = len(diagnoses) - _SHOWN_DIAGNOSES
    if more > 0:
        console.print(f"  and {counted(more, 'more layer')} above", soft_wrap=True)
    if diagnoses:
        console.print()


def _examined(report: Report, undecided: list[str]) -> str:
    against = "without a baseline"
    if report.baseline is not None:
        relation = f", {report.baseline.relation}" if report.baseline.relation else ""
        if report.baseline.looks_like:
            relation = f", looks {report.baseline.looks_like}"
        against = f"against {report.baseline.source} (chosen by {report.baseline.chosen_by}{relation})"
    seconds = sum(report.timings.values())
    layers = [layer for layer in report.layers if layer.kind != "missing" and len(layer.shape) > 1]
    missing = f", {len(undecided)} of them undecided" if undecided else ""
    return (
        f"{report.model.source}: {counted(len(layers), 'layer')}{missing}, "
        f"{counted(len(report.skipped), 'tensor')} without a spectrum, {against}, {seconds:.1f} s"
    )


def _finding_lines(report: Report, findings: tuple[FindingPart, ...]) -> Iterator[Text]:
    """A line for each; what most layers share is one line, about the worst of them."""
    shared = {one.defect for one in report.diagnoses if one.layer is None and one.layers}
    told: set[str] = set()
    for finding in findings:
        if finding.layer is None or finding.rule not in shared:
            yield _finding_line(finding)
        elif finding.rule not in told:
            told.add(finding.rule)
            alike = [one for one in findings if one.rule == finding.rule and one.layer is not None]
            worst = ", ".join(f"{one.layer} ({one.message})" for one in alike[:_SHOWN_LAYERS])
            more = " and others" if len(alike) > _SHOWN_LAYERS else ""
            line = Text()
            line.append(f"{finding.severity:<8} ", style=_SEVERITY_STYLE[Severity(finding.severity)])
            line.append(f"{counted(len(alike), 'tensor')}: ", style="bold")
            line.append(printable(f"{worst}{more}"))
            line.append(f"  [{finding.rule}]", style="dim")
            yield line


def _finding_line(finding: FindingPart) -> Text:
    line = Text()
    line.append(f"{finding.severity:<8} ", style=_SEVERITY_STYLE[Severity(finding.severity)])
    if finding.layer is not None:
        line.append(f"{printable(finding.layer)}: ", style="bold")
    line.append(printable(finding.message))
    line.append(f"  [{finding.rule}]", style="dim")
    if finding.new is False:
        line.append(" not new", style="dim")
    if finding.suppressed is not None:
        until = f" suppressed until {finding.suppressed.expires}: {finding.suppressed.reason}"
        line.append(printable(until), style="dim")
    return line


def _cells(layer: LayerPart, compared: bool) -> list[Text]:
    metrics = layer.metrics
    alpha = "-" if metrics.alpha is None else f"{metrics.alpha:.2f}"
    if metrics.alpha is not None and metrics.alpha_sigma is not None:
        alpha += f" ±{metrics.alpha_sigma:.2f}"
    cells = [
        printable(layer.name),
        layer.kind,
        "x".join(map(str, layer.shape)),
        alpha,
        _number(metrics.ks_distance, 3),
        "-" if metrics.tail_size is None else f"{metrics.tail_size}/{metrics.num_eigenvalues}",
        _number(metrics.log_norm, 2),
        _number(metrics.stable_rank, 1),
    ]
    if compared:
        change = layer.change
        cells.insert(4, _number(change.alpha_baseline, 2) if change else "-")
        cells.append(_number(change.relative_change, 3) if change else "-")
    status = Text(str(layer.status), style=_STATUS_STYLE[layer.status])
    return [*map(Text, cells), Text((metrics.fit_status or "-").replace("_", " ")), status]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
