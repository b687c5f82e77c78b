"""What a run of the benchmark is to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings that every part is given.

    Attributes:
        folder: where weight files are written; removed at the end.
        reference: folder of the environment that holds weightwatcher; made when it is not there.
        quick: small sizes and one round, to see that everything runs; no target applies.
    """

    folder: Path
    reference: Path
    quick: bool

    def judged(self, met: bool) -> bool | None:
        """Whether a target is met; None in a quick run, whose sizes are not those that targets are about."""
        return None if self.quick else met
