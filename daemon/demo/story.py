"""The story as plain data: two models, six versions each, and the truth that is expected of every version."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.relation import Relation


class Action(StrEnum):
    """How a version is made.

    ``train``: from random weights; ``finetune``: further training of the parent; ``compress``: magnitude
    pruning of ``pruned_share`` of every layer's weights and a short recovery training of the others (neither
    at 0), then int8 with one scale per output row.
    """

    TRAIN = "train"
    FINETUNE = "finetune"
    COMPRESS = "compress"


class Fault(StrEnum):
    """A mistake in the scales of one int8 layer, as exporters really make it.

    ``scale_applied_twice``: multiplied by itself, which shrinks the layer several hundred times;
    ``range_divided_twice``: divided by the range of int8 once more, which shrinks it 127 times.
    """

    SCALE_APPLIED_TWICE = "scale_applied_twice"
    RANGE_DIVIDED_TWICE = "range_divided_twice"


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong with a version: the fault, and the only layer that has it."""

    layer: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class Step:
    """One version of the story.

    Attributes:
        version: name in the registry.
        what: what was done, in a few words.
        action: how it is made.
        parent: version that it is made from, or None.
        relation: what ``lineage.json`` declares, or None.
        expected: verdict that a correct judgement gives.
        pruned_share: share of every layer's weights set to zero, 0..1.
        defect: what is wrong, or None.
    """

    version: str
    what: str
    action: Action
    parent: str | None
    relation: Relation | None
    expected: Verdict
    pruned_share: float = 0.0
    defect: Defect | None = None

    @property
    def broken_layer(self) -> str | None:
        """Name of the layer that must be named, or None for a healthy version."""
        return self.defect.layer if self.defect else None


@dataclass(frozen=True, slots=True)
class Story:
    """The versions of one model, in the order of publishing."""

    model: str
    steps: tuple[Step, ...]


MLP = "digits-mlp"
CNN = "digits-cnn"


def _steps(defect: Defect, slip: str) -> tuple[Step, ...]:
    return (
        Step("v1", "trained", Action.TRAIN, None, None, Verdict.PASS),
        Step("v2", "fine-tuned", Action.FINETUNE, "v1", Relation.FINETUNED, Verdict.PASS),
        Step("v3", "int8-quantised", Action.COMPRESS, "v2", Relation.QUANTIZED, Verdict.PASS),
        Step(
            "v4", "pruned 30 %, int8", Action.COMPRESS, "v2", Relation.PRUNED, Verdict.PASS, pruned_share=0.30
        ),
        Step(
            "v5",
            f"pruned 30 %, int8, {slip}",
            Action.COMPRESS,
            "v2",
            Relation.PRUNED,
            Verdict.FAIL,
            pruned_share=0.30,
            defect=defect,
        ),
        Step(
            "v6",
            "repaired: pruned 28 %, int8",
            Action.COMPRESS,
            "v2",
            Relation.PRUNED,
            Verdict.PASS,
            pruned_share=0.28,
        ),
    )


STORIES: tuple[Story, ...] = (
    Story(MLP, _steps(Defect("fc2", Fault.SCALE_APPLIED_TWICE), "fc2's scale applied twice")),
    Story(CNN, _steps(Defect("conv2", Fault.RANGE_DIVIDED_TWICE), "conv2's scale divided twice")),
)
"""Everything that the demonstration publishes."""
