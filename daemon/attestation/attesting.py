"""A judged model to a signed verdict."""

from __future__ import annotations

from datetime import datetime

from layerwatch.daemon.attestation import dsse
from layerwatch.daemon.attestation.keys import PrivateKey
from layerwatch.daemon.attestation.statement import GateOutcome, build_statement
from layerwatch.metrics.manifest import Manifest
from layerwatch.metrics.report import Report


def attest(report: Report, files: Manifest, outcome: GateOutcome, key: PrivateKey, now: datetime) -> bytes:
    """The signed verdict: a DSSE envelope in JSON, with a newline at its end.

    Args:
        files: the weight files as they lie there after the judgement.
        now: when it was judged.

    Raises:
        AttestationError: NOT_ATTESTABLE.
    """
    return dsse.sign(build_statement(report, files, outcome, now).to_bytes(), key)
