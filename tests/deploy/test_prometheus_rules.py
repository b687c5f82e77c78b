"""The shipped Prometheus rules: built from one source, tested by promtool, true to what a daemon exports.

The checks of expressions are those of pint (a linter for Prometheus rules) that matter here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from layerwatch_testing import processes
from layerwatch_testing.daemons import TOKEN, DaemonProcess, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.servers.alertmanager import AlertmanagerServer
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDER = DEPLOY / "prometheus"
PLAIN = FOLDER / "layerwatch.rules.yml"
RUNBOOKS = FOLDER / "runbooks"
UNIT_TESTS = sorted((FOLDER / "tests").glob("*.yml"))

SCRAPE_INTERVAL = timedelta(minutes=1)
"""Prometheus' default; nobody should need a longer one."""

_TARGET_LABELS = {"job", "instance", "pod", "container", "endpoint", "namespace", "service"}
_FOREIGN = {
    "up": set[str](),
    "ALERTS": {"alertname", "alertstate"},
    "prometheus_notifications_errors_total": set[str](),
    "prometheus_notifications_alertmanagers_discovered": set[str](),
}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed: tests/install-servers.sh installs it",
)
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None or shutil.which("prometheus-alertmanager") is None,
    reason="amtool and Alertmanager are not installed: tests/install-servers.sh installs them",
)


def _promtool(*arguments: str, text: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, timeout=120, check=False)


def _build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / "build.py"), *arguments], capture_output=True, text=True, check=False
    )


@cache
def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(PLAIN.read_text())["groups"]
    return groups


def _rules(kind: str) -> dict[str, dict[str, Any]]:
    return {rule[kind]: rule for group in _groups() for rule in group["rules"] if kind in rule}


ALERTS = _rules("alert")
RECORDS = _rules("record")
EVERY_RULE = {**ALERTS, **RECORDS}


# What a real daemon exports


