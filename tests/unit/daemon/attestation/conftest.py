"""A model that the gate judged, and its signed verdict."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from layerwatch.config.settings import Settings
from layerwatch.daemon.attestation.attesting import attest
from layerwatch.daemon.attestation.keys import read_private_key
from layerwatch.daemon.attestation.statement import GateOutcome
from layerwatch.daemon.cli import app
from layerwatch.daemon.gate.engine import examine_files
from layerwatch.metrics.manifest import build_manifest
from layerwatch.metrics.report import Report
from layerwatch_testing.attested import KINDS, Judged, KeyFiles, write_keys, write_model
from layerwatch_testing.networks import finetuned, network


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of a healthy fine-tune against its parent."""
    folder = tmp_path_factory.mktemp("judged")
    write_model(folder / "before", network())
    write_model(folder / "model", finetuned(network()))
    return examine_files(
        folder / "model", folder / "before", "finetuned", Settings(), lambda name, progress: None
    )


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
    outcome = GateOutcome(exit_code=0, fail_on="critical")
    when = datetime.now(UTC) - timedelta(hours=1)
    signed = attest(report, build_manifest(model), outcome, read_private_key(pair.private), when)
    envelope.write_bytes(signed)
    return Judged(model, report, pair, envelope)


@pytest.fixture
def verify() -> Callable[..., Result]:
    """``layerwatch verify`` with these arguments, in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["verify", *(str(argument) for argument in arguments)])

    return run
