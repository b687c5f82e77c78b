"""The couplings of a model, where trouble with them must not cost what was measured."""

from __future__ import annotations

import numpy as np
import torch

from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.couplings import find_couplings
from layerwatch.metrics.openmodel import OpenModel


def couplings_or_problem(model: OpenModel) -> tuple[tuple[Coupling, ...], str | None]:
    """What the layers share, or none of it and why, in a sentence.

    They are found last, after every layer was measured, by numerics over weights of any size and sign: where those
    give up, what the layers share is not seen, and everything else is.

    Raises:
        UnreadableError: the values are not all there; MemoryError, RuntimeError: no room for them.
    """
    try:
        return find_couplings(model), None
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        return (), f"what its layers share could not be computed ({type(error).__name__}: {error})"
