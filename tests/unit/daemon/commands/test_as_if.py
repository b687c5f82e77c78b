"""``layerwatch gate REGISTRY/MODEL --as-if REF=VERSION``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layerwatch.daemon.cli import app
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import Lineage, VersionKey
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A store with a good, a broken, an undecided and a waiting version."""
    path = tmp_path / "layerwatch.yaml"
    path.write_text("registries: [{name: prod, kind: directory, path: models}]\n")
    database = Database.open(f"sqlite:///{tmp_path / 'layerwatch.db'}")
    broken = Finding(
        rule="scaled",
        group=RuleGroup.WEIGHTS,
        severity=Severity.CRITICAL,
        layer="fc2",
        message="eight times larger",
        evidence={},
    )
    lost = Finding(
        rule="unreadable",
        group=RuleGroup.EXAMINATION,
        severity=Severity.CRITICAL,
        layer=None,
        message="cut off",
        evidence={},
    )
    found = {"1": (Verdict.PASS, ()), "2": (Verdict.FAIL, (broken,)), "3": (Verdict.UNDECIDED, (lost,))}
    with database.write() as connection:
        for name in ("1", "2", "3", "4"):
            key = VersionKey("prod", "fraud", name)
            record = versions.register(connection, key, f"f{name}", f"fraud/{name}", name, Lineage(), NOW)
            if name in found:
                assert versions.claim_next(connection, NOW) is not None
                verdict, findings = found[name]
                versions.record_verdict(connection, record.id, verdict, "{}", findings, NOW)
    database.close()
    return str(path)


def gate(runner: CliRunner, config: str, *arguments: str) -> tuple[int, str, str]:
    result = runner.invoke(app, ["gate", *arguments, "-c", config])
    return result.exit_code, result.stdout, result.stderr


def test_a_promotion_that_raises_an_alert_fails_the_gate_and_names_the_layer(
    runner: CliRunner, config: str
) -> None:
    code, out, _ = gate(runner, config, "prod/fraud", "--as-if", "champion=2")
    assert code == 1
    assert out == (
        "prod/fraud: champion -> 2 (fail; a new ref)\n  would raise: critical alert about weights: fc2\n"
    )


def test_a_promotion_of_a_good_version_passes(runner: CliRunner, config: str) -> None:
    code, out, _ = gate(runner, config, "prod/fraud", "--as-if", "@champion=1")
    assert (code, out.splitlines()[1]) == (0, "  no alert would be raised or resolved")


def test_a_version_without_a_verdict_is_undecided_unless_that_is_allowed(
    runner: CliRunner, config: str
) -> None:
    code, out, _ = gate(runner, config, "prod/fraud", "--as-if", "champion=4")
    assert (code, out.splitlines()[1]) == (3, "  nothing can be said before its verdict")
    assert gate(runner, config, "prod/fraud", "--as-if", "champion=4", "--allow-undecided")[0] == 0


def test_an_undecided_version_raises_its_alert_about_the_examination(runner: CliRunner, config: str) -> None:
    code, out, _ = gate(runner, config, "prod/fraud", "--as-if", "champion=3")
    assert code == 1
    assert "would raise: critical alert about examination: the version as a whole" in out


def test_the_answer_as_data(runner: CliRunner, config: str) -> None:
    _, out, _ = gate(runner, config, "prod/fraud", "--as-if", "champion=2", "--format", "json")
    answer = json.loads(out)
    assert (answer["version"], answer["verdict"], answer["before"]) == ("2", "fail", None)
    assert answer["raised"] == [{"group": "weights", "severity": "critical", "layers": ["fc2"]}]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("prod/fraud", "--as-if", "champion"), "must be REF=VERSION"),
        (("prod/fraud", "--as-if", "=1"), "must be REF=VERSION"),
        (("fraud", "--as-if", "champion=1"), "must be REGISTRY/MODEL"),
        (("prod/frand", "--as-if", "champion=1"), "did you mean prod/fraud"),
        (("prod/fraud", "--as-if", "champion=9"), "no version 9 of prod/fraud; it holds 1, 2, 3, 4"),
        (("prod/fraud", "--as-if", "champion=1", "--baseline", "x"), "have no place beside it"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(
    runner: CliRunner, config: str, arguments: tuple[str, ...], told: str
) -> None:
    code, out, error = gate(runner, config, *arguments)
    assert (code, out) == (2, "")
    assert told in error
