"""The detection benchmark in small: one network without and one with batch norms, and what the benchmark relies on.

The whole benchmark is ``make bench-detection``; its targets: the README. Here the floor is held: a rule that calls
healthy changes of these networks broken, or no longer sees a broken layer of them, fails.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.rules import RULES
from layerwatch_detection.architectures import ARCHITECTURES
from layerwatch_detection.chain import NETWORKS, Chain, Network, chain_of
from layerwatch_detection.defects import SINGLE
from layerwatch_detection.expected import RULES_BY_FAMILY
from layerwatch_detection.outcomes import DAMAGED_SIDES, Label, Outcome, is_covered, label_of, read
from layerwatch_detection.reporting import agree, critical, right_layer, right_type, tables
from layerwatch_detection.running import Run, outcomes_of
from layerwatch_detection.shares import Share, share_of
from layerwatch_detection.training import Examiner, Quality
from layerwatch_detection.versions import QUICK, Regime, versions_of

SMALL = ("mlp_s0", "cnn_bn_s0")
EFFORT = 0.5


@pytest.fixture(scope="module")
def networks() -> list[Network]:
    return [network for network in NETWORKS if network.name in SMALL]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detection")


@pytest.fixture(scope="module")
def outcomes(networks: list[Network], cache: Path) -> list[Outcome]:
    run = Run(cache, QUICK, EFFORT, rejudge=False)
    return [one for many in outcomes_of(networks, run, jobs=1) for one in many]


@pytest.fixture(scope="module")
def chain(networks: list[Network], cache: Path, outcomes: list[Outcome]) -> Chain:
    return chain_of(networks[0], cache, EFFORT)


@pytest.fixture(scope="module")
def aligned_breakages(outcomes: list[Outcome]) -> list[Outcome]:
    found = [one for one in outcomes if one.regime == Regime.ALIGNED and one.is_broken and one.is_single]
    assert len(found) >= 20, "too few of the defects break these networks to say anything"
    return found


def _told(outcomes: list[Outcome]) -> list[str]:
    return [
        f"{one.network} {one.key}: {one.exact.verdict} {[(told.rule, told.layer) for told in one.exact.findings]}"
        for one in outcomes
    ]


@pytest.mark.slow
def test_no_healthy_version_is_called_broken(outcomes: list[Outcome]) -> None:
    healthy = [one for one in outcomes if one.is_healthy]

    assert len(healthy) >= 80
    assert _told([one for one in healthy if critical(one)]) == []


@pytest.mark.slow
def test_every_broken_layer_on_top_of_a_finetune_is_found(aligned_breakages: list[Outcome]) -> None:
    assert _told([one for one in aligned_breakages if not critical(one)]) == []


@pytest.mark.slow
def test_the_broken_layer_is_the_first_to_look_at(aligned_breakages: list[Outcome]) -> None:
    found = [one for one in aligned_breakages if critical(one)]

    assert _told([one for one in found if not right_layer(one)]) == []


@pytest.mark.slow
def test_nine_of_ten_broken_layers_get_the_name_of_what_was_done_to_them(
    aligned_breakages: list[Outcome],
) -> None:
    wrong = [one for one in aligned_breakages if not right_type(one)]

    assert len(wrong) <= 0.1 * len(aligned_breakages), _told(wrong)


@pytest.mark.slow
def test_what_is_stored_leads_to_the_verdict_that_both_files_lead_to(outcomes: list[Outcome]) -> None:
    differ = [one for one in outcomes if not agree(one)]

    # The target of the whole benchmark is 1 %. Here every defect is tried on one layer, so those that only both files
    # can show (label noise, partial permutations) weigh more: 5 of 429 when this was written.
    assert len(differ) <= 0.02 * len(outcomes), _told(differ)


@pytest.mark.slow
def test_outcomes_are_written_down_and_read_back(
    outcomes: list[Outcome], networks: list[Network], cache: Path
) -> None:
    kept = [one for network in networks for one in read(cache / f"outcomes-{network.name}.jsonl")]

    assert kept == outcomes


@pytest.mark.slow
def test_a_second_run_judges_what_the_first_one_measured(
    outcomes: list[Outcome], networks: list[Network], cache: Path
) -> None:
    run = Run(cache, QUICK, EFFORT, rejudge=True)

    assert [one for many in outcomes_of(networks, run, jobs=1) for one in many] == outcomes


@pytest.mark.slow
def test_every_version_is_in_one_table_and_every_table_has_a_cell_for_each_heading(
    outcomes: list[Outcome],
) -> None:
    for table in tables(outcomes):
        assert all(len(row) == len(table.headings) for row in table.rows), table.title
        assert table.text.startswith(table.title)


@pytest.mark.slow
def test_units_in_another_order_and_the_same_again_leave_the_function_as_it_is(
    networks: list[Network], chain: Chain
) -> None:
    examiner = Examiner(ARCHITECTURES[networks[0].architecture])
    before = examiner.quality(chain.finetunes["long"])
    shuffled = [
        version
        for version in versions_of(networks[0], chain, QUICK)
        if version.family == "units in another order" and "long" in version.strength
    ]

    assert len(shuffled) == 1
    after = examiner.quality(shuffled[0].state())
    assert after.accuracy == before.accuracy
    assert after.loss == pytest.approx(before.loss, rel=1e-4)


@pytest.mark.slow
def test_versions_are_the_same_on_every_run(networks: list[Network], chain: Chain) -> None:
    first, second = (versions_of(networks[0], chain, QUICK) for _ in range(2))

    assert len({version.key for version in first}) == len(first)
    for one, other in zip(first, second, strict=True):
        assert one.key == other.key
        state, again = one.state(), other.state()
        assert all(np.array_equal(state[name], again[name], equal_nan=True) for name in state)


def test_hold_out_networks_are_no_tuning_networks() -> None:
    parts: tuple[set[tuple[str, int]], set[tuple[str, int]]] = (set(), set())
    for network in NETWORKS:
        parts[network.held_out].add((network.architecture, network.seed))

    assert not parts[0] & parts[1]
    assert {seed for _, seed in parts[0]}.isdisjoint({seed for _, seed in parts[1]})


def test_every_rule_that_is_expected_to_name_a_defect_exists() -> None:
    expected = {rule for rules in RULES_BY_FAMILY.values() for rule in rules}

    assert expected - {rule.name for rule in RULES} == set()


@pytest.mark.parametrize(
    ("accuracy", "loss", "label"),
    [
        (0.945, 0.2, Label.HEALTHY),
        (0.93, 0.2, Label.GREY),
        (0.89, 0.2, Label.BROKEN),
        (0.95, 0.26, Label.GREY),
        (0.95, 0.50, Label.BROKEN),
        (0.95, float("inf"), Label.BROKEN),
    ],
)
def test_the_label_of_a_language_model_is_the_worse_of_accuracy_and_loss(
    accuracy: float, loss: float, label: Label
) -> None:
    assert label_of(Quality(accuracy, loss), Quality(0.95, 0.2), is_language_model=True) is label


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263 and 0 of 20.
    assert Share(81, 263).interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert Share(0, 20).interval == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_a_share_counts_what_holds() -> None:
    assert share_of(range(10), lambda number: number < 3) == Share(3, 10)


@pytest.mark.parametrize(
    ("family", "strength", "layer", "expected"),
    [
        ("permuted rows", "all, on seed", "made", True),
        ("permuted rows", "all, on seed", "read", False),
        ("permuted columns", "25 %, on seed", "read", True),
        ("permuted columns", "25 %, on seed", "made", False),
        ("dead rows", "10 %, on seed", "read", False),
        ("sign flip", "all, on seed", "made", False),
        ("sign flip", "30 % of rows, on seed", "made", True),
        ("transposed", ", on seed", "read", True),
        ("transposed", ", on seed", "alone", False),
        ("noise", "60 %, on seed", "alone", True),
        ("nan", "1, on seed", "alone", True),
    ],
)
def test_a_version_is_covered_where_something_watches_the_damaged_side(
    family: str, strength: str, layer: str, expected: bool
) -> None:
    units = Coupling(
        CouplingKind.INTERFACE_UNITS, ("made", "read"), 20.0, None, 64, (Side.OUTPUTS, Side.INPUTS)
    )
    assert is_covered(family, strength, (layer,), (units,)) is expected


def test_families_that_need_something_that_watches_exist() -> None:
    assert set(DAMAGED_SIDES) <= {defect.family for defect in SINGLE} | {"swapped layers"}
