"""The kustomize overlays: valid from Kubernetes 1.29 to the newest, restricted, and fit for what they configure."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerwatch_testing.kubernetes import (
    KUBERNETES,
    OVERLAYS,
    REPOSITORY,
    containers_of,
    kustomized,
    named,
    pod_of,
    restricted_violations,
    schema_problem,
    versions,
)
from layerwatch_testing.podrules import (
    capacity_problems,
    configurations,
    own_container,
    owners,
    path_problems,
    read_yaml,
    selector_problems,
)

DRAIN_SECONDS = 10


def test_the_overlays_are_those_that_the_readme_lists() -> None:
    text = (KUBERNETES / "README.md").read_text()
    assert len(OVERLAYS) == 7
    for overlay in OVERLAYS:
        assert f"`overlays/{overlay}`" in text


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_an_overlay_is_valid_in_every_version_of_kubernetes_since_1_29(overlay: str) -> None:
    assert versions()[0] == "1.29" and len(versions()) >= 9
    for manifest in kustomized(KUBERNETES / "overlays" / overlay):
        for version in versions():
            assert schema_problem(manifest, version) is None, (manifest["kind"], version)


def test_the_check_against_the_schemas_finds_unknown_keys_wrong_types_and_unknown_kinds() -> None:
    (owner, _), *_ = owners(kustomized(KUBERNETES / "overlays" / "standalone"))
    broken: Any = copy.deepcopy(owner)
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    assert "readinesProbe" in str(schema_problem(broken, "1.29"))
    broken = copy.deepcopy(owner)
    broken["spec"]["replicas"] = "one"
    assert "'one'" in str(schema_problem(broken, "1.37"))
    assert "Couldn't find schema" in str(schema_problem({"apiVersion": "x/v1", "kind": "Thing"}, "1.29"))
    monitor: Any = copy.deepcopy(named(kustomized(KUBERNETES / "overlays" / "monitored"), "ServiceMonitor"))
    monitor["spec"]["endpoints"][0]["intervall"] = "30s"
    assert "intervall" in str(schema_problem(monitor, "1.29"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_of_an_overlay_keeps_to_the_restricted_profile_and_more(overlay: str) -> None:
    pods = [pod for one in kustomized(KUBERNETES / "overlays" / overlay) if (pod := pod_of(one))]
    assert pods
    for pod in pods:
        assert restricted_violations(pod) == []
        assert pod["automountServiceAccountToken"] is False
        for container in containers_of(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def own(change: Callable[[Any], object]) -> Callable[[Any], object]:
    """A change of the daemon's own container."""
    return lambda pod: change(next(one for one in containers_of(pod) if one["name"] == "layerwatch"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda pod: pod.update(hostNetwork=True), "hostNetwork is set"),
        (lambda pod: pod.update(hostPID=True), "hostPID is set"),
        (
            lambda pod: pod["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}),
            "volume disk is of type hostPath",
        ),
        (lambda pod: pod["securityContext"].update(runAsUser=0), "the pod runs as user 0"),
        (lambda pod: pod["securityContext"].update(runAsNonRoot=False), "the pod may run as root"),
        (
            lambda pod: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
            "sysctl kernel.msgmax",
        ),
        (
            lambda pod: pod["securityContext"].update(seccompProfile={"type": "Unconfined"}),
            "the pod is not confined by seccomp",
        ),
        (
            lambda pod: pod.update(
                ephemeralContainers=[{"name": "debug", "securityContext": {"capabilities": {"drop": ["ALL"]}}}]
            ),
            "container debug may escalate its privileges",
        ),
        (own(lambda one: one.pop("securityContext")), "container layerwatch may escalate its privileges"),
        (own(lambda one: one["securityContext"].update(privileged=True)), "container layerwatch is privileged"),
        (
            own(lambda one: one["securityContext"].update(runAsNonRoot=False)),
            "container layerwatch may run as root: runAsNonRoot is not set",
        ),
        (
            own(lambda one: one["securityContext"].update(capabilities={"drop": ["NET_RAW"]})),
            "container layerwatch does not drop ALL capabilities",
        ),
        (
            own(lambda one: one["securityContext"]["capabilities"].update(add=["SYS_ADMIN"])),
            "container layerwatch adds the capability SYS_ADMIN",
        ),
        (
            own(lambda one: one["securityContext"].update(procMount="Unmasked")),
            "container layerwatch has another procMount",
        ),
        (
            own(lambda one: one["securityContext"].update(appArmorProfile={"type": "Unconfined"})),
            "container layerwatch is not confined by AppArmor",
        ),
        (
            own(lambda one: one["securityContext"].update(seLinuxOptions={"type": "spc_t"})),
            "container layerwatch has SELinux options of its own",
        ),
        (own(lambda one: one["ports"][0].update(hostPort=9466)), "container layerwatch takes port 9466 of the host"),
        (
            own(lambda one: one["livenessProbe"]["httpGet"].update(host="10.0.0.1")),
            "container layerwatch has a probe or a hook that asks another host",
        ),
    ],
)  # fmt: skip
def test_the_check_of_the_restricted_profile_finds(change: Callable[[Any], object], expected: str) -> None:
    _, pod = owners(kustomized(KUBERNETES / "overlays" / "standalone"))[0]
    broken = copy.deepcopy(pod)
    change(broken)
    assert expected in restricted_violations(broken)


