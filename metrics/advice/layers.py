"""What single layers look like: under-trained, over-correlated, with traps, or done learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from layerwatch.metrics.advice.model import Advice, AdviceKind
from layerwatch.metrics.advice.readable import NOISE_SHARE, Reading, ReadLayer, readable_layers
from layerwatch.metrics.examination import Regime
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import LayerPart, Report
from layerwatch.metrics.tailfit import MINIMUM_EIGENVALUES

SIGMAS = 2.0
"""An alpha is beyond a limit when so many of its standard errors lie beyond it: about one layer in forty by chance."""

LITTLE_LEARNED = 6.0
"""Above it little was learned (Martin, Peng & Mahoney 2021)."""

OVER_CORRELATED = 2.0
"""Below it a spectrum is more heavy-tailed than any ideally trained layer's (Martin & Hinrichs 2025)."""

TRAINED = (2.0, 4.0)
"""Where well-trained layers lie: near 2 in vision, 3 to 4 in language (Martin, Peng & Mahoney 2021)."""

FREEZE_SIGMA = 0.25
"""Largest standard error of a candidate to freeze: two of them are a quarter of the range 2 to 4.

Of 300 untrained layers 2 % had an alpha in 2..4 with such an error, and every one of them was as good as random by its
effective rank, which no candidate may be.
"""

HARDLY_CHANGED = 0.02
"""Largest relative change of a candidate to freeze: noise of so much in every weight left each network of the detection
study as it was."""

ONE_DIRECTION = 2.0
"""Below this stable rank one direction carries more than half of a layer: alpha is small for that reason alone."""

LARGE_TRAP = 1.3
"""A trap is worth a word from this on, times the edge of the shuffled matrix: as in the rule ``new_traps``."""


def advice_on(report: Report) -> tuple[Advice, ...]:
    """What the theory makes of one version; empty where it has nothing to say.

    Args:
        report: with or without a baseline; candidates to freeze are held against a baseline that is a parent.
    """
    reading = readable_layers(report)
    found = (
        _under_trained(reading),
        _over_correlated(reading),
        _traps(report),
        _freeze(report, reading),
    )
    return tuple(one for one in found if one is not None)


def _under_trained(reading: Reading) -> Advice | None:
    beyond = [layer for layer in reading.layers if _low(layer) > LITTLE_LEARNED]
    random = [layer for layer in reading.layers if layer.is_like_noise]
    chosen = _merged(
        sorted(beyond, key=_low, reverse=True),
        sorted(random, key=lambda layer: layer.noise_share or 0.0, reverse=True),
    )
    if not chosen:
        return None
    by = []
    if beyond:
        by.append(f"{len(beyond)} by alpha, two standard errors above {LITTLE_LEARNED:.0f}")
    if random:
        by.append(
            f"{len(random)} by a spectrum as good as random: effective rank {NOISE_SHARE:.0%} or more of a random "
            "matrix', no eigenvalue beyond its bulk"
        )
    return Advice(
        AdviceKind.UNDER_TRAINED,
        f"{_layers(chosen)} {_look(chosen)} under-trained",
        "Little seems to have been learned there. If more was meant to be: train longer, with a larger learning rate or "
        "weaker regularisation there, or give it fewer weights. What was never trained by design (a Fourier basis, a frozen "
        "projection) looks the same.",
        _names(chosen),
        f"{'; '.join(by)}. The first: {_shown(chosen[0])}. {reading.in_words()}. Well-trained networks have such layers, "
        "too: 1 of the 28 readable ones of a published ResNet-32.",
    )


def _over_correlated(reading: Reading) -> Advice | None:
    chosen = sorted((layer for layer in reading.layers if _high(layer) < OVER_CORRELATED), key=_high)
    if not chosen:
        return None
    narrow = [layer for layer in chosen if (layer.part.metrics.stable_rank or inf) < ONE_DIRECTION]
    trapped = [layer for layer in chosen if _has_traps(layer.part)]
    reasons = []
    if narrow:
        reasons.append(f"in {len(narrow)} one direction carries more than half of the layer")
    if trapped:
        reasons.append(
            f"{len(trapped)} {'has' if len(trapped) == 1 else 'have'} traps, which lower alpha too"
        )
    return Advice(
        AdviceKind.OVER_CORRELATED,
        f"{_layers(chosen)} {_look(chosen)} over-correlated",
        "A few directions carry such a layer. The theory reads it as a learning rate that is too large or as overfitting: "
        "try a smaller learning rate, stronger regularisation or an earlier stop, and look at the accuracy on held-out data.",
        _names(chosen),
        f"two standard errors below {OVER_CORRELATED:.0f}{''.join(f'; {reason}' for reason in reasons)}. The first: "
        f"{_shown(chosen[0])}. {reading.in_words()}. Good networks have a few such layers: 1 of 18 in a published "
        "ResNet-20, 2 of 14 in a voice network in production. In a checkpoint with chance accuracy it was all 14 of 14.",
    )


