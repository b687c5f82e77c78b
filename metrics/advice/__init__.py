"""What the theory of heavy-tailed self-regularisation makes of a report: hints for training, never verdicts.

The theory (Martin & Mahoney, JMLR 22(165), 2021; Martin, Peng & Mahoney, Nature Communications 12:4122, 2021; Martin &
Hinrichs, arXiv:2507.17912) reads the exponent alpha of a layer's spectrum: near 2 in well-trained vision models, 3 to 4 in
language models, above 6 where little was learned, below 2 where a layer is over-correlated.

What was measured bounds what may be said (detection study, sections 1, 5 and 12):

- Limits of 2 and 6 without an uncertainty fire on 66 to 94 % of healthy versions. Here a layer counts only where two
  standard errors lie beyond the limit and the fit deserves to be read.
- Small layers hide: of untrained Gaussian layers 75 % of 64 x 64, and 20 % of 256 x 256, have an alpha below 6. So the
  effective rank is asked as well (``readable.py``).
- One percent of noise in the weights moved some layer's alpha by 28.8: a single layer's move says nothing, only many
  layers together do (``direction.py``).
- Along a real training run mean alpha rose with accuracy, as a clock does: it is no score.
"""

from __future__ import annotations

from layerwatch.metrics.advice.direction import advice_on_history
from layerwatch.metrics.advice.layers import advice_on
from layerwatch.metrics.advice.model import Advice, AdviceKind
from layerwatch.metrics.advice.readable import readable_alphas, readable_layers

__all__ = (
    "Advice",
    "AdviceKind",
    "advice_on",
    "advice_on_history",
    "readable_alphas",
    "readable_layers",
)
