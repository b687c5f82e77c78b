"""Which version of the store a parent's name means, as its author wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.records import VersionKey, VersionRecord
from layerwatch.daemon.store.versionrows import LISTED, of_key, to_record

_VERSIONS = tables.versions
_REFS = tables.refs

_FINGERPRINT = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_SHORT = re.compile(r"[0-9a-f]{7,63}")
_HUB = re.compile(r"https?://huggingface\.co/([^/]+/[^/?#]+)(?:/(?:tree|blob|resolve|commit)/([^/?#]+))?.*")
_MLFLOW = re.compile(r"models:/+([^/@]+)(?:/(.+)|@(.+))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/*")


@dataclass(frozen=True, slots=True)
class _Named:
    """A name taken apart.

    Attributes:
        path: without scheme and revision.
        revision: version, ref, digest or number that it names; None when it names none.
        is_address: it said which kind of registry it lives in, so that it is no version's name.
    """

    path: str
    revision: str | None = None
    is_address: bool = False

    @property
    def last(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def resolve(
    connection: sa.Connection, version: VersionRecord, parent: str, *, exact: bool = False
) -> VersionRecord | None:
    """The version that a parent's name means, or None when it is not in the store.

    In this order: a version of the same model; the bytes with this fingerprint; ``model/version`` and
    ``registry/model/version``; a model by its name, in the same registry before the others; then the same by the last
    part of the name. Of a model it is the named version, ref or commit, and its newest version where none is named. A
    name that says a revision never means another one.

    Args:
        version: whose parent it is; it is never its own.
        parent: as declared: ``v1``, ``other/v2``, ``owner/name@revision``, ``hf:owner/name``, ``models:/name/3``,
            ``models:/name@alias``, a path, an address on the Hub, a fingerprint.
        exact: a model without a revision means a version only where there are no others with other bytes.
    """
    meant = _meant(connection, version.key, parent, exact)
    return next((one for one in meant if one.id != version.id), None)


def name_of(parent: str) -> str:
    """The part of a parent's name by which its version, its model or its bytes would be recognised."""
    found = _FINGERPRINT.fullmatch(parent)
    return found[1] if found else _named(parent).last


def names_of(version: VersionRecord) -> tuple[str, ...]:
    """What `name_of` says of names that may mean this version."""
    key = version.key
    return key.version, key.model.rsplit("/", 1)[-1], version.fingerprint


def _meant(connection: sa.Connection, key: VersionKey, parent: str, exact: bool) -> Iterator[VersionRecord]:
    yield from _version(connection, key.registry, key.model, parent)
    fingerprint = _FINGERPRINT.fullmatch(parent)
    if fingerprint:
        yield from _bytes(connection, key, fingerprint[1])
        return
    named = _named(parent)
    parts = named.path.split("/")
    if named.revision is None and not named.is_address and len(parts) > 1:
        *rest, last = parts
        yield from _version(connection, key.registry, "/".join(rest), last)
        if len(rest) > 1:
            yield from _version(connection, rest[0], "/".join(rest[1:]), last)
            # A path: the folders above the model's are of no meaning here.
            yield from _version(connection, key.registry, rest[-1], last)
    registries = [key.registry, *(one for one in _registries(connection) if one != key.registry)]
    for model in dict.fromkeys([named.path, named.last]):
        if model == named.last and not named.is_address and named.revision is None:
            yield from _version(connection, key.registry, key.model, model)
        for registry in registries:
            is_own = (registry, model) == (key.registry, key.model)
            if named.revision is not None:
                yield from _revision(connection, registry, model, named.revision)
            elif not is_own and not (exact and _is_ambiguous(connection, registry, model)):
                yield from _newest(connection, registry, model)


def _named(parent: str) -> _Named:
    text = parent.strip().rstrip("/")
    if found := _HUB.fullmatch(text):
        return _Named(found[1], found[2], is_address=True)
    if found := _MLFLOW.fullmatch(text):
        return _Named(found[1], found[2] or found[3], is_address=True)
    scheme = _SCHEME.match(text)
    rest = text[scheme.end() :] if scheme else text
    path, separator, revision = rest.partition("@")
    is_revised = bool(separator and path and revision)
    return _Named(path.strip("/") if is_revised else rest.strip("/"), revision or None, scheme is not None)


def _version(connection: sa.Connection, registry: str, model: str, version: str) -> Iterator[VersionRecord]:
    query = sa.select(*LISTED).where(of_key(VersionKey(registry, model, version)))
    yield from (to_record(row) for row in connection.execute(query))


def _bytes(connection: sa.Connection, key: VersionKey, fingerprint: str) -> Iterator[VersionRecord]:
    """Those of the same model first, then the oldest row."""
    query = (
        sa.select(*LISTED)
        .where(_VERSIONS.c.fingerprint == fingerprint)
        .order_by(
            sa.and_(_VERSIONS.c.registry == key.registry, _VERSIONS.c.model == key.model).desc(),
            _VERSIONS.c.is_current.desc(),
            _VERSIONS.c.id,
        )
        .limit(2)
    )
    yield from (to_record(row) for row in connection.execute(query))


def _revision(connection: sa.Connection, registry: str, model: str, revision: str) -> Iterator[VersionRecord]:
    yield from _version(connection, registry, model, revision)
    of_model = (_VERSIONS.c.registry == registry, _VERSIONS.c.model == model)
    pointed = sa.select(_REFS.c.version_id).where(
        _REFS.c.registry == registry, _REFS.c.model == model, _REFS.c.ref == revision
    )
    query = sa.select(*LISTED).where(_VERSIONS.c.id.in_(pointed))
    yield from (to_record(row) for row in connection.execute(query))
    if _SHORT.fullmatch(revision):
        short = sa.select(*LISTED).where(
            *of_model, _VERSIONS.c.is_current, _VERSIONS.c.version.startswith(revision, autoescape=True)
        )
        rows = connection.execute(short.limit(2)).all()
        if len(rows) == 1:
            yield to_record(rows[0])


def _newest(connection: sa.Connection, registry: str, model: str) -> Iterator[VersionRecord]:
    query = (
        sa.select(*LISTED)
        .where(_VERSIONS.c.registry == registry, _VERSIONS.c.model == model, _VERSIONS.c.is_current)
        .order_by(_VERSIONS.c.gone_at.is_not(None), _VERSIONS.c.sort_key.desc(), _VERSIONS.c.id.desc())
        .limit(1)
    )
    yield from (to_record(row) for row in connection.execute(query))


def _is_ambiguous(connection: sa.Connection, registry: str, model: str) -> bool:
    query = (
        sa.select(_VERSIONS.c.fingerprint)
        .where(_VERSIONS.c.registry == registry, _VERSIONS.c.model == model, _VERSIONS.c.is_current)
        .distinct()
        .limit(2)
    )
    return len(connection.execute(query).all()) > 1


def _registries(connection: sa.Connection) -> Iterator[str]:
    """Names of all registries, one step down the index for each: a DISTINCT would walk over every version."""
    name = connection.execute(sa.select(sa.func.min(_VERSIONS.c.registry))).scalar()
    while name is not None:
        yield name
        after = sa.select(sa.func.min(_VERSIONS.c.registry)).where(_VERSIONS.c.registry > name)
        name = connection.execute(after).scalar()
