"""The demonstration's two models up to the version that is broken, watched by a daemon that may be changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hookserver import HookServer
from layerwatch.daemon.demo.story import STORIES
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.servers import free_port
from layerwatch_testing.waiting import until

VERSIONS_VARIABLE = "TEST_DEMO_VERSIONS"
"""Names a folder ``<model>/<version>`` of versions that were trained before, to save a minute."""

REGISTRY = "demo"
MLP, CNN = (story.model for story in STORIES)
BROKEN = "v5"
BROKEN_LAYERS = {
    story.model: step.broken_layer for story in STORIES for step in story.steps if step.version == BROKEN
}


@dataclass(frozen=True, slots=True)
class DemoFleet:
    """A daemon that judged five versions of each model and told of the fifth.

    Attributes:
        registry: folder of the registry.
        hook: took the messages.
    """

    daemon: DaemonProcess
    registry: Path
    hook: HookServer

    @property
    def home(self) -> str:
        """Address of the fleet page."""
        return f"{self.daemon.address}/"

    def told(self, model: str, phase: str) -> dict[str, Any] | None:
        """The first alert of a model in that phase that the webhook received; None while there is none."""
        alerts = (
            alert for one in list(self.hook.received) for alert in json.loads(one.body)["data"]["alerts"]
        )
        return next((one for one in alerts if (one["model"], one["phase"]) == (model, phase)), None)


def address(page: str, **asked: str) -> str:
    """A relative address with its query."""
    return f"{page}?{urlencode(asked)}"


def of_version(page: str, model: str = MLP, version: str = BROKEN, **other: str) -> str:
    """The relative address of a page about a version."""
    return address(page, **other, registry=REGISTRY, model=model, version=version)


def every_page() -> dict[str, str]:
    """One relative address of each page, by its name in a file name."""
    compared = {"a_registry": REGISTRY, "a_model": MLP, "a_version": "v2"}
    compared |= {"b_registry": REGISTRY, "b_model": MLP, "b_version": BROKEN}
    return {
        "fleet": "",
        "model": address("model", registry=REGISTRY, model=MLP),
        "version": of_version("version"),
        "layer": of_version("layer", layer=BROKEN_LAYERS[MLP] or ""),
        "compare": address("compare", **compared),
        "compare-empty": "compare",
        "alerts": "alerts",
        "status": "status",
        "act-accept": of_version("act", action="accept"),
        "act-rescan": of_version("act", action="rescan"),
        "report": address("report", registry=REGISTRY, model=MLP, ref="latest"),
    }


@contextmanager
def demo_fleet(folder: Path) -> Iterator[DemoFleet]:
    """Train the versions, publish v1 to v5 one after the other, and wait until both alerts were told."""
    versions = _trained(folder / "staging")
    registry = folder / "models"
    registry.mkdir()
    with HookServer() as hook:
        port = free_port()
        config = write_config(
            folder / "layerwatch.yaml",
            directory(REGISTRY, registry),
            receivers=[
                {
                    "name": "oncall",
                    "kind": "webhook",
                    "url": hook.url,
                    "allow_private_cidrs": ["127.0.0.0/8"],
                }
            ],
            server={"external_url": f"http://127.0.0.1:{port}"},
            port=port,
        )
        with DaemonProcess(config) as daemon:
            daemon.wait_until_listening()
            fleet = DemoFleet(daemon, registry, hook)
            for number in range(1, int(BROKEN[1:]) + 1):
                for model in (MLP, CNN):
                    _publish(versions / model / f"v{number}", registry / model)
                for model in (MLP, CNN):
                    daemon.wait_for_verdict(f"{REGISTRY}/{model}/v{number}")
            for model in (MLP, CNN):
                until(lambda model=model: fleet.told(model, "firing"), f"the alert about {model}")  # type: ignore[misc]
            yield fleet


def _trained(staging: Path) -> Path:
    kept = os.environ.get(VERSIONS_VARIABLE)
    if kept is not None:
        return Path(kept)
    # Only this needs torch, which takes seconds to import.
    from layerwatch.daemon.demo.preparing import prepare

    prepare(staging)
    return staging


def _publish(version: Path, model: Path) -> None:
    """Write beside, then rename."""
    fresh = model / f".{version.name}.tmp"
    shutil.copytree(version, fresh)
    fresh.rename(model / version.name)
