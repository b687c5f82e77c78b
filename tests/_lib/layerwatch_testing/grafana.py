"""Dashboards as Grafana reads them: their panels, and their queries with the variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Panel = dict[str, Any]
Values = Mapping[str, str | Sequence[str]]
"""Variable -> the one value or the several that are chosen; ``$__all`` for all."""

_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?::(\w+))?\}")
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


class Dashboard:
    """A dashboard's JSON."""

    def __init__(self, path: Path) -> None:
        self.json: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        return {variable["name"]: variable for variable in self.json["templating"]["list"]}

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """What is marked in all graphs."""
        found: list[dict[str, Any]] = self.json["annotations"].get("list", [])
        return found

    def panels(self) -> Iterator[Panel]:
        """All panels but the headings, those in closed rows among them."""
        for panel in self.json["panels"]:
            if panel["type"] != "row":
                yield panel
            yield from panel.get("panels", ())

    def targets(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Title of the panel and each of its queries."""
        for panel in self.panels():
            for target in panel["targets"]:
                yield f"{panel['title']} [{target['refId']}]", target

    def interpolate(self, text: str, values: Values, seconds: int = 600) -> str:
        """The query that Grafana's Prometheus data source would send.

        Args:
            values: what is chosen; a variable that is not named has its default.
            seconds: length of the time range that is shown.
        """
        known = {
            "__range": f"{seconds}s",
            # What Grafana computes for a scrape every second and one point per second: four scrapes.
            "__rate_interval": "4s",
            "__interval": "1s",
        }

        def filled(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name in known:
                return known[name]
            variable = self.variables.get(name)
            # What is no variable stays: "$1" is a group of label_replace.
            return match[0] if variable is None else self._filled(variable, values.get(name))

        return _VARIABLE.sub(filled, text)

    def _filled(self, variable: Mapping[str, Any], chosen: str | Sequence[str] | None) -> str:
        if chosen is None:
            chosen = variable.get("current", {}).get("value", variable.get("query", ""))
        if not variable.get("multi"):
            assert isinstance(chosen, str), variable["name"]
            # The filter over layers is a regular expression of the user; others stand in an equality.
            return chosen.replace("\\", "\\\\").replace('"', '\\"')
        many = [chosen] if isinstance(chosen, str) else list(chosen)
        if many == ["$__all"]:
            return str(variable["allValue"])
        escaped = [re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", one.replace("\\", "\\" * 4)) for one in many]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def label_values(query: str) -> tuple[str, str]:
    """Selector and label of a variable's query."""
    match = _LABEL_VALUES.fullmatch(query)
    assert match is not None, query
    return match[1], match[2]


def frames(panel: Panel, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Data frames as Grafana's Prometheus data source makes them of instant queries in the format of tables.

    A time, a column per label, and the value, which is named after its query when several queries returned something.
    """
    found = []
    answered = [target["refId"] for target in panel["targets"] if results[target["refId"]]]
    for name in answered:
        rows = results[name]
        labels = sorted({label for row in rows for label in row["metric"]})
        value = f"Value #{name}" if len(answered) > 1 else "Value"
        columns = [{"name": "Time", "type": "time", "values": [1000 * row["value"][0] for row in rows]}]
        columns += [
            {"name": label, "type": "string", "values": [row["metric"].get(label, "") for row in rows]}
            for label in labels
        ]
        columns.append({"name": value, "type": "number", "values": [float(row["value"][1]) for row in rows]})
        found.append({"refId": name, "fields": columns})
    return found
