"""Key files: two kinds are taken, every other is refused by name, and no secret is ever shown."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519

from layerwatch.config.secrets import Secret
from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason
from layerwatch.daemon.attestation.keys import read_private_key, read_public_key
from layerwatch_testing.attested import KINDS, KeyFiles, write_keys

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def refused_private(path: Path, passphrase: Secret | None = None) -> str:
    with pytest.raises(AttestationError) as caught:
        read_private_key(path, passphrase)
    assert caught.value.reason is AttestationReason.KEY
    return caught.value.detail


def refused_public(path: Path) -> str:
    with pytest.raises(AttestationError) as caught:
        read_public_key(path)
    assert caught.value.reason is AttestationReason.KEY
    return caught.value.detail


def test_a_key_signs_what_its_public_half_verifies(keys: KeyFiles) -> None:
    private, public = read_private_key(keys.private), read_public_key(keys.public)

    assert private.public.keyid == public.keyid
    assert public.has_signed(b"message", private.sign(b"message"))
    assert not public.has_signed(b"massage", private.sign(b"message"))
    for nonsense in (b"", b"\0" * 64, b"\xff" * 500):
        assert not public.has_signed(b"message", nonsense)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("options", [["ED25519"], ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]])
def test_keys_that_openssl_made_are_taken_and_the_key_id_is_the_digest_of_their_der(
    tmp_path: Path, options: list[str]
) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    openssl("genpkey", "-algorithm", *options, "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-outform", "DER", "-out", "key.der")
    openssl("pkey", "-in", "key.pem", "-aes256", "-passout", "pass:correct horse", "-out", "locked.pem")

    digest = hashlib.sha256((tmp_path / "key.der").read_bytes()).hexdigest()
    assert read_public_key(tmp_path / "key.pub.pem").keyid == digest
    assert read_private_key(tmp_path / "key.pem").public.keyid == digest
    assert read_private_key(tmp_path / "locked.pem", Secret("correct horse")).public.keyid == digest


@pytest.mark.parametrize("kind", KINDS)
def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path, kind: str) -> None:
    keys = write_keys(tmp_path, kind, b"correct horse")
    (tmp_path / "passphrase").write_text("correct horse\n")

    assert read_private_key(keys.private, Secret.from_file(tmp_path / "passphrase"))
    assert "is encrypted: give its passphrase" in refused_private(keys.private)
    wrong = refused_private(keys.private, Secret("battery staple"))
    assert "or its passphrase is another" in wrong
    assert "battery" not in wrong
    assert "does not exist" in refused_private(keys.private, Secret.from_file(tmp_path / "none"))
    assert "is not set" in refused_private(keys.private, Secret.from_env("NO_SUCH_VARIABLE_OF_A_TEST"))


def test_a_passphrase_for_a_key_that_has_none_is_told(keys: KeyFiles) -> None:
    assert "is not encrypted" in refused_private(keys.private, Secret("correct horse"))


def test_the_halves_are_not_mixed_up(keys: KeyFiles) -> None:
    assert "the private one is needed" in refused_private(keys.public)
    assert "give the public one" in refused_public(keys.private)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="p384"),
        pytest.param(ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
        pytest.param(ed448.Ed448PrivateKey.generate(), id="ed448"),
        pytest.param(x25519.X25519PrivateKey.generate(), id="x25519"),
        pytest.param(dsa.generate_private_key(1024), id="dsa"),
    ],
)
def test_every_other_algorithm_is_refused(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    private.write_bytes(key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(PEM, SPKI))

    assert "Ed25519 and ECDSA on P-256 are" in refused_private(private)
    assert "Ed25519 and ECDSA on P-256 are" in refused_public(public)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)

    assert "is no public key in PEM" in refused_public(path)
    assert refused_private(path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused_public(tmp_path / "none.pem")
    assert "Is a directory" in refused_private(tmp_path)
    (tmp_path / "large.pem").write_bytes(b"-" * 100_000)
    assert "too large" in refused_public(tmp_path / "large.pem")


def test_a_private_key_is_shown_by_its_key_id_alone(keys: KeyFiles) -> None:
    key = read_private_key(keys.private)

    assert repr(key) == f"PrivateKey(keyid={key.public.keyid})"
