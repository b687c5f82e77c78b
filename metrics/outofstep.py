"""Which layer of a version is out of step with the others, by its couplings and those of the baseline.

The baseline may be a training from another seed: what is compared is how strongly layers go together, never their
weights. Each coupling is evidence for or against a handful of suspicions per layer (its outputs, its inputs, both, or
its sign); evidence is a logarithm of a likelihood ratio, and what several couplings say adds up. A coupling that is as
strong as before speaks against every layer in it, so that of two layers the one is left that is in trouble everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from layerwatch.metrics.association import Floats, agreement, fisher_score
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.relabelled import MOST as MOST_RELABELLED
from layerwatch.metrics.relabelled import relabelling
from layerwatch.metrics.unitplaces import Scatter, UnitPlaces, surprise, unit_places


class Suspicion(StrEnum):
    """What seems to have happened to a layer."""

    OUTPUTS = "outputs"
    INPUTS = "inputs"
    BOTH = "both"
    SIGN = "sign"
    VECTOR = "vector"


_SAY_SIGNS_ONLY = frozenset({CouplingKind.END_TO_END, CouplingKind.LOGIT_EFFECT, CouplingKind.TOKEN_EFFECT})

_SIDES: Mapping[Suspicion, frozenset[Side]] = {
    Suspicion.OUTPUTS: frozenset({Side.OUTPUTS}),
    Suspicion.INPUTS: frozenset({Side.INPUTS}),
    Suspicion.BOTH: frozenset({Side.OUTPUTS, Side.INPUTS}),
    Suspicion.VECTOR: frozenset({Side.VECTOR}),
}

KEPT_AT_LEAST = 0.5
_KEPT_AT_LEAST: Mapping[CouplingKind, float] = {
    CouplingKind.FEED_FORWARD_UNITS: 0.35,
    CouplingKind.QUERY_KEY_UNITS: 0.35,
    CouplingKind.QUERY_KEY_NORMS: 0.35,
    CouplingKind.VALUE_OUTPUT_NORMS: 0.35,
    CouplingKind.GAIN_TO_READER: 0.4,
    CouplingKind.INTERFACE_NORMS: 0.4,
    CouplingKind.NEARNESS: 0.4,
    CouplingKind.STREAM_PARTNERS: 0.4,
    CouplingKind.BIAS: 0.2,
}
"""Share of its strength that a coupling keeps at least from one healthy training to another, whatever the recipe."""

_KEPT_WHEN_VERY_STRONG: Mapping[CouplingKind, float] = {CouplingKind.QUERY_KEY_UNITS: 0.45}
VERY_STRONG = 20.0

_KEPT_BY_ATTENTION_OUTPUT = 0.3
"""The same for the stream channels of values and of the attention's output, which are weak."""

_KEPT_BY_ESTIMATES = 0.4
"""The same for single input channels whose moments are estimated."""

_UNSTEADY = frozenset(
    {
        CouplingKind.FEED_FORWARD_SIGNS,
        CouplingKind.QUERY_KEY_SIGNS,
        CouplingKind.VALUE_OUTPUT_SIGNS,
        CouplingKind.HEAD_ENTRIES,
    }
)
"""Couplings that come and go from seed to seed; only a turned sign says something."""

_NORMS = frozenset(
    {
        CouplingKind.INTERFACE_NORMS,
        CouplingKind.FEED_FORWARD_NORMS,
        CouplingKind.QUERY_KEY_NORMS,
        CouplingKind.VALUE_OUTPUT_NORMS,
        CouplingKind.GAIN_TO_READER,
    }
)
"""Sizes stay in step when signs do not: these say little in a layer's favour."""

KEPT_BESIDE_OTHERS: Mapping[CouplingKind, float] = {
    CouplingKind.INTERFACE_UNITS: 0.7,
    CouplingKind.STREAM_CHANNELS: 0.65,
}
"""For these kinds: share that a strong coupling keeps at least, times what the version's others of its kind have kept."""

_KEPT_IN_ANY_CASE = 0.3
"""Where all have lost more than this, the whole model is out of step."""

STRONG = 5.0
"""From this score on a coupling is strong enough to be held against the others of its kind."""

HEALTHY_NOISE = 1.3
RELATIVE_NOISE = 0.06
"""Standard deviation of a healthy score: this, or this share of it."""

CHANCE_NOISE = 1.5
"""Standard deviation of the score of layers that have nothing to do with each other."""

SIGN_NOISE = 2.2
"""The same for couplings whose sign is in question: some of them turn from seed to seed while they are weak."""

TURNED_FROM = 3.0
"""A coupling that is weaker than this may have either sign."""

