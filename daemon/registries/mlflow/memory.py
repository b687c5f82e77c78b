"""What is kept of an MLflow server between looks: which versions there are, what became of them, what was told."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from layerwatch.daemon.registries.base import FoundRef, FoundVersion, Listing
from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.daemon.registries.mlflow.records import (
    PENDING,
    READY,
    ModelVersion,
    RegisteredModel,
    VersionKey,
)
from layerwatch.daemon.registries.patterns import matches
from layerwatch.daemon.registries.remote import is_weight

LATEST = "latest"
STAGES = ("Production", "Staging")

GIVEN_TIME = timedelta(hours=1)
"""So long after its last change a version without weights, or without all of a set, counts as being written."""

_CLOCK_SKEW = timedelta(seconds=60)
"""So far a server's clock may be behind."""

_LONG_AGO = datetime.fromtimestamp(0, UTC)
_NOTHING = "n"
_SHARD = re.compile(r"(.*)-(\d{5,6})-of-(\d{5,6})(\.\w+)", re.ASCII | re.DOTALL)


class _State(Enum):
    """What became of a version; nobody waits any longer for what a PARTIAL one lacks: it is listed as it is."""

    COMPLETE = auto()
    UNFINISHED = auto()
    PARTIAL = auto()
    WITHOUT_WEIGHTS = auto()


_OFFERED = frozenset({_State.COMPLETE, _State.PARTIAL})


@dataclass(slots=True)
class _Known:
    """What is kept of a version.

    Attributes:
        base: the token that its record alone gives.
        seen: digest of sizes and ETags as they were last seen, or None.
        now: the one that is a part of the token: as they are now, when they were others before, or are not all.
        since: since when they are so; None while nobody looked.
        published: it was complete, or is listed as it is: `latest` stays with it while it is written again.
    """

    base: str
    state: _State = _State.COMPLETE
    status: str = READY
    seen: str | None = None
    now: str | None = None
    since: datetime | None = None
    published: bool = False

    @property
    def token(self) -> str:
        return self.base if self.now is None else f"{self.base}.{self.now}"


