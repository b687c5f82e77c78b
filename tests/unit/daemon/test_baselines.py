from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from layerwatch.config.baselines import BaselinesSettings
from layerwatch.daemon.baselines import BaselineChoice, accept_if_passing, choose_baseline, known_relation
from layerwatch.daemon.store import baselines, contents, measurements, tables, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import BaselineKind, BaselineRecord, Lineage, VersionRecord
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.relation import Relation
from storetools import NOW, content, judged, later, measurement, registered

NOT_HEALTHY = (Verdict.FAIL, Verdict.UNDECIDED)


def accept(connection: sa.Connection, version: str) -> None:
    baselines.accept(connection, "r", "m", version, "ann", "looked at it", NOW)


def pin(connection: sa.Connection, version: str) -> None:
    baselines.pin(connection, "r", "m", version, "ann", "reference", NOW)


def chosen(connection: sa.Connection, version: str, **more: Any) -> BaselineChoice | None:
    return choose_baseline(connection, registered(connection, version, **more))


def shown(choice: BaselineChoice | None) -> tuple[str, str] | None:
    return None if choice is None else (choice.version.key.version, choice.chosen_by)


def test_the_first_version_of_a_model_has_no_baseline(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1", model="another")
        assert chosen(connection, "v1") is None


def test_without_any_choice_the_nearest_earlier_healthy_version_is_the_baseline(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "v2", Verdict.WARN)
        judged(connection, "v11")
        assert shown(chosen(connection, "v10")) == ("v2", "history")


@pytest.mark.parametrize("verdict", NOT_HEALTHY)
def test_history_passes_over_a_version_that_is_not_healthy(database: Database, verdict: Verdict) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "v2", verdict)
        assert shown(chosen(connection, "v3")) == ("v1", "history")


def test_the_accepted_version_goes_before_history(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "v2")
        accept(connection, "v1")
        assert shown(chosen(connection, "v3")) == ("v1", "accepted")


def test_the_declared_parent_goes_before_the_accepted_version(database: Database) -> None:
    with database.write() as connection:
        for version in ("v1", "v2", "v3"):
            judged(connection, version)
        accept(connection, "v3")
        choice = chosen(connection, "v4", lineage=Lineage("v1", "quantized", "card", 1.0))
        assert shown(choice) == ("v1", "parent")
        assert choice is not None
        assert choice.relation == "quantized"


def test_the_pinned_version_goes_before_the_declared_parent(database: Database) -> None:
    with database.write() as connection:
        for version in ("v1", "v2", "v3"):
            judged(connection, version)
        accept(connection, "v3")
        pin(connection, "v2")
        choice = chosen(connection, "v4", lineage=Lineage("v1", "quantized", "card", 1.0))
        assert shown(choice) == ("v2", "pinned")
        assert choice is not None
        assert choice.relation is None  # the declaration is about v1


@pytest.mark.parametrize("verdict", NOT_HEALTHY)
def test_a_parent_that_is_not_healthy_is_passed_over_and_the_report_says_so(
    database: Database, verdict: Verdict
) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "v2", verdict)
        choice = chosen(connection, "v3", lineage=Lineage("v2", "finetuned", "card", 1.0))
        assert shown(choice) == ("v1", f"history (declared parent v2 has the verdict {verdict})")


def test_a_broken_parent_that_was_accepted_is_the_baseline(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "v2", Verdict.FAIL)
        accept(connection, "v2")
        choice = chosen(connection, "v3", lineage=Lineage("v2", "finetuned", "card", 1.0))
        assert shown(choice) == ("v2", "parent")


