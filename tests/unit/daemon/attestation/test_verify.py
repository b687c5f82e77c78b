"""``layerwatch verify``: 0 verified, 1 genuine but not good enough, 2 usage, 3 not verified."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from layerwatch.daemon.attestation import dsse
from layerwatch.daemon.attestation.keys import read_private_key
from layerwatch_testing.attested import Judged, KeyFiles, write_keys, write_model
from layerwatch_testing.networks import finetuned, network, with_wrong_scale

Verify = Callable[..., Result]


def resign(judged: Judged, keys: KeyFiles | None = None, **predicate: Any) -> None:
    """Sign the statement anew with another predicate."""
    statement = judged.statement
    statement["predicate"] |= predicate
    private = read_private_key((keys or judged.keys).private)
    judged.envelope.write_bytes(dsse.sign(json.dumps(statement).encode(), private))


def test_a_genuine_verdict_about_these_bytes_is_verified(judged: Judged, verify: Verify) -> None:
    found = verify(judged.envelope, judged.model, "--key", judged.keys.public)

    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[0].startswith(f"verified: {judged.model} is what was judged, signed by keyid ")
    assert lines[1].startswith("verdict: pass (0 critical, 0 warning, 0 info, 0 layers undecided), against ")
    assert lines[2] == "gate: exit code 0 (--fail-on critical)"


def test_a_model_that_was_judged_in_a_folder_is_verified_as_a_file_too(
    judged: Judged, verify: Verify
) -> None:
    file = judged.model / "weights.safetensors"

    assert verify(judged.envelope, file, "--key", judged.keys.public).exit_code == 0


def test_both_kinds_of_keys_verify(judged: Judged, keys: KeyFiles, verify: Verify) -> None:
    resign(judged, keys)

    assert verify(judged.envelope, judged.model, "--key", keys.public).exit_code == 0
    assert (
        verify(judged.envelope, judged.model, "--key", judged.keys.public, "--key", keys.public).exit_code
        == 0
    )


def refused(result: Result, sentence: str) -> None:
    assert result.exit_code == 3, result.output
    assert "not verified: " in result.stderr
    assert sentence in result.stderr
    assert "verified:" not in result.stdout


def test_another_key_is_not_trusted(judged: Judged, tmp_path: Path, verify: Verify) -> None:
    for kind in ("ed25519", "p256"):
        stranger = write_keys(tmp_path / "stranger", kind)
        refused(verify(judged.envelope, judged.model, "--key", stranger.public), "no signature")


def test_a_swapped_payload_is_noticed(judged: Judged, verify: Verify) -> None:
    statement = judged.statement
    statement["predicate"]["verdict"] = "warn"
    judged.rewrite(payload=base64.b64encode(json.dumps(statement).encode()).decode())

    refused(verify(judged.envelope, judged.model, "--key", judged.keys.public), "no signature")


def test_another_payload_type_is_not_taken_however_it_is_signed(judged: Judged, verify: Verify) -> None:
    payload = base64.b64decode(judged.opened["payload"])
    key = read_private_key(judged.keys.private)
    signature = base64.b64encode(key.sign(dsse.pae("application/json", payload))).decode()
    judged.rewrite(payloadType="application/json", signatures=[{"sig": signature}])

    refused(verify(judged.envelope, judged.model, "--key", judged.keys.public), "payloadType")


def test_a_signature_over_the_payload_alone_is_not_taken(judged: Judged, verify: Verify) -> None:
    payload = base64.b64decode(judged.opened["payload"])
    signature = base64.b64encode(read_private_key(judged.keys.private).sign(payload)).decode()
    judged.rewrite(signatures=[{"sig": signature}])

    refused(verify(judged.envelope, judged.model, "--key", judged.keys.public), "no signature")


def test_another_kind_of_statement_is_not_a_verdict(judged: Judged, verify: Verify) -> None:
    provenance = {**judged.statement, "predicateType": "https://slsa.dev/provenance/v1"}
    judged.envelope.write_bytes(
        dsse.sign(json.dumps(provenance).encode(), read_private_key(judged.keys.private))
    )

    refused(verify(judged.envelope, judged.model, "--key", judged.keys.public), "no verdict of layerwatch")


def test_other_bytes_are_noticed(judged: Judged, verify: Verify) -> None:
    file = judged.model / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    refused(
        verify(judged.envelope, judged.model, "--key", judged.keys.public),
        "weights.safetensors has other bytes than those that were judged",
    )


def test_a_file_too_many_too_few_or_renamed_is_noticed(judged: Judged, verify: Verify) -> None:
    file = judged.model / "weights.safetensors"
    arguments = (judged.envelope, judged.model, "--key", judged.keys.public)

    shutil.copy(file, judged.model / "extra.pt")
    refused(verify(*arguments), "extra.pt is there and was not judged")
    file.unlink()
    refused(verify(*arguments), "extra.pt is there and was not judged")
    (judged.model / "extra.pt").unlink()
    refused(verify(*arguments), "no weight file here")


def test_a_file_that_is_no_longer_there_is_noticed(judged: Judged, verify: Verify) -> None:
    more = {"name": "shard-2.safetensors", "digest": {"sha256": "ab" * 32}}
    statement = {**judged.statement, "subject": [*judged.statement["subject"], more]}
    key = read_private_key(judged.keys.private)
    judged.envelope.write_bytes(dsse.sign(json.dumps(statement).encode(), key))

    refused(
        verify(judged.envelope, judged.model, "--key", judged.keys.public),
        "shard-2.safetensors was judged and is not there",
    )


def test_a_fingerprint_of_other_files_is_noticed(judged: Judged, verify: Verify) -> None:
    resign(judged, fingerprint="ab" * 32)

    refused(verify(judged.envelope, judged.model, "--key", judged.keys.public), "fingerprint")


def test_the_verdict_of_one_model_is_not_taken_for_another(
    judged: Judged, tmp_path: Path, verify: Verify
) -> None:
    other = write_model(tmp_path / "other", with_wrong_scale(finetuned(network())))

    refused(verify(judged.envelope, other, "--key", judged.keys.public), "has other bytes")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\x00\x01", b'{"payload": 1}', b"x" * (dsse.LARGEST_ENVELOPE + 100)],
    ids=["empty", "nothing in it", "binary", "a number", "huge"],
)
def test_what_is_no_envelope_is_not_verified(judged: Judged, verify: Verify, content: bytes) -> None:
    judged.envelope.write_bytes(content)

    refused(verify(judged.envelope, judged.model, "--key", judged.keys.public), "the envelope")


def test_an_envelope_that_cannot_be_read_is_not_verified(judged: Judged, verify: Verify) -> None:
    refused(verify(judged.model, judged.model, "--key", judged.keys.public), "cannot be read")


@pytest.mark.parametrize(
    ("verdict", "code", "good"),
    [
        ("pass", 0, {"pass", "warn", "gate", "any"}),
        ("warn", 0, {"warn", "gate", "any"}),
        ("warn", 1, {"warn", "any"}),
        ("fail", 1, {"any"}),
        ("fail", 0, {"gate", "any"}),
        ("undecided", 3, {"any"}),
        ("undecided", 0, {"gate", "any"}),
    ],
)
@pytest.mark.parametrize("require", ["pass", "warn", "gate", "any"])
def test_how_good_it_must_be_is_asked_for(
    judged: Judged, verify: Verify, verdict: str, code: int, good: set[str], require: str
) -> None:
    resign(judged, verdict=verdict, gate={**judged.statement["predicate"]["gate"], "exitCode": code})

    found = verify(judged.envelope, judged.model, "--key", judged.keys.public, "--require", require)

    assert found.exit_code == (0 if require in good else 1)
    assert ("not good enough: " in found.stdout) == (require not in good)


def test_without_being_asked_only_a_pass_is_good_enough(judged: Judged, verify: Verify) -> None:
    resign(judged, verdict="warn")

    found = verify(judged.envelope, judged.model, "--key", judged.keys.public)

    assert found.exit_code == 1
    assert "not good enough: the verdict is warn; pass is asked for" in found.stdout


def test_an_old_verdict_is_not_good_enough(judged: Judged, verify: Verify) -> None:
    arguments = (judged.envelope, judged.model, "--key", judged.keys.public, "--max-age")

    assert verify(*arguments, "2h").exit_code == 0
    found = verify(*arguments, "30m")
    assert found.exit_code == 1
    assert "longer ago than --max-age allows" in found.stdout


def test_a_verdict_from_the_future_does_not_stay_young(judged: Judged, verify: Verify) -> None:
    resign(judged, time=(datetime.now(UTC) + timedelta(days=300)).isoformat())
    arguments = (judged.envelope, judged.model, "--key", judged.keys.public)

    assert verify(*arguments).exit_code == 0
    found = verify(*arguments, "--max-age", "30d")
    assert found.exit_code == 1
    assert "a clock is wrong" in found.stdout


def test_the_baseline_can_be_asked_for(judged: Judged, verify: Verify) -> None:
    arguments = (judged.envelope, judged.model, "--key", judged.keys.public, "--baseline-fingerprint")
    against = judged.statement["predicate"]["baseline"]["fingerprint"]

    assert verify(*arguments, against).exit_code == 0
    found = verify(*arguments, "ab" * 32)
    assert found.exit_code == 1
    assert "held against another baseline" in found.stdout
    resign(judged, baseline=None)
    found = verify(*arguments, against)
    assert found.exit_code == 1
    assert "held against no baseline" in found.stdout


@pytest.mark.parametrize("require", ["pass", "warn"])
def test_a_pass_without_a_baseline_is_not_good_enough_unless_that_is_allowed(
    judged: Judged, verify: Verify, require: str
) -> None:
    resign(judged, baseline=None)
    arguments = (judged.envelope, judged.model, "--key", judged.keys.public)

    found = verify(*arguments, "--require", require)

    assert found.exit_code == 1
    assert "not good enough: the model was held against no baseline" in found.stdout
    assert verify(*arguments, "--require", require, "--allow-no-baseline").exit_code == 0
    # What the gate let through is what --require gate asks for.
    assert verify(*arguments, "--require", "gate").exit_code == 0


def test_a_pass_by_rules_that_were_switched_off_or_altered_is_shown_and_not_good_enough(
    judged: Judged, verify: Verify
) -> None:
    digest = "cd" * 32
    resign(judged, rules={"sha256": digest, "switchedOff": ["non_finite"], "altered": ["scaled"]})
    arguments = (judged.envelope, judged.model, "--key", judged.keys.public)

    found = verify(*arguments)

    assert found.exit_code == 1
    assert f"rules: switched off non_finite; altered scaled (digest {digest})" in found.stdout
    assert "not good enough: the model was judged by other rule settings than the defaults" in found.stdout
    assert verify(*arguments, "--require", "warn").exit_code == 1
    assert verify(*arguments, "--allow-other-rules").exit_code == 0
    assert verify(*arguments, "--rules-digest", digest).exit_code == 0
    other = verify(*arguments, "--rules-digest", "ef" * 32)
    assert other.exit_code == 1
    assert f"judged by other rule settings ({digest})" in other.stdout


def test_a_statement_that_does_not_tell_the_rules_is_read_and_not_good_enough(
    judged: Judged, verify: Verify
) -> None:
    resign(judged, rules=None)
    arguments = (judged.envelope, judged.model, "--key", judged.keys.public)

    found = verify(*arguments)

    assert found.exit_code == 1
    assert "does not say by which rule settings" in found.stdout
    assert verify(*arguments, "--rules-digest", "ef" * 32).exit_code == 1
    assert verify(*arguments, "--allow-other-rules").exit_code == 0


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_link_to_foreign_weights_makes_it_another_model(
    judged: Judged, tmp_path: Path, verify: Verify, suffix: str
) -> None:
    evil = tmp_path / "out" / f"evil.{suffix}"
    evil.parent.mkdir()
    shutil.copy(judged.model / "weights.safetensors", evil)
    (judged.model / f"adapter_model.{suffix}").symlink_to(Path("..") / "out" / evil.name)

    refused(
        verify(judged.envelope, judged.model, "--key", judged.keys.public),
        f"links that lead out of the directory, which are not followed (adapter_model.{suffix})",
    )


@pytest.mark.parametrize("target", ["../out", "parts"])
def test_a_linked_folder_makes_it_another_model_wherever_it_leads(
    judged: Judged, tmp_path: Path, verify: Verify, target: str
) -> None:
    (tmp_path / "out").mkdir()
    (judged.model / "parts").mkdir()
    (judged.model / "unet").symlink_to(target)

    refused(verify(judged.envelope, judged.model, "--key", judged.keys.public), "links that lead to folders")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "say who may sign"),
        (["--key", "none.pem"], "No such file"),
        (["--key", "KEY", "--max-age", "soon"], "is not a duration"),
        (["--key", "KEY", "--baseline-fingerprint", "abc"], "64 hexadecimal digits"),
        (["--key", "KEY", "--rules-digest", "AB" * 32], "64 hexadecimal digits"),
        (["--key", "KEY", "--rules-digest", "ab" * 32, "--allow-other-rules"], "exclude each other"),
        (["--key", "KEY", "--baseline-fingerprint", "ab" * 32, "--allow-no-baseline"], "exclude each other"),
        (["--key", "KEY", "--require", "best"], "best"),
    ],
)
def test_wrong_usage_has_a_code_of_its_own(
    judged: Judged, verify: Verify, arguments: list[str], sentence: str
) -> None:
    given = [str(judged.keys.public) if one == "KEY" else one for one in arguments]

    found = verify(judged.envelope, judged.model, *given)

    assert found.exit_code == 2
    assert sentence in found.stderr


def test_files_that_are_not_there_are_wrong_usage(judged: Judged, tmp_path: Path, verify: Verify) -> None:
    for envelope, model in ((tmp_path / "none", judged.model), (judged.envelope, tmp_path / "none")):
        found = verify(envelope, model, "--key", judged.keys.public)
        assert found.exit_code == 2
        assert "there is no such file" in found.stderr


def test_a_key_of_another_kind_is_wrong_usage(judged: Judged, verify: Verify) -> None:
    found = verify(judged.envelope, judged.model, "--key", judged.keys.private)

    assert found.exit_code == 2
    assert "is a private key" in found.stderr


def test_the_answer_is_data_where_asked_for(judged: Judged, tmp_path: Path, verify: Verify) -> None:
    arguments = (judged.model, "--key", judged.keys.public, "--format", "json")

    found = json.loads(verify(judged.envelope, *arguments).stdout)
    assert (found["verified"], found["accepted"], found["shortcomings"]) == (True, True, [])
    assert found["statement"] == judged.statement

    resign(judged, verdict="fail")
    result = verify(judged.envelope, *arguments)
    assert result.exit_code == 1
    assert (json.loads(result.stdout)["verified"], json.loads(result.stdout)["accepted"]) == (True, False)

    judged.rewrite(payloadType="text/plain")
    result = verify(judged.envelope, *arguments)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["reason"] == "signature"


def test_what_the_gate_let_through_is_shown(judged: Judged, verify: Verify) -> None:
    resign(
        judged,
        gate={
            "exitCode": 0,
            "failOn": "warning",
            "allowUndecided": True,
            "failNew": True,
            "ignored": 2,
            "ignoreFile": "ab" * 32,
        },
    )

    found = verify(judged.envelope, judged.model, "--key", judged.keys.public)

    let = f"--fail-on warning, --allow-undecided, --fail-new, 2 findings ignored by file {'ab' * 32}"
    assert f"gate: exit code 0 ({let})" in found.stdout
