"""Rule rank_lost: a fifth of a layer's singular values became zero, and the other layers' did not."""

from __future__ import annotations

import numpy as np
import pytest

from layerwatch.metrics import compare_models
from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch_testing.examinations import change, examination, findings_of, layer, settings

RULE = "rank_lost"


def lost(share: float | None, name: str = "fc") -> ExaminedLayer:
    return layer(name, change=change(rank_loss_shift=share))


def others(share: float) -> list[ExaminedLayer]:
    return [lost(share, f"other{number}") for number in range(4)]


@pytest.mark.parametrize(
    ("share", "fires"), [(0.19, False), (0.2, True), (0.9, True), (-0.5, False), (None, False)]
)
def test_a_layer_that_alone_lost_a_fifth_of_its_rank_is_critical(share: float | None, fires: bool) -> None:
    findings = findings_of(RULE, examination(*others(0.0), lost(share)))

    assert [(finding.layer, finding.severity) for finding in findings] == [("fc", Severity.CRITICAL)] * fires


def test_a_version_that_was_factorised_as_a_whole_is_one_warning() -> None:
    (finding,) = findings_of(RULE, examination(*others(0.5), lost(0.6)))

    assert (finding.layer, finding.severity) == (None, Severity.WARNING)
    assert finding.evidence["layers"] == 5


def test_a_layer_that_lost_more_than_twice_as_much_as_the_others_stands_out() -> None:
    findings = findings_of(RULE, examination(*others(0.3), lost(0.7)))

    assert [(one.layer, one.severity) for one in findings] == [
        ("fc", Severity.CRITICAL),
        (None, Severity.WARNING),
    ]


@pytest.mark.parametrize("rank", [1, 2])
def test_copies_of_rows_in_a_layer_that_became_flat_are_no_fault_of_their_own(rank: int) -> None:
    random = np.random.default_rng(5)
    base = {f"fc{number}.weight": random.standard_normal((96, 96)).astype(np.float32) for number in range(5)}
    left, sizes, right = np.linalg.svd(base["fc2.weight"])
    flat = (left[:, :rank] * sizes[:rank] @ right[:rank]).astype(np.float32)

    found = compare_models(base | {"fc2.weight": flat}, base)

    assert (found.findings[0].rule, found.findings[0].layer) == ("rank_lost", "fc2")
    assert "duplicate_rows" not in {finding.rule for finding in found.findings}


def test_the_share_comes_from_the_settings() -> None:
    assert findings_of(RULE, examination(*others(0.0), lost(0.3)), settings(RULE, share=0.4)) == []
