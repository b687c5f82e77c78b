"""Debian's Prometheus in a process of its own, and what is asked of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import requests

from layerwatch_testing.servers import ServerProcess, executable, free_port

MISSING = (
    None
    if shutil.which("prometheus") and shutil.which("promtool")
    else "prometheus and promtool are not installed: tests/install-servers.sh installs them"
)
"""Why there is no server; None when there is one."""


class PrometheusServer:
    """Scrapes a target and evaluates rules every second; a context manager.

    Args:
        folder: where configuration, data and output lie.
        target: ``host:port`` of what is scraped, as the job ``layerwatch``.
        rules: files of rules.
        alertmanager: ``host:port`` of who is told of alerts; empty for nobody.
    """

    def __init__(self, folder: Path, target: str, rules: Sequence[Path] = (), alertmanager: str = "") -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._session = requests.Session()
        self._session.trust_env = False
        settings: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "layerwatch", "static_configs": [{"targets": [target]}]}],
        }
        if alertmanager:
            settings["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        folder.mkdir(exist_ok=True)
        (folder / "prometheus.yml").write_text(json.dumps(settings))
        self._command = [
            str(executable("prometheus")),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            # Alertmanagers are known only some seconds after the start: what fired before is told again soon.
            "--rules.alert.resend-delay=5s",
        ]

    def __enter__(self) -> Self:
        self._process = ServerProcess(self._command, self._folder)
        self._process.wait_until_ready(f"{self.url}/-/ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self._process.stop()

    def query(self, text: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series that an instant query returns."""
        when = {} if at is None else {"time": f"{at:.3f}"}
        found: list[dict[str, Any]] = self._ask("query", query=text, **when)["result"]
        return found

    def query_range(self, text: str, start: float, end: float) -> list[dict[str, Any]]:
        """The series that a query over a time returns, with one value per second."""
        found: list[dict[str, Any]] = self._ask(
            "query_range", query=text, start=f"{start:.3f}", end=f"{end:.3f}", step="1"
        )["result"]
        return found

    def label_values(self, selector: str, label: str) -> list[str]:
        """Values of a label of the series that match."""
        found: list[str] = self._ask(f"label/{label}/values", **{"match[]": selector})
        return found

    def alerts(self, name: str, state: str = "firing") -> list[dict[str, Any]]:
        """Alerts of one name in a state: ``labels``, ``annotations``, ``activeAt``."""
        return [
            alert
            for alert in self._ask("alerts")["alerts"]
            if (alert["labels"]["alertname"], alert["state"]) == (name, state)
        ]

    def failing_rules(self) -> list[str]:
        """Rules whose last evaluation failed, each with the error."""
        return [
            f"{rule['name']}: {rule.get('lastError', '')}"
            for group in self._ask("rules")["groups"]
            for rule in group["rules"]
            if rule["health"] == "err"
        ]

    def _ask(self, path: str, **parameters: str) -> Any:
        answer = self._session.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]
