"""``layerwatch backtest``: what would have fired with other settings, before they go live."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerwatch.config.composites import COMPOSITES
from layerwatch.config.environment import variable_name
from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.settings import Settings
from layerwatch.config.tree import dotted, key_paths
from layerwatch.config.wording import nearest
from layerwatch.daemon.commands.run import CONFIG_OPTION, found_config
from layerwatch.daemon.commands.stores import open_store, require_model, split_model, usage_error
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.daemon.backtest import Replay
    from layerwatch.daemon.store.database import Database
    from layerwatch.metrics.findings import Finding

_BUDGET = "rules.false_alarms_per_1000_versions"


class BacktestFormat(StrEnum):
    """How the replay is printed."""

    TABLE = "table"
    JSON = "json"


def backtest(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[REGISTRY/MODEL]...", help="Default: every model.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of rules, such as rules.scaled.cosine=0.9."),
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            "--false-alarms", metavar="N", help="The alarm budget: false alarms per 1,000 versions."
        ),
    ] = None,
    format_: Annotated[
        BacktestFormat, typer.Option("--format", help="How to print the result.")
    ] = BacktestFormat.TABLE,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Judge the stored versions anew with the rules of --config, --set and --false-alarms, and compare.

    Reads only the store that --config names, which a running daemon may be using, and changes nothing. Exit code 0
    whatever would have fired.
    """
    from layerwatch.daemon.backtest import replay_model
    from layerwatch.metrics.findings import Severity

    changes = _changes(set_ or [], false_alarms)
    settings = _settings(config, changes)
    wanted = [split_model(model) for model in models or []]
    fire_on = Severity(settings.alerts.fire_on)
    replays: list[Replay] = []
    with open_store(settings, config, changed=False) as database:
        for registry, model in _models(database, wanted):
            replays.extend(replay_model(database, registry, model, settings.rules, fire_on))
    if format_ is BacktestFormat.JSON:
        typer.echo(json.dumps(_as_json(replays, changes), indent=2))
    else:
        for line in (*_lines(replays), _summary(replays)):
            typer.echo(line)


def _changes(assignments: Sequence[str], false_alarms: float | None) -> dict[str, str]:
    """Key -> value as text."""
    known = [dotted(path) for path in key_paths() if path[0] == "rules" and len(path) > 1]
    changes = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not value:
            usage_error(
                f"--set {printable(assignment)}: must be KEY=VALUE, for example rules.scaled.cosine=0.9"
            )
        if key not in known:
            near = nearest(key, known) or nearest(f"rules.{key}", known)
            hint = f"; did you mean {near}?" if near else "; layerwatch config print lists the keys of rules"
            usage_error(f"--set {printable(key)}: is no key of the rules{hint}")
        changes[key] = value
    if false_alarms is not None:
        changes[_BUDGET] = str(false_alarms)
    return changes


def _settings(config: Path | None, changes: Mapping[str, str]) -> Settings:
    """The settings with the changes laid over them as environment variables are."""
    variables = {variable_name(tuple(key.split("."))): value for key, value in changes.items()}
    try:
        return load_settings(found_config(config), {**os.environ, **variables})
    except ConfigError as error:
        usage_error(str(error))


def _models(database: Database, wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    from layerwatch.daemon.store import versions

    with database.read() as connection:
        # Composites have no weights: what became of them follows from their members.
        known = [key for key in versions.all_models(connection) if key[0] != COMPOSITES]
        for registry, model in wanted:
            require_model(connection, registry, model)
    return [key for key in known if not wanted or key in wanted]


def _lines(replays: Sequence[Replay]) -> list[str]:
    lines = []
    by_model: dict[tuple[str, str], list[Replay]] = {}
    for replay in replays:
        by_model.setdefault((replay.registry, replay.model), []).append(replay)
    for (registry, model), found in by_model.items():
        changed = sum(not replay.is_unchanged for replay in found)
        lines.append(printable(f"{registry}/{model}: {len(found)} versions, {changed} changed"))
        for replay in found:
            lines.extend(printable(line) for line in _version_lines(replay))
    return lines


def _version_lines(replay: Replay) -> list[str]:
    """Nothing for a version that fired nothing, then and now."""
    against = f" against {replay.baseline}" if replay.baseline else ""
    name = replay.version if replay.revision == 1 else f"{replay.version} (revision {replay.revision})"
    if replay.not_replayed is not None:
        return [f"  {name}  {replay.verdict}{against}: not replayed: {replay.not_replayed}"]
    if replay.is_unchanged and not replay.alarms:
        return []
    same = replay.verdict is replay.new_verdict
    lines = [f"  {name}  {replay.verdict if same else f'{replay.verdict} -> {replay.new_verdict}'}{against}"]
    lines += [f"    + {_alarm(alarm)}: {alarm.message}" for alarm in replay.appeared]
    lines += [f"    - {_alarm(alarm)}: {alarm.message}" for alarm in replay.vanished]
    gone = set(map(_alarm, replay.vanished))
    kept = [_alarm(alarm) for alarm in replay.alarms if _alarm(alarm) not in gone]
    if kept:
        lines.append(f"    = {', '.join(dict.fromkeys(kept))}")
    if replay.was_judged_by_other_rules and not replay.is_unchanged:
        lines.append(
            f"    judged then by rule set {replay.rule_set}: the rules themselves may be the difference"
        )
    return lines


def _alarm(alarm: Finding) -> str:
    return f"{alarm.layer}: {alarm.rule}" if alarm.layer is not None else alarm.rule


def _summary(replays: Sequence[Replay]) -> str:
    totals = _totals(replays)
    left_out = totals["not_replayed"]
    note = f"; {left_out} could not be replayed" if left_out else ""
    return (
        f"with these settings {totals['would_page']} of {totals['versions']} versions would have paged (now "
        f"{totals['paged']}): {totals['new_alarms']} new alarms, {totals['alarms_gone']} gone{note}"
    )


def _totals(replays: Sequence[Replay]) -> dict[str, int]:
    replayed = [replay for replay in replays if replay.not_replayed is None]
    return {
        "versions": len(replayed),
        "not_replayed": len(replays) - len(replayed),
        "paged": sum(bool(replay.alarms) for replay in replayed),
        "would_page": sum(bool(replay.new_alarms) for replay in replayed),
        "new_alarms": sum(len(replay.appeared) for replay in replayed),
        "alarms_gone": sum(len(replay.vanished) for replay in replayed),
    }


def _as_json(replays: Sequence[Replay], changes: Mapping[str, str]) -> dict[str, Any]:
    return {
        "changes": dict(changes),
        "totals": _totals(replays),
        "versions": [
            {
                "registry": replay.registry,
                "model": replay.model,
                "version": replay.version,
                "revision": replay.revision,
                "baseline": replay.baseline,
                "verdict": str(replay.verdict),
                "new_verdict": str(replay.new_verdict) if replay.new_verdict is not None else None,
                "alarms": [_alarm_as_json(alarm) for alarm in replay.alarms],
                "new_alarms": [_alarm_as_json(alarm) for alarm in replay.new_alarms],
                "appeared": [_alarm_as_json(alarm) for alarm in replay.appeared],
                "gone": [_alarm_as_json(alarm) for alarm in replay.vanished],
                "not_replayed": replay.not_replayed,
                "rule_set": replay.rule_set,
            }
            for replay in replays
        ],
    }


def _alarm_as_json(alarm: Finding) -> dict[str, str | None]:
    return {
        "rule": alarm.rule,
        "severity": str(alarm.severity),
        "layer": alarm.layer,
        "message": alarm.message,
    }
