"""``layerwatch verify ENVELOPE MODEL``: hold a signed verdict against a model as it lies there now."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from layerwatch.config.quantities import parse_duration
from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason
from layerwatch.daemon.attestation.policy import Policy, Requirement, shortcomings, told_rules
from layerwatch.daemon.commands.attesting import TrustConfigOption
from layerwatch.daemon.commands.local import CANNOT_EXAMINE, settings_of
from layerwatch.daemon.commands.models import given_model
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.stores import usage_error
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.daemon.attestation.statement import JudgingRules, Predicate, Statement
    from layerwatch.metrics.manifest import Manifest

NOT_GOOD_ENOUGH = 1
CANNOT_VERIFY = CANNOT_EXAMINE


class VerifyFormat(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


def verify(
    envelope: Annotated[Path, typer.Argument(help="File that gate --attest wrote.")],
    model: Annotated[str, typer.Argument(help="File, directory or address (mlflow:/name@alias) of weights.")],
    key: Annotated[
        list[Path] | None,
        typer.Option(help="Public key (PEM) of who may sign; may be given several times."),
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="Who must have signed without a key; with --issuer.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="Who vouches for that identity (OpenID Connect).")
    ] = None,
    trust_config: TrustConfigOption = None,
    require: Annotated[
        Requirement,
        typer.Option(
            help="How good it must be: pass; warn (or pass); gate (the gate's exit code was 0); any.",
        ),
    ] = Requirement.PASS,
    max_age: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How old it may be, for example 30d.")
    ] = None,
    baseline_fingerprint: Annotated[
        str | None, typer.Option(metavar="SHA256", help="What the model must have been held against.")
    ] = None,
    format_: Annotated[
        VerifyFormat, typer.Option("--format", help="How to print the answer.")
    ] = VerifyFormat.TEXT,
    allow_no_baseline: Annotated[
        bool, typer.Option("--allow-no-baseline", help="Take pass and warn without a baseline, too.")
    ] = False,
    rules_digest: Annotated[
        str | None,
        typer.Option(metavar="SHA256", help="Rule settings it must be judged by, if not the defaults."),
    ] = None,
    allow_other_rules: Annotated[
        bool, typer.Option("--allow-other-rules", help="Take pass and warn by any rule settings.")
    ] = False,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Check that a verdict is genuine, about exactly this MODEL, and good enough.

    The weights are hashed anew. pass and warn need a baseline, and the default rule settings. Exit codes: 0 verified; 1 genuine, but not good enough; 2 usage or configuration error;
    3 not verified: by nobody who is trusted, about other bytes, or unreadable.
    """
    if rules_digest is not None and allow_other_rules:
        usage_error("--rules-digest and --allow-other-rules exclude each other")
    if baseline_fingerprint is not None and allow_no_baseline:
        usage_error("--baseline-fingerprint and --allow-no-baseline exclude each other")
    policy = Policy(
        require,
        _duration(max_age),
        _digest("--baseline-fingerprint", baseline_fingerprint),
        allow_no_baseline,
        _digest("--rules-digest", rules_digest),
        allow_other_rules,
    )
    settings = settings_of(config)
    try:
        signers = Signers(tuple(key or ()), identity, issuer, trust_config)
        statement, by = _signed(envelope, signers)
        from layerwatch.daemon.attestation.verifying import require_same_bytes

        with given_model(model, settings) as given:
            require_same_bytes(statement, _hashed(given.path))
    except AttestationError as error:
        _refuse(error, format_)
    lacks = shortcomings(statement.predicate, policy, datetime.now(UTC))
    if format_ is VerifyFormat.JSON:
        answer = {"verified": True, "accepted": not lacks, "shortcomings": lacks, "signed_by": by}
        typer.echo(json.dumps({**answer, "statement": json.loads(statement.to_bytes())}, indent=2))
    else:
        for line in _lines(model, statement.predicate, by, lacks):
            typer.echo(printable(line))
    raise typer.Exit(NOT_GOOD_ENOUGH if lacks else 0)


@dataclass(frozen=True, slots=True)
class Signers:
    """Who may have signed: holders of keys, or an identity."""

    keys: tuple[Path, ...]
    identity: str | None
    issuer: str | None
    trust_config: Path | None


