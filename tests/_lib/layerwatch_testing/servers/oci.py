"""Debian's docker-registry (distribution) in a process of its own, and what a publisher sends to it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bcrypt
import requests
import trustme
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from layerwatch_testing.servers import ServerProcess, executable, free_port

USER = "reader"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
CREATED = "org.opencontainers.image.created"
RAW_WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer to be pushed.

    Attributes:
        title: its ``org.opencontainers.image.title``, unless empty.
    """

    data: bytes
    media_type: str = RAW_WEIGHTS
    title: str = ""
    annotations: Mapping[str, str] | None = None


class OciServer:
    """A registry.

    Args:
        folder: for its storage and output.
        password: of the user `USER`; empty for a registry that lets everybody in.
        notify: address that events are sent to, if any.
        bearer: secret that goes with the events.
        token_server: address that tokens are got from, in place of a password, and the PEM file of the
            certificate that they are signed with.

    Attributes:
        url: where it is.
    """

    def __init__(
        self,
        folder: Path,
        password: str = "",
        notify: str = "",
        bearer: str = "",
        token_server: tuple[str, Path] | None = None,
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._storage = folder / "storage"
        self._session = requests.Session()
        self._session.trust_env = False
        settings: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self._storage)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        if password:
            users = folder / "htpasswd"
            line = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()
            users.write_text(f"{USER}:{line}\n")
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(users)}}
            self._session.auth = (USER, password)
        if token_server is not None:
            settings["auth"] = {
                "token": {
                    "realm": token_server[0],
                    "service": "tests",
                    "issuer": "tests",
                    "rootcertbundle": str(token_server[1]),
                }
            }
        if notify:
            endpoint = {
                "name": "layerwatch",
                "url": notify,
                "headers": {"Authorization": [f"Bearer {bearer}"]},
                "timeout": "1s",
                "threshold": 3,
                "backoff": "1s",
            }
            settings["notifications"] = {"endpoints": [endpoint]}
        configuration = folder / "config.yml"
        configuration.write_text(yaml.safe_dump(settings))
        program = executable("docker-registry")
        self._process = ServerProcess([str(program), "serve", str(configuration)], folder)
        self._process.wait_until_ready(f"{self.url}/v2/")

    def stop(self) -> None:
        """End it."""
        self._session.close()
        self._process.stop()

    def sign_in(self, token: str) -> None:
        """Publish with a bearer token from now on."""
        self._session.headers["Authorization"] = f"Bearer {token}"

    def blob(self, repository: str, data: bytes) -> str:
        """Upload a blob; its digest."""
        digest = digest_of(data)
        start = self._call("POST", f"{repository}/blobs/uploads/", 202)
        answer = self._session.put(
            start.headers["Location"],
            params={"digest": digest},
            data=data,
            headers={"Content-Type": "application/octet-stream"},
            timeout=60,
        )
        assert answer.status_code == 201, answer.text[:500]
        return digest

    def mount(self, repository: str, digest: str, source: str) -> None:
        """Take a blob over from another repository."""
        self._call("POST", f"{repository}/blobs/uploads/?mount={digest}&from={source}", 201)

    def manifest(self, repository: str, reference: str, document: Mapping[str, Any]) -> str:
        """Put a manifest, or an index, under a tag or its own digest; its digest."""
        body = json.dumps(document).encode()
        digest = digest_of(body)
        headers = {"Content-Type": str(document["mediaType"])}
        path = f"{repository}/manifests/{reference or digest}"
        self._call("PUT", path, 201, data=body, headers=headers)
        return digest

    def push(
        self,
        repository: str,
        tag: str,
        blobs: Sequence[Blob],
        annotations: Mapping[str, str] | None = None,
        config: tuple[str, bytes] = (EMPTY_CONFIG, b"{}"),
    ) -> str:
        """Push an artifact as a whole; the digest of its manifest.

        Args:
            tag: empty for none.
            annotations: of the manifest.
            config: media type and bytes of the configuration.
        """
        for blob in blobs:
            self.blob(repository, blob.data)
        self.blob(repository, config[1])
        return self.manifest(repository, tag, manifest_of(blobs, annotations, config))

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """Let a tag point at a manifest."""
        document = self._call(
            "GET", f"{repository}/manifests/{digest}", 200, headers={"Accept": f"{MANIFEST}, {INDEX}"}
        )
        headers = {"Content-Type": document.headers["Content-Type"]}
        self._call("PUT", f"{repository}/manifests/{tag}", 201, data=document.content, headers=headers)

    def untag(self, repository: str, tag: str) -> None:
        """Take a tag away and leave the manifest: this server cannot be asked to, so its storage is changed."""
        shutil.rmtree(self._manifests(repository) / "tags" / tag)

    def delete(self, repository: str, digest: str) -> None:
        """Delete a manifest, with the tags that point at it."""
        self._call("DELETE", f"{repository}/manifests/{digest}", 202)
        for tag in (self._manifests(repository) / "tags").iterdir():
            link = tag / "current" / "link"
            if link.is_file() and link.read_text().strip() == digest:
                shutil.rmtree(tag)

    def damage(self, digest: str) -> None:
        """Change the bytes of a blob where they are stored."""
        kind, _, value = digest.partition(":")
        path = self._storage / "docker/registry/v2/blobs" / kind / value[:2] / value / "data"
        data = bytearray(path.read_bytes())
        data[-1] ^= 0xFF
        path.write_bytes(data)

    def _manifests(self, repository: str) -> Path:
        return self._storage / "docker/registry/v2/repositories" / repository / "_manifests"

    def _call(self, method: str, path: str, status: int, **named: Any) -> requests.Response:
        answer = self._session.request(method, f"{self.url}/v2/{path}", timeout=60, **named)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code}: {answer.text[:500]}"
        return answer


