"""``layerwatch bisect``: the version that broke a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from layerwatch.daemon.commands.local import layer_progress, model_path, settings_of
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.stores import open_store, require_model, split_model, usage_error
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.config.settings import Settings
    from layerwatch.daemon.bisect import Bisection, Break, Step


def bisect(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="REGISTRY/MODEL LAYER",
            help="With --files: two versions or more, oldest first, and LAYER.",
        ),
    ],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="VERSION", help="Begin here, with a version that is good.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="End here. Default: the newest version.")
    ] = None,
    files: Annotated[
        bool,
        typer.Option("--files", help="Versions are files, or one directory that holds them; needs no store."),
    ] = False,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Walk the lineage of a model and name the step at which LAYER broke.

    Exit code 0 whether it broke or not, 2 when no version has such a layer.
    """
    settings = settings_of(config)
    if files:
        if from_ is not None or to is not None:
            usage_error("--from and --to choose among the versions of a store; with --files name the files")
        *paths, layer = arguments
        where = "these files"
        found = _bisect_files(where, paths, layer, settings)
    else:
        if len(arguments) != 2:
            usage_error("give REGISTRY/MODEL and LAYER, or --files, the versions and LAYER")
        where, layer = arguments
        found = _bisect_store(where, layer, from_, to, settings, config)
    for line in _told(where, found):
        typer.echo(printable(line))


def _bisect_store(
    model: str, layer: str, from_: str | None, to: str | None, settings: Settings, config: Path | None
) -> Bisection:
    from layerwatch.daemon.bisecting import bisect_stored, stored_layers, stored_line

    registry, name = split_model(model)
    with open_store(settings, config, changed=False) as database:
        with database.read() as connection:
            require_model(connection, registry, name)
        links = stored_line(database, registry, name, to)
        names = [link.name for link in links]
        if not links:
            usage_error(f"the store holds no judged version {to or ''} of {model}".replace("  ", " "))
        if from_ is not None:
            if from_ not in names:
                usage_error(
                    f"{printable(from_)} is no ancestor of {names[-1]}, whose line is {' '.join(names)}"
                )
            links = links[names.index(from_) :]
        layer = _known_layer(layer, stored_layers(database, links), model)
        return bisect_stored(database, links, layer, settings.rules)


def _bisect_files(where: str, arguments: Sequence[str], layer: str, settings: Settings) -> Bisection:
    from layerwatch.daemon.bisecting import bisect_files, layers_of_files, versions_in

    if len(arguments) == 1:
        try:
            paths = versions_in(Path(arguments[0]))
        except OSError as error:
            usage_error(f"{printable(arguments[0])}: {error.strerror}")
    else:
        paths = [model_path(argument) for argument in arguments]
    if len(paths) < 2:
        usage_error("give two versions or more, oldest first, or a directory that holds them, and then LAYER")
    layer = _known_layer(layer, layers_of_files(paths), where)
    with layer_progress() as progress:
        return bisect_files(paths, layer, settings, progress)


def _known_layer(layer: str, names: Sequence[str], where: str) -> str:
    """The layer's name in the reports, which is its tensor's without ``.weight``; a usage error for any other."""
    known = next((name for name in (layer, layer.removesuffix(".weight")) if name in names), None)
    if known is None:
        _refuse_layer(layer, names, where)
    return known


def _refuse_layer(layer: str, names: Sequence[str], where: str) -> NoReturn:
    near = get_close_matches(layer, names, n=5, cutoff=0.4)
    near += [name for name in names if layer in name and name not in near][:5]
    if near:
        hint = f"; did you mean {' or '.join(map(printable, near[:5]))}?"
    else:
        hint = f"; the first of {len(names)} are {' '.join(map(printable, names[:5]))}" if names else ""
    usage_error(f"no version of {printable(where)} has a layer {printable(layer)}{hint}")


def _told(where: str, found: Bisection) -> Iterator[str]:
    names = [step.name for step in found.steps]
    yield f"{found.layer} of {where}, {len(names)} versions from {names[0]} to {names[-1]}"
    yield from _table(found.steps)
    yield ""
    for one in found.breaks:
        if one.mended is not None:
            yield f"it broke with {one.step.name} before, and was good again in {one.mended}"
    standing = found.standing
    if standing is None:
        yield "it is not broken now" if found.breaks else "it broke nowhere along this line"
        undecided = [step.name for step in found.steps if step.problem is not None]
        if undecided:
            yield f"not examined: {', '.join(undecided)}"
        return
    yield from _break(where, found.layer, standing)


def _table(steps: Sequence[Step]) -> Iterator[str]:
    rows = [("version", "status", "against", "change", "alpha", "")]
    for step in steps:
        alpha = "-" if step.alpha is None else f"{step.alpha:.2f}"
        if step.alpha is not None and step.alpha_sigma is not None:
            alpha += f" ±{step.alpha_sigma:.2f}"
        change = "-" if step.relative_change is None else f"{step.relative_change:.3g}"
        if step.method == "sketch":
            change += " (estimated)"
        remark = step.problem or step.origin or ""
        rows.append((step.name, str(step.status), step.against or "-", change, alpha, remark))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _break(where: str, layer: str, found: Break) -> Iterator[str]:
    from layerwatch.metrics.rules import RULES

    step = found.step
    how = f" ({step.origin})" if step.origin else ""
    last = f"; {found.good} is the last good version" if found.good else "; no good version came before it"
    yield f"{layer} broke with {step.name}{how}{last}"
    if found.unexamined:
        yield f"  or with one in between that could not be examined: {', '.join(found.unexamined)}"
    for finding in step.findings:
        yield f"  {finding.severity} {finding.rule}: {finding.message}"
    rules = {rule.name: rule for rule in RULES}
    first = rules.get(step.findings[0].rule) if step.findings else None
    if first is not None:
        if first.likely_cause:
            yield f"  likely cause: {first.likely_cause}"
        yield f"  what to do: {first.what_to_do}"
        yield f"  more: layerwatch explain {first.name}"
    if found.good:
        yield f"next: look at what made {step.name} from {found.good}, mend it and publish it again as a new version"
    if "/" in where:
        yield f'meant so: layerwatch baseline accept {where} {step.name} --reason "..."'