def _signed(envelope: Path, by: Signers) -> tuple[Statement, str]:
    """What was signed, and by whom, in words; a usage error where it is not said who may sign."""
    if (by.identity is None) is not (by.issuer is None):
        usage_error("--identity and --issuer belong together")
    if by.trust_config is not None and by.identity is None:
        usage_error("--trust-config belongs to --identity and --issuer")
    if bool(by.keys) is (by.identity is not None):
        usage_error("say who may sign: either --key PUBLIC.pem, or --identity and --issuer")
    if by.identity is not None and by.issuer is not None:
        from layerwatch.daemon.attestation.keyless import verified_keyless

        statement = verified_keyless(_read(envelope), by.identity, by.issuer, by.trust_config)
        return statement, f"{by.identity} ({by.issuer})"
    from layerwatch.daemon.attestation.keys import read_public_key
    from layerwatch.daemon.attestation.verifying import verified_statement

    statement, key = verified_statement(_read(envelope), [read_public_key(path) for path in by.keys])
    return statement, f"keyid {key.keyid}"


def _read(envelope: Path) -> bytes:
    """At most one byte more than an envelope may have; exits where there is no such file."""
    from layerwatch.daemon.attestation.dsse import LARGEST_ENVELOPE

    try:
        with envelope.open("rb") as file:
            return file.read(LARGEST_ENVELOPE + 1)
    except FileNotFoundError:
        usage_error(printable(f"{envelope}: there is no such file"))
    except OSError as error:
        detail = f"{envelope} cannot be read: {error.strerror or type(error).__name__}"
        raise AttestationError(AttestationReason.MALFORMED, detail) from error


def _hashed(path: Path) -> Manifest:
    from layerwatch.metrics.errors import UnreadableError
    from layerwatch.metrics.manifest import build_manifest, require_no_linked_folders

    try:
        require_no_linked_folders(path)
        return build_manifest(path)
    except UnreadableError as error:
        raise AttestationError(AttestationReason.OTHER_BYTES, str(error)) from error


def _refuse(error: AttestationError, format_: VerifyFormat) -> NoReturn:
    if format_ is VerifyFormat.JSON and not error.reason.usage:
        typer.echo(
            json.dumps({"verified": False, "reason": str(error.reason), "detail": error.detail}, indent=2)
        )
    told = error.detail if error.reason.usage else f"not verified: {error.detail}"
    typer.echo(printable(told), err=True)
    raise typer.Exit(2 if error.reason.usage else CANNOT_VERIFY)


def _lines(model: str, predicate: Predicate, by: str, lacks: list[str]) -> list[str]:
    gate, before = predicate.gate, predicate.baseline
    against = "without a baseline: only missing numbers and empty layers could be seen"
    if before is not None:
        relation = f", {before.relation}" if before.relation else ""
        against = f"against {before.name} {before.version} ({before.fingerprint}{relation})"
    found = predicate.findings
    let = [f"--fail-on {gate.fail_on}"]
    let += ["--allow-undecided"] * gate.allow_undecided + ["--fail-new"] * gate.fail_new
    let += [f"{gate.ignored} findings ignored by file {gate.ignore_file}"] * (gate.ignored > 0)
    verdict = (
        f"verdict: {predicate.verdict} ({found.critical} critical, {found.warning} warning, {found.info} info, "
        f"{predicate.undecided_layers.count} layers undecided), {against}"
    )
    tool = predicate.tool
    judged = f"by layerwatch {tool.version}, metrics {tool.metric_set}, rules {tool.rule_set}"
    return [
        f"verified: {model} is what was judged, signed by {by}",
        verdict,
        f"gate: exit code {gate.exit_code} ({', '.join(let)})",
        f"judged: {predicate.time.isoformat()} {judged}",
        f"rules: {_rules(predicate.rules)}",
        *(f"not good enough: {one}" for one in lacks),
    ]


def _rules(rules: JudgingRules | None) -> str:
    if rules is None:
        return "not told by which settings"
    return f"{told_rules(rules) or 'as they are by default'} (digest {rules.sha256})"


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        usage_error(f"--max-age {error}")


def _digest(option: str, text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[0-9a-f]{64}", text):
        usage_error(f"{option} must be 64 hexadecimal digits, in small letters")
    return text
