"""The pages about many versions read what they show by an index, however much else the store holds."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from firedalerts import fired
from layerwatch.daemon.store import baselines, queue, refs
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.examinations import examination, layer, measurement
from queryplans import asked
from sites import Site
from storedreports import measured, reported
from storetools import NOW, judged, registered

_SIDES = {"a_registry": "r", "a_model": "m1", "a_version": "v2", "b_registry": "r", "b_model": "m1"}

_READ_WHOLE = {"silences"}
"""Silences are few."""

PATHS = (
    "/",
    "/?page=9999",
    *(f"/?verdict={one}" for one in Verdict),
    "/?verdict=none",
    "/?sort=name",
    "/?sort=scanned",
    "/?registry=r&sort=scanned",
    "/?q=m1",
    "/?q=m1&registry=r&verdict=fail&sort=name",
    "/model?registry=r&model=m1",
    "/model?registry=r&model=m1&page=2&heat=status",
    "/compare?a_model=m",
    f"/compare?{urlencode({**_SIDES, 'b_version': 'v1'})}",
    "/compare?a_model=m1&b_model=m2",
)


@pytest.fixture
def filled(database: Database) -> Database:
    """Sixty models; the first has reports, measurements, refs, an alert and what people decided."""
    with database.write() as connection:
        for number in range(60):
            judged(connection, "v1", list(Verdict)[number % 4], model=f"m{number}")
        registered(connection, "v1", model="waiting")
        for version in ("v1", "v2"):
            record = reported(connection, examination(layer("fc1"), layer("fc2")), version, model="m99")
            measured(connection, record.fingerprint, [("fc1", measurement(digest=f"{version}-1"))])
        for number in range(2, 60):
            record = judged(connection, f"v{number}", Verdict.FAIL, model="m1")
            measured(connection, record.fingerprint, [("fc1", measurement(digest=f"v{number}"))])
        refs.point(connection, "r", "m1", "latest", record.id, NOW)
        fired(connection, "r/m1", version="v59")
        baselines.accept(connection, "r", "m1", "v59", "ann", "meant", NOW)
    return database


def test_no_table_is_read_as_a_whole(site: Site, filled: Database) -> None:
    for path in PATHS:
        with asked() as statements:
            assert site.get(path).status_code in (200, 404)
        assert len(statements) > 3
        for step, statement in statements.scans(filled):
            table = step.split()[1]
            # Each model has one small row: searches and counts go through them all, in the order of an index.
            is_of_models = table == "model_summaries" and "USING" in step
            assert is_of_models or table in _READ_WHOLE, f"{path}: {step}: {statement}"


def test_a_search_among_plans_would_be_seen(filled: Database) -> None:
    with asked() as statements, filled.read() as connection:
        connection.exec_driver_sql("SELECT id FROM versions WHERE source_path = ''")
    assert [step for step, _ in statements.scans(filled)] == ["SCAN versions"]


def test_which_versions_are_being_scanned_is_read_by_their_state(filled: Database) -> None:
    with asked() as statements, filled.write() as connection:
        queue.claim_next(connection, NOW)
    steps = [step for step, _ in statements.steps(filled)]
    assert any(step.startswith("SEARCH scanning USING INDEX ix_versions_state ") for step in steps), steps
