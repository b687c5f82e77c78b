"""DSSE envelopes: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md and envelope.md ."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason
from layerwatch.daemon.attestation.keys import PrivateKey, PublicKey
from layerwatch.daemon.attestation.strictjson import read_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
LARGEST_ENVELOPE = 32 * 2**20
"""Bytes; a model of 100,000 files needs about 20 MB."""

_MOST_SIGNATURES = 32
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}|[A-Za-z0-9_-]*={0,2}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and who signed it.

    Attributes:
        payload: the bytes that were signed; not to be read before `signer` found a key.
        payload_type: signed together with the payload.
        signatures: the bytes of each. The key ids beside them are only hints, and are not kept.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[bytes, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: ``DSSEv1 SP LEN(type) SP type SP LEN(body) SP body``, lengths in bytes as decimal ASCII."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, key: PrivateKey) -> bytes:
    """The envelope, as JSON text with a newline at its end.

    Raises:
        AttestationError: NOT_ATTESTABLE where it would be too large to be read again.
    """
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": key.public.keyid,
                "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode(),
            }
        ],
    }
    text = json.dumps(envelope).encode() + b"\n"
    if len(text) > LARGEST_ENVELOPE:
        raise AttestationError(
            AttestationReason.NOT_ATTESTABLE,
            f"the signed verdict would be larger than {LARGEST_ENVELOPE} bytes",
        )
    return text


def read_envelope(data: bytes) -> Envelope:
    """An envelope in JSON. Nothing is verified yet.

    Unknown fields are ignored, as the specification asks of readers; base64 may be of either alphabet, but must be whole:
    padded, without other characters, and with no bits left over.

    Raises:
        AttestationError: MALFORMED.
    """
    if len(data) > LARGEST_ENVELOPE:
        raise _malformed(f"the envelope has more than {LARGEST_ENVELOPE} bytes")
    found = read_json(data, "the envelope")
    if not isinstance(found, dict):
        raise _malformed("the envelope is no JSON object")
    kind, signatures = found.get("payloadType"), found.get("signatures")
    if not isinstance(kind, str):
        raise _malformed(
            "the envelope has no payloadType: it is no signed verdict, which gate --attest makes"
        )
    if not isinstance(signatures, list) or not 0 < len(signatures) <= _MOST_SIGNATURES:
        raise _malformed(f"the envelope must have 1 to {_MOST_SIGNATURES} signatures")
    given = tuple(_signature(one) for one in signatures)
    return Envelope(_decoded(found.get("payload"), "payload"), kind, given)


def signer(envelope: Envelope, keys: Sequence[PublicKey]) -> PublicKey:
    """The first of the trusted keys that one of the signatures is by; every signature is tried with every key.

    Raises:
        AttestationError: SIGNATURE.
    """
    message = pae(envelope.payload_type, envelope.payload)
    for key in keys:
        for signature in envelope.signatures:
            if key.has_signed(message, signature):
                return key
    tried = ", ".join(key.keyid[:16] for key in keys)
    raise AttestationError(
        AttestationReason.SIGNATURE,
        f"no signature of the envelope is by the given key (keyid {tried}...): it was signed by somebody else, or "
        "changed since",
    )


def _signature(found: Any) -> bytes:
    if not isinstance(found, dict):
        raise _malformed("a signature of the envelope is no JSON object")
    return _decoded(found.get("sig"), "sig")


def _decoded(text: Any, name: str) -> bytes:
    if not isinstance(text, str) or not text or not _BASE64.fullmatch(text):
        raise _malformed(f"{name} of the envelope is not base64")
    alphabet = b"-_" if "-" in text or "_" in text else b"+/"
    try:
        data = base64.b64decode(text, altchars=alphabet, validate=True)
    except binascii.Error:
        raise _malformed(f"{name} of the envelope is not base64 (wrong padding)") from None
    # Bits behind the last byte would let one payload be written in several ways.
    if base64.b64encode(data, altchars=alphabet).decode() != text:
        raise _malformed(f"{name} of the envelope is not base64 (bits left over)")
    return data


def _malformed(detail: str) -> AttestationError:
    return AttestationError(AttestationReason.MALFORMED, detail)
