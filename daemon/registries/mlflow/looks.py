"""Looks at an MLflow server: what is read of it, in which order, and how much at most."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TypeVar

from layerwatch.daemon.registries.base import Listing, RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.daemon.registries.mlflow.artifacts import MlflowArtifacts
from layerwatch.daemon.registries.mlflow.buckets import BucketUnavailable
from layerwatch.daemon.registries.mlflow.memory import MlflowMemory, age
from layerwatch.daemon.registries.mlflow.records import (
    READY,
    MlflowRecords,
    ModelVersion,
    RegisteredModel,
    VersionKey,
    quoted,
)
from layerwatch.daemon.registries.patterns import matches

_OVERLAP = timedelta(minutes=5)
"""So much is read again at each look: transactions end late, and the clocks of a server's replicas differ."""

_AHEAD = timedelta(minutes=10)
"""A time stamp that lies further in the future says nothing of what was seen."""

_YOUNG = timedelta(days=1)
"""Of versions that are older when they are first seen completeness is assumed."""

_EXAMINED = 100
"""So many new versions of one look are asked for their artifacts, the newest; of others completeness is assumed."""

_EXAMINED_AGAIN = 25
"""So many unfinished versions are asked again at each look, in turn."""

_GIVEN_UP_EXAMINED = 5
"""So many besides of those that are listed although something is missing: it may come in the end."""

_PATIENCE = timedelta(minutes=1)
"""So long in all one look waits for artifacts that do not answer while their server does."""

_COMPARED = 100
"""So many versions are compared at a full look with what was seen of them first, in turn, refs first."""

_CONFIRMED = 20
_AT_ONCE = 4
_MOST_CONDITIONS = 8
_SIMPLE = re.compile(r"[^*?\[\]'\"\\%]+\*?")

_Result = TypeVar("_Result")