def test_a_parent_that_is_not_there_or_not_judged_is_passed_over(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        registered(connection, "v2")
        absent = chosen(connection, "v3", lineage=Lineage("v0", None, "card", 1.0))
        assert shown(absent) == ("v1", "history (declared parent v0 is not in the registry)")
        waiting = chosen(connection, "v4", lineage=Lineage("v2", None, "card", 1.0))
        assert shown(waiting) == ("v1", "history (declared parent v2 was not judged yet)")


def test_a_version_that_names_itself_as_parent_is_not_judged_against_itself(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        choice = chosen(connection, "v2", lineage=Lineage("v2", None, "card", 1.0))
        assert shown(choice) == ("v1", "history (declared parent v2 is the version itself)")


def base_of_another_model(connection: sa.Connection, verdict: Verdict = Verdict.PASS) -> VersionRecord:
    """hub/base/1, measured."""
    base = judged(connection, "1", verdict, model="base", registry="hub", fingerprint=f"a {verdict}")
    measurements.save(connection, measurement("digest-of-base"), NOW)
    contents.save(connection, content(base.fingerprint, "digest-of-base"), NOW)
    return base


QUANTISED = Lineage("hub/base/1", "quantized", "card", 0.4)


FROM_THE_HUB = BaselinesSettings(parents_from=("hub/*",))
NOT_USED = (
    "declared parent hub/base/1 is of another model: nobody accepted it there, and baselines.parents_from does not "
    "name that model"
)
GIVES_WAY = "declared parent hub/base/1 is of another model, and the accepted version goes before"


def quantised(
    connection: sa.Connection,
    version: str,
    settings: BaselinesSettings = FROM_THE_HUB,
    parent: str = "hub/base/1",
) -> BaselineChoice | None:
    declared = Lineage(parent, "quantized", "card", 0.4)
    return choose_baseline(connection, registered(connection, version, lineage=declared), settings)


def accept_base(connection: sa.Connection) -> None:
    baselines.accept(connection, "hub", "base", "1", "ann", "looked at it", NOW)


def test_a_parent_in_another_registry_is_the_baseline_where_the_configuration_names_its_model(
    database: Database,
) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        accept(connection, "v1")
        base = base_of_another_model(connection)
        choice = quantised(connection, "v2")
        assert choice is not None
        assert (choice.version.id, choice.relation, choice.chosen_by) == (base.id, "quantized", "parent")
        assert shown(quantised(connection, "v3", parent="hf:base")) == ("1", "parent")
        others = BaselinesSettings(parents_from=("hub/other", "r/*"))
        assert shown(quantised(connection, "v4", others)) == ("v1", f"accepted ({NOT_USED})")


def test_a_pin_goes_before_a_parent_in_another_model_that_the_configuration_names(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        pin(connection, "v1")
        base_of_another_model(connection)
        assert shown(quantised(connection, "v2")) == ("v1", "pinned")


def test_a_parent_in_another_model_that_nobody_vouched_for_is_no_baseline(database: Database) -> None:
    with database.write() as connection:
        base_of_another_model(connection)
        judged(connection, "v1")
        assert shown(chosen(connection, "v2", lineage=QUANTISED)) == ("v1", f"history ({NOT_USED})")
        accept(connection, "v1")
        assert shown(chosen(connection, "v3", lineage=QUANTISED)) == ("v1", f"accepted ({NOT_USED})")


def test_a_parent_that_a_person_accepted_in_its_model_goes_before_history_and_after_the_accepted_version(
    database: Database,
) -> None:
    with database.write() as connection:
        base_of_another_model(connection)
        judged(connection, "v1")
        accept_base(connection)
        assert shown(chosen(connection, "v2", lineage=QUANTISED)) == ("1", "parent")
        accept(connection, "v1")
        assert shown(chosen(connection, "v3", lineage=QUANTISED)) == ("v1", f"accepted ({GIVES_WAY})")
        pin(connection, "v1")
        assert shown(chosen(connection, "v4", lineage=QUANTISED)) == ("v1", "pinned")


def test_a_parent_that_layerwatch_accepted_in_its_model_has_nobodys_word(database: Database) -> None:
    with database.write() as connection:
        auto(connection, base_of_another_model(connection))
        judged(connection, "v1")
        assert shown(chosen(connection, "v2", lineage=QUANTISED)) == ("v1", f"history ({NOT_USED})")


def test_other_bytes_under_the_name_of_an_accepted_parent_have_nobodys_word(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "1", model="base", registry="hub")
        accept_base(connection)
        base_of_another_model(connection)
        judged(connection, "v1")
        assert shown(chosen(connection, "v2", lineage=QUANTISED)) == ("v1", f"history ({NOT_USED})")


def test_the_first_version_of_a_model_is_judged_against_its_parent_in_another(database: Database) -> None:
    with database.write() as connection:
        base_of_another_model(connection)
        judged(connection, "v0", Verdict.FAIL)
        choice = chosen(connection, "v1", lineage=QUANTISED)
        assert shown(choice) == ("1", "parent")
        assert choice is not None
        assert choice.relation == "quantized"


def test_the_first_version_keeps_its_parent_when_it_is_judged_again(database: Database) -> None:
    with database.write() as connection:
        base_of_another_model(connection)
        first = judged(connection, "v1", lineage=QUANTISED)
        judged(connection, "v2", now=later(1))
        versions.reopen(connection, first.id)
        assert shown(choose_baseline(connection, first)) == ("1", "parent")


@pytest.mark.parametrize("name", ["v1", "v0"])
def test_neither_other_bytes_nor_a_lower_name_make_a_version_the_first_of_its_model(
    database: Database, name: str
) -> None:
    with database.write() as connection:
        base_of_another_model(connection)
        judged(connection, "v1")
        assert chosen(connection, name, fingerprint="broken", lineage=QUANTISED) is None


@pytest.mark.parametrize("choose", [accept, pin])
def test_other_bytes_under_the_chosen_versions_name_are_not_the_first_of_the_model(
    database: Database, choose: Any
) -> None:
    with database.write() as connection:
        base_of_another_model(connection)
        judged(connection, "v1", Verdict.FAIL)
        choose(connection, "v1")
        assert chosen(connection, "v1", fingerprint="broken", lineage=QUANTISED) is None


def test_what_passed_against_a_parent_in_another_model_is_accepted_only_where_somebody_vouches_for_it(
    database: Database,
) -> None:
    with database.write() as connection:
        base_of_another_model(connection)
        first = judged(connection, "v1", lineage=QUANTISED)
        settings = BaselinesSettings(accept="pass")
        assert accept_if_passing(connection, first, Verdict.PASS, "1", settings, NOW) is None
        assert baselines.history(connection, "r", "m") == []
        allowed = BaselinesSettings(accept="pass", parents_from=("*/base",))
        assert accept_if_passing(connection, first, Verdict.PASS, "1", allowed, NOW) is not None
        second = judged(connection, "v2", lineage=QUANTISED)
        accept_base(connection)
        assert accept_if_passing(connection, second, Verdict.PASS, "1", settings, NOW) is not None


def test_a_pass_against_a_version_of_its_own_is_accepted_although_another_models_parent_is_called_the_same(
    database: Database,
) -> None:
    with database.write() as connection:
        base_of_another_model(connection)
        judged(connection, "1")
        second = judged(connection, "2", lineage=QUANTISED)
        assert shown(choose_baseline(connection, second)) == ("1", f"history ({NOT_USED})")
        settings = BaselinesSettings(accept="pass")
        assert accept_if_passing(connection, second, Verdict.PASS, "1", settings, NOW) is not None


def test_a_parent_in_another_registry_must_be_measured_and_healthy_or_accepted(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "1", model="base", registry="hub")
        choice = chosen(connection, "v2", lineage=QUANTISED)
        assert shown(choice) == ("v1", "history (declared parent hub/base/1 is not measured)")
        base = base_of_another_model(connection, Verdict.FAIL)
        choice = chosen(connection, "v3", lineage=QUANTISED)
        assert shown(choice) == ("v1", "history (declared parent hub/base/1 has the verdict fail)")
        baselines.accept(connection, "hub", "base", base.key.version, "ann", "looked at it", NOW)
        assert shown(chosen(connection, "v4", lineage=QUANTISED)) == ("1", "parent")


def test_a_model_of_several_versions_does_not_say_which_is_the_parent(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        base_of_another_model(connection)
        judged(connection, "2", model="base", registry="hub")
        choice = chosen(connection, "v2", lineage=Lineage("hf:base", "quantized", "card", 0.4))
        assert shown(choice) == (
            "v1",
            "history (declared parent hf:base does not name one version that is known here)",
        )


@pytest.mark.parametrize("choose", [accept, pin])
def test_bytes_that_replaced_the_chosen_ones_are_no_baseline(database: Database, choose: Any) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "v2")
        choose(connection, "v1")
        judged(connection, "v1", fingerprint="other bytes")
        assert shown(chosen(connection, "v3")) == ("v2", "history")


def test_when_the_pinned_bytes_are_replaced_the_accepted_version_counts_again(database: Database) -> None:
    with database.write() as connection:
        for version in ("v1", "v2", "v3"):
            judged(connection, version)
        accept(connection, "v2")
        pin(connection, "v1")
        judged(connection, "v1", fingerprint="other bytes")
        assert shown(chosen(connection, "v4")) == ("v2", "accepted")


@pytest.mark.parametrize("choose", [accept, pin])
def test_the_chosen_version_itself_is_judged_against_something_else(database: Database, choose: Any) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        version = judged(connection, "v2", Verdict.FAIL)
        choose(connection, "v2")
        versions.reopen(connection, version.id)
        assert shown(choose_baseline(connection, version)) == ("v1", "history")


def test_after_unpinning_the_accepted_version_is_the_baseline_again(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "v2")
        accept(connection, "v1")
        pin(connection, "v2")
        baselines.unpin(connection, "r", "m", "ann", "done", NOW)
        assert shown(chosen(connection, "v3")) == ("v1", "accepted")


def test_a_baseline_that_is_no_longer_in_the_registry_still_serves(database: Database) -> None:
    with database.write() as connection:
        measure(connection, judged(connection, "v1"))
        versions.mark_gone(connection, "r", "m", "v1", NOW)
        assert shown(chosen(connection, "v2")) == ("v1", "history")


# Accepted automatically


def auto(
    connection: sa.Connection, version: VersionRecord, verdict: Verdict = Verdict.PASS, when: str = "pass"
) -> BaselineRecord | None:
    """Tell that a version was just judged."""
    settings = BaselinesSettings.model_validate({"accept": when})
    return accept_if_passing(connection, version, verdict, "v0", settings, NOW)


def test_a_version_that_passes_is_accepted_by_layerwatch_with_the_reason(database: Database) -> None:
    with database.write() as connection:
        record = auto(connection, judged(connection, "v1"))
        assert record is not None
        assert (record.kind, record.by) == (BaselineKind.AUTO_ACCEPTED, "layerwatch")
        assert record.reason == "verdict pass against v0"
        judged(connection, "v2", Verdict.WARN)
        assert shown(chosen(connection, "v3")) == ("v1", "accepted automatically")


@pytest.mark.parametrize("verdict", [Verdict.WARN, *NOT_HEALTHY])
def test_nothing_but_a_pass_is_accepted(database: Database, verdict: Verdict) -> None:
    with database.write() as connection:
        assert auto(connection, judged(connection, "v1", verdict), verdict) is None
        assert baselines.history(connection, "r", "m") == []


def test_without_the_setting_nothing_is_accepted(database: Database) -> None:
    with database.write() as connection:
        assert auto(connection, judged(connection, "v1"), when="never") is None


def test_judging_a_version_again_does_not_accept_it_twice(database: Database) -> None:
    with database.write() as connection:
        version = judged(connection, "v1")
        assert auto(connection, version) is not None
        assert auto(connection, version) is None


def test_bytes_that_took_the_name_while_a_version_was_scanned_are_not_accepted_for_it(
    database: Database,
) -> None:
    with database.write() as connection:
        version = judged(connection, "v1")
        registered(connection, "v1", fingerprint="other bytes")
        assert auto(connection, version) is None
        assert baselines.history(connection, "r", "m") == []


def test_a_rescan_of_an_old_version_does_not_take_the_baseline_back(database: Database) -> None:
    with database.write() as connection:
        old = judged(connection, "v1")
        auto(connection, judged(connection, "v2"))
        assert auto(connection, old) is None
        assert shown(chosen(connection, "v3")) == ("v2", "accepted automatically")


def test_what_a_person_accepted_later_goes_before(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        auto(connection, judged(connection, "v2"))
        accept(connection, "v1")
        assert shown(chosen(connection, "v3")) == ("v1", "accepted")


def test_a_later_pass_goes_before_what_a_person_accepted(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        accept(connection, "v1")
        auto(connection, judged(connection, "v2"))
        assert shown(chosen(connection, "v3")) == ("v2", "accepted automatically")


def test_an_automatic_baseline_that_fails_later_is_passed_over_for_the_one_before(database: Database) -> None:
    with database.write() as connection:
        auto(connection, judged(connection, "v1"))
        second = judged(connection, "v2")
        auto(connection, second)
        versions.reopen(connection, second.id)
        versions.record_verdict(connection, second.id, Verdict.FAIL, "{}", [], NOW)
        assert shown(chosen(connection, "v3")) == ("v1", "accepted automatically")


def test_an_automatic_baseline_serves_no_version_before_it(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        old = judged(connection, "v2")
        auto(connection, judged(connection, "v9"))
        assert shown(choose_baseline(connection, old)) == ("v1", "history")


def test_an_automatic_acceptance_is_nobodys_word_that_a_broken_version_is_normal(database: Database) -> None:
    with database.write() as connection:
        version = judged(connection, "v1")
        auto(connection, version)
        assert not baselines.was_accepted(connection, version.key, version.fingerprint)
        accept(connection, "v1")
        assert baselines.was_accepted(connection, version.key, version.fingerprint)


def test_an_automatic_baseline_counts_as_history_when_it_is_lost(database: Database) -> None:
    with database.write() as connection:
        auto(connection, judged(connection, "v1"))
        choice = chosen(connection, "v2")
        assert choice is not None
        assert choice.is_history


def test_a_relation_of_another_release_is_none_that_the_rules_know() -> None:
    assert known_relation("quantized") is Relation.QUANTIZED
    assert known_relation("rejuvenated") is None
    assert known_relation(None) is None


def measure(connection: sa.Connection, version: VersionRecord) -> None:
    """Keep what a scan of a version would."""
    contents.save(connection, content(version.fingerprint, f"digest-{version.id}"), NOW)
    measurements.save(connection, measurement(f"digest-{version.id}"), NOW)


def forget(connection: sa.Connection, version: VersionRecord) -> None:
    versions.mark_gone(connection, "r", "m", version.key.version, NOW)


def test_history_falls_back_to_the_nearest_version_that_can_still_be_compared_with(
    database: Database,
) -> None:
    with database.write() as connection:
        first, second, third = (judged(connection, version) for version in ("v1", "v2", "v3"))
        measure(connection, first)
        measure(connection, third)
        assert shown(chosen(connection, "v4")) == ("v3", "history")
        forget(connection, third)
        assert shown(chosen(connection, "v4")) == ("v3", "history")
        connection.execute(sa.delete(tables.measurements).where(tables.measurements.c.digest == "digest-3"))
        # Nothing is left of the third; the second can be measured again, for its files are there.
        lost = "(v3 is gone, and its measurements are lost)"
        assert shown(chosen(connection, "v4")) == ("v2", f"history {lost}")
        forget(connection, second)
        assert shown(chosen(connection, "v4")) == ("v1", f"history {lost}")
        connection.execute(sa.delete(tables.contents))
        forget(connection, first)
        assert chosen(connection, "v4") is None


def test_a_version_accepted_automatically_that_is_lost_leaves_its_place_to_the_one_before(
    database: Database,
) -> None:
    with database.write() as connection:
        for version in ("v1", "v2"):
            record = judged(connection, version)
            settings = BaselinesSettings(accept="pass")
            accept_if_passing(connection, record, Verdict.PASS, None, settings, NOW)
        assert shown(chosen(connection, "v3")) == ("v2", "accepted automatically")
        forget(connection, record)
        assert shown(chosen(connection, "v3")) == ("v1", "accepted automatically")


def test_a_version_that_a_person_chose_stays_the_baseline_although_it_is_lost(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        record = judged(connection, "v2")
        accept(connection, "v2")
        forget(connection, record)
        assert shown(chosen(connection, "v3")) == ("v2", "accepted")
