"""Versions and what they were made from, as the history of a repository is drawn: the newest above."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from layerwatch.daemon.web.charts.drawing import (
    Key,
    columns,
    figure,
    linked,
    picture,
    scrolling,
    shortened,
    tag,
    told,
    units,
)
from layerwatch.daemon.web.charts.lanes import Layout, lay_out
from layerwatch.daemon.web.charts.marks import UNJUDGED, mark, mark_class, mark_key
from layerwatch.daemon.web.charts.model import TreeVersion
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.plots.wording import counted

_ROW, _LANE = 30.0, 22.0
_MARGIN = 16.0
_RADIUS = 6.0
_NAME_WIDTH, _PARENT_WIDTH, _RELATION_WIDTH = 30, 24, 24
_MOST_PARENTS = 3
_COLUMN_GAP = 18.0
_LETTER, _NAME_LETTER = 6.9, 7.4
"""Widths of a letter of running text and of one of the names of versions, which are set larger than others."""

_VERDICT_WIDTH = 92.0
_FLAG_WIDTH = 62.0
_LEAST_WIDTH = 320.0


def lineage_tree(versions: Sequence[TreeVersion], title: str) -> Markup:
    """A row per version: its node, name, verdict and how it came from its parents; empty without versions.

    Args:
        versions: oldest first; parents may stand anywhere in the list.
        title: may be any text.
    """
    if not versions:
        return Markup("")
    layout = lay_out([[place for place, _ in version.parents] for version in versions])
    tree = _tree(versions, layout)
    has_links = any(version.href is not None for version in versions)
    image = picture(
        tree.width,
        2 * _MARGIN + _ROW * (len(versions) - 1) + 8,
        title,
        _description(versions),
        [
            *(_edge(child, parent, tree) for child, parent in layout.edges),
            *(_stub(place, tree) for place in layout.order if versions[place].parent_outside),
            *(_version(place, tree) for place in layout.order),
        ],
        css="wide tree",
        has_links=has_links,
    )
    return figure(scrolling(image, title), _keys(versions))


@dataclass(frozen=True, slots=True)
class _Tree:
    """Where things are.

    Attributes:
        rows: row of every place in the list, 0 at the top.
        names, verdicts, origins: where the columns of text begin.
    """

    versions: Sequence[TreeVersion]
    layout: Layout
    rows: dict[int, int]
    names: float
    verdicts: float
    origins: float
    width: float

    def x(self, place: int) -> float:
        return _MARGIN + self.layout.lanes[place] * _LANE

    def y(self, place: int) -> float:
        return _MARGIN + 4 + self.rows[place] * _ROW


def _tree(versions: Sequence[TreeVersion], layout: Layout) -> _Tree:
    names = _MARGIN + layout.width * _LANE + 4
    longest = max(columns(_name(version)) * _NAME_LETTER + _flags_width(version) for version in versions)
    verdicts = names + longest + _COLUMN_GAP
    origins = verdicts + _VERDICT_WIDTH
    last = max(columns(_origin(versions, version)) for version in versions) * _LETTER
    return _Tree(
        versions=versions,
        layout=layout,
        rows={place: row for row, place in enumerate(layout.order)},
        names=names,
        verdicts=verdicts,
        origins=origins,
        width=max(_LEAST_WIDTH, origins + last + _MARGIN),
    )


def _edge(child: int, parent: int, tree: _Tree) -> Markup:
    """Into the lane of the parent right below the child, and along it."""
    x, y = tree.x(child), tree.y(child)
    end_x, end_y = tree.x(parent), tree.y(parent)
    drawn = f"M{units(x)} {units(y)}"
    if end_x != x:
        bend = y + (_ROW if end_y > y else -_ROW)
        middle = units((y + bend) / 2)
        drawn += f"C{units(x)} {middle} {units(end_x)} {middle} {units(end_x)} {units(bend)}"
    drawn += f"V{units(end_y)}"
    relations = dict(tree.versions[child].parents)
    names = told(tree.versions[child].version), told(tree.versions[parent].version)
    words = f"{names[0]}: {_relation(relations[parent])} from {names[1]}"
    return tag("path", tag("title", words), class_="edge", d=drawn)


def _stub(place: int, tree: _Tree) -> Markup:
    """The beginning of an edge to what is not in the list; beside the node, where no lane runs below it."""
    x, y = tree.x(place), tree.y(place)
    words = f"{told(tree.versions[place].version)}: from {told(tree.versions[place].parent_outside)}"
    return tag(
        "path",
        tag("title", words),
        class_="edge outside",
        d=f"M{units(x)} {units(y)}l11 {units(_ROW * 0.55)}",
    )


def _version(place: int, tree: _Tree) -> Markup:
    version = tree.versions[place]
    x, y = tree.x(place), tree.y(place)
    verdict = UNJUDGED if version.verdict is None else version.verdict.value
    node = tag("g", mark(version.verdict, _RADIUS), transform=f"translate({units(x)} {units(y)})")
    parts = [tag("title", f"{told(version.version)}: {verdict}")]
    parts.append(tag("rect", class_="hit", x=0.0, y=y - _ROW / 2, width=tree.origins - 8, height=_ROW))
    if version.is_current:
        parts.append(tag("circle", class_="current", cx=x, cy=y, r=_RADIUS + 4.5))
    parts += [node, tag("text", _name(version), class_="version", x=tree.names, y=y + 4.5)]
    begin = tree.names + columns(_name(version)) * _NAME_LETTER + 10
    for flag in _flags(version):
        parts.append(
            tag("rect", class_="flag", x=begin, y=y - 8.5, width=_FLAG_WIDTH - 6, height=17.0, rx=8.0)
        )
        parts.append(tag("text", flag, class_="flag-name middle", x=begin + (_FLAG_WIDTH - 6) / 2, y=y + 4))
        begin += _FLAG_WIDTH
    parts.append(
        tag("text", verdict, class_=f"verdict {mark_class(version.verdict)}", x=tree.verdicts, y=y + 4.5)
    )
    origin = _origin(tree.versions, version)
    told_origin = tag("text", origin, class_="note", x=tree.origins, y=y + 4.5) if origin else Markup("")
    return linked(version.href, *parts, css="version-row") + told_origin


def _name(version: TreeVersion) -> str:
    return shortened(version.version, _NAME_WIDTH)


def _flags(version: TreeVersion) -> list[str]:
    return [
        word for word, holds in (("baseline", version.is_baseline), ("current", version.is_current)) if holds
    ]


def _flags_width(version: TreeVersion) -> float:
    return 10.0 + _FLAG_WIDTH * len(_flags(version))


def _origin(versions: Sequence[TreeVersion], version: TreeVersion) -> str:
    """Such as "quantized from v3", "merged from v3, v4"; "" where nothing is known."""
    groups: dict[str, list[str]] = {}
    for place, relation in version.parents:
        if 0 <= place < len(versions):
            name = shortened(versions[place].version, _PARENT_WIDTH)
            groups.setdefault(_relation(relation), []).append(name)
    if version.parent_outside:
        groups.setdefault("made", []).append(
            shortened(version.parent_outside, _PARENT_WIDTH) + " (not shown)"
        )
    return "; ".join(f"{relation} from {_listed(names)}" for relation, names in groups.items())


def _relation(relation: str | None) -> str:
    return shortened(relation, _RELATION_WIDTH) if relation else "made"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_PARENTS
    return ", ".join(names[:_MOST_PARENTS]) + (f" and {more} more" if more > 0 else "")


def _description(versions: Sequence[TreeVersion]) -> str:
    counts = Counter(version.verdict for version in versions)
    words = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict]]
    if counts[None]:
        words.append(f"{counts[None]} {UNJUDGED}")
    return f"{counted(len(versions), 'version')}, the newest above: {', '.join(words)}."


def _keys(versions: Sequence[TreeVersion]) -> list[Key]:
    present = {version.verdict for version in versions}
    return [mark_key(verdict) for verdict in (*Verdict, None) if verdict in present]
