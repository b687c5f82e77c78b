"""How a version came from its baseline, as its author declares it."""

from __future__ import annotations

from enum import StrEnum


class Relation(StrEnum):
    """What was done to the baseline.

    ``reexported``: the same numbers in another file; ``cast``: rounded to another floating type; the rest as in the
    vocabulary of the design.
    """

    RETRAINED = "retrained"
    FINETUNED = "finetuned"
    REEXPORTED = "reexported"
    CAST = "cast"
    QUANTIZED = "quantized"
    PRUNED = "pruned"
    DISTILLED = "distilled"
    MERGED = "merged"
    ADAPTER = "adapter"

    @property
    def keeps_alignment(self) -> bool:
        """True where the weights must still point the way the baseline's do."""
        return self not in (Relation.RETRAINED, Relation.DISTILLED)
