"""The dashboards: current, well laid out, and every query of theirs answered by a real Prometheus."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerwatch_testing.fleetstory import FRAUD, MIXTURE, Story, told
from layerwatch_testing.grafana import Dashboard, Panel, Values, frames, label_values
from layerwatch_testing.servers import free_port, prometheus

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
RULES = ROOT / "deploy" / "prometheus" / "layerwatch.rules.yml"
BUILD = GRAFANA / "build.py"
ALERTING = GRAFANA / "provisioning" / "alerting" / "layerwatch.yaml"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
# Of Node.js and of npm's own client: the registry's name is unknown, or its machine does not answer.
UNREACHABLE = {
    *("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"),
    *("ERR_SOCKET_TIMEOUT", "ERR_SOCKET_CONNECTION_TIMEOUT"),
}
NPM_PACKAGES = ("@grafana/schema@13.2.3", "@grafana/data@13.2.3", "typescript@5.9.3")

dashboards = pytest.mark.parametrize(
    "dashboard", [Dashboard(file) for file in FILES], ids=[file.stem for file in FILES]
)


# --- what can be seen without a server ---------------------------------------------------------------------------


def test_the_committed_files_are_what_their_source_makes() -> None:
    pytest.importorskip(
        "grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed: pip install '.[dev]'"
    )
    done = subprocess.run(
        [sys.executable, str(BUILD), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_both_dashboards_keep_the_addresses_that_alerts_and_links_use() -> None:
    assert [Dashboard(file).json["uid"] for file in FILES] == ["layerwatch-fleet", "layerwatch-model"]
    assert all("layerwatch" in Dashboard(file).json["tags"] for file in FILES)


@dashboards
def test_every_panel_has_a_title_a_unit_and_says_what_to_do(dashboard: Dashboard) -> None:
    for panel in dashboard.panels():
        assert panel["title"]
        assert len(panel["description"].split()) >= 10, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@dashboards
def test_every_panel_and_every_query_has_a_name_of_its_own(dashboard: Dashboard) -> None:
    rows = [panel for panel in dashboard.json["panels"] if panel["type"] == "row"]
    numbers = [panel["id"] for panel in [*dashboard.panels(), *rows]]
    assert len(set(numbers)) == len(numbers)
    for panel in dashboard.panels():
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names), panel["title"]


@dashboards
def test_panels_fill_the_grid_without_overlaps(dashboard: Dashboard) -> None:
    cells: dict[tuple[int, int], str] = {}
    shown = [*dashboard.panels(), *(panel for panel in dashboard.json["panels"] if panel["type"] == "row")]
    for panel in shown:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells, f"{panel['title']} lies on {cells[x, y]}"
                cells[x, y] = panel["title"]


@dashboards
def test_only_the_chosen_data_source_is_asked(dashboard: Dashboard) -> None:
    sources = [panel["datasource"] for panel in dashboard.panels()]
    sources += [target["datasource"] for _, target in dashboard.targets()]
    sources += [one["datasource"] for one in dashboard.variables.values() if one["type"] == "query"]
    sources += [one["datasource"] for one in dashboard.annotations]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert dashboard.variables["datasource"]["type"] == "datasource"


@dashboards
def test_no_state_is_green_and_undecided_looks_like_nothing_else(dashboard: Dashboard) -> None:
    text = json.dumps(dashboard.json).lower()
    assert "green" not in text
    colors = {
        (result["text"], result["color"])
        for panel in dashboard.panels()
        for settings in _settings(panel)
        for mapping in settings.get("mappings", [])
        if mapping["type"] == "value"
        for result in mapping["options"].values()
        if result["text"] in {"pass", "ok", "undecided"}
    }
    assert len({color for word, color in colors if word == "undecided"}) == 1
    assert not {color for word, color in colors if word == "undecided"} & {
        color for word, color in colors if word != "undecided"
    }
    for panel in dashboard.panels():
        if panel["type"] in {"stat", "table"}:
            # Without thresholds of its own a panel gets Grafana's: everything is green.
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]


def _settings(panel: Panel) -> Iterator[Mapping[str, Any]]:
    """The panel's own field settings, then those of each override."""
    yield panel["fieldConfig"]["defaults"]
    for override in panel["fieldConfig"]["overrides"]:
        yield {one["id"]: one["value"] for one in override["properties"]}


@dashboards
def test_all_variables_that_are_used_exist(dashboard: Dashboard) -> None:
    texts = [target["expr"] for _, target in dashboard.targets()]
    texts += [one["query"]["query"] for one in dashboard.variables.values() if one["type"] == "query"]
    texts += [one["expr"] for one in dashboard.annotations]
    used = {name for text in texts for name in re.findall(r"\$([a-z]\w*)", text)}
    assert used <= set(dashboard.variables)
    assert {"job", "instance", "registry", "model"} <= used


