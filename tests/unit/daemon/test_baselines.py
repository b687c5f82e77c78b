from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from layerwatch.daemon.baselines import BaselineChoice, choose_baseline
from layerwatch.daemon.store import baselines, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import Lineage
from layerwatch.metrics.findings import Verdict
from storetools import NOW, judged, registered

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
        judged(connection, "v1")
        versions.mark_gone(connection, "r", "m", "v1", NOW)
        assert shown(chosen(connection, "v2")) == ("v1", "history")
