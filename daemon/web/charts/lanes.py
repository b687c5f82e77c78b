"""Versions to rows and lanes, as the history of a repository is drawn: children above parents, a lane for each line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush


@dataclass(frozen=True, slots=True)
class Layout:
    """Where nodes and edges are.

    Attributes:
        order: places in the list, top row first.
        lanes: lane of every place in the list.
        edges: (child, parent) as places in the list, in the order of the rows of the children. Between the two nothing
            else stands in the parent's lane.
        width: number of lanes.
    """

    order: tuple[int, ...]
    lanes: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    width: int


def lay_out(parents: Sequence[Sequence[int]]) -> Layout:
    """Rows and lanes of versions.

    Of versions that could stand in the same row, the one that comes last in the list does. Where parents lead in a
    circle, the last of the list stands first, and an edge runs upward.

    Args:
        parents: of each version, as places in the list; others than those, and the version itself, are passed over.
    """
    known = [
        list(dict.fromkeys(parent for parent in row if 0 <= parent < len(parents) and parent != child))
        for child, row in enumerate(parents)
    ]
    order = _order(known)
    waiting: list[int | None] = []
    lanes = [0] * len(known)
    edges = []
    done: set[int] = set()
    for child in order:
        awaited = [lane for lane, parent in enumerate(waiting) if parent == child]
        lane = awaited[0] if awaited else _free(waiting)
        waiting[lane] = None
        lanes[child] = lane
        done.add(child)
        for parent in known[child]:
            edges.append((child, parent))
            if parent not in done and parent not in waiting:
                waiting[lane if waiting[lane] is None else _free(waiting)] = parent
    return Layout(tuple(order), tuple(lanes), tuple(edges), max(1, len(waiting)))


def _order(parents: Sequence[Sequence[int]]) -> list[int]:
    children = [0] * len(parents)
    for row in parents:
        for parent in row:
            children[parent] += 1
    ready = [-place for place, count in enumerate(children) if count == 0]
    heapify(ready)
    left = dict.fromkeys(range(len(parents) - 1, -1, -1))
    order = []
    while left:
        place = -heappop(ready) if ready else next(iter(left))
        if place not in left:
            continue
        del left[place]
        order.append(place)
        for parent in parents[place]:
            children[parent] -= 1
            if children[parent] == 0 and parent in left:
                heappush(ready, -parent)
    return order


def _free(waiting: list[int | None]) -> int:
    """The first lane that nothing runs in; a new one where there is none."""
    if None not in waiting:
        waiting.append(None)
    return waiting.index(None)
