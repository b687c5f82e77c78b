"""The statement: in-toto's, with a predicate that says what layerwatch found.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason
from layerwatch.daemon.attestation.rulesettings import altered, rules_digest, switched_off
from layerwatch.daemon.attestation.strictjson import read_json
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.manifest import Manifest
from layerwatch.metrics.report import BaselinePart, ForeignText, Report

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["https://github.com/layerwatch/layerwatch/verdict/v1"] = (
    "https://github.com/layerwatch/layerwatch/verdict/v1"
)
"""Names the form of the predicate, and is the same for everybody; nothing is fetched from there."""


def _whole(value: object) -> object:
    # A predicate is a Struct for implementations on protobuf, whose numbers are doubles: they write 0 as 0.0.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]

_SHOWN_LAYERS = 100
"""So many undecided layers are named; all are counted."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    # Unknown fields are ignored: in-toto's parsing rules let a later minor version add some.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, strict=True
    )


class Digests(_Part):
    """Digests of one subject; others than sha256 are not looked at."""

    sha256: Sha256


class Subject(_Part):
    """One weight file: its path below the model's root, with ``/``."""

    name: ForeignText
    digest: Digests


class JudgedModel(_Part):
    """What the judged model was called there and then; only the fingerprint says what it is."""

    name: ForeignText
    version: ForeignText
    format: str | None
    size_bytes: Whole | None


class JudgedBaseline(_Part):
    """What it was held against. ``relation``: how the model came from it, where that was said."""

    fingerprint: Sha256 | None
    name: ForeignText
    version: ForeignText
    relation: str | None
    chosen_by: str


class FindingCounts(_Part):
    """Findings by severity, those that an ignore file took out included."""

    critical: Whole = Field(ge=0)
    warning: Whole = Field(ge=0)
    info: Whole = Field(ge=0)


class UndecidedLayers(_Part):
    """Layers that could not be examined: how many, and the first of them."""

    count: Whole = Field(ge=0)
    names: tuple[ForeignText, ...] = Field(strict=False)


class Tool(_Part):
    """What judged."""

    name: Literal["layerwatch"] = "layerwatch"
    version: str
    metric_set: str
    rule_set: str


class GateOutcome(_Part):
    """What the gate was asked and what it answered.

    Attributes:
        exit_code: 0 pass, 1 findings, 3 not examined.
        fail_on: severity from which a finding fails the gate.
        allow_undecided: whether what could not be examined was let through.
        fail_new: whether findings that the baseline has, too, were let through.
        ignored: findings that an ignore file took out.
        ignore_file: sha256 of that file; None without one.
    """

    exit_code: Whole = Field(ge=0, le=3)
    fail_on: Literal["info", "warning", "critical"]
    allow_undecided: bool = False
    fail_new: bool = False
    ignored: Whole = Field(default=0, ge=0)
    ignore_file: Sha256 | None = None


class JudgingRules(_Part):
    """By which settings of the rules was judged.

    Attributes:
        sha256: of all of them.
        switched_off: rules that were not checked, and are by default.
        altered: rules with another severity or threshold than by default, milder or stricter.
    """

    sha256: Sha256
    switched_off: tuple[str, ...] = Field(strict=False)
    altered: tuple[str, ...] = Field(strict=False)

    @property
    def are_default(self) -> bool:
        """Whether each rule was checked as it is by default."""
        return not self.switched_off and not self.altered


class Predicate(_Part):
    """What layerwatch found, bound to the fingerprint of the model.

    ``rules`` is None in statements of versions that did not say so.
    """

    verdict: Verdict = Field(strict=False)
    fingerprint: Sha256
    model: JudgedModel
    baseline: JudgedBaseline | None
    findings: FindingCounts
    rules_fired: tuple[str, ...] = Field(strict=False)
    undecided_layers: UndecidedLayers
    tool: Tool
    gate: GateOutcome
    rules: JudgingRules | None = None
    time: AwareDatetime = Field(strict=False)


