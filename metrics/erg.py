"""The trace-log condition of SETOL (arXiv:2507.17912, section 6): where the tail's volume is one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-9
"""A sum of logarithms this close to zero is zero: equal eigenvalues differ by rounding errors only."""


def erg_tail(spectrum: NDArray[np.float64]) -> int:
    """Number of eigenvalues, from the largest down, until their product falls below one.

    Eigenvalues are divided by their mean first; the product is taken as a sum of logarithms, because the raw
    product overflows from about 3000 eigenvalues on. The eigenvalue at which it falls is counted, as the
    reference tool does.

    Args:
        spectrum: ascending, not negative, finite, not all zero.

    Returns:
        1..n; n when the product never falls below one (equal eigenvalues).
    """
    # In units of the largest: the mean of huge eigenvalues overflows, that of the smallest is rounded to zero.
    shares = spectrum[::-1] / spectrum[-1]
    with np.errstate(divide="ignore"):
        logs = np.log(shares) - np.log(shares.mean())
    below = np.flatnonzero(np.cumsum(logs) < -_ROUNDING)
    return int(below[0]) + 1 if len(below) else len(spectrum)
