"""Episodes of alerts, and since which version a model fails."""

from __future__ import annotations

import pytest

from firedalerts import ended, fired
from layerwatch.daemon.store.alerthistory import Failing, episodes, failing_since
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionKey
from layerwatch.metrics.findings import Severity, Verdict
from storetools import judged, later, registered


def test_an_episode_goes_from_its_firing_to_its_end_with_its_worst_severity(database: Database) -> None:
    with database.write() as connection:
        first = fired(connection, version="v3", severity=Severity.WARNING, now=later(0))
        fired(connection, version="v4", severity=Severity.CRITICAL, now=later(10))
        ended(connection, first, version="v5", now=later(20))
        fired(connection, version="v6", severity=Severity.WARNING, now=later(30))
        fired(connection, "prod/other", version="v1", now=later(40))
        again, before = episodes(connection, "prod", "fraud")

    assert (before.episode, before.versions, before.severity) == (1, ("v3", "v4"), Severity.CRITICAL)
    assert (before.began_at, before.ended_at, before.ended_with) == (later(0), later(20), "v5")
    assert (again.episode, again.versions, again.severity) == (2, ("v6",), Severity.WARNING)
    assert (again.began_at, again.ended_at, again.ended_with) == (later(30), None, None)


@pytest.mark.parametrize(
    ("verdicts", "version", "expected"),
    [
        ("pass fail fail", "v3", Failing("v2", "v1")),
        ("pass fail fail", "v2", Failing("v2", "v1")),
        ("pass fail warn fail", "v4", Failing("v4", "v3")),
        # What could not be examined is no end of it.
        ("pass fail undecided fail", "v4", Failing("v2", "v1")),
        ("fail fail", "v2", Failing("v1", None)),
        ("pass fail", "v1", None),
        ("pass", "v9", None),
    ],
)
def test_a_model_fails_since_the_first_version_after_the_last_good_one(
    database: Database, verdicts: str, version: str, expected: Failing | None
) -> None:
    with database.write() as connection:
        for place, verdict in enumerate(verdicts.split(), 1):
            judged(connection, f"v{place}", Verdict(verdict))
        registered(connection, "v10")
        judged(connection, "v1", Verdict.FAIL, model="other")
        assert failing_since(connection, VersionKey("r", "m", version)) == expected
