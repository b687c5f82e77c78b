"""``layerwatch gate --attest``: what is written, what is asked for, and what it never turns into a pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from layerwatch.daemon.cli import app
from layerwatch_testing.attested import KeyFiles, write_keys, write_model
from layerwatch_testing.networks import finetuned, network, with_wrong_scale

Verify = Callable[..., Result]


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_measurements: Path) -> Callable[..., Result]:
    """``layerwatch gate MODEL`` of a folder in which ``before`` is the base."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept_measurements))
    write_model(tmp_path / "before", network())
    write_model(tmp_path / "good", finetuned(network()))
    write_model(tmp_path / "bad", with_wrong_scale(finetuned(network())))

    def run(model: str, *arguments: object) -> Result:
        given = [model, "--baseline", "before", *(str(one) for one in arguments)]
        return CliRunner().invoke(app, ["gate", *given])

    return run


def test_what_the_gate_found_is_signed_and_verified(
    gate: Callable[..., Result], verify: Verify, keys: KeyFiles
) -> None:
    for model, code in (("good", 0), ("bad", 1)):
        done = gate(
            model, "--attest", "v.json", "--attest-key", keys.private, "--format", "json", "-o", "r.json"
        )
        assert done.exit_code == code, done.output

        found = verify("v.json", model, "--key", keys.public, "--format", "json")
        assert found.exit_code == code
        predicate = json.loads(found.stdout)["statement"]["predicate"]
        report = json.loads(Path("r.json").read_bytes())
        assert predicate["fingerprint"] == report["model"]["fingerprint"]
        assert predicate["verdict"] == report["verdict"]
        assert predicate["gate"]["exitCode"] == report["gate"]["exit_code"] == code
        assert predicate["rulesFired"] == sorted({one["rule"] for one in report["findings"]})


def test_what_an_ignore_file_let_through_is_signed_as_let_through(
    gate: Callable[..., Result], verify: Verify, keys: KeyFiles
) -> None:
    signing = ("--attest", "v.json", "--attest-key", keys.private)
    gate("bad", "--format", "json", "-o", "r.json")
    rules = {one["rule"] for one in json.loads(Path("r.json").read_bytes())["findings"]}
    day = datetime.now(UTC).date() + timedelta(days=30)
    entries = "".join(f"  - {{rule: {rule}, reason: known, expires: {day}}}\n" for rule in sorted(rules))
    Path("ignore.yaml").write_text(f"ignore:\n{entries}")

    done = gate("bad", *signing, "--ignore-file", "ignore.yaml")

    assert done.exit_code == 0, done.output
    assert verify("v.json", "bad", "--key", keys.public, "--require", "gate").exit_code == 0
    strict = verify("v.json", "bad", "--key", keys.public)
    assert strict.exit_code == 1
    assert "findings ignored by file " in strict.stdout


def test_a_model_that_could_not_be_read_to_its_end_is_signed_as_undecided(
    gate: Callable[..., Result], verify: Verify, keys: KeyFiles
) -> None:
    file = Path("good/weights.safetensors")
    file.write_bytes(file.read_bytes()[:500])

    done = gate("good", "--attest", "v.json", "--attest-key", keys.private)

    assert done.exit_code == 3
    found = verify("v.json", "good", "--key", keys.public)
    assert found.exit_code == 1
    assert "the verdict is undecided; pass is asked for" in found.stdout
    assert verify("v.json", "good", "--key", keys.public, "--require", "gate").exit_code == 1


def test_without_files_nothing_is_signed(gate: Callable[..., Result], keys: KeyFiles, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = gate("empty", "--attest", "v.json", "--attest-key", keys.private)

    assert done.exit_code == 3
    assert "the verdict is not signed" in done.stderr
    assert not Path("v.json").exists()


def test_an_encrypted_key_is_unlocked_by_the_environment_or_a_file(
    gate: Callable[..., Result], verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = write_keys(tmp_path / "locked", "p256", b"correct horse")
    (tmp_path / "passphrase").write_text("correct horse\n")
    monkeypatch.setenv("KEY_PASSPHRASE", "correct horse")
    signing = ("--attest", "v.json", "--attest-key", locked.private)

    for where in ("env:KEY_PASSPHRASE", "file:passphrase"):
        assert gate("good", *signing, "--attest-passphrase", where).exit_code == 0
        assert verify("v.json", "good", "--key", locked.public).exit_code == 0
    assert gate("good", *signing).exit_code == 2
    plain = gate("good", *signing, "--attest-passphrase", "correct horse")
    assert plain.exit_code == 2
    assert "correct" not in plain.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--attest", "v.json"], "needs a key"),
        (["--attest-key", "KEY"], "say where the signed verdict goes"),
        (["--attest-keyless"], "say where the signed verdict goes"),
        (["--attest", "v.json", "--attest-key", "KEY", "--attest-keyless"], "needs a key: either"),
        (["--attest", "v.json", "--attest-key", "missing.pem"], "No such file"),
        (["--attest", "v.json", "--attest-key", "PUBLIC"], "the private one is needed"),
        (["--attest", "none/v.json", "--attest-key", "KEY"], "its folder does not exist"),
        (["--attest", "v.json", "--attest-key", "KEY", "--trust-config", "x"], "--trust-config belongs to"),
        (
            ["--attest", "v.json", "--attest-keyless", "--trust-config", "missing"],
            "is no trust configuration",
        ),
        (["--attest", "v.json", "--attest-keyless", "--attest-passphrase", "env:A"], "has no passphrase"),
        (["--attest", "v.json", "--attest-key", "KEY", "--as-if", "champion=3"], "--as-if"),
    ],
)
def test_options_that_do_not_go_together_cost_no_scan(
    gate: Callable[..., Result], tmp_path: Path, options: list[str], sentence: str
) -> None:
    keys = write_keys(tmp_path / "keys", "ed25519")
    put = {"KEY": str(keys.private), "PUBLIC": str(keys.public)}

    done = gate("good", *(put.get(one, one) for one in options))

    assert done.exit_code == 2, done.output
    assert sentence in done.stderr
    assert not Path("v.json").exists()


