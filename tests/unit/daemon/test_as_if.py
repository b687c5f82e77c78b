"""What a promotion would do, asked before it is done."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.gate.asif import AlertChange, AsIf, UnknownVersionError, as_if
from layerwatch.daemon.store import alerts, refs, tables
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.rigs import POLICY, Rig
from layerwatch_testing.worlds.directory import DirectoryWorld


def asked(rig: Rig, ref: str, version: str) -> AsIf:
    return as_if(rig.database, "reg", "m", ref, version, POLICY, rig.clock())


def everything(rig: Rig) -> tuple[object, ...]:
    with rig.database.read() as connection:
        return (
            refs.list_refs(connection),
            alerts.list_states(connection),
            alerts.to_be_told(connection),
            connection.execute(sa.select(tables.alert_transitions)).all(),
        )


@pytest.fixture
def promoted(rig: Rig, world: DirectoryWorld) -> Rig:
    """Two good versions and a broken one; the champion is the first."""
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    world.publish("m", "v3", with_nan(network()))
    world.point("m", "champion", "v1")
    rig.cycle()
    rig.cycle()
    return rig


def test_the_promotion_of_a_broken_version_would_raise_an_alert(promoted: Rig) -> None:
    answer = asked(promoted, "champion", "v3")
    assert (answer.before, answer.verdict) == ("v1", Verdict.FAIL)
    assert answer.raised == (AlertChange("weights", "critical", answer.raised[0].layers),)
    assert answer.raised[0].layers
    assert (answer.still_firing, answer.resolved) == ((), ())


def test_the_promotion_of_a_good_version_would_raise_nothing(promoted: Rig) -> None:
    answer = asked(promoted, "champion", "v2")
    assert (answer.verdict, answer.raised, answer.resolved) == (Verdict.PASS, (), ())


def test_moving_a_broken_ref_back_would_resolve_its_alert(promoted: Rig, world: DirectoryWorld) -> None:
    world.point("m", "champion", "v3")
    promoted.cycle()
    answer = asked(promoted, "champion", "v1")
    assert answer.before == "v3"
    assert [change.group for change in answer.resolved] == ["weights"]
    stays = asked(promoted, "champion", "v3")
    assert [change.group for change in stays.still_firing] == ["weights"]


def test_a_ref_that_does_not_exist_yet_can_be_asked_about(promoted: Rig) -> None:
    answer = asked(promoted, "staging", "v3")
    assert answer.before is None
    assert [change.group for change in answer.raised] == ["weights"]


def test_nothing_happens_by_asking(promoted: Rig) -> None:
    before = everything(promoted)
    for version in ("v1", "v2", "v3"):
        asked(promoted, "champion", version)
        asked(promoted, "staging", version)
    assert everything(promoted) == before
    with promoted.database.read() as connection:
        firing = alerts.list_states(connection, phase=AlertPhase.FIRING)
    assert {state.identity.ref for state in firing} == {"latest"}


def test_a_version_that_waits_for_its_scan_has_no_verdict_and_raises_nothing_yet(
    promoted: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v4", with_nan(network(2)))
    promoted.look()
    answer = asked(promoted, "champion", "v4")
    assert (answer.verdict, answer.raised) == (None, ())


def test_an_unknown_version_is_refused_with_those_that_are_known(promoted: Rig) -> None:
    with pytest.raises(UnknownVersionError, match=r"no version v9 of reg/m; it holds v1, v2, v3"):
        asked(promoted, "champion", "v9")
