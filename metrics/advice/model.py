"""One piece of advice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AdviceKind(StrEnum):
    """What the advice is about."""

    UNDER_TRAINED = "under_trained"
    OVER_CORRELATED = "over_correlated"
    TRAPS = "traps"
    FREEZE = "freeze"
    DIRECTION = "direction"


@dataclass(frozen=True, slots=True)
class Advice:
    """A hint for training, in plain words.

    Attributes:
        kind: what it is about.
        title: half a line.
        words: what the theory says and what to try, in a few sentences; no foreign text.
        layers: names of the layers it is about, the clearest first; foreign text.
        sure: how sure, with the numbers: how many layers were read, the clearest one, what healthy networks show.
    """

    kind: AdviceKind
    title: str
    words: str
    layers: tuple[str, ...]
    sure: str