def test_a_verdict_that_cannot_be_signed_is_no_pass(
    gate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)

    done = gate("good", "--attest", "v.json", "--attest-keyless")

    assert done.exit_code == 3
    assert "there is no identity token" in done.stderr
    assert "verdict: pass" in done.stdout
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", "not.a.token")
    assert gate("good", "--attest", "v.json", "--attest-keyless").exit_code == 3
    assert gate("bad", "--attest", "v.json", "--attest-keyless").exit_code == 1
    assert not Path("v.json").exists()


def test_a_pass_by_a_configuration_that_switches_rules_off_is_not_verified_as_one(
    gate: Callable[..., Result], verify: Verify, keys: KeyFiles
) -> None:
    state = finetuned(network())
    state["fc2.weight"][0, 0] = np.nan
    write_model(Path("nan"), state)
    Path("layerwatch.yaml").write_text("rules: {non_finite: {enabled: false}}\n")

    gate("nan", "--attest", "v.json", "--attest-key", keys.private)

    found = verify("v.json", "nan", "--key", keys.public, "--require", "pass")
    assert found.exit_code == 1, found.output
    assert "switched off non_finite" in found.stdout
    # No configuration at all: the file of the folder is not read.
    gate("nan", "--attest", "v.json", "--attest-key", keys.private, "--config", "/dev/null")
    found = verify("v.json", "nan", "--key", keys.public)
    assert "the verdict is fail" in found.stdout
    assert "rules: as they are by default" in found.stdout


@pytest.mark.parametrize(
    ("model", "options", "code"),
    [
        ("good", ["--attest-key", "missing.pem"], 2),
        ("good", [], 2),
        ("missing", ["--attest-key", "KEY"], 2),
        ("good", ["--attest-key", "KEY", "--ignore-file", "missing.yaml"], 2),
        ("good", ["--attest-key", "KEY", "--output", "missing/r.json"], 2),
        ("good", ["--attest-key", "KEY", "--config", "missing.yaml"], 2),
        ("empty", ["--attest-key", "KEY"], 3),
    ],
)
def test_an_older_verdict_does_not_outlive_a_run_that_signs_nothing(
    gate: Callable[..., Result], tmp_path: Path, model: str, options: list[str], code: int
) -> None:
    (tmp_path / "empty").mkdir()
    keys = write_keys(tmp_path / "keys", "ed25519")
    Path("v.json").write_text("an older one")

    done = gate(model, "--attest", "v.json", *(str(keys.private) if one == "KEY" else one for one in options))

    assert done.exit_code == code, done.output
    assert not Path("v.json").exists()


def test_what_is_read_is_never_removed_for_a_verdict(gate: Callable[..., Result], tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", "ed25519")
    Path("ignore.yaml").write_text("ignore: []\n")
    Path("odd").write_bytes(Path("good/weights.safetensors").read_bytes())
    options = ("--attest-key", keys.private, "--ignore-file", "ignore.yaml")

    for model, file in (
        ("good", "good/weights.safetensors"),
        ("odd", "odd"),
        ("good", str(keys.private)),
        ("good", "ignore.yaml"),
    ):
        before = Path(file).read_bytes()
        done = gate(model, "--attest", file, *options)
        assert done.exit_code == 2, done.output
        assert "would replace a file that is no signed verdict" in done.stderr
        assert Path(file).read_bytes() == before


def test_an_older_verdict_behind_a_link_is_replaced_where_it_is(
    gate: Callable[..., Result], verify: Verify, keys: KeyFiles
) -> None:
    Path("kept").mkdir()
    Path("kept/v.json").write_text("an older one")
    Path("v.json").symlink_to("kept/v.json")

    assert gate("good", "--attest", "v.json", "--attest-key", keys.private).exit_code == 0

    assert Path("v.json").is_symlink()
    assert verify("kept/v.json", "good", "--key", keys.public).exit_code == 0


def test_a_model_with_links_to_foreign_weights_is_undecided_and_not_signed(
    gate: Callable[..., Result], tmp_path: Path, keys: KeyFiles
) -> None:
    Path("good/adapter_model.safetensors").symlink_to(tmp_path / "bad" / "weights.safetensors")

    done = gate("good", "--attest", "v.json", "--attest-key", keys.private)

    assert done.exit_code == 3
    assert "links that lead out of the directory" in done.stdout
    assert "adapter_model.safetensors" in done.stdout
    assert "the verdict is not signed" in done.stderr
    assert not Path("v.json").exists()


def test_a_model_with_a_linked_folder_is_not_signed(gate: Callable[..., Result], keys: KeyFiles) -> None:
    Path("good/parts").mkdir()
    Path("good/unet").symlink_to("parts")

    done = gate("good", "--attest", "v.json", "--attest-key", keys.private)

    assert done.exit_code == 3
    assert "links that lead to folders" in done.stderr
    assert not Path("v.json").exists()