class MlflowMemory:
    """Remembers versions. Safe for several threads; looks come from one thread at a time.

    Args:
        refs: patterns of the refs to watch, with or without a leading @.
    """

    def __init__(self, refs: Iterable[str]) -> None:
        self._patterns = tuple(pattern.removeprefix("@") for pattern in refs)
        self._lock = threading.Lock()
        self._models: dict[str, dict[int, _Known]] = {}
        self._unfinished: dict[VersionKey, None] = {}
        self._given_up: dict[VersionKey, None] = {}
        self._pointed: set[VersionKey] = set()
        self._untold: set[VersionKey] = set()
        self._compared: dict[VersionKey, int] = {}
        self._looks = 0
        self._now = _LONG_AGO

    def recall(self, published: Mapping[str, str]) -> None:
        """Versions that an earlier process found complete: location -> token."""
        with self._lock:
            for location, token in published.items():
                key = key_of(location)
                if key is not None:
                    base, _, digest = token.partition(".")
                    known = _Known(base, seen=digest or None, now=digest or None)
                    known.published = not digest.startswith(_NOTHING)
                    self._models.setdefault(key[0], {})[key[1]] = known

    def watches(self, ref: str) -> bool:
        """Whether a ref is to be watched."""
        return matches(ref, self._patterns)

    def models(self) -> list[str]:
        """The names of the models of which there are versions."""
        with self._lock:
            return list(self._models)

    def numbers(self, model: str) -> frozenset[int]:
        """The versions of a model that are known."""
        with self._lock:
            return frozenset(self._models.get(model, ()))

    def forget(self, key: VersionKey) -> None:
        """A version is gone."""
        with self._lock:
            self._models.get(key[0], {}).pop(key[1], None)
            self._unqueue(key)

    def take_in(
        self,
        rows: Mapping[VersionKey, ModelVersion],
        models: Mapping[str, RegisteredModel],
        everything: bool,
        now: datetime,
    ) -> dict[VersionKey, ModelVersion]:
        """What a look read.

        Args:
            everything: what is not among the rows is gone.

        Returns:
            the rows that are new, or of which the record says something else than before.
        """
        with self._lock:
            self._now = now
            self._looks += 1
            if everything:
                self._keep_only(rows)
            self._keep_what_is_in(models)
            return {key: row for key, row in rows.items() if self._is_news(key, row)}

    def take_back(self, news: Iterable[VersionKey]) -> None:
        """The look broke off and told nothing: to the next one these are news again."""
        for key in news:
            self.forget(key)

    def unfinished(self, limit: int, limit_given_up: int) -> list[VersionKey]:
        """Some unfinished versions, and some that lack something although nobody waits for it any longer.

        Those first that were not looked at for the longest time.
        """
        with self._lock:
            return [*list(self._unfinished)[:limit], *list(self._given_up)[:limit_given_up]]

    def renew(self, row: ModelVersion) -> None:
        """The record of a version was read again."""
        with self._lock:
            known = self._of(row)
            if known is not None:
                known.base, known.status = row.token, row.status

    def settle(self, row: ModelVersion, files: Sequence[RemoteFile]) -> None:
        """These are its files now: all of them, not yet all, or all that will come."""
        key = row.name, row.number
        digest = _digest(row, files)
        with self._lock:
            known = self._of(row)
            if known is None or known.base != row.token:
                return
            before = known.seen
            self._note(known, key, digest)
            if known.since is None:
                known.since = self._now if known.published else self._begun(row)
            elif before != digest:
                known.since = self._now
            self._unqueue(key)
            if is_complete(files):
                self._become(known, key, _State.COMPLETE)
            elif self._now - known.since < GIVEN_TIME:
                known.state = _State.UNFINISHED
                self._unfinished[key] = None
            else:
                if known.state is _State.UNFINISHED and known.now is None:
                    # In the token, a later process sees by it as well that more has come.
                    known.now = digest
                bare = digest.startswith(_NOTHING)
                self._become(known, key, _State.WITHOUT_WEIGHTS if bare else _State.PARTIAL)
                self._given_up[key] = None

    def set_unseen(self, row: ModelVersion) -> None:
        """Its files cannot be looked at now: wait for them as long as for missing ones, then list it all the same."""
        key = row.name, row.number
        with self._lock:
            known = self._of(row)
            if known is None or known.base != row.token:
                return
            known.since = known.since or self._begun(row)
            if self._now - known.since >= GIVEN_TIME:
                self._assume(known, key)
                self._given_up[key] = None
            elif known.state is not _State.WITHOUT_WEIGHTS:
                self._unqueue(key)
                known.state = _State.UNFINISHED
                self._unfinished[key] = None

    def assume_complete(self, row: ModelVersion) -> None:
        """Its files are never looked at; whoever reads it is told why."""
        with self._lock:
            known = self._of(row)
            if known is not None and known.base == row.token:
                self._assume(known, (row.name, row.number))

    def set_unregistered(self, row: ModelVersion) -> None:
        """Its registration is pending or failed."""
        key = row.name, row.number
        with self._lock:
            known = self._of(row)
            if known is None:
                return
            known.state = _State.UNFINISHED
            self._unqueue(key)
            if row.status == PENDING:
                self._unfinished[key] = None

    def note(self, row: ModelVersion, files: Iterable[RemoteFile]) -> str:
        """The token of a version whose files are these now."""
        digest = _digest(row, files)
        with self._lock:
            known = self._of(row)
            if known is None or known.base != row.token:
                return row.token
            self._note(known, (row.name, row.number), digest)
            return known.token

    def is_listed_without_weights(self, row: ModelVersion) -> bool:
        """Whether it has no weights, nobody waits for them, and a ref points at it."""
        with self._lock:
            known = self._of(row)
            return (
                known is not None
                and known.state is _State.WITHOUT_WEIGHTS
                and (row.name, row.number) in self._pointed
            )

    def token(self, row: ModelVersion) -> str:
        """The token of a version as far as it is known without a look at its files."""
        with self._lock:
            known = self._of(row)
            return known.token if known is not None and known.base == row.token else row.token

    def to_compare(
        self, rows: Iterable[ModelVersion], models: Mapping[str, RegisteredModel], limit: int
    ) -> list[ModelVersion]:
        """Some complete versions, first those that refs point at, of these those not compared for the longest time."""
        with self._lock:
            pointed = {
                (model.name, number) for model in models.values() for number in self._targets(model).values()
            }
            complete = {
                (row.name, row.number): row
                for row in rows
                if (known := self._of(row)) is not None and known.state is _State.COMPLETE
                if (row.name, row.number) not in self._given_up
            }
            due = sorted(complete, key=lambda key: (key not in pointed, self._compared.get(key, 0)))[:limit]
            for key in due:
                self._compared[key] = self._looks
            return [complete[key] for key in due]

    def tell(self, models: Mapping[str, RegisteredModel], everything: bool) -> Listing:
        """The listing: all versions, or what was not told yet."""
        versions: list[FoundVersion] = []
        refs: list[FoundRef] = []
        unfinished: list[tuple[str, str]] = []
        remarks: list[str] = []
        pointed: set[VersionKey] = set()
        with self._lock:
            for name in sorted(models):
                known = self._models.get(name, {})
                targets = sorted(self._targets(models[name]).items())
                refs.extend(FoundRef(name, ref, str(number)) for ref, number in targets)
                aims = {number for _, number in targets}
                pointed |= {(name, number) for number in aims}
                bare = 0
                for number in sorted(known):
                    one = known[number]
                    told = (name, number) not in self._untold
                    if one.state is _State.WITHOUT_WEIGHTS:
                        if number not in aims:
                            bare += 1
                            continue
                        # Nobody is to think that all is well with what a ref leads to.
                        told = told and (name, number) in self._pointed
                    if one.state is _State.UNFINISHED:
                        unfinished.append((name, str(number)))
                    elif everything or not told:
                        versions.append(found_version(name, number, one.token))
                if bare:
                    remarks.append(f"{name}: {bare} of its versions hold no weight file and are left out")
            self._untold.clear()
            self._pointed = pointed
        return Listing(
            tuple(versions),
            tuple(refs),
            tuple(unfinished),
            tuple(remarks),
            empty=not models,
            complete=everything,
        )

    def _of(self, row: ModelVersion) -> _Known | None:
        return self._models.get(row.name, {}).get(row.number)

    def _note(self, known: _Known, key: VersionKey, digest: str) -> None:
        before, known.seen = known.seen, digest
        # At the first sight, or with ETags where only sizes were known, there is nothing to compare with.
        comparable = before is not None and (before[0] == digest[0] or _NOTHING in (before[0], digest[0]))
        if comparable and before != digest:
            known.now = digest
            self._untold.add(key)

    def _begun(self, row: ModelVersion) -> datetime:
        """When the files of a version may have changed last, as far as its record tells."""
        return self._now - max(timedelta(), age(row, self._now) - _CLOCK_SKEW)

    def _become(self, known: _Known, key: VersionKey, state: _State) -> None:
        if known.state is not state:
            known.state = state
            self._untold.add(key)
        known.published = known.published or state in _OFFERED

    def _assume(self, known: _Known, key: VersionKey) -> None:
        self._unqueue(key)
        if known.state not in _OFFERED:
            known.state = _State.COMPLETE
            self._untold.add(key)

    def _unqueue(self, key: VersionKey) -> None:
        self._unfinished.pop(key, None)
        self._given_up.pop(key, None)

    def _keep_only(self, rows: Mapping[VersionKey, ModelVersion]) -> None:
        numbers: dict[str, set[int]] = {}
        for name, number in rows:
            numbers.setdefault(name, set()).add(number)
        self._models = {
            name: {number: one for number, one in known.items() if number in numbers[name]}
            for name, known in self._models.items()
            if name in numbers
        }
        self._unfinished = {key: None for key in self._unfinished if key in rows}
        self._given_up = {key: None for key in self._given_up if key in rows}
        self._compared = {key: look for key, look in self._compared.items() if key in rows}

    def _keep_what_is_in(self, models: Mapping[str, RegisteredModel]) -> None:
        """Versions above the newest that a model has are deleted, and those of models that are not there."""
        for name in [name for name in self._models if name not in models]:
            del self._models[name]
        for model in models.values():
            known = self._models.get(model.name)
            if known and model.newest:
                highest = max(version.number for version in model.newest)
                for number in [number for number in known if number > highest]:
                    del known[number]

    def _is_news(self, key: VersionKey, row: ModelVersion) -> bool:
        known = self._of(row)
        if known is not None and known.base == row.token and known.status == row.status:
            return False
        self._models.setdefault(row.name, {})[row.number] = _Known(row.token, status=row.status)
        self._unqueue(key)
        self._untold.add(key)
        return True

    def _targets(self, model: RegisteredModel) -> dict[str, int]:
        """The watched refs of a model and the versions that they point at."""
        known = self._models.get(model.name, {})
        offered = [number for number, one in known.items() if one.published or one.state in _OFFERED]
        targets = {version.stage: version.number for version in model.newest if version.stage in STAGES}
        targets |= model.aliases
        if offered:
            targets[LATEST] = max(offered)
        return {ref: number for ref, number in targets.items() if self.watches(ref) and number in known}