MOST = 12.0
"""One coupling alone never says more than this."""

MOST_IN_FAVOUR = 3.0
"""One coupling that is as it was never says more than this in favour of a layer: a part of its units may be broken."""

MOST_BY_NORMS = 0.5

_SCATTER = Scatter(0.2, 1.1)
_SCATTER_OF: Mapping[CouplingKind, Scatter] = {
    CouplingKind.INTERFACE_UNITS: Scatter(0.035, 1.1),
    CouplingKind.VALUE_OUTPUT_UNITS: Scatter(0.12, 0.75),
}
"""Units that seem out of place in healthy trainings. Of 2,500 couplings of 170 trainings the mean share was 0.2 at a
clarity of 1.25, 0.1 at 2.1, 0.02 at 2.75 and 0.002 at 3.75; fewer between plain layers, and where only the units of one
head are compared."""

_TELLING = 2.0
"""Less than this about single units does not outweigh that the coupling as a whole is as strong as it was."""

_CONSISTENT = {True: (0.85, 0.1), False: (0.75, 0.2)}
"""Of running means with their prediction: least healthy correlation, and largest healthy loss of it; where the moments
of the inputs are known, and where they are estimated along a residual stream."""

_CONSISTENT_NOISE = 0.05

_PROFILES_SAY = {
    CouplingKind.END_TO_END: (0.5, 12.0),
    CouplingKind.LOGIT_EFFECT: (0.5, 12.0),
    CouplingKind.TOKEN_EFFECT: (0.12, 25.0),
}
"""Correlation of two trainings' profiles from which on it means something, and its value in standard deviations."""

LEARNED_FROM = 8.0
"""Relations between inputs or outputs are learned where the two halves of their features agree this well."""

_EXPECTED_PROFILE = 6.0
_MANY_UNITS = 32

_AS_MUCH = 0.5
"""Of the evidence against a layer: from this share on another one is suspected as well, by the same couplings."""

_RELATED_SHARE = {True: 0.4, False: 1.3}
"""Expected agreement of two trainings, as a share of that of a training with itself: with many units, and with few.
Half of it is asked for."""

_ROWS_APART = 0.3
_ROWS_ALIKE = 0.6
_ROWS_TURNED = -0.5
_ROWS_KNOWN = 0.8
_EVIDENCE_PER_ROW = 5.0

_ONE_OF_EACH = UnitPlaces(1, 1, 0.0)
"""Inputs that are never used have no place: some of these seem to move from training to training."""

_RELATED = 0.6
"""Correlation of the relations between a few classes, by the names that fit best: what healthy trainings share."""

_FEW_NOISE = 0.9
"""Standard deviation of the agreement of such relations: in 710 pairs of healthy trainings they correlated by 0.49 at
least, 0.8 mostly, and within 0.3 of zero after the classes were permuted."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One coupling beside the baseline's.

    Attributes:
        coupling: the version's.
        before, now: scores in standard deviations, turned so that ``before`` is not negative. Of a profile: what is
            expected, and how it agrees with the baseline's.
        lost: evidence that it is down to chance, against that it is as it was.
        turned: evidence that its sign was turned, against that it is as it was.
    """

    coupling: Coupling
    before: float
    now: float
    lost: float
    turned: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """A layer, what it is suspected of, and why.

    Attributes:
        evidence: sum over its couplings, as a natural logarithm.
        against: couplings that speak against the layer, the strongest first.
        partners: layers that are suspected as much, by the same couplings.
    """

    layer: str
    suspicion: Suspicion
    evidence: float
    against: tuple[Compared, ...]
    partners: tuple[str, ...]


def _bounded(value: float) -> float:
    return max(-MOST, min(MOST, value))


_Pair = tuple[Coupling, Coupling, float, float]


def compared_couplings(now: Sequence[Coupling], before: Sequence[Coupling]) -> list[Compared]:
    """Couplings that both versions have, side by side."""
    known = {one.key: one for one in before}
    pairs: list[_Pair] = []
    compared: list[Compared] = []
    for one in now:
        other = known.get(one.key)
        if other is None or one.units != other.units:
            continue
        if one.kind.is_profile:
            compared.extend(_profiles(one, other))
        else:
            pairs.append((one, other, *_scores(one, other)))
    for one, other, was, score in pairs:
        if one.kind is CouplingKind.BATCHNORM_STATISTICS:
            lost = _inconsistent(one, other)
        else:
            lost = 0.0 if one.kind in _UNSTEADY else _lost(was, score, _least_share(one, was, pairs))
        if one.kind is CouplingKind.BATCHNORM_INPUTS and was >= STRONG and score >= KEPT_AT_LEAST * was:
            # So are the input channels that give them.
            lost = -MOST
        if was >= STRONG:
            # What was never in step cannot fall out of it: units of random layers find each other by chance.
            lost = _with_units(lost, _out_of_place(one, other))
        if one.kind in _NORMS or one.kind is CouplingKind.NEARNESS:
            lost = max(lost, -MOST_BY_NORMS)
        compared.append(Compared(one, was, score, lost, _turned(was, score)))
    return compared


