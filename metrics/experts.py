"""Mixtures of experts: sibling layers that do the same work on different inputs, and the router that chooses.

Siblings are layers whose names differ in the number behind ``experts.`` alone, or the slices of one tensor whose name
says that it holds experts (transformers v5 ``experts.down_proj``, GGUF ``ffn_down_exps``; shapes and names: the field
report, section 6.2). Nothing here needs data; how tokens are routed cannot be seen from weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import Measurement

_SIBLING = re.compile(r"^(?P<before>.*(?:^|\.)experts?\.)(?P<number>\d+)(?P<after>\..*)?$")
_STACKED = re.compile(
    r"((^|[._])experts[._].*(proj|weight|bias|w[123])|ffn_(gate|up|down)(_up)?_exps)", re.IGNORECASE
)
_ROUTER = re.compile(
    r"(^|[._])(router([._].*)?|(moe|mlp|ffn|block_sparse_moe|feed_forward)\.gate|ffn_gate_inp)$"
)
FEWEST = 4
"""With fewer siblings, "the others" say little."""


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert's part of a group.

    Attributes:
        layer: name of its layer; that of the whole tensor where experts are slices of one.
        number: which expert.
        norm: Frobenius norm, or of a router the norm of its row.
        effective_rank: None for slices and router rows.
        twin: number of the sibling that it is most like, and ``twin_cosine`` how much; None where that is not known.
        baseline_norm, baseline_twin_cosine: the same in the baseline; None without one.
    """

    layer: str
    number: int
    norm: float
    effective_rank: float | None = None
    twin: int | None = None
    twin_cosine: float | None = None
    baseline_norm: float | None = None
    baseline_twin_cosine: float | None = None


@dataclass(frozen=True, slots=True)
class ExpertGroup:
    """Siblings: one matrix of each expert of one layer, or the rows of one router.

    Attributes:
        name: what the siblings' names have in common, the number left out.
        is_router: True when the experts are rows of a router.
        experts: by number.
    """

    name: str
    is_router: bool
    experts: tuple[Expert, ...]


_Load = Callable[[LayerEntry], tuple[Measurement | None, Measurement | None]]


def sibling(layer: str) -> tuple[str, int] | None:
    """What an expert's name has in common with its siblings' (a ``*`` in place of its number), and the number.

    None for a layer that is no expert, or holds several of them.
    """
    found = _SIBLING.match(layer)
    return None if found is None else (f"{found['before']}*{found['after'] or ''}", int(found["number"]))


def expert_groups(
    entries: Iterable[LayerEntry],
    baseline: Mapping[str, LayerEntry],
    load_measurement: Callable[[str], Measurement | None],
) -> tuple[ExpertGroup, ...]:
    """Find the experts of a version and measure them against each other, one group in memory at a time.

    Args:
        entries: layers of the version.
        baseline: those of the baseline by name; empty without one.
        load_measurement: a measurement with its arrays, by digest.
    """

    def load(entry: LayerEntry) -> tuple[Measurement | None, Measurement | None]:
        other = baseline.get(entry.name)
        new = load_measurement(entry.digest) if entry.digest else None
        same = other is not None and other.digest is not None and other.shape == entry.shape
        old = load_measurement(other.digest) if same and other is not None and other.digest else None
        return (None if new is None or new.non_finite else new), (
            None if old is None or old.non_finite else old
        )

    siblings: dict[str, dict[int, LayerEntry]] = {}
    groups: list[ExpertGroup] = []
    for entry in entries:
        if len(entry.shape) < 2 or not entry.digest:
            continue
        member = sibling(entry.name)
        if member is not None:
            siblings.setdefault(member[0], {})[member[1]] = entry
        elif (len(entry.shape) == 3 and _STACKED.search(entry.name)) or _ROUTER.search(entry.name):
            rows = _rows(entry, load)
            if rows is not None:
                groups.append(rows)
    for name, members in siblings.items():
        group = _siblings(name, members, load)
        if group is not None:
            groups.append(group)
    return tuple(groups)


def _siblings(name: str, members: dict[int, LayerEntry], load: _Load) -> ExpertGroup | None:
    if len(members) < FEWEST or len({entry.shape for entry in members.values()}) > 1:
        return None
    numbers = sorted(members)
    pairs = [load(members[number]) for number in numbers]
    known = [(number, new, old) for number, (new, old) in zip(numbers, pairs, strict=True) if new is not None]
    if len(known) < FEWEST:
        return None
    twins = _twins([new for _, new, _ in known])
    before = _twins([old for _, _, old in known if old is not None])
    if len(before) != len(known):
        before = [(None, None)] * len(known)
    return ExpertGroup(
        name,
        False,
        tuple(
            Expert(
                layer=members[number].name,
                number=number,
                norm=new.norm,
                effective_rank=new.folded.effective_rank if new.folded else None,
                twin=None if twin is None else known[twin][0],
                twin_cosine=cosine,
                baseline_norm=None if old is None else old.norm,
                baseline_twin_cosine=cosine0,
            )
            for (number, new, old), (twin, cosine), (_, cosine0) in zip(known, twins, before, strict=True)
        ),
    )


def _twins(measurements: Sequence[Measurement]) -> list[tuple[int | None, float | None]]:
    """For each the position of the most similar other and the cosine of their sketches; None without sketches."""
    sketches = [measurement.sketch for measurement in measurements]
    norms = [0.0 if one is None else float(np.linalg.norm(one.astype(np.float64))) for one in sketches]
    found: list[tuple[int | None, float | None]] = [(None, None)] * len(sketches)
    usable = [
        position
        for position, norm in enumerate(norms)
        if sketches[position] is not None and 0 < norm < np.inf
    ]
    if len(usable) < 2:
        return found
    directions = np.stack([_vector(sketches[position]) / np.float32(norms[position]) for position in usable])
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -np.inf)
    best = np.argmax(cosines, axis=1)
    for row, position in enumerate(usable):
        found[position] = (usable[int(best[row])], float(min(1.0, cosines[row, best[row]])))
    return found


def _vector(sketch: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert sketch is not None
    return sketch.reshape(-1)


def _rows(entry: LayerEntry, load: _Load) -> ExpertGroup | None:
    """Slices of a stacked tensor, or rows of a router, from the stored norms of rows."""
    new, old = load(entry)
    is_router = len(entry.shape) == 2
    count = entry.shape[0]
    if new is None or new.row_norms is None or count < FEWEST or len(new.row_norms) != count:
        return None
    norms0 = None if old is None or old.row_norms is None else old.row_norms.astype(np.float64)
    return ExpertGroup(
        entry.name,
        is_router,
        tuple(
            Expert(
                layer=entry.name,
                number=number,
                norm=float(norm),
                baseline_norm=None if norms0 is None else float(norms0[number]),
            )
            for number, norm in enumerate(new.row_norms.astype(np.float64))
        ),
    )
