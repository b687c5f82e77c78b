"""Draws the dashboards as the story of the tests leaves them.

    PYTHONPATH=.src:tests/_lib python deploy/grafana/pictures/make.py [FOLDER WITH THE PACKAGES]

Needs prometheus, chromium, node and npm. Grafana itself is not run: the panels are drawn with the components that it
publishes as packages (see ``page.jsx``), from the committed JSON and the answers of a real Prometheus.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from layerwatch_testing.fleetstory import MIXTURE, Story, told
from layerwatch_testing.grafana import Dashboard, Values, frames

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parents[2] / ".github" / "pictures"
RULES = HERE.parents[1] / "prometheus" / "layerwatch.rules.yml"
PACKAGES = (
    "@grafana/data@13.2.2",
    "@grafana/ui@13.2.2",
    "esbuild@0.28.2",
    "react@18.3.1",
    "react-dom@18.3.1",
)
PAGE = ("page.jsx", "page.html", "scrollbars.js", "bundle.mjs")
PAUSE_SECONDS = 12
WIDTH = 1632


def main(packages: Path | None = None) -> None:
    """The command.

    Args:
        packages: a folder that has them already, to save the minutes that npm takes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = (packages or folder / "page").resolve()
        _bundle(page)
        (folder / "story").mkdir()
        with told(folder / "story", RULES, lambda: time.sleep(PAUSE_SECONDS)) as story:
            for dashboard, values in (("layerwatch-fleet", {}), ("layerwatch-model", MIXTURE)):
                _draw(
                    page,
                    story,
                    Dashboard(HERE.parent / "dashboards" / f"{dashboard}.json"),
                    values,
                )


def _bundle(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for file in PAGE:
        shutil.copy(HERE / file, folder)
    if not (folder / "node_modules").exists():
        (folder / "package.json").write_text('{"private": true}')
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps"]
        install = ["npm", "install", *options, *PACKAGES]
        subprocess.run(install, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["node", "bundle.mjs"], cwd=folder, check=True)


def _draw(folder: Path, story: Story, dashboard: Dashboard, values: Values) -> None:
    answers = {
        panel["id"]: {
            target["refId"]: story.rows(target, dashboard.interpolate(target["expr"], values, story.seconds))
            for target in panel["targets"]
        }
        for panel in dashboard.panels()
    }
    chosen = {name: _shown(variable, values.get(name)) for name, variable in dashboard.variables.items()}
    data = {
        "dashboard": dashboard.json,
        "mode": "dark",
        "from": story.began,
        "to": story.ended,
        "variables": chosen,
        "answers": answers,
        "frames": {
            panel["id"]: frames(panel, answers[panel["id"]])
            for panel in dashboard.panels()
            if "transformations" in panel
        },
    }
    (folder / "data.js").write_text(f"window.DATA = {json.dumps(_finite(data))};")
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard.panels())
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
        f"--user-data-dir={folder / 'browser'}", f"--window-size={WIDTH},{38 * rows + 110}",
        f"--screenshot={PICTURES / (dashboard.json['uid'] + '.png')}", (folder / "page.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _shown(variable: dict[str, Any], value: object) -> str:
    current = variable.get("current", {}).get("text", variable.get("query", ""))
    return str(value or (current if isinstance(current, str) else ", ".join(current)))


def _finite(value: Any) -> Any:
    """The same without what JSON cannot say."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
