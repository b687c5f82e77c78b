"""CI systems in small: each takes a template as it is shipped, fills it in as its system would, and runs its shell.

What they leave out is the system itself: runners, containers, uploads.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from layerwatch_testing import processes

CI = Path(__file__).resolve().parents[3] / "deploy" / "ci"


@dataclass(frozen=True)
class Finished:
    """How a job ended.

    Attributes:
        code: exit code of what judges.
        failed: whether the job failed.
        log: what was printed.
        outputs: what the system would hand to later steps.
        files: folder with the reports.
    """

    code: int
    failed: bool
    log: str
    outputs: Mapping[str, str]
    files: Path


class Machine(Protocol):
    """One CI system."""

    def run(self, folder: Path, **inputs: str) -> Finished:
        """The gate's job in this folder; inputs are called as on GitHub (fail_on, ignore_file, ...)."""


def tools(folder: Path) -> Path:
    """A folder for PATH with this working tree's ``layerwatch``, and ``python``; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, command in (
        ("layerwatch", f'"{sys.executable}" -P -m layerwatch.daemon'),
        ("python", f'"{sys.executable}"'),
        ("python3", f'"{sys.executable}"'),
    ):
        file = folder / name
        if file.exists():
            continue
        file.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        file.chmod(0o755)
    return folder


def shell(command: list[str], folder: Path, variables: Mapping[str, str]) -> tuple[int, str]:
    """Run a shell; exit code, and both outputs as one text."""
    environment = processes.environment(**variables, XDG_CACHE_HOME=str(folder.parent / "cache"))
    paths = [*variables.get("PATH_FIRST", "").split(os.pathsep), str(tools(folder.parent / "tools"))]
    environment["PATH"] = os.pathsep.join([*filter(None, paths), environment["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout


@dataclass
class GitHub:
    """The composite action: inputs with defaults, ``if``, ``env``, step outputs, the three files.

    Attributes:
        used: actions that a step used, with their inputs, in order.
    """

    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def run(self, folder: Path, **inputs: str) -> Finished:
        """The steps; installing is left out unless asked for."""
        action = yaml.safe_load((CI / "github" / "action.yml").read_text())
        given = {"install": "false", **{name.replace("_", "-"): value for name, value in inputs.items()}}
        unknown = given.keys() - action["inputs"].keys()
        assert not unknown, unknown
        values = {
            f"inputs.{name}": given.get(name, about.get("default", ""))
            for name, about in action["inputs"].items()
        }
        state = folder.parent / "runner"
        state.mkdir(exist_ok=True)
        log, failed, path = "", False, ""
        for number, step in enumerate(action["runs"]["steps"]):
            condition = step.get("if", "success()")
            if (failed and "always()" not in condition) or not _holds(condition, values):
                continue
            if "uses" in step:
                with_ = {name: _filled(value, values) for name, value in step["with"].items()}
                self.used.append((step["uses"].partition("@")[0], with_))
                continue
            files = {name: state / f"{name}-{number}" for name in ("GITHUB_OUTPUT", "GITHUB_PATH")}
            for file in files.values():
                file.write_text("")
            (state / "script.sh").write_text(step["run"])
            variables = {name: _filled(value, values) for name, value in step.get("env", {}).items()}
            variables |= {name: str(file) for name, file in files.items()}
            variables |= {
                "GITHUB_STEP_SUMMARY": str(state / "summary.md"),
                "GITHUB_ACTION_PATH": str(CI / "github"),
                "GITHUB_ACTIONS": "true",
                "CI": "true",
                "RUNNER_TEMP": str(state),
                "PATH_FIRST": path,
            }
            # The shell of `shell: bash`, as the documentation of workflows gives it.
            assert step["shell"] == "bash"
            code, text = shell(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(state / "script.sh")],
                folder,
                variables,
            )
            log, failed = log + text, failed or code != 0
            path = os.pathsep.join([*reversed(files["GITHUB_PATH"].read_text().splitlines()), path])
            for line in files["GITHUB_OUTPUT"].read_text().splitlines():
                name, _, value = line.partition("=")
                values[f"steps.{step['id']}.outputs.{name}"] = value
        outputs = {name: _filled(about["value"], values) for name, about in action["outputs"].items()}
        with suppress(FileNotFoundError):
            outputs["summary"] = (state / "summary.md").read_text()
        return Finished(int(outputs["exit-code"] or -1), failed, log, outputs, folder / "layerwatch")


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda match: values.get(match[1], ""), text)


def _holds(condition: str, values: Mapping[str, str]) -> bool:
    """Conditions of the forms that the action uses."""
    for part in condition.split("&&"):
        if part.strip() in ("always()", "success()"):
            continue
        match = re.fullmatch(r"([\w.-]+) *(==|!=) *'([^']*)'", part.strip())
        assert match, condition
        if (values.get(match[1], "") == match[3]) is not (match[2] == "=="):
            return False
    return True


@dataclass
class GitLab:
    """The component: its inputs put into the job, variables, the script as one.

    Attributes:
        program: that runs scripts: a runner takes bash where the image has it, else sh.
    """

    program: str = "sh"

    @staticmethod
    def job(**inputs: str) -> dict[str, Any]:
        """The pipeline configuration that the component becomes."""
        header, body = yaml.safe_load_all((CI / "gitlab" / "templates" / "gate.yml").read_text())
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        about = header["spec"]["inputs"]
        assert given.keys() <= about.keys()
        values = {name: given.get(name, one.get("default")) for name, one in about.items()}
        assert None not in values.values(), "an input without a default must be given"

        def put(part: Any) -> Any:
            if isinstance(part, dict):
                return {put(key): put(value) for key, value in part.items()}
            if isinstance(part, list):
                return [put(one) for one in part]
            if isinstance(part, str):
                return re.sub(r"\$\[\[ *inputs\.([\w-]+) *\]\]", lambda match: _text(values[match[1]]), part)
            return part

        filled: dict[str, Any] = put(body)
        return filled

    def run(self, folder: Path, **inputs: str) -> Finished:
        """The script of the job."""
        (job,) = self.job(**inputs).values()
        variables = {name: str(one["value"]) for name, one in job["variables"].items()}
        assert not any(one["expand"] for one in job["variables"].values())
        script = folder.parent / "script.sh"
        script.write_text("set -e\n" + "\n".join(job["script"]))
        code, log = shell(
            [self.program, str(script)], folder, {**variables, "GITLAB_CI": "true", "CI": "true"}
        )
        return Finished(code, code != 0, log, {}, folder / "layerwatch")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass
class Jenkins:
    """The shell step of the Jenkinsfile. Its Groovy is not run here."""

    def run(self, folder: Path, **inputs: str) -> Finished:
        """What ``sh(returnStatus: true)`` does."""
        source = (CI / "jenkins" / "Jenkinsfile").read_text()
        (script,) = re.findall(r"script: '''\n(.*?)'''", source, re.DOTALL)
        assert "\\" not in script, "Groovy would read it as an escape"
        names = dict(re.findall(r'(LW_\w+) = "\$\{params\.(\w+)\}"', source))
        defaults = {
            name: default for name, default in re.findall(r"name: '(\w+)', defaultValue: '(\w*)'", source)
        }
        defaults |= dict(re.findall(r"choice\(name: '(\w+)', choices: \['(\w+)'", source))
        given = {name.upper(): value for name, value in inputs.items()}
        assert given.keys() <= set(names.values())
        variables = {name: given.get(one, defaults.get(one, "")) for name, one in names.items()}
        # A variable that is set to nothing is not set for Jenkins' shells.
        variables = {name: value for name, value in variables.items() if value}
        file = folder.parent / "script.sh"
        file.write_text(script)
        code, log = shell(["sh", "-xe", str(file)], folder, {**variables, "BUILD_NUMBER": "1"})
        return Finished(code, code != 0, log, {}, folder / "layerwatch")


@dataclass
class Argo:
    """The script template: parameters into its environment, output parameters from its files."""

    def run(self, folder: Path, **inputs: str) -> Finished:
        """The source, by the template's command."""
        (template,) = yaml.safe_load((CI / "argo" / "gate.yaml").read_text())["spec"]["templates"]
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        defaults = {one["name"]: one["value"] for one in template["inputs"]["parameters"]}
        assert given.keys() <= defaults.keys()
        values = {f"inputs.parameters.{name}": value for name, value in {**defaults, **given}.items()}
        script = template["script"]
        variables = {
            one["name"]: re.sub(r"\{\{([\w.-]+)\}\}", lambda match: values[match[1]], one["value"])
            for one in script["env"]
        }
        assert variables["LW_OUTPUT"] == "/tmp/layerwatch"
        output = folder.parent / "output"
        variables["LW_OUTPUT"] = str(output)
        file = folder.parent / "source"
        file.write_text(script["source"])
        code, log = shell([*script["command"], str(file)], folder, variables)
        outputs = {
            one["name"]: _file(output / Path(one["valueFrom"]["path"]).name, one["valueFrom"]["default"])
            for one in template["outputs"]["parameters"]
        }
        return Finished(code, code != 0, log, outputs, output)


