"""A signed verdict against a model as it lies there now."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from layerwatch.daemon.attestation import dsse
from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason
from layerwatch.daemon.attestation.keys import PublicKey
from layerwatch.daemon.attestation.statement import Statement, Subject, read_statement
from layerwatch.metrics.manifest import Manifest


def verified_statement(envelope: bytes, keys: Sequence[PublicKey]) -> tuple[Statement, PublicKey]:
    """What a trusted key signed, and which key that was. The model is not looked at.

    Raises:
        AttestationError: MALFORMED, SIGNATURE.
    """
    read = dsse.read_envelope(envelope)
    key = dsse.signer(read, keys)
    if read.payload_type != dsse.PAYLOAD_TYPE:
        raise AttestationError(
            AttestationReason.MALFORMED, f"the envelope's payloadType is not {dsse.PAYLOAD_TYPE}"
        )
    return read_statement(read.payload), key


def require_same_bytes(statement: Statement, files: Manifest) -> None:
    """Do nothing where the files are those that were judged: all of them, no others, under the same names.

    Raises:
        AttestationError: OTHER_BYTES, with the first difference.
    """
    signed = {subject.name: subject.digest.sha256 for subject in statement.subject}
    # Names go the same way that they went when they were signed; the fingerprint below is over the names as they are.
    found = {
        Subject.model_validate({"name": entry.path, "digest": {"sha256": entry.sha256}}).name: entry.sha256
        for entry in files.entries
    }
    for name in sorted(signed.keys() | found.keys()):
        if name not in found:
            raise _other(f"{name} was judged and is not there")
        if name not in signed:
            raise _other(f"{name} is there and was not judged")
        if not hmac.compare_digest(signed[name], found[name]):
            raise _other(f"{name} has other bytes than those that were judged")
    if not hmac.compare_digest(statement.predicate.fingerprint, files.fingerprint):
        raise _other("the fingerprint that was signed is of other files")


def _other(detail: str) -> AttestationError:
    return AttestationError(AttestationReason.OTHER_BYTES, f"this is not the model that was judged: {detail}")
