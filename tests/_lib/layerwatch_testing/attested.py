"""Keys, and models with a signed verdict."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from layerwatch.metrics.report import Report
from layerwatch_testing.models import write_safetensors

KINDS = ("ed25519", "p256")


@dataclass(frozen=True)
class KeyFiles:
    """A pair of keys as PEM files."""

    private: Path
    public: Path


def write_keys(folder: Path, kind: str, passphrase: bytes | None = None) -> KeyFiles:
    """A new pair, as ``openssl genpkey`` and ``openssl pkey -pubout`` write it."""
    folder.mkdir(parents=True, exist_ok=True)
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
    key = (
        ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    files = KeyFiles(folder / f"{kind}.pem", folder / f"{kind}.pub.pem")
    files.private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    files.public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return files


@dataclass(frozen=True)
class Judged:
    """A model, what the gate's engine said about it, and the signed verdict."""

    model: Path
    report: Report
    keys: KeyFiles
    envelope: Path

    @property
    def opened(self) -> dict[str, Any]:
        """The envelope's JSON."""
        found: dict[str, Any] = json.loads(self.envelope.read_bytes())
        return found

    @property
    def statement(self) -> dict[str, Any]:
        """The signed statement."""
        found: dict[str, Any] = json.loads(base64.b64decode(self.opened["payload"]))
        return found

    def rewrite(self, **changes: Any) -> None:
        """Change fields of the envelope, as somebody without the key can."""
        self.envelope.write_text(json.dumps({**self.opened, **changes}))


def write_model(folder: Path, state: Mapping[str, Any]) -> Path:
    """A folder with one weight file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "weights.safetensors", state)
    return folder
