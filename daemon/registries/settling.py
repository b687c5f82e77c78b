"""Which versions have stopped changing, where nothing but times says whether a writer is done."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta

CLOCK_SKEW = timedelta(seconds=60)
"""So far the clock of the files may be behind: only older change times are believed at the first sight."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Settling:
    """Remembers since when each version is as it is, and which were published.

    A clock of the files that runs ahead delays a version but never hides it, and one that is behind does not make a
    version complete at the first sight of it.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, datetime]] = {}
        self._published: set[str] = set()

    def recall(self, published: Mapping[str, str]) -> None:
        """Location -> token of what an earlier process published.

        What did not change since is complete at once, and what did keeps its refs until it has settled again.
        """
        self._published |= published.keys()
        self._since |= {location: (token, _LONG_AGO) for location, token in published.items()}

    def known(self) -> set[str]:
        """Locations of all versions that are remembered."""
        return self._published | self._since.keys()

    def keep(self, locations: AbstractSet[str]) -> None:
        """Forget all other versions."""
        self._since = {location: value for location, value in self._since.items() if location in locations}
        self._published &= locations

    def publish(self, location: str) -> None:
        """A version was listed as complete."""
        self._published.add(location)

    def was_published(self, location: str) -> bool:
        """Whether it was listed as complete before, in whatever state."""
        return location in self._published

    def was_published_as(self, location: str, token: str) -> bool:
        """Whether it was listed as complete before, and is as it was."""
        return location in self._published and self._since.get(location, ("",))[0] == token

    def is_settled(self, location: str, token: str, touched: float, wait: timedelta, now: datetime) -> bool:
        """Whether a version has not changed for a time; remembers since when it is as it is.

        Args:
            token: changes with its files.
            touched: time of their latest change by the clock of the files, in seconds since 1970.
            wait: how long nothing may have changed.
        """
        known = self._since.get(location)
        since, allowance = now, CLOCK_SKEW
        if known is not None and known[0] == token:
            since, allowance = known[1], timedelta()
        quiet = now.timestamp() - touched
        settled = quiet >= (wait + allowance).total_seconds() or now - since >= wait
        # Once complete it stays so while its files do, whatever happens to clocks and to what lies beside them.
        self._since[location] = (token, _LONG_AGO if settled else since)
        return settled


def is_quiet(touched: float, wait: timedelta, now: datetime) -> bool:
    """The same by the clock of the files alone, for what nobody has looked at before."""
    return now.timestamp() - touched >= (wait + CLOCK_SKEW).total_seconds()
