"""Where the files of an MLflow model version are, and their bytes.

A version's source leads there: ``runs:/RUN/path`` and ``models:/m-ID`` (a logged model) through records of the server,
``models:/NAME/NUMBER`` through another version, ``mlflow-artifacts:/path`` to the server itself, which hands out what
lies behind it, ``s3://``, ``gs://`` and ``abfss://`` to an object store. Whoever registers a version writes its source:
other hosts are not asked, and no file of this machine is read.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from layerwatch.daemon.registries.base import Progress, RegistryReason, RegistryUnavailable, no_progress
from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.daemon.registries.mlflow.buckets import SCHEMES, MlflowBuckets
from layerwatch.daemon.registries.mlflow.records import API, MlflowRecords, ModelVersion
from layerwatch.daemon.registries.mlflow.server import MlflowServer, NotThere, Parameters
from layerwatch.daemon.registries.remote import is_weight

_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_MOST_STEPS = 5
_MOST_FOLDERS = 300
MOST_FILES = 20_000
_DEEPEST = 10
_MOST_ETAGS = 64
_SMALL = 16 * 2**20
_MODEL = re.compile(r"models:/+(?P<name>[^/@]+)(?:/(?P<number>\d{1,18})|@(?P<alias>[^/@]+))/*", re.ASCII)
_LOGGED_MODEL = re.compile(r"models:/+(?P<id>m-[0-9a-zA-Z]+)(?P<path>(?:/.*)?)", re.ASCII | re.DOTALL)
_RUN = re.compile(r"runs:/+(?P<id>[0-9a-zA-Z]+)(?P<path>(?:/.*)?)", re.ASCII | re.DOTALL)


class MlflowArtifacts:
    """Lists and reads the files of versions.

    An address of a file or folder is ``mlflow-artifacts:path``, ``run:ID/path``, ``logged-model:ID/path`` (what the
    server reads for its clients), or one of an object store.
    """

    def __init__(self, server: MlflowServer, records: MlflowRecords, buckets: MlflowBuckets) -> None:
        self._server = server
        self._records = records
        self._buckets = buckets
        self._lock = threading.Lock()
        self._etags_tell: bool | None = None

    def files(
        self, version: ModelVersion, identified: bool, progress: Progress = no_progress
    ) -> tuple[RemoteFile, ...]:
        """The files of a version, sorted by path; none when there are none.

        Args:
            identified: let the identity of weight files hold their ETag, where that says anything: one request more
                for each.
            progress: told of each folder that is listed.

        Raises:
            RegistryUnavailable: they cannot be listed now, or the source leads where nobody looks.
        """
        root = self._root(version.source, _MOST_STEPS)
        if _in_bucket(root):
            return tuple(sorted(self._buckets.files(root), key=_path))
        files = self._below(root, version.token, progress)
        if not files and is_weight(root):
            parent, _, name = root.rpartition("/")
            files = [file for file in self._listed(parent, "", version.token)[0] if file.path == name]
        files.sort(key=_path)
        return tuple(self._with_etags(files) if identified else files)

    def stream(self, file: RemoteFile, begin: int, end: int) -> Iterator[bytes]:
        """Bytes of a file; raises RegistryUnavailable, UnreadableError when it was written again meanwhile."""
        if _in_bucket(file.address):
            return self._buckets.stream(file.address, file.identity, begin, end)
        path, parameters = _request(file.address)
        etag = file.identity if file.identity.startswith(('"', "W/")) else None
        return self._server.stream(path, parameters, begin, end, etag)

    def _root(self, source: str, steps: int) -> str:
        """The address of a version's folder, or of its only file."""
        if steps == 0:
            raise _refused(source, "it leads from version to version without end")
        scheme = source.partition(":")[0].lower()
        if scheme in SCHEMES:
            return source
        if scheme == "mlflow-artifacts" or scheme in ("http", "https"):
            return self._own(source)
        if match := _RUN.fullmatch(source):
            run = self._records.run(match["id"])
            location = _field(run, "artifact_uri")
            return self._rooted(location, f"run:{match['id']}", match["path"], source)
        if match := _LOGGED_MODEL.fullmatch(source):
            model = self._records.logged_model(match["id"])
            location = _field(model, "artifact_uri")
            return self._rooted(location, f"logged-model:{match['id']}", match["path"], source)
        if match := _MODEL.fullmatch(source):
            version = (
                self._records.version(match["name"], int(match["number"]))
                if match["number"]
                else self._records.version_of_alias(match["name"], match["alias"])
            )
            if version is None:
                raise RegistryUnavailable(RegistryReason.VERSION_GONE, f"{source} is not there")
            return self._root(version.source, steps - 1)
        raise _refused(
            source,
            "files of a machine are only read for runs and logged models, by the server: register it as runs:/ or "
            "models:/",
        )

    def _rooted(self, location: str | None, address: str, path: str, source: str) -> str:
        """Below the folder of a run or a logged model: direct where that is possible, else through the server."""
        if location is None:
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, f"{source} is not there")
        path = _sound_path(path, source)
        scheme = location.partition(":")[0].lower()
        if scheme in SCHEMES:
            return f"{location.rstrip('/')}/{quote(path)}".rstrip("/")
        if scheme in ("mlflow-artifacts", "http", "https"):
            return f"{self._own(location)}/{path}".rstrip("/")
        return f"{address}/{path}".rstrip("/")

    def _own(self, uri: str) -> str:
        """The address of what the server hands out itself."""
        parts = urlsplit(uri)
        own = urlsplit(self._server.url)
        if parts.netloc and (parts.hostname, parts.port) not in (
            (own.hostname, own.port),
            (own.hostname, None),
        ):
            raise _refused(uri, f"only {self._server.url} is asked")
        path = unquote(parts.path)
        if parts.scheme.lower() in ("http", "https"):
            _, anchor, path = path.partition(f"{_PROXY}/")
            if not anchor:
                raise _refused(uri, f"artifacts of this server are below {_PROXY}")
        return f"mlflow-artifacts:{_sound_path(path, uri)}"

    def _below(self, root: str, token: str, progress: Progress) -> list[RemoteFile]:
        files: list[RemoteFile] = []
        folders = [""]
        asked = 0
        while folders:
            folder = folders.pop()
            asked += 1
            if asked > _MOST_FOLDERS or len(files) > MOST_FILES:
                raise RegistryUnavailable(
                    RegistryReason.BAD_RESPONSE,
                    f"{root}: it holds more than {_MOST_FOLDERS} folders or {MOST_FILES} files",
                )
            here, below = self._listed(root, folder, token)
            progress()
            files.extend(here)
            folders.extend(path for path in below if path.count("/") < _DEEPEST)
        return files

    def _listed(self, root: str, folder: str, token: str) -> tuple[list[RemoteFile], list[str]]:
        """The files in one folder, and the paths of the folders in it."""
        address = f"{root}/{folder}" if folder else root
        path, parameters = _listing(address)
        try:
            answer = self._server.get(path, parameters)
        except NotThere as error:
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, f"{address}: {error}") from None
        entries = answer.get("files") or []
        files, folders = [], []
        for entry in entries if isinstance(entries, list) else []:
            name = (
                str(entry.get("path", "")).rstrip("/").rpartition("/")[2] if isinstance(entry, dict) else ""
            )
            # The server of a folder that is a file names the file itself.
            if name in ("", ".", "..") or "\0" in name:
                continue
            inside = f"{folder}/{name}" if folder else name
            if entry.get("is_dir") is True:
                folders.append(inside)
            else:
                size = _size(entry.get("file_size"))
                files.append(RemoteFile(inside, size, f"{token}:{size}", address=f"{address}/{name}"))
        return files, folders

    def _with_etags(self, files: list[RemoteFile]) -> list[RemoteFile]:
        weights = [file for file in files if is_weight(file.path)]
        if len(weights) > _MOST_ETAGS or not weights or not self._etags_are_kept(files):
            return files
        etags = {file.path: self._etag(file) for file in weights}
        return [replace(file, identity=etags[file.path]) if etags.get(file.path) else file for file in files]

    def _etags_are_kept(self, files: list[RemoteFile]) -> bool:
        """Whether a file has the same ETag each time that it is asked for.

        A server that hands out what lies in an object store makes a copy for each request and the ETag from that
        copy; it changes each time, and a request for it moves the whole file. So a small file is asked for, twice.
        """
        with self._lock:
            if self._etags_tell is None:
                smallest = min(files, key=lambda file: file.size_bytes)
                if smallest.size_bytes > _SMALL:
                    return False
                first = self._etag(smallest)
                self._etags_tell = first != "" and first == self._etag(smallest)
            return self._etags_tell

    def _etag(self, file: RemoteFile) -> str:
        path, parameters = _request(file.address)
        try:
            return self._server.etag(path, parameters)
        except NotThere as error:
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, f"{file.address}: {error}") from None


