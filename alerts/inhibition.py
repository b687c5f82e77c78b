"""Which alerts need not be told, because another one that fires explains them: pure functions.

The rules are Alertmanager's (https://prometheus.io/docs/alerting/latest/configuration/#inhibit_rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerwatch.config.alerts import AlertsSettings
from layerwatch.config.matchers import Labels, Matcher, all_match, parsed


@dataclass(frozen=True, slots=True)
class Inhibition:
    """An alert that matches ``target`` is not told while one that matches ``source`` fires.

    Attributes:
        source: matchers of the alerts that explain others; all must match.
        target: matchers of the alerts that are not told then; all must match.
        equal: labels whose values must be the same in both; a missing label is equal to a missing one.
    """

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...]


def build_inhibitions(settings: AlertsSettings) -> tuple[Inhibition, ...]:
    """The configured inhibitions."""
    return tuple(
        Inhibition(parsed(one.source), parsed(one.target), one.equal) for one in settings.inhibitions
    )


class Inhibitor:
    """The alerts that explain others, found without comparing each with each.

    Args:
        firing: labels of all alerts that fire.
        inhibitions: as configured.
    """

    def __init__(self, firing: Sequence[Labels], inhibitions: Sequence[Inhibition]) -> None:
        self._sources: list[tuple[Inhibition, dict[_Key, list[Labels]]]] = []
        for inhibition in inhibitions:
            by_values: dict[_Key, list[Labels]] = {}
            for labels in firing:
                if all_match(inhibition.source, labels):
                    by_values.setdefault(_key(inhibition.equal, labels), []).append(labels)
            self._sources.append((inhibition, by_values))

    def source_of(self, labels: Labels) -> Labels | None:
        """The labels of the first firing alert that explains the alert with these labels, if one does.

        An alert that matches both sides of an inhibition is not explained by others that do, and so never by itself.
        """
        for inhibition, by_values in self._sources:
            if not all_match(inhibition.target, labels):
                continue
            on_both_sides = all_match(inhibition.source, labels)
            for source in by_values.get(_key(inhibition.equal, labels), ()):
                if not (on_both_sides and all_match(inhibition.target, source)):
                    return source
        return None


def inhibited_by(
    labels: Labels, firing: Sequence[Labels], inhibitions: Sequence[Inhibition]
) -> Labels | None:
    """As `Inhibitor.source_of`, for one alert."""
    return Inhibitor(firing, inhibitions).source_of(labels)


_Key = tuple[frozenset[str], ...]


def _key(names: Sequence[str], labels: Labels) -> _Key:
    return tuple(frozenset(labels.get(name) or ("",)) for name in names)
