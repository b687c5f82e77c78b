"""The promotion guard against a real MLflow server: the alias moves only to what was judged good."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from layerwatch.metrics.rules import RULES
from layerwatch_testing import processes
from layerwatch_testing.attested import KeyFiles, write_keys
from layerwatch_testing.cimachines import CI, tools
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import Network, finetuned, network, with_wrong_scale
from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.servers.mlflow import MlflowServerProcess, shared_server
from layerwatch_testing.worlds.base import SECRET

pytestmark = pytest.mark.server

GUARD = CI / "mlflow" / "promotion_guard.py"
TUNED = finetuned(network())


@dataclass(frozen=True)
class Registered:
    """A registered model, and a folder for what a pipeline writes."""

    server: MlflowServerProcess
    model: str
    folder: Path

    def publish(self, state: Network) -> str:
        """A version; its number."""
        file = self.folder / "weights.safetensors"
        write_safetensors(file, state)
        run = self.server.new_run()
        self.server.upload(run, "model/model.safetensors", file.read_bytes())
        return self.server.register(self.model, f"runs:/{run}/model", run)

    def gate(self, version: str, *options: str) -> Path:
        """The report of the gate about a version, against version 1."""
        report = self.folder / f"report-{version}.json"
        arguments = ["gate", f"mlflow:/{self.model}/{version}", "--baseline", f"mlflow:/{self.model}/1"]
        done = processes.layerwatch(
            [*arguments, "--format", "json", "-o", str(report), *options], self.folder, self.variables
        )
        assert done.returncode in (0, 1), done.stderr
        return report

    def tag(self, version: str, report: Path) -> None:
        """What the daemon writes beside a version (`write_verdict`)."""
        found = json.loads(report.read_bytes())
        self.set_tags(version, verdict=found["verdict"], fingerprint=found["model"]["fingerprint"])

    def set_tags(self, version: str, **tags: str) -> None:
        """Tags of layerwatch."""
        for key, value in tags.items():
            name = f"layerwatch.{key}"
            self.server.call(
                "POST", "model-versions/set-tag", name=self.model, version=version, key=name, value=value
            )

    def champion(self) -> str | None:
        """The version that the alias points at."""
        found = self.server.call("GET", "registered-models/get", name=self.model)["registered_model"]
        aliases = {one["alias"]: one["version"] for one in found.get("aliases", [])}
        return aliases.get("champion")

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment."""
        return {"MLFLOW_TRACKING_URI": self.server.url, "XDG_CACHE_HOME": str(self.folder / "cache")}

    def promote(self, version: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the guard."""
        environment = processes.environment(**{**self.variables, **variables})
        environment["PATH"] = f"{tools(self.folder / 'tools')}:{environment['PATH']}"
        return subprocess.run(
            [sys.executable, str(GUARD), self.model, version, "champion", *options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[Registered]:
    """Version 1 is a base, version 2 a healthy fine-tune of it; the alias points at 1."""
    try:
        server = shared_server()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    found = Registered(server, f"guarded-{uuid4().hex[:8]}", tmp_path)
    found.publish(network())
    found.publish(TUNED)
    server.call("POST", "registered-models/alias", name=found.model, alias="champion", version="1")
    yield found


def test_the_alias_moves_to_a_version_that_was_judged_good(registered: Registered) -> None:
    report = registered.gate("2")
    registered.tag("2", report)

    done = registered.promote("2", "--report", str(report))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{registered.model}: champion -> 2\n"
    assert registered.champion() == "2"


def test_the_alias_stays_where_the_verdict_is_bad(registered: Registered) -> None:
    registered.publish(with_wrong_scale(TUNED))
    report = registered.gate("3")
    registered.tag("3", report)

    done = registered.promote("3", "--report", str(report))
    assert done.returncode == 1
    assert "the verdict is fail; pass is asked for" in done.stderr

    # A report of the pipeline's that says pass does not help where the daemon's tag says fail.
    good = json.loads(report.read_bytes()) | {"verdict": "pass"}
    report.write_text(json.dumps(good))
    done = registered.promote("3", "--report", str(report))
    assert done.returncode == 1
    assert "the tag layerwatch.verdict is fail" in done.stderr
    assert registered.champion() == "1"


def test_the_alias_stays_while_the_version_has_no_verdict_or_none_that_decides(
    registered: Registered,
) -> None:
    report = registered.gate("2")

    done = registered.promote("2", "--report", str(report), "--wait", "0.5")
    assert done.returncode == 3
    assert "has not judged it yet" in done.stderr
    registered.tag("2", report)
    registered.set_tags("2", verdict="undecided")
    done = registered.promote("2", "--report", str(report))
    assert done.returncode == 3
    assert "is undecided" in done.stderr
    assert registered.champion() == "1"


def test_the_alias_stays_where_other_bytes_were_judged(registered: Registered) -> None:
    report = registered.gate("2")
    registered.set_tags("2", verdict="pass", fingerprint="ab" * 32)

    done = registered.promote("2", "--report", str(report))

    assert done.returncode == 3
    assert f"the tag layerwatch.fingerprint is {'ab' * 32}" in done.stderr
    assert registered.champion() == "1"


def test_a_warning_is_good_enough_only_where_that_is_said(registered: Registered) -> None:
    report = registered.gate("2")
    registered.tag("2", report)
    registered.set_tags("2", verdict="warn")

    assert registered.promote("2", "--report", str(report)).returncode == 1
    assert registered.champion() == "1"
    assert registered.promote("2", "--report", str(report), "--require", "warn").returncode == 0
    assert registered.champion() == "2"


def test_a_pass_without_a_baseline_moves_nothing_unless_that_is_allowed(
    registered: Registered, keys: KeyFiles
) -> None:
    report, envelope = registered.folder / "report.json", registered.folder / "verdict.json"
    signing = ("--attest", str(envelope), "--attest-key", str(keys.private))
    done = processes.layerwatch(
        ["gate", f"mlflow:/{registered.model}/2", "--format", "json", "-o", str(report), *signing],
        registered.folder,
        registered.variables,
    )
    assert done.returncode == 0, done.stderr
    registered.tag("2", report)

    for judged in (("--report", str(report)), ("--envelope", str(envelope), "--key", str(keys.public))):
        done = registered.promote("2", *judged)
        assert done.returncode == 1, done.stderr
        assert registered.champion() == "1"
    assert registered.promote("2", *judged, "--allow-no-baseline").returncode == 0
    assert registered.promote("2", "--report", str(report), "--allow-no-baseline").returncode == 0
    assert registered.champion() == "2"


def test_a_verdict_by_rules_that_were_switched_off_moves_nothing(
    registered: Registered, keys: KeyFiles
) -> None:
    registered.publish(with_wrong_scale(TUNED))
    off = yaml.safe_dump({"rules": {rule.name: {"enabled": False} for rule in RULES}})
    (registered.folder / "layerwatch.yaml").write_text(off)
    report = registered.gate("3", "--attest", "verdict.json", "--attest-key", str(keys.private))
    registered.tag("3", report)
    options = ("--envelope", "verdict.json", "--key", str(keys.public))

    assert registered.promote("3", *options).returncode == 1
    assert registered.champion() == "1"
    verified = ["verify", "verdict.json", f"mlflow:/{registered.model}/3", "--key", str(keys.public)]
    shown = processes.layerwatch([*verified, "--format", "json"], registered.folder, registered.variables)
    digest = json.loads(shown.stdout)["statement"]["predicate"]["rules"]["sha256"]
    assert registered.promote("3", *options, "--rules-digest", digest).returncode == 0
    assert registered.champion() == "3"


@pytest.fixture
def keys(tmp_path: Path) -> KeyFiles:
    """Of the pipeline."""
    return write_keys(tmp_path / "keys", "ed25519")


def test_a_signed_verdict_is_held_against_the_bytes_in_the_registry(
    registered: Registered, keys: KeyFiles
) -> None:
    report = registered.gate("2", "--attest", "verdict.json", "--attest-key", str(keys.private))
    registered.tag("2", report)
    options = ("--envelope", "verdict.json", "--key", str(keys.public), "--max-age", "1h")

    done = registered.promote("2", *options)
    assert done.returncode == 0, done.stderr
    assert registered.champion() == "2"

    # The verdict about version 2 is none about version 1, whatever the tags of that one say.
    registered.tag("1", report)
    done = registered.promote("1", *options)
    assert done.returncode == 3
    assert "not the model that was judged" in done.stderr
    stranger = write_keys(registered.folder / "stranger", "ed25519")
    done = registered.promote("2", "--envelope", "verdict.json", "--key", str(stranger.public))
    assert done.returncode == 3
    assert "no signature" in done.stderr


def test_wrong_usage_has_a_code_of_its_own(registered: Registered) -> None:
    report = registered.gate("2")
    for arguments in (
        ["2"],
        ["@champion", "--report", str(report)],
        ["2", "--report", "missing.json"],
        ["2", "--report", str(GUARD)],
        ["2", "--envelope", "verdict.json"],
        ["2", "--report", str(report), "--max-age", "1h"],
        ["2", "--report", str(report), "--rules-digest", "ab" * 32],
        ["99", "--report", str(report)],
    ):
        done = registered.promote(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
    assert registered.promote("2", "--report", str(report), MLFLOW_TRACKING_URI="").returncode == 2
    assert registered.champion() == "1"


def test_a_server_that_does_not_answer_decides_nothing(registered: Registered) -> None:
    report = registered.gate("2")

    done = registered.promote("2", "--report", str(report), MLFLOW_TRACKING_URI="http://127.0.0.1:9")

    assert done.returncode == 3
    assert "no answer" in done.stderr


def test_a_password_is_sent_and_a_wrong_one_is_wrong_usage(tmp_path: Path) -> None:
    try:
        server = shared_server(SECRET)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    registered = Registered(server, f"guarded-{uuid4().hex[:8]}", tmp_path)
    registered.publish(network())
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"verdict": "pass", "model": {"fingerprint": "ab" * 32}, "baseline": {}}))
    registered.set_tags("1", verdict="pass", fingerprint="ab" * 32)
    who = {"MLFLOW_TRACKING_USERNAME": "admin"}

    wrong = registered.promote("1", "--report", str(report), **who, MLFLOW_TRACKING_PASSWORD="another")
    assert wrong.returncode == 2
    assert "another" not in wrong.stderr
    right = registered.promote("1", "--report", str(report), **who, MLFLOW_TRACKING_PASSWORD=SECRET)
    assert right.returncode == 0, right.stderr
    assert registered.champion() == "1"
