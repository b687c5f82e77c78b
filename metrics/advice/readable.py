"""Which layers the theory can read, and which are as good as random."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import exp, isfinite

from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.layers import view_sides
from layerwatch.metrics.measurement import FitStatus, LayerKind
from layerwatch.metrics.report import LayerPart, Report
from layerwatch.metrics.tailfit import MINIMUM_EIGENVALUES

NOISE_SHARE = 0.95
"""From this share of a random matrix' effective rank on, a layer without an eigenvalue beyond the bulk is as good as random.

Of 300 untrained layers in 15 shapes (64 x 64 to 1024 x 256, convolutions 16 x 16 x 3 x 3 to 64 x 64 x 3 x 3) the share was
0.955 to 1.025, and none had an eigenvalue beyond the bulk. Of 96 trained layers of five published ResNets the largest was
0.940. No large language model was at hand; where the bulk of a trained layer is that of noise, too, its eigenvalues beyond the
bulk tell it from a random one.
"""

_NOT_READ = {
    FitStatus.TOO_SMALL: "too small",
    FitStatus.SHORT_TAIL: "short tail",
    FitStatus.POOR_FIT: "poor fit",
    FitStatus.DEGENERATE: "no fit",
}
_BROKEN, _UNSEEN = "broken", "not examined"


@dataclass(frozen=True, slots=True)
class ReadLayer:
    """A layer that can be read.

    Attributes:
        part: its part of the report.
        alpha, sigma: of a fit that is ok; None where only the effective rank can be read.
        noise_share: effective rank over that of a random matrix of the same shape, above 0; None where undefined.
    """

    part: LayerPart
    alpha: float | None
    sigma: float | None
    noise_share: float | None

    @property
    def is_like_noise(self) -> bool:
        """Whether its spectrum is that of a random matrix (the "random-like" phase of Martin & Mahoney 2021)."""
        return (
            self.noise_share is not None
            and self.noise_share >= NOISE_SHARE
            and self.part.metrics.num_spikes == 0
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """The layers with a spectrum.

    Attributes:
        layers: those that can be read, in the report's order.
        not_read: how many could not, by the reason in words.
    """

    layers: tuple[ReadLayer, ...]
    not_read: Counter[str]

    @property
    def total(self) -> int:
        """All layers with a spectrum, read or not."""
        return len(self.layers) + self.not_read.total()

    def in_words(self) -> str:
        """Such as ``18 of 20 layers readable (2 too small)``."""
        read = f"{len(self.layers)} of {self.total} layers readable"
        unread = ", ".join(f"{count} {why}" for why, count in self.not_read.most_common())
        return f"{read} ({unread})" if unread else read


def readable_layers(report: Report) -> Reading:
    """The layers of a report whose fit is ok, or whose spectrum needs no fit to be told from a trained one.

    Broken layers are not read: what broke them is all that their spectrum tells.
    """
    read: list[ReadLayer] = []
    not_read: Counter[str] = Counter()
    for part in report.layers:
        if len(part.shape) < 2 or part.kind == "missing":
            continue
        if part.status is LayerStatus.BROKEN:
            not_read[_BROKEN] += 1
        elif part.metrics.num_eigenvalues is None or part.metrics.fit_status is None:
            not_read[_UNSEEN] += 1
        elif (layer := _read(part)) is not None:
            read.append(layer)
        else:
            not_read[_NOT_READ.get(FitStatus(part.metrics.fit_status), _UNSEEN)] += 1
    return Reading(tuple(read), not_read)


def readable_alphas(report: Report) -> dict[str, tuple[float, float | None]]:
    """Alpha and its standard error by name of the layers whose fit is ok: one version for ``advice_on_history``."""
    return {
        layer.part.name: (layer.alpha, layer.sigma)
        for layer in readable_layers(report).layers
        if layer.alpha is not None
    }


def _read(part: LayerPart) -> ReadLayer | None:
    metrics = part.metrics
    alpha, sigma = metrics.alpha, metrics.alpha_sigma
    if metrics.fit_status != FitStatus.OK or alpha is None or sigma is None or not isfinite(alpha + sigma):
        alpha, sigma = None, None
    layer = ReadLayer(part, alpha, sigma, _noise_share(part))
    return layer if alpha is not None or layer.is_like_noise else None


def _noise_share(part: LayerPart) -> float | None:
    """Effective rank over that of random matrices with as many and as large views.

    The eigenvalues of an M x N random matrix have the mean entropy ln M - M / (2 N) (Page, Physical Review Letters
    71:1291, 1993), and k pooled spectra of one size together ln k more.
    """
    count, rank = part.metrics.num_eigenvalues, part.metrics.effective_rank
    if count is None or count < MINIMUM_EIGENVALUES or rank is None:
        return None
    longer, shorter = view_sides(LayerKind(part.kind), part.shape)
    return rank / (count * exp(-shorter / (2 * longer)))
