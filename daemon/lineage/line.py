"""The line of versions that led to one: declared parents, and the order of names where none is declared."""

from __future__ import annotations

from sqlalchemy import Connection

from layerwatch.daemon.store import versions
from layerwatch.daemon.store.origins import resolve
from layerwatch.daemon.store.records import VersionRecord


def ancestry(connection: Connection, version: VersionRecord) -> list[tuple[VersionRecord, str | None]]:
    """The version and its ancestors, oldest first, each with how it came from the one before, where that is declared.

    A declared parent that is not in the store, or would lead in a circle, is passed over for the version before it in
    natural order.
    """
    known = {
        record.key.version: record
        for record in versions.of_model(connection, version.key.registry, version.key.model)
        if record.current
    }
    order = list(known)
    line: list[tuple[VersionRecord, str | None]] = []
    walked: set[str] = set()
    current: VersionRecord | None = version
    while current is not None:
        walked.add(current.key.version)
        parent = _declared(connection, current, known)
        if parent is not None and parent.key.version not in walked:
            line.append((current, f"{current.lineage.relation or 'derived'} from {parent.key.version}"))
        else:
            line.append((current, None))
            parent = _before(order, current.key.version, known, walked)
        current = parent
    return line[::-1]


def _declared(
    connection: Connection, version: VersionRecord, known: dict[str, VersionRecord]
) -> VersionRecord | None:
    """The declared parent, where it is a version of this model."""
    name = version.lineage.parent
    if name is None or name in known:
        return known.get(name or "")
    meant = resolve(connection, version, name, exact=True)
    found = known.get(meant.key.version) if meant is not None else None
    return found if found is not None and meant is not None and found.id == meant.id else None


def _before(
    order: list[str], name: str, known: dict[str, VersionRecord], walked: set[str]
) -> VersionRecord | None:
    place = order.index(name) if name in order else len(order)
    earlier = [known[one] for one in order[:place] if one not in walked]
    return earlier[-1] if earlier else None
