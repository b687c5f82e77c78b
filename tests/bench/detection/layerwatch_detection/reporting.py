"""From outcomes to tables: what was found, what was named, what was called broken and is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from layerwatch.metrics.rules import RULES
from layerwatch_detection.expected import expected_rules
from layerwatch_detection.outcomes import Judged, Label, Outcome
from layerwatch_detection.shares import Share, share_of
from layerwatch_detection.versions import Regime

NAIVE = (0.10, 0.30)
"""Limits of the naive rule: a layer's norm moved by more than this share."""

_ON = ", on "
"""In a version's strength, before the name of the training that the change was put on."""

_REGIMES: Mapping[str, str] = {
    Regime.ALIGNED: "on top of a fine-tune, nothing declared",
    Regime.NEW_SEED: "from another seed, nothing declared",
    Regime.DECLARED: "one declared step from the baseline",
    Regime.REAL: "real networks, labelled by what was done: many of these defects may be harmless",
}

STRENGTHS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0)
"""Points of the curve: a critical finding of a statistical rule counts from this strength on."""


@dataclass(frozen=True, slots=True)
class Table:
    """Text, and the numbers in it."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        """Aligned columns."""
        lines = [self.headings, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [
            "  ".join(
                cell.rjust(width) if place and _is_number(cell) else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        padded.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, "", *padded, ""])


def _is_number(cell: str) -> bool:
    return cell.replace(".", "").isdigit() or cell == "-"


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Everything that is printed, most important first."""
    trained = [one for one in outcomes if one.regime != Regime.REAL]
    held_out = [one for one in trained if one.held_out]
    tuning = [one for one in trained if not one.held_out]
    found = [targets(held_out, "hold-out networks"), targets(tuning, "tuning networks")]
    for regime in Regime:
        of_regime = [one for one in outcomes if one.regime == regime]
        found.append(recall_table(of_regime, regime))
        found.append(false_alarm_table(of_regime, regime))
        found.append(names_table(of_regime, regime))
    found.append(by_network(outcomes))
    found += [curve(tuning, "tuning networks"), curve(held_out, "hold-out networks")]
    found.append(other_labels(outcomes))
    # One by one only where looking is allowed: whoever reads why a hold-out version failed has tuned on it.
    found += [false_alarms(tuning), missed(tuning), misplaced(tuning), disagreements(outcomes)]
    return [table for table in found if table.rows]


def targets(outcomes: Sequence[Outcome], title: str) -> Table:
    """What the product promises, and what was measured."""
    rows = [
        (name, limit, share.whole_text, _verdict(share, limit))
        for name, limit, share in _measured(outcomes)
        if share.total
    ]
    return Table(f"Targets, {title}", ("", "target", "measured, 95 % interval", ""), tuple(rows))


