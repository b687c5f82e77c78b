"""Element-wise comparisons of two contents, made while the files of both were at hand.

They cannot be made again once the baseline's files are gone, and cost a pass over both files while they are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from layerwatch.daemon.scan.messages import exact_of, exact_to_json
from layerwatch.daemon.store import tables
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.measurement import METRIC_SET

_TABLE = tables.comparisons
_CONTENTS = tables.contents


def save(
    connection: sa.Connection,
    fingerprint: str,
    baseline_fingerprint: str,
    layers: Mapping[str, AlignedChange],
    now: datetime,
) -> None:
    """Keep a comparison in place of an earlier one of the same two.

    Args:
        layers: by layer name.
    """
    connection.execute(sa.delete(_TABLE).where(*_key(fingerprint, baseline_fingerprint)))
    connection.execute(
        sa.insert(_TABLE).values(
            fingerprint=fingerprint,
            baseline_fingerprint=baseline_fingerprint,
            metric_set=METRIC_SET,
            saved_at=now,
            layers=json.dumps({name: exact_to_json(exact) for name, exact in layers.items()}),
        )
    )


def load(
    connection: sa.Connection, fingerprint: str, baseline_fingerprint: str
) -> dict[str, AlignedChange] | None:
    """The comparison of the present metric set by layer name; None where none is kept, or it cannot be read back."""
    query = sa.select(_TABLE.c.layers).where(*_key(fingerprint, baseline_fingerprint))
    text = connection.execute(query).scalar()
    if text is None:
        return None
    try:
        return {name: exact_of(data) for name, data in json.loads(text).items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        # Written by another release: made anew where the files are there, estimated from sketches where not.
        return None


def prune(connection: sa.Connection) -> int:
    """Remove the comparisons of which one side is no longer kept; the number of them."""
    return connection.execute(
        sa.delete(_TABLE).where(sa.or_(~_kept(_TABLE.c.fingerprint), ~_kept(_TABLE.c.baseline_fingerprint)))
    ).rowcount


def _kept(fingerprint: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    same_set = _CONTENTS.c.metric_set == _TABLE.c.metric_set
    return sa.exists().where(_CONTENTS.c.fingerprint == fingerprint, same_set)


def _key(fingerprint: str, baseline_fingerprint: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _TABLE.c.fingerprint == fingerprint,
        _TABLE.c.baseline_fingerprint == baseline_fingerprint,
        _TABLE.c.metric_set == METRIC_SET,
    )
