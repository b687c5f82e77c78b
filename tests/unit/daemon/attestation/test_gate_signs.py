"""``layerwatch gate --attest``: what is written, what is asked for, and what it never turns into a pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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
    entries = "".join(f"  - {{rule: {rule}, reason: known, expires: 2999-01-01}}\n" for rule in sorted(rules))
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