def _inconsistent(one: Coupling, other: Coupling) -> float:
    """Correlations near 1 are judged as they are (detection study, section 8), not by their score."""
    value, before = (one.value, other.value) if other.value >= 0.0 else (-one.value, -other.value)
    least, less = _CONSISTENT[not other.part]
    least = min(least, before - less)
    missing = (least - value) / _CONSISTENT_NOISE
    if missing > 0.0:
        return _bounded(0.5 * missing**2)
    # Rows that give the stored means are in their places: no other coupling outweighs that.
    return -MOST if value >= before - _CONSISTENT_NOISE else -min(MOST_IN_FAVOUR, 0.5 * missing**2)


def _least_share(one: Coupling, was: float, pairs: Sequence[_Pair]) -> float:
    if one.kind is CouplingKind.BATCHNORM_INPUTS and (was < STRONG or one.part):
        return 0.0 if was < STRONG else _KEPT_BY_ESTIMATES
    if one.kind is CouplingKind.STREAM_CHANNELS and one.part in {"value", "attention output"}:
        return _KEPT_BY_ATTENTION_OUTPUT
    if one.kind is CouplingKind.BIAS and one.part == "query":
        return KEPT_AT_LEAST
    share = _KEPT_AT_LEAST.get(one.kind, KEPT_AT_LEAST)
    if was >= VERY_STRONG:
        share = _KEPT_WHEN_VERY_STRONG.get(one.kind, share)
    beside_others = KEPT_BESIDE_OTHERS.get(one.kind)
    if beside_others is None or was < STRONG:
        return share
    kept = _kept_by_others(one, pairs)
    return share if kept is None else max(_KEPT_IN_ANY_CASE, beside_others * kept)


def _kept_by_others(one: Coupling, pairs: Sequence[_Pair]) -> float | None:
    """Share of its strength that the best kept coupling of the same kind among other layers has, at most 1."""
    kept = [
        score / was
        for other, _, was, score in pairs
        if other.kind is one.kind and was >= STRONG and not set(other.layers) & set(one.layers)
    ]
    return min(1.0, max(kept)) if kept else None


def _lost(before: float, now: float, share: float, least_noise: float = HEALTHY_NOISE) -> float:
    if share == 0.0:
        return 0.0
    least = share * before
    noise = max(least_noise, RELATIVE_NOISE * before)
    if now < least:
        # Against anything weaker, chance included.
        return _bounded(0.5 * ((least - now) / noise) ** 2 - 0.5 * (max(0.0, -now) / CHANCE_NOISE) ** 2)
    return -min(MOST_IN_FAVOUR, 0.5 * ((now - least) / noise) ** 2)


def _turned(before: float, now: float) -> float:
    if before < TURNED_FROM:
        return 0.0
    least = KEPT_AT_LEAST * before
    missing, over = max(0.0, least - now), max(0.0, now + least)
    return max(-MOST_IN_FAVOUR, min(MOST, 0.5 * (missing / SIGN_NOISE) ** 2 - 0.5 * (over / SIGN_NOISE) ** 2))


def _out_of_place(one: Coupling, other: Coupling) -> float:
    """Evidence that some units stand where others belong, or have their sign turned; 0 where it is not telling."""
    if one.places is None or other.places is None:
        return 0.0
    return _surprising(one.kind, one.units, one.places, other.places)


def _surprising(kind: CouplingKind, units: int, now: UnitPlaces, before: UnitPlaces) -> float:
    scatter = _SCATTER_OF.get(kind, _SCATTER)
    evidence = max(
        surprise(now.displaced, units, now.clarity, scatter, before.displaced),
        surprise(now.reversed, units, now.clarity, scatter, before.reversed),
    )
    return evidence if evidence >= _TELLING else 0.0


def _with_units(lost: float, single: float) -> float:
    """A part of the units may be broken while the coupling as a whole is as strong as in some healthy training."""
    return _bounded(single + max(0.0, lost)) if single > 0.0 else lost


