"""A report out of its JSON text."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import ValidationError

from layerwatch.metrics.findings import Severity
from layerwatch.metrics.report import Report

SCHEMA_VERSION = 1


class StoredReportError(ValueError):
    """The text is no report that this version can read; the message says what to do."""


def read_report(text: bytes) -> Report:
    """The report that ``gate`` or ``scan --format json`` wrote; fields that a later version added are left out.

    Raises:
        StoredReportError.
    """
    try:
        data = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        # An empty or cut file, another encoding, NaN: all come here.
        raise StoredReportError(f"is no JSON ({str(error).split(':')[0]}); {_MAKE_ONE}") from None
    if not isinstance(data, dict) or "schema_version" not in data:
        raise StoredReportError(f"is no report: it has no schema_version; {_MAKE_ONE}")
    found = data["schema_version"]
    if found != SCHEMA_VERSION or isinstance(found, bool):
        tool = data.get("tool")
        wrote = tool.get("version") if isinstance(tool, dict) else None
        by = f" (written by layerwatch {wrote})" if isinstance(wrote, str) else ""
        raise StoredReportError(
            f"has schema_version {json.dumps(found)[:40]}{by}, and this layerwatch reads {SCHEMA_VERSION}: convert it "
            "with the layerwatch that wrote it, or make the report again with this one"
        )
    report = _validated(data)
    unknown = next((one.severity for one in report.findings if one.severity not in set(Severity)), None)
    if unknown is not None:
        raise StoredReportError(f"is no report: there is no severity {json.dumps(unknown)[:40]}; {_MAKE_ONE}")
    return report


def _validated(data: dict[str, Any]) -> Report:
    try:
        return Report.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
    added = [one["loc"] for one in problems if one["type"] == "extra_forbidden"]
    if len(added) == len(problems):
        for location in added:
            _remove(data, location)
        return _validated(data)
    first = next(one for one in problems if one["type"] != "extra_forbidden")
    place = ".".join(map(str, first["loc"]))
    raise StoredReportError(f"is no report: {place}: {first['msg'].lower()}; {_MAKE_ONE}")


def _remove(data: Any, location: tuple[int | str, ...]) -> None:
    *above, last = location
    for key in above:
        data = data[key]
    del data[last]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large")
    return number


_MAKE_ONE = "make one with: layerwatch gate MODEL --format json -o REPORT.json"