def _measured(outcomes: Sequence[Outcome]) -> list[tuple[str, str, Share]]:
    measured: list[tuple[str, str, Share]] = []
    for regime, least in ((Regime.ALIGNED, ">= 0.99"), (Regime.NEW_SEED, "")):
        of_regime = [one for one in outcomes if one.regime == regime]
        single = [one for one in of_regime if one.is_broken and one.is_single]
        whole = [one for one in of_regime if one.is_broken and not one.is_single]
        healthy = [one for one in of_regime if one.is_healthy]
        measured.append((f"{regime}: single layer, critical", least, share_of(single, critical)))
        if regime is Regime.NEW_SEED:
            covered = [one for one in single if one.covered]
            watched = f"{regime}: the same, where something watches that side of the layer"
            measured.append((watched, ">= 0.95", share_of(covered, critical)))
            left_out = share_of(single, lambda one: not one.covered)
            measured.append((f"{regime}: left out there, watched by nothing", "", left_out))
        flagged = [one for one in single if critical(one)]
        measured.append(
            (f"{regime}: right layer first", ">= 0.99" if least else "", share_of(flagged, right_layer))
        )
        measured.append((f"{regime}: right type", ">= 0.90" if least else "", share_of(flagged, right_type)))
        measured.append((f"{regime}: healthy, critical", "<= 0.005", share_of(healthy, critical)))
        measured.append((f"{regime}: the same, by training", "", _by_training(healthy, critical)))
        measured.append((f"{regime}: healthy, warning", "<= 0.10", share_of(healthy, warned)))
        measured.append((f"{regime}: the same, by training ", "", _by_training(healthy, warned)))
        measured.append((f"{regime}: whole model, warning", ">= 0.95", share_of(whole, warned)))
        measured.append((f"{regime}: whole model, critical", "", share_of(whole, critical)))
    declared = [one for one in outcomes if one.regime == Regime.DECLARED]
    healthy = [one for one in declared if one.is_healthy]
    faults = [one for one in declared if one.meant_broken]
    flagged = [one for one in faults if critical(one)]
    measured.append(("declared: faults (any label), critical", ">= 0.99", share_of(faults, critical)))
    single = [one for one in flagged if one.is_single]
    measured.append(("declared: right layer first", ">= 0.99", share_of(single, right_layer)))
    typed = [one for one in flagged if expected_rules(one.family, one.regime)]
    measured.append(("declared: right type", ">= 0.90", share_of(typed, right_type)))
    measured.append(("declared: healthy, critical", "<= 0.005", share_of(healthy, critical)))
    measured.append(("declared: healthy, warning", "<= 0.10", share_of(healthy, warned)))
    measured.append(("exact and sketch agree", ">= 0.99", share_of(outcomes, agree)))
    return measured


def _by_training(outcomes: Sequence[Outcome], holds: Callable[[Outcome], bool]) -> Share:
    """How many of the trainings under healthy versions have one of which it holds.

    Changes of one training are right or wrong together; only the trainings are independent of each other.
    """
    trainings: dict[tuple[str, str], bool] = {}
    for one in outcomes:
        training = (one.network, one.strength.rpartition(_ON)[2])
        trainings[training] = trainings.get(training, False) or holds(one)
    return share_of(trainings.values(), bool)


def _verdict(share: Share, limit: str) -> str:
    if not limit or not share.total:
        return ""
    sign, value = limit.split()
    met = share.value >= float(value) if sign == ">=" else share.value <= float(value)
    return "met" if met else "MISSED"


def critical(outcome: Outcome) -> bool:
    """Somebody was paged."""
    return bool(outcome.exact.critical)


def warned(outcome: Outcome) -> bool:
    """There was a warning, or worse."""
    return outcome.exact.warned


def right_layer(outcome: Outcome) -> bool:
    """The layer to look at first is one that was damaged."""
    return outcome.exact.findings[0].layer in outcome.layers


def right_type(outcome: Outcome) -> bool:
    """The first finding names what was done."""
    return outcome.exact.findings[0].rule in expected_rules(outcome.family, outcome.regime)


def agree(outcome: Outcome) -> bool:
    """Both ways of comparing led to the same verdict."""
    return outcome.exact.verdict == outcome.sketch.verdict


def drifted(limit: float) -> Callable[[Outcome], bool]:
    """The naive rule: some layer's norm moved by more than this share."""
    return lambda outcome: outcome.drift is None or not outcome.drift <= limit


def recall_table(outcomes: Sequence[Outcome], regime: str) -> Table:
    """Per family of defects whose function is broken."""
    broken = [one for one in outcomes if one.is_broken]
    rows = [_recall_row(family, members) for family, members in _by_family(broken).items()]
    single = [one for one in broken if one.is_single]
    whole = [one for one in broken if not one.is_single]
    rows += [_recall_row("single layer", single), _recall_row("whole model", whole)]
    headings = (
        "broken family",
        "n",
        "critical",
        "or warning",
        "sketch critical",
        "right layer",
        "right type",
        "norm > 10 %",
        "norm > 30 %",
    )
    return Table(f"Recall, {_REGIMES[regime]}", headings, tuple(row for row in rows if row[1] != "0"))