def test_several_chosen_models_are_quoted_as_regular_expressions() -> None:
    fleet = Dashboard(GRAFANA / "dashboards" / "layerwatch-fleet.json")
    text = 'x{model=~"$model"}'
    assert fleet.interpolate(text, {"model": "$__all"}) == 'x{model=~".*"}'
    assert fleet.interpolate(text, {"model": ["a.b"]}) == 'x{model=~"a\\\\.b"}'
    assert fleet.interpolate(text, {"model": ["a", "b"]}) == 'x{model=~"(a|b)"}'


# --- alert rules for Grafana itself ------------------------------------------------------------------------------


def _grafana_rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(ALERTING.read_text(encoding="utf-8"))["groups"]
    return {rule["title"]: rule for group in groups for rule in group["rules"]}


def _prometheus_rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_grafanas_own_rules_are_those_of_prometheus_but_for_the_heartbeat() -> None:
    own, others = _grafana_rules(), _prometheus_rules()
    assert set(others) - set(own) == {"LayerwatchHeartbeat"}
    assert set(own) <= set(others)
    for name, rule in own.items():
        query, condition = rule["data"][0], rule["data"][-1]
        assert query["model"]["expr"] == others[name]["expr"]
        assert rule["condition"] == condition["refId"]
        assert rule["for"] == others[name].get("for", "0s")
        assert rule["labels"]["severity"] == others[name]["labels"]["severity"]


def test_grafanas_own_rules_use_nothing_that_its_templates_lack() -> None:
    for name, rule in _grafana_rules().items():
        for text in rule["annotations"].values():
            # Grafana's $value is a text about all values, and its templates cannot query.
            assert not re.search(r"\$value\b", text), name
            assert "| query" not in text, name
            assert not re.search(r"@[A-Z_]+@", text), name


def test_grafanas_own_rules_have_uids_that_grafana_accepts() -> None:
    uids = [rule["uid"] for rule in _grafana_rules().values()]
    assert len(set(uids)) == len(uids)
    # Letters, digits, dash and underscore, at most 40 (Grafana's ValidateUID).
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", uid) for uid in uids)


def test_the_provisioned_data_source_is_the_one_that_the_rules_ask() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "layerwatch.yaml").read_text())
    (source,) = sources["datasources"]
    asked = {rule["data"][0]["datasourceUid"] for rule in _grafana_rules().values()}
    assert asked == {source["uid"]}


# --- a world in which every panel has something to show ----------------------------------------------------------


def numbers(row: Mapping[str, Any]) -> list[float]:
    """The values of a series that are numbers."""
    values = [row["value"]] if "value" in row else row["values"]
    return [float(value) for _, value in values if not math.isnan(float(value))]


needs_prometheus = pytest.mark.skipif(prometheus.MISSING is not None, reason=prometheus.MISSING or "")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with told(tmp_path_factory.mktemp("story"), RULES) as story:
        yield story