def found_version(name: str, number: int, token: str) -> FoundVersion:
    """A version as listings have it."""
    return FoundVersion(
        model=name, version=str(number), location=f"{name}/{number}", order_key=str(number), token=token
    )


def key_of(location: str) -> VersionKey | None:
    """Name and number in a location."""
    name, _, number = location.rpartition("/")
    sound = name and number.isascii() and number.isdigit() and len(number) <= 18
    return (name, int(number)) if sound else None


def age(row: ModelVersion, now: datetime) -> timedelta:
    """How long ago a version was made."""
    return timedelta(seconds=min(now.timestamp() - row.created / 1000, 1e9))


def is_complete(files: Iterable[RemoteFile]) -> bool:
    """Whether there are weights, and of shards that are numbered all."""
    weights = [file.path for file in files if is_weight(file.path)]
    shards: dict[tuple[str, ...], set[str]] = {}
    for path in weights:
        if match := _SHARD.fullmatch(path):
            shards.setdefault((match[1], match[3], match[4]), set()).add(match[2])
    return bool(weights) and all(len(numbers) >= int(key[1]) for key, numbers in shards.items())


def _digest(row: ModelVersion, files: Iterable[RemoteFile]) -> str:
    """Of the paths, sizes and ETags of the weights; its first letter says whether ETags are in it, or nothing is."""
    weights = [file for file in files if is_weight(file.path)]
    if not weights:
        return _NOTHING
    by_size = all(file.identity.startswith(row.token) for file in weights)
    lines = sorted(f"{file.path}\0{file.size_bytes}\0{file.identity}" for file in weights)
    text = "\n".join(lines).encode(errors="surrogateescape")
    return ("s" if by_size else "e") + hashlib.sha256(text).hexdigest()[:12]