def manifest_of(
    blobs: Sequence[Blob],
    annotations: Mapping[str, str] | None = None,
    config: tuple[str, bytes] = (EMPTY_CONFIG, b"{}"),
) -> dict[str, Any]:
    """The manifest of an artifact."""
    layers = []
    for blob in blobs:
        notes = dict(blob.annotations or {})
        if blob.title:
            notes[TITLE] = blob.title
        layers.append(descriptor(blob.media_type, blob.data) | ({"annotations": notes} if notes else {}))
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(*config),
        "layers": layers,
    }
    return document | ({"annotations": dict(annotations)} if annotations else {})


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """What a manifest says of some bytes."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def digest_of(data: bytes) -> str:
    """``sha256:...``"""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class TokenServer:
    """Gives out the bearer tokens that an `OciServer` asks for, as Harbor and the public registries have it.

    Args:
        folder: for its certificate.
        password: of the user `USER`; others get 401.

    Attributes:
        address: and ``certificate``: what `OciServer` takes as ``token_server``.
        lifetime: of the tokens from now on.
        scopes: those that tokens were given for, in their order.
    """

    def __init__(self, folder: Path, password: str) -> None:
        self._authority = trustme.CA()
        certificate = self._authority.issue_cert("tests")
        self.certificate = folder / "token.pem"
        self._authority.cert_pem.write_to_path(str(self.certificate))
        self._key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        self._chain = [
            base64.b64encode(ssl.PEM_cert_to_DER_cert(one.bytes().decode())).decode()
            for one in certificate.cert_chain_pems
        ]
        self._allowed = f"Basic {base64.b64encode(f'{USER}:{password}'.encode()).decode()}"
        self.lifetime = timedelta(minutes=5)
        self.scopes: list[str] = []
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("Authorization") != tokens._allowed:
                    self.send_error(401)
                    return
                scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
                tokens.scopes += scopes
                body = json.dumps({"token": tokens.token(*scopes)}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def token(self, *scopes: str) -> str:
        """A token for scopes such as ``repository:team/a:pull``."""
        now = datetime.now(UTC)
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        claims = {
            "iss": "tests",
            "sub": USER,
            "aud": "tests",
            "iat": int(now.timestamp()),
            "nbf": int((now - timedelta(minutes=1)).timestamp()),
            "exp": int((now + self.lifetime).timestamp()),
            "access": access,
        }
        head = {"typ": "JWT", "alg": "ES256", "x5c": self._chain}
        signed = b".".join(_unpadded(json.dumps(part).encode()) for part in (head, claims))
        assert isinstance(self._key, EllipticCurvePrivateKey)
        numbers = decode_dss_signature(self._key.sign(signed, ECDSA(SHA256())))
        return (
            signed + b"." + _unpadded(b"".join(number.to_bytes(32, "big") for number in numbers))
        ).decode()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def _unpadded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