def _recall_row(family: str, members: Sequence[Outcome]) -> tuple[str, ...]:
    flagged = [one for one in members if critical(one)]
    located = [one for one in flagged if one.is_single]
    typed = [one for one in flagged if expected_rules(one.family, one.regime)]
    return (
        family,
        str(len(members)),
        share_of(members, critical).text,
        share_of(members, warned).text,
        share_of(members, lambda one: bool(one.sketch.critical)).text,
        share_of(located, right_layer).text,
        share_of(typed, right_type).text,
        *(share_of(members, drifted(limit)).text for limit in NAIVE),
    )


def names_table(outcomes: Sequence[Outcome], regime: str) -> Table:
    """What each family of single-layer damage was called first."""
    rows = []
    for family, members in _by_family(one for one in outcomes if one.is_broken and one.is_single).items():
        right = expected_rules(family, regime)
        counts = Counter(one.exact.findings[0].rule if critical(one) else "nothing" for one in members)
        names = [f"{rule}{'' if rule in right else ' (!)'} {count}" for rule, count in counts.most_common()]
        rows.append((family, str(len(members)), ", ".join(names)))
    headings = ("broken family", "n", "called; (!) is not the right type")
    return Table(f"Names, {_REGIMES[regime]}", headings, tuple(rows))


def false_alarm_table(outcomes: Sequence[Outcome], regime: str) -> Table:
    """Per family of healthy changes whose function is healthy."""
    healthy = [one for one in outcomes if one.is_healthy]
    families = {**_by_family(healthy), "all": healthy} if healthy else {}
    rows = [
        (
            family,
            str(len(members)),
            share_of(members, critical).whole_text,
            share_of(members, warned).whole_text,
            *(share_of(members, drifted(limit)).text for limit in NAIVE),
        )
        for family, members in families.items()
    ]
    headings = ("healthy family", "n", "critical", "warning or worse", "norm > 10 %", "norm > 30 %")
    return Table(f"False alarms, {_REGIMES[regime]}", headings, tuple(rows))


def by_network(outcomes: Sequence[Outcome]) -> Table:
    """The same per network, so that one bad network is seen."""
    rows = []
    for network in dict.fromkeys(one.network for one in outcomes):
        for regime in (Regime.ALIGNED, Regime.NEW_SEED):
            members = [one for one in outcomes if one.network == network and one.regime == regime]
            if not members:
                continue
            single = [one for one in members if one.is_broken and one.is_single]
            healthy = [one for one in members if one.is_healthy]
            rows.append(
                (
                    f"{network} {regime}",
                    "hold-out" if members[0].held_out else "tuning",
                    str(len(single)),
                    share_of(single, critical).text,
                    share_of([one for one in single if one.covered], critical).text,
                    share_of([one for one in single if critical(one)], right_layer).text,
                    str(len(healthy)),
                    share_of(healthy, critical).text,
                    share_of(healthy, warned).text,
                )
            )
    headings = (
        "network",
        "part",
        "broken layer",
        "critical",
        "watched side",
        "right layer",
        "healthy",
        "critical ",
        "warning ",
    )
    return Table("Per network", headings, tuple(rows))


def curve(outcomes: Sequence[Outcome], title: str) -> Table:
    """Recall against false alarms as the strength that a statistical rule's finding must have grows."""
    rows = []
    for strength in STRENGTHS if any(one.regime == Regime.ALIGNED for one in outcomes) else ():
        cells = [f"{strength:g}"]
        for regime in (Regime.ALIGNED, Regime.NEW_SEED):
            members = [one for one in outcomes if one.regime == regime]
            healthy = [one for one in members if one.is_healthy]
            single = [one for one in members if one.is_broken and one.is_single]
            paged = _paged_from(strength)
            cells += [f"{1000 * share_of(healthy, paged).value:.2f}", share_of(single, paged).text]
        rows.append(tuple(cells))
    headings = (
        "strength",
        "aligned: false alarms per 1,000",
        "recall",
        "new seed: false alarms per 1,000",
        "recall ",
    )
    return Table(f"Curve, {title}", headings, tuple(rows))


