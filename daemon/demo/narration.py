"""The outcome in words: a table row per version, verdict beside truth. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.table import Table
from rich.text import Text

from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.metrics.findings import Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """What the daemon says about a version: its verdict, and the layer of its worst finding or None."""

    verdict: Verdict
    layer: str | None = None


Judge = Callable[[str, str], Judged | None]
"""Model and version -> what the daemon says, or None while it has not judged."""


class Agreement(StrEnum):
    """How a verdict, found without any data, compares with the measured accuracy."""

    WAITING = "waiting"
    AGREES = "agrees"
    MISSED = "missed"
    FALSE_ALARM = "false alarm"
    WRONG_LAYER = "wrong layer"
    UNDECIDED = "undecided"


_STYLES = {
    Verdict.PASS: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.UNDECIDED: "magenta",
}
_COLUMNS = ("model", "version", "what was done", "test accuracy", "verdict", "verdict and truth")


@dataclass(frozen=True, slots=True)
class Row:
    """One version, ready to be shown.

    Attributes:
        accuracy: test accuracy in percent, with the points lost where they make the version a broken one.
        verdict: the verdict with the layer it names, or ``...`` while there is none.
    """

    model: str
    version: str
    what: str
    accuracy: str
    verdict: str
    agreement: Agreement
    style: str


def agreement(prepared: PreparedVersion, judged: Judged | None) -> Agreement:
    """Hold a verdict against the truth: broken means that labelled test images say so.

    A broken version must fail and its broken layer be named; a healthy one must pass without a warning.
    """
    if judged is None:
        return Agreement.WAITING
    if judged.verdict is Verdict.UNDECIDED:
        return Agreement.UNDECIDED
    if not prepared.is_broken:
        return Agreement.AGREES if judged.verdict is Verdict.PASS else Agreement.FALSE_ALARM
    if judged.verdict is not Verdict.FAIL:
        return Agreement.MISSED
    return Agreement.AGREES if judged.layer == prepared.step.broken_layer else Agreement.WRONG_LAYER


def row(prepared: PreparedVersion, judged: Judged | None) -> Row:
    """Word one version."""
    accuracy = f"{prepared.accuracy:.1%}"
    if prepared.is_broken:
        accuracy += f" ({-prepared.points_lost:+.1f} points)"
    verdict = "..." if judged is None else judged.verdict.value
    if judged is not None and judged.layer is not None:
        verdict += f" ({judged.layer})"
    return Row(
        model=prepared.model,
        version=prepared.version,
        what=prepared.step.what,
        accuracy=accuracy,
        verdict=verdict,
        agreement=agreement(prepared, judged),
        style=_STYLES[judged.verdict] if judged else "dim",
    )


def rows(versions: Iterable[PreparedVersion], judge: Judge) -> list[Row]:
    """Word every version, asking the judge once for each."""
    return [row(prepared, judge(prepared.model, prepared.version)) for prepared in versions]


def table(shown: Sequence[Row]) -> Table:
    """A Rich table for a terminal."""
    result = Table(*_COLUMNS, title="what the daemon says, and what the test images say")
    for one in shown:
        result.add_row(
            *(Text(text) for text in (one.model, one.version, one.what, one.accuracy)),
            Text(one.verdict, style=one.style),
            Text(one.agreement.value),
        )
    return result


def summary(shown: Sequence[Row]) -> str:
    """One sentence over all rows."""
    agreeing = sum(one.agreement is Agreement.AGREES for one in shown)
    text = f"{agreeing} of {len(shown)} verdicts agree with the test accuracy"
    others = [f"{one.model} {one.version}: {one.agreement.value}" for one in shown]
    wrong = [text for one, text in zip(shown, others, strict=True) if one.agreement is not Agreement.AGREES]
    return f"{text}; {', '.join(wrong)}" if wrong else text
