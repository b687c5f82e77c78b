"""The density of the Marchenko-Pastur bulk that a measurement was given.

Source: Marchenko & Pastur 1967. Eigenvalues are those of W^T W, not divided by N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bulk_density(
    values: NDArray[np.float64], upper_edge: float, longer: int, shorter: int
) -> NDArray[np.float64]:
    """Density at the given eigenvalues; its integral over all of them is 1.

    With the variance v of the elements, the edges are ``v (sqrt(N) +- sqrt(M))^2`` and the density between them
    is ``sqrt((upper - x)(x - lower)) / (2 pi v M x)``.

    Args:
        values: positive, any shape.
        upper_edge: of the bulk, positive (``SpectralNumbers.mp_bulk_edge``).
        longer, shorter: sides N and M of one matrix view, at least 1.
    """
    # In units of the upper edge: products of huge or tiny eigenvalues leave float64's range.
    x = values / upper_edge
    variance = 1.0 / (longer**0.5 + shorter**0.5) ** 2
    lower = lower_edge(1.0, longer, shorter)
    inside = np.maximum(0.0, (1.0 - x) * (x - lower))
    density = np.sqrt(inside) / (2.0 * np.pi * variance * shorter * x)
    return np.asarray(density / upper_edge, dtype=np.float64)


def lower_edge(upper_edge: float, longer: int, shorter: int) -> float:
    """The other end of the bulk; 0 for a square matrix."""
    return float(upper_edge * ((longer**0.5 - shorter**0.5) / (longer**0.5 + shorter**0.5)) ** 2)