class Statement(_Part):
    """An in-toto statement with that predicate."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Subject, ...] = Field(strict=False, min_length=1)
    predicate_type: Literal["https://github.com/layerwatch/layerwatch/verdict/v1"]
    predicate: Predicate

    def to_bytes(self) -> bytes:
        """As JSON, keys sorted; what is signed."""
        data = self.model_dump(mode="json", by_alias=True)
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def build_statement(
    report: Report, files: Manifest, outcome: GateOutcome, rules: RulesSettings, now: datetime
) -> Statement:
    """What is to be signed about a judged model.

    Args:
        files: the model's weight files as they are now; hashed after the judgement, so that what is signed is what lies
            there, and what lies there is what was judged.
        rules: by which was judged.
        now: when it was judged.

    Raises:
        AttestationError: NOT_ATTESTABLE where the report is about no bytes or about other bytes.
    """
    if report.model.fingerprint is None:
        raise AttestationError(
            AttestationReason.NOT_ATTESTABLE,
            "the model's files could not be read, so nothing can be said about them",
        )
    if report.model.fingerprint != files.fingerprint:
        raise AttestationError(
            AttestationReason.NOT_ATTESTABLE,
            f"{report.model.source} changed while it was judged; publish finished files only, and judge it again",
        )
    counts = Counter(finding.severity for finding in report.findings)
    undecided = [layer.name for layer in report.layers if layer.status is LayerStatus.UNDECIDED]
    return Statement(
        type=STATEMENT_TYPE,
        subject=tuple(
            Subject(name=entry.path, digest=Digests(sha256=entry.sha256)) for entry in files.entries
        ),
        predicate_type=PREDICATE_TYPE,
        predicate=Predicate(
            verdict=report.verdict,
            fingerprint=files.fingerprint,
            model=JudgedModel(
                name=report.model.name,
                version=report.model.version,
                format=report.model.format,
                size_bytes=report.model.size_bytes,
            ),
            baseline=_baseline(report.baseline),
            findings=FindingCounts(**{str(severity): counts[str(severity)] for severity in Severity}),
            rules_fired=tuple(sorted({finding.rule for finding in report.findings})),
            undecided_layers=UndecidedLayers(count=len(undecided), names=tuple(undecided[:_SHOWN_LAYERS])),
            tool=Tool(
                version=report.tool.version, metric_set=report.tool.metric_set, rule_set=report.tool.rule_set
            ),
            gate=outcome,
            rules=JudgingRules(
                sha256=rules_digest(rules), switched_off=switched_off(rules), altered=altered(rules)
            ),
            time=now.replace(microsecond=0),
        ),
    )


def outcome_of(report: Report) -> GateOutcome:
    """What the gate answered, as its report says.

    Raises:
        AttestationError: NOT_ATTESTABLE for a report that no gate wrote.
    """
    gate = report.gate
    if gate is None:
        raise AttestationError(
            AttestationReason.NOT_ATTESTABLE, "the report is not by layerwatch gate, so it holds no outcome"
        )
    return GateOutcome(
        exit_code=gate.exit_code,
        fail_on=gate.fail_on,
        allow_undecided=gate.allow_undecided,
        fail_new=gate.fail_new,
        ignored=sum(finding.suppressed is not None for finding in report.findings),
        ignore_file=gate.ignore_file_sha256,
    )


def _baseline(part: BaselinePart | None) -> JudgedBaseline | None:
    if part is None:
        return None
    return JudgedBaseline(
        fingerprint=part.fingerprint,
        name=part.name,
        version=part.version,
        relation=part.relation,
        chosen_by=part.chosen_by,
    )


def read_statement(payload: bytes) -> Statement:
    """A statement of layerwatch from the bytes that were signed.

    Raises:
        AttestationError: MALFORMED; another kind of statement or predicate is named as such.
    """
    found = read_json(payload, "the signed statement")
    if not isinstance(found, dict) or found.get("_type") != STATEMENT_TYPE:
        raise _malformed(f"the signed payload is no in-toto statement of type {STATEMENT_TYPE}")
    if found.get("predicateType") != PREDICATE_TYPE:
        raise _malformed(f"the signed statement is no verdict of layerwatch ({PREDICATE_TYPE})")
    try:
        statement = Statement.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _malformed(f"the signed statement: {where}: {first['msg']}") from None
    names = [subject.name for subject in statement.subject]
    if len(set(names)) != len(names):
        raise _malformed("the signed statement names a file twice")
    return statement


def _malformed(detail: str) -> AttestationError:
    return AttestationError(AttestationReason.MALFORMED, detail)
