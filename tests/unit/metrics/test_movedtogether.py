"""A layer that is unlike itself is let off when a partner moved with it, and only then."""

from __future__ import annotations

import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch.metrics.judge import judge
from layerwatch_testing.examinations import aligned, change, examination, layer


def in_step(score: float) -> Coupling:
    return Coupling(
        CouplingKind.FEED_FORWARD_UNITS,
        ("block.up", "block.down"),
        score,
        units=256,
        sides=(Side.OUTPUTS, Side.INPUTS),
    )


def version(now: float, up: float = 0.02, down: float = 0.01, norm_ratio: float = 1.01) -> Examination:
    return examination(
        *(layer(f"healthy{number}") for number in range(6)),
        *(
            layer(name, change=change(aligned=aligned(1.4, cosine), norm_ratio=norm_ratio))
            for name, cosine in (("block.up", up), ("block.down", down))
        ),
        couplings=(in_step(now),),
        baseline_couplings=(in_step(20.0),),
    )


def test_two_layers_that_moved_together_and_stayed_in_step_are_information() -> None:
    judgement = judge(version(19.0), RulesSettings())

    assert judgement.verdict is Verdict.PASS
    messages = [finding.message for finding in judgement.findings if finding.layer == "block.up"]
    assert any("in step with those of block.down, which moved with it" in message for message in messages)
    assert {finding.severity for finding in judgement.findings} == {Severity.INFO}


@pytest.mark.parametrize(
    "broken",
    [version(1.0), version(19.0, down=0.99), version(19.0, norm_ratio=3.0)],
    ids=["out of step", "the partner did not move", "another size"],
)
def test_whatever_else_happened_is_judged(broken: Examination) -> None:
    assert judge(broken, RulesSettings()).verdict is Verdict.FAIL


def test_without_couplings_nothing_is_let_off() -> None:
    unwatched = examination(*version(19.0).layers)

    assert judge(unwatched, RulesSettings()).verdict is Verdict.FAIL
