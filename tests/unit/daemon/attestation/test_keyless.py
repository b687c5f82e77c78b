"""Signing by an identity: through sigstore's own client against an instance on this machine."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("sigstore", reason="the extra attest-keyless is not installed")

from layerwatch.daemon.cli import app
from layerwatch_testing.attested import write_keys, write_model
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.sigstoreinstance import IDENTITY, ISSUER, SigstoreInstance, sigstore_instance

Verify = Callable[..., Result]
WHO = ("--identity", IDENTITY, "--issuer", ISSUER)


@dataclass(frozen=True)
class Place:
    """A folder with a model, and the instance that it is signed by."""

    folder: Path
    instance: SigstoreInstance
    config: Path

    @property
    def bundle(self) -> Path:
        """What the gate writes."""
        return self.folder / "verdict.sigstore.json"

    @property
    def trusted(self) -> tuple[str, ...]:
        """Options that name the instance."""
        return ("--trust-config", str(self.config))

    def gate(self, model: str = "good") -> Result:
        """Judge and sign."""
        arguments = ["gate", model, "--baseline", "before", "--attest", str(self.bundle), "--attest-keyless"]
        return CliRunner().invoke(app, [*arguments, *self.trusted])

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the signed statement and leave its signature."""
        bundle = json.loads(self.bundle.read_bytes())
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(statement)
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
        self.bundle.write_text(json.dumps(bundle))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_measurements: Path) -> Iterator[Place]:
    """With a token of the CI job in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept_measurements))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    write_model(tmp_path / "before", network())
    write_model(tmp_path / "good", finetuned(network()))
    write_model(tmp_path / "bad", with_wrong_scale(finetuned(network())))
    with sigstore_instance() as instance:
        monkeypatch.setenv("SIGSTORE_ID_TOKEN", instance.token())
        yield Place(tmp_path, instance, instance.write_trust_config(tmp_path / "trust.json"))


def refused(result: Result, sentence: str) -> None:
    assert result.exit_code == 3, result.output
    assert "not verified: " in result.stderr
    assert sentence in result.stderr


def test_what_a_job_signed_is_verified_by_who_it_was(place: Place, verify: Verify) -> None:
    done = place.gate()

    assert done.exit_code == 0, done.output
    assert place.instance.asked == ["/api/v2/signingCert", "/api/v1/log/entries"]
    found = verify(place.bundle, "good", *WHO, *place.trusted)
    assert found.exit_code == 0, found.output
    assert f"signed by {IDENTITY} ({ISSUER})" in found.stdout
    # Nobody is asked to verify it.
    assert len(place.instance.asked) == 2


def test_a_bad_verdict_is_signed_as_bad(place: Place, verify: Verify) -> None:
    assert place.gate("bad").exit_code == 1

    assert verify(place.bundle, "bad", *WHO, *place.trusted).exit_code == 1


def test_somebody_else_is_not_trusted(place: Place, verify: Verify) -> None:
    place.gate()

    for who in (
        ("--identity", IDENTITY + "x", "--issuer", ISSUER),
        ("--identity", IDENTITY, "--issuer", "https://other.example"),
    ):
        refused(verify(place.bundle, "good", *who, *place.trusted), "is not a signature of")
    other = SigstoreInstance(url=place.instance.url).write_trust_config(place.folder / "other.json")
    refused(verify(place.bundle, "good", *WHO, "--trust-config", other), "not verified")


def test_a_changed_statement_is_noticed(place: Place, verify: Verify) -> None:
    place.gate()
    place.change(lambda statement: statement["predicate"].update(time="2026-01-01T00:00:00Z"))

    refused(verify(place.bundle, "good", *WHO, *place.trusted), "is not a signature of")


def test_other_bytes_are_noticed(place: Place, verify: Verify) -> None:
    place.gate()

    refused(verify(place.bundle, "bad", *WHO, *place.trusted), "has other bytes")


def test_a_bundle_is_no_envelope_of_a_key_and_the_other_way_round(place: Place, verify: Verify) -> None:
    keys = write_keys(place.folder / "keys", "p256")
    place.gate()
    refused(verify(place.bundle, "good", "--key", keys.public), "the envelope")
    place.bundle.write_text('{"payload": "aGVsbG8=", "payloadType": "a", "signatures": []}')
    refused(verify(place.bundle, "good", *WHO, *place.trusted), "no bundle of sigstore")
    place.bundle.write_text('{"mediaType": "a", "mediaType": "b"}')
    refused(verify(place.bundle, "good", *WHO, *place.trusted), "stands twice")


@pytest.mark.parametrize(
    "token",
    [SigstoreInstance.token(lifetime=timedelta(hours=-1)), "no.token.at-all", "x"],
    ids=["old", "forged", "x"],
)
def test_without_a_good_token_nothing_is_signed(
    place: Place, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", token)

    done = place.gate()

    assert done.exit_code == 3
    assert "keyless signing did not succeed" in done.stderr
    assert token not in done.stderr or len(token) < 5
    assert not place.bundle.exists()


def test_services_that_refuse_or_do_not_answer_sign_nothing(place: Place) -> None:
    place.instance.refuses = True
    assert place.gate().exit_code == 3
    place.instance.url = "http://127.0.0.1:9"
    place.instance.write_trust_config(place.config)
    done = place.gate()
    assert done.exit_code == 3
    assert "keyless signing did not succeed" in done.stderr
    assert not place.bundle.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--identity", IDENTITY], "belong together"),
        (["--issuer", ISSUER], "belong together"),
        ([*WHO, "--key", "key.pem"], "either --key"),
        (["--key", "key.pem", "--trust-config", "trust.json"], "--trust-config belongs to"),
        ([*WHO, "--trust-config", "missing.json"], "is no trust configuration"),
    ],
)
def test_wrong_usage_has_a_code_of_its_own(
    place: Place, verify: Verify, options: list[str], sentence: str
) -> None:
    place.gate()

    found = verify(place.bundle, "good", *options)

    assert found.exit_code == 2
    assert sentence in found.stderr
