"""The marks of statuses and verdicts: a shape of its own for each, so that colour is never needed to tell them apart."""

from __future__ import annotations

from markupsafe import Markup

from layerwatch.daemon.web.charts.drawing import Key, tag, units
from layerwatch.metrics.findings import LayerStatus, Verdict

UNJUDGED = "not judged"

_LEAST_CROSSED = 3.0
"""Of smaller squares a cross would leave nothing."""

_LIKE_STATUS = {
    Verdict.PASS: LayerStatus.OK,
    Verdict.WARN: LayerStatus.SUSPECT,
    Verdict.FAIL: LayerStatus.BROKEN,
    Verdict.UNDECIDED: LayerStatus.UNDECIDED,
}


def mark_class(judged: LayerStatus | Verdict | None) -> str:
    """Name of its class: that of a status, also for verdicts."""
    if judged is None:
        return "unjudged"
    return (_LIKE_STATUS[judged] if isinstance(judged, Verdict) else judged).value


def mark(judged: LayerStatus | Verdict | None, radius: float) -> Markup:
    """The mark around the origin.

    ok: a disc; info: a ring; suspect: a triangle; broken: a square with a cross; undecided: a hollow diamond; not
    judged: a dashed ring.
    """
    name = mark_class(judged)
    drawn = tag("path", class_=f"mark {name}", d=_outline(name, radius))
    if name != LayerStatus.BROKEN or radius < _LEAST_CROSSED:
        return drawn
    arm = units(radius * 0.55)
    cross = f"M-{arm} -{arm}L{arm} {arm}M-{arm} {arm}L{arm} -{arm}"
    return drawn + tag("path", class_="cross", d=cross)


def mark_key(judged: LayerStatus | Verdict | None, words: str = "") -> Key:
    """The mark in a legend."""
    sample = tag("g", mark(judged, 4.5), transform="translate(9 6)")
    return Key(sample, words or (UNJUDGED if judged is None else judged.value))


def _outline(name: str, radius: float) -> str:
    r = units(radius)
    if name == LayerStatus.SUSPECT:
        tall, wide = units(radius * 1.25), units(radius * 1.2)
        return f"M0 -{tall}L{wide} {units(radius * 0.85)}H-{wide}Z"
    if name == LayerStatus.BROKEN:
        return f"M-{r} -{r}H{r}V{r}H-{r}Z"
    if name == LayerStatus.UNDECIDED:
        far = units(radius * 1.25)
        return f"M0 -{far}L{far} 0L0 {far}L-{far} 0Z"
    return f"M-{r} 0a{r} {r} 0 1 1 {units(2 * radius)} 0a{r} {r} 0 1 1 -{units(2 * radius)} 0Z"
