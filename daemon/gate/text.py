"""Reports for people: a table of layers, the findings in words, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from layerwatch.daemon.gate.facts import answer, counted, diagnoses_that_count, set_aside
from layerwatch.daemon.gate.printable import printable
from layerwatch.daemon.terminal.glyphs import glyphs_of
from layerwatch.daemon.terminal.layertable import layer_table
from layerwatch.daemon.terminal.screen import Screen
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.report import DiagnosisPart, FindingPart, Report

_SEVERITY_STYLE = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_SEVERITY_WIDTH = 9
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


def print_table(report: Report, console: Console, before_verdict: Sequence[Text] = ()) -> None:
    """Every layer with its numbers, then the findings and the verdict.

    Args:
        before_verdict: lines of their own; the verdict stays the last word.
    """
    if report.layers:
        table, left_out = layer_table(report, console.width, glyphs_of(console))
        console.print(table)
        if left_out:
            titles = ", ".join(left_out)
            _say(Text(f"no room for {titles}: widen the terminal, or --format csv", style="dim"), console)
        console.print()
    print_findings(report, console, before_verdict=before_verdict)


def print_findings(
    report: Report, console: Console, show_suppressed: bool = False, before_verdict: Sequence[Text] = ()
) -> None:
    """The findings, worst first, what was not seen, the verdict, and what the gate makes of it where that differs.

    Args:
        show_suppressed: list what an ignore file suppresses, too; otherwise it is counted.
        before_verdict: as for :func:`print_table`.
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
        _say(line, console, _SEVERITY_WIDTH)
    if lines:
        console.print()
    _print_diagnoses(diagnoses_that_count(report), console)
    undecided = [layer.name for layer in report.layers if layer.status is LayerStatus.UNDECIDED]
    _say(Text(printable(_examined(report, undecided)), style="dim"), console)
    for spot in report.blind_spots:
        _say(Text(printable(f"not seen: {spot}"), style="dim"), console)
    if before_verdict:
        for line in (Text(), *before_verdict, Text()):
            console.print(line, soft_wrap=True)
    style = _VERDICT_STYLE[report.verdict]
    _say(Text.assemble("verdict: ", (str(report.verdict), style)), console)
    if report.gate is not None and set_aside(report):
        _say(Text(f"gate {answer(report)}"), console)


def _say(line: Text, console: Console, hanging: int = 2) -> None:
    """Words are wrapped for people, all lines but the first indented; in a log a line stays a line."""
    if not console.is_terminal:
        console.print(line, soft_wrap=True)
        return
    for part in Screen.of(console).wrapped(line, 0, hanging):
        console.print(part, soft_wrap=True)


def _print_diagnoses(diagnoses: tuple[DiagnosisPart, ...], console: Console) -> None:
    for diagnosis in diagnoses[:_SHOWN_DIAGNOSES]:
        layer = "the version" if diagnosis.layer is None else printable(diagnosis.layer)
        if diagnosis.layer is None and diagnosis.layers:
            layer += f", in {counted(diagnosis.layers, 'tensor')}"
        title = f": {diagnosis.title} (layerwatch explain {diagnosis.defect})"
        _say(Text.assemble((layer, "bold"), title), console)
        for what, text in (("likely cause", diagnosis.likely_cause), ("what to do", diagnosis.what_to_do)):
            if text:
                _say(Text(f"  {what}: {text}"), console, 4)
    more = len(diagnoses) - _SHOWN_DIAGNOSES
    if more > 0:
        _say(Text(f"  and {counted(more, 'more layer')} above"), console)
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
            line.append(
                f"{finding.severity:<{_SEVERITY_WIDTH}}", style=_SEVERITY_STYLE[Severity(finding.severity)]
            )
            line.append(f"{counted(len(alike), 'tensor')}: ", style="bold")
            line.append(printable(f"{worst}{more}"))
            line.append(f"  [{finding.rule}]", style="dim")
            yield line


def _finding_line(finding: FindingPart) -> Text:
    line = Text()
    line.append(f"{finding.severity:<{_SEVERITY_WIDTH}}", style=_SEVERITY_STYLE[Severity(finding.severity)])
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