def _paged_from(strength: float) -> Callable[[Outcome], bool]:
    return lambda outcome: strongest(outcome.exact) >= strength


def strongest(judged: Judged) -> float:
    """Largest strength of the critical findings; a fact, as missing numbers, has no strength to weigh."""
    facts = {rule.name for rule in RULES if not getattr(rule, "is_statistical", True)}
    strengths = [float("inf") if one.rule in facts else one.strength for one in judged.critical]
    return max(strengths, default=0.0)


def other_labels(outcomes: Sequence[Outcome]) -> Table:
    """What is in no other table: the function disagrees with what was meant, or lies between."""
    kinds: dict[str, list[Outcome]] = {}
    for one in outcomes:
        if not one.is_healthy and not one.is_broken:
            kinds.setdefault(f"{one.regime}: {_kind(one)}", []).append(one)
    rows = [
        (kind, str(len(members)), share_of(members, critical).text, share_of(members, warned).text)
        for kind, members in sorted(kinds.items())
    ]
    headings = ("", "n", "critical", "or warning")
    return Table("Left out of recall and false alarms", headings, tuple(rows))


def _kind(outcome: Outcome) -> str:
    meant = "defect" if outcome.meant_broken else "healthy change"
    said = {Label.HEALTHY: "harmless", Label.GREY: "grey", Label.BROKEN: "broke the function"}
    return f"{meant}, {said[outcome.label]}"


_MOST_LISTED = 40


def false_alarms(outcomes: Sequence[Outcome]) -> Table:
    """Healthy versions that paged."""
    wrong = [one for one in outcomes if one.is_healthy and critical(one)]
    return _one_by_one("Healthy versions with a critical finding", wrong)


def missed(outcomes: Sequence[Outcome]) -> Table:
    """Broken layers that did not page."""
    wrong = [one for one in outcomes if one.is_broken and one.is_single and not critical(one)]
    return _one_by_one("Broken layers without a critical finding", wrong)


def misplaced(outcomes: Sequence[Outcome]) -> Table:
    """Broken layers for which another one came first."""
    wrong = [
        one for one in outcomes if one.is_broken and one.is_single and critical(one) and not right_layer(one)
    ]
    return _one_by_one("Another layer came first", wrong)


def _one_by_one(title: str, outcomes: Sequence[Outcome]) -> Table:
    rows = [
        (
            f"{one.network} {one.key}",
            one.regime_found,
            "; ".join(
                f"{told.rule} {told.layer or ''} {told.strength:.3g}" for told in one.exact.findings[:2]
            )
            or "-",
        )
        for one in outcomes[:_MOST_LISTED]
    ]
    shown = f", the first {_MOST_LISTED}" if len(outcomes) > _MOST_LISTED else ""
    headings = ("version", "regime found", "first findings, with their strength")
    return Table(f"{title}, tuning networks: {len(outcomes)}{shown}", headings, tuple(rows))


def disagreements(outcomes: Sequence[Outcome]) -> Table:
    """Versions that the exact and the sketch comparison judge differently, with the rules that differ."""
    rows = []
    for one in outcomes:
        if agree(one):
            continue
        exact, sketch = ({told.rule for told in judged.findings} for judged in (one.exact, one.sketch))
        rows.append(
            (
                f"{one.network} {one.key}",
                str(one.label),
                f"{one.exact.verdict} / {one.sketch.verdict}",
                ", ".join(sorted(exact - sketch)) or "-",
                ", ".join(sorted(sketch - exact)) or "-",
            )
        )
    headings = ("version", "function", "exact / sketch", "exact only", "sketch only")
    title = f"Exact and sketch verdicts differ: {len(rows)} of {len(outcomes)}"
    if len(rows) > _MOST_LISTED:
        title += f", the first {_MOST_LISTED}"
    return Table(title, headings, tuple(rows[:_MOST_LISTED]))


def _by_family(outcomes: Iterable[Outcome]) -> Mapping[str, list[Outcome]]:
    families: dict[str, list[Outcome]] = {}
    for one in outcomes:
        families.setdefault(one.family, []).append(one)
    return families