@needs_prometheus
@pytest.mark.server
class TestAgainstPrometheus:
    def asked(self, story: Story, dashboard: Dashboard, values: Values) -> dict[str, list[dict[str, Any]]]:
        return {
            name: story.rows(target, dashboard.interpolate(target["expr"], values, story.seconds))
            for name, target in dashboard.targets()
        }

    def test_every_query_of_the_fleet_returns_data(self, story: Story) -> None:
        answers = self.asked(story, Dashboard(FILES[0]), {})
        assert [name for name, rows in answers.items() if not any(map(numbers, rows))] == []

    def test_every_query_of_the_fleet_returns_data_for_chosen_models(self, story: Story) -> None:
        values: Values = {"registry": ["local", "gone"], "model": ["fraud", "mixture", "torn"]}
        answers = self.asked(story, Dashboard(FILES[0]), values)
        assert [name for name, rows in answers.items() if not any(map(numbers, rows))] == []

    def test_every_query_of_a_mixture_of_experts_returns_data(self, story: Story) -> None:
        answers = self.asked(story, Dashboard(FILES[1]), MIXTURE)
        assert [name for name, rows in answers.items() if not any(map(numbers, rows))] == []

    def test_only_the_panels_about_experts_are_empty_for_a_model_without_any(self, story: Story) -> None:
        answers = self.asked(story, Dashboard(FILES[1]), FRAUD)
        empty = {name for name, rows in answers.items() if not any(map(numbers, rows))}
        assert empty
        assert {name.rpartition(" [")[0] for name in empty} == {
            "Experts by layer",
            "Alpha of the experts over time",
        }

    def test_every_quantity_of_the_history_returns_data(self, story: Story) -> None:
        model = Dashboard(FILES[1])
        (panel,) = [panel for panel in model.panels() if panel["type"] == "heatmap"]
        (target,) = panel["targets"]
        options = [option["value"] for option in model.variables["quantity"]["options"]]
        assert len(options) > 3
        for quantity in options:
            expr = model.interpolate(target["expr"], {**FRAUD, "quantity": quantity})
            assert {row["metric"]["layer"] for row in story.rows(target, expr)} == {"fc1", "fc2", "fc3"}

    def test_the_history_has_the_layers_in_the_order_of_their_numbers(self, story: Story) -> None:
        model = Dashboard(FILES[1])
        for panel in model.panels():
            if panel["type"] in {"heatmap", "state-timeline"}:
                (target,) = panel["targets"]
                rows = story.rows(target, model.interpolate(target["expr"], MIXTURE))
                layers = [int(row["metric"]["layer"].split(".")[1]) for row in rows]
                assert layers == sorted(layers)
                assert set(layers) == set(range(12))

    @dashboards
    def test_every_variable_offers_values(self, story: Story, dashboard: Dashboard) -> None:
        offered = {}
        for name, variable in dashboard.variables.items():
            if variable["type"] == "query":
                selector, label = label_values(dashboard.interpolate(variable["query"]["query"], FRAUD))
                offered[name] = set(story.prometheus.label_values(selector, label))
        assert offered["job"] == {"layerwatch"}
        assert {"fraud", "mixture", "torn"} <= offered["model"]
        if "ref" in offered:
            assert offered["registry"] == {"local"}
            assert offered["ref"] == {"latest"}
        else:
            assert offered["registry"] == {"local", "gone"}

    def test_each_new_version_is_marked_when_it_was_judged(self, story: Story) -> None:
        model = Dashboard(FILES[1])
        (annotation,) = model.annotations
        expr = model.interpolate(annotation["expr"], FRAUD)
        marks = {
            (row["metric"]["version"], value)
            for row in story.prometheus.query_range(expr, story.began, story.ended)
            for value in numbers(row)
        }
        assert [version for version, _ in sorted(marks, key=lambda mark: mark[1])] == ["v1", "v2", "v3"]
        assert all(abs(at / 1000 - story.began) < story.seconds + 60 for _, at in marks)

    def test_the_counts_are_those_of_the_daemon(self, story: Story) -> None:
        fleet = Dashboard(FILES[0])
        shown = {
            panel["title"]: float(
                story.prometheus.query(fleet.interpolate(panel["targets"][0]["expr"], {}), story.ended)[0][
                    "value"
                ][1]
            )
            for panel in fleet.panels()
            if panel["title"] in {"Failed", "Undecided", "Warned", "Passed"}
        }
        exported = list(story.daemon.samples("layerwatch_model_verdict").values())
        assert shown == {
            "Passed": exported.count(0),
            "Warned": exported.count(1),
            "Failed": exported.count(2),
            "Undecided": exported.count(3),
        }
        assert shown["Failed"] == 2
        assert shown["Undecided"] >= 1

    @dashboards
    def test_promtool_can_read_every_query(self, dashboard: Dashboard, tmp_path: Path) -> None:
        exprs = [dashboard.interpolate(target["expr"], FRAUD) for _, target in dashboard.targets()]
        exprs += [dashboard.interpolate(one["expr"], FRAUD) for one in dashboard.annotations]
        rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(exprs)]
        file = tmp_path / "rules.yml"
        file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
        checked = subprocess.run(
            ["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert f"{len(exprs)} rules found" in checked.stdout


# --- Grafana's own code: its types, and what its transformations make of the answers ---------------------------------


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Grafana's packages are installed."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", *NPM_PACKAGES]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    if done.returncode != 0 and (why := unreachable(done.stderr)):
        pytest.skip(f"npm's registry cannot be reached: {why}")
    assert done.returncode == 0, f"npm could not install Grafana's packages:\n{done.stderr[-3000:]}"
    return folder


def unreachable(said: str) -> str | None:
    """The code by which npm says that the registry does not answer; None when it failed for another reason."""
    code = re.search(r"^npm (?:error|ERR!) code (\w+)$", said, re.MULTILINE)
    return code[1] if code and code[1] in UNREACHABLE else None


def test_a_registry_that_nobody_answers_for_is_told_from_what_npm_cannot_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    (tmp_path / "package.json").write_text('{"private": true}')
    asked = ["npm", "install", "--ignore-scripts", "--fetch-retries=0"]
    nobody = [f"--registry=http://127.0.0.1:{free_port()}/", "left-pad@1.3.0"]

    def failure(*arguments: str) -> str | None:
        done = subprocess.run(
            [*asked, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode != 0
        return unreachable(done.stderr)

    assert failure(f"--cache={tmp_path / 'cache'}", *nobody) == "ECONNREFUSED"
    assert failure("./there-is-no-such-folder") is None


_TYPES = """
import type { Dashboard, FieldConfig, FieldConfigSource } from "@grafana/schema";

/** As in JSON: the values of enums instead of the enums. */
type Plain<T> = T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends Array<infer One> ? Plain<One>[]
  : T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;
/** Whatever is left out has a default. */
type Settings<T> = T extends Array<infer One> ? Settings<One>[]
  : T extends object ? { [Key in keyof T]?: Settings<T[Key]> } : T;

export type PlainDashboard = Plain<Dashboard>;
export type Options<T> = Settings<Plain<T>>;
export type Fields<T> = Plain<FieldConfig<Settings<T>>>;
export type FieldSource<T> = Plain<FieldConfigSource<Settings<T>>>;
"""
_PANEL_TYPES = "./node_modules/@grafana/schema/dist/types/raw/composable/{0}/panelcfg/x/types.gen"
# What Grafana's Prometheus data source keeps beside the fields that all annotations have.
_OF_PROMETHEUS = {"expr", "step", "titleFormat", "textFormat", "useValueForTime"}


def typescript(dashboard: Dashboard) -> str:
    """A program that has a type error where the dashboard is not what Grafana's schema says.

    The schema leaves the options of panels open; they are held against the schemas of their kinds one by one.
    """
    whole = json.loads(json.dumps(dashboard.json))
    for annotation in whole["annotations"].get("list", []):
        for name in _OF_PROMETHEUS:
            annotation.pop(name, None)
    kinds = sorted({panel["type"].replace("-", "") for panel in dashboard.panels()})
    lines = ['import type { PlainDashboard, Options, Fields, FieldSource } from "./types";']
    lines += [f'import type * as {kind} from "{_PANEL_TYPES.format(kind)}";' for kind in kinds]
    lines.append(f"export const dashboard: PlainDashboard = {json.dumps(whole)};")
    for panel in dashboard.panels():
        number, kind = panel["id"], panel["type"].replace("-", "")
        own = "{}" if kind == "stat" else f"{kind}.FieldConfig"
        lines.append(
            f"export const options{number}: Options<{kind}.Options> = {json.dumps(panel['options'])};"
        )
        lines.append(f"export const fields{number}: FieldSource<{own}> = {json.dumps(panel['fieldConfig'])};")
        for index, override in enumerate(panel["fieldConfig"]["overrides"]):
            settings: dict[str, Any] = {}
            for one in override["properties"]:
                first, _, rest = one["id"].partition(".")
                if rest:
                    settings.setdefault(first, {})[rest] = one["value"]
                else:
                    settings[first] = one["value"]
            lines.append(f"export const override{number}_{index}: Fields<{own}> = {json.dumps(settings)};")
    return "\n".join(lines)


def type_errors(folder: Path, dashboard: Dashboard) -> str:
    """What the compiler says of it; empty when it fits."""
    (folder / "types.ts").write_text(_TYPES)
    (folder / "dashboard.ts").write_text(typescript(dashboard))
    options = [
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--moduleResolution",
        "bundler",
        "--module",
        "esnext",
    ]
    compiler = folder / "node_modules" / ".bin" / "tsc"
    done = subprocess.run(
        [str(compiler), *options, "dashboard.ts"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.server
@pytest.mark.slow
class TestTypes:
    @dashboards
    def test_grafanas_schema_accepts_the_dashboard(self, dashboard: Dashboard, packages: Path) -> None:
        assert type_errors(packages, dashboard) == ""

    def test_the_check_finds_a_wrong_type_and_an_unknown_option(self, packages: Path) -> None:
        dashboard = Dashboard(FILES[0])
        first, second, *_ = dashboard.panels()
        first["options"]["colorMode"] = "rainbow"
        second["options"]["glitter"] = True
        second["fieldConfig"]["defaults"]["decimals"] = "two"
        dashboard.json["refresh"] = 60
        found = type_errors(packages, dashboard)
        assert "rainbow" in found
        assert "glitter" in found
        assert found.count("Type 'string' is not assignable to type 'number'") == 2
        assert found.count("Type 'number' is not assignable to type 'string'") == 1


Shown = dict[str, list[list[dict[str, Any]]]]


def transformed(story: Story, dashboard: Dashboard, values: Values, packages: Path) -> Shown:
    """Title -> frames that the panel shows, of all panels with transformations."""
    given = []
    for panel in dashboard.panels():
        if "transformations" in panel:
            results = {
                target["refId"]: story.rows(
                    target, dashboard.interpolate(target["expr"], values, story.seconds)
                )
                for target in panel["targets"]
            }
            given.append(
                {
                    "title": panel["title"],
                    "transformations": panel["transformations"],
                    "frames": frames(panel, results),
                }
            )
    script = Path(shutil.copy(Path(__file__).with_name("grafana_transform.cjs"), packages))
    done = subprocess.run(
        ["node", str(script)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Shown = json.loads(done.stdout)
    return found


def table(shown: Shown, title: str) -> list[dict[str, Any]]:
    """The rows of a panel that shows one frame."""
    (columns,) = shown[title]
    return [
        dict(zip([column["name"] for column in columns], row, strict=True))
        for row in zip(*(column["values"] for column in columns), strict=True)
    ]


@needs_prometheus
@pytest.mark.server
@pytest.mark.slow
class TestWithGrafanasOwnCode:
    def test_every_column_that_has_settings_is_there(self, story: Story, packages: Path) -> None:
        for dashboard in map(Dashboard, FILES):
            shown = transformed(story, dashboard, MIXTURE if dashboard.variables.get("ref") else {}, packages)
            for panel in dashboard.panels():
                if panel["title"] in shown:
                    (columns,) = shown[panel["title"]]
                    names = {column["name"] for column in columns}
                    wanted = {
                        one["matcher"]["options"]
                        for one in panel["fieldConfig"]["overrides"]
                        if one["matcher"]["id"] == "byName"
                    }
                    assert wanted <= names, panel["title"]
                    # What was forgotten has the name of its query.
                    assert not {name for name in names if name.startswith(("Value", "Time"))}, panel["title"]

    def test_the_models_are_listed_the_worst_first_with_their_broken_layers(
        self, story: Story, packages: Path
    ) -> None:
        rows = table(transformed(story, Dashboard(FILES[0]), {}, packages), "Models, the worst first")
        assert [(row["Model"], row["Verdict"], row["Broken"]) for row in rows][:3] == [
            ("fraud", 2, 1),
            ("mixture", 2, 1),
            ("torn", 3, 0),
        ]
        assert rows[0]["Version"] == "v3"
        assert rows[0]["Report"].startswith(
            "https://layerwatch.example.com/report?registry=local&model=fraud&ref=latest"
        )

    def test_alpha_stands_in_the_order_of_the_layers_numbers_beside_the_baselines(
        self, story: Story, packages: Path
    ) -> None:
        rows = table(
            transformed(story, Dashboard(FILES[1]), MIXTURE, packages),
            "Alpha by depth: now against the baseline",
        )
        names = [row["Layer"] for row in rows]
        exported = story.prometheus.query('layerwatch_layer_alpha{model="mixture"}', story.ended)
        values = {row["metric"]["layer"]: float(row["value"][1]) for row in exported}
        assert {row["Layer"]: row["alpha now"] for row in rows} == pytest.approx(values)
        numbered = [int(name.split(".")[1]) for name in names if name.endswith("attn")]
        assert numbered == sorted(numbered)
        assert len(numbered) == 12
        assert any(row["alpha of the baseline"] is not None for row in rows)

    def test_a_broken_layer_stands_above_the_others(self, story: Story, packages: Path) -> None:
        rows = table(transformed(story, Dashboard(FILES[1]), FRAUD, packages), "Layers, the worst first")
        assert (rows[0]["Layer"], rows[0]["Status"]) == ("fc2", 3)
        assert len(rows) == 3
        assert rows[0]["Difference"] == pytest.approx(rows[0]["Alpha"] - rows[0]["Alpha of the baseline"])

    def test_experts_are_told_by_layer(self, story: Story, packages: Path) -> None:
        rows = table(transformed(story, Dashboard(FILES[1]), MIXTURE, packages), "Experts by layer")
        assert [(row["Layer"], row["Experts"], row["Broken"]) for row in rows] == [
            ("layers.2.mlp.experts.*.w1", 8, 0),
            ("layers.10.mlp.experts.*.w1", 8, 1),
        ]
        for row in rows:
            assert row["Lowest alpha"] <= row["Median alpha"] <= row["Highest alpha"]
