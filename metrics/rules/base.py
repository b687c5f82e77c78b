"""What a rule is: a name, an explanation, and a pure function from an examination to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup

Check = Callable[[Examination, Context, RulesSettings], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One check.

    Attributes:
        name: file name = config key = metric label = argument of ``layerwatch explain``.
        group: what it looks after; findings of one group make one alert.
        title: half a line for tables.
        explanation: what it means, then paragraphs that begin with "Likely cause:", "What to do:" and
            "Cannot see:"; plain text, shown by ``explain``.
        needs_baseline: the runner skips the rule where there is none.
        check: the rule itself; reads its thresholds from its section of the settings.
        is_statistical: it weighs how far a number moved, so that the alarm budget decides from which strength on it
            may page; False for facts, such as a missing number.
        is_about_the_step: it holds each layer against what the version is declared or recognised to be: where most
            layers violate it, there is one thing to mend, and that is the version.
    """

    name: str
    group: RuleGroup
    title: str
    explanation: str
    needs_baseline: bool
    check: Check
    is_statistical: bool = False
    is_about_the_step: bool = False

    @property
    def likely_cause(self) -> str:
        """What most often leads to a violation, in one line; empty where the rule names none."""
        return self._paragraph("Likely cause:")

    @property
    def what_to_do(self) -> str:
        """The next step, in one line."""
        return self._paragraph("What to do:")

    @property
    def cannot_see(self) -> str:
        """What the rule is blind to, in one line."""
        return self._paragraph("Cannot see:")

    def _paragraph(self, title: str) -> str:
        for paragraph in self.explanation.split("\n\n"):
            if paragraph.startswith(title):
                return " ".join(paragraph.removeprefix(title).split())
        return ""