@dataclass(frozen=True)
class Exported:
    """Type of each family, and labels of each series name."""

    types: Mapping[str, str]
    labels: Mapping[str, set[str]]

    def is_known(self, name: str) -> bool:
        return self.type_of(name) is not None

    def type_of(self, name: str | None) -> str | None:
        if name is None:
            return None
        for family in (name, *(name.removesuffix(end) for end in ("_total", "_bucket", "_count", "_sum"))):
            if family in self.types:
                return self.types[family]
        return None


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that judged a healthy and a broken version, with a receiver that is not there."""
    folder = tmp_path_factory.mktemp("watched")
    world = DirectoryWorld(folder, marker=None, refs=["latest"])
    world.publish("fraud", "v1", network())
    world.publish("fraud", "v2", finetuned(network()))
    world.publish("fraud", "v3", with_wrong_scale(finetuned(network(), 2)))
    config = write_config(
        folder / "layerwatch.yaml",
        directory("prod", world.root),
        receivers=[
            {"name": "oncall", "kind": "webhook", "url": "http://127.0.0.1:1/", "allow_private_cidrs": ["127.0.0.0/8"]},
            {"name": "alive", "kind": "heartbeat", "url": "http://127.0.0.1:1/", "allow_private_cidrs": ["127.0.0.0/8"]},
        ],
        server={"external_url": "https://watch.example"},
    )  # fmt: skip
    with DaemonProcess(config) as running:
        running.wait_until_listening()
        assert running.wait_for_verdict("prod/fraud/v3") == "fail"
        until(lambda: running.sample("layerwatch_model_verdict", registry="prod", model="fraud", ref="latest"),
              "the gauges")  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def exported(daemon: DaemonProcess) -> Exported:
    types: dict[str, str] = {}
    labels: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(daemon.get("/metrics").text):
        types[family.name] = family.type
        for sample in family.samples:
            labels[sample.name] |= set(sample.labels)
    return Exported(types, labels)


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_metrics_of_a_daemon(daemon: DaemonProcess) -> None:
    checked = _promtool("check", "metrics", text=daemon.get("/metrics").content)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


# One source


def test_the_committed_files_are_what_the_source_builds() -> None:
    checked = _build("--check")
    assert checked.returncode == 0, checked.stderr


def test_all_three_forms_hold_the_same_rules() -> None:
    manifest = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert manifest["spec"] == {"groups": _groups()}
    chart = DEPLOY / "helm" / "layerwatch" / "rules" / "layerwatch.rules.yml"
    assert chart.read_bytes() == PLAIN.read_bytes()


def test_no_word_of_the_source_is_left() -> None:
    assert not re.findall(r"@[A-Z_]+[@(]", PLAIN.read_text())


def test_whoever_replaces_the_placeholders_finds_them() -> None:
    source = (FOLDER / "build.py").read_text()
    for name, replaced_in in (
        ("RUNBOOKS", ("helm/layerwatch/templates/prometheusrule.yaml", "grafana/dashboards_src/alerting.py")),
        ("GRAFANA", ("helm/layerwatch/templates/prometheusrule.yaml",)),
    ):
        found = re.search(rf'(?m)^{name} = "(.*)"$', source)
        assert found
        assert found[1] in PLAIN.read_text()
        for path in replaced_in:
            assert f'"{found[1]}"' in (DEPLOY / path).read_text()


@needs_promtool
def test_options_change_addresses_jobs_and_times_and_promtool_accepts_the_result(tmp_path: Path) -> None:
    target = tmp_path / "rules.yml"
    built = _build(
        "--runbooks", "https://wiki.example/lw/", "--grafana", "http://grafana:3000/g", "--job", "fraud",
        "--job", "team/search", "--set", "LayerwatchAbsent.for=90s", "--set", "LayerwatchLayerBroken.severity=page",
        "--set", "LayerwatchLayerBroken.keep_firing_for=0", "--output", str(target),
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    checked = _promtool("check", "rules", str(target))
    assert checked.returncode == 0, checked.stderr
    rules = {
        rule["alert"]: rule
        for group in yaml.safe_load(target.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    for name, rule in rules.items():
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example/lw/{name}.md"
        assert rule["annotations"]["dashboard_url"].startswith("http://grafana:3000/g/d/layerwatch-")
    assert rules["LayerwatchAbsent"]["for"] == "90s"
    assert 'absent(layerwatch_build_info{job="team/search"})' in rules["LayerwatchAbsent"]["expr"]
    assert rules["LayerwatchLayerBroken"]["labels"]["severity"] == "page"
    assert "github.com" not in target.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "LayerwatchNothing.for=5m"], "no LayerwatchNothing.for"),
        (["--set", "LayerwatchLayerBroken.for=5m"], "no LayerwatchLayerBroken.for"),
        (["--set", "LayerwatchAbsent.for=soon"], "no duration"),
        (["--set", "LayerwatchAbsent.expr=up"], "is not ALERT.SETTING=VALUE"),
        (["--runbooks", "wiki"], "no http(s) address"),
        (["--grafana", 'https://x/"}'], "no http(s) address"),
        (["--job", 'a"} or vector(1)'], "no name of a scrape job"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(arguments: list[str], told: str) -> None:
    built = _build(*arguments, "--output", "-")
    assert (built.returncode, built.stdout) == (2, "")
    assert told in built.stderr


@needs_promtool
def test_a_job_that_is_named_is_missed_for_ever_and_once(tmp_path: Path) -> None:
    assert _build("--job", "fraud", "--output", str(tmp_path / "rules.yml")).returncode == 0
    alerts = [{"exp_labels": {"severity": "critical", "job": "fraud"}}]
    down = [{"exp_labels": {"severity": "critical", "job": "fraud", "instance": "a:1"}}]
    tests = [
        {
            "name": "gone for days, while another job goes on",
            "interval": "5m",
            "input_series": [
                {"series": 'layerwatch_build_info{job="fraud", instance="a:1"}', "values": "1x10 stale"},
                {"series": 'layerwatch_build_info{job="other", instance="b:1"}', "values": "1x1000"},
                {"series": 'up{job="other", instance="b:1"}', "values": "1x1000"},
            ],
            "alert_rule_test": [
                {"alertname": "LayerwatchAbsent", "eval_time": "3d", "exp_alerts": alerts},
                {"alertname": "LayerwatchAbsent", "eval_time": "2h", "exp_alerts": alerts},
            ],
        },
        {
            "name": "known and down",
            "interval": "5m",
            "input_series": [
                {"series": 'up{job="fraud", instance="a:1"}', "values": "1x10 0x100"},
                {"series": 'layerwatch_build_info{job="fraud", instance="a:1"}', "values": "1x10 stale"},
            ],
            "alert_rule_test": [{"alertname": "LayerwatchAbsent", "eval_time": "2h", "exp_alerts": down}],
        },
    ]
    file = tmp_path / "test.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "5m", "tests": tests})
    )
    # The texts are those of the committed rules, and compared there: here only who fires.
    source = re.sub(
        r"(?m)^        annotations:\n(?:          .*\n)+", "", (tmp_path / "rules.yml").read_text()
    )
    (tmp_path / "rules.yml").write_text(source)
    tested = _promtool("test", "rules", str(file))
    assert tested.returncode == 0, tested.stdout.decode() + tested.stderr.decode()


# promtool


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    checked = _promtool("check", "rules", "--lint=all", "--lint-fatal", str(PLAIN))
    assert checked.returncode == 0, checked.stdout.decode() + checked.stderr.decode()


@needs_promtool
@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda path: path.stem)
def test_promtool_finds_the_alerts_as_expected(file: Path) -> None:
    tested = _promtool("test", "rules", str(file))
    assert tested.returncode == 0, tested.stdout.decode() + tested.stderr.decode()


@needs_promtool
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("LayerwatchRegistryDown", r"\s+and\s+sum without \(reason\) \(layerwatch_registry_failures_total\) > 0", ""),
        ("LayerwatchMonitorStale", r"\(layerwatch_last_success_timestamp_seconds > 0\)", "layerwatch_last_success_timestamp_seconds"),
        ("LayerwatchQueueStuck", r"increase\(layerwatch_scans_total\[2h\]\) == 0\s+and on \(job, instance\)", ""),
        ("LayerwatchQueueStuck", r"and on \(job, instance\)\s+time\(\) - process_start_time_seconds > 7200", ""),
        ("LayerwatchContentChangedInPlace", r"and on \(job, instance\)\s+time\(\) - process_start_time_seconds < 21600", ""),
        ("LayerwatchAbsent", r"for: 10m", "for: 0s"),
        ("LayerwatchLayerBroken", r"keep_firing_for: 5m", "keep_firing_for: 0s"),
        ("LayerwatchModelUndecided", r"layerwatch_model_verdict == 3", "layerwatch_model_verdict == 9"),
        ("LayerwatchModelFailed", r"unless\s+max without \(instance, pod, container, endpoint, status\)[^\n]*", ""),
        ("LayerwatchDeliveriesPilingUp", r"\s+and\s+layerwatch_outbox_waiting >= layerwatch_outbox_waiting offset 10m", ""),
        ("LayerwatchDeliveriesPilingUp", r"for: 15m", "for: 1m"),
        ("LayerwatchEventsGivenUp", r"and on \(job, instance\)\s+time\(\) - process_start_time_seconds < 3600", ""),
        ("LayerwatchHeartbeatNotTaken", r"unless\s+increase\(layerwatch_heartbeats_total\[15m\]\) > 0", ""),
    ],
)  # fmt: skip
def test_the_unit_tests_notice_a_guard_that_is_taken_out(
    tmp_path: Path, rule: str, before: str, after: str
) -> None:
    head, name, tail = PLAIN.read_text().partition(f"- alert: {rule}\n")
    changed, count = re.subn(before, after, tail, count=1)
    assert count == 1
    (tmp_path / "tests").mkdir()
    (tmp_path / PLAIN.name).write_text(head + name + changed)
    assert _promtool("check", "rules", str(tmp_path / PLAIN.name)).returncode == 0
    for file in UNIT_TESTS:
        shutil.copy(file, tmp_path / "tests")
        if _promtool("test", "rules", str(tmp_path / "tests" / file.name)).returncode == 1:
            return
    raise AssertionError("all unit tests pass without it")


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_seen_silent_firing_with_its_texts_and_ending(name: str) -> None:
    silent, told, ended = False, False, False
    for file in UNIT_TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            steps = [step for step in test.get("alert_rule_test", ()) if step["alertname"] == name]
            fired = False
            for step in steps:
                silent |= not step["exp_alerts"]
                ended |= fired and not step["exp_alerts"]
                for alert in step["exp_alerts"]:
                    fired = True
                    told |= set(alert["exp_annotations"]) == set(ALERTS[name]["annotations"])
    assert told
    if name != "LayerwatchHeartbeat":
        assert silent
        assert ended


# What every rule has to have


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_severity_texts_and_links(name: str) -> None:
    rule = ALERTS[name]
    assert name.startswith("Layerwatch")
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "none"}
    annotations = rule["annotations"]
    assert {"summary", "description", "runbook_url", "dashboard_url"} <= set(annotations)
    assert "First" in annotations["description"], "it says what to do first"
    assert annotations["runbook_url"].endswith(f"/runbooks/{name}.md")
    if "layerwatch-model" in annotations["dashboard_url"]:
        assert "layerwatch_model_report_info" in annotations["report_url"]


def test_only_what_must_wake_somebody_is_critical() -> None:
    critical = {name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "critical"}
    assert critical == {
        "LayerwatchLayerBroken",
        "LayerwatchModelFailed",
        "LayerwatchContentChangedInPlace",
        "LayerwatchAbsent",
    }


def test_dashboards_that_are_linked_to_exist() -> None:
    for rule in ALERTS.values():
        found = re.search(r"/d/([\w-]+)", rule["annotations"]["dashboard_url"])
        assert found
        assert (DEPLOY / "grafana" / "dashboards" / f"{found[1]}.json").is_file()


@pytest.mark.parametrize("name", RECORDS)
def test_recorded_series_are_named_by_level_metric_and_operation(name: str, exported: Exported) -> None:
    level, metric, operations = name.split(":")
    assert level in {"registry", "ref", "instance", "receiver"}
    assert operations
    related = {metric, f"{metric}_total", metric.removesuffix("_shift")}
    assert any(exported.is_known(one) for one in related), metric


# Expressions


def _nodes(expression: str) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    return found


def _check(expression: str, exported: Exported) -> list[str]:
    """What is wrong with an expression; empty for nothing."""
    problems = []
    for node in _nodes(expression):
        if isinstance(node, promql_parser.VectorSelector):
            problems += _unknown(node, exported)
        if isinstance(node, promql_parser.AggregateExpr):
            if str(node.op) in {"topk", "bottomk", "limitk"}:
                problems.append(f"{node.op} flaps: another series each time is another alert")
            if node.modifier is not None:
                problems += [f"no series has the label {one}" for one in node.modifier.labels
                             if one not in _every_label(exported)]  # fmt: skip
        if isinstance(node, promql_parser.Call):
            problems += _wrong_call(node, exported)
    return problems


def _every_label(exported: Exported) -> set[str]:
    return _TARGET_LABELS.union({"le"}, *exported.labels.values())


def _unknown(selector: Any, exported: Exported) -> list[str]:
    name = selector.name
    recorded = RECORDS.get(name)
    if name is None or (recorded is None and name not in _FOREIGN and not exported.is_known(name)):
        return [f"there is no metric {name}"]
    # A family without a series now cannot be checked further, nor can what is recorded.
    known = exported.labels.get(name, _FOREIGN.get(name))
    if known is None:
        return []
    wanted = {matcher.name for matcher in selector.matchers.matchers}
    return [f"{name} has no label {one}" for one in wanted - known - _TARGET_LABELS]


def _wrong_call(call: Any, exported: Exported) -> list[str]:
    problems = []
    for argument in call.args:
        if not isinstance(argument, promql_parser.MatrixSelector):
            continue
        name = argument.vector_selector.name
        kind = exported.type_of(name)
        counts = kind in {"counter", "histogram"} or name in _FOREIGN
        if call.func.name in {"rate", "increase", "irate", "resets"} and not counts:
            problems.append(f"{call.func.name} over {name}, a {kind}")
        if call.func.name in {"delta", "deriv", "idelta", "changes"} and kind != "gauge":
            problems.append(f"{call.func.name} over {name}, a {kind}")
        if argument.range < 4 * SCRAPE_INTERVAL:
            problems.append(f"{call.func.name} over {argument.range} sees too few samples")
    return problems


@pytest.mark.parametrize("name", EVERY_RULE)
def test_each_rule_asks_for_what_a_daemon_exports_and_in_the_right_way(name: str, exported: Exported) -> None:
    assert _check(EVERY_RULE[name]["expr"], exported) == []


@pytest.mark.parametrize("name", ALERTS)
def test_queries_in_annotations_ask_for_what_a_daemon_exports(name: str, exported: Exported) -> None:
    for text in ALERTS[name]["annotations"].values():
        queries = re.findall(r'printf "([^"]+)"(?: \$labels\.\w+)+ \| query', text)
        assert len(queries) == text.count("| query")
        for query in queries:
            assert _check(query.replace("%q", '"x"'), exported) == []


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_about_what_is_absent_waits_for_two_scrapes(name: str) -> None:
    calls = {node.func.name for node in _nodes(ALERTS[name]["expr"]) if isinstance(node, promql_parser.Call)}
    if calls & {"absent", "absent_over_time"}:
        assert promql_parser.parse_duration(ALERTS[name]["for"]) >= 2 * SCRAPE_INTERVAL


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("layerwatch_nothing > 0", "there is no metric"),
        ('layerwatch_registry_up{model="m"} == 0', "no label model"),
        ("rate(layerwatch_registry_up[5m]) > 0", "over layerwatch_registry_up, a gauge"),
        ("changes(layerwatch_scans_total[5m]) > 0", "over layerwatch_scans_total, a counter"),
        ("increase(layerwatch_scans_total[1m]) > 0", "too few samples"),
        ("topk(1, layerwatch_registry_up)", "flaps"),
        ("sum by (nothing) (layerwatch_registry_up)", "no series has the label nothing"),
    ],
)
def test_the_checks_notice_mistakes(expression: str, problem: str, exported: Exported) -> None:
    (found,) = _check(expression, exported)
    assert problem in found


# Runbooks

_SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def _blocks(text: str, language: str) -> list[str]:
    """Code blocks of a language, also within lists."""
    found = re.findall(rf"(?ms)^( *)```{language}\n(.*?)^ *```$", text)
    return [re.sub(rf"(?m)^{indent}", "", body) for indent, body in found]


def _runbooks() -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted(RUNBOOKS.glob("Layerwatch*.md"))}


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert set(_runbooks()) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_each_runbook_has_the_four_sections_and_links_that_lead_somewhere(name: str) -> None:
    text = _runbooks()[name]
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"(?m)^## (.*)$", text) == _SECTIONS
    for section in re.split(r"(?m)^## .*$", text)[1:]:
        assert len(section.split()) > 5
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (RUNBOOKS / link).is_file(), link


@pytest.mark.parametrize("name", ALERTS)
def test_queries_in_runbooks_ask_for_what_a_daemon_exports(name: str, exported: Exported) -> None:
    for query in _blocks(_runbooks()[name], "promql"):
        assert _check(query, exported) == []


@needs_amtool
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("jq") is None, reason="jq is not installed: tests/install-servers.sh installs it"
)
def test_every_command_of_the_runbooks_works(daemon: DaemonProcess, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "layerwatch"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m layerwatch.daemon "$@"\n')
    command.chmod(0o755)
    config = next(daemon.log_file.parent.glob("layerwatch.yaml"))
    routes = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    with AlertmanagerServer(tmp_path / "alertmanager", routes) as alertmanager:
        environment = processes.environment(
            PATH=f"{programs}{os.pathsep}{os.environ['PATH']}", LAYERWATCH=daemon.address, TOKEN=TOKEN,
            LAYERWATCH_CONFIG=str(config), REGISTRY="prod", MODEL="fraud", REF="latest", VERSION="v3",
            LAYER="fc2", ALERTMANAGER=alertmanager.url,
        )  # fmt: skip
        ran = 0
        for name, text in _runbooks().items():
            for block in _blocks(text, "sh"):
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", block],
                    env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
                assert done.returncode == 0, f"{name}:\n{block}\n{done.stdout}\n{done.stderr}"
                ran += 1
    assert ran > 20


# Examples


@needs_amtool
def test_amtool_accepts_the_example_of_routes_and_every_alert_finds_its_way() -> None:
    file = FOLDER / "examples" / "alertmanager.yml"
    checked = subprocess.run(["amtool", "check-config", str(file)], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    expected = {"critical": "pages", "warning": "tickets", "none": "heartbeat"}
    for name, rule in ALERTS.items():
        severity = rule["labels"]["severity"]
        routed = subprocess.run(
            ["amtool", "config", "routes", "test", f"--config.file={file}", f"alertname={name}", f"severity={severity}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert routed.stdout.strip() == expected[severity], name


def test_the_example_inhibits_only_alerts_that_exist() -> None:
    example = yaml.safe_load((FOLDER / "examples" / "alertmanager.yml").read_text())
    for rule in example["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            pattern = matcher.split("=", 1)[1].lstrip("~ ").strip('"')
            assert [name for name in ALERTS if re.fullmatch(pattern, name)], matcher


@needs_promtool
def test_promtool_accepts_the_example_of_a_configuration() -> None:
    checked = _promtool("check", "config", "--syntax-only", str(FOLDER / "examples" / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout.decode() + checked.stderr.decode()
