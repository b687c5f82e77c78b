"""SARIF 2.1.0, for code scanning pages (https://docs.oasis-open.org/sarif/sarif/v2.1.0/).

A finding is a result. What could not be examined is a notification of the invocation, never a result: it is no
statement about the model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from layerwatch.daemon.gate.facts import RULES_BY_NAME, THE_VERSION, ignore_remarks
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.outcome import exit_code, is_about_examination, policy_of
from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import FindingPart, Report
from layerwatch.metrics.rules.base import Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_LEVELS = {"critical": "error", "warning": "warning", "info": "note"}
_SCHEME = re.compile(r"(mlflow|hf|oci|s3|gs|az|https?):")
_URI_CHARACTERS = "/:@!$&'()*+,;=~"
"""Besides letters, digits and ``-._``: what a path may hold unescaped (RFC 3986, 3.3)."""


def to_sarif(report: Report, rendering: Rendering) -> str:
    """One run with its rules, results and the invocation's notifications."""
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(report)]}
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _run(report: Report) -> dict[str, Any]:
    findings = [one for one in report.findings if not is_about_examination(one)]
    rules = list(dict.fromkeys(one.rule for one in report.findings))
    model = report.model
    artifact: dict[str, Any] = {"location": {"uri": artifact_uri(model.source)}, "roles": ["analysisTarget"]}
    if model.size_bytes is not None:
        artifact["length"] = model.size_bytes
    return {
        "tool": {
            "driver": {
                "name": "layerwatch",
                "version": report.tool.version,
                "properties": {"metricSet": report.tool.metric_set, "ruleSet": report.tool.rule_set},
                "rules": [_rule(name) for name in rules],
            }
        },
        "automationDetails": {"id": f"layerwatch/{printable(model.name)}/"},
        "artifacts": [artifact],
        "invocations": [_invocation(report)],
        "results": list(_results(report, findings, {name: index for index, name in enumerate(rules)})),
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdict": str(report.verdict),
            "fingerprint": model.fingerprint,
            "baseline": None if report.baseline is None else printable(report.baseline.source),
            "baselineFingerprint": None if report.baseline is None else report.baseline.fingerprint,
        },
    }


def _rule(name: str) -> dict[str, Any]:
    rule = RULES_BY_NAME.get(name)
    if rule is None:
        # A report of another version may name rules that this one does not have.
        return {"id": printable(name)}
    return {
        "id": name,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": _paragraphs(rule)[0]},
        "help": {"text": "\n\n".join((*_paragraphs(rule), f"More: layerwatch explain {name}"))},
        "properties": {"tags": [str(rule.group)]},
    }


def _paragraphs(rule: Rule) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in rule.explanation.split("\n\n")]


def _results(report: Report, findings: list[FindingPart], rules: dict[str, int]) -> Iterator[dict[str, Any]]:
    seen: Counter[tuple[str, str | None]] = Counter()
    policy = policy_of(report)
    for finding in findings:
        key = finding.rule, finding.layer
        seen[key] += 1
        where = "" if finding.layer is None else f"{printable(finding.layer)}: "
        result: dict[str, Any] = {
            "ruleId": printable(finding.rule),
            "ruleIndex": rules[finding.rule],
            "level": _LEVELS.get(finding.severity, "warning"),
            "message": {"text": where + printable(finding.message)},
            "locations": [_location(report, finding.layer)],
            "partialFingerprints": {"layerwatch/v1": _fingerprint(report, finding, seen[key])},
            "properties": {"severity": finding.severity, "evidence": dict(finding.evidence)},
        }
        if policy.fail_new:
            result["baselineState"] = "unchanged" if finding.new is False else "new"
        suppressed = finding.suppressed
        # Absent suppressions would mean that it is not known whether there are any (SARIF 2.1.0, 3.27.23).
        result["suppressions"] = []
        if suppressed is not None:
            result["suppressions"].append(
                {
                    "kind": "external",
                    "status": "accepted",
                    "justification": printable(suppressed.reason),
                    "properties": {"expires": suppressed.expires},
                }
            )
        yield result


def _location(report: Report, layer: str | None) -> dict[str, Any]:
    # Weights have no lines; code scanning pages show nothing without one.
    physical = {
        "artifactLocation": {"uri": artifact_uri(report.model.source), "index": 0},
        "region": {"startLine": 1},
    }
    location: dict[str, Any] = {"physicalLocation": physical}
    if layer is not None:
        name = printable(layer)
        location["logicalLocations"] = [{"name": name, "fullyQualifiedName": name, "kind": "member"}]
    return location


def _fingerprint(report: Report, finding: FindingPart, occurrence: int) -> str:
    """The same for the same fault in the next version: neither bytes nor numbers go into it."""
    layer = THE_VERSION if finding.layer is None else f"layer {finding.layer}"
    parts = (report.model.name, finding.rule, layer, str(occurrence))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _invocation(report: Report) -> dict[str, Any]:
    policy = policy_of(report)
    code = exit_code(report, policy.fail_on, policy.allow_undecided, policy.fail_new)
    return {
        # The run as a whole failed only where nothing of the model was examined.
        "executionSuccessful": bool(report.layers) or report.complete is True,
        "exitCode": int(code),
        "toolExecutionNotifications": list(_notifications(report)),
        "toolConfigurationNotifications": [
            {"level": "warning", "message": {"text": printable(remark)}} for remark in ignore_remarks(report)
        ],
    }


def _notifications(report: Report) -> Iterator[dict[str, Any]]:
    told: set[str | None] = set()
    for finding in report.findings:
        if is_about_examination(finding):
            told.add(finding.layer)
            where = "" if finding.layer is None else f"{printable(finding.layer)}: "
            yield {
                "level": "error",
                "message": {"text": where + printable(finding.message)},
                "descriptor": {"id": finding.rule},
                "locations": [_location(report, finding.layer)],
            }
    for layer in report.layers:
        # Undecided although the rule about it is switched off.
        if layer.status is LayerStatus.UNDECIDED and layer.name not in told:
            yield {
                "level": "error",
                "message": {"text": f"{printable(layer.name)}: could not be examined"},
                "locations": [_location(report, layer.name)],
            }
    for spot in report.blind_spots:
        yield {"level": "note", "message": {"text": printable(spot)}}


def artifact_uri(source: str) -> str:
    """A model's source as a URI reference: relative for a relative path, so that it fits any checkout."""
    text = source.encode("utf-8", "replace").decode()
    if _SCHEME.match(text):
        return quote(text, safe=_URI_CHARACTERS + "%?#[]")
    if text.startswith("/"):
        return "file://" + quote(text, safe=_URI_CHARACTERS)
    escaped = quote(text.removeprefix("./"), safe=_URI_CHARACTERS)
    # A colon in the first segment would make that a scheme (RFC 3986, 4.2).
    return f"./{escaped}" if ":" in escaped.split("/")[0] else escaped
