"""What is wrong with a configuration: every problem at once, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One mistake in the configuration.

    Attributes:
        path: dotted key with list positions, such as ``registries[0].poll``; empty for the file as a whole.
        line: 1-based line in the file, or None when the mistake has no line there.
        message: what is wrong and what would be right; never holds the value of a secret.
        source: the file, or the environment variable, the mistake was made in; None when neither is known.
    """

    path: str
    line: int | None
    message: str
    source: str | None = None

    def __str__(self) -> str:
        place = self.source or ""
        if self.line is not None:
            place = f"{place}:{self.line}" if place else f"line {self.line}"
        return ": ".join(part for part in (place, self.path, self.message) if part)


class ConfigError(Exception):
    """The configuration cannot be used.

    Attributes:
        problems: all that is wrong, in the order of the file; problems without a line come last.

    ``str()`` gives one problem per line: ``FILE:LINE: alerts.route.receiver: unknown receiver "slak", ...``.
    """

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        if not problems:
            raise ValueError("a ConfigError needs at least one problem")
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
