"""A private sigstore in small: a certificate authority, its certificate log and a transparency log, over HTTP.

The formats are those that sigstore's own Python client speaks and checks: RFC 6962 for the certificate's timestamp and the
tree (of one leaf), Rekor's version 1 for entries. Who may have a certificate is decided by a token that this instance
signed itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://ci.example"
IDENTITY = "https://ci.example/team/models/gate@refs/heads/main"
_SECRET = "the secret that tokens of this instance are signed with"
_OF_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_OF_TIMESTAMPS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _signed(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class SigstoreInstance:
    """The keys and what they sign.

    Attributes:
        refuses: answer requests for certificates with 403.
        asked: paths of the requests, in order.
    """

    ca: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    certificate_log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    url: str = ""
    refuses: bool = False
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "private instance")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.ca.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._began)
            .not_valid_after(self._began + timedelta(days=10))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key()), critical=False)
            .sign(self.ca, hashes.SHA256())
        )

    @staticmethod
    def token(identity: str = IDENTITY, lifetime: timedelta = timedelta(minutes=5)) -> str:
        """A token of the CI system."""
        now = datetime.now(UTC)
        claims = {"iss": ISSUER, "sub": identity, "aud": "sigstore", "iat": now, "exp": now + lifetime}
        return jwt.encode(claims, _SECRET, algorithm="HS256")

    def write_trust_config(self, path: Path) -> Path:
        """What clients need to know: addresses and public keys."""
        valid = {"start": self._began.isoformat().replace("+00:00", "Z")}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = {"rawBytes": _b64(_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
            identifier = {"keyId": _b64(hashlib.sha256(_der(key)).digest())}
            return {
                "baseUrl": self.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": identifier,
            }

        def service() -> dict[str, Any]:
            return {"url": self.url, "majorApiVersion": 1, "validFor": valid, "operator": "private"}

        authority = {
            "subject": {"organization": "private", "commonName": "instance"},
            "uri": self.url,
            "certChain": {
                "certificates": [{"rawBytes": _b64(self.root.public_bytes(serialization.Encoding.DER))}]
            },
            "validFor": valid,
        }
        config = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.log)],
                "certificateAuthorities": [authority],
                "ctlogs": [log(self.certificate_log)],
                "timestampAuthorities": [],
            },
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [service()],
                "oidcUrls": [service()],
                "rekorTlogUrls": [service()],
                "tsaUrls": [],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
        }
        path.write_text(json.dumps(config))
        return path

    def certificate(self, request: x509.CertificateSigningRequest, token: str) -> list[str]:
        """The chain for who the token says it is, PEM."""
        claims = jwt.decode(token, _SECRET, algorithms=["HS256"], audience="sigstore")
        now = datetime.now(UTC).replace(microsecond=0)
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=5))
            .not_valid_after(now + timedelta(minutes=10))
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(claims["sub"])]), critical=True
            )
            .add_extension(x509.UnrecognizedExtension(_OF_ISSUER, claims["iss"].encode()), critical=False)
        )
        before = builder.sign(self.ca, hashes.SHA256())
        stamps = x509.UnrecognizedExtension(_OF_TIMESTAMPS, self._timestamps(before))
        leaf = builder.add_extension(stamps, critical=False).sign(self.ca, hashes.SHA256())
        return [one.public_bytes(serialization.Encoding.PEM).decode() for one in (leaf, self.root)]

    def _timestamps(self, certificate: x509.Certificate) -> bytes:
        """The extension's value: a list of one timestamp about the certificate without it (RFC 6962, 3.2 and 3.3)."""
        moment = int(datetime.now(UTC).timestamp()) * 1000
        body = certificate.tbs_certificate_bytes
        entry = hashlib.sha256(_der(self.ca)).digest() + struct.pack("!I", len(body))[1:] + body
        signature = _signed(
            self.certificate_log, struct.pack("!BBQH", 0, 0, moment, 1) + entry + struct.pack("!H", 0)
        )
        stamp = b"\0" + hashlib.sha256(_der(self.certificate_log)).digest() + struct.pack("!QH", moment, 0)
        stamp += struct.pack("!BBH", 4, 3, len(signature)) + signature
        stamps = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        # A DER octet string of less than 128 bytes.
        assert len(stamps) < 128
        return b"\x04" + bytes([len(stamps)]) + stamps

    def entry(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """The proposed signature as the only entry of the log."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        payload = base64.b64decode(envelope["payload"])
        (signature,) = envelope["signatures"]
        spec: dict[str, Any] = {
            "envelopeHash": {
                "algorithm": "sha256",
                "value": hashlib.sha256(content["envelope"].encode()).hexdigest(),
            },
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": signature["sig"], "verifier": content["verifiers"][0]}],
        }
        body = rfc8785.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        key_id = hashlib.sha256(_der(self.log)).digest()
        root = hashlib.sha256(b"\0" + body).digest()
        when = int(datetime.now(UTC).timestamp())
        promised: dict[str, Any] = {
            "body": _b64(body),
            "integratedTime": when,
            "logID": key_id.hex(),
            "logIndex": 0,
        }
        note = f"private\n1\n{_b64(root)}\n"
        mark = _b64(key_id[:4] + _signed(self.log, note.encode()))
        proof = {"logIndex": 0, "rootHash": root.hex(), "treeSize": 1, "hashes": []}
        verification = {
            "signedEntryTimestamp": _b64(_signed(self.log, rfc8785.dumps(promised))),
            "inclusionProof": {**proof, "checkpoint": f"{note}\n\N{EM DASH} private {mark}\n"},
        }
        return {hashlib.sha256(body).hexdigest(): {**promised, "verification": verification}}


@contextmanager
def sigstore_instance() -> Iterator[SigstoreInstance]:
    """One that answers."""
    instance = SigstoreInstance()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            instance.asked.append(self.path)
            data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/v2/signingCert":
                if instance.refuses:
                    self.answer(403, {"message": "this identity may have none"})
                    return
                request = x509.load_pem_x509_csr(base64.b64decode(data["certificateSigningRequest"]))
                token = self.headers["Authorization"].removeprefix("Bearer ")
                chain = instance.certificate(request, token)
                self.answer(200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}})
            else:
                assert self.path == "/api/v1/log/entries", self.path
                self.answer(201, instance.entry(data))

        def answer(self, code: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield instance
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
