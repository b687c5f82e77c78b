"""The numbers of a layer in the order in which they are read, each with what it means and where it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Style = Literal["fixed", "short", "percent"]

_CLAUSET = "Clauset, Shalizi & Newman 2009"
_MARTIN = "Martin & Mahoney 2021"
_PENG = "Martin, Peng & Mahoney 2021"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One number.

    Attributes:
        field: of ``LayerMetrics``.
        error: field of its standard error; empty without one.
        style: ``fixed`` for numbers near one, ``short`` for those of any size.
        source: whose definition it is; empty for what needs none.
    """

    field: str
    title: str
    words: str
    source: str = ""
    style: Style = "short"
    error: str = ""


GROUPS: tuple[tuple[str, tuple[Meaning, ...]], ...] = (
    (
        "Tail of the spectrum",
        (
            Meaning(
                "alpha",
                "alpha",
                "exponent of the power law in the tail: 2 to 6 is usual for trained layers; compare with the baseline",
                _MARTIN,
                "fixed",
                "alpha_sigma",
            ),
            Meaning(
                "ks_distance",
                "KS distance D",
                "between the tail and the fitted power law: small is a good fit",
                _CLAUSET,
                "fixed",
            ),
            Meaning("xmin", "xmin", "eigenvalue at which the tail begins", _CLAUSET),
            Meaning("tail_size", "tail size", "eigenvalues in the tail", _CLAUSET),
            Meaning("num_eigenvalues", "eigenvalues", "all of them"),
            Meaning(
                "hill_alpha",
                "Hill alpha",
                "exponent of the upper half, without a choice of xmin",
                "Hill 1975",
                "fixed",
            ),
            Meaning(
                "farms_alpha",
                "FARMS alpha",
                "the same on square windows: 2.11 for noise of any shape",
                "arXiv:2506.06280",
                "fixed",
            ),
            Meaning(
                "exponential_ratio",
                "against an exponential",
                "likelihood ratio: positive speaks for the power law",
                _CLAUSET,
                "fixed",
            ),
            Meaning("exponential_p", "its p", "chance of such a ratio where both fit equally well", _CLAUSET),
            Meaning(
                "truncated_ratio",
                "against a cut-off",
                "likelihood that an end of the tail adds to the power law",
                _CLAUSET,
                "fixed",
            ),
            Meaning("truncated_p", "its p", "small where the tail ends earlier than a power law", _CLAUSET),
            Meaning(
                "erg_tail",
                "ERG tail",
                "size of the tail by the trace-log condition",
                "Martin & Hinrichs 2025",
            ),
            Meaning("erg_gap", "ERG gap", "how much it exceeds the power-law tail", "Martin & Hinrichs 2025"),
        ),
    ),
    (
        "Size",
        (
            Meaning(
                "log_norm", "log norm", "log10 of the squared Frobenius norm: the sum of eigenvalues", _PENG
            ),
            Meaning("log_spectral_norm", "log spectral norm", "log10 of the largest eigenvalue", _PENG),
            Meaning("log_alpha_norm", "log alpha norm", "log10 of the sum of eigenvalues^alpha", _PENG),
            Meaning("alpha_hat", "alpha hat", "alpha times the log spectral norm", _PENG, "fixed"),
            Meaning("max_abs", "largest weight", "largest absolute value of an element"),
        ),
    ),
    (
        "Rank",
        (
            Meaning(
                "stable_rank",
                "stable rank",
                "sum of eigenvalues over the largest: near 1, one direction carries the layer",
                "Rudelson & Vershynin 2007",
                "fixed",
            ),
            Meaning(
                "effective_rank",
                "effective rank",
                "exp of the entropy: how many directions are used",
                "after Roy & Vetterli 2007",
                "fixed",
            ),
            Meaning(
                "entropy",
                "entropy",
                "of the spectrum, over its largest possible value",
                "after Roy & Vetterli 2007",
                "fixed",
            ),
            Meaning("rank_loss", "rank loss", "singular values that rounding by itself could have made"),
        ),
    ),
    (
        "Against randomness",
        (
            Meaning(
                "mp_bulk_edge",
                "bulk edge",
                "where the random bulk of eigenvalues ends",
                "Marchenko & Pastur 1967",
            ),
            Meaning("num_spikes", "spikes", "eigenvalues that stand out above the bulk", _MARTIN),
            Meaning(
                "mp_softrank",
                "soft rank",
                "bulk edge over the largest eigenvalue: near 1 is noise",
                _MARTIN,
                "fixed",
            ),
            Meaning(
                "small_end_share",
                "small end",
                "share of eigenvalues below the bulk",
                "Staats, Thamm & Rosenow 2024",
                "percent",
            ),
            Meaning(
                "traps",
                "traps",
                "eigenvalues that stand out although the elements were shuffled: huge elements, or a mean",
                _MARTIN,
            ),
            Meaning("largest_trap", "largest trap", "over the edge of noise", _MARTIN, "fixed"),
            Meaning("kurtosis", "kurtosis", "of the elements: 3 for a Gaussian", "", "fixed"),
        ),
    ),
    (
        "Elements",
        (
            Meaning("non_finite", "NaN or infinite", "elements that are no numbers"),
            Meaning("zero_share", "zeros", "share of elements that are exactly zero", "", "percent"),
        ),
    ),
)

CHANGES: tuple[Meaning, ...] = (
    Meaning(
        "relative_change",
        "relative change",
        "norm of the difference over the baseline's norm: 0 unchanged, 1.41 unrelated",
        "",
        "fixed",
        "relative_change_error",
    ),
    Meaning(
        "cosine",
        "cosine",
        "direction beside the baseline's: 1 the same, 0 unrelated",
        "",
        "fixed",
        "cosine_error",
    ),
    Meaning("norm_ratio", "norm", "times the baseline's"),
    Meaning("spectral_ratio", "largest singular value", "times the baseline's"),
    Meaning("max_abs_ratio", "largest weight", "times the baseline's"),
    Meaning("stable_rank_ratio", "stable rank", "times the baseline's"),
    Meaning("effective_rank_ratio", "effective rank", "times the baseline's"),
    Meaning(
        "esd_distance",
        "spectra apart",
        "largest gap between both distributions of eigenvalues, each over its mean",
        "",
        "fixed",
    ),
    Meaning("alpha_shift", "alpha moved by", "alpha minus the baseline's", "", "fixed"),
    Meaning(
        "alpha_shift_sigmas",
        "in sigmas",
        "the same in standard errors of both: below 3 it may be chance",
        "",
        "fixed",
    ),
    Meaning("new_zero_rows", "new zero rows", "rows that became zero"),
    Meaning("new_zero_columns", "new zero columns", "columns that became zero"),
)
"""Fields of ``ChangePart``."""
