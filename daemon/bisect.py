"""The step of a lineage at which one layer broke.

Every version is held against the last one whose layer was good, never against a broken one: a break is then told once,
at the version that brought it, and the version that mends it is told too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Finding, LayerStatus
from layerwatch.metrics.judge import Judgement

Version = TypeVar("Version")


class StepStatus(StrEnum):
    """A layer in one version: as in a report, or ``missing``, or ``accepted`` by a person whatever it looks like."""

    OK = "ok"
    INFO = "info"
    SUSPECT = "suspect"
    BROKEN = "broken"
    UNDECIDED = "undecided"
    MISSING = "missing"
    ACCEPTED = "accepted"

    @property
    def is_bad(self) -> bool:
        """True where the layer is broken or not there."""
        return self in (StepStatus.BROKEN, StepStatus.MISSING)


@dataclass(frozen=True, slots=True)
class Link(Generic[Version]):
    """One version of the lineage.

    Attributes:
        name: of the version.
        version: what the examination needs of it.
        accepted: a person called it normal.
        origin: how it came from the version before, in words, where that is declared.
    """

    name: str
    version: Version
    accepted: bool = False
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The layer in one version.

    Attributes:
        against: name of the last good version before it, which it was held against; None for the first.
        relative_change, method: against that version, and how it was obtained; None where not compared.
        alpha, alpha_sigma: power-law exponent and its standard error, None where undefined.
        findings: about this layer, worst first.
        problem: why the layer could not be examined, or None.
    """

    name: str
    status: StepStatus
    against: str | None
    origin: str | None = None
    relative_change: float | None = None
    method: str | None = None
    alpha: float | None = None
    alpha_sigma: float | None = None
    findings: tuple[Finding, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Break:
    """A layer that broke.

    Attributes:
        good: name of the last good version; None where the first that could be examined is broken.
        step: the version that brought it.
        unexamined: versions in between that could not be examined: one of them may have brought it.
        mended: name of the version in which the layer was good again, or None.
    """

    good: str | None
    step: Step
    unexamined: tuple[str, ...] = ()
    mended: str | None = None


@dataclass(frozen=True, slots=True)
class Bisection:
    """What became of a layer along a lineage, oldest version first."""

    layer: str
    steps: tuple[Step, ...]
    breaks: tuple[Break, ...]

    @property
    def standing(self) -> Break | None:
        """The break that no later version mended."""
        return self.breaks[-1] if self.breaks and self.breaks[-1].mended is None else None


def bisect(
    layer: str,
    links: Iterable[Link[Version]],
    examine: Callable[[Version, Version | None], tuple[Examination, Judgement] | str],
) -> Bisection:
    """Walk a lineage and find out where a layer broke.

    Args:
        layer: its name in the reports.
        links: oldest version first.
        examine: judges a version against the last good one (None for the first); a sentence where it cannot.
    """
    steps: list[Step] = []
    breaks: list[Break] = []
    good: Link[Version] | None = None
    unexamined: list[str] = []
    for link in links:
        against = good.name if good is not None else None
        step = _step(layer, link, against, examine(link.version, good.version if good is not None else None))
        steps.append(step)
        broken = bool(breaks) and breaks[-1].mended is None
        if step.status is StepStatus.UNDECIDED:
            if not broken:
                unexamined.append(link.name)
        elif step.status.is_bad:
            if not broken:
                breaks.append(Break(against, step, tuple(unexamined)))
        else:
            if broken:
                last = breaks[-1]
                breaks[-1] = Break(last.good, last.step, last.unexamined, link.name)
            good = link
            unexamined.clear()
    return Bisection(layer, tuple(steps), tuple(breaks))


def _step(
    layer: str, link: Link[Version], against: str | None, outcome: tuple[Examination, Judgement] | str
) -> Step:
    if isinstance(outcome, str):
        return Step(link.name, StepStatus.UNDECIDED, against, link.origin, problem=outcome)
    examination, judgement = outcome
    if examination.problem is not None:
        detail = examination.problem.detail
        return Step(link.name, StepStatus.UNDECIDED, against, link.origin, problem=detail)
    found = next((one for one in examination.everything if one.name == layer), None)
    findings = tuple(finding for finding in judgement.findings if finding.layer == layer)
    if found is None:
        status = StepStatus.ACCEPTED if link.accepted else StepStatus.MISSING
        return Step(link.name, status, against, link.origin, findings=findings)
    status = _STATUS[judgement.statuses[layer]]
    aligned = found.change.aligned if found.change is not None else None
    numbers = found.measurement.numbers if found.measurement is not None else None
    return Step(
        name=link.name,
        status=StepStatus.ACCEPTED if link.accepted and status.is_bad else status,
        against=against,
        origin=link.origin,
        relative_change=aligned.relative_change if aligned is not None else None,
        method=str(aligned.method) if aligned is not None else None,
        alpha=numbers.alpha if numbers is not None else None,
        alpha_sigma=numbers.alpha_sigma if numbers is not None else None,
        findings=findings,
        problem=found.problem.detail if found.problem is not None else None,
    )


_STATUS = {status: StepStatus(status.value) for status in LayerStatus}
