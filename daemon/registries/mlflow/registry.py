"""An MLflow tracking server: registered models, their versions, ``latest``, stages and aliases.

A location is ``NAME/NUMBER``. A token holds when the version was made and what its source was: a number is not used
again unless its whole model was deleted. What lies behind the source can be overwritten in place all the same. A full
look asks for the sizes (and the ETags, where the server's say anything) of a bounded number of versions, those that
refs point at first, and `token` always does; where these differ from what was seen first, their digest becomes a part
of the token. An overwriting that neither shows nor was seen by this process is left to the re-hash.

What a look costs: a page of versions (the latest changed first, until one that is known), the pages of registered
models (their aliases change no time stamp), and the artifacts of versions that are new. It does not grow with the
number of versions that a model has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from layerwatch.config.registries import MlflowRegistrySettings
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundVersion,
    Listing,
    Progress,
    RegistryReason,
    RegistryUnavailable,
    VerdictNote,
    no_progress,
)
from layerwatch.daemon.registries.downloads import Downloads, RemoteFile
from layerwatch.daemon.registries.mlflow.artifacts import MOST_FILES, MlflowArtifacts
from layerwatch.daemon.registries.mlflow.buckets import MlflowBuckets
from layerwatch.daemon.registries.mlflow.lineage import declared_by
from layerwatch.daemon.registries.mlflow.looks import MlflowLooks
from layerwatch.daemon.registries.mlflow.memory import LATEST, STAGES, MlflowMemory, found_version, key_of
from layerwatch.daemon.registries.mlflow.records import READY, MlflowRecords, ModelVersion, RegisteredModel
from layerwatch.daemon.registries.mlflow.server import MlflowServer, NotThere
from layerwatch.daemon.registries.remote import RemoteRegistry, is_weight

_PAGE_SIZE = 5000


class MlflowSource:
    """What an MLflow server offers to be watched."""

    def __init__(self, settings: MlflowRegistrySettings) -> None:
        server = MlflowServer(settings)
        self._url = server.url
        self._records = MlflowRecords(server, _PAGE_SIZE)
        self._artifacts = MlflowArtifacts(server, self._records, MlflowBuckets(settings.timeout, MOST_FILES))
        self._memory = MlflowMemory(settings.refs)
        self._looks = MlflowLooks(settings.models, self._records, self._artifacts, self._memory)

    @property
    def page_size(self) -> int:
        """Records to a page of a listing, at most."""
        return self._records.page_size

    @page_size.setter
    def page_size(self, size: int) -> None:
        self._records.page_size = size

    def recall(self, published: Mapping[str, str]) -> None:
        """Versions that an earlier process found complete."""
        self._memory.recall(published)

    def listing(self, now: datetime, everything: bool) -> Listing:
        """All versions, or those that are new or changed; the refs of all models."""
        return self._looks.look(now, everything)

    def token(self, location: str) -> str | None:
        """What the record says, and whether the artifacts are what they were; None when either is gone."""
        version = self._version(location)
        if version is None:
            return None
        files = self._files(version)
        if any(is_weight(file.path) for file in files):
            return self._memory.note(version, files)
        return self._memory.token(version) if self._memory.is_listed_without_weights(version) else None

    def files(self, location: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        """All files of a version; none when its record is there and its artifacts are not."""
        version = self._existing(location)
        files = self._files(version, progress)
        self._memory.settle(version, files)
        return files

    def stream(self, location: str, file: RemoteFile, begin: int, end: int | None = None) -> Iterator[bytes]:
        """Bytes of a file, by range; raises UnreadableError as well, when it was written again meanwhile."""
        return self._artifacts.stream(file, begin, file.size_bytes if end is None else end)

    def declared(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        """What the tags of the version and of its run say, and its source when that is another version."""
        version = self._existing(found.location)
        run = self._records.run(version.run_id) if version.run_id else None
        return declared_by(version, run)

    def resolve(self, model: str, reference: str | None) -> FoundVersion:
        """A number, an alias with or without @, a stage, ``latest`` or None."""
        registered = self._records.model(model)
        if registered is None:
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND, f"{self._url} has no registered model {model!r}: is the name right?"
            )
        name = (reference or LATEST).removeprefix("@")
        version = self._referred(registered, name)
        if version is None:
            newest = self._records.newest_versions(model)[:10]
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND,
                f"{model} has no version {name!r} that is ready: its aliases are "
                f"{', '.join(sorted(registered.aliases)[:20]) or 'none'}, its newest versions "
                f"{', '.join(str(one.number) for one in newest) or 'none'}",
            )
        return found_version(version.name, version.number, self._memory.token(version))

    def write_verdict(self, location: str, note: VerdictNote) -> None:
        """Set the tags of a version.

        The verdict comes first: until the fingerprint follows, a reader of both finds the old one, which does not fit
        the bytes, and never a verdict of old bytes beside the fingerprint of new ones.
        """
        key = key_of(location)
        tags = {"verdict": note.verdict, "report": note.report, "fingerprint": note.fingerprint}
        try:
            for name, value in tags.items():
                if key is not None and value:
                    self._records.set_tag(*key, f"layerwatch.{name}", value)
        except NotThere as error:
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, f"{location}: {error}") from None

    def _files(self, version: ModelVersion, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        try:
            return self._artifacts.files(version, identified=True, progress=progress)
        except RegistryUnavailable as error:
            if error.reason is not RegistryReason.VERSION_GONE:
                raise
            return ()

    def _referred(self, model: RegisteredModel, name: str) -> ModelVersion | None:
        if name.isascii() and name.isdigit() and len(name) <= 18:
            return self._records.version(model.name, int(name))
        if name in model.aliases:
            return self._records.version(model.name, model.aliases[name])
        if name == LATEST:
            ready = (one for one in self._records.newest_versions(model.name) if one.status == READY)
            return next(ready, None)
        return next((one for one in model.newest if one.stage == name and name in STAGES), None)

    def _version(self, location: str) -> ModelVersion | None:
        key = key_of(location)
        return None if key is None else self._records.version(*key)

    def _existing(self, location: str) -> ModelVersion:
        version = self._version(location)
        if version is None:
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, f"{location} is no longer at {self._url}")
        return version


def build(settings: MlflowRegistrySettings, downloads: Downloads) -> RemoteRegistry:
    """The registry that the settings describe. Nothing is contacted yet."""
    source = MlflowSource(settings)
    writer = source.write_verdict if settings.write_verdict else None
    return RemoteRegistry(settings.name, source, downloads, writer, settings.url)
