"""Composites: an ensemble, a soup or a pipeline is as healthy as its members."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layerwatch.metrics.findings import Verdict

_ORDER = (Verdict.PASS, Verdict.WARN, Verdict.UNDECIDED, Verdict.FAIL)
"""From best to worst; what is known to be bad outweighs what is not known."""


@dataclass(frozen=True, slots=True)
class MemberVerdict:
    """What is known of one member of a composite.

    Attributes:
        name: ``registry/model@ref``.
        version: the version that the ref points at now; None when there is no such ref.
        verdict: that version's verdict; None when there is none, or it was not judged yet.
        changed_from: the version that the composite was judged with before, when it is another one; else None.
    """

    name: str
    version: str | None
    verdict: Verdict | None
    changed_from: str | None = None


def composite_verdict(members: Iterable[MemberVerdict]) -> Verdict:
    """The worst of the members' verdicts; a member that is not there, or not judged yet, is undecided.

    A composite without members passes.
    """
    return worst_verdict(member.verdict or Verdict.UNDECIDED for member in members)


def worst_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts; a pass for none. Undecided is worse than a warning and better than a fail."""
    return max(verdicts, key=_ORDER.index, default=Verdict.PASS)


def with_changes(
    members: Sequence[MemberVerdict], judged_with: Iterable[tuple[str, str]]
) -> tuple[MemberVerdict, ...]:
    """The members, each with the version that it had when the composite was judged last, where that was another.

    Args:
        members: as they are now.
        judged_with: (name, version) pairs of that time; a member that was not one then has not changed.
    """
    before = dict(judged_with)
    return tuple(
        MemberVerdict(
            member.name,
            member.version,
            member.verdict,
            before[member.name] if before.get(member.name, member.version) != member.version else None,
        )
        for member in members
    )
