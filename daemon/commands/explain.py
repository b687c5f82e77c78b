"""``layerwatch explain RULE``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated

import typer

from layerwatch.metrics.rules import RULES


def explain(
    rule: Annotated[str | None, typer.Argument(help="Name of a rule; without it, all are listed.")] = None,
) -> None:
    """Say what a rule means, what to do about it, and what it cannot see."""
    if rule is None:
        width = max(len(one.name) for one in RULES)
        for one in RULES:
            typer.echo(f"{one.name:<{width}}  {one.title}")
        return
    for one in RULES:
        if one.name == rule:
            typer.echo(f"{one.name}: {one.title}\n\n{one.explanation}")
            return
    names = [one.name for one in RULES]
    near = get_close_matches(rule, names, n=3, cutoff=0.5)
    if near:
        typer.echo(f"there is no rule {rule!r}; did you mean {' or '.join(near)}?", err=True)
    else:
        typer.echo(f"there is no rule {rule!r}; there are:", err=True)
        for name in names:
            typer.echo(f"  {name}", err=True)
    raise typer.Exit(2)