@dataclass
class Tekton:
    """The only step of the Task: an executable script, parameters, results and the workspace."""

    def run(self, folder: Path, **inputs: str) -> Finished:
        """The script as the entrypoint would start it."""
        spec = yaml.safe_load((CI / "tekton" / "gate.yaml").read_text())["spec"]
        (step,) = spec["steps"]
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        defaults = {one["name"]: one.get("default", "") for one in spec["params"]}
        assert given.keys() <= defaults.keys()
        values = {f"params.{name}": value for name, value in {**defaults, **given}.items()}
        results = {one["name"]: folder.parent / f"result-{one['name']}" for one in spec["results"]}
        values |= {f"results.{name}.path": str(file) for name, file in results.items()}
        values["workspaces.source.path"] = str(folder)
        variables = {
            one["name"]: re.sub(r"\$\(([\w.-]+)\)", lambda match: values[match[1]], one["value"])
            for one in step["env"]
        }
        file = folder.parent / "script"
        file.write_text(step["script"])
        file.chmod(0o755)
        code, log = shell([str(file)], folder, variables)
        outputs = {name: _file(file, "") for name, file in results.items()}
        return Finished(code, code != 0, log, outputs, folder / "layerwatch")


def _file(path: Path, default: str) -> str:
    return path.read_text() if path.exists() else default


def shell_scripts() -> Iterator[tuple[str, str, str]]:
    """Every piece of shell in the templates: where it is, which shell runs it, its text."""
    action = yaml.safe_load((CI / "github" / "action.yml").read_text())
    for step in action["runs"]["steps"]:
        if "run" in step:
            yield f"github: {step['name']}", "bash", step["run"]
    (job,) = GitLab.job(model="m").values()
    yield "gitlab", "sh", "\n".join(job["script"])
    source = (CI / "jenkins" / "Jenkinsfile").read_text()
    for script in re.findall(r"script: '''\n(.*?)'''", source, re.DOTALL):
        yield "jenkins", "sh", script
    (template,) = yaml.safe_load((CI / "argo" / "gate.yaml").read_text())["spec"]["templates"]
    yield "argo", "sh", template["script"]["source"]
    (step,) = yaml.safe_load((CI / "tekton" / "gate.yaml").read_text())["spec"]["steps"]
    yield "tekton", "sh", step["script"]
    yield "pre-push", "sh", (CI / "pre-push" / "pre-push").read_text()
