"""What layerwatch's own manifests must keep to, beyond Kubernetes' schemas and the restricted profile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from layerwatch.config.loading import load_settings
from layerwatch.config.settings import Settings
from layerwatch_testing.kubernetes import Manifest, containers_of, pod_of

_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
BESIDE_SCANS = 512 * 2**20
"""Memory for the daemon itself beside its scans, with up to 100,000 series (300 MB)."""


def quantity(text: str | float) -> float:
    """A quantity of Kubernetes, such as 500m or 2Gi, as a number."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    assert match, text
    return float(match[1]) * _UNITS[match[2]]


def configurations(manifests: Sequence[Manifest], folder: Path) -> Iterator[Settings]:
    """The settings in every ConfigMap that holds a layerwatch.yaml; raises ConfigError as the daemon would."""
    for one in manifests:
        if one["kind"] == "ConfigMap" and "layerwatch.yaml" in one["data"]:
            path = folder / "layerwatch.yaml"
            path.write_text(one["data"]["layerwatch.yaml"])
            yield load_settings(path, {})


def own_container(pod: Manifest) -> dict[str, Any]:
    """The container that runs the daemon."""
    (found,) = (one for one in containers_of(pod) if one["name"] == "layerwatch")
    return dict(found)


def capacity_problems(container: Manifest, settings: Settings) -> list[str]:
    """Where the limits of the container do not fit what scans may take."""
    scan, limits = settings.scan, container["resources"]["limits"]
    cores = quantity(limits.get("cpu", 0))
    problems = []
    needed = scan.workers * scan.memory_limit + BESIDE_SCANS
    if quantity(limits["memory"]) < needed:
        problems.append(f"memory limit {limits['memory']}: {scan.workers} scans need {needed / 2**20:.0f}Mi")
    if not cores:
        problems.append("no cpu limit: the daemon would take the cores of the whole node")
    elif cores < scan.workers * (scan.threads or 1):
        problems.append(f"cpu limit {limits['cpu']}: {scan.workers} scans of {scan.threads or 1} threads")
    return problems


def path_problems(pod: Manifest, settings: Settings) -> list[str]:
    """Paths of the configuration that are on no volume, or on one that cannot be written to."""
    container = own_container(pod)
    mounts = {one["mountPath"]: one.get("readOnly", False) for one in container["volumeMounts"]}

    def volume_of(path: str) -> str | None:
        return max((one for one in mounts if Path(path).is_relative_to(one)), key=len, default=None)

    written = {"tmp": "/tmp"}
    read = {f"registries.{one.name}": str(one.path) for one in settings.registries if one.kind == "directory"}
    if settings.store.url.is_plain:
        written["store.url"] = settings.store.url.reveal().removeprefix("sqlite:///")
        written["downloads.path"] = str(
            settings.downloads.path or Path(written["store.url"]).parent / "layerwatch-downloads"
        )
    else:
        written["downloads.path"] = str(settings.downloads.path)
    problems = [
        f"{key}: {path} is on no volume" for key, path in (written | read).items() if volume_of(path) is None
    ]
    problems.extend(
        f"{key}: {path} cannot be written to"
        for key, path in written.items()
        if mounts.get(volume_of(path) or "")
    )
    problems.extend(
        f"{key}: {path} could be written to"
        for key, path in read.items()
        if not mounts.get(volume_of(path) or "", True)
    )
    return problems


def owners(manifests: Sequence[Manifest]) -> list[tuple[Manifest, Manifest]]:
    """The objects that make a pod with the daemon, each with its pod."""
    found = ((one, pod_of(one)) for one in manifests)
    return [
        (one, pod)
        for one, pod in found
        if pod is not None and any(container["name"] == "layerwatch" for container in containers_of(pod))
    ]


def selector_problems(manifests: Sequence[Manifest]) -> list[str]:
    """Services, policies and monitors whose selector is empty or picks no pod, or service, of these manifests."""
    pods = [
        one["spec"]["template"]["metadata"]["labels"]
        for one, _ in owners(manifests)
        if "template" in one["spec"]
    ]
    services = [one["metadata"].get("labels", {}) for one in manifests if one["kind"] == "Service"]
    candidates_of = {
        **dict.fromkeys(("Service", "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"), pods),
        "ServiceMonitor": services,
    }
    problems = []
    for one in manifests:
        if one["kind"] in candidates_of:
            selector = _selector_of(one)
            name = f"{one['kind']} {one['metadata']['name']}"
            if not selector:
                problems.append(f"{name} selects everything")
            elif not any(selector.items() <= labels.items() for labels in candidates_of[one["kind"]]):
                problems.append(f"{name} selects nothing here")
    return problems


def _selector_of(manifest: Manifest) -> dict[str, str]:
    spec = manifest["spec"]
    if manifest["kind"] == "Service":
        return dict(spec["selector"])
    selector = spec["podSelector"] if manifest["kind"] == "NetworkPolicy" else spec["selector"]
    return dict(selector.get("matchLabels") or {})


def read_yaml(path: Path) -> Any:
    """One document."""
    return yaml.safe_load(path.read_text())
