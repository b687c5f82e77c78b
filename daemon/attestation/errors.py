"""Why a verdict could not be signed, or a signed one not be trusted."""

from __future__ import annotations

from enum import StrEnum


class AttestationReason(StrEnum):
    """A closed list.

    KEY: a key cannot be read, or is of a kind that is not taken. NOT_INSTALLED: a library is missing.
    MALFORMED: no envelope or no statement of layerwatch. SIGNATURE: no signature is by a trusted key.
    OTHER_BYTES: the model is not the one that was judged. NOT_ATTESTABLE: there is nothing that can be signed.
    SERVICE: the services of keyless signing refused, or could not be reached.
    """

    KEY = "key"
    NOT_INSTALLED = "not_installed"
    MALFORMED = "malformed"
    SIGNATURE = "signature"
    OTHER_BYTES = "other_bytes"
    NOT_ATTESTABLE = "not_attestable"
    SERVICE = "service"

    @property
    def usage(self) -> bool:
        """Whether the caller has to give something else."""
        return self in (AttestationReason.KEY, AttestationReason.NOT_INSTALLED)


class AttestationError(Exception):
    """No verdict was signed, or none may be trusted.

    Attributes:
        reason: member of the closed list.
        detail: one sentence, with what to do; never holds any part of a private key or a passphrase.
    """

    def __init__(self, reason: AttestationReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)
