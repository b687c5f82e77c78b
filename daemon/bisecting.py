"""Bisections over the versions of a store, and over files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from layerwatch.config.rules import RulesSettings
from layerwatch.config.settings import Settings
from layerwatch.daemon.baselines import known_relation
from layerwatch.daemon.bisect import Bisection, Link, bisect
from layerwatch.daemon.examining import examine_stored
from layerwatch.daemon.gate.measuring import measure_file
from layerwatch.daemon.history import load_history
from layerwatch.daemon.lineage.line import ancestry
from layerwatch.daemon.measuring import is_complete
from layerwatch.daemon.scan.content import Progress
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.store import baselines, comparisons, contents, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.ordering import sort_key
from layerwatch.daemon.store.origins import resolve
from layerwatch.daemon.store.records import ContentRecord, VersionKey, VersionRecord
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.joining import examine
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.manifest import WEIGHT_SUFFIXES
from layerwatch.metrics.measurement import METRIC_SET, Measurement
from layerwatch.metrics.openmodel import open_layers


def stored_line(database: Database, registry: str, model: str, to: str | None) -> list[Link[VersionRecord]]:
    """The lineage of a version in the store, oldest first; empty where there is no such version.

    Args:
        to: its name; None for the newest version that has a verdict.
    """
    with database.read() as connection:
        if to is not None:
            last = versions.current(connection, VersionKey(registry, model, to))
        else:
            judged = [
                record
                for record in versions.of_model(connection, registry, model)
                if record.current and record.verdict is not None
            ]
            last = judged[-1] if judged else None
        if last is None:
            return []
        return [
            Link(
                record.key.version,
                record,
                baselines.was_accepted(connection, record.key, record.fingerprint),
                origin,
            )
            for record, origin in ancestry(connection, last)
        ]


def stored_layers(database: Database, links: Sequence[Link[VersionRecord]]) -> list[str]:
    """Names of all layers that any of these versions has."""
    names: dict[str, None] = {}
    for link in links:
        content = _content(database, link.version)
        names.update(dict.fromkeys(layer.name for layer in content.layers) if content is not None else {})
    return list(names)


def bisect_stored(
    database: Database, links: Sequence[Link[VersionRecord]], layer: str, rules: RulesSettings
) -> Bisection:
    """Where a layer broke among versions of a store, whose files need not be there any more."""

    def judged(version: VersionRecord, good: VersionRecord | None) -> tuple[Examination, Judgement] | str:
        content = _content(database, version)
        if content is None:
            return "its measurements are not in the store, or were taken by an older metric set"
        if good is None:
            examination = examine_stored(database, content, None, {}, version=version)
            return examination, judge(examination, rules)
        with database.read() as connection:
            exact = comparisons.load(connection, version.fingerprint, good.fingerprint) or {}
            history = load_history(connection, version)
            declared = version.lineage.parent
            parent = None if declared is None else resolve(connection, version, declared, exact=True)
        is_parent = parent is not None and parent.id == good.id
        examination = examine_stored(
            database,
            content,
            _content(database, good),
            exact,
            relation=known_relation(version.lineage.relation) if is_parent else None,
            history=history,
            version=version,
        )
        return examination, judge(examination, rules)

    return bisect(layer, links, judged)


def layers_of_files(paths: Sequence[Path]) -> list[str]:
    """Names of all layers that any of these files has, by their headers; those that cannot be read have none."""
    names: dict[str, None] = {}
    for path in paths:
        # Told as the trouble of this version when it is measured.
        with suppress(UnreadableError, OSError), closing(open_layers(path)) as model:
            plan = model.plan
            names.update(dict.fromkeys(layer.name for layer in (*plan.vectors, *plan.layers)))
    return list(names)


def bisect_files(
    paths: Sequence[Path], layer: str, settings: Settings, progress: Callable[[str, Progress], None]
) -> Bisection:
    """Where a layer broke among files, each compared element by element with the last good one.

    Args:
        paths: oldest first.
        progress: told (name of the file, progress) after each layer.
    """
    kept: dict[str, Measurement] = {}
    found: dict[Path, ContentRecord] = {}
    with _executor(settings) as executor:

        def judged(path: Path, good: Path | None) -> tuple[Examination, Judgement]:
            measured = measure_file(executor, kept, False, path, good, partial(progress, path.name))
            found[path] = measured.content
            examination = examine(
                measured.content, found[good] if good is not None else None, kept.get, measured.exact
            )
            return examination, judge(examination, settings.rules)

        links = [Link(name, path) for name, path in zip(_names(paths), paths, strict=True)]
        return bisect(layer, links, judged)


def versions_in(directory: Path) -> list[Path]:
    """The versions that a model's directory holds, in natural order; raises OSError."""
    return sorted(
        (
            entry
            for entry in directory.iterdir()
            if not entry.name.startswith(".")
            and not entry.is_symlink()
            and (entry.is_dir() or entry.name.lower().endswith(WEIGHT_SUFFIXES))
        ),
        key=lambda entry: sort_key(entry.name),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names where these tell the files apart: v1/model.safetensors and v2/model.safetensors do not."""
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


@contextmanager
def _executor(settings: Settings) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(settings.scan)
    try:
        yield executor
    finally:
        executor.close()


def _content(database: Database, version: VersionRecord) -> ContentRecord | None:
    with database.read() as connection:
        content = contents.load(connection, version.fingerprint, METRIC_SET)
        return content if content is not None and is_complete(connection, content) else None
