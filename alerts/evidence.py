"""The numbers of a layer as a person reads them: ``alpha 5.3 -> 22.6, 24 sigma; spectral norm down 8x``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORTH_TELLING = 1.5
"""Ratios nearer to one than this are those of ordinary training."""

_SIGMAS_WORTH_TELLING = 3.0

_RATIOS = {
    "spectral_ratio": "spectral norm",
    "norm_ratio": "norm",
    "stable_rank_ratio": "stable rank",
    "max_abs_ratio": "largest weight",
}


def in_words(layer: Mapping[str, Any]) -> str:
    """One line about a layer of a report (``layers[i]`` of its JSON); empty when nothing of it can be told.

    Tells alpha with the baseline's, how far it moved in sigmas where that is 3 or more, ratios beyond 1.5 in either
    direction, and how much of the weights is another.
    """
    metrics: Mapping[str, Any] = layer.get("metrics") or {}
    change: Mapping[str, Any] = layer.get("change") or {}
    told = [_alpha(metrics.get("alpha"), change.get("alpha_baseline"), change.get("alpha_shift_sigmas"))]
    told += [_ratio(name, change.get(key)) for key, name in _RATIOS.items()]
    if (relative := change.get("relative_change")) is not None:
        told.append(f"relative change {relative:.2g}")
    if (cosine := change.get("cosine")) is not None:
        told.append(f"cosine to the baseline {cosine:.2f}")
    return "; ".join(part for part in told if part)


def _alpha(now: float | None, before: float | None, sigmas: float | None) -> str:
    if now is None and before is None:
        return ""
    if before is None:
        return f"alpha {now:.1f}"
    if now is not None and f"{before:.1f}" == f"{now:.1f}":
        return f"alpha {now:.1f}, unchanged"
    shown = f"alpha {before:.1f} -> {'no fit' if now is None else f'{now:.1f}'}"
    if sigmas is None or abs(sigmas) < _SIGMAS_WORTH_TELLING:
        return shown
    return f"{shown}, {abs(sigmas):.0f} sigma"


def _ratio(name: str, ratio: float | None) -> str:
    if ratio is None or ratio < 0:
        return ""
    if ratio == 0:
        return f"{name} down to 0"
    if ratio >= _WORTH_TELLING:
        return f"{name} up {_times(ratio)}x"
    return f"{name} down {_times(1 / ratio)}x" if ratio <= 1 / _WORTH_TELLING else ""


def _times(factor: float) -> str:
    return f"{factor:.1f}" if factor < 3 else f"{factor:.0f}" if factor < 10_000 else f"{factor:.1e}"