def _scores(one: Coupling, other: Coupling) -> tuple[float, float]:
    before, now = _score(other), _score(one)
    return (before, now) if before >= 0.0 else (-before, -now)


def _score(coupling: Coupling) -> float:
    if coupling.kind is CouplingKind.BATCHNORM_STATISTICS:
        return fisher_score(coupling.value, coupling.units)
    return coupling.value


def _profiles(one: Coupling, other: Coupling) -> Iterator[Compared]:
    if len(one.profile) != len(other.profile):
        return
    if one.kind.signed:
        alike = float(np.dot(one.profile, other.profile))
        floor, scale = _PROFILES_SAY[one.kind]
        if abs(alike) >= floor:
            now = scale * alike
            yield Compared(one, _EXPECTED_PROFILE, now, 0.0, _turned(_EXPECTED_PROFILE, now))
        if one.kind is CouplingKind.END_TO_END:
            yield from _outputs_moved(one, other)
        return
    expected = _expected_agreement(other)
    if expected >= HEALTHY_NOISE:
        many = one.units >= _MANY_UNITS
        table, table0 = _table(one), _table(other)
        now = agreement(table, table0)
        lost = _lost(expected, now, KEPT_AT_LEAST, HEALTHY_NOISE if many else _FEW_NOISE)
        single = 0.0
        if many:
            single = _surprising(one.kind, one.units, unit_places(table, table0), _ONE_OF_EACH)
        elif one.units <= MOST_RELABELLED:
            found = relabelling(table, table0)
            single = found.evidence if found.best >= _RELATED else 0.0
        yield Compared(one, expected, now, _with_units(lost, single), 0.0)


def _expected_agreement(coupling: Coupling) -> float:
    """Of relations between inputs or outputs with those of another training; 0 where it may have any others."""
    many = coupling.units >= _MANY_UNITS
    if coupling.kind is CouplingKind.INPUT_MEANING and not many:
        # Nine positions of a kernel are not treated alike from training to training.
        return 0.0
    if coupling.slope is not None and coupling.slope < LEARNED_FROM:
        # What was drawn at random and hardly trained is another in every training.
        return 0.0
    table = _table(coupling)
    return _RELATED_SHARE[many] * agreement(table, table)


def _correlations(table: Floats, table0: Floats) -> Floats:
    """Of each row of one with each of the other, shape (rows, rows); constant rows have none."""

    def directions(rows: Floats) -> Floats:
        centred = rows - rows.mean(axis=1, keepdims=True)
        sizes = np.linalg.norm(centred, axis=1, keepdims=True)
        turned: Floats = centred / np.where(sizes > 0.0, sizes, 1.0)
        return turned

    product: Floats = directions(table) @ directions(table0).T
    return product


def _outputs_moved(one: Coupling, other: Coupling) -> Iterator[Compared]:
    """Outputs of a chain that do what others did, or the opposite: no healthy training has any."""
    rows = one.units
    profile, profile0 = (np.array(each.profile).reshape(rows, -1) for each in (one, other))
    if profile.shape[1] < _MANY_UNITS or rows < 2:
        return
    alike = _correlations(profile, profile0)
    own = np.diag(alike)
    known = np.abs(alike).max(axis=1) > _ROWS_ALIKE
    whose = np.abs(alike).argmax(axis=1)[known]
    if known.mean() < _ROWS_KNOWN or len(set(whose.tolist())) < len(whose):
        # A layer further in is broken: its outputs are nobody's.
        return
    moved = int(((own < _ROWS_APART) & (alike.max(axis=1) > _ROWS_ALIKE)).sum())
    turned = int((own < _ROWS_TURNED).sum())
    if max(moved, turned) and turned != rows:
        last = replace(one, layers=(one.layers[-1],), sides=(Side.OUTPUTS,), kind=CouplingKind.OUTPUT_MEANING)
        evidence = _bounded(_EVIDENCE_PER_ROW * (max(0, moved - 1) + turned))
        yield Compared(last, float(rows), float(rows - max(moved, turned)), evidence, 0.0)


def _table(coupling: Coupling) -> Floats:
    table = np.zeros((coupling.units, coupling.units))
    table[np.triu_indices(coupling.units, 1)] = coupling.profile
    return table + table.T


WATCHED_FROM = 8.0
"""A coupling this strong is enough to suspect a layer by itself, or nearly so."""