class MlflowLooks:
    """Looks at the models of some patterns, one look at a time.

    Artifacts that cannot be had concern their own version: the server and all other versions are listed all the same.

    Args:
        clock: seconds that only grow.
    """

    def __init__(
        self,
        models: Sequence[str],
        records: MlflowRecords,
        artifacts: MlflowArtifacts,
        memory: MlflowMemory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patterns = tuple(models)
        self._conditions = _conditions(models)
        self._records = records
        self._artifacts = artifacts
        self._memory = memory
        self._clock = clock
        self._lost = 0.0
        self._watermark: int | None = None

    def look(self, now: datetime, everything: bool) -> Listing:
        """All versions, or those that are new or changed; the refs of all models."""
        everything = everything or self._watermark is None
        self._lost = 0.0
        rows = self._rows(everything)
        models = self._registered()
        rows |= self._named(models, rows)
        news = self._memory.take_in(rows, models, everything, now)
        try:
            self._examine_again()
            self._examine(news.values(), now)
            if everything:
                self._compare([row for key, row in rows.items() if key not in news], models)
        except BaseException:
            self._memory.take_back(news)
            raise
        listing = self._memory.tell(models, everything)
        self._watermark = _watermark(self._watermark, rows.values(), now)
        return listing

    def _rows(self, everything: bool) -> dict[VersionKey, ModelVersion]:
        rows: dict[VersionKey, ModelVersion] = {}
        for condition in self._conditions:
            if everything or self._watermark is None:
                rows |= self._records.all_versions(condition)
            else:
                since = self._watermark - int(_OVERLAP.total_seconds() * 1000)
                rows |= self._records.changed_versions(condition, since)
        return {key: row for key, row in rows.items() if self._is_watched(row.name)}

    def _registered(self) -> dict[str, RegisteredModel]:
        """The registered models. One that a page missed because another was deleted meanwhile is asked for."""
        models: dict[str, RegisteredModel] = {}
        for condition in self._conditions:
            models |= self._records.models(condition)
        missing = [name for name in self._memory.models() if name not in models]
        if len(missing) > _CONFIRMED:
            for condition in self._conditions:
                models = self._records.models(condition) | models
        else:
            for name in missing:
                model = self._records.model(name)
                if model is not None:
                    models[name] = model
        return {name: model for name, model in models.items() if self._is_watched(name)}

    def _named(
        self, models: Mapping[str, RegisteredModel], rows: Mapping[VersionKey, ModelVersion]
    ) -> dict[VersionKey, ModelVersion]:
        """Versions that the registered models name and that neither this look nor an earlier one saw."""
        found = {}
        confirmed = 0
        for model in models.values():
            known = self._memory.numbers(model.name)
            for version in model.newest:
                if version.number not in known and (version.name, version.number) not in rows:
                    found[version.name, version.number] = version
            for alias, number in model.aliases.items():
                key = model.name, number
                if number in known or key in rows or key in found or not self._memory.watches(alias):
                    continue
                pointed = self._records.version(*key)
                if pointed is not None:
                    found[key] = pointed
            if not model.newest and known and confirmed < _CONFIRMED:
                # A server that does not say which versions are the newest, or a model that lost all of them.
                confirmed += 1
                key = model.name, max(known)
                if self._records.version(*key) is None:
                    self._memory.forget(key)
        return found

    def _examine(self, rows: Iterable[ModelVersion], now: datetime) -> None:
        """See which new versions are complete."""
        young = []
        for row in rows:
            if row.status != READY:
                self._memory.set_unregistered(row)
            elif age(row, now) < _YOUNG:
                young.append(row)
        young.sort(key=lambda row: row.created, reverse=True)
        self._examine_artifacts(young[:_EXAMINED])

    def _examine_again(self) -> None:
        """See what became of some unfinished versions."""
        ready = []
        for key in self._memory.unfinished(_EXAMINED_AGAIN, _GIVEN_UP_EXAMINED):
            row = self._records.version(*key)
            if row is None:
                self._memory.forget(key)
                continue
            self._memory.renew(row)
            if row.status == READY:
                ready.append(row)
            else:
                self._memory.set_unregistered(row)
        self._examine_artifacts(ready)

    def _examine_artifacts(self, rows: Sequence[ModelVersion]) -> None:
        _at_once(self._examine_one, rows)

    def _examine_one(self, row: ModelVersion) -> None:
        files = self._files(row)
        if not isinstance(files, RegistryUnavailable):
            self._memory.settle(row, files)
        elif files.reason.misconfigured:
            # Nothing to wait for: whoever reads the version is told why that cannot be done.
            self._memory.assume_complete(row)
        else:
            self._memory.set_unseen(row)

    def _compare(self, rows: Sequence[ModelVersion], models: Mapping[str, RegisteredModel]) -> None:
        """Ask some versions whether their artifacts are what they were."""
        _at_once(self._compare_one, self._memory.to_compare(rows, models, _COMPARED))

    def _compare_one(self, row: ModelVersion) -> None:
        files = self._files(row)
        if not isinstance(files, RegistryUnavailable):
            self._memory.settle(row, files)

    def _files(self, row: ModelVersion) -> tuple[RemoteFile, ...] | RegistryUnavailable:
        """The files of a version, or why those of this one cannot be had.

        Raises:
            RegistryUnavailable: it is the server that is in trouble.
        """
        if self._lost >= _PATIENCE.total_seconds():
            return RegistryUnavailable(
                RegistryReason.UNREACHABLE,
                f"{row.source} is not asked: others kept this look waiting too long",
            )
        began = self._clock()
        try:
            return self._artifacts.files(row, identified=True)
        except RegistryUnavailable as error:
            if error.reason is RegistryReason.VERSION_GONE:
                return ()
            if not isinstance(error, BucketUnavailable):
                self._require_server(row, error)
            self._lost += self._clock() - began
            return error

    def _require_server(self, row: ModelVersion, error: RegistryUnavailable) -> None:
        """Raise unless the server answers still: then it was but slow to read what lies behind it."""
        if error.reason is RegistryReason.UNREACHABLE:
            self._records.version(row.name, row.number)
        elif error.reason is RegistryReason.RATE_LIMITED:
            raise error

    def _is_watched(self, model: str) -> bool:
        return matches(model, self._patterns)


def _at_once(action: Callable[[ModelVersion], _Result], rows: Sequence[ModelVersion]) -> list[_Result]:
    """The results for some versions, in their order; after the first failure nothing more is begun."""
    if not rows:
        return []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(action, row) for row in rows]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _conditions(patterns: Sequence[str]) -> tuple[str | None, ...]:
    """What the server may filter by itself; it may answer with more than the patterns say, never with less."""
    if len(patterns) > _MOST_CONDITIONS or not all(_SIMPLE.fullmatch(pattern) for pattern in patterns):
        return (None,)
    return tuple(
        f"name LIKE {quoted(pattern[:-1] + '%')}" if pattern.endswith("*") else f"name = {quoted(pattern)}"
        for pattern in patterns
    )


def _watermark(before: int | None, rows: Iterable[ModelVersion], now: datetime) -> int:
    limit = int((now + _AHEAD).timestamp() * 1000)
    return max([before or 0, *(row.updated for row in rows if row.updated <= limit)])
