"""The Helm chart: linted, rendered with every set of values in ci/, valid, restricted, and fit for what it configures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import layerwatch
from layerwatch_testing.kubernetes import (
    CHART,
    REPOSITORY,
    Manifest,
    containers_of,
    helm_rendered,
    helm_texts,
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

SETS = sorted(path.name for path in (CHART / "ci").glob("*-values.yaml"))


def values_of(name: str) -> dict[str, Any]:
    return read_yaml(CHART / "ci" / name) or {}


def objects(values: dict[str, Any]) -> tuple[Manifest, ...]:
    return tuple(one for documents in helm_rendered(values).values() for one in documents)


def test_there_are_six_sets_of_values() -> None:
    assert SETS == [
        "default-values.yaml",
        "directory-values.yaml",
        "existing-values.yaml",
        "monitoring-values.yaml",
        "postgresql-values.yaml",
        "restricted-network-values.yaml",
    ]


@pytest.mark.parametrize("name", SETS)
def test_the_chart_is_linted_without_a_complaint(name: str) -> None:
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    report = helm.lint(CHART, values_of(name), strict=True, kube_version="v1.29.0")
    assert report["errors"] == []
    # 1 is information: a chart should have an icon.
    assert [one for one in report["messages"] if one["severity"] > 1] == []


@pytest.mark.parametrize("name", SETS)
def test_every_object_of_the_chart_is_valid_in_every_version_of_kubernetes_since_1_29(name: str) -> None:
    for manifest in objects(values_of(name)):
        for version in versions():
            assert schema_problem(manifest, version) is None, (manifest["kind"], version)


@pytest.mark.parametrize("name", SETS)
def test_every_pod_of_the_chart_keeps_to_the_restricted_profile_and_more(name: str) -> None:
    pods = [pod for one in objects(values_of(name)) if (pod := pod_of(one))]
    assert len(pods) == 2  # the daemon's, and that of `helm test`
    for pod in pods:
        assert restricted_violations(pod) == []
        assert pod["automountServiceAccountToken"] is False
        for container in containers_of(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("name", SETS)
def test_the_configuration_of_the_chart_is_valid_and_fits_the_pods_volumes_and_limits(
    name: str, tmp_path: Path
) -> None:
    manifests = objects(values_of(name))
    ((_, pod),) = owners(manifests)
    found = list(configurations(manifests, tmp_path))
    assert len(found) == (0 if "existing" in name else 1)
    for settings in found:
        assert capacity_problems(own_container(pod), settings) == []
        assert path_problems(pod, settings) == []
        assert settings.server.port == own_container(pod)["ports"][0]["containerPort"]


def test_limits_and_paths_that_do_not_fit_are_found(tmp_path: Path) -> None:
    values = {"config": {"scan": {"workers": 3}, "downloads": {"path": "/home/x"}}}
    manifests = objects(values)
    ((_, pod),) = owners(manifests)
    (settings,) = configurations(manifests, tmp_path)
    assert capacity_problems(own_container(pod), settings) == [
        "memory limit 4608Mi: 3 scans need 12800Mi",
        "cpu limit 2: 3 scans of 1 threads",
    ]
    assert path_problems(pod, settings) == ["downloads.path: /home/x is on no volume"]


@pytest.mark.parametrize("name", SETS)
def test_every_selector_of_the_chart_picks_what_is_meant(name: str) -> None:
    assert selector_problems([one for one in objects(values_of(name)) if one["kind"] != "Pod"]) == []


def test_the_default_values_of_the_chart_and_its_schema_name_the_same_keys() -> None:
    """So that every key is documented, and none is refused that has a default."""
    values, schema = read_yaml(CHART / "values.yaml"), read_yaml(CHART / "values.schema.json")

    def missing(value: Any, known: Any, path: str) -> list[str]:
        properties = known.get("properties")
        if not isinstance(value, dict) or properties is None:
            return []
        unlike = set(value) ^ (set(properties) - {"global", "claims"})
        return [f"{path}{key}" for key in sorted(unlike)] + [
            found
            for key in set(value) & set(properties)
            for found in missing(value[key], properties[key], f"{path}{key}.")
        ]

    assert missing(values, schema, "") == []


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 2},
        {"image": {"digest": "latest"}},
        {"persistence": {"size": "much"}},
        {"terminationGracePeriodSeconds": 10},
        {"service": {"port": "9466"}},
        {"runbooksUrl": "https://wiki.example.org/"},
        {"existingSecret": "A secret"},
        {"config": []},
    ],
)
def test_the_schema_refuses_values_that_cannot_be_meant(values: dict[str, Any]) -> None:
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmValuesError):
        chart.validate_schema(values)


def test_the_versions_of_the_chart_are_those_of_layerwatch_and_its_image_is_named_once() -> None:
    assert read_yaml(CHART / "Chart.yaml")["appVersion"] == layerwatch.__version__
    container = own_container(owners(objects({}))[0][1])
    assert container["image"] == f"ghcr.io/layerwatch/layerwatch:{layerwatch.__version__}"
    for path in (REPOSITORY / "deploy" / "kubernetes").rglob("*.yaml"):
        for image in re.findall(r"image: (\S*layerwatch\S*)", path.read_text()):
            assert image == container["image"], path
    digest = f"sha256:{'0' * 64}"
    container = own_container(owners(objects({"image": {"tag": "9", "digest": digest}}))[0][1])
    assert container["image"] == f"ghcr.io/layerwatch/layerwatch@{digest}"


def test_the_store_is_a_file_on_the_volume_until_the_values_name_another(tmp_path: Path) -> None:
    (settings,) = configurations(objects({"config": {"store": {"keep_versions": 7}}}), tmp_path)
    assert settings.store.url.reveal() == "sqlite:////var/lib/layerwatch/layerwatch.db"
    assert settings.store.keep_versions == 7
    (settings,) = configurations(objects(values_of("postgresql-values.yaml")), tmp_path)
    assert not settings.store.url.is_plain
    assert settings.store.keep_versions == 200


def test_a_change_of_the_configuration_is_a_rollout_and_anything_else_of_the_values_is_none() -> None:
    def checksum(values: dict[str, Any]) -> str:
        annotations = named(helm_rendered(values)["statefulset.yaml"], "StatefulSet")["spec"]["template"][
            "metadata"
        ]
        return str(annotations["annotations"]["checksum/config"])

    assert checksum({}) != checksum({"config": {"scan": {"timeout": "2h"}}})
    assert checksum({}) == checksum({"podDisruptionBudget": {"enabled": True}})


def test_what_exists_is_used_and_not_made(tmp_path: Path) -> None:
    manifests = objects(values_of("existing-values.yaml"))
    assert {one["kind"] for one in manifests} == {"NetworkPolicy", "Service", "StatefulSet", "Pod"}
    ((owner, pod),) = owners(manifests)
    assert "volumeClaimTemplates" not in owner["spec"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == "weights-config"
    assert volumes["secrets"]["secret"]["secretName"] == "weights-secrets"
    assert volumes["secrets"]["secret"]["optional"] is False
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == "weights-state"
    assert pod["serviceAccountName"] == "weights"
    names = {one["name"] for one in own_container(pod)["env"]}
    assert names == {"LAYERWATCH_CONFIG", "LAYERWATCH_SERVER__MAX_SERIES_PER_MODEL"}


def test_the_rules_and_the_dashboards_of_the_chart_are_those_of_the_repository_with_ones_own_links() -> None:
    manifests = objects(values_of("monitoring-values.yaml"))
    rules = named(manifests, "PrometheusRule")
    assert rules["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    text = str(rules["spec"])
    assert "https://wiki.example.org/runbooks/LayerwatchLayerBroken.md" in text
    assert "https://dashboards.example.org/d/layerwatch-fleet" in text
    assert "github.com" not in text and "grafana.example.com" not in text
    original = read_yaml(REPOSITORY / "deploy" / "prometheus" / "layerwatch.rules.yml")
    assert [one["name"] for one in rules["spec"]["groups"]] == [one["name"] for one in original["groups"]]
    assert len(rules["spec"]["groups"]) > 1
    shown = {
        name: data for one in manifests if one["kind"] == "ConfigMap" for name, data in one["data"].items()
    }
    for path in (REPOSITORY / "deploy" / "grafana" / "dashboards").glob("*.json"):
        assert shown[path.name] == path.read_text().rstrip("\n")


def test_the_notes_warn_of_a_daemon_that_watches_nothing_and_of_a_store_that_is_not_kept() -> None:
    default = helm_texts({})["NOTES.txt"]
    assert "NOTHING IS WATCHED" in default and "history go with it" not in default
    unkept = helm_texts({"persistence": {"enabled": False}})["NOTES.txt"]
    assert "history go with it" in unkept
    fleet = helm_texts(values_of("postgresql-values.yaml"))["NOTES.txt"]
    assert "NOTHING IS WATCHED" not in fleet and "history go with it" not in fleet


def test_a_release_whose_name_holds_the_charts_is_not_named_twice() -> None:
    assert (
        named(helm_rendered({}, "layerwatch")["service.yaml"], "Service")["metadata"]["name"] == "layerwatch"
    )
    long = named(helm_rendered({}, "r" * 53)["statefulset.yaml"], "StatefulSet")["metadata"]["name"]
    assert len(long) <= 52


def test_helm_test_asks_the_service_of_the_release() -> None:
    (pod,) = helm_rendered({})["tests/ready.yaml"]
    command = pod["spec"]["containers"][0]["command"]
    assert command[0] == "python" and 'HTTPConnection("lw-layerwatch", 9466' in command[2]
    compile(command[2], "test", "exec")


@pytest.mark.parametrize("name", SETS)
def test_the_network_policy_lets_the_pod_of_helm_test_in_and_the_service_does_not_pick_it(name: str) -> None:
    manifests = objects(values_of(name))
    labels = named(manifests, "Pod")["metadata"]["labels"]
    policy = named(manifests, "NetworkPolicy")["spec"]

    def picks(selector: dict[str, str]) -> bool:
        return all(labels.get(name) == value for name, value in selector.items())

    # A peer with nothing but a podSelector is a pod of the same namespace.
    admitted = [
        (rule["ports"], peer)
        for rule in policy["ingress"]
        for peer in rule["from"]
        if peer.keys() == {"podSelector"} and picks(peer["podSelector"]["matchLabels"])
    ]
    assert len(admitted) == 1
    assert admitted[0][0] == [{"port": "http", "protocol": "TCP"}]
    assert not picks(named(manifests, "Service")["spec"]["selector"])
    assert not picks(policy["podSelector"]["matchLabels"])


def test_the_values_that_the_readme_shows_are_valid(tmp_path: Path) -> None:
    text = (CHART / "README.md").read_text()
    (block,) = re.findall(r"^```yaml\n# values.yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    manifests = objects(yaml.safe_load(block))
    ((_, pod),) = owners(manifests)
    (settings,) = configurations(manifests, tmp_path)
    assert path_problems(pod, settings) == [] and capacity_problems(own_container(pod), settings) == []
    assert [one.name for one in settings.alerts.receivers] == ["oncall"]
