"""``layerwatch gate MODEL``: measure, judge, and answer with the exit code."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwatch.config.errors import ConfigError
from layerwatch.daemon.commands.attesting import (
    AttestOption,
    KeylessOption,
    KeyOption,
    PassphraseOption,
    TrustConfigOption,
    signing_of,
    without_older,
)
from layerwatch.daemon.commands.local import (
    CANNOT_EXAMINE,
    layer_progress,
    output_path,
    scanning,
    settings_of,
    write_output,
)
from layerwatch.daemon.commands.models import given_model, named
from layerwatch.daemon.commands.plots import KeptLayers
from layerwatch.daemon.commands.reports import deliver
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.stores import usage_error
from layerwatch.daemon.gate.facts import ignore_remarks
from layerwatch.daemon.gate.formats.gateformat import GateFormat
from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.relation import Relation

if TYPE_CHECKING:
    from layerwatch.config.scan import ScanSettings
    from layerwatch.daemon.gate.cache import MeasurementCache
    from layerwatch.daemon.gate.ignorefile import IgnoreFile


class FailOn(StrEnum):
    """From which severity on a finding fails the gate."""

    WARNING = "warning"
    CRITICAL = "critical"


def gate(
    model: Annotated[str, typer.Argument(help="File, directory or address (mlflow:/name@alias) of weights.")],
    baseline: Annotated[str | None, typer.Option(help="The same, to compare with.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Severity from which a finding fails.")] = FailOn.CRITICAL,
    fail_new: Annotated[
        bool, typer.Option("--fail-new", help="Only findings that the baseline by itself lacks fail.")
    ] = False,
    relation: Annotated[Relation | None, typer.Option(help="How MODEL came from the baseline.")] = None,
    allow_undecided: Annotated[
        bool, typer.Option("--allow-undecided", help="Exit 0 although something could not be examined.")
    ] = False,
    ignore_file: Annotated[
        Path | None,
        typer.Option(help="YAML file of accepted findings: rule, layer, model, reason and expires of each."),
    ] = None,
    format_: Annotated[
        GateFormat, typer.Option("--format", help="How to print the report.")
    ] = GateFormat.TEXT,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    show_suppressed: Annotated[
        bool, typer.Option("--show-suppressed", help="List what the ignore file suppresses; for text.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep measurements here, for the next time; layerwatch/gate in $XDG_CACHE_HOME by default.",
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Measure everything anew, and keep nothing.")
    ] = False,
    as_if: Annotated[
        str | None,
        typer.Option(
            "--as-if",
            metavar="REF=VERSION",
            help="Read nothing; say by the daemon's store which alerts this promotion of REGISTRY/MODEL would raise.",
        ),
    ] = None,
    attest: AttestOption = None,
    attest_key: KeyOption = None,
    attest_passphrase: PassphraseOption = None,
    attest_keyless: KeylessOption = False,
    trust_config: TrustConfigOption = None,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Judge MODEL for a pipeline.

    Exit codes: 0 nothing at or above the threshold; 1 findings at or above it; 2 usage or configuration error;
    3 something could not be examined, or the verdict not be signed.
    """
    from layerwatch.daemon.gate.engine import examine_files
    from layerwatch.daemon.gate.outcome import GatePolicy, decided

    # Also where anything below ends the run.
    inputs = [
        Path(model),
        Path(baseline) if baseline else None,
        attest_key,
        ignore_file,
        trust_config,
        config,
    ]
    without_older(attest, inputs)
    output = output_path(output)
    signing = signing_of(attest, attest_key, attest_passphrase, attest_keyless, trust_config)
    settings = settings_of(config)
    if as_if is not None:
        from layerwatch.daemon.commands.asif import ask

        if baseline is not None or relation is not None:
            usage_error("--as-if asks the daemon's store: --baseline and --relation have no place beside it")
        if fail_new or ignore_file is not None or format_ not in (GateFormat.TEXT, GateFormat.JSON):
            usage_error("--as-if answers by stored alerts, as text or json: no --fail-new, no --ignore-file")
        if signing is not None:
            usage_error("--as-if reads no bytes, so there is nothing that --attest could sign")
        answer, code = ask(model, as_if, Severity(fail_on), settings, config, format_ is GateFormat.JSON)
        write_output(answer, output)
        raise typer.Exit(0 if code == CANNOT_EXAMINE and allow_undecided else code)
    if fail_new and baseline is None:
        usage_error("--fail-new compares with the findings of the baseline: give --baseline")
    ignores = _ignore_file(ignore_file, datetime.now(UTC).date())
    measurements = _cache(cache, no_cache, settings.scan)
    drawn = KeptLayers()
    with ExitStack() as stack:
        given = stack.enter_context(given_model(model, settings))
        before = stack.enter_context(given_model(baseline, settings)) if baseline is not None else None
        if before is None:
            typer.echo(
                "warning: without --baseline only missing numbers and empty layers can be seen", err=True
            )
        progress = stack.enter_context(layer_progress())
        with scanning():
            report = examine_files(
                given.path,
                before.path if before else None,
                str(relation) if relation else None,
                settings,
                progress,
                keep=drawn.keep if format_ is GateFormat.HTML else None,
                cache=measurements,
                mark_new=fail_new,
            )
        policy = GatePolicy(Severity(fail_on), fail_new, allow_undecided)
        report = decided(named(report, given, before), policy, ignores, datetime.now(UTC).date())
        # While the files of a remote model are still there.
        signed = signing is None or signing.write(report, given.path, settings.rules, datetime.now(UTC))
    if cache is not None and measurements is not None and measurements.trouble is not None:
        typer.echo(printable(f"warning: the cache cannot be written: {measurements.trouble}"), err=True)
    for remark in ignore_remarks(report):
        typer.echo(printable(f"warning: {remark}"), err=True)
    # The report is finished here: nothing below changes it.
    deliver(report, format_, output, show_suppressed, drawn.spectra)
    assert report.gate is not None
    raise typer.Exit(report.gate.exit_code or (0 if signed else CANNOT_EXAMINE))


def _ignore_file(path: Path | None, today: date) -> IgnoreFile | None:
    if path is None:
        return None
    from layerwatch.daemon.gate.ignorefile import read_ignore_file

    try:
        return read_ignore_file(path, today)
    except ConfigError as error:
        usage_error(str(error))


def _cache(folder: Path | None, none: bool, scan: ScanSettings) -> MeasurementCache | None:
    """The cache in the given folder, or the usual one; a machine without a home has none unless it is given."""
    from layerwatch.daemon.gate.cache import MeasurementCache

    if none:
        if folder is not None:
            usage_error("--cache and --no-cache exclude each other")
        return None
    if folder is not None and folder.exists() and not folder.is_dir():
        usage_error(f"{folder}: is not a directory")
    if folder is None:
        base = os.environ.get("XDG_CACHE_HOME")
        try:
            folder = (Path(base) if base else Path.home() / ".cache") / "layerwatch" / "gate"
        except RuntimeError:
            return None
    return MeasurementCache(folder, scan)
