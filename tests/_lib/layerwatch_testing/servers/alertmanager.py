"""Debian's Alertmanager in a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from layerwatch_testing.servers import ServerProcess, executable, free_port


class AlertmanagerServer:
    """An Alertmanager; a context manager.

    Args:
        folder: for its files.
        configuration: what its configuration file holds.

    Attributes:
        address: HOST:PORT; ``url``: the same as a URL.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self._session = requests.Session()
        self._session.trust_env = False
        file = folder / "alertmanager.yml"
        file.write_text(yaml.safe_dump(dict(configuration)))
        # Debian's name, and the project's own.
        program = shutil.which("prometheus-alertmanager") or executable("alertmanager")
        self._folder = folder
        self._command = [
            str(program),
            f"--config.file={file}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
        ]

    def __enter__(self) -> Self:
        self._process = ServerProcess(self._command, self._folder)
        self._process.wait_until_ready(f"{self.url}/-/ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self._process.stop()

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that it holds, silenced and inhibited ones included."""
        found: list[dict[str, Any]] = self._session.get(f"{self.url}/api/v2/alerts", timeout=10).json()
        return found