def _traps(report: Report) -> Advice | None:
    asked = [
        part
        for part in report.layers
        if part.metrics.traps is not None
        and (part.metrics.num_eigenvalues or 0) >= MINIMUM_EIGENVALUES
        and part.status is not LayerStatus.BROKEN
    ]
    chosen = sorted((part for part in asked if _has_traps(part)), key=_largest_trap, reverse=True)
    if not chosen:
        return None
    worst = chosen[0]
    return Advice(
        AdviceKind.TRAPS,
        f"{_layers(chosen)} {'has' if len(chosen) == 1 else 'have'} correlation traps",
        "With its elements shuffled such a layer still has eigenvalues beyond the bulk of noise: a few elements are very "
        "large, or their mean is far from zero. The theory ties it to a learning rate that is too large, or to the end of an "
        "overlong training. Look at the largest elements; clipping gradients or decaying weights keeps them small.",
        tuple(part.name for part in chosen),
        f"the first has {worst.metrics.traps}, the largest {_largest_trap(worst):.1f} times the edge of noise (counted from "
        f"{LARGE_TRAP} on); {len(asked)} layers asked. Not every trap harms, say those who described them: 6 of 14 layers of "
        "a voice network in production have them. In the detection study 17 % of the broken versions had new ones.",
    )


def _freeze(report: Report, reading: Reading) -> Advice | None:
    compared = report.baseline is not None and report.regime in (Regime.ALIGNED, Regime.LONG)
    settled = [layer for layer in reading.layers if _is_settled(layer)]
    changes = {layer.part.name: _change(layer.part) for layer in settled}
    if compared:
        chosen = [layer for layer in settled if 0.0 < changes[layer.part.name] <= HARDLY_CHANGED]
        chosen.sort(key=lambda layer: changes[layer.part.name])
    else:
        chosen = sorted(settled, key=lambda layer: layer.sigma or inf)
    if not chosen:
        return None
    low, high = (f"{limit:.0f}" for limit in TRAINED)
    first = chosen[0]
    if compared:
        moved = f"they changed by {HARDLY_CHANGED:.0%} or less since the parent"
        clearest = f"{_shown(first)}, changed by {changes[first.part.name]:.2%}"
    else:
        moved = "without a parent nobody knows whether they still change: compare with one first"
        clearest = _shown(first)
    return Advice(
        AdviceKind.FREEZE,
        f"{_layers(chosen)} could be frozen early",
        "Such a layer looks as if it had learned what it will: freezing it in the next fine-tune saves time and memory. Try "
        "it against a run without, on held-out data.",
        _names(chosen),
        f"alpha in {low} to {high} with a standard error of {FREEZE_SIGMA} or less; {moved}. The first: {clearest}. "
        f"{reading.in_words()}. That freezing keeps the accuracy follows from no measurement here.",
    )


def _is_settled(layer: ReadLayer) -> bool:
    if layer.alpha is None or layer.sigma is None or layer.is_like_noise:
        return False
    return TRAINED[0] <= layer.alpha <= TRAINED[1] and layer.sigma <= FREEZE_SIGMA


def _change(part: LayerPart) -> float:
    """Relative change; infinite where it is not known."""
    change = part.change
    return inf if change is None or change.relative_change is None else change.relative_change


def _low(layer: ReadLayer) -> float:
    """Alpha less two standard errors; minus infinity without an alpha."""
    return -inf if layer.alpha is None or layer.sigma is None else layer.alpha - SIGMAS * layer.sigma


def _high(layer: ReadLayer) -> float:
    return inf if layer.alpha is None or layer.sigma is None else layer.alpha + SIGMAS * layer.sigma


def _largest_trap(part: LayerPart) -> float:
    return part.metrics.largest_trap or 0.0


def _has_traps(part: LayerPart) -> bool:
    return bool(part.metrics.traps) and _largest_trap(part) > LARGE_TRAP


def _merged(*groups: Sequence[ReadLayer]) -> list[ReadLayer]:
    return list({layer.part.name: layer for group in groups for layer in group}.values())


def _shown(layer: ReadLayer) -> str:
    """Alpha, effective rank and stable rank of one layer, which the first of ``layers`` is."""
    return ", ".join(_numbers(layer))


def _numbers(layer: ReadLayer) -> Iterator[str]:
    if layer.alpha is not None:
        yield f"alpha {layer.alpha:.2f} ± {layer.sigma:.2f}"
    if layer.noise_share is not None:
        yield f"effective rank {layer.noise_share:.0%} of a random matrix'"
    if layer.part.metrics.stable_rank is not None:
        yield f"stable rank {layer.part.metrics.stable_rank:.1f}"


def _names(layers: Sequence[ReadLayer]) -> tuple[str, ...]:
    return tuple(layer.part.name for layer in layers)


def _layers(chosen: Sequence[object]) -> str:
    return "1 layer" if len(chosen) == 1 else f"{len(chosen)} layers"


def _look(chosen: Sequence[object]) -> str:
    return "looks" if len(chosen) == 1 else "look"
