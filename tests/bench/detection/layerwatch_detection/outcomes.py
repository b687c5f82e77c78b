"""What is written down of each version: one line of JSON, everything that the tables are made of.

A version from another seed is *covered* where something watches the side of the layer that was damaged, as the
baseline's couplings tell before any damage: rows that were permuted, emptied, doubled, cut off or turned in part need
a coupling of the layer's outputs, columns one of its inputs, the sign of all a signed one, and what moves both sides
(another initialisation, a transpose, two layers swapped) one of either. Everything else (missing numbers, scales,
zeros, noise, clipping, pruning, few bits, lost rank, flipped bits) must be seen without any, and is always covered.
This definition replaced a coarser one (any clear coupling of the layer) when the rules were tuned, on networks of the
tuning part; the recall of all versions is printed beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.judge import judge
from layerwatch.metrics.outofstep import Suspicion, watched
from layerwatch_detection.chain import Network
from layerwatch_detection.judging import Examined
from layerwatch_detection.training import Quality
from layerwatch_detection.versions import Version

_ROWS, _COLUMNS = frozenset({Suspicion.OUTPUTS}), frozenset({Suspicion.INPUTS})

DAMAGED_SIDES: Mapping[str, frozenset[Suspicion]] = {
    "permuted rows": _ROWS,
    "truncated": _ROWS,
    "duplicated rows": _ROWS,
    "dead rows": _ROWS,
    "permuted columns": _COLUMNS,
    "dead columns": _COLUMNS,
    "transposed": _ROWS | _COLUMNS,
    "swapped layers": _ROWS | _COLUMNS,
    "reinit": _ROWS | _COLUMNS,
}
"""Side of the layer that a family damages; every network here stores outputs as rows. Families that are not named (and
sign flips, see ``is_covered``) must be seen whatever goes together with what."""

_ALL_ROWS = "all"
"""How the strength of a sign flip of the whole layer begins."""


class Label(StrEnum):
    """What the function says; nothing else decides."""

    HEALTHY = "healthy"
    GREY = "grey"
    BROKEN = "broken"


def label_of(quality: Quality, baseline: Quality, is_language_model: bool) -> Label:
    """Broken: more than 5 points of accuracy lost; healthy: less than one; grey between (detection study, section 2).

    A language model's accuracy moves little; there 0.25 nats of loss are as bad as 5 points, and 0.05 as one.
    """
    lost = baseline.accuracy - quality.accuracy
    worse = quality.loss - baseline.loss if is_language_model else 0.0
    if lost > 0.05 or worse > 0.25:
        return Label.BROKEN
    return Label.HEALTHY if lost < 0.01 and worse < 0.05 else Label.GREY


@dataclass(frozen=True, slots=True)
class Told:
    """One finding."""

    rule: str
    severity: str
    layer: str | None
    strength: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What one way of comparing led to; findings as the report has them, worst first."""

    verdict: str
    findings: tuple[Told, ...]

    @property
    def critical(self) -> tuple[Told, ...]:
        """Those that page."""
        return tuple(one for one in self.findings if one.severity == Severity.CRITICAL)

    @property
    def warned(self) -> bool:
        """Whether there is a warning, or worse."""
        return any(one.severity != Severity.INFO for one in self.findings)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One version: what it is, what its function says, what the product says.

    Attributes:
        covered: whether something watches what was damaged, see ``is_covered``.
        drift: largest relative change of a layer's norm, what a naive rule would look at; None where nothing was
            comparable.
        regime_found: as the product named it.
    """

    network: str
    held_out: bool
    key: str
    regime: str
    meant_broken: bool
    family: str
    strength: str
    layers: tuple[str, ...]
    label: Label
    accuracy: float
    loss: float
    covered: bool
    drift: float | None
    regime_found: str
    exact: Judged
    sketch: Judged

    @property
    def is_healthy(self) -> bool:
        """Meant healthy, and the function agrees."""
        return not self.meant_broken and self.label is Label.HEALTHY

    @property
    def is_broken(self) -> bool:
        """Meant broken, and the function agrees."""
        return self.meant_broken and self.label is Label.BROKEN

    @property
    def is_single(self) -> bool:
        """Damage with layers to be named."""
        return self.meant_broken and bool(self.layers)


def outcome_of(
    network: Network,
    version: Version,
    examined: Examined,
    quality: Quality,
    label: Label,
    rules: RulesSettings,
) -> Outcome:
    """Judge both ways and write down."""
    exact, context = _judged(examined.exact, rules)
    return Outcome(
        network=network.name,
        held_out=network.held_out,
        key=version.key,
        regime=str(version.regime),
        meant_broken=version.meant_broken,
        family=version.family,
        strength=version.strength,
        layers=version.layers,
        label=label,
        accuracy=quality.accuracy,
        loss=quality.loss,
        covered=is_covered(
            version.family, version.strength, version.layers, examined.exact.baseline_couplings
        ),
        drift=_drift(examined.exact),
        regime_found=context,
        exact=exact,
        sketch=_judged(examined.sketch, rules)[0],
    )


def is_covered(family: str, strength: str, layers: Iterable[str], baseline: Iterable[Coupling]) -> bool:
    """Whether something watches the side of a layer that was damaged, by the baseline's couplings alone.

    After a training from another seed only couplings show an order or a sign. The same function tells the reports what
    is watched (``metrics/outofstep.py``), so that what does not count here is listed there as a blind spot.
    """
    if family == "sign flip":
        damaged = frozenset({Suspicion.SIGN}) if strength.startswith(_ALL_ROWS) else _ROWS
    elif family in DAMAGED_SIDES:
        damaged = DAMAGED_SIDES[family]
    else:
        return True
    known = watched(baseline)
    return any(damaged & known.get(layer, frozenset()) for layer in layers)


def _judged(examination: Examination, rules: RulesSettings) -> tuple[Judged, str]:
    judgement = judge(examination, rules)
    told = tuple(map(_told, judgement.findings))
    return Judged(str(judgement.verdict), told), str(judgement.context.regime)


def _told(finding: Finding) -> Told:
    return Told(finding.rule, str(finding.severity), finding.layer, round(float(finding.strength), 4))


def _drift(examination: Examination) -> float | None:
    drifts = [
        abs(layer.measurement.norm / layer.baseline.norm - 1.0)
        for layer in examination.layers
        if layer.measurement is not None
        and layer.baseline is not None
        and layer.measurement.norm is not None
        and layer.baseline.norm
    ]
    return max(drifts, default=None)


def write(path: Path, outcomes: Iterable[Outcome]) -> None:
    """One line each."""
    with path.open("w") as file:
        for outcome in outcomes:
            file.write(json.dumps(asdict(outcome)) + "\n")


def read(path: Path) -> list[Outcome]:
    """What :func:`write` wrote."""
    return [_outcome(json.loads(line)) for line in path.read_text().splitlines()]


def _outcome(line: dict[str, object]) -> Outcome:
    judged = {way: _restored(line[way]) for way in ("exact", "sketch")}
    layers: Sequence[str] = line["layers"]  # type: ignore[assignment]
    rest = {**line, **judged, "layers": tuple(layers), "label": Label(str(line["label"]))}
    return Outcome(**rest)  # type: ignore[arg-type]


def _restored(judged: object) -> Judged:
    assert isinstance(judged, dict)
    return Judged(judged["verdict"], tuple(Told(**one) for one in judged["findings"]))
