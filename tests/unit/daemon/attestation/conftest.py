"""A model that the gate judged, and its signed verdict."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from layerwatch.config.rules import RulesSettings
from layerwatch.config.settings import Settings
from layerwatch.daemon.cli import app
from layerwatch.daemon.commands.attesting import signing_of
from layerwatch.daemon.gate.engine import examine_files
from layerwatch.daemon.gate.outcome import GatePolicy, decided
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.report import Report
from layerwatch_testing.attested import KINDS, Judged, KeyFiles, write_keys, write_model
from layerwatch_testing.networks import finetuned, network


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of a healthy fine-tune against its parent, as the gate decided."""
    folder = tmp_path_factory.mktemp("judged")
    write_model(folder / "before", network())
    write_model(folder / "model", finetuned(network()))
    found = examine_files(
        folder / "model", folder / "before", "finetuned", Settings(), lambda name, progress: None
    )
    return decided(found, GatePolicy(Severity.CRITICAL, False, False), None, datetime.now(UTC).date())


@pytest.fixture(scope="session")
def kept_measurements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of these tests: each model is measured once."""
    return tmp_path_factory.mktemp("kept-measurements")


@pytest.fixture(params=KINDS)
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> KeyFiles:
    """A pair of each kind."""
    return write_keys(tmp_path / "keys", request.param)


@pytest.fixture
def judged(report: Report, tmp_path: Path) -> Judged:
    """Signed with Ed25519, an hour ago."""
    model = write_model(tmp_path / "model", finetuned(network()))
    pair = write_keys(tmp_path / "keys", "ed25519")
    envelope = tmp_path / "verdict.dsse.json"
    signing = signing_of(envelope, pair.private, None, False, None)
    assert signing is not None
    assert signing.write(report, model, RulesSettings(), datetime.now(UTC) - timedelta(hours=1))
    return Judged(model, report, pair, envelope)


@pytest.fixture
def verify() -> Callable[..., Result]:
    """``layerwatch verify`` with these arguments, in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["verify", *(str(argument) for argument in arguments)])

    return run
