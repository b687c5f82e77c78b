"""Writes the dashboards as JSON, and the alert rules for Grafana's own alerting, from their one source.

    pip install grafana-foundation-sdk==0.0.21 pyyaml
    python deploy/grafana/build.py            # writes the committed files
    python deploy/grafana/build.py --check    # exit code 1 when one of them is not current

The version must be given: without one pip finds an old release that sorts above the newest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from dashboards_src import alerting, fleet, model, parts

DASHBOARDS = HERE / "dashboards"
CHART = HERE.parent / "helm" / "layerwatch" / "dashboards"
ALERTING = HERE / "provisioning" / "alerting" / "layerwatch.yaml"


def files() -> dict[Path, str]:
    """Content of every generated file."""
    found = {}
    for dashboard in (fleet, model):
        built = dashboard.build().build()
        text = parts.as_json(built)
        for folder in (DASHBOARDS, CHART):
            found[folder / f"{built.uid}.json"] = text
    found[ALERTING] = alerting.rules()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Writes the dashboards and Grafana's alert rules.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 when a file is not current"
    )
    check = parser.parse_args(arguments).check
    stale = {
        path: text for path, text in files().items() if not path.is_file() or path.read_text("utf-8") != text
    }
    for path, text in stale.items():
        if check:
            print(f"{path} is not current: run python {Path(__file__).name}", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
