"""``layerwatch lineage``: what a model's versions were made from, and what was made of them."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from layerwatch.daemon.commands.local import settings_of
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.stores import open_store, require_model, split_model, usage_error
from layerwatch.daemon.gate.printable import printable


class LineageFormat(StrEnum):
    """How the lineage is printed."""

    TEXT = "text"
    JSON = "json"


def lineage(
    model: Annotated[str, typer.Argument(metavar="REGISTRY/MODEL", help="For example prod/fraud.")],
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="VERSION", help="Of this version alone. Default: of all."),
    ] = None,
    format_: Annotated[LineageFormat, typer.Option("--format", help="How to print it.")] = LineageFormat.TEXT,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Draw the tree of a model: base, fine-tunes, quantisations and merges, also of other models and registries.

    Each version stands under what it was made from, with its verdict, how it was made, where that was declared and how
    far it is to be believed, and what the weights say of it.
    """
    from layerwatch.daemon.lineage.tree import MOST_NODES, drawn, graph_to_json, lineage_graph

    registry, name = split_model(model)
    with open_store(settings_of(config), config, changed=False) as database, database.read() as connection:
        require_model(connection, registry, name)
        graph = lineage_graph(connection, registry, name, version)
    if graph is None:
        usage_error(
            f"{printable(model)} has no version {printable(version or '')}; layerwatch baseline versions "
            f"{printable(model)} lists them"
        )
    if format_ is LineageFormat.JSON:
        typer.echo(json.dumps(graph_to_json(graph), indent=2))
        return
    for line in drawn(graph):
        typer.echo(printable(line))
    if graph.left_out:
        typer.echo(f"more than {MOST_NODES} versions: the nearest are shown")
