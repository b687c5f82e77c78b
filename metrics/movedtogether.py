"""Layers whose units moved together, with a training on top: the same function, although neither looks like itself.

Norms tell an exact copy in another order (``carried.py``). Once it was trained further no number is equal any more, but
the units of the layers are still in step with each other as strongly as the baseline's are: had one of them been
permuted alone, nothing of that would be left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from layerwatch.metrics.coupling import CouplingKind
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.outofstep import STRONG, compared_couplings, suspects

_BY_UNIT = frozenset(
    {
        CouplingKind.FEED_FORWARD_UNITS,
        CouplingKind.FEED_FORWARD_NORMS,
        CouplingKind.QUERY_KEY_UNITS,
        CouplingKind.QUERY_KEY_NORMS,
        CouplingKind.VALUE_OUTPUT_UNITS,
        CouplingKind.VALUE_OUTPUT_NORMS,
        CouplingKind.INTERFACE_UNITS,
        CouplingKind.INTERFACE_NORMS,
    }
)
_UNLIKE = 0.5
_KEPT = 0.8
_SIZE = 1.25
"""Order says nothing about size: a layer whose norm moved by more is judged."""

_ABOUT_PLACES = frozenset(
    {
        "permuted",
        "replaced",
        "rows_replaced",
        "relative_change",
        "spectral_change",
        "transposed",
        "beyond_conversion",
    }
)
"""Rules that hold each element, or row, against the one at its place."""


def moved_together(examination: Examination, context: Context, evidence: float) -> dict[str, str]:
    """Layers that are unlike their own baseline and in step with a partner that is so too: name -> partner.

    Only where most layers still align.

    Args:
        evidence: a layer that the couplings speak against this strongly, or more, is left out.
    """
    if not context.regime.comparable or not examination.couplings or not examination.baseline_couplings:
        return {}
    unlike = {
        layer.name
        for layer in examination.layers
        if layer.change is not None
        and layer.change.aligned is not None
        and layer.change.aligned.cosine is not None
        and layer.change.aligned.cosine < _UNLIKE
        and layer.change.norm_ratio is not None
        and 1.0 / _SIZE < layer.change.norm_ratio < _SIZE
    }
    if len(unlike) < 2:
        return {}
    compared = compared_couplings(examination.couplings, examination.baseline_couplings)
    suspected = {suspect.layer for suspect in suspects(compared) if suspect.evidence >= evidence}
    partners: dict[str, str] = {}
    for one in compared:
        pair = [layer for layer in one.coupling.layers if layer in unlike - suspected]
        if one.coupling.kind in _BY_UNIT and len(pair) == 2 and one.now >= max(STRONG, _KEPT * one.before):
            partners[pair[0]], partners[pair[1]] = pair[1], pair[0]
    return partners


def excused(findings: Iterable[Finding], partners: Mapping[str, str]) -> list[Finding]:
    """The same findings; those about places in layers that moved together are information."""
    return [_excused(finding, partners) for finding in findings]


def _excused(finding: Finding, partners: Mapping[str, str]) -> Finding:
    partner = partners.get(finding.layer or "")
    if partner is None or finding.rule not in _ABOUT_PLACES:
        return finding
    return replace(
        finding,
        severity=Severity.INFO,
        message=f"{finding.message}; its units are in step with those of {partner}, which moved with it: the order "
        "changed, the function did not",
    )