def _listing(address: str) -> tuple[str, Parameters]:
    """Path and parameters of the request that lists a folder."""
    kind, _, rest = address.partition(":")
    if kind == "mlflow-artifacts":
        return _PROXY, {"path": rest}
    record, _, path = rest.partition("/")
    if kind == "run":
        return f"{API}/artifacts/list", {"run_id": record, **({"path": path} if path else {})}
    below: Parameters = {"artifact_directory_path": path} if path else {}
    return f"{API}/logged-models/{record}/artifacts/directories", below


def _request(address: str) -> tuple[str, Parameters]:
    """Path and parameters of the request for a file's bytes."""
    kind, _, rest = address.partition(":")
    if kind == "mlflow-artifacts":
        return f"{_PROXY}/{quote(rest)}", {}
    record, _, path = rest.partition("/")
    if kind == "run":
        return "/get-artifact", {"run_id": record, "path": path}
    return f"/ajax-api/2.0/mlflow/logged-models/{record}/artifacts/files", {"artifact_file_path": path}


def _field(record: Mapping[str, Any] | None, key: str) -> str | None:
    info = record.get("info") if record is not None else None
    value = info.get(key) if isinstance(info, dict) else None
    return value if isinstance(value, str) else None


def _sound_path(path: str, source: str) -> str:
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") or "\0" in part for part in parts):
        raise _refused(source, "its path leads out of the artifacts")
    return "/".join(parts)


def _size(value: object) -> int:
    """Sizes come as text or as a number, and of 0 bytes not at all."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _in_bucket(address: str) -> bool:
    return address.partition(":")[0].lower() in SCHEMES


def _path(file: RemoteFile) -> str:
    return file.path


def _refused(source: str, why: str) -> RegistryUnavailable:
    shown = source if len(source) <= 200 and source.isprintable() else f"{source[:200]!r}..."
    return RegistryUnavailable(RegistryReason.BAD_RESPONSE, f"the source {shown} is not read: {why}")
