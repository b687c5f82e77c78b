"""What an OCI artifact says of its origin: in annotations of its manifest, or in its Kitfile."""

from __future__ import annotations

import json
import logging
import re

from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundVersion,
    RegistryReason,
    RegistryUnavailable,
)
from layerwatch.daemon.registries.oci.artifacts import CONFIG_BODY, Artifacts, is_repository, is_tag, parts
from layerwatch.daemon.registries.oci.manifests import KITFILE_TYPE, Artifact, is_digest
from layerwatch.metrics.relation import Relation

_LOGGER = logging.getLogger(__name__)

LATEST = "latest"
PARENT = "layerwatch.parent"
RELATION = "layerwatch.relation"
_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"
_REFERENCE = re.compile(
    r"(?:(?P<host>[^/@]+[.:][^/@]*|localhost)/)?(?P<name>[^:@]+)(?::(?P<tag>[^:@/]+))?(?:@(?P<digest>\S+))?",
    re.ASCII,
)


def declared(artifacts: Artifacts, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
    """Annotations of the manifest, then the Kitfile's reference to another modelkit."""
    repository, _ = parts(found.location)
    artifact = artifacts.artifact(found.location)
    notes = artifact.annotations
    declared = []
    if PARENT in notes:
        parent = _named(artifacts, repository, notes[PARENT])
        declared.append(DeclaredLineage(parent, _relation(notes.get(RELATION)), f"annotation {PARENT}"))
    if _BASE_NAME in notes or _BASE_DIGEST in notes:
        name, digest = notes.get(_BASE_NAME, ""), notes.get(_BASE_DIGEST, "")
        pinned = f"{name.partition('@')[0]}@{digest}" if is_digest(digest) else name
        source = f"annotation {_BASE_NAME if name else _BASE_DIGEST}"
        if pinned:
            declared.append(DeclaredLineage(_named(artifacts, repository, pinned), None, source))
    kit = _parent_kit(artifacts, repository, artifact)
    if kit is not None:
        declared.append(DeclaredLineage(_named(artifacts, repository, kit), None, "Kitfile model.path"))
    return tuple(declared)


def _parent_kit(artifacts: Artifacts, repository: str, artifact: Artifact) -> str | None:
    """The modelkit that this one adds to: it holds no model of its own, and names another."""
    config = artifact.config
    if config is None or config.media_type != KITFILE_TYPE or config.size_bytes > CONFIG_BODY:
        return None
    if any(".modelkit.model." in layer.blob.media_type for layer in artifact.layers):
        return None
    body = artifacts.small_blob(repository, config.digest)
    try:
        path = json.loads(body or b"{}")["model"]["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return path if isinstance(path, str) and path else None


def _named(artifacts: Artifacts, repository: str, text: str) -> str:
    """A reference to an artifact as the store names versions: by digest where this registry holds it."""
    text = text.strip()
    if is_digest(text.removeprefix("@")):
        return text.removeprefix("@")
    found = _REFERENCE.fullmatch(text)
    if found is None or found["host"] not in (None, artifacts.host):
        return text
    name, tag, digest = found["name"], found["tag"], found["digest"]
    if digest is None and tag is None:
        if found["host"] is not None:
            tag = LATEST
        elif "/" not in name:
            name, tag = repository, name
    if digest is None and tag is not None and is_repository(name) and is_tag(tag):
        try:
            digest = artifacts.digest_of(name, tag)
        except RegistryUnavailable as error:
            if error.reason is not RegistryReason.NOT_PERMITTED:
                raise
    if digest is None:
        return text
    return digest if name == repository else f"{name}/{digest}"


def _relation(text: str | None) -> Relation | None:
    try:
        return None if text is None else Relation(text)
    except ValueError:
        _LOGGER.warning(
            "annotation %s: %r is no relation; it is ignored", RELATION, text[:50] if text else ""
        )
        return None
