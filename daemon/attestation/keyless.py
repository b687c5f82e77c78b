"""Signing without a key of one's own: a certificate for the identity of the CI job, and an entry in a public log.

Everything of sigstore is its own Python client's; what is written is its bundle, which holds the same DSSE envelope. The
client raises whatever its parts do, in reading, signing and verifying: each becomes an AttestationError, so that nothing ends
a command with another exit code than its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from layerwatch.config.extras import how_to_install
from layerwatch.daemon.attestation.dsse import LARGEST_ENVELOPE, PAYLOAD_TYPE
from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason
from layerwatch.daemon.attestation.statement import Statement, read_statement
from layerwatch.daemon.attestation.strictjson import read_json

try:
    from requests import RequestException
    from sigstore import dsse as sigstore_dsse
    from sigstore.errors import Error as SigstoreError
    from sigstore.errors import VerificationError
    from sigstore.models import Bundle, ClientTrustConfig
    from sigstore.oidc import IdentityToken, detect_credential
    from sigstore.sign import SigningContext
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity
except ImportError as error:
    raise AttestationError(
        AttestationReason.NOT_INSTALLED,
        f"keyless signatures need the library sigstore: {how_to_install('attest-keyless')}",
    ) from error

TOKEN_VARIABLE = "SIGSTORE_ID_TOKEN"


def signer(trust_config: Path | None = None) -> Callable[[Statement], bytes]:
    """Signs statements as whom this process runs for; the identity token is fetched when it is needed.

    Args:
        trust_config: of a private instance (``ClientTrustConfig`` in JSON); None for the public one.

    Raises:
        AttestationError: KEY where the file cannot be used. What is returned raises SERVICE where there is no token, or
            the services refuse or cannot be reached.
    """
    config = None if trust_config is None else _read_config(trust_config)

    def sign(statement: Statement) -> bytes:
        try:
            token = IdentityToken(_token())
            context = SigningContext.from_trust_config(config or ClientTrustConfig.production())
            with context.signer(token) as one:
                bundle = one.sign_dsse(sigstore_dsse.Statement(statement.to_bytes()))
        except AttestationError:
            raise
        except Exception as error:
            raise AttestationError(
                AttestationReason.SERVICE, f"keyless signing did not succeed: {_named(error)}"
            ) from error
        return bundle.to_json().encode() + b"\n"

    return sign


def verified_keyless(
    bundle: bytes, identity: str, issuer: str, trust_config: Path | None = None
) -> Statement:
    """What that identity signed. The model is not looked at.

    Args:
        identity: who must have signed, exactly: an address, or the URL of a workflow at a ref.
        issuer: who vouches for it: the URL of the OpenID Connect provider.
        trust_config: of a private instance; None for the public one, whose keys are fetched.

    Raises:
        AttestationError: MALFORMED, SIGNATURE, SERVICE, KEY.
    """
    if len(bundle) > LARGEST_ENVELOPE:
        raise AttestationError(
            AttestationReason.MALFORMED, f"the bundle has more than {LARGEST_ENVELOPE} bytes"
        )
    read_json(bundle, "the bundle")
    try:
        read = Bundle.from_json(bundle)
    except Exception as error:
        raise AttestationError(
            AttestationReason.MALFORMED, f"this is no bundle of sigstore: {_named(error)}"
        ) from error
    config = _read_config(trust_config) if trust_config is not None else _public_config()
    try:
        verifier = Verifier(trusted_root=config.trusted_root)
        kind, payload = verifier.verify_dsse(read, Identity(identity=identity, issuer=issuer))
    except VerificationError as error:
        raise AttestationError(
            AttestationReason.SIGNATURE, f"the bundle is not a signature of {identity}: {_named(error)}"
        ) from error
    except Exception as error:
        raise AttestationError(
            AttestationReason.SIGNATURE, f"the bundle cannot be verified: {_named(error)}"
        ) from error
    if kind != PAYLOAD_TYPE:
        raise AttestationError(
            AttestationReason.MALFORMED, f"the envelope's payloadType is not {PAYLOAD_TYPE}"
        )
    return read_statement(payload)


def _public_config() -> ClientTrustConfig:
    try:
        return ClientTrustConfig.production()
    except (SigstoreError, RequestException, OSError) as error:
        raise AttestationError(
            AttestationReason.SERVICE,
            f"the keys of the public instance cannot be fetched ({_named(error)}); a file with them needs no network",
        ) from error


def _read_config(path: Path) -> ClientTrustConfig:
    try:
        return ClientTrustConfig.from_json(path.read_text("utf-8"))
    except Exception as error:
        raise AttestationError(
            AttestationReason.KEY, f"{path} is no trust configuration of sigstore: {_named(error)}"
        ) from error


def _token() -> str:
    token = os.environ.get(TOKEN_VARIABLE) or detect_credential()
    if not token:
        raise AttestationError(
            AttestationReason.SERVICE,
            f"there is no identity token: let the CI job have one (on GitHub the permission id-token: write), or set "
            f"{TOKEN_VARIABLE}",
        )
    return token


def _named(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
