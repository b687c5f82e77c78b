"""Local keys: Ed25519 and ECDSA on P-256, as PEM files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from layerwatch.config.extras import how_to_install
from layerwatch.config.secrets import Secret, SecretError
from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import (
        ECDSA,
        SECP256R1,
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )
except ImportError as error:
    raise AttestationError(
        AttestationReason.NOT_INSTALLED,
        f"signed verdicts need the library cryptography: {how_to_install('attest')}",
    ) from error

_LARGEST_FILE = 65_536
_TAKEN = "Ed25519 and ECDSA on P-256 are"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        keyid: sha256 in hex of the key's DER (SubjectPublicKeyInfo).
    """

    key: Ed25519PublicKey | EllipticCurvePublicKey
    keyid: str

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's, of this message."""
        try:
            if isinstance(self.key, Ed25519PublicKey):
                self.key.verify(signature, message)
            else:
                self.key.verify(signature, message, ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs; never shown."""

    key: Ed25519PrivateKey | EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"PrivateKey(keyid={self.public.keyid})"

    @property
    def public(self) -> PublicKey:
        """The key that checks what this one signs."""
        public = self.key.public_key()
        return PublicKey(public, _keyid(public))

    def sign(self, message: bytes) -> bytes:
        """The signature: 64 bytes of Ed25519, or ECDSA with SHA-256 as DER."""
        if isinstance(self.key, Ed25519PrivateKey):
            return self.key.sign(message)
        return self.key.sign(message, ECDSA(hashes.SHA256()))


def read_private_key(path: Path, passphrase: Secret | None = None) -> PrivateKey:
    """The private key of a PEM file.

    Raises:
        AttestationError: KEY; also when the file is encrypted and no passphrase is given, or the other way round.
    """
    data = _pem(path)
    if b"PUBLIC KEY-----" in data:
        raise _refused(path, "is a public key; to sign, the private one is needed")
    try:
        password = passphrase.reveal().encode() if passphrase is not None else None
    except SecretError as error:
        raise AttestationError(AttestationReason.KEY, f"the passphrase of {path}: {error.detail}") from None
    # The library's own messages are not passed on: what they quote is not known.
    try:
        key = load_pem_private_key(data, password)
    except TypeError:
        why = (
            "is encrypted: give its passphrase with --attest-passphrase"
            if password is None
            else "is not encrypted: give no passphrase"
        )
        raise _refused(path, why) from None
    except UnsupportedAlgorithm:
        raise _refused(path, f"is of a kind that is not known; {_TAKEN}") from None
    except ValueError:
        why = "is no private key in PEM" + ("" if password is None else ", or its passphrase is another")
        raise _refused(path, why) from None
    if isinstance(key, Ed25519PrivateKey):
        return PrivateKey(key)
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return PrivateKey(key)
    raise _refused(path, f"is a key of a kind that is not taken; {_TAKEN}")


def read_public_key(path: Path) -> PublicKey:
    """The public key of a PEM file.

    Raises:
        AttestationError: KEY.
    """
    data = _pem(path)
    if b"PRIVATE KEY-----" in data:
        raise _refused(path, "is a private key; give the public one, and keep this one away from here")
    try:
        key = load_pem_public_key(data)
    except UnsupportedAlgorithm:
        raise _refused(path, f"is of a kind that is not known; {_TAKEN}") from None
    except ValueError:
        raise _refused(path, "is no public key in PEM") from None
    if isinstance(key, Ed25519PublicKey):
        return PublicKey(key, _keyid(key))
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return PublicKey(key, _keyid(key))
    raise _refused(path, f"is a key of a kind that is not taken; {_TAKEN}")


def _keyid(key: Ed25519PublicKey | EllipticCurvePublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST_FILE:
        raise _refused(path, "is too large for a key")
    return data


def _refused(path: Path, why: str) -> AttestationError:
    return AttestationError(AttestationReason.KEY, f"{path} {why}")
