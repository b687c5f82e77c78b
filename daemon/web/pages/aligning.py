"""Which layers of two models belong together by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

_MOST_PARTS = 4
"""Parts that a prefix may have, such as three in ``base_model.model.encoder.``."""

_MOST_PREFIXES = 16
"""Of one end. Ends such as ``weight`` stand behind every prefix, and pairs of all of them would be without number."""


def aligned(first: Sequence[str], second: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Pairs of names, in the order of the first model; what only the second has stands at the end, beside None.

    Equal names belong together. Of the others, those do that are equal behind one prefix of each model, the same for all
    of them, where that holds for at least half of the others of one model: names of one network that was wrapped once
    more.
    """
    in_second = set(second)
    left = [name for name in first if name not in in_second]
    in_first = set(first)
    right = [name for name in second if name not in in_first]
    partner = {name: name for name in first if name in in_second} | _behind_prefixes(left, right)
    taken = set(partner.values())
    pairs: list[tuple[str | None, str | None]] = [(name, partner.get(name)) for name in first]
    return pairs + [(None, name) for name in second if name not in taken]


def _behind_prefixes(left: Sequence[str], right: Sequence[str]) -> dict[str, str]:
    ends: dict[str, list[str]] = {}
    for name in right:
        for prefix, end in _splits(name):
            ends.setdefault(end, []).append(prefix)
    telling = {end: prefixes for end, prefixes in ends.items() if len(prefixes) <= _MOST_PREFIXES}
    votes = Counter(
        (prefix, other) for name in left for prefix, end in _splits(name) for other in telling.get(end, ())
    )
    if not votes:
        return {}
    # The shortest prefixes of those that explain most.
    (one, other), count = max(votes.items(), key=lambda item: (item[1], -len(item[0][0]) - len(item[0][1])))
    if 2 * count < min(len(left), len(right)):
        return {}
    known = {name.removeprefix(other): name for name in right if name.startswith(other)}
    return {
        name: known[name.removeprefix(one)]
        for name in left
        if name.startswith(one) and name.removeprefix(one) in known
    }


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """(prefix, rest) at the first dots; the prefix may be empty, the rest never is."""
    yield "", name
    place = 0
    for _ in range(_MOST_PARTS):
        place = name.find(".", place) + 1
        if not place or place == len(name):
            return
        yield name[:place], name[place:]
