"""A registry that is a bucket of an object store: ``PREFIX/MODEL/VERSION/...weight files``.

Names of models and versions hold no slash. Those that begin with a dot or end in ``.tmp``, ``.partial`` or ``~`` are
invisible. A small object ``PREFIX/MODEL/.refs/REF`` that holds the name of a version is a ref; ``latest`` is the newest
complete version unless there is such an object. ``lineage.json`` beside the weights declares a parent
(``lineagefile.py``). The location of a version is ``MODEL/VERSION``.

A store has no folders that could be renamed, so a version of several files is seen while it is being uploaded. It is
complete when its marker is there (``complete_marker``), or, without a marker, when nothing in it has changed for the
settle time. A numbered set of shards that has gaps is waited for much longer; then it is listed as it is. What holds no
weights is no version, unless a ref points at it: that is waited for and listed in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING

from layerwatch.config.registries.objectstore import ObjectStoreRegistrySettings
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundRef,
    FoundVersion,
    Listing,
    Progress,
    RegistryReason,
    RegistryUnavailable,
    no_progress,
)
from layerwatch.daemon.registries.downloads import Downloads, RemoteFile
from layerwatch.daemon.registries.objectstore.client import Bucket, Overwritten, UnlistableKey
from layerwatch.daemon.registries.objectstore.look import REFS, Held, Look, identity
from layerwatch.daemon.registries.patterns import is_glob, is_visible, matches
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch.daemon.registries.settling import Settling, is_quiet
from layerwatch.daemon.store.ordering import sort_key

if TYPE_CHECKING:
    from obstore import ObjectMeta

LATEST = "latest"
_BLOCK = 4 * 2**20
_LARGEST_REF = 1024
_MOST_FILES = 100_000
_MOST_REMARKS = 100
_TOLD = 10
"""So many names are told where another was asked for."""

_REFS_AT_A_TIME = 4
_WAIT_FOR_SHARDS = timedelta(hours=1)
"""So long a set of shards with gaps, or without any weights, is taken for one that is still being uploaded."""


@dataclass(slots=True)
class _Result:
    """What a listing is made of."""

    versions: list[FoundVersion] = field(default_factory=list)
    refs: list[FoundRef] = field(default_factory=list)
    unfinished: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unlisted: list[tuple[str, RegistryReason]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)


class ObjectStoreSource:
    """Watches a bucket.

    Args:
        settings: of the registry.
        clock: tz-aware time now.

    Attributes:
        page_size: objects that are taken from the client at once; a store sends 1,000 per page.
    """

    def __init__(
        self, settings: ObjectStoreRegistrySettings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.page_size = 1000
        self._settings = settings
        self._clock = clock
        self._bucket = Bucket(settings)
        self._settling = Settling()
        # Without weights, and listed because refs point at them.
        self._bare: set[str] = set()
        self._ref_texts: dict[str, tuple[str, str | None]] = {}

    def recall(self, published: Mapping[str, str]) -> None:
        """What did not change since is complete at once, and what did keeps its refs until it has settled again."""
        self._settling.recall(published)

    def listing(self, now: datetime, everything: bool) -> Listing:
        """One walk over the keys. All versions are always listed."""
        result = _Result()
        look = self._walked(result)
        blind = {model for model, _ in result.unlisted}
        targets = self._targets(look, result.remarks)
        models = sorted(look.models)
        for model in models:
            # What was seen of a hundred thousand versions need not be there twice.
            self._sort_out(model, look.models.pop(model), targets.get(model, {}), now, result)
        kept = result.seen | {one for one in self._settling.known() if _model_of(one) in blind}
        self._settling.keep(kept)
        self._bare = result.bare | {one for one in self._bare if _model_of(one) in blind}
        self._ref_texts = {
            key: value for key, value in self._ref_texts.items() if _model_of(key) in look.refs
        }
        return Listing(
            tuple(result.versions),
            tuple(result.refs),
            tuple(result.unfinished),
            _shortened([*result.remarks, *look.stray]),
            tuple(result.unlisted),
            empty=not models and not blind,
        )

    def token(self, location: str) -> str | None:
        """The token of a version, or None when there is no weight object in it."""
        held = Held()
        for path, meta in self._objects(location):
            held.add(path, meta)
        return held.token if held.weights or (held.touched and location in self._bare) else None

    def files(self, location: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        """The version's objects. A store promises no sha256."""
        found: list[RemoteFile] = []
        for path, meta in self._objects(location):
            progress()
            found.append(RemoteFile(path, meta["size"], identity(meta), None, meta["e_tag"] or ""))
            if len(found) > _MOST_FILES:
                raise RegistryUnavailable(
                    RegistryReason.BAD_RESPONSE,
                    f"{self._name_of(location)} has more than {_MOST_FILES} objects",
                )
        if not found:
            raise RegistryUnavailable(
                RegistryReason.VERSION_GONE, f"{self._name_of(location)} is no longer there"
            )
        return tuple(sorted(found, key=lambda file: file.path))

    def stream(self, location: str, file: RemoteFile, begin: int, end: int | None = None) -> Iterator[bytes]:
        """The bytes in blocks, all of the object that was listed: an overwrite in between ends the stream."""
        stop = file.size_bytes if end is None else min(end, file.size_bytes)
        while begin < stop:
            try:
                block = self._bucket.read(
                    f"{location}/{file.path}", begin, min(begin + _BLOCK, stop), file.address
                )
            except Overwritten:
                raise RegistryUnavailable(
                    RegistryReason.VERSION_GONE,
                    f"{self._name_of(location)}: {file.path} was overwritten while it was read; the next look sees "
                    "what is there now",
                ) from None
            except RegistryUnavailable as error:
                if error.reason is not RegistryReason.NOT_FOUND:
                    raise
                raise RegistryUnavailable(
                    RegistryReason.VERSION_GONE, f"{self._name_of(location)}: {file.path} is no longer there"
                ) from error
            yield block
            begin += len(block)

    def declared(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        """Nothing: a store knows nothing of models. Files beside the weights are read by the registry."""
        return ()

    def resolve(self, model: str, reference: str | None) -> FoundVersion:
        """A version by its name, by a ref, or the newest complete one."""
        where = f"{self._bucket.where}/{model}"
        if not is_visible(model) or "/" in model:
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND, f"{model!r} cannot be a model's name: it is one folder"
            )
        look = Look(lambda name: name == model, self._settings.complete_marker)
        try:
            self._walk(model, look)
        except UnlistableKey as error:
            raise self._unlistable(str(error)) from None
        versions = {name: held for name, held in look.models.get(model, {}).items() if held.weights}
        if not versions:
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND,
                f"there is no version with weights under {where}/: check the model's name and the registry's url",
            )
        refs = {
            name: text for name, (_, text) in self._ref_contents(look, lambda _: True).get(model, {}).items()
        }
        name = reference if reference in versions else refs.get(reference or LATEST)
        if name is None and reference in (None, LATEST):
            now = self._clock()
            complete = (
                one for one, held in versions.items() if self._looks_complete(f"{model}/{one}", held, now)
            )
            name = max(complete, key=lambda one: self._age(one, versions[one]), default=None)
            if name is None:
                raise RegistryUnavailable(
                    RegistryReason.NOT_FOUND, f"no version under {where}/ is complete yet: wait, or name one"
                )
        if name is None or name not in versions:
            known = sorted({*versions, *refs}, key=sort_key)
            more = f", and {len(known) - _TOLD} more" if len(known) > _TOLD else ""
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND,
                f"{model} has no version and no ref {reference!r}; there are {', '.join(known[-_TOLD:])}{more}",
            )
        held = versions[name]
        if self._settings.complete_marker is not None and not held.marked:
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND,
                f"{where}/{name} is not complete: it holds no {self._settings.complete_marker}",
            )
        return self._found(model, name, held)

    def _walked(self, result: _Result) -> Look:
        """Everything that is watched; models with a key that no client can list are told as unlisted."""
        look = self._new_look()
        try:
            ends = {root: self._walk(root, look) for root in self._roots()}
        except UnlistableKey as error:
            return self._walked_by_model(str(error), result)
        if not self._lacks_something(look):
            return look
        # Any page that a proxy puts in place of an answer reads as the end of the listing.
        for root, end in ends.items():
            self._walk(root, look, end)
        if self._lacks_something(look):
            self._bucket.require_sound()
        return look

    def _walked_by_model(self, key: str, result: _Result) -> Look:
        roots = self._roots()
        try:
            models = roots if roots != ("",) else self._bucket.folders()
        except UnlistableKey:
            raise self._unlistable(key) from None
        whole = self._new_look()
        for model in models:
            look = self._new_look()
            if not is_visible(model) or not look.watched(model):
                continue
            try:
                self._walk(model, look)
            except UnlistableKey as error:
                refused = self._unlistable(str(error))
                result.unlisted.append((model, refused.reason))
                result.remarks.append(f"{model}: this model could not be listed: {refused.detail}")
                continue
            whole.models |= look.models
            whole.refs |= look.refs
            whole.stray.extend(look.stray)
        return whole

    def _walk(self, root: str, look: Look, after: str = "") -> str:
        """Take every object below a root into the look; the greatest key that was met."""
        last = after
        for page in self._bucket.pages(root, after or None, self.page_size):
            for meta in page:
                if meta["path"] > after:
                    look.take(meta)
                    last = max(last, meta["path"])
        return last

    def _roots(self) -> tuple[str, ...]:
        """What is walked: the models one by one where the settings name them all, else everything."""
        patterns = tuple(dict.fromkeys(self._settings.models))
        if any(is_glob(pattern) or "/" in pattern or not is_visible(pattern) for pattern in patterns):
            return ("",)
        return patterns

    def _new_look(self) -> Look:
        patterns = self._settings.models

        @lru_cache(maxsize=4096)
        def watched(model: str) -> bool:
            return matches(model, patterns)

        return Look(watched, self._settings.complete_marker)

    def _lacks_something(self, look: Look) -> bool:
        """Whether there is nothing, or something that was there at the last look is not."""
        if not look.models:
            return True
        none: dict[str, Held] = {}
        for location in self._settling.known():
            model, _, version = location.partition("/")
            if version not in look.models.get(model, none):
                return True
        return False

    def _objects(self, location: str) -> Iterator[tuple[str, ObjectMeta]]:
        """The objects of a version by their paths inside it."""
        begin = f"{location}/"
        try:
            for page in self._bucket.pages(location, None, self.page_size):
                for meta in page:
                    if meta["path"].startswith(begin):
                        yield meta["path"].removeprefix(begin), meta
        except UnlistableKey as error:
            raise self._unlistable(str(error)) from None

    def _targets(self, look: Look, remarks: list[str]) -> dict[str, dict[str, str]]:
        """Model -> watched ref -> version, as the refs' objects say."""
        patterns = self._settings.refs
        targets: dict[str, dict[str, str]] = {}
        for model, refs in self._ref_contents(look, lambda ref: matches(ref, patterns)).items():
            for ref, (key, text) in refs.items():
                held = look.models.get(model, {}).get(text or "")
                if text is None or held is None:
                    remarks.append(f"{key}: must hold the name of a version of the same model; left out")
                else:
                    targets.setdefault(model, {})[ref] = text
        return targets

    def _ref_contents(
        self, look: Look, wanted: Callable[[str], bool]
    ) -> dict[str, dict[str, tuple[str, str | None]]]:
        """Model -> ref -> (key, what its object holds); those that did not change are not read again."""
        wishes = [
            (model, ref, f"{model}/{REFS}/{ref}", state, size)
            for model, refs in look.refs.items()
            for ref, (state, size) in refs.items()
            if wanted(ref)
        ]
        due = [
            (key, state, size)
            for _, _, key, state, size in wishes
            if self._ref_texts.get(key, ("",))[0] != state
        ]
        if due:
            with ThreadPoolExecutor(_REFS_AT_A_TIME, thread_name_prefix="refs") as pool:
                texts = list(pool.map(lambda one: self._ref_text(*one), due))
            read = {key: (state, text) for (key, state, _), text in zip(due, texts, strict=True)}
            self._ref_texts = {**self._ref_texts, **read}
        found: dict[str, dict[str, tuple[str, str | None]]] = {}
        for model, ref, key, _, _ in wishes:
            found.setdefault(model, {})[ref] = (key, self._ref_texts[key][1])
        return found

    def _ref_text(self, key: str, state: str, size: int) -> str | None:
        if not 0 < size <= _LARGEST_REF:
            return None
        try:
            return self._bucket.read(key, 0, size, "").decode().strip()
        except (UnicodeDecodeError, Overwritten):
            return None
        except RegistryUnavailable as error:
            if error.reason is RegistryReason.NOT_FOUND:
                return None
            raise

    def _sort_out(
        self,
        model: str,
        versions: Mapping[str, Held],
        targets: dict[str, str],
        now: datetime,
        result: _Result,
    ) -> None:
        """Tell the complete versions of a model from the unfinished ones, and where its refs point."""
        complete: list[FoundVersion] = []
        written_again: list[FoundVersion] = []
        unfinished: list[str] = []
        pointed = {version for ref, version in targets.items() if matches(ref, self._settings.refs)}
        for version, held in versions.items():
            if not held.weights and version not in pointed:
                continue
            found = self._found(model, version, held)
            result.seen.add(found.location)
            if self._is_complete(found.location, held, now):
                complete.append(found)
                self._settling.publish(found.location)
                if not held.weights:
                    result.bare.add(found.location)
                    result.remarks.append(
                        f"{found.location}: refs point at it, and it holds no weight file: listed as it is"
                    )
                continue
            unfinished.append(version)
            if self._settling.was_published(found.location):
                written_again.append(found)
        complete.sort(key=attrgetter("age"))
        with_weights = [one for one in complete if one.location not in result.bare]
        result.versions.extend(complete)
        result.unfinished.extend((model, name) for name in sorted(unfinished))
        # A version that is written again is still the newest: its refs wait where they are.
        newest = max([*with_weights, *written_again], key=attrgetter("age"), default=None)
        if newest is not None:
            targets = {LATEST: newest.version, **targets}
        result.refs.extend(
            FoundRef(model, ref, version)
            for ref, version in sorted(targets.items())
            if matches(ref, self._settings.refs)
        )

    def _is_complete(self, location: str, held: Held, now: datetime) -> bool:
        """Whether a version of the listing is complete; remembers since when it is as it is."""
        if self._settings.complete_marker is not None:
            return held.marked
        return self._settling.is_settled(location, held.token, held.touched, self._wait_for(held), now)

    def _looks_complete(self, location: str, held: Held, now: datetime) -> bool:
        """The same for one that no listing need have seen."""
        if self._settings.complete_marker is not None:
            return held.marked
        if self._settling.was_published_as(location, held.token):
            return True
        return is_quiet(held.touched, self._wait_for(held), now)

    def _wait_for(self, held: Held) -> timedelta:
        settle: timedelta = self._settings.settle
        return max(settle, _WAIT_FOR_SHARDS) if held.lacks_shards or not held.weights else settle

    def _found(self, model: str, version: str, held: Held) -> FoundVersion:
        return FoundVersion(
            model=model,
            version=version,
            location=f"{model}/{version}",
            order_key=self._order_key(version, held),
            token=held.token,
        )

    def _order_key(self, version: str, held: Held) -> str:
        return f"{max(0, int(held.modified * 1e6)):020d}" if self._settings.order == "time" else version

    def _age(self, version: str, held: Held) -> tuple[bytes, str]:
        return sort_key(self._order_key(version, held)), version

    def _name_of(self, location: str) -> str:
        return f"{self._bucket.where}/{location}"

    def _unlistable(self, key: str) -> RegistryUnavailable:
        return RegistryUnavailable(
            RegistryReason.BAD_RESPONSE,
            f"{self._bucket.where}: the key {key} is no path (an empty part, . or .., or a control character) and "
            "hides everything beside it: delete or rename that object",
        )


def _model_of(location: str) -> str:
    return location.partition("/")[0]


def _shortened(remarks: list[str]) -> tuple[str, ...]:
    if len(remarks) <= _MOST_REMARKS:
        return tuple(remarks)
    return (*remarks[:_MOST_REMARKS], f"and {len(remarks) - _MOST_REMARKS} more of this kind")


def build(settings: ObjectStoreRegistrySettings, downloads: Downloads) -> RemoteRegistry:
    """The registry that the settings describe. Nothing is contacted yet."""
    place = f"{settings.url} {settings.endpoint or ''}"
    return RemoteRegistry(settings.name, ObjectStoreSource(settings), downloads, place=place)
