"""The alpha axis that profile and histogram share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LOWEST = 1.0
USUAL = (2.0, 6.0)
"""Between these alpha is usual for trained layers. For reading only: no rule uses it."""

USUAL_WORDS = "2 to 6: usual (informational)"

_LEAST_CEILING = 8.0
_QUANTILE = 0.9


def ceiling(alphas: Sequence[float]) -> float:
    """Where the axis ends. A few huge values do not flatten all others: they are shown at its end instead."""
    if not alphas:
        return _LEAST_CEILING
    most = max(_LEAST_CEILING, float(np.quantile(alphas, _QUANTILE)) * 1.25)
    top = max(alphas) * 1.06
    return top if _LEAST_CEILING < top <= 1.5 * most else most