def test_a_pod_without_any_security_context_breaks_four_rules_of_the_restricted_profile() -> None:
    assert restricted_violations({"containers": [{"name": "c"}]}) == [
        "container c may escalate its privileges",
        "container c does not drop ALL capabilities",
        "container c may run as root: runAsNonRoot is not set",
        "container c has no seccompProfile",
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_of_an_overlay_is_valid_and_fits_the_pods_volumes_and_limits(
    overlay: str, tmp_path: Path
) -> None:
    manifests = kustomized(KUBERNETES / "overlays" / overlay)
    for _, pod in owners(manifests):
        (settings,) = configurations(manifests, tmp_path)
        assert capacity_problems(own_container(pod), settings) == []
        assert path_problems(pod, settings) == []
        assert settings.server.port == own_container(pod)["ports"][0]["containerPort"]
        assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_of_an_overlay_picks_what_is_meant(overlay: str) -> None:
    assert selector_problems(kustomized(KUBERNETES / "overlays" / overlay)) == []


def test_a_selector_of_everything_and_one_of_nothing_are_found() -> None:
    manifests: Any = copy.deepcopy(kustomized(KUBERNETES / "overlays" / "standalone"))
    named(manifests, "NetworkPolicy")["spec"]["podSelector"] = {}
    named(manifests, "Service")["spec"]["selector"] = {"app": "other"}
    assert selector_problems(manifests) == [
        "Service layerwatch selects nothing here",
        "NetworkPolicy layerwatch selects everything",
    ]


@pytest.mark.parametrize("overlay", ["standalone", "fleet", "monitored"])
def test_a_daemon_of_its_own_has_one_replica_that_ends_before_the_next_begins(overlay: str) -> None:
    stateful = named(kustomized(KUBERNETES / "overlays" / overlay), "StatefulSet")
    assert stateful["spec"]["replicas"] == 1
    container = own_container(pod_of(stateful) or {})
    assert container["startupProbe"]["httpGet"]["path"] == "/-/healthy"
    assert container["livenessProbe"]["httpGet"]["path"] == "/-/healthy"
    assert container["readinessProbe"]["httpGet"]["path"] == "/-/ready"


@pytest.mark.parametrize(
    ("overlay", "kind"), [("sidecar", "containers"), ("sidecar-native", "initContainers")]
)
def test_a_sidecar_stands_in_the_way_of_its_model_server_as_little_as_can_be(overlay: str, kind: str) -> None:
    """A readiness probe would take the server out of its service, a native sidecar's startup probe hold up its start."""
    manifests = kustomized(KUBERNETES / "overlays" / overlay)
    pod = pod_of(named(manifests, "Deployment")) or {}
    (container,) = (one for one in pod[kind] if one["name"] == "layerwatch")
    assert "readinessProbe" not in container
    assert container.get("restartPolicy") == ("Always" if kind == "initContainers" else None)
    assert ("startupProbe" in container) == (kind == "containers")
    # What it needs stands at the container itself: the pod's own settings belong to the model server.
    alone = {"containers": [container], "volumes": pod["volumes"]}
    assert restricted_violations(alone) == []
    assert not [one for one in manifests if one["kind"] == "NetworkPolicy"], (
        "it would close the model server's port"
    )


def test_the_two_kinds_of_sidecar_differ_in_nothing_but_their_kind() -> None:
    found = []
    for overlay in ("sidecar", "sidecar-native"):
        pod = pod_of(named(kustomized(KUBERNETES / "overlays" / overlay), "Deployment")) or {}
        container = own_container(pod)
        for key in ("startupProbe", "livenessProbe", "restartPolicy"):
            container.pop(key, None)
        found.append((container, pod["volumes"]))
    assert found[0] == found[1]


def test_the_sidecar_of_the_readme_is_the_one_of_the_overlay() -> None:
    """What people copy is what the other tests start."""
    readme = (REPOSITORY / "README.md").read_text()
    blocks = [block for block in re.findall(r"^```yaml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)]
    shown = [block for block in blocks if "name: layerwatch-config" in block]
    if not shown:
        pytest.skip("the README shows no sidecar")
    patch = read_yaml(KUBERNETES / "components" / "sidecar" / "sidecar.yaml")
    assert yaml.safe_load(shown[0]) == patch["spec"]["template"]["spec"]


def block_of_the_readme(beginning: str) -> str:
    text = (KUBERNETES / "README.md").read_text()
    blocks: list[str] = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (found,) = (block for block in blocks if block.startswith(beginning))
    return found


def test_the_overlay_that_the_readme_shows_has_ones_own_image_and_configuration(tmp_path: Path) -> None:
    (tmp_path / "layerwatch").symlink_to(REPOSITORY)
    (tmp_path / "kustomization.yaml").write_text(block_of_the_readme("apiVersion: kustomize"))
    (tmp_path / "layerwatch.yaml").write_text("registries: []\n")
    manifests = kustomized(tmp_path)
    stateful = named(manifests, "StatefulSet")
    assert {one["metadata"]["namespace"] for one in manifests} == {"ml-monitoring"}
    pod = pod_of(stateful) or {}
    assert own_container(pod)["image"] == "registry.example.org/ml/layerwatch:0.1.0"
    config = named(manifests, "ConfigMap")
    assert config["data"] == {"layerwatch.yaml": "registries: []\n"}
    (mounted,) = (one for one in pod["volumes"] if one["name"] == "config")
    assert mounted["configMap"]["name"] == config["metadata"]["name"]


def test_a_sidecar_gets_ones_own_configuration_as_the_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "layerwatch").symlink_to(REPOSITORY)
    (tmp_path / "inner").mkdir()
    server = (KUBERNETES / "overlays/model-server/deployment.yaml").read_text()
    (tmp_path / "inner" / "model-server.yaml").write_text(server)
    (tmp_path / "inner" / "kustomization.yaml").write_text(block_of_the_readme("# inner/kustomization.yaml"))
    (tmp_path / "kustomization.yaml").write_text(block_of_the_readme("# kustomization.yaml"))
    (tmp_path / "layerwatch.yaml").write_text("registries: []\n")

    manifests = kustomized(tmp_path)

    config = named(manifests, "ConfigMap")
    assert config["metadata"]["name"] == "layerwatch"
    assert config["data"] == {"layerwatch.yaml": "registries: []\n"}
    pod = pod_of(named(manifests, "Deployment")) or {}
    (mounted,) = (one for one in pod["volumes"] if one["name"] == "layerwatch-config")
    assert mounted["configMap"]["name"] == "layerwatch"


def test_a_component_adds_the_sidecar_to_labelled_deployments_only(tmp_path: Path) -> None:
    (tmp_path / "layerwatch").symlink_to(REPOSITORY)
    server = (KUBERNETES / "overlays/model-server/deployment.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(server)
    other = server.replace("name: model-server", "name: other").replace('sidecar: "true"', 'sidecar: "false"')
    (tmp_path / "other.yaml").write_text(other)
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [mine.yaml, other.yaml]\ncomponents: [layerwatch/deploy/kubernetes/components/sidecar]\n"
    )
    names = {
        one["metadata"]["name"]: [container["name"] for container in containers_of(pod)]
        for one in kustomized(tmp_path)
        if (pod := pod_of(one))
    }
    assert names["other"] == ["server"]
    assert sorted(names["model-server"]) == ["layerwatch", "server"]


def test_the_closed_egress_that_the_readme_shows_is_valid() -> None:
    policy: Any = copy.deepcopy(named(kustomized(KUBERNETES / "overlays" / "fleet"), "NetworkPolicy"))
    policy["spec"] |= yaml.safe_load(block_of_the_readme("policyTypes"))
    assert [schema_problem(policy, version) for version in versions()] == [None] * len(versions())


def test_the_readme_loads_a_changed_configuration_as_the_tests_of_the_pod_do() -> None:
    command = 'kubectl exec POD -c layerwatch -- python -c "import os, signal; os.kill(1, signal.SIGHUP)"'
    assert command in (KUBERNETES / "README.md").read_text()
    assert '("python", "-c", "import os, signal; os.kill(1, signal.SIGHUP)")' in (
        Path(__file__).with_name("test_pod.py").read_text()
    )


@pytest.mark.parametrize("overlay", ["standalone", "fleet", "monitored", "monitored-sidecar"])
def test_a_pod_is_annotated_for_scraping_where_no_monitor_of_the_operator_scrapes_it(overlay: str) -> None:
    manifests = kustomized(KUBERNETES / "overlays" / overlay)
    kinds = {one["kind"] for one in manifests}
    ((owner, _),) = owners(manifests)
    annotations = owner["spec"]["template"]["metadata"].get("annotations") or {}
    if kinds & {"ServiceMonitor", "PodMonitor"}:
        assert not [name for name in annotations if name.startswith("prometheus.io/")]
    else:
        assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": "9466"}


@pytest.mark.parametrize(
    ("cpu", "scan", "problems"),
    [
        ("2", "{workers: 2}", []),
        ("2", "{workers: 2, threads: 1}", []),
        ("2", "{workers: 1, threads: 3}", ["cpu limit 2: 1 scans of 3 threads"]),
        ("500m", "{workers: 1}", ["cpu limit 500m: 1 scans of 1 threads"]),
        (None, "{workers: 1}", ["no cpu limit: the daemon would take the cores of the whole node"]),
    ],
)
def test_the_check_of_limits_counts_the_cores_that_scans_take(
    cpu: str | None, scan: str, problems: list[str], tmp_path: Path
) -> None:
    limits = {"memory": "64Gi"} | ({} if cpu is None else {"cpu": cpu})
    manifest = {"kind": "ConfigMap", "data": {"layerwatch.yaml": f"registries: []\nscan: {scan}\n"}}
    (settings,) = configurations([manifest], tmp_path)
    assert capacity_problems({"resources": {"limits": limits}}, settings) == problems


def test_the_dashboards_of_the_overlays_are_the_ones_of_the_repository() -> None:
    manifests = kustomized(KUBERNETES / "overlays" / "monitored")
    shown = {
        name: text
        for one in manifests
        if one["kind"] == "ConfigMap" and one["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
        for name, text in one["data"].items()
    }
    folder = REPOSITORY / "deploy" / "grafana" / "dashboards"
    assert shown == {path.name: path.read_text() for path in folder.glob("*.json")}
    assert all(len(text) < 256 * 1024 for text in shown.values()), (
        "kubectl apply keeps a copy in an annotation"
    )
