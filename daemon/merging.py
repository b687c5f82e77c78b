"""A merged version beside the models that it was merged from: who they are, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from layerwatch.daemon.store import contents
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.origins import resolve
from layerwatch.daemon.store.records import ContentRecord, Lineage, VersionRecord
from layerwatch.metrics.measurement import METRIC_SET, Measurement
from layerwatch.metrics.merge import MergeEvidence, MergeParent, merge_evidence, stored_sketches

_UNVERIFIED = "its recipe could not be verified."


@dataclass(frozen=True, slots=True)
class MergeFound:
    """What is known of a merge.

    Attributes:
        evidence: how the version follows from its parents; None where that cannot be told.
        remarks: why not, or what is left out, in sentences.
    """

    evidence: MergeEvidence | None = None
    remarks: tuple[str, ...] = ()


def ingredients(connection: Connection, version: VersionRecord) -> Iterator[tuple[str, VersionRecord | None]]:
    """Each model that a version was merged from, the base last, by its declared name; None for those that are not here.

    What names mean: ``store/origins.py``. A model that is named without its version must have but one.
    """
    for name in _names(version.lineage):
        yield name, resolve(connection, version, name, exact=True)


def merge_of(
    database: Database,
    version: VersionRecord,
    content: ContentRecord,
    load: Callable[[str], Measurement | None],
) -> MergeFound:
    """Hold a version against what it declares to be merged from, by what the store knows of it.

    Args:
        content: what was found in the version.
        load: a measurement with its arrays, by digest.

    Returns:
        Nothing at all for a version that declares no merge, or could not be examined.
    """
    lineage = version.lineage
    if not lineage.parents or content.file_problem is not None:
        return MergeFound()
    with database.read() as connection:
        records = list(ingredients(connection, version))
        absent = [name for name, record in records if record is None]
        found = {
            name: contents.load(connection, record.fingerprint, METRIC_SET)
            for name, record in records
            if record is not None
        }
    unknown = [name for name, one in found.items() if one is None or one.file_problem is not None]
    remarks = tuple(
        f"The merge was made from {' and '.join(names)}, which {_are(names)} {what}: {_UNVERIFIED}"
        for names, what in ((absent, "not in the registry"), (unknown, "not measured"))
        if names
    )
    if remarks:
        return MergeFound(remarks=remarks)
    models = {
        name: MergeParent(name, stored_sketches(one.layers, load))
        for name, one in found.items()
        if one is not None
    }
    base = _base(lineage)
    evidence = merge_evidence(
        stored_sketches(content.layers, load),
        [models[name] for name in lineage.parents],
        None if base is None else models[base],
        lineage.recipe,
    )
    return MergeFound(evidence, _left_out(evidence))


def _names(lineage: Lineage) -> list[str]:
    base = _base(lineage)
    return list(dict.fromkeys([*lineage.parents, *(() if base is None else (base,))]))


def _base(lineage: Lineage) -> str | None:
    """The base, where the method adds up differences from it; a mixture of whole models has no use for one."""
    recipe = lineage.recipe
    if not lineage.parents or recipe is None:
        return None
    return recipe.base if recipe.method is None or recipe.method.needs_base else None


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _left_out(evidence: MergeEvidence) -> tuple[str, ...]:
    if not evidence.left_out:
        return ()
    counts = Counter(str(reason) for _, reason in evidence.left_out)
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    if not evidence.layers:
        return (
            f"No layer could be held against the models that the merge was made from ({why}): {_UNVERIFIED}",
        )
    count = len(evidence.left_out)
    layers = "1 layer was" if count == 1 else f"{count} layers were"
    return (f"{layers} not held against the models that the merge was made from ({why}).",)