def watched(couplings: Iterable[Coupling]) -> Mapping[str, frozenset[Suspicion]]:
    """What a layer would be suspected of if that were damaged; of all else the couplings can say nothing.

    Args:
        couplings: of the baseline, which is all that is looked at: what is watched is known before any damage is.

    Returns:
        Layers and vectors that something watches: ``OUTPUTS`` or ``INPUTS`` where a coupling of at least
        ``WATCHED_FROM`` shows their order, ``SIGN`` where one shows the sign of the layer as a whole, ``VECTOR`` of a
        vector that takes part in any. ``BOTH`` follows from either side and is not among them.
    """
    found: dict[str, set[Suspicion]] = defaultdict(set)
    for one in couplings:
        tells_order, tells_sign = _tells_order(one), one.kind.signed and _tells_sign(one)
        for layer, side in zip(one.layers, one.sides, strict=True):
            if side is Side.VECTOR:
                if tells_order or abs(_score(one)) >= WATCHED_FROM:
                    found[layer].add(Suspicion.VECTOR)
            elif tells_order and one.kind not in _NORMS:
                found[layer].add(Suspicion.OUTPUTS if side is Side.OUTPUTS else Suspicion.INPUTS)
            if tells_sign and _turns_with(one, layer):
                found[layer].add(Suspicion.SIGN)
    return {layer: frozenset(suspicions) for layer, suspicions in found.items()}


def _tells_order(coupling: Coupling) -> bool:
    kind = coupling.kind
    if kind in _SAY_SIGNS_ONLY or kind in _UNSTEADY:
        return False
    if kind is CouplingKind.BATCHNORM_STATISTICS:
        return _is_consistent(coupling)
    strength = _expected_agreement(coupling) if kind.is_profile else abs(coupling.value)
    return strength >= WATCHED_FROM


def _tells_sign(coupling: Coupling) -> bool:
    if coupling.kind is CouplingKind.BATCHNORM_STATISTICS:
        return _is_consistent(coupling)
    if coupling.kind is CouplingKind.END_TO_END:
        # Nine positions of a kernel are not treated alike from training to training.
        return len(coupling.profile) >= _MANY_UNITS * coupling.units
    # A turned profile is enough by itself.
    return coupling.kind.is_profile or abs(coupling.value) >= WATCHED_FROM


def _is_consistent(coupling: Coupling) -> bool:
    return abs(coupling.value) >= _CONSISTENT[not coupling.part][0]


def _turns_with(coupling: Coupling, layer: str) -> bool:
    """Whether the coupling's sign is that of the layer: what takes part twice turns it twice."""
    times = coupling.layers.count(layer)
    if coupling.kind is CouplingKind.NEARNESS:
        # Each is named with both sides. Queries and keys are made from positions.
        return times == 2 and layer != coupling.layers[-1]
    return times % 2 == 1


def suspects(compared: Iterable[Compared]) -> list[Suspect]:
    """Layers that are out of step, the most suspicious first; at most one entry per layer."""
    by_layer: dict[str, dict[Suspicion, list[tuple[float, Compared]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for one in compared:
        taking_part = set(zip(one.coupling.layers, one.coupling.sides, strict=True))
        for layer in dict.fromkeys(one.coupling.layers):
            if one.coupling.kind.signed:
                by_layer[layer][Suspicion.SIGN].append((one.turned, one))
            if one.coupling.kind in _SAY_SIGNS_ONLY:
                continue
            for suspicion, sides in _SIDES.items():
                if any((layer, side) in taking_part for side in sides):
                    by_layer[layer][suspicion].append((one.lost, one))
    found = []
    for layer, suspicions in by_layer.items():
        sums = {suspicion: sum(value for value, _ in said) for suspicion, said in suspicions.items()}
        # Of two suspicions that are equally strong, the narrower one.
        best = max(sums, key=lambda one: (sums[one], one is not Suspicion.BOTH))
        said = sorted(suspicions[best], key=lambda pair: -pair[0])
        against = tuple(one for value, one in said if value > 0.0)
        if sums[best] > 0.0 and against:
            found.append(Suspect(layer, best, sums[best], against, ()))
    found.sort(key=lambda one: -one.evidence)
    return _with_partners(found)


def _with_partners(found: Sequence[Suspect]) -> list[Suspect]:
    """Leave out whoever is suspected by nothing but couplings with a layer that is suspected more."""
    kept: list[Suspect] = []
    explained: set[tuple[str, ...]] = set()
    for one in found:
        mine = {compared.coupling.key for compared in one.against}
        if mine <= explained:
            continue
        equals = tuple(
            other.layer
            for other in found
            if other.layer != one.layer
            and other.evidence >= _AS_MUCH * one.evidence
            and {compared.coupling.key for compared in other.against} == mine
        )
        explained |= mine
        kept.append(Suspect(one.layer, one.suspicion, one.evidence, one.against, equals))
    return kept
